"""The number of CPUs that this process may use, as Dask counts them."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
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
    with suppress(OSError, ValueError):
        own = OWN_CGROUP.read_text().strip().rpartition(":")[2].strip("/")
        quota, period = map(int, (CGROUPS / own / "cpu.max").read_text().split())
        return quota / period
    return None
