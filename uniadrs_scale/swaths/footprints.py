"""Pixels of a swath on a map: projected window by window, kept in side files, drawn onto cells.

Drawing is the one loop of geocoding that no library has.
A cell takes the highest of the pixels whose centre is in it. A cell without any takes the pixel
whose footprint covers its centre: the parallelogram halfway to the neighbouring pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.core.compiled import compiled
from uniadrs_scale.errors import PlanError
from uniadrs_scale.swaths.geometry import misplaced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.swaths.geometry import Projection

    Floats = NDArray[np.float64]
    Positions = Callable[[slice, slice], tuple[Floats, Floats]]
    """Latitude and longitude (y, x) [degrees] of a window, NaN if unknown."""

MARGIN = 2
"""Pixels around a window whose positions decide the footprints within."""
REACH = 0.75
"""How far a footprint reaches, in pixels from its centre. With exactly 0.5, spacing that changes
from pixel to pixel would open cracks."""
TAKEN = np.float32(-1)
"""Rank of a cell that a pixel's centre hit: nothing is nearer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedWindow:
    """A window of the swath, and its place on the map."""

    window: Window
    path: Path
    """(2, y, x) float32: x and y [CRS units from the origin] of the window and MARGIN around it."""
    bounds: Floats
    """(left, bottom, right, top) of pixel centres, from the origin; NaN if none is known."""
    spacing: Floats
    """Median distances of neighbours down and right; NaN without neighbours."""
    widest: float
    """The largest distance of neighbours."""
    dropped: int
    """Pixels left out, because their positions cannot be true."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placer:
    """Projects the windows of one swath."""

    positions: Positions
    projection: Projection
    origin: tuple[float, float]
    shape: tuple[int, ...]
    """Shape of the swath."""
    folder: Path
    fill: NDArray[np.complex128]
    """Positions (longitude + latitude i) that stand for an unknown one."""

    def place(self, window: Window) -> PlacedWindow:
        """Project a window, keep the result in a file, and measure it."""
        starts, stops = (window.row, window.col), window.stop
        first = [max(0, start - MARGIN) for start in starts]
        last = [min(size, stop + MARGIN) for size, stop in zip(self.shape, stops, strict=True)]
        latitude, longitude = self.positions(*map(slice, first, last))
        wrong = misplaced(latitude, longitude) | np.isin(longitude + 1j * latitude, self.fill)
        latitude[wrong] = np.nan
        inner = tuple(
            slice(start - low, stop - low)
            for start, stop, low in zip(starts, stops, first, strict=True)
        )
        x, y = self.projection.apply(latitude, longitude)
        lost = np.isfinite(latitude) & np.isfinite(longitude) & ~np.isfinite(x)
        require_shown(self.projection, shown=not lost.any())
        # At the swath's edges nothing is around it.
        missing = [
            (MARGIN - (start - low), MARGIN - (high - stop))
            for start, stop, low, high in zip(starts, stops, first, last, strict=True)
        ]
        places = np.stack([x - self.origin[0], y - self.origin[1]]).astype(np.float32)
        places = np.pad(places, [(0, 0), *missing], constant_values=np.float32(np.nan))
        path = self.folder / f"{window.row}-{window.col}.npy"
        np.save(path, places)
        return _measure(places, window, path, int(wrong[inner].sum()))


def _measure(places: NDArray[np.float32], window: Window, path: Path, dropped: int) -> PlacedWindow:
    """Return a window with the spacings and bounds of its places."""
    x, y = places[:, MARGIN:-MARGIN, MARGIN:-MARGIN].astype(np.float64)
    steps = [np.hypot(*np.diff(places.astype(np.float64), axis=axis)) for axis in (1, 2)]
    known = [step[np.isfinite(step)] for step in steps]
    inner = np.isfinite(x)
    nothing = np.full(4, np.nan)
    return PlacedWindow(
        window=window,
        path=path,
        bounds=np.array([x[inner].min(), y[inner].min(), x[inner].max(), y[inner].max()])
        if inner.any()
        else nothing,
        spacing=np.array([np.median(step) if step.size else np.nan for step in known]),
        widest=max((float(step.max()) for step in known if step.size), default=0.0),
        dropped=dropped,
    )


def require_shown(projection: Projection, *, shown: bool) -> None:
    """Raise PlanError unless the map can show the swath."""
    if not shown:
        raise PlanError(
            f"{projection.crs.name} cannot show all of the swath, whose centre is at longitude "
            f"{projection.longitude:.1f}: it does not reach so far. Name another CRS."
        )


# Serial and nogil, like the seams: parallel=True aborts the process under Dask's threads.
@compiled()
def splat(  # noqa: PLR0917 - numba takes no keyword-only arguments
    value: NDArray[np.float32],
    rank: NDArray[np.float32],
    score: NDArray[np.float32],
    place: NDArray[np.float64],
    widest: float,
    keep_maximum: bool,  # noqa: FBT001
) -> None:
    """Draw a window of a swath into a block of the map, in place.

    Args:
        value: (cell_y, cell_x) what the map shows so far; NaN to begin with.
        rank: Squared distance of the pixel shown to the cell's centre, in pixels; inf to begin.
        score: (y, x) of the window. A NaN is drawn like any other score.
        place: (2, y + 2 MARGIN, x + 2 MARGIN) row and column of pixel centres and of those around
            the window, in cells from the block's corner; NaN where unknown.
        widest: Cells beyond which no footprint reaches; pixels farther from the block are skipped.
        keep_maximum: Whether a cell shows the highest pixel in it, or only the nearest.
    """
    height, width = value.shape
    for y in range(score.shape[0]):
        for x in range(score.shape[1]):
            row, col = place[0, y + MARGIN, x + MARGIN], place[1, y + MARGIN, x + MARGIN]
            near = -widest <= row <= height + widest and -widest <= col <= width + widest
            if not near:  # nor where the place is unknown
                continue
            if keep_maximum and 0 <= row < height and 0 <= col < width:
                _keep_highest(value, rank, score[y, x], int(row), int(col))
            _draw_footprint(value, rank, score[y, x], place, y + MARGIN, x + MARGIN)


@compiled()
def _draw_footprint(  # noqa: PLR0917
    value: NDArray[np.float32],
    rank: NDArray[np.float32],
    score: np.float32,
    place: NDArray[np.float64],
    i: int,
    j: int,
) -> None:
    """Draw every cell whose centre is in the footprint, unless it shows something nearer."""
    row, col = place[0, i, j], place[1, i, j]
    down_row, down_col = _step(place[0], i, j, 1, 0), _step(place[1], i, j, 1, 0)
    right_row, right_col = _step(place[0], i, j, 0, 1), _step(place[1], i, j, 0, 1)
    # A single line of pixels: they are square.
    if np.isnan(down_row + down_col):
        down_row, down_col = right_col, -right_row
    if np.isnan(right_row + right_col):
        right_row, right_col = -down_col, down_row
    determinant = down_row * right_col - down_col * right_row
    if np.isnan(determinant) or determinant == 0.0:
        return
    tall = REACH * (abs(down_row) + abs(right_row))
    wide = REACH * (abs(down_col) + abs(right_col))
    first_row, first_col = int(np.ceil(row - tall - 0.5)), int(np.ceil(col - wide - 0.5))
    last_row, last_col = int(np.floor(row + tall - 0.5)), int(np.floor(col + wide - 0.5))
    for r in range(max(0, first_row), min(value.shape[0], last_row + 1)):
        for c in range(max(0, first_col), min(value.shape[1], last_col + 1)):
            dr, dc = r + 0.5 - row, c + 0.5 - col
            down = (dr * right_col - dc * right_row) / determinant
            right = (dc * down_row - dr * down_col) / determinant
            distance = down * down + right * right
            if abs(down) <= REACH and abs(right) <= REACH and distance < rank[r, c]:
                value[r, c], rank[r, c] = score, distance


@compiled()
def _keep_highest(
    value: NDArray[np.float32], rank: NDArray[np.float32], score: np.float32, r: int, c: int
) -> None:
    """Keep the highest of the pixels whose centres are in a cell; NaN only without any other."""
    if rank[r, c] != TAKEN:
        value[r, c], rank[r, c] = score, TAKEN
    elif np.isnan(value[r, c]) or score > value[r, c]:
        value[r, c] = score


@compiled()
def _step(part: NDArray[np.float64], i: int, j: int, down: int, right: int) -> float:
    """Return the step from a pixel to the next, the median of the four around: jumps do not count.

    Scans of a whisk broom overlap (the bow tie), and granules have gaps. NaN if none is known.
    """
    count, total = 0, 0.0
    lowest, highest = np.inf, -np.inf
    for k in range(-2, 2):
        step = part[i + (k + 1) * down, j + (k + 1) * right] - part[i + k * down, j + k * right]
        if not np.isnan(step):
            count, total = count + 1, total + step
            lowest, highest = min(lowest, step), max(highest, step)
    if count > 2:  # noqa: PLR2004 - then the median leaves the two extremes out
        count, total = count - 2, total - lowest - highest
    return total / count if count else np.nan
