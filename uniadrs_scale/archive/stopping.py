"""The end of a sweep on request: SIGTERM and SIGINT."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class Stop:
    """A request to end, set by a signal."""

    event: threading.Event = field(default_factory=threading.Event)
    signal: int = 0


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Let SIGTERM and SIGINT end a sweep cleanly; the second one ends the process at once.

    A signal to an inner block also ends the outer one: the sweep may have done its last scene and
    not look any more, but not be over yet.
    """
    stop = Stop()
    before: dict[int, Any] = {}

    def ask(number: int, frame: object) -> None:
        stop.signal = number
        stop.event.set()
        outer = before[number]
        restore()
        if getattr(outer, "__name__", "") == ask.__name__:
            outer(number, frame)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        before.clear()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        restore()
