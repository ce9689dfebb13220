"""The progress of a run: a bar in a terminal, lines in a notebook or a file, or a function."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Progress = bool | Callable[[int, int], object]

LINES = 10
"""Lines of a whole run."""


@contextmanager
def shown(progress: Progress, chunks: int | None) -> Iterator[Callable[[object], None]]:
    """Show the chunks of a run; yield the function to call after each.

    Args:
        progress: True for a bar or lines on standard error; a function of (done, all) chunks.
        chunks: All chunks; None if not known yet.
    """
    if callable(progress):
        yield _counting(progress, chunks or 0)
    elif not progress:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar(chunks) as advance:
            yield advance
    else:
        yield _counting(_Lines(), chunks or 0)


def _counting(tell: Callable[[int, int], object], chunks: int) -> Callable[[object], None]:
    """Return a function that counts chunks for ``tell``."""
    done = 0

    def advance(_: object) -> None:
        nonlocal done
        done += 1
        tell(done, chunks)

    return advance


class _Lines:
    """About ten lines in all, each with the time that is left."""

    def __init__(self) -> None:
        self.started, self.told = time.monotonic(), 0

    def __call__(self, done: int, chunks: int) -> None:
        part = done * LINES // max(chunks, done)
        if part == self.told and done != chunks:
            return
        self.told = part
        took = time.monotonic() - self.started
        left = took / done * (chunks - done)
        text = f"scoring {done}/{chunks} chunks, {took:.0f} s, about {left:.0f} s left"
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


@contextmanager
def _bar(chunks: int | None) -> Iterator[Callable[[object], None]]:
    """Show a bar of chunks with the remaining time, on standard error."""
    # Here, since rich takes a tenth of a second.
    from rich import console  # noqa: PLC0415
    from rich import progress as bars  # noqa: PLC0415

    columns: tuple[Any, ...] = (
        bars.TextColumn("scoring"),
        bars.BarColumn(),
        bars.TextColumn("{task.completed}/{task.total} chunks"),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
    )
    screen = console.Console(stderr=True)
    with bars.Progress(*columns, console=screen, transient=True) as live:
        task = live.add_task("scoring", total=chunks)
        yield lambda _: live.advance(task)
