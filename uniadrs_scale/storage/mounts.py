"""Mount points whose disk is away, and folders that would be made in its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from uniadrs_scale.errors import StoreError

if TYPE_CHECKING:
    from uniadrs_scale.storage.places import Place

FSTAB = Path("/etc/fstab")
FIELDS = 2
"""Fields of a line of that file up to the mount point."""


def require_mounted(place: Place) -> None:
    """Raise StoreError if the disk of a folder seems to be away; a bucket has none.

    A mount point without its disk is an empty folder. What is made in it fills the wrong disk, and
    is hidden when the right one is back.
    """
    if place.local is None:
        return
    path = Path(os.path.realpath(place.local))
    for mount in _mount_points():
        if path.is_relative_to(mount) and not mount.is_mount():
            raise StoreError(
                f"'{place}' is on the disk of '{mount}', which is not mounted ({FSTAB} names it). "
                "Mount it."
            )
    there = path
    while not there.exists():
        there = there.parent
    if there != path and there.is_dir() and not _holds_files(there):
        raise StoreError(
            f"'{place}' does not exist, and '{there}' is empty: is its disk mounted? If this is a "
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
