"""Statistics of a map, from parts of it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


UNIT = 2.0**32
"""Sums of scores and squares are integers in units of 2^-32, so they are exact in any order."""
SLAB = 2**17
"""Scores that are added at once: each takes 40 bytes while they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreStatistics:
    """Count, extremes and sums of the scores of some pixels."""

    pixels: int = 0
    """All pixels, with or without a score."""
    count: int = 0
    """Scores."""
    minimum: float = math.inf
    maximum: float = -math.inf
    total: int = 0
    """Sum, in units of 2^-32."""
    squares: int = 0
    """Sum of squares, in units of 2^-32."""

    @classmethod
    def of(cls, scores: NDArray[np.float32]) -> ScoreStatistics:
        """Return those of an array; NaN does not count."""
        if scores.size > SLAB:
            slabs = np.array_split(scores.ravel(), -(-scores.size // SLAB))
            return cls.combine(cls.of(slab) for slab in slabs)
        known = scores[np.isfinite(scores)].astype(np.float64)
        if not known.size:
            return cls(pixels=scores.size)
        return cls(
            pixels=scores.size,
            count=known.size,
            minimum=float(known.min()),
            maximum=float(known.max()),
            total=_sum(known),
            squares=_sum(np.square(known)),
        )

    @classmethod
    def combine(cls, parts: Iterable[ScoreStatistics]) -> ScoreStatistics:
        """Return those of disjoint parts, in any order."""
        every = tuple(parts)
        return cls(
            pixels=sum(part.pixels for part in every),
            count=sum(part.count for part in every),
            minimum=min((part.minimum for part in every), default=math.inf),
            maximum=max((part.maximum for part in every), default=-math.inf),
            total=sum(part.total for part in every),
            squares=sum(part.squares for part in every),
        )

    def figures(self) -> dict[str, float]:
        """Return ``minimum``, ``maximum``, ``mean``, ``stddev``, ``valid_percent``, as STAC does.

        Empty without a score.
        """
        if not self.count:
            return {}
        mean = self.total / UNIT / self.count
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "mean": mean,
            "stddev": math.sqrt(max(self.squares / UNIT / self.count - mean**2, 0.0)),
            "valid_percent": 100 * self.count / self.pixels,
        }

    def gdal_tags(self) -> dict[str, str]:
        """Return the figures as the tags of a band that GDAL and tile servers read."""
        return {f"STATISTICS_{name.upper()}": f"{v:.9g}" for name, v in self.figures().items()}


def _sum(values: NDArray[np.float64]) -> int:
    """Return the sum in units of 2^-32."""
    if np.abs(values).max() <= 1:
        return int(np.rint(values * UNIT).astype(np.int64).sum())
    return round(math.fsum(values) * UNIT)  # not ours: integers of 64 bits may be too short
