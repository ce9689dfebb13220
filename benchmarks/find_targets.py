"""Time and memory of `targets` on a large map, and its share of the time of `score`.

    python benchmarks/find_targets.py [--side 20000] [--per-mpx 5] [--workers 2]
    python benchmarks/find_targets.py --side 100000 --folder /a/disk/with/10/GB

The map has noise below 0.2 and 5 planted objects per megapixel, a third of them with peaks above
the threshold 0.7. Then `score` is timed with the same number of workers, for 2048 x 2048 px of 4
bands, and its time is extrapolated to the size of the map. On a busy machine, the ratio is still
valid, but the seconds are not.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import xarray as xr
import zarr
from affine import Affine
from pyproj import CRS
from scipy import ndimage

import uniadrs_scale as us
from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.maps.new_store import create_map, place_attributes
from uniadrs_scale.objects.find import find
from uniadrs_scale.objects.select import Selection
from uniadrs_scale.runtime.compute import Compute
from uniadrs_scale.scoring.job import prepare
from uniadrs_scale.scoring.run import run

CHUNK, SCORED = 1024, 2048
MIB = 2**20


def main() -> None:
    """Make the map, search it, score a small scene, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--per-mpx", type=float, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where the map is made, by default the temporary folder")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uniadrs-scale-", dir=asked.folder) as folder:
        path = Path(folder) / "map.zarr"
        make(path, asked.side, asked.per_mpx)
        peaks = Peaks()
        with peaks:
            started = time.perf_counter()
            compute = Compute.of(workers=asked.workers)
            table = find(path, Selection(threshold=0.7), compute=compute)
            searched = time.perf_counter() - started
        megapixels = asked.side**2 / 1e6
        print(f"map      {asked.side} x {asked.side} px, {asked.per_mpx:g} objects per Mpx")
        print(f"targets  {len(table)} in {searched:.1f} s, {searched / megapixels:.3f} s/Mpx")
        print(f"memory   driver {peaks.driver / MIB:.0f} MiB, worker {peaks.worker / MIB:.0f} MiB")
        scored = score_seconds(asked.workers) * megapixels
        print(
            f"score    {scored:.0f} s for as many pixels of 4 bands (from {SCORED} x {SCORED} px)"
        )
        print(f"share    {searched / scored:.1%} of the time of score")


class Peaks:
    """The highest resident sets of this process and of one worker, measured every 50 ms."""

    def __init__(self) -> None:
        self.worker, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @property
    def driver(self) -> int:
        """Bytes of this process."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            for child in psutil.Process().children(recursive=True):
                try:
                    self.worker = max(self.worker, child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue


def make(path: Path, side: int, per_mpx: float) -> None:
    """Write a map with planted objects."""
    rng = np.random.default_rng(0)
    group = zarr.open_group(path, mode="w", zarr_format=3)
    # Polar stereographic: a grid that 100,000 px of 10 m do not leave.
    grid = Affine(10, 0, -5e5, 0, -10, 5e5)
    placed = place_attributes(CRS.from_epsg(3413).to_wkt(), grid, (side, side))
    array = create_map(group, "score", (side, side), CHUNK, "float32", attributes=placed)
    group.update_attributes(placed | {"fingerprint": "0" * 16, "software": "uniadrs_scale"})
    noise = 0.2 * rng.random((CHUNK, CHUNK), np.float32) ** 4
    # Coarse steps, so that the map of 100,000 x 100,000 px takes 5 GB of a disk instead of 40.
    noise = (np.round(noise * 64) / 64).astype(np.float32)
    for row in range(0, side, CHUNK):
        for col in range(0, side, CHUNK):
            shape = min(CHUNK, side - row), min(CHUNK, side - col)
            chunk = np.roll(noise, int(rng.integers(CHUNK)), axis=1)[: shape[0], : shape[1]].copy()
            for _ in range(rng.poisson(per_mpx * chunk.size / 1e6)):
                plant(chunk, rng)
            array[row : row + shape[0], col : col + shape[1]] = chunk


def plant(chunk: np.ndarray, rng: np.random.Generator) -> None:
    """Add an object of 3 to 200 pixels at a random position, which may be on a border."""
    size, peak = rng.integers(3, 20), rng.uniform(0.4, 1.0)
    blob = ndimage.gaussian_filter(rng.random((size, size)), 1.5)
    blob = peak * (blob / blob.max()) ** 4
    row, col = (int(rng.integers(0, n)) for n in chunk.shape)
    part = chunk[row : row + size, col : col + size]
    np.maximum(part, blob[: part.shape[0], : part.shape[1]].astype(np.float32), out=part)


def score_seconds(workers: int) -> float:
    """Return the seconds that scoring a megapixel of 4 bands takes, without starting workers."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(1000, 50, (4, SCORED, SCORED)).astype(np.uint16)
    scene = xr.DataArray(pixels, dims=("band", "y", "x"), name="noise")
    with (
        tempfile.TemporaryDirectory(prefix="uniadrs-scale-") as folder,
        Compute.of(workers=workers).connected() as compute,
    ):
        job = prepare(scene, Sizes(), us.Detector.load(), compute)
        started = time.perf_counter()
        run(job, Path(folder) / "map.zarr", compute)
        return (time.perf_counter() - started) / (SCORED**2 / 1e6)


if __name__ == "__main__":
    main()
