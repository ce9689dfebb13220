"""Objects planted into a window: small anomalies, and large objects and roads that are normal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from sources import draw_source
from spectra import ENERGY, SPECTRAL, Space, contrasted, signature
from targets import ANOMALY, LARGE, RIM, Patch, Window, coverage, label, log_uniform, mix, place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sources import Source

    Floats = NDArray[np.float32]

Group = Literal["few", "crowd", "large"]
COUNT: dict[Group, tuple[float, float]] = {"few": (1, 14), "crowd": (10, 40), "large": (1, 5)}
"""Targets in a window."""
AREA: dict[Group, tuple[float, float]] = {"few": (1, 40), "crowd": (2, 20)}
"""Area of a typical target [px]; a large one has 40 px up to a twentieth of its window."""


def plant_anomalies(
    rng: np.random.Generator, window: Window, sources: Sequence[Source], space: Space
) -> None:
    """Plant a few small targets, often of one signature, in place."""
    side = window.labels.shape[0]
    kind = draw_group(rng, len(window.pixels))
    crowd = kind == "crowd"
    count = int(log_uniform(rng, *COUNT[kind]))
    typical = log_uniform(rng, *((40, 0.05 * side**2) if kind == "large" else AREA[kind]))
    by_energy = len(window.pixels) >= SPECTRAL and rng.random() < 0.75
    shared = (
        draw_signature(rng, window, sources, space)
        if rng.random() < (0.85 if crowd else 0.6)
        else None
    )
    want = log_uniform(rng, *ENERGY)
    centre, reach = rng.integers(0, side, 2), side * rng.uniform(0.12, 0.5) if crowd else None
    for _ in range(count):
        shape = coverage(rng, typical * log_uniform(rng, 0.5, 2))
        patch = place(rng, shape, side, centre if crowd else None, reach)
        if patch.alpha.size == 0 or patch.alpha.max() < RIM[1]:
            continue
        spectrum = draw_signature(rng, window, sources, space) if shared is None else shared
        if by_energy:
            spectrum = space.rescaled(
                rng, spectrum, None if shared is None else want * log_uniform(rng, 0.6, 1.6)
            )
        else:
            spectrum = contrasted(rng, window, patch, spectrum)
        content = grainy(rng, spectrum, patch, 0.25)
        opaque = np.float32(1 if rng.random() < 0.7 else rng.uniform(0.4, 1))
        mix(window, Patch(patch.rows, patch.cols, patch.alpha * opaque), content)
        label(window, patch, ANOMALY)


def draw_group(rng: np.random.Generator, bands: int) -> Group:
    """Draw the kind of targets of a window."""
    # Radar and grey scenes are finer than spectral ones: a ship has hundreds of pixels.
    if rng.random() < (0.4 if bands <= 2 else 0.1):
        return "large"
    # Ships in a port, cars, tanks and roofs come in crowds.
    return "crowd" if rng.random() < 0.3 else "few"


def grainy(rng: np.random.Generator, spectrum: Floats, patch: Patch, most: float) -> Floats:
    """Return (band, y, x): a spectrum whose brightness varies between pixels by up to ``most``."""
    grain = rng.normal(1, rng.uniform(0, most), patch.alpha.shape).astype(np.float32)
    return spectrum[:, None, None] * grain


def plant_normal(
    rng: np.random.Generator, window: Window, sources: Sequence[Source], space: Space
) -> None:
    """Plant large objects and roads, in place: normal, even if their material is strange."""
    side = window.labels.shape[0]
    kinds = ["large"] * int(rng.choice([0, 1, 2, 4], p=[0.45, 0.3, 0.15, 0.1]))
    kinds += ["road"] * int(rng.choice([0, 1, 3], p=[0.8, 0.12, 0.08]))
    for kind in kinds:
        large = kind == "large"
        area = log_uniform(rng, 0.03, 0.4) * side**2
        patch = place(rng, coverage(rng, area) if large else road(rng, side), side)
        if patch.alpha.size == 0:
            continue
        content = texture(rng, window, sources, patch, space) if large else None
        if content is None:
            spectrum = draw_signature(rng, window, sources, space)
            if len(window.pixels) >= SPECTRAL and rng.random() < 0.5:
                spectrum = space.rescaled(rng, spectrum)
            else:
                spectrum = contrasted(rng, window, patch, spectrum)
            content = grainy(rng, spectrum, patch, 0.2)
        mix(window, patch, content)
        label(window, patch, LARGE)


def draw_signature(
    rng: np.random.Generator, window: Window, sources: Sequence[Source], space: Space
) -> Floats:
    """Draw a spectrum (band,) that the window may not contain."""
    if len(window.pixels) >= SPECTRAL and rng.random() < 0.4:
        return space.rare(rng)
    return signature(rng, window, sources)


def texture(
    rng: np.random.Generator,
    window: Window,
    sources: Sequence[Source],
    patch: Patch,
    space: Space,
) -> Floats | None:
    """Return a piece (band, y, x) of another scene with its real pixels; sometimes None."""
    if not sources or rng.random() < 0.4:
        return None
    bands = len(window.pixels)
    other = draw_source(rng, sources, bands).pixels
    height, width = patch.alpha.shape
    top, left = (
        int(rng.integers(max(n - m, 0) + 1))
        for n, m in zip(other.shape[1:], (height, width), strict=True)
    )
    rows = np.minimum(top + np.arange(height), other.shape[1] - 1)
    cols = np.minimum(left + np.arange(width), other.shape[2] - 1)
    index = np.linspace(0, len(other) - 1, bands).round().astype(int)
    piece = other[index][:, rows[:, None], cols]
    mean = piece.mean(axis=(1, 2))
    if bands >= SPECTRAL and rng.random() < 0.7:
        moved = space.rescaled(rng, mean)
        size = float(np.abs(mean).mean()) + 0.3
        piece = (piece - mean[:, None, None]) * (float(np.abs(moved).mean()) / size) + moved[
            :, None, None
        ]
    return piece.astype(np.float32)


def road(rng: np.random.Generator, side: int) -> Floats:
    """Return the coverage of a bent line of 1 to 5 px in a window of twice the side."""
    y, x = np.mgrid[-side : side + 1, -side : side + 1].astype(np.float32)
    angle, bend = rng.uniform(0, np.pi), rng.normal(0, 0.3) / side
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle) + bend * along**2
    return np.clip(rng.uniform(0.5, 2.5) - np.abs(across) + 0.5, 0, 1).astype(np.float32)
