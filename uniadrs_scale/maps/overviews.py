"""Coarse views of a map: overview levels of a file, the map at the size of a screen, statistics.

Overviews of scores hold the *maximum* of what they cover, so that narrow anomalies stay visible.
Other layers may ask for the mean.
"""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import rasterio
from rasterio.windows import Window

from uniadrs_scale.core.compiled import compiled
from uniadrs_scale.core.machine import usable_cores
from uniadrs_scale.core.memory import give_freed_memory_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Read = Callable[[slice, slice], NDArray[np.float32]]

T = TypeVar("T")
BLOCK = 512
"""Side of the file's internal tiles; a raster that fits into one gets no overviews."""
WINDOW = 2 * BLOCK
"""Side of what is copied at once, 4 MB; a multiple of two blocks, so that neither a level nor the
one above it ever writes part of a block: a compressed block written twice leaves a hole."""
CACHE = 32 << 20
"""Bytes of GDAL's block cache, which is 5 % of the machine's memory by default."""
GDAL_OPTIONS = {
    "GDAL_CACHEMAX": CACHE,
    # Cloud users often export EMPTY_DIR here, and GDAL would then not look for our side files.
    "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE",
}
THREADS = min(usable_cores(), 8)
"""Threads that read windows; and as many of GDAL compress."""


@dataclass(frozen=True, slots=True)
class Level:
    """A level of a raster with a band per layer, which any thread may read."""

    path: Path
    overview: int | None = None
    """Number of the overview; None: full resolution."""
    ways: tuple[str, ...] = ("max",)
    """The way each layer is pooled."""

    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        with self._opened() as file:
            height, width = file.shape
        return height, width

    def read(self, window: Window) -> NDArray[np.float32]:
        """Return its pixels (layer, y, x) in a window."""
        # GDAL's datasets must not be shared by threads. Another one costs little next to a window,
        # and options count for the thread that sets them.
        with rasterio.Env(**GDAL_OPTIONS), self._opened() as file:
            return np.asarray(file.read(window=window))

    def pooled(self, window: Window) -> NDArray[np.float32]:
        """Return the pixels of the next level for a window."""
        return pool(self.read(window), self.ways)

    def require(self, window: Window, expected: NDArray[np.float32]) -> None:
        """Raise OSError unless it holds these bits in a window."""
        # As integers: NaN is not equal to itself, and 0.0 is equal to -0.0.
        if not np.array_equal(self.read(window).view(np.uint32), expected.view(np.uint32)):
            raise OSError(f"reading back {window} gave other values than were written")

    def _opened(self) -> Any:
        level = {} if self.overview is None else {"overview_level": self.overview}
        return rasterio.open(self.path, **level)


def max_pool(score: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return half the size of (..., y, x), each pixel the highest of the up to four it covers.

    A pixel is NaN only if all covered pixels are NaN.
    """
    uneven = [(0, n % 2 if axis >= score.ndim - 2 else 0) for axis, n in enumerate(score.shape)]
    even = np.pad(score, uneven, constant_values=np.float32(np.nan))
    rows = np.fmax(even[..., 0::2, :], even[..., 1::2, :])
    return np.asarray(np.fmax(rows[..., 0::2], rows[..., 1::2]))


def mean_pool(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return half the size, each pixel the mean of the valid ones of the up to four it covers."""
    height, width = values.shape
    padding = [(0, height % 2), (0, width % 2)]
    even = np.pad(values, padding, constant_values=np.float32(np.nan)).astype(np.float64)
    parts = np.stack([even[row::2, col::2] for row in (0, 1) for col in (0, 1)])
    known = np.isfinite(parts).sum(axis=0)
    total = np.nansum(parts, axis=0)
    return np.where(known, total / np.maximum(known, 1), np.nan).astype(np.float32)


def pool(layers: NDArray[np.float32], ways: tuple[str, ...]) -> NDArray[np.float32]:
    """Return half the size of layers (layer, y, x), each pooled its way: ``max`` or ``mean``."""
    if set(ways) == {"max"}:
        return max_pool(layers)
    kinds = {"max": max_pool, "mean": mean_pool}
    return np.stack([kinds[way](values) for values, way in zip(layers, ways, strict=True)])


def ahead(
    function: Callable[[Window], T], places: Iterator[Window], threads: int = THREADS
) -> Iterator[tuple[Window, T]]:
    """Yield each window and the result of ``function``, in order; threads are a few windows ahead.

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
    """Return the part of the next level that shows ``window``."""
    height, width = -(-window.height // 2), -(-window.width // 2)
    return Window(window.col_off // 2, window.row_off // 2, width, height)


def windows(height: int, width: int, side: int = WINDOW) -> Iterator[Window]:
    """Yield the raster in squares of ``side`` pixels, row by row; those at the end are smaller."""
    for row in range(0, height, side):
        for col in range(0, width, side):
            yield Window(col, row, min(side, width - col), min(side, height - row))


def block_maximum(
    score: NDArray[np.float32], factor: int, offset: tuple[int, int] = (0, 0)
) -> NDArray[np.float32]:
    """Return the highest score of each square of ``factor`` x ``factor`` px; NaN if all are.

    The first pixel is at ``offset`` (row, column) of its square.
    """
    ends = (before + n for before, n in zip(offset, score.shape, strict=True))
    padding = [(before, -end % factor) for before, end in zip(offset, ends, strict=True)]
    padded = np.pad(score, padding, constant_values=np.float32(np.nan))
    rows, cols = (n // factor for n in padded.shape)
    lines = np.fmax.reduce(padded.reshape(rows, factor, -1), axis=1)  # long rows first: fastest
    return np.asarray(np.fmax.reduce(lines.reshape(rows, cols, factor), axis=2), np.float32)


def reduced(
    read: Read,
    shape: tuple[int, int],
    factor: int,
    see: Callable[[NDArray[np.float32]], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Return the highest score of each square of ``factor`` px; ``see`` gets each block (y, x).

    In this process: a picture must not compete with the scenes on the cluster.
    """
    small = np.full([-(-n // factor) for n in shape], np.nan, np.float32)
    # Not cut at squares: a window across the chunks of a store decodes up to nine for four.
    for window in windows(*shape):
        pixels = read(*window.toslices())
        top, left = window.row_off // factor, window.col_off // factor
        pooled = block_maximum(pixels, factor, (window.row_off % factor, window.col_off % factor))
        part = small[top : top + pooled.shape[0], left : left + pooled.shape[1]]
        np.fmax(part, pooled, out=part)
        see(pixels)
    return small


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """A map seen from afar."""

    small: NDArray[np.float32]
    """(y, x), the highest score of each square of pixels; NaN if a square has none."""
    factor: int
    """Side of a square [px]."""
    statistics: ScoreStatistics

    @classmethod
    def of(cls, read: Read, shape: tuple[int, int], factor: int) -> Overview:
        """Read a map once, block by block.

        The highest of squares of ``factor`` px, not the mean: averaging fades what is small,
        which is what a map is for.
        """
        parts: list[ScoreStatistics] = []
        small = reduced(read, shape, factor, lambda seen: parts.append(ScoreStatistics.of(seen)))
        return cls(small, factor, ScoreStatistics.combine(parts))


UNIT = 2.0**32
"""Sums of scores and squares are integers in units of 2^-32, so they are exact in any order."""
SLAB = 2**17
"""Values beyond -1..1 that are added at once: each takes 40 bytes while they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreStatistics:
    """Count, extremes and sums of the scores of some pixels."""

    pixels: int = 0
    """All pixels, with or without a score."""
    count: int = 0
    """Scores."""
    minimum: float = math.inf
    maximum: float = -math.inf
    total: int = 0
    """Sum, in units of 2^-32."""
    squares: int = 0
    """Sum of squares, in units of 2^-32."""

    @classmethod
    def of(cls, scores: NDArray[np.float32]) -> ScoreStatistics:
        """Return those of an array; NaN does not count."""
        count, lowest, highest, total, squares = _exact(scores.ravel(), UNIT)
        if count and max(-lowest, highest) > 1:  # not ours: integers of 64 bits may be too short
            slabs = np.array_split(scores.ravel(), -(-scores.size // SLAB))
            known = (slab[np.isfinite(slab)].astype(np.float64) for slab in slabs)
            sums = [(math.fsum(part), math.fsum(np.square(part))) for part in known]
            total, squares = (
                sum(round(part * UNIT) for part in parts) for parts in zip(*sums, strict=True)
            )
        return cls(
            pixels=scores.size,
            count=count,
            minimum=lowest,
            maximum=highest,
            total=total,
            squares=squares,
        )

    @classmethod
    def combine(cls, parts: Iterable[ScoreStatistics]) -> ScoreStatistics:
        """Return those of disjoint parts, in any order."""
        every = tuple(parts)
        return cls(
            pixels=sum(part.pixels for part in every),
            count=sum(part.count for part in every),
            minimum=min((part.minimum for part in every), default=math.inf),
            maximum=max((part.maximum for part in every), default=-math.inf),
            total=sum(part.total for part in every),
            squares=sum(part.squares for part in every),
        )

    def figures(self) -> dict[str, float]:
        """Return ``minimum``, ``maximum``, ``mean``, ``stddev``, ``valid_percent``, as STAC does.

        Empty without a score.
        """
        if not self.count:
            return {}
        mean = self.total / UNIT / self.count
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "mean": mean,
            "stddev": math.sqrt(max(self.squares / UNIT / self.count - mean**2, 0.0)),
            "valid_percent": 100 * self.count / self.pixels,
        }

    def gdal_tags(self) -> dict[str, str]:
        """Return the figures as the tags of a band that GDAL and tile servers read."""
        return {f"STATISTICS_{name.upper()}": f"{v:.9g}" for name, v in self.figures().items()}


@compiled()
def _exact(values: NDArray[np.float32], unit: float) -> tuple[int, float, float, int, int]:
    """Return count, extremes, sum and sum of squares (in ``unit``) of the finite values (n,)."""
    count, total, squares, lowest, highest = 0, 0, 0, np.inf, -np.inf
    for value in values:
        if np.isfinite(value):
            wide = np.float64(value)
            count += 1
            lowest, highest = min(lowest, wide), max(highest, wide)
            total += int(np.rint(wide * unit))
            squares += int(np.rint(wide * wide * unit))
    return count, lowest, highest, total, squares
