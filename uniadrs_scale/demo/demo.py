"""The demo: invent a scene with planted anomalies, score it, count and show what was found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from affine import Affine
from scipy import ndimage

from uniadrs_scale.demo.picture import render
from uniadrs_scale.demo.scene import demo_scene
from uniadrs_scale.detector.detector import Detector
from uniadrs_scale.errors import StoreError
from uniadrs_scale.maps.cog import to_cog
from uniadrs_scale.scenes.open import open_scene
from uniadrs_scale.scoring.run import run
from uniadrs_scale.scoring.score import plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import Scorer
    from uniadrs_scale.demo.scene import PlantedTarget, SyntheticScene
    from uniadrs_scale.runtime.tasks import ChunkReport
    from uniadrs_scale.scoring.report import RunSummary


ANOMALIES = 40
"""Planted in a scene of 2048 x 2048 px; smaller scenes get fewer, by area, but at least 4."""
FALSE_ALARMS = 1e-3
"""Share of background pixels that may exceed the threshold of a scorer that recommends none."""
NEAR, CLEAR = 3, 8
"""Pixels around a footprint that count as the target, and that do not count as background."""
RULE = f"found: the highest score within {NEAR} px exceeds the threshold"
TRANSFORM = Affine(10, 0, 600_000, 0, -10, 5_300_000)
"""10 m pixels in UTM zone 32 North (EPSG:32632)."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Which planted targets a score map tells from the background."""

    found: tuple[bool, ...]
    """For each target of the scene, in its order."""
    threshold: float
    """As given, or what only 1 of 1000 background pixels exceeds; NaN without targets."""
    alarms: float
    """Share of background pixels over the threshold, 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """What the demo wrote and found."""

    scene: Path
    """The invented scene, a GeoTIFF."""
    store: Path
    """Its anomaly map, Zarr."""
    cog: Path
    """Its anomaly map, COG."""
    picture: Path
    """Both side by side, PNG."""
    planted: int
    found: int
    threshold: float
    """The one that the weights recommend, or see :func:`count_found`."""
    alarms: float
    """Share of background pixels over the threshold, 0..1."""
    summary: RunSummary
    """What the run did."""

    @property
    def complete(self) -> bool:
        """True where every valid pixel has a score."""
        return self.summary.complete

    def text(self) -> str:
        """The closing lines: the counts, the rule they follow, and where to look."""
        return (
            f"{self.found} of {self.planted} planted anomalies found (threshold "
            f"{self.threshold:.3f}, exceeded by {self.alarms:.4%} of the background)\n"
            f"{RULE}\n{self.summary.text()}\n"
            f"scene    {self.scene}\nmap      {self.store}\n"
            f"COG      {self.cog}\npicture  {self.picture}"
        )


def demo(
    folder: str | Path,
    *,
    size: int = 2048,
    seed: int = 7,
    workers: int | None = None,
    detector: Scorer | None = None,
    on_report: Callable[[ChunkReport], None] = lambda _: None,
) -> DemoReport:
    """A folder with an invented scene, its map as Zarr and COG, and a picture of both.

    Run again, it resumes what is missing.

    Args:
        folder: Is made if it does not exist.
        size: Side of the scene [px], at least 256.
        seed: Another seed is another landscape with other anomalies.
        workers: Processes on this machine; by default one a core, or one a GPU.
        detector: Scores the tiles; by default the weights that ship with the library.
        on_report: Called after every committed chunk.

    Returns:
        Where everything is, and how many planted anomalies were found by :func:`count_found`.

    Raises:
        UniadrsScaleError: The folder cannot be written or holds another demo, or ``size`` is too
            small.
    """
    invented = demo_scene(seed, size, max(4, min(ANOMALIES, round(ANOMALIES * (size / 2048) ** 2))))
    target = Path(folder)
    path, store = target / "scene.tif", target / "scores.zarr"
    write_scene(invented, path)
    scene = open_scene(path)
    scorer = detector if detector is not None else Detector.load()
    run_plan = plan(scene, detector=scorer, workers=workers)
    summary = run(scene, store, run_plan, scorer, on_report=on_report)
    cog = to_cog(store, target / "scores.tif")
    with rasterio.open(cog) as output:
        score = output.read(1)
    findings = count_found(score, invented, getattr(scorer, "threshold", None))
    picture = render(score, invented, findings.found, target / "demo.png")
    return DemoReport(
        scene=path, store=store, cog=Path(cog), picture=picture, planted=len(findings.found),
        found=sum(findings.found), threshold=findings.threshold, alarms=findings.alarms,
        summary=summary,
    )  # fmt: skip


def write_scene(scene: SyntheticScene, path: Path) -> None:
    """The scene is a georeferenced GeoTIFF at ``path``, in a folder that is made if need be.

    A file that holds the same pixels is left alone: writing it anew would make it another scene to
    the run that is to be resumed.

    Raises:
        StoreError: The file cannot be written, or ``path`` holds something else.
    """
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(scene, path)
        except OSError as error:
            raise StoreError(
                f"Cannot write '{path}' ({error}). Choose a folder that you may write to."
            ) from error
    elif not _holds(path, scene):
        raise StoreError(
            f"'{path}' is not the scene of this demo (other size, seed or version), and is not "
            "overwritten. Choose another folder, or remove this one."
        )


def _write(scene: SyntheticScene, path: Path) -> None:
    """By way of a hidden file beside it: an interrupted run leaves no half scene."""
    bands, height, width = scene.pixels.shape
    temporary = path.with_name(f".{path.name}")
    with rasterio.open(
        temporary, "w", driver="GTiff", count=bands, height=height, width=width, dtype="uint16",
        nodata=0, crs="EPSG:32632", transform=TRANSFORM, tiled=True, blockxsize=256,
        blockysize=256, compress="deflate", predictor=2,
    ) as output:  # fmt: skip
        output.write(scene.pixels)
        output.descriptions = ("blue", "green", "red", "near infrared")
    temporary.replace(path)


def _holds(path: Path, scene: SyntheticScene) -> bool:
    """Whether the file at ``path`` is a raster of the scene's pixels."""
    try:
        with rasterio.open(path) as present:
            return present.count == len(scene.pixels) and np.array_equal(
                present.read(), scene.pixels
            )
    except OSError:
        return False


def count_found(
    score: NDArray[np.float32], scene: SyntheticScene, threshold: float | None = None
) -> Findings:
    """Which planted targets stand out of the background.

    Background is what is valid and more than 8 px away from every target. A target is found when
    the highest score within 3 px of its footprint exceeds the threshold.

    Args:
        score: (y, x), NaN = invalid.
        scene: What was scored.
        threshold: By default the score that only 1 of 1000 background pixels exceeds.
    """
    nan = float("nan")
    if not scene.truth.any():  # a distance to nothing is undefined
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
    """The highest score within NEAR pixels of a footprint; -inf if there is none."""
    reach = target.radius + NEAR
    square = tuple(
        slice(max(centre - reach, 0), centre + reach + 1) for centre in (target.row, target.col)
    )
    near = score[square][distance[square] <= NEAR]
    return float(np.max(near, initial=-np.inf, where=np.isfinite(near)))
