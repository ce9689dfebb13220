"""The ground under a map: positions of pixels in degrees, sizes of objects in metres.

Sizes are measured in the plane around an object's peak that keeps geodesic distances and directions
from it (azimuthal equidistant). At 500 km from the peak it is off by 0.1 %, so that map units,
which overstate areas 1.6 times at 38 degrees north in EPSG:3857, do not matter.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import antimeridian
import numpy as np
import shapely
from pyproj import CRS, Geod, Transformer

from uniadrs_scale.maps.geocode import positions_of
from uniadrs_scale.maps.store import ScoreMap
from uniadrs_scale.objects.outlines import box_of
from uniadrs_scale.swaths.geometry import degrees_of, unit_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

    from uniadrs_scale.maps.finished import RasterMap
    from uniadrs_scale.objects.components import Columns
    from uniadrs_scale.swaths.footprints import Positions

    Floats = NDArray[np.float64]
    Places = NDArray[np.floating | np.int64]
GEOD = Geod(ellps="WGS84")
FEW = 5
"""Pixels below which second moments say more of a shape than its outline."""
SIGMAS = 4
"""A uniform line is 3.5 of its standard deviations long, a uniform ellipse 4."""
BLOCK = 512
"""Side of the windows in which positions of a swath are read [px]."""
HALF_TURN = 180.0


class Ground(Protocol):
    """The tie between pixels and the ground."""

    @property
    def crs(self) -> str | None:
        """WKT of the CRS that geometries have; None if it is unknown."""

    @property
    def known(self) -> bool:
        """True if pixels have a position on Earth."""

    def corners(self, cols: Places, rows: Places) -> Floats:
        """Return (n, 2) longitude and latitude of pixel corners, NaN if unknown."""

    def centres(self, cols: NDArray[np.int64], rows: NDArray[np.int64]) -> Floats:
        """Return (n, 2) longitude and latitude of pixel centres, NaN if unknown."""

    def geometry(self, outlines: NDArray[Any]) -> NDArray[Any]:
        """Return outlines in :attr:`crs`; in pixels without a transform, None if unknown."""

    def points(self, cols: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return pixel centres as points in :attr:`crs`; None if unknown."""


def ground_of(opened: ScoreMap | RasterMap) -> Ground:
    """Return the ground under a map."""
    positions = positions_of(opened) if isinstance(opened, ScoreMap) else None
    if positions is None:
        return Grid.of(opened.geobox)
    height, width = opened.geobox.shape
    return Swath(positions, (height, width))


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
        return cls(geobox, crs.to_wkt(), Transformer.from_crs(crs, 4326, always_xy=True))

    @property
    def known(self) -> bool:
        """True if it has a CRS."""
        return self.to_degrees is not None

    def corners(self, cols: Places, rows: Places) -> Floats:
        """Return (n, 2) longitude and latitude of places counted from pixel corners."""
        if self.to_degrees is None:
            return np.full((len(cols), 2), np.nan)
        longitude, latitude = self.to_degrees.transform(*self._applied(cols, rows))
        there = np.stack([longitude, latitude], axis=-1).reshape(-1, 2)
        there[~np.isfinite(there).all(axis=1)] = np.nan
        there[:, 0] = _wrapped(there[:, 0])
        return there

    def centres(self, cols: NDArray[np.int64], rows: NDArray[np.int64]) -> Floats:
        """Return (n, 2) longitude and latitude of pixel centres."""
        return self.corners(cols + 0.5, rows + 0.5)

    def geometry(self, outlines: NDArray[Any]) -> NDArray[Any]:
        """Return outlines in the map's CRS."""
        cols, rows = shapely.get_coordinates(outlines).T
        return _replaced(outlines, np.stack(self._applied(cols, rows), axis=-1))

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
            places[members] = np.stack([_wrapped(longitude[row, col]), latitude[row, col]], axis=-1)
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


def in_degrees(outlines: NDArray[Any], places: Floats) -> NDArray[Any]:
    """Return ``outlines`` with vertices at ``places``, valid, and cut at the antimeridian."""
    found = _replaced(outlines, places)
    for k, shape in enumerate(found):
        if shape is None:
            continue
        west, _, east, _ = shape.bounds
        valid = shape if shapely.is_valid(shape) or east - west > HALF_TURN else _mended(shape)
        found[k] = _cut(valid) if east - west > HALF_TURN else valid
    return found


def _cut(shape: Any) -> Any:
    """Return a polygon that crosses the antimeridian in parts on both sides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it turns rings that run clockwise, and says so
        many = shape.geom_type == "MultiPolygon"
        parts = shape.geoms if many else [shape]
        fixed = [antimeridian.fix_polygon(shapely.geometry.polygon.orient(part)) for part in parts]
    return _mended(shapely.union_all(fixed))


def _mended(shape: Any) -> Any:
    """Return the polygons of a valid shape."""
    valid = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    polygons = [g for g in shapely.get_parts(valid) if g.geom_type == "Polygon"]
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)


def _replaced(outlines: NDArray[Any], places: Floats) -> NDArray[Any]:
    """Return outlines with other coordinates; None for those with unknown ones."""
    _, owner = shapely.get_coordinates(outlines, return_index=True)
    unknown = np.unique(owner[~np.isfinite(places).all(axis=1)])
    moved = shapely.set_coordinates(outlines.copy(), np.where(np.isfinite(places), places, 0))
    moved[unknown] = None
    return cast("NDArray[Any]", moved)


def _blocks(at: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return (block, members) of places (n, 2) by windows of BLOCK pixels."""
    blocks, member = np.unique(at // BLOCK, axis=0, return_inverse=True)
    order = np.argsort(member.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(member.ravel(), minlength=len(blocks)))[:-1]
    return list(zip(blocks, np.split(order, ends), strict=True))


def _wrapped(longitude: Floats) -> Floats:
    """Return longitudes within -180 <= x < 180; those that are in this range keep their bits."""
    outside = (longitude < -HALF_TURN) | (longitude >= HALF_TURN)
    turned = (longitude + HALF_TURN) % (2 * HALF_TURN) - HALF_TURN
    return np.where(outside, turned, longitude)


def with_boxes(table: Columns) -> NDArray[Any]:
    """Return the outlines of objects; the box for those beyond the limit."""
    outlines: NDArray[Any] = table["outline"].copy()
    for k in np.flatnonzero(outlines == None):  # noqa: E711 - elementwise
        outlines[k] = box_of([table[name][k] for name in ("row0", "col0", "row1", "col1")])
    return outlines


def measured(table: Columns, outlines: NDArray[Any], ground: Ground) -> dict[str, Floats]:
    """Return ``lon``, ``lat``, ``area_m2``, ``length_m``, ``width_m``, ``orientation_deg``.

    NaN if the map has no CRS, or the position is unknown. Length and width are those of the
    smallest rectangle around the outline; below FEW pixels, and for objects without an outline,
    SIGMAS standard deviations of the pixels. Orientation is that of the length, 0 <= x < 180
    degrees clockwise from north.
    """
    peaks = ground.centres(table["peak_col"], table["peak_row"])
    corners, owner = shapely.get_coordinates(outlines, return_index=True)
    plane = _plane(peaks[owner], ground.corners(*corners.T))
    flat = _replaced(outlines, plane)
    area = shapely.area(flat)  # NaN for None
    pixels = table["pixels"].astype(np.float64)
    has_outline = np.array([outline is not None for outline in table["outline"]], bool)
    area = np.where(has_outline, area, area * (pixels / np.maximum(shapely.area(outlines), 1)))
    by_moments = ~has_outline | (pixels < FEW)
    envelope, moments = _rectangles(flat), _ellipses(table, peaks, ground)
    length, width, orientation = np.where(by_moments, moments, envelope)
    size = {"area_m2": area, "length_m": length, "width_m": width, "orientation_deg": orientation}
    return {"lon": peaks[:, 0], "lat": peaks[:, 1], **size}


def _plane(origin: Floats, places: Floats) -> Floats:
    """Return (n, 2) metres east and north of the origins (n, 2) in degrees."""
    known = np.isfinite(origin).all(axis=1) & np.isfinite(places).all(axis=1)
    plane = np.full(places.shape, np.nan)
    azimuth, _, distance = GEOD.inv(*origin[known].T, *places[known].T)
    turn = np.radians(azimuth)
    plane[known] = np.stack([distance * np.sin(turn), distance * np.cos(turn)], axis=-1)
    return plane


def _rectangles(flat: NDArray[Any]) -> Floats:
    """Return (3, n) length, width and orientation of the smallest rectangles around shapes."""
    sizes = np.full((3, len(flat)), np.nan)
    for k, shape in enumerate(shapely.oriented_envelope(flat)):
        if shape is not None and shape.geom_type == "Polygon":
            sides = np.diff(shapely.get_coordinates(shape)[:3], axis=0)
            lengths = np.hypot(*sides.T)
            east, north = sides[np.argmax(lengths)]
            sizes[:, k] = lengths.max(), lengths.min(), _bearing(east, north)
    return sizes


def _ellipses(table: Columns, peaks: Floats, ground: Ground) -> Floats:
    """Return (3, n) length, width and orientation by second moments, of a pixel's area too."""
    n = table["pixels"]
    square = (n * n).astype(np.float64)
    variances = (
        (n * table[two] - table[one] * table[other]).astype(np.float64) / square
        for two, one, other in (
            ("cols2", "cols", "cols"), ("rows2", "rows", "rows"), ("products", "rows", "cols"),
        )
    )  # fmt: skip
    across, down, mixed = variances
    spread = np.moveaxis(np.array([[across + 1 / 12, mixed], [mixed, down + 1 / 12]]), -1, 0)
    # The sides of the pixel at the peak, in metres.
    cols, rows = (table[name].astype(np.float64) for name in ("peak_col", "peak_row"))
    at = [_plane(peaks, ground.corners(cols + x, rows + y)) for y in (0, 1) for x in (0, 1)]
    right, below = (at[1] - at[0] + at[3] - at[2]) / 2, (at[2] - at[0] + at[3] - at[1]) / 2
    sides = np.stack([right, below], axis=-1)
    sizes = np.full((3, len(n)), np.nan)
    for k in np.flatnonzero(np.isfinite(sides).all(axis=(1, 2))):
        values, axes = np.linalg.eigh(sides[k] @ spread[k] @ sides[k].T)
        width, length = SIGMAS * np.sqrt(np.maximum(values, 0))
        sizes[:, k] = length, width, _bearing(*axes[:, 1])
    return sizes


def _bearing(east: float, north: float) -> float:
    return float(np.degrees(np.arctan2(east, north)) % HALF_TURN)
