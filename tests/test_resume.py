"""A run that dies is finished by the same command, to the same bytes."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
import xarray as xr
from standins import Failing, FirstBand, KillsDriver, TileMean
from waiting import wait_until

import uniadrs_scale as us
from uniadrs_scale.core.lattice import Lattice
from uniadrs_scale.maps.store import DONE, FAILED, MISSING, open_store
from uniadrs_scale.runtime.graph import needed_tiles

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable

OPTIONS = {"preset": "single-band", "tile": 64, "stride": 48, "chunk": 100}

DRIVER = """
import os, sys
from pathlib import Path
from standins import KillsDriver
from test_resume import OPTIONS, scene
import uniadrs_scale as us
folder, scheduler = Path(sys.argv[1]), sys.argv[2]
scorer = KillsDriver(os.getpid(), 40, folder / "seen")
compute = {"workers": 2} if scheduler == "cluster" else {"scheduler": scheduler}
us.score(scene(), folder / "map.zarr", detector=scorer, **compute, **OPTIONS)
"""


def scene() -> xr.DataArray:
    pixels = np.random.default_rng(5).integers(0, 999, (2, 430, 510)).astype(np.int16)
    return xr.DataArray(pixels, dims=("band", "y", "x"))


def files(store: Path) -> dict[str, bytes]:
    """Every object of a store."""
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def alive(pids: Iterable[int]) -> list[int]:
    living = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                living.append(pid)
    return living


@pytest.mark.parametrize("scheduler", ["sync", "cluster"])
def test_killed_driver_resumes_to_the_same_bytes(
    tmp_path: Path, scheduler: str, spawn: Callable[..., subprocess.Popen[bytes]]
) -> None:
    (tmp_path / "seen").mkdir()
    child = spawn(
        [sys.executable, "-c", DRIVER, str(tmp_path), scheduler],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    workers: set[int] = set()

    def ended() -> bool:
        with suppress(psutil.NoSuchProcess):
            workers.update(p.pid for p in psutil.Process(child.pid).children(recursive=True))
        return child.poll() is not None

    wait_until(ended)
    assert child.returncode == -9
    before = open_store(tmp_path / "map.zarr").done
    assert 0 < (before == DONE).sum() < before.size

    scorer = KillsDriver(0, 0, tmp_path / "again")
    scorer.folder.mkdir()
    resumed = us.score(scene(), tmp_path / "map.zarr", detector=scorer, scheduler="sync", **OPTIONS)
    whole = us.score(
        scene(), tmp_path / "whole.zarr", detector=TileMean(), scheduler="sync", **OPTIONS
    )
    np.testing.assert_array_equal(resumed.values, whole.values)
    assert files(tmp_path / "map.zarr") == files(tmp_path / "whole.zarr")
    lattice = us.plan(scene(), detector=scorer, scheduler="sync", **OPTIONS).lattice
    # At the edge of the scene, neighbours may need all tiles of a chunk that is done.
    todo = {(int(row), int(col)) for row, col in np.argwhere(before != DONE)}
    needed = sum(len(needed_tiles(lattice, owner, todo)) for owner in lattice.indices())
    assert len(list(scorer.folder.iterdir())) == needed <= lattice.tiles
    wait_until(lambda: not alive(workers))  # worker processes do not outlive a killed driver


def test_resume_scores_only_what_missing_chunks_need() -> None:
    lattice = Lattice(height=790, width=900, tile=64, stride=48, chunk=200)
    todo = {(2, 3)}
    needed = {o: needed_tiles(lattice, o, todo) for o in lattice.indices()}
    assert {o for o, tiles in needed.items() if tiles} == {(2, 3), (2, 2), (1, 3), (1, 2)}
    assert needed[2, 3] == lattice.owned_tiles((2, 3))
    window = lattice.chunk_window((2, 3))
    for owner in [(2, 2), (1, 3), (1, 2)]:
        reaching = [t for t in lattice.owned_tiles(owner) if t.intersection(window)]
        assert list(needed[owner]) == reaching
        assert len(reaching) < len(lattice.owned_tiles(owner))


def test_a_forgotten_chunk_comes_back(tmp_path: Path) -> None:
    whole = us.score(
        scene(), tmp_path / "a.zarr", detector=TileMean(), scheduler="sync", **OPTIONS
    ).values
    store = open_store(tmp_path / "a.zarr")
    window = Lattice(height=430, width=510, tile=64, stride=48, chunk=90).chunk_window((1, 1))
    with pytest.raises(us.StoreError, match=r"not on a shard"):
        store.write_chunk((1, 1), window, np.zeros((90, 90), np.float32), DONE)
    store._array("score")[100:200, 100:200] = np.nan
    store._array("done")[1, 1] = MISSING
    again = us.score(
        scene(), tmp_path / "a.zarr", detector=TileMean(), scheduler="sync", **OPTIONS
    ).values
    np.testing.assert_array_equal(whole, again)


def test_another_plan_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    us.score(scene(), path, detector=TileMean(), scheduler="sync", **OPTIONS)
    before = files(path)
    with pytest.raises(us.StoreError, match=r"stride was 48, is 40"):
        us.score(scene(), path, detector=TileMean(), scheduler="sync", **OPTIONS | {"stride": 40})
    with pytest.raises(us.StoreError, match=r"detector was TileMean, is FirstBand"):
        us.score(scene(), path, detector=FirstBand(), scheduler="sync", **OPTIONS)
    with pytest.raises(us.StoreError, match=r"identity was "):
        us.score(scene() + 1, path, detector=TileMean(), scheduler="sync", **OPTIONS)
    assert files(path) == before


@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_failed_tile_is_nan_and_comes_back(tmp_path: Path, raises: bool, batch: int) -> None:
    array = scene().astype(np.float32)
    array[0, 96, 144] = 1e6  # the first pixel of one tile, and of no other
    failing = Failing(7.9, raises=raises, batch=batch)
    whole = us.score(array, detector=FirstBand(), scheduler="sync", **OPTIONS).values
    with pytest.warns(us.IncompleteWarning, match=r"tile at pixel \(96, 144\)"):
        got = us.score(
            array, tmp_path / "a.zarr", detector=failing, scheduler="sync", **OPTIONS
        ).values
    expected = whole.copy()
    expected[96 : 96 + 64, 144 : 144 + 64] = np.nan
    np.testing.assert_array_equal(got, expected)
    store = open_store(tmp_path / "a.zarr")
    assert (store.done == FAILED).sum() == 4  # the tile lies in chunks (0..1, 1..2)
    assert sum("failed tiles" in fault for fault in store.verify()) == 4

    class FirstBandAgain(FirstBand):
        identity = failing.identity

    mended = us.score(
        array, tmp_path / "a.zarr", detector=FirstBandAgain(), scheduler="sync", **OPTIONS
    )
    np.testing.assert_array_equal(mended.values, whole)
