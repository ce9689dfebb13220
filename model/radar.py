"""Radar windows: clutter of sea, land and towns, bright targets, speckle, saturated amplitudes.

Intensities are drawn first, and seen through speckle afterwards, as a radar does: sqrt(intensity x
gamma(looks)), a spread, and a clip. A town is dense bright texture and normal; a ship or a vehicle
is bright against what is around it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from targets import ANOMALY, LARGE, RIM, Patch, Window, around, coverage, label, log_uniform, place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

LOOKS = (1, 60)
"""Independent samples per pixel; what the network sees is a mean of pixels too."""
CONTRAST = (3, 60)
"""Intensity of a target relative to the brighter of its surroundings."""
BRIGHT = 0.85
"""Share of targets that are brighter than their surroundings; the others are darker."""


def draw(rng: np.random.Generator, side: int, empty: float) -> Window:
    """Simulate one window (1 or 2 polarisations, ``side`` px) and its labels."""
    ground = clutter(rng, side)
    labels = np.zeros((side, side), np.uint8)
    window = Window(pixels=ground[None], labels=labels)
    _plant_structures(rng, window)
    if rng.random() >= empty:
        _plant_targets(rng, window)
    intensity = _spread(rng, window.pixels[0])
    bands = 2 if rng.random() < 0.35 else 1
    amplitude, clip = rng.choice([0.5, 0.5, 1.0, 0.25]), rng.choice([95, 99, 99.8, 100])
    looks = log_uniform(rng, *LOOKS)
    seen = []
    for band in range(bands):  # the second, cross-polarised, is fainter and has a floor
        floor = band * rng.uniform(0, 0.3) * float(np.median(intensity))
        speckle = rng.gamma(looks, 1 / looks, intensity.shape)
        value = ((intensity + floor) * speckle) ** amplitude
        seen.append(np.minimum(value, np.percentile(value, clip)))
    return Window(pixels=np.stack(seen).astype(np.float32), labels=labels)


def clutter(rng: np.random.Generator, side: int) -> Floats:
    """Draw the intensity (y, x) of sea, land and towns; the sea is about 1."""
    ground = np.exp(rng.uniform(0, 0.4) * _noise(rng, side, log_uniform(rng, 1, 20)))
    if rng.random() < 0.7:
        shore = _noise(rng, side, side / rng.uniform(2, 8))
        land = shore > rng.normal(0, 0.8)
        fields = np.exp(rng.uniform(0, 0.8) * np.round(_noise(rng, side, side / 10)))
        rough = np.exp(rng.uniform(0.1, 0.9) * _noise(rng, side, log_uniform(rng, 0.5, 4)))
        ground = np.where(land, log_uniform(rng, 1.5, 20) * fields * rough, ground)
        if rng.random() < 0.6:
            built = land & (_noise(rng, side, side / rng.uniform(4, 12)) > rng.uniform(-0.5, 1))
            ground = ground + built * _scatterers(rng, side) * log_uniform(rng, 3, 60)
    kept: Floats = ground.astype(np.float32)
    return kept


def _noise(rng: np.random.Generator, side: int, scale: float) -> NDArray[np.float64]:
    """Return smooth noise (y, x) of deviation 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal((side, side)), scale, mode="reflect")
    return (noise - noise.mean()) / max(float(noise.std()), 1e-9)


def _scatterers(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Return buildings: points and lines in rows of one direction, of very different strength."""
    y, x = np.mgrid[:side, :side].astype(float)
    angle = rng.uniform(0, np.pi)
    along, across = y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)
    row, block = log_uniform(rng, 2.5, 9), log_uniform(rng, 2, 20)
    phase = across / row
    line = np.exp(-0.5 * (np.abs(phase - np.round(phase)) * row / rng.uniform(0.6, 1.5)) ** 2)
    number = np.round(phase).astype(int), np.floor(along / block).astype(int)
    strength = rng.exponential(1, (61, 61)) * (rng.random((61, 61)) < rng.uniform(0.4, 1))
    lines = line * strength[number[0] % 61, number[1] % 61]
    points = rng.exponential(1, (side, side)) * (rng.random((side, side)) < rng.uniform(0, 0.2))
    return lines + points


def _plant_structures(rng: np.random.Generator, window: Window) -> None:
    """Plant quays, halls and dark areas in place: large, and normal."""
    side = window.labels.shape[0]
    for _ in range(int(rng.choice([0, 1, 3], p=[0.5, 0.3, 0.2]))):
        patch = place(rng, coverage(rng, log_uniform(rng, 0.03, 0.3) * side**2), side)
        if patch.alpha.size:
            _mix(rng, window, patch, log_uniform(rng, 0.1, 20), rng.uniform(0, 0.8))
            label(window, patch, LARGE)


def _plant_targets(rng: np.random.Generator, window: Window) -> None:
    """Plant ships or vehicles in place, alone or in a crowd of one kind."""
    side = window.labels.shape[0]
    crowd = rng.random() < 0.35
    count = int(log_uniform(rng, 10, 70) if crowd else log_uniform(rng, 1, 10))
    typical = log_uniform(rng, 3, 40) if crowd else log_uniform(rng, 2, 0.04 * side**2)
    centre, reach = rng.integers(0, side, 2), side * rng.uniform(0.2, 0.7) if crowd else None
    sign = 1 if rng.random() < BRIGHT else -1
    for _ in range(count):
        shape = coverage(rng, typical * log_uniform(rng, 0.5, 2))
        patch = place(rng, shape, side, centre if crowd else None, reach)
        if patch.alpha.size == 0 or patch.alpha.max() < RIM[1]:
            continue
        contrast = log_uniform(rng, *CONTRAST) ** sign
        _mix(rng, window, patch, contrast, rng.uniform(0.1, 1))
        label(window, patch, ANOMALY)


def _mix(
    rng: np.random.Generator, window: Window, patch: Patch, contrast: float, grain: float
) -> None:
    """Mix in a target ``contrast`` times as bright as its surroundings; ``grain`` is its texture.

    Brighter ones are compared with the bright part of the surroundings, as towns hide what is not.
    """
    near = around(window, patch)[0]
    level = float(np.percentile(near, 80) if contrast > 1 else np.median(near))
    texture = np.exp(grain * rng.standard_normal(patch.alpha.shape))
    under = window.pixels[0, patch.rows, patch.cols]
    under += (patch.alpha * (level * contrast * texture - under)).astype(np.float32)


def _spread(rng: np.random.Generator, intensity: Floats) -> Floats:
    """Blur by the impulse response; the brightest leave faint lines along range and azimuth."""
    seen = ndimage.gaussian_filter(intensity, rng.uniform(0, 0.8))
    if rng.random() < 0.4:
        share = log_uniform(rng, 1e-3, 3e-2)
        for axis in (0, 1):
            seen = seen + share * ndimage.gaussian_filter1d(intensity, rng.uniform(2, 8), axis)
    return seen
