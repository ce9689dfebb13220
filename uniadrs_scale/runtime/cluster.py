"""Clusters: one that is started here, one that already runs, and whether their workers fit."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from dask import config as dask_config
from distributed import Client, Scheduler, Security, default_client
from distributed.deploy.spec import SpecCluster
from distributed.deploy.subprocess import SubprocessWorker
from distributed.protocol import pickle
from distributed.system import memory_limit as machine_memory

from uniadrs_scale.core.contracts import warm_up
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.errors import ClusterError, PlanError
from uniadrs_scale.runtime.worker import PACKAGES, Shared, UnfitWorkerError, difference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uniadrs_scale.core.contracts import Scorer
    from uniadrs_scale.runtime.compute import Resources


PATIENCE_SECONDS = 60
"""How long a run waits for a first or another worker, or for its scheduler to come back."""
CONNECT_SECONDS = 10
NAMED = 3
"""Workers that a message names."""
QUIET = {
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.profile.interval": "100ms",
}
"""How often the processes of a cluster of ours look at themselves, which costs what scores tiles.
By Dask's defaults (20 and 10 ms) two workers, their nannies and the scheduler took a tenth of a
core while they did nothing, by these a thirtieth."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for a connection by TLS; what is None, Dask's own configuration decides."""

    ca_file: Path | None = None
    """The authority that has signed the certificates of scheduler and workers."""
    certificate: Path | None = None
    """The client's own."""
    key: Path | None = None
    """The private key of the certificate, unless that file holds it as well."""

    def __bool__(self) -> bool:
        """True where anything is given."""
        return any((self.ca_file, self.certificate, self.key))

    def security(self) -> Security | None:
        """As Dask takes it.

        Raises:
            PlanError: A file does not exist.
        """
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


@contextmanager
def connected(address: str | None, tls: TlsFiles | None = None) -> Iterator[str | None]:
    """Connect once to the cluster at ``address``; what to pass on as ``scheduler`` meanwhile.

    That is None while the connection is the active client, and ``address`` itself where it is none
    (``sync``, ``threads``, None).

    Raises:
        PlanError: The address does not answer, or TLS files are given for something else.
    """
    if address is None or "://" not in address:
        if tls:
            raise PlanError(
                f"TLS files are for the address of a cluster (tls://host:8786), not for "
                f"scheduler={address!r}. Give --scheduler, or leave them away."
            )
        yield address
        return
    with connect(address, tls) as client, client.as_current():
        yield None


def connect(address: str, tls: TlsFiles | None = None) -> Client:
    """A client of the cluster at ``address``.

    Raises:
        PlanError: It does not answer, or refuses.
    """
    if tls and not address.startswith("tls://"):
        raise PlanError(f"TLS files are given, but scheduler='{address}' is no tls:// address.")
    security = tls.security() if tls else None
    # What it logs as errors, with tracebacks, reaches us as exceptions, and users as sentences.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = Client(address, security=security, set_as_default=False, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        hint = " with certificates of the same authority" if address.startswith("tls") else ""
        raise PlanError(
            f"scheduler='{address}' does not answer: {error}. Check that it runs{hint}."
        ) from None
    # A wrong address is to be named soon, but a scheduler that was there may come back.
    client._timeout = PATIENCE_SECONDS  # noqa: SLF001 - Dask has one setting for both
    return client


def active_client() -> Client | None:
    """The client that this process has made the default, if any."""
    try:
        return cast("Client", default_client())
    except ValueError:
        return None


def workers_of(client: Client) -> dict[str, Any]:
    """What the scheduler knows of its workers, by address."""
    return cast("dict[str, Any]", client.scheduler_info(n_workers=-1).get("workers", {}))


@dataclass(frozen=True, slots=True)
class _Proof:
    """A scorer, and the tiles that a worker must be able to score with it."""

    scorer: Scorer
    tile: int
    bands: int

    def prepare(self) -> None:
        """Score one batch of noise, whatever the scene's statistics will be."""
        noise = BandStatistics(count=1, mean=np.zeros(self.bands), scatter=np.eye(self.bands))
        warm_up(self.scorer.fitted(noise), self.tile, self.bands)


def require_fit(client: Client, scorer: Scorer, *, tile: int, bands: int) -> None:
    """Every worker has the driver's versions, opens ``scorer`` and has scored a batch with it.

    Workers that join later are checked when they open their first task.

    Args:
        client: Of the cluster.
        scorer: What the run will score with.
        tile: Side of its tiles [px].
        bands: Their bands.

    Raises:
        ClusterError: One does not; the message names it, and what to do.
    """
    faults = mismatches(client)
    if not faults:
        payload = pickle.dumps(Shared(_Proof(scorer, tile, bands)))
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
    """Workers, and the scheduler, with other versions than this process, and where they differ.

    Asked through Dask itself, which answers without any code of this library.
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
    """Open a scorer on a worker; empty, or why it cannot be."""
    try:
        shared: Shared[object] = pickle.loads(payload)
        _ = shared.value
    except UnfitWorkerError as error:
        return error.reason
    return ""


def share_of_machine(workers: int) -> tuple[int, str]:
    """(bytes of each of ``workers`` processes on this machine, where that comes from)."""
    machine = machine_memory()
    named = f"{workers} worker{'s' if workers > 1 else ''}"
    return machine // workers, f"{machine / 2**30:.1f} GiB of this machine for {named}"


def smallest_limit(client: Client) -> tuple[int, str]:
    """(bytes that each worker of a cluster may take, where that comes from); 0 for no limit."""
    limits = {a: w["memory_limit"] for a, w in workers_of(client).items() if w["memory_limit"]}
    if not limits:
        return 0, ""
    address = min(limits, key=lambda name: limits[name])
    # Above this share Dask pauses a worker, and with all of them paused nothing moves.
    share = float(dask_config.get("distributed.worker.memory.pause") or 1)
    whole = limits[address] / 2**30
    return int(share * limits[address]), f"{share:.0%} of the {whole:.1f} GiB of {address}"


def await_workers(client: Client, workers: int) -> None:
    """Wait until ``workers`` are there.

    Raises:
        ClusterError: They do not come.
    """
    try:
        client.wait_for_workers(workers, timeout=PATIENCE_SECONDS)
    except TimeoutError:
        raise ClusterError(
            f"{workers} worker processes did not start within {PATIENCE_SECONDS} s on this "
            "machine. Read their log above, or use fewer workers."
        ) from None


def local_cluster(resources: Resources) -> SpecCluster:
    """Workers in processes of their own, on the loopback interface.

    Not LocalCluster: it spawns workers by importing the user's script again, which then must have
    a ``__main__`` guard; and it cannot give each worker its own GPU.
    """
    workers = {
        index: {
            "cls": _QuietWorker,
            "options": {"worker_kwargs": _worker_options(index, resources)},
        }
        for index in range(resources.workers)
    }
    scheduler = {
        "cls": Scheduler,
        # Port 0, also for the status page: whoever else runs Dask here keeps 8787.
        "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"},
    }
    with dask_config.set(QUIET):  # of the scheduler, which lives in this process
        return SpecCluster(
            workers=workers, scheduler=scheduler, name="uniadrs-scale", silence_logs=40
        )


class _QuietWorker(SubprocessWorker):
    """A worker, and its nanny, by QUIET: the base has no way to hand settings on."""

    async def _start(self) -> None:
        what = json.dumps({"cls": self.worker_class, "opts": self.worker_kwargs})
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dask", "spec", self.scheduler, "--spec", what,
            env=os.environ | {"DASK_INTERNAL_INHERIT_CONFIG": dask_config.serialize(QUIET)},
        )  # fmt: skip


def _worker_options(index: int, resources: Resources) -> dict[str, Any]:
    options: dict[str, Any] = {
        "host": "127.0.0.1",
        "name": index,
        "nthreads": resources.threads,
        # Dask would give each a share by its threads: one worker of sixteen cores, a sixteenth.
        "memory_limit": machine_memory() // resources.workers,
        "silence_logs": 40,
        "death_timeout": 60,
        "dashboard": False,
    }
    if resources.gpus:
        options["env"] = {"CUDA_VISIBLE_DEVICES": resources.gpus[index % len(resources.gpus)]}
    return options
