"""Score stores: the reader of a map, and the record of finished chunks of a run.

A store is a Zarr v3 group (:mod:`.new_store`). A chunk commits as one object, and its ledger entry
is written after it: after a kill at any moment, ``done`` names only chunks that are there. In a
bucket the same objects make the same store.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from uniadrs_scale.core.contracts import digest
from uniadrs_scale.core.layers import SCORE, Layer
from uniadrs_scale.errors import StoreError
from uniadrs_scale.maps.facts import MapFacts
from uniadrs_scale.maps.groups import (
    LEDGER,
    NotAStoreError,
    fingerprint_at,
    layers_in,
    lost_chunk,
    map_frame,
    not_a_store,
    open_group,
    read_statistics,
    replaced,
    write_statistics,
)
from uniadrs_scale.storage.places import Place
from uniadrs_scale.swaths.conventions import geolocation_kind
from uniadrs_scale.swaths.grids import Georeference, georeference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.core.levels import Levels
    from uniadrs_scale.core.pixels import BandStatistics
    from uniadrs_scale.core.regions import Cells

MISSING, DONE, FAILED = 0, 1, 2
CPU_KINDS, LEVELS = "cpu_kinds", "levels"


@dataclass(frozen=True, slots=True)
class ScoreStore:
    """A store on disk or in a bucket; a path or URL, so it travels to workers."""

    path: Place
    layers: tuple[Layer, ...] = (SCORE,)

    @property
    def group(self) -> zarr.Group:
        """The open group, for reading and writing; what it says, not what was consolidated."""
        place = self.path.zarr()
        return zarr.open_group(place, mode="r+", zarr_format=3, use_consolidated=False)

    @property
    def done(self) -> NDArray[np.uint8]:
        """(chunk_y, chunk_x) ledger."""
        return np.asarray(self._array("done")[:], np.uint8)

    @property
    def attributes(self) -> dict[str, Any]:
        """Fingerprint, plan and statistics of the run."""
        return dict(self.group.attrs)

    @property
    def cpu_kinds(self) -> tuple[str, ...]:
        """Kinds of CPU that computed its scores, sorted."""
        return tuple(cast("list[str]", self.attributes.get(CPU_KINDS, [])))

    def add_cpu_kinds(self, kinds: Iterable[str]) -> None:
        """Record that CPUs of these kinds computed here, too; for the driver alone."""
        known = self.cpu_kinds
        if not set(kinds) <= set(known):
            self.group.update_attributes({CPU_KINDS: sorted({*kinds, *known})})

    def keep_levels(self, levels: Levels | None) -> None:
        """Record the levels that read this map; for the driver alone."""
        if levels is not None and self.attributes.get(LEVELS) != levels.to_json():
            self.group.update_attributes({LEVELS: levels.to_json()})

    def write_chunk(
        self, index: tuple[int, int], window: Window, scores: NDArray[np.float32], state: int
    ) -> None:
        """Commit one chunk: pixels (layer, y, x), their count, then the ledger entry."""
        arrays = [self._array(layer.name) for layer in self.layers]
        shard = arrays[0].shards or arrays[0].chunks
        # Concurrent writes that share a shard lose pixels silently (57 % of them when tried).
        if (window.row, window.col) != (index[0] * shard[0], index[1] * shard[1]):
            raise StoreError(
                f"Chunk {index} starts at pixel ({window.row}, {window.col}), not on a shard of "
                f"{shard}: writes would overlap. Score into a new store."
            )
        try:
            for array, score in zip(arrays, scores, strict=True):
                array[window.slices] = score
            self._array("scored_pixels")[index] = int(np.isfinite(scores).all(axis=0).sum())
            self._array("done")[index] = state
        except StoreError:  # a bucket's, which says it all
            raise
        except OSError as error:
            raise StoreError(
                f"Chunk {index} of '{self.path}' cannot be written ({error.strerror or error}): "
                "check its disk's space and permissions, then run the same command, which resumes."
            ) from None

    def forget(self, chunks: Iterable[tuple[int, int]]) -> None:
        """Record that these chunks are missing."""
        for index in chunks:
            self._array("done")[index] = MISSING

    def forget_lost(self) -> None:
        """Record chunks as missing whose objects are lost, so that they are scored again."""
        counts = np.asarray(self._array("scored_pixels")[:])
        for layer in self.layers:
            there = set(self.path.child(layer.name).files())
            key = self._array(layer.name).metadata.encode_chunk_key
            scored = np.argwhere((self.done != MISSING) & (counts > 0)).tolist()
            self.forget((i, j) for i, j in scored if key((i, j)) not in there)

    @property
    def statistics(self) -> BandStatistics | None:
        """Statistics that the scores were made with; None if the run had not begun."""
        return read_statistics(self.group)

    def write_statistics(self, statistics: BandStatistics, cells: Cells) -> None:
        """Keep the scene's statistics: a resumed run must scale as the first one did.

        Chunks that were scored with other statistics are missing from then on.
        """
        if self.statistics is not None:
            self._array("done")[:] = MISSING
        write_statistics(self.group, statistics, cells)

    def open(self) -> xr.DataArray:
        """Return the lazy, chunked map: (y, x), or (layer, y, x) of several layers."""
        place = self.path.zarr(read_only=True)
        dataset = xr.open_zarr(place, consolidated=False, decode_coords="all", chunks={})
        layers = [dataset[layer.name] for layer in self.layers]
        made = layers[0]
        if len(layers) > 1:
            names = xr.Variable("layer", [layer.name for layer in self.layers])
            made = xr.concat(layers, names, combine_attrs="drop_conflicts").rename("layers")
            made.attrs.pop("long_name", None)
        return cast("xr.DataArray", made.assign_attrs(fingerprint=dataset.attrs["fingerprint"]))

    def verify(self) -> Iterator[str]:
        """Return every fault found, as a sentence; nothing if the store is whole."""
        attributes = self.attributes
        if digest(attributes["plan"]) != attributes["fingerprint"]:
            yield "The fingerprint is not that of the stored plan: its attributes were edited."
        counts = np.asarray(self._array("scored_pixels")[:])
        arrays = [self._array(layer.name) for layer in self.layers]
        shard = arrays[0].shards or arrays[0].chunks
        for (i, j), state in np.ndenumerate(self.done):
            where = f"Chunk ({i}, {j}) at pixel ({i * shard[0]}, {j * shard[1]})"
            if fault := {MISSING: "is missing", FAILED: "has failed tiles"}.get(int(state)):
                yield f"{where} {fault}. Run the same score command again."
            if state == MISSING:
                continue
            rows, cols = (slice(k * n, (k + 1) * n) for k, n in zip((i, j), shard, strict=True))
            try:
                layers = [np.asarray(array[rows, cols]) for array in arrays]
            except (ValueError, RuntimeError, OSError) as error:
                yield f"{where} cannot be read: {error}"
                continue
            found = int(np.isfinite(np.stack(layers)).all(axis=0).sum())
            if found != counts[i, j]:
                yield f"{where} holds {found} scored pixels, the ledger says {counts[i, j]}."

    def _array(self, name: str) -> zarr.Array[Any]:
        # Not by way of the group: in a bucket that is one request more.
        return zarr.open_array(self.path.zarr(), path=name, mode="r+", zarr_format=3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreMap:
    """The layers of a store and their place, opened for reading."""

    name: str
    """The path or URL, for messages."""
    group: zarr.Group
    layers: tuple[Layer, ...]
    frame: xr.DataArray
    """(y, x) the map's coordinates around no values."""
    place: Georeference
    threads: ClassVar[int | None] = None
    """Threads that may read at once; None: all."""

    @property
    def shape(self) -> tuple[int, int]:
        """Size (y, x)."""
        return cast("tuple[int, int]", self.frame.shape)

    @property
    def geobox(self) -> GeoBox:
        """Its grid; the identity if it has no place."""
        return GeoBox(self.shape, self.place.transform or Affine.identity(), self.place.crs)

    @property
    def facts(self) -> MapFacts:
        """The origin of the map. Raise StoreError if its levels are damaged."""
        facts = MapFacts.of_attributes(dict(self.group.attrs), self.name)
        if not isinstance(done := self.group.get(LEDGER[0]), zarr.Array):
            return facts
        states = np.asarray(done[:])
        return replace(facts, missing=int((states != DONE).sum()), chunks=states.size)

    @property
    def levels(self) -> Levels | None:
        """Thresholds and curve for this map, as in :attr:`facts`."""
        return self.facts.levels

    @property
    def tags(self) -> dict[str, str]:
        """The same facts as tags of a file; software is that which made the scores."""
        said = self.group.attrs.get("layers")
        layers = {} if said is None else {"layers": json.dumps(said)}
        return {"AREA_OR_POINT": "Area", **self.facts.tags(self.layers), **layers}

    def array(self, layer: Layer | None = None) -> zarr.Array[Any]:
        """Return the array (y, x) of a layer, by default the first one."""
        return cast("zarr.Array[Any]", self.group[(layer or self.layers[0]).name])

    def read(self, rows: slice, cols: slice) -> NDArray[np.float32]:
        """Return the layers (layer, y, x) in a window.

        Raise StoreError if a chunk is damaged or lost, or if the map was replaced meanwhile.
        """
        try:
            parts = [np.asarray(self.array(layer)[rows, cols]) for layer in self.layers]
            lost = lost_chunk(
                self.group, Place.of(self.name).child(self.layers[0].name), (rows, cols), parts[0]
            )
        except (OSError, ValueError, RuntimeError) as error:  # codecs and checksums raise all three
            lost = str(error)
        except KeyError:  # an array is gone
            lost = "its arrays are gone"
        # Last, so that it holds for all that was read.
        if fingerprint_at(Place.of(self.name)) != self.group.attrs.get("fingerprint"):
            raise StoreError(replaced(self.name))
        if lost:
            raise StoreError(
                f"Rows {rows.start} to {rows.stop}, columns {cols.start} to {cols.stop} of "
                f"'{self.name}' cannot be read ({lost}). Remove the store and score it again."
            )
        return parts[0][None] if len(parts) == 1 else np.stack(parts)


def open_store(path: str | Path | Place) -> ScoreStore:
    """Return the score store of a run at ``path``; StoreError if it is missing or not one."""
    group = open_group(path)
    missing = [name for name in LEDGER if not isinstance(group.get(name), zarr.Array)]
    if missing:
        raise not_a_store(path, f"no array '{missing[0]}'")
    return ScoreStore(Place.of(path), layers_in(group.attrs.get("layers"), str(path)))


def is_score_store(path: str | Path | Place) -> bool:
    """Return True if ``path`` is the score store of a run."""
    try:
        open_store(path)
    except NotAStoreError:
        return False
    return True


def open_map(path: str | Path | Place) -> ScoreMap:
    """Return the map in the store at ``path``; StoreError if it is missing or something else."""
    if not isinstance(path, str | Path | Place):
        raise StoreError(f"A map is a path, URL or DataArray, got {type(path).__name__}. Pass one.")
    group = open_group(path)
    layers = layers_in(group.attrs.get("layers"), str(path))
    frame = map_frame(group, cast("zarr.Array[Any]", group[layers[0].name]))
    return ScoreMap(
        name=str(path),
        group=group,
        layers=layers,
        frame=frame,
        place=Georeference() if geolocation_kind(frame) else georeference(frame),
    )
