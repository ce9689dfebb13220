"""Pictures of an evaluation as PNG: ROC curves of each group, and maps next to the labels.

They are not made by pyplot, whose global state picks a window system.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from report import matrix, split

from uniadrs_scale.maps.colours import COLOURS, NODATA
from uniadrs_scale.maps.overviews import block_maximum

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from imagery import Image
    from numpy.typing import NDArray
    from report import Result

SHOWN, SIDE = 7, 420
"""Most scenes per sheet, and most pixels of a map's side in it."""
PF = np.geomspace(1e-5, 1, 200)
"""False alarm rates that curves are averaged at."""
INK = "#1d1d1f"
LINES = ("#0b6e99", "#d1495b", "#edae49", "#5b8c5a", "#6a4c93", "#8c564b", "#3b3b3b", "#e377c2")


def draw_curves(results: Sequence[Result], path: Path) -> None:
    """Draw ROC curves, one panel per group: mean Pd over scenes and seeds at every Pf."""
    cells = split(results)
    groups = list(dict.fromkeys(group for group, _ in cells))
    names = list(dict.fromkeys(name for _, name in cells))
    figure = Figure(figsize=(4.2 * len(groups), 4.3), dpi=130, facecolor="white")
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        for colour, name in zip(_colours(len(names)), names, strict=True):
            if found := cells.get((group, name)):
                rate = np.mean([_detection(result) for result in found], axis=0)
                label = f"{name}  {matrix(found).mean():.3f}"
                axes.plot(PF, rate, color=colour, lw=1.8 if name == names[0] else 1.2, label=label)
        scenes = len({r.scene for r in results if r.group == group})
        axes.set(xscale="log", xlim=(PF[0], 1), ylim=(0, 1.01), xlabel="false alarm rate (pixels)")
        axes.set_title(f"{group}, {scenes} scenes", fontsize=10, loc="left", color=INK)
        axes.grid(color="#dddddd", lw=0.6)
        axes.legend(fontsize=7.5, frameon=False, title="AUC(D,F)", title_fontsize=7.5)
    figure.axes[0].set_ylabel("detection rate (pixels), mean over scenes")
    figure.tight_layout()
    figure.savefig(path)


def _detection(result: Result) -> NDArray[np.float64]:
    """Return Pd (pf,) at the lowest threshold that keeps Pf within each of :data:`PF`."""
    last = np.searchsorted(result.curve.alarm_rate, PF, side="right") - 1
    return np.where(last >= 0, result.curve.detection_rate[np.maximum(last, 0)], 0.0)


def _colours(number: int) -> list[str]:
    return [LINES[i % len(LINES)] for i in range(number)]


def draw_maps(
    images: Sequence[Image],
    maps: Mapping[str, Sequence[NDArray[np.float32]]],
    areas: Mapping[str, Sequence[float]],
    path: Path,
) -> None:
    """Draw a sheet with one row per scene: the scene, its labels, the map of each detector.

    Args:
        images: At most :data:`SHOWN` are drawn, the worst of the first detector.
        maps: By detector, one (y, x) per image.
        areas: By detector, AUC(D,F) of each image.
        path: The PNG to write.
    """
    first = next(iter(areas.values()))
    chosen = np.argsort(first, kind="stable")[:SHOWN]
    columns = 2 + len(maps)
    heights = [min(images[i].targets.shape[0] / images[i].targets.shape[1], 1.2) for i in chosen]
    size = (2.7 * columns, 2.7 * sum(heights) + 0.35 * len(chosen))
    figure = Figure(figsize=size, dpi=110, facecolor="white", layout="constrained")
    grid = figure.subplots(len(chosen), columns, squeeze=False, height_ratios=heights)
    for row, index in zip(grid, chosen, strict=True):
        image = images[index]
        _panel(row[0], shrunk(quicklook(image.pixels)), image.name)
        truth = np.where(image.counted, image.targets, np.nan).astype(np.float32)
        _panel(row[1], _coarse(truth), "labels (grey: not counted)", norm=Normalize(0, 1))
        for axes, (name, scores) in zip(row[2:], maps.items(), strict=True):
            score = scores[index]
            norm = _range(score[image.counted])
            _panel(axes, _coarse(score), f"{name}  {areas[name][index]:.3f}", norm=norm)
    figure.savefig(path)


def _range(scores: NDArray[np.float32]) -> Normalize:
    """Span from the median to the score of 1 in 200 pixels: a few pixels of RX dominate a map."""
    low, high = (float(v) for v in np.nanquantile(scores, [0.5, 0.995]))
    return Normalize(low, max(high, low + 1e-9))


def _panel(axes: Any, picture: NDArray[np.float32], title: str, norm: Any = None) -> None:
    colours = mpl.colormaps[COLOURS].with_extremes(bad=NODATA)
    axes.imshow(picture, cmap=colours, norm=norm, interpolation="nearest")
    axes.set_title(title, fontsize=8, loc="left", color=INK)
    axes.set_axis_off()


def quicklook(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return (y, x, 3) in 0..1 of (band, y, x): likely red, green and blue.

    The third, second and first of few bands; of many, the bands of these colours if they span 0.4
    to 2.5 micrometres. Stretched from the 1st to the 99th percentile.
    """
    bands = len(pixels)
    few = (2, 1, 0) if bands > 2 else (0, 0, 0)  # red, green, blue
    chosen = [bands * n // 100 for n in (13, 8, 3)] if bands > 30 else few
    colour = np.stack([pixels[band] for band in chosen], axis=-1).astype(np.float32)
    low, high = np.nanpercentile(colour, [1, 99], axis=(0, 1))
    return np.clip((colour - low) / np.maximum(high - low, 1e-9), 0, 1).astype(np.float32)


def shrunk(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return every n-th pixel (y, x, colour)."""
    factor = -(-max(picture.shape[:2]) // SIDE)
    return picture[::factor, ::factor]


def _coarse(score: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the highest score of each block: averages would hide a boat."""
    return block_maximum(score, -(-max(score.shape) // SIDE))
