"""Seams are exact: addition does not round, and a partition of unity gives back what went in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from oracles import exact_sum
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.core.seams import (
    SCORE_STEPS,
    TAPER_STEPS,
    accumulate,
    finalise,
    normaliser,
    taper,
)
from uniadrs_scale.maps.store import open_store

if TYPE_CHECKING:
    from pathlib import Path


@given(st.integers(2, 300), st.data())
def test_tapers_are_positive_symmetric_and_on_the_grid(tile: int, data: st.DataObject) -> None:
    weights = taper(tile, data.draw(st.integers(0, tile // 2)))
    assert (weights > 0).all()
    assert weights.max() <= 1
    np.testing.assert_array_equal(weights, weights[::-1])
    np.testing.assert_array_equal(weights * TAPER_STEPS, np.rint(weights * TAPER_STEPS))


def test_ramps_of_two_neighbours_sum_to_one() -> None:
    total = normaliser(1000, 224, 168)
    inner = total[56:776]  # before the last tile, which is pulled back to the edge
    assert abs(inner - 1).max() <= 1 / TAPER_STEPS


@given(st.integers(0, 2**32), st.integers(1, 9))
def test_addition_is_exact_so_its_order_does_not_matter(seed: int, tiles: int) -> None:
    rng = np.random.default_rng(seed)
    weights = taper(16, 8)
    scores = rng.random((tiles, 16, 16), dtype=np.float32)
    sums = []
    for order in (range(tiles), rng.permutation(tiles)):
        numerator = np.zeros((16, 16))
        for tile in order:
            accumulate(numerator, scores[tile], weights, weights)
        sums.append(numerator)
    np.testing.assert_array_equal(*sums)
    y, x = rng.integers(16, size=2)
    rounded = np.rint(scores[:, y, x].astype(np.float64) * SCORE_STEPS) / SCORE_STEPS
    assert exact_sum([weights[y] * weights[x] * s for s in rounded]) == exact_sum([sums[0][y, x]])


def test_invalid_and_failed_pixels_are_nan() -> None:
    numerator = np.array([[1.0, np.nan, 3.0]])
    got = finalise(numerator, np.ones(1), np.full(3, 2.0), np.array([[True, True, False]]))
    np.testing.assert_array_equal(got, np.array([[0.5, np.nan, np.nan]], np.float32))


class Identity(FirstBand):
    """The identity network, of values that a score can hold: multiples of 2^-10."""

    def score_tiles(self, tiles: np.ndarray) -> np.ndarray:
        return np.rint(tiles[:, 0] * 2**10) / 2**10 + np.float32(0.25)


@pytest.mark.filterwarnings("ignore:.*Bands that hold one value:uniadrs_scale.SceneWarning")
@pytest.mark.parametrize("kind", ["constant", "ramp", "diagonal"])
@pytest.mark.parametrize("shape", [(500, 613), (225, 224), (168, 900)])
def test_fields_come_back_exactly_borders_and_corners_included(
    tmp_path: Path, kind: str, shape: tuple[int, int]
) -> None:
    rows, cols = np.indices(shape)
    field = {"constant": np.full(shape, 3.0), "ramp": cols, "diagonal": rows + 2.0 * cols}[kind]
    scene = xr.DataArray(field[None].astype(np.float32), dims=("band", "y", "x"))
    path = tmp_path / "map.zarr"
    got = us.score(scene, path, detector=Identity(), scheduler="sync", chunk=300).values
    statistics = open_store(path).statistics
    assert statistics is not None
    scaled = statistics.normalisation().apply(scene.values)
    np.testing.assert_array_equal(got, Identity().score_tiles(scaled[None, :])[0])
    assert got.std() > 0.5 or kind == "constant"


def test_no_step_at_tile_or_chunk_borders_when_tiles_disagree() -> None:
    """Every tile scores another constant; the map must pass smoothly from one to the next."""

    class Levels(FirstBand):
        def score_tiles(self, tiles: np.ndarray) -> np.ndarray:
            level = tiles[:, 0, :1, :1] * 0 + (tiles.sum() % 1 + 1) / 2
            return np.broadcast_to(level, tiles[:, 0].shape).astype(np.float32)

    pixels = np.random.default_rng(0).random((1, 700, 700)).astype(np.float32)
    scene = xr.DataArray(pixels, dims=("band", "y", "x"))
    options = {"tile": 224, "stride": 168, "chunk": 256, "preset": "single-band"}
    got = us.score(scene, detector=Levels(), scheduler="sync", **options).values
    assert got.std() > 0.05
    # A raised cosine over 56 px climbs by pi / 112 of the difference a pixel at most.
    assert abs(np.diff(got, axis=0)).max() < 0.5 * np.pi / 112 * 1.2
    assert abs(np.diff(got, axis=1)).max() < 0.5 * np.pi / 112 * 1.2
