"""What an inference does between its convolutions: the list, and each in plain torch.

Plain torch runs on any device, and is what the kernels are compared with: those in numba
(:mod:`uniadrs_scale.numba_passes`) and in Triton (:mod:`uniadrs_scale.triton_kernels`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from uniadrs_scale.detector.attention import REACH, local_attention, scrambled_attention

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


Mode = Literal["bilinear", "nearest"]
"""Of an enlargement, by torch's names; bilinear without aligned corners."""
EPSILON = 1e-5
"""Of the instance norm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """One way to compute; tensors are (b, c, y, x), fastest in channels last, and of one type.

    All sums are float32 at least. A pass may overwrite its first argument, and returns its result.
    """

    norm_relu: Callable[[Tensor], Tensor]
    """ReLU(instance norm(x))."""
    halved: Callable[[Tensor], Tensor]
    """Maximum of each 2 x 2 px; an odd last row or column is dropped."""
    add_enlarged: Callable[[Tensor, Tensor, Tensor, Mode], Tensor]
    """ReLU(x + coarse enlarged to the size of x + bias); the bias is (c,) float32."""
    attend: Callable[[Tensor, Tensor], Tensor]
    """Of (b, 2 c, y, x) the first half, plus the neighbourhood in the second, weighted by the
    softmax of the first 49 of logits (b, 49 or more, y, x)."""
    attend_scrambled: Callable[[Tensor, Tensor], Tensor]
    """The same as the published code sums it."""
    multiple: int = 1
    """Convolutions get output channels of 0 up to a multiple of this, where that is faster."""


def norm_relu(x: Tensor) -> Tensor:
    """See :class:`Passes`. Not torch's instance norm, which copies to channels first and back."""
    wide = x.float()
    variance, mean = torch.var_mean(wide, (2, 3), correction=0, keepdim=True)
    wide = wide.sub_(mean) if wide is x else wide - mean
    return wide.mul_(torch.rsqrt(variance + EPSILON)).relu_().to(x.dtype)


def halved(x: Tensor) -> Tensor:
    """See :class:`Passes`."""
    return F.max_pool2d(x, 2)


def add_enlarged(x: Tensor, coarse: Tensor, bias: Tensor, mode: Mode) -> Tensor:
    """See :class:`Passes`."""
    aligned = False if mode == "bilinear" else None
    large = F.interpolate(coarse.float(), size=x.shape[2:], mode=mode, align_corners=aligned)
    return F.relu(large + x.float() + bias[:, None, None]).to(x.dtype)


def attend(x: Tensor, logits: Tensor) -> Tensor:
    """See :class:`Passes`."""
    own, near = x.float().chunk(2, 1)
    return (own + local_attention(near, _weights(logits))).to(x.dtype)


def attend_scrambled(x: Tensor, logits: Tensor) -> Tensor:
    """See :class:`Passes`."""
    own, near = x.float().chunk(2, 1)
    return (own + scrambled_attention(near, _weights(logits))).to(x.dtype)


def _weights(logits: Tensor) -> Tensor:
    return logits[:, : REACH**2].float().softmax(1)


PLAIN = Passes(
    norm_relu=norm_relu,
    halved=halved,
    add_enlarged=add_enlarged,
    attend=attend,
    attend_scrambled=attend_scrambled,
    # Tensor cores want rows of 16 bytes.
    multiple=8,
)
