"""Statistics of every pixel, by region: no accident decides a score, and no chunk does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.ndimage import gaussian_filter
from standins import Batched, TileMean

import uniadrs_scale as us
from uniadrs_scale.core import regions
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.core.regions import Cells, Grid, Sample, fences
from uniadrs_scale.detector.whitening import COMPONENTS, Whitening, channels
from uniadrs_scale.runtime.executor import LocalExecutor
from uniadrs_scale.runtime.statistics import scene_statistics
from uniadrs_scale.scenes.sources import scene_source

SIZE = 330
TARGETS = [(y, x) for y in range(70, SIZE, 130) for x in range(70, SIZE, 130)]


@pytest.fixture(scope="module")
def ground() -> np.ndarray:
    """Return smooth ground in three bands, float64, with small targets."""
    rng = np.random.default_rng(0)
    pixels = np.stack([gaussian_filter(rng.normal(0, 1, (SIZE, SIZE)), 3) for _ in range(3)]) * 60
    pixels += rng.normal(0, 1, pixels.shape) + np.array([500, 700, 900])[:, None, None]
    for y, x in TARGETS:
        pixels[:, y - 1 : y + 2, x - 1 : x + 2] += np.array([60, -50, 70])[:, None, None]
    return pixels


@pytest.fixture(scope="module")
def detector() -> us.Detector:
    return us.Detector.load("uniadrs-xs", device="cpu")


def scored(pixels: np.ndarray, detector: us.Detector, **options: object) -> np.ndarray:
    scene = xr.DataArray(pixels, dims=("band", "y", "x"), name="s")
    if "valid" in options:
        scene = scene.assign_coords(valid=(("y", "x"), options.pop("valid")))
    asked = {"preset": "single-band", "scheduler": "sync"} | options
    return us.score(scene, detector=detector, **asked).values


def found(score: np.ndarray) -> int:
    return sum(np.nanmax(score[y - 2 : y + 3, x - 2 : x + 3]) > 0.9 for y, x in TARGETS)


@pytest.mark.parametrize("value", [3e3, 1e5, 1e30])
def test_one_pixel_of_any_value_hides_no_target(
    ground: np.ndarray, detector: us.Detector, value: float
) -> None:
    pixels = ground.astype(np.float32)
    pixels[1, 200, 100] = value
    assert found(scored(pixels, detector)) == len(TARGETS)


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float64"])
def test_a_hundred_saturated_pixels_hide_no_target(
    ground: np.ndarray, detector: us.Detector, dtype: str
) -> None:
    pixels = ground.astype(dtype)
    pixels[:, 130:140, 130:140] = 65535
    assert found(scored(pixels, detector)) == len(TARGETS)


def test_cloud_in_a_tenth_hides_no_target(ground: np.ndarray, detector: us.Detector) -> None:
    pixels = ground.astype(np.float32)
    rng = np.random.default_rng(1)
    pixels[:, :33] = 4000 + 3000 * gaussian_filter(rng.normal(0, 1, (33, SIZE)), 9)
    assert found(scored(pixels, detector)) == len(TARGETS)


def test_an_offset_changes_nothing_in_double_precision(
    ground: np.ndarray, detector: us.Detector
) -> None:
    pixels = (ground - ground.mean()) / 20
    plain, far = (scored(pixels + offset, detector) for offset in (0.0, 1e5))
    np.testing.assert_allclose(far, plain, atol=5e-3)  # 0.2 if values are rounded first


@pytest.mark.filterwarnings("ignore:.*areas of 700:uniadrs_scale.SceneWarning")
def test_a_constant_half_is_dark_to_its_border(ground: np.ndarray, detector: us.Detector) -> None:
    pixels = ground.astype(np.float32)
    pixels[:, :, :150] = 700
    assert not scored(pixels, detector)[:, :130].any()


def test_one_valid_pixel_of_any_value_decides_nothing(
    ground: np.ndarray, detector: us.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions, "SIDE", 128)
    pixels = np.zeros((3, 900, SIZE), np.float32)
    valid = np.zeros(pixels.shape[1:], bool)
    pixels[:, :SIZE], valid[:SIZE] = ground, True
    alone = found(scored(pixels, detector, valid=valid.copy()))
    valid[800, 100], pixels[:, 800, 100] = True, [1e6, -1e6, 1e6]
    more = found(scored(pixels, detector, valid=valid))
    assert alone == more == len(TARGETS)


@pytest.mark.parametrize("scorer", [TileMean(), Batched()])
def test_regions_do_not_depend_on_chunks(scorer: TileMean, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "SIDE", 40)
    monkeypatch.setattr(regions, "LEAST", 10)
    rng = np.random.default_rng(3)
    pixels = rng.gamma(2, size=(2, 210, 170)) * np.linspace(1, 9, 170)
    maps = [
        scored(pixels, scorer, tile=32, stride=24, chunk=chunk, scheduler=scheduler)
        for chunk, scheduler in ((32, "sync"), (75, "threads"), (300, "sync"))
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])
    monkeypatch.setattr(regions, "SIDE", 512)
    assert np.abs(scored(pixels, scorer, tile=32, stride=24, chunk=300) - maps[0]).max() > 1e-3


def test_tiles_of_several_regions_in_one_call(detector: us.Detector) -> None:
    rng = np.random.default_rng(4)
    tiles = rng.normal(size=(3, 5, 40, 40)).astype(np.float32)
    everywhere = np.ones((40, 40), bool)
    fitted = [detector.fitted(BandStatistics.of(tile, everywhere)) for tile in tiles]
    together = fitted[0].score_jointly(fitted, tiles)
    for scorer, tile, score in zip(fitted, tiles, together, strict=True):
        np.testing.assert_allclose(scorer.score_tiles(tile[None])[0], score, atol=2e-6)


def test_cells_merge_to_the_statistics_of_the_scene() -> None:
    pixels = np.random.default_rng(5).normal(3, 2, (3, 1300, 600)).astype(np.float32)
    scene = xr.DataArray(pixels, dims=("band", "y", "x"))
    whole, cells = scene_statistics(scene_source(scene), LocalExecutor("sync"))
    expected = np.cov(pixels.reshape(3, -1).astype(np.float64), bias=True)
    np.testing.assert_allclose(whole.scatter / whole.count, expected, atol=1e-5)
    assert cells.count.sum() == whole.count == pixels[0].size
    assert cells.grid.shape == (3, 2)
    region = cells.region(*cells.grid.around((0, 0)), whole)
    own = np.cov(pixels[:, :1024].reshape(3, -1).astype(np.float64), bias=True)
    mixed = (own + regions.WHOLE * expected) / (1 + regions.WHOLE)
    np.testing.assert_allclose(region.scatter / region.count, mixed, atol=1e-4)


def test_correlations_of_many_bands_are_thinned_and_deviations_are_not() -> None:
    rng = np.random.default_rng(6)
    mixing = rng.normal(size=(20, 20))
    pixels = np.einsum("ij,jyx->iyx", mixing, rng.normal(size=(20, 256, 256))).astype(np.float32)
    valid = rng.random((256, 256)) < 0.9
    exact = BandStatistics.of(pixels, valid)
    thinned = BandStatistics.of(pixels, valid, thinned=True)
    assert thinned.count == exact.count
    np.testing.assert_allclose(thinned.mean, exact.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(thinned.deviation, exact.deviation, rtol=1e-9)
    np.testing.assert_allclose(thinned.correlation, exact.correlation, atol=0.06)


def test_grids_of_large_scenes_have_larger_cells() -> None:
    assert Grid.of(9_000, 9_000, 4).side == 512
    assert Grid.of(100_000, 100_000, 4).side == 2048
    assert Grid.of(20_000, 20_000, 224).side == 2048
    assert Grid.of(100, 100, 2048).shape == (1, 1)


def test_fences_are_far_and_a_constant_scene_has_none() -> None:
    pixels = np.random.default_rng(7).normal(size=(2, 64, 64))
    pixels[1] = 5
    sample = Sample.of(pixels, np.ones((64, 64), bool))
    assert sample is not None
    low, high = fences([(sample, 4096.0)], sample)
    assert -400 < low[0] < -200
    assert 200 < high[0] < 400
    assert (low[1], high[1]) == (-np.inf, np.inf)


def test_channels_in_double_precision_are_those_of_the_training() -> None:
    rng = np.random.default_rng(8)
    pixels = rng.normal(size=(6, 30, 30)).astype(np.float32)
    whitening = Whitening.of(BandStatistics.of(pixels, np.ones((30, 30), bool)))
    tiles = torch.from_numpy(pixels[None])
    every = whitening.apply(tiles)
    assert not every[:, 6:COMPONENTS].any()  # six bands have no more components
    there = torch.cat([every[:, :6], every[:, COMPONENTS:]], 1)
    torch.testing.assert_close(channels([whitening], tiles), there, atol=0.05, rtol=0)


def test_cells_without_valid_pixels_take_the_statistics_of_the_scene() -> None:
    grid = Grid(height=2000, width=512, side=512)
    part = BandStatistics(count=9, mean=np.ones(1), scatter=np.ones((1, 1)))
    cells = Cells.of(grid, {(0, 0): part}, 1)
    assert cells.region(*grid.around((3, 0)), part) is part
