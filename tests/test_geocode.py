"""The map of a swath: each pixel where it belongs, none lost, none invented."""

from __future__ import annotations

import shutil
import sys
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.transform import GCPTransformer
from rasterio.warp import reproject
from rio_cogeo import cog_validate
from scipy.ndimage import binary_fill_holes
from scipy.spatial import cKDTree
from standins import FirstBand
from swaths import Swath, store_of

import uniadrs_scale as us
from uniadrs_scale.cli import main as cli
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.errors import PlanError, SceneError, StoreError
from uniadrs_scale.maps import geocode
from uniadrs_scale.maps.geocode import on_a_grid
from uniadrs_scale.maps.store import open_map
from uniadrs_scale.scenes.rasters import FileScene
from uniadrs_scale.scenes.sources import ArrayScene, scene_source
from uniadrs_scale.swaths.conventions import geolocation_kind
from uniadrs_scale.swaths.geometry import ControlSurface, Extent, Geocoding, grid_around

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLANTED = 7
"""Pixels between planted targets."""


@st.composite
def swaths(draw: Callable[[Any], Any]) -> Swath:
    return Swath(
        height=draw(st.integers(2, 150)),
        width=draw(st.integers(2, 150)),
        latitude=draw(st.floats(-89, 89)),
        longitude=draw(st.sampled_from([9.0, -179.9, 180.0, 3.0])),
        metres=draw(st.sampled_from([10.0, 300.0, 1000.0])),
        turn=draw(st.floats(0, 360)),
        stretch=draw(st.floats(0, 0.6)),
        bend=draw(st.floats(0, 0.2)),
        mirrored=draw(st.booleans()),
    )


class Drawn:
    """A finished map, and where the swath's pixels lie in its cells."""

    def __init__(self, path: Path, swath: Swath) -> None:
        with rasterio.open(path) as file:
            self.cells, self.crs, self.tags = file.read(1), file.crs, file.tags()
            self.transform = file.transform
        longitude, latitude = swath.centres()
        transformer = Transformer.from_crs(4326, self.crs.to_wkt(), always_xy=True)
        x, y = transformer.transform(longitude, latitude)
        if self.crs.is_geographic:
            x = np.where(x < self.transform.c - 1e-6, x + 360, x)
        cols, rows = ~self.transform * (x, y)
        self.places = np.stack([rows, cols], axis=-1)

    def tree(self, pixels: np.ndarray | None = None) -> cKDTree:
        places = self.places if pixels is None else self.places[pixels]
        return cKDTree(places[np.isfinite(places).all(axis=-1)])

    def centres(self) -> np.ndarray:
        return np.stack(np.mgrid[: self.cells.shape[0], : self.cells.shape[1]], axis=-1) + 0.5

    def offsets(self, score: np.ndarray) -> list[float]:
        """Cells, along the worse axis, from each target to the nearest cell that shows it."""
        cells = np.argwhere(self.cells >= 1)
        values, found = self.cells[tuple(cells.T)], []
        for row, col in np.argwhere(score >= 1):
            shown = cells[values == score[row, col]] + 0.5
            assert len(shown), f"the target at {row}, {col} is lost"
            found.append(float(np.abs(shown - self.places[row, col]).max(axis=1).min()))
            # Nor is it smeared beyond a footprint.
            assert np.abs(shown - self.places[row, col]).max() < 2.5
        return found


def targets(swath: Swath) -> np.ndarray:
    """Scores of 0.1 with single pixels of 1, 2, 3 ..., all different."""
    score = np.full((swath.height, swath.width), 0.1, np.float32)
    part = score[::PLANTED, ::PLANTED]
    part[...] = 1 + np.arange(part.size).reshape(part.shape)
    return score


def draw(folder: Path, swath: Swath, score: np.ndarray, scene: Any = None, **options: Any) -> Drawn:
    scene = swath.scene() if scene is None else scene
    us.to_cog(store_of(scene, score, folder / "s.zarr"), folder / "s.tif", **options)
    return Drawn(folder / "s.tif", swath)


@settings(max_examples=40)
@given(swath=swaths(), control=st.booleans())
def test_planted_targets_are_right_to_half_a_cell(
    tmp_path_factory: pytest.TempPathFactory, swath: Swath, control: bool
) -> None:
    score = targets(swath)
    scene = swath.scene(control=control)
    drawn = draw(tmp_path_factory.mktemp("swath"), swath, score, scene)
    # A target's own cell shows it, to the rounding of float32.
    assert max(drawn.offsets(score)) <= 0.501
    assert drawn.cells.shape[0] * drawn.cells.shape[1] < 40 * score.size + 100


@settings(max_examples=25)
@given(swath=swaths())
def test_no_holes_inside_and_nothing_outside(
    tmp_path_factory: pytest.TempPathFactory, swath: Swath
) -> None:
    score = np.full((swath.height, swath.width), 0.25, np.float32)
    drawn = draw(tmp_path_factory.mktemp("swath"), swath, score)
    shown = np.isfinite(drawn.cells)
    assert (shown == binary_fill_holes(shown)).all()
    # A cell shows a pixel only within three quarters of its spacing along both axes.
    steps = [np.hypot(*np.moveaxis(np.diff(drawn.places, axis=k), -1, 0)).max() for k in (0, 1)]
    distance, _ = drawn.tree().query(drawn.centres())
    assert not shown[distance > 0.8 * sum(steps) + 0.75].any()


def test_nearest_is_the_nearest_pixel(tmp_path: Path) -> None:
    swath = Swath(stretch=0, bend=0, turn=33)
    score = np.random.default_rng(0).random((swath.height, swath.width), np.float32)
    drawn = draw(tmp_path, swath, score, resampling="nearest", resolution=170)
    distance, index = drawn.tree().query(drawn.centres(), k=2)
    inside = np.isfinite(drawn.cells) & (distance[..., 0] < 0.7 * 300 / 170)
    clear = inside & (distance[..., 1] - distance[..., 0] > 0.01)
    assert clear.sum() > 0.9 * inside.sum() > score.size
    assert (drawn.cells[clear] == score.ravel()[index[..., 0][clear]]).all()


def test_max_is_the_highest_pixel_in_each_cell(tmp_path: Path) -> None:
    swath = Swath()
    score = np.random.default_rng(0).random((swath.height, swath.width), np.float32)
    drawn = draw(tmp_path, swath, score, resolution=1500)
    expected = np.full(drawn.cells.shape, -np.inf, np.float32)
    rows, cols = np.floor(drawn.places).astype(int).reshape(-1, 2).T
    np.maximum.at(expected, (rows, cols), score.ravel())
    hit = np.isfinite(expected)
    assert hit.sum() > 500
    assert (drawn.cells[hit] == expected[hit]).mean() > 0.998  # float32 of places at cell borders


@pytest.mark.parametrize("resampling", ["max", "nearest"])
def test_invalid_pixels_stay_invalid(tmp_path: Path, resampling: str) -> None:
    swath = Swath(stretch=0.2)
    score = np.random.default_rng(0).random((swath.height, swath.width), np.float32)
    score[40:70, 50:90] = np.nan
    score[5:7, 20:22] = np.nan
    drawn = draw(tmp_path, swath, score, resampling=resampling)
    distance, _ = drawn.tree(np.isfinite(score)).query(drawn.centres())
    centre = np.floor(drawn.places[55, 70]).astype(int)
    assert np.isnan(drawn.cells[tuple(centre)])
    assert np.isnan(drawn.cells[distance > 1.2]).all()
    assert np.isfinite(drawn.cells).sum() == pytest.approx(
        np.isfinite(score).mean() * (300 / drawn.transform.a) ** 2 * score.size, rel=0.1
    )


def test_pixels_without_a_position_leave_the_rest_alone(tmp_path: Path) -> None:
    swath, score = Swath(), targets(Swath())
    scene = swath.scene()
    unknown = np.zeros(score.shape, bool)
    unknown[:, :9] = unknown[100:] = True
    unknown[30] = True
    for name, fill in (("latitude", np.nan), ("longitude", -999.0)):
        scene[name] = scene[name].where(~unknown, fill)
    score[unknown] = 0.9  # not shown, and not a target
    drawn = draw(tmp_path, swath, score, scene)
    assert max(drawn.offsets(score)) <= 0.501
    assert not (drawn.cells == np.float32(0.9)).any()
    known = np.isfinite(drawn.cells)
    distance, _ = drawn.tree(~unknown).query(drawn.centres())
    assert not known[distance > 2.5].any()


def test_overlapping_scans_leave_no_holes(tmp_path: Path) -> None:
    # The bow tie: scans of ten lines, of which the last two see what the next scan sees first.
    swath = Swath(height=120, stretch=0, bend=0)
    lines = np.arange(120)
    seen = lines - 2.0 * (lines // 10)
    longitude, latitude = swath.lonlat(
        *np.meshgrid(seen + 0.5, np.arange(150) + 0.5, indexing="ij")
    )
    scene = swath.scene().assign_coords(
        latitude=(("y", "x"), latitude), longitude=(("y", "x"), longitude)
    )
    score = np.full((120, 150), 0.1, np.float32)
    us.to_cog(store_of(scene, score, tmp_path / "s.zarr"), tmp_path / "s.tif")
    with rasterio.open(tmp_path / "s.tif") as file:
        shown = np.isfinite(file.read(1))
    assert (shown == binary_fill_holes(shown)).all()
    assert shown.sum() > 0.95 * 98 * 150 * (300 / 300) ** 2


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize(
    "part",
    [
        {"y": slice(31, 110), "x": slice(17, None)},
        {"y": slice(None, None, -1), "x": slice(0, None, 2)},
    ],
)
def test_a_slice_of_a_scene_lies_where_it_did(tmp_path: Path, control: bool, part: Any) -> None:
    swath = Swath()
    whole = xr.DataArray(targets(swath), dims=("y", "x")).isel(part)
    scene = swath.scene(control=control).isel(part)
    us.to_cog(store_of(scene, whole.values, tmp_path / "s.zarr"), tmp_path / "s.tif")
    drawn = Drawn(tmp_path / "s.tif", swath)
    score = np.zeros((swath.height, swath.width), np.float32)
    xr.DataArray(score, dims=("y", "x")).isel(part).values[...] = whole.values
    assert (score >= 1).sum() > 40
    assert max(drawn.offsets(score)) <= 0.501


def test_blocks_of_the_map_are_parts_of_one_whole(tmp_path: Path) -> None:
    swath = Swath(height=300, width=280)
    score = np.random.default_rng(0).random((300, 280), np.float32)
    source = open_map(store_of(swath.scene(), score, tmp_path / "s.zarr", chunk=256))
    drawn = on_a_grid(source, Geocoding(), tmp_path)
    height, width = drawn.geobox.shape
    (whole,) = drawn.read(slice(0, height), slice(0, width))
    for row in range(0, height, 77):
        for col in range(0, width, 101):
            rows, cols = slice(row, min(row + 77, height)), slice(col, min(col + 101, width))
            np.testing.assert_array_equal(drawn.read(rows, cols)[0], whole[rows, cols])


def test_the_file_is_a_cog_that_says_what_it_is(tmp_path: Path) -> None:
    swath = Swath(height=700, width=600)
    score = np.random.default_rng(0).random((700, 600), np.float32)
    store = store_of(swath.scene(), score, tmp_path / "s.zarr", chunk=512)
    path = us.to_cog(store, tmp_path / "s.tif", crs="EPSG:3035", resolution=250.0)
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 3035
        assert file.res == (250, 250)
        assert file.transform.c % 250 == file.transform.f % 250 == 0
        assert file.tags()["fingerprint"] == zarr.open_group(store).attrs["fingerprint"]
        assert file.tags()["geocoding"] == "crs EPSG:3035, resolution 250.0, max"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.tif", "s.zarr"]


# Where on Earth: (swath, EPSG code that is chosen).
PLACES = [
    (Swath(), 32632),
    (Swath(latitude=-33, longitude=18.5), 32734),
    (Swath(latitude=-17, longitude=179.95), 32760),
    (Swath(latitude=20, longitude=180, metres=10_000), 4326),
    (Swath(latitude=20, longitude=-40, metres=10_000), 4326),
    (Swath(latitude=78, longitude=180, metres=10_000), 3995),
    (Swath(latitude=90, longitude=0), 3995),
    (Swath(latitude=-88.5, longitude=40), 3031),
]


@pytest.mark.parametrize(("swath", "code"), PLACES)
def test_a_crs_is_chosen_that_shows_the_swath(tmp_path: Path, swath: Swath, code: int) -> None:
    score = targets(swath)
    drawn = draw(tmp_path, swath, score)
    assert drawn.crs.to_epsg() == code
    assert max(drawn.offsets(score)) <= 0.501
    assert drawn.cells.size < 10 * score.size


def test_longitudes_go_on_across_the_antimeridian(tmp_path: Path) -> None:
    swath = Swath(latitude=10, longitude=179.9)
    score = targets(swath)
    drawn = draw(tmp_path, swath, score, crs="EPSG:4326")
    assert max(drawn.offsets(score)) <= 0.501
    left, right = drawn.transform.c, drawn.transform.c + drawn.cells.shape[1] * drawn.transform.a
    assert 179 < left < 180 < right < 181
    shifted = draw_again(tmp_path, replace(swath, longitude=9.0), score, crs="EPSG:4326")
    assert shifted.cells.shape == pytest.approx(drawn.cells.shape, abs=2)


def draw_again(folder: Path, swath: Swath, score: np.ndarray, **options: Any) -> Drawn:
    (folder / "again").mkdir()
    return draw(folder / "again", swath, score, **options)


@pytest.mark.parametrize(
    ("swath", "crs", "words"),
    [
        (Swath(latitude=10, longitude=180), "EPSG:3857", "tears the swath apart"),
        (Swath(latitude=90), "EPSG:4326", "tears the swath apart"),
        (Swath(latitude=-60), "EPSG:3857", None),
        (Swath(latitude=0, height=700, width=40, metres=30_000, turn=0), None, "tear"),
        (Swath(latitude=90), "EPSG:3857", "cannot show all of the swath|tears"),
    ],
)
def test_a_crs_that_tears_the_swath_is_refused(
    tmp_path: Path, swath: Swath, crs: str | None, words: str | None
) -> None:
    if words is None:
        draw(tmp_path, swath, targets(swath), crs=crs)
        return
    with pytest.raises(PlanError, match=words):
        draw(tmp_path, swath, targets(swath), crs=crs)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    swath, score = Swath(), targets(Swath())
    with pytest.raises(PlanError, match="CRS 'EPSG:0' is not known"):
        Geocoding(crs="EPSG:0")
    with pytest.raises(PlanError, match=r"Resolution -1 is not a cell size"):
        Geocoding(resolution=-1)
    with pytest.raises(PlanError, match="'mean' is not known"):
        Geocoding(resampling="mean")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r"more than 200 per pixel.*coarser resolution"):
        draw(tmp_path, swath, score, resolution=0.001)
    nowhere = swath.scene().assign_coords(latitude=(("y", "x"), np.full(score.shape, np.nan)))
    with pytest.raises(StoreError, match=r"No pixel of .* has a latitude"):
        us.to_cog(store_of(nowhere, score, tmp_path / "n.zarr"), tmp_path / "n.tif")
    points = swath.control()[:8]  # one line
    axes = {"y": np.arange(120) + 0.5, "x": np.arange(150) + 0.5}
    bare = swath.scene().drop_vars(["latitude", "longitude"]).assign_coords(axes)
    line = bare.rio.write_gcps(points, "EPSG:4326")
    with pytest.raises(PlanError, match="8 ground control points do not place a raster"):
        us.to_cog(store_of(line, score, tmp_path / "l.zarr"), tmp_path / "l.tif")


def test_options_for_swaths_are_refused_on_a_grid(tmp_path: Path) -> None:
    swath = Swath()
    axes = {"y": 5e6 - 10 * np.arange(120), "x": 5e5 + 10 * np.arange(150)}
    # A grid that has latitude and longitude as well, as many NetCDF files do, is a grid.
    scene = swath.scene().assign_coords(axes).rio.write_crs("EPSG:32632")
    store = store_of(scene, targets(swath), tmp_path / "s.zarr")
    with pytest.raises(PlanError, match="nothing to geocode"):
        us.to_cog(store, tmp_path / "s.tif", crs="EPSG:4326")
    with rasterio.open(us.to_cog(store, tmp_path / "s.tif")) as file:
        assert file.shape == (120, 150)
        assert "geocoding" not in file.tags()
    assert "latitude" not in zarr.open_group(store)


@pytest.mark.parametrize("scattered", [False, True])
def test_control_surface_agrees_with_the_geometry_and_with_gdal(scattered: bool) -> None:
    swath = Swath(height=400, width=500, metres=20, longitude=180)
    control = swath.control(9, 11)
    if scattered:
        rng = np.random.default_rng(0)
        places = [*rng.uniform(0, 1, (400, 2)), (0, 0), (0, 1), (1, 0), (1, 1)]
        control = [
            GroundControlPoint(row, col, *swath.lonlat(row, col))
            for row, col in np.array(places) * (400, 500)
        ]
    points = np.array([(p.row, p.col, p.y, p.x) for p in control])
    rows, cols = np.arange(400) + 0.5, np.arange(500) + 0.5
    latitude, longitude = ControlSurface.through(points, rows, cols).at(rows, cols)
    true_longitude, true_latitude = swath.centres()
    # In pixels of 20 m; a degree of longitude is shorter by the cosine of 46.
    east = ((longitude - true_longitude + 180) % 360 - 180) * 5_550 * 0.695
    off = np.hypot((latitude - true_latitude) * 5_550, east).max()
    assert off < (0.6 if scattered else 0.01)
    # GDAL's thin-plate spline, a second opinion; without the antimeridian, which it does not know.
    turned = [GroundControlPoint(p.row, p.col, p.x % 360, p.y) for p in control]
    places = [100, 200, 310], [150, 250, 350]
    with GCPTransformer(turned, tps=True) as transformer:
        x, y = transformer.xy(*places)
    assert np.abs((latitude[places] - y) * 5_550).max() < 0.5
    assert np.abs((longitude[places] % 360 - x) * 5_550 * 0.695).max() < 0.5


def test_extent_and_grid_by_hand() -> None:
    extent = Extent.of(np.array([0.0, 0.0, np.nan]), np.array([179.0, -177.0, 0.0]))
    assert extent.longitude % 360 == pytest.approx(181)
    assert extent.radius == pytest.approx(2)
    assert (extent.south, extent.north) == (0, 0)
    assert extent.crs.to_epsg() == 32601
    grid = grid_around(np.array([12.0, -31.0, 39.0, -11.0]), 10.0, extent.crs, 100)
    assert (grid.affine.c, grid.affine.f, grid.shape) == (10, -10, (3, 3))


@pytest.mark.parametrize("islands", [False, True])
def test_where_a_swath_is_takes_no_more_memory_for_a_longer_one(islands: bool) -> None:
    height, width = 5000, 4000
    source = SimpleNamespace(
        name="swath",
        frame=SimpleNamespace(shape=(height, width)),
        array=lambda: SimpleNamespace(chunks=(512, 512)),
    )
    across = np.linspace(0, 20, width)

    def positions(rows: slice, cols: slice) -> tuple[np.ndarray, np.ndarray]:
        shape = rows.stop - rows.start, cols.stop - cols.start
        down = 40 - np.arange(rows.start, rows.stop) / 250
        latitude = np.broadcast_to(down[:, None], shape).copy()
        longitude = np.broadcast_to(across[cols], shape).copy()
        if islands:  # a column a window, where nothing is looked at first
            latitude = np.where(np.arange(shape[1]) == 5, latitude, np.nan)
        return latitude, longitude

    tracemalloc.start()
    extent, _ = geocode._extent(source, positions)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6
    assert extent.north == pytest.approx(40, abs=0.01)
    assert extent.south == pytest.approx(20, abs=0.01)
    assert extent.radius == pytest.approx(14.23, abs=0.8 if islands else 0.05)


def test_an_open_swath_takes_no_memory_for_its_pixels(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "s.zarr", mode="w")
    for name in ("score", "latitude", "longitude"):  # without chunks
        group.create_array(
            name, shape=(8000, 8000), chunks=(512, 512), dtype="f4", dimension_names=("y", "x")
        )
    tracemalloc.start()
    opened = open_map(tmp_path / "s.zarr")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6  # bytes; the two coordinates would take 512e6
    assert geolocation_kind(opened.frame) == "arrays"


def test_scores_and_store_carry_latitude_and_longitude(tmp_path: Path) -> None:
    swath = Swath()
    scene = swath.scene().astype(np.float32)
    scene["latitude"] = scene.latitude.astype(np.float32)
    scene = scene.chunk({"y": 50, "x": 60})
    options: dict[str, Any] = {
        "tile": 32,
        "chunk": 64,
        "detector": FirstBand(),
        "scheduler": "sync",
    }
    in_memory = us.score(scene, **options)
    lazy = us.score(scene, tmp_path / "s.zarr", **options)
    for scores in (in_memory, lazy):
        for name, units in (("latitude", "degrees_north"), ("longitude", "degrees_east")):
            np.testing.assert_array_equal(scores[name].values, scene[name].values)
            assert scores[name].dtype == scene[name].dtype
            assert scores[name].attrs["units"] == units
    assert lazy.latitude.chunks == lazy.chunks
    group = zarr.open_group(tmp_path / "s.zarr")
    assert group["score"].attrs["coordinates"] == "latitude longitude"
    assert group["longitude"].shards == group["score"].shards
    # Resumed, not begun again.
    assert us.score(scene, tmp_path / "s.zarr", **options).identical(lazy)


def test_scores_carry_ground_control_points(tmp_path: Path) -> None:
    swath = Swath()
    scene = swath.scene(control=True).isel(x=slice(20, None))
    scores = us.score(scene, tile=32, chunk=64, detector=FirstBand(), scheduler="sync")
    found, given_ = (array.rio.get_gcps() for array in (scores, scene))
    assert [p.asdict() for p in found] == [p.asdict() for p in given_]
    assert scores.rio.crs == "EPSG:4326"
    assert float(scores.x[0]) == 20.5


@pytest.mark.parametrize("lazy", [False, True])
def test_the_fingerprint_follows_the_geolocation(lazy: bool) -> None:
    def fingerprint(scene: xr.DataArray) -> str:
        scene = scene.chunk() if lazy else scene
        return us.plan(scene, tile=32, detector=FirstBand(), scheduler="sync").fingerprint

    swath, moved = Swath(), Swath(longitude=9.01)
    for control in (False, True):
        prints = [fingerprint(s.scene(control=control)) for s in (swath, swath, moved)]
        assert prints[0] == prints[1] != prints[2]
    assert (
        "geolocation"
        not in us.plan(
            swath.scene().drop_vars(["latitude", "longitude"]),
            detector=FirstBand(),
            scheduler="sync",
        ).decisive()["scene"]
    )


def test_another_geolocation_does_not_share_a_store(tmp_path: Path) -> None:
    store_of(Swath().scene(), targets(Swath()), tmp_path / "s.zarr")
    with pytest.raises(StoreError, match=r"geolocation was [0-9a-f]{16}, is [0-9a-f]{16}"):
        store_of(Swath(turn=28).scene(), targets(Swath()), tmp_path / "s.zarr")


def test_geolocation_that_cannot_be_read_leaves_no_store(tmp_path: Path) -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise OSError("on fire") if block.size else ValueError

    scene = Swath().scene().chunk(64)
    scene["latitude"] = scene.latitude.copy(
        data=scene.latitude.data.map_blocks(fail, dtype=float, meta=np.zeros((0, 0)))
    )
    with pytest.raises(SceneError, match=r"The latitude of the scene cannot be read .*on fire"):
        store_of(scene, targets(Swath()), tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_swath(
    tmp_path: Path, peak_of_cog: Callable[[Path], float]
) -> None:
    peaks = []
    for side in (1500, 4000):  # from 3000 on it stays the same; a small swath fills no buffers
        group = zarr.open_group(tmp_path / f"{side}.zarr", mode="w")
        rows, cols = np.mgrid[:side, :side] * 0.003
        values = {
            "score": np.random.default_rng(0).random((side, side), np.float32),
            "latitude": 40 + 0.9 * rows - 0.3 * cols,
            "longitude": 9 + 1.2 * cols + 0.4 * rows + 0.01 * cols**2,
        }
        for name, value in values.items():
            attributes = {"coordinates": "latitude longitude"} if name == "score" else {}
            group.create_array(name, data=value, chunks=(512, 512), attributes=attributes,
                               dimension_names=("y", "x"))  # fmt: skip
        peaks.append(peak_of_cog(tmp_path / f"{side}.zarr"))
    assert peaks[1] - peaks[0] < 100, peaks  # MiB; scores and geolocation grow by 262


def test_tasks_do_not_read_the_geolocation() -> None:
    source = scene_source(Swath().scene())
    assert isinstance(source, ArrayScene)
    assert set(source.window(Window(0, 0, 20, 20)).array.coords) == set()


@pytest.fixture
def swath_file(tmp_path: Path) -> tuple[Path, Swath, np.ndarray]:
    """A raster with ground control points, as a Sentinel-1 product has them, and bright targets."""
    swath, score = Swath(height=130, width=140), targets(Swath(height=130, width=140))
    path = tmp_path / "swath.tif"
    profile = {
        "driver": "GTiff", "count": 1, "height": 130, "width": 140, "dtype": "float32",
        "gcps": swath.control(), "crs": "EPSG:4326",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(score, 1)
    return path, swath, score


@pytest.mark.filterwarnings("ignore:.*areas of 0.1:uniadrs_scale.SceneWarning")
@pytest.mark.filterwarnings("ignore:.*speckle:uniadrs_scale.SceneWarning")
def test_a_file_with_control_points_from_open_to_map(swath_file, tmp_path: Path) -> None:
    path, swath, score = swath_file
    scene = us.open_scene(path)
    assert scene.rio.crs == "EPSG:4326"
    assert len(scene.rio.get_gcps()) == 80
    assert isinstance(scene_source(scene), FileScene)
    part = scene.isel(y=slice(30, None))
    for name, wanted in (("whole", scene), ("part", part)):
        store, cog = tmp_path / f"{name}.zarr", tmp_path / f"{name}.tif"
        options: dict[str, Any] = {"tile": 32, "detector": FirstBand(), "scheduler": "sync"}
        us.score(wanted, store, **options)
        us.to_cog(store, cog)
        # Where each target lies on the map, the map shows what the store holds of it.
        drawn, stored = Drawn(cog, swath), zarr.open_group(store)["score"][:]
        rows, cols = np.nonzero(score[-wanted.sizes["y"] :] >= 1)
        places = np.floor(drawn.places[-wanted.sizes["y"] :][rows, cols]).astype(int)
        assert len(rows) > 200
        assert (drawn.cells[tuple(places.T)] == stored[rows, cols]).all()


def test_files_with_different_control_points_are_no_scene(swath_file, tmp_path: Path) -> None:
    path, swath, score = swath_file
    other = tmp_path / "other.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 130, "width": 140, "dtype": "float32"}
    moved = replace(swath, turn=28).control()
    with rasterio.open(other, "w", **profile, gcps=moved, crs="EPSG:4326") as file:
        file.write(score, 1)
    same = shutil.copy(path, tmp_path / "same.tif")
    assert us.open_scene([path, same]).sizes["band"] == 2
    with pytest.raises(SceneError, match="different ground control points"):
        us.open_scene([path, other])


def test_score_on_the_command_line_draws_a_map(
    swath_file, tiny_weights: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    path, _, _ = swath_file
    cog = tmp_path / "map.tif"

    def run(*arguments: object, command: str = "score") -> tuple[int, str, str]:
        words = [command, path, "--weights", tiny_weights, "--scheduler", "sync", "--tile", 64]
        monkeypatch.setattr("sys.argv", ["uniadrs-scale", *map(str, [*words, *arguments])])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    options = ["--crs", "EPSG:3035", "--resolution", 500, "--resampling", "nearest"]
    assert run("-o", cog, *options)[0] == 0
    with rasterio.open(cog) as file:
        assert (file.crs.to_epsg(), file.res) == (3035, (500, 500))
        assert len(file.tags()["fingerprint"]) == 16
    before = cog.read_bytes()
    assert "1 were complete before" in run("-o", cog, *options)[1]
    assert "is complete: nothing to do" in run("-o", cog, *options, command="plan")[1]
    for command in "score", "plan":
        code, _, message = run("-o", cog, command=command)
        assert code == 2
        assert "on another grid (crs EPSG:3035, resolution 500.0, nearest, now crs" in message
        code, _, message = run("-o", tmp_path / "map.zarr", *options, command=command)
        assert (code, "are for the COG of a swath" in message) == (2, True)
    assert cog.read_bytes() == before
    code, _, message = run("-o", tmp_path / "other.tif", "--crs", "EPSG:0")
    assert (code, "CRS 'EPSG:0' is not known" in message) == (2, True)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(("map", "other"))) == [
        "map.png",
        "map.qml",
        "map.tif",
        "map.tif.run.json",
    ]


def test_a_real_swath_lies_where_it_should(shared: Path, tmp_path: Path) -> None:
    scene = us.open_scene(shared / "data" / "formats" / "sentinel1_swath_gcps.tif")
    pixels = scene[0].values.astype(np.float32)
    us.to_cog(store_of(scene, pixels, tmp_path / "s.zarr", chunk=512), tmp_path / "s.tif")
    with rasterio.open(tmp_path / "s.tif") as file:
        assert file.crs.to_epsg() == 32643
        shown = file.read(1)
        # GDAL's own thin-plate spline for the same points, nearest neighbour.
        theirs = np.full(shown.shape, np.nan, np.float32)
        reproject(
            pixels, theirs, gcps=scene.rio.get_gcps(), src_crs=scene.rio.crs, src_nodata=np.nan,
            dst_transform=file.transform, dst_crs=file.crs, dst_nodata=np.nan, SRC_METHOD="GCP_TPS",
        )  # fmt: skip
    finite = np.isfinite(shown)
    assert (finite == binary_fill_holes(finite)).all()
    both = finite & np.isfinite(theirs)
    assert both.sum() > 0.995 * finite.sum()
    assert (shown[both] == theirs[both]).mean() > 0.85  # `max` differs where a cell has two pixels
