"""Who computes: this process, a cluster started here, or one that already runs."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil
from dask import config as dask_config
from dask.callbacks import Callback
from dask.highlevelgraph import HighLevelGraph
from dask.local import get_sync
from dask.threaded import get as get_threaded
from distributed import Client, Future, Scheduler, as_completed, default_client
from distributed.deploy.spec import SpecCluster
from distributed.deploy.subprocess import SubprocessWorker

from uniadrs_scale.errors import ClusterError, PlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dask._task_spec import GraphNode

Key = tuple[str | int, ...]
"""Name of a task: a string that all tasks of its kind in a run share, and where its chunk is."""
Graph = dict["Key", "GraphNode"]

PATIENCE_SECONDS = 60
"""How long a run waits for a first or another worker."""


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

    def size(self) -> tuple[int, int]:
        """(workers, most threads a worker) of the cluster at this moment."""
        workers = self._workers()
        return max(len(workers), 1), max((w["nthreads"] for w in workers.values()), default=1)

    def peak_memory(self) -> int:
        """Highest resident set that any worker process has had, in bytes."""
        if self.client is None:
            return process_peak()
        return max(self.client.run(process_peak).values(), default=0)

    def _workers(self) -> dict[str, Any]:
        info = self.client.scheduler_info(n_workers=-1) if self.client else {}
        return cast("dict[str, Any]", info.get("workers", {}))

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
        # In one layer: a plain dict would be hashed first, which takes longer than all the rest.
        layer = HighLevelGraph({str(wanted[0]): graph}, {str(wanted[0]): set()})
        # The pixels of a scene in memory travel with their tasks: no reason to warn the user.
        with dask_config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
            futures = self.client.get(layer, wanted, sync=False)
        order = {future.key: position for position, future in enumerate(futures)}
        results: list[object] = [None] * len(wanted)
        # Futures, never a bare compute: one lost task must not cost the others.
        for future in self._completed(futures):
            result = future.result() if future.status == "finished" else future.exception()
            results[order[future.key]] = result
            on_result(result)
        return results

    def _completed(self, futures: list[Future[Any]]) -> Iterator[Future[Any]]:
        """Futures as they complete; raises where nobody is left who could complete them."""
        waiting, last_seen = as_completed(futures), time.monotonic()
        while not waiting.is_empty():
            batch = waiting.next_batch(block=False)
            yield from batch
            if batch or self._workers():
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > PATIENCE_SECONDS:
                raise ClusterError(
                    f"The cluster has had no worker for {PATIENCE_SECONDS} s: they died, or never "
                    "came. Read their log, then run the same command: it resumes."
                )
            if not batch:
                time.sleep(0.05)


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
        yield Executor(client, "")
    elif scheduler is None:
        with _local_cluster(resources) as cluster, Client(cluster) as client:
            _await_workers(client, resources.workers)
            yield Executor(client, "")
    elif "://" in scheduler:
        try:
            client = Client(scheduler, set_as_default=False, timeout=10)
        except (OSError, ValueError) as error:
            raise PlanError(
                f"scheduler='{scheduler}' does not answer: {error}. Check that it runs."
            ) from None
        with client:
            yield Executor(client, "")
    else:
        raise PlanError(
            f"scheduler='{scheduler}' is unknown. Use sync, threads or an address (tcp://...)."
        )


def process_peak() -> int:
    """Highest resident set that this process has had, in bytes."""
    try:
        # Not getrusage: there, a child begins with the peak of the process that started it.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) << 10
    except (OSError, IndexError):
        # Elsewhere than on Linux: what it has now.
        return int(psutil.Process().memory_info().rss)


def active_client() -> Client | None:
    """The client that this process has made the default, if any."""
    try:
        return cast("Client", default_client())
    except ValueError:
        return None


def _await_workers(client: Client, workers: int) -> None:
    try:
        client.wait_for_workers(workers, timeout=PATIENCE_SECONDS)
    except TimeoutError:
        raise ClusterError(
            f"{workers} worker processes did not start within {PATIENCE_SECONDS} s on this "
            "machine. Read their log above, or use fewer workers."
        ) from None


def _local_cluster(resources: Resources) -> SpecCluster:
    """Workers in processes of their own, on the loopback interface.

    Not LocalCluster: it spawns workers by importing the user's script again, which then must have
    a ``__main__`` guard; and it cannot give each worker its own GPU.
    """
    workers = {
        index: {
            "cls": SubprocessWorker,
            "options": {"worker_kwargs": _worker_options(index, resources)},
        }
        for index in range(resources.workers)
    }
    scheduler = {
        "cls": Scheduler,
        # Port 0, also for the status page: whoever else runs Dask here keeps 8787.
        "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"},
    }
    return SpecCluster(workers=workers, scheduler=scheduler, name="uniadrs-scale", silence_logs=40)


def _worker_options(index: int, resources: Resources) -> dict[str, Any]:
    options: dict[str, Any] = {
        "host": "127.0.0.1",
        "name": index,
        "nthreads": resources.threads,
        "silence_logs": 40,
        "death_timeout": 60,
        "dashboard": False,
    }
    if resources.gpus:
        options["env"] = {"CUDA_VISIBLE_DEVICES": resources.gpus[index % len(resources.gpus)]}
    return options
