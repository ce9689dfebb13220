"""Statistics by region: a tile is scaled by the ground around it, and a little by the whole scene.

The scene is cut into cells on its own lattice. The moments of each cell are kept, so that those of
any region are a merger, for every chunking the same.

A few extreme pixels must not decide a deviation. Values far beyond almost all others of the region
are moved to a fence before they are squared: only in statistics, never in the map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.core.lattice import Window
from uniadrs_scale.core.pixels import BandStatistics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Index = tuple[int, int]
    Fences = tuple[NDArray[np.float64], NDArray[np.float64]]

SIDE = 512
"""Side of the smallest cells [px]."""
REACH = 1
"""Cells around that of a tile's centre which are its region, in each direction."""
WHOLE = 0.25
"""Weight of the whole scene in a region's statistics, relative to the region."""
LEAST = 2**16
"""Least weight of the whole scene, in pixels: few valid ones of a region decide little."""
MOST_CELLS, MOST_BYTES = 2**12, 2**27
"""Cells of a scene, and bytes of their covariances: cells of larger scenes are larger."""
RANKS = 64
"""Order statistics that stand for the values of a cell."""
SPARSE = 1024
"""Pixels of a window that these are taken from, at least, if it has as many."""
TAIL, FAR = 0.01, 64.0
"""Fences are FAR times the distance of the quantiles TAIL and 1 - TAIL beyond them. A population
that is smaller than TAIL is beyond CLIP deviations anyway, and so has no contrast in the map."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """The cells of a scene."""

    height: int
    """Scene rows."""
    width: int
    """Scene columns."""
    side: int
    """Side of a cell [px]; a power of two times SIDE."""

    @classmethod
    def of(cls, height: int, width: int, bands: int) -> Grid:
        """Return the grid of a scene; it follows from the scene alone."""
        most = max(1, min(MOST_CELLS, MOST_BYTES // (8 * bands**2)))
        side = SIDE
        while -(-height // side) * -(-width // side) > most:
            side *= 2
        return cls(height=height, width=width, side=side)

    @property
    def shape(self) -> Index:
        """Cells along (y, x)."""
        return -(-self.height // self.side), -(-self.width // self.side)

    def windows(self, index: Index, side: int) -> Iterator[Window]:
        """Yield the windows of at most ``side`` px that a cell is read in, in raster order."""
        top, left = (k * self.side for k in index)
        bottom, right = min(top + self.side, self.height), min(left + self.side, self.width)
        for row in range(top, bottom, side):
            for col in range(left, right, side):
                yield Window(row, col, min(side, bottom - row), min(side, right - col))

    def around(self, index: Index) -> tuple[slice, slice]:
        """Return the slices of the cells that are the region of the tiles centred in a cell."""
        rows, cols = (
            slice(max(k - REACH, 0), min(k + REACH + 1, size))
            for k, size in zip(index, self.shape, strict=True)
        )
        return rows, cols

    def neighbours(self, index: Index) -> Iterator[Index]:
        """Yield the cells of that region, in raster order."""
        rows, cols = self.around(index)
        return product(range(rows.start, rows.stop), range(cols.start, cols.stop))

    def cell_of(self, window: Window) -> Index:
        """Return the cell that holds the centre of a window in the scene."""
        row, col = window.row + window.height // 2, window.col + window.width // 2
        return row // self.side, col // self.side


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """The range of the values in a cell, and order statistics that stand for them."""

    low: NDArray[np.float64]
    """(band,) smallest valid value."""
    high: NDArray[np.float64]
    """(band,) largest valid value."""
    ranks: NDArray[np.float64]
    """(RANKS, band), rising."""

    @classmethod
    def of(cls, pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> Sample | None:
        """Return the sample of a window (band, y, x); None without a valid pixel."""
        index = np.flatnonzero(valid)
        if not index.size:
            return None
        flat = pixels.reshape(len(pixels), -1)
        # An odd step, so that the pixels are not those of a few columns.
        some = np.sort(flat[:, index[:: max(index.size // SPARSE, 1) | 1]], axis=1)
        places = ((np.arange(RANKS) + 0.5) * some.shape[1] / RANKS).astype(np.intp)
        # Band by band: a copy of all of them may be large.
        each = flat if index.size == valid.size else (band[index] for band in flat)
        ends = [(band.min(), band.max()) for band in each]
        low, high = np.array(ends, np.float64).T
        return cls(low=low, high=high, ranks=some[:, places].T.astype(np.float64))

    def beyond(self, fences: Fences) -> bool:
        """Return True if a value is beyond ``fences``."""
        return bool((self.low < fences[0]).any() or (self.high > fences[1]).any())

    @classmethod
    def union(cls, parts: Sequence[tuple[Sample, float]]) -> Sample:
        """Return the sample of several, each with its weight."""
        probabilities = (np.arange(RANKS) + 0.5) / RANKS
        return cls(
            low=np.min([sample.low for sample, _ in parts], axis=0),
            high=np.max([sample.high for sample, _ in parts], axis=0),
            ranks=parts[0][0].ranks if len(parts) == 1 else _quantiles(parts, probabilities),
        )


def _quantiles(
    parts: Sequence[tuple[Sample, float]], probabilities: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the quantiles (probability, band) of weighted samples."""
    values = np.concatenate([sample.ranks for sample, _ in parts])
    weights = np.repeat([weight for _, weight in parts], RANKS)
    order = np.argsort(values, axis=0, kind="stable")
    below = np.cumsum(weights[order], axis=0)
    found = [
        values[order[np.searchsorted(below[:, band], probabilities * below[-1, band]), band], band]
        for band in range(values.shape[1])
    ]
    return np.stack(found, axis=1)


def fences(region: Sequence[tuple[Sample, float]], whole: Sample) -> Fences:
    """Return the values (band,) beyond which pixels count as if they were there.

    Args:
        region: Samples of the cells of a region, and their valid pixels.
        whole: Sample of the whole scene.
    """
    pixels = sum(weight for _, weight in region)
    parts = [*region, (whole, max(WHOLE * pixels, LEAST))]
    low, high = _quantiles(parts, np.array([TAIL, 1 - TAIL]))
    reach = FAR * (high - low)
    reach[reach == 0] = np.inf  # almost all pixels are equal: the others are all there is
    return low - reach, high + reach


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cells:
    """Moments of all cells of a scene."""

    grid: Grid
    count: NDArray[np.int64]
    """(row, col) valid pixels."""
    mean: NDArray[np.float64]
    """(row, col, band)."""
    scatter: NDArray[np.float64]
    """(row, col, band, band)."""

    @classmethod
    def of(cls, grid: Grid, moments: Mapping[Index, BandStatistics], bands: int) -> Cells:
        """Return the moments of the cells that could be read."""
        count = np.zeros(grid.shape, np.int64)
        mean = np.zeros((*grid.shape, bands))
        scatter = np.zeros((*grid.shape, bands, bands))
        for index, part in moments.items():
            count[index], mean[index], scatter[index] = part.count, part.mean, part.scatter
        return cls(grid=grid, count=count, mean=mean, scatter=scatter)

    def region(self, rows: slice, cols: slice, whole: BandStatistics) -> BandStatistics:
        """Return the statistics of a region: its own, and a share of the whole scene's."""
        within = self.count[rows, cols]
        if within.shape == self.count.shape or not within.any():
            return whole
        own = BandStatistics.combine(
            (
                BandStatistics(count=int(count), mean=mean, scatter=scatter)
                for count, mean, scatter in zip(
                    within.ravel(),
                    self.mean[rows, cols].reshape(within.size, -1),
                    self.scatter[rows, cols].reshape(within.size, *whole.scatter.shape),
                    strict=True,
                )
            ),
            len(whole.mean),
        )
        weight = max(round(WHOLE * own.count), LEAST)
        return own.merge(
            replace(whole, count=weight, scatter=whole.scatter * (weight / whole.count))
        )
