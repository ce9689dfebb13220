"""RX, global and local, against their definitions; and through the public path."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr

import uniadrs_scale as us
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.detector.rx import INNER, LOCAL, OUTER, RIDGE, GlobalRX, LocalRX

if TYPE_CHECKING:
    from pathlib import Path


def cube(bands: int, side: int = 60, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(bands, bands)) * np.linspace(3, 0.3, bands)
    return (mixing @ rng.normal(size=(bands, side * side))).reshape(bands, side, side)


def scaled(pixels: np.ndarray) -> tuple[np.ndarray, BandStatistics]:
    statistics = BandStatistics.of(pixels, np.ones(pixels.shape[1:], bool))
    return statistics.normalisation().apply(pixels)[None], statistics


def test_global_rx_is_the_mahalanobis_distance() -> None:
    pixels = cube(12)
    tiles, statistics = scaled(pixels)
    got = GlobalRX().fitted(statistics).score_tiles(tiles)[0].ravel()
    flat = tiles[0].reshape(12, -1).astype(np.float64)
    distance = np.einsum("bp,bc,cp->p", flat, np.linalg.inv(np.cov(flat, bias=True)), flat)
    np.testing.assert_allclose(got, distance / (distance + 60), rtol=1e-3)


def test_global_rx_sees_the_leading_components_in_the_scene_s_units() -> None:
    pixels = cube(12)
    pixels[3] *= 40  # of scaled bands, others would lead
    tiles, statistics = scaled(pixels)
    got = GlobalRX(components=4).fitted(statistics).score_tiles(tiles)[0].ravel()
    flat = pixels.reshape(12, -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.cov(flat, bias=True))
    parts = vectors[:, -4:].T @ flat
    distance = (parts**2 / values[-4:, None]).sum(axis=0)
    np.testing.assert_allclose(got, distance / (distance + 4), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("detector", [GlobalRX(), LocalRX()])
def test_bands_without_news_change_nothing_and_give_finite_scores(detector: GlobalRX) -> None:
    """A dead band, and one that repeats another: their directions have no variance to divide by."""
    pixels = cube(3, 40)
    tiles, statistics = scaled(pixels)
    more, more_statistics = scaled(
        np.concatenate([pixels, 2 * pixels[:1], np.full((1, 40, 40), 7.0)])
    )
    plain = detector.fitted(statistics).score_tiles(tiles)
    got = detector.fitted(more_statistics).score_tiles(more)
    assert np.isfinite(got).all()
    if not isinstance(detector, LocalRX):  # whose ridge counts components
        np.testing.assert_allclose(got, plain, rtol=1e-2, atol=1e-4)


def test_local_rx_is_the_distance_from_the_ring() -> None:
    pixels = cube(5)
    tiles, statistics = scaled(pixels)
    rx = LocalRX().fitted(statistics)
    got = rx.score_tiles(tiles)[0]
    parts = rx.whitened(tiles)[0].numpy().astype(np.float64)  # whitened; any basis would do
    rows, cols = np.indices(got.shape)
    for row, col in ((30, 30), (2, 57), (59, 0)):
        reach = np.maximum(abs(rows - row), abs(cols - col))
        ring = parts[:, (reach <= OUTER // 2) & (reach > INNER // 2)]
        covariance = np.cov(ring, bias=True)
        ridge = RIDGE * np.trace(covariance) / len(parts) + RIDGE**2
        difference = parts[:, row, col] - ring.mean(axis=1)
        distance = difference @ np.linalg.solve(covariance + ridge * np.eye(len(parts)), difference)
        assert got[row, col] == pytest.approx(distance / (distance + LOCAL), rel=1e-3)


@pytest.mark.parametrize("detector", [GlobalRX(), LocalRX()])
def test_a_planted_spectrum_stands_out_through_the_public_path(detector: GlobalRX) -> None:
    pixels = cube(8, 100).astype(np.float32)
    pixels[:, 40:43, 60:63] += 4 * pixels.std(axis=(1, 2))[:, None, None]
    scene = xr.DataArray(pixels, dims=("band", "y", "x"))
    scores = us.score(scene, detector=detector, scheduler="sync").values
    assert (scores[40:43, 60:63] > np.quantile(scores, 0.99)).all()


def test_equal_bits_for_any_chunk_and_scheduler(tmp_path: Path) -> None:
    scene = xr.DataArray(cube(4, 300).astype(np.float32), dims=("band", "y", "x"))
    maps = [
        us.score(scene, detector=GlobalRX(), scheduler=scheduler, chunk=chunk, tile=128).values
        for scheduler, chunk in (("sync", 300), ("threads", 150))
    ]
    np.testing.assert_array_equal(*maps)


def test_only_a_fitted_one_scores_and_it_travels() -> None:
    assert not hasattr(GlobalRX(), "score_tiles")
    tiles, statistics = scaled(cube(3))
    rx = GlobalRX().fitted(statistics)
    again = pickle.loads(pickle.dumps(rx))
    np.testing.assert_array_equal(rx.score_tiles(tiles), again.score_tiles(tiles))
    assert GlobalRX().identity != LocalRX().identity
