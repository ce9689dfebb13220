"""Nodata must not look like an anomaly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniadrs_scale.core.pixels import fill_invalid
from uniadrs_scale.core.validity import valid_pixels


def test_valid_needs_every_band() -> None:
    pixels = np.array([[[0, 1, 2, np.nan, np.inf]], [[1, 255, 2, 2, 2]]], np.float32)
    valid = valid_pixels(pixels, [0.0, 255.0])
    np.testing.assert_array_equal(valid, [[False, False, True, False, False]])


def test_without_nodata_every_finite_value_is_valid() -> None:
    assert valid_pixels(np.zeros((2, 3, 4), np.uint8), [None, None]).all()
    assert valid_pixels(np.zeros((2, 3, 4), np.uint8), [float("nan"), None]).all()


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_fill_keeps_the_valid_and_invents_nothing(
    seed: int, height: int, width: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    valid = rng.random((height, width)) < share
    valid[rng.integers(height), rng.integers(width)] = True
    pixels = rng.random((3, height, width)).astype(np.float32)
    pixels[:, ~valid] = np.nan
    filled = fill_invalid(pixels, valid)
    np.testing.assert_array_equal(filled[:, valid], pixels[:, valid])
    known = {tuple(spectrum) for spectrum in pixels[:, valid].T}
    assert {tuple(spectrum) for spectrum in filled.reshape(3, -1).T} == known


def test_fill_mirrors_at_a_straight_edge() -> None:
    pixels = np.arange(8, dtype=np.float32).reshape(1, 1, 8).repeat(3, 1)
    valid = np.ones((3, 8), bool)
    valid[:, 5:] = False
    filled = fill_invalid(pixels, valid)
    np.testing.assert_array_equal(filled[0], np.tile([0, 1, 2, 3, 4, 3, 2, 1], (3, 1)))


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_fill_keeps_level_and_spread_of_the_valid_part(fraction: float) -> None:
    rng = np.random.default_rng(1)
    rows, cols = np.indices((224, 224))
    valid = rows + cols < fraction * 448
    pixels = rng.normal(3, 2, (2, 224, 224)).astype(np.float32)
    filled = fill_invalid(pixels, valid)
    assert filled.mean() == pytest.approx(pixels[:, valid].mean(), abs=0.15)
    assert filled.std() == pytest.approx(pixels[:, valid].std(), rel=0.1)
