"""Windows without anomalies: every object over a threshold is a false one.

Each window is a scene, scaled by its own statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import imagery
import numpy as np
import sensors
from scipy import ndimage

from uniadrs_scale.demo.landscape import background

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SPECTRA, FEW_BANDS = (30, 60, 120), (3, 4, 6, 12)
"""Bands of generated hyperspectral and multispectral windows, at random."""
REAL, MOSTLY = 200, 0.5
"""Most real multispectral windows, and the share of a radar window that must have data."""
CANDIDATES, EACH = 300, 4
"""Windows examined per real scene, and most windows used of it."""
APART = 20
"""Least distance of a real window from a labelled ship [px]."""
CONTRAST, OUTSTANDING = 2.5, 6.0
"""Largest difference between a pixel of a calm window and the mean of the 15 px around it, in
standard deviations of its scene and of the window itself, in any band."""
TEXTURE = 0.45
"""Largest root mean square of these differences, in standard deviations of the scene: towns have
more, fields and water less."""


def generated(preset: str, side: int, seed: int, order: int) -> imagery.Image:
    """Return a landscape without anomalies, as a sensor of this preset records it."""
    rng = np.random.default_rng([seed, order])
    name = f"generated {order}"
    if preset in ("hyperspectral", "multispectral"):
        choices = SPECTRA if preset == "hyperspectral" else FEW_BANDS
        return _window(name, background(rng, int(rng.choice(choices)), side, side))
    pixels = background(rng, 1, side, side)
    if preset == "sar":
        pixels = speckled(rng, pixels)
    elif preset == "infrared":
        blurred = ndimage.gaussian_filter(pixels, (0, *[rng.uniform(1, 3)] * 2))
        noise = rng.uniform(0.01, 0.1) * blurred.std()
        pixels = blurred + np.float32(noise) * rng.standard_normal(pixels.shape, np.float32)
    elif preset == "low-light":
        pixels = sensors.low_light(rng, pixels)
    return _window(name, pixels)


def speckled(rng: np.random.Generator, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return radar amplitude: multiplied by speckle that neighbouring pixels share."""
    looks = rng.uniform(0.5, 4)
    power = rng.gamma(looks, 1 / looks, pixels.shape).astype(np.float32)
    power = ndimage.gaussian_filter(power, (0, *[rng.uniform(0.4, 1.2)] * 2))
    level = np.maximum(pixels - pixels.min(), 0.02)
    return np.asarray(level * np.sqrt(power), np.float32)


def real(preset: str, training: Path, side: int, seed: int) -> list[imagery.Image]:
    """Return windows of real scenes of this preset without labelled targets; may be empty.

    Infrared frames are used whole, without the surroundings of their targets.
    """
    if preset == "multispectral":
        return calm(training / "multispectral", REAL, seed, side)
    if preset == "sar":
        return [
            window
            for image in imagery.sar(training / "sar")
            for window in _grid(image, side)
            if (window.pixels > 0).mean() > MOSTLY
        ]
    if preset != "infrared":
        return []
    return [_away_from_targets(image) for image in imagery.infrared(training / "infrared")]


def _grid(image: imagery.Image, side: int) -> Iterator[imagery.Image]:
    """Yield windows next to each other."""
    height, width = image.targets.shape
    for row in range(0, height - side + 1, side):
        for col in range(0, width - side + 1, side):
            part = image.pixels[:, row : row + side, col : col + side]
            yield _window(f"{image.name} {row},{col}", part)


def _away_from_targets(image: imagery.Image) -> imagery.Image:
    """Return the largest square frame, counted away from labelled targets."""
    side = min(image.targets.shape) // 16 * 16
    part = np.s_[:side, :side]
    near = ndimage.binary_dilation(image.targets[part], iterations=APART)
    return imagery.Image(
        name=image.name,
        pixels=image.pixels[:, :side, :side],
        targets=np.zeros((side, side), bool),
        counted=~near,
    )


def calm(folder: Path, number: int, seed: int, side: int) -> list[imagery.Image]:
    """Return windows of water and fields of the multispectral training scenes.

    They are at random places, away from ships and nodata, and no pixel stands out (see
    :data:`CONTRAST`, :data:`TEXTURE`): the calmest of every scene, then the second, and so on.
    """
    images = [*imagery.ports(folder), *imagery.multispectral(folder)]
    found: list[tuple[int, imagery.Image]] = []  # with its rank in its scene
    for order, image in enumerate(images):
        if min(image.pixels.shape[1:]) >= side:
            found += enumerate(_calmest(image, np.random.default_rng([seed, order]), side))
    found.sort(key=lambda pair: pair[0])
    return [window for _, window in found[:number]]


def _calmest(image: imagery.Image, rng: np.random.Generator, side: int) -> Iterator[imagery.Image]:
    """Yield windows of a scene that do not overlap, calmest first."""
    contrast = _contrast(image.scaled())
    # Ships and nodata get a contrast that is never accepted.
    contrast[:, ndimage.binary_dilation(image.targets, iterations=APART)] = np.inf
    contrast[:, (image.pixels == 0).all(axis=0)] = np.inf
    limits = [size - side + 1 for size in image.targets.shape]
    corners = [
        (int(rng.integers(limits[0])), int(rng.integers(limits[1]))) for _ in range(CANDIDATES)
    ]
    highest = {(r, c): float(contrast[:, r : r + side, c : c + side].max()) for r, c in corners}
    taken: list[tuple[int, int]] = []
    for row, col in sorted(highest, key=highest.__getitem__):
        if highest[row, col] > CONTRAST or len(taken) == EACH:
            break
        part = np.s_[:, row : row + side, col : col + side]
        if np.sqrt(np.square(contrast[part]).mean(axis=(1, 2))).max() > TEXTURE:
            continue
        window = _window(f"{image.name} {row},{col}", image.pixels[part])
        apart = all(max(abs(row - r), abs(col - c)) >= side for r, c in taken)
        if apart and _contrast(window.scaled()).max() <= OUTSTANDING:
            taken.append((row, col))
            yield window


def _contrast(scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the difference (band, y, x) of every pixel from the mean around it."""
    return np.abs(scaled - ndimage.uniform_filter(scaled, (0, 15, 15)))


def _window(name: str, pixels: NDArray[np.generic]) -> imagery.Image:
    nothing = np.zeros(pixels.shape[1:], bool)
    return imagery.Image(name=name, pixels=pixels, targets=nothing, counted=~nothing)
