"""Means over the ring between two squares around every pixel: what surrounds a target."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from uniadrs_scale.core.pixels import BandStatistics


def ring_mean(values: Tensor, inner: int, outer: int) -> Tensor:
    """(n, k, y, x) mean over the ring of each pixel; cut at the tile's edges.

    Args:
        values: (n, k, y, x).
        inner: Side of the inner square, which is left out [px], odd.
        outer: Side of the outer one [px], odd.
    """
    height, width = values.shape[2:]
    total, count = torch.zeros_like(values), values.new_zeros(height, width)
    for side, sign in ((outer, 1), (inner, -1)):
        rows, cols = (_within(n, side // 2, values.device) for n in (height, width))
        total += sign * (rows @ values @ cols)
        count += sign * (rows.sum(1)[:, None] * cols.sum(0))
    return total / count


@lru_cache(maxsize=16)  # brought to a GPU once: that waits for all its work before
@torch.inference_mode(mode=False)
def _within(size: int, reach: int, device: torch.device) -> Tensor:
    """(size, size) 1 where two positions are at most ``reach`` apart.

    As a matrix product, a box sum is ten times faster than torch's pooling, and keeps the precision
    that differences of running sums lose.
    """
    position = torch.arange(size)
    return ((position[:, None] - position).abs() <= reach).float().to(device)


COMPONENTS = 16
EXACT = 64
RIDGES = (1e-2, 1e-3, 1e-4, 1e-5)
"""Relative to the largest eigenvalue."""
GAIN = 2
FLOOR = 0.05
"""Of the energies' logarithm: a pixel like the mean is no event either."""
LIMIT = 8.0
INNER, OUTER = 9, 21
"""Sides of the ring whose mean is taken off for the local energies [px]."""
CHANNELS = COMPONENTS + 2 * len(RIDGES)
"""Input channels of a network that sees whitened bands; those a scene does not have are 0."""
LOCAL = slice(CHANNELS - len(RIDGES), CHANNELS)
"""The local energies among them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whitening:
    """A scene's linear map of scaled bands, and the weights of its squares."""

    basis: NDArray[np.float32]
    """(component, band): v_k' D^1/2, for bands scaled to mean 0 and deviation 1."""
    root: NDArray[np.float32]
    """(band,) D^1/2: half way between the scene's units and equal deviations."""
    gains: NDArray[np.float32]
    """(COMPONENTS or fewer,) 1 / sqrt(w_k + r w_1)."""
    weights: NDArray[np.float32]
    """(energy, component + 1) of the squared components, and of the residual."""

    @classmethod
    def of(cls, statistics: BandStatistics) -> Whitening:
        """The whitening of a scene."""
        return cls.from_correlation(statistics.correlation, statistics.deviation)

    @classmethod
    def from_correlation(
        cls, correlation: NDArray[np.float64], deviation: NDArray[np.float64]
    ) -> Whitening:
        """The whitening of a scene.

        Args:
            correlation: (band, band) covariance of the scaled bands; 0 for dead ones.
            deviation: (band,) standard deviations in the scene's units. Units matter, since noise
                often has equal size in all of them, but not fully: bands may have different ones.
        """
        root = np.sqrt(deviation / max(float(deviation.mean()), np.finfo(np.float64).tiny))
        values, vectors = np.linalg.eigh(correlation * np.outer(root, root))
        values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
        largest = float(values[0]) or 1.0  # a scene of one value
        kept = min(EXACT, len(values))
        tail = values[kept:]
        rest = float(tail.mean()) if len(tail) else 0.0
        # Which way an eigenvector points is arbitrary: towards brighter.
        leading = vectors[:, :kept] * np.where(vectors[:, :kept].sum(0) < 0, -1, 1)
        ridges = np.array(RIDGES)[:, None] * largest
        weights = 1 / (np.append(values[:kept], rest) + ridges)
        freedom = (values[:kept] * weights[:, :kept]).sum(1) + tail.sum() * weights[:, kept]
        freedom = np.where(freedom > 0, freedom, 1)
        return cls(
            basis=(leading.T * root).astype(np.float32),
            root=root.astype(np.float32),
            gains=(1 / np.sqrt(values[:COMPONENTS] + ridges[GAIN])).astype(np.float32),
            weights=(weights / freedom[:, None]).astype(np.float32),
        )

    def apply(
        self, scaled: Tensor, ring: Callable[[Tensor, int, int], Tensor] = ring_mean
    ) -> Tensor:
        """(n, CHANNELS, y, x) of bands scaled to mean 0 and deviation 1, (n, band, y, x) float32.

        ``ring`` is :func:`ring_mean` or another way to the same means.

        Of zeros, as filled in for pixels without data, all components are 0.
        """
        basis, root, gains, weights = _tensors(self, scaled.device)
        flat = scaled.flatten(2)  # (n, band, pixel)
        parts = basis @ flat  # (n, component, pixel)
        squares = parts.square()
        total = root.square() @ flat.square()  # (n, pixel)
        rest = (total - squares.sum(1)).clamp_(min=0)
        out = scaled.new_zeros(len(scaled), CHANNELS, flat.shape[2])
        count = len(gains)
        out[:, :count] = parts[:, :count] * gains[:, None]
        ends = COMPONENTS, COMPONENTS + len(RIDGES), CHANNELS
        out[:, ends[0] : ends[1]] = weights[:, :-1] @ squares + weights[:, -1:] * rest[:, None]
        grid = parts[:, :count].unflatten(2, scaled.shape[2:])  # type: ignore[no-untyped-call]
        squares[:, :count] = (grid - ring(grid, INNER, OUTER)).flatten(2).square()
        out[:, ends[1] :] = weights[:, :-1] @ squares + weights[:, -1:] * rest[:, None]
        out[:, COMPONENTS:] = (out[:, COMPONENTS:] + FLOOR).log_()
        return out.clamp_(-LIMIT, LIMIT).view(len(scaled), CHANNELS, *scaled.shape[2:])


@lru_cache(maxsize=4)
@torch.inference_mode(mode=False)
def _tensors(whitening: Whitening, device: torch.device) -> tuple[Tensor, ...]:
    """Basis, root, gains and weights on ``device``, brought there once.

    Bringing them waits until the device has done all before it, so once for each batch would keep
    it from ever working ahead.
    """
    arrays = (whitening.basis, whitening.root, whitening.gains, whitening.weights)
    return tuple(torch.from_numpy(values).to(device) for values in arrays)


def bytes_a_pixel(bands: int) -> int:
    """Peak memory of :meth:`Whitening.apply`, beyond its input: components twice, squared bands."""
    return 4 * (2 * min(bands, EXACT) + bands + 3 * COMPONENTS + CHANNELS)
