"""Scene statistics: any partition gives the whole's, and scaling does what it says."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from uniadrs_scale.stats import CLIP, BandStatistics, Normalisation


@given(st.integers(0, 2**32), st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_merging_parts_gives_the_whole(seed: int, widths: list[int]) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.normal(1e4, 3, (2, 5, sum(widths)))
    valid = rng.random(pixels.shape[1:]) < 0.7
    edges = np.cumsum([0, *widths])
    parts = [BandStatistics.of(pixels[..., a:b], valid[:, a:b]) for a, b in pairwise(edges)]
    total, whole = BandStatistics.combine(parts, 2), BandStatistics.of(pixels, valid)
    assert total.count == whole.count == valid.sum()
    np.testing.assert_allclose(total.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(total.m2, whole.m2, rtol=1e-8, atol=1e-9)


def test_scaling_gives_mean_zero_and_deviation_one() -> None:
    pixels = np.random.default_rng(0).integers(0, 9999, (3, 50, 60)).astype(np.uint16)
    scaled = BandStatistics.of(pixels, np.ones((50, 60), bool)).normalisation().apply(pixels)
    np.testing.assert_allclose(scaled.mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=(1, 2)), 1, atol=1e-5)
    assert scaled.dtype == np.float32


def test_a_dead_band_becomes_zero_and_outliers_are_clipped() -> None:
    pixels = np.random.default_rng(0).normal(size=(2, 100, 100))
    pixels[0] = 1234.5
    pixels[1, 0, 0] = 1e9
    scaled = BandStatistics.of(pixels, np.ones((100, 100), bool)).normalisation().apply(pixels)
    assert not scaled[0].any()
    assert scaled[1].max() == CLIP


def test_no_valid_pixel_scales_to_zero() -> None:
    pixels = np.ones((2, 4, 4))
    normalisation = BandStatistics.of(pixels, np.zeros((4, 4), bool)).normalisation()
    assert not normalisation.apply(pixels).any()


def test_normalisation_survives_json() -> None:
    pixels = np.random.default_rng(0).normal(size=(3, 9, 9))
    there = BandStatistics.of(pixels, np.ones((9, 9), bool)).normalisation()
    back = Normalisation.from_dict(there.to_dict())
    np.testing.assert_array_equal(there.offset, back.offset)
    np.testing.assert_array_equal(there.scale, back.scale)
