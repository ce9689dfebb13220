"""A sink that is a folder: products come in by rename.

While a product is made it is ``FOLDER/NAME/.KEY.part/``; a later sweep resumes it.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from uniadrs_scale.archive.layout import (
    KEY,
    MADE,
    STAGED_ITEM,
    STATE,
    STORE,
    Survey,
    Workplace,
    record_of,
)
from uniadrs_scale.archive.ledger import Ledger
from uniadrs_scale.errors import BusyError, StoreError
from uniadrs_scale.storage.places import Place, write_whole
from uniadrs_scale.storage.trust import require_no_links

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from uniadrs_scale.archive.ledger import Index


PART = re.compile(r"\.([0-9a-f]{16})\.part")


@dataclass(frozen=True, slots=True)
class FolderSink:
    """A folder of products; see :class:`uniadrs_scale.archive.sink.Sink`."""

    place: Path

    @property
    def state(self) -> Path:
        """What sweeps remember."""
        return self.place / STATE

    def exists(self) -> bool:
        """True where a sweep has been at work."""
        return self.state.is_dir()

    def ledger(self) -> Ledger:
        """The open ledger; made where there is none."""
        require_no_links(self.state)
        try:
            self.state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"Cannot write to '{self.place}': {error.strerror}. Choose a writable folder."
            ) from None
        return Ledger.at(self.state / "ledger.sqlite")

    # Any number of processes may write to the file.
    amending = ledger

    @contextmanager
    def locked(self) -> Iterator[Ledger]:
        """Hold the sink. The lock is the kernel's, so it dies with its process."""
        with self.ledger() as ledger:
            # A second's patience: `status` looks at the lock, too.
            lock = FileLock(self.state / "lock", timeout=1)
            try:
                lock.acquire()
            except Timeout:
                runs = ledger.runs(1)
                owner = f" ({runs[0]['owner']})" if runs else ""
                raise BusyError(
                    f"Another sweep{owner} writes to '{self.place}': one at a time. Wait for it."
                ) from None
            try:
                yield ledger
            finally:
                lock.release()

    def is_busy(self) -> bool:
        """True while a sweep holds the sink."""
        lock = FileLock(self.state / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return True
        lock.release()
        return False

    def item_path(self, name: str) -> Path:
        """The item of ``name``."""
        return self.place / name / f"{name}.json"

    @contextmanager
    def workplace(self, name: str, key: str) -> Iterator[Workplace]:
        """The hidden folder beside the product, which may hold what an earlier sweep began."""
        scene = self.place / name
        if scene.is_symlink() or (scene.exists() and not scene.is_dir()):
            raise StoreError(f"'{scene}' is in the way: it is no folder. Move it elsewhere.")
        part = scene / f".{key}.part"
        require_no_links(part)
        yield Workplace(Place.of(part / STORE), part)

    def publish(self, name: str, key: str, workplace: Workplace) -> None:
        """Make what was made the product of ``name``."""
        del workplace  # `workplace` made it where it is looked for
        self._finish(name, key)

    def _finish(self, name: str, key: str) -> dict[str, Any]:
        """Make the finished ``.KEY.part`` (or ``KEY``) the product of ``name``; its record.

        Two renames, the last of them the moment of change.
        """
        part, version = self.place / name / f".{key}.part", self.place / name / key
        record = _read_record((part if part.exists() else version) / STAGED_ITEM)
        if part.exists():
            if STORE not in record["files"]:
                shutil.rmtree(part / STORE)
            if version.exists():
                shutil.rmtree(version)
            part.replace(version)
        target = self.item_path(name)
        (version / STAGED_ITEM).replace(target)
        for other in self._scene_versions(name):
            if other.name != key:
                self._remove_version(other)
        return record

    def survey(self, index: Index) -> Survey:
        """Look at every scene's folder; items are read only where the index does not know them."""
        found = Survey()
        for name in self._scene_names():
            try:
                entries = set(os.listdir(self.place / name))  # noqa: PTH208 - speed
            except OSError:  # somebody else's folder that we may not read, or just removed
                continue
            item = f"{name}.json"
            record: dict[str, Any] = {}
            if item in entries:
                stamp = _stamp(os.stat(f"{self.place}/{name}/{item}"))  # noqa: PTH116 - speed
                if index.get(name, ("",))[0] == stamp:
                    record = index[name][1]
                else:
                    record = _read_record(self.item_path(name))
                    if record:
                        found.changed[name] = (stamp, record)
            key = record.get("uniadrs:key")
            if key in entries:
                found.products[name] = record
            self._note_versions(found, name, entries - {key})
        found.gone = index.keys() - found.products.keys()
        return found

    def _note_versions(self, found: Survey, name: str, entries: set[str]) -> None:
        for entry in entries:
            match = PART.fullmatch(entry)
            if match:
                found.versions.setdefault(name, []).append(match[1])
            elif KEY.fullmatch(entry):
                found.versions.setdefault(name, []).append(entry)
                if (self.place / name / entry / STAGED_ITEM).exists():
                    found.finished.setdefault(name, []).append(entry)

    def tidy(self, found: Survey, wanted: Mapping[str, str]) -> list[str]:
        """Finish what a killed sweep had finished but for a rename, remove what nobody resumes."""
        published = [n for n, key in wanted.items() if key in found.finished.get(n, [])]
        for name in published:
            found.products[name] = self._finish(name, wanted[name])
        for name in found.versions:
            current = found.products.get(name, {}).get("uniadrs:key")
            for path in self._scene_versions(name):
                key = (PART.fullmatch(path.name) or KEY.fullmatch(path.name) or [""])[0]
                if key == current or (path.name == f".{wanted.get(name)}.part"):
                    continue
                self._remove_version(path)
            self._remove_if_empty(name)
        return published

    def discard(self, name: str) -> None:
        """Remove what was begun for ``name``; its product, if any, stays."""
        for path in self._scene_versions(name):
            if PART.fullmatch(path.name):
                self._remove_version(path)
        self._remove_if_empty(name)

    def remove(self, name: str) -> None:
        """Remove the product of ``name``: the item first, then what it named."""
        self.item_path(name).unlink(missing_ok=True)
        for path in self._scene_versions(name):
            self._remove_version(path)
        self._remove_if_empty(name)

    def write_text(self, relative: str, text: str) -> None:
        """``relative`` holds ``text``, whole; untouched where it does already."""
        path = self.place / relative
        # Mirrors and caches see by its time whether a file has changed.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text.encode())

    def has(self, relative: str) -> bool:
        """True where there is such a file."""
        return (self.place / relative).exists()

    def _scene_names(self) -> list[str]:
        if not self.place.is_dir():
            return []
        with os.scandir(self.place) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )

    def _scene_versions(self, name: str) -> list[Path]:
        folder = self.place / name
        if not folder.is_dir() or folder.is_symlink():
            return []
        return [
            path
            for path in folder.iterdir()
            if (KEY.fullmatch(path.name) or PART.fullmatch(path.name))
            and path.is_dir()
            and not path.is_symlink()
        ]

    def _remove_version(self, path: Path) -> None:
        """Remove a version's folder; what somebody else put into a finished one stays."""
        if PART.fullmatch(path.name):
            shutil.rmtree(path)
            return
        for made in MADE:
            place = path / made
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)
        if not any(path.iterdir()):
            path.rmdir()

    def _remove_if_empty(self, name: str) -> None:
        folder = self.place / name
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def _read_record(path: Path) -> dict[str, Any]:
    """The record of an item; empty where the file is no item of a sweep."""
    try:
        return record_of(path.read_bytes())
    except OSError:
        return {}
