"""Pixels as the network sees them: filled where invalid, scaled by statistics of the scene."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from uniadrs_scale.core.compiled import ordered_sums
from uniadrs_scale.core.validity import flat_areas, looks_like_speckle, ndimage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    Fences = tuple[NDArray[np.float64], NDArray[np.float64]]


def fill_invalid(pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return ``pixels`` with every invalid one taken from valid ground, mirrored at its border.

    A constant fill is an edge as strong as any anomaly and changes the instance normalisation of
    the whole tile; random valid pixels are a texture of their own. A mirror image continues both
    the level and the texture of its surroundings. Each pass mirrors known pixels into unknown
    ones, so that the known area about doubles; pixels out of its reach repeat the nearest one.
    """
    if valid.all():
        return pixels
    filled, known = pixels.copy(), valid.copy()
    rows, cols = np.indices(valid.shape)
    while True:
        near_row, near_col = ndimage.distance_transform_edt(
            ~known, return_distances=False, return_indices=True
        )
        row, col = 2 * near_row - rows, 2 * near_col - cols
        inside = (row >= 0) & (row < valid.shape[0]) & (col >= 0) & (col < valid.shape[1])
        row, col = np.where(inside, row, near_row), np.where(inside, col, near_col)
        usable = ~known & inside & known[row, col]
        if not usable.any():
            usable, row, col = ~known, near_row, near_col
        filled[:, usable] = filled[:, row[usable], col[usable]]
        known |= usable
        if known.all():
            return filled


CLIP = 8.0
"""Scaled values are clipped to +-CLIP standard deviations: one saturated pixel must not take the
contrast of its whole tile through the network's instance normalisation."""
WIDE = 4
"""Bytes from which on float32 rounds integers; float32 itself it does not."""
STEPS = 19
SMALL = 4
"""Bytes of integers of which a slab's sum fits a float64's 53 bits: 2^14 times 2^32."""
SLAB = 2**14
"""Pixels whose moments are computed at a time: 2 * STEPS + 14 bits fit a float64's 53."""
GROUP = 8
"""Bands of a slab whose moments are computed at a time: they fit a processor's cache."""
THINNED = 2**12
"""Least pixels of a piece that correlations of many bands are taken from, if it has as many."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BandStatistics:
    """Moments of all bands over the valid pixels seen so far."""

    count: int
    """Valid pixels."""
    mean: NDArray[np.float64]
    """(band,) mean, in the scene's units."""
    scatter: NDArray[np.float64]
    """(band, band) sum of products of differences from the mean."""
    flat: Mapping[float, int] = field(default_factory=dict)
    """Valid pixels in areas of one value, by that value: undeclared nodata looks like that."""
    lost: Mapping[str, int] = field(default_factory=dict)
    """Invalid pixels by reason."""
    speckle: tuple[int, int] = (0, 0)
    """Pieces that look like radar, and all pieces that were looked at."""
    unread: tuple[int, ...] = ()
    """Windows of the sample that could not be read, by their order."""

    @classmethod
    def none(cls, bands: int) -> BandStatistics:
        """Statistics of no pixel."""
        return cls(count=0, mean=np.zeros(bands), scatter=np.zeros((bands, bands)))

    @classmethod
    def of(
        cls,
        pixels: NDArray[np.generic],
        valid: NDArray[np.bool_],
        lost: Mapping[str, int] | None = None,
        fences: Fences | None = None,
        *,
        thinned: bool = False,
    ) -> BandStatistics:
        """Return the statistics of one piece of a scene.

        Args:
            pixels: (band, y, x), any real dtype.
            valid: (y, x), True = valid.
            lost: Invalid pixels by reason.
            fences: Lowest and highest value (band,); values beyond are moved there.
            thinned: True if every n-th pixel may stand for all in correlations, but not in means
                and deviations. Pieces of less than 2 THINNED pixels are not.
        """
        bands = pixels.shape[0]
        flat, index = pixels.reshape(bands, -1), np.flatnonzero(valid)
        whole = index.size == valid.size  # then nothing has to be picked
        # An odd step, so that the pixels are not those of a few columns.
        step = max(index.size // THINNED, 1) | 1 if thinned else 1
        ends = range(0, -(-index.size // step), SLAB)
        slabs = (slice(start * step, (start + SLAB) * step, step) for start in ends)
        pieces = (flat[:, slab if whole else index[slab]] for slab in slabs)
        moments = cls.combine((_moments(piece, fences) for piece in pieces), bands)
        if step > 1:
            moments = _spread(moments, flat, None if whole else index, fences)
        speckled = looks_like_speckle(pixels, valid)
        return replace(
            moments,
            flat=flat_areas(pixels, valid),
            lost=dict(lost or {}),
            speckle=(0, 0) if speckled is None else (int(speckled), 1),
        )

    @classmethod
    def combine(cls, parts: Iterable[BandStatistics], bands: int) -> BandStatistics:
        """Statistics of the union of disjoint parts, merged in the order given."""
        return reduce(cls.merge, parts, cls.none(bands))

    def merge(self, other: BandStatistics) -> BandStatistics:
        """Return statistics of the union of two parts (Chan, Golub and LeVeque 1983)."""
        seen = (self.speckle[0] + other.speckle[0], self.speckle[1] + other.speckle[1])
        lost = dict(Counter(self.lost) + Counter(other.lost))
        if not (self.count and other.count):
            return replace(self if self.count else other, lost=lost, speckle=seen)
        count = self.count + other.count
        delta = other.mean - self.mean
        between = np.outer(delta, delta) * (self.count * other.count / count)
        return BandStatistics(
            count=count,
            mean=self.mean + delta * (other.count / count),
            scatter=self.scatter + other.scatter + between,
            flat=dict(Counter(self.flat) + Counter(other.flat)),
            lost=lost,
            speckle=seen,
        )

    @classmethod
    def from_counts(
        cls, counts: Mapping[str, Any], mean: NDArray[np.float64], scatter: NDArray[np.float64]
    ) -> BandStatistics:
        """Return the statistics of which :meth:`counts` returned ``counts``."""
        return cls(
            count=int(counts["valid_pixels"]),
            mean=mean,
            scatter=scatter,
            flat=dict(counts["flat_areas"]),
            lost=dict(counts["invalid_pixels"]),
            speckle=tuple(counts["speckle"]),
            unread=tuple(counts.get("unread_windows", ())),
        )

    def counts(self) -> dict[str, Any]:
        """Return all but the moments, as JSON values."""
        return {
            "valid_pixels": self.count,
            "invalid_pixels": dict(self.lost),
            "flat_areas": [list(pair) for pair in self.flat.items()],  # keys of JSON are text
            "speckle": list(self.speckle),
            **({"unread_windows": list(self.unread)} if self.unread else {}),
        }

    @property
    def invalid(self) -> dict[str, float]:
        """Share of all pixels seen that each reason makes invalid."""
        seen = self.count + sum(self.lost.values())
        return {reason: pixels / seen for reason, pixels in self.lost.items()}

    @property
    def deviation(self) -> NDArray[np.float64]:
        """(band,) standard deviation, in the scene's units."""
        return np.sqrt(np.diag(self.scatter) / max(self.count, 1))

    @property
    def correlation(self) -> NDArray[np.float64]:
        """(band, band) covariance of the scaled bands; 0 for dead ones."""
        scale = self.normalisation().scale.astype(np.float64)
        return self.scatter / max(self.count, 1) * np.outer(scale, scale)

    def beyond_float32(self) -> NDArray[np.intp]:
        """Positions of bands whose scaling float32 cannot hold: absurdly large or small values."""
        with np.errstate(over="ignore", invalid="ignore"):
            scaling = self.normalisation()
            spread = np.isfinite(self.scatter).all(axis=1)
        return np.flatnonzero(~(np.isfinite(scaling.offset) & np.isfinite(scaling.scale) & spread))

    def normalisation(self) -> Normalisation:
        """Return the scaling of every band to mean 0 and standard deviation 1 (dead bands to 0)."""
        std = self.deviation
        # A band whose spread is rounding error of its mean is constant, not informative.
        alive = std > np.abs(self.mean) * 1e-7 + np.finfo(np.float64).tiny
        scale = np.divide(1.0, std, out=np.zeros_like(std), where=alive)
        return Normalisation(offset=self.mean, scale=scale.astype(np.float32))


def _moments(values: NDArray[np.generic], fences: Fences | None) -> BandStatistics:
    """Return the statistics of 1 to SLAB pixels (band, pixel).

    BLAS adds in an order that depends on its number of threads, which would decide the last bits of
    every score. So it gets integers of up to 19 bits, whose products it adds without rounding.
    """
    bands, pixels = values.shape
    small = values.dtype.kind in "iu" and values.dtype.itemsize <= SMALL  # no sum is rounded
    whole, mean, squares, step = np.empty((bands, pixels)), *np.empty((3, bands))
    for group in (slice(first, first + GROUP) for first in range(0, bands, GROUP)):
        exact = whole[group]
        exact[...] = values[group]
        if fences is not None:
            np.clip(exact, fences[0][group, None], fences[1][group, None], out=exact)
        # These orders decide the last bits of a score: the shipped weights have seen them.
        sums = exact.sum(axis=1) if small or bands == 1 else ordered_sums(exact, power=1)
        mean[group] = sums / pixels
        exact -= mean[group, None]
        squares[group] = np.square(exact).sum() if bands == 1 else ordered_sums(exact, power=2)
        step[group] = np.maximum(exact.max(axis=1), -exact.min(axis=1)) / 2.0**STEPS
        exact /= np.where(step[group] > 0, step[group], 1)[:, None]
        np.rint(exact, out=exact)
    scatter = (whole @ whole.T) * np.outer(step, step)
    np.fill_diagonal(scatter, squares)
    return BandStatistics(count=pixels, mean=mean, scatter=scatter)


def _spread(
    sample: BandStatistics,
    pixels: NDArray[np.generic],
    index: NDArray[np.intp] | None,
    fences: Fences | None,
) -> BandStatistics:
    """Return the correlations of a sample with means and deviations of all pixels in ``index``."""
    sums, squares = np.zeros((2, len(pixels)))
    for band, values in enumerate(pixels):
        exact = (values if index is None else values[index]).astype(np.float64)
        if fences is not None:
            np.clip(exact, fences[0][band], fences[1][band], out=exact)
        exact -= sample.mean[band]
        sums[band] = exact.sum()
        squares[band] = np.square(exact, out=exact).sum()
    count = pixels.shape[1] if index is None else index.size
    spread, seen = np.maximum(squares - sums**2 / count, 0), np.diag(sample.scatter)
    gain = np.sqrt(np.divide(spread, seen, out=np.zeros_like(spread), where=seen > 0))
    scatter = sample.scatter * np.outer(gain, gain)
    np.fill_diagonal(scatter, spread)
    return replace(sample, count=count, mean=sample.mean + sums / count, scatter=scatter)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Normalisation:
    """Per-band affine scaling: scaled = clip((raw - offset) * scale, -CLIP, CLIP)."""

    offset: NDArray[np.float64]
    """(band,) in the scene's units."""
    scale: NDArray[np.float32]
    """(band,) per unit; 0 for a dead band."""

    def apply(self, pixels: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return a scaled copy of ``pixels`` (band, y, x), float32 in [-CLIP, CLIP].

        The offset is taken off before values that float32 cannot hold are rounded. Non-finite input
        stays NaN only if it was NaN; callers mask it.
        """
        if pixels.dtype == np.float32:
            scaled = np.empty(pixels.shape, np.float32)
            np.subtract(pixels, self.offset.astype(np.float32)[:, None, None], out=scaled)
        elif pixels.dtype.itemsize < WIDE:
            scaled = pixels.astype(np.float32)
            scaled -= self.offset.astype(np.float32)[:, None, None]
        else:
            scaled = np.empty(pixels.shape, np.float32)
            # The rounded offset if it is right to 1e-4: equal scores for any type of equal values.
            rounded = self.offset.astype(np.float32).astype(np.float64)
            exact = np.abs(self.offset - rounded) * self.scale * 1e4 > 1
            offsets = np.where(exact, self.offset, rounded)
            for band, values, offset in zip(scaled, pixels, offsets, strict=True):
                np.subtract(values, offset, out=band, casting="unsafe")
        scaled *= self.scale[:, None, None]
        return np.clip(scaled, -CLIP, CLIP, out=scaled)
