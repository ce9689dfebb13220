"""Compiled functions, cached on disk where the process may write, and the kind of CPU they are for.

Equal kinds give equal bits, other kinds may differ a little: scores are sums, and their order and
rounding follow the vector instructions. numba compiles for the CPU's model (fused multiply-add or
not); torch, oneDNN, MKL and OpenBLAS pick kernels by what the CPU can do. Their own variables of
the environment change these choices, so a kind names those too.
"""

from __future__ import annotations

import logging
import os
import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import llvmlite.binding as llvm
import numpy as np
from numba import config, njit

from uniadrs_scale.core.machine import has_home, private_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

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


@compiled()
def ordered_sums(values: NDArray[np.float64], power: int) -> NDArray[np.float64]:
    """Return the sums (row,) of (row, column) to the power of 1 or 2, one column after the other.

    Four rows at once, as each addition waits for the one before it.
    """
    last = values.shape[0] - 1
    sums = np.empty(last + 4)
    for row in range(0, last + 1, 4):
        one, two = values[row], values[min(row + 1, last)]
        three, four = values[min(row + 2, last)], values[min(row + 3, last)]
        a = b = c = d = 0.0
        for k in range(values.shape[1]):
            a += one[k] * (one[k] if power > 1 else 1.0)
            b += two[k] * (two[k] if power > 1 else 1.0)
            c += three[k] * (three[k] if power > 1 else 1.0)
            d += four[k] * (four[k] if power > 1 else 1.0)
        sums[row], sums[row + 1], sums[row + 2], sums[row + 3] = a, b, c, d
    return sums[: last + 1]


TOLERANCE, USUAL = 1e-5, 1e-6
"""Largest difference between the scores (0 to 1) of two kinds of CPU, and what most pixels keep to.

Measured: 4.8e-7, with other instructions of numba, MKL and oneDNN, for scenes of 4 bands, noise in
60 bands and three airports of 205 bands. Differences decide sums of almost equal numbers, so the
whitening computes in double precision."""
LEVELS = (
    "amx-fp16", "amx-bf16", "avx512fp16", "avx512bf16", "avx512vnni", "avx512bw", "avx2", "avx",
    "sse4.2", "sve2", "sve", "neon",
)  # fmt: skip
"""Vector instructions, in LLVM's words; the first one that a CPU has is its level."""
VARIABLES = (
    "ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES",
    "NUMBA_CPU_FEATURES", "NUMBA_CPU_NAME", "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
)  # fmt: skip
"""Settings that make a library compute as on another CPU."""


@cache
def cpu_kind() -> str:
    """Return the kind of CPU of this process."""
    try:
        features = [name for name, there in llvm.get_host_cpu_features().items() if there]
    except RuntimeError:  # LLVM cannot tell on every system
        features = []
    return describe(platform.machine(), llvm.get_host_cpu_name(), features, os.environ)


def describe(
    machine: str, model: str, features: Iterable[str], environment: Mapping[str, str]
) -> str:
    """Return one line that is equal for CPUs that compute equal bits.

    >>> describe("x86_64", "znver4", ["avx2", "sse4.2"], {"MKL_CBWR": "AVX2", "HOME": "/root"})
    'x86_64 znver4 avx2 MKL_CBWR=AVX2'
    """
    there = set(features)
    level = [name for name in LEVELS if name in there][:1]
    settings = [f"{name}={environment[name]}" for name in VARIABLES if environment.get(name)]
    return " ".join(filter(None, [machine, model, *level, *settings]))


def mixed(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return a note if the CPUs that computed a map are of several kinds."""
    found = sorted(set(kinds))
    if len(found) <= 1:
        return ()
    note = (
        f"{len(found)} kinds of CPU computed this map ({'; '.join(found)}). Its scores may differ "
        f"from those of another run by {USUAL:g}, with many bands by up to {TOLERANCE:g}. Use CPUs "
        "of one kind to get the same bits every time."
    )
    return (note,)
