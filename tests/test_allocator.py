"""A process keeps the memory of one tile for the next, whatever Dask has told the C library."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

COUNT = """
import resource
import numpy as np
from uniadrs_scale.core.memory import keep_freed_memory
from uniadrs_scale.runtime.executor import LocalExecutor
from uniadrs_scale.runtime.worker import Shared
import pickle

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.ones(2**20, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
{then}
faults()
print(first, faults())
"""


def _faults(then: str) -> tuple[int, int]:
    """Page faults of 50 arrays of 4 MiB in a process like Dask's, before and after ``then``."""
    code = COUNT.format(then=then)
    # As Dask starts its workers; huge pages would hide what is counted.
    env = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536", "NUMPY_MADVISE_HUGEPAGE": "0"}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True
    )
    first, second = map(int, answer.stdout.split())
    return first, second


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
@pytest.mark.parametrize(
    "then",
    [
        "assert keep_freed_memory()",
        "assert pickle.loads(pickle.dumps(Shared(1))).open() == 1",
        "LocalExecutor('threads')",
    ],
    ids=["called", "by the first task of a worker", "in this process"],
)
def test_memory_is_reused(then: str) -> None:
    first, second = _faults(then)
    assert second < first / 10
