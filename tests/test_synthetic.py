"""Invented landscapes vary, repeat for equal seeds, and hide neither grid nor period."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from uniadrs_scale.demo import fields, scene
from uniadrs_scale.demo import fields as spectra
from uniadrs_scale.demo.landscape import Recipe, background, landscape
from uniadrs_scale.demo.scene import SyntheticScene, demo_scene
from uniadrs_scale.errors import SceneError


def seeded(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def invented() -> SyntheticScene:
    return demo_scene(3, 512, 6)


@given(
    seed=st.integers(0, 2**32 - 1),
    bands=st.sampled_from([1, 3, 4, 19, 20, 305]),
    shape=st.tuples(st.integers(8, 90), st.integers(8, 90)),
)
def test_background_is_reflectance_like(seed: int, bands: int, shape: tuple[int, int]) -> None:
    pixels = background(seeded(seed), bands, *shape)
    assert pixels.shape == (bands, *shape)
    assert pixels.dtype == np.float32
    assert np.isfinite(pixels).all()
    assert pixels.min() >= 0
    assert pixels.max() <= 1.5
    assert pixels.std() > 0


def test_equal_seeds_give_equal_pixels_and_others_do_not() -> None:
    first, again, other = (background(seeded(s), 12, 96, 96) for s in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(demo_scene(1, 256, 2).pixels, demo_scene(1, 256, 2).pixels)


def test_background_takes_its_randomness_from_the_generator_alone() -> None:
    rng = seeded(0)
    first = background(rng, 4, 32, 32)
    assert not np.array_equal(first, background(rng, 4, 32, 32))


def test_landscapes_vary_from_seed_to_seed() -> None:
    tiles = np.stack([background(seeded(s), 4, 96, 96) for s in range(40)])
    brightness = tiles.mean(axis=(1, 2, 3))
    assert np.ptp(brightness) > 0.1  # from water to sand
    assert (brightness < 0.04).mean() < 0.1  # but seldom nothing but water
    contrast = tiles.std(axis=(2, 3)).mean(axis=1)
    assert contrast.max() > 4 * contrast.min()


def test_bands_are_correlated_like_spectra() -> None:
    near, far = [], []
    for seed in range(20):
        pixels = background(seeded(seed), 100, 64, 64).reshape(100, -1)
        correlation = np.corrcoef(pixels)
        near.append(np.median(np.diag(correlation, 1)))
        far.append(np.median(np.diag(correlation, 60)))
    assert np.mean(near) > 0.9
    assert np.mean(far) < np.mean(near) - 0.05


@pytest.mark.parametrize("shape", [(0, 96, 96), (4, 7, 96), (4, 96, 7)])
def test_too_small_a_background_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(SceneError, match=r"is too small: .* Ask for a larger one"):
        background(seeded(0), *shape)


def test_white_noise_is_normal() -> None:
    samples = fields.white(seeded(0), (400, 500))
    assert samples.dtype == np.float32
    assert abs(samples.mean()) < 0.01
    assert abs(samples.std() - 1) < 0.01
    assert abs((np.abs(samples) > 1.96).mean() - 0.05) < 0.02


def test_fields_are_rougher_with_a_smaller_slope() -> None:
    steps = [
        np.diff(fields.random_field(seeded(0), (128, 128), slope=slope), axis=0).std()
        for slope in (0.3, 1.0, 2.0)
    ]
    assert steps[0] > 1.5 * steps[1] > 6 * steps[2]


def test_fields_do_not_wrap_around() -> None:
    jumps, steps = [], []
    for seed in range(30):
        field = fields.random_field(seeded(seed), (96, 96), slope=2)
        jumps.append(np.abs(field[0] - field[-1]).mean())
        steps.append(np.abs(np.diff(field, axis=0)).mean())
    assert np.mean(jumps) > 5 * np.mean(steps)


def test_no_row_or_column_of_the_grid_stands_out() -> None:
    # Mean step between neighbouring rows, over many landscapes: flat, without a period.
    tiles = [background(seeded(s), 1, 96, 96)[0] for s in range(120)]
    for axis in (0, 1):
        steps = np.stack(
            [np.abs(np.diff(t, axis=axis)).mean(axis=1 - axis) / t.std() for t in tiles]
        )
        profile = steps.mean(axis=0)
        assert profile.max() < 1.35 * np.median(profile)
        spectrum = np.abs(np.fft.rfft(profile - profile.mean()))[8:]  # periods up to 12 px
        assert spectrum.max() < 6 * np.median(spectrum)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_region_covers_its_share(share: float) -> None:
    field = fields.random_field(seeded(1), (200, 300), slope=1.5)
    cover = fields.region(field, share, 0.01)
    assert abs(cover.mean() - share) < 0.03
    assert cover.min() >= 0
    assert cover.max() <= 1


def test_parcels_are_whole_and_of_the_size_asked_for() -> None:
    plots = fields.parcels(seeded(0), (300, 300), size=20, bend=np.zeros((300, 300), np.float32))
    area = np.bincount(plots.labels.ravel(), minlength=plots.count)
    assert plots.labels.min() >= 0
    assert plots.labels.max() < plots.count
    assert 10 < np.sqrt(np.median(area[area > 0])) < 60
    assert plots.margin.min() >= -1e-3
    for label in plots.labels[[10, 150, 290], [20, 150, 100]]:
        assert ndimage.label(plots.labels == label)[1] == 1


def test_a_cover_loses_its_islets_and_ponds() -> None:
    cover = np.zeros((120, 120), np.float32)
    cover[10:60, 10:60] = 1
    expected = cover.copy()
    cover[30:40, 30:40] = 0.2  # a pond of 100 px
    cover[80:95, 80:95] = 0.7  # an island of 225 px
    for kept in (cover, expected):
        kept[90:, :8] = 1  # goes on beyond the border
        kept[100:120, 40:60] = 1
    assert np.array_equal(fields.without_islets(cover, 400), expected)
    assert np.array_equal(fields.without_islets(cover, 0), cover)


@given(seed=st.integers(0, 2**32 - 1))
def test_a_landscape_has_no_small_lake_or_island(seed: int) -> None:
    wet = Recipe(farms=0, towns=0, built=0, lakes=0.4, river=0, roads=0, relief=0)
    water = landscape(seeded(seed), (128, 128), wet).water
    for part in (water > 0, water < 1):
        labels, number = ndimage.label(part)
        at_border = np.unique(np.concatenate([labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel()]))
        inside = np.setdiff1d(np.arange(1, number + 1), at_border)
        assert (np.bincount(labels.ravel())[inside] >= fields.ISLET).all()


def test_splat_keeps_weight_and_place() -> None:
    points = np.array([[3.25, -1.0, 9.2], [4.5, 2.0, 1.0]])  # two of three are outside
    spread = fields.splat(points, (10, 10), weight=2)
    assert spread.sum() == pytest.approx(2)
    assert ndimage.center_of_mass(spread) == pytest.approx((3.25, 4.5))
    assert fields.splat(points[:, :1], (10, 10), weight=1)[3, 4] == pytest.approx(0.375)


def test_roads_cross_the_scene() -> None:
    coverage = fields.lines(seeded(4), (120, 200), count=3)
    assert coverage.max() == 1
    assert 0.005 < coverage.mean() < 0.2
    assert fields.lines(seeded(4), (50, 50), count=0).max() == 0


def test_contour_follows_the_zero_line() -> None:
    ramp = np.add.outer(np.arange(50, dtype=np.float32) - 24.5, np.zeros(40, np.float32))
    assert fields.contour(ramp, 6)[:, 0].sum() == pytest.approx(6, rel=1e-4)


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(sorted(spectra._SHAPES)))
def test_spectra_are_smooth_reflectances(seed: int, kind: spectra.Kind) -> None:
    waves = np.linspace(0.4, 2.4, 400)
    curve = spectra.material(seeded(seed), waves, kind)
    assert curve.min() >= 0.005
    assert curve.max() <= 0.95
    assert np.abs(np.diff(curve)).max() < 0.15


def test_vegetation_has_a_red_edge_and_water_is_dark() -> None:
    waves = scene.WAVES
    for seed in range(30):
        leaf = spectra.material(seeded(seed), waves, "vegetation")
        assert leaf[3] > 1.5 * leaf[2]
        assert spectra.material(seeded(seed), waves, "water")[3] < 0.1


def test_scene_is_a_swath_with_nodata_at_both_sides(invented: SyntheticScene) -> None:
    assert invented.pixels.dtype == np.uint16
    assert np.array_equal(invented.pixels.all(axis=0), invented.valid)
    assert np.array_equal(invented.pixels.any(axis=0), invented.valid)
    assert not invented.valid[0, 0]
    assert not invented.valid[-1, -1]
    assert 0.8 < invented.valid.mean() < 0.95
    assert np.ptp(invented.valid.argmax(axis=1)) > 40  # the edge is slanted


@pytest.mark.parametrize("seed", range(8))
def test_targets_are_apart_inside_and_marked(seed: int) -> None:
    invented = demo_scene(seed, 512, 6)
    labels, number = ndimage.label(invented.truth, np.ones((3, 3)))
    assert number == len(invented.targets) == 6
    to_nodata = ndimage.distance_transform_edt(np.pad(invented.valid, 1))[1:-1, 1:-1]
    to_other = np.inf
    for target in invented.targets:
        rows, cols = (
            slice(c - target.radius, c + target.radius + 1) for c in (target.row, target.col)
        )
        inside = invented.truth[rows, cols]
        assert inside.sum() == target.area == (labels == labels[rows, cols].max()).sum()
        assert to_nodata[target.row, target.col] > scene.SHORE
        others = labels * (labels != labels[rows, cols].max())
        to_other = min(to_other, ndimage.distance_transform_edt(others == 0)[rows, cols].min())
        extent = max(np.ptp(axis) + 1 for axis in np.nonzero(inside))
        assert 1 <= extent <= 24
    assert to_other >= scene.GAP


@pytest.mark.parametrize("seed", range(8))
def test_targets_differ_from_their_surroundings(seed: int) -> None:
    invented = demo_scene(seed, 512, 6)
    reflectance = invented.pixels / scene.REFLECTANCE_UNIT
    for target in invented.targets:
        rows, cols = (slice(c - 14, c + 15) for c in (target.row, target.col))
        inside, around = invented.truth[rows, cols], ~invented.truth[rows, cols]
        window = reflectance[:, rows, cols]
        ground = np.median(window[:, around], axis=1)
        assert np.abs(window[:, inside] - ground[:, None]).max() > 0.02


def test_boats_are_on_water_and_the_rest_is_not() -> None:
    boats = 0
    for seed in range(6):
        invented = demo_scene(seed, 512, 8)
        infrared = invented.pixels[3] / scene.REFLECTANCE_UNIT
        for target in invented.targets:
            rows, cols = (slice(c - 14, c + 15) for c in (target.row, target.col))
            around = np.median(infrared[rows, cols][~invented.truth[rows, cols]])
            assert (around < 0.08) == (target.kind == "boat"), (seed, target)
            boats += target.kind == "boat"
    assert boats >= 6


def test_impossible_scenes_are_refused() -> None:
    with pytest.raises(SceneError, match="needs at least 256 px and 0 anomalies"):
        demo_scene(0, 128)
    with pytest.raises(SceneError, match=r"no room for 400 anomalies: only .* Ask for fewer"):
        demo_scene(0, 256, 400)
    assert demo_scene(0, 256, 0).targets == ()


def test_a_training_tile_takes_milliseconds() -> None:
    rng = seeded(0)
    background(rng, 270, 96, 96)
    times = []
    for _ in range(10):
        # Processor time of this thread: the wall clock measures who else is at work.
        start = time.thread_time()
        background(rng, 270, 96, 96)
        times.append(time.thread_time() - start)
    assert min(times) < 0.1, times
