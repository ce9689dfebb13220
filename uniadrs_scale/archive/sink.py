"""Where products go: a folder or a bucket, behind one interface.

    SINK/collection.json              the STAC collection
    SINK/NAME/NAME.json               the scene's STAC item: written last, it *is* the product
    SINK/NAME/KEY/                    scores.tif, scores.zarr, quicklook.png, run.json
    SINK/.sweep/                      lock and ledger

KEY is the product's fingerprint. Neither a folder nor a prefix can be exchanged for another in one
step, a file and an object can: so a new version lies beside the old one, and the moment its item
replaces the old item it is the product. Readers never see half of one and half of the other.
Rejected: a fixed folder that is renamed away and back, which leaves a moment, or a killed sweep,
without a product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from uniadrs_scale.archive.bucket_sink import BucketSink
from uniadrs_scale.archive.folder_sink import FolderSink

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from uniadrs_scale.archive.layout import Survey, Workplace
    from uniadrs_scale.archive.ledger import Index, Ledger
    from uniadrs_scale.storage.places import Place


class Sink(Protocol):
    """A place of products. Only the owner of its lock calls what writes."""

    @property
    def place(self) -> Path | str:
        """The folder, or the URL of the prefix."""

    def exists(self) -> bool:
        """True where a sweep has been at work."""

    def ledger(self) -> AbstractContextManager[Ledger]:
        """The open ledger, for reading."""

    def amending(self) -> AbstractContextManager[Ledger]:
        """The open ledger, to change what a sweep has written.

        Raises:
            BusyError: A sweep holds the sink, and its ledger cannot be shared.
        """

    def locked(self) -> AbstractContextManager[Ledger]:
        """Hold the sink and its open ledger; both are made where there are none.

        Raises:
            BusyError: Another sweep holds it.
        """

    def is_busy(self) -> bool:
        """True while a sweep holds the sink."""

    def workplace(self, name: str, key: str) -> AbstractContextManager[Workplace]:
        """Where to make a product; may hold what an earlier sweep began.

        Raises:
            StoreError: Something else is in its place.
        """

    def publish(self, name: str, key: str, workplace: Workplace) -> None:
        """Make what was made the product of ``name``. A kill on the way is finished by `tidy`."""

    def survey(self, index: Index) -> Survey:
        """Look at everything; items are read only where ``index`` does not know them."""

    def tidy(self, found: Survey, wanted: Mapping[str, str]) -> list[str]:
        """Finish what a killed sweep had all but finished, remove what nobody resumes.

        Args:
            found: What lies in the sink.
            wanted: Keys of the products that are to be made, by name.

        Returns:
            Names of products that are there now.
        """

    def discard(self, name: str) -> None:
        """Remove what was begun for ``name``; its product, if any, stays."""

    def remove(self, name: str) -> None:
        """Remove the product of ``name``: the item first, then what it named."""

    def write_text(self, relative: str, text: str) -> None:
        """``relative`` holds ``text``, whole; untouched where it does already."""

    def has(self, relative: str) -> bool:
        """True where there is such a file or object."""


def open_sink(place: Place) -> Sink:
    """The sink at ``place``; touches nothing."""
    return BucketSink(place.text) if place.local is None else FolderSink(place.local)
