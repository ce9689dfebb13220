"""Listings of folders and buckets, the dates in names, and what a sink holds."""

from __future__ import annotations

import errno
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniadrs_scale.storage.buckets import CONNECTIONS, list_objects
from uniadrs_scale.storage.places import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from uniadrs_scale.archive.ledger import Index
    from uniadrs_scale.storage.places import Place

DATE = re.compile(
    r"(?<!\d)((?:19|20)\d\d)(?:([._-]?)([01]\d)\2([0-3]\d)|([0-3]\d\d))"
    r"(?:[T_-]?([0-2]\d[0-5]\d[0-5]\d))?(?!\d)"
)
"""Year, separator, month, day or day of the year, time."""
RECORD: dict[str, Any] = {
    "uniadrs:key": str,
    "uniadrs:parts": dict,
    "uniadrs:highest_score": float | int | None,
    "uniadrs:notes": list | None,
    "uniadrs:targets": int | None,
    "datetime": str,
    "created": str,
}
"""Properties of an item that the index holds, and their types."""
SHARE = 500
"""Folders of a bucket that are listed at a time: about two requests, for COGs."""


def name_time(name: str) -> datetime | None:
    """Return date and time (if any) in a name such as ``S2_20240131T101559.tif``, as UTC.

    >>> str(name_time("MOD09.A2024032.h18v03")), str(name_time("2024.02.01"))
    ('2024-02-01 00:00:00+00:00', '2024-02-01 00:00:00+00:00')
    """
    for year, _, month, day, of_year, clock in DATE.findall(name):
        # strptime would take a tenth of the time of listing a folder.
        hour, minute, second = (int(clock[k : k + 2] or 0) for k in (0, 2, 4))
        date = int(year), int(month or 1), int(day or 1)
        try:
            start = datetime(*date, hour, minute, second, tzinfo=UTC)
        except ValueError:
            continue
        found = start + timedelta(days=int(of_year or 1) - 1)
        if found.year == start.year:
            return found
    return None


def path_time(path: str) -> datetime | None:
    """Return the date in the last part of a path that has one: names before their folders."""
    return next((time for part in path.split("/")[::-1] if (time := name_time(part))), None)


def below(folder: str, pattern: Sequence[str]) -> Iterator[str]:
    """Yield paths below ``folder`` that match ``pattern``, one part per level; none is hidden.

    A folder that is removed meanwhile, or may not be read, counts as empty: `Path.glob` raises
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
            else:
                yield from below(entry.path, rest)


def _visible(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    except OSError as error:
        if error.errno == errno.ELOOP:  # a circle of links
            return []
        raise


def list_files(
    place: Place, skip: str, known: Sequence[str] = (), levels: int = 3
) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield (name relative to ``place``, function that returns its stamp) of all files below.

    Args:
        place: A folder or prefix.
        skip: Name of folders in a bucket that need not be listed whole: a Zarr store may hold more
            objects than all else.
        known: Names of folders that are probably there, sorted. A bucket is listed in several
            parts at once, as a server gives the next thousand keys only after the last.
        levels: Depth of files in a folder; deeper folders count as files. A folder counts as a
            file, too, if it is hidden or empty. No link is followed.
    """
    if place.local is not None:
        yield from _walk(place.text, "", levels)
        return
    edges = ["", *known[SHARE::SHARE], ""]

    def part(after: str, until: str) -> list[tuple[str, Mapping[str, Any]]]:
        return list(list_objects(place.text, skip=skip, after=after, until=until))

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for key, meta in chain.from_iterable(pool.map(part, edges[:-1], edges[1:])):
            yield key, partial(_mark, meta)


def _walk(folder: str, before: str, levels: int) -> Iterator[tuple[str, Callable[[], str]]]:
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except (FileNotFoundError, NotADirectoryError):  # perhaps just removed
        return
    except PermissionError:
        if before:  # another user's folder
            return
        raise
    if not entries:
        yield before, str
    for entry in entries:
        name = before + entry.name
        if levels > 1 and entry.name[0] != "." and entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{name}/", levels - 1)
        else:
            yield name, partial(_file_mark, entry)


def _file_mark(entry: os.DirEntry[str]) -> str:
    """Return the stamp of a file or store; empty for a store that lost its root or its scores."""
    try:
        status = entry.stat()
        for name in (ROOT, f"score/{ROOT}") if entry.name.endswith(".zarr") else ():
            Path(entry.path, name).stat()
    except OSError:  # just removed, or a link to nothing
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def _mark(meta: Mapping[str, Any]) -> str:
    return f"{meta['size']}:{meta['e_tag'] or meta['last_modified']}"


@dataclass(slots=True)
class Survey:
    """The content of the sink."""

    products: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Records of whole products by name: see :func:`record_of`."""
    damaged: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """What is wrong with other products, and their records: empty if the item cannot be used."""
    versions: dict[str, dict[str, dict[str, Callable[[], str]]]] = field(default_factory=dict)
    """Names and stamps of the files in each version, by name and key."""
    unfinished: set[str] = field(default_factory=set)
    """Names of scenes next to whose versions a killed sweep left something."""
    changed: Index = field(default_factory=dict)
    """Items that the index does not have, or has in another state."""
    gone: set[str] = field(default_factory=set)
    """Names in the index that have no product any more."""

    def add(self, name: str, record: dict[str, Any]) -> None:
        """Add the item of ``name`` as a product, whole or damaged."""
        versions, key = self.versions.get(name, {}), record.get("uniadrs:key", "")
        files = versions.get(key, {})
        bad = [
            file
            for file, size in record.get("files", {}).items()
            if file not in files
            or (size and int(files[file]().partition(":")[0] or 0) < size)
            or (file.endswith(".zarr") and not files[file]())
        ]
        if files and not bad:
            self.products[name] = record
        elif record or versions:  # else a foreign file
            fault = f"missing or cut off: {', '.join(bad) or key}" if key else "item not usable"
            self.damaged[name] = f"damaged, {fault}", record


def record_of(content: bytes | None) -> dict[str, Any]:
    """Return what the index holds of an item; empty if no sweep can have written it so.

    RECORD, ``bbox``, ``collection``, and ``files``: names of its assets with the sizes of COGs, and
    0 for other files, as users may mark targets in their list.
    """
    try:
        item = json.loads(content or b"")
        found = {name: item["properties"].get(name) for name in RECORD}
        aware = datetime.fromisoformat(found["datetime"]).tzinfo is not None
        _west, _south, _east, _north = map(float, item.get("bbox") or (0, 0, 0, 0))
        key = f"/{found['uniadrs:key']}/"
        assets = {a["href"].partition(key)[2].rstrip("/"): a for a in item["assets"].values()}
        sizes = {f: int(a.get("file:size") or 0) * f.endswith(".tif") for f, a in assets.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    if not (aware and all(isinstance(found[name], kind) for name, kind in RECORD.items())):
        return {}
    more = {"notes": found.pop("uniadrs:notes") or [], "targets": found.pop("uniadrs:targets")}
    more["files"] = {file: size for file, size in sizes.items() if file}  # else a foreign one
    return found | more | {"bbox": item.get("bbox"), "collection": item.get("collection")}
