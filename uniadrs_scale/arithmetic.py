"""Equal tiles give equal bits: how torch must compute on a CPU."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes with one thread inside.

    The number decides the order of additions (2.6e-8). Tiles are what runs in parallel, so one
    thread each is also the fastest. The setting is per thread.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
