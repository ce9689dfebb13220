"""Use of a GPU: a check of its kernels, and transfers that overlap with scoring.

Each call of a :class:`Conveyor` has a slot: pinned memory on the host and memory on the device, for
tiles and for scores, reused by later calls. Three queues of the device work side by side: one
copies tiles in, one computes, one copies scores out; a mark in one queue is what another waits for.
A lock is held only while the work of a call is appended to the computing queue, never while a
thread waits, copies or decodes. So the pixels of one call travel while earlier calls are scored, as
soon as two threads call (or one calls :meth:`Conveyor.submit` again before it collects).
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from uniadrs_scale.detector.passes import PLAIN, REACH
from uniadrs_scale.errors import PlanError, gist

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from uniadrs_scale.detector.passes import Passes

    Shape = tuple[int, ...]

LOG = logging.getLogger(__name__)
KERNELS = ("norm_relu", "add_enlarged", "attend")
"""Passes that :mod:`.triton_kernels` has."""
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2.0**-7}
"""Largest difference of a kernel from plain torch in float32, absolute and relative; bfloat16 has
8 bits."""


APPENDING = threading.Lock()
"""Held while the work of a call is appended, as a whole. One for all detectors, because settings of
torch belong to the process: another one would end them in between."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Slot:
    """Memory of one call at a time."""

    tiles_here: Tensor
    """(n, band, y, x) on the host."""
    tiles: Tensor
    """The same on the device."""
    scores: Tensor
    """(n, y, x) on the device."""
    scores_here: Tensor
    """The same on the host."""


class Conveyor:
    """Calls that overlap; any number of threads may share one."""

    def __init__(self, device: Cuda) -> None:
        self._device = device
        self._bring, self._compute, self._return = (device.queue() for _ in range(3))
        self._sharing = threading.Lock()
        self._idle: list[_Slot] = []

    def submit(
        self, tiles: NDArray[np.float32], work: Callable[[Tensor], Tensor]
    ) -> Callable[[], NDArray[np.float32]]:
        """Begin to score ``tiles``, and return a function that waits for the scores.

        Args:
            tiles: (n, band, y, x); may be overwritten as soon as this returns.
            work: Function of tiles on the device to float32 scores (n, y, x) on the device.
        """
        slot = self._slot(tiles.shape)
        slot.tiles_here.copy_(torch.from_numpy(tiles))
        self._bring.run(lambda: slot.tiles.copy_(slot.tiles_here, non_blocking=True))
        arrived = self._bring.mark()
        with APPENDING:
            self._compute.after(arrived)
            self._compute.run(lambda: slot.scores.copy_(work(slot.tiles)))
            scored = self._compute.mark()
        self._return.after(scored)
        self._return.run(lambda: slot.scores_here.copy_(slot.scores, non_blocking=True))
        returned = self._return.mark()

        def collect() -> NDArray[np.float32]:
            returned.synchronize()
            scores: NDArray[np.float32] = slot.scores_here.numpy().copy()
            # Not before, and not after an error: the device may still use the slot then.
            with self._sharing:
                self._idle.append(slot)
            return scores

        return collect

    def _slot(self, shape: Shape) -> _Slot:
        """Return an idle slot of this shape, or a new one; drop idle slots of other shapes."""
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
    """Work of a device, done in the given order, while the caller goes on: a stream."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's

    def run(self, work: Callable[[], object]) -> None:
        """Append the work that ``work`` gives to the device."""
        with torch.cuda.stream(self._stream):
            work()

    def mark(self) -> torch.cuda.Event:
        """Return a mark behind all work so far, which can be waited for."""
        # Blocking: a thread that waits sleeps, and leaves its core to a thread that decodes.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # torch's
        event.record(self._stream)
        return event

    def after(self, mark: torch.cuda.Event) -> None:
        """Let all work that is appended from now on wait for ``mark``, of any queue."""
        self._stream.wait_event(mark)


@dataclass(frozen=True, slots=True)
class Cuda:
    """The parts of a CUDA device that a conveyor needs."""

    device: torch.device

    def queue(self) -> CudaQueue:
        """Return a new queue."""
        return CudaQueue(self.device)

    def memory(self, shape: Shape) -> Tensor:
        """Return uninitialised float32 memory of the device."""
        return torch.empty(shape, device=self.device)

    def host(self, shape: Shape) -> Tensor:
        """Return uninitialised float32 memory of the host that the device copies by itself."""
        return torch.empty(shape, pin_memory=True)


def device_called(name: str) -> torch.device:
    """Return the torch device ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        PlanError: The name is unknown, or the device does not exist on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise PlanError(f"device='{name}' is unknown. Use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise PlanError(
            f"device='{name}' does not exist here: torch sees {torch.cuda.device_count()} GPUs. "
            "Use device='auto' or 'cpu'."
        )
    return device


def conveyor_on(device: torch.device) -> Conveyor:
    """Return a conveyor to a GPU, by number: ``cuda`` alone is another one in other threads."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return Conveyor(Cuda(torch.device("cuda", index)))


def gpu_names() -> tuple[str, ...]:
    """Return the GPUs that torch sees, by their names in CUDA_VISIBLE_DEVICES."""
    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    # CUDA ends at the first name without a GPU, such as -1.
    return tuple(given.split(",")[:count] if given else map(str, range(count)))


@lru_cache(maxsize=8)
def passes_on(device: torch.device, dtype: torch.dtype) -> Passes:
    """Return the fastest passes that are right on ``device``, checked once per process."""
    if device.type != "cuda":
        return PLAIN
    with torch.cuda.device(device), torch.inference_mode():
        return checked(_triton, device, dtype)


def _triton() -> Any:
    # By name, when there is a GPU: a CPU worker need not spend time on importing Triton.
    return importlib.import_module("uniadrs_scale.detector.triton_kernels")


def checked(load: Callable[[], Any], device: torch.device, dtype: torch.dtype) -> Passes:
    """Return the plain passes, replaced by the kernels that agree with them on ``device``.

    Args:
        load: Function that returns the module of kernels, or raises.
        device: The device to try the kernels on.
        dtype: Type of the tensors that the kernels will get.
    """
    right, wrong = {}, {}
    for name in KERNELS:
        try:
            kernel = getattr(load(), name)
            plain, samples = getattr(PLAIN, name), _samples(name, device, dtype)
            same = all(_agree(kernel, plain, sample) for sample in samples)
        except Exception as error:  # noqa: BLE001 - compilers and drivers raise anything
            wrong[name] = f"{type(error).__name__}: {gist(error)}"
            continue
        if same:
            right[name] = kernel
        else:
            wrong[name] = "it differs from plain torch"
    if wrong:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in wrong.items())
        LOG.warning(
            "Kernels not used on %s in %s (%s). Plain torch replaces them: equal scores, but "
            "slower. Install a C compiler, and use a GPU of compute capability 8.0 or later.",
            *(device, str(dtype).removeprefix("torch."), reasons),
        )
    return replace(PLAIN, **right)


class _Sample(NamedTuple):
    """Arguments of a pass."""

    images: tuple[Tensor, ...]
    others: tuple[Any, ...] = ()


def _samples(name: str, device: torch.device, dtype: torch.dtype) -> Iterator[_Sample]:
    """Yield small arguments of a kernel.

    First no size is a multiple of a block. Then channels are, for which Triton compiles the kernel
    again, with wide loads; networks consist of this case.
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
    # Copies, as passes may overwrite. Plain torch in float32 is the reference.
    exact = (image.to(torch.float32, copy=True) for image in sample.images)
    expected = plain(*exact, *sample.others)
    got = kernel(*(image.clone() for image in sample.images), *sample.others).float()
    limit = TOLERANCE[sample.images[0].dtype]
    return got.shape == expected.shape and torch.allclose(got, expected, rtol=limit, atol=limit)
