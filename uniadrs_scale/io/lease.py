"""One run at a time writes to a store in a bucket.

The lock is an object beside the store, ``OUT.zarr.lock``, made by a conditional write (only if it
is not there), so that of two runs one gets it. Its owner writes it anew every HEARTBEAT seconds.
A lock that nobody has written for LEASE seconds belongs to a dead run and is taken over, again by a
conditional write (only if it is still the same); so is, at once, that of a dead process of this
machine. Time is the server's alone: the lock's age is told by an object written at that moment, so
clocks that disagree do no harm.

What if an owner was only cut off for longer than a lease? Two runs then write the same bytes: a
store takes chunks of one fingerprint only, and chunks of one fingerprint are equal bit for bit.
The lock saves work and confusion; the fingerprint keeps maps right.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psutil

from uniadrs_scale.errors import BusyError, StoreError
from uniadrs_scale.io.connections import bucket_of, mark_of, obstore_library, translated
from uniadrs_scale.io.fence import FencedObject
from uniadrs_scale.io.remote import in_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
