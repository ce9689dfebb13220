"""Windows without anomalies: every pixel over the threshold is a false alarm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import imagery
import numpy as np
from scipy import ndimage

from uniadrs_scale.demo.landscape import background

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SIDE = 128
"""Side of a window [px]. Each is a scene, scaled by its own statistics."""
BANDS = (1, 3, 4, 6, 12, 60)
"""Bands of generated windows, in turn."""
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


def generated(number: int, seed: int) -> list[imagery.Image]:
    """Return landscapes with fields, roads, towns and water, without anomalies."""
    return [
        _window(
            f"generated {order}",
            background(np.random.default_rng([seed, order]), BANDS[order % len(BANDS)], SIDE, SIDE),
        )
        for order in range(number)
    ]


def real(folder: Path, number: int, seed: int) -> list[imagery.Image]:
    """Return windows of water and fields of the multispectral training scenes.

    They are at random places, away from ships and nodata, and no pixel stands out (see
    :data:`CONTRAST`, :data:`TEXTURE`): the calmest of every scene, then the second, and so on.
    """
    images = [*imagery.ports(folder), *imagery.multispectral(folder)]
    found: list[tuple[int, imagery.Image]] = []  # with its rank in its scene
    for order, image in enumerate(images):
        if min(image.pixels.shape[1:]) >= SIDE:
            found += enumerate(_calmest(image, np.random.default_rng([seed, order])))
    found.sort(key=lambda pair: pair[0])
    return [window for _, window in found[:number]]


def _calmest(image: imagery.Image, rng: np.random.Generator) -> Iterator[imagery.Image]:
    """Yield windows of a scene that do not overlap, calmest first."""
    contrast = _contrast(image.scaled())
    # Ships and nodata get a contrast that is never accepted.
    contrast[:, ndimage.binary_dilation(image.targets, iterations=APART)] = np.inf
    contrast[:, (image.pixels == 0).all(axis=0)] = np.inf
    limits = [size - SIDE + 1 for size in image.targets.shape]
    corners = [
        (int(rng.integers(limits[0])), int(rng.integers(limits[1]))) for _ in range(CANDIDATES)
    ]
    highest = {(r, c): float(contrast[:, r : r + SIDE, c : c + SIDE].max()) for r, c in corners}
    taken: list[tuple[int, int]] = []
    for row, col in sorted(highest, key=highest.__getitem__):
        if highest[row, col] > CONTRAST or len(taken) == EACH:
            break
        part = np.s_[:, row : row + SIDE, col : col + SIDE]
        if np.sqrt(np.square(contrast[part]).mean(axis=(1, 2))).max() > TEXTURE:
            continue
        window = _window(f"{image.name} {row},{col}", image.pixels[part])
        apart = all(max(abs(row - r), abs(col - c)) >= SIDE for r, c in taken)
        if apart and _contrast(window.scaled()).max() <= OUTSTANDING:
            taken.append((row, col))
            yield window


def _contrast(scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the difference (band, y, x) of every pixel from the mean around it."""
    return np.abs(scaled - ndimage.uniform_filter(scaled, (0, 15, 15)))


def _window(name: str, pixels: NDArray[np.generic]) -> imagery.Image:
    nothing = np.zeros(pixels.shape[1:], bool)
    return imagery.Image(name=name, pixels=pixels, targets=nothing, counted=~nothing)
