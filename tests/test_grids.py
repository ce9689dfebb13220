"""Mixed resolution: one grid, named by the caller, read window by window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from products import NORTH, WEST, ramp, write_raster
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.core.contracts import SceneInfo
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.scenes.grids import Grid, ground_size, resampling
from uniadrs_scale.scenes.sources import scene_source

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def mixed(tmp_path: Path) -> list[Path]:
    """10 m and 20 m over the same ground."""
    fine = write_raster(tmp_path / "fine.tif", ramp(1, 80, 60), 10)
    return [fine, write_raster(tmp_path / "coarse.tif", ramp(2, 40, 30), 20)]


def test_without_a_named_grid_it_is_refused_with_the_remedy(mixed: list[Path]) -> None:
    with pytest.raises(us.SceneError, match=r"must share one grid. Name it: --grid finest"):
        us.open_scene(mixed)


def test_the_named_grid_is_that_of_its_file(mixed: list[Path]) -> None:
    for grid, shape, kept in (
        ("finest", (80, 60), 0),
        ("coarsest", (40, 30), 1),
        ("coarse", (40, 30), 1),
    ):
        scene = us.open_scene(mixed, grid=grid)
        assert scene.shape[1:] == shape
        np.testing.assert_array_equal(scene.values[kept], ramp(kept + 1, *shape))
        assert scene.valid.all()
        assert scene.attrs["gsd_m"] == (10 if kept == 0 else 20)


def test_finer_is_interpolated_and_coarser_averaged(mixed: list[Path]) -> None:
    fine = us.open_scene(mixed, grid="finest").values[1].astype(float)
    rows, cols = np.mgrid[:80, :60]
    exact = 2001 + 10 * (rows - 0.5) / 2 + (cols - 0.5) / 2  # a plane comes back as a plane
    assert np.abs(fine - exact)[2:-2, 2:-2].max() <= 0.5
    coarse = us.open_scene(mixed, grid="coarsest").values[0].astype(float)
    assert np.abs(coarse - ramp(1, 80, 60).reshape(40, 2, 30, 2).mean(axis=(1, 3))).max() <= 0.5


def test_what_a_file_does_not_cover_is_invalid(tmp_path: Path, mixed: list[Path]) -> None:
    part = ramp(2, 20, 30)
    part[5, 5] = 7
    half = write_raster(tmp_path / "half.tif", part, 20, nodata=7)
    valid = us.open_scene([mixed[0], half], grid="finest").valid.values
    assert not valid[40:].any()
    assert not valid[10:12, 10:12].any()
    assert valid[:40].sum() == 40 * 60 - 4
    bare = write_raster(tmp_path / "bare.tif", ramp(2, 20, 30), 20)
    assert us.open_scene([mixed[0], bare], grid="finest").valid.values.sum() == 40 * 60
    floats = write_raster(tmp_path / "floats.tif", ramp(2, 20, 30, "float32"), 20)
    assert us.open_scene([mixed[0], floats], grid="finest").valid.values.sum() == 40 * 60


def test_no_mean_includes_nodata_of_one_band(tmp_path: Path) -> None:
    shapes = {10: (2, 80, 60), 20: (2, 40, 30)}
    for metres, other, grid in ((10, 20, "coarsest"), (20, 10, "finest")):
        holes = np.full(shapes[metres], 1000, np.float32)
        holes[0, 10, 10] = -9999
        half = write_raster(tmp_path / "holes.tif", holes, metres, nodata=-9999)
        whole = write_raster(tmp_path / "whole.tif", np.full(shapes[other], 5, "f4"), other)
        for bands in (None, [1, 3]):
            scene = us.open_scene([whole, half], grid=grid, bands=bands)
            assert np.unique(scene.values[:, scene.valid.values]).tolist() == [5, 1000]


def test_a_geobox_is_a_grid(mixed: list[Path]) -> None:
    box = GeoBox((30, 20), Affine(15, 0, WEST + 60, 0, -15, NORTH - 60), "EPSG:32632")
    scene = us.open_scene(mixed, grid=box)
    assert scene.rio.transform() == box.affine
    assert scene.shape == (2, 30, 20)
    assert scene_source(scene).info.grid == "given, 15 metre pixels"
    other_zone = GeoBox.from_bbox((8.999, 45.149, 9.006, 45.1545), "EPSG:4326", resolution=1e-4)
    assert us.open_scene(mixed, grid=other_zone).valid.mean() > 0.5


@given(st.integers(0, 79), st.integers(0, 59), st.integers(1, 40), st.integers(1, 40))
def test_any_window_of_a_resampled_scene_is_that_part_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, row: int, col: int, height: int, width: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "windows"
    if not folder.exists():
        rng = np.random.default_rng(0)
        for name, shape, metres in (("a", (80, 60), 10), ("b", (27, 20), 30)):
            noise = rng.integers(1, 9999, shape).astype(np.uint16)
            write_raster(folder / f"{name}.tif", noise, metres)
    scene = scene_source(us.open_scene(folder / "*.tif", grid="finest"))
    window = Window(row, col, min(height, 80 - row), min(width, 60 - col))
    pixels, valid = scene.window(window).read()
    whole, whole_valid = scene.window(Window(0, 0, 80, 60)).read()
    np.testing.assert_array_equal(pixels, whole[:, *window.slices])
    np.testing.assert_array_equal(valid, whole_valid[window.slices])


def test_mixed_scene_is_scored_alike_for_every_chunk(mixed: list[Path]) -> None:
    maps = [
        us.score(
            us.open_scene(mixed, grid="finest", bands=[2, 1]),
            detector=FirstBand(), scheduler="sync", tile=32, chunk=chunk,
        )
        for chunk in (32, 48, 128)
    ]  # fmt: skip
    for other in maps[1:]:
        np.testing.assert_array_equal(other.values, maps[0].values)


def test_what_cannot_share_a_grid_is_refused(tmp_path: Path, mixed: list[Path]) -> None:
    away = Affine(20, 0, WEST + 1e6, 0, -20, NORTH)
    far = write_raster(tmp_path / "far.tif", ramp(1, 20, 20), 20, transform=away)
    with pytest.raises(us.SceneError, match=r"'far.tif' does not overlap the common grid"):
        us.open_scene([mixed[0], far], grid="finest")
    bare = write_raster(tmp_path / "bare.tif", ramp(1, 20, 20), 20, crs=None, transform=None)
    with pytest.raises(us.SceneError, match=r"'bare.tif' has no transform: only georeferenced"):
        us.open_scene([mixed[0], bare], grid="finest")
    with pytest.raises(
        us.SceneError, match=r"grid='best' is not a grid of this scene.*fine, coarse"
    ):
        us.open_scene(mixed, grid="best")


def test_one_grid_needs_no_resampling(tmp_path: Path, mixed: list[Path]) -> None:
    same = write_raster(tmp_path / "same.tif", ramp(3, 80, 60), 10)
    info = scene_source(us.open_scene([mixed[0], same], grid="finest")).info
    assert info.grid == ""
    shifted = Affine(10, 0, WEST + 50, 0, -10, NORTH - 100)
    other = write_raster(tmp_path / "moved.tif", ramp(3, 80, 60), 10, transform=shifted)
    scene = us.open_scene([mixed[0], other], grid="fine")
    np.testing.assert_array_equal(scene.values[1, 10:, 5:], ramp(3, 80, 60)[:70, :55])  # exact


def test_ground_size_is_measured_on_the_ground() -> None:
    utm = Grid(100, 100, (10, 0, 5e5, 0, -10, 5e6), "EPSG:32632")
    mercator = Grid(100, 100, (10, 0, 1e6, 0, -10, 5_621_521), "EPSG:3857")  # 45 degrees north
    assert ground_size(utm) == 10.0
    assert ground_size(mercator) == pytest.approx(7.09, abs=0.02)
    assert resampling(utm, utm, "a") == "nearest"


def test_summary_says_how_large_pixels_are() -> None:
    info = SceneInfo(
        name="a", identity="b", height=3, width=3, bands=("1",), dtype="uint8", itemsize=1,
        crs=None, transform=None, gsd_m=9.5, geolocation="4 ground control points 0123456789abcdef",
    )  # fmt: skip
    assert info.georeference == (
        "4 ground control points: scored as sensed, drawn on a grid as a COG"
    )
