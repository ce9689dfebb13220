"""A remote file that h5py and xarray read as if it lay on disk, in ranges."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

from fsspec.caching import BlockCache

from uniadrs_scale.storage.buckets import await_same, read_range
from uniadrs_scale.storage.remote import unreachable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


BLOCK = 2**20
"""Bytes of a request: HDF5 looks up many small things, and a request costs as much as a MiB."""
BLOCKS = 16
"""Blocks of a file that a process keeps."""
OPEN_FILES = 8


class RangeFile(io.RawIOBase):
    """Reads ``uri`` where asked, in blocks."""

    def __init__(self, uri: str, stamp: str) -> None:
        super().__init__()
        self.name = uri
        self.blocks = _blocks(uri, stamp)
        self.position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to ``offset`` from the start, from here or from the end."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.blocks.size}
        self.position = max(origin[whence] + offset, 0)
        return self.position

    def tell(self) -> int:
        """Where the next read begins."""
        return self.position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` as far as the file goes.

        Raises:
            SceneError: The server does not answer.
        """
        view = memoryview(buffer).cast("B")
        stop = min(self.position + len(view), self.blocks.size)
        try:
            content = self.blocks._fetch(self.position, stop)  # noqa: SLF001 - fsspec's only way
        except OSError as error:
            raise unreachable(self.name, error) from None
        view[: len(content)] = content
        self.position += len(content)
        return len(content)


@lru_cache(maxsize=OPEN_FILES)
def _blocks(uri: str, stamp: str) -> BlockCache:
    """What has been read of a file, shared by all who have it open."""
    now = await_same(uri, stamp)

    def fetch(start: int, stop: int) -> bytes:
        return read_range(uri, start, min(stop, now.size))

    return BlockCache(BLOCK, fetch, now.size, maxblocks=BLOCKS)
