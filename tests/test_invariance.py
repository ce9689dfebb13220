"""The headline: one scene has one map, whatever the chunks, scheduler, workers and batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import rioxarray  # noqa: F401 - registers the .rio accessor
import xarray as xr
from distributed import Client, LocalCluster
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles import whole_map
from standins import Batched, Counting, FirstBand, TileMean

import uniadrs_scale as us
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.core.presets import PRESETS
from uniadrs_scale.detector.coarse import coarsened

if TYPE_CHECKING:
    from pathlib import Path


def noise(height: int, width: int, *, bands: int = 2, holes: float = 0.0) -> xr.DataArray:
    """A scene of noise with a share of nodata rectangles."""
    rng = np.random.default_rng(height * 1000 + width)
    pixels = rng.integers(1, 4000, (bands, height, width)).astype(np.uint16)
    while holes and (pixels[0] == 0).mean() < holes:
        row, col = rng.integers(height), rng.integers(width)
        pixels[:, row : row + 90, col : col + 70] = 0
    return xr.DataArray(pixels, dims=("band", "y", "x")).rio.write_nodata(0)


@st.composite
def geometries(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """(height, width, tile, stride, chunk), with the awkward sizes among them."""
    tile = draw(st.integers(8, 48))
    stride = draw(st.integers((tile + 1) // 2, tile))
    awkward = st.sampled_from([1, tile - 1, tile, tile + 1, 97, 101, 2 * tile])
    height, width = (draw(awkward | st.integers(1, 160)) for _ in range(2))
    return height, width, tile, stride, draw(st.integers(tile, 200))


ONE_VALUE = pytest.mark.filterwarnings("ignore:.*Bands that hold one value")
"""Some of these scenes have one valid pixel, or bands that vary along one axis only."""


@ONE_VALUE
@pytest.mark.filterwarnings("ignore:.*No valid pixel:uniadrs_scale.SceneWarning")
@given(geometries())
@example((1, 1, 8, 6, 8))
@example((49, 7, 48, 36, 48))
@example((100, 100, 48, 36, 50))
@settings(max_examples=60)
def test_any_geometry_gives_the_untiled_map(geometry: tuple[int, int, int, int, int]) -> None:
    height, width, tile, stride, chunk = geometry
    scene = noise(height, width, holes=0.1)
    valid = (scene.values != 0).all(axis=0)
    got = us.score(
        scene, detector=TileMean(), preset="single-band", tile=tile, stride=stride, chunk=chunk,
        scheduler="sync",
    )  # fmt: skip
    expected = whole_map(scene.values, valid, TileMean(), tile, stride)
    np.testing.assert_array_equal(got.values, expected)


CHUNKS = (512, 777, 1024, 1300)


@pytest.fixture(scope="module")
def scene() -> xr.DataArray:
    return noise(1201, 1300, holes=0.1)


@pytest.fixture(scope="module")
def reference(scene: xr.DataArray) -> np.ndarray:
    return us.score(scene, detector=TileMean(), scheduler="sync", chunk=1300).values


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("scheduler", ["sync", "threads", None])
def test_bits_do_not_depend_on_chunks_or_schedulers(
    scene: xr.DataArray,
    reference: np.ndarray,
    cluster: Client,
    chunk: int,
    scheduler: str | None,
) -> None:
    with cluster.as_current():
        got = us.score(scene, detector=Batched(), scheduler=scheduler, chunk=chunk)
    np.testing.assert_array_equal(got.values, reference)


def test_a_users_own_cluster_gives_the_same_bits(
    scene: xr.DataArray, reference: np.ndarray
) -> None:
    """A LocalCluster of two, made the active client as in a notebook."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0") as own,
        Client(own),
    ):
        got = us.score(scene, detector=Batched(), chunk=512)
    np.testing.assert_array_equal(got.values, reference)


@pytest.mark.parametrize("scheduler", ["threads", None])
def test_bits_of_the_real_network_do_not_depend_on_chunks_or_schedulers(
    cluster: Client, scheduler: str | None
) -> None:
    scene = noise(500, 430, holes=0.2)
    detector = us.Detector.load(device="cpu")
    reference = us.score(scene, detector=detector, scheduler="sync", chunk=512)
    with cluster.as_current():
        got = us.score(scene, detector=detector, scheduler=scheduler, chunk=300)
    np.testing.assert_array_equal(got.values, reference.values)


def test_a_chunk_that_holds_no_tile_is_raised_to_it_and_the_plan_says_so() -> None:
    scene = noise(800, 900, holes=0.1)
    plan = us.plan(scene, detector=TileMean(), chunk=512)
    assert (plan.lattice.tile, plan.lattice.chunk) == (768, 768)
    assert "of 768 px, 13 tasks (not 512 px: a tile must fit)" in str(plan)
    assert us.plan(scene, detector=TileMean(), chunk=768).fingerprint == plan.fingerprint
    assert "not 128" not in str(us.plan(noise(100, 90), detector=TileMean(), chunk=128))
    with pytest.raises(us.PlanError, match=r"Use chunk >= 600, or tile <= 512\."):
        us.plan(scene, detector=TileMean(), chunk=512, tile=600)


def positions(height: int, width: int) -> xr.DataArray:
    """A scene whose two bands are each pixel's row and column."""
    pixels = np.stack(np.indices((height, width))).astype(np.float32)
    return xr.DataArray(pixels, dims=("band", "y", "x"))


@pytest.mark.parametrize("chunk", [64, 100, 333])
@pytest.mark.parametrize("shape", [(333, 207), (65, 64), (30, 200)])
def test_every_tile_is_scored_exactly_once(
    tmp_path: Path, chunk: int, shape: tuple[int, int]
) -> None:
    scorer = Counting(tmp_path)
    scene = positions(*shape)
    plan = us.plan(scene, detector=scorer, tile=64, stride=48, chunk=chunk, scheduler="sync")
    us.score(scene, detector=scorer, tile=64, stride=48, chunk=chunk, scheduler="sync")
    assert len(scorer.seen) == len(set(scorer.seen)) == plan.lattice.tiles


@ONE_VALUE
def test_tiles_without_a_valid_pixel_are_never_sent(tmp_path: Path) -> None:
    scorer = Counting(tmp_path)
    scene = positions(400, 400)
    valid = np.zeros((400, 400), bool)
    valid[100:150, 100] = True
    scene = scene.assign_coords(valid=(("y", "x"), valid))
    got = us.score(scene, detector=scorer, tile=64, stride=48, chunk=128, scheduler="sync")
    # Along y the tiles from 48, 96 and 144 hold rows 100..149, along x those from 48 and 96 do.
    assert len(scorer.seen) == 6
    np.testing.assert_array_equal(np.isfinite(got.values), valid)


def test_a_scene_smaller_than_a_tile_is_reflected() -> None:
    scene = noise(30, 41)
    got = us.score(scene, detector=FirstBand(), scheduler="sync", preset="single-band")
    expected = whole_map(scene.values, np.ones((30, 41), bool), FirstBand(), 224, 168)
    np.testing.assert_array_equal(got.values, expected)


@settings(max_examples=15)
@given(st.integers(1, 3), st.integers(100, 180), st.integers(100, 180), st.integers(72, 200))
def test_a_coarser_scene_is_one_map_too(factor: int, height: int, width: int, chunk: int) -> None:
    scene, tile = noise(height, width), 24 * factor
    scorer = coarsened(TileMean(), (factor,), tile)
    options = {"tile": tile, "preset": "single-band", "scheduler": "sync"}
    got = us.score(scene, detector=scorer, chunk=max(chunk, tile), **options)
    valid = np.ones((height, width), bool)
    stride = PRESETS["single-band"].stride(tile)
    fitted = scorer.fitted(BandStatistics.of(scene.values, valid))
    expected = whole_map(scene.values, valid, fitted, tile, stride)
    np.testing.assert_array_equal(got.values, expected)
