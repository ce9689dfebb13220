"""Anomaly maps of whole satellite scenes, zero-shot, at any scale."""

__version__ = "0.1.0"

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from uniadrs_scale.errors import (
    ArchiveError,
    BusyError,
    ClusterError,
    PlanError,
    SceneError,
    StoreError,
    UniadrsScaleError,
    WeightsError,
)

if TYPE_CHECKING:
    from uniadrs_scale.archive import ArchiveConfig, SweepReport, load_config, sweep
    from uniadrs_scale.detector import Detector
    from uniadrs_scale.graph import evaluate_map
    from uniadrs_scale.io.cog import to_cog
    from uniadrs_scale.io.scenes import open_scene
    from uniadrs_scale.plan import ScorePlan
    from uniadrs_scale.report import IncompleteWarning, SceneWarning
    from uniadrs_scale.score import plan, score

__all__ = [
    "ArchiveConfig",
    "ArchiveError",
    "BusyError",
    "ClusterError",
    "Detector",
    "IncompleteWarning",
    "PlanError",
    "SceneError",
    "SceneWarning",
    "ScorePlan",
    "StoreError",
    "SweepReport",
    "UniadrsScaleError",
    "WeightsError",
    "evaluate_map",
    "load_config",
    "open_scene",
    "plan",
    "score",
    "sweep",
    "to_cog",
]

# Imported when first asked for: torch, Dask and GDAL take seconds, and who reads a ledger, or asks
# for --help, needs none of them.
_LATER = {
    "ArchiveConfig": "archive",
    "Detector": "detector",
    "IncompleteWarning": "report",
    "SceneWarning": "report",
    "ScorePlan": "plan",
    "SweepReport": "archive",
    "evaluate_map": "graph",
    "load_config": "archive",
    "open_scene": "io.scenes",
    "plan": "score",
    "score": "score",
    "sweep": "archive",
    "to_cog": "io.cog",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package, where `plan` and `score` are the functions whatever was imported before.

    Both are names of modules too, and the import system binds a module to its package under its
    name: without this, `uniadrs_scale.plan` would be a function or a module, by order of imports.
    """

    @property
    def plan(self) -> Any:
        """The function."""
        return __getattr__("plan")

    @plan.setter
    def plan(self, module: ModuleType) -> None:
        """Not bound: it is found in `sys.modules`."""

    @property
    def score(self) -> Any:
        """The function."""
        return __getattr__("score")

    @score.setter
    def score(self, module: ModuleType) -> None:
        """Not bound: it is found in `sys.modules`."""


sys.modules[__name__].__class__ = _Package
