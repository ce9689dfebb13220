"""Nodata: which pixels are valid, and what the network sees where none are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import distance_transform_edt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def valid_pixels(pixels: NDArray[np.generic], nodata: Sequence[float | None]) -> NDArray[np.bool_]:
    """(y, x) True where every band holds a finite value other than its nodata value.

    One missing band makes a pixel invalid: a made-up value would be an anomaly of its own.

    Args:
        pixels: (band, y, x).
        nodata: One value a band, None where the band has none.
    """
    valid = np.ones(pixels.shape[1:], dtype=bool)
    for band, missing in zip(pixels, nodata, strict=True):
        if missing is not None and not np.isnan(missing):
            valid &= band != missing
        if band.dtype.kind == "f":
            valid &= np.isfinite(band)
    return valid


def fill_invalid(pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """``pixels`` with every invalid pixel taken from valid ground, mirrored at its border.

    A constant fill is an edge as strong as any anomaly and changes the instance normalisation of
    the whole tile; random valid pixels are a texture of their own. A mirror image continues both
    the level and the texture of what lies beside it. Each pass mirrors what is known into what is
    not, so the known area about doubles; what no mirror reaches repeats its nearest pixel.

    Args:
        pixels: (band, y, x); not changed.
        valid: (y, x), True = valid, at least one.

    Returns:
        (band, y, x) float32, finite wherever the valid input is.
    """
    if valid.all():
        return pixels
    filled, known = pixels.copy(), valid.copy()
    rows, cols = np.indices(valid.shape)
    while True:
        near_row, near_col = distance_transform_edt(
            ~known, return_distances=False, return_indices=True
        )
        row, col = 2 * near_row - rows, 2 * near_col - cols
        inside = (row >= 0) & (row < valid.shape[0]) & (col >= 0) & (col < valid.shape[1])
        row, col = np.where(inside, row, near_row), np.where(inside, col, near_col)
        usable = ~known & inside & known[row, col]
        if not usable.any():
            usable, row, col = ~known, near_row, near_col
        filled[:, usable] = filled[:, row[usable], col[usable]]
        known |= usable
        if known.all():
            return filled
