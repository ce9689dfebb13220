"""The score store: a Zarr v3 group (see :mod:`uniadrs_scale.io.new_store`), also the run's ledger.

A chunk commits as one object, and its ledger entry is written after it: whatever dies, whenever,
`done` never promises what is not there.

In a bucket the same objects make the same store. There is no rename, so a new store becomes one by
its root object, which is written after all others; one run at a time holds it
(:mod:`uniadrs_scale.io.lease`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr
import zarr

from uniadrs_scale.core.contracts import digest
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.errors import StoreError
from uniadrs_scale.maps.new_store import create
from uniadrs_scale.storage.places import ROOT, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.core.plan import ScorePlan


MISSING, DONE, FAILED = 0, 1, 2
NEEDED = ("score", "done", "scored_pixels")
"""Arrays without which a group is no score store."""
CPU_KINDS = "cpu_kinds"
BAND_MEAN, BAND_SCATTER = "band_mean", "band_scatter"


@dataclass(frozen=True, slots=True)
class ScoreStore:
    """A store on disk or in a bucket; a path or URL, so it travels to workers."""

    path: Place

    @property
    def group(self) -> zarr.Group:
        """The open group, for reading and writing."""
        return zarr.open_group(self.path.zarr(), mode="r+", zarr_format=3)

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

    def write_chunk(
        self, index: tuple[int, int], window: Window, score: NDArray[np.float32], state: int
    ) -> None:
        """Commit one chunk: pixels, their count, then the ledger entry."""
        array = self._array("score")
        shard = array.shards or array.chunks
        # Concurrent writes that share a shard lose pixels silently (57 % of them when tried).
        if (window.row, window.col) != (index[0] * shard[0], index[1] * shard[1]):
            raise StoreError(
                f"Chunk {index} starts at pixel ({window.row}, {window.col}), not on a shard of "
                f"{shard}: writes would overlap. Score into a new store."
            )
        try:
            array[window.slices] = score
            self._array("scored_pixels")[index] = int(np.isfinite(score).sum())
            self._array("done")[index] = state
        except StoreError:  # a bucket's, which says it all
            raise
        except OSError as error:
            raise StoreError(
                f"Chunk {index} of '{self.path}' cannot be written ({error.strerror or error}): "
                "check its disk's space and permissions, then run the same command, which resumes."
            ) from None

    @property
    def statistics(self) -> BandStatistics | None:
        """Of the scene, that its scores were made with; None where the run had not begun."""
        group = self.group
        if BAND_SCATTER not in group or "valid_pixels" not in group[BAND_SCATTER].attrs:
            return None
        counts = group[BAND_SCATTER].attrs
        return BandStatistics(
            count=int(cast("int", counts["valid_pixels"])),
            flat=dict(cast("list[tuple[float, int]]", counts["flat_areas"])),
            lost=dict(cast("dict[str, int]", counts["invalid_pixels"])),
            speckle=cast("tuple[int, int]", tuple(cast("list[int]", counts["speckle"]))),
            mean=np.asarray(self._array(BAND_MEAN)[:], np.float64),
            scatter=np.asarray(self._array(BAND_SCATTER)[:], np.float64),
        )

    def write_statistics(self, statistics: BandStatistics) -> None:
        """Keep the scene's statistics: a resumed run must scale as the first one did."""
        for name, values in ((BAND_MEAN, statistics.mean), (BAND_SCATTER, statistics.scatter)):
            dims = ("band", "other_band")[: values.ndim]
            self.group.create_array(name, data=values, dimension_names=dims, overwrite=True)
        # Last: what makes them count.
        flat = [list(pair) for pair in statistics.flat.items()]  # JSON has no numbers for names
        attributes = self._array(BAND_SCATTER).attrs
        attributes.update(
            {
                "valid_pixels": statistics.count,
                "invalid_pixels": dict(statistics.lost),
                "flat_areas": flat,
                "speckle": list(statistics.speckle),
            }
        )

    def open(self) -> xr.DataArray:
        """The lazy, chunked score (y, x)."""
        place = self.path.zarr(read_only=True)
        dataset = xr.open_zarr(place, consolidated=False, decode_coords="all", chunks={})
        score: xr.DataArray = dataset["score"]
        return score.assign_attrs(fingerprint=dataset.attrs["fingerprint"])

    def verify(self) -> Iterator[str]:
        """Every fault found, as a sentence; nothing when the store is whole."""
        attributes = self.attributes
        if digest(attributes["plan"]) != attributes["fingerprint"]:
            yield "The fingerprint is not that of the stored plan: its attributes were edited."
        score, counts = self._array("score"), np.asarray(self._array("scored_pixels")[:])
        shard = score.shards or score.chunks
        for (i, j), state in np.ndenumerate(self.done):
            where = f"Chunk ({i}, {j}) at pixel ({i * shard[0]}, {j * shard[1]})"
            if state == MISSING:
                yield f"{where} is missing. Run the same score command again."
                continue
            if state == FAILED:
                yield f"{where} has failed tiles. Run the same score command again."
            rows, cols = (slice(k * n, (k + 1) * n) for k, n in zip((i, j), shard, strict=True))
            try:
                pixels = score[rows, cols]
            except (ValueError, RuntimeError, OSError) as error:
                yield f"{where} cannot be read: {error}"
                continue
            found = int(np.isfinite(np.asarray(pixels)).sum())
            if found != counts[i, j]:
                yield f"{where} holds {found} scored pixels, the ledger says {counts[i, j]}."

    def _array(self, name: str) -> zarr.Array[Any]:
        # Not by way of the group: in a bucket that is one request more.
        return zarr.open_array(self.path.zarr(), path=name, mode="r+", zarr_format=3)


def prepare(
    path: str | Path | Place, plan: ScorePlan, coordinates: Mapping[str, xr.DataArray]
) -> ScoreStore:
    """A store for ``plan``: the one at ``path`` if it was begun with the same plan, else a new one.

    The new one is built under a temporary name and renamed, so a store is never seen half made. For
    a bucket it is built in a temporary folder and sent there, its root last.

    Raises:
        StoreError: ``path`` holds something else or another plan's store, or cannot be written.
    """
    target = Place.of(path)
    target.require_name()
    if target.has_store():
        return require_same_plan(open_store(target), plan)
    target.require_folder()
    with target.scratch() as folder:
        made = folder / "new"
        try:
            create(made, plan, coordinates)
        except OSError as error:
            raise StoreError(
                f"Cannot create '{target}': {error.strerror or error}. Choose a writable folder."
            ) from None
        ours = {path.relative_to(made).as_posix() for path in made.rglob("*")}
        # What a killed run left in a bucket is overwritten.
        foreign = next((key for key in target.files() if key not in ours), None)
        if foreign is not None:
            raise StoreError(
                f"'{target}' is not a score store, but holds '{foreign}'. Choose another output "
                "path, or remove it yourself."
            )
        target.receive(made, last=ROOT)
    return ScoreStore(target)


def open_store(path: str | Path | Place) -> ScoreStore:
    """The score store at ``path``, a path or URL.

    Raises:
        StoreError: There is none.
    """
    target = Place.of(path)
    if not target.has_store():
        raise StoreError(f"Score store '{path}' does not exist. Check the path.")
    if not is_score_store(target):
        raise StoreError(
            f"'{path}' is not a score store. Choose another output path, or remove it yourself."
        )
    return ScoreStore(target)


def is_score_store(path: str | Path | Place) -> bool:
    """True where ``path`` is a Zarr group with the arrays of a score store."""
    try:
        group = zarr.open_group(Place.of(path).zarr(read_only=True), mode="r", zarr_format=3)
    except StoreError:  # a server that does not answer has not said no
        raise
    except (OSError, ValueError, KeyError):
        return False
    return all(isinstance(group.get(name), zarr.Array) for name in NEEDED)


def require_same_plan(store: ScoreStore, plan: ScorePlan) -> ScoreStore:
    """``store``, unless it was begun with another plan: then say where the two differ.

    Raises:
        StoreError: The fingerprints differ.
    """
    attributes = store.attributes
    if attributes.get("fingerprint") == plan.fingerprint:
        return store
    old = attributes.get("plan", {})
    made, here = old.get("version", "unknown"), plan.version
    if made != here:
        raise StoreError(
            f"'{store.path}' was begun with uniadrs_scale {made}, this is {here}: versions cannot "
            "share a map. Remove it and score again, choose another output path, or finish it with "
            f"the old version (pip install uniadrs-scale=={made})."
        )
    new = json.loads(json.dumps(plan.decisive()))
    differences = [
        f"{name} was {_short(old_value)}, is {_short(new_value)}"
        for key in new
        for name, old_value, new_value in _compare(key, old.get(key), new[key])
    ]
    raise StoreError(
        f"'{store.path}' was begun with another plan ({'; '.join(differences) or 'unknown'}): "
        "two plans cannot share a map. Use the same scene and options, or another output path."
    )


def _compare(key: str, old: object, new: object) -> Iterator[tuple[str, object, object]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old | new:
            yield from _compare(name, old.get(name), new.get(name))
    elif old != new:
        yield key, old, new


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - a line's worth
