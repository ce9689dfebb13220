"""What an array says of the geolocation of a swath, in memory and in a store alike.

Two conventions, and a scene that has a grid as well is no swath:

* ``latitude`` and ``longitude``: float coordinates (y, x) in degrees, WGS 84, NaN where unknown.
* Ground control points as rioxarray writes them (``rio.write_gcps``), CRS included. ``y`` and
  ``x`` then hold the pixel centres in the points' count, where a pixel's corner is at a whole
  number: the first pixel of the file is at 0.5. So slicing a scene keeps its geolocation right: the
  points stay, and the coordinates say which pixels are left. Without ``y`` and ``x`` the array is
  taken for the whole file.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import numpy as np
from affine import Affine
from pyproj import CRS, Transformer

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

GEOLOCATION = ("latitude", "longitude")
_CONTENT: dict[str, str] = {}
"""What lazy arrays hold, by dask's names for them, which tell of their chunks as well."""


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


def remember_content(array: xr.DataArray, content: str) -> None:
    """Let :func:`content_digest` know what a lazy array holds, whatever its chunks.

    Any operation gives an array another name, so only untouched ones are recognised.
    """
    _CONTENT[str(array.data.name)] = content


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
            digest.update(_CONTENT.get(name, name).encode())
    return digest.hexdigest()[:16]
