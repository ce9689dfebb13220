"""Temporary folders that are removed, mount points without their disk, and full disks."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniadrs_scale.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield an empty folder, which may hold a whole map, and remove it.

    SIGTERM ends the block like an error, unless the program has its own handler for it.
    """
    mine = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if mine:
        signal.signal(signal.SIGTERM, _end)
    try:
        with tempfile.TemporaryDirectory(prefix="uniadrs-scale-") as folder:
            yield Path(folder)
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: Any) -> None:
    """End the process by an exception; a second signal ends it at once."""
    del frame
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)


MIB = 2**20
ROOM = 16 * MIB
"""Bytes that are written to see if a disk is full."""


@contextmanager
def room_checked(folder: Path, *faults: type[Exception]) -> Iterator[None]:
    """Raise OSError instead of one of ``faults`` if the disk of ``folder`` is full.

    GDAL says so on stderr only, and its errors name other reasons.
    """
    try:
        yield
    except faults:
        needed = sum(file.stat().st_size for file in folder.iterdir())
        with (folder / "room").open("wb") as file:  # a quota is known only to those who write
            for _ in range(min(needed, ROOM) // MIB + 1):
                file.write(bytes(MIB))
        if shutil.disk_usage(folder).free <= needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise


FSTAB = Path("/etc/fstab")
FIELDS = 2
"""Fields of a line of that file up to the mount point."""


def require_mounted(folder: Path | None) -> None:
    """Raise StoreError if the disk of a folder seems to be away; None (a bucket) has none.

    A mount point without its disk is an empty folder. What is made in it fills the wrong disk, and
    is hidden when the right one is back.
    """
    if folder is None:
        return
    path = Path(os.path.realpath(folder))
    for mount in _mount_points():
        if path.is_relative_to(mount) and not mount.is_mount():
            raise StoreError(
                f"'{folder}' is on the disk of '{mount}', which is not mounted ({FSTAB} names it). "
                "Mount it."
            )
    there = path
    while not there.exists():
        there = there.parent
    if there != path and there.is_dir() and not _holds_files(there):
        raise StoreError(
            f"'{folder}' does not exist, and '{there}' is empty: is its disk mounted? If this is a "
            f"new folder, create it: mkdir -p '{path}'"
        )


def _mount_points() -> list[Path]:
    try:
        lines = FSTAB.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    fields = [line.split() for line in lines if not line.lstrip().startswith("#")]
    named = [f[1].replace("\\040", " ") for f in fields if len(f) >= FIELDS]
    return [Path(name) for name in named if name.startswith("/") and name != "/"]


def _holds_files(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return True  # it cannot be listed, so nothing can be said
