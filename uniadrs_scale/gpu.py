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
from typing import TYPE_CHECKING, Any

import torch

from uniadrs_scale.attention import REACH
from uniadrs_scale.passes import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

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
    for name, arguments in _samples(device, dtype).items():
        plain = getattr(PLAIN, name)
        # Given copies, since passes may overwrite. Plain in float32: the truth, nearly.
        expected = plain(*(_copy(a, torch.float32) for a in arguments))
        try:
            kernel = getattr(load(), name)
            got = kernel(*(_copy(a) for a in arguments)).float()
        except Exception as error:  # noqa: BLE001 - whatever a compiler or a driver raises
            wrong[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            continue
        limit = TOLERANCE[dtype]
        if got.shape == expected.shape and torch.allclose(got, expected, rtol=limit, atol=limit):
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


def _samples(device: torch.device, dtype: torch.dtype) -> dict[str, tuple[Any, ...]]:
    """Small arguments of each kernel: no size is a multiple of a block, and all borders occur."""
    random = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> Tensor:
        values = torch.randn(shape, generator=random).to(device, dtype)
        return values.contiguous(memory_format=torch.channels_last)

    bias = torch.randn(70, generator=random).to(device)
    return {
        "norm_relu": (tensor(2, 70, 37, 31),),
        "add_enlarged": (tensor(2, 70, 21, 14), tensor(2, 70, 10, 7), bias, "bilinear"),
        "attend": (tensor(2, 2 * 70, 9, 7), 3 * tensor(2, REACH**2 + 7, 9, 7)),
    }


def _copy(argument: Any, dtype: torch.dtype | None = None) -> Any:
    if not isinstance(argument, torch.Tensor):
        return argument
    return argument.to(dtype or argument.dtype, copy=True)
