"""The memory of sweeps: tries, runs, and an index of the items in the sink.

Two SQLite databases. In a folder they are files, so that a kill at any moment leaves them whole and
`status` and `retry` can use them while a sweep writes. In a bucket they are objects that are held
in memory, and put after each change: a PUT is atomic, and fails if another process has put since
(:class:`.ConditionalObject`). The index grows with the archive, so it is an object of its
own, or each try would send it along. Losing the databases loses counts of tries, nothing else: the
truth about products is their items.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib import resources
from typing import TYPE_CHECKING, Any, Self

from uniadrs_scale.archive.decide import Tries
from uniadrs_scale.errors import StoreError
from uniadrs_scale.storage.clients import ConditionalObject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from uniadrs_scale.storage.places import Place

Index = dict[str, tuple[str, dict[str, Any]]]
"""(stamp, record) of the items as last seen, by name."""
MAIN, PRODUCTS = "main", "products_index"
"""Schemas of the two databases; the first one is SQLite's word."""
LEDGER = "ledger.sqlite"
NAMES = {MAIN: LEDGER, PRODUCTS: "index.sqlite"}
SCHEMA, INDEX_SCHEMA = (
    resources.files("uniadrs_scale.archive").joinpath(name).read_text("utf-8")
    for name in ("ledger.sql", "index.sql")
)
RESERVE = {
    MAIN: "DELETE FROM main.tries WHERE 0",
    PRODUCTS: "DELETE FROM products_index.products WHERE 0",
}
VERSION = 1
BUSY_SECONDS = 30
"""How long to wait for another process that writes."""
DISK = re.compile("SQLITE_(PERM|BUSY|READONLY|IOERR|FULL|CANTOPEN)")
"""Errors of the disk or the folder, after which a database is whole."""
MOST_RUNS = 1000
"""Sweeps that are remembered: three years of nights."""


class Ledger:
    """One open ledger; its methods may be called from several threads.

    Args:
        state: The folder or prefix that holds it. In a bucket, opening and reading write nothing.

    Raises:
        StoreError: It cannot be read, is damaged, or was written by a newer version.
    """

    def __init__(self, state: Place) -> None:
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._objects: dict[str, ConditionalObject] = {}
        self._changes, self._sent = 0, dict.fromkeys(NAMES, 0)
        state.make_folder()
        places = {schema: state.child(name) for schema, name in NAMES.items()}
        file, name = places[MAIN].local or ":memory:", places[MAIN].text
        self._name = name
        with ExitStack() as opening:  # or a failure would leave it locked
            try:
                self._database = sqlite3.connect(
                    file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
                )
                opening.callback(self._database.close)
                self._fetch(places, MAIN)
                version = self._database.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    self._database.executescript(SCHEMA)
                self._open_index(places)
            except sqlite3.Error as error:
                raise self._unusable(error) from None
            if version > VERSION:
                raise StoreError(
                    f"Ledger '{name}' was written by a newer version. Update uniadrs_scale."
                )
            opening.pop_all()

    def _fetch(self, places: Mapping[str, Place], schema: str) -> None:
        """Read a database that is an object in a bucket."""
        place = places[schema]
        if place.local is None:
            self._objects[schema], content = ConditionalObject.read(place.text)
            if content:
                self._database.deserialize(content, name=schema)

    def _open_index(self, places: Mapping[str, Place]) -> None:
        """Open the index; make a new one if it is damaged, as the items have all it holds.

        Raise StoreError if a damaged one cannot be removed.
        """
        file = places[PRODUCTS].local
        attach = f"ATTACH ? AS {PRODUCTS}", (str(file or ":memory:"),)
        try:
            self._database.execute(*attach)
            self._fetch(places, PRODUCTS)
            self._database.execute(INDEX_SCHEMA)
            found = self._database.execute(f"PRAGMA {PRODUCTS}.quick_check(1)").fetchone()[0]
        except sqlite3.OperationalError:  # such as a locked database
            raise
        except sqlite3.DatabaseError as error:
            found = str(error)
        if found == "ok":
            return
        with suppress(sqlite3.OperationalError):  # it may not have been attached
            self._database.execute(f"DETACH {PRODUCTS}")
        if file is not None:
            places[PRODUCTS].remove()
        self._database.execute(*attach)
        self._database.execute(INDEX_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def tries(self) -> dict[str, Tries]:
        """Return tries by name; one that was begun and not ended counts as an interruption."""
        rows = self._rows("SELECT name, key, failures, interruptions + running, error FROM tries")
        return {
            name: Tries(key=key, failures=failures, interruptions=interruptions, error=error)
            for name, key, failures, interruptions, error in rows
        }

    def begin(self, name: str, key: str) -> None:
        """Note that a try of ``name`` begins, before the scene is touched."""
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
        """Note that the try has failed."""
        self._write(
            "UPDATE tries SET running = 0, failures = failures + 1, error = ?, parked = ?, time = ?"
            " WHERE name = ?",
            (error, int(parked), time.time(), name),
        )

    def release(self, name: str) -> None:
        """Note that the try was stopped on purpose: it does not count."""
        self._write("UPDATE tries SET running = 0 WHERE name = ?", (name,))

    def succeed(self, name: str) -> None:
        """Note that the scene has its product."""
        self._write("DELETE FROM tries WHERE name = ?", (name,))

    def settle(self, names: Iterable[str], parked: Iterable[str]) -> None:
        """Forget tries of items that are not in ``names``; park exactly those of ``parked``."""
        known, given_up = set(names), set(parked)
        with self._transaction(MAIN) as database:
            tried = [name for (name,) in database.execute("SELECT name FROM tries")]
            gone = [(name,) for name in tried if name not in known]
            database.executemany("DELETE FROM tries WHERE name = ?", gone)
            states = [(name in given_up, name) for name in tried]
            database.executemany("UPDATE tries SET parked = ? WHERE name = ?", states)

    def unpark(self, names: Iterable[str] = ()) -> list[str]:
        """Forget the tries of these parked scenes, or of all; return their names."""
        wanted = set(names)
        with self._transaction(MAIN) as database:
            rows = database.execute("SELECT name FROM tries WHERE parked ORDER BY name").fetchall()
            chosen = [name for (name,) in rows if not wanted or name in wanted]
            database.executemany("DELETE FROM tries WHERE name = ?", [(name,) for name in chosen])
        return chosen

    def troubles(self) -> list[dict[str, Any]]:
        """Return scenes with failures, the latest first."""
        names = ("name", "failures", "interruptions", "error", "parked", "time")
        rows = self._rows(
            "SELECT name, failures, interruptions, error, parked, time FROM tries "
            "WHERE failures OR parked "
            "ORDER BY parked, time DESC"
        )
        return [dict(zip(names, row, strict=True)) | {"parked": bool(row[4])} for row in rows]

    def products(self) -> Index:
        """Return the items as last seen."""
        rows = self._rows("SELECT name, stamp, record FROM products")
        return {name: (stamp, json.loads(record)) for name, stamp, record in rows}

    def index(self, changed: Index, gone: Iterable[str] = ()) -> None:
        """Bring the index of products up to date."""
        rows = [(name, stamp, json.dumps(record)) for name, (stamp, record) in changed.items()]
        names = [(name,) for name in gone]
        if not (rows or names):
            return
        with self._transaction(PRODUCTS) as database:
            database.executemany("INSERT OR REPLACE INTO products VALUES (?, ?, ?)", rows)
            database.executemany("DELETE FROM products WHERE name = ?", names)

    def start_run(self, owner: str, facts: Mapping[str, Any]) -> int:
        """Note that a sweep begins; return its number."""
        now = time.time()
        with self._transaction(MAIN) as database:
            # The caller holds the lock: no other sweep runs.
            database.execute("UPDATE runs SET state = 'killed' WHERE state = 'running'")
            number = database.execute(
                "INSERT INTO runs (started, seen, owner, state, facts) "
                "VALUES (?, ?, ?, 'running', ?)",
                (now, now, owner, json.dumps(facts)),
            ).lastrowid
            database.execute("DELETE FROM runs WHERE id <= ?", (int(number or 0) - MOST_RUNS,))
        return int(number or 0)

    def update_run(self, number: int, facts: Mapping[str, Any], state: str = "running") -> None:
        """Note what the sweep has done so far, and whether it runs, has ended or was stopped."""
        self._write(
            "UPDATE runs SET seen = ?, state = ?, facts = ? WHERE id = ?",
            (time.time(), state, json.dumps(facts), number),
        )

    def runs(self, most: int = 10) -> list[dict[str, Any]]:
        """Return the latest sweeps, the last one first."""
        names = ("started", "seen", "owner", "state")
        rows = self._rows(
            "SELECT started, seen, owner, state, json(facts) FROM runs ORDER BY id DESC LIMIT ?",
            (most,),
        )
        return [dict(zip(names, row[:4], strict=True)) | json.loads(row[4]) for row in rows]

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._lock, closing(self._database.execute(query, values)) as cursor:
                return cursor.fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.Error) -> StoreError:
        """Return the error to raise: the disk fails or is full, or a database is damaged."""
        if DISK.match(getattr(error, "sqlite_errorname", "")):
            return StoreError(
                f"The ledger '{self._name}' cannot be written: {error}. Check free space and "
                "permissions of its folder, then run the same command again: it resumes."
            )
        return StoreError(
            f"Ledger '{self._name}' cannot be used: {error}. If it is damaged, remove it and "
            f"'{NAMES[PRODUCTS]}': maps stay known by their items, only counts of tries are lost."
        )

    def _write(self, query: str, values: tuple[Any, ...] = ()) -> None:
        def write() -> None:
            with self._transaction(MAIN) as database:
                database.execute(query, values)

        try:
            write()
        except StoreError:
            if MAIN in self._objects:  # changed already: it could not be sent
                raise
            # A full disk has no room for a journal, but a row can change in place.
            self._rows(f"PRAGMA {MAIN}.journal_mode = MEMORY")
            write()
            self._rows(f"PRAGMA {MAIN}.journal_mode = DELETE")

    @contextmanager
    def _transaction(self, schema: str) -> Iterator[sqlite3.Connection]:
        """Write everything inside, or nothing; raise StoreError if the disk fails or is full."""
        try:
            with self._lock, self._database as database:
                # IMMEDIATE would lock both databases, and a kill would leave a journal of both.
                database.execute("BEGIN")
                database.execute(RESERVE[schema])
                yield database
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        self._keep(schema)

    def _keep(self, schema: str) -> None:
        """Put the database in a bucket; changes that other threads make meanwhile go with it."""
        if schema not in self._objects:
            return
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
