"""Patterns of names: files on disk, keys in a bucket."""

from __future__ import annotations

import glob
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from uniadrs_scale.errors import SceneError
from uniadrs_scale.io.buckets import list_keys
from uniadrs_scale.io.remote import in_bucket
from uniadrs_scale.io.specs import natural_order

if TYPE_CHECKING:
    from collections.abc import Sequence


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
