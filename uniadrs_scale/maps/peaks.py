"""The highest peaks of a map, for pictures: one per object, as far as the picture resolves it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from scipy import ndimage

from uniadrs_scale.core.levels import GROW

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


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
        factor: Side of a square.
        least: Lowest peak that counts.
        count: Most peaks.

    Returns:
        Peaks at the middle of squares, in pixels of the map.
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
