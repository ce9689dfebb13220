"""Peak memory of a worker against the plan's forecast, for a large scene and a stand-in network.

    python benchmarks/memory.py --side 20000 --bands 4 --chunk 1024 --workers 2

Prints both, in MiB, and their ratio. ``--network`` scores with the shipped weights instead (slow).
Where kernels are compiled, the first time, the peak is about 50 MiB higher: NUMBA_CACHE_DIR at an
empty folder shows it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
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
    """Largest resident set that any worker process has had, bytes; as the kernel kept it."""
    seconds: float

    @property
    def ratio(self) -> float:
        """Peak over forecast."""
        return self.peak / self.forecast


def write_scene(path: Path, side: int, bands: int, block: int = 512) -> None:
    """A noise scene, written piece by piece; a block of the file holds all bands."""
    rng = np.random.default_rng(0)
    noise = rng.integers(1, 16, (bands, 1000, 1000), np.uint16) * np.uint16(600)
    profile = {
        "driver": "GTiff", "height": side, "width": side, "count": bands, "dtype": "uint16",
        "tiled": True, "blockxsize": block, "blockysize": block, "interleave": "pixel",
        "compress": "zstd", "zstd_level": 1, "bigtiff": "yes", "nodata": 0,
        "crs": "EPSG:32632", "transform": from_origin(500_000, 5_000_000, 10, 10),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        for row in range(0, side, 1000):
            for col in range(0, side, 1000):
                height, width = min(1000, side - row), min(1000, side - col)
                file.write(noise[:, :height, :width], window=Window(col, row, width, height))


def measure(
    folder: Path,
    side: int,
    bands: int,
    *,
    chunk: int,
    workers: int,
    network: bool = False,
    block: int = 512,
) -> Measured:
    """Score a scene on worker processes and ask the run's report for their peaks."""
    write_scene(folder / "scene.tif", side, bands, block)
    scene = us.open_scene(folder / "scene.tif")
    detector = us.Detector.load(device="cpu") if network else Deviation()
    options = {"detector": detector, "chunk": chunk, "workers": workers}
    started = time.perf_counter()
    us.score(scene, folder / "map.zarr", **options)
    seconds = time.perf_counter() - started
    memory = json.loads((folder / "map.zarr.run.json").read_text(encoding="utf-8"))["memory"]
    return Measured(memory["forecast"], memory["peak"], seconds)


def main() -> None:
    """Measure once and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--bands", type=int, default=4)
    parser.add_argument("--chunk", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--network", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        got = measure(
            Path(folder), options.side, options.bands,
            chunk=options.chunk, workers=options.workers, network=options.network,
            block=options.block,
        )  # fmt: skip
    print(
        f"forecast {got.forecast / MIB:.0f} MiB, peak {got.peak / MIB:.0f} MiB a worker, "
        f"ratio {got.ratio:.2f}; {got.seconds:.0f} s, "
        f"{options.side**2 / 1e6 / got.seconds:.2f} Mpx/s"
    )


if __name__ == "__main__":
    main()
