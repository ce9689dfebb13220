"""Peak memory of reading each kind of product window by window, and the cost of a long strip.

    python benchmarks/readers.py                # every reader, about 200 MB of pixels each
    python benchmarks/readers.py --strip        # 2,000 x 200,000 px, a stand-in network

A reader that loads a scene whole would show a ratio of 1 or more: memory beyond the interpreter's,
over the bytes of the scene. Each product is read in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from memory import MIB, Deviation
from rasterio.transform import from_origin
from rasterio.windows import Window as RasterWindow

import uniadrs_scale as us
from uniadrs_scale.io.scenes import scene_source
from uniadrs_scale.lattice import Window
from uniadrs_scale.score import run

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
"""Arguments of the fixtures in tests/products.py: small products made large."""
CHUNK = 512
BLOCK = 512


def peak_mib() -> float:
    """Largest resident set of this process so far."""
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
    import products  # noqa: PLC0415 - only here, and only in a process of its own

    print(getattr(products, kind)(Path(folder), **SIZES[kind]))


def child(*arguments: str) -> list[str]:
    """What this script prints when started again."""
    command = [sys.executable, "-W", "ignore", __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.split()


def every_reader(kinds: list[str]) -> None:
    """A line for each kind of product."""
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


def write_strip(path: Path, *, height: int, width: int) -> None:
    """A sparse two-band strip: in each row a third of the columns is valid, swaying from side to
    side as an orbit's swath does on a map."""  # noqa: D205,D209
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 2, "dtype": "uint16",
        "tiled": True, "blockxsize": min(BLOCK, -(-width // 64) * 16),
        "blockysize": min(BLOCK, -(-width // 64) * 16), "compress": "zstd", "zstd_level": 1,
        "crs": "EPSG:32632", "transform": from_origin(5e5, 9e6, 10, 10), "nodata": 0,
        "sparse_ok": True, "bigtiff": "yes",
    }  # fmt: skip
    side = profile["blockysize"]
    cols = np.arange(width)
    with rasterio.open(path, "w", **profile) as file:
        for row in range(0, height, side):
            rows = np.arange(row, min(row + side, height))
            centre = width * (0.5 + 0.33 * np.sin(rows * 12 / height))
            valid = np.abs(cols[None] - centre[:, None]) < width / 6
            pixels = np.stack([rows[:, None] % 60_000 + 1 + 0 * cols, cols + 1 + 0 * rows[:, None]])
            for col in range(0, width, side):
                part = valid[:, col : col + side]
                if part.any():
                    block = np.where(part, pixels[:, :, col : col + side], 0).astype(np.uint16)
                    file.write(block, window=RasterWindow(col, row, *block.shape[:0:-1]))


def strip(height: int, width: int) -> None:
    """Score a long strip with a stand-in network and say what it cost."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "strip.tif"
        write_strip(path, height=height, width=width)
        scene = us.open_scene(path)
        started = time.perf_counter()
        detector = Deviation()
        # Threads: worker processes could not import the stand-in from memory.py.
        plan = us.plan(scene, detector=detector, scheduler="threads")
        planned = time.perf_counter() - started
        summary = run(scene, Path(folder) / "map.zarr", plan, detector, scheduler="threads")
    print(summary.text())
    print(
        f"file {path.name}: {width} x {height} px, {plan.lattice.tiles} tiles, planned in "
        f"{planned:.2f} s, scored in {time.perf_counter() - started - planned:.0f} s, "
        f"peak {peak_mib():.0f} MiB"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[[], *SIZES], default=[])
    parser.add_argument("--strip", action="store_true")
    parser.add_argument("--height", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=2000)
    parser.add_argument("--make", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(*options.make)
    elif options.read:
        read_all(options.read, {})
    elif options.strip:
        strip(options.height, options.width)
    else:
        every_reader(options.kinds or list(SIZES))


if __name__ == "__main__":
    main()
