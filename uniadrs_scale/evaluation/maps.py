"""Figures of a map of any size.

Strategy. One task a chunk counts its pixels, a tree of tasks adds the counts four by four. No
task sees more than a chunk of scores and labels, or four histograms of at most 5 MiB; three more a
level of the tree wait for their siblings. One histogram travels to the driver.
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
"""Side of the pieces of an array that has no chunks [px], and histograms merged by one task."""
COUNTED = 2**19
"""Pixels counted at a time: sorting takes 90 bytes each."""


def evaluate_map(
    scores: xr.DataArray,
    truth: xr.DataArray,
    *,
    counted: xr.DataArray | None = None,
) -> ScoreHistogram:
    """How well ``scores`` tell the anomalies of ``truth`` from the rest, chunk by chunk.

    Computed by the active Dask client, or else by threads of this process. The result depends
    neither on chunks nor on workers.

    Args:
        scores: (y, x) in 0..1, NaN where there is no score; lazy or in memory.
        truth: (y, x) on the same grid, nonzero = anomaly. Its chunks may be others.
        counted: (y, x), True where the labels are complete; None: everywhere.

    Returns:
        Counts by score: ``.figures()`` has AUC(D,F) and the mean scores, ``.curve()`` the ROC
        curve, average precision and rates of false alarms, ``.area_error`` how exact AUC is.

    Raises:
        SceneError: If the arrays are not on one grid, or a score is not within 0..1.
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
    """The histogram of one chunk."""
    if counted is not None:
        scores = np.where(counted != 0, scores, np.float32(np.nan))
    rows = max(COUNTED // max(scores.shape[1], 1), 1)
    strips = (slice(start, start + rows) for start in range(0, scores.shape[0], rows))
    return ScoreHistogram.combine(ScoreHistogram.of(scores[s], truth[s] != 0) for s in strips)


def _lazy(layer: xr.DataArray) -> Any:
    """The layer as a dask array; what has no chunks yet is cut."""
    return layer.data if layer.chunks else da.from_array(layer.data, chunks=CHUNK)


def _require_same_grid(scores: xr.DataArray, layer: xr.DataArray) -> None:
    """Refuse a layer whose pixels are not those of the map."""
    same = scores.dims == layer.dims and scores.shape == layer.shape
    for axis in {"y", "x"} & set(scores.coords) & set(layer.coords):
        same = same and bool(np.array_equal(scores[axis], layer[axis]))
    if not same:
        raise SceneError(
            f"Scores {dict(scores.sizes)} and '{layer.name}' {dict(layer.sizes)} are not on one "
            "grid: dimensions, sizes or the coordinates y and x differ. Reproject or crop one."
        )
