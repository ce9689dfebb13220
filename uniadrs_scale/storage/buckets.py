"""Object stores (S3, Google Cloud) and web servers through obstore: Zarr stores and whole objects.

An object store has no rename and no folders. It has atomic objects, which are whole or not there,
and conditional writes; what is final is decided by one object that is written last.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from fsspec.caching import BlockCache
from fsspec.spec import AbstractBufferedFile

from uniadrs_scale.errors import SceneError
from uniadrs_scale.storage import remote
from uniadrs_scale.storage.clients import (
    BucketStore,
    bucket_of,
    connect,
    counted,
    obstore_library,
    server_gist,
    settings_for,
    translated,
)
from uniadrs_scale.storage.remote import PEEK, Glimpse
from uniadrs_scale.storage.trust import checked_store
from uniadrs_scale.storage.urls import in_bucket, is_remote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

BLOCK = 2**20
"""Bytes per request: HDF5 looks up many small things, and a request costs as much as a MiB."""
BLOCKS, OPEN_FILES = 16, 8
"""Blocks of a file, and files, that a process keeps."""
CONNECTIONS = 16
PAGE = 1000
"""Keys that a server lists at once."""
MEDIA_TYPES = {
    "tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    "png": "image/png",
    "json": "application/json",
    "html": "text/html; charset=utf-8",
}
"""Media types by ending, for browsers."""


def zarr_place(place: str | Path, *, read_only: bool = False) -> Any:
    """Return what zarr and xarray open for a path or URL."""
    if not is_remote(place):
        return checked_store(place, read_only=read_only)
    parts = urlsplit(str(place))
    _, key = bucket_of(str(place))
    where = str(place).partition("://")[2].partition("/")[0]
    store = connect(parts.scheme, where, settings_for(str(place)), key)
    return BucketStore(store, read_only=read_only)


def glimpse(uri: str, *, whole: bool = False) -> Glimpse:
    """Return how a remote file begins, and a stamp that changes with it.

    Args:
        uri: The file.
        whole: True if it need not be read in ranges.

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
    except Exception as error:  # noqa: BLE001 - obstore, and its base class, may not be installed
        raise remote.unreachable(uri, server_gist(error)) from None
    changed = meta["e_tag"] or meta["last_modified"].isoformat()
    return Glimpse(stamp=f"{meta['size']}-{changed}", size=meta["size"], start=start)


def await_same(uri: str, stamp: str) -> Glimpse:
    """Return how a remote file begins, which is as it was when ``stamp`` was taken.

    Raise SceneError if the server does not respond within the retry time, or the file has changed.
    """
    now = glimpse(uri)
    if now.stamp != stamp:
        raise SceneError(
            f"'{uri}' has changed since it was opened: the map would mix two versions. "
            "Run the same command again, into a new output."
        )
    return now


def read_range(uri: str, start: int, stop: int) -> bytes:
    """Return bytes ``start`` to ``stop`` of a remote file. Raise OSError if they cannot be read."""
    if in_bucket(uri):
        store, key = bucket_of(uri)
        with translated("read", uri):
            return bytes(obstore_library().get_range(store, key, start=start, end=stop))
    answer = remote.fetch(uri, {"Range": f"bytes={start}-{stop - 1}"})
    # A server may forget about ranges at any time, and send the whole file.
    part = answer.status == HTTPStatus.PARTIAL_CONTENT
    content = answer.content if part else answer.content[start:stop]
    if len(content) != stop - start:
        raise OSError(f"the server sends {len(content)} bytes instead of {stop - start}")
    return content


def range_file(uri: str, stamp: str) -> Any:
    """Open a remote file that h5py and xarray read in blocks, shared by all readers in a process.

    Raise SceneError if it is not as it was when ``stamp`` was taken, or the server does not answer.
    """
    blocks = _blocks(uri, stamp)
    file = AbstractBufferedFile(None, uri, size=blocks.size, cache_type="none")
    file.cache = blocks
    return file


@lru_cache(maxsize=OPEN_FILES)
def _blocks(uri: str, stamp: str) -> BlockCache:
    now = await_same(uri, stamp)

    def fetch(start: int, stop: int) -> bytes:
        try:
            return read_range(uri, start, min(stop, now.size))
        except OSError as error:
            raise remote.unreachable(uri, error) from None

    return BlockCache(BLOCK, fetch, now.size, maxblocks=BLOCKS)


def read_object(uri: str) -> bytes | None:
    """Return a whole remote file, None if it does not exist. Raise OSError if it cannot be read."""
    if not in_bucket(uri):
        return remote.fetch(uri).content
    store, key = bucket_of(uri)
    with translated("read", uri):
        try:
            answer = obstore_library().get(store, key)
            if answer.meta["size"] > remote.LARGEST:
                raise OSError(f"it has more than {remote.LARGEST >> 20} MiB")
            return bytes(answer.bytes())
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
    """Return True if there is such an object. Raise StoreError if the server does not respond."""
    store, key = bucket_of(uri)
    with translated("look for", uri):
        try:
            obstore_library().head(store, key)
        except FileNotFoundError:
            return False
    return True


def list_keys(uri: str) -> list[str]:
    """Return the keys below the prefix ``uri``, relative to it.

    Raise StoreError if the bucket does not exist or cannot be listed.
    """
    return [key for key, _ in list_objects(uri)]


def list_objects(
    uri: str, *, skip: str = "", after: str = "", until: str = ""
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (key relative to ``uri``, size and e_tag and last_modified) of all objects below it.

    Args:
        uri: The prefix.
        skip: Name of folders, at any depth, that need not be listed whole: a Zarr store may hold
            more objects than everything else.
        after: Begin after this key.
        until: End at this key.

    Raises:
        StoreError: The bucket does not exist or cannot be listed.
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
    """Return a key after all in the folder ``name`` that holds both keys; None if none does."""
    start, found, _ = last.partition(f"/{name}/")
    # '0' is the character after '/'.
    return f"{start}/{name}0" if name and found and first.startswith(f"{start}/{name}/") else None


def upload(folder: Path, uri: str, *, last: str) -> None:
    """Write all files in ``folder`` below ``uri``, the object ``last`` after all others.

    Raise StoreError if a file cannot be written; ``last`` is then not written.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    others = [path for path in files if path.relative_to(folder).as_posix() != last]

    def put(path: Path) -> None:
        write_object(f"{uri.rstrip('/')}/{path.relative_to(folder).as_posix()}", path)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(put, others))
    put(folder / last)


def remove_prefix(uri: str, *, first: str | None = None) -> None:
    """Remove all objects below ``uri``, the object ``first`` before all others.

    Raise StoreError if an object cannot be removed.
    """
    keys = list_keys(uri)
    if first is not None and first in keys:
        keys.remove(first)
        remove_objects(uri, [first])
    remove_objects(uri, keys)


def remove_objects(uri: str, keys: Sequence[str]) -> None:
    """Remove the objects ``keys`` below ``uri``, as far as they exist.

    Raise StoreError if an object cannot be removed.
    """
    store, prefix = bucket_of(uri)
    if keys:
        with translated("remove", uri):
            paths = [f"{prefix}/{key}".lstrip("/") for key in keys]
            obstore_library().delete(store, paths)
