"""A scheduler that is lost: how it shows, and what is said of it."""

from __future__ import annotations

from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from distributed.comm.core import CommClosedError

from uniadrs_scale.errors import ClusterError
from uniadrs_scale.runtime.cluster import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client, Future


UNREACHABLE = (OSError, CancelledError, UnboundLocalError)
"""What a client raises that has lost its scheduler. The last is a slip of Dask: a call that was
waiting when the client closed has no result to return."""
CUT = object()
"""In place of a result: it is not known, since the scheduler was lost."""


def outcome(future: Future[Any]) -> object:
    """What a task returned or raised, or CUT.

    Never what ``Future.exception`` says of other than failed tasks: None, also of cancelled ones,
    which would then count as done.
    """
    if future.status == "error":
        return future.exception()
    try:
        return future.result()
    except CancelledError as error:
        if getattr(error, "reason", "") == "scheduler-connection-lost":
            return CUT
        return ClusterError(f"Somebody cancelled a task of this run ({error}).")
    except UNREACHABLE:
        return CUT  # it could not be fetched
    except Exception as error:  # noqa: BLE001 - it has failed since: whatever a task raises
        return error


def scheduler_lost(address: str) -> ClusterError:
    """The sentence that ends a run."""
    return ClusterError(
        f"The scheduler at {address} is gone, or could not be reached for {PATIENCE_SECONDS} s. "
        "What is complete is kept: run the same command with a scheduler that runs, and it resumes."
    )


@contextmanager
def answering(client: Client) -> Iterator[None]:
    """That the client's scheduler does not answer is one sentence, whatever it was asked inside.

    Raises:
        ClusterError: It does not.
    """
    address = str(client.scheduler_info(n_workers=0)["address"])
    try:
        yield
    except OSError as error:
        if isinstance(error, CommClosedError) or "trying to connect to" in str(error):
            raise scheduler_lost(address) from error
        raise
