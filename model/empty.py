"""Windows without anything to find: whatever exceeds the threshold there is a false alarm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import imagery
import numpy as np
from scipy import ndimage

from uniadrs_scale.synthetic import background

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SIDE = 256
"""Side of a window [px]. Each is a scene of its own, scaled by its own statistics."""
BANDS = (1, 3, 4, 6, 12, 60)
"""Generated windows have these many bands in turn."""
CANDIDATES, EACH = 60, 3
"""Windows looked at in every real scene, and most of them taken."""
APART = 20
"""Pixels between a real window and the nearest labelled ship."""


def generated(number: int, seed: int) -> list[imagery.Image]:
    """Landscapes with fields, roads, towns and water, and nothing planted."""
    return [
        _window(
            f"generated {order}",
            background(np.random.default_rng([seed, order]), BANDS[order % len(BANDS)], SIDE, SIDE),
        )
        for order in range(number)
    ]


def real(folder: Path, number: int, seed: int) -> list[imagery.Image]:
    """Water and fields of the multispectral training scenes, the calmest parts of each.

    Calm: the smallest highest contrast between a pixel and its neighbourhood, in units of the
    scene's standard deviation, so that nothing in the window stands out. No ship is near. At most
    three windows a scene, which do not overlap.
    """
    images = [*imagery.ports(folder), *imagery.multispectral(folder)]
    found: list[tuple[float, imagery.Image]] = []
    for order, image in enumerate(images):
        if min(image.pixels.shape[1:]) >= SIDE:
            found += _calmest(image, np.random.default_rng([seed, order]))
    found.sort(key=lambda pair: pair[0])
    return [window for _, window in found[:number]]


def _calmest(
    image: imagery.Image, rng: np.random.Generator
) -> Iterator[tuple[float, imagery.Image]]:
    """The calmest windows of a scene and their highest contrast, calmest first."""
    ships = ndimage.binary_dilation(image.targets, iterations=APART)
    scaled = image.scaled()
    dead = (image.pixels == 0).all(axis=0)
    contrast = np.abs(scaled - ndimage.uniform_filter(scaled, (0, 15, 15))).max(axis=0)
    limits = [size - SIDE + 1 for size in dead.shape]
    corners = [tuple(int(rng.integers(limit)) for limit in limits) for _ in range(CANDIDATES)]
    parts = {c: np.s_[c[0] : c[0] + SIDE, c[1] : c[1] + SIDE] for c in corners}
    usable = [c for c in parts if not (ships[parts[c]] | dead[parts[c]]).any()]
    taken: list[tuple[int, ...]] = []
    for corner in sorted(usable, key=lambda c: float(contrast[parts[c]].max())):
        apart = all(max(abs(a - b) for a, b in zip(corner, t, strict=True)) >= SIDE for t in taken)
        if apart and len(taken) < EACH:
            taken.append(corner)
            row, col = corner
            pixels = image.pixels[:, *parts[corner]]
            yield float(contrast[parts[corner]].max()), _window(f"{image.name} {row},{col}", pixels)


def _window(name: str, pixels: NDArray[np.generic]) -> imagery.Image:
    nothing = np.zeros(pixels.shape[1:], bool)
    return imagery.Image(name=name, pixels=pixels, targets=nothing, counted=~nothing)
