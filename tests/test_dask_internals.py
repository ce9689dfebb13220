"""The private parts of Dask and distributed that this library relies on, one test each."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import dask.config
from dask._task_spec import DataNode, Task, TaskRef, cull
from dask.highlevelgraph import MaterializedLayer
from distributed import Client
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import SpecCluster
from distributed.deploy.subprocess import SubprocessWorker

from uniadrs_scale.runtime import dask_internals as internals

if TYPE_CHECKING:
    from uniadrs_scale.runtime.dask_internals import Graph


def test_relies_on_the_task_specification(cluster: Client) -> None:
    graph: Graph = {
        ("data",): internals.data(("data",), 20),
        ("sum",): internals.task(("sum",), sum, [internals.result_of(("data",)), 1]),
        ("other",): internals.task(("other",), abs, -1),
    }
    assert isinstance(graph["data",], DataNode)
    assert isinstance(graph["sum",], Task)
    assert isinstance(internals.result_of(("data",)), TaskRef)
    assert graph["other",].dependencies == frozenset()
    assert cluster.get(graph, [("other",)], sync=True) == [1]


def test_relies_on_references_as_arguments(cluster: Client) -> None:
    data, double = ("value",), ("double",)
    graph: Graph = {
        data: internals.data(data, 21),
        double: internals.task(double, _twice, internals.result_of(data)),
    }
    assert graph[double].dependencies == {data}
    assert cluster.get(graph, [double], sync=True) == [42]


def _twice(value: int) -> int:
    return 2 * value


def test_relies_on_data_producer() -> None:
    assert internals.producer(("a",), abs, 1).data_producer
    assert not internals.task(("a",), abs, 1).data_producer
    assert "_data_producer" in inspect.signature(Task.__init__).parameters


def test_relies_on_cull() -> None:
    graph: Graph = {("a",): internals.data(("a",), 1), ("b",): internals.data(("b",), 2)}
    assert set(internals.needed(graph, [("a",)])) == {("a",)} == set(cull(dict(graph), [("a",)]))


def test_relies_on_priorities_of_layers() -> None:
    graph: Graph = {
        ("score-x", row, 0): internals.data(("score-x", row, 0), row) for row in range(3)
    }
    layers = internals.in_raster_order(graph, 0).layers.values()
    assert all(isinstance(layer, MaterializedLayer) for layer in layers)
    assert {layer.annotations["priority"]: {key[1] for key in layer} for layer in layers} == {
        0: {0}, -1: {1}, -2: {2},
    }  # fmt: skip


def test_relies_on_the_clients_timeout(cluster: Client) -> None:
    before = cluster._timeout
    internals.allow_reconnection(cluster, 77)
    assert cluster._timeout == 77
    internals.allow_reconnection(cluster, before)
    assert "self._timeout" in inspect.getsource(Client._reconnect)


def test_relies_on_the_start_of_subprocess_workers(cluster: Client) -> None:
    assert inspect.iscoroutinefunction(SubprocessWorker._start)
    assert {"worker_class", "worker_kwargs", "scheduler"} <= set(
        inspect.getsource(SubprocessWorker.__init__).replace("self.", " ").split()
    )
    found = cluster.run(dask.config.get, "distributed.worker.profile.interval")
    assert set(found.values()) == {"100ms"}


def test_relies_on_the_place_where_lost_workers_are_given_up() -> None:
    assert SpecCluster.__bases__ == (Cluster,)
    giving_up = inspect.getsource(SpecCluster._update_worker_status)
    assert "super()._update_worker_status(op, msg)" in giving_up
    assert "lost-worker-timeout" in giving_up
    assert inspect.getsource(inspect.getmodule(SpecCluster)).count("lost-worker-timeout") == 1
    assert "lost-worker-timeout" not in inspect.getsource(Cluster)
