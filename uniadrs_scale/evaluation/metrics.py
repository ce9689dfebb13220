"""Figures of merit of an anomaly map in memory: ROC curve, precision, Chang's nine, objects.

Source of the nine: Chang, "An Effective Evaluation Tool for Hyperspectral Target Detection: 3D
Receiver Operating Characteristic Curve Analysis", IEEE TGRS 59 (2021). They are exact, without
sampled thresholds: the area under the curve of D against tau is the mean score of the anomalies.

Maps that do not fit in memory: :mod:`.histogram`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from scipy import ndimage

from uniadrs_scale.errors import SceneError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAR = 2
"""An alarm at most this far from an object, diagonals included, belongs to it [px]."""
EIGHT = np.ones((3, 3), bool)
"""Pixels that touch at a corner are one object."""
REACH = np.ones((2 * NEAR + 1, 2 * NEAR + 1), bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Areas under curves of detection D, false alarms F and threshold tau; scores in 0..1."""

    auc_df: float
    """Area under the ROC curve, 0..1: how often an anomaly scores above a background pixel."""
    auc_dt: float
    """Mean score of the anomalies, 0..1; higher is better."""
    auc_ft: float
    """Mean score of the background, 0..1; lower is better."""

    @property
    def family(self) -> dict[str, float]:
        """All nine figures by their names in the literature; high is best, except of AUC(F,tau).

        TD: target detectability. BS: background suppressibility. TDBS: both. ODP: overall
        detection probability. OA: overall accuracy. SNPR: signal to noise probability ratio.
        """
        df, dt, ft = self.auc_df, self.auc_dt, self.auc_ft
        return {
            "AUC(D,F)": df,
            "AUC(D,tau)": dt,
            "AUC(F,tau)": ft,
            "AUC_TD": df + dt,
            "AUC_BS": df - ft,
            "AUC_TDBS": dt - ft,
            "AUC_ODP": dt + (1 - ft),
            "AUC_OA": df + dt - ft,
            "AUC_SNPR": dt / ft if ft else float("inf"),
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RocCurve:
    """Pixels found by every threshold; a pixel is found if its score is at least the threshold.

    One point per distinct score: pixels of equal score are found together.
    """

    thresholds: NDArray[np.floating]
    """(n,) distinct scores, falling."""
    detected: NDArray[np.int64]
    """(n,) anomalous pixels found; the last value is their number."""
    alarms: NDArray[np.int64]
    """(n,) background pixels found; the last value is their number."""

    def __post_init__(self) -> None:
        positives = int(self.detected[-1]) if self.detected.size else 0
        negatives = int(self.alarms[-1]) if self.alarms.size else 0
        if not (positives and negatives):
            raise SceneError(
                f"{positives} of {positives + negatives} scored pixels are anomalies: an ROC curve "
                "needs both classes. Check the labels and the counted area."
            )

    @classmethod
    def of(cls, scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> RocCurve:
        """Return the curve of a map against its labels; arguments and errors as :func:`figures`."""
        values, anomaly = scored_pixels(scores, truth)
        order = np.argsort(values)[::-1]
        values, anomaly = values[order], anomaly[order]
        change = np.flatnonzero(values[1:] != values[:-1])
        last = np.concatenate([change, np.arange(values.size)[-1:]])
        detected = np.cumsum(anomaly, dtype=np.int64)[last]
        return cls(thresholds=values[last], detected=detected, alarms=last + 1 - detected)

    @property
    def detection_rate(self) -> NDArray[np.float64]:
        """(n,) Pd, the share of anomalous pixels found, 0..1."""
        return np.asarray(self.detected / self.detected[-1], np.float64)

    @property
    def alarm_rate(self) -> NDArray[np.float64]:
        """(n,) Pf, the share of background pixels found, 0..1."""
        return np.asarray(self.alarms / self.alarms[-1], np.float64)

    @property
    def area(self) -> float:
        """AUC(D,F): how often an anomaly outscores a background pixel, ties one half."""
        # float64: the product of the counts of a large map does not fit int64.
        before = np.concatenate([[0.0], self.detection_rate])
        steps = np.diff(self.alarms, prepend=0).astype(np.float64)
        return float((steps * (before[1:] + before[:-1])).sum() / (2 * self.alarms[-1]))

    @property
    def average_precision(self) -> float:
        """Mean precision over the anomalies, each at its own score: sum of (R_i - R_i-1) P_i."""
        steps = np.diff(self.detected, prepend=0) / self.detected[-1]
        return float((steps * (self.detected / (self.detected + self.alarms))).sum())

    def at(self, detection: float) -> int:
        """Return the index of the highest threshold that finds this share of anomalous pixels.

        Raises:
            SceneError: The share is not within 0..1.
        """
        if not 0 <= detection <= 1:
            raise SceneError(f"detection={detection} is not a share. Use a number in 0..1.")
        # Compared as rates, so that .95 of 20 pixels is 19 of them.
        return int(np.searchsorted(self.detection_rate, detection))

    def alarm_rate_at(self, detection: float) -> float:
        """Return the share of background pixels found if this share of anomalous pixels is."""
        return float(self.alarm_rate[self.at(detection)])

    def thinned(self, points: int = 400) -> RocCurve:
        """Return a curve of about as many points, spread over both axes and the logarithm of F.

        Points are dropped, not moved; the first and the last stay.
        """
        last = self.thresholds.size - 1
        each = points // 3
        decades = np.geomspace(1 / self.alarms[-1], 1, each)
        wanted = [
            np.searchsorted(self.alarm_rate, decades),
            np.searchsorted(self.alarm_rate, np.linspace(0, 1, each)),
            np.searchsorted(self.detection_rate, np.linspace(0, 1, each)),
            np.array([0, last]),
        ]
        kept = np.unique(np.clip(np.concatenate(wanted), 0, last))
        return RocCurve(
            thresholds=self.thresholds[kept], detected=self.detected[kept], alarms=self.alarms[kept]
        )


def scored_pixels(
    scores: NDArray[np.floating], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Return scores and labels (n,) of the pixels that have a score.

    Raises:
        SceneError: The shapes differ.
    """
    if scores.shape != truth.shape:
        raise SceneError(
            f"Scores of shape {scores.shape} and labels of shape {truth.shape} differ in size. "
            "Give both on the same grid."
        )
    scored = np.isfinite(scores)
    return scores[scored], np.asarray(truth, bool)[scored]


def figures(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> Figures:
    """Return the figures of a map against its labels.

    Args:
        scores: Any shape, any scale; pixels with NaN are dropped.
        truth: Same shape, True = anomaly.

    Raises:
        SceneError: The shapes differ, or one of the two classes has no scored pixel.
    """
    area = RocCurve.of(scores, truth).area
    values, anomaly = scored_pixels(scores, truth)
    low, high = values.min(), values.max()
    # In the dtype of the scores, as published; means in float64.
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return Figures(
        auc_df=area,
        auc_dt=float(scaled[anomaly].mean(dtype=np.float64)),
        auc_ft=float(scaled[~anomaly].mean(dtype=np.float64)),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObjectScene:
    """A map judged by objects: how many are found, and how many alarms are false.

    The exact rules. An *object* is a component (8 neighbours) of the labels in the counted area.
    Its *peak* is the highest score within 2 px of it (a square of 5 px around each of its pixels).
    An *alarm* is a component (8 neighbours) of counted pixels whose score is at least the
    threshold; it is *false* if all its pixels are more than 2 px from any labelled pixel, counted
    or not. An object is found if its peak is at least the threshold. A lower threshold can mean
    fewer false alarms, as they grow together.
    """

    scores: NDArray[np.floating]
    """(y, x), -inf outside the counted area."""
    near: NDArray[np.bool_]
    """(y, x), True within 2 px of a labelled pixel."""
    peaks: NDArray[np.floating]
    """(object,) peaks, falling; -inf for an object without a counted score near it."""
    area: int
    """Counted pixels."""

    @classmethod
    def of(
        cls,
        scores: NDArray[np.floating],
        truth: NDArray[np.bool_],
        counted: NDArray[np.bool_] | None = None,
    ) -> ObjectScene:
        """Find the objects of a map.

        Args:
            scores: (y, x), any scale, NaN = no score.
            truth: (y, x), True = anomaly.
            counted: (y, x), True in the area with complete labels; None: everywhere.

        Raises:
            SceneError: The shapes differ, or no object or no pixel counts.
        """
        where = np.ones(truth.shape, bool) if counted is None else counted
        if not scores.shape == truth.shape == where.shape:
            raise SceneError(
                f"Scores {scores.shape}, labels {truth.shape} and counted area {where.shape} "
                "differ in size. Give all on the same grid."
            )
        judged = where & np.isfinite(scores)
        labels, number = cast("tuple[NDArray[np.int32], int]", ndimage.label(truth & where, EIGHT))
        if not (number and judged.any()):
            raise SceneError(
                f"{number} objects on {int(judged.sum())} scored pixels of the counted area: "
                "alarms need both. Check the labels and the counted area."
            )
        seen = np.where(judged, scores, -np.inf)
        highest = ndimage.maximum_filter(seen, size=REACH.shape, mode="constant", cval=-np.inf)
        peaks = np.asarray(ndimage.maximum(highest, labels, np.arange(1, number + 1)))
        return cls(
            scores=seen,
            near=ndimage.binary_dilation(truth, REACH),
            peaks=np.sort(peaks)[::-1],
            area=int(judged.sum()),
        )

    def threshold_at(self, detection: float) -> float:
        """Return the highest threshold that finds this share of the objects; may be -inf.

        Args:
            detection: Share of the objects, in 0 < detection <= 1.

        Raises:
            SceneError: The share is not in that range.
        """
        if not 0 < detection <= 1:
            raise SceneError(
                f"detection={detection} is not a share of objects. Use 0 < detection <= 1."
            )
        # .8 * 5 objects must be 4, for any last bit of the product.
        needed = math.ceil(round(detection * self.peaks.size, 9))
        return float(self.peaks[needed - 1])

    def false_alarms(self, threshold: float) -> int:
        """Return the number of false alarms at this threshold."""
        found = np.isfinite(self.scores) & (self.scores >= threshold)
        labels, number = cast("tuple[NDArray[np.int32], int]", ndimage.label(found, EIGHT))
        excused = np.unique(labels[self.near & found])
        return number - excused.size

    def false_alarms_per_megapixel(self, detection: float) -> float:
        """Return the false alarms per million counted pixels if this share of objects is found."""
        return self.false_alarms(self.threshold_at(detection)) * (1e6 / self.area)
