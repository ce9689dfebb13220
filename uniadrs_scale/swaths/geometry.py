"""The places of a swath's pixels, and the grid on which its map is drawn. Pure geometry.

A swath has no grid: its pixels are placed by latitude and longitude of each, or by ground control
points. Positions on the sphere are averaged and interpolated as unit vectors, which know neither an
antimeridian nor poles; they become map coordinates once, at the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from uniadrs_scale.core.machine import Later
from uniadrs_scale.core.presets import Resampling
from uniadrs_scale.errors import PlanError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

interpolate = Later("scipy.interpolate")
UTM_RADIUS = 3.5
"""Degrees around its centre in which a swath is drawn in UTM: 390 km, a scale error below 1 %."""
STEEP_LATITUDE = 80.0
"""Degrees from which a map in degrees, or UTM, is stretched beyond use."""
POLAR_CRS = {1: 3995, -1: 3031}
"""EPSG codes of WGS 84 / Arctic and Antarctic Polar Stereographic, by the sign of the latitude."""
MAX_GROWTH = 200
"""Cells per swath pixel beyond which a grid is taken for a mistake; a strip of 2,000 x 200,000
pixels across its map needs 50."""
NODES = 129
"""Along each axis: where a surface through control points is evaluated before splines carry on."""
APART = 32
"""Typical steps from pixel to pixel beyond which two neighbours have nothing to do with another."""
LOCAL = 2000
"""Control points from which a surface is fitted piecewise, each piece through 100 neighbours."""


@dataclass(frozen=True, slots=True)
class Geocoding:
    """The wanted drawing of a swath's map."""

    crs: str | None = None
    """As pyproj takes it; None: UTM for a small swath, else degrees or polar stereographic."""
    resolution: float | None = None
    """Side of a cell [CRS units]; None: the median spacing of the swath's pixels."""
    resampling: Resampling = "max"
    """``max``: of all pixels whose centre is in a cell; ``nearest``: of the nearest pixel."""

    def __post_init__(self) -> None:
        """Refuse a map that cannot be drawn."""
        if self.resampling not in get_args(Resampling):
            raise PlanError(
                f"Resampling '{self.resampling}' is not known: the map of a swath takes 'max' (a "
                "cell shows the highest pixel in it) or 'nearest'."
            )
        if self.resolution is not None and not 0 < self.resolution < math.inf:
            raise PlanError(
                f"Resolution {self.resolution} is not a cell size. Give a positive number in units "
                "of the CRS (degrees or metres)."
            )
        if self.crs is not None:
            parse_crs(self.crs)

    @property
    def text(self) -> str:
        """The request in a line, equal for equal requests."""
        return (
            f"crs {self.crs or 'automatic'}, resolution {self.resolution or 'automatic'}, "
            f"{self.resampling}"
        )


def parse_crs(text: str) -> CRS:
    """Return the CRS that ``text`` names. Raise PlanError if it names none."""
    try:
        return CRS.from_user_input(text)
    except CRSError:
        raise PlanError(
            f"CRS '{text}' is not known. Give an EPSG code such as EPSG:4326, or WKT."
        ) from None


def unit_vectors(latitude: Floats, longitude: Floats) -> Floats:
    """Return (..., 3) points on the unit sphere; NaN stays NaN."""
    phi, lam = np.radians(latitude), np.radians(longitude)
    across = np.cos(phi)
    return np.stack([across * np.cos(lam), across * np.sin(lam), np.sin(phi)], axis=-1)


def degrees_of(vectors: Floats) -> tuple[Floats, Floats]:
    """Return latitude and longitude (...) [degrees] of vectors (..., 3) of any length."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """The part of the Earth that a swath covers, all in degrees."""

    latitude: float
    """Latitude of the centre."""
    longitude: float
    """Longitude of the centre."""
    radius: float
    """From the centre to the pixel farthest away."""
    south: float
    north: float

    @classmethod
    def of(cls, latitude: Floats, longitude: Floats) -> Extent:
        """Return the extent of pixels (n,), of which at least one has a position."""
        known = np.isfinite(latitude) & np.isfinite(longitude)
        vectors = unit_vectors(latitude[known], longitude[known])
        lowest, highest = vectors.min(axis=0), vectors.max(axis=0)
        middle = (lowest + highest) / 2  # not the mean: half of a swath may be sampled densely
        middle /= np.linalg.norm(middle) or 1.0
        centre_latitude, centre_longitude = degrees_of(middle)
        cosines = np.clip(vectors @ middle, -1, 1)
        return cls(
            latitude=float(centre_latitude),
            longitude=float(centre_longitude),
            radius=math.degrees(math.acos(cosines.min())),
            south=float(latitude[known].min()),
            north=float(latitude[known].max()),
        )

    @property
    def crs(self) -> CRS:
        """The CRS to draw it in, if the user names none.

        Raise PlanError if it reaches so far that no single map shows it without a tear.
        """
        hemisphere = 1 if self.latitude >= 0 else -1
        if self.radius <= UTM_RADIUS and abs(self.latitude) < STEEP_LATITUDE:
            # Not pyproj's query of its database, which knows Norway's wider zones: half a second.
            zone = int((self.longitude + 180) // 6) % 60 + 1
            return CRS.from_epsg((32600 if hemisphere > 0 else 32700) + zone)
        if self.south >= -STEEP_LATITUDE and self.north <= STEEP_LATITUDE:
            return CRS.from_epsg(4326)
        if min(hemisphere * self.south, hemisphere * self.north) > 0:
            return CRS.from_epsg(POLAR_CRS[hemisphere])
        raise PlanError(
            f"The swath reaches from {self.south:.1f} to {self.north:.1f} degrees latitude, across "
            "the equator and close to a pole: no one map shows that without a tear. Name a CRS "
            "that does (--crs), or score a part of the swath."
        )


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """The way from latitude and longitude to map coordinates."""

    crs: CRS
    transformer: Transformer
    longitude: float
    """Longitudes of a map in degrees are continuous around it, so they may exceed 180."""

    @classmethod
    def into(cls, crs: CRS, longitude: float) -> Projection:
        """Return the projection into ``crs`` for a swath with its centre at ``longitude``."""
        return cls(crs, Transformer.from_crs(4326, crs, always_xy=True), longitude)

    def apply(self, latitude: Floats, longitude: Floats) -> tuple[Floats, Floats]:
        """Return x and y [CRS units]; NaN if the position is unknown or cannot be shown."""
        x, y = self.transformer.transform(longitude, latitude)
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if self.crs.is_geographic:
            turn = 2 * math.pi / self.crs.axis_info[0].unit_conversion_factor
            x = self.longitude + (x - self.longitude + turn / 2) % turn - turn / 2
        known = np.isfinite(x) & np.isfinite(y)
        return np.where(known, x, np.nan), np.where(known, y, np.nan)


def grid_around(bounds: Floats, resolution: float, crs: CRS, pixels: int) -> GeoBox:
    """Return the north-up grid of square cells that covers ``bounds`` of a swath of ``pixels``.

    Its lines are at multiples of the resolution, so that the maps of two swaths stack. Bounds
    (left, bottom, right, top) and resolution are in CRS units.

    Raise PlanError if it would have so many cells that the resolution must be a mistake.
    """
    left, bottom, right, top = bounds / resolution
    left, top = math.floor(left), math.ceil(top)
    width, height = max(math.ceil(right) - left, 1), max(top - math.floor(bottom), 1)
    if width * height > MAX_GROWTH * pixels + 1024**2:
        raise PlanError(
            f"A map of {height} x {width} cells of {resolution:g} would show a swath of {pixels} "
            f"pixels: more than {MAX_GROWTH} per pixel. Give a coarser resolution (in units of "
            f"{crs.name}), or another CRS."
        )
    corner = Affine(resolution, 0, left * resolution, 0, -resolution, top * resolution)
    return GeoBox((height, width), corner, crs)


def misplaced(latitude: Floats, longitude: Floats) -> NDArray[np.bool_]:
    """Return True for pixels (y, x) that are far from all of their neighbours.

    Fill values such as (0, 0), and noise, are positions that no check of their range finds.
    """
    vectors = unit_vectors(latitude, longitude)
    near, far = np.zeros(latitude.shape, bool), np.zeros(latitude.shape, bool)
    steps = [np.linalg.norm(np.diff(vectors, axis=axis), axis=-1) for axis in (0, 1)]
    moving = np.concatenate([step[step > 0] for step in steps])
    if not moving.size or moving.max() <= (limit := APART * np.median(moving)):
        return far
    for axis, step in enumerate(steps):
        for found, where in ((near, (step > 0) & (step <= limit)), (far, step > limit)):
            ends, apart = np.moveaxis(found, axis, 0), np.moveaxis(where, axis, 0)
            ends[:-1] |= apart  # a view: both neighbours of each step
            ends[1:] |= apart
    return far & ~near


@dataclass(frozen=True, slots=True, eq=False)
class ControlSurface:
    """The place of every pixel, on a smooth surface through ground control points.

    Points on a raster, as products have them, are joined by cubic splines. Others are joined by
    cubic radial functions on top of a quadratic, and that is sampled on a raster. (GDAL's default,
    one polynomial, was 57 pixels off on a curved swath; its thin-plate spline takes ten seconds a
    megapixel, and was 2.6 pixels off between 154 scattered points; this is 1.9 off.)
    """

    rows: Floats
    """(n,) of the raster's nodes, increasing."""
    cols: Floats
    """(m,) likewise."""
    vectors: Floats
    """(n, m, 3) unit vectors at the nodes."""

    @classmethod
    def through(cls, points: Floats, rows: Floats, cols: Floats) -> ControlSurface:
        """Return the surface for pixel centres at ``rows`` and ``cols``.

        Args:
            points: (n, 4): row, column, latitude, longitude; a pixel's corner is at whole numbers.
            rows: (y,) of pixel centres, in the points' count.
            cols: (x,) likewise.

        Raises:
            PlanError: There are fewer than three points, or they are on a line.
        """
        places, first = np.unique(points[:, :2], axis=0, return_index=True)
        degree = _degree(places)
        vectors = unit_vectors(*points[first, 2:].T)
        y, x = np.unique(places[:, 0]), np.unique(places[:, 1])
        if len(y) * len(x) == len(places):  # and `unique` put them in raster order
            return cls(y, x, vectors.reshape(len(y), len(x), 3))
        near = None if len(places) <= LOCAL else 100
        surface = interpolate.RBFInterpolator(places, vectors, near, kernel="cubic", degree=degree)
        y, x = (np.linspace(axis.min() - 1, axis.max() + 1, NODES) for axis in (rows, cols))
        nodes = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
        return cls(y, x, surface(nodes.reshape(-1, 2)).reshape(NODES, NODES, 3))

    def at(self, rows: Floats, cols: Floats) -> tuple[Floats, Floats]:
        """Return latitude and longitude (y, x) [degrees] of the pixels at ``rows`` x ``cols``."""
        spline, cubic = interpolate.make_interp_spline, 3
        down = spline(self.rows, self.vectors, k=min(cubic, len(self.rows) - 1))
        across = spline(self.cols, down(rows), k=min(cubic, len(self.cols) - 1), axis=1)
        return degrees_of(across(cols))


def _degree(places: Floats) -> int:
    """Return the degree of polynomial that points (n, 2) determine; refuse less than a plane."""
    rows, cols = ((places - places.mean(axis=0)) / (np.ptp(places) or 1.0)).T
    plane = np.stack([np.ones_like(rows), rows, cols], axis=-1)
    if np.linalg.matrix_rank(plane, tol=1e-6) < plane.shape[1]:
        raise PlanError(
            f"{len(places)} ground control points do not place a raster: at least three that are "
            "not on one line are needed. Give more (rio.write_gcps), or score without them."
        )
    quadratic = np.concatenate(
        [plane, np.stack([rows * rows, rows * cols, cols * cols], axis=-1)], axis=-1
    )
    determined = np.linalg.matrix_rank(quadratic, tol=1e-6) == quadratic.shape[1]
    return 2 if determined and len(places) >= 2 * quadratic.shape[1] else 1
