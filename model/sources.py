"""Real scenes that training windows are cut from: reading, drawing, cutting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import imagery
import numpy as np
from scipy import ndimage
from spectra import SPECTRAL
from targets import log_uniform

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A scaled scene to cut windows from."""

    pixels: Floats
    """(band, y, x), scaled."""
    ignored: NDArray[np.bool_]
    """(y, x), True on real targets and on pixels without data."""
    weight: float
    """Relative frequency of being drawn."""
    mean: NDArray[np.float64]
    """(band,) mean of each band in the file's units."""
    deviation: NDArray[np.float64]
    """(band,) standard deviation of each band in the file's units."""
    correlation: NDArray[np.float64]
    """(band, band) of the whole scene."""


def read_sources(folder: Path) -> list[Source]:
    """Read every training scene below ``folder``; real targets are ignored.

    A folder with the layout of the data README is read by kind of imagery, each with its share of
    the windows. Any other folder is read as plain rasters, at any depth, all equally often: see
    :func:`imagery.rasters`.

    Raises:
        ValueError: The folder is part of the validation imagery, holds it, or has no imagery.
    """
    if "validate" in folder.resolve().parts:
        raise ValueError(f"{folder} is validation imagery. Give the folder of training imagery.")
    spectral = folder / "multispectral"
    groups = [
        (imagery.hyperspectral(folder / "hyperspectral"), 4.0),
        (imagery.ports(spectral), 1.0),
        (imagery.multispectral(spectral), 1.5),
        (imagery.sar(folder / "sar"), 1.5),
        (imagery.infrared(folder / "infrared"), 2.0),
    ]
    sources = [
        _source(image, image.targets, share / len(images))
        for images, share in groups
        for image in images
    ]
    if not sources:
        if next(folder.rglob("validate"), None):
            raise ValueError(
                f"{folder} holds validation imagery. Give the folder of training imagery."
            )
        images = imagery.rasters(folder)
        sources = [_source(image, ~image.counted, 1 / len(images)) for image in images]
    if not sources:
        raise ValueError(f"{folder} holds no imagery. Give a folder of rasters or pictures.")
    return sources


def _source(image: imagery.Image, ignored: NDArray[np.bool_], weight: float) -> Source:
    dark = (image.pixels == 0).all(axis=0)
    pixels, ignored = image.scaled(), ignored | dark
    flat = pixels.reshape(len(pixels), -1)[:, :: max(1, ignored.size // 40_000)]
    return Source(
        pixels=pixels,
        ignored=ignored,
        weight=weight,
        mean=image.pixels.mean(axis=(1, 2), dtype=np.float64),
        deviation=image.pixels.std(axis=(1, 2), dtype=np.float64),
        correlation=(flat @ flat.T).astype(np.float64) / flat.shape[1],
    )


def draw_source(rng: np.random.Generator, sources: Sequence[Source], bands: int) -> Source:
    """Draw one of the sources (at least one) for a band count."""
    weights = np.array([affinity(s, bands) for s in sources])
    return sources[rng.choice(len(sources), p=weights / weights.sum())]


def affinity(source: Source, bands: int) -> float:
    """Return the weight of a source for a band count: cubes for many, grey scenes for one."""
    own = source.pixels.shape[0]
    if bands == 1:
        return source.weight * (3 if own == 1 else 1)
    if own == 1:
        return source.weight * (0.1 if bands < SPECTRAL else 0.02)
    return source.weight * (2 if own >= SPECTRAL and bands >= SPECTRAL else 1)


def cut(rng: np.random.Generator, source: Source, side: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Cut a square of ``side`` px, turned, and sometimes mirrored or at another scale."""
    height, width = source.ignored.shape
    zoom = log_uniform(rng, 0.6, 2) if rng.random() < 0.4 else 1.0
    want = max(16, min(round(side / zoom), height, width))
    for _ in range(4):  # look for a place with enough data
        top, left = int(rng.integers(height - want + 1)), int(rng.integers(width - want + 1))
        here = np.s_[top : top + want, left : left + want]
        if source.ignored[here].mean() < 0.3:
            break
    pixels, ignored = source.pixels[:, *here], source.ignored[here]
    # Nearest neighbour keeps the noise of each pixel; interpolation would reveal zoomed windows.
    index = np.minimum((np.arange(side) * want) // side, want - 1)
    pixels, ignored = pixels[:, index[:, None], index], ignored[index[:, None], index]
    if want < side:
        pixels = ndimage.uniform_filter1d(pixels, 2, axis=1)
        pixels = ndimage.uniform_filter1d(pixels, 2, axis=2)
    turns = int(rng.integers(4))
    pixels, ignored = np.rot90(pixels, turns, (1, 2)), np.rot90(ignored, turns)
    if rng.random() < 0.5:
        pixels, ignored = pixels[:, :, ::-1], ignored[:, ::-1]
    return pixels, ignored
