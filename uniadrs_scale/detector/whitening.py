"""The 24 input channels of the network, computed from any number of bands.

Bands are whitened by the scene's covariance: leading components, and Mahalanobis energies at four
strengths of regularisation, of the pixel itself (global RX) and of its difference from the mean of
the ring around it (local RX; Reed and Yu, IEEE TASSP 38, 1990).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uniadrs_scale.core.pixels import CLIP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.core.pixels import BandStatistics

COMPONENTS = 16
"""Leading components that the network sees; those that a scene of fewer bands lacks are 0."""
EXACT = 64
"""Components whose energies are summed one by one; all others share their mean variance."""
RIDGES = (1e-2, 1e-3, 1e-4, 1e-5)
"""Regularisations of the energies, relative to the largest eigenvalue."""
GAIN = 2
"""Index of the ridge that scales the components."""
FLOOR = 0.05
"""Term added to an energy before its logarithm: a pixel equal to the mean is not an event."""
LIMIT = 8.0
"""Largest magnitude of a channel."""
INNER, OUTER = 9, 21
"""Sides of the ring whose mean is subtracted for the local energies [px]."""
PIECE = 2**14
"""Pixels whose components are computed at a time in double precision."""
NEAR = OUTER // 4
"""Distance of samples of which two are in the surroundings of every pixel, also in a corner."""
CHANNELS = COMPONENTS + 2 * len(RIDGES)
"""Input channels of a network that sees whitened bands."""
ENERGIES, LOCAL = slice(-2 * len(RIDGES), None), slice(-len(RIDGES), None)
"""The energies among them, and the local ones."""


def ring_mean(values: Tensor, inner: int, outer: int) -> Tensor:
    """Return the mean over the square ring around each pixel, cut at the tile's edges.

    Args:
        values: (n, k, y, x).
        inner: Side of the square inside the ring [px], odd.
        outer: Side of the ring [px], odd.

    Returns:
        (n, k, y, x).
    """
    height, width = values.shape[2:]
    total, count = torch.zeros_like(values), values.new_zeros(height, width)
    for side, sign in ((outer, 1), (inner, -1)):
        rows, cols = (_within(n, side // 2, values.device) for n in (height, width))
        total += sign * (rows @ values @ cols)
        count += sign * (rows.sum(1)[:, None] * cols.sum(0))
    return total / count


@lru_cache(maxsize=16)  # copied to a GPU once: a copy waits for all earlier work
@torch.inference_mode(mode=False)
def _within(size: int, reach: int, device: torch.device) -> Tensor:
    """Return (size, size): 1 where two positions differ by at most ``reach``, else 0.

    A box sum by matrix products is ten times faster than torch's pooling, and keeps the precision
    that differences of running sums lose.
    """
    position = torch.arange(size)
    return ((position[:, None] - position).abs() <= reach).float().to(device)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whitening:
    """A scene's linear map of scaled bands, and the weights of the squared components.

    v_k and w_k are eigenvectors and eigenvalues of D^1/2 C D^1/2, with C the correlation of the
    bands and D their deviations over the mean deviation; r is a ridge.
    """

    basis: NDArray[np.float32]
    """(component, band): v_k' D^1/2, for bands scaled to mean 0 and deviation 1."""
    root: NDArray[np.float32]
    """(band,) D^1/2: half way between the scene's units and equal deviations."""
    gains: NDArray[np.float32]
    """(COMPONENTS or fewer,) 1 / sqrt(w_k + r w_1)."""
    weights: NDArray[np.float32]
    """(energy, component + 1): 1 / (w_k + r w_1), scaled to a mean energy of 1; the last column
    weights the residual."""

    @classmethod
    def of(cls, statistics: BandStatistics) -> Whitening:
        """Return the whitening of a scene with these statistics."""
        return cls.from_correlation(statistics.correlation, statistics.deviation)

    @classmethod
    def from_correlation(
        cls, correlation: NDArray[np.float64], deviation: NDArray[np.float64]
    ) -> Whitening:
        """Return the whitening of a scene.

        Args:
            correlation: (band, band) covariance of the scaled bands; 0 for dead bands.
            deviation: (band,) standard deviations in the scene's units. They count half: noise is
                often equal in these units, but bands may have different ones.
        """
        root = np.sqrt(deviation / max(float(deviation.mean()), np.finfo(np.float64).tiny))
        values, vectors = np.linalg.eigh(correlation * np.outer(root, root))
        values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
        largest = float(values[0]) or 1.0  # a scene of one value
        kept = min(EXACT, len(values))
        tail = values[kept:]
        rest = float(tail.mean()) if len(tail) else 0.0
        # The sign of an eigenvector is arbitrary: let it point towards brighter pixels.
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
        """Return the network's channels, with all sums in single precision.

        Weights are trained with this function, and retraining must give their bits. For scores
        there is :func:`channels`, which differs by rounding.

        Args:
            scaled: float32 (n, band, y, x), bands of mean 0 and deviation 1. Pixels without data
                are 0, and so are their components.
            ring: :func:`ring_mean`, or a faster function with equal results.

        Returns:
            float32 (n, CHANNELS, y, x) in -LIMIT..LIMIT.
        """
        basis, root, gains, weights = _tensors(self, scaled.device)
        flat = scaled.flatten(2)  # (n, band, pixel)
        parts = basis @ flat  # (n, component, pixel)
        total = root.square() @ flat.square()  # (n, pixel)
        rest = (total - parts.square().sum(1)).clamp_(min=0)
        seen = _channels(parts, rest, gains, weights, (scaled.shape[2:], ring))
        every = seen.new_zeros(len(scaled), CHANNELS, *scaled.shape[2:])
        every[:, : len(gains)], every[:, ENERGIES] = seen[:, : len(gains)], seen[:, ENERGIES]
        return every


def channels(
    whitenings: Sequence[Whitening],
    scaled: Tensor,
    ring: Callable[[Tensor, int, int], Tensor] = ring_mean,
) -> Tensor:
    """Return the channels of tiles of which each has a whitening, as :meth:`Whitening.apply` does.

    Without the components that a scene of few bands lacks. The residual is a small difference of
    large sums, and the order of sums depends on the kind of CPU. So both are taken in double
    precision.
    """
    each = [_tensors(whitening, scaled.device) for whitening in whitenings]
    basis, root, gains, weights = (torch.stack(same) for same in zip(*each, strict=True))
    basis, squared = basis.double(), root.double().square()[:, None]
    flat = scaled.flatten(2)  # (n, band, pixel)
    parts = flat.new_empty(len(flat), basis.shape[1], flat.shape[2])
    rest = flat.new_empty(len(flat), flat.shape[2])
    for start in range(0, flat.shape[2], PIECE):
        piece = slice(start, start + PIECE)
        exact = flat[..., piece].double()
        found = basis @ exact
        rest[:, piece] = ((squared @ exact.square_())[:, 0] - found.square().sum(1)).clamp_(min=0)
        parts[..., piece] = found
    return _channels(parts, rest, gains, weights, (scaled.shape[2:], ring))


def _channels(
    parts: Tensor,
    rest: Tensor,
    gains: Tensor,
    weights: Tensor,
    grid: tuple[torch.Size, Callable[[Tensor, int, int], Tensor]],
) -> Tensor:
    """Return the channels (n, channel, y, x) of components and their residual energy."""
    size, ring = grid
    count, energies = gains.shape[-1], len(RIDGES)
    squares = parts.square()
    out = parts.new_empty(len(parts), count + 2 * energies, parts.shape[2])
    torch.mul(parts[:, :count], gains[..., None], out=out[:, :count])
    plain, local = out[:, count : count + energies], out[:, LOCAL]
    plain[:] = weights[..., :-1] @ squares + weights[..., -1:] * rest[:, None]
    plane = parts[:, :count].view(len(parts), count, *size)
    squares[:, :count] = (plane - ring(plane, INNER, OUTER)).flatten(2).square()
    local[:] = weights[..., :-1] @ squares + weights[..., -1:] * rest[:, None]
    out[:, count:] += FLOOR
    out[:, count:].log_()
    return out.clamp_(-LIMIT, LIMIT).view(len(out), -1, *size)


@lru_cache(maxsize=256)
@torch.inference_mode(mode=False)
def _tensors(whitening: Whitening, device: torch.device) -> tuple[Tensor, ...]:
    """Return basis, root, gains and weights on ``device``, copied there once.

    A copy waits until the device has done all earlier work: one per batch would keep it from
    working ahead.
    """
    arrays = (whitening.basis, whitening.root, whitening.gains, whitening.weights)
    return tuple(torch.from_numpy(values).to(device) for values in arrays)


def flat_areas(scaled: Tensor) -> Tensor | None:
    """Return (n, y, x), True if all pixels around have one value in every band; None if none has.

    A pixel that equals its surroundings is not an anomaly, but zeros around a tile are one to a
    network whose norms amplify what little contrast there is. Clipped values do not count: they
    hide contrast.

    Args:
        scaled: float32 (n, band, y, x).
    """
    if scaled.device.type == "cpu":  # asking a GPU would make it wait
        some = scaled[..., ::NEAR, ::NEAR]
        if not ((some[..., 1:] == some[..., :-1]).all(1)).any():
            return None
    differs = (scaled.abs() >= CLIP).any(1)
    differs[..., :-1] |= (scaled[..., 1:] != scaled[..., :-1]).any(1)
    differs[..., :-1, :] |= (scaled[..., 1:, :] != scaled[..., :-1, :]).any(1)
    around = F.max_pool2d(differs.float(), (1, OUTER), 1, (0, OUTER // 2))
    return F.max_pool2d(around, (OUTER, 1), 1, (OUTER // 2, 0)) == 0


def bytes_a_pixel(bands: int) -> int:
    """Return the peak memory of :func:`channels` beyond its input, in bytes per pixel."""
    kept = min(bands, EXACT)
    return 4 * (2 * kept + 3 * COMPONENTS + CHANNELS) + 8 * (bands + 2 * kept)
