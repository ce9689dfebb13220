"""Compiled functions, cached on disk wherever the process may write."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from numba import config, njit

from uniadrs_scale.core.home import has_home, private_folder

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = logging.getLogger("uniadrs_scale")
F = TypeVar("F", bound="Callable[..., Any]")


def compiled(**options: Any) -> Callable[[F], F]:
    """Return a decorator: numba's ``njit(nogil=True)``, with a cache on disk if there can be one.

    numba takes ``NUMBA_CACHE_DIR``, the folder of the module or that of the user, and raises if it
    can write to none of them, as in a container with a read-only root or a user without a home.
    Such a process gets a folder of its own among the temporary files; without that, no cache.
    """

    def decorate(function: F) -> F:
        settings: Any = config
        before, beside = settings.CACHE_DIR, Path(function.__code__.co_filename).parent
        try:
            # Without a home, numba would make a folder named "~" in the working directory.
            if not (before or os.access(beside, os.W_OK) or has_home()):
                settings.CACHE_DIR = _own_cache()
            return cast("F", njit(nogil=True, cache=True, **options)(function))
        except RuntimeError:  # no folder can be written
            settings.CACHE_DIR = _own_cache()
            return cast("F", njit(nogil=True, cache=bool(_own_cache()), **options)(function))
        finally:
            settings.CACHE_DIR = before

    return decorate


@cache
def _own_cache() -> str:
    """Return a folder for compiled functions, empty if there can be none."""
    if not private_folder():
        LOG.warning(
            "compiled functions are not cached: no folder can be written, and each process "
            "compiles them again. Set NUMBA_CACHE_DIR or TMPDIR to a folder that can be written."
        )
        return ""
    return f"{private_folder()}/numba"
