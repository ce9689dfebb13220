"""The folder of products, and how one gets there whole.

    FOLDER/collection.json              the STAC collection
    FOLDER/NAME/NAME.json               the scene's STAC item: written last, it *is* the product
    FOLDER/NAME/KEY/                    scores.tif, scores.zarr, quicklook.png, run.json
    FOLDER/NAME/.KEY.part/              a product being made; a later sweep resumes it
    FOLDER/.sweep/                      lock and ledger

KEY is the product's fingerprint. A folder cannot be exchanged for another in one step, a file can:
so a new version lies beside the old one, and the moment its item replaces the old item it is the
product. Readers never see half of one and half of the other. Rejected: a fixed folder that is
renamed away and back, which leaves a moment, or a killed sweep, without a product.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from uniadrs_scale.archive.ledger import Ledger
from uniadrs_scale.errors import BusyError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

KEY = re.compile(r"[0-9a-f]{16}")
PART = re.compile(r"\.([0-9a-f]{16})\.part")
STAGED_ITEM = "item.json"
MADE = ("scores.tif", "scores.zarr", "quicklook.png", "run.json", STAGED_ITEM)
"""All that a version's folder ever holds; nothing else is removed from it."""
RECORD = ("uniadrs:key", "uniadrs:parts", "uniadrs:highest_score", "datetime", "created")
"""Properties of an item that the index holds."""


@dataclass(slots=True)
class Survey:
    """What lies in the sink."""

    products: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Records of whole products by name: RECORD, ``bbox``."""
    versions: dict[str, list[str]] = field(default_factory=dict)
    """Keys of folders without an item, by name: begun or left over."""
    finished: dict[str, list[str]] = field(default_factory=dict)
    """Of these, the whole ones: their sweep was killed one step before the end."""


class Sink:
    """A folder of products."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / ".sweep"

    def ledger(self) -> Ledger:
        """The open ledger; made where there is none."""
        try:
            self.state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"Cannot write to '{self.folder}': {error.strerror}. Choose a writable folder."
            ) from None
        return Ledger(self.state / "ledger.sqlite")

    @contextmanager
    def locked(self, ledger: Ledger) -> Iterator[None]:
        """Hold the sink. The lock is the kernel's, so it dies with its process.

        Raises:
            BusyError: Another sweep holds it.
        """
        # A second's patience: `status` looks at the lock, too.
        lock = FileLock(self.state / "lock", timeout=1)
        try:
            lock.acquire()
        except Timeout:
            runs = ledger.runs(1)
            owner = f" ({runs[0]['owner']})" if runs else ""
            raise BusyError(
                f"Another sweep{owner} writes to '{self.folder}': one at a time. Wait for it."
            ) from None
        try:
            yield
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
        return self.folder / name / f"{name}.json"

    def part(self, name: str, key: str) -> Path:
        """The folder in which a product is made; it need not exist yet.

        Raises:
            StoreError: Something else is in its place.
        """
        scene = self.folder / name
        if scene.is_symlink() or (scene.exists() and not scene.is_dir()):
            raise StoreError(f"'{scene}' is in the way: it is no folder. Move it elsewhere.")
        return scene / f".{key}.part"

    def publish(self, name: str, key: str) -> dict[str, Any]:
        """Make the finished ``.KEY.part`` (or ``KEY``) the product of ``name``; its record.

        Two renames, the last of them the moment of change; a kill in between is finished by the
        next sweep.
        """
        part, version = self.folder / name / f".{key}.part", self.folder / name / key
        if part.exists():
            if version.exists():
                shutil.rmtree(version)
            part.replace(version)
        target = self.item_path(name)
        (version / STAGED_ITEM).replace(target)
        record = _read_item(target)
        for other in self._scene_versions(name):
            if other.name != key:
                self._remove_version(other)
        return record

    def survey(self, ledger: Ledger | None) -> Survey:
        """Look at every scene's folder; items are read only where the index does not know them."""
        index = ledger.products() if ledger is not None else {}
        found, changed = Survey(), {}
        for name in self._scene_names():
            try:
                entries = set(os.listdir(self.folder / name))  # noqa: PTH208 - speed
            except OSError:  # somebody else's folder that we may not read, or just removed
                continue
            item = f"{name}.json"
            record: dict[str, Any] | None = None
            if item in entries:
                stamp = _stamp(os.stat(f"{self.folder}/{name}/{item}"))  # noqa: PTH116 - speed
                if index.get(name, ("",))[0] == stamp:
                    record = index[name][1]
                else:
                    record = _read_item(self.item_path(name))
                    if record:
                        changed[name] = (stamp, record)
            key = record.get("uniadrs:key") if record else None
            if record and key in entries:
                found.products[name] = record
            self._note_versions(found, name, entries - {key})
        if ledger is not None:
            ledger.index(changed, gone=index.keys() - found.products.keys())
        return found

    def _note_versions(self, found: Survey, name: str, entries: set[str]) -> None:
        for entry in entries:
            match = PART.fullmatch(entry)
            if match:
                found.versions.setdefault(name, []).append(match[1])
            elif KEY.fullmatch(entry):
                found.versions.setdefault(name, []).append(entry)
                if (self.folder / name / entry / STAGED_ITEM).exists():
                    found.finished.setdefault(name, []).append(entry)

    def tidy(self, found: Survey, wanted: Mapping[str, str]) -> list[str]:
        """Finish what a killed sweep had finished but for a rename, remove what nobody resumes.

        Args:
            found: What lies in the sink.
            wanted: Keys of the products that are to be made, by name.

        Returns:
            Names of products that are there now.
        """
        published = [n for n, key in wanted.items() if key in found.finished.get(n, [])]
        for name in published:
            found.products[name] = self.publish(name, wanted[name])
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

    def _scene_names(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        with os.scandir(self.folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )

    def _scene_versions(self, name: str) -> list[Path]:
        folder = self.folder / name
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
        folder = self.folder / name
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def owner() -> str:
    """This process, for people."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def item_stamp(path: Path) -> str:
    """What changes when the file at ``path`` is replaced."""
    return _stamp(path.stat())


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def _read_item(path: Path) -> dict[str, Any]:
    """The record of an item; empty where the file is no item of a sweep."""
    try:
        item = json.loads(path.read_bytes())
        record = {name: item["properties"][name] for name in RECORD}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return record | {"bbox": item.get("bbox")}
