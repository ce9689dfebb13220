"""One run at a time for an output, and what a killed one left beside it goes."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from uniadrs_scale.errors import BusyError, StoreError
from uniadrs_scale.io.lease import owned
from uniadrs_scale.io.places import require_folder, require_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uniadrs_scale.io.places import Place


PARTIAL = re.compile(r"\.[0-9a-f]{32}")
"""Before the ending of zarr's temporary objects."""


@contextmanager
def claimed(target: Place) -> Iterator[None]:
    """``target`` is this run's alone, and nothing unfinished lies beside it.

    In a bucket a lease sees to it (:mod:`uniadrs_scale.io.lease`). In a folder the lock is the
    kernel's, so it dies with its process, ``kill -9`` included. It is a file beside the output, as
    the output may not exist yet; it goes with the run.

    Raises:
        BusyError: Another run writes to ``target``.
        StoreError: The folder does not exist or cannot be written.
    """
    if not isinstance(target, Path):
        with owned(target):
            yield
        return
    require_name(target)
    require_folder(target)
    path = target.with_name(f".{target.name}.lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        if not path.exists():  # a folder like /proc, where filelock waits for what cannot be
            raise StoreError(
                f"Cannot create '{target}': no file can be made in '{target.parent}'. "
                "Choose a writable folder."
            ) from None
        raise BusyError(
            f"Another run writes to '{target}': one at a time. Wait for it, or choose another "
            "output path."
        ) from None
    except OSError as error:
        if not target.exists():
            raise StoreError(
                f"Cannot write to '{target.parent}': {error.strerror}. Choose a writable folder."
            ) from None
        # Nobody can write there: a finished map can still be asked for.
        yield
        return
    try:
        _tidy(target)
        yield
    finally:
        # While it is held: filelock notices a lock file that is gone, and makes another.
        path.unlink(missing_ok=True)
        lock.release()


def _tidy(target: Path) -> None:
    """Remove what a killed run was making under temporary names; its store stays."""
    for name in (target.name, f".{target.name}.zarr"):
        prefix = f".{name}."
        for path in target.parent.iterdir():
            if not (path.name.startswith(prefix) and path.name.endswith(".tmp")):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        # What zarr was writing: it renames whole objects, and removes no half one where it dies.
        for path in target.with_name(name).rglob("*.partial"):
            if PARTIAL.fullmatch(path.suffixes[-2] if len(path.suffixes) > 1 else ""):
                path.unlink(missing_ok=True)
