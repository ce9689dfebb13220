"""What must not be read by others: passwords, signatures and tokens inside URLs and messages.

A signed URL is a credential. It has to travel to the workers that read the scene, and must appear
nowhere else: not in messages, logs, plans, fingerprints, stores or items.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, unquote, urlsplit

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
SIGNATURES = {"signature", "sig", "x-amz-signature", "x-goog-signature", "x-oss-signature"}
"""Query parameters of which one makes all others, but for VERSIONS, part of a signature."""
VERSIONS = {"versionid", "generation", "snapshot"}
TOKENS = re.compile(r"token|key|secret|passw|auth|credential|signature|^sig$|^sas$", re.IGNORECASE)
LOGGERS = ("rasterio.env", "rasterio._env", "rasterio._err", "rasterio._io",
           "urllib3.connectionpool")  # fmt: skip
"""Loggers of libraries that write whole URLs."""


class Uri(str):
    """A URL as it must be opened, whose ``repr`` (in logs, digests, dataclasses) is harmless."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(stable_uri(self))


def redact(text: str) -> str:
    """``text`` without passwords and query values of URLs, authorisation headers and secrets of
    the environment.

    >>> redact("'https://me:pw@host/a.tif?X-Amz-Signature=abc&x=1' is not there")
    "'https://***@host/a.tif?X-Amz-Signature=***&x=***' is not there"
    """  # noqa: D205 - one sentence
    clean = USERINFO.sub(f"{HIDDEN}@", text)
    clean = QUERY_VALUE.sub(rf"\g<1>{HIDDEN}", clean)
    clean = HEADER.sub(rf"\g<1> {HIDDEN}", clean)
    for name in SECRET_VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= SHORTEST_SECRET:
            clean = clean.replace(value, HIDDEN)
    return clean


def stable_uri(uri: str) -> str:
    """``uri`` for digests and logs: equal when the URL is signed anew, different for other objects.

    What remains of a query is hashed: whatever it holds, it cannot be read.

    >>> stable_uri("https://me:pw@host/a.tif?X-Amz-Date=1&X-Amz-Signature=abc&versionId=7")
    'https://host/a.tif?~5a9453eed5aa'
    >>> stable_uri("/data/a.tif")
    '/data/a.tif'
    """
    if not URL.match(uri):
        return str(uri)
    parts = urlsplit(uri)
    plain = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    signed = any(name.lower() in SIGNATURES for name, _ in pairs)
    kept = [
        (name, value)
        for name, value in pairs
        if name.lower() in VERSIONS or not (signed or TOKENS.search(name))
    ]
    return plain if not kept else f"{plain}?~{hashlib.sha256(repr(kept).encode()).hexdigest()[:12]}"


def public_uri(uri: str) -> str:
    """``uri`` for items and reports: as :func:`stable_uri`, without any query.

    >>> public_uri("https://me:pw@host/a.tif?sig=abc")
    'https://host/a.tif'
    """
    return stable_uri(uri).partition("?~")[0]


def uri_name(uri: str | Path) -> str:
    """The last part of a path or URL, never its query.

    >>> uri_name("https://host/some/a%20b.tif?X-Amz-Signature=abc"), uri_name("s3://bucket/m.zarr/")
    ('a b.tif', 'm.zarr')
    """
    text = str(uri)
    if not URL.match(text):
        return Path(text).name
    parts = urlsplit(text)
    return PurePosixPath(unquote(parts.path)).name or parts.netloc.rpartition("@")[2]


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
