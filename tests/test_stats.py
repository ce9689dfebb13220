"""Scene statistics: any partition gives the whole's, and scaling does what it says."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from uniadrs_scale.core.pixels import CLIP, BandStatistics


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
    variances = np.diag(total.scatter), np.diag(whole.scatter)
    np.testing.assert_allclose(*variances, rtol=1e-8, atol=1e-9)
    # Between bands, values are rounded to 19 bits: that makes sums of products exact.
    largest = variances[1].max(initial=0)
    np.testing.assert_allclose(total.scatter, whole.scatter, atol=largest * 1e-5 + 1e-9)


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


@given(st.integers(0, 2**32), st.integers(1, 12), st.sampled_from(["uint16", "float32", "float64"]))
def test_scatter_is_the_covariance_times_the_count(seed: int, bands: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(bands, bands))
    pixels = (mixing @ rng.normal(size=(bands, 300))) * 50 + 1000
    pixels = pixels.reshape(bands, 15, 20).astype(dtype)
    valid = rng.random((15, 20)) < 0.8
    statistics = BandStatistics.of(pixels, valid)
    expected = np.cov(pixels[:, valid].astype(np.float64), bias=True).reshape(bands, bands)
    largest = expected.max()
    np.testing.assert_allclose(statistics.scatter / statistics.count, expected, atol=largest * 1e-6)
    np.testing.assert_allclose(np.diag(statistics.correlation), 1, atol=1e-6)


def test_scatter_does_not_depend_on_the_threads_of_blas() -> None:
    pixels = np.random.default_rng(0).normal(size=(90, 120, 130)).astype(np.float32)
    valid = np.ones(pixels.shape[1:], bool)
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            results.append(BandStatistics.of(pixels, valid).scatter)
    np.testing.assert_array_equal(*results)


def test_a_dead_band_correlates_with_nothing() -> None:
    pixels = np.random.default_rng(0).normal(size=(3, 10, 10))
    pixels[1] = 7.0
    correlation = BandStatistics.of(pixels, np.ones((10, 10), bool)).correlation
    assert not correlation[1].any()
    assert np.isfinite(correlation).all()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32"])
def test_means_of_integers_are_exact(dtype: str) -> None:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    pixels = rng.integers(limits.min, limits.max, (3, 128, 128), dtype, endpoint=True)
    pixels[1] = limits.max
    got = BandStatistics.of(pixels, np.ones((128, 128), bool))
    wanted = [sum(band.ravel().tolist()) / 128**2 for band in pixels]  # of Python's integers
    assert got.mean.tolist() == wanted
