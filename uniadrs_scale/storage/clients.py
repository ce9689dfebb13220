"""Clients of object stores and web servers through obstore: settings, retry time, messages."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from zarr.storage import ObjectStore

from uniadrs_scale.errors import BusyError, StoreError, UniadrsScaleError, gist, redact
from uniadrs_scale.storage import remote
from uniadrs_scale.storage.retries import (
    MAX_PAUSE,
    RetryTime,
    answered,
    failed,
    retry_time,
    server_of,
)
from uniadrs_scale.storage.trust import Checked
from uniadrs_scale.storage.urls import BUCKETS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

ENOUGH_TRIES = 10_000
"""More than the retry time allows: obstore draws its pauses at random, so only time limits them."""
STORES = 32
"""Clients that a process keeps: each has connections and memory of its own."""


def obstore_library() -> Any:
    """Import the module ``obstore``. Raise StoreError if it is not installed."""
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
    """Return (obstore's store of a bucket or web server, key in it) of ``uri``."""
    parts = urlsplit(str(uri))
    settings = settings_for(str(uri))
    if parts.scheme in BUCKETS:
        # Not parsed further: '?' and '#' may be part of a key.
        place, _, key = str(uri).partition("://")[2].partition("/")
        return connect(parts.scheme, place, settings), key.rstrip("/")
    return connect(parts.scheme, parts.netloc, settings), unquote(parts.path).strip("/")


def settings_for(uri: str) -> tuple[str, RetryTime]:
    """Return the settings for :func:`connect`: of the environment, and the server's retry time."""
    return remote.s3_endpoint(), retry_time(server_of(uri))


@lru_cache(maxsize=STORES)
def connect(scheme: str, place: str, settings: tuple[str, RetryTime], prefix: str = "") -> Any:
    """Return the store of a bucket or server, one per process and ``settings``."""
    stores = obstore_library().store
    endpoint, (seconds, _, pause) = settings
    retry = {
        "max_retries": ENOUGH_TRIES if seconds else 0,
        "backoff": {
            "init_backoff": timedelta(seconds=pause),
            "max_backoff": timedelta(seconds=MAX_PAUSE),
            "base": 2,
        },
        "retry_timeout": timedelta(seconds=seconds),
    }
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=remote.CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=remote.SILENT_SECONDS),
    }
    if scheme == "s3":
        config: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
        if remote.is_set("AWS_NO_SIGN_REQUEST"):
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


@contextmanager
def counted(uri: str) -> Iterator[None]:
    """Note if the server of ``uri``, which obstore asks inside, responds; change no error."""
    server, started = server_of(uri), time.monotonic()
    try:
        yield
    except Exception:
        if time.monotonic() - started >= retry_time(server).seconds:
            failed(server)
        raise
    answered(server)


@contextmanager
def translated(verb: str, uri: str, key: str = "") -> Iterator[None]:
    """Turn an error of obstore into a StoreError that says what could not be done, and where.

    Args:
        verb: The action.
        uri: Bucket, prefix or object.
        key: An object in it, if any.
    """
    try:
        with counted(uri):
            yield
    except UniadrsScaleError:
        raise
    except Exception as error:
        if not (type(error).__module__.startswith("obstore") or isinstance(error, OSError)):
            raise
        place = f"'{key}' in '{uri}'" if key else f"'{uri}'"
        raise StoreError(
            f"Cannot {verb} {place} ({server_gist(error)}). Check the bucket's name, access rights "
            "and credentials, and that the server is up; then run the same command: it resumes."
        ) from None


def server_gist(error: Exception) -> str:
    """Return what a server said, without its XML and without secrets."""
    text = redact(str(error)).replace("\n", " ")  # first: half a secret would not be recognised
    code = text.partition("<Code>")[2].partition("</Code>")[0]
    message = text.partition("<Message>")[2].partition("</Message>")[0]
    return gist(f"{code}: {message}".strip(": ") or text[:200] or error)


def mark_of(meta: Mapping[str, Any]) -> dict[str, str]:
    """Return ETag (S3), version (Google) or both, which tell an object from any other."""
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}


class BucketStore(Checked, ObjectStore[Any]):
    """Zarr's view of a bucket, whose errors are sentences."""

    @contextmanager
    def _said(self, verb: str, key: str) -> Iterator[None]:
        with translated(verb, _url_of(self.store), key):
            yield

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return one object, None if it does not exist."""
        with self._said("read", key):
            return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return ranges of objects."""
        wanted = list(key_ranges)
        with self._said("read", wanted[0][0] if wanted else ""):
            return await super().get_partial_values(prototype, wanted)

    async def exists(self, key: str) -> bool:
        """Return True if there is such an object."""
        with self._said("look for", key):
            return await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        """Write one object, whole or not at all."""
        with self._said("write", key):
            await super().set(key, value)

    async def delete(self, key: str) -> None:
        """Remove one object."""
        with self._said("remove", key):
            await super().delete(key)

    async def _list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        with self._said("list", prefix):
            async for name in super().list_dir(prefix):
                yield name

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield the names right below a prefix."""
        return self._list_dir(prefix)


def _url_of(store: Any) -> str:
    scheme = {"S3Store": "s3", "GCSStore": "gs"}.get(type(store).__name__)
    return f"{scheme}://{store.config['bucket']}/{store.prefix}" if scheme else str(store.url)


@dataclass(slots=True)
class ConditionalObject:
    """An object that is replaced only if it is as this process knows it; for one thread."""

    uri: str
    mark: dict[str, str]
    """Tells the object from any other; empty if it does not exist."""

    @classmethod
    def read(cls, uri: str) -> tuple[ConditionalObject, bytes | None]:
        """Return the object and its bytes, None if it does not exist.

        Raise StoreError if it cannot be read.
        """
        store, key = bucket_of(uri)
        with translated("read", uri):
            try:
                answer = obstore_library().get(store, key)
                return cls(uri, mark_of(answer.meta)), bytes(answer.bytes())
            except FileNotFoundError:
                return cls(uri, {}), None

    def write(self, content: bytes) -> None:
        """Replace the object.

        Raises:
            BusyError: Another process has written it since.
            StoreError: It cannot be written.
        """
        obstore = obstore_library()
        store, key = bucket_of(self.uri)
        mode: Any = self.mark or "create"
        refused = (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError)
        with translated("write", self.uri):
            try:
                self.mark = mark_of(obstore.put(store, key, content, mode=mode))
            except refused:
                # If the answer to a write is lost, its repetition is refused.
                there, found = ConditionalObject.read(self.uri)
                if found != content:
                    raise BusyError(
                        f"Another process has written '{self.uri}' meanwhile: this one was cut off "
                        "for longer than its lease, and ends. Run the same command again."
                    ) from None
                self.mark = there.mark
