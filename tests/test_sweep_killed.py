"""An archive's bad week: poisoned scenes, a process killed three times, two sweeps at once.

The command line in processes of its own, as a timer starts it.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from glob import glob
from typing import TYPE_CHECKING, Any

import numpy as np
import pystac
import pytest
import rasterio
from archives import write_archive, write_scene
from waiting import LIMIT, wait_until

import uniadrs_scale as us
from uniadrs_scale.archive.sink import Sink
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Spawn = Callable[..., subprocess.Popen[bytes]]

SCENES = 36
OPTIONS = {"tile": 64, "chunk": 64}


class Commands:
    """Starts sweeps of one archive and keeps what they log."""

    def __init__(self, archive: Path, logs: Path, spawn: Spawn) -> None:
        self.archive, self.logs, self.spawn = archive, logs, spawn
        logs.mkdir()

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "uniadrs_scale.cli.main", "sweep", str(self.archive)]
        log = self.logs / f"{len(list(self.logs.iterdir()))}.jsonl"
        with log.open("wb") as file:
            return self.spawn([*command, "--log", "json"], stdout=file, stderr=file)

    def run(self) -> int:
        return self.start().wait(LIMIT)

    def done(self) -> Counter[str]:
        """How often each scene was reported done."""
        lines = [line for log in self.logs.iterdir() for line in log.read_text().splitlines()]
        events = [json.loads(line) for line in lines if line.startswith('{"time"')]
        return Counter(event["scene"] for event in events if event.get("event") == "done")


def products(maps: Path) -> dict[str, str]:
    """Key of each product by name."""
    items = [json.loads(path.read_text()) for path in maps.glob("*/*.json")]
    return {item["id"]: item["properties"]["uniadrs:key"] for item in items}


def poison(folder: Path) -> None:
    """Four scenes that cannot be scored, each in its own way."""
    (folder / "poison_text.tif").write_text("not a raster")
    (folder / "poison_empty.tif").touch()
    whole = write_scene(folder / "poison_torn.tif", 5, side=96)
    whole.write_bytes(whole.read_bytes()[:20_000])
    profile = {"driver": "GTiff", "count": 1, "height": 96, "width": 96, "dtype": "complex64"}
    with rasterio.open(folder / "poison_complex.tif", "w", **profile, crs="EPSG:32633",
                       transform=rasterio.Affine(20, 0, 4e5, 0, -20, 6e6)) as file:  # fmt: skip
        file.write(np.ones((1, 96, 96), "complex64"))


def kill_after(process: subprocess.Popen[bytes], maps: Path, wanted: int) -> None:
    """SIGKILL once so many products are there."""
    # Not Path.glob: it raises if a folder that it has listed is taken away, as a poison's is.
    wait_until(lambda: len(glob(f"{maps}/*/*.json")) >= wanted, process=process)  # noqa: PTH207
    process.send_signal(signal.SIGKILL)
    process.wait()


def check_maps(folder: Path, names: set[str], weights: Path) -> None:
    """Every map has the bits that scoring its scene by itself gives."""
    detector = us.Detector.load(weights, device="cpu")
    for name, key in products(folder / "maps").items():
        assert name in names
        scene = us.open_scene(folder / "incoming" / f"{name}.tif")
        plan = json.loads((folder / "maps" / name / key / "run.json").read_text())["options"][
            "plan"
        ]
        wanted = us.score(scene, detector=detector, scheduler="sync", **plan)
        with rasterio.open(folder / "maps" / name / key / "scores.tif") as file:
            np.testing.assert_array_equal(file.read(1), wanted)


def check_tree(maps: Path, names: set[str]) -> None:
    """Products, the collection, and nothing else."""
    expected = {"collection.json", ".sweep", ".sweep/lock"}
    expected |= {".sweep/ledger.sqlite", ".sweep/index.sqlite"}
    for name, key in products(maps).items():
        files = ("", "/quicklook.png", "/run.json", "/scores.qml", "/scores.tif")
        expected |= {name, f"{name}/{name}.json", *(f"{name}/{key}{file}" for file in files)}
    assert {str(path.relative_to(maps)) for path in maps.rglob("*")} == expected
    assert set(products(maps)) == names
    collection = pystac.Collection.from_file(str(maps / "collection.json"))
    assert {item.id for item in collection.get_items()} == names


@pytest.mark.slow
def test_a_bad_week(tmp_path: Path, tiny_weights: Path, spawn: Spawn) -> None:
    incoming, maps = tmp_path / "incoming", tmp_path / "maps"
    names = {f"scene{number:02}" for number in range(SCENES)}
    for number, name in enumerate(sorted(names)):
        write_scene(incoming / f"{name}.tif", number, side=96)
    poison(incoming)
    options: dict[str, Any] = {
        "detector": {"weights": str(tiny_weights), "device": "cpu"}, "plan": OPTIONS,
    }  # fmt: skip
    archive = write_archive(tmp_path, **options, scheduler=None, workers=2)
    commands = Commands(archive, tmp_path / "logs", spawn)

    for wanted in (6, 14, 22):
        kill_after(commands.start(), maps, wanted)
    archive = write_archive(tmp_path, **options)
    at_once = [commands.start(), commands.start()]
    codes = sorted(process.wait(LIMIT) for process in at_once)
    assert codes[0] in (0, 1), "one works; poisons may have been parked before"
    assert codes[1] == 75, "the other finds it busy"
    # A kill may come between a product and its line in the log; but never is there a second one.
    assert set(commands.done()) <= names
    assert set(commands.done().values()) == {1}
    assert len(commands.done()) >= SCENES - 3 * 8

    while commands.run() != 0:  # poisons, until they are parked
        assert len(list(commands.logs.iterdir())) < 9
    assert set(commands.done().values()) == {1}
    check_tree(maps, names)
    check_maps(tmp_path, names, tiny_weights)
    with Sink(Place.of(maps)).ledger() as ledger:
        troubles = {trouble["name"]: trouble for trouble in ledger.troubles()}
    assert set(troubles) == {f"poison_{kind}" for kind in ("text", "empty", "torn", "complex")}
    assert all(trouble["parked"] for trouble in troubles.values())
    assert {trouble["failures"] for trouble in troubles.values()} == {3}
    assert "not a raster" in troubles["poison_text"]["error"]
    assert "tiles failed" in troubles["poison_torn"]["error"]
    assert "complex64" in troubles["poison_complex"]["error"]

    before, earlier = products(maps), commands.done()
    write_scene(incoming / "scene07.tif", 99, side=96)
    assert commands.run() == 0
    changed = {name for name, key in products(maps).items() if before[name] != key}
    assert changed == {"scene07"}
    assert commands.done() - earlier == Counter(["scene07"])

    earlier = commands.done()
    write_archive(tmp_path, **options | {"plan": OPTIONS | {"stride": 32}})
    assert commands.run() == 1, "another recipe gives poisons new tries"
    assert all(before[name] != key for name, key in products(maps).items())
    assert commands.done() - earlier == Counter(names)
    check_maps(tmp_path, names, tiny_weights)
