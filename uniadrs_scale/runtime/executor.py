"""Executors: run tasks in this process, or on the workers of a cluster."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from dask import config as dask_config
from dask.callbacks import Callback, add_callbacks
from dask.local import get_sync
from dask.threaded import get as get_threaded

from uniadrs_scale.core.compiled import cpu_kind
from uniadrs_scale.core.machine import Later, usable_cores
from uniadrs_scale.core.memory import keep_freed_memory
from uniadrs_scale.runtime.dask_internals import (
    CUT,
    forget_inherited_threads,
    in_raster_order,
    needed,
    outcome,
)
from uniadrs_scale.runtime.worker import UnfitWorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client, Future

    from uniadrs_scale.core.contracts import Scorer
    from uniadrs_scale.runtime import clients, cluster
    from uniadrs_scale.runtime.dask_internals import Graph, Key
else:
    clients = Later("uniadrs_scale.runtime.clients")
    cluster = Later("uniadrs_scale.runtime.cluster")


TOPIC = "uniadrs-scale"
POLL_SECONDS = 0.05
"""Time between checks of a waiting run that its scheduler still exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """The scheduler that a run used, and what happened to its workers."""

    scheduler: str
    """``sync``, ``threads`` or an address."""
    deaths: int = 0
    """Workers that were lost without having been told to leave."""
    retries: int = 0
    """Tasks that had to run again because of that."""
    dismissed: tuple[str, ...] = ()
    """Workers that joined later and were sent away, with the reason."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "scheduler": self.scheduler,
            "worker_deaths": self.deaths,
            "retries": self.retries,
            "dismissed": list(self.dismissed),
        }


class LocalExecutor:
    """This process, in one thread or in several: by default one per core."""

    def __init__(self, scheduler: str, threads: int | None = None) -> None:
        forget_inherited_threads()
        keep_freed_memory()
        self.scheduler = scheduler
        """``sync`` or ``threads``."""
        self.threads = threads
        self.threads_here = 1 if scheduler == "sync" else threads or usable_cores()

    def facts(self) -> ClusterFacts:
        """Return the scheduler: without workers, no deaths have to be reported."""
        return ClusterFacts(scheduler=self.scheduler)

    def cpu_kinds(self) -> set[str]:
        """Return the kind of this process."""
        return {cpu_kind()}

    def require_fit(self, scorer: Scorer, *, tile: int, bands: int) -> None:
        """Do nothing: the scorer was made in this process."""

    def compute(
        self,
        graph: Graph,
        wanted: list[Key],
        on_result: Callable[[object], None] = lambda _: None,
        *,
        line_axis: int = 0,
    ) -> list[object]:
        """Return the results of the tasks ``wanted``, in that order; raise the first exception.

        Dask's own order of chunks holds, which has no priorities.
        """
        del line_axis
        keys, options = set(wanted), dict[str, Any]()
        get = get_sync if self.scheduler == "sync" else get_threaded
        if self.threads is not None and self.scheduler != "sync":
            options["num_workers"] = self.threads

        def report(key: Key, value: object, *_: object) -> None:
            if key in keys:
                on_result(value)

        told = None, None, None, report, None
        if Callback.active:  # the caller's, such as Dask's progress bar, which is told as well
            with add_callbacks(told):
                return list(get(graph, wanted, **options))
        # Active ones are global: of two runs in threads, one would not hear of its tasks.
        return list(get(graph, wanted, callbacks=[told], **options))


class ClusterExecutor:
    """The workers of a cluster. Failures are results, not exceptions."""

    client: Client
    threads_here = 1
    """Threads of this process that compute."""

    def __init__(self, client: Client, wait: float | None = None) -> None:
        self.client, self.wait = client, wait
        self._dismissed: dict[str, str] = {}
        self._names: set[str] = set()
        self._address = str(client.scheduler_info(n_workers=0)["address"])
        client.log_event(TOPIC, {"action": "begin", "who": id(self)})

    def cpu_kinds(self) -> set[str]:
        """Ask the workers."""
        return {str(kind) for kind in self.client.run(cpu_kind, on_error="ignore").values()}

    def require_fit(self, scorer: Scorer, *, tile: int, bands: int) -> None:
        """Raise ClusterError if a worker has other versions, or cannot score a batch of noise."""
        cluster.require_fit(self.client, scorer, tile=tile, bands=bands)

    def facts(self) -> ClusterFacts:
        """Ask the scheduler, if it still answers."""
        try:
            gone = [event for event in self._events() if not event.get("expected")]
        except OSError:
            gone = []  # the scheduler has just ended
        rerun = [
            key
            for event in gone
            for key in {*event["processing-tasks"], *event["lost-computed-tasks"]}
            if key and key[0] in self._names
        ]
        return ClusterFacts(
            scheduler=self._address,
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
        """Return the results of the tasks ``wanted``, in that order.

        Tasks that a lost scheduler or an unfit worker leaves open are submitted again. A lost task
        leaves its exception in place of its result.

        Args:
            graph: The tasks.
            wanted: Names of the tasks whose results are returned.
            on_result: Called with each result as it arrives.
            line_axis: Chunks are taken line by line along it: see :attr:`Lattice.line_axis`.
        """
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
            # Released before the next submission, or they would still be failed. Future.retry does
            # not help: it raises at failed tasks in between that have no future.
            del futures, future
            if again:
                self._await_scheduler()
            left = again
        return [results[key] for key in wanted]

    def _events(self) -> list[dict[str, Any]]:
        """Return the workers that left since this executor was made, as the scheduler noted it."""
        marks = self.client.get_events(TOPIC)
        # By the scheduler's clock, which need not be ours.
        begun = max((t for t, mark in marks if mark.get("who") == id(self)), default=0.0)
        noted = self.client.get_events("all")
        return [e for t, e in noted if t >= begun and e.get("action") == "remove-worker"]

    def _await_scheduler(self) -> None:
        """Wait until the client has found a scheduler; raise ClusterError if it gave up."""
        while self.client.status == "connecting":
            time.sleep(POLL_SECONDS)
        if self.client.status != "running":
            raise clients.scheduler_lost(self._address)

    def _submit(self, graph: Graph, wanted: list[Key], line_axis: int) -> list[Future[Any]]:
        """Send the tasks that ``wanted`` need; return the futures of ``wanted``."""
        layers = in_raster_order(needed(graph, wanted), line_axis)
        # The pixels of a scene in memory travel with their tasks: a large graph is normal.
        with dask_config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
            return cast("list[Future[Any]]", self.client.get(layers, wanted, sync=False))

    def _completed(self, futures: list[Future[Any]]) -> Iterator[Future[Any]]:
        """Yield futures as they complete; raise ClusterError if workers stay away too long."""
        # With a loop: without it, it would take that of the default client.
        waiting = clients.as_completed(futures, loop=self.client.loop)
        arrived = threading.Event()
        for future in futures:
            future.add_done_callback(lambda _: arrived.set())
        absence = clients.Absence(self.client, self.wait)
        while not waiting.is_empty():
            batch = waiting.next_batch(block=False)
            yield from batch
            if batch:
                absence.end()
                continue
            absence.check()
            arrived.wait(POLL_SECONDS)
            arrived.clear()

    def _was_unfit(self, error: object) -> bool:
        """Return True if a worker that joined later did not fit; retire it.

        All workers fitted when the run began. An unfit one fails at once, so it would take, and
        lose, most of the tasks. One without this library raises ImportError.
        """
        if not isinstance(error, UnfitWorkerError | ImportError):
            return False
        unfit = {
            who.removeprefix("Worker "): why for who, why in cluster.mismatches(self.client).items()
        }
        if isinstance(error, UnfitWorkerError):
            unfit[error.worker] = error.reason
        self._dismissed |= unfit
        present = sorted(unfit.keys() & cluster.workers_of(self.client).keys())
        if present:
            self.client.retire_workers(present, close_workers=True, remove=True)
        return bool(present) or isinstance(error, UnfitWorkerError)


Executor = LocalExecutor | ClusterExecutor
"""A Dask scheduler that runs independent tasks."""
