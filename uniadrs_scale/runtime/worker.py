"""The worker's side: the value that all tasks share, versions, and child processes."""

from __future__ import annotations

import os
import pickle as builtin_pickle
import platform
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import cloudpickle
import psutil
from dask.sizeof import sizeof

from uniadrs_scale.core.machine import Later
from uniadrs_scale.core.memory import give_freed_memory_back, keep_freed_memory
from uniadrs_scale.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import FittedScorer, WindowReader


pickle = Later("distributed.protocol.pickle")
Value = TypeVar("Value")
PACKAGES = ("uniadrs-scale", "torch", "numpy", "numba", "zarr", "xarray", "dask", "distributed")
"""Packages that must be equal everywhere: they decide scores, or tasks are pickled with them."""


class UnfitWorkerError(ClusterError):
    """This worker does not fit; its tasks belong elsewhere."""

    def __init__(self, worker: str, reason: str) -> None:
        super().__init__(worker, reason)
        self.worker, self.reason = worker, reason

    def __str__(self) -> str:
        return f"Worker {self.worker} {self.reason}"


class Shared(Generic[Value]):
    """A value that travels as bytes and is opened once by each process that uses it.

    A scheduler holds the bytes only: it builds no network, and needs no GPU to hold a detector that
    uses one. Scene, store and scorer pickled into every task made a graph ten times as large.

    Opening also proves that a worker fits: a value with a method ``prepare`` is made ready, and
    scores its first tile, of noise. So a worker that joins late or is restarted is checked as well.
    """

    def __init__(
        self,
        value: Value | None,
        payload: bytes | None = None,
        expected: Mapping[str, str] | None = None,
    ) -> None:
        self._value, self._payload, self._expected = value, payload, expected
        self._lock = threading.Lock()

    def open(self) -> Value:
        """Return the value. The first call of a worker builds its network and warms it up.

        Raises:
            UnfitWorkerError: This process has other versions, no weights, or a broken device.
        """
        with self._lock:
            if self._value is None:
                reason = difference(self._expected or {}, versions())
                if reason:
                    raise UnfitWorkerError(worker_address(), reason)
                keep_freed_memory()
                try:
                    value = pickle.loads(self.payload)
                    if hasattr(value, "prepare"):
                        value.prepare()
                        give_freed_memory_back()
                    self._value = value
                except Exception as error:
                    reason = f"cannot open what a run needs: {type(error).__name__}: {error}"
                    raise UnfitWorkerError(worker_address(), reason) from error
            return self._value

    @property
    def payload(self) -> bytes:
        """The value, pickled."""
        if self._payload is None:
            self._payload = bytes(pickle.dumps(self._value))
        return self._payload

    def __reduce__(self) -> tuple[type[Shared[Value]], tuple[None, bytes, Mapping[str, str]]]:
        return Shared, (None, self.payload, self._expected or versions())


@sizeof.register(Shared)  # type: ignore[untyped-decorator]  # dask.sizeof has no types
def _size_of_shared(shared: Shared[object]) -> int:
    """Return the bytes, without pickling a value that never travels."""
    return len(shared._payload or b"")  # noqa: SLF001 - of its own module


@cache
def versions() -> Mapping[str, str]:
    """Return the versions of this process; packages that are not installed are omitted.

    Cached: parsing the metadata of eight packages takes 3 ms, several times per scene.
    """
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # run from a checkout, with nothing installed
    return found


def difference(expected: Mapping[str, str | None], found: Mapping[str, str | None]) -> str:
    """Return how ``found`` differs from ``expected``, as the end of a sentence; empty if equal.

    For Python the minor version counts. For a package the part behind ``+`` does not: it tells a
    build for CPUs from one for GPUs.
    """
    faults = []
    for name, wanted in expected.items():
        got = found.get(name)
        if wanted is None or _release(name, wanted) == _release(name, got):
            continue
        faults.append(f"has {name} {got}, not {wanted}" if got else f"has no {name} ({wanted})")
    return ", ".join(faults)


def _release(name: str, text: str | None) -> str | None:
    if text is None:
        return None
    return ".".join(text.split(".")[:2]) if name == "python" else text.partition("+")[0]


def worker_address() -> str:
    """Return the address of this Dask worker, or "this process" if it is not one."""
    try:
        return str(sys.modules["distributed"].get_worker().address)
    except (KeyError, ValueError):
        return "this process"


def process_peak() -> int:
    """Return the highest resident set of this process so far, in bytes."""
    try:
        # Not getrusage: there, a child begins with the peak of its parent.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) << 10
    except (OSError, IndexError):
        # Not on Linux: the present value.
        return int(psutil.Process().memory_info().rss)


SERVE = "from uniadrs_scale.runtime.worker import serve; serve()"
SECONDS_TO_END = 10
T = TypeVar("T")


class ProcessDiedError(RuntimeError):
    """The process of a call has died, and the call with it."""


class Isolation:
    """A child process that carries out calls one after the other; a new one if it ends.

    Calls and answers are pickled, as for any worker, and come from this process alone.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()  # at the end of its input it ends
            try:
                self._child.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
            self._forget()

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return or raise what ``function(*arguments)`` does in the child.

        Raises:
            ProcessDiedError: The call killed the process.
        """
        request = cloudpickle.dumps((function, arguments))
        child = self._child = self._child or _start()
        if child.stdin is None or child.stdout is None:
            raise ProcessDiedError("the process has no pipes")
        try:
            child.stdin.write(request)
            child.stdin.flush()
            returned, value = builtin_pickle.load(child.stdout)  # noqa: S301 - from our own child
        except (EOFError, BrokenPipeError, builtin_pickle.UnpicklingError):
            code = child.wait()
            self._forget()
            raise ProcessDiedError(f"its process died: {_ending(code)}") from None
        if returned:
            return value  # type: ignore[no-any-return]  # the type of the call
        raise value

    def _forget(self) -> None:
        child, self._child = self._child, None
        for pipe in (child.stdin, child.stdout) if child is not None else ():
            if pipe is not None:
                pipe.close()


@dataclass(frozen=True, slots=True)
class IsolatedReader:
    """A reader that reads in a child process."""

    isolation: Isolation
    reader: WindowReader

    def read(self) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Return pixels (band, y, x) and valid mask (y, x)."""
        return self.isolation.call(self.reader.read)


@dataclass(frozen=True, slots=True)
class IsolatedScorer:
    """A scorer that scores in a child process."""

    isolation: Isolation
    scorer: FittedScorer

    @property
    def batch(self) -> int:
        """Tiles per call."""
        return self.scorer.batch

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores of ``tiles``."""
        return self.isolation.call(self.scorer.score_tiles, tiles)


def serve() -> None:
    """Carry out calls from stdin until it ends; only the answers go to stdout."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # prints of libraries must not mix with answers
    while True:
        try:
            function, arguments = builtin_pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent
        except EOFError:
            return
        try:
            answer = True, function(*arguments)
        except Exception as error:  # noqa: BLE001 - the caller decides
            answer = False, _portable(error)
        answers.write(cloudpickle.dumps(answer))
        answers.flush()


def _portable(error: Exception) -> Exception:
    """Return an error that another process can open: pickle takes some that it cannot make again.

    The reader would stop in the middle of such an answer, and take the rest for the next one.
    """
    with suppress(Exception):  # whatever its own methods raise
        cloudpickle.loads(cloudpickle.dumps(error))
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _start() -> subprocess.Popen[bytes]:
    # The same modules as here, those of a user's script included.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(  # noqa: S603 - this interpreter, a constant
        [sys.executable, "-c", SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )


def _ending(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"
