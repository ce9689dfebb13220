"""One run in a process of its own that can be told to die at its n-th step.

``python driver.py FOLDER OUTPUT KILL_AT [SCHEDULER]`` scores ``FOLDER/scene.tif`` into OUTPUT. A
step is an audit event of the interpreter (a file opened, renamed or removed, a folder listed, ...):
any while the run is planned, and after that what happens in FOLDER, or imports and compilation
would be most of them. The same in every run, which moments on a clock are not.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from standins import TileMean

import uniadrs_scale as us
from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.maps import exports
from uniadrs_scale.runtime import graph
from uniadrs_scale.scoring.job import compute_for, prepare
from uniadrs_scale.scoring.run import run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


SIZES = {"preset": "single-band", "tile": 64, "stride": 48, "chunk": 128}


class Noting(TileMean):
    """Adds a byte to a file for each tile it sees."""

    def __init__(self, log: str) -> None:
        self.log = log

    @property
    def identity(self) -> str:
        return "TileMean"

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        with Path(self.log).open("ab") as file:
            file.write(b".")
        return super().score_tiles(tiles)


class Steps:
    """Counts steps, notes where phases begin, and dies when told to."""

    def __init__(self, kill_at: int, folder: str) -> None:
        self.kill_at, self.folder, self.count = kill_at, folder, 0
        self.phases: dict[str, int] = {}
        sys.addaudithook(self.step)

    def step(self, event: str, about: tuple[object, ...]) -> None:
        if event.startswith("object."):
            return
        if "scoring" in self.phases and not any(self.folder in str(what) for what in about[:2]):
            return
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), 9)

    def begin(self, phase: str) -> None:
        self.phases.setdefault(phase, self.count)


def main(folder: Path, output: Path, kill_at: int, scheduler: str = "sync") -> None:
    steps = Steps(kill_at, str(folder))
    steps.begin("planning")
    scorer = Noting(str(folder / "seen"))
    scene = us.open_scene(folder / "scene.tif")
    compute = compute_for(scorer, scheduler)
    job = prepare(scene, Sizes(**SIZES), scorer, compute)
    real_scoring, real_cog = graph.score_scene, exports.write_cog

    def scoring(*values: object, **named: object) -> object:
        steps.begin("scoring")
        return real_scoring(*values, **named)

    def cog(*values: object, **named: object) -> object:
        steps.begin("cog")
        made = real_cog(*values, **named)
        steps.begin("ending")
        return made

    graph.score_scene, exports.write_cog = scoring, cog
    summary = run(job, output, compute)
    facts = {"phases": steps.phases, "steps": steps.count, "complete": summary.complete,
             "kept": summary.kept, "tiles": job.plan.lattice.tiles}  # fmt: skip
    print(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
