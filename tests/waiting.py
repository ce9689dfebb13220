"""Waiting for events: a busy machine makes a test slow, and never makes it fail."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator

LIMIT = 240
"""Seconds after which an event is taken to be lost; far more than a busy machine needs."""


def wait_until(
    condition: Callable[[], object],
    *,
    limit: float = LIMIT,
    process: subprocess.Popen[bytes] | None = None,
) -> None:
    """Return when ``condition`` holds; fail if it takes too long, or ``process`` has ended."""
    deadline = time.monotonic() + limit
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"The process ended too early, with code {process.returncode}.")
        if time.monotonic() > deadline:
            raise AssertionError(f"Waited {limit} s in vain.")
        time.sleep(0.01)


@contextmanager
def beside(action: Callable[[], object]) -> Iterator[None]:
    """Run ``action`` in a thread while the block runs, and raise what it raised.

    The thread never keeps the process alive, not even if the block fails.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(LIMIT)
    if errors:
        raise errors[0]
    assert not thread.is_alive(), "The action beside the test does not end."


def end(processes: Iterable[subprocess.Popen[Any]]) -> None:
    """Kill ``processes`` and all that they have started."""
    for process in processes:
        try:
            children = psutil.Process(process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        process.kill()
        process.wait()
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
