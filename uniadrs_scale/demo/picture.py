"""The picture of the demo: a scene beside its anomaly map, and close-ups of planted targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from uniadrs_scale.maps.overviews import COLOURS, NODATA, block_maximum, colour_range

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.colors import Normalize
    from numpy.typing import NDArray

    from uniadrs_scale.demo.scene import PlantedTarget, SyntheticScene


WIDTH, HEIGHT, DPI = 1800, 1212, 150
"""Size of the picture in pixels, and pixels per inch of its lettering."""
BORDER, HEADER, PANEL = 20, 84, 852
"""White edge, space for the title, and side of the scene and of the map, in pixels."""
CLOSE_UPS, CLOSE_UP, REACH = 14, 117, 20
"""Number of close-ups, side of each in the picture, and scene pixels around its target."""
FOUND, MISSED, INK = "#22e0ff", "#ff5470", "#1d1d1f"


def render(
    score: NDArray[np.float32], scene: SyntheticScene, found: Sequence[bool], path: Path
) -> Path:
    """A PNG of 1800 x 1212 pixels is at ``path``.

    Drawn on a figure of its own, never through pyplot, whose global state leaks figures and picks
    a window system.

    Args:
        score: (y, x), NaN = invalid.
        scene: What was scored.
        found: For each target of the scene, whether the map tells it from the background.
        path: The file to write.
    """
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    colour, norm = true_colour(scene), colour_range(score)
    # Shrinking a map for display averages a boat away: show the highest score of each block.
    coarse = block_maximum(score, -(-len(score) // PANEL))
    second = WIDTH - BORDER - 34 - PANEL
    left = _panel(figure, (BORDER, HEADER, PANEL, PANEL), colour, None, len(score))
    right = _panel(figure, (second, HEADER, PANEL, PANEL), coarse, norm, len(score))
    for axes in (left, right):
        _mark(axes, scene.targets, found, len(score))
    bar = figure.add_axes(_place(second + PANEL + 6, HEADER, 10, PANEL))
    figure.colorbar(right.images[0], cax=bar).outline.set_visible(False)
    bar.tick_params(labelsize=6.5, length=2, pad=1, colors=INK)
    _close_ups(figure, (colour, score), norm, scene, found)
    _letter(figure, found, score.shape)
    figure.savefig(path)
    return path


def true_colour(scene: SyntheticScene) -> NDArray[np.float32]:
    """Red, green and blue (y, x, 3) in 0..1, stretched per band; nodata in neutral grey."""
    picture = np.empty((*scene.valid.shape, 3), np.float32)
    for place, band in enumerate((2, 1, 0)):
        pixels = scene.pixels[band].astype(np.float32)
        low, high = np.percentile(pixels[scene.valid], [0.5, 99.5])
        # Half of the darkest value stays, else water is black, as it never is from above.
        picture[..., place] = np.clip((pixels - low / 2) / max(high - low / 2, 1), 0, 1) ** 0.7
    picture[~scene.valid] = int(NODATA[1:3], 16) / 255
    return picture


def _place(
    left: float, top: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """A rectangle in pixels from the top left corner, as matplotlib takes it."""
    return left / WIDTH, 1 - (top + height) / HEIGHT, width / WIDTH, height / HEIGHT


def _panel(
    figure: Figure,
    place: tuple[float, float, float, float],
    image: NDArray[np.float32],
    norm: Any,
    side: int,
) -> Any:
    """Axes at ``place`` in pixels that show a square scene without a frame."""
    axes = figure.add_axes(_place(*place))
    colours = mpl.colormaps[COLOURS].with_extremes(bad=NODATA)
    axes.imshow(
        image, cmap=colours, norm=norm, extent=(-0.5, side - 0.5, side - 0.5, -0.5),
        interpolation="antialiased" if norm is None else "nearest",
    )  # fmt: skip
    axes.set_axis_off()
    return axes


def _mark(axes: Any, targets: Sequence[PlantedTarget], found: Sequence[bool], side: int) -> None:
    """Thin circles around the targets, wide enough not to hide them."""
    for target, is_found in zip(targets, found, strict=True):
        radius = target.radius + 0.007 * side
        colour = FOUND if is_found else MISSED
        axes.add_patch(Circle((target.col, target.row), radius, fill=False, lw=0.8, ec=colour))


def _close_ups(
    figure: Figure,
    images: tuple[NDArray[np.float32], NDArray[np.float32]],
    norm: Normalize,
    scene: SyntheticScene,
    found: Sequence[bool],
) -> None:
    """Two rows of small windows, scene above map, framed in the colour of their circle."""
    number = min(CLOSE_UPS, len(scene.targets))
    # Spread over the list, which begins with the boats.
    chosen = np.linspace(0, len(scene.targets) - 1, number).round().astype(int)
    step = (WIDTH - 2 * BORDER - CLOSE_UP) / (CLOSE_UPS - 1)
    for column, index in enumerate(chosen):
        target = scene.targets[index]
        rows, cols = (slice(max(c - REACH, 0), c + REACH) for c in (target.row, target.col))
        for row, image in enumerate(images):
            top = HEADER + PANEL + 14 + row * (CLOSE_UP + 8)
            axes = figure.add_axes(_place(BORDER + column * step, top, CLOSE_UP, CLOSE_UP))
            colours = mpl.colormaps[COLOURS].with_extremes(bad=NODATA)
            axes.imshow(image[rows, cols], cmap=colours, norm=norm, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color=FOUND if found[index] else MISSED, linewidth=1.2)


def _letter(figure: Figure, found: Sequence[bool], shape: tuple[int, ...]) -> None:
    """The title with the counts, and what the circles mean."""
    count = f"{sum(found)} of {len(found)} planted anomalies found"
    facts = f"invented scene, {shape[0]} x {shape[1]} px, 4 bands"
    second = WIDTH - BORDER - 34 - PANEL
    _text(figure, (BORDER, 40), count, size=15, weight="bold")
    _text(figure, (BORDER, HEADER - 10), facts, size=8)
    _text(figure, (second, HEADER - 10), "anomaly score, without training on the scene", size=8)
    for left, colour, word in ((second + 640, FOUND, "found"), (second + 750, MISSED, "missed")):
        _text(figure, (left, 40), "\u25cf", size=11, color=colour)
        _text(figure, (left + 22, 40), word, size=10)


def _text(figure: Figure, place: tuple[float, float], text: str, **style: Any) -> None:
    """Text whose base line begins at ``place`` in pixels from the top left corner."""
    left, bottom, _, _ = _place(*place, 0, 0)
    figure.text(left, bottom, text, **({"color": INK} | style))
