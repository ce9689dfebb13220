"""Folders among the temporary files, removed however the process ends, except by SIGKILL."""

from __future__ import annotations

import signal
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield an empty folder, which may hold a whole map, and remove it.

    SIGTERM ends the block like an error, unless the program has its own handler for it.
    """
    mine = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if mine:
        signal.signal(signal.SIGTERM, _end)
    try:
        with tempfile.TemporaryDirectory(prefix="uniadrs-scale-") as folder:
            yield Path(folder)
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: Any) -> None:
    """End the process by an exception; a second signal ends it at once."""
    del frame
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)
