"""The steps of an inference between its convolutions on a GPU, in Triton: each in one pass.

The counterpart of :mod:`.cpu_kernels`. Importing this module imports Triton, which torch's GPU
wheels contain and which compiles a kernel at its first call. So only :mod:`.gpu` imports it, and
only if there is a GPU.

Arrays are (b, y, x, c), dense, float32 or bfloat16; sums are float32. No kernel uses atomics, and
the pieces of a sum depend on the size of a tile alone: one input has one output on one kind of GPU,
at any place in a batch. Offsets within one tile are 32-bit, enough for 4096 px.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from uniadrs_scale.detector.passes import EPSILON, REACH, STEP

if TYPE_CHECKING:
    from uniadrs_scale.detector.passes import Mode

SIDE = 8
"""Side of the square of pixels that one program of :func:`attend` computes [px]. A square shares
more neighbours than a row: 400 pixels are fetched for 64, and 532 for a row of 64 (7 rows)."""
WARPS = 8
"""Warps of such a program: 80 registers per thread in bfloat16 on sm_90, so 24 warps per
multiprocessor; with 4 it is 254 registers and 8 warps."""
LINE = 128
"""Bytes of a cache line: one program's channels of one pixel."""
PIECES = 32
"""Most pieces that the pixels of a tile are cut into for its moments."""
PIECE = 512
"""Fewest pixels of a piece."""
ROWS = 64
"""Pixels that a program holds at a time."""
OPTIONS = {"enable_fp_fusion": True}
"""A multiplication and an addition may become one instruction, as on the CPU. Stated, because
Triton 3.9 warns if it is missing."""


@triton.jit
def _attend(
    x,
    logits,
    out,
    height,
    width,
    channels,
    columns,
    reach: tl.constexpr,
    step: tl.constexpr,
    side: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
):
    """Map (b, y, x, 2 c) and (b, y, x, columns) to (b, y, x, c); one square per program."""
    across = tl.cdiv(width, side)
    place = tl.arange(0, side * side)
    row = tl.program_id(0) // across * side + place // side
    col = tl.program_id(0) % across * side + place % side
    inside = (row < height) & (col < width)
    channel = tl.program_id(1) * block + tl.arange(0, block)
    real = channel < channels
    batch = tl.program_id(2).to(tl.int64) * height * width
    x += batch * 2 * channels
    logits += batch * columns + (row * width + col) * columns

    number = tl.arange(0, wide)
    counted = number < reach * reach
    every = tl.load(
        logits[:, None] + number[None, :], mask=inside[:, None] & counted[None, :], other=0
    ).to(tl.float32)
    highest = tl.max(tl.where(counted[None, :], every, float("-inf")), 1)
    total = tl.sum(tl.where(counted[None, :], tl.exp(every - highest[:, None]), 0), 1)

    around = tl.zeros((side * side, block), tl.float32)
    for i in range(reach):
        near_row = row + step * (i - reach // 2)
        in_rows = inside & (near_row >= 0) & (near_row < height)
        # Unrolled: seven loads run at a time.
        for j in tl.static_range(reach):
            near_col = col + step * (j - reach // 2)
            there = in_rows & (near_col >= 0) & (near_col < width)
            at = (near_row * width + near_col) * 2 * channels + channels
            near = tl.load(
                x + at[:, None] + channel[None, :], mask=there[:, None] & real[None, :], other=0
            ).to(tl.float32)
            logit = tl.load(logits + i * reach + j, mask=inside, other=0).to(tl.float32)
            around += tl.exp(logit - highest)[:, None] * near
    both = inside[:, None] & real[None, :]
    pixel = row * width + col
    own = tl.load(x + (pixel * 2 * channels)[:, None] + channel[None, :], mask=both, other=0)
    value = own.to(tl.float32) + around / total[:, None]
    out += batch * channels
    tl.store(out + (pixel * channels)[:, None] + channel[None, :], value, mask=both)


@triton.jit
def _moments(x, means, squares, pixels, channels, piece, rows: tl.constexpr, block: tl.constexpr):
    """Write mean and sum of squared differences from it, per piece, to (b, piece, c)."""
    channel = tl.program_id(1) * block + tl.arange(0, block)
    real = channel < channels
    batch = tl.program_id(2).to(tl.int64)
    x += batch * pixels * channels
    first = tl.program_id(0) * piece
    last = tl.minimum(first + piece, pixels)
    mean, square = tl.zeros((block,), tl.float32), tl.zeros((block,), tl.float32)
    for start in range(first, last, rows):
        pixel = start + tl.arange(0, rows)
        there = (pixel < last)[:, None] & real[None, :]
        at = x + (pixel * channels)[:, None] + channel[None, :]
        value = tl.load(at, mask=there, other=0).to(tl.float32)
        # Means of rows and squares about them (Chan et al. 1979): squares about 0 lose digits.
        count = tl.minimum(last - start, rows).to(tl.float32)
        before = (start - first).to(tl.float32)
        local = tl.sum(value, 0) / count
        apart = tl.where(there, value - local[None, :], 0)
        difference = local - mean
        mean += difference * (count / (before + count))
        square += tl.sum(apart * apart, 0)
        square += difference * difference * (before * count / (before + count))
    at = (batch * tl.num_programs(0) + tl.program_id(0)) * channels + channel
    tl.store(means + at, mean, mask=real)
    tl.store(squares + at, square, mask=real)


@triton.jit
def _norm_relu(
    x,
    means,
    squares,
    pixels,
    channels,
    piece,
    epsilon,
    rows: tl.constexpr,
    block: tl.constexpr,
    pieces: tl.constexpr,
):
    """Normalise x in place by the moments of its pieces (:func:`_moments`)."""
    channel = tl.program_id(1) * block + tl.arange(0, block)
    real = channel < channels
    batch = tl.program_id(2).to(tl.int64)
    number = tl.arange(0, pieces)
    there = (number < tl.num_programs(0))[:, None] & real[None, :]
    at = (batch * tl.num_programs(0) + number)[:, None] * channels + channel[None, :]
    count = tl.minimum(tl.maximum(pixels - number * piece, 0), piece).to(tl.float32)[:, None]
    local = tl.load(means + at, mask=there, other=0)
    mean = tl.sum(local * count, 0) / pixels
    apart = local - mean[None, :]
    square = tl.load(squares + at, mask=there, other=0) + count * apart * apart
    gain = 1 / tl.sqrt(tl.sum(square, 0) / pixels + epsilon)
    x += batch * pixels * channels
    first = tl.program_id(0) * piece
    last = tl.minimum(first + piece, pixels)
    for start in range(first, last, rows):
        pixel = start + tl.arange(0, rows)
        both = (pixel < last)[:, None] & real[None, :]
        place = x + (pixel * channels)[:, None] + channel[None, :]
        value = (tl.load(place, mask=both, other=0).to(tl.float32) - mean[None, :]) * gain[None, :]
        # Not a maximum, which would turn NaN into 0.
        tl.store(place, tl.where(value < 0, 0, value), mask=both)


@triton.jit
def _source(position, small, large, interpolated: tl.constexpr):
    """Return the coarse sample before each position, and the weight of the next one."""
    if interpolated:
        # A size of 1 is a Python number, which has no `to`.
        place = tl.maximum((position.to(tl.float32) + 0.5) * (small / large) - 0.5, 0)
        first = tl.minimum(place.to(tl.int32), small - 1)
        return first, place - first.to(tl.float32)
    return position * small // large, tl.zeros_like(position).to(tl.float32)


@triton.jit
def _add_enlarged(
    x,
    coarse,
    bias,
    height,
    width,
    coarse_height,
    coarse_width,
    channels,
    interpolated: tl.constexpr,
    rows: tl.constexpr,
    block: tl.constexpr,
):
    """Write ReLU(x + enlarged coarse + bias) to x."""
    pixel = tl.program_id(0) * rows + tl.arange(0, rows)
    channel = tl.program_id(1) * block + tl.arange(0, block)
    real = channel < channels
    both = (pixel < height * width)[:, None] & real[None, :]
    batch = tl.program_id(2).to(tl.int64)
    x += batch * height * width * channels
    coarse += batch * coarse_height * coarse_width * channels
    above, low = _source(pixel // width, coarse_height, height, interpolated)
    before, far = _source(pixel % width, coarse_width, width, interpolated)
    below = tl.minimum(above + 1, coarse_height - 1)
    after = tl.minimum(before + 1, coarse_width - 1)
    value = tl.zeros((rows, block), tl.float32)
    for down in tl.static_range(2 if interpolated else 1):
        row, high = (below, low) if down else (above, 1 - low)
        for right in tl.static_range(2 if interpolated else 1):
            col, near = (after, far) if right else (before, 1 - far)
            at = (row * coarse_width + col) * channels
            corner = tl.load(coarse + at[:, None] + channel[None, :], mask=both, other=0)
            value += (high * near)[:, None] * corner.to(tl.float32)
    value += tl.load(bias + channel, mask=real, other=0)[None, :]
    place = x + (pixel * channels)[:, None] + channel[None, :]
    value += tl.load(place, mask=both, other=0).to(tl.float32)
    tl.store(place, tl.where(value < 0, 0, value), mask=both)


def attend(x: Tensor, logits: Tensor) -> Tensor:
    """Return each pixel's own part plus its neighbourhood, weighted by the softmax of its logits.

    Args:
        x: (b, 2 c, y, x): a pixel's own part, then its part in its neighbours' sums.
        logits: (b, REACH^2 or more, y, x), row-major over the neighbourhood; outside counts as 0.

    Returns:
        (b, c, y, x) in channels last, of the type of ``x``.
    """
    seen, by = _dense(x), _dense(logits)
    batch, height, width, channels = seen.shape
    channels //= 2
    out = torch.empty((batch, height, width, channels), dtype=x.dtype, device=x.device)
    squares = triton.cdiv(height, SIDE) * triton.cdiv(width, SIDE)
    block = _block(channels, x)
    sizes = (height, width, channels, by.shape[3])
    wide = triton.next_power_of_2(REACH**2)
    fixed = {"reach": REACH, "step": STEP, "side": SIDE, "num_warps": WARPS, **OPTIONS}
    grid = (squares, triton.cdiv(channels, block), batch)
    _attend[grid](seen, by, out, *sizes, block=block, wide=wide, **fixed)
    return out.permute(0, 3, 1, 2)


def norm_relu(x: Tensor) -> Tensor:
    """Apply instance norm and ReLU to (b, c, y, x); in place if it is in channels last."""
    seen = _dense(x)
    batch, height, width, channels = seen.shape
    pixels, block = height * width, _block(channels, x)
    pieces = min(PIECES, triton.cdiv(pixels, PIECE))
    piece = triton.cdiv(pixels, pieces)  # pieces are longer than there are pieces, so none is empty
    means, squares = torch.empty((2, batch, pieces, channels), device=x.device)
    grid = (pieces, triton.cdiv(channels, block), batch)
    sizes = (pixels, channels, piece)
    _moments[grid](seen, means, squares, *sizes, rows=ROWS, block=block, **OPTIONS)
    fixed = {"rows": ROWS, "block": block, "pieces": triton.next_power_of_2(pieces), **OPTIONS}
    _norm_relu[grid](seen, means, squares, *sizes, EPSILON, **fixed)
    return seen.permute(0, 3, 1, 2)


def add_enlarged(x: Tensor, coarse: Tensor, bias: Tensor, mode: Mode) -> Tensor:
    """Return ReLU(x + enlarged coarse + bias); in place if ``x`` is in channels last.

    Args:
        x: (b, c, y, x).
        coarse: (b, c, y', x').
        bias: (c,) float32.
        mode: Torch's ``bilinear`` without aligned corners, or its ``nearest``.
    """
    seen, small = _dense(x), _dense(coarse)
    batch, height, width, channels = seen.shape
    block = _block(channels, x)
    grid = (triton.cdiv(height * width, ROWS), triton.cdiv(channels, block), batch)
    sizes = (height, width, *small.shape[1:3], channels)
    fixed = {"interpolated": mode == "bilinear", "rows": ROWS, "block": block, **OPTIONS}
    _add_enlarged[grid](seen, small, bias, *sizes, **fixed)
    return seen.permute(0, 3, 1, 2)


def _dense(x: Tensor) -> Tensor:
    """Return (b, c, y, x) as (b, y, x, c), without a copy in channels last."""
    return x.permute(0, 2, 3, 1).contiguous()


def _block(channels: int, x: Tensor) -> int:
    return int(min(LINE // x.element_size(), max(16, triton.next_power_of_2(channels))))
