"""A full disk, a folder that turns read-only, a source that goes: a sentence, then the same bytes.

Also two runs of one output at once, and a driver that dies at a few of its steps (twenty with
``kill_driver.py``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from archives import write_archive
from archives import write_scene as scene
from jobs import run_into
from kill_driver import Undisturbed, strike, write_scene
from standins import FirstBand, Interrupted, TileMean

import uniadrs_scale as us
from uniadrs_scale.archive.sink import Sink
from uniadrs_scale.maps.store import DONE, open_store
from uniadrs_scale.scenes import rasters as readers
from uniadrs_scale.storage.locks import claimed
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uniadrs_scale.scoring.report import RunSummary

COMPANIONS = ["map.png", "map.qml", "map.tif", "map.tif.run.json"]
SIZES = {"preset": "single-band", "tile": 64, "stride": 48, "chunk": 128}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "scene.tif"
    write_scene(path)
    return path


def score_into(source: Path, output: Path, scorer: TileMean | None = None) -> RunSummary:
    """One run in this process, as the command line does it."""
    scene = us.open_scene(source)
    return run_into(scene, output, scorer or TileMean(), **SIZES)


def mount(*arguments: object) -> None:
    done = subprocess.run(
        ["/usr/bin/mount", *map(str, arguments)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own."""
    if not Path("/usr/bin/mount").exists():
        pytest.skip("no mount here")
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["/usr/bin/umount", "-l", str(folder)], check=True)


def files(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def test_a_full_disk_is_said_and_the_store_resumes(tmp_path: Path, source: Path) -> None:
    score_into(source, tmp_path / "whole.zarr")
    room = sum(map(len, files(tmp_path / "whole.zarr").values()))
    with small_disk(tmp_path / "disk", f"{room // 2048}k") as disk:
        with pytest.raises(us.StoreError, match=r"cannot be written \(.*space"):
            score_into(source, disk / "map.zarr")
        done = open_store(disk / "map.zarr").done == DONE
        assert 0 < done.sum() < done.size
        mount("-o", "remount,size=40m", disk)
        assert score_into(source, disk / "map.zarr").kept == done.sum()
        assert files(disk / "map.zarr") == files(tmp_path / "whole.zarr")


def test_no_room_for_the_cog_leaves_the_scores(tmp_path: Path, source: Path) -> None:
    score_into(source, tmp_path / "whole.tif")
    room = sum(p.stat().st_size for p in source.parent.glob("whole.tif"))
    with small_disk(tmp_path / "disk", f"{2 * room // 1024}k") as disk:
        with pytest.raises(us.StoreError, match="written whole or not at all"):
            score_into(source, disk / "map.tif")
        assert sorted(p.name for p in disk.iterdir()) == [".map.tif.zarr", "map.tif.run.json"]
        mount("-o", "remount,size=40m", disk)
        again = score_into(source, disk / "map.tif", Interrupted(pytest.fail, after=1))
        assert again.chunks == 0, "all had been scored"
        assert (disk / "map.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
        assert sorted(p.name for p in disk.iterdir()) == COMPANIONS


def test_an_output_that_turns_read_only(tmp_path: Path, source: Path) -> None:
    score_into(source, tmp_path / "whole.zarr")
    store = tmp_path / "map.zarr"

    def lock() -> None:
        # Over itself: what is open stays so, what is opened from now on is read-only.
        mount("--bind", store, store)
        mount("-o", "remount,bind,ro", store)

    try:
        with pytest.raises(us.StoreError, match="Read-only file system"):
            score_into(source, store, Interrupted(lock, after=25))
        done = open_store(store).done == DONE
        assert 0 < done.sum() < done.size
        with pytest.raises(us.StoreError, match="Read-only file system"):
            score_into(source, store)
    finally:
        subprocess.run(["/usr/bin/umount", "-l", str(store)], check=False, capture_output=True)
    assert score_into(source, store).kept == done.sum()
    assert files(store) == files(tmp_path / "whole.zarr")


@pytest.mark.parametrize("act", ["truncated", "gone"])
def test_a_source_that_goes_midway(
    tmp_path: Path, source: Path, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Or GDAL would answer from memory: the scene is small, and its statistics have read it all.
    monkeypatch.setattr(readers, "GDAL_CACHE_BYTES", 100_001)
    score_into(source, tmp_path / "whole.zarr")
    kept, store, stat = tmp_path / "kept.tif", tmp_path / "map.zarr", source.stat()
    shutil.copy2(source, kept)

    def harm() -> None:
        os.truncate(source, stat.st_size // 2) if act == "truncated" else source.unlink()

    if act == "truncated":
        with pytest.raises(us.SceneError, match="changed since the scene was opened"):
            score_into(source, store, Interrupted(harm, after=10))
        assert not store.exists()
    else:
        score_into(source, store, Interrupted(harm, after=10))
        # Who has it open reads on; who opens it later finds nothing.
        with pytest.raises(us.SceneError, match="does not exist"):
            score_into(source, store)
    shutil.copy2(kept, source)  # the same size and time: the same scene again
    assert score_into(source, store).complete
    assert files(store) == files(tmp_path / "whole.zarr")


HOLD = """
import sys, time
from uniadrs_scale.storage.locks import claimed
from uniadrs_scale.storage.places import Place
with claimed(Place.of(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_second_of_two_runs_is_refused_until_the_first_is_dead(
    tmp_path: Path, source: Path
) -> None:
    target = tmp_path / "out" / "map.tif"
    target.parent.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(target)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(us.BusyError, match=r"Another run writes to .*map\.tif"):
            score_into(source, target)
        assert not target.exists()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert score_into(source, target).complete
    assert sorted(p.name for p in target.parent.iterdir()) == COMPANIONS


def test_a_run_refuses_another_of_the_same_store_in_its_own_process(
    tmp_path: Path, source: Path
) -> None:
    store = tmp_path / "map.zarr"
    scene = us.open_scene(source)

    def second() -> None:
        with pytest.raises(us.BusyError):
            run_into(scene, store, TileMean(), **SIZES)
        seen.append(time.monotonic())

    seen: list[float] = []
    assert run_into(scene, store, Interrupted(second, after=5), **SIZES).complete
    assert len(seen) == 1


def test_what_a_killed_run_left_goes_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "map.tif"
    ours = [".map.tif.x1y2.tmp", "..map.tif.zarr.0123.tmp"]
    others = [".map.tif.zarr", ".other.tif.x.tmp", "map.tif.tmp", ".map.tif.original", "map.zarr"]
    for name in (*ours, *others):
        (tmp_path / name).mkdir()
    (tmp_path / ".map.tif.run.json.0123.tmp").touch()
    half = tmp_path / ".map.tif.zarr" / f"0.{'0123456789abcdef' * 2}.partial"
    half.touch()
    (tmp_path / ".map.tif.zarr" / "mine.partial").touch()
    with claimed(Place.of(target)):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(others)
    assert [p.name for p in (tmp_path / ".map.tif.zarr").iterdir()] == ["mine.partial"]


@pytest.mark.slow
def test_a_driver_killed_at_a_few_steps_ends_at_the_same_bytes(tmp_path: Path) -> None:
    whole = Undisturbed.of(tmp_path / "run")
    for number, (_, step) in enumerate(whole.moments(4, seed=2)):
        strike(whole, number, step)


def test_no_try_is_counted_on_a_full_disk(tmp_path: Path) -> None:
    """The ledger of a sweep is on the full disk, too: it has no room for a journal."""
    scene(tmp_path / "incoming" / "a.tif", 1)
    with small_disk(tmp_path / "maps", "2m") as disk:
        config = write_archive(tmp_path)
        us.sweep(config, detector=FirstBand())
        scene(tmp_path / "incoming" / "b.tif", 2)
        filler = disk / "filler"
        for left in (0, 2**17):
            filler.write_bytes(bytes(shutil.disk_usage(disk).free - left))
            with pytest.raises(us.StoreError, match=r"No space left|disk is full"):
                us.sweep(config, detector=FirstBand())
            filler.unlink()
            with Sink(Place.of(disk)).ledger() as ledger:
                assert all(t.failures == t.interruptions == 0 for t in ledger.tries().values())
        assert us.sweep(config, detector=FirstBand()).done == ["b"]
