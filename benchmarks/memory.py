"""Peak memory of a worker against the plan's forecast, for a large scene and a stand-in network.

    python benchmarks/memory.py --side 20000 --bands 4 --chunk 1024 --workers 2

Prints both, in MiB, and their ratio. ``--network`` scores with the shipped weights instead (slow).
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

import uniadrs_scale as us

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIB = 2**20


class Deviation:
    """A stand-in network: distance from the tile's mean. No activations worth counting."""

    identity = "deviation"
    batch = 1

    def activation_bytes(self, tile: int, bands: int) -> int:
        """One float32 copy of the tile."""
        return 4 * bands * tile**2

    def fitted(self, statistics: object) -> Deviation:
        """The same for every scene."""
        del statistics
        return self

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, band, y, x) to (n, y, x) in 0..1."""
        return np.tanh(np.abs(tiles - tiles.mean(axis=(2, 3), keepdims=True)).mean(axis=1))


@dataclass(frozen=True, slots=True)
class Measured:
    """Forecast and truth of one run."""

    forecast: int
    """Bytes a worker."""
    peak: int
    """Largest resident set of any worker process seen, bytes."""
    seconds: float

    @property
    def ratio(self) -> float:
        """Peak over forecast."""
        return self.peak / self.forecast


def write_scene(path: Path, side: int, bands: int) -> None:
    """A noise scene, written block by block."""
    rng = np.random.default_rng(0)
    block = rng.integers(1, 16, (bands, 1000, 1000)).astype(np.uint16) * 600
    profile = {
        "driver": "GTiff", "height": side, "width": side, "count": bands, "dtype": "uint16",
        "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "zstd", "zstd_level": 1,
        "crs": "EPSG:32632", "transform": from_origin(500_000, 5_000_000, 10, 10), "nodata": 0,
        "bigtiff": "yes",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        for row in range(0, side, 1000):
            for col in range(0, side, 1000):
                height, width = min(1000, side - row), min(1000, side - col)
                file.write(block[:, :height, :width], window=Window(col, row, width, height))


def measure(
    folder: Path, side: int, bands: int, *, chunk: int, workers: int, network: bool = False
) -> Measured:
    """Score a scene on worker processes and watch their resident sets."""
    write_scene(folder / "scene.tif", side, bands)
    scene = us.open_scene(folder / "scene.tif")
    detector = us.Detector.load(device="cpu") if network else Deviation()
    options = {"detector": detector, "chunk": chunk, "workers": workers}
    plan = us.plan(scene, **options)
    done, peak = threading.Event(), 0

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                try:
                    peak = max(peak, process.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        us.score(scene, folder / "map.zarr", **options)
    finally:
        done.set()
        watcher.join()
    return Measured(plan.memory.total, peak, time.perf_counter() - started)


def main() -> None:
    """Measure once and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--bands", type=int, default=4)
    parser.add_argument("--chunk", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--network", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        got = measure(
            Path(folder), options.side, options.bands,
            chunk=options.chunk, workers=options.workers, network=options.network,
        )  # fmt: skip
    print(
        f"forecast {got.forecast / MIB:.0f} MiB, peak {got.peak / MIB:.0f} MiB a worker, "
        f"ratio {got.ratio:.2f}; {got.seconds:.0f} s, "
        f"{options.side**2 / 1e6 / got.seconds:.2f} Mpx/s"
    )


if __name__ == "__main__":
    main()
