"""The demo: invent a scene with planted anomalies, score it, and show the ones found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from scipy import ndimage

from uniadrs_scale.core.arguments import whole
from uniadrs_scale.core.contracts import Printed
from uniadrs_scale.core.levels import RATES, score_text
from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.demo.scene import demo_scene, write_scene
from uniadrs_scale.detector.detector import Detector, levels_of
from uniadrs_scale.maps.cog import to_cog
from uniadrs_scale.maps.exports import FinishedMap
from uniadrs_scale.maps.layout import Peak
from uniadrs_scale.maps.pictures import Ring, Subject, draw, encoded
from uniadrs_scale.scenes.open import open_scene
from uniadrs_scale.scenes.preview import scene_picture
from uniadrs_scale.scoring.job import compute_for, prepare, suited
from uniadrs_scale.scoring.run import Observer, run
from uniadrs_scale.storage.places import Place
from uniadrs_scale.swaths.geometry import Geocoding

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr
    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import Scorer
    from uniadrs_scale.demo.scene import PlantedTarget, SyntheticScene
    from uniadrs_scale.runtime.tasks import ChunkReport
    from uniadrs_scale.scoring.report import RunSummary

ANOMALIES = 40
"""Anomalies in a scene of 2048 x 2048 px; smaller scenes have fewer, by area, but at least 4."""
LEVEL = "medium"
"""Level at which a target counts as found: a false object per Mpx of empty ground."""
FALSE_ALARMS = 1e-3
"""Share of background pixels over the threshold of a scorer that recommends none."""
NEAR, CLEAR = 3, 8
"""Pixels around a footprint that count as the target, and pixels that do not count as background
[px]."""
RULE = f"found: the highest score within {NEAR} px exceeds the threshold"
CLOSE_UPS = 14
"""Close-ups in the picture."""
FOUND, MISSED = "#22e0ff", "#ff5470"


@dataclass(frozen=True, slots=True)
class Findings:
    """The planted targets that a score map tells from the background."""

    found: tuple[bool, ...]
    """One value per target of the scene, in its order."""
    threshold: float
    """As given, or the score that 1 of 1000 background pixels exceeds; NaN without targets."""
    alarms: float
    """Share of background pixels over the threshold, 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DemoReport(Printed):
    """The files of a demo, and its counts."""

    scene: Path
    """The invented scene, a GeoTIFF."""
    store: Path
    """Its anomaly map, Zarr."""
    cog: Path
    """Its anomaly map, COG."""
    picture: Path
    """Both side by side, PNG."""
    findings: Findings
    """At level medium, if the scorer has levels."""
    at_levels: dict[str, int]
    """Targets found at each level; empty if the scorer has none."""
    summary: RunSummary

    @property
    def found(self) -> int:
        """Number of targets found."""
        return sum(self.findings.found)

    @property
    def planted(self) -> int:
        """Number of targets planted."""
        return len(self.findings.found)

    @property
    def complete(self) -> bool:
        """True if every valid pixel has a score."""
        return self.summary.complete

    def text(self) -> str:
        """Return the closing lines: the counts, the rule they follow, and the files."""
        level = f"level {LEVEL}, " if self.at_levels else ""
        counts = ", ".join(f"{number} at {name}" for name, number in self.at_levels.items())
        others = f"found    {counts}\n" if counts else ""
        return (
            f"{self.found} of {self.planted} planted anomalies found ({level}threshold "
            f"{score_text(self.findings.threshold)}, exceeded by {self.findings.alarms:.4%} of the "
            f"background)\n{RULE}\n{self.summary.text()}\n"
            f"{others}scene    {self.scene}\nmap      {self.store}\n"
            f"COG      {self.cog}\npicture  {self.picture}"
        )


def demo(
    folder: str | Path,
    *,
    size: int = 2048,
    seed: int = 7,
    scheduler: str | None = None,
    workers: int | None = None,
    detector: Scorer | None = None,
    on_report: Callable[[ChunkReport], None] = lambda _: None,
) -> DemoReport:
    """Make a folder with an invented scene, its map as Zarr and COG, and a picture of both.

    A second call resumes an interrupted one.

    Args:
        folder: The folder; made if it does not exist.
        size: Side of the scene [px], at least 256.
        seed: Another seed gives another landscape with other anomalies.
        scheduler: Address of a Dask cluster; by default workers on this machine.
        workers: Processes on this machine; by default one per core, or one per GPU.
        detector: Scorer of the tiles; by default the weights that ship with the library.
        on_report: Called after every committed chunk.

    Returns:
        The files, and the planted anomalies that were found (:func:`count_found`).

    Raises:
        UniadrsScaleError: The folder cannot be written or holds another demo, or ``size`` is too
            small.
    """
    seed = whole("seed", seed, 0)
    invented = demo_scene(seed, size, max(4, min(ANOMALIES, round(ANOMALIES * (size / 2048) ** 2))))
    target = Path(folder)
    path, store = target / "scene.tif", target / "scores.zarr"
    write_scene(invented, path)
    scene = open_scene(path)
    scorer = detector if detector is not None else Detector.load()
    compute = compute_for(scorer, scheduler, workers)
    job = prepare(scene, Sizes(), scorer, compute)
    compute = suited(job, compute)
    summary = run(job, store, compute, Observer(on_report=on_report, companions=False))
    cog = target / "scores.tif"
    to_cog(store, cog)
    with rasterio.open(cog) as output:
        score = output.read(1)
    levels = levels_of(scorer, job.plan.preset_name)
    if levels is None:
        at_levels = {}
        findings = count_found(score, invented, getattr(scorer, "threshold", None))
    else:
        counts = {n: count_found(score, invented, levels.threshold(n)) for n in RATES}
        at_levels = {name: sum(count.found) for name, count in counts.items()}
        findings = counts[LEVEL]
    picture = render(invented, scene, store, findings)
    return DemoReport(
        scene=path,
        store=store,
        cog=cog,
        picture=picture,
        findings=findings,
        at_levels=at_levels,
        summary=summary,
    )


def count_found(
    score: NDArray[np.float32], scene: SyntheticScene, threshold: float | None = None
) -> Findings:
    """Count the planted targets that stand out of the background.

    Background is every valid pixel more than 8 px away from all targets. A target is found if the
    highest score within 3 px of its footprint exceeds the threshold.

    Args:
        score: (y, x) of the scene, 0..1, NaN = invalid.
        scene: The scored scene.
        threshold: By default the score that 1 of 1000 background pixels exceeds.
    """
    nan = float("nan")
    if not scene.truth.any():  # distances would be undefined
        return Findings((), nan, nan)
    distance = np.asarray(ndimage.distance_transform_edt(~scene.truth), np.float64)
    background = score[scene.valid & np.isfinite(score) & (distance > CLEAR)]
    if background.size == 0:
        return Findings((False,) * len(scene.targets), nan, nan)
    if threshold is None:
        threshold = float(np.quantile(background, 1 - FALSE_ALARMS, method="higher"))
    peaks = (_highest_near(score, distance, target) for target in scene.targets)
    found = tuple(peak > threshold for peak in peaks)
    return Findings(found, threshold, float((background > threshold).mean()))


def _highest_near(
    score: NDArray[np.float32], distance: NDArray[np.float64], target: PlantedTarget
) -> float:
    """Return the highest score within NEAR px of a footprint, -inf if all are invalid."""
    square = _around(target, target.radius + NEAR, target.radius + NEAR + 1)
    near = score[square][distance[square] <= NEAR]
    return float(np.max(near, initial=-np.inf, where=np.isfinite(near)))


def _around(target: PlantedTarget, before: int, after: int) -> tuple[slice, ...]:
    """Return the rows and columns around a target, cut at the scene's upper left edges."""
    return tuple(slice(max(n - before, 0), n + after) for n in (target.row, target.col))


def render(invented: SyntheticScene, scene: xr.DataArray, store: Path, found: Findings) -> Path:
    """Draw the picture of a demo next to its store: targets found and missed, and close-ups.

    Args:
        invented: The scene with its targets.
        scene: The same as a user opens it.
        store: Its map.
        found: The targets that the map tells from the background.
    """
    finished = FinishedMap(Place.of(store), Geocoding(), lambda side: scene_picture(scene, side))
    opened, layout, overview = finished.opened, finished.layout, finished.overview
    rings = []
    for target, is_found in zip(invented.targets, found.found, strict=True):
        square = _around(target, target.radius + NEAR, target.radius + NEAR + 1)
        score = float(np.nanmax(finished.scores(*square), initial=0))
        peak = Peak(round(target.row), round(target.col), score)
        rings.append(Ring(peak, "", FOUND if is_found else MISSED))
    # Spread over the list of targets, which begins with the boats.
    first = np.linspace(0, len(rings) - 1, min(CLOSE_UPS, len(rings))).round().astype(int).tolist()
    others = [ring for k, ring in enumerate(rings) if k not in first]
    count, preview = len(rings), scene_picture(scene, -(-max(layout.shape) // layout.factor))
    subject = Subject(
        title=f"{sum(found.found)} of {count} planted anomalies found",
        lines=(
            f"invented scene, {len(preview.scene.info.bands)} of 4 bands shown: {preview.bands}",
            "blue circles: found; red: missed; the map was made without training on the scene",
        ),
        small=overview.small,
        read=finished.scores,
        rings=[*(rings[k] for k in first), *others],
        scene=preview,
        levels=opened.levels,
    )
    path = store.with_name("demo.png")
    path.write_bytes(encoded(draw(subject, layout), subject.title))
    return path
