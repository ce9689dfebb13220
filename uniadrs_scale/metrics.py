"""Figures of merit of an anomaly map: Chang's nine, from the three-dimensional ROC analysis.

Source: Chang, "An Effective Evaluation Tool for Hyperspectral Target Detection: 3D Receiver
Operating Characteristic Curve Analysis", IEEE TGRS 59 (2021). Exact, without sampling thresholds:
the area under the curve of D against tau is the mean score of the anomalies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.errors import SceneError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Detection D, false alarms F and threshold tau, after scaling scores to 0..1."""

    auc_df: float
    """Area under the ROC curve, 0..1: an anomaly scores above background this often."""
    auc_dt: float
    """Mean score of the anomalies, 0..1; higher is better."""
    auc_ft: float
    """Mean score of the background, 0..1; lower is better."""

    @property
    def auc_td(self) -> float:
        """Target detectability: D,F + D,tau."""
        return self.auc_df + self.auc_dt

    @property
    def auc_bs(self) -> float:
        """Background suppressibility: D,F - F,tau."""
        return self.auc_df - self.auc_ft

    @property
    def auc_tdbs(self) -> float:
        """Detectability in suppressed background: D,tau - F,tau."""
        return self.auc_dt - self.auc_ft

    @property
    def auc_odp(self) -> float:
        """Overall detection probability: D,tau + (1 - F,tau)."""
        return self.auc_dt + (1 - self.auc_ft)

    @property
    def auc_oa(self) -> float:
        """Overall accuracy: D,F + D,tau - F,tau."""
        return self.auc_df + self.auc_dt - self.auc_ft

    @property
    def auc_snpr(self) -> float:
        """Signal to noise probability ratio: D,tau / F,tau."""
        return self.auc_dt / self.auc_ft if self.auc_ft else float("inf")


def figures(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> Figures:
    """The figures of a map against its labels.

    Args:
        scores: Any shape, any scale; NaN where there is no score, and left out.
        truth: Same shape, True = anomaly.

    Raises:
        SceneError: If the shapes differ, or one of the two classes has no scored pixel.
    """
    if scores.shape != truth.shape:
        raise SceneError(
            f"Scores of shape {scores.shape} and labels of shape {truth.shape} do not belong "
            "together. Give both on the same grid."
        )
    scored = np.isfinite(scores)
    values, anomaly = scores[scored], truth[scored]
    if anomaly.all() or not anomaly.any():
        raise SceneError(
            f"{int(anomaly.sum())} of {anomaly.size} scored pixels are anomalies: an ROC curve "
            "needs both classes. Check the labels and where they count."
        )
    low, high = values.min(), values.max()
    # In the dtype of the scores, as published; means and ranks in float64.
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return Figures(
        auc_df=_area(values, anomaly),
        auc_dt=float(scaled[anomaly].mean(dtype=np.float64)),
        auc_ft=float(scaled[~anomaly].mean(dtype=np.float64)),
    )


def _area(values: NDArray[np.floating], anomaly: NDArray[np.bool_]) -> float:
    """Probability that an anomaly outscores background, ties one half (Mann and Whitney 1947)."""
    _, place, ties = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(ties) - (ties - 1) / 2)[place]
    positives, negatives = int(anomaly.sum()), int((~anomaly).sum())
    above = rank[anomaly].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))
