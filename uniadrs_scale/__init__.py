"""Anomaly maps of whole satellite scenes, zero-shot, at any scale."""

__version__ = "0.1.0"

from typing import TYPE_CHECKING, Any

from uniadrs_scale.detector import Detector
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
from uniadrs_scale.graph import evaluate_map
from uniadrs_scale.io.cog import to_cog
from uniadrs_scale.io.scenes import open_scene
from uniadrs_scale.plan import ScorePlan
from uniadrs_scale.report import IncompleteWarning
from uniadrs_scale.score import plan, score

if TYPE_CHECKING:
    from uniadrs_scale.archive import ArchiveConfig, SweepReport, load_config, sweep

__all__ = [
    "ArchiveConfig",
    "ArchiveError",
    "BusyError",
    "ClusterError",
    "Detector",
    "IncompleteWarning",
    "PlanError",
    "SceneError",
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


def __getattr__(name: str) -> Any:
    # Only who sweeps needs the libraries of archives: they would cost every worker process 43 MiB.
    if name in ("ArchiveConfig", "SweepReport", "load_config", "sweep"):
        from uniadrs_scale import archive  # noqa: PLC0415

        return getattr(archive, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
