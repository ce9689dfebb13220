"""Exceptions that a caller can act on, messages without secrets, and warnings that are hidden.

Every message says what was met, where, which rule it breaks and what to do. Each class is also a
``ValueError`` or an ``OSError``, so that ``except ValueError`` in a user's script keeps working.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import warnings
from contextlib import suppress
from typing import Any

HIDDEN = "***"
URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://")
USERINFO = re.compile(r"(?<=://)[^/\s?#'\"]+@")
QUERY_VALUE = re.compile(r"([?&][\w.~%-]+=)[^&\s'\"<>)\]]+")
HEADER = re.compile(r"\b(Bearer|Basic|AWS4-HMAC-SHA256)\s+[\w+/=.~:,-]+", re.IGNORECASE)
SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
                    "AWS_SECRET", "GS_SECRET_ACCESS_KEY", "GOOGLE_SERVICE_ACCOUNT_KEY",
                    "GDAL_HTTP_USERPWD", "GDAL_HTTP_HEADERS", "GDAL_HTTP_BEARER")  # fmt: skip
SHORTEST_SECRET = 6
"""Characters; a shorter value would be found in innocent words."""
LONGEST = 300
"""Characters of another library's error in a message."""
LOGGERS = ("rasterio.env", "rasterio._env", "rasterio._err", "rasterio._io",
           "urllib3.connectionpool")  # fmt: skip
"""Loggers of libraries that write whole URLs."""


def redact(text: str) -> str:
    """Return ``text`` without secrets: those of URLs, of headers and of the environment.

    >>> redact("'https://me:pw@host/a.tif?X-Amz-Signature=abc&x=1' is not there")
    "'https://***@host/a.tif?X-Amz-Signature=***&x=***' is not there"
    """
    clean = USERINFO.sub(f"{HIDDEN}@", text)
    clean = QUERY_VALUE.sub(rf"\g<1>{HIDDEN}", clean)
    clean = HEADER.sub(rf"\g<1> {HIDDEN}", clean)
    for name in SECRET_VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= SHORTEST_SECRET:
            clean = clean.replace(value, HIDDEN)
    return clean


def gist(error: object) -> str:
    r"""Return the first line of another library's error, without secrets and the final dot.

    >>> gist(ValueError("no such file.\nTraceback ...")), gist(KeyError())
    ('no such file', 'KeyError')
    """
    text = ""
    with suppress(Exception):  # whatever its own __str__ raises
        said = str(error)
        if isinstance(error, BaseException) and "See previous exception" in said:  # rasterio's
            said = str(error.__cause__ or error)
        text = redact(said).strip()
    line = (text or type(error).__name__).splitlines()[0][:LONGEST].rstrip(". ")
    # It may quote bytes of a file that a terminal takes for commands.
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def counted(number: int, name: str) -> str:
    """Return a number of things.

    >>> counted(1, "target"), counted(2, "target"), counted(0, "process")
    ('1 target', '2 targets', '0 processes')
    """
    plural = "es" if name.endswith("s") else "s"
    return f"{number} {name}{'' if number == 1 else plural}"


class _Redacting(logging.Filter):
    """Writes a library's messages without secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


def redact_logs() -> None:
    """From now on, libraries that log URLs log them without secrets."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, _Redacting) for known in logger.filters):
            logger.addFilter(_Redacting())


class Quiet:
    """A context in which warnings of another library are ignored, in any number of threads.

    ``warnings.catch_warnings`` puts the filters of the whole process back as they were. Of two
    threads in it at a time, the second puts back what the first has left, and a warning comes
    through.

    Args:
        category: Class of the warnings.
        message: Start of their text.
    """

    def __init__(self, category: type[Warning], message: str) -> None:
        # The comment makes the filter differ from any filter that the user has set.
        self._pattern = f"(?#uniadrs_scale){re.escape(message)}"
        self._category = category
        self._inside = 0
        self._lock = threading.Lock()
        self._filter: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._filter not in warnings.filters:
                warnings.filterwarnings("ignore", self._pattern, self._category)
                self._filter = warnings.filters[0]

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                # Another thread may have put back a list of filters without it.
                with suppress(ValueError):
                    warnings.filters.remove(self._filter)  # type: ignore[attr-defined] # a list


class UniadrsScaleError(Exception):
    """Base of everything this library raises on purpose.

    Messages quote what libraries say, and these quote URLs: passwords and signatures are left out.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact(arg) if isinstance(arg, str) else arg for arg in args))


class SceneError(UniadrsScaleError, ValueError):
    """The scene cannot be read, or its parts do not fit together."""


class PlanError(UniadrsScaleError, ValueError):
    """The requested tiles, chunks or memory contradict each other or the scene."""


class WeightsError(UniadrsScaleError, ValueError):
    """The weights file is missing, corrupt or made for another network."""


class ClusterError(UniadrsScaleError, OSError):
    """The Dask cluster cannot do the work: no worker is left, or one has other versions."""


class StoreError(UniadrsScaleError, OSError):
    """The output cannot be written, or belongs to another run."""


class TrustError(SceneError, StoreError):
    """A file from elsewhere would run code, or a remote one names files of this machine."""


class ArchiveError(UniadrsScaleError, ValueError):
    """The description of an archive, or its source, cannot be used."""


class BusyError(UniadrsScaleError, OSError):
    """Another sweep writes to this sink."""


class PlaceWarning(UserWarning):
    """A map is complete, but some of its pixels, or all, have no place on the ground."""
