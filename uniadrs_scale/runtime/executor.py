"""Has the tasks of a run computed: in this process, or by the workers of a cluster."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from dask import config as dask_config
from dask._task_spec import cull
from dask.callbacks import Callback
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.local import get_sync
from dask.threaded import get as get_threaded
from distributed import as_completed, performance_report

from uniadrs_scale.errors import ClusterError, PlanError
from uniadrs_scale.runtime.cluster import PATIENCE_SECONDS, mismatches, workers_of
from uniadrs_scale.runtime.cpu import cpu_kind
from uniadrs_scale.runtime.lost import CUT, UNREACHABLE, outcome, scheduler_lost
from uniadrs_scale.runtime.worker import UnfitWorkerError, process_peak

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from dask._task_spec import GraphNode
    from distributed import Client, Future

    from uniadrs_scale.runtime.tasks import Index


Key = tuple[str | int, ...]
"""Name of a task: a string that all tasks of its kind in a run share, and where its chunk is."""
Graph = dict["Key", "GraphNode"]
CHUNK_KEY = 3
"""Parts of the name of a task of a chunk: its kind, then row and column."""
SHARED = -1
"""Line of all other tasks."""
TOPIC = "uniadrs-scale"
POLL_SECONDS = 0.05
"""How often a waiting run looks whether the scheduler is still there."""
ASK_SECONDS = 1.0
"""How often a waiting run asks whether there are workers; each time costs the scheduler work."""


def in_raster_order(graph: Graph, line_axis: int) -> HighLevelGraph:
    """``graph`` with a priority: chunks come line by line (see :attr:`Lattice.line_axis`).

    A chunk's strips wait for neighbours of its own line and the next. Dask's order, which knows no
    geometry, has the strips of a row and of a column of chunks wait at a time. (Layers, and not a
    plain dict, which Dask would hash first; that takes longer than all the rest.)
    """
    lines: defaultdict[int, Graph] = defaultdict(dict)
    for key, task in graph.items():
        line = cast("Index", key[1:])[line_axis] if len(key) == CHUNK_KEY else SHARED
        lines[line][key] = task
    layers = {
        f"{min(lines[line])}": MaterializedLayer(lines[line], {"priority": -line})
        for line in sorted(lines)
    }
    names = list(layers)
    return HighLevelGraph(layers, {name: set(names[:n]) for n, name in enumerate(names)})


class Executor(ABC):
    """Runs independent tasks on one Dask scheduler."""

    client: Client | None
    """Of the cluster; None where this process computes."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        """Highest resident set of each worker that said so, in bytes."""

    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(workers, most threads a worker) at this moment."""

    @abstractmethod
    def facts(self) -> ClusterFacts:
        """Who has computed, and what became of them since this executor was made."""

    @abstractmethod
    def cpu_kinds(self) -> set[str]:
        """Return the kinds of CPU that are there at this moment."""

    @abstractmethod
    def compute(
        self,
        graph: Graph,
        wanted: list[Key],
        on_result: Callable[[object], None] = lambda _: None,
        *,
        line_axis: int = 0,
    ) -> list[object]:
        """Results of the tasks ``wanted``, in that order; ``on_result`` sees each as it comes.

        A cluster takes chunks line by line, as ``line_axis`` says; in this process Dask's order
        stays, which takes no priorities.

        On a cluster a lost task leaves its exception in place of its result; in this process an
        exception is raised, as nobody else could go on.
        """

    @abstractmethod
    def reported(self, path: Path | None) -> AbstractContextManager[None]:
        """Dask's performance report of what is done inside, as a page at ``path``, if wanted.

        Raises:
            PlanError: There is no scheduler to ask, or it has no bokeh.
        """


class LocalExecutor(Executor):
    """This process computes, in one thread or in one a core."""

    client = None

    def __init__(self, scheduler: str) -> None:
        super().__init__()
        self.scheduler = scheduler
        """``sync`` or ``threads``."""

    def size(self) -> tuple[int, int]:
        """One worker."""
        return 1, 1 if self.scheduler == "sync" else os.cpu_count() or 1

    def cpu_kinds(self) -> set[str]:
        """Return the kind of this process."""
        return {cpu_kind()}

    def facts(self) -> ClusterFacts:
        """Return the scheduler and the peak: no worker can die here."""
        return ClusterFacts(scheduler=self.scheduler, peaks={"this process": process_peak()})

    def compute(
        self,
        graph: Graph,
        wanted: list[Key],
        on_result: Callable[[object], None] = lambda _: None,
        *,
        line_axis: int = 0,
    ) -> list[object]:
        """Whatever a task raises is raised."""
        del line_axis
        keys, get = set(wanted), get_sync if self.scheduler == "sync" else get_threaded

        def report(key: Key, value: object, *_: object) -> None:
            if key in keys:
                on_result(value)

        with Callback(posttask=report):
            return list(get(graph, wanted))

    @contextmanager
    def reported(self, path: Path | None) -> Iterator[None]:
        """Refused: Dask has a report of clusters only."""
        if path is not None:
            raise PlanError(
                "A performance report is made by a cluster: scheduler 'sync' and 'threads' have "
                "none. Leave --scheduler or --performance-report away."
            )
        yield


class ClusterExecutor(Executor):
    """The workers of a cluster compute; failures are results, not exceptions."""

    client: Client

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client
        self._dismissed: dict[str, str] = {}
        self._names: set[str] = set()
        self._address = str(client.scheduler_info(n_workers=0)["address"])
        client.log_event(TOPIC, {"action": "begin", "who": id(self)})

    def size(self) -> tuple[int, int]:
        """An empty cluster counts as one worker of one thread."""
        workers = workers_of(self.client)
        return max(len(workers), 1), max((w["nthreads"] for w in workers.values()), default=1)

    def cpu_kinds(self) -> set[str]:
        """Ask the workers."""
        return {str(kind) for kind in self.client.run(cpu_kind, on_error="ignore").values()}

    def facts(self) -> ClusterFacts:
        """Ask the scheduler, if it still answers."""
        try:
            gone = [event for event in self._events() if not event.get("expected")]
        except OSError:
            gone = []  # the scheduler has just ended, with all that it knew
        rerun = [
            key
            for event in gone
            for key in {*event["processing-tasks"], *event["lost-computed-tasks"]}
            if key and key[0] in self._names
        ]
        return ClusterFacts(
            scheduler=self._address,
            peaks=dict(self.peaks),
            deaths=len(gone),
            retries=len(rerun),
            dismissed=tuple(f"{who} {why}" for who, why in self._dismissed.items()),
        )

    def compute(
        self,
        graph: Graph,
        wanted: list[Key],
        on_result: Callable[[object], None] = lambda _: None,
        *,
        line_axis: int = 0,
    ) -> list[object]:
        """Asked for again where a scheduler was lost on the way, or a worker did not fit."""
        self._names |= {str(key[0]) for key in graph}
        results: dict[Key, object] = {}
        left = wanted
        while left:
            again: list[Key] = []
            futures = self._submit(graph, left, line_axis)
            # Futures, never a bare compute: one lost task must not cost the others.
            for future in self._completed(futures):
                key, result = cast("Key", future.key), outcome(future)
                if result is CUT or self._was_unfit(result):
                    again.append(key)
                else:
                    results[key] = result
                    on_result(result)
            # Released before they are asked for again, or they would still be failed. Not by
            # Future.retry: it stumbles over failed tasks between that nobody holds a future of.
            del futures, future
            if again:
                self._await_scheduler()
            left = again
        return [results[key] for key in wanted]

    def _events(self) -> list[dict[str, Any]]:
        """Workers that have gone since this executor was made, as the scheduler noted it."""
        marks = self.client.get_events(TOPIC)
        # By the scheduler's clock, which need not be ours.
        begun = max((t for t, mark in marks if mark.get("who") == id(self)), default=0.0)
        noted = self.client.get_events("all")
        return [e for t, e in noted if t >= begun and e.get("action") == "remove-worker"]

    def _await_scheduler(self) -> None:
        """Return when the client has found its scheduler again, or another one in its place.

        Raises:
            ClusterError: It gave up.
        """
        while self.client.status == "connecting":
            time.sleep(POLL_SECONDS)
        if self.client.status != "running":
            raise scheduler_lost(self._address)

    def _submit(self, graph: Graph, wanted: list[Key], line_axis: int) -> list[Future[Any]]:
        """Futures of ``wanted``; sends what they need of ``graph``."""
        needed = cast("Graph", cull(cast("dict[Any, Any]", graph), wanted))
        layers = in_raster_order(needed, line_axis)
        # The pixels of a scene in memory travel with their tasks: no reason to warn the user.
        with dask_config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
            return cast("list[Future[Any]]", self.client.get(layers, wanted, sync=False))

    def _completed(self, futures: list[Future[Any]]) -> Iterator[Future[Any]]:
        """Futures as they complete; raises where nobody is left who could complete them."""
        # With a loop: it would take the default client's, and ours need not be that.
        waiting = as_completed(futures, loop=self.client.loop)
        arrived = threading.Event()
        for future in futures:
            future.add_done_callback(lambda _: arrived.set())
        last_seen = asked = time.monotonic()
        while not waiting.is_empty():
            batch = waiting.next_batch(block=False)
            yield from batch
            if batch:
                last_seen = time.monotonic()
                continue
            if time.monotonic() - asked > ASK_SECONDS:
                asked = time.monotonic()
                if self._has_workers():
                    last_seen = asked
            if time.monotonic() - last_seen > PATIENCE_SECONDS:
                raise ClusterError(
                    f"The cluster has had no worker for {PATIENCE_SECONDS} s: they died, or never "
                    "came. Read their log, then run the same command: it resumes."
                )
            arrived.wait(POLL_SECONDS)
            arrived.clear()

    def _has_workers(self) -> bool:
        """True where the scheduler has one; of a thousand, it need not tell."""
        try:
            return bool(self.client.scheduler_info(n_workers=1)["workers"])
        except UNREACHABLE:
            return False  # compute() will meet that

    def _was_unfit(self, error: object) -> bool:
        """True where a worker that joined later did not fit; it is gone when this returns.

        All were fit when the run began. Such a worker fails at once, so it would take, and lose,
        most of the tasks there are. One without this library cannot even say so.
        """
        if not isinstance(error, UnfitWorkerError | ImportError):
            return False
        unfit = {who.removeprefix("Worker "): why for who, why in mismatches(self.client).items()}
        if isinstance(error, UnfitWorkerError):
            unfit[error.worker] = error.reason
        self._dismissed |= unfit
        present = sorted(unfit.keys() & workers_of(self.client).keys())
        if present:
            self.client.retire_workers(present, close_workers=True, remove=True)
        return bool(present) or isinstance(error, UnfitWorkerError)

    @contextmanager
    def reported(self, path: Path | None) -> Iterator[None]:
        """The page is written when the block ends."""
        if path is None:
            yield
            return
        self._require_reportable(path)
        with self.client.as_current(), performance_report(filename=str(path)):
            yield

    def _require_reportable(self, path: Path) -> None:
        """Refuse a report that could not be written, before anything is computed."""
        told = cast("dict[str, Any]", self.client.get_versions(packages=["bokeh"]))
        if told["scheduler"]["packages"].get("bokeh") is None or find_spec("bokeh") is None:
            raise PlanError(
                "A performance report needs bokeh, where the scheduler runs and here. "
                "Install it: pip install 'uniadrs-scale[report]'."
            )
        if not path.absolute().parent.is_dir():
            raise PlanError(
                f"Folder '{path.absolute().parent}' of the performance report does not exist. "
                "Create it, or choose another."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """Who computed, and what became of them."""

    scheduler: str
    """``sync``, ``threads`` or an address."""
    peaks: Mapping[str, int] = field(default_factory=dict)
    """Highest resident set since its start of each worker that committed a chunk, in bytes."""
    deaths: int = 0
    """Workers that were lost without having been told to leave."""
    retries: int = 0
    """Tasks that had to run again because of that."""
    dismissed: tuple[str, ...] = ()
    """Workers that joined later and were sent away, and why."""

    def to_dict(self, forecast: int) -> dict[str, Any]:
        """Plain values for JSON; ``forecast`` is the plan's, in bytes a worker."""
        highest = max(self.peaks.values(), default=0)
        return {
            "cluster": {
                "scheduler": self.scheduler,
                "worker_deaths": self.deaths,
                "retries": self.retries,
                "dismissed": list(self.dismissed),
            },
            "memory": {"forecast": forecast, "peak": highest, "workers": dict(self.peaks)},
        }
