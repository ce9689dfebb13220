"""A single-band raster and its overviews, read in windows by several threads.

Overviews hold the *maximum* of what they cover, so that narrow anomalies stay visible.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import rasterio
from rasterio.windows import Window

from uniadrs_scale.allocator import give_freed_memory_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

T = TypeVar("T")

BLOCK = 512
"""Side of the file's internal tiles; a raster that fits into one gets no overviews."""
WINDOW = 2 * BLOCK
"""Side of what is copied at once, 4 MB; a multiple of two blocks, so that neither a level nor the
one above it ever writes part of a block: a compressed block written twice leaves a hole."""
CACHE = 32 << 20
"""Bytes of GDAL's block cache, which takes 5 % of the machine's memory if it is let."""

GDAL_OPTIONS = {
    "GDAL_CACHEMAX": CACHE,
    # Cloud users often export EMPTY_DIR here, and GDAL would then not look for our side files.
    "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE",
}
THREADS = min(os.cpu_count() or 1, 8)
"""That read windows; and as many of GDAL that compress."""


@dataclass(frozen=True, slots=True)
class Level:
    """A level of a single-band raster, which any thread may read."""

    path: Path
    overview: int | None = None
    """Number of the overview; None: full resolution."""

    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        with self._opened() as file:
            height, width = file.shape
        return height, width

    def read(self, window: Window) -> NDArray[np.float32]:
        """Its pixels (y, x) in a window."""
        # GDAL's datasets must not be shared by threads. Another one costs little beside a window,
        # and options count for the thread that sets them.
        with rasterio.Env(**GDAL_OPTIONS), self._opened() as file:
            return np.asarray(file.read(1, window=window))

    def pooled(self, window: Window) -> NDArray[np.float32]:
        """What the next level shows of a window."""
        return max_pool(self.read(window))

    def require(self, window: Window, expected: NDArray[np.float32]) -> None:
        """Raise OSError unless it holds these bits in a window."""
        # As integers: NaN is not equal to itself, and 0.0 is equal to -0.0.
        if not np.array_equal(self.read(window).view(np.uint32), expected.view(np.uint32)):
            raise OSError(f"reading back {window} gave other values than were written")

    def _opened(self) -> Any:
        level = {} if self.overview is None else {"overview_level": self.overview}
        return rasterio.open(self.path, **level)


def max_pool(score: NDArray[np.float32]) -> NDArray[np.float32]:
    """Half the size, each pixel the highest of the up to four it covers.

    Args:
        score: (y, x), NaN = invalid.

    Returns:
        float32 (ceil(y / 2), ceil(x / 2)); NaN only where all covered pixels are NaN.
    """
    even = np.pad(score, [(0, n % 2) for n in score.shape], constant_values=np.float32(np.nan))
    rows = np.fmax(even[0::2], even[1::2])
    return np.asarray(np.fmax(rows[:, 0::2], rows[:, 1::2]))


def ahead(
    function: Callable[[Window], T], places: Iterator[Window], threads: int = THREADS
) -> Iterator[tuple[Window, T]]:
    """Each window and what ``function`` makes of it, in order; threads are a few windows ahead.

    The C library keeps what each thread frees, in pieces: some 45 MiB more at 8000 px than at
    4000 px. So after each window it goes back to the system.
    """
    waiting: deque[tuple[Window, Future[T]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for window in places:
            waiting.append((window, pool.submit(function, window)))
            if len(waiting) > threads:
                yield waiting[0][0], waiting.popleft()[1].result()
                give_freed_memory_back()
        for window, future in waiting:
            yield window, future.result()


def above(window: Window) -> Window:
    """Where the next level shows ``window``."""
    height, width = -(-window.height // 2), -(-window.width // 2)
    return Window(window.col_off // 2, window.row_off // 2, width, height)


def windows(height: int, width: int) -> Iterator[Window]:
    """The raster in squares of WINDOW pixels, row by row; those at the end are smaller."""
    for row in range(0, height, WINDOW):
        for col in range(0, width, WINDOW):
            yield Window(col, row, min(WINDOW, width - col), min(WINDOW, height - row))
