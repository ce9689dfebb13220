"""Equal tiles give equal bits: how torch must compute."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes with one thread of the CPU inside.

    The number decides the order of additions (2.6e-8). Tiles are what runs in parallel, so one
    thread each is also the fastest. The setting is per thread.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def exact_gpu() -> Iterator[None]:
    """float32 on an NVIDIA GPU is float32 inside (not TF32), and sums have one order.

    ``benchmark`` stays off: cuDNN would try its algorithms in each thread and process anew and
    might choose different ones, which differ in their last bits. Settings of the process, so one
    thread at a time.
    """
    products = torch.backends.cuda.matmul
    # The older name raises where a program has used the newer one, and torch 2.8 has no other.
    new = hasattr(products, "fp32_precision")
    name, exact = ("fp32_precision", "ieee") if new else ("allow_tf32", False)
    before = getattr(products, name)
    # Named, since `flags` switches cuDNN off where it is not told to leave it on.
    cudnn = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": False}
    setattr(products, name, exact)
    try:
        with torch.backends.cudnn.flags(**cudnn):
            yield
    finally:
        setattr(products, name, before)
