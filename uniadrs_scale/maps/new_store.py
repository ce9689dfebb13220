"""A new score store: its arrays, their shards, codecs and attributes.

    score          float32 (y, x), NaN = invalid or failed; a shard is a compute chunk. A scorer
                   may have other layers: the attribute ``layers`` then names them
    band_mean, band_scatter                  float64, the scene's statistics, once they are known
    cell_pixels, cell_mean, cell_scatter     the same of its cells (core/regions.py)
    done           uint8 (chunk_y, chunk_x): MISSING, DONE, or FAILED (written without some tiles)
    scored_pixels  int64 (chunk_y, chunk_x): finite scores of each chunk, what `verify` counts again
    y, x, spatial_ref                        as rioxarray writes them, ground control points too
    latitude, longitude                      (y, x) of a swath, sharded like the score
    overviews/1, 2, ...                      of a finished map (:mod:`.overviews`)

A shard is one object, and its chunk's task alone writes it. Attributes follow the conventions of
GeoZarr (``spatial:``, ``proj:``), of the root group too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr
from affine import Affine
from rasterio.crs import CRS
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from uniadrs_scale.errors import Quiet, SceneError, StoreError
from uniadrs_scale.maps.facts import attributes_of
from uniadrs_scale.maps.groups import Y_X
from uniadrs_scale.maps.store import ScoreStore, open_store
from uniadrs_scale.storage.places import ROOT, Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from zarr.core.buffer import Buffer

    from uniadrs_scale.core.lattice import Lattice
    from uniadrs_scale.core.plan import ScorePlan

INNER_CHUNK = 512
"""Side of what a reader decodes at least, in pixels."""
GEOLOCATION_UNITS = {"latitude": "degrees_north", "longitude": "degrees_east"}
SPATIAL = {"uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "name": "spatial"}
PROJ = {"uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f", "name": "proj:"}
UNSPECIFIED = Quiet(UserWarning, "Consolidated metadata is currently not part")
"""A context without zarr's warning that Zarr 3 does not specify them; all its readers know them."""
LINE = 60
"""Characters of a value in a message."""


def prepare(
    path: str | Path | Place,
    plan: ScorePlan,
    coordinates: Mapping[str, xr.DataArray],
    weights: str | None = None,
) -> ScoreStore:
    """Return the store at ``path`` if it was begun with the same plan, else a new one there.

    The new one is built under a temporary name and renamed, so a store is never seen half made. For
    a bucket it is built in a temporary folder and sent there, its root last.

    Raises:
        StoreError: ``path`` holds something else or another plan's store, or cannot be written.
    """
    target = Place.of(path)
    target.require_name()
    if target.has_store():
        store = require_same_plan(open_store(target), plan)
        store.forget_lost()
        return store
    target.require_folder()
    with target.scratch() as folder:
        made = folder / "new"
        try:
            create(made, plan, coordinates, weights)
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(
                f"Cannot create '{target}': {error.strerror or error}. Check free space and "
                "permissions of its folder, or choose another."
            ) from None
        ours = {path.relative_to(made).as_posix() for path in made.rglob("*")}
        # Leftovers of a killed run in a bucket are overwritten.
        foreign = next((key for key in target.files() if key not in ours), None)
        if foreign is not None:
            raise StoreError(
                f"'{target}' is not a score store, but holds '{foreign}'. Choose another output "
                "path."
            )
        target.receive(made, last=ROOT)
    return ScoreStore(target, plan.layers)


def create(
    path: Path, plan: ScorePlan, coordinates: Mapping[str, xr.DataArray], weights: str | None = None
) -> None:
    """Make the store of ``plan`` in a new folder, whole but for its scores.

    ``weights`` is the SHA-256 of the scorer's weights, for the attributes.

    Raises:
        SceneError: The geolocation of a swath cannot be read.
    """
    scene, lattice = plan.scene, plan.lattice
    whole = {n: c.variable for n, c in coordinates.items() if c.ndim < Y_X}
    xr.Dataset(coords=whole).to_zarr(path, zarr_format=3, consolidated=False)
    group = zarr.open_group(path, mode="r+")
    transform = None if scene.transform is None else Affine(*scene.transform)
    shape = lattice.height, lattice.width
    placed = place_attributes(scene.crs, transform, shape)
    geolocation = {name: c for name, c in coordinates.items() if name not in whole}
    for layer in plan.layers:
        attributes: dict[str, Any] = layer.attributes | placed
        if "spatial_ref" in coordinates:
            attributes["grid_mapping"] = "spatial_ref"
        if geolocation:
            attributes["coordinates"] = " ".join(geolocation)
        create_map(group, layer.name, shape, lattice.chunk, layer.dtype, attributes=attributes)
    for name, coordinate in geolocation.items():
        _write_geolocation(group, name, coordinate, lattice)
    for name, dtype in (("done", "uint8"), ("scored_pixels", "int64")):
        # One object an entry: ledger writes of different workers never touch.
        group.create_array(
            name,
            shape=lattice.chunks,
            chunks=(1, 1),
            dtype=dtype,
            fill_value=0,
            dimension_names=("chunk_y", "chunk_x"),
        )
    write_root(ScoreStore(Place.of(path)), attributes_of(plan, weights) | placed)


def create_map(
    group: zarr.Group,
    name: str,
    shape: tuple[int, int],
    chunk: int,
    dtype: str,
    *,
    attributes: dict[str, Any],
) -> zarr.Array[Any]:
    """Create an array of float (y, x) whose shards are ``chunk`` x ``chunk`` pixels."""
    inner = _inner_chunk(chunk)
    return group.create_array(
        name,
        shape=shape,
        chunks=(inner, inner),
        shards=(chunk, chunk),
        dtype=dtype,
        fill_value=np.nan,
        # The checksum lets `verify` and every reader notice a damaged chunk.
        compressors=(BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"), Crc32cCodec()),
        dimension_names=("y", "x"),
        attributes=attributes,
    )


def place_attributes(
    crs: str | None, transform: Affine | None, shape: tuple[int, int]
) -> dict[str, Any]:
    """Return what GeoZarr says of a grid (y, x); nothing without a transform."""
    if transform is None:
        return {}
    height, width = shape
    corners = np.array([transform @ (col, row) for row in (0, height) for col in (0, width)])
    attributes = {
        "zarr_conventions": [SPATIAL],
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()],
        "spatial:transform": list(transform)[:6],
        "spatial:shape": [height, width],
    }
    if crs is None:
        return attributes
    known = CRS.from_wkt(crs)
    code = known.to_epsg()
    # The convention wants one or the other: the code only if it says all.
    exact = code is not None and CRS.from_epsg(code) == known
    said = (
        {"proj:code": f"EPSG:{code}"} if exact else {"proj:wkt2": known.to_wkt(version="WKT2_2019")}
    )
    return attributes | said | {"zarr_conventions": [SPATIAL, PROJ]}


def write_root(store: ScoreStore, attributes: dict[str, Any]) -> None:
    """Replace the root object: other attributes, and the metadata of all that is below it.

    At one stroke: a store whose root is half written is lost. Without consolidated metadata xarray
    warns, and opens a store object by object.
    """
    prototype = default_buffer_prototype()
    objects: dict[str, Buffer] = {}
    memory = MemoryStore(objects)
    zarr.create_group(memory, zarr_format=3, attributes=attributes)
    for name, node in store.group.members(max_depth=None):
        objects[f"{name}/{ROOT}"] = node.metadata.to_buffer_dict(prototype)[ROOT]
    with UNSPECIFIED:
        zarr.consolidate_metadata(memory, zarr_format=3)
    store.path.child(ROOT).write(objects[ROOT].to_bytes())


def _write_geolocation(
    group: zarr.Group, name: str, coordinate: xr.DataArray, lattice: Lattice
) -> None:
    """Copy latitude or longitude, a chunk at a time.

    Here and not with each chunk's scores: a new store is whole before a score is written, so that a
    resumed run has nothing to do about it.
    """
    attributes = {"standard_name": name, "units": GEOLOCATION_UNITS[name]}
    dtype = "float32" if coordinate.dtype == np.float32 else "float64"
    shape = lattice.height, lattice.width
    array = create_map(group, name, shape, lattice.chunk, dtype, attributes=attributes)
    for index in np.ndindex(*lattice.chunks):
        rows, cols = lattice.chunk_window(index).slices
        try:
            part = coordinate.variable[rows, cols].compute(scheduler="synchronous").values
        except Exception as error:  # whatever a reader or a user's graph raises
            raise SceneError(
                f"The {name} of the scene cannot be read at rows {rows.start} to {rows.stop}, "
                f"columns {cols.start} to {cols.stop} ({error}). Repair it, or drop the coordinate."
            ) from error
        array[rows, cols] = part


def _inner_chunk(chunk: int) -> int:
    """Return the largest divisor of ``chunk`` up to INNER_CHUNK that is not tiny, else itself."""
    divisors = (d for d in range(min(INNER_CHUNK, chunk), 127, -1) if chunk % d == 0)
    return next(divisors, chunk)


def require_same_plan(store: ScoreStore, plan: ScorePlan) -> ScoreStore:
    """Return ``store``, unless it was begun with another plan: then say where the two differ.

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
            "share a map. Replace it (--overwrite, overwrite=True), choose another output path, or "
            f"finish it with the old version (pip install uniadrs-scale=={made})."
        )
    new = json.loads(json.dumps(plan.decisive()))
    differences = [
        f"{name} was {_short(old_value)}, is {_short(new_value)}"
        for key in new
        for name, old_value, new_value in _compare(key, old.get(key), new[key])
    ]
    raise StoreError(
        f"'{store.path}' was begun with another plan ({'; '.join(differences) or 'unknown'}): "
        "two plans cannot share a map. Use the same scene and options, another output path, or "
        "--overwrite (overwrite=True)."
    )


def _compare(key: str, old: object, new: object) -> Iterator[tuple[str, object, object]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old | new:
            yield from _compare(name, old.get(name), new.get(name))
    elif old != new:
        yield key, old, new


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= LINE else f"{text[: LINE - 3]}..."
