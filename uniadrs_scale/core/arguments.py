"""Arguments of the public functions: whole numbers, numbers and flags, or an error that says so."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np

from uniadrs_scale.errors import PlanError


def whole(name: str, value: Any, least: int | None = None) -> int:
    """Return a whole number that a caller gave, also one of numpy's.

    Raises:
        PlanError: It is something else, or less than ``least``.
    """
    low = "" if least is None else f" from {least}"
    if isinstance(value, bool) or not isinstance(value, Integral) or (low and value < least):
        raise PlanError(f"{name}={value!r} is not allowed. Use whole numbers{low}.")
    return int(value)


def real(name: str, value: Any) -> float:
    """Return a number that a caller gave, also one of numpy's; PlanError for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise PlanError(f"{name}={value!r} is not allowed. Use a number.")
    return float(value)


def require_flag(name: str, value: Any) -> None:
    """Raise PlanError if a caller gave something else than a flag: 'no' counts as true."""
    if not isinstance(value, bool | np.bool_):
        raise PlanError(f"{name}={value!r} is not allowed. Use True or False.")
