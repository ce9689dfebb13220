"""The private parts of Dask that this library relies on; those of its clusters: :mod:`.cluster`.

Each has a test that says *relies on* (tests/test_dask_internals.py): a new release of Dask that
changes one fails there, by name.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, cast

from dask import threaded
from dask._task_spec import DataNode, GraphNode, Task, TaskRef, cull
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

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


def scales_by_itself(client: Client) -> bool:
    """Return True if the cluster object of ``client`` starts workers when there is work."""
    return getattr(client.cluster, "_adaptive", None) is not None


def is_inherited(client: Client) -> bool:
    """Return True if ``client`` is that of the parent of a forked process.

    A fork has the client's memory, but not the thread of its loop: a call would never return.
    """
    runs_in = getattr(cast("Any", client.loop).asyncio_loop, "_thread_id", None)
    return runs_in is not None and runs_in not in {t.ident for t in threading.enumerate()}


def forget_inherited_threads() -> None:
    """Forget Dask's pools of threads in a forked process, so that Dask makes new ones.

    A fork has the memory of a pool, but not its threads: a task would wait forever.
    """
    # Lists, because other threads may add their pools meanwhile.
    kept = [pool for own in list(threaded.pools.values()) for pool in list(own.values())]
    pools = [threaded.default_pool, *kept]
    known = {thread for pool in pools for thread in getattr(pool, "_threads", ())}
    if known and not any(thread.is_alive() for thread in known):
        with threaded.pools_lock:
            threaded.default_pool = None
            threaded.pools.clear()


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
        return ClusterError(f"A task of this run was cancelled from outside ({error}). Rerun it.")
    except UNREACHABLE:
        return CUT  # the result could not be fetched
    except Exception as error:  # noqa: BLE001 - a task may raise anything
        return error
