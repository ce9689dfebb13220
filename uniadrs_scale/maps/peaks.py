"""The highest peaks of a map, for pictures: positions to look at, not objects. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

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
    small: NDArray[np.float32], factor: int, *, least: float, apart: int, count: int
) -> tuple[Peak, ...]:
    """Return the highest scores, none near a higher one, falling; ties by row and column.

    Args:
        small: (y, x), the highest score of each square of ``factor`` x ``factor`` px; NaN = none.
        factor: Side of a square.
        least: Lowest score that counts.
        apart: Pixels of ``small`` between two peaks, along an axis.
        count: Most peaks.

    Returns:
        Peaks at the middle of squares, in pixels of the map.
    """
    left = np.where(np.isfinite(small) & (small >= least), small, np.float32(-np.inf))
    found: list[Peak] = []
    while len(found) < count and left.size:
        row, col = np.unravel_index(int(np.argmax(left)), left.shape)
        if not np.isfinite(left[row, col]):
            break
        y, x = (int(n) * factor + factor // 2 for n in (row, col))
        found.append(Peak(y, x, float(left[row, col])))
        left[tuple(slice(max(n - apart, 0), n + apart + 1) for n in (row, col))] = -np.inf
    return tuple(found)


def placed(peak: Peak, factor: int, read: Callable[[slice, slice], NDArray[np.float32]]) -> Peak:
    """Return a peak at the very pixel of its score; ``read`` reads a window of the map (y, x)."""
    row, col = (n // factor * factor for n in (peak.row, peak.col))
    square = read(slice(row, row + factor), slice(col, col + factor))
    if not np.isfinite(square).any():
        return peak
    down, right = np.unravel_index(int(np.nanargmax(square)), square.shape)
    return replace(peak, row=row + int(down), col=col + int(right))
