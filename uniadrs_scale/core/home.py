"""The home of a process: containers may run as a user that has none."""

from __future__ import annotations

import os
import stat
import tempfile
from functools import cache
from pathlib import Path


def has_home() -> bool:
    """Return True if this process has a home folder, which need not exist."""
    try:
        return bool(Path.home())
    except RuntimeError:
        return False


def give_home() -> None:
    """Give a process without a home its private folder: bokeh and matplotlib need one."""
    if not has_home() and (folder := private_folder()):
        os.environ["HOME"] = folder


@cache
def private_folder() -> str:
    """Return a folder among the temporary files that only this user can write; empty if none.

    Not the folder of temporary files itself: settings and compiled code are read from it, and
    other users could put theirs there.
    """
    try:
        folder = Path(tempfile.gettempdir(), f"uniadrs-scale-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            return ""
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, AttributeError):
        return ""
    return str(folder)
