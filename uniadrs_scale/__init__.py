"""Anomaly maps of whole satellite scenes, zero-shot, at any scale."""

__version__ = "0.1.0"

from uniadrs_scale.detector import Detector
from uniadrs_scale.errors import (
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

__all__ = [
    "ClusterError",
    "Detector",
    "IncompleteWarning",
    "PlanError",
    "SceneError",
    "ScorePlan",
    "StoreError",
    "UniadrsScaleError",
    "WeightsError",
    "evaluate_map",
    "open_scene",
    "plan",
    "score",
    "to_cog",
]
