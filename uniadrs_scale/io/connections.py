"""How object stores and web servers are reached by obstore: settings, patience, and what to say."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from uniadrs_scale.errors import StoreError, UniadrsScaleError
from uniadrs_scale.io import remote
from uniadrs_scale.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MORE_TRIES = 3
MAX_PAUSE = 15
"""Seconds between two repetitions, at most."""


def obstore_library() -> Any:
    """The module ``obstore``.

    Raises:
        StoreError: It is not installed.
    """
    try:
        import obstore.exceptions  # noqa: PLC0415 - an optional extra
        import obstore.store  # noqa: PLC0415
    except ImportError:
        raise StoreError(
            "Buckets, and Zarr, NetCDF and HDF5 by URL, need the library 'obstore', which is not "
            "installed. Run: pip install 'uniadrs-scale[remote]'"
        ) from None
    return obstore


def bucket_of(uri: str) -> tuple[Any, str]:
    """(obstore's store of a bucket or web server, key in it) of ``uri``."""
    parts = urlsplit(str(uri))
    settings = (remote.s3_endpoint(), *remote.patience())
    if parts.scheme in remote.BUCKETS:
        # Not parsed further: '?' and '#' may be part of a key.
        place, _, key = str(uri).partition("://")[2].partition("/")
        return connect(parts.scheme, place, settings), key.rstrip("/")
    return connect(parts.scheme, parts.netloc, settings), unquote(parts.path).strip("/")


@cache
def connect(scheme: str, place: str, settings: tuple[str, int, float], prefix: str = "") -> Any:
    """One store a process and place; ``settings`` are those of the environment."""
    stores = obstore_library().store
    endpoint, tries, pause = settings
    retry = {
        # Its pauses are drawn from nothing to the full one: more of them make half a minute.
        "max_retries": tries and tries + MORE_TRIES,
        "backoff": {
            "init_backoff": timedelta(seconds=pause),
            "max_backoff": timedelta(seconds=MAX_PAUSE),
            "base": 2,
        },
        "retry_timeout": timedelta(minutes=3),
    }
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=remote.CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=remote.SILENT_SECONDS),
    }
    if scheme == "s3":
        config: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
        if _is_set("AWS_NO_SIGN_REQUEST"):
            config["skip_signature"] = True
        client["allow_http"] = endpoint.startswith("http://")
        return stores.S3Store(
            place, prefix=prefix or None, client_options=client, retry_config=retry, **config
        )
    if scheme == "gs":
        return stores.GCSStore(
            place, prefix=prefix or None, client_options=client, retry_config=retry
        )
    client["allow_http"] = True
    url = f"{scheme}://{place}/{prefix}"
    return stores.HTTPStore.from_url(url, client_options=client, retry_config=retry)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").upper() in ("YES", "TRUE", "ON", "1")


@contextmanager
def translated(verb: str, place: str) -> Iterator[None]:
    """Turns what obstore raises into a StoreError that says what could not be done, and where."""
    try:
        yield
    except UniadrsScaleError:
        raise
    except Exception as error:
        if not (type(error).__module__.startswith("obstore") or isinstance(error, OSError)):
            raise
        text = redact(str(error)).replace("\n", " ")
        raise StoreError(
            f"Cannot {verb} '{place}' ({gist(text)}). Check the bucket's name, access rights and "
            "credentials, and that the server is up; then run the same command: it resumes."
        ) from None


def gist(text: str) -> str:
    """What a server said, without its XML."""
    code = text.partition("<Code>")[2].partition("</Code>")[0]
    message = text.partition("<Message>")[2].partition("</Message>")[0]
    if code or message:
        return f"{code}: {message}".strip(": ").rstrip(".")
    return text[:200].rstrip(". ")


def mark_of(meta: Mapping[str, Any]) -> dict[str, str]:
    """What tells an object from any other: its ETag (S3), its version (Google), or both."""
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}
