"""Effects of sensors and weather: noise, stripes, speckle; dead bands, haze, low light.

The last three have their own random generator, so that recipes without them draw the same windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from spectra import SPECTRAL
from targets import log_uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

LIKELY = 0.15
"""Probability of each effect."""
FULL_WELL = (20, 2000)
"""Photons per pixel of full brightness, at low light."""


def disturb(rng: np.random.Generator, pixels: Floats) -> Floats:
    """Add noise, stripes and speckle of a sensor; half of the windows get none."""
    bands, height, width = pixels.shape
    if rng.random() < 0.3:
        level = np.float32(log_uniform(rng, 0.02, 0.4))
        pixels = pixels + level * rng.standard_normal(pixels.shape, np.float32)
    if rng.random() < 0.08:
        level = np.float32(log_uniform(rng, 0.02, 0.3))
        pixels = pixels + level * rng.standard_normal((bands, 1, width), np.float32)
    if bands <= 2 and rng.random() < 0.4:  # radar: multiplicative, above a floor
        looks = rng.uniform(1, 8)
        speckle = rng.gamma(looks, 1 / looks, (1, height, width)).astype(np.float32)
        pixels = (pixels - pixels.min()) * speckle
    return pixels


def degrade(rng: np.random.Generator, pixels: Floats) -> Floats:
    """Apply dead bands, haze and low light, each with probability ``LIKELY``.

    Args:
        rng: The only source of randomness.
        pixels: (band, y, x) scaled to deviation 1; not changed.

    Returns:
        float32 (band, y, x) of any scale; ``pixels`` itself without an effect.
    """
    likely = rng.random(3) < LIKELY
    if likely[0] and len(pixels) <= 4:  # cameras at night
        pixels = low_light(rng, pixels)
    if likely[1] and len(pixels) > 1:
        pixels = haze(rng, pixels)
    if likely[2] and len(pixels) >= SPECTRAL:
        pixels = dead_bands(rng, pixels)
    return pixels


def dead_bands(rng: np.random.Generator, pixels: Floats) -> Floats:
    """Fill up to a quarter of the bands with one value, or with noise without an image.

    Water vapour affects runs of neighbours, a broken detector a single band.
    """
    bands = len(pixels)
    out = pixels.copy()
    for _ in range(int(rng.integers(1, 4))):
        run = int(rng.integers(1, max(2, bands // 12 + 1)))
        first = int(rng.integers(bands - run + 1))
        level = rng.choice([0.0, 1.0])
        noise = rng.standard_normal((run, *out.shape[1:]), np.float32)
        out[first : first + run] = np.float32(rng.normal()) + np.float32(level) * noise
    return out


def haze(rng: np.random.Generator, pixels: Floats) -> Floats:
    """Hide up to 70 % of the ground by a smooth veil, most in the first bands (mostly blue).

    Koschmieder's law: seen = ground * t + light * (1 - t), with a transmission t per pixel and
    band.
    """
    bands, height, width = pixels.shape
    knots = rng.random((5, 5))
    zoom = (height / 5, width / 5)
    veil = np.clip(ndimage.zoom(knots, zoom, order=1, grid_mode=True, mode="nearest"), 0, 1)
    wavelength = np.linspace(1, rng.uniform(1.5, 4), bands)  # relative to the first band's
    depth = log_uniform(rng, 0.1, 1.2) * wavelength ** -rng.uniform(0.5, 3)
    transmission = np.exp(-depth[:, None, None] * veil).astype(np.float32)
    light = np.float32(rng.uniform(1, 4))  # brighter than most of the ground
    return pixels * transmission + light * (1 - transmission)


def low_light(rng: np.random.Generator, pixels: Floats) -> Floats:
    """Draw few photons from a Poisson distribution, so that dark parts are mostly noise."""
    low = pixels.min()
    light = (pixels - low) / max(float(pixels.max() - low), 1e-6)
    light = light ** np.float32(rng.uniform(0.7, 2.5))  # nights are dark, with few lamps
    full = log_uniform(rng, *FULL_WELL)
    return rng.poisson(light * full).astype(np.float32) / np.float32(full)
