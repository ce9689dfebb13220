"""Crops: a part of a scene, by a box or an area, as a scene of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from uniadrs_scale.core.contracts import digest
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.core.layers import Part
from uniadrs_scale.core.validity import valid_pixels
from uniadrs_scale.errors import SceneError, gist
from uniadrs_scale.scenes.areas import (
    TURN,
    Area,
    clipped,
    is_frame,
    projected,
    read_areas,
    turn_of,
    turned,
)
from uniadrs_scale.scenes.declared import declared_nodata
from uniadrs_scale.scenes.given import scene_of
from uniadrs_scale.scenes.lazy import lazy_pixels
from uniadrs_scale.scenes.rasters import WindowedScene
from uniadrs_scale.scenes.sources import recognised
from uniadrs_scale.swaths.conventions import geolocation_kind, name_of
from uniadrs_scale.swaths.grids import georeference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import SceneInfo
    from uniadrs_scale.core.validity import Validity

ROWS = 64  # of an area that are looked at together, until a pixel is inside
OUTSIDE = "outside the area"
"""Reason why pixels are invalid."""
SLACK = np.array([1, 1, -1, -1]) * 1e-6
"""Pixels by which edges may miss the borders of pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cropped(WindowedScene):
    """A window of the files of a scene, in an area or not, seen as one scene."""

    info: SceneInfo
    nodata: float | None
    scene: WindowedScene
    place: Window
    area: Area | None

    def decisive(self) -> dict[str, Any]:
        """Return what decides the pixels, as JSON values."""
        place = self.place
        return {
            "scene": self.scene.decisive(),
            "window": [place.row, place.col, place.height, place.width],
            "area": None if self.area is None else hashlib.sha256(self.area.wkb).hexdigest(),
        }

    def counted(self, window: Window) -> tuple[NDArray[np.generic], Validity]:
        """Read pixels (band, y, x), which are valid, and why others are not."""
        row, col = self.place.row + window.row, self.place.col + window.col
        pixels, validity = self.scene.counted(replace(window, row=row, col=col))
        if self.area is not None:
            validity.drop(~self.area.inside(window), OUTSIDE)
        return pixels, validity


def crop(
    scene: xr.DataArray | xr.Dataset | str | Path | Sequence[str | Path],
    *,
    bbox: Sequence[float] | None = None,
    aoi: str | Path | Any = None,
    crs: str | int = "EPSG:4326",
) -> xr.DataArray:
    """Return the part (band, y, x) of a scene that a box or an area covers, lazy as the scene is.

    The part has its own fingerprint and the statistics of its own pixels, so its scores differ from
    those in a map of the whole scene.

    Args:
        scene: As for :func:`uniadrs_scale.score`: an array, a Dataset of bands, a path.
        bbox: (west, south, east, north) in ``crs``; the least rectangle of pixels that covers it
            is kept. West > east: across 180 degrees.
        aoi: Vector file or GeoDataFrame with polygons in any CRS, or a geometry in ``crs`` (of
            shapely or GeoJSON): the rectangle around it is kept, and pixels whose centres are
            outside become invalid.
        crs: CRS of ``bbox`` and of a geometry; by default longitude and latitude.

    Raises:
        PlanError: The file of the area cannot be read.
        SceneError: The scene has no grid with a CRS, or nothing of it is in the box or area.
    """
    array, known = recognised(scene_of(scene))
    size, grid = (array.sizes["y"], array.sizes["x"]), _grid(array)
    window, area = Window(0, 0, *size), ""
    if bbox is not None:
        shapes = _in_pixels(np.array([_box(bbox, crs)]), crs, grid)
        window = _met(window, shapes, f"box {','.join(f'{side:.10g}' for side in bbox)}", grid)
    if aoi is not None:
        own = isinstance(aoi, str | Path)
        given = read_areas(aoi) if own or is_frame(aoi) else (np.array([_geometry(aoi)]), str(crs))
        polygons, their_crs = _polygons(*given)
        shapes = _in_pixels(polygons, their_crs, grid)
        window = _met(window, shapes, f"area '{aoi}'" if own else "area", grid)
        corner = np.array([window.col, window.row])
        inside = Area(shapely.transform(shapely.union_all(shapes), lambda xy: xy - corner).wkb)
        rows = range(0, window.height, ROWS)
        if not any(inside.inside(Window(row, 0, ROWS, window.width)).any() for row in rows):
            raise SceneError("The area holds no centre of a pixel. Give a larger area, or bbox=.")
        area = inside.text
    if bbox is None and aoi is None:
        raise SceneError("A crop needs bbox=(west, south, east, north) or aoi=FILE. Pass one.")
    return _cut(array, known, Part(window, size, area))


def crop_again(scene: xr.DataArray, parts: Sequence[Part]) -> xr.DataArray:
    """Return the part of a scene that :func:`crop` returned before: the same pixels."""
    for part in parts:
        scene = _cut(*recognised(scene), part)
    return scene


def _cut(array: xr.DataArray, known: Any, part: Part) -> xr.DataArray:
    """Return a part of an array, read from the files that hold it, if any do."""
    window, area = part.window, Area.of_text(part.area) if part.area else None
    rows, cols = window.slices
    place = _grid(array).affine @ Affine.translation(window.col, window.row)
    made: xr.DataArray = array.isel(y=rows, x=cols).rio.write_transform(place)
    if known is not None:
        made = _of_files(made, known, part, area)
    elif area is not None:
        made = _masked(made, area)
    return made.assign_attrs(crop=f"{part}: a scene of its own, with statistics of its own")


def _grid(array: xr.DataArray) -> GeoBox:
    """Return the grid of a scene; SceneError if it has none, or one without a CRS."""
    if geolocation_kind(array):
        raise SceneError(
            f"Scene '{name_of(array)}' is a swath, whose rows and columns are not along a "
            "grid: a box cannot cut it. Select pixels: scene.isel(y=slice(...), x=slice(...))."
        )
    place = georeference(array)
    if place.crs is None or place.transform is None:
        lacking = "CRS" if place.crs is None else "transform"
        raise SceneError(
            f"Scene '{name_of(array)}' has no {lacking}, so a box has no place on it. Write "
            "it (scene.rio.write_crs), or select pixels: scene.isel(y=slice(...), x=slice(...))."
        )
    return GeoBox((array.sizes["y"], array.sizes["x"]), place.transform, place.crs)


def _box(bbox: Sequence[float], crs: str | int) -> Any:
    """Return a box as a polygon; SceneError if it is not a box, or the CRS is not known."""
    try:
        round_ = CRS.from_user_input(crs).is_geographic
    except CRSError as error:
        raise SceneError(
            f"crs={crs!r} is not known to PROJ ({gist(error)}). Use EPSG:4326."
        ) from None
    try:
        sides = np.asarray(bbox, float)
    except (TypeError, ValueError):
        sides = np.empty(0)
    if sides.shape != (4,) or not np.isfinite(sides).all():
        raise SceneError(f"bbox={bbox!r} is not a box. Give west, south, east, north.")
    west, south, east, north = sides.tolist()
    east += TURN if round_ and west > east else 0
    if west >= east or south >= north:
        raise SceneError(
            f"bbox={bbox!r} is empty: the order is west, south, east, north. Swap its sides."
        )
    return shapely.box(west, south, east, north)


def _geometry(aoi: Any) -> Any:
    """Return a geometry as shapely's; SceneError if it is not a geometry."""
    try:
        return aoi if isinstance(aoi, shapely.Geometry) else shapely.geometry.shape(aoi)
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError):
        raise SceneError(
            f"aoi={aoi!r:.60} is not a geometry. Pass a file with polygons, a shapely geometry, or "
            "the geometry of a GeoJSON feature."
        ) from None


def _polygons(shapes: NDArray[Any], crs: str) -> tuple[NDArray[Any], str]:
    """Return the polygons among shapes, and their CRS; refuse an area without any."""
    polygons = shapes[shapely.area(shapes) > 0]
    if not len(polygons):
        raise SceneError(
            "The area has no polygons: points and lines hold no pixels. Give polygons."
        )
    return shapely.make_valid(polygons), crs


def _in_pixels(shapes: NDArray[Any], crs: str | int, grid: GeoBox) -> NDArray[Any]:
    """Return shapes in pixels of ``grid``: x is the column, y the row."""
    target, source = CRS.from_user_input(str(grid.crs)), CRS.from_user_input(crs)
    try:
        if not source.equals(target, ignore_axis_order=True):
            if source.geodetic_crs is not None and not source.is_geographic:
                degrees = source.geodetic_crs  # where what is near the grid can be told
                shapes, source = projected(shapes, source, degrees), degrees
            shapes = clipped(shapes, source, _border(grid, source))
            shapes = shapes[shapely.area(shapes) > 0]
            shapes = projected(shapes, source, target) if len(shapes) else shapes
        shapes = turned(shapes, turn) if (turn := turn_of(target)) else shapes
    except (ProjError, ValueError) as error:
        raise SceneError(
            f"PROJ cannot bring {source.name} to the scene's CRS, {target.name} ({gist(error)}). "
            "Give box or area in the CRS of the scene."
        ) from None
    inverse = ~grid.affine
    made = shapely.transform(shapes, lambda xy: np.stack(inverse @ xy.T, axis=-1))
    made = shapely.intersection(made, shapely.box(0, 0, grid.shape.x, grid.shape.y))
    left, top, right, bottom = (shapely.bounds(made) + SLACK).T
    return cast("NDArray[Any]", made[(left < right) & (top < bottom)])


def _border(grid: GeoBox, crs: CRS) -> NDArray[np.float64]:
    """Return (n, 2) places around a grid in another CRS."""
    border = shapely.segmentize(shapely.box(0, 0, grid.shape.x, grid.shape.y), max(grid.shape) / 64)
    to_crs = Transformer.from_crs(str(grid.crs), crs, always_xy=True)
    places = grid.affine @ shapely.get_coordinates(border).T
    return np.stack(to_crs.transform(*places), axis=-1)


def _extent(grid: GeoBox, crs: CRS) -> list[float]:
    """Return left, bottom, right and top of a grid in another CRS."""
    seen = (border := _border(grid, crs))[np.isfinite(border).all(axis=1)]
    seen[:, 0] = np.unwrap(seen[:, 0], period=TURN)
    return [*seen.min(axis=0).tolist(), *seen.max(axis=0).tolist()]


def _met(window: Window, shapes: NDArray[Any], what: str, grid: GeoBox) -> Window:
    """Return the pixels of ``window`` that shapes in pixels touch; SceneError if none."""
    if len(shapes):
        left, top, right, bottom = shapely.total_bounds(shapes) + SLACK
        row, col = int(np.floor(top)), int(np.floor(left))
        box = Window(row, col, int(np.ceil(bottom)) - row, int(np.ceil(right)) - col)
        if (met := window.intersection(box)) is not None:
            return met
    try:
        sides, unit = _extent(grid, CRS.from_epsg(4326)), "degrees"
    except ProjError:  # a local CRS, or one of another planet
        sides, unit = [*grid.extent.boundingbox.bbox], "units of its CRS"
    extent = f"{','.join(f'{side:.4f}' for side in sides)} (west, south, east, north in {unit})"
    raise SceneError(
        f"The {what} has no pixel of the scene, which covers {extent}. Check the order of its "
        "sides, and its CRS."
    )


def _of_files(
    cut: xr.DataArray, known: WindowedScene, part: Part, area: Area | None
) -> xr.DataArray:
    """Return ``cut`` read by windows of the files that hold it."""
    transform, window = tuple(georeference(cut).transform or ())[:6], part.window
    info = replace(known.info, height=window.height, width=window.width, transform=transform)
    info = replace(info, parts=(*known.info.parts, part))
    made = Cropped(info=info, nodata=known.nodata, scene=known, place=window, area=area)
    made = replace(made, info=replace(info, identity=digest(made.decisive())))
    lazy = lazy_pixels(made, max(cut.chunks[1]) if cut.chunks else window.height)
    return cut.copy(data=lazy.data).assign_coords(valid=lazy.coords["valid"].variable)


def _masked(part: xr.DataArray, area: Area) -> xr.DataArray:
    """Return an array whose coordinate ``valid`` is False outside the area."""
    whole = Window(0, 0, part.sizes["y"], part.sizes["x"])
    inside = xr.DataArray(area.inside(whole), dims=("y", "x"))
    if "valid" in part.coords:
        valid = part.coords["valid"].reset_coords(drop=True)
    else:
        nodata = (declared_nodata(part),) * part.sizes["band"]
        together = part.dtype.itemsize == 1  # each value is also a measurement
        valid = xr.apply_ufunc(
            lambda pixels: valid_pixels(np.moveaxis(pixels, -1, 0), nodata, together=together),
            (part if part.chunks is None else part.chunk(band=-1)).variable,
            input_core_dims=[["band"]],
            dask="parallelized",
            output_dtypes=[bool],
        )
    return part.assign_coords(valid=(("y", "x"), (valid & inside.variable).data))
