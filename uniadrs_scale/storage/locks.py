"""An object in a bucket that one process at a time may replace.

Every write is conditional on the object being as this process read or wrote it last. So whoever was
cut off for longer than its lease (:mod:`uniadrs_scale.io.lease`), and was succeeded, finds out at
its next write, and does no harm.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import threading
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock, Timeout

from uniadrs_scale.errors import BusyError, StoreError
from uniadrs_scale.storage.clients import bucket_of, mark_of, obstore_library, translated
from uniadrs_scale.storage.remote import in_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uniadrs_scale.storage.places import Place


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


HEARTBEAT = 20.0
"""Seconds between two signs of life."""
LEASE = 90.0
"""Seconds after the last one until a lock may be taken over."""
SLACK = 60.0
"""Seconds by which the clocks of a machine and a server may disagree."""


@contextmanager
def owned(place: str | Path, *, lock: str | None = None) -> Iterator[None]:
    """Hold the store at ``place`` where it is in a bucket; nothing to hold elsewhere.

    Args:
        place: What the lock is for.
        lock: URL of the lock's object; by default beside the store.

    Raises:
        BusyError: Another run holds it.
        StoreError: The bucket cannot be written.
    """
    if not in_bucket(place):
        yield
        return
    name = str(place).rstrip("/")
    lease = _Lease.acquire(lock or f"{name}.lock", name)
    stop = threading.Event()
    beating = threading.Thread(target=lease.beat, args=(stop,), daemon=True, name="lease")
    beating.start()
    try:
        yield
    finally:
        stop.set()
        beating.join()
        lease.release()


def is_held(lock: str) -> bool:
    """True while somebody holds this lock. For looking only: it writes nothing, so it asks this
    machine's clock.

    Raises:
        StoreError: The bucket cannot be read.
    """  # noqa: D205 - one sentence
    store, key = bucket_of(lock)
    with translated("read", lock):
        try:
            answer = obstore_library().get(store, key)
            owner, written = _owner(bytes(answer.bytes())), answer.meta["last_modified"]
        except FileNotFoundError:
            return False
    silent = (datetime.now(UTC) - written).total_seconds()
    return not _is_dead(owner) and silent <= LEASE + SLACK


@dataclass(slots=True)
class _Lease:
    """A lock that is held."""

    uri: str
    place: str
    """What it is for."""
    mark: dict[str, str]
    """What tells its object, as last written, from any other."""
    lost: bool = False

    @classmethod
    def acquire(cls, uri: str, place: str) -> _Lease:
        obstore = obstore_library()
        store, key = bucket_of(uri)
        claim = _claim()
        with translated("lock", uri):
            try:
                return cls(uri, place, mark_of(obstore.put(store, key, claim, mode="create")))
            except obstore.exceptions.AlreadyExistsError:
                pass
            try:
                answer = obstore.get(store, key)
                content, mark = bytes(answer.bytes()), mark_of(answer.meta)
            except FileNotFoundError:  # just released
                return cls(uri, place, mark_of(obstore.put(store, key, claim, mode="create")))
            if content == claim:  # of a write whose answer was lost, the repetition is refused
                return cls(uri, place, mark)
            owner = _owner(content)
            if not (_is_dead(owner) or _age(store, key) > LEASE):
                raise _busy(place, owner)
            try:
                return cls(uri, place, mark_of(obstore.put(store, key, claim, mode=mark)))
            except obstore.exceptions.PreconditionError:  # somebody else was quicker
                raise _busy(place, {}) from None

    def beat(self, stop: threading.Event) -> None:
        """Give signs of life until ``stop``, or until somebody else has taken the lock."""
        lock = FencedObject(self.uri, self.mark)
        while not stop.wait(HEARTBEAT):
            try:
                lock.write(_claim())
            except BusyError:
                self.lost = True
                return
            except StoreError:  # a server that is away for a while: try again
                continue
            self.mark = lock.mark

    def release(self) -> None:
        """Give the lock back, if it is still ours."""
        obstore = obstore_library()
        if self.lost:
            return
        store, key = bucket_of(self.uri)
        # It expires by itself if the server is away.
        with suppress(StoreError), translated("unlock", self.uri), suppress(FileNotFoundError):
            if mark_of(obstore.head(store, key)) == self.mark:
                obstore.delete(store, key)


def _claim() -> bytes:
    """Who holds a lock, as JSON; never twice the same, so that its ETag tells owners apart."""
    return json.dumps(_me() | {"token": uuid.uuid4().hex}).encode()


def _me() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "process": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def _machine() -> str:
    """This machine and process table: a container has its own; empty where it cannot be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return ""


def _owner(content: bytes) -> dict[str, Any]:
    """What a lock says of its owner; empty where it says nothing."""
    try:
        owner = json.loads(content)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_dead(owner: dict[str, Any]) -> bool:
    """True where the owner was a process of this machine that is no more."""
    if not _machine() or owner.get("machine") != _machine():
        return False
    try:
        return bool(psutil.Process(int(owner["process"])).create_time() != owner["started"])
    except (psutil.NoSuchProcess, KeyError, ValueError, TypeError):
        return True


def _age(store: Any, key: str) -> float:
    """Seconds since the lock was written, by the server's clock."""
    obstore = obstore_library()
    probe = f"{key}.{uuid.uuid4().hex[:8]}.now"
    try:
        obstore.put(store, probe, b"")
        now = obstore.head(store, probe)["last_modified"]
        return float((now - obstore.head(store, key)["last_modified"]).total_seconds())
    finally:
        obstore.delete(store, probe)


def _busy(place: str, owner: dict[str, Any]) -> BusyError:
    known = f" (process {owner['process']} on {owner.get('host')})" if "process" in owner else ""
    return BusyError(
        f"Another run{known} writes to '{place}': one at a time. Wait for it; "
        f"if it is dead, its lock expires after {LEASE:.0f} s."
    )


PARTIAL = re.compile(r"\.[0-9a-f]{32}")
"""Before the ending of zarr's temporary objects."""


@contextmanager
def claimed(target: Place) -> Iterator[None]:
    """``target`` is this run's alone, and nothing unfinished lies beside it.

    In a bucket a lease sees to it (:mod:`.locks`). In a folder the lock is the
    kernel's, so it dies with its process, ``kill -9`` included. It is a file beside the output, as
    the output may not exist yet; it goes with the run.

    Raises:
        BusyError: Another run writes to ``target``.
        StoreError: The folder does not exist or cannot be written.
    """
    folder = target.local
    if folder is None:
        with owned(target.text):
            yield
        return
    target.require_name()
    target.require_folder()
    path = folder.with_name(f".{target.name}.lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        if not path.exists():  # a folder like /proc, where filelock waits for what cannot be
            raise StoreError(
                f"Cannot create '{target}': no file can be made in '{folder.parent}'. "
                "Choose a writable folder."
            ) from None
        raise BusyError(
            f"Another run writes to '{target}': one at a time. Wait for it, or choose another "
            "output path."
        ) from None
    except OSError as error:
        if not target.exists():
            raise StoreError(
                f"Cannot write to '{folder.parent}': {error.strerror}. Choose a writable folder."
            ) from None
        # Nobody can write there: a finished map can still be asked for.
        yield
        return
    try:
        _tidy(folder)
        yield
    finally:
        # While it is held: filelock notices a lock file that is gone, and makes another.
        path.unlink(missing_ok=True)
        lock.release()


def _tidy(target: Path) -> None:
    """Remove what a killed run was making under temporary names; its store stays."""
    for name in (target.name, f".{target.name}.zarr"):
        prefix = f".{name}."
        for path in target.parent.iterdir():
            if not (path.name.startswith(prefix) and path.name.endswith(".tmp")):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        # What zarr was writing: it renames whole objects, and removes no half one where it dies.
        for path in target.with_name(name).rglob("*.partial"):
            if PARTIAL.fullmatch(path.suffixes[-2] if len(path.suffixes) > 1 else ""):
                path.unlink(missing_ok=True)
