"""Band statistics of a whole scene, as chunk / combine / finalise values.

Scaling is a property of the scene, never of the tile: scaling every tile by its own statistics
makes equal ground score differently on both sides of a tile border, which draws grid lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

CLIP = 8.0
"""Scaled values are clipped to +-CLIP standard deviations: one saturated pixel must not take the
contrast of its whole tile through the network's instance normalisation."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BandStatistics:
    """Moments of every band over the valid pixels seen so far."""

    count: int
    """Valid pixels."""
    mean: NDArray[np.float64]
    """(band,) mean, in the scene's units."""
    m2: NDArray[np.float64]
    """(band,) sum of squared differences from the mean."""

    @classmethod
    def of(cls, pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> BandStatistics:
        """Statistics of one piece of a scene.

        Args:
            pixels: (band, y, x), any real dtype.
            valid: (y, x), True = valid.
        """
        values = pixels[:, valid].astype(np.float64)
        count = values.shape[1]
        if count == 0:
            zeros = np.zeros(pixels.shape[0])
            return cls(count=0, mean=zeros, m2=zeros)
        mean = values.mean(axis=1)
        return cls(count=count, mean=mean, m2=np.square(values - mean[:, None]).sum(axis=1))

    @classmethod
    def combine(cls, parts: Iterable[BandStatistics], bands: int) -> BandStatistics:
        """Statistics of the union of disjoint parts, merged in the order given."""
        zeros = np.zeros(bands)
        return reduce(cls.merge, parts, cls(count=0, mean=zeros, m2=zeros))

    def merge(self, other: BandStatistics) -> BandStatistics:
        """Statistics of the union of two disjoint parts (Chan, Golub and LeVeque 1983)."""
        if other.count == 0:
            return self
        if self.count == 0:
            return other
        count = self.count + other.count
        delta = other.mean - self.mean
        return BandStatistics(
            count=count,
            mean=self.mean + delta * (other.count / count),
            m2=self.m2 + other.m2 + delta**2 * (self.count * other.count / count),
        )

    def normalisation(self) -> Normalisation:
        """What brings every band to mean 0 and standard deviation 1 (dead bands to 0)."""
        std = np.sqrt(self.m2 / max(self.count, 1))
        # A band whose spread is rounding error of its mean is constant, not informative.
        alive = std > np.abs(self.mean) * 1e-7 + np.finfo(np.float64).tiny
        scale = np.divide(1.0, std, out=np.zeros_like(std), where=alive)
        return Normalisation(offset=self.mean.astype(np.float32), scale=scale.astype(np.float32))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Normalisation:
    """Per-band affine scaling: scaled = clip((raw - offset) * scale, -CLIP, CLIP)."""

    offset: NDArray[np.float32]
    """(band,) in the scene's units."""
    scale: NDArray[np.float32]
    """(band,) per unit; 0 for a dead band."""

    def apply(self, pixels: NDArray[np.generic]) -> NDArray[np.float32]:
        """Scaled copy of ``pixels`` (band, y, x), float32 in [-CLIP, CLIP].

        Non-finite input stays NaN only if it was NaN; callers mask it.
        """
        scaled = pixels.astype(np.float32)
        scaled -= self.offset[:, None, None]
        scaled *= self.scale[:, None, None]
        return np.clip(scaled, -CLIP, CLIP, out=scaled)

    def to_dict(self) -> dict[str, list[float]]:
        """Plain values for JSON; exact, since every float32 is a float64."""
        return {"offset": self.offset.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, list[float]]) -> Normalisation:
        """The inverse of :meth:`to_dict`."""
        return cls(
            offset=np.asarray(values["offset"], np.float32),
            scale=np.asarray(values["scale"], np.float32),
        )
