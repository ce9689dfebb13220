"""The steps of an inference between its convolutions, each in one pass over a CPU's memory.

Arrays are (b, y, x, c), C-contiguous, float32 or bfloat16. Numba has no bfloat16, so its bits come
as uint16. Sums are float32 over a row and float64 over rows, always in the same order: one input
has one output, bit for bit, on one kind of CPU. Serial and ``nogil``: tiles run in parallel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types
from numba.extending import overload

from uniadrs_scale.core.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

EPSILON = 1e-5
"""Least variance of the instance norm."""
REACH, STEP, MARGIN = 7, 2, 6
"""As in :mod:`.passes`. Not imported: numba's cache on disk would miss a change there."""
# `contract` fuses a multiplication and an addition. Sums keep their order, and NaN stays NaN.
kernel = compiled(fastmath={"contract"}, error_model="numpy")


def widen(value: Any) -> Any:
    """Return the float32 of a stored value; compiled code only."""
    raise NotImplementedError


def narrow(value: Any, like: Any) -> Any:
    """Return a float32 in the representation of ``like``; compiled code only."""
    raise NotImplementedError


@overload(widen)
def _widen(value: Any) -> Callable[..., Any]:
    def bits(value: Any) -> Any:
        return np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)

    def same(value: Any) -> Any:
        return value

    return bits if isinstance(value, types.Integer) else same


@overload(narrow)
def _narrow(value: Any, like: Any) -> Callable[..., Any]:  # noqa: ARG001
    def rounded(value: Any, like: Any) -> Any:  # noqa: ARG001
        bits = np.float32(value).view(np.uint32)
        # To the nearest, ties to even; NaN keeps its payload's upper half, which is not 0.
        half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16((bits + half) >> np.uint32(16))

    def same(value: Any, like: Any) -> Any:  # noqa: ARG001
        return np.float32(value)

    return rounded if isinstance(like, types.Integer) else same


@kernel
def moments(x: NDArray[Any], mean: NDArray[np.float32], gain: NDArray[np.float32]) -> None:
    """Write mean and 1 / sqrt(variance + EPSILON) of each channel of one (y, x, c) to (c,) each."""
    height, width, channels = x.shape
    total, square = np.zeros(channels), np.zeros(channels)
    row, apart = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for y in range(height):
        # Means of rows and squares about them (Chan et al. 1979): squares about 0 lose digits.
        row[:] = 0
        for p in range(width):
            for c in range(channels):
                row[c] += widen(x[y, p, c])
        for c in range(channels):
            row[c] /= np.float32(width)
        apart[:] = 0
        for p in range(width):
            for c in range(channels):
                difference = widen(x[y, p, c]) - row[c]
                apart[c] += difference * difference
        for c in range(channels):
            difference = np.float64(row[c]) - total[c]
            total[c] += difference / (y + 1)
            square[c] += apart[c] + difference * difference * width * y / (y + 1)
    for c in range(channels):
        mean[c] = total[c]
        gain[c] = 1 / np.sqrt(square[c] / (height * width) + EPSILON)


@kernel
def norm_relu(x: NDArray[Any]) -> None:
    """Apply instance norm and ReLU to (b, y, x, c), in place."""
    batch, height, width, channels = x.shape
    mean, gain = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for b in range(batch):
        moments(x[b], mean, gain)
        for y in range(height):
            for p in range(width):
                for c in range(channels):
                    value = (widen(x[b, y, p, c]) - mean[c]) * gain[c]
                    x[b, y, p, c] = narrow(value if not value < 0 else np.float32(0), x[b, y, p, c])


@kernel
def interleave(planes: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy (b, c, y, x) to (b, y, x, c)."""
    batch, channels, height, width = planes.shape
    for b, y, c in np.ndindex(batch, height, channels):
        for p in range(width):
            out[b, y, p, c] = planes[b, c, y, p]


@kernel
def halve(x: NDArray[Any], out: NDArray[Any]) -> None:
    """Write the maximum of each 2 x 2 px of (b, y, x, c) to (b, y // 2, x // 2, c)."""
    batch, height, width, channels = out.shape
    for b, y in np.ndindex(batch, height):
        for p in range(width):
            for c in range(channels):
                upper = max(widen(x[b, 2 * y, 2 * p, c]), widen(x[b, 2 * y, 2 * p + 1, c]))
                left, right = widen(x[b, 2 * y + 1, 2 * p, c]), x[b, 2 * y + 1, 2 * p + 1, c]
                lower = max(left, widen(right))
                out[b, y, p, c] = narrow(max(upper, lower), x[b, y, p, c])


@kernel
def add_enlarged(
    x: NDArray[Any],
    coarse: NDArray[Any],
    rows: tuple[NDArray[np.int64], NDArray[np.float32]],
    cols: tuple[NDArray[np.int64], NDArray[np.float32]],
    bias: NDArray[np.float32],
) -> None:
    """Write ReLU(x + enlarged coarse + bias) to x.

    Args:
        x: (b, y, x, c).
        coarse: (b, y', x', c).
        rows: Per row of ``x`` the coarse row above it, and the weight of the next coarse row.
        cols: The same for columns.
        bias: (c,).
    """
    batch, height, width, channels = x.shape
    last_row, last_col = coarse.shape[1] - 1, coarse.shape[2] - 1
    line = np.empty((coarse.shape[2], channels), np.float32)
    for b, y in np.ndindex(batch, height):
        above, low = rows[0][y], rows[1][y]
        below, high = min(above + 1, last_row), np.float32(1) - low
        for p in range(coarse.shape[2]):
            for c in range(channels):
                upper, lower = widen(coarse[b, above, p, c]), widen(coarse[b, below, p, c])
                line[p, c] = high * upper + low * lower
        for p in range(width):
            before, far = cols[0][p], cols[1][p]
            after, near = min(before + 1, last_col), np.float32(1) - far
            for c in range(channels):
                value = near * line[before, c] + far * line[after, c] + bias[c]
                value += widen(x[b, y, p, c])
                x[b, y, p, c] = narrow(value if not value < 0 else np.float32(0), x[b, y, p, c])


@kernel
def exponential(value: Any) -> Any:
    """Return exp(value) of a float32 <= 0, to 2e-7 of it, vectorised (Cody and Waite 1980).

    0 below -60. Such a weight changes no sum, but its products would be subnormal numbers, with
    which a CPU computes up to a hundred times as long.
    """
    clipped = max(value, np.float32(-60))  # NaN stays NaN: max keeps its first argument then
    whole = np.rint(clipped * np.float32(1.44269504))
    rest = clipped - whole * np.float32(0.693359375)
    rest = rest - whole * np.float32(-2.12194440e-4)
    series = np.float32(1.9875691500e-4)
    series = series * rest + np.float32(1.3981999507e-3)
    series = series * rest + np.float32(8.3334519073e-3)
    series = series * rest + np.float32(4.1665795894e-2)
    series = series * rest + np.float32(1.6666665459e-1)
    series = series * rest + np.float32(5.0000001201e-1)
    series = series * rest * rest + rest + np.float32(1)
    found = series * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    return np.float32(0) if value < np.float32(-60) else found


@kernel
def softmax(logits: NDArray[Any], weights: NDArray[np.float32]) -> None:
    """Write the softmax over the first REACH^2 channels of (x, c) to (REACH^2, x)."""
    width = logits.shape[0]
    for p in range(width):
        for n in range(REACH**2):
            weights[n, p] = widen(logits[p, n])
    highest, total = weights[0].copy(), np.zeros(width, np.float32)
    for n in range(1, REACH**2):
        for p in range(width):
            highest[p] = max(highest[p], weights[n, p])
    for n in range(REACH**2):
        for p in range(width):
            weights[n, p] = exponential(weights[n, p] - highest[p])
            total[p] += weights[n, p]
    for n in range(REACH**2):
        for p in range(width):
            weights[n, p] /= total[p]


@kernel
def add_row(weights: NDArray[np.float32], row: NDArray[np.float32], sums: NDArray[Any]) -> None:
    """Add the weighted samples of one row of all neighbourhoods.

    Args:
        weights: (REACH, x).
        row: (c, x + 2 MARGIN), 0 beyond the borders.
        sums: (c, x).
    """
    for c in range(sums.shape[0]):
        line, total = row[c], sums[c]
        # Seven at a time: the sum is read and written once for all of them.
        for p in range(sums.shape[1]):
            total[p] += (
                weights[0, p] * line[p]
                + weights[1, p] * line[p + STEP]
                + weights[2, p] * line[p + 2 * STEP]
                + weights[3, p] * line[p + 3 * STEP]
                + weights[4, p] * line[p + 4 * STEP]
                + weights[5, p] * line[p + 5 * STEP]
                + weights[6, p] * line[p + 6 * STEP]
            )


@kernel
def to_planes(row: NDArray[Any], first: int, out: NDArray[np.float32]) -> None:
    """Copy the channels of a row (x, c) from number ``first`` on to (c', x)."""
    for p in range(out.shape[1]):
        for c in range(out.shape[0]):
            out[c, p] = widen(row[p, first + c])


@kernel
def attend(x: NDArray[Any], logits: NDArray[Any], out: NDArray[Any]) -> None:
    """Write each pixel's own part plus its neighbourhood, weighted by the softmax of its logits.

    Rows are computed plane by plane: there are few channels, and many pixels in a row.

    Args:
        x: (b, y, x, 2 c): a pixel's own part, then its part in its neighbours' sums.
        logits: (b, y, x, REACH^2 or more), row-major over the neighbourhood; outside counts as 0.
        out: (b, y, x, c).
    """
    batch, height, width, channels = out.shape
    weights, sums = np.empty((REACH**2, width), np.float32), np.empty((channels, width), np.float32)
    near = np.zeros((2 * MARGIN + 1, channels, width + 2 * MARGIN), np.float32)  # a ring of rows
    for b in range(batch):
        copied = 0
        for y in range(height):
            while copied < min(y + MARGIN + 1, height):
                to_planes(x[b, copied], channels, near[copied % len(near), :, MARGIN:-MARGIN])
                copied += 1
            softmax(logits[b, y], weights)
            to_planes(x[b, y], 0, sums)
            for i in range(REACH):
                row = y + STEP * i - MARGIN
                if 0 <= row < height:
                    add_row(weights[i * REACH : (i + 1) * REACH], near[row % len(near)], sums)
            for p in range(width):
                for c in range(channels):
                    out[b, y, p, c] = narrow(sums[c, p], out[b, y, p, c])


@kernel
def attend_scrambled(x: NDArray[Any], logits: NDArray[Any], out: NDArray[Any]) -> None:
    """Write :func:`attend` with the sums of :func:`.scrambled_attention`."""
    batch, height, width, channels = out.shape
    pixels, total = height * width, np.empty(channels, np.float32)
    weights = np.empty((height, REACH**2, width), np.float32)
    for b in range(batch):
        for y in range(height):
            softmax(logits[b, y], weights[y])
        for y, p in np.ndindex(height, width):
            for c in range(channels):
                total[c] = widen(x[b, y, p, c])
            first = (y * width + p) * REACH**2
            for number in range(first, first + REACH**2):
                n, place = number // pixels, number % pixels
                at_row, at_col = place // width, place % width
                row = at_row + STEP * (n // REACH - REACH // 2)
                col = at_col + STEP * (n % REACH - REACH // 2)
                if 0 <= row < height and 0 <= col < width:
                    weight = weights[at_row, n, at_col]
                    for c in range(channels):
                        total[c] += weight * widen(x[b, row, col, c + channels])
            for c in range(channels):
                out[b, y, p, c] = narrow(total[c], out[b, y, p, c])
