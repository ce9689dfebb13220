"""Zarr groups that hold a map: its layers, its georeference, and the statistics of its scene."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr
import zarr

from uniadrs_scale.core.layers import SCORE, Layer
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.core.regions import Cells
from uniadrs_scale.errors import PlanError, StoreError
from uniadrs_scale.storage.places import ROOT, Place
from uniadrs_scale.swaths.conventions import GEOLOCATION

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from uniadrs_scale.core.regions import Grid

Y_X = 2  # axes of a map
LEDGER = ("done", "scored_pixels")
"""Arrays without which a map is not a run's."""


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


def layers_in(said: Any, name: str) -> tuple[Layer, ...]:
    """Return the layers that a map's attribute or tag ``layers`` says; by default the score.

    Raises:
        StoreError: It does not describe layers.
    """
    try:
        values = json.loads(said) if isinstance(said, str) else said
        return (SCORE,) if values is None else tuple(map(Layer.from_json, values)) or (SCORE,)
    except (KeyError, TypeError, ValueError, AttributeError, PlanError) as error:
        raise StoreError(
            f"The attribute 'layers' of '{name}' does not describe layers ({error}). Score into a "
            "new store."
        ) from None


def require_score(layers: tuple[Layer, ...], name: str) -> int:
    """Return the position of the score among layers. Raise StoreError if the map has no score."""
    if SCORE in layers:
        return layers.index(SCORE)
    raise StoreError(
        f"'{name}' has no anomaly score: its layers are {', '.join(x.name for x in layers)}. Pass "
        "a map of scores."
    )


def lost_chunk(
    group: zarr.Group, place: Place, window: tuple[slice, slice], scores: NDArray[np.float32]
) -> str:
    """Return which chunk of a window has lost its object; Zarr reads that as invalid pixels.

    Args:
        group: The group of the map.
        place: The place of its first layer.
        window: Rows and columns.
        scores: (y, x) of the window, as read.
    """
    if not np.isnan(scores).any():
        return ""  # before the ledger is opened, which takes as long as a small window
    array = _array(group, place.name)
    done, counts = (group.get(name) for name in LEDGER)
    if not (isinstance(done, zarr.Array) and isinstance(counts, zarr.Array)):
        return ""
    shard = array.shards or array.chunks
    first = [part.start // side for part, side in zip(window, shard, strict=True)]
    last = [-(-part.stop // side) for part, side in zip(window, shard, strict=True)]
    for index in np.ndindex(*(end - start for start, end in zip(first, last, strict=True))):
        i, j = (start + k for start, k in zip(first, index, strict=True))
        rows, cols = (
            slice(max(k * side - part.start, 0), (k + 1) * side - part.start)
            for k, side, part in zip((i, j), shard, window, strict=True)
        )
        chunk = place.child(array.metadata.encode_chunk_key((i, j)))
        # A chunk without a score has no object either.
        gone = np.isnan(scores[rows, cols]).all() and not chunk.exists()
        if gone and done[i, j] and counts[i, j]:
            return f"chunk ({i}, {j}) is lost"
    return ""


def fingerprint_at(place: Place) -> str | None:
    """Return the fingerprint of the map that is at a place now, None without a map."""
    try:
        root = json.loads(place.child(ROOT).read() or b"{}")
        return cast("str | None", root["attributes"].get("fingerprint"))
    except (ValueError, KeyError):
        return None


def require_own_store(place: Place, fingerprint: str) -> None:
    """Raise StoreError if a run has lost its store.

    Such as to a run that took the lock of a machine that slept, and may have another plan.
    """
    if fingerprint_at(place) != fingerprint:
        raise StoreError(
            f"'{place}' was replaced or removed while this run wrote it. Choose another output "
            "path, or run this command again when no other run writes there."
        )


def replaced(name: str) -> str:
    """Return the message about a map that is not the one that was opened."""
    return f"'{name}' was replaced or removed while it was read. Run this command again."


class NotAStoreError(StoreError):
    """Path without a store."""


def open_group(path: str | Path | Place) -> zarr.Group:
    """Return the group at ``path``, read-only, that has an array of scores."""
    place = Place.of(path)
    source = place.zarr(read_only=True)
    try:
        group = zarr.open_group(source, mode="r", zarr_format=3, use_consolidated=False)
    except StoreError:  # a server that does not answer has not said no
        raise
    except (OSError, ValueError, KeyError):
        if place.local is None or not place.exists():
            raise NotAStoreError(f"Score store '{path}' does not exist. Check the path.") from None
        raise not_a_store(path, "no Zarr group") from None
    for layer in layers_in(group.attrs.get("layers"), str(path)):
        score = group.get(layer.name)
        if not isinstance(score, zarr.Array):
            raise not_a_store(path, f"no array '{layer.name}'")
        if score.ndim != Y_X or str(score.dtype) != layer.dtype:
            raise not_a_store(path, f"'{layer.name}' is {score.dtype} with {score.ndim} axes")
    return group


def not_a_store(path: str | Path | Place, met: str) -> StoreError:
    """Return the error of a path with something else."""
    return NotAStoreError(
        f"'{path}' is not a score store ({met}): it needs an array '{SCORE.name}' (y, x) of "
        f"{SCORE.dtype}. Pass a .zarr that `score` wrote; to write, choose another output path."
    )


BAND_MEAN, BAND_SCATTER = "band_mean", "band_scatter"
CELLS = "cell_pixels", "cell_mean", "cell_scatter"
"""Arrays of :class:`.Cells`."""
AXES = "cell_y", "cell_x", "band", "other_band"


def read_statistics(group: zarr.Group) -> BandStatistics | None:
    """Return the statistics that the scores were made with; None if the run had not begun."""
    if BAND_SCATTER not in group or "valid_pixels" not in group[BAND_SCATTER].attrs:
        return None
    mean, scatter = (
        np.asarray(_array(group, name)[:], float) for name in (BAND_MEAN, BAND_SCATTER)
    )
    return BandStatistics.from_counts(dict(group[BAND_SCATTER].attrs), mean, scatter)


def read_cells(group: zarr.Group, grid: Grid) -> Cells:
    """Return the moments of the cells of ``grid``; there are some if there are statistics."""
    count, mean, scatter = (np.asarray(_array(group, name)[:]) for name in CELLS)
    return Cells(grid=grid, count=count, mean=mean, scatter=scatter)


def write_statistics(group: zarr.Group, statistics: BandStatistics, cells: Cells) -> None:
    """Write the statistics of a scene and of its cells."""
    arrays = (
        (CELLS[0], cells.count, AXES[:2]),
        (CELLS[1], cells.mean, AXES[:3]),
        (CELLS[2], cells.scatter, AXES),
        (BAND_MEAN, statistics.mean, AXES[2:3]),
        (BAND_SCATTER, statistics.scatter, AXES[2:]),
    )
    for name, values, dims in arrays:
        data = cast("NDArray[Any]", values)
        group.create_array(name, data=data, dimension_names=dims, overwrite=True)
    # Last, and in one write, because the counts make the statistics valid.
    _array(group, BAND_SCATTER).update_attributes(statistics.counts())


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    return cast("zarr.Array[Any]", group[name])
