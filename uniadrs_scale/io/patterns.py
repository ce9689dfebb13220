"""Patterns of names: files on disk, keys in a bucket."""

from __future__ import annotations

import glob
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from uniadrs_scale.errors import SceneError
from uniadrs_scale.io.buckets import list_keys
from uniadrs_scale.io.remote import in_bucket
from uniadrs_scale.io.specs import natural_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def expand(sources: Sequence[str | Path]) -> list[str]:
    """Paths and URIs, patterns replaced by what they match, in natural order (B2 before B10)."""
    expanded: list[str] = []
    for source in map(str, sources):
        if in_bucket(source) and glob.has_magic(source):
            expanded += _in_bucket(source)
            continue
        if "://" in source or not glob.has_magic(source) or Path(source).exists():
            expanded.append(source)
            continue
        found = natural_order(glob.glob(source, recursive=True))  # noqa: PTH207 - ** and absolute paths
        if not found:
            raise SceneError(
                f"Pattern '{source}' matches no file. Check the folder and the ending, upper and "
                "lower case included."
            )
        expanded += found
    return expanded


def _in_bucket(pattern: str) -> list[str]:
    """What a pattern of keys matches, in natural order."""
    found = natural_order(_matching(pattern))
    if not found:
        raise SceneError(
            f"Pattern '{pattern}' matches no object. Check bucket, prefix and ending, upper and "
            "lower case included."
        )
    return found


def _matching(pattern: str) -> list[str]:
    """URLs in a bucket that match a pattern; ``*`` ends at a slash, ``**/`` is any depth.

    Raises:
        StoreError: The bucket cannot be listed.
    """
    whole = str(pattern).split("/")
    fixed = next(k for k, part in enumerate(whole) if glob.has_magic(part))
    base, rest = "/".join(whole[:fixed]), "/".join(whole[fixed:])
    return [f"{base}/{key}" for key in list_keys(base) if key_matches(key, rest)]


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
