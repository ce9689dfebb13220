"""Figures of whole objects: how many are found, and how many alarms nobody asked for.

A pixel figure counts one ship of 500 pixels as 500 successes. Who looks at alarms counts ships.
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
"""An alarm this many pixels from an object, diagonals included, belongs to it [px]."""
EIGHT = np.ones((3, 3), bool)
"""Pixels that touch at a corner are one object."""
REACH = np.ones((2 * NEAR + 1, 2 * NEAR + 1), bool)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObjectScene:
    """A map as objects see it: how many are found, and how many alarms are false.

    The rules, exactly. An *object* is a component (8 neighbours) of the labels where they count.
    Its *peak* is the highest score within 2 px of it (a square of 5 px around each of its pixels).
    An *alarm* is a component (8 neighbours) of counted pixels whose score is at least the
    threshold; it is *false* if none of its pixels is within 2 px of a labelled pixel, counted or
    not. An object is found if its peak is at least the threshold. A lower threshold can mean fewer
    false alarms: they grow together.
    """

    scores: NDArray[np.floating]
    """(y, x), -inf where nothing counts."""
    near: NDArray[np.bool_]
    """(y, x), True within 2 px of a labelled pixel."""
    peaks: NDArray[np.floating]
    """(object,) peaks, falling; -inf for an object that no counted score is near."""
    area: int
    """Pixels that count."""

    @classmethod
    def of(
        cls,
        scores: NDArray[np.floating],
        truth: NDArray[np.bool_],
        counted: NDArray[np.bool_] | None = None,
    ) -> ObjectScene:
        """The objects of a map.

        Args:
            scores: (y, x), any scale, NaN where there is no score.
            truth: (y, x), True = anomaly.
            counted: (y, x), True where labels are complete; None: everywhere.

        Raises:
            SceneError: If the shapes differ, or no object or no pixel counts.
        """
        where = np.ones(truth.shape, bool) if counted is None else counted
        if not scores.shape == truth.shape == where.shape:
            raise SceneError(
                f"Scores {scores.shape}, labels {truth.shape} and counted area {where.shape} do "
                "not belong together. Give all on the same grid."
            )
        judged = where & np.isfinite(scores)
        labels, number = cast("tuple[NDArray[np.int32], int]", ndimage.label(truth & where, EIGHT))
        if not (number and judged.any()):
            raise SceneError(
                f"{number} objects on {int(judged.sum())} scored pixels that count: alarms need "
                "both. Check the labels and where they count."
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
        """The highest threshold that finds at least this share of the objects; may be -inf.

        Args:
            detection: Share of objects, in 0 < detection <= 1.

        Raises:
            SceneError: The share is not in that range.
        """
        if not 0 < detection <= 1:
            raise SceneError(
                f"detection={detection} is no share of objects. Use 0 < detection <= 1."
            )
        # .8 * 5 objects must be 4, whatever the last bit of the product.
        needed = math.ceil(round(detection * self.peaks.size, 9))
        return float(self.peaks[needed - 1])

    def false_alarms(self, threshold: float) -> int:
        """False alarms at this threshold."""
        found = np.isfinite(self.scores) & (self.scores >= threshold)
        labels, number = cast("tuple[NDArray[np.int32], int]", ndimage.label(found, EIGHT))
        excused = np.unique(labels[self.near & found])
        return number - excused.size

    def false_alarms_per_megapixel(self, detection: float) -> float:
        """False alarms a million counted pixels, where this share of the objects is found."""
        return self.false_alarms(self.threshold_at(detection)) * (1e6 / self.area)
