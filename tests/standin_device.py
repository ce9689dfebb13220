"""A device that does its work late and in any order that its queues and marks allow."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(eq=False)
class LateMark:
    device: LateDevice
    reached: bool = False

    def synchronize(self) -> None:
        self.device.work_until(self)

    def reach(self) -> None:
        self.reached = True


class LateQueue:
    def __init__(self, device: LateDevice) -> None:
        self.device = device
        self.work: deque[LateMark | Callable[[], object]] = deque()

    def run(self, work: Callable[[], object]) -> None:
        self.work.append(work)

    def mark(self) -> LateMark:
        mark = LateMark(self.device)
        self.work.append(mark.reach)
        return mark

    def after(self, mark: LateMark) -> None:
        self.work.append(mark)

    def step(self) -> bool:
        """Do the first thing; False where there is none or it must wait."""
        if not self.work or (isinstance(self.work[0], LateMark) and not self.work[0].reached):
            return False
        first = self.work.popleft()
        if not isinstance(first, LateMark):
            first()
        return True


@dataclass(eq=False)
class LateDevice:
    """Its memory starts as NaN, so that nothing is right by chance."""

    dice: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311
    queues: list[LateQueue] = field(default_factory=list)
    allocated: int = 0

    def queue(self) -> LateQueue:
        self.queues.append(LateQueue(self))
        return self.queues[-1]

    def memory(self, shape: tuple[int, ...]) -> Tensor:
        self.allocated += 1
        return torch.full(shape, torch.nan)

    host = memory

    def work_until(self, mark: LateMark) -> None:
        while not mark.reached:
            assert self.step(), "the queues wait for each other"

    def step(self) -> bool:
        """One thing of any queue, whichever the dice say."""
        return any(q.step() for q in self.dice.sample(self.queues, len(self.queues)))
