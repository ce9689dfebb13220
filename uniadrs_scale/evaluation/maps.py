"""Figures of a map of any size, by Dask.

One task per chunk counts its pixels, and a tree of tasks merges the counts four by four. A task has
at most a chunk of scores and labels, or four histograms of at most 5 MiB; three more per level of
the tree wait for their siblings. One histogram travels to the driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.delayed import delayed

from uniadrs_scale.errors import SceneError
from uniadrs_scale.evaluation.histogram import ScoreHistogram

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

CHUNK, MERGED = 1024, 4
"""Chunk side of an array without chunks [px], and histograms merged per task."""
COUNTED = 2**19
"""Pixels counted at a time; sorting takes 90 bytes per pixel."""


def evaluate_map(
    scores: xr.DataArray,
    truth: xr.DataArray,
    *,
    counted: xr.DataArray | None = None,
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
