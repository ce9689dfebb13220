"""What sweeps remember beside the products: tries, runs, and an index of the items in the sink.

An SQLite file, so that a kill at any moment leaves it whole and `status` can read while a sweep
writes. Losing it loses counts of tries, nothing else: the truth about products is their items.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

from uniadrs_scale.archive.reconcile import Tries
from uniadrs_scale.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS tries (
    name TEXT PRIMARY KEY, key TEXT NOT NULL, failures INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '',
    running INTEGER NOT NULL DEFAULT 0, parked INTEGER NOT NULL DEFAULT 0, time REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS products (
    name TEXT PRIMARY KEY, stamp TEXT NOT NULL, record TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, started REAL NOT NULL, seen REAL NOT NULL, owner TEXT NOT NULL,
    state TEXT NOT NULL, facts TEXT NOT NULL
);
PRAGMA user_version = 1;
COMMIT;
"""
VERSION = 1
PATIENCE = 30
"""Seconds to wait for another process that writes."""


class Ledger:
    """One open ledger; its methods may be called from several threads.

    Raises:
        StoreError: The file is damaged, or of a newer version of this library.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(
                path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._database.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise StoreError(
                f"Ledger '{path}' cannot be opened: {error}. If it is damaged, remove it: products "
                "stay known by their items, and only counts of tries are lost."
            ) from None
        if version > VERSION:
            raise StoreError(f"Ledger '{path}' was written by a newer version. Update this one.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def tries(self) -> dict[str, Tries]:
        """By name; a try that nobody ended counts as an interruption."""
        rows = self._rows("SELECT name, key, failures, interruptions + running, error FROM tries")
        return {
            name: Tries(key=key, failures=failures, interruptions=interruptions, error=error)
            for name, key, failures, interruptions, error in rows
        }

    def begin(self, name: str, key: str) -> None:
        """A try of ``name`` begins; written before the scene is touched."""
        self._write(
            "INSERT INTO tries (name, key, running, time) VALUES (?, ?, 1, ?) "
            "ON CONFLICT (name) DO UPDATE SET time = excluded.time, "
            "failures = iif(key = excluded.key, failures, 0), "
            "interruptions = iif(key = excluded.key, interruptions + running, 0), "
            "error = iif(key = excluded.key, error, ''), "
            "running = 1, parked = 0, key = excluded.key",
            (name, key, time.time()),
        )

    def fail(self, name: str, error: str, *, parked: bool) -> None:
        """The try has failed."""
        self._write(
            "UPDATE tries SET running = 0, failures = failures + 1, error = ?, parked = ?, time = ?"
            " WHERE name = ?",
            (error, int(parked), time.time(), name),
        )

    def release(self, name: str) -> None:
        """The try was stopped on purpose: as if it had never begun."""
        self._write("UPDATE tries SET running = 0 WHERE name = ?", (name,))

    def succeed(self, name: str) -> None:
        """The scene has its product."""
        self._write("DELETE FROM tries WHERE name = ?", (name,))

    def settle(self, names: Iterable[str], parked: Iterable[str]) -> None:
        """Forget tries of items that are not in ``names``; just those of ``parked`` are parked."""
        known, given_up = set(names), set(parked)
        with self._lock, self._database as database:
            database.execute("BEGIN IMMEDIATE")
            for (name,) in database.execute("SELECT name FROM tries").fetchall():
                if name not in known:
                    database.execute("DELETE FROM tries WHERE name = ?", (name,))
                else:
                    database.execute(
                        "UPDATE tries SET parked = ? WHERE name = ?", (name in given_up, name)
                    )

    def unpark(self, names: Iterable[str] = ()) -> list[str]:
        """Forget the tries of these parked scenes, or of all; their names."""
        wanted = set(names)
        parked = [row[0] for row in self._rows("SELECT name FROM tries WHERE parked ORDER BY name")]
        chosen = [name for name in parked if not wanted or name in wanted]
        for name in chosen:
            self._write("DELETE FROM tries WHERE name = ? AND parked", (name,))
        return chosen

    def troubles(self) -> list[dict[str, Any]]:
        """Scenes with failures, the last first."""
        names = ("name", "failures", "interruptions", "error", "parked", "time")
        rows = self._rows(
            f"SELECT {', '.join(names)} FROM tries WHERE failures OR parked "  # noqa: S608
            "ORDER BY parked, time DESC"
        )
        return [dict(zip(names, row, strict=True)) | {"parked": bool(row[4])} for row in rows]

    def products(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """(stamp, record) of each product's item as last seen, by name."""
        rows = self._rows("SELECT name, stamp, record FROM products")
        return {name: (stamp, json.loads(record)) for name, stamp, record in rows}

    def index(
        self, changed: Mapping[str, tuple[str, Mapping[str, Any]]], gone: Iterable[str] = ()
    ) -> None:
        """Bring the index of products up to date."""
        rows = [(name, stamp, json.dumps(record)) for name, (stamp, record) in changed.items()]
        with self._lock, self._database as database:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT OR REPLACE INTO products VALUES (?, ?, ?)", rows)
            database.executemany("DELETE FROM products WHERE name = ?", [(name,) for name in gone])

    def product_count(self) -> int:
        """Number of products in the index."""
        return int(self._rows("SELECT count(*) FROM products")[0][0])

    def start_run(self, owner: str, facts: Mapping[str, Any]) -> int:
        """A sweep begins; its number."""
        now = time.time()
        # Whoever holds the lock knows that no other sweep runs.
        self._write("UPDATE runs SET state = 'killed' WHERE state = 'running'")
        self._write(
            "INSERT INTO runs (started, seen, owner, state, facts) VALUES (?, ?, ?, 'running', ?)",
            (now, now, owner, json.dumps(facts)),
        )
        return int(self._rows("SELECT max(id) FROM runs")[0][0])

    def update_run(self, number: int, facts: Mapping[str, Any], state: str = "running") -> None:
        """What the sweep has done so far, and whether it runs, ended or was stopped."""
        self._write(
            "UPDATE runs SET seen = ?, state = ?, facts = ? WHERE id = ?",
            (time.time(), state, json.dumps(facts), number),
        )

    def runs(self, most: int = 10) -> list[dict[str, Any]]:
        """The latest sweeps, the last first."""
        names = ("started", "seen", "owner", "state")
        rows = self._rows(
            f"SELECT {', '.join(names)}, facts FROM runs ORDER BY id DESC LIMIT ?",  # noqa: S608
            (most,),
        )
        return [dict(zip(names, row[:4], strict=True)) | json.loads(row[4]) for row in rows]

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, closing(self._database.execute(query, values)) as cursor:
            return cursor.fetchall()

    def _write(self, query: str, values: tuple[Any, ...] = ()) -> None:
        with self._lock:
            self._database.execute(query, values)
