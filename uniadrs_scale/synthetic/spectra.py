"""Random materials: smooth reflectance spectra over any set of wavelengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPECTROMETER = 20
"""From this many bands on, a sensor samples the spectrum evenly."""

Kind = Literal["vegetation", "soil", "water", "built", "any"]


def wavelengths(rng: np.random.Generator, bands: int) -> NDArray[np.float64]:
    """(band,) increasing centres in micrometres of an invented sensor, within 0.4 .. 2.4."""
    last = rng.choice([0.9, 1.0, 2.4])
    if bands >= SPECTROMETER:
        return np.linspace(0.4, last, bands)
    return np.sort(rng.uniform(0.42, last, bands))


def smooth(rng: np.random.Generator, waves: NDArray[np.float64]) -> NDArray[np.float64]:
    """(band,) a random smooth curve of magnitude about 1: offset, slope and four bumps."""
    span = (waves - 0.4) / 2.0
    centres, widths = rng.uniform(-0.1, 1.1, 4), np.exp(rng.uniform(-3.5, -0.7, 4))
    bumps = np.exp(-np.square((span[:, None] - centres) / widths))
    curve = rng.normal(0, 0.7) + rng.normal(0, 0.7) * (span - 0.5) + bumps @ rng.normal(0, 0.7, 4)
    return np.asarray(curve)


def material(
    rng: np.random.Generator, waves: NDArray[np.float64], kind: Kind
) -> NDArray[np.float32]:
    """A random spectrum of one kind of land cover.

    Args:
        rng: Source of all randomness.
        waves: (band,) micrometres.
        kind: What it should resemble; ``any`` is an arbitrary smooth curve, which stands for
            sensors that do not measure reflectance at all.

    Returns:
        float32 (band,), reflectance in 0.005 .. 0.95.
    """
    curve = _SHAPES[kind](rng, waves)
    curve = curve * (1 + 0.08 * smooth(rng, waves))
    return np.asarray(np.clip(curve, 0.005, 0.95), np.float32)


def _bump(waves: NDArray[np.float64], centre: float, width: float) -> NDArray[np.float64]:
    return np.asarray(np.exp(-np.square((waves - centre) / width)))


def _vegetation(rng: np.random.Generator, waves: NDArray[np.float64]) -> NDArray[np.float64]:
    red_edge = 1 / (1 + np.exp(-(waves - rng.uniform(0.705, 0.725)) / 0.015))
    wetness = rng.uniform(0.3, 0.9)
    infrared = np.heaviside(waves - 1.3, 1)
    dips = 0.5 * _bump(waves, 1.45, 0.1) + 0.8 * _bump(waves, 1.94, 0.15) + 0.35 * infrared
    visible = rng.uniform(0.02, 0.05) + rng.uniform(0.02, 0.07) * _bump(waves, 0.555, 0.045)
    dryness = 0.07 * rng.uniform(0, 1) ** 3 * np.heaviside(waves - 0.6, 1)
    plateau = rng.uniform(0.18, 0.45) * np.clip(1 - wetness * dips, 0.05, 1)
    return np.asarray(visible + dryness + plateau * red_edge)


def _soil(rng: np.random.Generator, waves: NDArray[np.float64]) -> NDArray[np.float64]:
    rise = 1 - np.exp(-(waves - 0.33) / rng.uniform(0.15, 0.6))
    return np.asarray(rng.uniform(0.02, 0.06) + rng.uniform(0.12, 0.42) * rise)


def _water(rng: np.random.Generator, waves: NDArray[np.float64]) -> NDArray[np.float64]:
    clear = rng.uniform(0.02, 0.08) * np.exp(-(waves - 0.4) / rng.uniform(0.08, 0.2))
    murky = rng.uniform(0, 0.05) * _bump(waves, 0.57, 0.08)
    return np.asarray(0.008 + clear + murky)


def _built(rng: np.random.Generator, waves: NDArray[np.float64]) -> NDArray[np.float64]:
    grey = rng.uniform(0.07, 0.28)
    return np.asarray(grey * (1 + 0.3 * smooth(rng, waves)) + rng.uniform(0, 0.08) * (waves - 0.4))


def _any(rng: np.random.Generator, waves: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rng.uniform(0.03, 0.6) * (1 + 0.45 * smooth(rng, waves)))


_SHAPES = {
    "vegetation": _vegetation,
    "soil": _soil,
    "water": _water,
    "built": _built,
    "any": _any,
}
