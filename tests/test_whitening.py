"""Whitening: its energies are Mahalanobis distances, whatever the bands are called or how many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.detector.whitening import (
    CHANNELS,
    COMPONENTS,
    EXACT,
    FLOOR,
    GAIN,
    INNER,
    LIMIT,
    OUTER,
    RIDGES,
    Whitening,
)


def scene(seed: int, bands: int, side: int = 24) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rank = max(1, bands // 2)
    pixels = rng.normal(size=(bands, rank)) @ rng.normal(size=(rank, side * side))
    pixels += 0.1 * rng.normal(size=pixels.shape)
    return (100 + 20 * pixels).reshape(bands, side, side).astype(np.float32)


def channels(pixels: np.ndarray) -> np.ndarray:
    statistics = BandStatistics.of(pixels, np.ones(pixels.shape[1:], bool))
    scaled = torch.from_numpy(statistics.normalisation().apply(pixels))
    return Whitening.of(statistics).apply(scaled[None])[0].numpy()


# What components leave over is a difference of float32 sums: 1e-7 of the total, and a ridge of 1e-5
# makes some percent of that. Beyond EXACT components all eigenvalues count as their mean, which
# here are just above a ridge.
@pytest.mark.parametrize(("bands", "within"), [(1, 0.03), (5, 0.03), (40, 0.03), (100, 0.1)])
def test_energies_are_ridged_mahalanobis_distances_relative_to_their_mean(
    bands: int, within: float
) -> None:
    pixels = scene(3, bands)
    seen = channels(pixels)[COMPONENTS : COMPONENTS + len(RIDGES)]
    # The oracle: the definition, with a full inverse, in the units half way between.
    flat = pixels.reshape(bands, -1).astype(np.float64)
    flat = (flat - flat.mean(axis=1, keepdims=True)) / np.sqrt(flat.std(axis=1, keepdims=True))
    covariance = flat @ flat.T / flat.shape[1]
    largest = np.linalg.eigvalsh(covariance).max()
    for channel, ridge in zip(seen, RIDGES, strict=True):
        inverse = np.linalg.inv(covariance + ridge * largest * np.eye(bands))
        distance = np.einsum("bp,bc,cp->p", flat, inverse, flat)
        expected = np.clip(np.log(distance / distance.mean() + FLOOR), -LIMIT, LIMIT)
        np.testing.assert_allclose(channel.ravel(), expected, atol=within)


def test_components_are_principal_ones_of_deviation_1_towards_brighter() -> None:
    """Against the definition, with variances so far apart that no two components mix."""
    bands = COMPONENTS + 4
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(bands, bands)))[0]
    pixels = turn @ (rng.normal(size=(bands, 40 * 40)) * (0.7 ** np.arange(bands))[:, None])
    seen = channels((50 * pixels).reshape(bands, 40, 40).astype(np.float32))[:COMPONENTS]
    flat = 50 * (pixels - pixels.mean(axis=1, keepdims=True))
    flat /= np.sqrt(flat.std(axis=1, keepdims=True))
    values, vectors = np.linalg.eigh(flat @ flat.T / flat.shape[1])
    leading = vectors[:, ::-1][:, :COMPONENTS]
    leading *= np.where(leading.sum(axis=0) < 0, -1, 1)
    largest = values[-1]
    expected = leading.T @ flat / np.sqrt(values[::-1, None][:COMPONENTS] + 1e-4 * largest)
    np.testing.assert_allclose(seen.reshape(COMPONENTS, -1), expected, atol=0.02)


@pytest.mark.parametrize("bands", [1, 5])
def test_local_energies_are_distances_from_the_ring(bands: int) -> None:
    pixels = scene(7, bands, 40)
    seen = channels(pixels)[COMPONENTS + len(RIDGES) :]
    flat = pixels.reshape(bands, -1).astype(np.float64)
    flat = (flat - flat.mean(axis=1, keepdims=True)) / np.sqrt(flat.std(axis=1, keepdims=True))
    covariance = flat @ flat.T / flat.shape[1]
    largest = np.linalg.eigvalsh(covariance).max()
    rows, cols = np.indices((40, 40))
    for ridge, channel in zip(RIDGES, seen, strict=True):
        inverse = np.linalg.inv(covariance + ridge * largest * np.eye(bands))
        typical = np.einsum("bp,bc,cp->p", flat, inverse, flat).mean()
        for y, x in ((20, 20), (0, 0), (3, 39), (13, 8)):  # the ring is cut at the tile's edges
            reach = np.maximum(abs(rows - y), abs(cols - x))
            ring = ((reach <= OUTER // 2) & (reach > INNER // 2)).ravel()
            off = flat[:, y * 40 + x] - flat[:, ring].mean(axis=1)
            distance = off @ inverse @ off
            expected = np.clip(np.log(distance / typical + FLOOR), -LIMIT, LIMIT)
            assert channel[y, x] == pytest.approx(expected, abs=0.03)


def test_the_shipped_weights_rely_on_these_constants() -> None:
    """They were trained with them. Other values need new weights, and nothing else would say so."""
    assert (COMPONENTS, CHANNELS, EXACT, GAIN, FLOOR, LIMIT) == (16, 24, 64, 2, 0.05, 8.0)
    assert (RIDGES, INNER, OUTER) == ((1e-2, 1e-3, 1e-4, 1e-5), 9, 21)


def test_local_energies_ignore_what_the_whole_ring_shares() -> None:
    pixels = scene(5, 4, 60)
    pixels[:, :, 30:] += 60  # another ground
    seen = channels(pixels)
    inside = np.s_[OUTER : 60 - OUTER, OUTER // 2 : 30 - OUTER // 2]
    local, plain = seen[-1][inside], seen[COMPONENTS + len(RIDGES) - 1][inside]
    assert local.size
    # Far from the border the ring knows the ground: what is left is the pixel's own deviation.
    parts = channels(pixels)[:4]
    rows, cols = np.indices((60, 60))
    y, x = 30, 15
    ring = np.maximum(abs(rows - y), abs(cols - x))
    ring = (ring <= OUTER // 2) & (ring > INNER // 2)
    assert abs(parts[:, ring].mean(axis=1)).max() > 0.2  # the scene's mean is not the ground's
    assert local.mean() < plain.mean() + 0.05


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_the_order_of_bands_does_not_matter(seed: int, bands: int) -> None:
    pixels = scene(seed, bands, 12)
    order = np.random.default_rng(seed).permutation(bands)
    energies = [channels(p)[COMPONENTS:] for p in (pixels, np.ascontiguousarray(pixels[order]))]
    np.testing.assert_allclose(*energies, atol=0.05)


@pytest.mark.parametrize("pixels", [np.ones((3, 16, 16)), np.zeros((1, 16, 16))])
def test_a_scene_of_one_value_gives_finite_channels(pixels: np.ndarray) -> None:
    seen = channels(pixels.astype(np.float32))
    assert seen.shape == (CHANNELS, 16, 16)
    assert np.isfinite(seen).all()
    assert not seen[:COMPONENTS].any()
