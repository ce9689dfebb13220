"""Measure levels: false objects per megapixel by score, on windows without anomalies.

    uniadrs-scale-train threshold WEIGHTS --training TRAIN_IMAGERY --out runs/levels [--write]

Every preset gets its own curve. Its levels are checked
on other windows, a third as many. Beyond the last measured objects the curve is a generalised
Pareto distribution of the logits, fitted to the highest (Coles 2001, chapter 4). A killed run
resumes. ``--write`` stores curves and check in the weights' metadata, from which the library
reads them; the tensors stay as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import empty
import numpy as np
from evaluate import annotate
from scipy import ndimage
from scipy.special import expit, logit
from scipy.stats import genpareto

import uniadrs_scale
from uniadrs_scale.core.levels import GROW, RATES, Levels
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.core.presets import PRESETS
from uniadrs_scale.detector.coarse import coarsened
from uniadrs_scale.objects.components import EIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import imagery
    from numpy.typing import NDArray

WINDOWS, SEED = 3000, 77
"""Generated windows for a curve."""
CHECK = 4
"""One window in so many does not make the curve, but checks it."""
SEEN = 128
"""Side of a window in pixels that the network sees."""
POINTS, LEAST = 32, 0.01
"""Points of a curve, and the rate at which it ends [per Mpx]."""
MEASURED, TAIL = 10, 150
"""Objects above the last measured score, and objects that the tail is fitted to."""
HIGHEST = float(logit(1 - 1e-6))
PARTS = "curve", "check"
FEW = "multispectral"
"""The preset whose medium level is the threshold of readers that know no levels."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The objects of many windows."""

    windows: int
    megapixels: float
    peaks: NDArray[np.float64]
    """Highest score of each object."""

    @classmethod
    def of(cls, lines: Iterable[dict[str, object]]) -> Counted:
        """Return the sum of windows as :func:`count` wrote them."""
        found = list(lines)
        pixels = sum(int(str(line["pixels"])) for line in found)
        peaks = [np.array(line["peaks"], np.float64) for line in found]
        return cls(len(found), pixels / 1e6, np.concatenate([*peaks, np.empty(0)]))

    def rate(self, threshold: float) -> float:
        """Return objects per megapixel whose peak is at least ``threshold``."""
        return float((self.peaks >= threshold).sum() / max(self.megapixels, 1e-9))


def objects(scores: NDArray[np.float32], counted: NDArray[np.bool_]) -> list[float]:
    """Return the peaks of those objects of a map that touch no pixel outside the counted area.

    The outermost pixels do not count: a window is a piece of a scene, and what its border cuts is
    small there only. Such objects doubled the rate of level medium (few bands).
    """
    labels, number = ndimage.label(scores >= GROW, EIGHT)
    every = range(1, number + 1)
    peaks = ndimage.maximum(scores, labels, every)
    inner = np.pad(counted[1:-1, 1:-1], 1)
    whole = ndimage.minimum(inner, labels, every)
    return [round(float(p), 7) for p, inside in zip(peaks, whole, strict=True) if inside]


def score(
    detector: uniadrs_scale.Detector, preset: str, image: imagery.Image
) -> NDArray[np.float32]:
    """Return the map (y, x) of a window that is one tile."""
    tile = image.pixels.shape[1]
    statistics = BandStatistics.of(image.pixels, np.ones(image.pixels.shape[1:], bool))
    kind = PRESETS[preset]
    fitted = coarsened(detector, kind.scales, tile, kind.terms, smoothing=kind.smoothing).fitted(
        statistics
    )
    scaled = statistics.normalisation().apply(image.pixels)
    scores: NDArray[np.float32] = fitted.score_tiles(scaled[None])[0]
    return scores


@lru_cache(maxsize=1)
def _real(preset: str, side: int, training: Path) -> tuple[imagery.Image, ...]:
    return tuple(empty.real(preset, training, side, SEED))


def windows(preset: str, training: Path | None, number: int) -> Iterator[tuple[str, int]]:
    """Yield the kind and number of every window of a preset; real ones come first."""
    side = SEEN * PRESETS[preset].coarsen
    real = 0 if training is None else len(_real(preset, side, training))
    yield from (("real", order) for order in range(real))
    yield from (("generated", order) for order in range(number * CHECK // (CHECK - 1)))


def window(preset: str, training: Path | None, kind: str, order: int) -> imagery.Image:
    """Return one window."""
    side = SEEN * PRESETS[preset].coarsen
    if kind == "real" and training is not None:
        return _real(preset, side, training)[order]
    return empty.generated(preset, side, SEED, order)


def count(
    weights: Path, preset: str, training: Path | None, number: int, path: Path
) -> list[dict[str, object]]:
    """Return the objects of every window; scores only those that ``path`` does not list yet."""
    detector = uniadrs_scale.Detector.load(weights, device="cpu")
    known = path.read_text().splitlines() if path.exists() else []
    lines = [json.loads(line) for line in known if line.endswith("}")]  # not one that was cut off
    done = {(line["kind"], line["order"]) for line in lines}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if known and not known[-1].endswith("}"):
            file.write("\n")
        for kind, order in windows(preset, training, number):
            if (kind, order) in done:
                continue
            image = window(preset, training, kind, order)
            line = {
                "kind": kind,
                "order": order,
                "pixels": int(image.counted.sum()),
                "peaks": objects(score(detector, preset, image), image.counted),
            }
            file.write(json.dumps(line) + "\n")
            file.flush()
            lines.append(line)
    return lines


def split(lines: Iterable[dict[str, object]], kind: str, part: str) -> Counted:
    """Return the windows of a kind that make the curve, or those that check it."""
    return Counted.of(
        line
        for line in lines
        if line["kind"] == kind
        and (int(str(line["order"])) % CHECK == CHECK - 1) == (part == "check")
    )


def curve(preset: str, counted: Counted) -> Levels:
    """Return the levels of a preset from the objects of windows without anomalies.

    Raises:
        ValueError: There are too few objects to fit a tail.
    """
    highest = np.sort(logit(np.clip(counted.peaks, GROW, 1 - 1e-6)))[::-1]
    if len(highest) <= TAIL:
        raise ValueError(
            f"{counted.windows} windows have {len(highest)} objects, and a curve needs more than "
            f"{TAIL}. Use more --windows; those that are counted stay."
        )
    start = highest[TAIL]
    shape, _, scale = genpareto.fit(highest[:TAIL] - start, floc=0)
    top = counted.rate(GROW)
    rates = np.geomspace(top, LEAST, POINTS)
    numbers = rates * counted.megapixels
    scores = np.empty(POINTS)
    for point, expected in enumerate(numbers):
        if expected > MEASURED:
            scores[point] = highest[min(round(expected), len(highest)) - 1]
        else:
            scores[point] = start + genpareto.isf(expected / TAIL, shape, scale=scale)
    scores = np.maximum.accumulate(np.minimum(scores, HIGHEST))
    # Equal scores are one point, with the lowest of their rates.
    rounded = np.round(expit(scores), 6)
    last = np.append(np.diff(rounded) > 0, True)
    measured = float(rounded[numbers > MEASURED].max())
    return Levels.of_curve(preset, rounded[last], np.round(rates[last], 6), measured)


def checked(levels: Levels, lines: list[dict[str, object]]) -> dict[str, object]:
    """Return windows, megapixels and realised rates of every kind and part, as JSON values."""
    found: dict[str, object] = {}
    for kind in ("generated", "real"):
        for part in PARTS:
            counted = split(lines, kind, part)
            if counted.windows:
                found[f"{kind} {part}"] = {
                    "windows": counted.windows,
                    "mpx": round(counted.megapixels, 2),
                } | {n: round(counted.rate(levels.threshold(n)), 3) for n in RATES}
    return found


def write(weights: Path, found: dict[str, Levels], evidence: dict[str, object]) -> None:
    """Store the levels, and how they were measured, in the metadata; other presets keep theirs."""
    metadata = uniadrs_scale.Detector.load(weights, device="cpu").info.metadata
    levels = json.loads(metadata.get("levels", "{}"))
    levels |= {preset: one.to_json() for preset, one in found.items()}
    measured = json.loads(metadata.get("levels_evidence", "{}")) | evidence
    facts = {"levels": json.dumps(levels), "levels_evidence": json.dumps(measured)}
    if FEW in found:
        facts["threshold"] = f"{found[FEW].medium:.3f}"
    annotate(weights, facts)


def main() -> None:
    """Run the command line; end with a sentence and code 1 on an error."""
    try:
        run()
    except (uniadrs_scale.UniadrsScaleError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def run() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(
        prog="uniadrs-scale-train threshold",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", type=Path, help="file of weights")
    parser.add_argument("--training", type=Path, help="training imagery: its empty parts count too")
    parser.add_argument(
        "--presets", nargs="+", choices=PRESETS, default=[*PRESETS], help="default: all"
    )
    parser.add_argument("--windows", type=int, default=WINDOWS, help="generated windows per curve")
    parser.add_argument("--out", type=Path, required=True, help="folder of counts, to resume")
    parser.add_argument("--write", action="store_true", help="store the levels in the weights")
    args = parser.parse_args()
    found: dict[str, Levels] = {}
    evidence: dict[str, object] = {}
    content = uniadrs_scale.Detector.load(args.weights, device="cpu").info.content[:8]
    for preset in args.presets:
        terms = "".join(f"-{name}-{factor:g}" for name, factor in PRESETS[preset].terms)
        terms += f"-smoothing-{n}" if (n := PRESETS[preset].smoothing) > 1 else ""
        path = args.out / f"{args.weights.stem}-{content}-{preset}{terms}.jsonl"
        lines = count(args.weights, preset, args.training, args.windows, path)
        found[preset] = curve(preset, split(lines, "generated", "curve"))
        evidence[preset] = checked(found[preset], lines)
        print(preset, json.dumps(found[preset].to_json()))
        print(preset, json.dumps(evidence[preset]), flush=True)
    if args.write:
        write(args.weights, found, evidence)


if __name__ == "__main__":
    main()
