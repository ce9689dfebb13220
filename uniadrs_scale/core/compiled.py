"""Compiled functions, cached on disk wherever the process may write."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from numba import config, njit

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
        homeless = not (settings.CACHE_DIR or Path("~").expanduser().is_absolute())
        before = settings.CACHE_DIR
        try:
            if homeless and not os.access(Path(function.__code__.co_filename).parent, os.W_OK):
                settings.CACHE_DIR = _own_folder()
            return cast("F", njit(nogil=True, cache=True, **options)(function))
        except RuntimeError:  # no folder can be written
            settings.CACHE_DIR = _own_folder()
            return cast("F", njit(nogil=True, cache=bool(settings.CACHE_DIR), **options)(function))
        finally:
            settings.CACHE_DIR = before

    return decorate


@cache
def _own_folder() -> str:
    """Return a folder that only this user can write to, since caches hold code; empty if none."""
    try:
        folder = Path(tempfile.gettempdir(), f"uniadrs-scale-numba-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise PermissionError(f"'{folder}' is not of this user alone")
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, AttributeError) as error:
        LOG.warning(
            "compiled functions are not cached (%s): each process compiles them for some seconds. "
            "Set NUMBA_CACHE_DIR to a folder that can be written.",
            error,
        )
        return ""
    return str(folder)
