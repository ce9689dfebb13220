"""Results of an evaluation as tables, with bootstrap intervals."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.evaluation.metrics import Figures, ObjectScene, RocCurve, figures

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from imagery import Image
    from numpy.typing import NDArray

DRAWS, SEED = 2000, 0
"""Bootstrap samples, and what they are drawn from."""
LONG = 10
"""Groups with more scenes are listed by their mean and their worst scenes."""
COLUMNS = {
    "AUC(D,F)": 3,
    "AP": 3,
    "FPR at .95": 3,
    "AUC(D,tau)": 3,
    "AUC(F,tau)": 3,
    "FA/Mpx at .5": 0,
    "FA/Mpx at .8": 0,
}
"""Column to its decimals; see :meth:`Result.values`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """The figures of one detector on one scene."""

    detector: str
    """Name of the weights, or of the baseline."""
    weights: str
    """Name of the weights file, as seeds of one recipe share ``detector``; empty for a baseline."""
    group: str
    scene: str
    figures: Figures
    average_precision: float
    alarm_rate: float
    """FPR at 95 % Pd, of pixels."""
    alarms: tuple[float, float]
    """False alarms per megapixel if .5 and .8 of the objects are found."""
    curve: RocCurve
    """Thinned curve, to draw."""

    @classmethod
    def of(
        cls, entry: tuple[str, str], group: str, image: Image, scores: NDArray[np.float32]
    ) -> Result:
        """Judge a map in the counted area; ``entry`` is (detector, weights)."""
        judged, truth = scores[image.counted], image.targets[image.counted]
        curve = RocCurve.of(judged, truth)
        objects = ObjectScene.of(scores, image.targets, image.counted)
        alarms = [objects.false_alarms_per_megapixel(share) for share in (0.5, 0.8)]
        return cls(
            detector=entry[0],
            weights=entry[1],
            group=group,
            scene=image.name,
            figures=figures(judged, truth),
            average_precision=curve.average_precision,
            alarm_rate=curve.alarm_rate_at(0.95),
            alarms=(alarms[0], alarms[1]),
            curve=curve.thinned(),
        )

    @property
    def values(self) -> tuple[float, ...]:
        """The figures in the order of :data:`COLUMNS`."""
        f = self.figures
        return (f.auc_df, self.average_precision, self.alarm_rate, f.auc_dt, f.auc_ft, *self.alarms)


def matrix(results: Sequence[Result], column: int = 0) -> NDArray[np.float64]:
    """Return one figure (seed, scene) of one detector in one group."""
    seeds = dict.fromkeys(r.weights for r in results)
    return np.array([[r.values[column] for r in results if r.weights == seed] for seed in seeds])


def interval(groups: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Return the 95 % interval of the mean over groups, by hierarchical bootstrap.

    Each draw resamples the seeds, the same for all groups, and in each group the scenes, with
    replacement. With one seed the interval does not cover the spread of seeds.

    Args:
        groups: (seed, scene) per group, with the same number of seeds.
    """
    rng = np.random.default_rng(SEED)
    number = len(groups[0])
    seeds = rng.integers(number, size=(DRAWS, number))
    total = np.zeros(DRAWS)
    for values in groups:
        scenes = rng.integers(values.shape[1], size=(DRAWS, values.shape[1]))
        total += values[seeds[:, :, None], scenes[:, None, :]].mean(axis=(1, 2))
    low, high = np.quantile(total / len(groups), [0.025, 0.975])
    return float(low), float(high)


def split(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    """Return results by (group, detector), in their order."""
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        found.setdefault((result.group, result.detector), []).append(result)
    return found


def group_table(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Return one row per group and detector, then the mean over groups."""
    cells = split(results)
    rows: list[tuple[str, ...]] = [("group", "detector", "seeds", "scenes", *COLUMNS)]
    groups = dict.fromkeys(group for group, _ in cells)
    for group in groups:
        rows += [_row(group, name, [found]) for (g, name), found in cells.items() if g == group]
    if len(groups) > 1:
        for detector in dict.fromkeys(name for _, name in cells):
            found = [rows for (_, name), rows in cells.items() if name == detector]
            rows.append(_row(f"mean of {len(found)} groups", detector, found))
    return rows


def _row(label: str, detector: str, groups: Sequence[Sequence[Result]]) -> tuple[str, ...]:
    """Return the row of a detector: means over groups of means over seeds and scenes."""
    areas = [matrix(group) for group in groups]
    low, high = interval(areas)
    cells = []
    for column, (name, digits) in enumerate(COLUMNS.items()):
        mean = np.mean([matrix(group, column).mean() for group in groups])
        extent = f" [{low:.3f}, {high:.3f}]" if name == "AUC(D,F)" else ""
        cells.append(f"{mean:.{digits}f}{extent}")
    scenes = sum(area.shape[1] for area in areas)
    return (label, detector, str(len(areas[0])), str(scenes), *cells)


def scene_table(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Return AUC(D,F) of every scene, mean over seeds, one column per detector.

    Long groups have their worst scenes only.
    """
    detectors = list(dict.fromkeys(r.detector for r in results))
    rows: list[tuple[str, ...]] = [("group", "scene", *detectors)]
    for group in dict.fromkeys(r.group for r in results):
        here = [r for r in results if r.group == group]
        areas = {
            scene: [
                float(
                    np.mean([r.figures.auc_df for r in here if (r.scene, r.detector) == (scene, d)])
                )
                for d in detectors
            ]
            for scene in dict.fromkeys(r.scene for r in here)
        }
        scenes = list(areas)
        if len(scenes) > LONG:
            scenes = sorted(scenes, key=lambda scene: areas[scene][0])[: LONG // 2]
        rows += [(group, scene, *(f"{a:.3f}" for a in areas[scene])) for scene in scenes]
    return rows


def means(results: Sequence[Result]) -> dict[str, float]:
    """Return the mean AUC(D,F) of each group, of the results of one detector."""
    return {
        group: round(float(matrix(found).mean()), 4) for (group, _), found in split(results).items()
    }


def markdown(rows: Sequence[tuple[str, ...]]) -> str:
    """Format rows, the first of which is the header, as a Markdown table."""
    lines = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """Write every figure of every scene, detector and seed, unrounded, and the other AUCs."""
    others = [name for name in results[0].figures.family if name not in COLUMNS]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["group", "scene", "detector", "weights", *COLUMNS, *others])
        for r in results:
            rest = [r.figures.family[name] for name in others]
            writer.writerow([r.group, r.scene, r.detector, r.weights, *r.values, *rest])
