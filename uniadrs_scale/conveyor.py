"""Tiles to a device and scores back, while other tiles are being scored.

Each call has a slot: pinned memory here and memory there, for tiles and for scores, used again by
later calls. Three queues of the device work side by side: one brings tiles, one computes, one
brings scores back; a mark in one is what another waits for. The lock is held only while a call's
work is put into the queue that computes, never while anybody waits, copies or decodes.

So the pixels of one call travel while those of the calls before it are scored, as soon as two
threads call (or one calls :meth:`Conveyor.submit` again before it collects).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

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
