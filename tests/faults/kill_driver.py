"""A driver killed at random moments: ``python tests/faults/kill_driver.py --moments 20``.

An undisturbed run gives the bytes and the number of its steps (see ``driver``). Then, for each
moment: a run that dies there, a look at what it left, and the same command again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.transform import Affine

from uniadrs_scale.maps.store import DONE, is_score_store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
PATH = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parents[1])])
PHASES = ("planning", "scoring", "cog", "ending")


def write_scene(path: Path, side: int = 300) -> None:
    pixels = np.random.default_rng(3).integers(1, 999, (2, side, side + 40)).astype(np.uint16)
    with rasterio.open(path, "w", driver="GTiff", count=2, height=side, width=side + 40,
                       dtype="uint16", crs="EPSG:32633", transform=Affine(10, 0, 4e5, 0, -10, 6e6),
                       ) as file:  # fmt: skip
        file.write(pixels)


def drive(folder: Path, output: Path, kill_at: int = 0) -> tuple[int, dict[str, Any]]:
    """(exit code, what the driver said) of one run."""
    done = subprocess.run(
        [sys.executable, str(HERE / "driver.py"), str(folder), str(output), str(kill_at)],
        env={**os.environ, "PYTHONPATH": PATH}, capture_output=True, timeout=1200, check=False,
    )  # fmt: skip
    if done.returncode not in (0, -9):
        raise RuntimeError(done.stderr.decode()[-2000:])
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


@dataclass
class Undisturbed:
    """The run to compare with."""

    folder: Path
    data: bytes
    facts: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> Undisturbed:
        folder.mkdir(parents=True)
        write_scene(folder / "scene.tif")
        code, facts = drive(folder, folder / "whole.tif")
        assert code == 0
        assert facts["complete"]
        return cls(folder, (folder / "whole.tif").read_bytes(), facts)

    def moments(self, count: int, seed: int) -> Iterator[tuple[str, int]]:
        """(phase, step): equally many of each phase, drawn from its steps."""
        begins = [self.facts["phases"][phase] for phase in PHASES] + [self.facts["steps"]]
        dice = random.Random(seed)
        for k in range(count):
            phase = k % len(PHASES)
            yield PHASES[phase], dice.randint(begins[phase] + 1, begins[phase + 1])


def strike(whole: Undisturbed, number: int, step: int) -> dict[str, Any]:
    """Kill at ``step``, look, run again, look again."""
    seen, out = whole.folder / "seen", whole.folder / f"out{number}"
    out.mkdir()
    target, store = out / "map.tif", out / ".map.tif.zarr"
    code, _ = drive(whole.folder, target, step)
    assert code == -9, "the run had ended before it could be killed"
    if target.exists():
        assert target.read_bytes() == whole.data, "half a file under its final name"
    done = np.zeros(1) if not store.exists() else None
    if done is None and not target.exists():
        assert is_score_store(store), "half a store under its final name"
        done = open_store(store).done == DONE
    kept = 0 if done is None else int(done.sum())
    finished = target.exists() and not store.exists()
    seen.unlink(missing_ok=True)
    code, facts = drive(whole.folder, target)
    assert code == 0
    assert facts["complete"]
    assert target.read_bytes() == whole.data, "another map than that of an undisturbed run"
    names = {p.name for p in out.iterdir()}
    expected = {"map.tif", "map.tif.run.json"}
    assert expected <= names <= expected | {"map.png", "map.qml"}, names
    tiles = seen.stat().st_size if seen.exists() else 0
    assert facts["kept"] >= kept, "a complete chunk was scored again"
    if finished:
        assert tiles == 0
    elif kept:
        assert tiles < facts["tiles"]
    return {"kept": kept, "tiles_again": tiles, "tiles": facts["tiles"]}


def main() -> int:
    """A line a moment; the first broken promise ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        whole = Undisturbed.of(Path(scratch, "run"))
        print(whole.facts, flush=True)
        for number, (phase, step) in enumerate(whole.moments(options.moments, options.seed)):
            print(number, phase, step, strike(whole, number, step), flush=True)
    print(f"{options.moments} kills, same bytes, {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
