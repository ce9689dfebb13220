"""How long a server that fails is asked again: for a time, not for a number of times.

Where a cable is cut a request may fail at once or after half a minute, so a number of them says
little about how long a failure may last. What a server answers (404, 403) is never asked again.
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
STRANGERS = 1 / 4
"""Share of the patience for a server that has not answered yet, which may be a slip of the pen, or
not since it used the patience up: of a thousand requests to one that is gone, only the first takes
minutes."""
Answer = TypeVar("Answer")


class PassingError(OSError):
    """A request failed for a reason that may pass."""


class Patience(NamedTuple):
    """How long a failed request is repeated."""

    seconds: float
    """0: not at all."""
    tries: int
    """Repetitions that make these seconds where each fails at once."""
    pause: float
    """Seconds before the first repetition."""


_known: set[str] = set()
"""Servers that have answered this process, and have not used up its patience since."""


def patience(server: str = "") -> Patience:
    """For requests to ``server``, see :func:`server_of`: as GDAL's variables say, or two minutes.

    ``GDAL_HTTP_MAX_RETRY`` repetitions, the first after ``GDAL_HTTP_RETRY_DELAY`` seconds, make a
    time; how often a server can be asked in it is another matter.
    """
    tries, pause = (
        _named("GDAL_HTTP_MAX_RETRY", TRIES),
        _named("GDAL_HTTP_RETRY_DELAY", FIRST_PAUSE),
    )
    count = min(int(tries), MOST_TRIES)
    seconds = sum(min(pause * 2**k, MAX_PAUSE) for k in range(count))
    return Patience(seconds * (1 if server in _known else STRANGERS), count, pause)


def _named(name: str, default: float) -> float:
    try:
        return max(float(os.environ.get(name, default)), 0)
    except ValueError:
        return default


def server_of(uri: str) -> str:
    """What a URL's server is called here: without user and password."""
    parts = urlsplit(str(uri))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def answered(server: str) -> None:
    """A server that answers is worth the whole patience."""
    _known.add(server)


def failed(server: str) -> None:
    """Patience with ``server`` has been used up."""
    _known.discard(server)


def patiently(server: str, ask: Callable[[], Answer]) -> Answer:
    """What ``ask`` returns, asked again while it raises a PassingError.

    Raises:
        PassingError: It did until the end.
    """
    seconds, _, pause = patience(server)
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
