"""The overviews of a finished store, in the ``multiscales`` convention of GeoZarr.

Each level is a group of its own (``overviews/1``, ``overviews/2``, ...) with coordinates, because
all arrays of a group share their sizes for xarray. It holds the maximum of four pixels below.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr
import zarr
from affine import Affine

from uniadrs_scale.maps.groups import BAND_SCATTER
from uniadrs_scale.maps.new_store import create_map, place_attributes, write_root
from uniadrs_scale.maps.overviews import BLOCK, THREADS, ScoreStatistics, ahead, pool, windows
from uniadrs_scale.maps.store import open_map
from uniadrs_scale.swaths.axes import regular_axis
from uniadrs_scale.swaths.grids import centres, is_rotated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from rasterio.windows import Window

    from uniadrs_scale.core.layers import Layer
    from uniadrs_scale.maps.store import ScoreMap, ScoreStore
    from uniadrs_scale.swaths.grids import Georeference

MULTISCALES = {"uuid": "d35379db-88df-4056-af3a-620245f8e347", "name": "multiscales"}
HELD = 64 << 20
"""Bytes of overviews that are pooled at once."""


def finish(store: ScoreStore) -> None:
    """Write the overviews of a complete map and consolidate its metadata.

    A finished store stays as it is, and whatever was interrupted is done again to the same bytes.
    """
    opened = open_map(store.path)
    attributes = dict(opened.group.attrs)
    if any("actual_range" not in opened.array(layer).attrs for layer in opened.layers):
        for layer in opened.layers:
            _describe(store, opened, layer)
    if max(opened.frame.shape) > BLOCK and "multiscales" not in attributes:
        layout = [entry for layer in opened.layers for entry in _pyramid(store, opened, layer)]
        # The levels have their own: the convention allows it in one place only.
        for key in ("spatial:transform", "spatial:shape"):
            attributes.pop(key, None)
        conventions = cast("list[Any]", attributes.get("zarr_conventions", []))
        attributes["zarr_conventions"] = [MULTISCALES, *conventions]
        attributes["multiscales"] = {"layout": layout}
    elif _is_consolidated(store):
        return
    write_root(store, attributes)


def _describe(store: ScoreStore, opened: ScoreMap, layer: Layer) -> None:
    """Add the statistics of a layer to its attributes, in the words of CF if it has some."""
    array = opened.array(layer)
    parts = ahead(
        lambda window: ScoreStatistics.of(np.asarray(array[window.toslices()], np.float32)),
        windows(*cast("tuple[int, int]", array.shape)),
        min(THREADS, 2),
    )
    figures = ScoreStatistics.combine(part for _, part in parts).figures()
    if figures:
        extremes = [figures.pop(name) for name in ("minimum", "maximum")]
        written = zarr.open_array(store.path.zarr(), path=layer.name, mode="r+", zarr_format=3)
        written.update_attributes({"actual_range": extremes, **figures})


def _is_consolidated(store: ScoreStore) -> bool:
    """Return True if the root lists what a run writes last, its statistics."""
    root = zarr.open_group(store.path.zarr(read_only=True), mode="r", zarr_format=3).metadata
    known = root.consolidated_metadata
    return known is not None and BAND_SCATTER in known.metadata


def _pyramid(store: ScoreStore, opened: ScoreMap, layer: Layer) -> Iterator[dict[str, Any]]:
    """Write level after level of a layer; yield what the convention says of each."""
    lower, asset, place = opened.array(layer), layer.name, opened.place
    yield {"asset": asset, "transform": {"scale": [1.0, 1.0]}, **_placed(place, lower.shape)}
    frame, level = opened.frame, 0
    while max(lower.shape) > BLOCK:
        level += 1
        shape = -(-lower.shape[0] // 2), -(-lower.shape[1] // 2)
        if place.transform is not None:
            place = replace(place, transform=place.transform @ Affine.scale(2))
        coordinates = pooled_coordinates(frame, place, shape)
        frame = xr.DataArray(np.broadcast_to(np.float32(0), shape), coordinates, ("y", "x"))
        name = f"overviews/{level}"
        if layer is opened.layers[0]:
            frame.coords.to_dataset().to_zarr(
                store.path.zarr(), group=name, mode="w", zarr_format=3, consolidated=False
            )
        mapping = {"grid_mapping": "spatial_ref"} if "spatial_ref" in frame.coords else {}
        said = place_attributes(place.crs, place.transform, shape)
        chunk = (lower.shards or lower.chunks)[0]
        group = zarr.open_group(store.path.zarr(), path=name, mode="r+", zarr_format=3)
        said |= layer.attributes | mapping
        upper = create_map(group, layer.name, shape, chunk, layer.dtype, attributes=said)
        _pool_array(lower, upper, layer.pooled)
        below, asset, lower = asset, f"{name}/{layer.name}", upper
        yield {
            "asset": asset,
            "derived_from": below,
            "transform": {"scale": [2.0, 2.0]},
            "resampling_method": layer.pooled,
            **_placed(place, shape),
        }


def _placed(place: Georeference, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the place of a level as the layout has it."""
    if place.transform is None:
        return {}
    return {"spatial:transform": list(place.transform)[:6], "spatial:shape": list(shape)}


def _pool_array(lower: zarr.Array[Any], upper: zarr.Array[Any], way: str) -> None:
    """Fill ``upper`` with what ``lower`` is pooled to, shard by shard."""
    (height, width), side = upper.shape, (upper.shards or upper.chunks)[0]
    step = max(2, side // 2 * 2)

    def pooled(shard: Window) -> NDArray[np.float32]:
        block = np.empty((shard.height, shard.width), np.float32)
        for row in range(0, 2 * shard.height, step):
            for col in range(0, 2 * shard.width, step):
                top, left = 2 * shard.row_off + row, 2 * shard.col_off + col
                rows = slice(top, min(top + step, 2 * (shard.row_off + shard.height)))
                cols = slice(left, min(left + step, 2 * (shard.col_off + shard.width)))
                part = pool(np.asarray(lower[rows, cols], np.float32)[None], (way,))[0]
                block[row // 2 : row // 2 + part.shape[0], col // 2 : col // 2 + part.shape[1]] = (
                    part
                )
        return block

    threads = max(1, min(THREADS, HELD // (4 * side**2)))
    for shard, block in ahead(pooled, windows(height, width, side), threads):
        rows, cols = shard.toslices()
        upper[rows, cols] = block


def pooled_coordinates(
    frame: xr.DataArray, place: Georeference, shape: tuple[int, int]
) -> dict[str, Any]:
    """Return the coordinates of a level above ``frame``, whose place is ``place``."""
    coords: dict[str, Any] = {}
    if "spatial_ref" in frame.coords:
        attrs = dict(frame.coords["spatial_ref"].attrs)
        if place.transform is not None:
            attrs["GeoTransform"] = " ".join(map(str, place.transform.to_gdal()))
        coords["spatial_ref"] = ((), 0, attrs)
    if place.transform is not None:
        return coords if is_rotated(place.transform) else coords | centres(place.transform, *shape)
    for name, size in zip(("y", "x"), shape, strict=True):
        with suppress(ValueError, KeyError):  # not a regular axis, or none
            axis = regular_axis(frame.coords[name].values, name)
            coords[name] = axis.first + (axis.step or 1.0) * (2 * np.arange(size) + 0.5)
    return coords
