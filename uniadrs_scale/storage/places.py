"""Where things are written: a path, or a URL in a bucket."""

from __future__ import annotations

import os
import shutil
import uuid
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from uniadrs_scale.errors import StoreError
from uniadrs_scale.storage import buckets
from uniadrs_scale.storage.remote import in_bucket, is_remote, uri_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


Place = Path | str
"""An absolute path, or the URL of a prefix or object in a bucket."""
ROOT = "zarr.json"
"""The object that makes a prefix a Zarr store."""


def place_of(text: str | Path) -> Place:
    """Where ``text`` says.

    Raises:
        StoreError: It is a URL that nothing can be written to.
    """
    given = str(text)
    if in_bucket(given):
        if not given.partition("://")[2].strip("/").partition("/")[2]:
            raise StoreError(f"'{given}' names a bucket and nothing in it. Add a name: {given}/map")
        return given.rstrip("/")
    if is_remote(given):
        raise StoreError(
            f"'{given}' can be read, but not written to. Write to a folder or a bucket (s3://, "
            "gs://)."
        )
    if "://" in given:
        raise StoreError(f"'{given}' has an unknown scheme. Write to a path, s3:// or gs://.")
    return Path(text).absolute()


def beside(place: Place, name: str) -> Place:
    """Another name in the same folder or prefix."""
    if isinstance(place, Path):
        return place.with_name(name)
    return f"{place.rpartition('/')[0]}/{name}"


def suffix_of(place: Place) -> str:
    """The ending of its name, with the dot."""
    return Path(uri_name(place)).suffix


def has_store(place: Place) -> bool:
    """True where something lies at ``place``: a folder, or a store whose root is written."""
    if isinstance(place, Path):
        return place.exists()
    return buckets.exists(f"{place}/{ROOT}")


def has_file(place: Place) -> bool:
    """True where a file or object lies at ``place``."""
    return place.exists() if isinstance(place, Path) else buckets.exists(place)


def require_name(target: Place) -> None:
    """Raise where nothing can be called ``target``: a name too long, a file where a folder is."""
    if not isinstance(target, Path):
        return
    try:
        target.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        name = target.name if len(target.name) < 80 else f"{target.name[:60]}..."  # noqa: PLR2004
        raise StoreError(
            f"Nothing can be written as '{name}' ({error.strerror}). Choose another output path."
        ) from None


def require_folder(target: Place) -> None:
    """Raise where the folder that is to hold ``target`` does not exist; buckets have none."""
    if isinstance(target, Path) and not target.parent.is_dir():
        raise StoreError(
            f"Output folder '{target.parent}' does not exist. Create it, or choose another."
        )


def remove_store(place: Place) -> None:
    """No store is at ``place`` any more, and at no moment half of one.

    A folder is renamed before it is emptied; killed in between, what is left has a temporary name
    and goes with the next run (:mod:`.locks`). In a bucket the root goes first:
    without it, nothing is a store.
    """
    if isinstance(place, Path):
        going = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.tmp")
        shutil.rmtree(place.replace(going), ignore_errors=True)
    else:
        buckets.remove_prefix(place, first=ROOT)


def remove_leftovers(place: Place) -> None:
    """What a killed :func:`remove_store` left in a bucket; nobody may be making a store there."""
    if not isinstance(place, Path) and not has_store(place):
        buckets.remove_prefix(place)


def write_whole(path: Path, text: str) -> None:
    """``path`` holds ``text``; at no moment a part of it.

    The temporary name is always the same, so that a kill leaves at most one, and the next write
    takes it. Callers hold a lock.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def key_matches(key: str, pattern: str) -> bool:
    """True where ``key`` matches ``pattern``.

    >>> key_matches("2026/a.tif", "**/*.tif"), key_matches("2026/a.tif", "*.tif")
    (True, False)
    """
    return _matches(key.split("/"), pattern.split("/"))


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not (parts and pattern):
        return not (parts or pattern)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def below(folder: str, pattern: Sequence[str]) -> Iterator[str]:
    """Paths below ``folder`` that match ``pattern``, a part a level; hidden ones do not.

    A folder that is taken away meanwhile, or may not be read, has nothing in it: `Path.glob` raises
    before Python 3.13, and `glob.glob` follows links into loops.

    Raises:
        OSError: A folder cannot be read for another reason, such as a disk that fails.
    """
    first, *rest = pattern
    if first == "**" and rest:
        yield from below(folder, rest)
    for entry in _visible(folder):
        if first == "**":
            if entry.is_dir(follow_symlinks=False):
                yield from below(entry.path, pattern)
        elif fnmatchcase(entry.name, first):
            if not rest:
                yield entry.path
            elif entry.is_dir():
                yield from below(entry.path, rest)


def _visible(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
