"""Object stores (S3, Google Cloud) and web servers through obstore: Zarr stores and whole objects.

An object store has no rename and no folders. It has atomic objects, which are whole or not there,
and conditional writes; what is final is decided by one object that is written last.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from zarr.storage import ObjectStore

from uniadrs_scale.errors import SceneError
from uniadrs_scale.storage import remote
from uniadrs_scale.storage.clients import (
    bucket_of,
    connect,
    counted,
    obstore_library,
    server_gist,
    settings_for,
    translated,
)
from uniadrs_scale.storage.remote import PEEK, Glimpse, in_bucket, is_remote
from uniadrs_scale.storage.trust import Checked, checked_store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


CONNECTIONS = 16
PAGE = 1000
"""Keys that a server lists at once."""
MEDIA_TYPES = {
    "tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    "png": "image/png",
    "json": "application/json",
    "html": "text/html; charset=utf-8",
}
"""By ending: browsers go by them."""


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
        """Return one object, None if there is none."""
        with self._said("read", key):
            return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Ranges of objects."""
        wanted = list(key_ranges)
        with self._said("read", wanted[0][0] if wanted else ""):
            return await super().get_partial_values(prototype, wanted)

    async def exists(self, key: str) -> bool:
        """True where there is such an object."""
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
        """Names right below a prefix."""
        return self._list_dir(prefix)


def _url_of(store: Any) -> str:
    scheme = {"S3Store": "s3", "GCSStore": "gs"}.get(type(store).__name__)
    return f"{scheme}://{store.config['bucket']}/{store.prefix}" if scheme else str(store.url)


def zarr_place(place: str | Path, *, read_only: bool = False) -> Any:
    """What zarr and xarray open for a path or URL."""
    if not is_remote(place):
        return checked_store(place, read_only=read_only)
    parts = urlsplit(str(place))
    _, key = bucket_of(str(place))
    where = str(place).partition("://")[2].partition("/")[0]
    store = connect(parts.scheme, where, settings_for(str(place)), key)
    return BucketStore(store, read_only=read_only)


def glimpse(uri: str, *, whole: bool = False) -> Glimpse:
    """How a remote file begins, and what changes with it.

    Args:
        uri: The file.
        whole: True where it need not be read in ranges.

    Raises:
        SceneError: It cannot be read.
    """
    if not in_bucket(uri):
        return remote.glimpse_http(uri, whole=whole)
    store, key = bucket_of(uri)
    obstore = obstore_library()
    try:
        with counted(uri):
            answer = obstore.get(store, key, options={"range": (0, PEEK)})
            start, meta = bytes(answer.bytes()), answer.meta
    except FileNotFoundError:
        raise SceneError(f"'{uri}' does not exist. Check bucket and key.") from None
    except Exception as error:  # noqa: BLE001 - obstore has a base class only where it is installed
        raise remote.unreachable(uri, server_gist(error)) from None
    changed = meta["e_tag"] or meta["last_modified"].isoformat()
    return Glimpse(stamp=f"{meta['size']}-{changed}", size=meta["size"], start=start)


def await_same(uri: str, stamp: str) -> Glimpse:
    """How a remote file begins that is as it was when ``stamp`` was taken; its server has answered.

    Raises:
        SceneError: It has not, for as long as patience goes, or it has another file there by now.
    """
    now = glimpse(uri)
    if now.stamp != stamp:
        raise SceneError(
            f"'{uri}' has changed since it was opened: its pixels would be those of two versions. "
            "Run the same command again, into a new output."
        )
    return now


def read_range(uri: str, start: int, stop: int) -> bytes:
    """Bytes ``start`` to ``stop`` of a remote file.

    Raises:
        OSError: They cannot be read.
    """
    if in_bucket(uri):
        store, key = bucket_of(uri)
        with translated("read", uri):
            return bytes(obstore_library().get_range(store, key, start=start, end=stop))
    return remote.fetch(uri, {"Range": f"bytes={start}-{stop - 1}"}).content


def read_object(uri: str) -> bytes | None:
    """A whole remote file; None where there is none.

    Raises:
        OSError: It cannot be read.
    """
    if not in_bucket(uri):
        return remote.fetch(uri).content
    store, key = bucket_of(uri)
    with translated("read", uri):
        try:
            return bytes(obstore_library().get(store, key).bytes())
        except FileNotFoundError:
            return None


def write_object(uri: str, content: bytes | Path, *, media: str = "") -> None:
    """Put ``content`` at ``uri``, whole or not at all: readers see the old object until then.

    Args:
        uri: URL of the object.
        content: The bytes, or the file that holds them.
        media: Media type; by default that of the name's ending.

    Raises:
        StoreError: It cannot be written.
    """
    store, key = bucket_of(uri)
    media = media or MEDIA_TYPES.get(key.rpartition(".")[2], "")
    with translated("write", uri):
        headers = {"Content-Type": media} if media else None
        obstore_library().put(store, key, content, attributes=headers)


def exists(uri: str) -> bool:
    """True where there is such an object.

    Raises:
        StoreError: The server does not say.
    """
    store, key = bucket_of(uri)
    with translated("look for", uri):
        try:
            obstore_library().head(store, key)
        except FileNotFoundError:
            return False
    return True


def list_keys(uri: str) -> list[str]:
    """Keys below the prefix ``uri``, relative to it.

    Raises:
        StoreError: The bucket is not there or cannot be listed.
    """
    return [key for key, _ in list_objects(uri)]


def list_objects(
    uri: str, *, skip: str = "", after: str = "", until: str = ""
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(key relative to ``uri``, size and e_tag and last_modified) of what lies below the prefix.

    Args:
        uri: The prefix.
        skip: Name of folders, at any depth, that need not be listed whole: a Zarr store may hold
            more objects than everything else.
        after: Begin after this key.
        until: End at this key.

    Raises:
        StoreError: The bucket is not there or cannot be listed.
    """
    store, prefix = bucket_of(uri)
    cut = len(prefix) + 1 if prefix else 0
    offset = f"{prefix}/{after}".lstrip("/") if after else None
    while True:
        pages = obstore_library().list(store, prefix or None, offset=offset, chunk_size=PAGE)
        offset = None
        with translated("list", uri):
            for page in pages:
                for meta in page:
                    key = cast("str", meta["path"])[cut:]
                    if until and key > until:
                        return
                    yield key, meta
                offset = _end_of_folder(page[0]["path"], page[-1]["path"], skip)
                if offset is not None:
                    break
        if offset is None:
            return


def _end_of_folder(first: str, last: str, name: str) -> str | None:
    """What sorts after all keys in the folder ``name`` that two keys lie in; None for none."""
    start, found, _ = last.partition(f"/{name}/")
    # '0' is the character after '/'.
    return f"{start}/{name}0" if name and found and first.startswith(f"{start}/{name}/") else None


def upload(folder: Path, uri: str, *, last: str) -> None:
    """Everything in ``folder`` is below ``uri``; the object ``last`` is written after all others.

    Raises:
        StoreError: Something cannot be written; ``last`` is then not there.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    others = [path for path in files if path.relative_to(folder).as_posix() != last]

    def put(path: Path) -> None:
        write_object(f"{uri.rstrip('/')}/{path.relative_to(folder).as_posix()}", path)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(put, others))
    put(folder / last)


def remove_prefix(uri: str, *, first: str | None = None) -> None:
    """Nothing is below ``uri`` any more; the object ``first`` goes before all others.

    Raises:
        StoreError: Something cannot be removed.
    """
    keys = list_keys(uri)
    if first is not None and first in keys:
        keys.remove(first)
        remove_objects(uri, [first])
    remove_objects(uri, keys)


def remove_objects(uri: str, keys: Sequence[str]) -> None:
    """No object is at any of ``keys`` below ``uri`` any more.

    Raises:
        StoreError: Something cannot be removed.
    """
    store, prefix = bucket_of(uri)
    if keys:
        with translated("remove", uri):
            paths = [f"{prefix}/{key}".lstrip("/") for key in keys]
            obstore_library().delete(store, paths)
