"""Repetition of failed requests: limited by time, not by count.

If a cable is cut, a request may fail at once or after half a minute, so a count says little about
how long a failure may last. An answer of a server (404, 403) is never asked for again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

if TYPE_CHECKING:
    from collections.abc import Callable

TRIES = 12
FIRST_PAUSE = 0.5
"""Seconds before the first repetition; then twice as long each time, up to MAX_PAUSE."""
MAX_PAUSE = 15.0
MOST_TRIES = 500
"""Two hours."""
UNKNOWN_SERVER = 1 / 4
"""Fraction of the retry time for a server that has never responded (mistyped URL?), or not since it
used the retry time up: of a thousand requests to a dead server, only the first takes minutes."""
Answer = TypeVar("Answer")


class PassingError(OSError):
    """A request failed for a reason that may pass."""


class RetryTime(NamedTuple):
    """How long a failed request is repeated."""

    seconds: float
    """0: not at all."""
    tries: int
    """Repetitions that take these seconds if each fails at once."""
    pause: float
    """Seconds before the first repetition."""


_known: set[str] = set()
"""Servers that have responded to this process, and have not used the retry time up since."""


def retry_time(server: str = "") -> RetryTime:
    """Return how long requests to ``server`` are repeated: two minutes, or as GDAL's variables say.

    ``GDAL_HTTP_MAX_RETRY`` repetitions, the first after ``GDAL_HTTP_RETRY_DELAY`` seconds, make a
    time; the number of requests in that time differs.
    """
    tries, pause = (
        _number("GDAL_HTTP_MAX_RETRY", TRIES),
        _number("GDAL_HTTP_RETRY_DELAY", FIRST_PAUSE),
    )
    count = min(int(tries), MOST_TRIES)
    seconds = sum(min(pause * 2**k, MAX_PAUSE) for k in range(count))
    return RetryTime(seconds * (1 if server in _known else UNKNOWN_SERVER), count, pause)


def _number(name: str, default: float) -> float:
    try:
        return max(float(os.environ.get(name, default)), 0)
    except ValueError:
        return default


def server_of(uri: str) -> str:
    """Return scheme and host of a URL, without user and password."""
    parts = urlsplit(str(uri))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def answered(server: str) -> None:
    """Note that ``server`` has responded: it gets the whole retry time."""
    _known.add(server)


def failed(server: str) -> None:
    """Note that ``server`` has used the retry time up."""
    _known.discard(server)


def retried(server: str, ask: Callable[[], Answer]) -> Answer:
    """Return the result of ``ask``, called again while it raises a PassingError.

    Raise PassingError if it did until the end of the retry time.
    """
    seconds, _, pause = retry_time(server)
    asking = Retrying(
        retry=retry_if_exception_type(PassingError),
        stop=stop_after_delay(seconds),
        wait=wait_exponential(multiplier=pause, max=MAX_PAUSE),
        reraise=True,
    )
    try:
        answer = asking(ask)
    except PassingError:
        failed(server)
        raise
    answered(server)
    return answer
