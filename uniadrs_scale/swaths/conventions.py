"""Arrays of satpy: their place on Earth is an object of pyresample in ``attrs["area"]``.

Only its attributes are used, so that neither library is needed here:

* an ``AreaDefinition`` has ``crs`` (pyproj) and ``area_extent``: a grid;
* a ``SwathDefinition`` has ``lons`` and ``lats`` (y, x) in degrees: a swath without one.

The bands of satpy's images and composites are its dimension ``bands``.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

import numpy as np
import xarray as xr
from affine import Affine
from pyproj import CRS, Transformer

from uniadrs_scale.errors import SceneError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def placed_by_area(array: xr.DataArray) -> xr.DataArray:
    """``array`` with the places of its area as ours are written; itself if it has no area.

    Coordinates that users or other readers made are left as they are.

    Raises:
        SceneError: The area has another shape: the array was sliced after satpy placed it.
    """
    area = array.attrs.get("area")
    if area is None:
        return array
    # Not the object itself: it would travel with every window.
    array = array.rename(bands="band") if "bands" in array.dims else array
    bare = array.drop_attrs(deep=False).assign_attrs(_without_area(array.attrs))
    if set(GEOLOCATION) <= set(array.coords) or "spatial_ref" in array.coords:
        return bare
    sizes = array.sizes["y"], array.sizes["x"]
    shape = tuple(getattr(area, "shape", sizes))
    if shape != sizes:
        raise SceneError(
            f"Scene '{array.name}' has {sizes[0]} x {sizes[1]} px, and its attrs['area'] "
            f"{shape[0]} x {shape[1]}: slicing an array leaves its area behind. Use satpy's "
            "Scene.crop, or drop the attribute."
        )
    if hasattr(area, "area_extent"):
        return _on_grid(bare, area)
    if hasattr(area, "lons") and hasattr(area, "lats"):
        return bare.assign_coords(latitude=_plane(area.lats), longitude=_plane(area.lons))
    raise SceneError(
        f"attrs['area'] of scene '{array.name}' is a {type(area).__name__}: an AreaDefinition or "
        "a SwathDefinition was expected. Drop the attribute to score without a place."
    )


def _without_area(attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: value for name, value in attributes.items() if name != "area"}


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
    """(y, x), lazy where it was."""
    return xr.Variable(("y", "x"), getattr(values, "data", values))


GEOLOCATION = ("latitude", "longitude")


class Content:
    """A digest of the values of a lazy array, kept as long as the array."""

    digest = ""


_CONTENT: WeakValueDictionary[str, Content] = WeakValueDictionary()
"""Digests by dask's names of arrays, which depend on their chunks as well."""


def geolocation_kind(array: xr.DataArray) -> Literal["arrays", "points"] | None:
    """How the pixels of ``array`` (y, x and maybe band) are placed; None: by a grid, or not."""
    spatial_ref = array.coords.get(array.rio.grid_mapping)
    attributes = {} if spatial_ref is None else spatial_ref.attrs
    written = str(attributes.get("GeoTransform", "0 1 0 0 0 1")).split()
    has_transform = not Affine.from_gdal(*map(float, written)).is_identity
    has_crs = array.rio.crs is not None
    if "gcps" in attributes and has_crs and not has_transform:
        return "points"
    if has_crs and (has_transform or {"y", "x"} <= set(array.coords)):
        return None
    placed = all(set(array.coords[n].dims) == {"y", "x"} for n in GEOLOCATION if n in array.coords)
    return "arrays" if placed and set(GEOLOCATION) <= set(array.coords) else None


def geolocation_text(array: xr.DataArray) -> str:
    """Kind and digest, which changes when any pixel moves; empty for a scene that is no swath."""
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
    """(n, 4): row, column, latitude, longitude of each ground control point of ``array``."""
    points = array.rio.get_gcps()
    transformer = Transformer.from_crs(CRS.from_wkt(array.rio.crs.to_wkt()), 4326, always_xy=True)
    longitude, latitude = transformer.transform([p.x for p in points], [p.y for p in points])
    places = [p.row for p in points], [p.col for p in points]
    return np.array([*places, latitude, longitude], np.float64).T


def pixel_centres(array: xr.DataArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(y,) rows and (x,) columns of an array with control points, in the points' count."""
    rows, cols = (
        np.asarray(array.coords[axis].values if axis in array.coords else
                   np.arange(array.sizes[axis]) + 0.5, np.float64)
        for axis in ("y", "x")
    )  # fmt: skip
    return rows, cols


def remember_content(array: xr.DataArray, digest: str) -> Content:
    """Tell :func:`content_digest` the digest of a lazy array, whatever its chunks.

    Any operation gives an array another name, so only untouched ones are recognised.

    Returns:
        What the array's graph must hold: the digest is forgotten with it.
    """
    content = _CONTENT.setdefault(str(array.data.name), Content())
    content.digest = digest
    return content


def content_digest(*parts: xr.DataArray, text: str = "") -> str:
    """16 hex digits that change when an array or ``text`` does.

    Of the bytes of arrays in memory; of lazy ones, of what :func:`remember_content` was told, else
    of dask's names.
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
