"""Means over the ring between two squares around every pixel: what surrounds a target."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def ring_mean(values: Tensor, inner: int, outer: int) -> Tensor:
    """(n, k, y, x) mean over the ring of each pixel; cut at the tile's edges.

    Args:
        values: (n, k, y, x).
        inner: Side of the inner square, which is left out [px], odd.
        outer: Side of the outer one [px], odd.
    """
    height, width = values.shape[2:]
    total, count = torch.zeros_like(values), values.new_zeros(height, width)
    for side, sign in ((outer, 1), (inner, -1)):
        rows, cols = (_within(n, side // 2, values.device) for n in (height, width))
        total += sign * (rows @ values @ cols)
        count += sign * (rows.sum(1)[:, None] * cols.sum(0))
    return total / count


@lru_cache(maxsize=16)  # brought to a GPU once: that waits for all its work before
@torch.inference_mode(mode=False)
def _within(size: int, reach: int, device: torch.device) -> Tensor:
    """(size, size) 1 where two positions are at most ``reach`` apart.

    As a matrix product, a box sum is ten times faster than torch's pooling, and keeps the precision
    that differences of running sums lose.
    """
    position = torch.arange(size)
    return ((position[:, None] - position).abs() <= reach).float().to(device)
