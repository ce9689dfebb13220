"""Spectra of training windows: other bands of a scene, and signatures of targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from targets import Patch, Window, log_uniform, surroundings

from uniadrs_scale.detector.whitening import COMPONENTS, GAIN, RIDGES, Whitening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sources import Source

    Floats = NDArray[np.float32]

ENERGY = (2.5, 40)
"""Energy of targets in spectral scenes, relative to the scene's mean: the range of labelled targets
in the training scenes."""
SPECTRAL = 14
"""A source with this many bands or more is spectral."""


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """The spectra of a window: common and rare ones."""

    whitening: Whitening
    spread: Floats
    """(component,) sqrt(w_k + r w_1)."""
    inverse: Floats
    """(band, component): from components to scaled bands."""

    @classmethod
    def of(
        cls, pixels: Floats, deviation: NDArray[np.float64], correlation: NDArray[np.float64] | None
    ) -> Space:
        """Return the space of a scene's correlation, or of the window's own."""
        if correlation is None:
            flat = pixels.reshape(len(pixels), -1)
            correlation = (flat @ flat.T).astype(np.float64) / flat.shape[1]
        whitening = Whitening.from_correlation(correlation, deviation)
        back = whitening.basis.T / np.square(np.maximum(whitening.root, 1e-6))[:, None]
        # weights[GAIN] is 1 / (w_k + r w_1) up to a factor
        spread = 1 / np.sqrt(whitening.weights[GAIN, :-1])
        return cls(whitening, spread, back)

    def unusual(self, pixels: Floats) -> Floats:
        """Return the mean logarithm (y, x) of the energies of pixels (band, y, x)."""
        seen = self.whitening.apply(torch.from_numpy(np.ascontiguousarray(pixels))[None])
        return seen[0, COMPONENTS : COMPONENTS + len(RIDGES)].mean(0).numpy()

    def rare(self, rng: np.random.Generator) -> Floats:
        """Draw a spectrum (band,) that is unusual in any direction, not only in bright ones."""
        count = int(log_uniform(rng, 2, len(self.spread) + 0.99))
        parts = np.zeros(len(self.spread), np.float32)
        parts[:count] = rng.standard_normal(count) * self.spread[:count]
        mixed = rng.random() < 0.1
        return self.inverse @ (rng.permutation(parts) if mixed else parts)

    def rescaled(
        self, rng: np.random.Generator, spectrum: Floats, want: float | None = None
    ) -> Floats:
        """Move a spectrum along its difference from the mean to an energy that targets have."""
        energy = float(np.exp(self.unusual(spectrum[:, None, None])[0, 0]))
        want = log_uniform(rng, *ENERGY) if want is None else want
        return spectrum * np.float32(np.sqrt(want / max(energy, 1e-3)))


def pick(rng: np.random.Generator, own: int, bands: int) -> NDArray[np.intp]:
    """Draw indices of ``bands`` of ``own`` bands: a range, evenly spread, any; rarely unordered."""
    kind = rng.random()
    if kind < 0.35:
        start = int(rng.integers(own - bands + 1))
        index = np.arange(start, start + bands)
    elif kind < 0.65:
        index = np.linspace(0, own - 1, bands).round().astype(np.intp)
    else:
        index = np.sort(rng.permutation(own)[:bands])
    if rng.random() < 0.15:
        index = rng.permutation(index)
    return index[::-1] if rng.random() < 0.2 else index


def smooth_curves(rng: np.random.Generator, count: int, bands: int) -> Floats:
    """Draw random curves (count, bands) along the band axis, of deviation about 1."""
    knots = rng.standard_normal((count, int(rng.integers(3, 25))))
    at = np.linspace(0, knots.shape[1] - 1, bands)
    low = np.minimum(at.astype(int), knots.shape[1] - 2)
    part = at - low
    return (knots[:, low] * (1 - part) + knots[:, low + 1] * part).astype(np.float32)


def expand(rng: np.random.Generator, pixels: Floats, bands: int) -> Floats:
    """Make more bands: features of each pixel, mixed by smooth curves along the bands."""
    own, height, width = pixels.shape
    flat = pixels.reshape(own, -1)
    if own >= SPECTRAL:
        rank = min(own, bands, 24)
        flat = flat[np.linspace(0, own - 1, rank).astype(int)]
        at = np.abs(np.linspace(0, rank - 1, bands)[:, None] - np.arange(rank))
        mixing = np.maximum(1 - at, 0).astype(np.float32)
        mixing *= 1 + 0.3 * smooth_curves(rng, 1, bands).T
    else:
        bends = rng.standard_normal((int(rng.integers(2, 7)), own)).astype(np.float32)
        level = rng.standard_normal((len(bends), 1)).astype(np.float32)
        flat = np.concatenate([flat, np.tanh(bends @ flat + level)])
        mixing = smooth_curves(rng, len(flat), bands).T
    return (mixing @ flat).reshape(bands, height, width)


def signature(rng: np.random.Generator, window: Window, sources: Sequence[Source]) -> Floats:
    """Draw a spectrum (band,) that the window may not contain."""
    bands, side = window.pixels.shape[0], window.pixels.shape[1]
    own = window.pixels[:, rng.integers(side), rng.integers(side)].copy()
    kind = rng.random()
    if kind < 0.25:  # a material of its own
        return smooth_curves(rng, 1, bands)[0] * 1.5 + np.float32(rng.normal())
    if kind < 0.45:  # bright or dark
        return own * 0.3 + np.float32(rng.choice([1, 1, -0.7]) * log_uniform(rng, 1, 6))
    if kind < 0.65 and sources:  # a pixel of another scene
        pixels = sources[rng.integers(min(len(sources), 30))].pixels
        other = pixels[:, rng.integers(pixels.shape[1]), rng.integers(pixels.shape[2])]
        at = np.linspace(0, len(other) - 1, bands)
        return np.interp(at, np.arange(len(other)), other).astype(np.float32) * 1.3
    if kind < 0.8:  # the same values in other bands
        return rng.permutation(own) if rng.random() < 0.3 else np.roll(own, rng.integers(bands))
    # the same material, shining, shaded or bent
    return own * np.float32(rng.choice([-1, 0.3, 2])) + smooth_curves(rng, 1, bands)[0]


def contrasted(rng: np.random.Generator, window: Window, patch: Patch, spectrum: Floats) -> Floats:
    """Move a spectrum along its difference from the surroundings to a visible contrast.

    One band needs several deviations; the evidence of many bands adds up.
    """
    around, texture = surroundings(window, patch)
    difference = spectrum - around
    weakest = 2.2 if len(spectrum) < 4 else 1.2 if len(spectrum) < SPECTRAL else 0.7
    low = weakest * np.hypot(texture, 0.05)
    want = min(log_uniform(rng, low, low * 8), 9.0)
    rms = float(np.sqrt(np.square(difference).mean())) + 1e-6
    if low <= rms <= 8 * low and rng.random() < 0.5:  # natural contrast
        return spectrum
    return around + difference * np.float32(want / rms)
