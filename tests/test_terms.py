"""Terms in the logit: against their definitions, and through the public path."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import ndimage

import uniadrs_scale as us
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.core.presets import PRESETS
from uniadrs_scale.detector import terms
from uniadrs_scale.detector import window_kernels as kernels
from uniadrs_scale.detector.coarse import coarsened, with_terms
from uniadrs_scale.detector.passes import fast_ring_mean
from uniadrs_scale.detector.rx import INNER, OUTER, GlobalRX
from uniadrs_scale.detector.whitening import channels, ring_mean

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

AREA = (("area", 0.5),)
CROWDS = (("area", 0.5), ("surroundings", -0.5))
BOTH = (("area", 0.5), ("local", 0.25))


def components(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def opened(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """An opening by definition: every square and line that fits, at its lowest value."""
    edges = {"mode": "constant", "cval": np.inf}, {"mode": "constant", "cval": -np.inf}
    sizes = (terms.SQUARE,) * 2, (1, terms.LINE), (terms.LINE, 1)
    return np.max(
        [
            ndimage.grey_dilation(ndimage.grey_erosion(plane, size, **edges[0]), size, **edges[1])
            for size in sizes
        ],
        axis=0,
    )


@pytest.mark.parametrize("size", [(40, 37), (16, 64)])
def test_area_is_the_difference_from_opening_and_closing(size: tuple[int, int]) -> None:
    values = components(2, 4, *size)
    values[1] *= 4  # beyond the limit
    expected = np.zeros((2, *size), np.float32)
    for number, tile in enumerate(values.numpy()):
        for plane in tile[: terms.LEADING]:
            expected[number] += (plane - opened(plane)) + (-opened(-plane) - plane)
    got = terms.area(values, ring_mean)[:, 0].numpy()
    np.testing.assert_allclose(got, np.minimum(expected, 8) - terms.USUAL, atol=1e-5)
    assert got.max() == 8 - terms.USUAL
    assert torch.equal(terms.opened(values), terms.plain_opened(values))


def test_only_small_structures_stand_out() -> None:
    plane = torch.zeros(1, 2, 64, 64)
    plane[0, 0, 5:8, 5:8] = 5  # a car
    plane[0, 1, 20:23, 40:44] = -5  # a dark one, elsewhere
    plane[0, 0, 30:50, 10:40] = 5  # a field
    plane[0, 1, 55, 10:60] = 5  # a road
    area = terms.area(plane, ring_mean)[0, 0].numpy() + terms.USUAL
    cars = np.zeros((64, 64), bool)
    cars[5:8, 5:8] = cars[20:23, 40:44] = True
    np.testing.assert_array_equal(area, np.where(cars, 5, 0))


def test_local_is_local_rx_of_the_leading_component() -> None:
    values = components(2, 3, 50, 44)
    values[0, 0, 20, 20] = 30
    plane = values[:, :1].double()
    mean = ring_mean(plane.float(), INNER, OUTER).double()
    variance = ring_mean(plane.square().float(), INNER, OUTER).double() - mean.square()
    expected = torch.log((plane - mean).square() / variance + 1e-3).clamp(-8, 8)
    for ring in (ring_mean, fast_ring_mean):
        got = terms.local(values, ring)
        np.testing.assert_allclose(got, expected.float(), atol=0.02)
    assert torch.isfinite(terms.local(torch.full((1, 1, 32, 32), 8.0), ring_mean)).all()


def test_bright_is_the_leading_component() -> None:
    values = components(2, 3, 50, 44)
    assert torch.equal(terms.bright(values, ring_mean), values[:, :1] - 0.75)


def test_clutter_is_the_median_around_each_pixel() -> None:
    """Next to a border, of the pixels inside; no further from the true one than a bin is wide."""
    values = components(2, 3, 50, 44)
    values[0, 0, 30:, 20:] += 4.0  # a town
    expected = np.empty((2, 50, 44))
    for tile, plane in zip(expected, values[:, 0].numpy(), strict=True):
        for y, x in np.ndindex(plane.shape):
            tile[y, x] = np.median(plane[max(y - 12, 0) : y + 13, max(x - 12, 0) : x + 13])
    got = terms.clutter(values, ring_mean)[:, 0]
    np.testing.assert_allclose(got, expected.clip(-2, 0.5), atol=0.125)
    assert got[0, 45, 40] == 0.5 > got[0, 5, 5] + 0.2
    before = terms.clutter(values, ring_mean)
    values[1, 0, 5:15, 5:15] = 30.0  # a ship of 100 of 625 px changes less than the mean would
    change = (terms.clutter(values, ring_mean) - before)[1, 0, 10, 10]
    assert 0 < change < 0.3


@pytest.mark.parametrize("shape", [(2, 50, 44), (1, 9, 70), (3, 25, 25), (1, 1, 1)])
def test_medians_are_equal_on_any_device(shape: tuple[int, int, int]) -> None:
    bins = torch.from_numpy(np.random.default_rng(1).integers(0, 32, shape).astype(np.uint8))
    bins[:, : shape[1] // 2] //= 9
    out = torch.empty(bins.shape)
    kernels.medians(bins.numpy(), 12, 32, out.numpy())
    assert torch.equal(out[:, None], terms.plain_medians(bins[:, None]))


def test_half_of_the_pixels_reach_a_median() -> None:
    """With as many pixels below as above, it is the upper end of the lower bin."""
    bins = torch.tensor([[[[3, 20]]]], dtype=torch.uint8)
    out = torch.empty(1, 1, 2)
    kernels.medians(bins[0].numpy(), 12, 32, out.numpy())
    assert out.tolist() == terms.plain_medians(bins)[0].tolist() == [[[4.0, 4.0]]]


def test_clutter_of_extreme_values_stays_in_its_range() -> None:
    values = torch.full((1, 1, 40, 40), torch.inf)
    values[0, 0, :20], values[0, 0, 3, 3] = -torch.inf, torch.nan
    got = terms.clutter(values, ring_mean)
    assert (float(got.min()), float(got.max())) == (-2.0625, 0.5)


def test_surroundings_are_the_mean_logit_of_the_ring() -> None:
    """A target of a logit of 4 keeps it if it is alone, and loses among others of its kind."""
    logit = torch.full((2, 1, 60, 60), terms.CALM)
    logit[:, 0, 30, 30] = 4.0
    logit[1, 0, 20:41:5, 20:41:5] = 4.0
    seen = torch.zeros(2, 24, 60, 60)
    for ring in (ring_mean, fast_ring_mean):
        add = terms.added((("surroundings", -0.5),), seen, ring)
        above = ring_mean(logit, INNER, OUTER) - terms.CALM
        np.testing.assert_allclose(add(logit), logit - 0.5 * above, atol=1e-5)
        alone, crowd = add(logit)[:, 0, 30, 30]
        assert alone == 4.0
        assert crowd < 3.9
    # Other terms count as the logit does.
    both = terms.added((("surroundings", -0.5), ("bright", 1.0)), seen + logit, ring_mean)
    own = logit + (logit - terms.SHINING)
    above = ring_mean(own, INNER, OUTER) - terms.CALM
    np.testing.assert_array_equal(both(logit), own - 0.5 * above)
    assert torch.equal(terms.added((), seen, ring_mean)(logit), logit)


def test_constants_are_those_that_levels_were_counted_with() -> None:
    sizes = terms.SQUARE, terms.LINE, terms.LEADING, INNER, OUTER
    assert sizes == (5, 15, 2, 9, 25)
    clutter = terms.CLUTTER_REACH, terms.CLUTTER_STEP, terms.CLUTTER_LEAST, terms.CLUTTER_LEVELS
    assert clutter == (12, 0.125, -2.0, 32)
    assert (terms.USUAL, terms.SHINING, terms.STRONGEST, terms.CALM) == (2.0, 0.75, 0.5, -3.0)


def test_terms_are_added_to_the_logit() -> None:
    pixels = np.random.default_rng(0).normal(size=(5, 64, 64))
    statistics = BandStatistics.of(pixels, np.ones((64, 64), bool))
    tiles = statistics.normalisation().apply(pixels)[None].repeat(2, axis=0)
    tiles[1] = tiles[1, :, ::-1]
    detector = us.Detector.load(device="cpu")
    plain = detector.fitted(statistics)
    fused = coarsened(detector, (1,), 64, BOTH).fitted(statistics)
    seen = channels((plain.whitening,) * 2, torch.from_numpy(tiles), fast_ring_mean)
    extra = 0.5 * terms.area(seen, ring_mean) + 0.25 * terms.local(seen, fast_ring_mean)
    logit = torch.logit(torch.from_numpy(plain.score_tiles(tiles)).double()) + extra[:, 0]
    np.testing.assert_allclose(fused.score_tiles(tiles), torch.sigmoid(logit), atol=1e-5)
    again = pickle.loads(pickle.dumps(fused))
    np.testing.assert_array_equal(again.score_tiles(tiles), fused.score_tiles(tiles))


def scene(bands: int, holes: float = 0.0, height: int = 90) -> xr.DataArray:
    rng = np.random.default_rng(3)
    pixels = rng.normal(size=(bands, height, 80)).astype(np.float32).cumsum(axis=0)
    pixels[:, rng.random((height, 80)) < holes] = np.nan
    return xr.DataArray(pixels, dims=("band", "y", "x"), name="noise")


@pytest.mark.parametrize(
    ("preset", "bands", "tile", "stride"),
    [("hyperspectral", 14, 64, 48), ("low-light", 1, 64, 48), ("sar", 2, 96, 48)],
)
def test_bits_depend_neither_on_chunks_nor_on_what_invalid_pixels_hold(
    preset: str, bands: int, tile: int, stride: int
) -> None:
    options = {"scheduler": "sync", "preset": preset, "tile": tile, "stride": stride}
    given = scene(bands, holes=0.1, height=tile + 26)
    filled = given.fillna(1e6).assign_attrs(nodata=1e6)
    whole, pieces = (
        us.score(given, chunk=512, **options),
        us.score(filled, chunk=tile + 6, **options),
    )
    np.testing.assert_array_equal(whole, pieces)


def test_the_plan_names_the_terms_and_its_fingerprint_holds_them() -> None:
    plan = us.plan(scene(14), scheduler="sync")
    assert plan.terms == CROWDS == PRESETS["hyperspectral"].terms
    assert "plus 0.5 x area, minus 0.5 x surroundings" in plan.text()
    assert replace(plan, terms=()).fingerprint != plan.fingerprint
    assert replace(plan, terms=AREA).fingerprint != plan.fingerprint
    few = us.plan(scene(4), scheduler="sync")
    assert "minus 0.1 x area" in few.text()
    grey = us.plan(scene(1), scheduler="sync")
    assert grey.terms == ()
    assert "terms" not in grey.decisive()


def test_scorers_without_whitened_bands_have_no_terms(tiny_weights: Path) -> None:
    detector = us.Detector.load(tiny_weights)
    assert with_terms(detector, AREA) is detector
    assert with_terms(GlobalRX(), AREA) == GlobalRX()
    for other in (detector, "rx"):
        assert us.plan(scene(14), detector=other, scheduler="sync").terms == ()


def test_the_forecast_counts_the_terms() -> None:
    detector = us.Detector.load(device="cpu")
    plain, fused = (
        coarsened(detector, (1,), 128, each).activation_bytes(128, 30) for each in ((), AREA)
    )
    assert fused == plain + 2 * 4 * 128**2
