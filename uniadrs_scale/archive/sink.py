"""The sink of products: a folder, or a prefix in a bucket.

    SINK/collection.json              the STAC collection
    SINK/NAME/NAME.json               the scene's STAC item: written last, it *is* the product
    SINK/NAME/KEY/                    scores.tif, scores.zarr, quicklook.png, run.json
    SINK/.sweep/                      lock and ledger

KEY is the product's fingerprint. A new version is made next to the old one, and it is the product
from the moment its item replaces the old item. Readers never see half of one and half of the other.

Workers write ``NAME/KEY/scores.zarr``, which the next sweep resumes. All other files are made in a
temporary folder and moved there, ``item.json`` last.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uniadrs_scale.archive.exports import PRODUCT_EXPORTS
from uniadrs_scale.archive.ledger import LEDGER, Ledger
from uniadrs_scale.archive.listing import Survey, list_files, record_of
from uniadrs_scale.errors import BusyError, StoreError
from uniadrs_scale.storage import buckets
from uniadrs_scale.storage.locks import exclusive, is_held
from uniadrs_scale.storage.trust import require_no_links

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from uniadrs_scale.archive.ledger import Index
    from uniadrs_scale.storage.places import Place

KEY = re.compile(r"[0-9a-f]{16}")
"""Names of versions: the fingerprint of a product."""
STORE = "scores.zarr"
ITEM = "item.json"
"""Next to the files of a version that is whole, until it is the scene's product."""
MAPS = (*(export.file for export in PRODUCT_EXPORTS.values()), "run.json")
NAMES = "|".join(map(re.escape, (STORE, ITEM, *MAPS)))
MADE = re.compile(rf"\.?({NAMES})(\.lock(\.[0-9a-f]{{8}}\.now)?|\.(\w+\.)?tmp)?")
"""All that sweeps put into a version, also under temporary names; nothing else is removed."""
UNFINISHED = re.compile(r"\.([0-9a-f]{16}\.(part|[0-9a-f]{8}\.tmp)|.+\.json\.tmp)")
"""Leftovers of a killed sweep next to versions; ``.part`` is of version 0.1."""
COLLECTION = "collection.json"
GEOJSON = "application/geo+json"
FORM = "2"
"""Form of the records in the index: with another one, items are read again."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """The places where one product is made."""

    store: Place
    """The Zarr store, which all workers must see."""
    files: Path
    """A local folder for COG, picture, report and item."""


@dataclass(frozen=True, slots=True)
class Sink:
    """A place of products. Only the owner of its lock calls methods that write."""

    place: Place

    @property
    def state(self) -> Place:
        """The folder of lock and ledger."""
        return self.place.child(".sweep")

    def exists(self) -> bool:
        """Return True if a sweep has written here."""
        return self.state.child(LEDGER).exists()

    def ledger(self) -> Ledger:
        """Open the ledger, for reading."""
        require_no_links(self.state)
        return Ledger(self.state)

    def amending(self) -> AbstractContextManager[Ledger]:
        """Open the ledger to change what a sweep has written.

        Raises:
            BusyError: A sweep holds the sink, and its ledger cannot be shared.
        """
        return self.ledger() if self.place.local else self.locked()

    @contextmanager
    def locked(self) -> Iterator[Ledger]:
        """Hold the sink, and open its ledger; make what is missing.

        Raises:
            BusyError: Another sweep holds it.
        """
        self.state.make_folder()
        require_no_links(self.state)
        with ExitStack() as stack:
            try:
                stack.enter_context(exclusive(self.state.child("lock"), self.place))
            except BusyError as error:
                if self.place.local is None:
                    raise
                with self.ledger() as ledger:
                    owners = [f" It is {run['owner']}." for run in ledger.runs(1)]
                raise BusyError(f"{error}{''.join(owners)}") from None
            yield stack.enter_context(self.ledger())

    def is_busy(self) -> bool:
        """Return True while a sweep holds the sink."""
        return is_held(self.state.child("lock"))

    @contextmanager
    def workplace(self, name: str, key: str) -> Iterator[Workplace]:
        """Yield where to make a product; the store may be one that an earlier sweep began.

        Raises:
            StoreError: Something else has the name.
        """
        scene, version = self.place.child(name), self._version(name, key)
        folders = [place for place in (version, scene) if place.local]
        for folder in reversed(folders):
            folder.make_folder()
        require_no_links(version)
        try:
            with version.scratch() as files:
                yield Workplace(version.child(STORE), files)
        finally:
            with suppress(StoreError):
                for folder in folders:  # they go if they are empty
                    folder.clear(lambda _: False)

    def publish(self, name: str, key: str, workplace: Workplace) -> None:
        """Make the finished files the product of ``name``; after a kill, :meth:`tidy` goes on."""
        self._version(name, key).receive(workplace.files, last=ITEM)
        self._finish(name, key)

    def _finish(self, name: str, key: str) -> dict[str, Any]:
        """Make a whole version the product; return its record, empty if it has no usable item.

        Writing the item is the moment of change. May be done again after a kill.
        """
        content = self._version(name, key).child(ITEM).read() or b""
        record = record_of(content)
        if record:
            self._item(name).write(content, media=GEOJSON)
            self._clear(name, key, keep=record["files"])
            for other in self._keys(name) - {key}:
                self._clear(name, other)
        return record

    def survey(self, index: Index) -> Survey:
        """Look at everything; read an item only if ``index`` does not have it in this state."""
        found, items = self._listing(sorted(index))
        new = sorted(n for n, stamp in items.items() if n not in index or index[n][0] != stamp)
        records = {name: index[name][1] for name in items.keys() - set(new)}
        with ThreadPoolExecutor(buckets.CONNECTIONS) as pool:
            contents = list(pool.map(lambda name: self._item(name).read(), new))
        pairs = zip(new, contents, strict=True)
        records |= {name: record_of(content) for name, content in pairs if content is not None}
        for name, record in sorted(records.items()):
            found.add(name, record)
        found.changed = {n: (items[n], records[n]) for n in new if n in found.products}
        found.gone = index.keys() - found.products.keys()
        return found

    def _listing(self, known: list[str]) -> tuple[Survey, dict[str, str]]:
        """(versions in the sink, stamp of each item by name)."""
        found, items = Survey(), dict[str, str]()
        for path, stamp in list_files(self.place, STORE, known):
            name, _, rest = path.partition("/")
            key, _, inner = rest.partition("/")
            if name.startswith("."):
                continue
            if rest == f"{name}.json":
                items[name] = f"{FORM}:{stamp()}"
            elif KEY.fullmatch(key):
                parts = found.versions.setdefault(name, {}).setdefault(key, {})
                parts.setdefault(inner.partition("/")[0], stamp)
            elif UNFINISHED.fullmatch(key):
                found.unfinished.add(name)
        return found, items

    def tidy(self, found: Survey, wanted: Mapping[str, str]) -> list[str]:
        """Finish what a killed sweep had all but finished, remove what no sweep resumes.

        Args:
            found: The content of the sink.
            wanted: Keys of the products that are to be made, by name.

        Returns:
            Names of products that are there now.
        """
        published = []
        for name, versions in found.versions.items():
            key = wanted.get(name, "")
            if ITEM in versions.get(key, ()) and (record := self._finish(name, key)):
                found.products[name] = record
                published.append(name)
                continue
            default = found.damaged.get(name, ("", {"uniadrs:key": ""}))[1]
            product = found.products.get(name, default)
            for other, parts in versions.items() if product else ():
                keep = {STORE} if other == key else set()
                if other == product["uniadrs:key"]:
                    # Not maps: if a user edits an item, what it named must stay.
                    keep |= {*product["files"], *MAPS}
                elif not keep:
                    found.unfinished.add(name)
                if not keep or _made(parts, keep):
                    self._clear(name, other, keep=keep)
        for name in found.unfinished:
            self._clear_scene(name)
        return published

    def discard(self, name: str) -> None:
        """Remove what was begun for ``name``; its product, if any, stays."""
        content = self._item(name).read()
        record = record_of(content)
        unclear = content is not None and not record  # which files it named cannot be told
        for key in self._keys(name) - {record.get("uniadrs:key")} if not unclear else ():
            self._clear(name, key)
        self._clear_scene(name)

    def remove(self, name: str) -> None:
        """Remove the product of ``name``: the item first, then what it named."""
        self._item(name).remove()
        for key in self._keys(name):
            self._clear(name, key)
        self._clear_scene(name)

    def adopt(self, found: Survey, collection: str) -> list[str]:
        """Let all items name this collection, whose id may be new; return who named another."""
        moved = [name for name, r in found.products.items() if r["collection"] != collection]
        for name in moved:
            item = json.loads(self._item(name).read() or b"{}") | {"collection": collection}
            self._item(name).write(json.dumps(item, indent=1).encode(), media=GEOJSON)
        return moved

    def write_text(self, name: str, text: str) -> None:
        """Write ``text`` to the file ``name``, unless it has this text already.

        Mirrors and caches go by the time of a file.
        """
        if self.place.child(name).read() != text.encode():
            self.place.child(name).write(text.encode())

    def _item(self, name: str) -> Place:
        return self.place.child(name, f"{name}.json")

    def _version(self, name: str, key: str) -> Place:
        return self.place.child(name, key)

    def _keys(self, name: str) -> set[str]:
        """Return the keys of the versions of ``name``."""
        listed = list_files(self.place.child(name), STORE, levels=2)
        return {key for path, _ in listed if KEY.fullmatch(key := path.partition("/")[0])}

    def _clear(self, name: str, key: str, *, keep: Collection[str] = ()) -> None:
        """Remove all files from a version that sweeps make, except ``keep``."""
        self._version(name, key).clear(lambda part: bool(_made({part}, keep)))

    def _clear_scene(self, name: str) -> None:
        """Remove what a killed sweep left next to versions, and an empty folder."""
        self.place.child(name).clear(lambda part: bool(UNFINISHED.fullmatch(part)))


def _made(parts: Collection[str], keep: Collection[str]) -> list[str]:
    """Return the names of files that sweeps make, except ``keep``."""
    return [part for part in parts if part not in keep and MADE.fullmatch(part)]
