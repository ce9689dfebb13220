"""Measurement of ratios: alternatives in turn, in one process, and the median of each."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def interleaved(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return median seconds of each call: A B C A B C ..., after one round not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_flops(dtype: torch.dtype, side: int = 2048) -> float:
    """Measure FLOP/s of a large matrix product on this thread, by the faster library of torch.

    As ``a @ b`` and as a convolution of 1 x 1: torch gives float32 products to MKL and
    convolutions to oneDNN, which is faster on AMD.
    """
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    x = torch.randn(1, side, 32, side // 32).to(dtype).contiguous(memory_format=torch.channels_last)
    w = b[:, :, None, None].contiguous(memory_format=torch.channels_last)
    took = interleaved({"matmul": lambda: a @ b, "conv": lambda: F.conv2d(x, w)}, 5)
    return 2 * side**3 / min(took.values())


def bandwidth(numbers: int = 2**25) -> float:
    """Measure the bytes per second that this thread copies, reads plus writes."""
    source, target = torch.ones(numbers), torch.zeros(numbers)
    return 8 * numbers / interleaved({"copy": lambda: target.copy_(source)}, 5)["copy"]
