"""Crops: a box or an area of a scene is a scene of its own, read from the same files."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
import zarr
from affine import Affine
from maps import NOT_OF_THE_EARTH
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask
from rasterio.transform import from_origin

import uniadrs_scale as us
from uniadrs_scale.cli import main as cli
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.maps.finished import open_finished
from uniadrs_scale.maps.store import open_store
from uniadrs_scale.objects.find import find
from uniadrs_scale.objects.scored import _require_same_place, scored_scene
from uniadrs_scale.objects.select import Selection
from uniadrs_scale.scenes.crop import OUTSIDE, Cropped
from uniadrs_scale.scenes.preview import scene_picture
from uniadrs_scale.scenes.sources import ArrayScene, scene_source
from uniadrs_scale.scoring.target import Target

if TYPE_CHECKING:
    from pathlib import Path

LEFT, TOP, SIDE = 400000, 6000000, 20
PIXELS = np.random.default_rng(0).integers(1, 3000, (3, 300, 260)).astype(np.uint16)
PIXELS[:, :70, :70] = 0
QUICK = {"scheduler": "sync", "tile": 64, "stride": 48, "chunk": 64, "detector": "rx"}


def write(path: Path, pixels=PIXELS, transform=None, crs="EPSG:32633") -> Path:
    transform = transform or from_origin(LEFT, TOP, SIDE, SIDE)
    profile = {"driver": "GTiff", "count": len(pixels), "dtype": pixels.dtype, "nodata": 0}
    height, width = pixels.shape[1:]
    with rasterio.open(
        path, "w", height=height, width=width, crs=crs, transform=transform, **profile
    ) as file:
        file.write(pixels)
    return path


def box(top: int, left: int, bottom: int, right: int) -> tuple[float, float, float, float]:
    """West, south, east, north of rows and columns."""
    return LEFT + SIDE * left, TOP - SIDE * bottom, LEFT + SIDE * right, TOP - SIDE * top


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    return write(tmp_path / "scene.tif")


def test_a_box_has_the_scores_of_the_same_pixels_in_a_file(raster: Path, tmp_path: Path) -> None:
    part = us.crop(raster, bbox=box(60, 40, 190, 170), crs="EPSG:32633")
    cut = write(tmp_path / "cut.tif", PIXELS[:, 60:190, 40:170],
                from_origin(LEFT + 40 * SIDE, TOP - 60 * SIDE, SIDE, SIDE))  # fmt: skip
    assert isinstance(scene_source(part), Cropped)
    mine, theirs = us.score(part, **QUICK), us.score(cut, **QUICK)
    xr.testing.assert_equal(mine, theirs)
    assert np.isnan(mine.values[:10, :30]).all()  # nodata is known in the crop
    assert mine.rio.transform() == theirs.rio.transform()


def test_pixels_are_read_from_the_files_as_in_the_array(raster: Path) -> None:
    part = us.crop(us.open_scene(raster), bbox=box(60, 40, 190, 170), crs="EPSG:32633")
    np.testing.assert_array_equal(part.values, PIXELS[:, 60:190, 40:170])
    pixels, valid = scene_source(part).window(Window(5, 6, 20, 30)).read()
    np.testing.assert_array_equal(pixels, PIXELS[:, 65:85, 46:76])
    np.testing.assert_array_equal(valid, (pixels != 0).any(axis=0))
    again = us.crop(part, bbox=box(70, 50, 80, 60), crs="EPSG:32633")
    np.testing.assert_array_equal(again.values, PIXELS[:, 70:80, 50:60])
    assert scene_picture(part, 64).rgb.shape == (44, 44, 3)


def test_a_crop_is_another_scene_and_says_so(raster: Path) -> None:
    whole = us.plan(raster, **QUICK)
    boxes = box(60, 40, 190, 170), box(61, 40, 191, 170)
    parts = [us.crop(raster, bbox=sides, crs=32633) for sides in boxes]
    plans = [us.plan(part, **QUICK) for part in (*parts, parts[0].rename("harbour"))]
    assert len({plan.fingerprint for plan in (whole, *plans)}) == 4
    assert "crop         rows 60 to 190, columns 40 to 170 of 300 x 260 px" in plans[0].text()
    assert plans[2].text().startswith("scene        harbour: 130 rows x 130 columns")


def test_a_box_elsewhere_is_told_with_all_its_digits(raster: Path) -> None:
    with pytest.raises(us.SceneError, match=r"box 1234567\.5,10,1234568\.5,20 has no pixel"):
        us.crop(us.open_scene(raster), bbox=(1234567.5, 10, 1234568.5, 20), crs="EPSG:32632")


def test_degrees_cover_the_box(raster: Path) -> None:
    whole = us.open_scene(raster)
    to_degrees = rasterio.warp.transform_bounds
    west, south, east, north = to_degrees(32633, 4326, *box(100, 100, 200, 200))
    part = us.crop(whole, bbox=(west, south, east, north))
    rows, cols = part.sizes["y"], part.sizes["x"]
    assert min(rows, cols) >= 100
    assert max(rows, cols) <= 110
    everything = us.crop(whole, bbox=(-180, -90, 180, 90))
    assert everything.shape == whole.shape


def area_of_the_test() -> shapely.Polygon:
    ring = shapely.Point(LEFT + 130.3 * SIDE, TOP - 150.7 * SIDE).buffer(1100.1)
    return ring.difference(ring.buffer(-500))


def test_an_area_is_the_same_mask_in_all_windows(raster: Path) -> None:
    area = area_of_the_test()
    source = scene_source(part := us.crop(raster, aoi=area, crs="EPSG:32633"))
    inside = ~geometry_mask([area], part.shape[1:], part.rio.transform())
    np.testing.assert_array_equal(part.valid.values, inside)
    height, width = inside.shape
    for row, col in np.ndindex(4, 4):
        window = Window(row * 25, col * 25, min(25, height - row * 25), min(25, width - col * 25))
        _, valid, lost = source.window(window).counted()
        np.testing.assert_array_equal(valid, inside[window.slices])
        assert lost.get(OUTSIDE, 0) == (~valid).sum()


def test_a_dataset_of_bands_is_cropped_too(raster: Path) -> None:
    whole = us.open_scene(raster).load()
    box = LEFT + 50 * SIDE, TOP - 90 * SIDE, LEFT + 90 * SIDE, TOP - 50 * SIDE
    part = us.crop(whole.drop_vars("valid").to_dataset("band"), bbox=box, crs=32633)
    np.testing.assert_array_equal(part.values, us.crop(whole, bbox=box, crs=32633).values)


def test_an_array_without_files_is_cropped_too(raster: Path) -> None:
    whole = us.open_scene(raster).load()
    area = shapely.box(LEFT + 50.2 * SIDE, TOP - 90.2 * SIDE, LEFT + 90 * SIDE, TOP - 50 * SIDE)
    for scene in (whole, whole.drop_vars("valid"), (whole + 0).assign_attrs(whole.attrs)):
        part = us.crop(scene, aoi=area, crs=32633)
        source = scene_source(part)
        assert isinstance(source, ArrayScene)
        _, valid = source.window(Window(0, 0, 41, 40)).read()
        expected = PIXELS[0, 50:91, 50:90] != 0
        expected[-1] = False  # the centres of the last row are outside
        np.testing.assert_array_equal(valid, expected)
        assert source.info.crop


@pytest.mark.parametrize(
    ("first", "box_"), [(170, (175, -10, -175, 10)), (-190, (175, -10, -175, 10))]
)
def test_a_box_may_cross_180_degrees(first: int, box_: tuple[float, ...]) -> None:
    """In a scene whose longitudes are 170 to 190, or -190 to -170."""
    coords = {"y": 19.5 - np.arange(40), "x": first + 0.5 + np.arange(20)}
    scene = xr.DataArray(np.ones((1, 40, 20), np.float32), coords, ("band", "y", "x"))
    part = us.crop(scene.rio.write_crs(4326), bbox=box_)
    assert part.shape == (1, 20, 10)
    assert part.x[0] == first + 5.5


UTM_60, UTM_32 = shapely.box(780e3, 900e3, 9e5, 96e4), shapely.box(4e5, 5e6, 6e5, 53e5)


@pytest.mark.parametrize(
    ("crs", "left", "side", "given", "columns"),
    [
        (3857, 19e6, 5e4, {"bbox": (172, -5, -173, 5)}, (2, 37)),
        (3857, 19e6, 5e4, {"bbox": (-179, -5, -173, 5)}, (22, 37)),
        (3857, 19e6, 5e4, {"aoi": UTM_60, "crs": 32660}, (19, 23)),
        (3832, 29e5, 5e4, {"bbox": (178, -5, -175, 5)}, (4, 20)),
        (4326, -180, 1, {"bbox": (190, 0, 200, 10)}, (10, 20)),
        (4326, 0, 1, {"bbox": (-20, 0, -10, 10)}, (340, 350)),
        (4326, 170, 0.5, {"aoi": UTM_60, "crs": 32660}, (19, 22)),
        (4326, 170, 0.5, {"bbox": (195e5, 0, 205e5, 5e5), "crs": 3857}, (10, 29)),
        (4326, -180, 1, {"aoi": UTM_32, "crs": 32632}, (187, 191)),
        (4326, -180, 1, {"aoi": shapely.Point(0, 0).buffer(1e6), "crs": 3413}, (0, 360)),
    ],
)
def test_an_area_is_found_at_any_turn_of_the_earth(crs, left, side, given, columns) -> None:
    first, last = columns
    width = 360 if side == 1 else 40
    coords = {"y": side * (89.5 - np.arange(180)), "x": left + side * (0.5 + np.arange(width))}
    scene = xr.DataArray(np.ones((1, 180, width), np.uint8), coords, ("band", "y", "x"))
    part = us.crop(scene.rio.write_crs(crs), **given)
    np.testing.assert_array_equal(part.x, coords["x"][first:last])
    assert "bbox" in given or 0 < int(part.valid.sum()) < part.valid.size


def test_a_rotated_grid_is_cropped_by_the_rectangle_around_the_box(tmp_path: Path) -> None:
    turned = Affine.translation(LEFT, TOP) @ Affine.rotation(30) @ Affine.scale(SIDE, -SIDE)
    whole = us.open_scene(write(tmp_path / "turned.tif", transform=turned))
    x, y = turned @ (130.5, 150.5)
    part = us.crop(whole, bbox=(x - 100, y - 100, x + 100, y + 100), crs=32633)
    info = scene_source(part).info
    across, down = (round(side) for side in ~turned @ (info.transform[2], info.transform[5]))
    np.testing.assert_array_equal(
        part.values, PIXELS[:, down : down + info.height, across : across + info.width]
    )
    assert 10 < info.width < 16


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "needs bbox"),
        ({"bbox": (0, 0, 1, 1)}, "covers 13.4"),
        ({"bbox": (1, 1, 0.5, 0)}, "order is west, south, east, north"),
        ({"bbox": (1, 2, 3)}, "not a box"),
        ({"bbox": "west,south,east,north"}, "not a box"),
        ({"aoi": {"type": "Feature"}}, "is not a geometry"),
        ({"aoi": 7}, "aoi=7 is not a geometry"),
        ({"bbox": (0, 0, 1, 1), "crs": "EPSG:99999"}, "not known to PROJ"),
        ({"bbox": (0, 0, 1, 1), "crs": "IAU_2015:30100"}, "cannot bring"),
        ({"aoi": shapely.Point(13.5, 54.1)}, "no polygons"),
        ({"aoi": shapely.box(*box(9, 9, 10, 10)).buffer(-12), "crs": 32633}, "no polygons"),
        ({"aoi": shapely.box(*box(9, 9, 9.4, 99)), "crs": 32633}, "no centre of a pixel"),
        ({"aoi": "missing.geojson"}, "cannot be read as a vector file"),
    ],
)
def test_a_crop_that_cannot_be_is_refused(raster: Path, given: dict, words: str) -> None:
    with pytest.raises(us.UniadrsScaleError, match=words):
        us.crop(raster, **given)


def test_an_area_may_be_a_geojson_geometry(raster: Path) -> None:
    area = shapely.box(*box(60, 40, 190, 170))
    for crs in (32633, "EPSG:32633"):
        part = us.crop(raster, aoi=shapely.geometry.mapping(area), crs=crs)
        assert part.identical(us.crop(raster, aoi=area, crs=crs))
        frame = geopandas.GeoDataFrame(geometry=[area], crs=crs)
        assert part.identical(us.crop([raster], aoi=frame))


@pytest.mark.parametrize("crs", NOT_OF_THE_EARTH.values(), ids=NOT_OF_THE_EARTH)
def test_a_scene_of_another_planet_is_cropped_in_its_crs(raster: Path, crs: str) -> None:
    scene = us.open_scene(raster).drop_vars("spatial_ref").rio.write_crs(crs)
    scene = scene.rio.write_transform(Affine(10, 0, 0, 0, -10, 0))
    assert us.crop(scene, bbox=(100, -300, 200, -100), crs=crs).sizes["y"] == 20
    with pytest.raises(us.SceneError, match=r"covers 0\.0000,.* in units of its CRS"):
        us.crop(scene, bbox=(-200, 100, -100, 300), crs=crs)
    with pytest.raises(us.SceneError, match="Give box or area in the CRS of the scene"):
        us.crop(scene, bbox=(0, 0, 1, 1))


def test_a_scene_without_a_grid_is_refused(raster: Path) -> None:
    scene = us.open_scene(raster)
    bare = xr.DataArray(PIXELS, dims=("band", "y", "x"), name="bare")
    planes = {name: (("y", "x"), np.ones((300, 260))) for name in ("latitude", "longitude")}
    for without, words in (
        (bare, "no CRS"),
        (bare.assign_coords(planes), "is a swath"),
        (scene.drop_vars("spatial_ref"), "no CRS"),
    ):
        with pytest.raises(us.SceneError, match=words):
            us.crop(without, bbox=(0, 0, 1, 1))


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["uniadrs-scale", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        told = capsys.readouterr()
        return int(stop.value.code or 0), told.out + told.err

    return call


OPTIONS = ["--detector", "rx", "--scheduler", "sync", "--tile", 64, "--chunk", 64]


def test_commands_crop_name_and_overwrite(run, raster: Path, tmp_path: Path) -> None:
    sides = ",".join(map(str, box(100, 100, 190, 200)))
    aoi = tmp_path / "area.geojson"
    ring = shapely.geometry.mapping(shapely.box(13.50, 54.09, 13.52, 54.11))
    aoi.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": ring}))
    target = tmp_path / "map.tif"
    command = [raster, "-o", target, *OPTIONS]
    code, told = run("score", *command, "--bbox", f"{sides},EPSG:32633", "--name", "quay")
    assert code == 0, told
    assert "crop     rows 100 to 190, columns 100 to 200 of 300 x 260 px" in told
    with rasterio.open(target) as file:
        assert file.shape == (90, 100)
        assert file.tags()["scene"] == "quay"
    code, told = run("score", *command, "--aoi", aoi)
    assert code == 2
    assert "--overwrite" in told
    code, told = run("plan", *command, "--aoi", aoi, "--overwrite")
    assert "holds another map, which is replaced" in told
    code, told = run("score", *command, "--aoi", aoi, "--overwrite")
    assert code == 0, told
    assert OUTSIDE in told
    with rasterio.open(target) as file:
        assert file.shape != (90, 100)
    code, told = run("score", *command, "--aoi", aoi, "--overwrite")
    assert "were complete before" in told
    assert run("score", *command, "--bbox", "1,2")[0] == 2


def test_overwrite_replaces_maps_and_nothing_else(raster: Path, tmp_path: Path) -> None:
    store = tmp_path / "map.zarr"
    first = us.crop(raster, bbox=box(100, 100, 190, 200), crs=32633)
    us.score(first, store, **QUICK)
    other = us.crop(raster, bbox=box(110, 100, 190, 200), crs=32633)
    with pytest.raises(us.StoreError, match="overwrite=True"):
        us.score(other, store, **QUICK)
    assert us.score(other, store, overwrite=True, **QUICK).shape == (80, 100)
    made = open_store(store).attributes["fingerprint"]
    assert us.score(other, store, overwrite=True, **QUICK).attrs["fingerprint"] == made
    mine = tmp_path / "mine.zarr"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    with pytest.raises(us.StoreError, match="not a score store"):
        us.score(other, mine, overwrite=True, **QUICK)
    picture = Target.of(write(tmp_path / "picture.tif"), overwrite=True)
    with pytest.raises(us.StoreError, match="not a map"):
        picture.is_finished(us.plan(other, **QUICK))
    assert (mine / "thesis.txt").exists()


@pytest.fixture
def bright(tmp_path: Path) -> Path:
    pixels = PIXELS.copy()
    for row, col in (130, 100), (150, 140), (200, 190), (170, 101):
        pixels[:, row : row + 2, col : col + 2] = [[[9000]], [[20000]], [[100]]]
    return write(tmp_path / "bright.tif", pixels)


@pytest.mark.parametrize("suffix", ["tif", "zarr"])
@pytest.mark.parametrize("how", ["bbox", "aoi"])
def test_a_map_knows_its_part(run, bright: Path, tmp_path: Path, how: str, suffix: str) -> None:
    sides = box(100, 80, 230, 210)
    aoi = tmp_path / "area.geojson"
    ring = shapely.geometry.mapping(shapely.box(*sides).buffer(-99))
    crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
    feature = {"type": "Feature", "properties": {}, "geometry": ring}
    aoi.write_text(json.dumps({"type": "FeatureCollection", "features": [feature], "crs": crs}))
    given = {"bbox": f"{','.join(map(str, sides))},EPSG:32633", "aoi": aoi}[how]
    target, listed = tmp_path / f"map.{suffix}", tmp_path / "t.geojson"
    code, told = run("score", bright, "-o", target, *OPTIONS, f"--{how}", given, "--name", "quay")
    assert code == 0, told
    looking = ["--top", 3, "--scene", bright, "--second-look", "--weights", "rx", "--chips"]
    code, told = run("targets", target, *looking, "--scheduler", "sync", "-o", listed)
    assert code == 0, told
    assert "note" not in told
    found = [feature["properties"] for feature in json.loads(listed.read_text())["features"]]
    assert len(list((tmp_path / "t.chips").iterdir())) == len(found) == 3
    part = us.crop(bright, **({"bbox": sides, "crs": 32633} if how == "bbox" else {"aoi": aoi}))
    frame = us.targets(target, part, top=3, second_look=True, detector="rx", scheduler="sync")
    for name in ("support", "contrast_1", "contrast_3"):
        assert [row[name] for row in found] == pytest.approx(frame[name].tolist())
    code, told = run("report", target, "--scene", bright, "-o", tmp_path / "page.html")
    assert code == 0, told
    assert "note" not in told
    assert "of 300 x 260 px" in run("info", target)[1]


def test_a_part_of_a_part_is_found_again(raster: Path, tmp_path: Path) -> None:
    half = us.crop(raster, bbox=box(50, 60, 250, 260), crs=32633)
    part = us.crop(half, aoi=area_of_the_test(), crs="EPSG:32633")
    us.score(part, tmp_path / "map.zarr", **QUICK)
    found = scored_scene(us.open_scene(raster), open_finished(tmp_path / "map.zarr"))
    assert found.notes == ()
    assert found.info.identity == scene_source(part).info.identity
    xr.testing.assert_identical(found.array.valid, part.valid)


def test_a_map_with_pixels_of_another_size_is_that_of_another_scene() -> None:
    grid = GeoBox((1000, 1000), Affine(10, 0, 4e5, 0, -10, 6e6), "EPSG:32633")
    opened: Any = SimpleNamespace(geobox=grid, name="map.tif", facts=SimpleNamespace(scene="a"))
    facts = {"height": 1000, "width": 1000, "crs": grid.crs.to_wkt(), "name": "b"}
    info: Any = SimpleNamespace(**facts, transform=(10.0, 0.0, 4e5, 0.0, -10.0, 6e6))
    _require_same_place(info, opened)
    info.transform = (10.05, 0.0, 4e5, 0.0, -10.05, 6e6)  # five pixels off at the last corner
    with pytest.raises(us.StoreError, match="another place on the ground"):
        _require_same_place(info, opened)


def test_the_part_of_another_scene_or_a_damaged_one_is_refused(
    bright: Path, tmp_path: Path
) -> None:
    part = us.crop(bright, bbox=box(100, 80, 230, 210), crs=32633)
    us.score(part, store := tmp_path / "map.zarr", **QUICK)
    other = write(tmp_path / "other.tif", PIXELS[:, 10:])
    with pytest.raises(us.StoreError, match=r"columns 80 to 210 of 300 x 260 px\), but scene"):
        us.targets(store, us.open_scene(other), top=3)
    moved = write(tmp_path / "else.tif", transform=from_origin(LEFT + 500, TOP, SIDE, SIDE))
    with pytest.raises(us.StoreError, match="another place on the ground"):
        us.targets(store, us.open_scene(moved), top=3)
    (tmp_path / "copy").mkdir()
    copied = write(tmp_path / "copy" / bright.name)
    table = find(store, Selection(top=3), scene=us.open_scene(copied))
    assert "moved or changed" in table.summary()[-1]
    with pytest.raises(us.PlanError, match="as it was scored"):
        us.targets(store, us.open_scene(copied), top=3, second_look=True, detector="rx")
    for bad in ("rows", [7], [{"origin": [0, 0], "size": [9, 9], "whole": [5, 5]}]):
        zarr.open_group(store).attrs["crop"] = bad
        with pytest.raises(us.StoreError, match="is damaged"):
            open_finished(store).facts  # noqa: B018


def test_an_area_around_a_pole_holds_the_pole(tmp_path: Path) -> None:
    place = from_origin(-400_000, 300_000, 10_000, 10_000)
    polar = write(tmp_path / "s.tif", np.ones((1, 60, 80), np.uint8), place, "EPSG:3413")
    part = us.crop(us.open_scene(polar), aoi=shapely.box(-180, 60, 180, 90))
    assert bool(part.valid.all())
