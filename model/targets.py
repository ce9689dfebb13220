"""One target: its shape, its place, and how it is mixed and labelled into a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

ANOMALY, IGNORED, LARGE, REAL = 1, 2, 3, 4
"""Labels; 0 is background. ``LARGE`` is a large normal object, ``REAL`` background of a real scene,
which may hold anomalies without a label."""
RIM = (0.08, 0.4)
"""Share of a target in a pixel: less is background, more is target, between is ignored."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """Pixels and labels of one window; planting changes both in place."""

    pixels: Floats
    """(band, y, x), scaled."""
    labels: NDArray[np.uint8]
    """(y, x): 0 background, ANOMALY, IGNORED, LARGE or REAL."""


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a value in low..high with uniform logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _grid(
    rng: np.random.Generator, radius: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coordinates [px] of a patch around a rotated centre with a sub-pixel shift."""
    half = int(np.ceil(radius)) + 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    y, x = y - rng.uniform(-0.5, 0.5), x - rng.uniform(-0.5, 0.5)
    angle = rng.uniform(0, np.pi)
    return y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)


def _bar(y: NDArray[np.float64], x: NDArray[np.float64], a: float, b: float) -> Floats:
    """Return the coverage of a rectangle of half sides a and b [px], edges one pixel soft."""
    inside = np.clip(a - np.abs(y) + 0.5, 0, 1) * np.clip(b - np.abs(x) + 0.5, 0, 1)
    # A side shorter than a pixel covers part of it.
    return (inside * min(1, 2 * a) * min(1, 2 * b)).astype(np.float32)


def rectangle(rng: np.random.Generator, area: float) -> Floats:
    """Draw a rotated rectangle of ``area`` px, sides up to 1:6: roofs, vehicles, ships."""
    aspect = log_uniform(rng, 1, 6)
    a, b = np.sqrt(area / aspect) / 2, np.sqrt(area * aspect) / 2
    y, x = _grid(rng, float(np.hypot(a, b)))
    return _bar(y, x, a, b)


def ellipse(rng: np.random.Generator, area: float) -> Floats:
    """Draw a rotated ellipse of ``area`` px, axes up to 1:4: tanks, points of light, ships."""
    aspect = log_uniform(rng, 1, 4)
    a, b = np.sqrt(area / np.pi / aspect), np.sqrt(area / np.pi * aspect)
    y, x = _grid(rng, b)
    rho = np.sqrt((y / a) ** 2 + (x / b) ** 2)
    return np.clip((1 - rho) * a + 0.5, 0, 1).astype(np.float32) * np.float32(min(1, area))


def aircraft(rng: np.random.Generator, area: float) -> Floats:
    """Draw a fuselage, wings and a tail of ``area`` px together."""
    length = np.sqrt(area / rng.uniform(0.25, 0.45))
    thin = area / length / rng.uniform(3.2, 4.2)
    y, x = _grid(rng, length * 0.75)
    wing = length * rng.uniform(0.35, 0.5)
    parts = [
        _bar(y, x, thin, length / 2),
        _bar(y, x - length * 0.05 + np.abs(y) * rng.uniform(0, 0.5), wing, thin),
        _bar(y, x + length * 0.42, wing * 0.4, thin),
    ]
    return np.maximum.reduce(parts)


def blob(rng: np.random.Generator, area: float) -> Floats:
    """Draw an irregular patch of about ``area`` px: smooth noise cut at a level."""
    radius = np.sqrt(area / np.pi)
    y, x = _grid(rng, radius * 1.6)
    noise = ndimage.gaussian_filter(rng.standard_normal(y.shape), max(radius * 0.6, 0.5))
    rho = np.hypot(y, x) / radius + 0.3 * noise / (noise.std() + 1e-9)
    return np.clip((1 - rho) * radius + 0.5, 0, 1).astype(np.float32)


SHAPES: tuple[Callable[[np.random.Generator, float], Floats], ...] = (
    rectangle,
    rectangle,
    ellipse,
    aircraft,
    blob,
)


def coverage(rng: np.random.Generator, area: float) -> Floats:
    """Draw the share of a target of ``area`` px in each pixel, 0..1, after a point spread."""
    shape = SHAPES[rng.integers(len(SHAPES))](rng, area)
    if rng.random() < 0.6:
        shape = ndimage.gaussian_filter(np.pad(shape, 2), rng.uniform(0.3, 0.9))
    return shape


@dataclass(frozen=True, slots=True)
class Patch:
    """The place of a coverage in a window, cut at the window's edges."""

    rows: slice
    cols: slice
    alpha: Floats
    """(y, x) share of the target, 0..1."""


def place(
    rng: np.random.Generator,
    shape: Floats,
    side: int,
    around: NDArray[np.integer] | None = None,
    reach: float | None = None,
) -> Patch:
    """Place a coverage at random, with its centre in the window or near a given point."""
    height, width = shape.shape
    if around is None or reach is None:
        middle = rng.integers(0, side, 2)
    else:
        middle = np.clip(np.rint(around + rng.uniform(-reach, reach, 2)), 0, side - 1).astype(int)
    top, left = (int(m) - n // 2 for m, n in zip(middle, (height, width), strict=True))
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + height, side), min(left + width, side)
    return Patch(slice(y0, y1), slice(x0, x1), shape[y0 - top : y1 - top, x0 - left : x1 - left])


def around(window: Window, patch: Patch, margin: int = 6) -> Floats:
    """Return the pixels (band, y, x) of a patch and of ``margin`` px around it."""
    rows = slice(max(patch.rows.start - margin, 0), patch.rows.stop + margin)
    cols = slice(max(patch.cols.start - margin, 0), patch.cols.stop + margin)
    return window.pixels[:, rows, cols]


def surroundings(window: Window, patch: Patch, margin: int = 6) -> tuple[Floats, float]:
    """Return mean spectrum (band,) and texture (rms deviation over bands) around a patch."""
    near = around(window, patch, margin)
    step = max(1, near.shape[1] // 12)
    near = near[:, ::step, ::step].reshape(len(near), -1)
    mean = near.mean(axis=1)
    return mean, float(np.sqrt(np.square(near - mean[:, None]).mean()))


def mix(window: Window, patch: Patch, content: Floats) -> None:
    """Mix target and background linearly.

    Args:
        window: Changed in place.
        patch: The place, and the target's share of each pixel.
        content: (band, y, x) pixels of the target.
    """
    under = window.pixels[:, patch.rows, patch.cols]
    alpha = patch.alpha[None]
    under *= 1 - alpha
    under += content * alpha


def label(window: Window, patch: Patch, value: int) -> None:
    """Label a target and its rim, in place; a rim does not hide another target."""
    under = window.labels[patch.rows, patch.cols]
    under[(patch.alpha > RIM[0]) & (under != ANOMALY)] = IGNORED if value == ANOMALY else value
    under[patch.alpha >= RIM[1]] = value
