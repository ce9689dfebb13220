"""Figures of a map of any size, from counts that add up: one histogram per chunk, merged.

The *key* of a score is an integer that grows with it: the bit pattern of its float32 up to one
half, mirrored above. So keys are dense near 0, where most of a network's scores are, and near 1,
where its anomalies are. If there are few distinct scores, each has its own bin and every figure is
exact. If there are more, neighbouring bins are merged in pairs (the last bit of all keys is
dropped) until they fit.

Precision. Only pairs of an anomaly and a background pixel in the same bin can be misjudged, each by
one half. So ``|area - exact| <= area_error``, half the share of such pairs, which is known after
counting. With 2^18 bins every score is known to 2^-10 of it (or of its distance to 1) for any
distribution, and to 2^-13 if the scores are within 2^-22..1, which leaves an ``area_error`` of a
few 1e-5. The bound counts equal scores of a shared bin as misjudged too, so it is wide if many
scores are exactly 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.core.contracts import Printed
from uniadrs_scale.errors import SceneError
from uniadrs_scale.evaluation.metrics import Figures, RocCurve, scored_pixels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

CAPACITY = 2**18
"""Most bins, of 20 bytes each."""
HALF = int(np.float32(0.5).view(np.uint32))
"""Key of one half."""
UNIT = 2.0**-32
"""Unit of sums of scores. They are integers, so exact in any order of adding."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ScoreHistogram(Printed):
    """Counts of anomalous and of background pixels by score.

    A map has one value for every division into parts and every order of merging: ``shift`` is the
    smallest that fits the union, and counts and sums are integers.
    """

    keys: NDArray[np.uint32]
    """(bin,) rising, occupied bins only: keys without their last ``shift`` bits."""
    anomalies: NDArray[np.int64]
    """(bin,) anomalous pixels."""
    background: NDArray[np.int64]
    """(bin,) background pixels."""
    shift: int
    """Bits dropped; 0 if every distinct score has its own bin."""
    capacity: int
    """Most bins."""
    low: float
    """Lowest score, inf without scores."""
    high: float
    """Highest score, -inf without scores."""
    anomaly_sum: int
    """Sum of the anomalies' scores, in units of 2^-32."""
    background_sum: int
    """Sum of the background's scores, in units of 2^-32."""

    @classmethod
    def of(
        cls, scores: NDArray[np.floating], truth: NDArray[np.bool_], *, capacity: int = CAPACITY
    ) -> ScoreHistogram:
        """Count one part of a map.

        Args:
            scores: Any shape, in 0..1, used as float32; NaN = no score.
            truth: Same shape, True = anomaly.
            capacity: Most bins.

        Raises:
            SceneError: The shapes differ, or a score is not within 0..1.
        """
        pixels, anomaly = scored_pixels(scores, truth)
        values = pixels.astype(np.float32) + np.float32(0)  # no negative zero
        if values.size and not (values.min() >= 0 and values.max() <= 1):
            raise SceneError(
                f"Scores of {values.min()}..{values.max()} cannot be counted: they must be in "
                "0..1. Scale the map first, by its own lowest and highest value."
            )
        units = np.rint(values.astype(np.float64) / UNIT).astype(np.int64)
        keys, place = np.unique(_keys(values), return_inverse=True)
        anomalies = np.bincount(place[anomaly], minlength=keys.size)
        counted = cls(
            keys=keys,
            anomalies=anomalies,
            background=np.bincount(place, minlength=keys.size) - anomalies,
            shift=0,
            capacity=capacity,
            low=float(np.min(values, initial=np.inf)),
            high=float(np.max(values, initial=-np.inf)),
            anomaly_sum=int(units[anomaly].sum()),
            background_sum=int(units[~anomaly].sum()),
        )
        return _fitted(counted)

    @classmethod
    def combine(
        cls, parts: Iterable[ScoreHistogram], *, capacity: int = CAPACITY
    ) -> ScoreHistogram:
        """Merge the histograms of disjoint parts, in any order."""
        nothing = np.zeros(0)
        return reduce(cls.merge, parts, cls.of(nothing, nothing > 0, capacity=capacity))

    def merge(self, other: ScoreHistogram) -> ScoreHistogram:
        """Merge the histograms of two disjoint parts.

        Raises:
            SceneError: Their capacities differ.
        """
        if self.capacity != other.capacity:
            raise SceneError(
                f"Histograms of at most {self.capacity} and {other.capacity} bins cannot be "
                "merged. Make all parts with the same capacity."
            )
        shift = max(self.shift, other.shift)
        keys = np.concatenate(
            [h.keys >> np.uint32(shift - h.shift) for h in (self, other)], dtype=np.uint32
        )
        order = np.argsort(keys, kind="stable")
        both = ScoreHistogram(
            keys=keys[order],
            anomalies=np.concatenate([self.anomalies, other.anomalies])[order],
            background=np.concatenate([self.background, other.background])[order],
            shift=shift,
            capacity=self.capacity,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            anomaly_sum=self.anomaly_sum + other.anomaly_sum,
            background_sum=self.background_sum + other.background_sum,
        )
        return _fitted(both)

    def curve(self) -> RocCurve:
        """Return the ROC curve with one point per bin; thresholds are the lowest scores of bins.

        Raises:
            SceneError: One of the two classes has no pixel.
        """
        return RocCurve(
            thresholds=_scores(self.keys[::-1] << np.uint32(self.shift)),
            detected=np.cumsum(self.anomalies[::-1]),
            alarms=np.cumsum(self.background[::-1]),
        )

    @property
    def area_error(self) -> float:
        """Largest error of AUC(D,F), 0..0.5; 0 if every distinct score has its own bin."""
        if not self.shift:
            return 0.0
        share = self.anomalies / self.anomalies.sum() * (self.background / self.background.sum())
        return float(share.sum() / 2)

    def figures(self) -> Figures:
        """Return the figures of the map, scaled as :func:`.metrics.figures` scales them.

        Raises:
            SceneError: One of the two classes has no pixel.
        """
        area = self.curve().area
        span = self.high - self.low
        means = (
            self.anomaly_sum * UNIT / int(self.anomalies.sum()),
            self.background_sum * UNIT / int(self.background.sum()),
        )
        detection, alarm = ((m - self.low) / span if span > 0 else 0.0 for m in means)
        return Figures(auc_df=area, auc_dt=detection, auc_ft=alarm)

    def text(self) -> str:
        """Return the numbers of pixels and the figures, one line per fact."""
        anomalies, background = int(self.anomalies.sum()), int(self.background.sum())
        lines = [f"pixels     {anomalies} anomalous, {background} background"]
        if anomalies and background:
            curve = self.curve()
            lines += [
                f"AUC        {curve.area:.4f} (pixels)",
                f"AP         {curve.average_precision:.3f} (pixels)",
            ]
        return "\n".join(lines)


def _fitted(both: ScoreHistogram) -> ScoreHistogram:
    """Join equal keys, and drop bits until at most ``capacity`` bins are occupied."""
    if not both.keys.size:
        return both
    keys, shift = both.keys, both.shift
    while True:
        first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        if first.size <= both.capacity:
            break
        keys, shift = keys >> np.uint32(1), shift + 1
    return replace(
        both,
        keys=keys[first],
        anomalies=np.add.reduceat(both.anomalies, first),
        background=np.add.reduceat(both.background, first),
        shift=shift,
    )


def _keys(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return uint32 keys that grow with the score, different for different scores."""
    below = scores.view(np.uint32)
    # Exact: 1 - score of a float32 in 0.5..1 is a float32 (Sterbenz).
    above = np.uint32(2 * HALF) - (np.float32(1) - scores).view(np.uint32)
    return np.where(scores <= np.float32(0.5), below, above)


def _scores(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Invert :func:`_keys`."""
    above = np.float32(1) - (np.uint32(2 * HALF) - np.maximum(keys, HALF)).view(np.float32)
    return np.where(keys <= HALF, keys.view(np.float32), above)
