"""The ledger of a sink in a bucket: the same SQLite database, in memory, put after each change.

A PUT is atomic, so a kill leaves the ledger as it was before or after. The index of products, which
grows with the archive, is an object of its own, or each try would send it along. Writes are fenced
(:mod:`uniadrs_scale.io.fence`). Rejected: an object a scene, of which a sweep would have to read
each; and files on this machine, which the next sweep, elsewhere, does not have.
"""

from __future__ import annotations

import sqlite3
import threading

from uniadrs_scale.archive.ledger import MAIN, Ledger
from uniadrs_scale.storage.locks import FencedObject

INDEX = "products_index"
"""Schema of the second database."""
ATTACH = f"ATTACH ':memory:' AS {INDEX}"
NAMES = {MAIN: "ledger.sqlite", INDEX: "index.sqlite"}


class BucketLedger(Ledger):
    """One open ledger below a prefix. Opening and reading it write nothing.

    Args:
        state: URL of the prefix.

    Raises:
        StoreError: The bucket cannot be read, or the ledger is damaged.
    """

    def __init__(self, state: str) -> None:
        database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        database.execute(ATTACH)
        self._objects: dict[str, FencedObject] = {}
        for schema, name in NAMES.items():
            self._objects[schema], content = FencedObject.read(f"{state}/{name}")
            if content:
                database.deserialize(content, name=schema)
        try:
            database.execute(f"PRAGMA {INDEX}.user_version").fetchone()
        except sqlite3.Error:  # damaged: it is made again from the items
            database.execute(f"DETACH {INDEX}")
            database.execute(ATTACH)
        self._sending = threading.Lock()
        self._changes, self._sent = 0, dict.fromkeys(NAMES, 0)
        super().__init__(database, f"{state}/{NAMES[MAIN]}", index=INDEX)

    def _keep(self, schema: str) -> None:
        """Put the database; changes that other threads make meanwhile travel together."""
        with self._lock:
            self._changes += 1
            mine = self._changes
        with self._sending:
            if self._sent[schema] >= mine:
                return
            with self._lock:
                upto, content = self._changes, self._database.serialize(name=schema)
            self._objects[schema].write(content)
            self._sent[schema] = upto
