"""Memory: the forecast of a worker's peak, and the settings of the C library's allocator."""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from uniadrs_scale.core.pixels import SLAB

if TYPE_CHECKING:
    from uniadrs_scale.core.lattice import Lattice

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of settings in glibc's `malloc.h`."""
MMAP_THRESHOLD = 32 << 20
"""Bytes: where glibc's own adjustment ends on 64 bit machines, and more than any one activation."""


@cache
def _is_glibc() -> bool:
    """Once a process: the answer is looked up in the interpreter's file."""
    return platform.libc_ver()[0] == "glibc"


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory, as glibc does by default; return True if it will.

    Dask starts workers with ``MALLOC_TRIM_THRESHOLD_=65536``. That also switches glibc's own
    adjustment off, so that each activation of a tile comes from the kernel page by page and goes
    back: 15,000 page faults and a fifth of the time of a tile, more with each other process. In
    other processes, the adjustment ends too early for tiles of the small network: 6,000 faults.
    The values are those that the adjustment reaches by itself. A page cache of our own would not
    help, since torch allocates with malloc.
    """
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    done = [
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD),
        mallopt(M_TRIM_THRESHOLD, 2 * MMAP_THRESHOLD),
    ]
    return done == [1, 1]


def give_freed_memory_back() -> None:
    """Return free memory to the system between two tasks, since the next one is of another kind.

    Otherwise 60 MiB of fragments (224 bands) remain from the statistics during the first window.
    """
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


MIB = 2**20
PROCESS_BYTES = 625 * MIB
"""A worker without pixels: 520 MiB of interpreter, libraries, GDAL's cache and Dask, 20 of network
and oneDNN, and 85 while kernels are compiled, which each machine does once."""
GPU_BUILD_BYTES = 400 * MIB
"""More for a build of torch for GPUs, on any machine: 360 MiB of libraries (2.13 for CUDA 13). The
context of a GPU that is used comes on top; not measured."""
KEPT_BYTES = 2 * MMAP_THRESHOLD
"""Free memory that the C library keeps, see :mod:`uniadrs_scale.core.memory`."""
FEW_BANDS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryForecast:
    """Peak resident memory of the largest worker, in bytes."""

    process: int
    """Interpreter and libraries."""
    read: int
    """Pixels and valid mask of one window (chunk and halo) per thread, with the data that are
    decoded at the same time."""
    sums: int
    """Numerators being made, merged and waiting for their neighbours."""
    network: int
    """Scaled tiles and activations for each thread, and freed ones that are kept for the next."""
    statistics: int
    """A window and its moments per thread: before the first tile, not at the same time."""

    @property
    def total(self) -> int:
        """The process and the larger of what follows one after the other."""
        return self.process + max(self.statistics, self.read + self.sums + self.network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """Memory for reading a scene, per pixel and per piece."""

    bands: int
    itemsize: int
    """Bytes of one value as read."""
    block_bytes: int
    """As :class:`uniadrs_scale.core.contracts.SceneInfo` has it."""
    strip_rows: int
    """As :class:`uniadrs_scale.core.contracts.SceneInfo` has it."""

    def window(self, height: int, width: int) -> int:
        """Return the bytes of a window with its mask, and of the data decoded with it."""
        values = width * self.bands * self.itemsize
        return height * (values + width) + min(self.strip_rows, height) * values + self.block_bytes

    def moments(self) -> int:
        """Return the bytes that the moments of a window take: see :meth:`BandStatistics.of`."""
        # A slab as read, and in float64 three times; covariances of the slab, so far, and both
        # merged. Measured for 224 to 2048 bands: 2.5 times the float64 slab in all.
        return SLAB * self.bands * (self.itemsize + 3 * 8) + 4 * 8 * self.bands**2


def sample_side(bands: int) -> int:
    """Return the side of the windows that are read for the scene's statistics [px]."""
    return 512 if bands <= FEW_BANDS else 256


def waiting_strips(rows: int, cols: int, *, in_lines: bool) -> int:
    """Return the most strips right of or below chunks that wait for neighbours at a time.

    Line by line, those of the line before wait. The order of :mod:`dask.order` goes now along, now
    across; tests/test_forecast.py asks it.
    """
    across, along = sorted((rows, cols))
    if across == 1:
        return min(along - 1, 2)
    return across + 4 if in_lines else across + 2 * along


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """The processes that compute a run."""

    workers: int
    """Processes that share the held strips."""
    threads: int
    """Threads per process."""
    in_lines: bool
    """True if chunks come line by line."""
    gpu_build: bool
    """True if torch is built for GPUs."""


def forecast(
    lattice: Lattice,
    pixels: Pixels,
    processes: Processes,
    *,
    batch: int,
    activation_bytes: int,
    layers: int = 1,
) -> MemoryForecast:
    """Return the peak of the largest of the processes.

    Args:
        lattice: Geometry of the run.
        pixels: Memory per pixel of the scene.
        processes: The processes that compute.
        batch: Tiles per call of the network.
        activation_bytes: Memory of a call beyond its input, in bytes.
        layers: Layers of the map.
    """
    threads = processes.threads
    rows, cols = lattice.chunks
    side_y, side_x = min(lattice.chunk, lattice.height), min(lattice.chunk, lattice.width)
    height, width = lattice.largest_read
    halo = max(height - side_y, width - side_x)
    chunk = side_y * side_x
    # Float64 numerators of the window and the body cut from it, and bodies that wait for strips: a
    # chunk that is late delays those right, below and diagonal of it. A commit needs less, and a
    # thread does one thing at a time.
    delayed = min(rows, 2) * min(cols, 2) - 1
    sums = 8 * layers * (height * width + chunk * (1 + delayed))
    # Strips that wait for their neighbours, at most as long as a chunk and its halo.
    strips = waiting_strips(rows, cols, in_lines=processes.in_lines)
    strips *= 8 * layers * halo * (max(side_y, side_x) + halo)
    # Scaled, filled and batched; and what the C library holds of those that were freed.
    tile = 3 * 4 * pixels.bands * lattice.tile**2 * batch + activation_bytes
    kept = min(tile, KEPT_BYTES)
    sample = sample_side(pixels.bands)
    sampled = pixels.window(min(sample, lattice.height), min(sample, lattice.width))
    return MemoryForecast(
        process=PROCESS_BYTES + processes.gpu_build * GPU_BUILD_BYTES,
        read=threads * pixels.window(height, width),
        sums=threads * sums + strips // processes.workers,
        network=threads * (tile + kept),
        statistics=threads * (sampled + pixels.moments()),
    )
