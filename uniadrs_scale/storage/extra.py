"""Libraries of the extra ``targets``, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from uniadrs_scale.errors import PlanError


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
