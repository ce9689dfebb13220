"""One value for all tasks of a run: sent once to a worker, not once a task."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from dask.sizeof import sizeof
from distributed.protocol import pickle

Value = TypeVar("Value")


class Shared(Generic[Value]):
    """A value that travels as bytes and is opened where it is used, once a process.

    A scheduler holds the bytes only: it never builds a network, and needs no GPU to hold a detector
    that does. Pickled into every task, scene, store and scorer made a graph ten times as large.
    """

    def __init__(self, value: Value | None, payload: bytes | None = None) -> None:
        self._value, self._payload = value, payload
        self._lock = threading.Lock()

    @property
    def value(self) -> Value:
        """The value itself; opening it, a worker builds its network or finds the one it has."""
        with self._lock:
            if self._value is None:
                self._value = pickle.loads(self.payload)
            value: Value = self._value
            return value

    @property
    def payload(self) -> bytes:
        """The value, pickled."""
        if self._payload is None:
            self._payload = pickle.dumps(self._value)
        return self._payload

    def __reduce__(self) -> tuple[type[Shared[Value]], tuple[None, bytes]]:
        return Shared, (None, self.payload)


@sizeof.register(Shared)  # type: ignore[untyped-decorator]  # dask.sizeof has no types
def _size_of_shared(shared: Shared[object]) -> int:
    """Bytes, without pickling what never travels."""
    return len(shared._payload or b"")  # noqa: SLF001 - of its own class
