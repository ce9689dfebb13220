"""Warnings of other libraries that users need not see, ignored in any number of threads.

``warnings.catch_warnings`` puts the filters of the whole process back as they were. Of two threads
in it at a time, the second puts back what the first has left, and a warning comes through.
"""

from __future__ import annotations

import re
import threading
import warnings
from contextlib import suppress
from typing import Any


class Quiet:
    """A context in which warnings of one category are ignored.

    Args:
        category: Class of the warnings.
        message: Start of their text.
    """

    def __init__(self, category: type[Warning], message: str) -> None:
        # The comment makes the filter differ from any filter that the user has set.
        self._pattern = f"(?#uniadrs_scale){re.escape(message)}"
        self._category = category
        self._inside = 0
        self._lock = threading.Lock()
        self._filter: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._filter not in warnings.filters:
                warnings.filterwarnings("ignore", self._pattern, self._category)
                self._filter = warnings.filters[0]

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                # Another thread may have put back a list of filters without it.
                with suppress(ValueError):
                    warnings.filters.remove(self._filter)  # type: ignore[attr-defined] # a list
