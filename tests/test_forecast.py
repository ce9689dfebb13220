"""What a forecast counts, checked without a run; test_memory.py measures it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import xarray as xr
from dask.order import order
from jobs import job_of, work_of
from rasterio.transform import from_origin
from standins import TileMean

import uniadrs_scale as us
from uniadrs_scale.core.lattice import Lattice
from uniadrs_scale.core.memory import Pixels, Processes, forecast, sample_side, waiting_strips
from uniadrs_scale.maps.store import ScoreStore
from uniadrs_scale.runtime.dask_internals import in_raster_order
from uniadrs_scale.runtime.graph import run_graph
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"detector": TileMean(), "scheduler": "sync", "tile": 64, "chunk": 64}
BANDS = 32
HALO = 56
"""The furthest that a tile reaches beyond its chunk: the second one begins at 56 px [px]."""
WINDOW = 64 + HALO
"""A chunk and its halo [px]."""


def raster(path: Path, interleave: str) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", count=BANDS, height=300, width=300, dtype="int16", tiled=True,
        blockxsize=256, blockysize=256, interleave=interleave, crs="EPSG:32633",
        transform=from_origin(4e5, 6e6, 20, 20),
    ) as file:  # fmt: skip
        file.write(np.ones((BANDS, 300, 300), np.int16))
    return path


def test_a_forecast_adds_up() -> None:
    lattice = Lattice(height=300, width=1000, tile=64, stride=48, chunk=128)
    assert lattice.chunks == (3, 8)
    pixels = Pixels(bands=3, itemsize=2, block_bytes=1000, strip_rows=7)
    processes = Processes(workers=2, threads=3, in_lines=True, gpu_build=False)
    sizes = {"batch": 2, "activation_bytes": 5000}
    got = forecast(lattice, pixels, processes, **sizes)
    # The last tiles of the first rows and of the fifth columns begin at 108 and 624 px.
    height, width = 108 + 64, 624 + 64 - 4 * 128
    assert got.read == 3 * (height * width * (3 * 2 + 1) + 7 * width * 3 * 2 + 1000)
    strips = 8 * (width - 128) * width * (3 + 4)
    assert got.sums == 3 * 8 * (height * width + 4 * 128 * 128) + strips // 2
    tile = 3 * 4 * 3 * 64 * 64 * 2 + 5000
    assert got.network == 3 * 2 * tile, "what was freed is kept"
    sample = 300 * 512 * (3 * 2 + 1) + 7 * 512 * 3 * 2 + 1000
    assert got.statistics == 3 * (sample + 2**14 * 3 * (2 + 24) + 32 * 3**2)
    assert got.total == got.process + got.statistics, "of small chunks"
    large = forecast(replace(lattice, chunk=256), pixels, processes, **sizes)
    assert large.total == large.process + large.read + large.sums + large.network
    built = forecast(lattice, pixels, replace(processes, gpu_build=True), **sizes)
    assert built.total - got.total == 400 * 2**20
    hungry = forecast(lattice, pixels, processes, **sizes | {"activation_bytes": 10**9})
    assert hungry.network < 3 * 1.1e9, "not all of it"


def test_of_many_bands_a_smaller_window_is_sampled() -> None:
    assert [sample_side(bands) for bands in (1, 16, 17, 2048)] == [512, 512, 256, 256]


def test_a_block_of_all_bands_is_held_beside_the_window(tmp_path: Path) -> None:
    together, apart = (
        us.plan(us.open_scene(raster(tmp_path / f"{kind}.tif", kind)), **SIZES)
        for kind in ("pixel", "band")
    )
    block = 256 * 256 * 2
    assert together.memory.read - apart.memory.read == (BANDS - 1) * block
    # How a file is stored decides no pixel: its map goes on.
    assert not {"block_bytes", "strip_rows"} & set(together.decisive()["scene"])


def test_chunks_of_a_cube_are_decoded_whole(tmp_path: Path) -> None:
    def read(rows: int) -> int:
        path = tmp_path / f"{rows}.nc"
        cube = xr.DataArray(np.ones((8, 320, 320), np.int16), dims=("band", "y", "x"), name="v")
        cube.to_netcdf(path, engine="h5netcdf", encoding={"v": {"chunksizes": (8, rows, 64)}})
        return us.plan(us.open_scene(path), **SIZES).memory.read

    decoded = 2 * 8 * 2 * 64  # bytes of a row of a chunk, twice
    copied = (64 + 48) * 8 * 2  # bytes of a row of the window: tiles of cubes begin every 48 px
    assert read(64) - read(32) == 32 * (decoded + copied)
    assert read(320) - read(160) == 160 * decoded, "a window has no more rows than these"


def test_files_that_are_put_together_are_held_twice(tmp_path: Path) -> None:
    paths = [raster(tmp_path / f"{name}.tif", "band") for name in "ab"]
    one, two = (us.plan(us.open_scene(some), **SIZES).memory.read for some in (paths[:1], paths))
    mask, block, band = WINDOW**2, 256 * 256 * 2, WINDOW**2 * 2
    assert one == mask + BANDS * band + block
    assert two == mask + 2 * (2 * BANDS * band) + 2 * block


def test_band_maths_hold_two_windows_and_two_chunks(tmp_path: Path) -> None:
    scene = us.open_scene(raster(tmp_path / "a.tif", "band"), chunk=100)
    read = us.plan(scene.astype("float32") + 1, **SIZES).memory.read
    assert read == WINDOW**2 + 4 * BANDS * (2 * WINDOW**2 + 2 * 100**2)
    # Pixels in memory are there already, and rows of a chunk are no rows of its window.
    assert us.plan(scene.compute() + 1, **SIZES).memory.read == WINDOW**2 * (1 + 2 * BANDS)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1),
        (1, 9),
        (2, 2),
        (2, 60),
        (60, 2),
        (3, 60),
        (60, 3),
        (4, 50),
        (50, 4),
        (9, 30),
        (20, 20),
    ],
)
@pytest.mark.parametrize("in_lines", [True, False])
def test_no_more_strips_wait_than_are_counted_and_one_body(
    shape: tuple[int, int], in_lines: bool, tmp_path: Path
) -> None:
    rows, cols = shape
    scene = xr.DataArray(np.broadcast_to(np.float32(1), (64 * rows, 64 * cols)), dims=("y", "x"))
    job = job_of(scene, TileMean(), tile=64, chunk=64)
    plan = job.plan
    assert plan.lattice.chunks == shape
    work = work_of(job, ScoreStore(Place.of(tmp_path / "map.zarr")))
    graph, _ = run_graph(work, set(plan.lattice.indices()))
    priorities = {
        key: layer.annotations["priority"]
        for layer in in_raster_order(graph, plan.lattice.line_axis).layers.values()
        for key in (layer if in_lines else ())
    }
    places = order(graph)
    needed = Counter(need for task in graph.values() for need in task.dependencies)
    waiting, most = set[object](), Counter[str]()
    for key in sorted(graph, key=lambda key: (-priorities.get(key, 0), places[key])):
        waiting.add(key)
        most |= Counter(str(kept[0]).split("-")[0] for kept in waiting)
        most |= {"strips": sum(str(kept[0]).startswith("be") for kept in waiting)}
        needed.subtract(graph[key].dependencies)
        waiting -= {need for need in graph[key].dependencies if needed[need] == 0}
    counted = waiting_strips(rows, cols, in_lines=in_lines)
    assert most["strips"] <= counted <= max(2 * most["strips"], 3)
    assert most["score"] == 1


@pytest.mark.parametrize(("shape", "delayed"), [((1, 1), 0), ((1, 9), 1), ((9, 1), 1), ((9, 9), 3)])
def test_a_late_chunk_keeps_its_neighbours_waiting(shape: tuple[int, int], delayed: int) -> None:
    rows, cols = shape
    scene = xr.DataArray(np.broadcast_to(np.float32(1), (64 * rows, 64 * cols)), dims=("y", "x"))
    strips = 8 * HALO * WINDOW * waiting_strips(rows, cols, in_lines=False)
    window = min(WINDOW, 64 * rows) * min(WINDOW, 64 * cols)
    one = us.plan(scene, **SIZES)
    assert one.memory.sums == 8 * (window + 64**2 * (1 + delayed)) + strips
    # Of more threads each has its own, but for the strips.
    assert replace(one, threads=3).memory.sums == 3 * (one.memory.sums - strips) + strips


def test_strips_that_wait_are_shared_by_the_workers() -> None:
    scene = xr.DataArray(np.broadcast_to(np.float32(1), (640, 1280)), dims=("y", "x"))
    plan = us.plan(scene, **SIZES)
    one, two = plan.memory, replace(plan, workers=2).memory
    assert one.sums - two.sums == (10 + 2 * 20) * 8 * HALO * WINDOW / 2
    on_a_cluster = replace(plan, in_lines=True).memory
    assert one.sums - on_a_cluster.sums == (2 * 20 - 4) * 8 * HALO * WINDOW


def test_the_covariance_of_many_bands_is_counted() -> None:
    def total(bands: int) -> int:
        pixels = np.broadcast_to(np.float32(0), (bands, 64, 64))
        return us.plan(xr.DataArray(pixels, dims=("band", "y", "x")), **SIZES).memory.total

    wide = total(2048)
    assert wide - total(4) > 3 * 2**14 * 2048 * 8, "three slabs in float64"
    assert wide < 3 * 2**30
