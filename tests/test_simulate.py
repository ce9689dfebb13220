"""Training windows: a function of seed and step, what they hold, whence the backgrounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import imagery
import numpy as np
import planting
import pytest
import radar
import rasterio
import sensors
import simulate
import targets
from scipy import ndimage
from scipy.io import savemat
from sources import Source, read_sources
from spectra import Space

from uniadrs_scale.demo.landscape import background
from uniadrs_scale.detector.whitening import CHANNELS
from uniadrs_scale.errors import SceneError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings(
    "ignore::rasterio.errors.NotGeoreferencedWarning"  # the files written here
)


def source(bands: int, height: int = 90, width: int = 70) -> Source:
    pixels = np.random.default_rng(bands).standard_normal((bands, height, width), np.float32)
    return Source(
        pixels=pixels,
        ignored=np.zeros((height, width), bool),
        weight=1.0,
        mean=np.linspace(10, 90, bands),
        deviation=np.full(bands, 5.0),
        correlation=np.eye(bands),
    )


def same(first: tuple[np.ndarray, ...], second: tuple[np.ndarray, ...]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("effects", ["basic", "all"])
def test_a_batch_depends_on_seed_and_step_only(effects: str) -> None:
    def batch(seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        return simulate.batch(seed, step, [source(30)], windows=2, sensors=effects)

    assert same(batch(5, 9), batch(5, 9))
    for other in (batch(5, 10), batch(6, 9)):
        assert other[0].shape != batch(5, 9)[0].shape or not same(other, batch(5, 9))


def test_windows_are_what_the_network_will_meet() -> None:
    empty, windows, labels_seen = 0, 0, set()
    for step in range(14):
        sensors_of_step = ("basic", "all")[step % 2]
        pixels, labels = simulate.batch(
            2, step, [source(30), source(1)], windows=3, sensors=sensors_of_step
        )
        assert pixels.dtype == np.float32
        assert np.isfinite(pixels).all()
        assert np.abs(pixels).max() <= 8
        assert pixels.shape[:1] + pixels.shape[2:] == labels.shape
        assert pixels.shape[1] == CHANNELS
        assert labels.dtype == np.uint8
        labels_seen |= set(np.unique(labels))
        windows += len(labels)
        empty += sum(not (one == 1).any() for one in labels)
        assert (labels == 1).mean() < 0.25
    assert labels_seen == {0, 1, 2, 3, 4}
    assert 0.08 < empty / windows < 0.4  # 0.2, and those where no target found a place


@pytest.mark.parametrize("empty", [0.0, 1.0])
def test_the_share_of_empty_windows_is_that_asked_for(empty: float) -> None:
    _, labels = simulate.batch(1, 3, [source(1)], windows=6, empty=empty)
    anomalous = [(one == 1).any() for one in labels]
    assert any(anomalous) == (empty == 0)


def test_band_counts_are_those_of_sensors() -> None:
    rng = np.random.default_rng(0)
    counts = [simulate.draw_bands(rng) for _ in range(300)]
    assert min(counts) == 1
    assert max(counts) > 90
    assert 0.05 < np.mean(np.array(counts) == 1) < 0.25


def test_a_share_of_radar_leaves_the_other_batches_alone() -> None:
    radars = 0
    for step in range(20):
        plain = simulate.batch(4, step, [source(1)], windows=1)
        mixed = simulate.batch(4, step, [source(1)], windows=1, radar_share=0.5)
        assert same(mixed, simulate.batch(4, step, [source(1)], windows=1, radar_share=0.5))
        assert mixed[0].shape == plain[0].shape
        radars += not same(plain, mixed)
    assert 5 <= radars <= 15


def test_a_scene_of_several_grounds_has_the_statistics_of_its_pixels() -> None:
    rng = np.random.default_rng(7)
    window = simulate.standard(rng.standard_normal((5, 30, 30)).astype(np.float32))[:, ::2, ::2]
    flat = window.reshape(5, -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    spectra = rng.normal(0, 3, (2, 5))
    parts = [
        flat,
        *(np.repeat(s[:, None], n, axis=1) for s, n in zip(spectra, (75, 150), strict=True)),
    ]
    scene = np.concatenate(parts, axis=1)
    share = 1 / scene.shape[1]
    mean, covariance = simulate.mixed(
        flat @ flat.T / flat.shape[1], 225 * share, np.array([75, 150]) * share, spectra
    )
    assert np.allclose(mean, scene.mean(axis=1))
    assert np.allclose(covariance, np.cov(scene, bias=True))


def test_two_views_are_whitened_by_other_statistics() -> None:
    differ = apart = 0
    for step in range(12):
        plain, labels = simulate.batch(4, step, [source(30)], windows=1)
        both, same_labels = simulate.batch(4, step, [source(30)], windows=1, wider=0.5)
        assert np.array_equal(labels, same_labels)
        assert both.shape == (len(plain), 2 * CHANNELS, *plain.shape[2:])
        assert np.isfinite(both).all()
        assert np.abs(both).max() <= 8
        differ += not np.array_equal(both[:, :CHANNELS], plain)
        # The first component has no arbitrary sign.
        apart += not np.array_equal(both[:, 0], both[:, CHANNELS])
    assert 2 < differ < 12
    assert apart > 6  # two in four are whitened as they are


def test_targets_in_radar_windows_are_mostly_brighter_than_what_is_around() -> None:
    rng, brighter, bands = np.random.default_rng(3), [], set()
    for _ in range(40):
        window = radar.draw(rng, 96, empty=0.2)
        bands.add(len(window.pixels))
        assert np.isfinite(window.pixels).all()
        assert (window.pixels >= 0).all()
        target = window.labels == targets.ANOMALY
        near = ndimage.binary_dilation(target, iterations=5) & (window.labels == 0)
        if target.any() and near.any():
            brighter.append(window.pixels[0, target].mean() > window.pixels[0, near].mean())
    assert bands == {1, 2}
    assert len(brighter) > 20  # a fifth is empty
    assert 0.6 < np.mean(brighter) < 1  # oil and shadows are darker


def test_towns_in_radar_windows_are_bright_and_no_anomaly() -> None:
    towns = 0
    for seed in range(30):
        window = radar.draw(np.random.default_rng(seed), 96, empty=1)
        assert targets.ANOMALY not in window.labels
        clutter = radar.clutter(np.random.default_rng(seed), 96)
        towns += bool(np.percentile(clutter, 99) > 20 * np.percentile(clutter, 5))
    assert towns > 8


def planted(bands: int, pixels: np.ndarray, seed: int) -> tuple[targets.Window, Space]:
    window = targets.Window(pixels=pixels, labels=np.zeros(pixels.shape[1:], np.uint8))
    space = Space.of(pixels, np.ones(bands), None)
    planting.plant_anomalies(np.random.default_rng(seed), window, (), space)
    return window, space


def test_planted_targets_stand_out_and_have_a_rim() -> None:
    found, rims = [], 0
    for seed in range(30):
        noise = np.random.default_rng(seed).normal(0, 0.1, (6, 64, 64)).astype(np.float32)
        window, _ = planted(6, noise, seed)
        strength = np.sqrt(np.square(window.pixels).mean(0))
        anomaly = window.labels == 1
        if anomaly.any():
            found.append(strength[anomaly].mean() / strength[window.labels == 0].mean())
        rims += (window.labels == 2).any()
    assert len(found) > 20
    assert np.median(found) > 2
    assert np.mean(np.array(found) > 1) > 0.9
    assert rims > 10


def test_planted_targets_have_more_energy_than_a_spectral_background() -> None:
    gains = []
    for seed in range(8):
        land = background(np.random.default_rng(seed), 40, 64, 64)
        window, space = planted(40, simulate.standard(land), 50 + seed)
        energy = space.unusual(window.pixels)  # a logarithm
        anomaly = window.labels == 1
        if anomaly.any():
            gains.append(energy[anomaly].mean() - energy[window.labels == 0].mean())
    assert len(gains) >= 6
    assert np.mean(gains) > 0.5
    assert np.mean(np.array(gains) > 0) > 0.8


def test_effects_of_sensors() -> None:
    rng = np.random.default_rng(2)
    pixels = rng.standard_normal((24, 20, 20), np.float32)
    dead = sensors.dead_bands(rng, pixels)
    changed = (dead != pixels).any(axis=(1, 2))
    assert 1 <= changed.sum() <= 6
    assert np.array_equal(dead[~changed], pixels[~changed])
    first, second = (sensors.haze(np.random.default_rng(3), p) for p in (pixels, 0 * pixels))
    with_light = (second > 0).all(axis=0)  # no veil, no light
    kept = ((first - second) / pixels)[:, with_light]
    assert with_light.any()
    assert (kept > 0).all()
    assert (kept < 1).all()
    assert (kept[0] < kept[-1]).all()  # blue suffers most
    dim = np.concatenate([sensors.low_light(rng, pixels[:1]) for _ in range(200)])
    flat = dim.reshape(200, -1)
    assert (flat[:, pixels[0].argmin()] == 0).all()
    assert flat[:, pixels[0].argmax()].mean() == pytest.approx(1, abs=0.05)
    assert flat[:, pixels[0].argmax()].std() > 0.02


def test_effects_leave_their_input_alone_and_come_now_and_then() -> None:
    for bands in (1, 3, 24):
        pixels = np.random.default_rng(bands).standard_normal((bands, 16, 16), np.float32)
        before, touched = pixels.copy(), 0
        for seed in range(60):
            out = sensors.degrade(np.random.default_rng(seed), pixels)
            assert out.dtype == np.float32
            assert np.isfinite(out).all()
            touched += out is not pixels
        assert np.array_equal(before, pixels)
        assert 3 <= touched <= 30


def test_shapes_have_the_area_asked_for() -> None:
    rng = np.random.default_rng(1)
    for shape in set(targets.SHAPES):
        areas = [shape(rng, 40.0).sum() for _ in range(50)]
        assert 20 < np.mean(areas) < 60, shape.__name__
        assert shape(rng, 0.5).max() <= 1


def raster(path: Path, pixels: np.ndarray, nodata: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = pixels.shape
    size = {"width": width, "height": height, "count": bands, "dtype": pixels.dtype}
    with rasterio.open(path, "w", nodata=nodata, **size) as file:
        file.write(pixels)


def test_any_folder_of_rasters_gives_backgrounds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    field = rng.integers(100, 900, (4, 30, 40)).astype(np.int16)
    field[:, :5] = -999
    raster(tmp_path / "b" / "field.tif", field, nodata=-999)
    sea = rng.normal(5, 1, (2, 20, 20)).astype(np.float32)
    sea[0, 3, 4] = np.nan
    raster(tmp_path / "a" / "deep" / "sea.TIFF", sea)
    raster(tmp_path / "grey.png", rng.integers(1, 99, (1, 17, 18)).astype(np.uint8))
    raster(tmp_path / "c" / "thumbnail.png", np.ones((1, 15, 90), np.uint8))  # too small
    savemat(tmp_path / "z.mat", {"cube": rng.integers(1, 99, (25, 26, 20))})
    (tmp_path / "notes.txt").write_text("no raster")
    first, second = read_sources(tmp_path), read_sources(tmp_path)
    assert [s.pixels.shape for s in first] == [(2, 20, 20), (4, 30, 40), (1, 17, 18), (20, 25, 26)]
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert np.isfinite(one.pixels).all()
        assert one.weight == 0.25
    assert [int(s.ignored.sum()) for s in first] == [1, 200, 0, 0]
    assert first[1].ignored[:5].all()
    np.testing.assert_allclose(first[1].mean, field[:, 5:].mean(axis=(1, 2)), rtol=1e-5)
    pixels, _ = simulate.batch(1, 1, first, windows=1)
    assert np.isfinite(pixels).all()


def test_a_broken_raster_is_named(tmp_path: Path) -> None:
    (tmp_path / "torn.tif").write_bytes(b"II*\0torn")
    with pytest.raises(SceneError, match=r"torn\.tif cannot be read"):
        read_sources(tmp_path)


def test_validation_imagery_never_trains(tmp_path: Path) -> None:
    folder = tmp_path / "validate" / "hyperspectral"
    folder.mkdir(parents=True)
    for inside in (folder, folder.parent):
        with pytest.raises(ValueError, match="is validation imagery"):
            read_sources(inside)
    with pytest.raises(ValueError, match="holds validation imagery"):
        read_sources(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no imagery"):
        read_sources(tmp_path / "empty")


def test_cubes_are_read_band_first(tmp_path: Path) -> None:
    cube = np.arange(24, dtype=np.int16).reshape(3, 4, 2)
    savemat(tmp_path / "a.mat", {"data": cube, "map": np.eye(3, 4, dtype=np.uint8)})
    flat = np.arange(45.0).reshape(5, 9)
    savemat(tmp_path / "b.mat", {"Y": flat})
    first, second = imagery.hyperspectral(tmp_path)
    assert np.array_equal(first.pixels, cube.transpose(2, 0, 1))
    assert first.targets.sum() == 3
    assert second.pixels.shape == (5, 3, 3)
    assert second.pixels[2, 1, 2] == flat[2, 1 + 3 * 2]  # Fortran order: rows run first
    assert abs(first.scaled().mean()) < 1e-6
