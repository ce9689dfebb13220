"""The choice of processes: this one, a cluster started here, or a running cluster."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from uniadrs_scale.core.arguments import real, whole
from uniadrs_scale.core.machine import LOCAL, Later, machine_memory, usable_cores
from uniadrs_scale.errors import PlanError, counted
from uniadrs_scale.runtime.executor import ClusterExecutor, LocalExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client

    from uniadrs_scale.runtime import clients, cluster
    from uniadrs_scale.runtime.cluster import TlsFiles
    from uniadrs_scale.runtime.executor import Executor
else:
    clients = Later("uniadrs_scale.runtime.clients")
    cluster = Later("uniadrs_scale.runtime.cluster")


MAX_THREADS = 8
"""Threads of a worker with a GPU. All but the network (decoding, scaling, blending, writing) took a
core 0.13 s/Mpx (4 bands, uint16), and a fast GPU needs about 0.01 s, by the network's FLOPs: two
threads would leave it idle. More than eight would queue for the interpreter (not measured), and
each holds a chunk."""
SECONDS_PER_MPX = 2.0
"""Seconds of a core per million pixels that the default network sees; measured: 1.2.
Other scorers are taken for as slow."""
START_SECONDS = 4.0
"""Seconds until workers have started and imported what they need."""
LONG_SECONDS = 60.0
"""Length of a run from which on workers are worth their start anyway: they are restarted if they
crash or need too much memory, and this process is not."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compute:
    """The processes that compute, decided once: see :meth:`of`. Nothing is started before use."""

    workers: int
    threads: int
    """Threads per worker."""
    scheduler: str | None = None
    """``sync``, ``threads`` or an address; None for a cluster of this machine, or ``client``."""
    gpus: tuple[str, ...] = ()
    """GPUs of this machine, one per process in turn; empty if processes use the CPU."""
    tls: TlsFiles | None = None
    client: Client | None = None
    """An open connection, which stays open."""
    limit: tuple[int, str] | None = None
    """Memory per worker of a running cluster, in bytes, and its origin; None on this machine."""
    open_choice: bool = False
    """True if the caller named no processes, so that :meth:`suited` may choose this one."""
    why: str = ""
    """The processes and the reason for them, in words."""
    wait: float | None = None
    """Seconds to wait for a first or another worker; None: see :class:`.Absence`."""

    @classmethod
    def of(
        cls,
        scheduler: str | None = None,
        workers: int | None = None,
        *,
        gpus: tuple[str, ...] = (),
        tls: TlsFiles | None = None,
        wait: float | None = None,
    ) -> Compute:
        """Return what ``scheduler`` stands for.

        Args:
            scheduler: None for the active Dask client, or else a cluster on this machine; ``sync``
                or ``threads`` for this process; an address such as ``tcp://host:8786``.
            workers: Processes of a cluster on this machine. By default one per GPU, each with 2 to
                ``MAX_THREADS`` threads, or one per core with one thread.
            gpus: GPUs of this machine to share among the workers.
            tls: For an address with ``tls://``.
            wait: Seconds that a running cluster may be without workers. By default a minute, or a
                day if the cluster object starts its workers when there is work.

        Raises:
            PlanError: ``workers`` or ``wait`` is not positive, or the scheduler is unknown or does
                not answer.
        """
        workers = None if workers is None else whole("workers", workers, 1)
        if wait is not None and not 0 < real("wait_for_workers", wait) < float("inf"):
            raise PlanError(f"wait_for_workers={wait}: a number of seconds above 0 is needed.")
        if tls and not (scheduler or "").startswith("tls://"):
            raise PlanError(
                f"TLS files require a tls:// scheduler address, got scheduler={scheduler!r}. "
                "Pass --scheduler tls://host:8786, or drop the TLS options."
            )
        if workers and scheduler is not None:
            raise PlanError(
                f"workers={workers} is for processes that are started on this machine, got "
                f"scheduler='{scheduler}'. Drop one of them."
            )
        if wait is not None and scheduler in LOCAL:
            raise PlanError(
                f"wait_for_workers is for clusters, got scheduler='{scheduler}'. Drop it."
            )
        cores = usable_cores()
        if scheduler in LOCAL:
            threads = 1 if scheduler == "sync" else cores
            why = f"this process, {counted(threads, 'thread')}, as asked for"
            return cls(workers=1, threads=threads, scheduler=scheduler, gpus=gpus, why=why)
        if not (scheduler is None or (isinstance(scheduler, str) and "://" in scheduler)):
            raise PlanError(
                f"scheduler='{scheduler}' is unknown. Use sync, threads or an address (tcp://...); "
                "without it, the active Dask client computes."
            )
        if scheduler is not None:
            with clients.connect(scheduler, tls) as client, clients.answering(client):
                known = cls._on(client)
                return replace(known, client=None, scheduler=scheduler, tls=tls, wait=wait)
        if (active := active_client()) is not None:
            with clients.answering(active):
                return replace(cls._on(active), wait=wait)
        processes = workers or len(gpus) or cores
        share = min(max(cores // processes, 2), MAX_THREADS)
        named = f"{counted(processes, 'worker process')} of this machine"
        reason = "as asked for" if workers else "one per GPU" if gpus else "one per core"
        return cls(
            workers=processes,
            threads=share if gpus else 1,
            gpus=gpus,
            open_choice=not gpus and not workers,
            why=f"{named}, {reason}",
        )

    @classmethod
    def _on(cls, client: Client) -> Compute:
        workers, threads = cluster.size_of(client)
        limit = cluster.smallest_limit(client)
        why = f"{counted(workers, 'worker process')} of a running cluster"
        return cls(workers=workers, threads=threads, client=client, limit=limit, why=why)

    def here(self) -> Compute:
        """Return the threads of this process, as many as there are cores, up to a limit."""
        return Compute(
            workers=1, threads=min(usable_cores(), MAX_THREADS), scheduler="threads", why=""
        )

    def suited(self, here: Compute, pixels: int, peak: int) -> Compute:
        """Return ``here``, the threads of this process, if they are faster than these workers.

        On two cores a scene of 1024 px took 4.1 s in threads and 8.9 s with workers, one of 3000 px
        7.5 and 11.7 s, and one of 10,980 px 51.6 s (0.97 GiB) and 53.2 s (2.2 GiB). See
        `benchmarks/README.md`.

        Args:
            here: The threads of this process.
            pixels: Pixels that the scorer sees.
            peak: Forecast of this process with these threads, in bytes.
        """
        if not self.open_choice:
            return self
        work = pixels / 1e6 * SECONDS_PER_MPX
        alone, together = work / here.threads, START_SECONDS + work / self.workers
        limit, _ = here.memory_limit
        if 2 * peak > limit:
            return replace(self, why=f"{self.why}: Dask limits their memory, which is scarce")
        if alone > LONG_SECONDS:
            return replace(self, why=f"{self.why}: a crash costs a long run only its chunk")
        if alone > together:
            return replace(self, why=f"{self.why}: there is enough work for all cores")
        words = f"this process, {counted(here.threads, 'thread')}: workers take longer to start"
        return replace(here, why=words)

    @property
    def in_process(self) -> bool:
        """True if this process computes."""
        return self.scheduler in LOCAL

    def require_workers(self, use: str) -> None:
        """Raise PlanError if this process computes, without the workers that ``use`` needs."""
        if self.in_process:
            raise PlanError(
                f"{use} requires worker processes, got scheduler='{self.scheduler}'. Pass "
                "--workers 2 (workers=2) or the address of a cluster, or drop the report."
            )

    @property
    def is_own(self) -> bool:
        """True if the workers are started here, and end with the executor."""
        return self.scheduler is None and self.client is None

    @property
    def memory_limit(self) -> tuple[int, str]:
        """Bytes that a worker may take (0 for no limit), and the origin of this limit."""
        if self.limit:
            return self.limit
        workers, machine = 1 if self.in_process else self.workers, machine_memory()
        named = f"{workers} worker{'s' if workers > 1 else ''}"
        return machine // workers, f"{machine / 2**30:.1f} GiB of this machine for {named}"

    @contextmanager
    def connected(self) -> Iterator[Compute]:
        """Start or reach the workers, and keep them for all executors that are opened inside."""
        if self.in_process or self.client is not None:
            yield self
        elif self.scheduler is not None:
            with clients.connect(self.scheduler, self.tls) as client, client.as_current():
                yield replace(self._on(client), wait=self.wait)
        else:
            started = cluster.local_cluster(self.workers, self.threads, self.gpus)
            with started as running, clients.Client(running) as client:
                cluster.await_workers(client, self.workers)
                yield replace(self, client=client)

    @contextmanager
    def open(self) -> Iterator[Executor]:
        """Start or reach the workers: an executor of tasks.

        Raises:
            PlanError: The scheduler does not answer.
            ClusterError: Workers do not start, or the scheduler is lost.
        """
        with self.connected() as there:
            if there.client is None:
                yield LocalExecutor(str(self.scheduler), self.threads)
                return
            with clients.answering(there.client):
                yield ClusterExecutor(there.client, self.wait)


def active_client() -> Client | None:
    """Return Dask's active client; without its library there cannot be one."""
    return clients.active_client() if "distributed" in sys.modules else None


@contextmanager
def performance_page(executor: Executor, path: Path | None) -> Iterator[None]:
    """Write Dask's performance report of the block as a page at ``path``, if one is given.

    Raises:
        PlanError: The scheduler lacks bokeh, or the folder is missing.
    """
    if path is None:
        yield
        return
    client = cast("ClusterExecutor", executor).client
    told = cast("dict[str, Any]", client.get_versions(packages=["bokeh"]))
    if told["scheduler"]["packages"].get("bokeh") is None or find_spec("bokeh") is None:
        raise PlanError(
            "A performance report needs bokeh in this process and in the scheduler's. "
            "Install it: pip install 'uniadrs-scale[report]'."
        )
    if not path.absolute().parent.is_dir():
        raise PlanError(
            f"Folder '{path.absolute().parent}' of the performance report does not exist. "
            "Create it, or choose another one."
        )
    page = clients.performance_report(filename=str(path))
    with client.as_current(), page:
        yield
