"""What sweeps remember beside the products: tries, runs, and an index of the items in the sink.

An SQLite file, so that a kill at any moment leaves it whole and `status` can read while a sweep
writes. Losing it loses counts of tries, nothing else: the truth about products is their items.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Self

from uniadrs_scale.archive.decide import Tries
from uniadrs_scale.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS tries (
    name TEXT PRIMARY KEY, key TEXT NOT NULL, failures INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '',
    running INTEGER NOT NULL DEFAULT 0, parked INTEGER NOT NULL DEFAULT 0, time REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, started REAL NOT NULL, seen REAL NOT NULL, owner TEXT NOT NULL,
    state TEXT NOT NULL, facts TEXT NOT NULL
);
PRAGMA user_version = 1;
COMMIT;
"""
PRODUCTS = "products (name TEXT PRIMARY KEY, stamp TEXT NOT NULL, record TEXT NOT NULL)"
VERSION = 1
PATIENCE = 30
"""Seconds to wait for another process that writes."""
MOST_RUNS = 1000
"""Sweeps that are remembered: three years of nights."""
MAIN = "main"
"""What SQLite calls the database of a file."""


class Ledger:
    """One open ledger; its methods may be called from several threads.

    Args:
        database: Open, and not bound to a thread.
        name: For people.
        index: Schema of the table of products.

    Raises:
        StoreError: The database is damaged, or of a newer version of this library.
    """

    def __init__(self, database: sqlite3.Connection, name: str, index: str = MAIN) -> None:
        self.name, self._index = name, index
        self._lock = threading.Lock()
        self._database = database
        try:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                database.executescript(SCHEMA)
            if not database.execute(f"PRAGMA {index}.table_info(products)").fetchall():
                database.execute(f"CREATE TABLE {index}.{PRODUCTS}")
        except sqlite3.Error as error:
            raise _damaged(name, error) from None
        if version > VERSION:
            raise StoreError(f"Ledger '{name}' was written by a newer version. Update this one.")

    @classmethod
    def at(cls, path: Path) -> Self:
        """The ledger in a file; made where there is none."""
        try:
            database = sqlite3.connect(
                path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise _damaged(str(path), error) from None
        return cls(database, str(path))

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
        with self._transaction(MAIN) as database:
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
        with self._transaction(MAIN) as database:
            rows = database.execute("SELECT name FROM tries WHERE parked ORDER BY name").fetchall()
            chosen = [name for (name,) in rows if not wanted or name in wanted]
            database.executemany("DELETE FROM tries WHERE name = ?", [(name,) for name in chosen])
        return chosen

    def troubles(self) -> list[dict[str, Any]]:
        """Scenes with failures, the last first."""
        names = ("name", "failures", "interruptions", "error", "parked", "time")
        rows = self._rows(
            f"SELECT {', '.join(names)} FROM tries WHERE failures OR parked "  # noqa: S608
            "ORDER BY parked, time DESC"
        )
        return [dict(zip(names, row, strict=True)) | {"parked": bool(row[4])} for row in rows]

    def products(self) -> Index:
        """The items as last seen."""
        rows = self._rows("SELECT name, stamp, record FROM products")
        return {name: (stamp, json.loads(record)) for name, stamp, record in rows}

    def index(self, changed: Index, gone: Iterable[str] = ()) -> None:
        """Bring the index of products up to date."""
        rows = [(name, stamp, json.dumps(record)) for name, (stamp, record) in changed.items()]
        names = [(name,) for name in gone]
        if not (rows or names):
            return
        with self._transaction(self._index) as database:
            database.executemany("INSERT OR REPLACE INTO products VALUES (?, ?, ?)", rows)
            database.executemany("DELETE FROM products WHERE name = ?", names)

    def product_count(self) -> int:
        """Number of products in the index."""
        return int(self._rows("SELECT count(*) FROM products")[0][0])

    def start_run(self, owner: str, facts: Mapping[str, Any]) -> int:
        """A sweep begins; its number."""
        now = time.time()
        with self._transaction(MAIN) as database:
            # Whoever holds the lock knows that no other sweep runs.
            database.execute("UPDATE runs SET state = 'killed' WHERE state = 'running'")
            number = database.execute(
                "INSERT INTO runs (started, seen, owner, state, facts) "
                "VALUES (?, ?, ?, 'running', ?)",
                (now, now, owner, json.dumps(facts)),
            ).lastrowid
            database.execute("DELETE FROM runs WHERE id <= ?", (int(number or 0) - MOST_RUNS,))
        return int(number or 0)

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
        with self._transaction(MAIN) as database:
            database.execute(query, values)

    @contextmanager
    def _transaction(self, schema: str) -> Iterator[sqlite3.Connection]:
        """Everything that is written in here, or nothing; then it is kept."""
        with self._lock, self._database as database:
            database.execute("BEGIN IMMEDIATE")
            yield database
        self._keep(schema)

    def _keep(self, schema: str) -> None:
        """Called after each change of a schema: SQLite has written the file."""


def _damaged(name: str, error: sqlite3.Error) -> StoreError:
    return StoreError(
        f"Ledger '{name}' cannot be opened: {error}. If it is damaged, remove it: products stay "
        "known by their items, and only counts of tries are lost."
    )


Index = dict[str, tuple[str, dict[str, Any]]]
"""(stamp, record) of the items that were seen before, by name."""
