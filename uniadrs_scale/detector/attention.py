"""The network's attention over neighbourhoods: as the paper describes it, and as published.

Sources: Li et al., arXiv 2310.07511; PiCANet's local attention (Liu et al., CVPR 2018), which it
follows; the behaviour of the published code (commit 0ca8a7c).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 7
"""Side of the neighbourhood [samples]."""
STEP = 2
"""Dilation of the neighbourhood [px]."""
MARGIN = STEP * (REACH // 2)
"""Extent of the neighbourhood to each side [px]."""


def _neighbour(padded: Tensor, index: int, height: int, width: int) -> Tensor:
    """Return the view of ``padded`` shifted to neighbour ``index`` of 49, in unfold's order."""
    row, col = STEP * (index // REACH), STEP * (index % REACH)
    return padded[..., row : row + height, col : col + width]


class _LocalAttention(torch.autograd.Function):
    """Sum over the 49 neighbours of weight times feature, without the 49 copies of unfold.

    A hand-written backward pass, because that of autograd allocates and adds 49 zero-padded
    gradients of full size for 49 views of one padded tensor.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(features, weights)
        height, width = features.shape[-2:]
        padded = F.pad(features, (MARGIN,) * 4)
        total = torch.zeros_like(features)
        for i in range(REACH**2):
            total.addcmul_(_neighbour(padded, i, height, width), weights[:, i : i + 1])
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        features, weights = ctx.saved_tensors
        height, width = features.shape[-2:]
        padded = F.pad(features, (MARGIN,) * 4)
        grad_padded, grad_weights = torch.zeros_like(padded), torch.empty_like(weights)
        for i in range(REACH**2):
            _neighbour(grad_padded, i, height, width).addcmul_(grads[0], weights[:, i : i + 1])
            grad_weights[:, i] = (grads[0] * _neighbour(padded, i, height, width)).sum(1)
        inside = grad_padded[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
        return inside, grad_weights


def local_attention(features: Tensor, weights: Tensor) -> Tensor:
    """Average each pixel's 7 x 7 neighbourhood (dilation 2, zero outside) by its own weights.

    Formula: a[:, y, x] = sum over n of weights[n, y, x] * features[:, y + dy(n), x + dx(n)].

    Args:
        features: (b, c, h, w).
        weights: (b, 49, h, w), summing to 1 over axis 1; row-major over the neighbourhood.

    Returns:
        (b, c, h, w) in the dtype of ``features``. Half precisions are summed in float32, because
        49 additions in bfloat16 lose what the attention adds.
    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    total: Tensor = _LocalAttention.apply(features.to(dtype), weights.to(dtype))  # type: ignore[no-untyped-call]  # torch's
    return total.to(features.dtype)


def scrambled_attention(features: Tensor, weights: Tensor) -> Tensor:
    """Compute the sums that the published code has in place of :func:`local_attention`.

    There, weights (49, L) and unfolded features (49, L) are read as (L, 49) without a transpose, so
    output pixel p sums the 49 products number 49 p to 49 p + 48 of the flattened (49, L) array.

    Args:
        features: (b, c, h, w).
        weights: (b, 49, h, w).

    Returns:
        (b, c, h, w).
    """
    batch, channels, height, width = features.shape
    unfolded = F.unfold(features, REACH, dilation=STEP, padding=MARGIN)
    products = unfolded.view(batch, channels, -1) * weights.reshape(batch, 1, -1)
    return products.view(batch, channels, height * width, -1).sum(-1).view_as(features)
