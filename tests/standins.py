"""Tile scorers that are cheap and whose answer is known."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import numpy as np
from waiting import LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


class StandIn:
    """Base: one tile a call, no memory of its own."""

    batch = 1

    @property
    def identity(self) -> str:
        return type(self).__name__

    def activation_bytes(self, tile: int, bands: int) -> int:
        del tile, bands
        return 0

    def fitted(self, statistics: object) -> StandIn:
        del statistics
        return self

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        raise NotImplementedError


class FirstBand(StandIn):
    """The identity network: the score is the first band."""

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        return tiles[:, 0]


class TileMean(StandIn):
    """Like instance normalisation: every score depends on its whole tile."""

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        mean = tiles.mean(axis=(1, 2, 3), keepdims=True)
        ramp = np.linspace(0, 1, tiles.shape[-1], dtype=np.float32)
        return (np.abs(tiles - mean).mean(axis=1) / 4 + ramp) / 8


class Batched(TileMean):
    """The same, four tiles a call."""

    batch = 4

    @property
    def identity(self) -> str:
        return "TileMean"


class Interrupted(TileMean):
    """Does something to the world once a number of tiles is scored."""

    def __init__(self, act: Callable[[], object], after: int = 5) -> None:
        self.left, self.act = after, act

    @property
    def identity(self) -> str:
        return "TileMean"

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        self.left -= 1
        if self.left == 0:
            self.act()
        return super().score_tiles(tiles)


class WhoScored(StandIn):
    """The score is the number of the process; the first tile of each waits for so many others."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.folder, self.processes = folder, processes

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        (self.folder / str(os.getpid())).touch()
        deadline = time.monotonic() + 20
        while len(list(self.folder.iterdir())) < self.processes and time.monotonic() < deadline:
            time.sleep(0.02)
        return np.full_like(tiles[:, 0], os.getpid() / 2**22)


class Counting(StandIn):
    """Writes a file for each tile it sees, named by the tile's centre in two bands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        for tile in tiles:
            row, col = tile[:2, tile.shape[1] // 2, tile.shape[2] // 2]
            name = f"{row:.6f}_{col:.6f}_{os.urandom(4).hex()}"
            (self.folder / name).touch()
        return tiles[:, 0]

    @property
    def seen(self) -> list[str]:
        """(row, column) keys of all tiles seen, sorted."""
        return sorted(path.name.rsplit("_", 1)[0] for path in self.folder.iterdir())


class Failing(FirstBand):
    """Raises on, or returns NaN for, every tile whose first pixel exceeds a limit."""

    def __init__(self, limit: float, *, raises: bool, batch: int = 1) -> None:
        self.limit, self.raises, self.batch = limit, raises, batch

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = tiles[:, 0].copy()
        for score in scores:
            if score[0, 0] > self.limit:
                if self.raises:
                    raise RuntimeError("no score for this one")
                score[3, 4] = np.nan
        return scores


class KillsDriver(TileMean):
    """Kills a process once a number of tiles has been scored."""

    def __init__(self, pid: int, after: int, folder: Path) -> None:
        self.pid, self.after, self.folder = pid, after, folder

    @property
    def identity(self) -> str:
        return "TileMean"

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        (self.folder / os.urandom(8).hex()).touch()
        if self.after and len(list(self.folder.iterdir())) == self.after:
            os.kill(self.pid, 9)
        return super().score_tiles(tiles)


class Deadly(TileMean):
    """Kills its process at every tile whose first pixel exceeds a limit."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    @property
    def identity(self) -> str:
        return "TileMean"

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        if (tiles[:, 0, 0, 0] > self.limit).any():
            os.kill(os.getpid(), 9)
        return super().score_tiles(tiles)


class Slow(TileMean):
    """A tile takes its time, and a few take a lot of memory, if told to."""

    def __init__(self, pause: float, greed_mib: int = 0) -> None:
        self.pause, self.greed_mib = pause, greed_mib

    @property
    def identity(self) -> str:
        return "TileMean"

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep(self.pause)
        if self.greed_mib and tiles[0, 0, 0, 0] > 1.6:
            greed = b"x" * (self.greed_mib << 20)
            time.sleep(2)  # long enough for a nanny to see it
            del greed
        return super().score_tiles(tiles)


class Waiting(TileMean):
    """Scores nothing before a file exists; another one says that a tile waits."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.waits = file.with_suffix(".waits")

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        self.waits.touch()
        deadline = time.monotonic() + LIMIT
        while not self.file.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return super().score_tiles(tiles)


class DiesOnce(TileMean):
    """Kills its process, the first time only."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self.file.exists():
            self.file.touch()
            os.kill(os.getpid(), 9)
        return super().score_tiles(tiles)
