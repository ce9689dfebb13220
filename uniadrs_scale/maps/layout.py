"""The layout of a picture: its panels, and the highest peaks of the map in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from uniadrs_scale.core.levels import GROW
from uniadrs_scale.core.machine import Later

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ndimage = Later("scipy.ndimage")


@dataclass(frozen=True, slots=True)
class Peak:
    """A pixel with a high score."""

    row: int
    col: int
    score: float


def top_peaks(
    small: NDArray[np.float32], factor: int, *, least: float, count: int
) -> tuple[Peak, ...]:
    """Return the highest peaks, one per object, falling; ties by row and column.

    An object is an 8-connected component of scores >= GROW, as in a list of targets; in a reduced
    map, objects in neighbouring squares are one.

    Args:
        small: (y, x), the highest score of each square of ``factor`` x ``factor`` px; NaN = none.
        factor: Side of a square. Peaks are in the middle, in pixels of the map.
        least: Lowest peak that counts.
        count: Most peaks.
    """
    found = np.isfinite(small) & (small >= np.float32(min(GROW, least)))
    objects = cast("NDArray[np.int32]", ndimage.label(found, np.ones((3, 3)))[0]).ravel()
    scores = small.ravel()
    places = np.flatnonzero(found.ravel() & (scores >= np.float32(least)))
    falling = places[np.argsort(-scores[places], kind="stable")]
    _, firsts = np.unique(objects[falling], return_index=True)
    middle = factor // 2
    return tuple(
        Peak(row * factor + middle, col * factor + middle, float(small[row, col]))
        for place in falling[np.sort(firsts)[:count]].tolist()
        for row, col in [divmod(place, small.shape[1])]
    )


def placed(peak: Peak, factor: int, read: Callable[[slice, slice], NDArray[np.float32]]) -> Peak:
    """Return a peak at the very pixel of its score; ``read`` reads a window of the map (y, x)."""
    row, col = (n // factor * factor for n in (peak.row, peak.col))
    square = read(slice(row, row + factor), slice(col, col + factor))
    if not np.isfinite(square).any():
        return peak
    down, right = np.unravel_index(int(np.nanargmax(square)), square.shape)
    return replace(peak, row=row + int(down), col=col + int(right))


Box = tuple[int, int]
MOST = 2048
"""Longest side of the picture [px]."""
WIDE = 1560
"""Width of the picture of a small scene, at most: as much of it as text and close-ups need [px]."""
MARGIN, GAP, HEADER, BAR = 24, 16, 92, 92
"""White edge, space between panels, height of the text, width of the colour bar [px]."""
CLOSE, SPACE, REACH = 92, 6, 23
"""Side of a close-up, space between two [px]; map pixels around a peak."""
NUMBERS = 20
"""Height of the line of numbers over the close-ups [px]."""
MOST_ZOOM = 8
"""Pixels of the picture per pixel of a small scene, at most."""
UPRIGHT = 1.7
"""Width to height of a scene beyond which its panels are one above the other."""
SMALLEST = 11
"""Radius of a circle [px]."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of a picture of a map (y, x)."""

    shape: Box
    """Map pixels."""
    panels: int
    """1, or 2 with the scene."""
    factor: int
    """Map pixels per pixel of a panel."""
    zoom: int
    """Pixels of the picture per pixel of a panel."""

    @classmethod
    def of(cls, shape: Box, panels: int) -> Layout:
        """Return the largest layout that fits."""
        height, width = shape
        strip = 2 * CLOSE + SPACE + NUMBERS + 2 * GAP
        wide = MOST - 2 * MARGIN - BAR
        high = MOST - HEADER - strip - MARGIN
        if panels > 1:
            if width > UPRIGHT * height:
                high = (high - GAP) // panels
            else:
                wide = (wide - GAP) // panels
        factor = max(-(-width // wide), -(-height // high))
        zoom = max(1, min(MOST_ZOOM, 760 // max(shape))) if factor == 1 else 1
        return cls(shape, panels, factor, zoom)

    @property
    def side(self) -> int:
        """Longest side of a panel, in squares of ``factor`` map pixels."""
        return -(-max(self.shape) // self.factor)

    @property
    def stacked(self) -> bool:
        """True if the panels are one above the other."""
        return self.panels > 1 and self.shape[1] > UPRIGHT * self.shape[0]

    @property
    def panel(self) -> Box:
        """Height and width of a panel [px]."""
        height, width = (self.zoom * -(-n // self.factor) for n in self.shape)
        return height, width

    def corner(self, number: int) -> Box:
        """Return left and top of a panel [px]."""
        height, width = self.panel
        down, right = (number, 0) if self.stacked else (0, number)
        return MARGIN + right * (width + GAP), HEADER + down * (height + GAP)

    @property
    def content(self) -> int:
        """Width of the panels and of the colour bar [px]."""
        left, _ = self.corner(self.panels - 1)
        return left + self.panel[1] + BAR - MARGIN

    @property
    def size(self) -> Box:
        """Width, at most, and height of the picture without close-ups [px]."""
        _, top = self.corner(self.panels - 1)
        return max(self.content + 2 * MARGIN, WIDE), top + self.panel[0] + MARGIN

    @property
    def radius(self) -> int:
        """Radius of a circle [px]: a few pixels of a small scene must fit in."""
        return max(SMALLEST, round(2.5 * self.zoom))

    def at(self, peak: Peak) -> tuple[float, float]:
        """Return x and y of a map pixel in a panel [px]."""
        x, y = ((n + 0.5) / self.factor * self.zoom for n in (peak.col, peak.row))
        return x, y
