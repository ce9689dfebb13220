"""How a GPU computes: Triton's kernels where they prove themselves, and work that runs ahead.

No kernel is trusted: once a process, before the first tile, each is compared with plain torch on
the device itself. One that does not compile there or differs is left out, with a warning; scores
are the same then, and slower.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from uniadrs_scale.attention import REACH
from uniadrs_scale.passes import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uniadrs_scale.passes import Passes

LOG = logging.getLogger(__name__)
KERNELS = ("norm_relu", "add_enlarged", "attend")
"""Passes that :mod:`uniadrs_scale.triton_kernels` has."""
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2.0**-7}
"""Of a kernel against plain torch in float32, absolute and relative; bfloat16 keeps 8 bits."""


@lru_cache(maxsize=8)
def passes_on(device: torch.device, dtype: torch.dtype) -> Passes:
    """The fastest passes that are right on ``device``; checked at the first call of a process."""
    if device.type != "cuda":
        return PLAIN
    with torch.cuda.device(device), torch.inference_mode():
        return checked(_triton, device, dtype)


def _triton() -> Any:
    # By name, when a GPU is there: importing Triton costs a CPU worker time for nothing.
    return importlib.import_module("uniadrs_scale.triton_kernels")


def checked(load: Callable[[], Any], device: torch.device, dtype: torch.dtype) -> Passes:
    """Plain passes, replaced by those of ``load()`` that give the same on ``device``.

    Args:
        load: Gives the module of kernels, or raises.
        device: Where to try them.
        dtype: Of the tensors that they will get.
    """
    right, wrong = {}, {}
    for name in KERNELS:
        try:
            kernel = getattr(load(), name)
            plain, samples = getattr(PLAIN, name), _samples(name, device, dtype)
            same = all(_agree(kernel, plain, sample) for sample in samples)
        except Exception as error:  # noqa: BLE001 - whatever a compiler or a driver raises
            wrong[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            continue
        if same:
            right[name] = kernel
        else:
            wrong[name] = "it differs from plain torch"
    if wrong:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in wrong.items())
        LOG.warning(
            "Kernels left out on %s in %s (%s). Plain torch takes their place: equal scores, "
            "but slower. Triton needs a C compiler and a GPU of compute capability 8.0 or later.",
            device, str(dtype).removeprefix("torch."), reasons,
        )  # fmt: skip
    return replace(PLAIN, **right)


class _Sample(NamedTuple):
    """Arguments of a pass."""

    images: tuple[Tensor, ...]
    others: tuple[Any, ...] = ()


def _samples(name: str, device: torch.device, dtype: torch.dtype) -> Iterator[_Sample]:
    """Small arguments of a kernel; first no size is a multiple of a block, then channels are.

    Triton compiles the second case anew, with wide loads; it is what networks are made of.
    """
    random = torch.Generator().manual_seed(0)
    for batch, channels in ((2, 70), (1, 64)):

        def image(*shape: int, batch: int = batch) -> Tensor:
            values = torch.randn(batch, *shape, generator=random).to(device, dtype)
            return values.contiguous(memory_format=torch.channels_last)

        if name == "norm_relu":
            yield _Sample((image(channels, 25, 23),))
        elif name == "add_enlarged":
            bias = torch.randn(channels, generator=random).to(device)
            images = image(channels, 21, 14), image(channels, 10, 7)
            yield _Sample(images, (bias, "bilinear"))
        else:
            yield _Sample((image(2 * channels, 9, 7), 3 * image(REACH**2 + 7, 9, 7)))


def _agree(kernel: Callable[..., Tensor], plain: Callable[..., Tensor], sample: _Sample) -> bool:
    # Copies, since passes may overwrite; plain torch in float32 is the truth, nearly.
    exact = (image.to(torch.float32, copy=True) for image in sample.images)
    expected = plain(*exact, *sample.others)
    got = kernel(*(image.clone() for image in sample.images), *sample.others).float()
    limit = TOLERANCE[sample.images[0].dtype]
    return got.shape == expected.shape and torch.allclose(got, expected, rtol=limit, atol=limit)
