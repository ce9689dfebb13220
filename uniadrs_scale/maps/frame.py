"""The coordinates of a map in a store: its place, without its scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
import zarr

from uniadrs_scale.swaths.conventions import GEOLOCATION

Y_X = 2  # axes of a map


def map_frame(group: zarr.Group, score: zarr.Array[Any]) -> xr.DataArray:
    """Return the coordinates that place ``score``, around zeros.

    Without xarray, which opens every array of a store: 15 requests if it is in a bucket.
    """
    dims = getattr(score.metadata, "dimension_names", None) or ("y", "x")
    mapping = str(score.attrs.get("grid_mapping", "spatial_ref"))
    coords: dict[str, Any] = {}
    for name, called in ((dims[0], "y"), (dims[1], "x"), (mapping, "spatial_ref")):
        array = group.get(name)
        if isinstance(array, zarr.Array) and array.ndim < Y_X:
            coords[called] = ((called,) * array.ndim, np.asarray(array[...]), dict(array.attrs))
    values = np.broadcast_to(np.float32(0), score.shape)
    # The fill value is encoded for Zarr; the rest may be all that is said of the place.
    ours = ("_FillValue", "coordinates", "grid_mapping")
    attrs = {key: value for key, value in score.attrs.items() if key not in ours}
    frame = xr.DataArray(values, dims=("y", "x"), coords=coords, attrs=attrs)
    if all(name in group for name in GEOLOCATION):
        # Not to the constructor: it copies coordinates, and these are as large as the map.
        frame = frame.assign_coords(dict.fromkeys(GEOLOCATION, (("y", "x"), values)))
    return frame
