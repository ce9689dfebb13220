"""A scene as a lazy DataArray, and the source that its pixels are read from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from uniadrs_scale.core.contracts import SceneInfo, SceneSource, digest
from uniadrs_scale.core.validity import EVERY_BAND, OUTSIDE, Validity, can_hold, valid_pixels
from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.axes import wavelengths_of
from uniadrs_scale.scenes.declared import DECLARED, declared_nodata, with_plain_fill
from uniadrs_scale.scenes.grids import Grid, ground_size, is_rotated_pole
from uniadrs_scale.scenes.lazy import (
    MIXED,
    folders_in,
    is_store_lost,
    lazy_pixels,
    origin,
    require_unchanged,
    scenes_in,
    stores_in,
)
from uniadrs_scale.scenes.packing import HUGE
from uniadrs_scale.swaths.conventions import (
    GEOLOCATION,
    as_scene,
    content_digest,
    geolocation_kind,
    geolocation_text,
    name_of,
)
from uniadrs_scale.swaths.grids import (
    Georeference,
    centres,
    georeference,
    is_rotated,
    map_axes,
    spatial_ref,
    without_old_coordinates,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.scenes.assembly import Facts
    from uniadrs_scale.scenes.rasters import WindowedScene


NO_GEOTIFF = (
    "A GeoTIFF cannot hold the CRS of the scene, whose pole is rotated: a COG of the map has none. "
    "Take the map as Zarr."
)
ASSUMED = "assumed"
"""Attribute with a sentence about what was assumed of an array."""


def lazy_scene(scene: WindowedScene, facts: Facts, chunk: int) -> xr.DataArray:
    """Return ``scene`` as an array (band, y, x) with all that is known; ``chunk`` in pixels."""
    info = scene.info
    array = lazy_pixels(scene, chunk).assign_coords(_coordinates(info))
    if any(facts.wavelengths):
        centres = [np.nan if centre is None else float(centre) for centre in facts.wavelengths]
        array = array.assign_coords(wavelength=("band", centres, {"units": "nm"}))
    if info.transform is not None:
        array = array.rio.write_transform(Affine(*info.transform))
    if info.crs is not None:
        array = array.rio.write_crs(info.crs)
    if facts.gcps:
        points = [GroundControlPoint(*point, id=str(k)) for k, point in enumerate(facts.gcps)]
        # In the points' count, so that they stay right when the scene is sliced.
        places = {axis: np.arange(array.sizes[axis]) + 0.5 for axis in ("y", "x")}
        array = array.assign_coords(places).rio.write_gcps(points, facts.gcp_crs)
    if scene.nodata is not None and can_hold(np.dtype(info.dtype), scene.nodata):
        array = array.rio.write_nodata(scene.nodata)
    known = {"gsd_m": info.gsd_m, "datetime": facts.datetime, "platform": facts.platform}
    return array.assign_attrs({k: v for k, v in known.items() if v is not None}).rename(info.name)


def _coordinates(info: SceneInfo) -> dict[str, Any]:
    """Return band names and pixel centres: in CRS units, on a rotated grid in pixels."""
    coords: dict[str, Any] = {"band": list(info.bands)}
    if info.transform is None:
        return coords
    transform = Affine(*info.transform)
    if not is_rotated(transform):
        return coords | centres(transform, info.height, info.width)
    counted = {"units": "pixel", "transform": list(info.transform)}
    for name, size in (("y", info.height), ("x", info.width)):
        coords[name] = (name, np.arange(size) + 0.5, counted)
    return coords


WORKED = 2
"""Chunks that band maths hold at once."""


def scene_source(scene: xr.DataArray) -> SceneSource:
    """Return the files of ``scene`` if they hold just these pixels, else the array as a source.

    Raises:
        SceneError: The array's dimensions are not (band, y, x) or (y, x), it is not real, its
            place is in doubt, or its files have changed since they were opened.
    """
    array, known = recognised(scene)
    if known is not None:
        require_unchanged(known.decisive())
        known = replace(known, info=_placed(known.info, array))
        return cast("SceneSource", known)
    for scene_read in scenes_in(_parts(array)):
        require_unchanged(scene_read.decisive())
    info = _placed(_describe(array), array)
    # Tasks need no other coordinate, and those of a swath are as large as a band.
    return ArrayScene(info, array.drop_vars([name for name in array.coords if name != "valid"]))


def require_still(source: SceneSource) -> None:
    """Raise SceneError if files of a scene have changed while it was scored."""
    if not isinstance(source, ArrayScene):
        require_unchanged(source.decisive(), ended=True)
        return
    parts = _parts(source.array)
    for scene in scenes_in(parts):
        require_unchanged(scene.decisive(), ended=True)
    if source.array.chunks is None or is_store_lost(parts):
        return
    if digest(source.decisive()) != source.info.identity:
        raise SceneError(f"A store of scene '{source.info.name}' has changed. {MIXED}")


def stores_of(source: SceneSource) -> Iterator[str]:
    """Yield the Zarr stores on this machine that a scene is read from."""
    if not isinstance(source, ArrayScene):
        yield from folders_in(source.decisive())
        return
    yield from dict(stores_in(_parts(source.array)))
    for scene in scenes_in(_parts(source.array)):
        yield from folders_in(scene.decisive())


@dataclass(frozen=True, slots=True, eq=False)
class ArrayScene:
    """A scene that exists as an array only: band maths, a mosaic, pixels in memory."""

    info: SceneInfo
    array: xr.DataArray
    """(band, y, x)."""

    def decisive(self) -> dict[str, Any]:
        """Return what decides the pixels, as JSON values."""
        return _decisive(self.array)

    def window(self, window: Window) -> ArrayWindow:
        """Return the lazy slice of one window."""
        return ArrayWindow(self.array[(..., *window.slices)])


@dataclass(frozen=True, slots=True, eq=False)
class ArrayWindow:
    """A window of an :class:`ArrayScene`, still to be computed."""

    array: xr.DataArray

    def read(self) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read pixels (band, y, x) and valid mask (y, x)."""
        return self.counted()[:2]

    def counted(self) -> tuple[NDArray[np.generic], NDArray[np.bool_], Mapping[str, int]]:
        """Read pixels, valid mask, and the number of invalid pixels by reason."""
        # Synchronous: this already runs inside a task, whose threads are in use.
        array = self.array.compute(scheduler="synchronous")
        pixels = array.values
        validity = Validity(pixels.shape[1:])
        validity.drop_not_finite(pixels)
        if pixels.dtype.kind == "f":
            outside = np.zeros(pixels.shape[1:], bool)
            for band in pixels:  # not all at once: the forecast has no room for another window
                outside |= np.abs(band) > HUGE
            validity.drop(outside, OUTSIDE)
        if "valid" in array.coords:
            mask = array.coords["valid"]
            validity.drop(~mask.values, OUTSIDE if DECLARED in mask.attrs else "not in 'valid'")
        else:
            nodata = (declared_nodata(array),) * len(pixels)
            together = pixels.dtype.itemsize == 1  # each value is also a measurement
            validity.drop(~valid_pixels(pixels, nodata, together=together), EVERY_BAND)
        return pixels, validity.valid, validity.lost


def map_coordinates(scene: xr.DataArray) -> Mapping[str, xr.DataArray]:
    """Return the coordinates of the map of ``scene``: the places of its pixels.

    A map on a rotated grid has only a transform.
    """
    array, _ = recognised(scene)
    axes = {name: array.coords[name] for name in ("y", "x") if name in array.coords}
    kind = geolocation_kind(array)
    if kind == "points":
        return axes | {"spatial_ref": array.coords[array.rio.grid_mapping]}
    if kind == "arrays":
        return axes | {name: array.coords[name].transpose("y", "x") for name in GEOLOCATION}
    place = georeference(array)
    if place.transform is None:
        return axes
    return map_axes(array, place.transform) | {"spatial_ref": spatial_ref(place)}


def recognised(scene: xr.DataArray) -> tuple[xr.DataArray, Any]:
    """Return ``scene`` as (band, y, x), and the files that hold just these pixels, if any do."""
    array = with_plain_fill(as_scene(scene))
    known = origin(array)
    if known is not None and known.info.transform is not None:
        array = without_old_coordinates(array, Affine(*known.info.transform))
    return array, known


def _words_of_mask(array: xr.DataArray) -> str:
    """Return what makes pixels invalid, for people."""
    nodata, which = declared_nodata(array), "all bands" if array.dtype.itemsize == 1 else "any band"
    if "valid" in array.coords:
        said = array.coords["valid"].attrs.get(DECLARED)
        alone = "" if nodata is None else f" (it alone: {nodata:g} counts as data)"
        return str(said) if said else f"where coordinate 'valid' is False{alone}"
    return "" if nodata is None else f"{nodata:g} in {which}"


def _placed(info: SceneInfo, array: xr.DataArray) -> SceneInfo:
    """Return ``info`` with the place that the coordinates and attributes of ``array`` say."""
    geolocation = geolocation_text(array)
    place = Georeference() if geolocation else georeference(array)
    crs = place.crs
    if None not in (crs, info.crs) and CRS.from_wkt(crs) == CRS.from_user_input(info.crs):
        crs = info.crs  # the same in the words of the file
    transform = None if place.transform is None else tuple(place.transform)[:6]
    if crs is not None and transform is not None and (crs, transform) != (info.crs, info.transform):
        info = replace(info, gsd_m=ground_size(Grid(info.height, info.width, transform, crs)))
    why = place.problem or ("" if crs or geolocation else info.unplaced)
    info = replace(info, crs=crs, transform=transform, geolocation=geolocation, unplaced=why)
    info = replace(info, name=str(array.name or info.name), wavelengths=wavelengths_of(array))
    said = (str(array.attrs.get(name, "")) for name in ("datetime", "platform", "crop"))
    acquired, platform, crop = said
    if crs is not None and is_rotated_pole(crs):
        info = replace(info, notes=(*info.notes, NO_GEOTIFF))
    return replace(info, acquired=acquired, platform=platform, crop=crop)


def _describe(array: xr.DataArray) -> SceneInfo:
    """Return what a plan must know of an array, but for its place."""
    bands = array.coords["band"].values if "band" in array.coords else range(array.sizes["band"])
    size = array.attrs.get("gsd_m")
    return SceneInfo(
        name=name_of(array),
        identity=digest(_decisive(array)),
        height=array.sizes["y"],
        width=array.sizes["x"],
        bands=tuple(str(band) for band in bands),
        dtype=str(array.dtype),
        itemsize=array.dtype.itemsize,
        crs=None,
        transform=None,
        gsd_m=float(size) if isinstance(size, int | float) and size > 0 else None,
        block_bytes=_worked_bytes(array),
        strip_rows=0 if array.chunks is None else array.sizes["y"],
        masked=_words_of_mask(array),
        notes=(str(array.attrs[ASSUMED]),) if ASSUMED in array.attrs else (),
    )


def _worked_bytes(array: xr.DataArray) -> int:
    """Return the bytes that computing a window needs: its largest chunk, made from another one.

    Measured for ratios, sums over bands and stacked bands. A user's own graph may take more.
    """
    if array.chunks is None:
        return 0
    _, height, width = (max(sizes) for sizes in array.chunks)
    return WORKED * array.sizes["band"] * height * width * array.dtype.itemsize


def _decisive(array: xr.DataArray) -> dict[str, Any]:
    """Return what decides the pixels: Dask's names of lazy arrays, the bytes of others."""
    parts = _parts(array)
    content = content_digest(*map(xr.DataArray, parts))
    stores = dict(stores_in(parts))
    known = {"content": content, "nodata": declared_nodata(array)}
    return known | ({"stores": stores} if stores else {})


def _parts(array: xr.DataArray) -> list[xr.Variable]:
    """Return the pixels of an array, and its mask if it has one."""
    return [array.variable, *(array.coords[name].variable for name in {"valid"} & {*array.coords})]
