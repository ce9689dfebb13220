"""A tile that kills its process costs its own score, and nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
from distributed.scheduler import KilledWorker
from jobs import job_of, run_into, work_of
from standins import Deadly, TileMean

import uniadrs_scale as us
from uniadrs_scale.maps.new_store import prepare
from uniadrs_scale.maps.store import DONE, FAILED, open_store
from uniadrs_scale.runtime.executor import LocalExecutor
from uniadrs_scale.runtime.graph import score_scene
from uniadrs_scale.runtime.statistics import scene_statistics
from uniadrs_scale.runtime.worker import Isolation, ProcessDiedError

if TYPE_CHECKING:
    from pathlib import Path

    from uniadrs_scale.runtime.graph import Receipt

OPTIONS = {"preset": "single-band", "tile": 64, "stride": 48, "chunk": 100}


def scene() -> xr.DataArray:
    pixels = np.random.default_rng(5).integers(0, 999, (1, 250, 310)).astype(np.float32)
    pixels[0, 96, 144] = 1e6  # the first pixel of one tile, and of no other
    return xr.DataArray(pixels, dims=("band", "y", "x"))


@pytest.mark.slow
def test_a_deadly_tile_is_nan_and_named(tmp_path: Path) -> None:
    whole = us.score(
        scene(), tmp_path / "whole.zarr", detector=TileMean(), scheduler="sync", **OPTIONS
    ).values
    deadly = Deadly(7.9)
    summary = run_into(scene(), tmp_path / "a.zarr", deadly, scheduler=None, workers=1, **OPTIONS)
    assert not summary.lost
    (failure,) = set(summary.failures)
    assert (failure.window.row, failure.window.col) == (96, 144)
    assert failure.reason == "ProcessDiedError: its process died: SIGKILL"
    expected = whole.copy()
    expected[96 : 96 + 64, 144 : 144 + 64] = np.nan
    store = open_store(tmp_path / "a.zarr")
    np.testing.assert_array_equal(store.open().values, expected)
    assert (store.done == FAILED).sum() == 4
    assert (store.done == DONE).sum() == store.done.size - 4
    mended = us.score(
        scene(), tmp_path / "a.zarr", detector=TileMean(), scheduler="sync", **OPTIONS
    )
    np.testing.assert_array_equal(mended.values, whole)


class Unlucky(LocalExecutor):
    """Its workers die of the first tasks it is given; the next ones it carries out."""

    def __init__(self) -> None:
        super().__init__("sync")
        self.calls = 0

    def compute(self, graph, wanted, on_result=lambda _: None, *, line_axis=0):
        self.calls += 1
        if self.calls > 1:
            return super().compute(graph, wanted, on_result, line_axis=line_axis)
        return [KilledWorker(key, None, 3) for key in wanted]


def test_chunks_whose_workers_died_are_scored_apart(tmp_path: Path) -> None:
    array = scene()[:, 90:190, 130:230].copy()
    array[0, 36, 36] = 1e6
    whole = us.score(array, detector=TileMean(), scheduler="sync", **OPTIONS).values
    job = job_of(array, Deadly(7.9), **OPTIONS)
    store = prepare(tmp_path / "a.zarr", job.plan, {})
    scaling = scene_statistics(job.source, LocalExecutor("sync"))[0].normalisation()
    receipts: list[Receipt] = []
    assert not score_scene(work_of(job, store, scaling), Unlucky(), receipts.append)
    (failure,) = receipts[0].report.failures
    assert (failure.window.row, failure.window.col) == (36, 36)
    assert failure.reason == "ProcessDiedError: its process died: SIGKILL"
    expected = whole.copy()
    expected[36:100, 36:100] = np.nan
    np.testing.assert_array_equal(store.open().values, expected)


class TwoWordsError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def refuse() -> None:
    raise TwoWordsError("not", "today")


def test_an_error_that_pickle_cannot_make_again_is_not_the_answer_to_the_next_call() -> None:
    with Isolation() as isolation:
        with pytest.raises(RuntimeError, match="TwoWordsError: not today"):
            isolation.call(refuse)
        assert isolation.call(int, "5") == 5


def test_a_child_answers_raises_and_comes_back() -> None:
    with Isolation() as isolation:
        first = isolation.call(os.getpid)
        assert first != os.getpid()
        with pytest.raises(ZeroDivisionError):
            isolation.call(divmod, 1, 0)
        isolation.call(print, "what libraries print does not come between")
        assert isolation.call(os.getpid) == first
        with pytest.raises(ProcessDiedError, match="exit code 3"):
            isolation.call(os._exit, 3)
        assert isolation.call(os.getpid) not in (first, os.getpid())
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
