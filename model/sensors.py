"""What sensors and weather do to a window: noise, stripes, speckle; dead bands, haze, low light.

The latter are drawn with a generator of their own, so that a recipe without them draws the same
windows as ever.
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
"""Photons in a pixel of full brightness, at low light."""


def disturb(rng: np.random.Generator, pixels: Floats) -> Floats:
    """Noise, stripes and speckle of a sensor, none of them in half of the windows."""
    bands, height, width = pixels.shape
    if rng.random() < 0.3:  # noqa: PLR2004
        level = np.float32(log_uniform(rng, 0.02, 0.4))
        pixels = pixels + level * rng.standard_normal(pixels.shape, np.float32)
    if rng.random() < 0.08:  # noqa: PLR2004
        level = np.float32(log_uniform(rng, 0.02, 0.3))
        pixels = pixels + level * rng.standard_normal((bands, 1, width), np.float32)
    if bands <= 2 and rng.random() < 0.4:  # noqa: PLR2004 - radar: multiplicative, above a floor
        looks = rng.uniform(1, 8)
        speckle = rng.gamma(looks, 1 / looks, (1, height, width)).astype(np.float32)
        pixels = (pixels - pixels.min()) * speckle
    return pixels


def degrade(rng: np.random.Generator, pixels: Floats) -> Floats:
    """Dead bands, haze and low light, each now and then.

    Args:
        rng: The only source of randomness.
        pixels: (band, y, x) scaled to deviation 1; never changed.

    Returns:
        (band, y, x) float32, of no particular scale; ``pixels`` itself where nothing happens.
    """
    likely = rng.random(3) < LIKELY
    if likely[0] and len(pixels) <= 4:  # noqa: PLR2004 - cameras at night; radar knows no night
        pixels = low_light(rng, pixels)
    if likely[1] and len(pixels) > 1:
        pixels = haze(rng, pixels)
    if likely[2] and len(pixels) >= SPECTRAL:
        pixels = dead_bands(rng, pixels)
    return pixels


def dead_bands(rng: np.random.Generator, pixels: Floats) -> Floats:
    """Up to a quarter of the bands hold one value, or noise without an image.

    Water vapour takes runs of neighbours, a broken detector takes a single band.
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
    """A smooth veil hides up to 70 % of the ground; the first bands, mostly blue, most of it.

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
    """Few photons: their number is Poisson distributed, so the dark parts drown in noise."""
    low = pixels.min()
    light = (pixels - low) / max(float(pixels.max() - low), 1e-6)
    light = light ** np.float32(rng.uniform(0.7, 2.5))  # a night is darker than dim: few lamps
    full = log_uniform(rng, *FULL_WELL)
    return rng.poisson(light * full).astype(np.float32) / np.float32(full)
