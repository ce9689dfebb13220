"""Calls in a process of their own: what kills it is an exception here.

Not multiprocessing: a Dask worker is a daemon process and may have no such children, and ``spawn``
imports the user's script again.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self, TypeVar

import cloudpickle

if TYPE_CHECKING:
    from collections.abc import Callable

SERVE = "from uniadrs_scale.isolation import serve; serve()"
SECONDS_TO_END = 10

T = TypeVar("T")


class ProcessDiedError(RuntimeError):
    """The process of a call is gone, and the call with it."""


class Isolation:
    """A child process that carries out calls, one after the other; another one if it dies.

    What travels is pickled, as for any worker, and comes from this process alone.
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
        """What ``function(*arguments)`` returns or raises, there.

        Raises:
            ProcessDiedError: It killed the process.
        """
        request = cloudpickle.dumps((function, arguments))
        child = self._child = self._child or _start()
        if child.stdin is None or child.stdout is None:
            raise ProcessDiedError("the process has no pipes")
        try:
            child.stdin.write(request)
            child.stdin.flush()
            returned, value = pickle.load(child.stdout)  # noqa: S301 - from our own child
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            code = child.wait()
            self._forget()
            raise ProcessDiedError(f"its process died: {_ending(code)}") from None
        if returned:
            return value  # type: ignore[no-any-return]
        raise value

    def _forget(self) -> None:
        child, self._child = self._child, None
        for pipe in (child.stdin, child.stdout) if child is not None else ():
            if pipe is not None:
                pipe.close()


def serve() -> None:
    """Carry out calls from stdin until it ends; the answers go to stdout, and nothing else does."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent
        except EOFError:
            return
        try:
            answer = True, function(*arguments)
        except Exception as error:  # noqa: BLE001 - the caller decides
            answer = False, error
        answers.write(cloudpickle.dumps(answer))
        answers.flush()


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
