"""Grids: the common grid of several resolutions, and the size of pixels on the ground."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.overlap import compute_reproject_roi
from odc.geo.roi import roi_is_empty
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError

from uniadrs_scale.errors import SceneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

PLANE = 3
"""Points that place a plane."""
SAME = 0.01
"""Distance of corners up to which two grids are one [px]."""
Resampling = Literal["nearest", "bilinear", "average", "mode"]
ELLIPSOID = Geod(ellps="WGS84")


@dataclass(frozen=True, slots=True)
class Grid:
    """Place of the pixels of a raster."""

    height: int
    width: int
    transform: tuple[float, ...]
    """Affine coefficients (a, b, c, d, e, f) of pixel corners."""
    crs: str
    """WKT."""

    def decisive(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "height": self.height,
            "width": self.width,
            "transform": list(self.transform),
            "crs": self.crs,
        }

    @property
    def geobox(self) -> GeoBox:
        """This grid for odc-geo."""
        return GeoBox((self.height, self.width), Affine(*self.transform), self.crs)


@dataclass(frozen=True, slots=True)
class Warp:
    """How a raster is brought to another grid while it is read."""

    grid: Grid
    resampling: str
    """A name of ``rasterio.enums.Resampling``."""
    nodata: float | None
    """Value that no mean includes; None if an alpha band or mask decides. Floats without one have
    NaN: GDAL's alpha of a float raster is opaque everywhere."""
    inside: tuple[int, int, int, int] | None = None
    """Rows (start, stop) and columns (start, stop) of the grid that the raster covers."""
    single: bool = False
    """True if nodata in one band counts, False if only nodata in all bands of the raster does."""

    def decisive(self) -> dict[str, Any]:
        """Return what decides the resampled pixels, as JSON values."""
        return {
            "grid": self.grid.decisive(),
            "resampling": self.resampling,
            "nodata": self.nodata,
            "inside": None if self.inside is None else list(self.inside),
            **({"single": True} if self.single else {}),
        }


@lru_cache(maxsize=64)
def same_crs(one: str | None, other: str | None) -> bool:
    """Return True if two WKTs mean one CRS, whatever their words."""
    if one == other or one is None or other is None:
        return one == other
    return bool(CRS.from_wkt(one).equals(CRS.from_wkt(other), ignore_axis_order=True))


@lru_cache(maxsize=64)
def is_rotated_pole(crs: str) -> bool:
    """Return True for latitudes and longitudes of another pole, as of regional climate models."""
    known = CRS.from_user_input(crs)
    return bool(known.is_geographic and known.is_derived)


def covered(source: Grid, target: Grid) -> tuple[int, int, int, int] | None:
    """Return the rows and columns (starts and stops) of ``target`` with centres in ``source``.

    None if one is turned against the other, or in another CRS.
    """
    upright = all(grid.transform[1] == grid.transform[3] == 0 for grid in (source, target))
    if not upright or not same_crs(source.crs, target.crs):
        return None
    (a, _, c, _, e, f), (ta, _, tc, _, te, tf) = source.transform, target.transform
    cols = sorted((c + a * side - tc) / ta for side in (0, source.width))
    rows = sorted((f + e * side - tf) / te for side in (0, source.height))
    top, bottom, left, right = (math.ceil(round(edge - 0.5, 6)) for edge in (*rows, *cols))
    return top, bottom, left, right


def same_transform(
    one: tuple[float, ...] | None, other: tuple[float, ...] | None, shape: tuple[int, int]
) -> bool:
    """Return True if no corner of a raster moves by more than SAME pixels."""
    if one is None or other is None:
        return one is other
    (a, b, c, d, e, f), (height, width) = np.subtract(one, other), shape
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    off = max(max(abs(a * x + b * y + c), abs(d * x + e * y + f)) for x, y in corners)
    return bool(off <= SAME * math.sqrt(abs(one[0] * one[4] - one[1] * one[3])))


def choose_grid(choice: object, grids: Mapping[str, Grid]) -> tuple[Grid, str]:
    """Return the common grid of a scene, of which the ``grids`` are given by band name.

    Raise SceneError if the choice is something else.
    """
    if isinstance(choice, GeoBox):
        crs = None if choice.crs is None else choice.crs.to_wkt()
        if crs is None:
            raise SceneError("grid= has no CRS. Pass a GeoBox with one.")
        height, width = choice.shape
        return Grid(height, width, tuple(choice.affine)[:6], crs), _sentence("given", choice)
    sizes = {name: ground_size(grid) or math.inf for name, grid in grids.items()}
    if choice in ("finest", "coarsest"):
        name = (min if choice == "finest" else max)(sizes, key=lambda band: sizes[band])
        return grids[name], _sentence(f"{choice}: that of {name}", grids[name].geobox)
    if isinstance(choice, str) and choice in grids:
        return grids[choice], _sentence(f"that of {choice}", grids[choice].geobox)
    raise SceneError(
        f"grid={choice!r} is not a grid of this scene: it must be 'finest', 'coarsest', one of its "
        f"bands ({', '.join(list(grids)[:16])}) or an odc-geo GeoBox. Pass one of these."
    )


def _sentence(which: str, geobox: GeoBox) -> str:
    return f"{which}, {abs(geobox.resolution.x):g} {geobox.crs.units[0]} pixels"  # type: ignore[union-attr]  # checked by the caller


def resampling(source: Grid, target: Grid, name: str, *, classes: bool = False) -> Resampling:
    """Return how a raster is brought to ``target``: unchanged if the pixels coincide.

    Smaller pixels are interpolated, since repeated ones would draw squares; larger ones averaged,
    so that no source pixel is dropped. Classes are never mixed.

    Raise SceneError if the raster does not reach into the grid.
    """
    overlap = compute_reproject_roi(source.geobox, target.geobox)
    if roi_is_empty(overlap.roi_dst):
        raise SceneError(
            f"'{name}' does not overlap the common grid: the files of one scene must show one "
            "place. Check that they belong together."
        )
    if overlap.paste_ok and math.isclose(overlap.scale, 1):
        return "nearest"
    if overlap.scale > 1:
        return "mode" if classes else "average"
    return "nearest" if classes else "bilinear"


def ground_size(grid: Grid) -> float | None:
    """Return the side of the central pixel on the ground [m], to three digits, if it is known.

    Measured along the ellipsoid: 10 m of a Mercator projection are 7 m on the ground at 45 degrees.
    """
    rows, cols = grid.height / 2 + np.array([0, 0, 1]), grid.width / 2 + np.array([0, 1, 0])
    a, b, c, d, e, f = grid.transform
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    try:
        to_degrees = Transformer.from_crs(CRS(grid.crs), 4326, always_xy=True)
        return side_length(*to_degrees.transform(x, y))
    except ProjError:  # a local or engineering CRS
        return None


def ground_size_of_points(points: Sequence[tuple[float, ...]], crs: str | None) -> float | None:
    """Return it from ground control points (row, column, x, y, z): the mean over the swath."""
    if len(points) < PLANE or crs is None:
        return None
    rows, cols, x, y, _ = np.transpose(points)
    design = np.column_stack([np.ones_like(rows), cols, rows])
    coefficients, *_ = np.linalg.lstsq(design, np.column_stack([x, y]), rcond=None)
    (c, f), (a, d), (b, e) = coefficients
    size = int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1
    return ground_size(Grid(*size, (a, b, c, d, e, f), crs))


def side_length(longitude: NDArray[np.float64], latitude: NDArray[np.float64]) -> float | None:
    """Return a pixel's side [m] from three places: a corner, the next along x, and along y."""
    if not np.isfinite([longitude, latitude]).all():
        return None
    _, _, sides = ELLIPSOID.inv(longitude[[0, 0]], latitude[[0, 0]], longitude[1:], latitude[1:])
    mean = math.sqrt(sides[0] * sides[1])
    return float(f"{mean:.3g}") if mean > 0 else None
