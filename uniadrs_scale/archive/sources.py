"""Items of a source: a folder or prefix, a static STAC catalog, or a STAC API."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from uniadrs_scale.archive import stac_source
from uniadrs_scale.archive.config import Folder, Static
from uniadrs_scale.archive.decide import SourceItem
from uniadrs_scale.archive.listing import below, path_time
from uniadrs_scale.core.contracts import digest
from uniadrs_scale.errors import ArchiveError
from uniadrs_scale.scenes.vrt import belonging
from uniadrs_scale.storage.buckets import list_objects
from uniadrs_scale.storage.urls import key_matches, public_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from uniadrs_scale.archive.config import ArchiveConfig, Search
    from uniadrs_scale.storage.places import Place

LOG = logging.getLogger("uniadrs_scale.sweep")
CHANGED = "last change of the files"
"""The date of a scene without a date in its path."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The items of a source that its filters let through."""

    items: tuple[SourceItem, ...]
    """Oldest first; ties by id."""
    left_out: int


def list_items(config: ArchiveConfig, now: datetime) -> Listing:
    """List every item of the source; open none.

    Raises:
        ArchiveError: The source does not exist, or is not what the description says. Nothing is
            decided then: an archive that cannot be listed is not an empty one.
    """
    source = config.source
    if isinstance(source, Folder):
        _require_apart(source.path, config.output.folder)
        everything: Iterable[SourceItem] = (
            _bucket_items(source, source.path.text, config.output.folder)
            if source.path.local is None
            else _folder_items(source, source.path.local, config.output.folder)
        )
    elif isinstance(source, Static):
        everything = stac_source.static_items(source)
    else:
        everything = stac_source.found_items(source, config.filters)
    taken, left_out = [], 0
    for item in everything:
        # Filters cannot judge an item that cannot be read: it is reported.
        if not item.fault and config.filters.refusal(item, now):
            left_out += 1
        else:
            taken.append(item)
    return Listing(tuple(sorted(taken, key=lambda item: (item.when, item.id, item.href))), left_out)


def source_text(source: Folder | Static | Search) -> str:
    """Return a source for people, and for comparison with other sources."""
    if isinstance(source, Folder):
        return source.path.text
    href = public_uri(source.href)
    return href if isinstance(source, Static) else f"{href} ({', '.join(source.collections)})"


def _require_apart(source: Place, sink: Place) -> None:
    """Raise ArchiveError if the sink is the source, or holds it: everything in it is a map."""
    if f"{_real(source)}/".startswith(f"{_real(sink)}/"):
        raise ArchiveError(
            f"Source '{source}' is in the output folder '{sink}', where everything is a map. "
            "Choose another 'output.folder'; it may be in the source."
        )


def _real(place: Place) -> str:
    """Return a path without links; a URL as it is."""
    return place.text if place.local is None else os.path.realpath(place.text)


def _bucket_items(source: Folder, prefix: str, sink: Place) -> Iterator[SourceItem]:
    """Yield scenes below a prefix in a bucket, with dates and identities of the listing."""
    try:
        objects = dict(list_objects(prefix))
    except OSError as error:
        raise ArchiveError(f"Source '{prefix}' cannot be listed: {error}") from None
    if not objects:
        raise ArchiveError(f"Source '{prefix}' is empty. Check 'source.path'.")
    maps = f"{sink}/"  # the sink may be in the source; maps of maps would be made forever
    keys = sorted(
        key
        for key in objects
        if key_matches(key, source.glob) and not f"{prefix}/{key}".startswith(maps)
    )
    if not keys:
        _warn_of_glob(source)
    for identifier, names in _scenes(source, keys):
        stamps = {name: [objects[name]["size"], objects[name]["e_tag"]] for name in names}
        when = path_time(identifier)
        yield SourceItem(
            id=identifier,
            when=when or max(objects[name]["last_modified"] for name in names),
            dated_by="" if when else CHANGED,
            hrefs=tuple(f"{prefix}/{name}" for name in names),
            identity=digest(stamps),
            href=f"{prefix}/{names[0]}",
        )


def _warn_of_glob(source: Folder) -> None:
    LOG.warning("nothing below '%s' matches source.glob '%s'", source.path, source.glob)


def _folder_items(source: Folder, folder: Path, sink: Place) -> Iterator[SourceItem]:
    if not folder.is_dir():
        raise ArchiveError(f"Source folder '{folder}' does not exist. Check 'source.path'.")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ArchiveError(f"Source folder '{folder}' may not be read. Check its permissions.")
    maps, real = f"{_real(sink)}/", cache(os.path.realpath)

    def is_map(path: str) -> bool:
        # The sink may be in the source; maps of maps would be made forever.
        return f"{real(path.rpartition('/')[0])}/".startswith(maps)

    try:
        found = {path for path in below(str(folder), _parts(source)) if not is_map(path)}
    except OSError as error:
        raise ArchiveError(f"Source folder '{folder}' cannot be listed: {error}") from None
    if not found and any(names for _, _, names in os.walk(folder)):
        _warn_of_glob(source)
    inside = cache(_inside)
    for identifier, names in _scenes(source, [os.path.relpath(path, folder) for path in found]):
        try:
            yield _file_item(identifier, tuple(folder / name for name in names), folder, inside)
        except FileNotFoundError:
            # Removed since it was listed, or changing: the next sweep sees its final state.
            continue


def _parts(source: Folder) -> tuple[str, ...]:
    """Return the levels of a pattern."""
    pattern = PurePosixPath(source.glob)
    if pattern.is_absolute() or not pattern.parts or ".." in pattern.parts:
        raise ArchiveError(
            f"source.glob '{source.glob}' is not a pattern of names below a folder. "
            "Use such as **/*.tif."
        )
    return pattern.parts


def _scenes(source: Folder, keys: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the id of each scene, and the names of its files relative to the source."""
    root, scenes = source.path.text.rpartition("/")[2], dict[str, list[str]]()
    for key in sorted(keys):
        path = PurePosixPath(key)
        if source.group == "folder":
            scenes.setdefault(str(path.parent) if path.parent.name else root, []).append(key)
        else:  # the ending has a letter: not that of 2024.05.01
            yield str(path if path.suffix[1:].isdigit() else path.with_suffix("")), [key]
    yield from scenes.items()


def _inside(folder: Path) -> frozenset[str]:
    """Return the names in a folder; none if it is not readable."""
    with suppress(OSError):
        return frozenset(path.name for path in folder.iterdir())
    return frozenset()


def _file_item(
    identifier: str, files: tuple[Path, ...], root: Path, inside: Callable[[Path], frozenset[str]]
) -> SourceItem:
    """Return the scene in ``files``, dated by its name or its latest file."""
    more = [other for file in files if not file.is_dir() for other in _others(file, inside)]
    all_files = dict.fromkeys((*files, *more))
    stamps = {os.path.relpath(file, root): _stamps(file) for file in all_files}
    times = [time for stamp in stamps.values() for _, time, _ in stamp]
    changed = datetime.fromtimestamp(max(times, default=0) // 10**9, UTC)
    when = path_time(identifier)
    return SourceItem(
        id=identifier,
        when=when or changed,
        dated_by="" if when else CHANGED,
        hrefs=tuple(map(str, files)),
        identity=digest({name: list(stamp) for name, stamp in stamps.items()}),
        href=str(files[0]),
        fault=_name_fault(files),
    )


def _others(file: Path, inside: Callable[[Path], frozenset[str]]) -> list[Path]:
    """Return the other files of a scene; none if ``file`` is not readable: opening it will fail."""
    with suppress(OSError):
        return belonging(file, inside)
    return []


def _name_fault(files: tuple[Path, ...]) -> str:
    try:
        for file in files:
            str(file).encode()
    except UnicodeEncodeError:
        return f"the name {str(file)!a} is not UTF-8. Rename the file"
    return ""


def _stamps(path: Path) -> list[tuple[int, int, str]]:
    """Return (size, modification time [ns], name) of a file, or of all files of a folder."""
    if not path.is_dir():
        status = _status(path)
        return [(status.st_size, status.st_mtime_ns, "")]
    files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    found = ((_status(file), str(file.relative_to(path))) for file in files)
    return sorted((status.st_size, status.st_mtime_ns, name) for status, name in found)


def _status(path: Path) -> os.stat_result:
    """Return the status of a file; of a link that leads nowhere, its own: opening it will fail."""
    try:
        return path.stat()
    except OSError:  # nothing is there, a circle of links, or a folder that may not be searched
        return path.lstat()
