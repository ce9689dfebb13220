"""Baselines on whole images, at the resolution that the network sees: RX, local RX, intensity.

RX (Reed and Yu, IEEE TASSP 38, 1990) is the squared Mahalanobis distance from the image's mean,
local RX that from the mean of a ring around the pixel. Maps have no upper limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from uniadrs_scale.core.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

RIDGE = 1e-4
"""Added to every variance of whitened data, a hundredth of a standard deviation: in a flat ring,
rounding would be an anomaly."""
COMPONENTS = 60
"""Principal components kept by the usual RX of hyperspectral scenes."""
LOCAL_COMPONENTS = 20
"""Principal components kept by local RX: a ring has a few hundred pixels to estimate a covariance
from (10 and 30 are not better on hyperspectral scenes)."""
STRIP = 2**18
"""Pixels whose local covariances are in memory at a time."""


@dataclass(frozen=True, slots=True)
class Ring:
    """The surroundings of a pixel: a square without the square inside it."""

    inner: int
    """Side of the square inside the ring [px], odd: as large as a target."""
    outer: int
    """Side of the ring [px], odd."""


TINY, SMALL, LARGE = Ring(7, 15), Ring(15, 25), Ring(31, 45)
RINGS: Mapping[str, Ring] = {
    "multispectral": LARGE,
    "sar": LARGE,
    "visible": LARGE,
    "infrared": TINY,
}
"""One setting per modality, for every image of it; others get :data:`SMALL`.

The best of (7, 15), (11, 21), (15, 25), (21, 31) and (31, 45) by mean AUC(D,F) on the validation
scenes (within .001 for low light), in favour of the baseline.
"""


def whitened(pixels: NDArray[np.generic], components: int | None = None) -> NDArray[np.float64]:
    """Return principal components of variance 1 (component, y, x), the strongest first.

    Args:
        pixels: (band, y, x), any real dtype.
        components: Most components; None: all. Those without variance (to rounding) are dropped.
    """
    bands, height, width = pixels.shape
    values = pixels.reshape(bands, -1).astype(np.float64)
    values -= values.mean(axis=1, keepdims=True)
    strength, axes = np.linalg.eigh(values @ values.T / values.shape[1])
    order = np.argsort(strength)[::-1][:components]
    kept = order[strength[order] > max(strength.max(), 0) * 1e-12 + np.finfo(float).tiny]
    scores = (axes[:, kept] / np.sqrt(strength[kept])).T @ values
    return scores.reshape(-1, height, width)


def rx(pixels: NDArray[np.generic], components: int | None = None) -> NDArray[np.float32]:
    """Return global RX (y, x) of (band, y, x), on all or on the strongest components."""
    return np.square(whitened(pixels, components)).sum(axis=0).astype(np.float32)


def local_rx(
    pixels: NDArray[np.generic], ring: Ring, components: int = LOCAL_COMPONENTS
) -> NDArray[np.float32]:
    """Return local RX (y, x) of (band, y, x), by mean and covariance of the ring of each pixel.

    At the image's edge the ring is cut.
    """
    parts = whitened(pixels, components)
    bands, height, width = parts.shape
    result = np.zeros((height, width), np.float32)
    half = ring.outer // 2
    step = max(STRIP // (width * max(bands, 1)), 1)
    for top in range(0, height if bands else 0, step):
        first, last = max(top - half, 0), min(top + step + half, height)
        own = slice(top - first, min(top + step, height) - first)
        result[top : top + step] = _local_rx(parts[:, first:last], ring, own)
    return result


def _local_rx(parts: NDArray[np.float64], ring: Ring, own: slice) -> NDArray[np.float64]:
    """Return local RX of the rows ``own`` of a strip (component, y, x) with its surroundings.

    It is 0 where an image smaller than the ring leaves no pixel in it.
    """
    bands, around = len(parts), _ring_sum(np.ones(parts.shape[1:]), ring)[own].round()
    count = np.maximum(around, 1)
    mean = np.stack([_ring_sum(part, ring)[own] for part in parts], axis=-1) / count[..., None]
    covariance = np.empty((*count.shape, bands, bands))
    for i, j in combinations_with_replacement(range(bands), 2):
        moment = _ring_sum(parts[i] * parts[j], ring)[own] / count
        covariance[..., i, j] = covariance[..., j, i] = moment - mean[..., i] * mean[..., j]
    covariance += RIDGE * np.eye(bands)
    away = np.moveaxis(parts[:, own], 0, -1) - mean
    distance = away * np.linalg.solve(covariance, away[..., None])[..., 0]
    return np.where(around > 0, distance.sum(axis=-1), 0.0)


def _ring_sum(values: NDArray[np.float64], ring: Ring) -> NDArray[np.float64]:
    """Return sums over the ring around every pixel (y, x), zero outside."""
    return _box_sum(values, ring.outer) - _box_sum(values, ring.inner)


def _box_sum(values: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return sums over the square around every pixel (y, x), zero outside."""
    mean = ndimage.uniform_filter(values, side, mode="constant")
    return np.asarray(mean * side**2, np.float64)


def intensity(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the mean of all bands over 5 x 5 px (y, x)."""
    mean = pixels.astype(np.float64).mean(axis=0)
    return np.asarray(ndimage.uniform_filter(mean, 5, mode="reflect"), np.float32)


Score = Callable[["NDArray[np.generic]"], "NDArray[np.float32]"]


def at_resolution(score: Score, pixels: NDArray[np.generic], factor: int) -> NDArray[np.float32]:
    """Return the map (y, x) of means of ``factor`` x ``factor`` px, interpolated back.

    As the library does it for the network. Sides that are not multiples are continued by their last
    pixels.
    """
    if factor == 1:
        return score(pixels)
    bands, height, width = pixels.shape
    below, right = -height % factor, -width % factor
    whole = np.pad(pixels.astype(np.float64), ((0, 0), (0, below), (0, right)), mode="edge")
    blocks = whole.reshape(bands, whole.shape[1] // factor, factor, -1, factor)
    coarse = score(blocks.mean(axis=(2, 4)))
    fine = ndimage.zoom(coarse, factor, order=1, mode="nearest", grid_mode=True)
    return np.asarray(fine[:height, :width], np.float32)


MODALITIES = {
    "hyperspectral": "hyperspectral",
    "multispectral": "multispectral",
    "visible": "multispectral",
    "sar": "sar",
    "infrared": "infrared",
    "lowlight": "low-light",
}
"""The preset of each modality."""


def factor(modality: str) -> int:
    """Return the pixels along an axis that the network sees as one."""
    return PRESETS[MODALITIES[modality]].coarsen


BASELINES: Mapping[str, Callable[[NDArray[np.generic], str], NDArray[np.float32]]] = {
    "rx": lambda pixels, modality: at_resolution(rx, pixels, factor(modality)),
    "rx60": lambda pixels, modality: at_resolution(
        partial(rx, components=COMPONENTS), pixels, factor(modality)
    ),
    "lrx": lambda pixels, modality: at_resolution(
        partial(local_rx, ring=RINGS.get(modality, SMALL)), pixels, factor(modality)
    ),
    "mean5": lambda pixels, modality: at_resolution(intensity, pixels, factor(modality)),
}
"""Name to a function of (band, y, x) and the modality."""
