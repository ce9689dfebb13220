"""Means and extremes over windows of pixels, in few passes over a CPU's memory.

Sums are always in the same order: one input has one output, bit for bit. Serial and ``nogil``:
tiles run in parallel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uniadrs_scale.detector.cpu_kernels import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray


@kernel
def coarser(planes: NDArray[Any], factor: int, out: NDArray[Any]) -> None:
    """Write the mean of each ``factor`` x ``factor`` px of planes (k, y, x), as torch adds them."""
    count, height, width = out.shape
    sums, pixels = np.empty(width, np.float32), np.float32(factor**2)
    for k, y in np.ndindex(count, height):
        for x in range(width):
            sums[x] = 0
        for i in range(factor):
            line = planes[k, y * factor + i]
            for j in range(factor):
                for x in range(width):
                    sums[x] += line[x * factor + j]
        for x in range(width):
            out[k, y, x] = sums[x] / pixels


@kernel
def sampled(
    planes: NDArray[Any],
    weights: NDArray[Any],
    places: tuple[NDArray[Any], NDArray[Any]],
    factor: int,
    out: NDArray[Any],
) -> None:
    """Write weighted means of planes (k, y, x) to every ``factor``-th place.

    Place n of ``out`` is the sum over i of ``weights[i]`` times pixel ``places[n * factor + i]``,
    for the rows and then for the columns.
    """
    count, height, width = out.shape
    rows, cols = places
    sums = np.empty(planes.shape[2], np.float32)
    beyond, means = np.empty(len(cols), np.float32), np.empty(width, np.float32)
    for k, y in np.ndindex(count, height):
        sums[:] = 0
        for i in range(len(weights)):
            line = planes[k, rows[y * factor + i]]
            for x in range(len(sums)):
                sums[x] += weights[i] * line[x]
        for x in range(len(cols)):
            beyond[x] = sums[cols[x]]
        means[:] = 0
        for i in range(len(weights)):
            for x in range(width):
                means[x] += weights[i] * beyond[x * factor + i]
        for x in range(width):
            out[k, y, x] = means[x]


@kernel
def raise_to(values: NDArray[Any], others: NDArray[Any]) -> None:
    """Replace values (n,) by those of ``others`` that are higher."""
    for n in range(len(values)):
        values[n] = max(values[n], others[n])


@kernel
def higher(line: NDArray[Any], step: int, out: NDArray[Any]) -> None:
    """Write the higher of each value (n,) and the one ``step`` further on to (n - step,).

    To other memory: a loop that writes into what it reads is not vectorised.
    """
    for n in range(len(line) - step):
        out[n] = max(line[n], line[n + step])


@kernel
def highest(plane: NDArray[Any], rows: int, cols: int, out: NDArray[Any]) -> None:
    """Write the largest value of (y, x) in the ``rows`` x ``cols`` px around each pixel.

    Both are odd. Pixels outside do not count.
    """
    height, width = plane.shape
    up, left = rows // 2, cols // 2
    seen = np.full((height + 2 * up, width + 2 * left), -np.inf, np.float32)
    for y in range(height):
        for x in range(width):
            seen[y + up, x + left] = plane[y, x]
    number = 1
    while number < rows:  # each step doubles the pixels that are seen
        step = min(number, rows - number)
        for y in range(len(seen) - step):
            raise_to(seen[y], seen[y + step])
        number += step
    spare = np.empty_like(seen[0])
    for y in range(height):
        line, next_line, number = seen[y], spare, 1
        while number < cols:
            step = min(number, cols - number)
            higher(line, step, next_line)
            line, next_line = next_line, line
            number += step
        for x in range(width):
            out[y, x] = line[x]


@kernel
def opened(planes: NDArray[Any], square: int, line: int, out: NDArray[Any]) -> None:
    """Write planes (k, y, x) without bright structures that hold neither a square nor a line.

    Each pixel gets the highest level that a ``square`` x ``square`` px or a row or column of
    ``line`` px reaches which holds it.
    """
    count, height, width = planes.shape
    low, part = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    for k in range(count):
        for i, (rows, cols) in enumerate(((square, square), (1, line), (line, 1))):
            for y in range(height):
                for x in range(width):
                    part[y, x] = -planes[k, y, x]
            highest(part, rows, cols, low)
            for y in range(height):
                for x in range(width):
                    low[y, x] = -low[y, x]
            highest(low, rows, cols, part)
            for y in range(height):
                for x in range(width):
                    out[k, y, x] = part[y, x] if i == 0 else max(out[k, y, x], part[y, x])


@kernel
def box_sums(plane: NDArray[np.float32], y: int, reach: int, columns: NDArray[np.float64]) -> None:
    """Move the sums of each column over rows ``y - reach .. y + reach`` from row y - 1 to y."""
    for row, sign in ((y + reach, 1.0), (y - reach - 1, -1.0)):
        for x in range(plane.shape[1] if 0 <= row < plane.shape[0] else 0):
            columns[x] += sign * plane[row, x]


@kernel
def ring_means(values: NDArray[Any], inner: int, outer: int, out: NDArray[np.float32]) -> None:
    """Write :func:`.whitening.ring_mean` of (k, y, x) by running sums.

    In float64, as differences of running sums lose digits: here 1e-13 of the largest sum.
    """
    count, height, width = values.shape
    columns, line = np.empty((2, width)), np.zeros((2, width + 1))
    reach = (outer // 2, inner // 2)
    for k in range(count):
        columns[:] = 0
        # Rows before the first one fill the sums.
        for y in range(-reach[0], height):
            for i in range(2):
                box_sums(values[k], y, reach[i], columns[i])
                for x in range(width):
                    line[i, x + 1] = line[i, x] + columns[i, x]
            rows = [min(y + r, height - 1) - max(y - r, 0) + 1 for r in reach]
            for x in range(width if y >= 0 else 0):
                o0, o1 = max(x - reach[0], 0), min(x + reach[0] + 1, width)
                i0, i1 = max(x - reach[1], 0), min(x + reach[1] + 1, width)
                total = line[0, o1] - line[0, o0] - line[1, i1] + line[1, i0]
                out[k, y, x] = total / (rows[0] * (o1 - o0) - rows[1] * (i1 - i0))


@kernel
def middle(histogram: NDArray[np.uint16], number: int) -> np.float32:
    """Return the median of ``number`` values, in bins: 2.5 is the middle of bin 2."""
    half, below, level = np.float32(number) / np.float32(2), np.float32(0), 0
    while below + np.float32(histogram[level]) < half:
        below += np.float32(histogram[level])
        level += 1
    return np.float32(level) + (half - below) / np.float32(histogram[level])


@kernel
def medians(bins: NDArray[np.uint8], reach: int, levels: int, out: NDArray[np.float32]) -> None:
    """Write the median of the pixels up to ``reach`` px away from each of (k, y, x), in bins.

    Pixels outside do not count. Inside of a bin, values count as spread evenly, so that the result
    is not in steps. A histogram of each column moves down with the rows, and the sum of those in
    reach moves along them: the time of a pixel does not depend on ``reach`` (Perreault and Hebert,
    IEEE TIP 16, 2007).
    """
    count, height, width = bins.shape
    columns, around = np.empty((width, levels), np.uint16), np.empty(levels, np.uint16)
    for k in range(count):
        columns[:] = 0
        for y in range(-reach, height):
            for x in range(width if y + reach < height else 0):
                columns[x, bins[k, y + reach, x]] += 1
            for x in range(width if y - reach > 0 else 0):
                columns[x, bins[k, y - reach - 1, x]] -= 1
            rows = min(y + reach, height - 1) - max(y - reach, 0) + 1
            around[:] = 0
            for x in range(-reach, width if y >= 0 else -reach):
                if x + reach < width:
                    around += columns[x + reach]
                if x - reach > 0:
                    around -= columns[x - reach - 1]
                if x >= 0:
                    cols = min(x + reach, width - 1) - max(x - reach, 0) + 1
                    out[k, y, x] = middle(around, rows * cols)
