"""A sink in a bucket: products come in by their item, which is one PUT.

There is no rename, so a product is made where it will be: workers write ``NAME/KEY/scores.zarr``,
everything else is made in a temporary folder and sent, ``item.json`` last. Until ``NAME/NAME.json``
names KEY, nobody looks there. One listing tells the whole state: ETags of items say which ones the
index does not know.
"""

from __future__ import annotations

import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniadrs_scale.archive.bucket_ledger import NAMES, BucketLedger
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
from uniadrs_scale.archive.ledger import MAIN
from uniadrs_scale.storage import buckets
from uniadrs_scale.storage.locks import is_held, owned
from uniadrs_scale.storage.places import ROOT, Place

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from uniadrs_scale.archive.ledger import Index, Ledger


LOCKS = re.compile(rf"{re.escape(STORE)}\.lock(\.[0-9a-f]{{8}}\.now)?")
"""What runs leave beside a store when they are killed. The lock of the sink covers them."""
SHARE = 500
"""Items that are listed at a time: about two requests, for COGs."""
MAPS = ("scores.tif", "quicklook.png", "run.json")
GEOJSON = "application/geo+json"


@dataclass(frozen=True, slots=True)
class BucketSink:
    """A prefix of products; see :class:`uniadrs_scale.archive.sink.Sink`."""

    place: str
    """URL, without a slash at its end."""

    @property
    def state(self) -> str:
        """What sweeps remember."""
        return f"{self.place}/{STATE}"

    def exists(self) -> bool:
        """True where a sweep has been at work."""
        return buckets.exists(f"{self.state}/{NAMES[MAIN]}")

    def ledger(self) -> Ledger:
        """The open ledger, for reading."""
        return BucketLedger(self.state)

    @contextmanager
    def locked(self) -> Iterator[Ledger]:
        """Hold the sink by a lease, and its ledger."""
        with owned(self.place, lock=f"{self.state}/lock"), self.ledger() as ledger:
            yield ledger

    # Two writers would be told apart by the fence, and one of them ended.
    amending = locked

    def is_busy(self) -> bool:
        """True while a sweep holds the sink."""
        return is_held(f"{self.state}/lock")

    @contextmanager
    def workplace(self, name: str, key: str) -> Iterator[Workplace]:
        """The store in its final place, and a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="uniadrs-scale-") as folder:
            yield Workplace(Place(f"{self._version(name, key)}/{STORE}"), Path(folder))

    def publish(self, name: str, key: str, workplace: Workplace) -> None:
        """Send what was made and make it the product of ``name``."""
        buckets.upload(workplace.files, self._version(name, key), last=STAGED_ITEM)
        self._finish(name, key)

    def _finish(self, name: str, key: str) -> dict[str, Any]:
        """Make the whole version the product; its record. May be done again after a kill.

        The PUT is the moment. What it leaves to be removed, `tidy` would remove as strays.
        """
        staged = f"{self._version(name, key)}/{STAGED_ITEM}"
        content = buckets.read_object(staged) or b""
        record = record_of(content)
        buckets.write_object(self._item(name), content, media=GEOJSON)
        self._clear(name, key, keep=record["files"])
        for other in self._keys(name) - {key}:
            self._clear(name, other)
        return record

    def survey(self, index: Index) -> Survey:
        """One listing; items are read, several at a time, where the index does not know them."""
        items, parts = self._listing(sorted(index))
        known = {
            name: index[name][1] for name, stamp in items.items() if _is_in(index, name, stamp)
        }
        new = sorted(items.keys() - known.keys())
        with ThreadPoolExecutor(buckets.CONNECTIONS) as pool:
            contents = pool.map(buckets.read_object, map(self._item, new))
            read = {name: record_of(content) for name, content in zip(new, contents, strict=True)}
        found = Survey(changed={name: (items[name], read[name]) for name in new if read[name]})
        for name, versions in parts.items():
            record = known.get(name) or read.get(name) or {}
            for key, there in versions.items():
                if key == record.get("uniadrs:key"):
                    found.products[name] = record
                    # Not maps: whoever edits an item shall not lose what it named.
                    found.strays[name] = _ours(there - {*record["files"], *MAPS})
                    continue
                found.versions.setdefault(name, []).append(key)
                if STAGED_ITEM in there:
                    found.finished.setdefault(name, []).append(key)
        found.gone = index.keys() - found.products.keys()
        return found

    def _listing(
        self, names: Sequence[str]
    ) -> tuple[dict[str, str], dict[str, dict[str, set[str]]]]:
        """(ETag of each item by name, names of what is in each version by name and key).

        Args:
            names: Of items that are probably there, sorted: where the listing is cut into parts,
                as a server gives the next thousand keys only after the last.
        """
        edges = ["", *names[SHARE::SHARE], ""]
        with ThreadPoolExecutor(buckets.CONNECTIONS) as pool:
            listed = pool.map(self._between, edges[:-1], edges[1:])
        items: dict[str, str] = {}
        parts: dict[str, dict[str, set[str]]] = {}
        for path, meta in chain.from_iterable(listed):
            name, _, rest = path.partition("/")
            key, _, inner = rest.partition("/")
            if name.startswith("."):
                continue
            if rest == f"{name}.json":
                items[name] = f"{meta['size']}:{meta['e_tag'] or meta['last_modified']}"
            elif inner and KEY.fullmatch(key):
                parts.setdefault(name, {}).setdefault(key, set()).add(inner.partition("/")[0])
        return items, parts

    def _between(self, after: str, until: str) -> list[tuple[str, Mapping[str, Any]]]:
        return list(buckets.list_objects(self.place, skip=STORE, after=after, until=until))

    def tidy(self, found: Survey, wanted: Mapping[str, str]) -> list[str]:
        """Finish what a killed sweep had all but finished, remove what nobody resumes."""
        published = [n for n, key in wanted.items() if key in found.finished.get(n, [])]
        for name in published:
            found.products[name] = self._finish(name, wanted[name])
        for name, keys in found.versions.items():
            current = found.products.get(name, {}).get("uniadrs:key")
            for key in keys:
                if key != current:
                    # Of what is resumed only the store is of use.
                    self._clear(name, key, keep=(STORE,) if key == wanted.get(name) else ())
        for name, strays in found.strays.items():
            record = found.products[name]
            if strays and name not in published:
                self._clear(name, record["uniadrs:key"], keep={*record["files"], *MAPS})
        return published

    def discard(self, name: str) -> None:
        """Remove what was begun for ``name``; its product, if any, stays."""
        current = record_of(buckets.read_object(self._item(name))).get("uniadrs:key")
        for key in self._keys(name) - {current}:
            self._clear(name, key)

    def remove(self, name: str) -> None:
        """Remove the product of ``name``: the item first, then what it named."""
        buckets.remove_objects(f"{self.place}/{name}", [f"{name}.json"])
        for key in self._keys(name):
            self._clear(name, key)

    def write_text(self, relative: str, text: str) -> None:
        """``relative`` holds ``text``; untouched where it does already."""
        uri = f"{self.place}/{relative}"
        if buckets.read_object(uri) != text.encode():
            buckets.write_object(uri, text.encode())

    def has(self, relative: str) -> bool:
        """True where there is such an object."""
        return buckets.exists(f"{self.place}/{relative}")

    def _item(self, name: str) -> str:
        return f"{self.place}/{name}/{name}.json"

    def _version(self, name: str, key: str) -> str:
        return f"{self.place}/{name}/{key}"

    def _keys(self, name: str) -> set[str]:
        """Of the versions of ``name``."""
        found = buckets.list_objects(f"{self.place}/{name}", skip=STORE)
        return {key for path, _ in found if KEY.fullmatch(key := path.partition("/")[0])}

    def _clear(self, name: str, key: str, *, keep: Collection[str] = ()) -> None:
        """Remove what sweeps make from a version, but for ``keep``; what others put there stays."""
        place = self._version(name, key)
        listed = buckets.list_keys(place)
        parts = {*_ours({path.partition("/")[0] for path in listed})}.difference(keep)
        going = [path for path in listed if path.partition("/")[0] in parts]
        # Without its root nothing is a store: never half of one.
        root = f"{STORE}/{ROOT}"
        if root in going:
            buckets.remove_objects(place, [root])
            going.remove(root)
        buckets.remove_objects(place, going)


def _ours(parts: set[str]) -> list[str]:
    return sorted(part for part in parts if part in MADE or LOCKS.fullmatch(part))


def _is_in(index: Index, name: str, stamp: str) -> bool:
    return index.get(name, ("",))[0] == stamp
