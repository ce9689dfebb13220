"""Clusters: start or reach one, check its workers, and notice its loss."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from dask import config as dask_config
from distributed import Scheduler, Security
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import SpecCluster
from distributed.deploy.subprocess import SubprocessWorker
from distributed.protocol import pickle

from uniadrs_scale.core.contracts import warm_up
from uniadrs_scale.core.machine import give_home, machine_memory
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.errors import ClusterError, PlanError, gist
from uniadrs_scale.runtime.worker import PACKAGES, Shared, UnfitWorkerError, difference

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

    from uniadrs_scale.core.contracts import Scorer

WAIT_SECONDS = 60
"""How long a run waits for a first or another worker, or for a lost scheduler."""
START_SECONDS = 300
"""Seconds for one process to start, on a machine however busy: Dask starts it once only, and then
never again. Meanwhile the others compute."""
NAMED = 3
"""Number of workers that a message names."""


QUIET = {"distributed.admin.tick.interval": "1s", "distributed.worker.profile.interval": "100ms"}
"""How often the processes of a cluster started here look at themselves, which takes time from
scoring. With Dask's defaults (20 and 10 ms) two workers, their nannies and the scheduler used a
tenth of a core while idle, with these a thirtieth."""


class QuietWorker(SubprocessWorker):
    """A worker and its nanny, with the settings of QUIET: the base class cannot pass settings."""

    async def _start(self) -> None:
        what = json.dumps({"cls": self.worker_class, "opts": self.worker_kwargs})
        command = [sys.executable, "-m", "dask", "spec", self.scheduler, "--spec", what]
        environment = os.environ | {"DASK_INTERNAL_INHERIT_CONFIG": dask_config.serialize(QUIET)}
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


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for a connection by TLS; Dask's own configuration decides those that are None."""

    ca_file: Path | None = None
    """Certificate of the authority that signed those of scheduler and workers."""
    certificate: Path | None = None
    """Certificate of the client."""
    key: Path | None = None
    """Private key of the certificate, unless that file holds it as well."""

    def __bool__(self) -> bool:
        """Return True if any file is given."""
        return any((self.ca_file, self.certificate, self.key))

    def security(self) -> Security | None:
        """Return the same for Dask. Raise PlanError if a file does not exist."""
        given = {
            "tls_ca_file": self.ca_file,
            "tls_client_cert": self.certificate,
            "tls_client_key": self.key,
        }
        for file in given.values():
            if file is not None and not file.is_file():
                raise PlanError(f"TLS file '{file}' does not exist. Check the path.")
        if not self:
            return None
        files = {name: str(file) for name, file in given.items() if file is not None}
        return Security(require_encryption=True, **files)


def workers_of(client: Client) -> dict[str, Any]:
    """Return what the scheduler knows about its workers, by address."""
    return cast("dict[str, Any]", client.scheduler_info(n_workers=-1).get("workers", {}))


def size_of(client: Client) -> tuple[int, int]:
    """Return (workers, most threads per worker); an empty cluster counts as one of one."""
    workers = workers_of(client)
    return max(len(workers), 1), max((w["nthreads"] for w in workers.values()), default=1)


@dataclass(frozen=True, slots=True)
class Proof:
    """A scorer, and the tiles that a worker must be able to score with it."""

    scorer: Scorer
    tile: int
    bands: int

    def prepare(self) -> None:
        """Score one batch of noise, whatever the scene's statistics will be."""
        noise = BandStatistics(count=1, mean=np.zeros(self.bands), scatter=np.eye(self.bands))
        warm_up(self.scorer.fitted(noise), self.tile, self.bands)


def require_fit(client: Client, scorer: Scorer, *, tile: int, bands: int) -> None:
    """Let every worker compare versions, open ``scorer`` and score a batch with it.

    Workers that join later do so when they open their first task.

    Args:
        client: A client of the cluster.
        scorer: The scorer of the run.
        tile: Side of its tiles [px].
        bands: Their number of bands.

    Raises:
        ClusterError: A worker does not fit; the message names it, and what to do.
    """
    faults = mismatches(client)
    if not faults:
        payload = pickle.dumps(Shared(Proof(scorer, tile, bands)))
        answers = client.run(_open, payload)
        faults = {f"Worker {address}": reason for address, reason in answers.items() if reason}
    if faults:
        named = "; ".join(f"{who} {why}" for who, why in list(faults.items())[:NAMED])
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise ClusterError(
            f"{named}{more}. Every worker needs what this process has: install the same versions "
            "there (pip freeze here, pip install there), give weights by a path that all of them "
            "see, or start this process in the workers' environment."
        )


def mismatches(client: Client) -> dict[str, str]:
    """Return workers (and the scheduler) with other versions than this process, and the difference.

    Dask itself answers, without any code of this library.
    """
    told = cast("dict[str, Any]", client.get_versions(packages=list(PACKAGES)))
    expected = _packages(told["client"])
    answers = {f"Worker {address}": facts for address, facts in told["workers"].items()}
    if told["scheduler"]:
        answers["The scheduler"] = told["scheduler"]
    found = {
        who: difference(expected, _packages(facts))
        for who, facts in answers.items()
        if isinstance(facts, dict)
    }
    return {who: reason for who, reason in found.items() if reason}


def _packages(facts: dict[str, Any]) -> dict[str, str | None]:
    return {name: facts["packages"].get(name) for name in ("python", *PACKAGES)}


def _open(payload: bytes) -> str:
    """Open a scorer on a worker; return the reason if that fails, else an empty text."""
    try:
        shared: Shared[object] = pickle.loads(payload)
        shared.open()
    except UnfitWorkerError as error:
        return error.reason
    return ""


def smallest_limit(client: Client) -> tuple[int, str]:
    """Return the bytes that each worker may take (0 for no limit), and their origin."""
    limits = {a: w["memory_limit"] for a, w in workers_of(client).items() if w["memory_limit"]}
    if not limits:
        return 0, ""
    address = min(limits, key=lambda name: limits[name])
    # Above this share Dask pauses a worker.
    share = float(dask_config.get("distributed.worker.memory.pause") or 1)
    whole = limits[address] / 2**30
    return int(share * limits[address]), f"{share:.0%} of the {whole:.1f} GiB of {address}"


def await_workers(client: Client, workers: int) -> None:
    """Wait until so many ``workers`` have started. Raise ClusterError if they do not start."""
    try:
        client.wait_for_workers(workers, timeout=WAIT_SECONDS)
    except TimeoutError:
        raise ClusterError(
            f"{workers} worker processes did not start within {WAIT_SECONDS} s on this "
            "machine. Read their log above, or use fewer workers."
        ) from None


def local_cluster(workers: int, threads: int, gpus: tuple[str, ...] = ()) -> LastingCluster:
    """Start workers in processes of their own, on the loopback interface.

    Not a LocalCluster: it spawns workers by importing the user's script again, which then needs a
    ``__main__`` guard; and it cannot give each worker its own GPU.

    Raises:
        PlanError: Dask's settings or this machine forbid it.
    """
    give_home()
    processes = {
        index: {
            "cls": QuietWorker,
            "options": {"worker_kwargs": _worker_options(index, workers, threads, gpus)},
        }
        for index in range(workers)
    }
    scheduler = {
        "cls": Scheduler,
        # Port 0, also for the status page: 8787 stays free for others.
        "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"},
    }
    options = {"name": "uniadrs-scale", "silence_logs": 40}
    try:
        with dask_config.set(QUIET):  # for the scheduler, which runs in this process
            return LastingCluster(workers=processes, scheduler=scheduler, **options)
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        cause: BaseException = error
        while cause.__cause__ or cause.__context__:
            cause = cause.__cause__ or cause.__context__ or cause
        raise PlanError(
            f"Workers cannot be started on this machine ({gist(cause)}). Dask's own settings may "
            "forbid it (require-encryption, temporary-directory: DASK_... variables and "
            "~/.config/dask). Correct them, or use scheduler='sync'."
        ) from error


def _worker_options(
    index: int, workers: int, threads: int, gpus: tuple[str, ...]
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "host": "127.0.0.1",
        "name": index,
        "nthreads": threads,
        # Dask divides by threads: it would give one worker of sixteen cores a sixteenth.
        "memory_limit": machine_memory() // workers,
        "silence_logs": 40,
        "death_timeout": START_SECONDS,
        "dashboard": False,
    }
    if gpus:
        options["env"] = {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]}
    return options
