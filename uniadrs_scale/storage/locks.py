"""Locks, so that one process at a time writes to a place.

In a folder a lock is the kernel's: it ends with its process, ``kill -9`` included. In a bucket it
is an object: see :mod:`.leases`.
"""

from __future__ import annotations

import errno
import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from uniadrs_scale.errors import BusyError, StoreError
from uniadrs_scale.storage.leases import is_leased, leased

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uniadrs_scale.storage.places import Place

PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial$")
"""The ending of zarr's temporary objects."""

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""Errors of file systems without locks. A lock that is held is another error."""


@contextmanager
def exclusive(lock: Place, target: Place) -> Iterator[None]:
    """Hold ``lock``, which is a file that stays, or an object that goes.

    Args:
        lock: The file or object.
        target: The place that it protects, for messages.

    Raises:
        BusyError: Another process holds it.
        StoreError: The folder or bucket cannot be written.
    """
    if lock.local is None:
        with leased(lock.text, target.text):
            yield
        return
    try:
        # A second, as a look at the lock holds it for a moment.
        held = FileLock(lock.local, timeout=1, fallback_to_soft=False).acquire()
    except Timeout:
        raise BusyError(
            f"Another run writes to '{target}': one at a time. Wait for it to end."
        ) from None
    except OSError as error:
        raise _cannot_write(target.text, error) from None
    with held:
        yield


@contextmanager
def claimed(target: Place) -> Iterator[None]:
    """Hold the output ``target``, and remove what a killed run left next to it.

    In a folder the lock file is next to the output, which may not exist yet, and goes with the run.

    Raises:
        BusyError: Another run writes to ``target``.
        StoreError: The folder does not exist or cannot be written.
    """
    output = target.local
    if output is None:
        with leased(f"{target}.lock", target.text):
            yield
        return
    target.require_name()
    target.require_folder()
    path = output.with_name(f".{output.name}.lock")
    lock = FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        if not path.exists():  # a folder such as /proc, where filelock never succeeds
            raise StoreError(
                f"Cannot create '{target}': '{output.parent}' takes no files. Choose a writable "
                "folder."
            ) from None
        raise BusyError(
            f"Another run writes to '{target}': one at a time. Wait for it, or choose another "
            "output path."
        ) from None
    except OSError as error:
        if error.errno in NO_LOCKS or not output.exists():
            raise _cannot_write(str(output.parent), error) from None
        yield  # no run can write there, but a finished map can be asked for
        return
    try:
        _tidy(output)
        yield
    finally:
        # While it is held: filelock notices a lock file that is gone, and makes another.
        path.unlink(missing_ok=True)
        lock.release()


def is_held(lock: Place) -> bool:
    """Return True while a process holds ``lock``.

    It writes nothing, so for an object it goes by the clock of this machine.

    Raise StoreError if the bucket cannot be read.
    """
    if lock.local is not None:
        try:
            with FileLock(lock.local, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # no process can hold it, or this one may not look
            return False
    return is_leased(lock.text)


def _cannot_write(place: str, error: OSError) -> StoreError:
    if error.errno in NO_LOCKS:
        return StoreError(
            f"The file system of '{place}' has no locks ({error.strerror}), so two runs could "
            "write there at once. Mount it with locks (NFS 4, or NFS 3 with its lock service and "
            "without 'nolock'; Lustre with 'flock'), or choose a folder on another disk, or a "
            "bucket."
        )
    return StoreError(f"Cannot write to '{place}': {error.strerror}. Choose a writable folder.")


def _tidy(target: Path) -> None:
    """Remove what a killed run was making under temporary names; its store stays."""
    for name in (target.name, f".{target.name}.zarr"):
        for path in target.parent.iterdir():
            if not (path.name.startswith(f".{name}.") and path.name.endswith(".tmp")):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        # Objects that zarr was writing: it renames whole ones, but a kill leaves a half one.
        for path in target.with_name(name).rglob("*.partial"):
            if PARTIAL.search(path.name):
                path.unlink(missing_ok=True)
