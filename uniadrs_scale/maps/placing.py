"""Where the pixels of a swath lie on a map: projected window by window, kept in side files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.errors import PlanError
from uniadrs_scale.swaths.footprints import MARGIN
from uniadrs_scale.swaths.geometry import misplaced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.swaths.geometry import Projection


if TYPE_CHECKING:
    Floats = NDArray[np.float64]
if TYPE_CHECKING:
    Positions = Callable[[slice, slice], tuple[Floats, Floats]]
    """Latitude and longitude (y, x) [degrees] of a window, NaN where unknown."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedWindow:
    """A window of the swath, and where it lies on the map."""

    window: Window
    path: Path
    """(2, y, x) float32: x and y [CRS units from the origin] of the window and MARGIN around it."""
    bounds: Floats
    """(left, bottom, right, top) of pixel centres, from the origin; NaN where none is known."""
    spacing: Floats
    """Median distances of neighbours down and right; NaN where there are none."""
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
    """Of the swath."""
    folder: Path
    fill: NDArray[np.complex128]
    """Positions (longitude + latitude i) that stand for none."""

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
        require_shown(not lost.any(), self.projection)
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


def require_shown(shown: bool, projection: Projection) -> None:  # noqa: FBT001
    """Raise PlanError unless the map can show the swath."""
    if not shown:
        raise PlanError(
            f"{projection.crs.name} cannot show all of the swath, whose centre is at longitude "
            f"{projection.longitude:.1f}: it does not reach so far. Name another CRS."
        )
