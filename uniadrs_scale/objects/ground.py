"""The ground under a map: positions of pixels in degrees, and outlines in the map's CRS."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from uniadrs_scale.maps.geocode import positions_of
from uniadrs_scale.maps.store import ScoreMap
from uniadrs_scale.scenes.areas import in_degrees, replaced, to_poles, wrapped
from uniadrs_scale.swaths.geometry import degrees_of, misplaced, unit_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

    from uniadrs_scale.maps.finished import RasterMap
    from uniadrs_scale.swaths.footprints import Positions

    Floats = NDArray[np.float64]
    Places = NDArray[np.floating | np.int64]

BLOCK = 512
"""Side of the windows in which positions of a swath are read [px]."""


def ground_of(opened: ScoreMap | RasterMap) -> Ground:
    """Return the ground under a map."""
    positions = positions_of(opened) if isinstance(opened, ScoreMap) else None
    if positions is None:
        return Grid.of(opened.geobox)
    height, width = opened.geobox.shape
    return Swath(_without_fill(positions), (height, width))


def _without_fill(positions: Positions) -> Positions:
    """Return positions that are NaN for pixels that the COG of a swath leaves out, such as 0, 0."""

    def known(rows: slice, cols: slice) -> tuple[Floats, Floats]:
        latitude, longitude = positions(rows, cols)
        places = longitude + 1j * latitude
        wrong = np.isin(places, places[misplaced(latitude, longitude)])
        return np.where(wrong, np.nan, latitude), np.where(wrong, np.nan, longitude)

    return known


def degrees_text(lon: float, lat: float, sign: str = "") -> str:
    """Return a position for people; ``sign`` follows each number.

    >>> degrees_text(-23.5, 37.95)
    '37.95000 N 23.50000 W'
    """
    east = (lon + 540) % 360 - 180
    north, side = "N" if lat >= 0 else "S", "E" if east >= 0 else "W"
    return f"{abs(lat):.5f}{sign} {north} {abs(east):.5f}{sign} {side}"


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A regular grid, with or without a place."""

    geobox: GeoBox
    crs: str | None
    to_degrees: Transformer | None

    @classmethod
    def of(cls, geobox: GeoBox) -> Grid:
        """Return the ground of a grid."""
        if geobox.crs is None:
            return cls(geobox, None, None)
        crs = CRS.from_user_input(geobox.crs.proj)
        with suppress(ProjError):  # a local CRS, or one of another planet
            return cls(geobox, crs.to_wkt(), Transformer.from_crs(crs, 4326, always_xy=True))
        return cls(geobox, crs.to_wkt(), None)

    @property
    def known(self) -> bool:
        """True if it has a place on the Earth."""
        return self.to_degrees is not None

    def corners(self, cols: Places, rows: Places) -> Floats:
        """Return (n, 2) longitude and latitude of places counted from pixel corners."""
        if self.to_degrees is None:
            return np.full((len(cols), 2), np.nan)
        longitude, latitude = self.to_degrees.transform(*self._applied(cols, rows))
        there = np.stack([longitude, latitude], axis=-1).reshape(-1, 2)
        there[~np.isfinite(there).all(axis=1)] = np.nan
        there[:, 0] = wrapped(there[:, 0])
        return to_poles(there)

    def centres(self, cols: NDArray[np.int64], rows: NDArray[np.int64]) -> Floats:
        """Return (n, 2) longitude and latitude of pixel centres."""
        return self.corners(cols + 0.5, rows + 0.5)

    def geometry(self, outlines: NDArray[Any]) -> NDArray[Any]:
        """Return outlines in the map's CRS."""
        cols, rows = shapely.get_coordinates(outlines).T
        return replaced(outlines, np.stack(self._applied(cols, rows), axis=-1))

    def points(self, cols: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return pixel centres as points in the map's CRS."""
        return np.asarray(shapely.points(*self._applied(cols + 0.5, rows + 0.5)), object)

    def _applied(self, cols: Places, rows: Places) -> tuple[Floats, Floats]:
        a, b, c, d, e, f = tuple(self.geobox.affine)[:6]
        return a * cols + b * rows + c, d * cols + e * rows + f


@dataclass(frozen=True, slots=True, eq=False)
class Swath:
    """Pixels with a latitude and a longitude each."""

    positions: Positions
    shape: tuple[int, int]

    @property
    def crs(self) -> str:
        """Degrees, WGS 84."""
        return CRS.from_epsg(4326).to_wkt()

    @property
    def known(self) -> bool:
        """True."""
        return True

    def corners(self, cols: Places, rows: Places) -> Floats:
        """Return (n, 2) longitude and latitude of pixel corners: the mean of the pixels around."""
        places = np.full((len(cols), 2), np.nan)
        at = np.stack([rows, cols], axis=-1).astype(np.int64)
        for block, members in _blocks(at):
            vectors, first = self._vectors(block * BLOCK - 1, (block + 1) * BLOCK + 1)
            row, col = (at[members] - first).T
            around = [vectors[row - dy, col - dx] for dy in (0, 1) for dx in (0, 1)]
            # A corner at pixels without a position is where the others are.
            known = np.isfinite(np.stack(around)).all(axis=-1, keepdims=True)
            total = np.where(known, around, 0).sum(axis=0)
            latitude, longitude = degrees_of(np.where(known.any(axis=0), total, np.nan))
            places[members] = np.stack([longitude, latitude], axis=-1)
        return places

    def centres(self, cols: NDArray[np.int64], rows: NDArray[np.int64]) -> Floats:
        """Return (n, 2) longitude and latitude of pixels."""
        places = np.full((len(cols), 2), np.nan)
        at = np.stack([rows, cols], axis=-1)
        for block, members in _blocks(at):
            start = block * BLOCK
            stop = np.minimum(start + BLOCK, self.shape)
            spans = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
            latitude, longitude = self.positions(*spans)
            row, col = (at[members] - start).T
            places[members] = np.stack([wrapped(longitude[row, col]), latitude[row, col]], axis=-1)
        return places

    def geometry(self, outlines: NDArray[Any]) -> NDArray[Any]:
        """Return outlines in degrees, cut at the antimeridian; None if a corner is unknown."""
        corners = shapely.get_coordinates(outlines)
        return in_degrees(outlines, self.corners(*corners.T))

    def points(self, cols: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return pixel centres as points in degrees; None if unknown."""
        places = self.centres(cols, rows)
        known = np.isfinite(places).all(axis=1)
        found = np.full(len(places), None, object)
        found[known] = shapely.points(places[known])
        return found

    def _vectors(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> tuple[Floats, Any]:
        """Return unit vectors of pixels, with one row and column beyond the scene's border.

        Those go on in the direction of the last two.
        """
        inside = np.maximum(start, 0), np.minimum(stop, self.shape)
        spans = (slice(int(a), int(b)) for a, b in zip(*inside, strict=True))
        vectors = unit_vectors(*self.positions(*spans))
        for axis in (0, 1):
            line = np.moveaxis(vectors, axis, 0)
            near = 1 if len(line) > 1 else 0
            before = [2 * line[:1] - line[near : near + 1]] if start[axis] < 0 else []
            after = (
                [2 * line[-1:] - line[-1 - near : len(line) - near]]
                if stop[axis] > self.shape[axis]
                else []
            )
            vectors = np.moveaxis(np.concatenate([*before, line, *after]), 0, axis)
        return vectors, start


Ground = Grid | Swath
"""The tie between pixels and the ground; what is not known is NaN or None."""


def _blocks(at: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return (block, members) of places (n, 2) by windows of BLOCK pixels."""
    if not len(at):
        return []
    blocks, member = np.unique(at // BLOCK, axis=0, return_inverse=True)
    order = np.argsort(member.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(member.ravel(), minlength=len(blocks)))[:-1]
    return list(zip(blocks, np.split(order, ends), strict=True))
