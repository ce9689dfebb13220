"""The private parts of Dask that this library relies on, and nothing else.

Each has a test that says *relies on* (tests/test_dask_internals.py): a new release of Dask that
changes one fails there, by name.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections import defaultdict
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, cast

from dask import config
from dask._task_spec import DataNode, GraphNode, Task, TaskRef, cull
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import SpecCluster
from distributed.deploy.subprocess import SubprocessWorker

from uniadrs_scale.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from distributed import Client, Future


Key = tuple[str | int, ...]
"""Name of a task: a string that all tasks of its kind in a run share, then its chunk's place."""
Graph = dict["Key", GraphNode]
CHUNK_KEY = 3
"""Parts of the name of a task of a chunk: its kind, then row and column."""
SHARED = -1
"""Line of all other tasks."""
QUIET = {
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.profile.interval": "100ms",
}
"""How often the processes of a cluster started here look at themselves, which takes time from
scoring. With Dask's defaults (20 and 10 ms) two workers, their nannies and the scheduler used a
tenth of a core while idle, with these a thirtieth."""


def data(key: Key, value: object) -> GraphNode:
    """Return a task that is a value."""
    return DataNode(key, value)


def task(key: Key, function: Callable[..., object], *arguments: object) -> GraphNode:
    """Return a task that calls ``function``."""
    return Task(key, function, *arguments)


def producer(key: Key, function: Callable[..., object], *arguments: object) -> GraphNode:
    """Return a task that goes to an idle worker, wherever its inputs are.

    Without the mark, all tasks of a scene of few chunks per worker follow the shared value to the
    one worker that has it.
    """
    return Task(key, function, *arguments, _data_producer=True)


def result_of(key: Key) -> object:
    """Return a reference to the result of a task, for the arguments of another one."""
    return TaskRef(key)


def needed(graph: Graph, wanted: Collection[Key]) -> Graph:
    """Return the tasks of ``graph`` that ``wanted`` need."""
    return cast("Graph", cull(cast("dict[Any, Any]", graph), list(wanted)))


def in_raster_order(graph: Graph, line_axis: int) -> HighLevelGraph:
    """Return ``graph`` with priorities: chunks come line by line (see :attr:`Lattice.line_axis`).

    A chunk's strips wait for neighbours of its own line and the next. Dask's order knows no
    geometry: it lets the strips of a row and of a column of chunks wait at a time. (Layers instead
    of a plain dict, because Dask hashes a dict first, which takes longer than all the rest.)
    """
    lines: defaultdict[int, Graph] = defaultdict(dict)
    for key, node in graph.items():
        line = cast("tuple[int, int]", key[1:])[line_axis] if len(key) == CHUNK_KEY else SHARED
        lines[line][key] = node
    layers = {
        f"{min(lines[line])}": MaterializedLayer(lines[line], {"priority": -line})
        for line in sorted(lines)
    }
    names = list(layers)
    return HighLevelGraph(layers, {name: set(names[:n]) for n, name in enumerate(names)})


def allow_reconnection(client: Client, seconds: float) -> None:
    """Let ``client`` look for a lost scheduler for so long; Dask has one setting for both waits."""
    vars(client)["_timeout"] = seconds


class QuietWorker(SubprocessWorker):
    """A worker and its nanny, with the settings of QUIET: the base class cannot pass settings."""

    async def _start(self) -> None:
        what = json.dumps({"cls": self.worker_class, "opts": self.worker_kwargs})
        command = [sys.executable, "-m", "dask", "spec", self.scheduler, "--spec", what]
        environment = os.environ | {"DASK_INTERNAL_INHERIT_CONFIG": config.serialize(QUIET)}
        self.process = await asyncio.create_subprocess_exec(*command, env=environment)


class LastingCluster(SpecCluster):
    """A cluster whose lost workers are restarted by their nannies, however long that takes.

    The base class kills the nanny if its worker is absent 15 s after a loss: during a slow restart,
    or because the next worker has been lost as well. No log then says why the run has no worker.
    """

    def __init__(self, **options: Any) -> None:
        SpecCluster.__init__(self, **options)

    def _update_worker_status(self, op: str, msg: Any) -> None:
        Cluster._update_worker_status(self, op, msg)  # noqa: SLF001 - omits that of the base class


def scales_by_itself(client: Client) -> bool:
    """Return True if the cluster object of ``client`` starts workers when there is work."""
    return getattr(client.cluster, "_adaptive", None) is not None


def is_inherited(client: Client) -> bool:
    """Return True if ``client`` is that of the parent of a forked process.

    A fork has the client's memory, but not the thread of its loop: a call would never return.
    """
    runs_in = getattr(cast("Any", client.loop).asyncio_loop, "_thread_id", None)
    return runs_in is not None and runs_in not in {t.ident for t in threading.enumerate()}


UNREACHABLE = (OSError, CancelledError, UnboundLocalError)
"""Errors of a client that has lost its scheduler. The last is a bug in Dask: a call that is waiting
when the client closes has no result to return."""
CUT = object()
"""Stands for a result that is unknown, because the scheduler was lost."""


def outcome(future: Future[Any]) -> object:
    """Return what a task returned or raised, or CUT.

    ``Future.exception`` must not decide this: it is None for cancelled tasks too, which would then
    count as done.
    """
    if future.status == "error":
        return future.exception()
    try:
        return future.result()
    except CancelledError as error:
        if getattr(error, "reason", "") == "scheduler-connection-lost":
            return CUT
        return ClusterError(f"A task of this run was cancelled from outside ({error}).")
    except UNREACHABLE:
        return CUT  # the result could not be fetched
    except Exception as error:  # noqa: BLE001 - a task may raise anything
        return error
