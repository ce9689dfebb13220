"""The network's attention, and all steps between its convolutions in plain torch and in numba.

Plain torch runs on any device. The kernels are compared with it: those in numba
(:mod:`.cpu_kernels`) and in Triton (:mod:`.triton_kernels`).

Sources of the attention: Li et al., arXiv 2310.07511; PiCANet's local attention (Liu et al., CVPR
2018), which it follows; the behaviour of the published code (commit 0ca8a7c).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uniadrs_scale.detector import cpu_kernels as kernels
from uniadrs_scale.detector.window_kernels import ring_means

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

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


Mode = Literal["bilinear", "nearest"]
"""Names of enlargements as torch spells them; bilinear means without aligned corners."""
EPSILON = kernels.EPSILON


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """One implementation of every step. Tensors are (b, c, y, x), all of one type.

    Channels last is fastest. Sums are float32 or wider. A pass may overwrite its first argument,
    and returns its result.
    """

    norm_relu: Callable[[Tensor], Tensor]
    """ReLU(instance norm(x))."""
    halved: Callable[[Tensor], Tensor]
    """Maximum of each 2 x 2 px; an odd last row or column is dropped."""
    add_enlarged: Callable[[Tensor, Tensor, Tensor, Mode], Tensor]
    """ReLU(x + coarse enlarged to the size of x + bias); the bias is (c,) float32."""
    attend: Callable[[Tensor, Tensor], Tensor]
    """First half of x (b, 2 c, y, x) plus its second half averaged over each pixel's neighbourhood,
    weighted by the softmax of the first 49 of logits (b, 49 or more, y, x)."""
    attend_scrambled: Callable[[Tensor, Tensor], Tensor]
    """The same, summed as the published code sums it."""
    channels_last: Callable[[Tensor], Tensor]
    """x in the memory format channels last."""
    multiple: int = 1
    """Convolutions may be padded with zero output channels to a multiple of this, for speed."""


def plain_norm_relu(x: Tensor) -> Tensor:
    """Apply :attr:`Passes.norm_relu`; torch's instance norm would copy to channels first."""
    wide = x.float()
    variance, mean = torch.var_mean(wide, (2, 3), correction=0, keepdim=True)
    wide = wide.sub_(mean) if wide is x else wide - mean
    return wide.mul_(torch.rsqrt(variance + EPSILON)).relu_().to(x.dtype)


def plain_channels_last(x: Tensor) -> Tensor:
    """Apply :attr:`Passes.channels_last`."""
    return x.contiguous(memory_format=torch.channels_last)


def plain_halved(x: Tensor) -> Tensor:
    """Apply :attr:`Passes.halved`."""
    return F.max_pool2d(x, 2)


def plain_add_enlarged(x: Tensor, coarse: Tensor, bias: Tensor, mode: Mode) -> Tensor:
    """Apply :attr:`Passes.add_enlarged`."""
    aligned = False if mode == "bilinear" else None
    large = F.interpolate(coarse.float(), size=x.shape[2:], mode=mode, align_corners=aligned)
    return F.relu(large + x.float() + bias[:, None, None]).to(x.dtype)


def _plain_attended(attention: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def attended(x: Tensor, logits: Tensor) -> Tensor:
        own, near = x.float().chunk(2, 1)
        return (own + attention(near, logits[:, : REACH**2].float().softmax(1))).to(x.dtype)

    return attended


PLAIN = Passes(
    norm_relu=plain_norm_relu,
    halved=plain_halved,
    add_enlarged=plain_add_enlarged,
    attend=_plain_attended(local_attention),
    attend_scrambled=_plain_attended(scrambled_attention),
    channels_last=plain_channels_last,
    multiple=8,  # tensor cores want rows of 16 bytes
)


def fast_norm_relu(x: Tensor) -> Tensor:
    """Apply :attr:`Passes.norm_relu` in place."""
    kernels.norm_relu(_array(x))
    return x


def fast_channels_last(x: Tensor) -> Tensor:
    """Apply :attr:`Passes.channels_last`; torch takes ten times as long."""
    out = _like(x, x.shape[1], x.shape[2:])
    bits = x.view(torch.uint16) if x.dtype == torch.bfloat16 else x
    kernels.interleave(bits.contiguous().numpy(), _array(out))
    return out


def fast_halved(x: Tensor) -> Tensor:
    """Apply :attr:`Passes.halved`."""
    out = _like(x, x.shape[1], torch.Size(n // 2 for n in x.shape[2:]))
    kernels.halve(_array(x), _array(out))
    return out


def fast_add_enlarged(x: Tensor, coarse: Tensor, bias: Tensor, mode: Mode) -> Tensor:
    """Apply :attr:`Passes.add_enlarged` in place."""
    rows, cols = (
        enlargement(small, large, mode)
        for small, large in zip(coarse.shape[2:], x.shape[2:], strict=True)
    )
    kernels.add_enlarged(_array(x), _array(coarse), rows, cols, bias.numpy())
    return x


def _fast_attended(kernel: Callable[..., None]) -> Callable[..., Tensor]:
    def attended(x: Tensor, logits: Tensor) -> Tensor:
        out = _like(x, x.shape[1] // 2, x.shape[2:])
        kernel(_array(x), _array(logits), _array(out))
        return out

    return attended


NUMBA = Passes(
    norm_relu=fast_norm_relu,
    halved=fast_halved,
    add_enlarged=fast_add_enlarged,
    attend=_fast_attended(kernels.attend),
    attend_scrambled=_fast_attended(kernels.attend_scrambled),
    channels_last=fast_channels_last,
)


def fast_ring_mean(values: Tensor, inner: int, outer: int) -> Tensor:
    """Return :func:`.ring_mean` on a CPU: one pass instead of four matrix products."""
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    planes = values.contiguous().flatten(0, 1).numpy()
    ring_means(planes, inner, outer, out.flatten(0, 1).numpy())
    return out


Axis = tuple["NDArray[np.int64]", "NDArray[np.float32]"]
"""For each large sample the small one before it, and the weight of the next one.

A plain tuple: numba's cache on disk would name a class by its module, and fail to load after a
newer version of this library has moved it.
"""


@lru_cache(maxsize=64)
def enlargement(small: int, large: int, mode: Mode) -> Axis:
    """Return how ``small`` samples become ``large`` ones, as torch's ``interpolate`` does it."""
    if mode == "nearest":
        nearest = np.arange(large) * small // large
        return nearest, np.zeros(large, np.float32)
    place = np.maximum((np.arange(large) + 0.5) * (small / large) - 0.5, 0)
    first = np.minimum(place.astype(np.int64), small - 1)
    return first, (place - first).astype(np.float32)


def _array(x: Tensor) -> NDArray[Any]:
    """Return the (b, y, x, c) memory of a tensor in channels last; bfloat16 as its bits."""
    bits = x.view(torch.uint16) if x.dtype == torch.bfloat16 else x
    array: NDArray[Any] = bits.permute(0, 2, 3, 1).numpy()
    return array


def _like(x: Tensor, channels: int, size: torch.Size) -> Tensor:
    shape = (x.shape[0], channels, *size)
    return torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
