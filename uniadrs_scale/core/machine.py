"""The machine and this process: CPUs, memory, a home folder, imports, signals, threads of BLAS."""

from __future__ import annotations

import gc
import importlib
import math
import os
import signal
import stat
import tempfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from threadpoolctl import ThreadpoolController

from uniadrs_scale.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCAL = ("sync", "threads")
"""Schedulers of this process."""
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
MEMORY_FILES = "memory/memory.limit_in_bytes", "memory/memory.soft_limit_in_bytes", "memory.low"
MOST_MEMORY = "memory.max", "memory.high"
"""Files in the folder of each group that a process is in."""
QUOTA_V1 = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
"""Files in which version 1 of cgroups has microseconds of all CPUs per period."""


def usable_cores() -> int:
    """Return the CPUs of the affinity (``taskset``), at most those of the cgroup's quota.

    A container or pod with two CPUs of a machine with 64 has a quota of two. Parts count as one.
    """
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    quota = _quota()
    return cores if quota is None else min(cores, max(math.ceil(quota), 1))


def _quota() -> float | None:
    """Return the CPUs of this process's cgroup, None without a quota."""
    for name in ("cpuacct,cpu", "cpu,cpuacct", "cpu"):
        with suppress(OSError, ValueError):
            quota, period = (int((CGROUPS / name / file).read_text()) for file in QUOTA_V1)
            return quota / period if quota > 0 else None
    found = []
    for group in _own_groups():
        with suppress(OSError, ValueError):
            quota, period = map(int, (group / "cpu.max").read_text().split())
            found.append(quota / period)
    return min(found, default=None)


def _own_groups() -> list[Path]:
    """Return the folders of this process's cgroup (version 2) and of all that it is in.

    The limit of a batch job or a service is not that of its processes' own group.
    """
    own = PurePosixPath("/")
    with suppress(OSError):
        own = PurePosixPath(OWN_CGROUP.read_text().strip().rpartition(":")[2])
    return [CGROUPS / str(path).lstrip("/") for path in (own, *own.parents)]


def machine_memory() -> int:
    """Return the bytes of this machine, at most those of its cgroups and of the process's limit.

    As ``distributed.system.memory_limit``, whose import takes half a second, and which looks at the
    uppermost group only.
    """
    limits = [int(Later("psutil").virtual_memory().total)]
    files = [CGROUPS / name for name in MEMORY_FILES]
    for file in files + [group / name for group in _own_groups() for name in MOST_MEMORY]:
        with suppress(OSError, ValueError):
            limits.append(int(file.read_text()))
    with suppress(ImportError, AttributeError):  # Windows
        resource = Later("resource")
        limits.append(resource.getrlimit(resource.RLIMIT_RSS)[1])
    return min(limit for limit in limits if limit > 0)


def has_home() -> bool:
    """Return True if this process has a home folder, which need not exist."""
    try:
        return bool(Path.home())
    except RuntimeError:
        return False


def give_home() -> None:
    """Give a process without a home its private folder: bokeh and matplotlib need one."""
    if not has_home() and (folder := private_folder()):
        os.environ["HOME"] = folder


@cache
def private_folder() -> str:
    """Return a folder among the temporary files that only this user can write; empty if none.

    Not the folder of temporary files itself: settings and compiled code are read from it, and
    other users could put theirs there.
    """
    try:
        folder = Path(tempfile.gettempdir(), f"uniadrs-scale-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            return ""
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, AttributeError):
        return ""
    return str(folder)


class Later:
    """A module that is imported when it is first used: many runs need it not at all."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import without garbage collections, which take a seventh of the time and find nothing."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def vectors(what: str) -> Any:
    """Return pyogrio, which reads and writes vector files.

    Raises:
        PlanError: It is not installed; ``what`` needs it.
    """
    found = library("pyogrio", what)
    importlib.import_module("pyogrio.raw")
    return found


def library(name: str, what: str) -> Any:
    """Return the module ``name``.

    Raises:
        PlanError: It is not installed; ``what`` needs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise PlanError(
            f"{what} need {name}. Install it: pip install 'uniadrs-scale[targets]'."
        ) from None


@dataclass(slots=True)
class Stop:
    """A request to end, set by a signal."""

    event: threading.Event = field(default_factory=threading.Event)
    signal: int = 0


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Let SIGTERM and SIGINT end the work inside cleanly; the second one ends the process at once.

    A signal to an inner block also ends the outer one: a sweep may have done its last scene and
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


class _OneBlasThread:
    """A context in which numpy's products of matrices use one thread, as they do in workers.

    The number of threads decides bits, and threads of BLAS get in the way of those of Dask. The
    setting belongs to the process: the first thread that enters makes it, the last one that leaves
    ends it.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._controller: ThreadpoolController | None = None
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                # Kept, since it takes milliseconds to find the libraries.
                self._controller = self._controller or ThreadpoolController()
                self._limit = self._controller.limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limit.restore_original_limits()


ONE_BLAS_THREAD = _OneBlasThread()
