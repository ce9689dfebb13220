"""What an inference on a CPU does between its convolutions: tensors to :mod:`kernels` and back."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from uniadrs_scale.detector import cpu_kernels as kernels
from uniadrs_scale.detector.passes import Passes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from uniadrs_scale.detector.passes import Mode


def norm_relu(x: Tensor) -> Tensor:
    """In place."""
    kernels.norm_relu(_array(x))
    return x


def halved(x: Tensor) -> Tensor:
    """See :class:`Passes`, as all here."""
    out = _like(x, x.shape[1], torch.Size(n // 2 for n in x.shape[2:]))
    kernels.halve(_array(x), _array(out))
    return out


def add_enlarged(x: Tensor, coarse: Tensor, bias: Tensor, mode: Mode) -> Tensor:
    """In place."""
    rows, cols = (
        enlargement(small, large, mode)
        for small, large in zip(coarse.shape[2:], x.shape[2:], strict=True)
    )
    kernels.add_enlarged(_array(x), _array(coarse), rows, cols, bias.numpy())
    return x


def _attended(kernel: Callable[..., None], x: Tensor, logits: Tensor) -> Tensor:
    out = _like(x, x.shape[1] // 2, x.shape[2:])
    kernel(_array(x), _array(logits), _array(out))
    return out


def attend(x: Tensor, logits: Tensor) -> Tensor:
    """See :class:`Passes`."""
    return _attended(kernels.attend, x, logits)


def attend_scrambled(x: Tensor, logits: Tensor) -> Tensor:
    """See :class:`Passes`."""
    return _attended(kernels.attend_scrambled, x, logits)


NUMBA = Passes(
    norm_relu=norm_relu,
    halved=halved,
    add_enlarged=add_enlarged,
    attend=attend,
    attend_scrambled=attend_scrambled,
)


def fast_ring_mean(values: Tensor, inner: int, outer: int) -> Tensor:
    """As :func:`rings.ring_mean`, on a CPU: in one pass, where matrix products take four."""
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    planes = values.contiguous().flatten(0, 1).numpy()
    kernels.ring_means(planes, inner, outer, out.flatten(0, 1).numpy())
    return out


Axis = tuple["NDArray[np.int64]", "NDArray[np.float32]"]
"""For each of the large samples the small one before it, and the weight of the next.

A plain tuple: numba's cache on disk would name a class by its module, and fail to load where a
newer version of this library has moved it.
"""


@lru_cache(maxsize=64)
def enlargement(small: int, large: int, mode: Mode) -> Axis:
    """How ``small`` samples become ``large``, as torch's ``interpolate`` does it."""
    if mode == "nearest":
        nearest = np.arange(large) * small // large
        return nearest, np.zeros(large, np.float32)
    place = np.maximum((np.arange(large) + 0.5) * (small / large) - 0.5, 0)
    first = np.minimum(place.astype(np.int64), small - 1)
    return first, (place - first).astype(np.float32)


def _array(x: Tensor) -> NDArray[Any]:
    """The (b, y, x, c) memory of a tensor in channels last; bfloat16 as its bits."""
    bits = x.view(torch.uint16) if x.dtype == torch.bfloat16 else x
    array: NDArray[Any] = bits.permute(0, 2, 3, 1).numpy()
    return array


def _like(x: Tensor, channels: int, size: torch.Size) -> Tensor:
    return torch.empty(
        (x.shape[0], channels, *size), dtype=x.dtype, memory_format=torch.channels_last
    )
