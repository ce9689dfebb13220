"""The graph's shape is part of the contract: four tasks a chunk, one for all, nothing else."""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
import xarray as xr
from dask.callbacks import Callback
from jobs import job_of, work_of
from rasterio.transform import from_origin
from standins import TileMean, WhoScored

import uniadrs_scale as us
from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.maps.new_store import prepare
from uniadrs_scale.maps.store import DONE, ScoreStore
from uniadrs_scale.runtime.compute import Compute
from uniadrs_scale.runtime.dask_internals import in_raster_order, task
from uniadrs_scale.runtime.executor import LocalExecutor
from uniadrs_scale.runtime.graph import run_graph, score_scene
from uniadrs_scale.runtime.worker import UnfitWorkerError
from uniadrs_scale.scoring.job import prepare as prepare_job
from uniadrs_scale.scoring.run import Observer, run
from uniadrs_scale.storage.places import Place


class Recorder(LocalExecutor):
    """Keeps the tasks instead of running them."""

    def __init__(self) -> None:
        super().__init__("sync")
        self.graph: dict = {}
        self.wanted: list = []

    def compute(self, graph, wanted, on_result=None, *, line_axis=0):
        del on_result, line_axis
        self.graph, self.wanted = graph, wanted
        return [None] * len(wanted)


def recorded(tmp_path, scene, **options):
    job = job_of(scene, TileMean(), **options)
    plan = job.plan
    store = prepare(tmp_path / "map.zarr", plan, {})
    recorder = Recorder()
    score_scene(work_of(job, store), recorder, lambda _: None)
    return plan, store, recorder.graph, recorder.wanted


def kinds(graph) -> set[tuple]:
    """Tasks without the part of their names that no other graph has."""
    return {(str(name).split("-")[0], *index) for name, *index in graph}


def test_four_tasks_a_chunk_with_names_that_no_other_graph_has(tmp_path) -> None:
    scene = xr.DataArray(np.zeros((500, 700), np.float32), dims=("y", "x"))
    options = {"tile": 64, "stride": 48, "chunk": 128}
    plan, _, graph, wanted = recorded(tmp_path, scene, **options)
    assert len(wanted) == 4 * 6
    nothing_beside, nothing_beyond = 6, 4  # columns are lines here
    assert len(graph) == plan.tasks == 1 + 4 * (4 * 6) - nothing_beside - nothing_beyond
    assert all(str(name).split("-")[1] == plan.fingerprint for name, *_ in graph)
    assert all(need in graph for task in graph.values() for need in task.dependencies)
    (tmp_path / "again").mkdir()
    again = recorded(tmp_path / "again", scene, **options)[2]
    assert kinds(again) == kinds(graph)
    assert not again.keys() & graph.keys()


def test_a_resumed_graph_holds_only_what_is_missing(tmp_path) -> None:
    scene = xr.DataArray(np.zeros((500, 700), np.float32), dims=("y", "x"))
    options = {"tile": 64, "stride": 48, "chunk": 128}
    _, store, _, _ = recorded(tmp_path, scene, **options)
    store._array("done")[:] = DONE
    store._array("done")[2, 3] = 0
    _, _, graph, wanted = recorded(tmp_path, scene, **options)
    assert len(wanted) == 1
    assert kinds(graph) == {
        ("run",), ("commit", 2, 3), ("score", 2, 3), ("score", 2, 2), ("score", 1, 3),
        ("score", 1, 2), ("beyond", 2, 2), ("beside", 1, 3), ("beyond", 1, 2),
    }  # fmt: skip


def test_a_users_graph_is_cut_to_its_window(tmp_path) -> None:
    scene = xr.DataArray(np.zeros((512, 512), np.float32), dims=("y", "x")).chunk(64) + 1
    _, _, graph, _ = recorded(tmp_path, scene, tile=64, stride=48, chunk=128)
    (task,) = (graph[key] for key in graph if key[0].startswith("score-") and key[1:] == (0, 0))
    assert len(task.dependencies) == 1
    window = pickle.loads(pickle.dumps(task.args[-1])).inside
    # 176 pixels a side: three blocks of 64, added to and joined.
    assert len(dict(window.array.data.dask)) <= 2 * 9


class NeverUnpickled(TileMean):
    """Stands for a network that only a worker can build."""

    def __setstate__(self, state) -> None:
        raise AssertionError("opened where nobody scores")


def test_a_graph_is_small_and_keeps_the_network_closed(tmp_path) -> None:
    """A scheduler unpickles graphs: it must not build networks, and 2 MB is soon sent."""
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=12, height=100_000, width=100_000, dtype="uint16",
        tiled=True, sparse_ok=True, bigtiff="yes", crs="EPSG:32632",
        transform=from_origin(5e5, 5e6, 10, 10), blockxsize=512, blockysize=512,
    ):  # fmt: skip
        pass
    scene = us.open_scene(path)
    scorer = NeverUnpickled()
    scorer.folder = "x" * 100_000
    job = job_of(scene, scorer, chunk=2048)
    plan, store = job.plan, ScoreStore(Place.of(tmp_path / "map.zarr"))
    graph, wanted = run_graph(work_of(job, store), set(plan.lattice.indices()))
    assert len(wanted) == 49 * 49
    assert len(graph) == plan.tasks <= 15_000
    sent = pickle.dumps(graph)
    assert len(sent) < 2e6
    back = pickle.loads(sent)
    assert back.keys() == graph.keys()
    with pytest.raises(UnfitWorkerError, match="opened where nobody scores"):
        back[next(iter(graph))]().open()


def test_few_chunks_occupy_all_workers(cluster, tmp_path) -> None:
    # Four chunks on two workers: too few for Dask to take them for roots by itself, which then
    # sends all of them to the worker that holds what they share.
    scene = xr.DataArray(np.random.default_rng(0).random((128, 128)), dims=("y", "x"))
    options = {"preset": "single-band", "tile": 32, "stride": 32, "chunk": 64}
    with cluster.as_current():
        who = us.score(scene, detector=WhoScored(tmp_path, 2), **options).values
    assert len(np.unique(who[::32, ::32])) == 2


def test_scoring_tasks_are_marked_as_roots(tmp_path) -> None:
    """The mark of Dask that the test above relies on: stealing may hide that it is missing."""
    scene = xr.DataArray(np.zeros((128, 128), np.float32), dims=("y", "x"))
    _, _, graph, _ = recorded(tmp_path, scene, tile=32, stride=32, chunk=64)
    scored = [task for key, task in graph.items() if str(key[0]).startswith("score-")]
    assert len(scored) == 4
    assert all(task.data_producer for task in scored)


def test_a_client_is_not_the_name_of_a_scheduler() -> None:
    client = type("Client", (), {"__str__": lambda _: "<Client: 'tcp://127.0.0.1:1'>"})()
    with pytest.raises(us.PlanError, match="without it, the active Dask client computes"):
        Compute.of(client)


def test_unknown_schedulers_are_refused() -> None:
    with pytest.raises(us.PlanError, match=r"scheduler='quick' is unknown"):
        Compute.of("quick")
    with pytest.raises(us.PlanError, match=r"workers=0 is not allowed"):
        Compute.of(None, 0)


def test_this_process_is_one_worker_with_a_thread_or_one_a_core(monkeypatch) -> None:
    monkeypatch.setattr("uniadrs_scale.runtime.compute.usable_cores", lambda: 6)
    for scheduler, threads in (("sync", 1), ("threads", 6)):
        compute = Compute.of(scheduler, gpus=("5",))
        assert (compute.workers, compute.threads, compute.gpus) == (1, threads, ("5",))
        assert compute.in_process
        assert not compute.is_own


def test_chunks_come_line_by_line_across_the_shorter_axis(tmp_path) -> None:
    scene = xr.DataArray(np.zeros((300, 900), np.float32), dims=("y", "x"))
    plan, _, graph, wanted = recorded(tmp_path, scene, tile=64, stride=48, chunk=128)
    layers = in_raster_order(graph, plan.lattice.line_axis).layers.values()
    assert sorted(key for layer in layers for key in layer) == sorted(graph)
    lines = {layer.annotations["priority"]: {key[2:] for key in layer} for layer in layers}
    assert lines == {1: {()}, **{-col: {(col,)} for col in range(8)}}
    assert {key[2] for key in wanted} == set(range(8))


@pytest.mark.parametrize(("shape", "axis"), [((1500, 400), 0), ((400, 1500), 1)])
def test_a_cluster_keeps_that_order(tmp_path, shape, axis: int) -> None:
    """With one worker: of two, one may fall behind on a busy machine."""
    scene = xr.DataArray(np.zeros(shape, np.float32), dims=("y", "x"))
    lines: list[int] = []
    compute = Compute(workers=1, threads=1)
    job = prepare_job(scene, Sizes(tile=64, stride=48, chunk=64), TileMean(), compute)
    observer = Observer(on_report=lambda report: lines.append(report.index[axis]))
    run(job, tmp_path / "map.zarr", compute, observer)
    assert len(lines) == 24 * 7
    behind = np.maximum.accumulate(lines) - lines
    assert behind.max() <= 1


def heard(run: int) -> int:
    """Return how many of three tasks the driver hears of."""
    told: list[object] = []
    graph = {(f"run-{run}", k): task((f"run-{run}", k), int, k) for k in range(3)}
    LocalExecutor("threads", 2).compute(graph, list(graph), told.append)
    return len(told)


def test_each_of_many_runs_in_threads_hears_of_its_own_tasks() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(6) as pool:
            assert set(pool.map(heard, range(1500))) == {3}
    finally:
        sys.setswitchinterval(before)


def test_a_callback_of_the_caller_is_told_as_well() -> None:
    seen: list[object] = []
    with Callback(posttask=lambda key, *_: seen.append(key)):
        assert heard(0) == 3
    assert len(seen) == 3
