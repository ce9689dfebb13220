"""Peak memory of reading each kind of product window by window, and the cost of a long strip.

    python benchmarks/readers.py                # every reader, about 200 MB of pixels each
    python benchmarks/readers.py --strip        # 2,000 x 200,000 px, a stand-in network
    python benchmarks/readers.py --strip --share 2     # the same, valid everywhere
    python benchmarks/readers.py --swath        # geocoding of a swath of 20,000 x 4,000 px

The ratio is the peak memory, without that of the interpreter, divided by the bytes of the scene. It
is at least 1 if a reader loads the whole scene. Each product is read in its own process.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from memory import MIB, Deviation
from rasterio.transform import from_origin
from rasterio.windows import Window as RasterWindow

import uniadrs_scale as us
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.runtime.compute import Compute
from uniadrs_scale.scenes.sources import scene_source
from uniadrs_scale.scoring.job import prepare
from uniadrs_scale.scoring.run import run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniadrs_scale.core.lattice import Lattice

TESTS = Path(__file__).parents[1] / "tests"
SIZES = {
    "sentinel2": {"side": 2880},
    "landsat": {"n": 4000},
    "sentinel1": {"height": 10_000, "width": 6000},
    "envi": {"n": 5000},
    "enmap": {"n": 4500},
    "emit": {"height": 2000, "width": 800, "bands": 60},
    "prisma": {"height": 4000, "width": 3000},
    "matlab73": {"rows": 2400, "cols": 1500, "bands": 12},
    "stac_item": {"n": 5000},
}
"""Arguments that make the small products of tests/products.py large."""
CHUNK = 512
BLOCK = 512


def peak_mib() -> float:
    """Return the largest resident set of this process so far [MiB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_all(path: str, options: dict[str, str]) -> None:
    """Read every window of a scene once; print memory before, after, and the scene's bytes."""
    warm = us.open_scene(path, **options)
    before = peak_mib()
    source = scene_source(warm)
    info = source.info
    for row in range(0, info.height, CHUNK):
        for col in range(0, info.width, CHUNK):
            size = min(CHUNK, info.height - row), min(CHUNK, info.width - col)
            source.window(Window(row, col, *size)).read()
    scene = info.height * info.width * len(info.bands) * info.itemsize
    print(before, peak_mib(), scene / MIB, len(info.bands) * info.itemsize * CHUNK**2 / MIB)


def make(kind: str, folder: str) -> None:
    """Write a large product of one kind and print its path."""
    sys.path.insert(0, str(TESTS))
    import products  # in the process that writes

    print(getattr(products, kind)(Path(folder), **SIZES[kind]))


def make_swath(folder: str, height: int, width: int, control: str) -> None:
    """Write the scores of a swath with known geometry, as a run does."""
    sys.path.insert(0, str(TESTS))
    from swaths import Swath, store_of

    scene = Swath(height=height, width=width, latitude=20).scene(control=control == "points")
    store_of(scene, scene.values[0], Path(folder) / "map.zarr", chunk=1024)


def geocode(folder: str) -> None:
    """Draw the map; print memory before and after, size of the map, and seconds."""
    path = Path(folder)
    before, clock = peak_mib(), time.perf_counter()
    us.to_cog(path / "map.zarr", path / "map.tif")
    with rasterio.open(path / "map.tif") as file:
        print(before, peak_mib(), *file.shape, time.perf_counter() - clock)


def swath(height: int, width: int) -> None:
    """Print peak memory and time of drawing a swath, by arrays and by control points."""
    scores = height * width * 4 / MIB
    for kind in ("arrays", "points"):
        with tempfile.TemporaryDirectory() as folder:
            child("--make-swath", folder, str(height), str(width), kind)
            before, peak, rows, cols, seconds = map(float, child("--geocode", folder))
        print(
            f"{kind:<8}{height} x {width} px ({scores:.0f} MiB of scores, 4 times that of places)"
            f" on {rows:.0f} x {cols:.0f} cells in {seconds:.0f} s: {before:.0f} MiB before, "
            f"peak {peak:.0f}",
            flush=True,
        )


def child(*arguments: str) -> list[str]:
    """Start this script again and return the words that it prints."""
    command = [sys.executable, "-W", "ignore", __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.split()


def every_reader(kinds: list[str]) -> None:
    """Print a line per kind of product."""
    print("reader       scene MiB  window MiB  before  peak  ratio")
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            path = " ".join(child("--make", kind, folder))
            before, peak, scene, window = map(float, child("--read", path))
            print(
                f"{kind:<12}{scene:10.0f}{window:12.1f}{before:8.0f}{peak:6.0f}"
                f"{(peak - before) / scene:7.2f}",
                flush=True,
            )


def swaying(rows: NDArray[np.intp], height: int, width: int, share: float) -> NDArray[np.bool_]:
    """Return the valid mask (row, col): a band of ``share`` of the columns, curved as a swath."""
    centre = width * (0.5 + 0.33 * np.sin(rows * 12 / height))
    return np.abs(np.arange(width)[None] - centre[:, None]) < width * share / 2


def write_strip(path: Path, *, height: int, width: int, share: float = 1 / 3) -> None:
    """Write a sparse strip of two bands, without its invalid blocks."""
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 2,
        "dtype": "uint16",
        "tiled": True,
        "blockxsize": min(BLOCK, -(-width // 64) * 16),
        "blockysize": min(BLOCK, -(-width // 64) * 16),
        "compress": "zstd",
        "zstd_level": 1,
        "crs": "EPSG:32632",
        "transform": from_origin(5e5, 9e6, 10, 10),
        "nodata": 0,
        "sparse_ok": True,
        "bigtiff": "yes",
    }
    side = profile["blockysize"]
    cols = np.arange(width)
    with rasterio.open(path, "w", **profile) as file:
        for row in range(0, height, side):
            rows = np.arange(row, min(row + side, height))
            valid = swaying(rows, height, width, share)
            pixels = np.stack([rows[:, None] % 60_000 + 1 + 0 * cols, cols + 1 + 0 * rows[:, None]])
            for col in range(0, width, side):
                part = valid[:, col : col + side]
                if part.any():
                    block = np.where(part, pixels[:, :, col : col + side], 0).astype(np.uint16)
                    file.write(block, window=RasterWindow(col, row, *block.shape[:0:-1]))


def tiles_with_pixels(lattice: Lattice, share: float) -> int:
    """Count the tiles of a strip with a valid pixel, without reading it."""
    count = 0
    for index in lattice.indices():
        for tile in map(lattice.inside, lattice.owned_tiles(index)):
            rows = np.arange(tile.row, tile.row + tile.height)
            cols = slice(tile.col, tile.col + tile.width)
            count += bool(swaying(rows, lattice.height, lattice.width, share)[:, cols].any())
    return count


def strip(height: int, width: int, share: float) -> None:
    """Score a long strip with a stand-in for the network and print the cost."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "strip.tif"
        write_strip(path, height=height, width=width, share=share)
        scene = us.open_scene(path)
        started = time.perf_counter()
        detector = Deviation()
        # Threads: worker processes could not import the stand-in from memory.py.
        compute = Compute.of("threads")
        job = prepare(scene, Sizes(), detector, compute)
        plan = job.plan
        planned, before = time.perf_counter() - started, peak_mib()
        clock, cpu = time.perf_counter(), time.process_time()
        summary = run(job, Path(folder) / "map.zarr", compute)
        clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    print(summary.text())
    print(
        f"{width} x {height} px, planned in {planned:.2f} s, scored in {clock:.0f} s, {cpu:.0f} s "
        f"of CPU\n{tiles_with_pixels(plan.lattice, share)} of {plan.lattice.tiles} tiles have a "
        f"valid pixel\n{before:.0f} MiB before, peak {peak_mib():.0f} MiB, forecast "
        f"{plan.memory.total / MIB:.0f} MiB"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[[], *SIZES], default=[])
    parser.add_argument("--strip", action="store_true")
    parser.add_argument("--swath", action="store_true")
    parser.add_argument("--height", type=int, help="default 200,000; swath: 20,000")
    parser.add_argument("--width", type=int, help="default 2,000; swath: 4,000")
    parser.add_argument("--share", type=float, default=1 / 3, help="valid share of a strip's width")
    parser.add_argument("--make", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--make-swath", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--geocode", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(*options.make)
    elif options.read:
        read_all(options.read, {})
    elif options.make_swath:
        folder, height, width, kind = options.make_swath
        make_swath(folder, int(height), int(width), kind)
    elif options.geocode:
        geocode(options.geocode)
    elif options.strip:
        strip(options.height or 200_000, options.width or 2000, options.share)
    elif options.swath:
        swath(options.height or 20_000, options.width or 4000)
    else:
        every_reader(options.kinds or list(SIZES))


if __name__ == "__main__":
    main()
