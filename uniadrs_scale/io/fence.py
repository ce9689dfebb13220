"""An object in a bucket that one process at a time may replace.

Every write is conditional on the object being as this process read or wrote it last. So whoever was
cut off for longer than its lease (:mod:`uniadrs_scale.io.lease`), and was succeeded, finds out at
its next write, and does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from uniadrs_scale.errors import BusyError
from uniadrs_scale.io.connections import bucket_of, mark_of, obstore_library, translated


@dataclass(slots=True)
class FencedObject:
    """An object as this process knows it; not for several threads at once."""

    uri: str
    mark: dict[str, str]
    """What tells it from any other; empty where there is none."""

    @classmethod
    def read(cls, uri: str) -> tuple[FencedObject, bytes | None]:
        """The object and what it holds; None where there is none.

        Raises:
            StoreError: It cannot be read.
        """
        store, key = bucket_of(uri)
        with translated("read", uri):
            try:
                answer = obstore_library().get(store, key)
                return cls(uri, mark_of(answer.meta)), bytes(answer.bytes())
            except FileNotFoundError:
                return cls(uri, {}), None

    def write(self, content: bytes) -> None:
        """Replace what it holds.

        Raises:
            BusyError: Somebody else has written it since.
            StoreError: It cannot be written.
        """
        obstore = obstore_library()
        store, key = bucket_of(self.uri)
        mode: Any = self.mark or "create"
        refused = (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError)
        with translated("write", self.uri):
            try:
                self.mark = mark_of(obstore.put(store, key, content, mode=mode))
            except refused:
                # Of a write whose answer was lost, the repetition is refused.
                there, found = FencedObject.read(self.uri)
                if found != content:
                    raise BusyError(
                        f"Another sweep has written '{self.uri}' meanwhile: this one was cut off "
                        "for longer than its lease, and ends."
                    ) from None
                self.mark = there.mark
