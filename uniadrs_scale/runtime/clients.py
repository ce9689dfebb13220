"""Clients of running clusters: the active one or one for an address, and the wait for workers."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from distributed import Client, as_completed, default_client, performance_report
from distributed.comm.core import CommClosedError

from uniadrs_scale.errors import ClusterError, PlanError
from uniadrs_scale.runtime.cluster import WAIT_SECONDS
from uniadrs_scale.runtime.dask_internals import (
    UNREACHABLE,
    allow_reconnection,
    is_inherited,
    scales_by_itself,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uniadrs_scale.runtime.cluster import TlsFiles

__all__ = ["Absence", "Client", "active_client", "as_completed", "connect", "performance_report"]

LOG = logging.getLogger("uniadrs_scale")
CONNECT_SECONDS = 10


def connect(address: str, tls: TlsFiles | None) -> Client:
    """Return a client of the cluster at ``address``.

    Raises:
        PlanError: It does not answer, or refuses.
    """
    security = tls.security() if tls else None
    # Dask logs errors with tracebacks; they reach callers as exceptions, and users as sentences.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = Client(address, security=security, set_as_default=False, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        hint = " with certificates of the same authority" if address.startswith("tls") else ""
        raise PlanError(
            f"scheduler='{address}' does not answer: {error}. Check that it runs{hint}."
        ) from None
    # A wrong address should fail soon, but a scheduler that has answered may come back.
    allow_reconnection(client, WAIT_SECONDS)
    return client


def active_client() -> Client | None:
    """Return the default client of this process, None without one.

    A client that was inherited through a fork is not used: its connection is the parent's.

    Raises:
        PlanError: It is asynchronous.
    """
    try:
        client = cast("Client", default_client())
    except ValueError:
        return None
    if is_inherited(client):
        LOG.warning(
            "the active Dask client belongs to the process that this one was forked from, "
            "and is not used: create a Client in this process"
        )
        return None
    if client.asynchronous:
        raise PlanError(
            "The active Dask client is asynchronous, and a run in its event loop would wait for "
            "itself. Make the Client without asynchronous=True, or call in a thread: "
            "await asyncio.to_thread(us.score, scene)."
        )
    return client


def scheduler_lost(address: str) -> ClusterError:
    """Return the error that ends a run without a scheduler."""
    return ClusterError(
        f"Lost the scheduler at {address} (no response for {WAIT_SECONDS} s). Completed chunks are "
        "kept: start a scheduler and rerun the same command."
    )


@contextmanager
def answering(client: Client) -> Iterator[None]:
    """Turn a lost connection to the scheduler into one sentence, whatever the client was doing.

    Raises:
        ClusterError: The scheduler does not answer.
    """
    address = str(client.scheduler_info(n_workers=0)["address"])
    try:
        yield
    except OSError as error:
        if isinstance(error, CommClosedError) or "trying to connect to" in str(error):
            raise scheduler_lost(address) from error
        raise


ASK_SECONDS = 1.0
"""Time between checks that there are workers; each costs the scheduler work."""
QUEUE_SECONDS = 86_400
"""How long a cluster that starts workers for waiting tasks may have none: jobs wait in a queue."""


class Absence:
    """A time without workers and without results.

    Args:
        client: A client of the cluster.
        seconds: The longest absence. By default a minute, or a day if the cluster object starts
            its workers when there is work, as batch systems do.
    """

    def __init__(self, client: Client, seconds: float | None) -> None:
        self.client = client
        usual = QUEUE_SECONDS if scales_by_itself(client) else WAIT_SECONDS
        self.limit = usual if seconds is None else seconds
        self.begun = self.asked = time.monotonic()
        self.told = self.limit <= WAIT_SECONDS

    def end(self) -> None:
        """Note that a result has arrived."""
        self.begun = time.monotonic()

    def check(self) -> None:
        """Ask for workers now and then. Raise ClusterError if there have been none for too long."""
        now = time.monotonic()
        if now - self.asked > ASK_SECONDS:
            self.asked = now
            if self._has_workers():
                self.begun = now
        if now - self.begun > self.limit:
            raise ClusterError(
                f"The cluster has had no worker for {self.limit:.0f} s: they ended, or never "
                "started. Read their log, then rerun the same command: it resumes. If they wait in "
                "a queue, wait longer (wait_for_workers=, --wait-for-workers)."
            )
        if now - self.begun > WAIT_SECONDS and not self.told:
            self.told = True
            LOG.warning("the cluster has no worker: waiting for up to %.0f s", self.limit)

    def _has_workers(self) -> bool:
        """Return True if there is a worker; the scheduler lists one of a thousand only."""
        try:
            return bool(self.client.scheduler_info(n_workers=1)["workers"])
        except UNREACHABLE:
            return False  # the caller meets the same error
