"""Valid pixels, the number of pixels that each reason removes, and marks of nodata and radar.

A nodata value is not always no data: 255 is also white, 0 also a dark band. So there are two rules.
A pixel is invalid if *any* band has its nodata value, or only if *all* bands have theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uniadrs_scale.core.machine import Later

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ndimage = Later("scipy.ndimage")
NOT_FINITE, EVERY_BAND, SOME_BANDS = "not finite", "nodata", "nodata in some bands"
MASKED, OUTSIDE = "alpha or mask", "fill or out of range"
"""Reasons why pixels are invalid; classes of a quality band have their names."""
EXTREME = 0.99
"""Share of the largest float from which on a nodata value may have been rounded when written."""
SINGLE = float(np.finfo(np.float32).max)
"""The largest float32: it also marks missing pixels in float64."""
EXACT = 2**53
"""Magnitude up to which every integer is a float."""
WHOLE = 2**24
"""Integers below this are exact in float32, and are written in full."""


@dataclass(frozen=True, slots=True)
class Nodata:
    """The values that mean no data."""

    values: tuple[float | None, ...]
    """One per band, None if the band has none."""
    together: bool = False
    """True if a pixel is invalid only where all bands that have a value hold theirs."""


class Validity:
    """The valid pixels of a window, and how many pixels each reason has made invalid."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.valid = np.ones(shape, bool)
        self.lost: dict[str, int] = {}
        self._left = self.valid.size

    def drop(self, invalid: NDArray[np.bool_], reason: str) -> None:
        """Make pixels invalid; those that are valid until now count for ``reason``."""
        self.valid &= ~invalid
        left = int(np.count_nonzero(self.valid))
        if left < self._left:
            self.lost[reason] = self.lost.get(reason, 0) + self._left - left
        self._left = left

    def drop_nodata(self, pixels: NDArray[np.generic], nodata: Nodata) -> None:
        """Make pixels (band, y, x) invalid by their nodata values."""
        self.drop_nodata_of([(pixels, nodata)])

    def drop_nodata_of(self, parts: Sequence[tuple[NDArray[np.generic], Nodata]]) -> None:
        """Make pixels invalid by the nodata values of all parts (band, y, x) of one scene."""
        found = [
            (nodata_pixels(pixels, nodata.values), nodata.together) for pixels, nodata in parts
        ]
        known = [(masks, together) for masks, together in found if masks is not None]
        for which in ([every for (_, every), _ in known], [e for (_, e), t in known if t]):
            if which:
                self.drop(np.logical_and.reduce(which), EVERY_BAND)
        for (some, _), together in known:
            if not together:
                self.drop(some, SOME_BANDS)

    def drop_not_finite(self, pixels: NDArray[np.generic]) -> None:
        """Make pixels (band, y, x) invalid that are NaN or infinite in any band."""
        if pixels.dtype.kind == "f":
            finite = np.ones(pixels.shape[1:], bool)
            for band in pixels:
                finite &= np.isfinite(band)
            self.drop(~finite, NOT_FINITE)


def valid_pixels(
    pixels: NDArray[np.generic], nodata: Sequence[float | None], *, together: bool = False
) -> NDArray[np.bool_]:
    """Return the mask (y, x) of pixels that are finite in every band and not nodata.

    Args:
        pixels: (band, y, x).
        nodata: One value per band, None if the band has none.
        together: As in :class:`Nodata`.
    """
    validity = Validity(pixels.shape[1:])
    validity.drop_not_finite(pixels)
    validity.drop_nodata(pixels, Nodata(tuple(nodata), together))
    return validity.valid


def nodata_pixels(
    pixels: NDArray[np.generic], values: Sequence[float | None]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Return (y, x) masks: where any band has its nodata value, and where all have theirs.

    None if no band has a value that its pixels can have.
    """
    masks = [
        matches(band, value)
        for band, value in zip(pixels, values, strict=True)
        if value is not None and value_limits(band.dtype, value) is not None
    ]
    if not masks:
        return None
    some, every = masks[0], masks[0]
    for mask in masks[1:]:
        some, every = some | mask, every & mask
    return some, every


def matches(band: NDArray[np.generic], value: float) -> NDArray[np.bool_]:
    """Return the mask of pixels that hold the nodata value, compared in the band's own dtype.

    A file may say -3.4e38 and hold the lowest float32, -3.4028235e38: metadata are written as text
    and rounded. So a value near the largest float matches all pixels near it, and a fraction those
    two steps away, as in GDAL.
    """
    limits = value_limits(band.dtype, value)
    if limits is None:
        return np.zeros(band.shape, bool)
    low, high = limits
    return np.asarray(band == low if low == high else (band >= low) & (band <= high), bool)


def can_hold(dtype: np.dtype[Any], value: float) -> bool:
    """Return False for a nodata value that no pixel can have, such as -9999 in uint8."""
    return dtype.kind == "f" if math.isnan(value) else value_limits(dtype, value) is not None


def exact(value: Any) -> float:
    """Return a number as a float, or as it is if it is an integer that no float may be."""
    whole = isinstance(value, int | np.integer) and not -EXACT <= int(value) <= EXACT
    return int(value) if whole else float(value)


def value_limits(dtype: np.dtype[Any], value: float) -> tuple[Any, Any] | None:
    """Return the lowest and highest pixel that a nodata value means, None if no pixel can be it.

    NaN has none: :data:`NOT_FINITE` is the reason of such pixels.

    >>> value_limits(np.dtype("uint8"), -9999.0), value_limits(np.dtype("int16"), -9999.0)
    (None, (np.int16(-9999), np.int16(-9999)))
    """
    if math.isnan(value):
        return None
    if dtype.kind == "b":
        return (bool(value), bool(value)) if value in (0, 1) else None
    if dtype.kind in "iu":
        range_ = np.iinfo(dtype)
        whole = math.isfinite(value) and int(value) == value
        if not whole or not range_.min <= int(value) <= range_.max:
            return None
        exact = dtype.type(int(value))
        return exact, exact
    return _float_limits(dtype, value)


def _float_limits(dtype: np.dtype[Any], value: float) -> tuple[Any, Any]:
    own = float(np.finfo(dtype).max)
    for largest in (own, SINGLE):
        near, far = EXTREME * largest, largest / EXTREME if largest < own else np.inf
        if near <= abs(value) <= far:
            low, high = sorted(np.copysign([near, far], value))
            return dtype.type(low), dtype.type(high)
    exact = dtype.type(value)
    if value == int(value) and abs(value) < WHOLE:
        return exact, exact
    step = 2 * np.spacing(np.abs(exact))
    return exact - step, exact + step


AREA = 9
"""Side of what has one value around a pixel that may have no data [px]."""
BLOCK = 8
"""Side of the blocks in which speckle is looked for [px]."""
BLOCKS, MOST = 64, 32
"""Blocks that are needed for that, and the most along an axis of a piece."""
CALMEST = 0.05
"""Quantile of the blocks by their variation."""
SPECKLE = 0.15
"""Difference of neighbours by their mean, and skewness, from which on blocks look like radar."""


def flat_areas(pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> dict[float, int]:
    """Pixels by the value that they and all around them have, in every band.

    Areas, not pixels: radar in 8 bits has a fifth of zeros, here and there.
    """
    first = pixels[0]
    flat = valid & np.isfinite(first)
    if first.dtype in (np.uint8, np.int8):  # greys of a picture may be flat
        flat &= np.isin(first, (0, np.iinfo(first.dtype).min, np.iinfo(first.dtype).max))
    flat[1:] &= first[1:] == first[:-1]
    flat[:, 1:] &= first[:, 1:] == first[:, :-1]
    for band in pixels[1:]:
        if not flat.any():
            break
        flat &= band == first
    if not flat.any():  # most often
        return {}
    around = ndimage.minimum_filter(flat.view(np.uint8), AREA, mode="constant", cval=1)
    values, counts = np.unique(first[around.view(bool)], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def looks_like_speckle(pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> bool | None:
    """Return True if a single band varies as radar does in its calmest places; None if unclear.

    Speckle multiplies: neighbours differ by a third of their mean. In the calmest twentieth of the
    blocks of 60 optical and infrared images they differ by 0.04 at most, in radar by 0.2 to 0.4.
    """
    rows, cols = (min(size // BLOCK, MOST) for size in valid.shape)
    if len(pixels) > 1 or not rows or not cols:
        return None
    cut = slice(rows * BLOCK), slice(cols * BLOCK)
    values, known = (
        plane[cut].reshape(rows, BLOCK, cols, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK, BLOCK)
        for plane in (pixels[0], valid)
    )
    values = values[known.all(axis=(1, 2))].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        means, deviations = values.mean(axis=(1, 2)), values.std(axis=(1, 2))
        values = values[(means > 0) & (deviations > 0)]
        if len(values) < BLOCKS:
            return None
        means, deviations = (v[(means > 0) & (deviations > 0)] for v in (means, deviations))
        differences = np.abs(np.diff(values, axis=2)).mean(axis=(1, 2)) / means
        skewness = ((values - means[:, None, None]) ** 3).mean(axis=(1, 2)) / deviations**3
        return bool(np.quantile(differences, CALMEST) > SPECKLE and np.median(skewness) > SPECKLE)
