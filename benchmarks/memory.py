"""Peak memory of a worker against the plan's forecast, for a large scene and a stand-in network.

    python benchmarks/memory.py --side 20000 --bands 4 --chunk 1024 --workers 2
    python benchmarks/memory.py --side 2000 --width 200000 --kind warped

Prints peak and forecast in MiB, and their ratio. ``--network`` uses the shipped weights (slow).
``--kind`` is the kind of scene: one ``file``; two files of mixed resolution, one of them ``warped``
to the other's grid; or band maths, which Dask computes in each task (``lazy``). The first run
compiles kernels, which adds about 50 MiB to the peak: set NUMBA_CACHE_DIR to an empty folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from rasterio.windows import Window

import uniadrs_scale as us

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

MIB = 2**20
Kind = Literal["file", "warped", "lazy"]


class Deviation:
    """A stand-in for the network: distance from the tile's mean, with few activations."""

    identity = "deviation"
    batch = 1

    def activation_bytes(self, tile: int, bands: int) -> int:
        """Return the bytes of one float32 copy of the tile."""
        return 4 * bands * tile**2

    def fitted(self, statistics: object) -> Deviation:
        """Return the scorer itself, the same for every scene."""
        del statistics
        return self

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score (n, band, y, x): (n, y, x) in 0..1."""
        apart = np.abs(tiles - tiles.mean(axis=(2, 3), keepdims=True)).mean(axis=1)
        # By torch: the forecast counts its libraries, which only workers with a network load.
        return torch.from_numpy(apart).tanh_().numpy()


@dataclass(frozen=True, slots=True)
class Measured:
    """Forecast and measured memory of one run."""

    forecast: int
    """Forecast per worker [bytes]."""
    peak: int
    """Largest resident set of any worker process, as the kernel recorded it [bytes]."""
    seconds: float

    @property
    def ratio(self) -> float:
        """Peak over forecast."""
        return self.peak / self.forecast


def write_scene(
    path: Path, side: int, bands: int, block: int = 512, *, width: int = 0, pixel: int = 10
) -> None:
    """Write a noise scene piece by piece; a block of the file holds all bands."""
    whole = width or side
    rng = np.random.default_rng(0)
    noise = rng.integers(1, 16, (bands, 1000, 1000), np.uint16) * np.uint16(600)
    profile = {
        "driver": "GTiff",
        "height": side,
        "width": whole,
        "count": bands,
        "dtype": "uint16",
        "tiled": True,
        "blockxsize": block,
        "blockysize": block,
        "interleave": "pixel",
        "compress": "zstd",
        "zstd_level": 1,
        "bigtiff": "yes",
        "nodata": 0,
        "crs": "EPSG:32632",
        "transform": from_origin(500_000, 5_000_000, pixel, pixel),
    }
    with rasterio.open(path, "w", **profile) as file:
        for row in range(0, side, 1000):
            for col in range(0, whole, 1000):
                rows, cols = min(1000, side - row), min(1000, whole - col)
                file.write(noise[:, :rows, :cols], window=Window(col, row, cols, rows))


def make_scene(
    folder: Path, side: int, bands: int, *, block: int = 512, width: int = 0, kind: Kind = "file"
) -> xr.DataArray:
    """Make a scene of ``bands`` bands and ``side`` rows: see the top of this file."""
    width = width or side
    first = bands - bands // 2 if kind == "warped" else bands
    write_scene(folder / "scene.tif", side, first, block, width=width)
    if kind == "warped":
        half = {"width": width // 2, "pixel": 20}
        write_scene(folder / "coarse.tif", side // 2, bands // 2, block, **half)
        return us.open_scene([folder / "scene.tif", folder / "coarse.tif"], grid="finest")
    scene = us.open_scene(folder / "scene.tif")
    if kind == "file":
        return scene
    pixels = scene.astype("float32")
    return pixels / (pixels.sum("band") + 1)


def measure(
    folder: Path,
    side: int,
    bands: int,
    *,
    chunk: int,
    workers: int,
    network: bool = False,
    block: int = 512,
    width: int = 0,
    kind: Kind = "file",
) -> Measured:
    """Score a scene on worker processes and read their peaks from the run's report."""
    scene = make_scene(folder, side, bands, block=block, width=width, kind=kind)
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
    parser.add_argument("--width", type=int, default=0, help="by default that of --side")
    parser.add_argument("--kind", choices=("file", "warped", "lazy"), default="file")
    parser.add_argument("--network", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        got = measure(
            Path(folder),
            options.side,
            options.bands,
            chunk=options.chunk,
            workers=options.workers,
            network=options.network,
            block=options.block,
            width=options.width,
            kind=options.kind,
        )
    print(
        f"forecast {got.forecast / MIB:.0f} MiB, peak {got.peak / MIB:.0f} MiB per worker, "
        f"ratio {got.ratio:.2f}; {got.seconds:.0f} s, "
        f"{options.side * (options.width or options.side) / 1e6 / got.seconds:.2f} Mpx/s"
    )


if __name__ == "__main__":
    main()
