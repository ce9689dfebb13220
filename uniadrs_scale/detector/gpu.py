"""Tiles to a device and scores back, while other tiles are being scored.

Each call has a slot: pinned memory here and memory there, for tiles and for scores, used again by
later calls. Three queues of the device work side by side: one brings tiles, one computes, one
brings scores back; a mark in one is what another waits for. The lock is held only while a call's
work is put into the queue that computes, never while anybody waits, copies or decodes.

So the pixels of one call travel while those of the calls before it are scored, as soon as two
threads call (or one calls :meth:`Conveyor.submit` again before it collects).
"""

from __future__ import annotations

import importlib
import logging
import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from uniadrs_scale.detector.attention import REACH
from uniadrs_scale.detector.passes import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from uniadrs_scale.detector.passes import Passes


if TYPE_CHECKING:
    Shape = tuple[int, ...]


class Mark(Protocol):
    """A place in a queue."""

    def synchronize(self) -> None:
        """Wait until all work before it is done."""


class Queue(Protocol):
    """Work of a device, done in the order given, while the caller goes on."""

    def run(self, work: Callable[[], object]) -> None:
        """Append what ``work`` asks of the device."""

    def mark(self) -> Mark:
        """A mark behind all work so far."""

    def after(self, mark: Mark) -> None:
        """Whatever is appended from now on waits for ``mark``, of any queue."""


class Device(Protocol):
    """What a conveyor needs of a device."""

    def queue(self) -> Queue:
        """A new queue."""

    def memory(self, shape: Shape) -> Tensor:
        """Uninitialised float32 memory of the device."""

    def host(self, shape: Shape) -> Tensor:
        """Uninitialised float32 memory here, from and to which the device copies by itself."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Slot:
    """Memory of one call at a time."""

    tiles_here: Tensor
    """(n, band, y, x)"""
    tiles: Tensor
    """The same, on the device."""
    scores: Tensor
    """(n, y, x) on the device."""
    scores_here: Tensor
    """The same, here."""


class Conveyor:
    """Calls that overlap; any number of threads may share one."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._bring, self._compute, self._return = (device.queue() for _ in range(3))
        # One call's work is appended whole: its settings are those of the process.
        self._appending = threading.Lock()
        self._sharing = threading.Lock()
        self._idle: list[_Slot] = []

    def submit(
        self, tiles: NDArray[np.float32], work: Callable[[Tensor], Tensor]
    ) -> Callable[[], NDArray[np.float32]]:
        """Begin to score ``tiles``; the function that is returned waits for the scores.

        Args:
            tiles: (n, band, y, x); free again when this returns.
            work: From tiles on the device to float32 scores (n, y, x) on the device.
        """
        slot = self._slot(tiles.shape)
        slot.tiles_here.copy_(torch.from_numpy(tiles))
        self._bring.run(lambda: slot.tiles.copy_(slot.tiles_here, non_blocking=True))
        arrived = self._bring.mark()
        with self._appending:
            self._compute.after(arrived)
            self._compute.run(lambda: slot.scores.copy_(work(slot.tiles)))
            scored = self._compute.mark()
        self._return.after(scored)
        self._return.run(lambda: slot.scores_here.copy_(slot.scores, non_blocking=True))
        returned = self._return.mark()

        def collect() -> NDArray[np.float32]:
            returned.synchronize()
            scores: NDArray[np.float32] = slot.scores_here.numpy().copy()
            # Only now, and not after an error: the device may still be at work on a slot then.
            with self._sharing:
                self._idle.append(slot)
            return scores

        return collect

    def _slot(self, shape: Shape) -> _Slot:
        """An idle slot of this shape, or a new one; those of another shape are given up."""
        with self._sharing:
            self._idle = [slot for slot in self._idle if slot.tiles.shape == shape]
            if self._idle:
                return self._idle.pop()
        scores = (shape[0], *shape[2:])
        return _Slot(
            tiles_here=self._device.host(shape),
            tiles=self._device.memory(shape),
            scores=self._device.memory(scores),
            scores_here=self._device.host(scores),
        )


class CudaQueue:
    """A stream of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def run(self, work: Callable[[], object]) -> None:
        """See :class:`Queue`."""
        with torch.cuda.stream(self._stream):
            work()

    def mark(self) -> torch.cuda.Event:
        """See :class:`Queue`."""
        # Blocking: a thread that waits sleeps, and leaves its core to one that decodes.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def after(self, mark: Mark) -> None:
        """See :class:`Queue`."""
        self._stream.wait_event(cast("torch.cuda.Event", mark))


@dataclass(frozen=True, slots=True)
class Cuda:
    """A CUDA device."""

    device: torch.device

    def queue(self) -> CudaQueue:
        """See :class:`Device`."""
        return CudaQueue(self.device)

    def memory(self, shape: Shape) -> Tensor:
        """See :class:`Device`."""
        return torch.empty(shape, device=self.device)

    def host(self, shape: Shape) -> Tensor:
        """See :class:`Device`."""
        return torch.empty(shape, pin_memory=True)


LOG = logging.getLogger(__name__)
KERNELS = ("norm_relu", "add_enlarged", "attend")
"""Passes that :mod:`uniadrs_scale.detector.triton_kernels` has."""
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
    return importlib.import_module("uniadrs_scale.detector.triton_kernels")


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
