"""The graph's shape is part of the contract: three tasks a chunk, nothing else."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xarray as xr
from standins import TileMean

import uniadrs_scale as us
from uniadrs_scale.graph import Resources, executor, score_scene
from uniadrs_scale.graph.execute import Executor
from uniadrs_scale.io.scenes import scene_source
from uniadrs_scale.io.store import DONE, prepare
from uniadrs_scale.stats import Normalisation


class Recorder(Executor):
    """Keeps the tasks instead of running them."""

    def __init__(self) -> None:
        super().__init__(None, "sync")
        self.tasks: list = []

    def compute(self, tasks, on_result=None):
        del on_result
        self.tasks = tasks
        return []


def recorded(tmp_path, scene, **options):
    plan = us.plan(scene, detector=TileMean(), scheduler="sync", **options)
    store = prepare(tmp_path / "map.zarr", plan, {})
    recorder = Recorder()
    scaling = Normalisation(offset=np.zeros(1, np.float32), scale=np.ones(1, np.float32))
    score_scene(
        scene_source(scene), plan, store, recorder,
        scaled=(TileMean(), scaling), on_report=lambda _: None,
    )  # fmt: skip
    keys = {key for task in recorder.tasks for key in dict(task.dask)}
    return plan, store, recorder.tasks, keys


def test_three_tasks_a_chunk_with_names_that_repeat(tmp_path) -> None:
    scene = xr.DataArray(np.zeros((500, 700), np.float32), dims=("y", "x"))
    options = {"tile": 64, "stride": 48, "chunk": 128}
    plan, _, tasks, keys = recorded(tmp_path, scene, **options)
    assert len(tasks) == 4 * 6
    assert len(keys) == plan.tasks == 3 * 4 * 6 - 1
    assert f"score-{plan.fingerprint}-0-0" in keys
    (tmp_path / "again").mkdir()
    assert recorded(tmp_path / "again", scene, **options)[3] == keys


def test_a_resumed_graph_holds_only_what_is_missing(tmp_path) -> None:
    scene = xr.DataArray(np.zeros((500, 700), np.float32), dims=("y", "x"))
    options = {"tile": 64, "stride": 48, "chunk": 128}
    plan, store, _, _ = recorded(tmp_path, scene, **options)
    store._array("done")[:] = DONE
    store._array("done")[2, 3] = 0
    _, _, tasks, keys = recorded(tmp_path, scene, **options)
    assert len(tasks) == 1
    assert {key.replace(plan.fingerprint, "") for key in keys} == {
        "commit--2-3", "score--2-3", "score--2-2", "score--1-3", "score--1-2",
        "strips--2-2", "strips--1-3", "strips--1-2",
    }  # fmt: skip


def test_a_users_graph_is_cut_to_its_window(tmp_path) -> None:
    scene = xr.DataArray(np.zeros((512, 512), np.float32), dims=("y", "x")).chunk(64) + 1
    _, _, tasks, _ = recorded(tmp_path, scene, tile=64, stride=48, chunk=128)
    graph = dict(tasks[0].dask)
    assert len(graph) == 2
    (score,) = [task for key, task in graph.items() if str(key).startswith("score")]
    partial = pickle.loads(pickle.dumps(score.func))
    # 176 pixels a side: three blocks of 64, added to and joined.
    assert len(dict(partial.args[0].array.data.dask)) <= 2 * 9


def test_unknown_schedulers_are_refused() -> None:
    with (
        pytest.raises(us.PlanError, match=r"scheduler='quick' is unknown"),
        executor("quick", Resources(1, 1)),
    ):
        pass
    with pytest.raises(us.PlanError, match=r"workers=0: at least 1"):
        Resources.of(None, 0)
