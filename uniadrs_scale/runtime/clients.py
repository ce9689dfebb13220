"""Clients of running clusters: the active one, or one that is made for an address."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

from distributed import Client, default_client

from uniadrs_scale.errors import PlanError
from uniadrs_scale.runtime.cluster import WAIT_SECONDS
from uniadrs_scale.runtime.dask_internals import allow_reconnection, is_inherited

if TYPE_CHECKING:
    from uniadrs_scale.runtime.cluster import TlsFiles


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
