"""Finished maps: a score store, a COG or an array, all read by the same functions."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError

from uniadrs_scale.core.contracts import is_score_alone
from uniadrs_scale.core.layers import SCORE, Layer
from uniadrs_scale.errors import StoreError, gist
from uniadrs_scale.maps.facts import SOFTWARE, MapFacts
from uniadrs_scale.maps.groups import layers_in, replaced, require_score
from uniadrs_scale.maps.overviews import Level, ScoreStatistics, above, windows
from uniadrs_scale.maps.store import ScoreMap, open_map
from uniadrs_scale.storage.places import Place
from uniadrs_scale.storage.trust import open_raster
from uniadrs_scale.storage.urls import canonical
from uniadrs_scale.swaths.conventions import geolocation_kind, name_of
from uniadrs_scale.swaths.grids import Georeference, georeference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import xarray as xr
    from numpy.typing import NDArray

    from uniadrs_scale.core.levels import Levels

FILES = (".tif", ".tiff")


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterMap:
    """A map in a raster file, opened for reading; any thread may read."""

    threads: ClassVar[int | None] = None
    """Threads that may read at once; None: all."""
    name: str
    """The path or URL, for messages."""
    geobox: GeoBox
    """Its grid; the identity if it has no place."""
    layers: tuple[Layer, ...]
    bands: tuple[int, ...]
    """The band of each layer, from 1."""
    tags: dict[str, str]
    """Tags of the file."""
    facts: MapFacts

    @property
    def shape(self) -> tuple[int, int]:
        """Size (y, x)."""
        height, width = self.geobox.shape
        return height, width

    @property
    def levels(self) -> Levels | None:
        """Thresholds and curve for this map; None if its scorer has none."""
        return self.facts.levels

    def read(self, rows: slice, cols: slice) -> NDArray[np.float32]:
        """Return the layers (layer, y, x) in a window. Raise StoreError if a block is damaged."""
        window = ((rows.start, rows.stop), (cols.start, cols.stop))
        with _opened(self.name) as file:
            if file.tags().get("fingerprint", "") != self.facts.fingerprint or (
                (file.shape, file.transform) != (self.shape, self.geobox.affine)
            ):
                raise StoreError(replaced(self.name))
            try:
                return np.asarray(file.read(list(self.bands), window=window), np.float32)
            except RasterioError as error:
                raise StoreError(
                    f"Rows {rows.start} to {rows.stop}, columns {cols.start} to {cols.stop} of "
                    f"'{self.name}' cannot be read ({gist(error)}). Make the file again."
                ) from error

    @property
    def statistics(self) -> dict[str, str]:
        """Statistics of the score, or the first layer, in the file, as GDAL names them."""
        with _opened(self.name) as file:
            tags = file.tags(self.bands[0])
        return {key: text for key, text in tags.items() if key.startswith("STATISTICS_")}

    def verify(self) -> Iterator[str]:
        """Yield every fault found, as a sentence; nothing if the file is whole."""
        if self.facts.missing:
            yield (
                f"The map is not complete: {self.facts.missing} of {self.facts.chunks} chunks are "
                "missing or have failed tiles. Run the same score command again."
            )
        parts, damaged = [], 0
        for window in windows(*self.shape):
            try:
                parts.append(ScoreStatistics.of(self.read(*window.toslices())[0]))
            except StoreError as error:
                damaged += 1
                yield str(error)
        said, found = self.statistics, ScoreStatistics.combine(parts).gdal_tags()
        if said and said != found and not damaged:
            yield (
                f"The statistics in '{self.name}' are not those of its pixels: the file was edited "
                "after it was made. Make it again."
            )
        yield from self._verify_overviews()

    def _verify_overviews(self) -> Iterator[str]:
        """Yield a fault for each overview that is not the maximum of the level below."""
        path = Place.of(self.name).local
        if path is None:
            return
        with _opened(self.name) as file:
            count = len(file.overviews(1))
        ways = tuple(layer.pooled for layer in self.layers)
        lower = Level(path, None, ways)
        for number in range(count):
            upper = Level(path, number, ways)
            try:
                for window in windows(*lower.shape()):
                    upper.require(above(window), lower.pooled(window))
            except (OSError, RasterioError):
                yield (
                    f"Overview {number + 1} of '{self.name}' does not follow from the level below: "
                    "small anomalies may fade in it. Make the file again."
                )
            lower = upper


def is_file(path: str | Path | Place) -> bool:
    """Return True if a path names a raster file rather than a store."""
    return Place.of(path).suffix.lower() in FILES


def open_scores(path: str | Path | Place) -> ScoreMap | RasterMap:
    """Return the map at ``path``, whose first layer is the score.

    Raises:
        StoreError: As :func:`open_finished`, or its first layer is another one.
    """
    opened = open_finished(path)
    if require_score(opened.layers, opened.name):
        names = ", ".join(layer.name for layer in opened.layers)
        raise StoreError(f"'{opened.name}': score is not the first layer ({names}). Put it first.")
    return opened


def open_finished(path: str | Path | Place) -> ScoreMap | RasterMap:
    """Return the map at ``path``: a Zarr store, or a COG.

    Raises:
        StoreError: The map is missing, or something else.
    """
    if not is_file(path):
        return open_map(path)
    with _opened(str(path)) as file:
        tags = file.tags()
        known = {name: band for band, name in enumerate(file.descriptions, start=1) if name}
        made = layers_in(tags.get("layers"), str(path))
        layers = made if all(layer.name in known for layer in made) else ()
        # A map that other software has copied may have lost the names of its bands.
        if not layers and file.count == 1 and file.dtypes[0] == SCORE.dtype:
            layers, known = (SCORE,), {SCORE.name: 1}
        if not layers or file.dtypes[known[layers[0].name] - 1] != SCORE.dtype:
            raise StoreError(
                f"'{path}' is not a map: it needs a band '{SCORE.name}' of {SCORE.dtype}, and has "
                f"{file.count} bands of {', '.join(sorted(set(file.dtypes)))}. Pass what `score` "
                "wrote."
            )
        # rasterio's "no CRS" is a word, not None, in some versions.
        geobox = GeoBox(file.shape, file.transform, file.crs.to_wkt() if file.crs else None)
    return RasterMap(
        name=str(path),
        geobox=geobox,
        layers=layers,
        bands=tuple(known[layer.name] for layer in layers),
        tags=tags,
        facts=MapFacts.of_tags(tags, str(path)),
    )


def made_here(path: str | Path | Place) -> bool:
    """Return True for a raster file that this library wrote."""
    try:
        with _opened(str(path)) as file:
            return MapFacts.of_tags(file.tags(), str(path)).software.startswith(SOFTWARE)
    except StoreError:
        return False


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    try:
        file = open_raster(canonical(path))
    except RasterioError as error:
        raise StoreError(
            f"'{path}' cannot be opened as a map ({gist(error)}). Check the path, and pass what "
            "`score` wrote."
        ) from None
    with file:
        yield file


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
        what = f"Array '{name_of(array)}'"
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
        return {"AREA_OR_POINT": "Area", **self.facts.tags(self.layers), **layers}

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
