"""A short run: it imports what it needs, and all threads have something to do."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import xarray as xr
from distributed.system import memory_limit
from jobs import run_into
from standins import StandIn, TileMean

from uniadrs_scale.core.lattice import Window
from uniadrs_scale.core.machine import machine_memory
from uniadrs_scale.errors import StoreError
from uniadrs_scale.maps import exports
from uniadrs_scale.runtime.batches import Input, score_tiles
from uniadrs_scale.scoring import run as runs

if TYPE_CHECKING:
    from pathlib import Path

WAIT = 60


class Together(StandIn):
    """Scores a tile only while as many others are scored."""

    thread_safe = True

    def __init__(self, parties: int) -> None:
        self.barrier = threading.Barrier(parties, timeout=WAIT)

    def score_tiles(self, tiles):
        self.barrier.wait()
        return tiles[:, 0] / 8


class Alone(TileMean):
    """Fails if two threads call it at a time."""

    def __init__(self) -> None:
        self.busy = threading.Lock()

    def score_tiles(self, tiles):
        assert self.busy.acquire(blocking=False)
        try:
            return super().score_tiles(tiles)
        finally:
            self.busy.release()


def scene(side: int) -> xr.DataArray:
    values = np.random.default_rng(3).normal(size=(2, side, side)).astype(np.float32)
    return xr.DataArray(values, dims=("band", "y", "x"), name="scene")


def test_a_run_in_this_process_imports_no_cluster(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    profile = {"count": 4, "height": 96, "width": 96, "dtype": "uint16"}
    profile |= {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 4e5, 0, -10, 6e6)}
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        file.write(np.random.default_rng(0).integers(0, 900, (4, 96, 96)).astype(np.uint16))
    arguments = ["uniadrs-scale", "score", str(path), "-o", str(tmp_path / "map.tif")]
    code = (
        f"import json, sys; sys.argv = {arguments!r}\nfrom uniadrs_scale.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert {"torch", "dask", "rasterio"} <= loaded
    assert not loaded & {"distributed", "scipy.interpolate", "scipy.io", "pystac"}


def test_the_machine_has_the_memory_that_dask_sees() -> None:
    assert machine_memory() == memory_limit()


def test_all_threads_score_the_tiles_of_a_single_chunk(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("uniadrs_scale.runtime.compute.usable_cores", lambda: 2)
    options = {"tile": 64, "stride": 64, "chunk": 128}
    run_into(scene(128), tmp_path / "map.zarr", Together(2), scheduler="threads", **options)
    assert np.isfinite(xr.open_zarr(tmp_path / "map.zarr").score).all()


def test_a_scorer_that_is_not_thread_safe_is_called_alone(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("uniadrs_scale.runtime.compute.usable_cores", lambda: 2)
    options = {"tile": 32, "stride": 32, "chunk": 128}
    summary = run_into(scene(128), tmp_path / "map.zarr", Alone(), scheduler="threads", **options)
    assert (summary.complete, summary.tiles_scored) == (True, 16)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_neither_scores_nor_their_order(threads: int) -> None:
    rng = np.random.default_rng(1)
    tiles = [
        Input(Window(n, 0, 16, 16), rng.normal(size=(3, 16, 16)).astype(np.float32), TileMean())
        for n in range(7)
    ]
    alone, together = list(score_tiles(tiles)), list(score_tiles(tiles, threads=threads))
    assert [window for window, _ in together] == [window for window, _ in alone]
    for (_, one), (_, other) in zip(alone, together, strict=True):
        assert np.array_equal(one, other)


def test_a_picture_is_drawn_while_the_file_is_written(tmp_path: Path, monkeypatch) -> None:
    drawn, drawing, writing = threading.Event(), exports.draw, exports.write_cog

    def draw(*arguments):
        drawn.set()
        return drawing(*arguments)

    def after(*arguments):
        assert drawn.wait(WAIT)
        return writing(*arguments)

    monkeypatch.setattr(exports, "draw", draw)
    monkeypatch.setattr(exports, "write_cog", after)
    run_into(scene(96), tmp_path / "map.tif", TileMean(), tile=32)
    assert {path.name for path in tmp_path.iterdir()} >= {"map.tif", "map.png", "map.qml"}


def test_a_file_that_cannot_be_written_has_no_picture(tmp_path: Path, monkeypatch) -> None:
    def full(*_):
        raise StoreError("The disk is full.")

    monkeypatch.setattr("uniadrs_scale.maps.cog._make", full)
    with pytest.raises(StoreError, match="The disk is full"):
        run_into(scene(96), tmp_path / "map.tif", TileMean(), tile=32)
    assert not {path.suffix for path in tmp_path.iterdir()} & {".tif", ".png", ".qml"}


def test_overviews_that_cannot_be_written_leave_no_picture(tmp_path: Path, monkeypatch) -> None:
    def full(_):
        raise StoreError("The disk is full.")

    monkeypatch.setattr(runs, "finish", full)
    with pytest.raises(StoreError, match="The disk is full"):
        run_into(scene(96), tmp_path / "map.zarr", TileMean(), tile=32)
    assert not list(tmp_path.glob("map.png"))
