"""Listings: the items of a source (a folder, a STAC catalog or API), and the files of a sink."""

from __future__ import annotations

import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain, groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from uniadrs_scale.archive import stac_source
from uniadrs_scale.archive.config import Folder, Static
from uniadrs_scale.archive.decide import SourceItem
from uniadrs_scale.core.contracts import digest
from uniadrs_scale.errors import ArchiveError
from uniadrs_scale.storage.buckets import CONNECTIONS, list_objects
from uniadrs_scale.storage.places import key_matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from uniadrs_scale.archive.config import ArchiveConfig
    from uniadrs_scale.storage.places import Place


LOG = logging.getLogger("uniadrs_scale.sweep")
DATE = re.compile(r"(?<!\d)((?:19|20)\d{6})(?:[T_-]?([0-2]\d[0-5]\d[0-5]\d))?(?!\d)")
SHARE = 500
"""Folders of a bucket that are listed at a time: about two requests, for COGs."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The items of a source that its filters let through."""

    items: tuple[SourceItem, ...]
    """Oldest first; ties by id."""
    left_out: int


def list_items(config: ArchiveConfig, now: datetime) -> Listing:
    """Every item of the source, none opened.

    Raises:
        ArchiveError: The source is not there or not what the description says. Nothing is decided
            then: an archive that cannot be listed is not an empty one.
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
        # What cannot be read cannot be left out either: it is reported.
        if not item.fault and config.filters.refusal(item, now):
            left_out += 1
        else:
            taken.append(item)
    return Listing(tuple(sorted(taken, key=lambda item: (item.when, item.id))), left_out)


def _require_apart(source: Place, sink: Place) -> None:
    """Raise where all that a source holds would be taken for maps."""
    if f"{source}/".startswith(f"{sink}/"):
        raise ArchiveError(
            f"Source '{source}' lies in the output folder '{sink}', where everything is a map. "
            "Let 'output.folder' be another one; it may lie in the source."
        )


def _bucket_items(source: Folder, prefix: str, sink: Place) -> Iterator[SourceItem]:
    """Scenes below a prefix in a bucket; dates and identities are those of the listing."""
    try:
        objects = dict(list_objects(prefix))
    except OSError as error:
        raise ArchiveError(f"Source '{prefix}' cannot be listed: {error}") from None
    if not objects:
        raise ArchiveError(f"Source '{prefix}' holds nothing. Check 'source.path'.")
    # Maps of maps would be made for ever, if the sink lies below the source.
    maps = f"{sink}/"
    keys = sorted(
        key
        for key in objects
        if key_matches(key, source.glob) and not f"{prefix}/{key}".startswith(maps)
    )
    if not keys:
        _warn_of_glob(source)
    places = {key: PurePosixPath(key) for key in keys}
    if source.group == "folder":
        groups = [(p, list(g)) for p, g in groupby(keys, key=lambda key: places[key].parent)]
    else:
        groups = [(places[key].with_suffix(""), [key]) for key in keys]
    for place, names in groups:
        identifier = prefix.rpartition("/")[2] if str(place) == "." else str(place)
        stamps = {name: [objects[name]["size"], objects[name]["e_tag"]] for name in names}
        yield SourceItem(
            id=identifier,
            when=name_time(identifier) or max(objects[name]["last_modified"] for name in names),
            hrefs=tuple(f"{prefix}/{name}" for name in names),
            identity=digest(stamps),
            href=f"{prefix}/{names[0]}",
        )


def _warn_of_glob(source: Folder) -> None:
    LOG.warning("nothing below '%s' matches source.glob '%s'", source.path, source.glob)


def _folder_items(source: Folder, folder: Path, sink: Place) -> Iterator[SourceItem]:
    if not folder.is_dir():
        raise ArchiveError(f"Source folder '{folder}' does not exist. Check 'source.path'.")
    # As text: taking paths apart costs half of a listing.
    maps = os.path.join(sink.text, "")  # noqa: PTH118 - pathlib drops the separator at the end
    try:
        # Maps of maps would be made for ever, if the sink lies below the source.
        found = {path for path in below(str(folder), _parts(source)) if not path.startswith(maps)}
    except OSError as error:
        raise ArchiveError(f"Source folder '{folder}' cannot be listed: {error}") from None
    if not found and any(names for _, _, names in os.walk(folder)):
        _warn_of_glob(source)
    scenes = sorted(map(Path, found))
    if source.group == "folder":
        groups = [(place, tuple(g)) for place, g in groupby(scenes, key=lambda path: path.parent)]
    else:
        groups = [(path.with_suffix(""), (path,)) for path in scenes]
    for place, files in groups:
        try:
            yield _file_item(place, files, folder)
        except FileNotFoundError:
            # Taken away since it was listed, or it is changing: the next sweep sees what it is.
            continue


def _parts(source: Folder) -> tuple[str, ...]:
    """The levels of a pattern."""
    pattern = PurePosixPath(source.glob)
    if pattern.is_absolute() or not pattern.parts or ".." in pattern.parts:
        raise ArchiveError(
            f"source.glob '{source.glob}' is no pattern of names below a folder. "
            "Use such as **/*.tif."
        )
    return pattern.parts


def _file_item(place: Path, files: tuple[Path, ...], root: Path) -> SourceItem:
    """The scene in ``files``, named by ``place``, dated by its name or its youngest file."""
    identifier = place.relative_to(root).as_posix()
    if identifier == ".":
        identifier = root.name
    stamps = {file.relative_to(root).as_posix(): _stamps(file) for file in files}
    times = [time for stamp in stamps.values() for _, time, _ in stamp]
    changed = datetime.fromtimestamp(max(times, default=0) // 10**9, UTC)
    return SourceItem(
        id=identifier,
        when=name_time(place.name) or changed,
        hrefs=tuple(map(str, files)),
        identity=digest({name: list(stamp) for name, stamp in stamps.items()}),
        href=str(files[0]),
    )


def name_time(name: str) -> datetime | None:
    """Return date and time (if any) in a name such as ``S2_20240131T101559.tif``, as UTC."""
    for date, clock in DATE.findall(name):
        # strptime would take a tenth of the time of listing a folder.
        year, month, day = int(date[:4]), int(date[4:6]), int(date[6:])
        hour, minute, second = (int(clock[k : k + 2] or 0) for k in (0, 2, 4))
        try:
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            continue
    return None


def _stamps(path: Path) -> list[tuple[int, int, str]]:
    """(size, modification time [ns], name) of a file, or of all files of a product folder."""
    if not path.is_dir():
        status = _status(path)
        return [(status.st_size, status.st_mtime_ns, "")]
    files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    found = ((_status(file), str(file.relative_to(path))) for file in files)
    return sorted((status.st_size, status.st_mtime_ns, name) for status, name in found)


def _status(path: Path) -> os.stat_result:
    """Of a link to nowhere, the link's own: it is there, and opening it says what is wrong."""
    try:
        return path.stat()
    except FileNotFoundError:
        return path.lstat()


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
            elif entry.is_dir():
                yield from below(entry.path, rest)


def _visible(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


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
    try:
        status = entry.stat()
    except OSError:  # just removed, or a link to nothing
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def _mark(meta: Mapping[str, Any]) -> str:
    return f"{meta['size']}:{meta['e_tag'] or meta['last_modified']}"
