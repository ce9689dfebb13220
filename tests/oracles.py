"""Slow and obvious: what the whole path should give, in one process and without chunks."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.core.pixels import BandStatistics, fill_invalid
from uniadrs_scale.core.seams import taper

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from standins import StandIn


def axis_origins(size: int, tile: int, stride: int) -> list[int]:
    """Step until a tile would leave the scene, then put the last one at the end."""
    found, position = [], 0
    while position + tile < size:
        found.append(position)
        position += stride
    return [*found, max(size - tile, 0)]


def whole_map(
    pixels: NDArray[np.generic], valid: NDArray[np.bool_], scorer: StandIn, tile: int, stride: int
) -> NDArray[np.float32]:
    """(y, x) blended scores of a scene that fits in memory."""
    _, height, width = pixels.shape
    normalisation = BandStatistics.of(pixels, valid).normalisation()
    numerator, denominator = np.zeros((height, width)), np.zeros((height, width))
    weight = np.outer(taper(tile, tile - stride), taper(tile, tile - stride))
    for row in axis_origins(height, tile, stride):
        for col in axis_origins(width, tile, stride):
            part = np.s_[row : row + tile, col : col + tile]
            rows, cols = valid[part].shape
            inner = np.s_[:rows, :cols]
            denominator[part] += weight[inner]
            if not valid[part].any():
                continue
            scaled = fill_invalid(normalisation.apply(pixels[:, *part]), valid[part])
            scaled = np.pad(scaled, [(0, 0), (0, tile - rows), (0, tile - cols)], mode="reflect")
            score = scorer.score_tiles(np.repeat(scaled[None], scorer.batch, 0))[0][inner]
            numerator[part] += weight[inner] * (np.rint(score.astype(np.float64) * 2**22) / 2**22)
    return np.where(valid, numerator / denominator, np.nan).astype(np.float32)


def exact_sum(values: list[float]) -> Fraction:
    """Addition without rounding."""
    return sum((Fraction(value) for value in values), Fraction(0))
