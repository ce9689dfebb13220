"""Who computes: this process, a cluster started here, or one that already runs."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from dask import config as dask_config
from dask._task_spec import cull
from dask.callbacks import Callback
from dask.highlevelgraph import HighLevelGraph
from dask.local import get_sync
from dask.threaded import get as get_threaded
from distributed import Client, Future, as_completed, performance_report

from uniadrs_scale.errors import ClusterError, PlanError
from uniadrs_scale.graph.cluster import (
    PATIENCE_SECONDS,
    active_client,
    await_workers,
    connect,
    local_cluster,
    mismatches,
    share_of_machine,
    smallest_limit,
    workers_of,
)
from uniadrs_scale.graph.lost import CUT, UNREACHABLE, answering, outcome, scheduler_lost
from uniadrs_scale.graph.shared import UnfitWorkerError, process_peak
from uniadrs_scale.report import ClusterFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dask._task_spec import GraphNode

Key = tuple[str | int, ...]
"""Name of a task: a string that all tasks of its kind in a run share, and where its chunk is."""
Graph = dict["Key", "GraphNode"]
TOPIC = "uniadrs-scale"
ASK_SECONDS = 1.0
"""How often a waiting run asks whether there are workers; each time costs the scheduler work."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Who computes: how many processes, with how many threads each."""

    workers: int
    threads: int
    gpus: tuple[str, ...] = ()
    """GPUs of this machine, one a process in turn; none: processes use the CPU."""

    @classmethod
    def of(
        cls, scheduler: str | None, workers: int | None = None, gpus: tuple[str, ...] = ()
    ) -> Resources:
        """What ``scheduler`` (see :func:`executor`) has or will be given.

        On this machine: one process a core, or one a GPU, with a thread to read while the other
        infers.

        Raises:
            PlanError: ``workers`` is not positive, or the scheduler does not answer.
        """
        if workers is not None and workers < 1:
            raise PlanError(f"workers={workers}: at least 1 is needed.")
        cores = os.cpu_count() or 1
        if scheduler == "sync":
            return cls(1, 1, gpus)
        if scheduler == "threads":
            return cls(1, cores, gpus)
        if scheduler is None and active_client() is None:
            return cls(workers or len(gpus) or cores, 2 if gpus else 1, gpus)
        with executor(scheduler, cls(0, 0)) as cluster:
            return cls(*cluster.size(), gpus)


class Executor:
    """Runs independent tasks on one Dask scheduler; failures are results, not exceptions."""

    def __init__(self, client: Client | None, scheduler: str) -> None:
        self.client = client
        self.scheduler = scheduler
        self.peaks: dict[str, int] = {}
        """Highest resident set of each worker that said so, in bytes."""
        self._dismissed: dict[str, str] = {}
        self._names: set[str] = set()
        self._address = ""
        if client is not None:
            self._address = str(client.scheduler_info(n_workers=0)["address"])
            client.log_event(TOPIC, {"action": "begin", "who": id(self)})

    def size(self) -> tuple[int, int]:
        """(workers, most threads a worker) of the cluster at this moment."""
        workers = self._workers()
        return max(len(workers), 1), max((w["nthreads"] for w in workers.values()), default=1)

    def facts(self) -> ClusterFacts:
        """Who has computed, and what became of them since this executor was made."""
        if self.client is None:
            return ClusterFacts(scheduler=self.scheduler, peaks={"this process": process_peak()})
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

    def _events(self) -> list[dict[str, Any]]:
        """Workers that have gone since this executor was made, as the scheduler noted it."""
        assert self.client is not None  # noqa: S101 - for the type checker
        marks = self.client.get_events(TOPIC)
        # By the scheduler's clock, which need not be ours.
        begun = max((t for t, mark in marks if mark.get("who") == id(self)), default=0.0)
        noted = self.client.get_events("all")
        return [e for t, e in noted if t >= begun and e.get("action") == "remove-worker"]

    def _workers(self) -> dict[str, Any]:
        return workers_of(self.client) if self.client else {}

    def compute(
        self, graph: Graph, wanted: list[Key], on_result: Callable[[object], None] = lambda _: None
    ) -> list[object]:
        """Results of the tasks ``wanted``, in that order; ``on_result`` sees each as it comes.

        On a cluster a lost task leaves its exception in place of its result; in this process an
        exception is raised, as nobody else could go on.
        """
        if self.client is None:
            keys, get = set(wanted), get_sync if self.scheduler == "sync" else get_threaded

            def report(key: Key, value: object, *_: object) -> None:
                if key in keys:
                    on_result(value)

            with Callback(posttask=report):
                return list(get(graph, wanted))
        self._names |= {str(key[0]) for key in graph}
        results: dict[Key, object] = {}
        left = wanted
        while left:
            again: list[Key] = []
            futures = self._submit(graph, left)
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

    def _await_scheduler(self) -> None:
        """Return when the client has found its scheduler again, or another one in its place.

        Raises:
            ClusterError: It gave up.
        """
        assert self.client is not None  # noqa: S101 - compute() has seen to it
        while self.client.status == "connecting":
            time.sleep(0.05)
        if self.client.status != "running":
            raise scheduler_lost(self._address)

    def _submit(self, graph: Graph, wanted: list[Key]) -> list[Future[Any]]:
        """Futures of ``wanted``; sends what they need of ``graph``."""
        assert self.client is not None  # noqa: S101 - compute() has seen to it
        # In one layer: a plain dict would be hashed first, which takes longer than all the rest.
        name = str(wanted[0])
        layer = HighLevelGraph({name: cull(cast("dict[Any, Any]", graph), wanted)}, {name: set()})
        # The pixels of a scene in memory travel with their tasks: no reason to warn the user.
        with dask_config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
            return cast("list[Future[Any]]", self.client.get(layer, wanted, sync=False))

    def _completed(self, futures: list[Future[Any]]) -> Iterator[Future[Any]]:
        """Futures as they complete; raises where nobody is left who could complete them."""
        assert self.client is not None  # noqa: S101 - compute() has seen to it
        # With a loop: it would take the default client's, and ours need not be that.
        waiting = as_completed(futures, loop=self.client.loop)
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
            time.sleep(0.05)

    def _has_workers(self) -> bool:
        """True where the scheduler has one; of a thousand, it need not tell."""
        assert self.client is not None  # noqa: S101 - compute() has seen to it
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
        assert self.client is not None  # noqa: S101 - for the type checker
        unfit = {who.removeprefix("Worker "): why for who, why in mismatches(self.client).items()}
        if isinstance(error, UnfitWorkerError):
            unfit[error.worker] = error.reason
        self._dismissed |= unfit
        present = [address for address in unfit if address in self._workers()]
        if present:
            self.client.retire_workers(present, close_workers=True, remove=True)
        return bool(present) or isinstance(error, UnfitWorkerError)

    @contextmanager
    def reported(self, path: Path | None) -> Iterator[None]:
        """Dask's performance report of what is done inside, as a page at ``path``, if wanted.

        Raises:
            PlanError: There is no scheduler to ask, or it has no bokeh.
        """
        if path is None:
            yield
            return
        _require_reportable(self.client, path)
        assert self.client is not None  # noqa: S101 - _require_reportable has seen to it
        with self.client.as_current(), performance_report(filename=str(path)):
            yield


def _require_reportable(client: Client | None, path: Path) -> None:
    """Refuse a performance report that could not be written, before anything is computed."""
    if client is None:
        raise PlanError(
            "A performance report is made by a cluster: scheduler 'sync' and 'threads' have none. "
            "Leave --scheduler or --performance-report away."
        )
    told = cast("dict[str, Any]", client.get_versions(packages=["bokeh"]))
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


@contextmanager
def executor(scheduler: str | None, resources: Resources) -> Iterator[Executor]:
    """An executor for ``scheduler``.

    Args:
        scheduler: None for the active client, or else a cluster on this machine; ``sync`` or
            ``threads`` for this process; an address such as ``tcp://host:8786`` for a cluster.
        resources: Size of a cluster that has to be started.

    Raises:
        PlanError: The scheduler is unknown or does not answer.
    """
    if scheduler in ("sync", "threads"):
        yield Executor(None, scheduler)
    elif scheduler is None and (client := active_client()) is not None:
        with answering(client):
            yield Executor(client, "")
    elif scheduler is None:
        with local_cluster(resources) as cluster, Client(cluster) as client:
            await_workers(client, resources.workers)
            with answering(client):
                yield Executor(client, "")
    elif "://" in scheduler:
        with connect(scheduler) as client, answering(client):
            yield Executor(client, "")
    else:
        raise PlanError(
            f"scheduler='{scheduler}' is unknown. Use sync, threads or an address (tcp://...)."
        )


def memory_limit(scheduler: str | None, resources: Resources) -> tuple[int, str]:
    """(bytes that a worker of ``scheduler`` may take, where that comes from); 0 for no limit.

    Nothing is started: the workers of a cluster that would be are to share this machine.

    Raises:
        PlanError: The scheduler is unknown or does not answer.
    """
    if scheduler is None and active_client() is None:
        return share_of_machine(resources.workers)
    with executor(scheduler, resources) as tasks:
        return share_of_machine(1) if tasks.client is None else smallest_limit(tasks.client)
