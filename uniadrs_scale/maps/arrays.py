"""A map that is an array of xarray, read as a store is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from uniadrs_scale.core.contracts import is_score_alone
from uniadrs_scale.core.layers import SCORE, Layer
from uniadrs_scale.errors import StoreError, gist
from uniadrs_scale.maps.facts import MapFacts
from uniadrs_scale.swaths.conventions import geolocation_kind
from uniadrs_scale.swaths.grids import Georeference, georeference

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayMap:
    """The layers of an array and their place."""

    name: str
    layers: tuple[Layer, ...]
    frame: xr.DataArray
    """(layer, y, x)."""
    place: Georeference
    facts: MapFacts = field(default_factory=MapFacts)
    """Nothing: an array does not say who made it."""
    threads: ClassVar[int | None] = None
    """Threads that may read at once; None: all."""

    @classmethod
    def of(cls, array: xr.DataArray) -> ArrayMap:
        """Return the map that an array is.

        Raises:
            PlanError: A name of it cannot be that of a band.
            StoreError: It is not an array (y, x) or (layer, y, x) of real numbers, or a swath.
        """
        what = f"Array '{array.name}'"
        if set(array.dims) - {"layer"} != {"y", "x"} or array.dtype.kind not in "fiub":
            raise StoreError(
                f"{what} is {array.dtype} with dims {array.dims}, and a COG needs real numbers "
                "(y, x) or (layer, y, x). Select and rename: array.isel(time=0).rename(lat='y')."
            )
        if geolocation_kind(array):
            raise StoreError(
                f"{what} is a swath, which is geocoded from its store only. Pass the path of the "
                "store to to_cog."
            )
        named = "layer" in array.dims
        frame = array if named else array.expand_dims(layer=[array.name or SCORE.name])
        return cls(
            name=what,
            layers=tuple(_layer(str(name), array) for name in frame.coords["layer"].values),
            frame=frame.transpose("layer", "y", "x"),
            place=georeference(array.isel(layer=0, drop=True) if named else array),
        )

    @property
    def geobox(self) -> GeoBox:
        """Its grid; the identity if it has no place."""
        shape = self.frame.sizes["y"], self.frame.sizes["x"]
        return GeoBox(shape, self.place.transform or Affine.identity(), self.place.crs)

    @property
    def tags(self) -> dict[str, str]:
        """Tags of a file."""
        layers = {}
        if not is_score_alone(self.layers):
            layers["layers"] = json.dumps([layer.to_json() for layer in self.layers])
        return {"AREA_OR_POINT": "Area", **self.facts.tags(), **layers}

    def read(self, rows: slice, cols: slice) -> NDArray[np.float32]:
        """Return the layers (layer, y, x) in a window.

        Raises:
            StoreError: They cannot be computed.
        """
        part: Any = self.frame[:, rows, cols]
        try:
            values = (part if part.chunks is None else part.compute(scheduler="synchronous")).values
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreError(
                f"{self.name} cannot be computed ({gist(error)}). Check what it is made from."
            ) from error
        return np.ascontiguousarray(values, np.float32)


def _layer(name: str, array: xr.DataArray) -> Layer:
    """Return the layer of a name, as the attributes of the array describe it."""
    if name == SCORE.name:
        return SCORE
    said = array.attrs
    return Layer(
        name=name, long_name=str(said.get("long_name", "")), units=str(said.get("units", "1"))
    )
