"""Arrays of satpy: their place on Earth is an object of pyresample in ``attrs["area"]``.

Only its attributes are used, so that neither library is needed here:

* an ``AreaDefinition`` has ``crs`` (pyproj) and ``area_extent``: a grid;
* a ``SwathDefinition`` has ``lons`` and ``lats`` (y, x) in degrees: a swath without one.

The bands of satpy's images and composites are its dimension ``bands``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from affine import Affine

from uniadrs_scale.errors import SceneError
from uniadrs_scale.io.swaths import GEOLOCATION

if TYPE_CHECKING:
    from collections.abc import Mapping


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
