"""Figures and objects of a map of any size.

Figures are counted by Dask: one task per chunk counts its pixels, and a tree of tasks merges the
counts four by four. A task has at most a chunk of scores and labels, or four histograms of at most
5 MiB; three more per level of the tree wait for their siblings. One histogram travels to the
driver. Objects are 8-connected components, from windows row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from scipy import ndimage

from uniadrs_scale.errors import SceneError
from uniadrs_scale.evaluation.histogram import ScoreHistogram
from uniadrs_scale.evaluation.metrics import EIGHT
from uniadrs_scale.objects.merge import groups_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK, MERGED = 1024, 4
"""Chunk side of an array without chunks [px], and histograms merged per task."""
COUNTED = 2**19
"""Pixels counted at a time; sorting takes 90 bytes per pixel."""


def evaluate_map(
    scores: xr.DataArray, truth: xr.DataArray, *, counted: xr.DataArray | None = None
) -> ScoreHistogram:
    """Count how well ``scores`` tell the anomalies of ``truth`` from the background.

    The active Dask client computes, or else threads of this process. The result does not depend on
    chunks or workers.

    Args:
        scores: (y, x) in 0..1, NaN = no score; lazy or in memory.
        truth: (y, x) on the same grid, nonzero = anomaly. Its chunks may differ.
        counted: (y, x), True in the area with complete labels; None: everywhere.

    Returns:
        Counts by score: ``.figures()`` has AUC(D,F) and its family, ``.curve()`` the ROC curve,
        average precision and rates of false alarms, ``.area_error`` the largest error of the AUC.

    Raises:
        SceneError: The arrays are not on one grid, or a score is not within 0..1.
    """
    layers = [scores, truth, *([] if counted is None else [counted])]
    for layer in layers:
        if not isinstance(layer, xr.DataArray):
            raise SceneError(
                f"evaluate_map() compares arrays with names, got {type(layer).__name__}. Pass "
                "xr.DataArray(values, dims=('y', 'x')); for files use evaluate(map, truth)."
            )
    for layer in layers[1:]:
        _require_same_grid(scores, layer)
    first = _lazy(scores)
    blocks = [_lazy(layer).rechunk(first.chunks).to_delayed().ravel() for layer in layers]
    parts = [delayed(_count)(*pieces) for pieces in zip(*blocks, strict=True)]
    while len(parts) > 1:
        groups = [parts[i : i + MERGED] for i in range(0, len(parts), MERGED)]
        parts = [delayed(ScoreHistogram.combine)(group) for group in groups]
    total: ScoreHistogram = parts[0].compute()
    return total


def _count(
    scores: NDArray[np.floating],
    truth: NDArray[np.generic],
    counted: NDArray[np.generic] | None = None,
) -> ScoreHistogram:
    """Count one chunk, strip by strip."""
    if counted is not None:
        scores = np.where(counted != 0, scores, np.float32(np.nan))
    rows = max(COUNTED // max(scores.shape[1], 1), 1)
    strips = (slice(start, start + rows) for start in range(0, scores.shape[0], rows))
    return ScoreHistogram.combine(ScoreHistogram.of(scores[s], truth[s] != 0) for s in strips)


def _lazy(layer: xr.DataArray) -> Any:
    """Return the layer as a dask array, cut into chunks if it has none."""
    return layer.data if layer.chunks else da.from_array(layer.data, chunks=CHUNK)


def _require_same_grid(scores: xr.DataArray, layer: xr.DataArray) -> None:
    """Raise SceneError if a layer is not on the grid of the map."""
    same = scores.dims == layer.dims and scores.shape == layer.shape
    for axis in {"y", "x"} & set(scores.coords) & set(layer.coords):
        same = same and bool(np.array_equal(scores[axis], layer[axis]))
    if not same:
        raise SceneError(
            f"Scores {dict(scores.sizes)} and '{layer.name}' {dict(layer.sizes)} are not on one "
            "grid: dimensions, sizes or coordinates differ. Reproject or crop one of them."
        )


BITS = 3
"""Flags of a pixel."""


class Components:
    """Objects of a mask, with their highest value and the flags of their pixels.

    Windows come row by row and touch each other. Memory: a line of labels, and some 20 bytes per
    part of an object.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        # One column more on either side: corners touch, too.
        self.above, self.below = (np.zeros(width + 2, np.int64) for _ in range(2))
        self.left: NDArray[np.int64] = np.zeros(0, np.int64)
        self.pairs = [np.zeros((0, 2), np.int64)]
        """Labels that face each other."""
        self.peaks: list[NDArray[np.float32]] = []
        self.flags: list[NDArray[np.uint8]] = []

    def add(
        self,
        col: int,
        mask: NDArray[np.bool_],
        values: NDArray[np.float32],
        flags: NDArray[np.uint8],
    ) -> None:
        """Add a window (y, x) that begins at column ``col``; one at column 0 begins a new row."""
        if col == 0:
            self.above, self.below = self.below, self.above
            self.below[:] = 0
            self.left = np.zeros(len(mask), np.int64)
        labels, number = cast("tuple[NDArray[np.int32], int]", ndimage.label(mask, EIGHT))
        found = np.arange(1, number + 1)
        if number:
            self.peaks.append(np.asarray(ndimage.maximum(values, labels, found), np.float32))
            bits = np.zeros(number, np.uint8)
            for bit in (1 << k for k in range(BITS)):
                there = np.unique(labels[(flags & bit > 0) & mask])
                bits[there[there > 0] - 1] |= np.uint8(bit)
            self.flags.append(bits)
        # From 1, so that 0 stays "no object".
        ids = np.where(labels > 0, labels.astype(np.int64) + self.count, 0)
        width = mask.shape[1]
        for shift in (0, 1, 2):
            self._join(ids[0], self.above[col + shift : col + shift + width])
        self._join(ids[:, 0], self.left)
        self._join(ids[1:, 0], self.left[:-1])
        self._join(ids[:-1, 0], self.left[1:])
        self.below[col + 1 : col + 1 + width] = ids[-1]
        self.left = ids[:, -1].copy()
        self.count += number

    def merged(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return the peak and the flags of every object."""
        groups = groups_of(self.count, np.concatenate(self.pairs) - 1)
        number = int(groups.max(initial=-1)) + 1
        peaks, flags = np.full(number, -np.inf, np.float32), np.zeros(number, np.uint8)
        if number:
            np.maximum.at(peaks, groups, np.concatenate(self.peaks))
            np.bitwise_or.at(flags, groups, np.concatenate(self.flags))
        return peaks, flags

    def _join(self, here: NDArray[np.int64], there: NDArray[np.int64]) -> None:
        """Make one object of labels that face each other."""
        both = (here > 0) & (there > 0)
        self.pairs.append(np.stack([here[both], there[both]], axis=-1))
