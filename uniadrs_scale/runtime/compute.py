"""Who computes: this process, a cluster started here, or one that already runs."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distributed import Client

from uniadrs_scale.errors import PlanError
from uniadrs_scale.runtime.cluster import (
    active_client,
    await_workers,
    connect,
    local_cluster,
    share_of_machine,
    smallest_limit,
)
from uniadrs_scale.runtime.executor import ClusterExecutor, LocalExecutor
from uniadrs_scale.runtime.lost import answering

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uniadrs_scale.runtime.executor import Executor


MOST_THREADS = 8
"""Of a worker with a GPU. What is not the network (decoding, scaling, blending, writing) took a
core 0.13 s/Mpx (4 bands, uint16), where a fast GPU would need about 0.01 s, by the network's FLOPs:
two threads would starve it. More than eight would queue for the interpreter (not measured), and
each holds a chunk."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Who computes: how many processes, with how many threads each."""

    workers: int
    threads: int
    gpus: tuple[str, ...] = ()
    """GPUs of this machine, one a process in turn; none: processes use the CPU."""
    in_lines: bool = True
    """Whether chunks come line by line, as on every cluster; in this process Dask's order holds."""

    @classmethod
    def of(
        cls, scheduler: str | None, workers: int | None = None, gpus: tuple[str, ...] = ()
    ) -> Resources:
        """What ``scheduler`` (see :func:`executor`) has or will be given.

        On this machine: one process a core with one thread, or one a GPU with its share of the
        cores, from 2 to ``MOST_THREADS``.

        Raises:
            PlanError: ``workers`` is not positive, or the scheduler does not answer.
        """
        if workers is not None and workers < 1:
            raise PlanError(f"workers={workers}: at least 1 is needed.")
        if scheduler is None and active_client() is None:
            cores = os.cpu_count() or 1
            processes = workers or len(gpus) or cores
            share = min(max(cores // processes, 2), MOST_THREADS)
            return cls(processes, share if gpus else 1, gpus)
        with executor(scheduler, cls(0, 0)) as tasks:
            return cls(*tasks.size(), gpus, in_lines=tasks.client is not None)


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
        yield LocalExecutor(scheduler)
    elif scheduler is None and (client := active_client()) is not None:
        with answering(client):
            yield ClusterExecutor(client)
    elif scheduler is None:
        with local_cluster(resources) as cluster, Client(cluster) as client:
            await_workers(client, resources.workers)
            with answering(client):
                yield ClusterExecutor(client)
    elif "://" in scheduler:
        with connect(scheduler) as client, answering(client):
            yield ClusterExecutor(client)
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
