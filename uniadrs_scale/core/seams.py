"""Seams: blend the scores of overlapping tiles into one map.

    map(y, x) = sum_t w_t(y, x) s_t(y, x) / sum_t w_t(y, x),    w_t(y, x) = taper(y) taper(x)

The taper is separable and the lattice is a product of two axes, so the denominator is an outer
product of two vectors: only the numerator is ever stored or sent.

Addition is exact, hence independent of its order, of chunks and of workers: the taper is a multiple
of 2^-12 and the score of 2^-22, so every product is a multiple of 2^-46 and a float64 (53 bits)
holds their sums exactly while scores stay below 8. Other layers are summed in units of their own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.core.compiled import compiled
from uniadrs_scale.core.lattice import origins

if TYPE_CHECKING:
    from numpy.typing import NDArray

TAPER_STEPS = 2.0**12
SCORE_STEPS = 2.0**22


@lru_cache(maxsize=8)
def taper(tile: int, overlap: int, halo: int = 0) -> NDArray[np.float64]:
    """Return (tile,) blending weights along one axis: raised-cosine ramps in the overlap.

    The ramps of two neighbours sum to about 1; the normaliser makes it exact. No weight is 0, so
    that a scene's outermost pixels, which only one tile sees, keep a denominator. The outermost
    ``halo`` pixels of a tile have the smallest weight: 1/4096 next to a whole one.
    """
    distance = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5 - halo
    share = np.clip(distance / max(overlap - 2 * halo, 0.5), 0.0, 1.0)
    ramp = np.sin(np.pi / 2 * share) ** 2
    weights = np.maximum(np.rint(ramp * TAPER_STEPS), 1.0) / TAPER_STEPS
    weights.flags.writeable = False
    return weights


@lru_cache(maxsize=8)
def normaliser(size: int, tile: int, stride: int, halo: int = 0) -> NDArray[np.float64]:
    """Return (size,) the exact sum of the tapers of all tiles along one axis."""
    weights = taper(tile, tile - stride, halo)
    total = np.zeros(size)
    for origin in origins(size, tile, stride):
        part = total[origin : origin + tile]
        part += weights[: part.size]
    total.flags.writeable = False
    return total


# Serial on purpose: parallel=True aborts the process under Dask's threads (numba issue 9288), and
# `nogil` lets those threads blend at the same time anyway.
@compiled()
def accumulate(
    numerator: NDArray[np.float64],
    score: NDArray[np.float32],
    weights_y: NDArray[np.float64],
    weights_x: NDArray[np.float64],
) -> None:
    """Add one tile's tapered, rounded score to ``numerator`` in place; all of shape (y, x)."""
    for y in range(score.shape[0]):
        for x in range(score.shape[1]):
            # np.rint(s * 2^22) / 2^22: exact in float64 for |s| < 2^30.
            rounded = np.rint(np.float64(score[y, x]) * 4194304.0) / 4194304.0
            numerator[y, x] += weights_y[y] * weights_x[x] * rounded


@compiled()
def finalise(
    numerator: NDArray[np.float64],
    norm_y: NDArray[np.float64],
    norm_x: NDArray[np.float64],
    valid: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Return the blended score, float32 (y, x); NaN at invalid pixels and failed tiles."""
    result = np.empty(numerator.shape, dtype=np.float32)
    for y in range(numerator.shape[0]):
        for x in range(numerator.shape[1]):
            if valid[y, x]:
                result[y, x] = numerator[y, x] / (norm_y[y] * norm_x[x])
            else:
                result[y, x] = np.nan
    return result
