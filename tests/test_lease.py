"""The lock of a store in a bucket: who keeps it, who gives it back, who may take it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import obstore
import psutil
import pytest

import uniadrs_scale as us
from uniadrs_scale.storage import buckets, locks
from uniadrs_scale.storage import leases as lease
from uniadrs_scale.storage.clients import ConditionalObject
from uniadrs_scale.storage.places import Place


@pytest.fixture
def lock(bucket: str) -> str:
    return f"{bucket}.lock"


def test_a_lock_that_another_owns_by_now_is_left_alone(lock: str) -> None:
    ours = lease.Lease.acquire(lock, "a map")
    buckets.write_object(lock, b"another's")
    ours.release()
    assert buckets.read_object(lock) == b"another's"
    ours.taken = True
    ours.release()
    assert buckets.read_object(lock) == b"another's"


def test_a_lock_that_is_ours_or_gone_is_given_back(lock: str) -> None:
    ours = lease.Lease.acquire(lock, "a map")
    ours.release()
    assert not buckets.exists(lock)
    ours.release()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc on this system")
def test_a_process_is_alive_though_the_clock_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks are set after a start of a virtual machine: times of processes move with them."""
    owner = json.loads(json.dumps(lease.this_process()))
    began = psutil.Process().create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: began + 3600)
    assert not lease._is_dead(owner)
    assert lease._is_dead(owner | {"started": 1})


def test_a_server_that_fails_once_does_not_end_the_signs_of_life(
    lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 0.01)
    write, beats, stop = ConditionalObject.write, [], threading.Event()

    def failing_first(self: ConditionalObject, content: bytes) -> None:
        beats.append(content)
        if len(beats) < 3:
            raise us.StoreError("away")
        write(self, content)
        stop.set()

    ours = lease.Lease.acquire(lock, "a map")
    monkeypatch.setattr(ConditionalObject, "write", failing_first)
    beating = threading.Thread(target=ours.beat, args=(stop,))
    beating.start()
    beating.join(60)
    assert buckets.read_object(lock) == beats[2]
    assert not ours.taken
    ours.release()
    assert not buckets.exists(lock), "what it wrote last is known as its own"


def test_an_owner_who_was_succeeded_gives_no_more_signs_of_life(
    lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 0.01)
    ours = lease.Lease.acquire(lock, "a map")
    buckets.write_object(lock, b"another's")
    beating = threading.Thread(target=ours.beat, args=(threading.Event(),))
    beating.start()
    beating.join(60)
    assert not beating.is_alive()
    assert ours.taken
    assert buckets.read_object(lock) == b"another's"


def test_an_answer_that_was_lost_makes_no_second_owner(
    lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = obstore.put

    def repeated(*args: Any, **options: Any) -> Any:
        put(*args, **options)
        return put(*args, **options)  # refused: it is there

    monkeypatch.setattr(obstore, "put", repeated)
    ours = lease.Lease.acquire(lock, "a map")
    monkeypatch.setattr(obstore, "put", put)
    with pytest.raises(us.BusyError):
        lease.Lease.acquire(lock, "a map")
    ours.release()
    assert not buckets.exists(lock)


def test_looking_at_a_lock_leaves_it(lock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not locks.is_held(Place(lock))
    ours = lease.Lease.acquire(lock, "a map")
    content = buckets.read_object(lock)
    assert locks.is_held(Place(lock))
    assert buckets.read_object(lock) == content
    monkeypatch.setattr(lease, "LEASE", -2 * lease.SLACK)
    assert not locks.is_held(Place(lock))
    ours.release()
