"""Anomaly maps of whole satellite scenes, zero-shot, at any scale."""

import importlib
from typing import TYPE_CHECKING, Any

from uniadrs_scale.core import __version__
from uniadrs_scale.core.machine import quick_imports
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
    from uniadrs_scale.archive.config import ArchiveConfig, load_config
    from uniadrs_scale.archive.product import SweepReport
    from uniadrs_scale.archive.sweep import sweep
    from uniadrs_scale.core.contracts import FittedScorer, Scorer
    from uniadrs_scale.core.layers import Layer
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.detector.detector import Detector
    from uniadrs_scale.detector.own import scorer
    from uniadrs_scale.evaluation.judge import evaluate
    from uniadrs_scale.evaluation.maps import evaluate_map
    from uniadrs_scale.maps.cog import to_cog
    from uniadrs_scale.objects.find import targets
    from uniadrs_scale.pages.report import report
    from uniadrs_scale.scenes.crop import crop
    from uniadrs_scale.scenes.open import open_scene
    from uniadrs_scale.scoring.report import IncompleteWarning, SceneWarning
    from uniadrs_scale.scoring.score import plan, score

__all__ = [
    "ArchiveConfig",
    "ArchiveError",
    "BusyError",
    "ClusterError",
    "Detector",
    "FittedScorer",
    "IncompleteWarning",
    "Layer",
    "PlanError",
    "SceneError",
    "SceneWarning",
    "ScorePlan",
    "Scorer",
    "StoreError",
    "SweepReport",
    "UniadrsScaleError",
    "WeightsError",
    "__version__",
    "crop",
    "evaluate",
    "evaluate_map",
    "load_config",
    "open_scene",
    "plan",
    "report",
    "score",
    "scorer",
    "sweep",
    "targets",
    "to_cog",
]

# Loaded when first asked for: torch, Dask and GDAL take seconds, and --help needs none of them.
_LATER = {
    "ArchiveConfig": "archive.config",
    "Detector": "detector.detector",
    "FittedScorer": "core.contracts",
    "IncompleteWarning": "scoring.report",
    "Layer": "core.layers",
    "SceneWarning": "scoring.report",
    "ScorePlan": "core.plan",
    "Scorer": "core.contracts",
    "SweepReport": "archive.product",
    "crop": "scenes.crop",
    "evaluate": "evaluation.judge",
    "evaluate_map": "evaluation.maps",
    "load_config": "archive.config",
    "open_scene": "scenes.open",
    "plan": "scoring.score",
    "report": "pages.report",
    "score": "scoring.score",
    "scorer": "detector.own",
    "sweep": "archive.sweep",
    "targets": "objects.find",
    "to_cog": "maps.cog",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        with quick_imports():
            return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
