"""Stores in a bucket: the contract of a store on disk, one owner, no secrets anywhere."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np
import obstore
import pytest
import rasterio
from servers import PLANTED, serving
from standins import TileMean
from test_remote_scenes import make_cog
from typer.testing import CliRunner
from waiting import wait_until

import uniadrs_scale as us
from uniadrs_scale.cli.main import app
from uniadrs_scale.maps import store as stores
from uniadrs_scale.maps.store import open_store
from uniadrs_scale.storage import buckets, locks, places
from uniadrs_scale.storage import leases as lease
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = {"tile": 64, "stride": 48, "chunk": 128, "detector": TileMean(), "scheduler": "sync"}


@pytest.fixture(scope="module")
def scene_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    make_cog(path)
    return path


@pytest.fixture(scope="module")
def whole(scene_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same map on disk."""
    path = tmp_path_factory.mktemp("whole") / "map.zarr"
    us.score(us.open_scene(scene_file), path, **OPTIONS)
    return path


def objects(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_a_store_in_a_bucket_is_that_on_disk_to_the_byte(
    bucket: str, scene_file: Path, whole: Path
) -> None:
    scores = us.score(us.open_scene(scene_file), f"{bucket}/map.zarr", **OPTIONS)
    here = objects(whole)
    there = {
        key: buckets.read_object(f"{bucket}/map.zarr/{key}")
        for key in buckets.list_keys(f"{bucket}/map.zarr")
    }
    assert there == here
    assert np.array_equal(scores.values, open_store(whole).open().values, equal_nan=True)
    assert scores.rio.crs.to_epsg() == 32632
    assert list(open_store(f"{bucket}/map.zarr").verify()) == []
    keys = ["map.png", "map.qml", "map.zarr.run.json", *(f"map.zarr/{key}" for key in here)]
    assert sorted(buckets.list_keys(bucket)) == sorted(keys)


def test_two_workers_write_one_store_in_a_bucket(
    bucket: str, scene_file: Path, whole: Path
) -> None:
    # Of a cluster that is started now: workers need the server's address and keys.
    options = OPTIONS | {"scheduler": None, "workers": 2}
    us.score(us.open_scene(scene_file), f"{bucket}/map.zarr", **options)
    there = {
        key: buckets.read_object(f"{bucket}/map.zarr/{key}")
        for key in buckets.list_keys(f"{bucket}/map.zarr")
    }
    assert there == objects(whole)
    facts = json.loads(buckets.read_object(f"{bucket}/map.zarr.run.json") or b"")
    assert facts["complete"]
    assert len(facts["memory"]["workers"]) == 2
    assert PLANTED not in json.dumps(facts)


def test_a_damaged_object_is_found(bucket: str, scene_file: Path) -> None:
    store = f"{bucket}/map.zarr"
    us.score(us.open_scene(scene_file), store, **OPTIONS)
    shard = bytearray(buckets.read_object(f"{store}/score/c/0/1") or b"")
    shard[len(shard) // 3] ^= 16
    buckets.write_object(f"{store}/score/c/0/1", bytes(shard))
    client, key = buckets.bucket_of(f"{store}/score/c/1/0")
    obstore.delete(client, key)
    faults = list(open_store(store).verify())
    assert [fault[:12] for fault in faults] == ["Chunk (0, 1)", "Chunk (1, 0)"]


def test_a_killed_run_resumes(
    bucket: str, scene_file: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before a write, in all stages: the same bytes, and nothing complete is done again."""
    scene, store, limit, calls = us.open_scene(scene_file), f"{bucket}/map.zarr", [0], []
    put, put_async = obstore.put, obstore.put_async

    class KilledError(BaseException):
        pass

    def count(key: str) -> None:
        if not key.endswith((".lock", ".now")):
            if len(calls) == limit[0]:
                raise KilledError
            calls.append(key.rpartition("map.zarr/")[2])

    def counted(client: object, key: str, *args: object, **options: object) -> object:
        count(key)
        return put(client, key, *args, **options)

    async def counted_async(client: object, key: str, *args: object, **options: object) -> object:
        count(key)
        return await put_async(client, key, *args, **options)

    monkeypatch.setattr(obstore, "put", counted)
    monkeypatch.setattr(obstore, "put_async", counted_async)
    monkeypatch.setattr(buckets, "CONNECTIONS", 1)
    kills: list[str] = []
    for limit[0] in (3, 12, 22, 4, 2, 1, 999):
        done = {key[5:] for key in buckets.list_keys(store) if key.startswith("done/c/")}
        calls.clear()
        try:
            us.score(scene, store, **OPTIONS)
        except KilledError:
            kills.append(calls[-1])
        assert not done & {key[6:] for key in calls if key.startswith("score/c/")}
    assert len(kills) == 6
    chunks = ("score/c/", "scored_pixels/c/", "done/c/")
    assert any(key.startswith(chunks) for key in kills)
    there = {key: buckets.read_object(f"{store}/{key}") for key in buckets.list_keys(store)}
    assert there == objects(whole)


def test_what_is_no_store_or_another_plan_is_refused(bucket: str, scene_file: Path) -> None:
    scene = us.open_scene(scene_file)
    buckets.write_object(f"{bucket}/taken.zarr/mine.txt", b"precious")
    with pytest.raises(
        us.StoreError, match=r"taken.zarr' is not a score store, but holds 'mine.txt'"
    ):
        us.score(scene, f"{bucket}/taken.zarr", **OPTIONS)
    assert buckets.list_keys(f"{bucket}/taken.zarr") == ["mine.txt"]
    us.score(scene, f"{bucket}/map.zarr", **OPTIONS)
    with pytest.raises(us.StoreError, match=r"begun with another plan \(stride was 48, is 32\)"):
        us.score(scene, f"{bucket}/map.zarr", **OPTIONS | {"stride": 32})
    with pytest.raises(us.StoreError, match=r"nowhere.zarr' does not exist"):
        open_store(f"{bucket}/nowhere.zarr")
    with pytest.raises(us.StoreError, match=r"Cannot .*nobucket.*NoSuchBucket"):
        us.score(scene, "s3://nobucket/map.zarr", **OPTIONS)
    with pytest.raises(us.StoreError, match=r"cannot be written to\. Give a path"):
        us.score(scene, "https://127.0.0.1/map.zarr", **OPTIONS)
    with pytest.raises(us.StoreError, match=r"names a bucket only\. Add a name"):
        us.score(scene, "s3://maps", **OPTIONS)


def test_one_run_at_a_time(bucket: str, scene_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, store = us.open_scene(scene_file), f"{bucket}/map.zarr"
    with (
        locks.claimed(Place(store)),
        pytest.raises(us.BusyError, match=rf"Another run \(process {os.getpid()} on .* writes to"),
    ):
        us.score(scene, store, **OPTIONS)
    assert buckets.list_keys(bucket) == []
    # Its owner was a process of this machine that is no more: no need to wait.
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = lease.this_process() | {"process": ended.pid, "started": 0.0}
    buckets.write_object(f"{store}.lock", json.dumps(dead).encode())
    us.score(scene, store, **OPTIONS)
    # Its owner was elsewhere: wait for the lease.
    stranger = lease.this_process() | {"machine": "elsewhere"}
    buckets.write_object(f"{store}.lock", json.dumps(stranger).encode())
    with pytest.raises(us.BusyError):
        us.score(scene, store, **OPTIONS)
    monkeypatch.setattr(lease, "LEASE", -1.0)
    us.score(scene, store, **OPTIONS)
    assert not [key for key in buckets.list_keys(bucket) if ".lock" in key]


def test_of_two_who_take_over_a_dead_lock_one_does(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{bucket}/map.zarr.lock"
    buckets.write_object(uri, b"{}")
    monkeypatch.setattr(lease, "LEASE", -1.0)
    age, winners = lease._age, []

    def meanwhile(*args: object) -> float:
        monkeypatch.setattr(lease, "_age", age)
        winners.append(lease.Lease.acquire(uri, bucket))
        return age(*args)

    monkeypatch.setattr(lease, "_age", meanwhile)
    with pytest.raises(us.BusyError):
        lease.Lease.acquire(uri, bucket)
    (winner,) = winners
    winner.release()
    assert buckets.list_keys(bucket) == []


def test_an_owner_gives_signs_of_life(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 0.02)
    place = f"{bucket}/map.zarr"
    with locks.claimed(Place(place)):
        first = buckets.read_object(f"{place}.lock")
        wait_until(lambda: buckets.read_object(f"{place}.lock") != first)
        buckets.write_object(f"{place}.lock", b"somebody else's")
        threading.Event().wait(0.1)
    assert buckets.read_object(f"{place}.lock") == b"somebody else's"


def test_a_cog_from_and_into_a_bucket(
    bucket: str, scene_file: Path, whole: Path, tmp_path: Path
) -> None:
    scene = us.open_scene(scene_file)
    us.score(scene, f"{bucket}/map.zarr", **OPTIONS)
    us.to_cog(whole, tmp_path / "here.tif")
    us.to_cog(f"{bucket}/map.zarr", tmp_path / "there.tif")
    assert (tmp_path / "there.tif").read_bytes() == (tmp_path / "here.tif").read_bytes()
    sent = us.to_cog(f"{bucket}/map.zarr", f"{bucket}/map.tif")
    assert sent == f"{bucket}/map.tif"
    assert buckets.read_object(f"{bucket}/map.tif") == (tmp_path / "here.tif").read_bytes()
    with pytest.raises(us.StoreError, match=r"cannot be written to\. Give a path"):
        us.to_cog(whole, "https://127.0.0.1/map.tif")


def test_the_command_line_writes_into_buckets_and_tells_no_secret(
    bucket: str,
    scene_file: Path,
    tmp_path: Path,
    tiny_weights: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    common = [
        "--weights",
        str(tiny_weights),
        "--tile",
        "64",
        "--chunk",
        "128",
        "--scheduler",
        "sync",
    ]
    with serving(scene_file.parent) as files, caplog.at_level(logging.INFO):
        files.token = PLANTED  # signed for GET alone
        url = f"{files.url}/scene.tif?X-Amz-Credential=a&X-Amz-Date={{}}&X-Amz-Signature={PLANTED}"
        said = []

        def call(*arguments: str) -> int:
            result = CliRunner().invoke(app, list(arguments))
            said.append(result.output + str(result.exception or ""))
            return result.exit_code

        assert call("plan", url.format(1), *common[:-2], "--scheduler", "sync", "--json") == 0
        assert call("score", url.format(1), "-o", f"{bucket}/map.tif", *common) == 0
        tiles = said[-1]
        assert " 0 failed" in tiles
        # Signed anew, it is the same scene: nothing to do.
        assert call("score", url.format(2), "-o", f"{bucket}/map.tif", *common) == 0
        assert "in 0 chunks" in said[-1]
        assert call("score", url.format(2), "-o", f"{bucket}/map.zarr", *common) == 0
        assert call("verify", f"{bucket}/map.zarr") == 0
        assert call("info", f"{bucket}/map.zarr") == 0
        assert call("info", url.format(3)) == 0
        assert (
            call("score", url.replace("scene", "none"), "-o", str(tmp_path / "x.zarr"), *common)
            == 1
        )
        files.failures = -1
        assert call("score", url.format(4), "-o", f"{bucket}/new.zarr", *common) == 1
    found = {key.partition("/")[0] for key in buckets.list_keys(bucket)}
    assert (
        {"map.tif", "map.zarr"}
        <= found
        <= {f"map.{end}" for end in ("png", "qml", "tif", "zarr", "tif.run.json", "zarr.run.json")}
    )
    stored = b"".join(
        buckets.read_object(f"{bucket}/{key}") or b"" for key in buckets.list_keys(bucket)
    )
    ours = "".join(
        r.getMessage()
        for r in caplog.records
        if r.name.split(".")[0] not in ("werkzeug", "botocore")
    )
    for place in (*said, stored.decode("latin-1"), ours):
        assert PLANTED not in place
    with rasterio.Env(), rasterio.MemoryFile(buckets.read_object(f"{bucket}/map.tif")) as memory:
        assert "fingerprint" in memory.open().tags()


def test_half_removed_is_no_store(
    bucket: str, scene_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, store = us.open_scene(scene_file), f"{bucket}/map.zarr"
    us.score(scene, store, **OPTIONS)
    client, key = buckets.bucket_of(f"{store}/{places.ROOT}")
    obstore.delete(client, key)
    assert not stores.is_score_store(store)
    with pytest.raises(us.StoreError, match="is not a score store, but holds"):
        us.score(scene, store, **OPTIONS)
    Place(store).remove_store()
    assert buckets.list_keys(store) == []
