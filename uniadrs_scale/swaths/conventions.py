"""Conventions for the places of pixels, in arrays and in stores.

* A grid: coordinates ``y`` and ``x``, a transform and a CRS (:mod:`.grids`).
* ``latitude`` and ``longitude``: float coordinates (y, x) in degrees, WGS 84, NaN if unknown. A
  scene that has a grid as well is not a swath.
* Ground control points as rioxarray writes them (``rio.write_gcps``), CRS included. ``y`` and
  ``x`` then hold the pixel centres in the points' count, in which a pixel's corner is at a whole
  number: the first pixel of the file is at 0.5. So slicing a scene keeps its geolocation right: the
  points stay, and the coordinates say which pixels are left. Without ``y`` and ``x`` the array is
  taken for the whole file.
* Arrays of satpy: an object of pyresample in ``attrs["area"]``. Only its attributes are used, so
  neither library is needed: an ``AreaDefinition`` has ``crs`` (pyproj) and ``area_extent``, a
  ``SwathDefinition`` has ``lons`` and ``lats`` (y, x) in degrees. The bands of satpy's images and
  composites are its dimension ``bands``.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

import numpy as np
import rioxarray  # noqa: F401 - registers the .rio accessor
import xarray as xr
from affine import Affine
from pyproj import Transformer
from pyproj.exceptions import CRSError as ProjError
from rasterio.crs import CRS
from rasterio.errors import CRSError

from uniadrs_scale.errors import SceneError, gist

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

GEOLOCATION = ("latitude", "longitude")


class Content:
    """The digest of a lazy array's values, kept as long as the array."""

    digest = ""


_CONTENT: WeakValueDictionary[str, Content] = WeakValueDictionary()
"""Contents of lazy arrays, by their names in dask, which depend on their chunks as well."""


def geolocation_kind(array: xr.DataArray) -> Literal["arrays", "points"] | None:
    """Return how the pixels of ``array`` are placed; None if by a grid, or not at all."""
    spatial_ref = array.coords.get(array.rio.grid_mapping)
    attributes = {} if spatial_ref is None else spatial_ref.attrs
    written = str(attributes.get("GeoTransform", "0 1 0 0 0 1")).split()
    has_transform = not Affine.from_gdal(*map(float, written)).is_identity
    has_crs = crs_of(array, named=False) is not None
    if "gcps" in attributes and has_crs and not has_transform:
        return "points"
    if has_crs and (has_transform or {"y", "x"} <= set(array.coords)):
        return None
    placed = all(set(array.coords[n].dims) == {"y", "x"} for n in GEOLOCATION if n in array.coords)
    return "arrays" if placed and set(GEOLOCATION) <= set(array.coords) else None


def geolocation_text(array: xr.DataArray) -> str:
    """Return kind and digest, which changes if any pixel moves; empty if it is not a swath."""
    kind = geolocation_kind(array)
    if kind is None:
        return ""
    if kind == "arrays":
        return f"latitude and longitude {content_digest(*(array.coords[n] for n in GEOLOCATION))}"
    axes = (array.coords[name] for name in ("y", "x") if name in array.coords)
    points = repr((control_points(array).tolist(), array.rio.crs.to_wkt()))
    digest = content_digest(*axes, text=points)
    return f"{len(array.rio.get_gcps())} ground control points {digest}"


def control_points(array: xr.DataArray) -> NDArray[np.float64]:
    """Return (n, 4): row, column, latitude, longitude of each ground control point."""
    points = array.rio.get_gcps()
    transformer = Transformer.from_crs(array.rio.crs.to_wkt(), 4326, always_xy=True)
    longitude, latitude = transformer.transform([p.x for p in points], [p.y for p in points])
    places = [p.row for p in points], [p.col for p in points]
    return np.array([*places, latitude, longitude], np.float64).T


def pixel_centres(array: xr.DataArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (y,) rows and (x,) columns of an array with points, in the points' count."""
    counted = (np.arange(array.sizes[axis]) + 0.5 for axis in ("y", "x"))
    rows, cols = (
        np.asarray(array.coords[axis].values if axis in array.coords else count, np.float64)
        for axis, count in zip(("y", "x"), counted, strict=True)
    )
    return rows, cols


def remember_content(array: xr.DataArray, digest: str) -> Content:
    """Give :func:`content_digest` the digest of a lazy array, whatever its chunks.

    Any operation gives an array another name, so only untouched arrays are recognised.

    Returns:
        The value that the graph of the array must hold: the digest is forgotten with it.
    """
    content = _CONTENT.setdefault(str(array.data.name), Content())
    content.digest = digest
    return content


def content_digest(*parts: xr.DataArray, text: str = "") -> str:
    """Return 16 hex digits that change if an array or ``text`` does.

    They come from the bytes of arrays in memory. For lazy arrays, they come from the content given
    to :func:`remember_content`, else from their names in dask.
    """
    digest = hashlib.sha256(text.encode())
    for part in parts:
        if part.chunks is None:
            digest.update(np.ascontiguousarray(part.values).tobytes())
        else:
            name = str(part.data.name)
            known = _CONTENT.get(name)
            digest.update((known.digest if known else name).encode())
    return digest.hexdigest()[:16]


def crs_of(array: xr.DataArray | xr.Dataset, *, named: bool = True) -> CRS | None:
    """Return the CRS of ``array``: of its grid mapping; if ``named``, else of its attributes.

    Raise SceneError if the CRS is not known to PROJ.
    """
    try:
        crs = array.rio.crs
        if crs is None and named and (said := _named_crs(array)) is not None:
            crs = CRS.from_user_input(said)
    except (CRSError, ProjError, ValueError, TypeError) as error:
        raise SceneError(
            f"Scene '{name_of(array)}' names a CRS that is not known ({gist(error)}). Correct it "
            "(rio.write_crs), or drop the attribute."
        ) from None
    return crs


def written_transform(array: xr.DataArray) -> Affine | None:
    """Return the transform that ``array`` carries as text or numbers; None without or identity."""
    spatial_ref = array.coords.get(array.rio.grid_mapping)
    text = None if spatial_ref is None else spatial_ref.attrs.get("GeoTransform")
    transform = None if text is None else affine_of(str(text).split(), gdal=True)
    if transform is None:
        transform = affine_of(array.attrs.get("spatial:transform"))
        if transform is not None and array.attrs.get("spatial:registration") == "node":
            transform @= Affine.translation(-0.5, -0.5)
    return transform


def _named_crs(array: xr.DataArray | xr.Dataset) -> Any:
    """Return the CRS among attributes (GeoZarr, CF) and scalar coordinates (stackstac)."""
    mapping = array.coords.get(array.rio.grid_mapping)
    for prefix, said in (("proj:", array), ("", mapping), ("proj:", mapping)):
        for name in ("wkt2", "projjson", "code", *([] if prefix else ["srid", "epsg"])):
            value = None if said is None else said.attrs.get(prefix + name)
            if value:
                return int(value) if str(value).isdecimal() else value
    for name in ("epsg", "proj:epsg", "proj:code"):
        coordinate = array.coords.get(name)
        if coordinate is not None and not coordinate.ndim:
            value = coordinate.item()
            if isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value)):
                return value if isinstance(value, str) else int(value)
    return None


def affine_of(numbers: Sequence[Any] | Any, *, gdal: bool = False) -> Affine | None:
    """Return six numbers as an affine; None if they are not, or are the identity."""
    try:
        values = [float(number) for number in tuple(numbers)[:6]]
        transform = Affine.from_gdal(*values) if gdal else Affine(*values)
    except (TypeError, ValueError):
        return None
    usable = all(map(math.isfinite, values)) and not transform.is_degenerate
    return transform if usable and not transform.is_identity else None


def name_of(scene: xr.DataArray | xr.Dataset) -> str:
    """Return the name of a scene for people; arrays often have none."""
    return str((isinstance(scene, xr.DataArray) and scene.name) or "array")


def as_scene(scene: xr.DataArray) -> xr.DataArray:
    """Return ``scene`` as (band, y, x), placed as the library writes it.

    Raise SceneError if it is not an array of real numbers (band, y, x) or (y, x).
    """
    if not isinstance(scene, xr.DataArray):
        raise SceneError(
            f"A scene must be an xarray.DataArray, not {type(scene).__name__}. "
            "Use open_scene(path), or Dataset.to_dataarray('band').assign_attrs(_FillValue=NODATA)."
        )
    scene = placed_by_area(scene) if {"y", "x"} <= set(scene.dims) else scene
    array = scene.expand_dims("band") if set(scene.dims) == {"y", "x"} else scene
    if set(array.dims) != {"band", "y", "x"}:
        raise SceneError(
            f"Scene '{name_of(scene)}' has dims {scene.dims}: (band, y, x) or (y, x) are "
            "needed. Use .rename() or .isel()."
        )
    if array.dtype.kind not in "buif":
        raise SceneError(
            f"Scene '{name_of(scene)}' has dtype {array.dtype}: scores need real numbers. "
            "Take abs(...) of complex values, or convert: scene.astype('float32')."
        )
    return _with_plain_mask(array).transpose("band", "y", "x")


def _with_plain_mask(array: xr.DataArray) -> xr.DataArray:
    """Return ``array`` with its boolean mask, if it has one, spread over both axes."""
    if "valid" not in array.coords:
        return array
    valid = array.coords["valid"]
    if valid.dtype != bool:
        raise SceneError(
            f"The coordinate 'valid' has dtype {valid.dtype}: a mask is boolean, True for a "
            "valid pixel. Assign one, such as valid=scene.valid == 1 (after coarsen or interp, "
            "1 means that all pixels were valid)."
        )
    if not valid.dims or not set(valid.dims) <= {"y", "x"}:
        raise SceneError(
            f"The coordinate 'valid' has dims {valid.dims}: a mask has y, x or both. Use "
            ".all('band') for one that has bands."
        )
    whole = valid.variable.set_dims({axis: array.sizes[axis] for axis in ("y", "x")})
    return array.assign_coords(valid=whole)


def placed_by_area(array: xr.DataArray) -> xr.DataArray:
    """Return ``array`` with the place of its area written as ours; itself if it has no area.

    Coordinates that users or other readers made are left as they are.

    Raise SceneError if the area has another shape: the array was sliced after satpy placed it.
    """
    area = array.attrs.get("area")
    if area is None:
        return array
    # Not the object itself: it would travel with every window.
    array = array.rename(bands="band") if "bands" in array.dims else array
    others = {name: value for name, value in array.attrs.items() if name != "area"}
    bare = array.drop_attrs(deep=False).assign_attrs(others)
    if set(GEOLOCATION) <= set(array.coords) or "spatial_ref" in array.coords:
        return bare
    sizes = array.sizes["y"], array.sizes["x"]
    shape = tuple(getattr(area, "shape", sizes))
    if shape != sizes:
        raise SceneError(
            f"Scene '{name_of(array)}' has {sizes[0]} x {sizes[1]} px, and its attrs['area'] "
            f"{shape[0]} x {shape[1]}: slicing an array leaves its area behind. Use satpy's "
            "Scene.crop, or drop the attribute."
        )
    if hasattr(area, "area_extent"):
        return _on_grid(bare, area)
    if hasattr(area, "lons") and hasattr(area, "lats"):
        return bare.assign_coords(latitude=_plane(area.lats), longitude=_plane(area.lons))
    raise SceneError(
        f"attrs['area'] of scene '{name_of(array)}' has type {type(area).__name__}: an "
        "AreaDefinition or a SwathDefinition was expected. Drop the attribute to score "
        "without a place."
    )


def _on_grid(array: xr.DataArray, area: Any) -> xr.DataArray:
    left, bottom, right, top = area.area_extent
    height, width = array.sizes["y"], array.sizes["x"]
    transform = Affine((right - left) / width, 0, left, 0, (bottom - top) / height, top)
    x = left + transform.a * (np.arange(width) + 0.5)
    y = top + transform.e * (np.arange(height) + 0.5)
    placed = array.assign_coords(y=y, x=x).rio.write_crs(area.crs.to_wkt())
    result: xr.DataArray = placed.rio.write_transform(transform)
    return result


def _plane(values: Any) -> xr.Variable:
    """Return values (y, x) as a variable, lazy if they were."""
    return xr.Variable(("y", "x"), getattr(values, "data", values))
