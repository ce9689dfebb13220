"""Leases: locks in buckets.

A lease is an object that its owner writes again and again, every write conditional on the object
being as this process read or wrote it last. A process that was cut off for longer than its lease,
and was succeeded, finds that out at its next write, and does no harm.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniadrs_scale.errors import BusyError, StoreError
from uniadrs_scale.storage.clients import (
    ConditionalObject,
    bucket_of,
    mark_of,
    obstore_library,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

HEARTBEAT = 20.0
"""Seconds between two writes of a lock's object."""
LEASE = 90.0
"""Seconds after the last one until another process may take the lock."""
START = 19
"""Place of a process's start in ``/proc/PID/stat``, counted behind its name."""
SLACK = 60.0
"""Seconds by which the clocks of a machine and a server may disagree."""


def is_leased(uri: str) -> bool:
    """Return True while a process holds the lock object ``uri``, by the clock of this machine.

    Raise StoreError if the bucket cannot be read.
    """
    store, key = bucket_of(uri)
    with translated("read", uri):
        try:
            answer = obstore_library().get(store, key)
            owner, written = _owner(bytes(answer.bytes())), answer.meta["last_modified"]
        except FileNotFoundError:
            return False
    silent = (datetime.now(UTC) - written).total_seconds()
    return not _is_dead(owner) and silent <= LEASE + SLACK


@contextmanager
def leased(uri: str, target: str) -> Iterator[None]:
    """Hold the lock object ``uri`` of ``target``."""
    lease = Lease.acquire(uri, target)
    stop = threading.Event()
    beating = threading.Thread(target=lease.beat, args=(stop,), daemon=True, name="lease")
    beating.start()
    try:
        yield
    finally:
        stop.set()
        beating.join()
        lease.release()


@dataclass(slots=True)
class Lease:
    """A lock object that this process holds."""

    lock: ConditionalObject
    """As last written."""
    taken: bool = False
    """True if another process has taken it over."""

    @classmethod
    def acquire(cls, uri: str, target: str) -> Lease:
        """Write the lock object ``uri`` of ``target``, if it is free or its owner is dead.

        Raises:
            BusyError: Another process holds it.
            StoreError: The bucket cannot be written.
        """
        lock, found = ConditionalObject.read(uri)
        if found is not None:
            owner = _owner(found)
            with translated("lock", uri):
                if not (_is_dead(owner) or _age(*bucket_of(uri)) > LEASE):
                    raise _busy(target, owner)
        try:
            lock.write(_claim())
        except BusyError:  # another process was quicker
            raise _busy(target, {}) from None
        return cls(lock)

    def beat(self, stop: threading.Event) -> None:
        """Write the lock again and again, until ``stop`` or until another process has taken it."""
        while not stop.wait(HEARTBEAT):
            try:
                self.lock.write(_claim())
            except BusyError:
                self.taken = True
                return
            except StoreError:  # the server is away for a while: try again
                continue

    def release(self) -> None:
        """Remove the lock, if it is still that of this process."""
        if self.taken:
            return
        uri = self.lock.uri
        store, key = bucket_of(uri)
        # It expires by itself if the server is away.
        with suppress(StoreError), translated("unlock", uri), suppress(FileNotFoundError):
            if mark_of(obstore_library().head(store, key)) == self.lock.mark:
                obstore_library().delete(store, key)


def _claim() -> bytes:
    """Return the owner as JSON, never twice the same, so that ETags tell owners apart."""
    return json.dumps(this_process() | {"token": uuid.uuid4().hex}).encode()


def this_process() -> dict[str, Any]:
    """Return what identifies this process in a lock."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "process": os.getpid(),
        "started": _started(os.getpid()),
    }


def _started(process: int) -> int | None:
    """Return when a process began, in ticks since the machine did; None without such a process.

    Not the time of day (psutil's): that changes when the clock is set, and the lock of a process
    that is alive would be taken.
    """
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(status.rpartition(")")[2].split()[START])


def _machine() -> str:
    """Return this machine and process table (a container has its own); empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _owner(content: bytes) -> dict[str, Any]:
    """Return the owner that a lock names, empty if it names none."""
    try:
        owner = json.loads(content)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_dead(owner: dict[str, Any]) -> bool:
    """Return True if the owner was a process of this machine that has ended."""
    if not _machine() or owner.get("machine") != _machine():
        return False
    try:
        started = _started(int(owner["process"]))
        return started is None or started != int(owner["started"])
    except PermissionError:  # of another user
        return False
    except (KeyError, ValueError, TypeError):
        return True


def _age(store: Any, key: str) -> float:
    """Return the seconds since the lock was written, by the server's clock."""
    obstore = obstore_library()
    probe = f"{key}.{uuid.uuid4().hex[:8]}.now"
    try:
        obstore.put(store, probe, b"")
        now = obstore.head(store, probe)["last_modified"]
        return float((now - obstore.head(store, key)["last_modified"]).total_seconds())
    except FileNotFoundError:  # just released
        return 2 * LEASE
    finally:
        obstore.delete(store, probe)


def _busy(target: str, owner: dict[str, Any]) -> BusyError:
    known = f" (process {owner['process']} on {owner.get('host')})" if "process" in owner else ""
    return BusyError(
        f"Another run{known} writes to '{target}': one at a time. Wait for it; "
        f"if that run has ended, its lock expires after {LEASE:.0f} s."
    )
