"""A new score store: its arrays, their shards, codecs and attributes.

    score          float32 (y, x), NaN = invalid or failed; a shard is a compute chunk
    band_mean, band_scatter                  float64, the scene's statistics, once they are known
    done           uint8 (chunk_y, chunk_x): MISSING, DONE, or FAILED (written without some tiles)
    scored_pixels  int64 (chunk_y, chunk_x): finite scores of each chunk, what `verify` counts again
    y, x, spatial_ref                        as rioxarray writes them, ground control points too
    latitude, longitude                      (y, x) of a swath, sharded like the score

A shard is one object, and its chunk's task alone writes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr
from rasterio.crs import CRS
from zarr.codecs import BloscCodec, Crc32cCodec

from uniadrs_scale.errors import SceneError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from uniadrs_scale.core.contracts import SceneInfo
    from uniadrs_scale.core.lattice import Lattice
    from uniadrs_scale.core.plan import ScorePlan


INNER_CHUNK = 512
"""Side of what a reader decodes at least, in pixels."""
GEOLOCATION_UNITS = {"latitude": "degrees_north", "longitude": "degrees_east"}
GEOZARR_CONVENTIONS = [
    {"uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "name": "spatial"},
    {"uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f", "name": "proj"},
]


def create(path: Path, plan: ScorePlan, coordinates: Mapping[str, xr.DataArray]) -> None:
    """Make the store of ``plan`` at ``path``, whole but for its scores.

    Args:
        path: Of a folder that does not exist yet.
        plan: What the store is for; its fingerprint is what a resumed run compares.
        coordinates: Of the map, as :func:`uniadrs_scale.scenes.sources.map_coordinates` gives them.

    Raises:
        SceneError: The geolocation of a swath cannot be read.
    """
    scene, lattice = plan.scene, plan.lattice
    whole = {n: c.variable for n, c in coordinates.items() if c.ndim < 2}  # noqa: PLR2004 - y, x
    frame = xr.Dataset(coords=whole)
    frame.attrs = {
        "title": f"Anomaly scores of {scene.name}",
        "software": f"uniadrs_scale {plan.version}",
        "fingerprint": plan.fingerprint,
        "plan": plan.decisive(),
    }
    frame.to_zarr(path, zarr_format=3, consolidated=False)
    group = zarr.open_group(path, mode="r+")
    attributes = _score_attributes(scene, "spatial_ref" in coordinates)
    geolocation = {name: c for name, c in coordinates.items() if name not in whole}
    if geolocation:
        attributes["coordinates"] = " ".join(geolocation)
    _create_map(group, "score", lattice, "float32", attributes)
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


def _create_map(
    group: zarr.Group, name: str, lattice: Lattice, dtype: str, attributes: dict[str, Any]
) -> zarr.Array[Any]:
    """An array of float (y, x) whose shards are compute chunks."""
    inner = _inner_chunk(lattice.chunk)
    return group.create_array(
        name,
        shape=(lattice.height, lattice.width),
        chunks=(inner, inner),
        shards=(lattice.chunk, lattice.chunk),
        dtype=dtype,
        fill_value=np.nan,
        # The checksum lets `verify` and every reader notice a damaged chunk.
        compressors=(BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"), Crc32cCodec()),
        dimension_names=("y", "x"),
        attributes=attributes,
    )


def _write_geolocation(
    group: zarr.Group, name: str, coordinate: xr.DataArray, lattice: Lattice
) -> None:
    """Copy latitude or longitude, a chunk at a time.

    Here and not with each chunk's scores: a new store is whole before a score is written, so that a
    resumed run has nothing to do about it.
    """
    attributes = {"standard_name": name, "units": GEOLOCATION_UNITS[name]}
    dtype = "float32" if coordinate.dtype == np.float32 else "float64"
    array = _create_map(group, name, lattice, dtype, attributes)
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


def _score_attributes(scene: SceneInfo, referenced: bool) -> dict[str, Any]:  # noqa: FBT001
    attributes: dict[str, Any] = {
        "long_name": "anomaly score",
        "units": "1",
        "valid_range": [0.0, 1.0],
    }
    if referenced:
        attributes["grid_mapping"] = "spatial_ref"
    if scene.transform is not None:
        attributes |= {
            "zarr_conventions": GEOZARR_CONVENTIONS,
            "spatial:dimensions": ["y", "x"],
            "spatial:transform": list(scene.transform),
            "spatial:shape": [scene.height, scene.width],
        }
    if scene.crs is not None:
        crs = CRS.from_wkt(scene.crs)
        epsg = crs.to_epsg()
        attributes |= {"proj:wkt2": crs.to_wkt(version="WKT2_2019")}
        if epsg is not None:
            attributes |= {"proj:code": f"EPSG:{epsg}"}
    return attributes


def _inner_chunk(chunk: int) -> int:
    """The largest divisor of ``chunk`` up to INNER_CHUNK that is not tiny, else ``chunk``."""
    divisors = (d for d in range(min(INNER_CHUNK, chunk), 127, -1) if chunk % d == 0)
    return next(divisors, chunk)
