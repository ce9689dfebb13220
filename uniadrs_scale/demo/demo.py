"""The demo: invent a scene with planted anomalies, score it, and show the ones found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import rasterio
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from scipy import ndimage

from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.demo.scene import demo_scene, write_scene
from uniadrs_scale.detector.detector import Detector, levels_of
from uniadrs_scale.maps.cog import to_cog
from uniadrs_scale.maps.overviews import COLOURS, NODATA, block_maximum, colour_range
from uniadrs_scale.scenes.open import open_scene
from uniadrs_scale.scoring.job import compute_for, prepare
from uniadrs_scale.scoring.run import Observer, run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import Scorer
    from uniadrs_scale.demo.scene import PlantedTarget, SyntheticScene
    from uniadrs_scale.runtime.tasks import ChunkReport
    from uniadrs_scale.scoring.report import RunSummary

    Box = tuple[float, float, float, float]

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
WIDTH, HEIGHT, DPI = 1800, 1212, 150
"""Size of the picture [px], and the resolution of its lettering [px per inch]."""
BORDER, HEADER, PANEL, SECOND = 20, 84, 852, 894
"""White edge, top of the panels, their side, and left edge of the second one [px]."""
CLOSE_UPS, CLOSE_UP, REACH = 14, 117, 20
"""Number of close-ups, their side in the picture [px], and scene pixels around the target."""
FOUND, MISSED, INK = "#22e0ff", "#ff5470", "#1d1d1f"


@dataclass(frozen=True, slots=True)
class Findings:
    """The planted targets that a score map tells from the background."""

    found: tuple[bool, ...]
    """One value per target of the scene, in its order."""
    threshold: float
    """As given, or the score that 1 of 1000 background pixels exceeds; NaN without targets."""
    alarms: float
    """Share of background pixels over the threshold, 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
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
        level = "" if self.summary.levels is None else f"level {LEVEL}, "
        return (
            f"{self.found} of {self.planted} planted anomalies found ({level}threshold "
            f"{self.findings.threshold:.3f}, exceeded by {self.findings.alarms:.4%} of the "
            f"background)\n{RULE}\n{self.summary.text()}\n"
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
    """Make a folder with an invented scene, its map as Zarr and COG, and a picture of both.

    A second call resumes an interrupted one.

    Args:
        folder: The folder; made if it does not exist.
        size: Side of the scene [px], at least 256.
        seed: Another seed gives another landscape with other anomalies.
        workers: Processes on this machine; by default one per core, or one per GPU.
        detector: Scorer of the tiles; by default the weights that ship with the library.
        on_report: Called after every committed chunk.

    Returns:
        The files, and the planted anomalies that were found (:func:`count_found`).

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
    compute = compute_for(scorer, workers=workers)
    job = prepare(scene, Sizes(), scorer, compute)
    summary = run(job, store, compute, Observer(on_report=on_report))
    cog = target / "scores.tif"
    to_cog(store, cog)
    with rasterio.open(cog) as output:
        score = output.read(1)
    levels = levels_of(scorer, job.plan.preset_name)
    threshold = getattr(scorer, "threshold", None) if levels is None else levels.threshold(LEVEL)
    findings = count_found(score, invented, threshold)
    picture = render(score, invented, findings.found, target / "demo.png")
    return DemoReport(
        scene=path, store=store, cog=cog, picture=picture, findings=findings, summary=summary
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


def render(
    score: NDArray[np.float32], scene: SyntheticScene, found: Sequence[bool], path: Path
) -> Path:
    """Draw a PNG of 1800 x 1212 px: scene and map with the targets marked, and close-ups.

    The figure is not made by pyplot, whose global state leaks figures and picks a window system.

    Args:
        score: (y, x) of the scene, 0..1, NaN = invalid.
        scene: The scored scene.
        found: One value per target: True if the map tells it from the background.
        path: The file to write.
    """
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    colour, norm, side = true_colour(scene), colour_range(score), len(score)
    # Averages would hide a boat: each block shows its highest score.
    coarse, smooth = block_maximum(score, -(-side // PANEL)), {"interpolation": "antialiased"}
    extent = (-0.5, side - 0.5, side - 0.5, -0.5)
    for left, image, style in ((BORDER, colour, smooth), (SECOND, coarse, {"norm": norm})):
        axes = _show(figure, (left, HEADER, PANEL, PANEL), image, extent=extent, **style)
        axes.set_axis_off()
        for target, is_found in zip(scene.targets, found, strict=True):
            ring = {"fill": False, "lw": 0.8, "ec": FOUND if is_found else MISSED}
            axes.add_patch(Circle((target.col, target.row), target.radius + 0.007 * side, **ring))
    bar = figure.add_axes(_place(SECOND + PANEL + 6, HEADER, 10, PANEL))
    figure.colorbar(axes.images[0], cax=bar).outline.set_visible(False)
    bar.tick_params(labelsize=6.5, length=2, pad=1, colors=INK)
    # Spread over the list of targets, which begins with the boats.
    shown = np.linspace(0, len(scene.targets) - 1, min(CLOSE_UPS, len(scene.targets)))
    step = (WIDTH - 2 * BORDER - CLOSE_UP) / (CLOSE_UPS - 1)
    for column, index in enumerate(shown.round().astype(int)):
        window = _around(scene.targets[index], REACH, REACH)
        for row, image in enumerate((colour, score)):
            top = HEADER + PANEL + 14 + row * (CLOSE_UP + 8)
            axes = _show(
                figure, (BORDER + column * step, top, CLOSE_UP, CLOSE_UP), image[window], norm=norm
            )
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color=FOUND if found[index] else MISSED, linewidth=1.2)
    _letter(figure, found, side)
    figure.savefig(path)
    return path


def true_colour(scene: SyntheticScene) -> NDArray[np.float32]:
    """Return red, green and blue (y, x, 3) in 0..1, stretched per band; nodata is grey."""
    picture = np.empty((*scene.valid.shape, 3), np.float32)
    for place, band in enumerate((2, 1, 0)):
        pixels = scene.pixels[band].astype(np.float32)
        low, high = np.percentile(pixels[scene.valid], [0.5, 99.5])
        # Half of the darkest value is kept: water is not black from above.
        picture[..., place] = np.clip((pixels - low / 2) / max(high - low / 2, 1), 0, 1) ** 0.7
    picture[~scene.valid] = int(NODATA[1:3], 16) / 255
    return picture


def _place(left: float, top: float, width: float, height: float) -> Box:
    """Convert a rectangle [px from the top left corner] to matplotlib's units."""
    return left / WIDTH, 1 - (top + height) / HEIGHT, width / WIDTH, height / HEIGHT


def _show(figure: Figure, box: Box, image: NDArray[np.float32], **style: Any) -> Any:
    """Add axes at ``box`` [px] that show an image."""
    axes = figure.add_axes(_place(*box))
    colours = mpl.colormaps[COLOURS].with_extremes(bad=NODATA)
    axes.imshow(image, cmap=colours, **({"interpolation": "nearest"} | style))
    return axes


def _letter(figure: Figure, found: Sequence[bool], side: int) -> None:
    """Write the title with the counts, and the meaning of the circles."""
    facts = f"invented scene, {side} x {side} px, 4 bands"
    lines: tuple[tuple[int, int, str, dict[str, Any]], ...] = (
        (BORDER, 40, f"{sum(found)} of {len(found)} planted anomalies found", {"weight": "bold"}),
        (BORDER, HEADER - 10, facts, {"size": 8}),
        (SECOND, HEADER - 10, "anomaly score, without training on the scene", {"size": 8}),
        (SECOND + 640, 40, "\u25cf", {"size": 11, "color": FOUND}),
        (SECOND + 662, 40, "found", {"size": 10}),
        (SECOND + 750, 40, "\u25cf", {"size": 11, "color": MISSED}),
        (SECOND + 772, 40, "missed", {"size": 10}),
    )
    for left, bottom, text, style in lines:
        x, y, _, _ = _place(left, bottom, 0, 0)
        shown: dict[str, Any] = {"color": INK, "size": 15} | style
        figure.text(x, y, text, **shown)
