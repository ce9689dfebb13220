"""Nodata values: compared as the dtype holds them, in any band or in all, counted by reason."""

from __future__ import annotations

import numpy as np
import pytest

from uniadrs_scale.core.validity import Nodata, Validity, matches, valid_pixels

LOWEST = float(np.finfo(np.float32).min)


@pytest.mark.parametrize(
    ("dtype", "pixel", "value", "same"),
    [
        ("uint8", 255, 255.0, True),
        ("uint8", 241, -15.0, False),  # not modulo 256
        ("uint8", 0, 256.0, False),
        ("uint16", 1, 1.5, False),
        ("int16", -9999, -9999.0, True),
        ("int64", 2**53 + 1, float(2**53), False),
        ("float32", LOWEST, -3.4e38, True),
        ("float32", LOWEST, -3.40282e38, True),
        ("float32", LOWEST, -1.7976931348623157e308, True),
        ("float32", -LOWEST, -3.4e38, False),
        ("float32", 1000.0, -3.4e38, False),
        ("float64", LOWEST, -3.40282e38, True),
        ("float64", -1e300, LOWEST, False),
        ("float32", 9.969209968386869e36, 9.96921e36, True),
        ("float32", -9999.9, -9999.9, True),
        ("float32", 0.0, 0.0, True),
        ("float32", 1e-30, 0.0, False),
        ("bool", True, 1.0, True),
    ],
)
def test_values_are_compared_as_the_dtype_holds_them(
    dtype: str, pixel: float, value: float, *, same: bool
) -> None:
    band = np.full((2, 3), pixel, dtype)
    assert matches(band, value).all() == same


def test_any_band_or_all_bands() -> None:
    pixels = np.full((3, 1, 4), 7, np.uint8)
    pixels[0, 0, 1], pixels[:, 0, 2], pixels[2, 0, 3] = 0, 0, 255
    values = (0, 0, 0)
    assert valid_pixels(pixels, values).tolist() == [[True, False, False, True]]
    assert valid_pixels(pixels, values, together=True).tolist() == [[True, True, False, True]]
    # A band without a value of its own says nothing.
    some = (0, None, 0)
    pixels[1] = 7
    assert valid_pixels(pixels, some, together=True).tolist() == [[True, True, False, True]]
    assert valid_pixels(pixels, (None, None, None), together=True).all()


def test_each_lost_pixel_counts_once() -> None:
    pixels = np.ones((2, 2, 3), np.float32)
    pixels[0, 0, 0], pixels[:, 0, 0] = np.nan, np.nan
    pixels[:, 0, 1] = -1
    pixels[1, 0, 2] = -1
    validity = Validity((2, 3))
    validity.drop_not_finite(pixels)
    validity.drop_nodata(pixels, Nodata((-1, -1)))
    validity.drop(np.array([[True, True, True], [True, False, False]]), "cloud")
    assert validity.lost == {
        "not finite": 1, "nodata": 1, "nodata in some bands": 1, "cloud": 1,
    }  # fmt: skip
    assert validity.valid.tolist() == [[False] * 3, [False, True, True]]
