"""Targets of finished maps: the same for any chunks and executors, measured on the ground."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from xml.etree import ElementTree as ET

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
import xarray as xr
import zarr
from affine import Affine
from distributed import Client
from maps import LEVELS, NOT_OF_THE_EARTH, make_map, planted
from PIL import Image
from pyarrow import parquet
from pyproj import Geod, Transformer
from swaths import Swath
from typer.testing import CliRunner

import uniadrs_scale as us
from uniadrs_scale.cli.main import app
from uniadrs_scale.errors import PlanError, StoreError
from uniadrs_scale.objects.files import write
from uniadrs_scale.objects.find import find
from uniadrs_scale.objects.measures import column_names
from uniadrs_scale.objects.select import Selection
from uniadrs_scale.objects.table import NAMED
from uniadrs_scale.runtime.cluster import await_workers, local_cluster
from uniadrs_scale.runtime.compute import Compute

GEOD = Geod(ellps="WGS84")
UTM = {"crs": "EPSG:32633", "transform": (10, 0, 500_000, 0, -10, 5_000_000)}


def flat(table):
    """Return all columns and geometries of a table, comparable to the bit."""
    columns = {
        name: values.tobytes() if values.dtype != object else values.tolist()
        for name, values in table.columns.items()
    }
    shapes = (table.geometry, table.peaks)
    return columns, [None if g is None else g.wkb for group in shapes for g in group]


@pytest.fixture(scope="module")
def utm_map(tmp_path_factory):
    return make_map(tmp_path_factory.mktemp("utm") / "map.zarr", planted(), **UTM)


@pytest.mark.parametrize("chunk", [33, 64, 100, 1000])
def test_any_chunks_give_the_same_table(utm_map, chunk):
    expected = find(utm_map, compute=Compute.of("sync"))
    assert len(expected) > 10
    assert flat(find(utm_map, chunk=chunk, compute=Compute.of("sync"))) == flat(expected)


def test_whole_scenes_and_large_chunks_give_the_same_table(tmp_path):
    score = planted((1100, 1300))
    path = make_map(tmp_path / "map.zarr", score, chunk=512, **UTM)
    few = Selection(threshold=0.97, grow=0.7)
    whole = find(path, few, chunk=10_000, compute=Compute.of("sync"))
    assert len(whole) > 100
    for chunk in (512, 777, 2048):
        table = find(path, few, chunk=chunk, compute=Compute.of("threads"))
        assert flat(table) == flat(whole)


def test_threads_and_a_cluster_give_the_same_table(utm_map):
    expected = flat(find(utm_map, compute=Compute.of("sync")))
    assert flat(find(utm_map, compute=Compute.of("threads"))) == expected
    with local_cluster(2, 1, ()) as cluster, Client(cluster) as client:
        await_workers(client, 2)
        with client.as_current():
            assert flat(find(utm_map, compute=Compute.of())) == expected


def test_a_cog_of_the_map_has_the_same_targets(utm_map, tmp_path):
    us.to_cog(utm_map, tmp_path / "map.tif")
    assert (
        flat(find(tmp_path / "map.tif", Selection(threshold=0.7)))[1]
        == (flat(find(utm_map, Selection(threshold=0.7)))[1])
    )


def test_the_table_says_what_it_must(utm_map):
    table = find(utm_map)
    score = planted()
    columns = table.columns
    peaks = score[columns["peak_row"], columns["peak_col"]]
    assert (columns["score_max"] == peaks).all()
    assert (peaks >= 0.7).all()
    assert (np.diff(columns["score_max"]) <= 0).all()
    assert columns["rank"].tolist() == list(range(1, len(table) + 1))
    high = columns["score_max"] >= np.float32(0.8)
    assert columns["level"].tolist() == ["high" if up else "medium" for up in high]
    assert columns["far_per_mpx"] == pytest.approx(LEVELS.far_per_mpx(peaks))
    assert len(set(columns["target_id"])) == len(table)
    assert table.facts["count"] == len(table)
    assert table.facts["threshold"] == 0.7
    for k, shape in enumerate(table.geometry):
        assert shape.is_valid
        assert shape.area == pytest.approx(100 * columns["pixels"][k])
        assert shape.covers(table.peaks[k])
        box = np.s_[
            columns["row0"][k] : columns["row1"][k], columns["col0"][k] : columns["col1"][k]
        ]
        assert columns["valid_fraction"][k] == pytest.approx(np.isfinite(score[box]).mean())
    x, y = Transformer.from_crs(4326, 32633, always_xy=True).transform(
        columns["lon"], columns["lat"]
    )
    assert x == pytest.approx(500_000 + 10 * (columns["peak_col"] + 0.5), abs=0.01)
    assert y == pytest.approx(5_000_000 - 10 * (columns["peak_row"] + 0.5), abs=0.01)


PLACES = {
    "utm": UTM,
    "mercator at 60 N": {"crs": "EPSG:3857", "transform": (20, 0, 1e6, 0, -20, 8_399_737)},
    "degrees": {"crs": "EPSG:4326", "transform": (1e-4, 0, 20, 0, -1e-4, 65)},
    "degrees beyond 180": {"crs": "EPSG:4326", "transform": (1e-4, 0, 179.99, 0, -1e-4, -16)},
    "polar": {"crs": "EPSG:3413", "transform": (40, 0, 100_000, 0, -40, -800_000)},
    "feet, south up": {"crs": "EPSG:2263", "transform": (30, 0, 990_000, 0, 30, 200_000)},
}


@pytest.mark.parametrize("place", PLACES)
def test_sizes_are_those_of_geodesics(place, tmp_path):
    score = np.zeros((120, 160), np.float32)
    score[20:60, 30:40] = 0.9  # 40 x 10 px
    score[100, 100] = 0.85
    path = make_map(tmp_path / "map.zarr", score, **PLACES[place])
    table = find(path)
    affine = PLACES[place]["transform"]
    into = Transformer.from_crs(PLACES[place]["crs"], 4326, always_xy=True)

    def degrees(col, row):
        return into.transform(affine[2] + affine[0] * col, affine[5] + affine[4] * row)

    # The outline as dense points, so that edges are those of the map.
    ring = shapely.segmentize(shapely.box(30, 20, 40, 60), 0.5).exterior.coords
    area, _ = GEOD.polygon_area_perimeter(*zip(*(degrees(*point) for point in ring), strict=True))
    columns = table.columns
    assert columns["area_m2"][0] == pytest.approx(abs(area), rel=0.005)
    bearing, _, long = GEOD.inv(*degrees(35, 20), *degrees(35, 60))
    _, _, wide = GEOD.inv(*degrees(30, 40), *degrees(40, 40))
    (long, wide), turned = sorted((long, wide), reverse=True), wide > long
    assert columns["length_m"][0] == pytest.approx(long, rel=0.005)
    assert columns["width_m"][0] == pytest.approx(wide, rel=0.005)
    if not turned:
        difference = (columns["orientation_deg"][0] - bearing + 90) % 180 - 90
        assert abs(difference) < 1
    one = GEOD.polygon_area_perimeter(
        *zip(*(degrees(*p) for p in ((100, 100), (101, 100), (101, 101), (100, 101))), strict=True)
    )
    assert columns["area_m2"][1] == pytest.approx(abs(one[0]), rel=0.005)
    # A pixel: 4 sigma of a uniform square.
    side = 4 / np.sqrt(12) * np.sqrt(abs(one[0]))
    assert np.sqrt(columns["length_m"][1] * columns["width_m"][1]) == pytest.approx(side, rel=0.005)
    assert (columns["lon"][0], columns["lat"][0]) == pytest.approx(
        ((degrees(30.5, 20.5)[0] + 180) % 360 - 180, degrees(30.5, 20.5)[1]), abs=1e-9
    )


@pytest.mark.parametrize("longitude", [9.0, 180.0])
@pytest.mark.parametrize("kind", ["inside", "at the corner"])
def test_sizes_and_places_on_a_swath(tmp_path, longitude, kind):
    swath = Swath(longitude=longitude)
    row, col = (40, 60) if kind == "inside" else (0, 0)
    score = np.zeros((swath.height, swath.width), np.float32)
    score[row : row + 30, col : col + 12] = 0.9
    path = make_map(tmp_path / "map.zarr", score, lonlat=swath.centres())
    table = find(path)
    ring = shapely.segmentize(shapely.box(col, row, col + 12, row + 30), 0.5).exterior.coords
    area, _ = GEOD.polygon_area_perimeter(*zip(*(swath.lonlat(y, x) for x, y in ring), strict=True))
    assert table.columns["area_m2"][0] == pytest.approx(abs(area), rel=0.005)
    assert table.crs is not None
    shape = table.geometry[0]
    assert shape.is_valid
    west, _, east, _ = shape.bounds
    assert west >= -180
    assert east <= 180
    lon, lat = table.columns["lon"][0], table.columns["lat"][0]
    true = swath.lonlat(row + 0.5, col + 0.5)
    assert GEOD.inv(lon, lat, *true)[2] < 1
    # Corners to a hundredth of a pixel of 300 m or more.
    corners = np.array([swath.lonlat(y, x) for y in (row, row + 30) for x in (col, col + 12)])
    for corner in corners:
        place = shapely.Point((corner[0] + 180) % 360 - 180, corner[1])
        assert shape.exterior.distance(place) < 0.001 if longitude == 9 else True
    sides = {"Polygon", "MultiPolygon"}
    assert shape.geom_type in sides


def test_an_outline_across_the_antimeridian_is_cut(tmp_path):
    swath = Swath(longitude=180.0, turn=0, bend=0)
    score = np.zeros((swath.height, swath.width), np.float32)
    score[50:60, 60:90] = 0.9
    table = find(make_map(tmp_path / "map.zarr", score, lonlat=swath.centres()))
    shape = table.geometry[0]
    assert shape.geom_type == "MultiPolygon"
    assert shape.is_valid
    assert {part.bounds[0] == -180 or part.bounds[2] == 180 for part in shape.geoms} == {True}
    whole = sum(abs(GEOD.geometry_area_perimeter(part)[0]) for part in shape.geoms)
    assert whole == pytest.approx(table.columns["area_m2"][0], rel=0.005)


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3413", 90), ("EPSG:3031", -90)])
def test_an_object_on_a_pole_contains_it_in_geojson(tmp_path, crs, pole):
    score = np.zeros((60, 60), np.float32)
    score[25:36, 25:36] = 0.9
    place = {"crs": crs, "transform": (1000, 0, -30_000, 0, -1000, 30_000)}
    make_map(tmp_path / "map.zarr", score, **place)
    assert run(tmp_path / "map.zarr", "-o", tmp_path / "t.geojson").exit_code == 0
    (feature,) = json.loads((tmp_path / "t.geojson").read_text())["features"]
    shape = shapely.geometry.shape(feature["geometry"])
    assert shape.is_valid
    west, south, east, north = shape.bounds
    assert (west, east) == (-180, 180)
    assert pole in (south, north)
    assert north - south < 0.2


def test_parts_that_touch_at_corners_are_cut_at_the_antimeridian(tmp_path):
    score = np.zeros((90, 20), np.float32)
    boxes = (70, 72, 4, 10), (72, 74, 3, 11), (74, 75, 4, 8), (74, 75, 11, 12), (75, 76, 12, 13)
    for row0, row1, col0, col1 in (*boxes, (76, 77, 12, 14), (77, 78, 13, 14)):
        score[row0:row1, col0:col1] = 0.9
    place = {"crs": "EPSG:4326", "transform": (0.001, 0, 179.99, 0, -0.001, 52)}  # 180 at column 10
    make_map(tmp_path / "map.zarr", score, **place)
    assert run(tmp_path / "map.zarr", "-o", tmp_path / "t.geojson").exit_code == 0
    (feature,) = json.loads((tmp_path / "t.geojson").read_text())["features"]
    shape = shapely.geometry.shape(feature["geometry"])
    assert shape.is_valid
    assert shape.area == pytest.approx(np.count_nonzero(score) * 1e-6)
    assert shape.bounds[::2] == (-180, 180)


def test_geojson_of_a_map_from_0_to_360_is_within_180(tmp_path):
    score = np.zeros((90, 180), np.float32)
    score[40:44, 88:93] = 0.9  # 176 to 186 degrees
    score[10:12, 178:180] = 0.85  # up to 360
    score[60:62, 90:94] = 0.8  # from 180
    place = {"crs": "EPSG:4326", "transform": (2, 0, 0, 0, -2, 90)}
    make_map(tmp_path / "map.zarr", score, **place)
    assert run(tmp_path / "map.zarr", "-o", tmp_path / "t.geojson").exit_code == 0
    features = json.loads((tmp_path / "t.geojson").read_text())["features"]
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    assert all(shape.is_valid for shape in shapes)
    assert [shape.area for shape in shapes] == pytest.approx([80, 16, 32])
    parts = sorted(part.bounds for part in shapes[0].geoms)
    assert parts == [(-180, 2, -174, 10), (176, 2, 180, 10)]
    assert shapes[1].bounds == (-4, 66, 0, 70)
    assert shapes[2].bounds == (-180, -34, -172, -30)


def test_a_map_without_a_place_counts_pixels(tmp_path):
    table = find(make_map(tmp_path / "map.zarr", planted()))
    assert table.crs is None
    assert np.isnan(table.columns["area_m2"]).all()
    assert table.geometry[0].area == table.columns["pixels"][0]


@pytest.mark.parametrize("crs", NOT_OF_THE_EARTH.values(), ids=NOT_OF_THE_EARTH)
def test_a_map_of_another_planet_keeps_its_crs_and_has_no_degrees(tmp_path, crs):
    place = {"crs": crs, "transform": (5, 0, -1000, 0, -5, 1000)}
    table = find(make_map(tmp_path / "map.zarr", planted(), **place))
    assert np.isnan(table.columns["area_m2"]).all()
    assert np.isnan(table.columns["lat"]).all()
    assert table.geometry[0].area == 25 * table.columns["pixels"][0]
    write(table, tmp_path / "t.gpkg")
    assert pyogrio.read_info(tmp_path / "t.gpkg", layer="targets")["crs"] is not None
    with pytest.raises(PlanError, match="no CRS of the Earth"):
        write(table, tmp_path / "t.geojson")
    with pytest.raises(PlanError, match="no CRS of the Earth"):
        find(tmp_path / "map.zarr", Selection(min_area=5))


def test_a_global_grid_of_points_ends_at_the_poles(tmp_path):
    score = np.zeros((73, 144), np.float32)
    score[:3, 10:13] = score[-1:, 50] = 0.9
    place = {"crs": 4326, "transform": (2.5, 0, -181.25, 0, -2.5, 91.25)}
    table = find(make_map(tmp_path / "map.zarr", score, **place))
    cap = GEOD.geometry_area_perimeter(shapely.box(0, 83.75, 7.5, 90))[0]
    assert table.columns["area_m2"][0] == pytest.approx(abs(cap), rel=0.01)
    write(table, tmp_path / "t.geojson")
    found = [
        shapely.geometry.shape(f["geometry"])
        for f in json.loads((tmp_path / "t.geojson").read_text())["features"]
    ]
    assert [shape.bounds[3] for shape in found] == [90, -88.75]
    assert [shape.bounds[1] for shape in found] == [83.75, -90]


def test_positions_that_are_unknown_are_null(tmp_path):
    swath = Swath()
    lon, lat = swath.centres()
    score = np.zeros(lon.shape, np.float32)
    score[10:13, 10:13] = 0.9
    score[50:53, 50:53] = 0.95
    lon[5:20, 5:20] = np.nan
    table = find(make_map(tmp_path / "map.zarr", score, lonlat=(lon, lat)))
    assert [g is None for g in table.geometry] == [False, True]
    assert [g is None for g in table.peaks] == [False, True]
    assert np.isnan(table.columns["area_m2"]).tolist() == [False, True]


def test_positions_that_are_fill_move_no_target(tmp_path):
    areas = {}
    for name, fill in (("unknown", np.nan), ("zero", 0.0)):
        lon, lat = Swath().centres()
        score = np.zeros(lon.shape, np.float32)
        score[50:56, 10:14] = 0.9
        lon[:, :10] = lat[:, :10] = fill
        score[:, :10] = np.nan
        table = find(make_map(tmp_path / f"{name}.zarr", score, lonlat=(lon, lat)))
        areas[name] = table.columns["area_m2"].tolist()
    assert areas["zero"] == areas["unknown"]


def test_an_empty_answer_says_why(utm_map, tmp_path):
    table = find(utm_map, Selection(threshold=1.0))
    best = float(np.nanmax(planted()))
    assert len(table) == 0
    assert f"the highest score is {best:.3f} at" in table.empty_because
    nothing = make_map(tmp_path / "nan.zarr", np.full((9, 9), np.nan))
    assert "no pixel with a score" in find(nothing).empty_because
    dropped = find(utm_map, Selection(level="medium", min_area=1e9))
    assert re.match(r"0 targets at level medium \(\d+ were dropped by size", dropped.empty_because)


def test_top_gives_the_highest_and_no_levels_are_needed(utm_map, tmp_path):
    plain = make_map(tmp_path / "map.zarr", planted(), levels=None, **UTM)
    table = find(plain, Selection(top=5))
    assert table.columns["score_max"].tolist() == find(utm_map).columns["score_max"][:5].tolist()
    assert table.columns["level"].tolist() == [None] * 5
    assert np.isnan(table.columns["far_per_mpx"]).all()


def test_a_list_keeps_a_command_that_a_shell_takes(utm_map, tmp_path, monkeypatch):
    path = tmp_path / "my list.geojson"
    arguments = ["targets", str(utm_map), "-o", str(path)]
    monkeypatch.setattr(sys, "argv", ["uniadrs-scale", *arguments])
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert f"-o '{path}'" in path.read_text()


def test_false_alarms_pick_the_threshold(utm_map):
    assert find(utm_map, Selection(false_alarms=10)).facts["threshold"] == pytest.approx(0.6)
    most = LEVELS.false_per_mpx[0]
    found = find(utm_map, Selection(false_alarms=most))
    assert found.facts["threshold"] == pytest.approx(LEVELS.scores[0])
    with pytest.raises(PlanError, match=r"more than all objects of empty ground .* at most"):
        find(utm_map, Selection(false_alarms=1.01 * most))


def areas(path, shape, crs="EPSG:4326"):
    geopandas.GeoDataFrame(geometry=[shape], crs=crs).to_file(path)
    return path


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32633", "EPSG:3035"])
def test_areas_keep_and_drop_targets(utm_map, tmp_path, crs):
    west = shapely.box(500_000, 4_990_000, 501_503, 5_010_000)
    there = geopandas.GeoSeries([shapely.segmentize(west, 100)], crs="EPSG:32633").to_crs(crs)
    path = areas(tmp_path / "a.gpkg", there.iloc[0], crs)
    every = find(utm_map)
    touches = shapely.intersects(west, every.geometry)
    inside = find(utm_map, Selection(aoi=path))
    outside = find(utm_map, Selection(exclude=path))
    names = every.columns["target_id"]
    assert inside.columns["target_id"].tolist() == names[touches].tolist()
    assert outside.columns["target_id"].tolist() == names[~touches].tolist()
    near = shapely.distance(west, every.geometry) <= 300
    grown = find(utm_map, Selection(exclude=path, buffer=300))
    assert grown.columns["target_id"].tolist() == names[~near].tolist()


SPAIN_TO_JAPAN = shapely.Polygon([(-9, 37), (-9, 43), (30, 60), (140, 60), (140, 35), (80, 10)])


@pytest.mark.parametrize("area", [shapely.box(-180, -90, 180, 90), SPAIN_TO_JAPAN])
def test_areas_of_continents_are_where_they_are(tmp_path, area):
    # On the other side of the Earth of Spain, where a plane shows an area inside out.
    new_zealand = {"crs": "EPSG:32760", "transform": (10, 0, 414_000, 0, -10, 5_570_000)}
    path = make_map(tmp_path / "map.zarr", planted(), **new_zealand)
    every, file = find(path), areas(tmp_path / "a.gpkg", area)
    inside = shapely.contains_xy(area, every.columns["lon"], every.columns["lat"])
    assert len(find(path, Selection(aoi=file))) == inside.sum()
    assert len(find(path, Selection(exclude=file, buffer=100))) == (~inside).sum()


def test_python_says_what_the_command_says(tmp_path):
    path = make_map(tmp_path / "map.zarr", planted(), **UTM)
    with pytest.warns(us.SceneWarning, match="0 targets at threshold 1; the highest score is"):
        us.targets(path, threshold=1.0)
    zarr.open_group(path, mode="r+")["done"][0, 0] = 0
    with pytest.warns(us.IncompleteWarning, match="1 of 20 chunks .* so targets are missing"):
        us.targets(path)


def test_sizes_choose(utm_map):
    every = find(utm_map)
    area = every.columns["area_m2"]
    middle = float(np.median(area)) + 1
    small = find(utm_map, Selection(min_area=middle))
    assert len(small) == (area >= middle).sum()
    boxed = find(utm_map, Selection(max_area=middle))
    assert len(boxed) == len(every)
    for shape, size in zip(boxed.geometry, area, strict=True):
        if size > middle:
            assert shape.equals(shapely.box(*shape.bounds))


def test_points_and_boxes(utm_map):
    assert {g.geom_type for g in find(utm_map, Selection(geometry="point")).geometry} == {"Point"}
    boxes = find(utm_map, Selection(geometry="box"))
    assert all(g.equals(shapely.box(*g.bounds)) for g in boxes.geometry)


def test_the_public_function_returns_geopandas(utm_map):
    frame = us.targets(utm_map, level="high", scheduler="sync")
    assert frame.crs.to_epsg() == 32633
    assert set(frame["level"]) == {"high"}
    assert frame.attrs["fingerprint"] == "0123456789abcdef"


def test_bands_whose_names_look_alike_keep_their_contrasts():
    assert column_names(["a b", "A-b", "c"]) == ("a_b_1", "A_b_2", "c")
    assert column_names(["vv", "VV", "vv_1"]) == ("band_1", "band_2", "band_3")
    assert column_names(["vv", "vh"]) == ("vv", "vh")


def test_contrasts_say_in_which_band_a_target_differs(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.normal(100, 2, (2, 80, 80)).astype(np.float32)
    pixels[1, 40:44, 40:44] += 20
    scene = xr.DataArray(
        pixels, dims=("band", "y", "x"), coords={"band": ["red", "nir"]}, name="a.tif"
    )
    score = np.zeros((80, 80), np.float32)
    score[40:44, 40:44] = 0.9
    table = find(make_map(tmp_path / "map.zarr", score), scene=scene)
    assert abs(table.columns["contrast_red"][0]) < 1
    assert table.columns["contrast_nir"][0] == pytest.approx(10, rel=0.3)
    with pytest.raises(us.StoreError, match="is the map of"):
        find(tmp_path / "map.zarr", scene=scene.rename("b.tif"))


# Files


def run(*arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CliRunner().invoke(app, ["targets", *map(str, arguments)], catch_exceptions=True)


@pytest.fixture(scope="module")
def files(utm_map, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for suffix in ("gpkg", "parquet", "geojson", "csv", "fgb"):
        result = run(utm_map, "-o", folder / f"t.{suffix}")
        assert result.exit_code == 0, (result.output, result.exception)
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        f"t.{suffix}" for suffix in ("gpkg", "parquet", "geojson", "csv", "fgb")
    )
    return folder


def test_all_files_hold_the_same_rows(files, utm_map):
    table = find(utm_map)
    for suffix in ("gpkg", "fgb", "parquet", "geojson"):
        path = files / f"t.{suffix}"
        frame = (
            geopandas.read_parquet(path)
            if suffix == "parquet"
            else geopandas.read_file(path, layer="targets" if suffix == "gpkg" else None)
        )
        frame = frame.sort_values("rank", ignore_index=True)  # FlatGeobuf sorts by place
        assert frame["target_id"].tolist() == table.columns["target_id"].tolist()
        assert frame["score_max"].to_numpy(np.float32).tolist() == (
            table.columns["score_max"].tolist()
        )
        assert frame["edge"].astype(bool).tolist() == table.columns["edge"].tolist()
        back = frame.geometry.to_crs(32633).to_numpy()
        assert shapely.area(back) == pytest.approx(shapely.area(table.geometry), rel=1e-3)
    frame = pd.read_csv(files / "t.csv")
    assert frame["target_id"].tolist() == table.columns["target_id"].tolist()
    assert frame["score_max"].to_numpy(np.float32).tolist() == table.columns["score_max"].tolist()


def test_geopackage_has_peaks_styles_and_provenance(files):
    layers = pyogrio.list_layers(files / "t.gpkg")
    assert [tuple(row) for row in layers] == [
        ("targets", "MultiPolygon"), ("peaks", "Point"), ("layer_styles", None)
    ]  # fmt: skip
    with closing(sqlite3.connect(files / "t.gpkg")) as base, base:
        styles = dict(base.execute("SELECT f_table_name, styleQML FROM layer_styles"))
        assert base.execute("SELECT useAsDefault FROM layer_styles").fetchall() == [(1,), (1,)]
    for layer, labelled in (("peaks", True), ("targets", False)):  # ranks; QGIS 3.22 shows them
        root = ET.fromstring(styles[layer])  # noqa: S314 - our own text
        assert root.attrib["labelsEnabled"] == str(int(labelled))
        texts = root.findall("labeling/settings/text-style")
        assert [text.attrib["fieldName"] for text in texts] == ["rank"] * labelled
    assert set(styles) == {"targets", "peaks"}
    assert 'value="high"' in styles["targets"]
    meta = pyogrio.read_info(files / "t.gpkg", layer="targets")["dataset_metadata"]
    assert json.loads(meta["uniadrs_scale"])["fingerprint"] == "0123456789abcdef"


KILLED = """
import os, signal, sys
from uniadrs_scale.objects import files
from uniadrs_scale.objects.find import find
from uniadrs_scale.runtime.compute import Compute
files.target_style = lambda points: os.kill(os.getpid(), signal.SIGKILL)  # both layers are written
files.write(find(sys.argv[1], compute=Compute.of("sync")), sys.argv[2])
"""


def test_a_killed_search_leaves_the_old_file_and_the_next_one_is_whole(utm_map, tmp_path):
    path = tmp_path / "t.gpkg"
    assert run(utm_map, "-o", path, "--level", "high").exit_code == 0
    before = path.read_bytes()
    command = [sys.executable, "-c", KILLED, str(utm_map), str(path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    assert run(utm_map, "-o", path).exit_code == 0
    frame = geopandas.read_file(path, layer="targets")
    table = find(utm_map)
    assert frame["target_id"].tolist() == table.columns["target_id"].tolist()
    there, here = shapely.get_parts(frame.geometry), shapely.get_parts(table.geometry)
    assert [shape.wkb for shape in there] == [shape.wkb for shape in here]


def test_a_list_without_targets_names_the_score_from_which_they_grow(tmp_path):
    path = make_map(tmp_path / "map.zarr", planted((60, 70)) * np.float32(0.5), **UTM)
    (line, *_) = find(path, Selection(top=3, grow=0.9)).summary()
    assert line.startswith("0 targets with scores of at least grow=0.9; the highest score is 0.")


def test_a_summary_says_which_number_is_north_and_how_many_targets_follow(utm_map):
    table = find(utm_map, Selection(top=12))
    *_, first, last = [*table.summary()[:2], table.summary()[-1]]
    lat, lon = table.columns["lat"][0], table.columns["lon"][0]
    assert f"{lat:.5f} N {lon:.5f} E" in first
    assert last == f" ...  and {len(table) - NAMED} more targets"
    assert "more" not in find(utm_map, Selection(top=NAMED)).summary()[-1]


def test_a_map_without_a_crs_gives_files_without_a_warning(tmp_path):
    table = find(make_map(tmp_path / "map.zarr", planted((60, 70))), Selection(top=3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for suffix in ("gpkg", "fgb"):
            write(table, tmp_path / f"t.{suffix}")
    assert pyogrio.read_info(tmp_path / "t.gpkg", layer="targets")["crs"] is None


def test_geoparquet_is_valid(files):
    meta = parquet.read_metadata(files / "t.parquet").metadata
    geo = json.loads(meta[b"geo"])
    assert geo["version"] == "1.1.0"
    column = geo["columns"]["geometry"]
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    table = parquet.read_table(files / "t.parquet")
    shapes = shapely.from_wkb(np.array(table["geometry"].to_pylist(), object))
    boxes = [tuple(box.values()) for box in table["bbox"].to_pylist()]
    assert boxes == [tuple(b) for b in shapely.bounds(shapes)]


def test_duckdb_reads_geoparquet(files, utm_map):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    every = duckdb.read_parquet(str(files / "t.parquet"))
    rows = every.filter("level = 'high'").order("rank")
    columns = rows.project("target_id, score_max, bbox.xmin AS xmin").fetchnumpy()
    table = find(utm_map, Selection(level="high"))
    assert columns["target_id"].tolist() == table.columns["target_id"].tolist()
    assert columns["score_max"].tolist() == table.columns["score_max"].tolist()
    assert columns["xmin"].tolist() == shapely.bounds(table.geometry)[:, 0].tolist()


def test_geojson_keeps_rfc_7946(files):
    content = json.loads((files / "t.geojson").read_text())
    assert "crs" not in content
    for feature in content["features"]:
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid
        for part in getattr(shape, "geoms", [shape]):
            assert part.exterior.is_ccw
            assert not any(hole.is_ccw for hole in part.interiors)
        west, south, east, north = shape.bounds
        assert 14 < west < east < 16
        assert 44 < south < north < 46


@pytest.mark.parametrize("side", [0.005, 0.1, 10])
def test_geojson_of_pixels_of_any_size_keeps_their_areas(tmp_path, side):
    score = np.zeros((60, 60), np.float32)
    score[20, 30] = score[30:33, 40:44] = score[30, 44] = 0.9
    place = {"crs": 32632, "transform": (side, 0, 500_000, 0, -side, 5e6)}
    table = find(make_map(tmp_path / "map.zarr", score, **place))
    write(table, tmp_path / "t.geojson")
    for feature in json.loads((tmp_path / "t.geojson").read_text())["features"]:
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid
        area = abs(GEOD.geometry_area_perimeter(shape)[0])
        assert area == pytest.approx(feature["properties"]["area_m2"], rel=0.01)


@pytest.mark.parametrize("suffix", ["gpkg", "parquet", "geojson", "csv", "fgb"])
@pytest.mark.parametrize("placed", ["grid", "swath", ""])
def test_an_empty_table_is_a_valid_file(tmp_path, suffix, placed):
    swath = Swath(height=30, width=30)
    place = {"grid": UTM, "swath": {"lonlat": swath.centres()}, "": {}}[placed]
    path = make_map(tmp_path / "map.zarr", np.zeros((30, 30)), **place)
    result = run(path, "-o", tmp_path / f"t.{suffix}")
    if suffix == "geojson" and not placed:
        assert result.exit_code != 0
        assert isinstance(result.exception, PlanError)
        assert not (tmp_path / "t.geojson").exists()
        return
    assert result.exit_code == 0, (result.output, result.exception)
    assert "0 targets at level medium; the highest score is 0.000 at" in result.output
    assert (tmp_path / f"t.{suffix}").exists()


def test_chips_show_scene_and_map(tmp_path):
    score = np.zeros((90, 120), np.float32)
    score[40:44, 60:64], score[0, 119] = 0.9, 0.95
    pixels = np.random.default_rng(0).uniform(100, 200, (3, 90, 120)).astype(np.uint8)
    scene = xr.DataArray(pixels, dims=("band", "y", "x")).rio.write_crs(UTM["crs"])
    scene.rio.write_transform(Affine(*UTM["transform"])).rio.to_raster(tmp_path / "a.tif")
    make_map(tmp_path / "map.zarr", score, **UTM)
    options = "--scene", tmp_path / "a.tif", "--chips"
    result = run(tmp_path / "map.zarr", "-o", tmp_path / "t.csv", *options)
    assert result.exit_code == 0, (result.output, result.exception)
    frame = pd.read_csv(tmp_path / "t.csv")
    assert len(frame) == 2
    for path, part in zip(frame["chip"], frame["target_id"], strict=True):
        assert path == f"t.chips/{part.removeprefix('a.tif-')}.png"
        with Image.open(tmp_path / path) as picture:
            assert picture.size == (192 + 4 + 192, 192)
            bright = np.asarray(picture)[:, 196:].max(axis=2) > 128
    assert bright.sum() == 16 * 6**2  # the object of 16 pixels, enlarged
    assert len(list((tmp_path / "t.chips").iterdir())) == 2


BAD = {
    "chips alone": (["--chips"], {}, "needs the scene of the map. Add --scene"),
    "no levels": (["-o", "t.gpkg"], {"levels": None}, "has no levels"),
    "two choices": (["--level", "high", "--top", "3"], {}, "Give one of level"),
    "no CRS": (["--min-area", "5"], {"place": {}}, "has no CRS"),
    "suffix": (["-o", "t.kml"], {}, "no known format"),
    "folder": (["-o", "nowhere/t.gpkg"], {}, "does not exist"),
    "below grow": (["--threshold", "0.2", "--grow", "0.4"], {}, "is below grow"),
    "not a score": (["--threshold", "1.2"], {}, "is not a score"),
    "buffer alone": (["--buffer", "3"], {}, "needs areas to exclude"),
    "no area file": (["--aoi", "nothing.gpkg"], {}, "cannot be read as a vector file"),
    "two geometries": (["--point", "--box"], {}, "different geometries"),
    "other scene": (["--scene", "scene.tif"], {}, "is the map of"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_leaves_no_file(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    arguments, options, sentence = BAD[case]
    options = {**options}
    place = options.pop("place", UTM)
    make_map(tmp_path / "map.zarr", planted((60, 60)), **place, **options)
    if case == "other scene":
        scene = xr.DataArray(np.ones((30, 30), np.float32), dims=("y", "x"))
        placed = scene.rio.write_crs(UTM["crs"]).rio.write_transform(Affine(*UTM["transform"]))
        placed.rio.to_raster("scene.tif")
    result = run("map.zarr", *arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, us.UniadrsScaleError)
    assert sentence in str(result.exception)
    assert "\n" not in str(result.exception)
    left = {p.name for p in tmp_path.iterdir()} - {"map.zarr", "scene.tif"}
    assert not left


def test_an_unknown_level_and_a_map_that_is_not_one_are_refused(tmp_path):
    with pytest.raises(PlanError, match="is unknown"):
        Selection(level="extreme")
    with pytest.raises(StoreError):
        find(tmp_path / "nothing.zarr")


def test_an_incomplete_map_says_so_and_ends_with_code_1(tmp_path):
    path = make_map(tmp_path / "map.zarr", planted(), **UTM)
    zarr.open_group(path, mode="r+")["done"][0, 0] = 0
    result = run(path, "-o", tmp_path / "t.gpkg")
    assert result.exit_code == 1
    assert "1 of 20 chunks" in result.output
    assert (tmp_path / "t.gpkg").exists()


def test_a_damaged_chunk_is_a_sentence(tmp_path):
    path = make_map(tmp_path / "map.zarr", planted(), **UTM)
    next((path / "score" / "c").rglob("[0-9]*/[0-9]*")).write_bytes(b"damaged")
    with pytest.raises(StoreError, match="cannot be read"):
        find(path, compute=Compute.of("sync"))


def test_a_missing_library_says_what_to_install(utm_map, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    with pytest.raises(PlanError, match=r"pip install 'uniadrs-scale\[targets\]'"):
        us.targets(utm_map, aoi=tmp_path / "a.gpkg")
    result = run(utm_map, "-o", tmp_path / "t.gpkg")
    assert "uniadrs-scale[targets]" in str(result.exception)
    assert run(utm_map, "-o", tmp_path / "t.csv").exit_code == 0


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "csv", "parquet", "fgb"])
def test_only_lists_without_marks_are_replaced(utm_map, tmp_path, suffix):
    path = tmp_path / f"list.{suffix}"
    table = find(utm_map)
    for _ in range(2):
        write(table, path)
    if suffix in ("gpkg", "csv"):  # what users edit: QGIS adds a field
        if suffix == "gpkg":
            with closing(sqlite3.connect(path)) as base, base:
                base.execute('ALTER TABLE "targets" ADD COLUMN "mark" TEXT')
        else:
            pd.read_csv(path).assign(mark="real").to_csv(path, index=False)
        with pytest.raises(StoreError, match="is not a list of targets without marks"):
            write(table, path)
    areas = geopandas.GeoDataFrame({"name": ["port"]}, geometry=[shapely.box(14, 44, 16, 46)])
    other = {"parquet": "to_parquet", "csv": "to_csv"}.get(suffix, "to_file")
    path.unlink()
    getattr(areas.set_crs(4326), other)(path)
    before = path.read_bytes()
    result = CliRunner().invoke(app, ["targets", str(utm_map), "-o", str(path)])
    assert isinstance(result.exception, StoreError)
    assert "exists and is not a list of targets" in str(result.exception)
    assert path.read_bytes() == before


def test_areas_may_be_frames(utm_map, tmp_path):
    every = us.targets(utm_map, level="low")
    areas = every.iloc[:3][["geometry"]].to_crs(4326)
    areas.to_file(tmp_path / "areas.gpkg")
    for name in ("aoi", "exclude"):
        expected = us.targets(utm_map, level="low", **{name: tmp_path / "areas.gpkg"})
        assert 0 < len(expected) < len(every)
        for given in (areas, areas.geometry):
            found = us.targets(utm_map, level="low", **{name: given})
            assert found.drop(columns="geometry").equals(expected.drop(columns="geometry"))
            assert found.attrs["selection"][name] == f"a {type(given).__name__}"
    for wrong, words in (
        (areas.geometry.iloc[0], "vector file or a GeoDataFrame, got"),
        (areas.set_crs(None, allow_override=True), "GeoDataFrame has no CRS"),
        (areas.iloc[:0], "GeoDataFrame has no areas"),
    ):
        with pytest.raises(PlanError, match=words):
            us.targets(utm_map, aoi=wrong)


def test_one_target_is_not_targets(utm_map):
    assert find(utm_map, Selection(top=1)).summary()[0] == "1 target (1 high)"
    assert find(utm_map, Selection(top=2)).summary()[0] == "2 targets (2 high)"


def test_times_are_utc_in_every_file(utm_map, tmp_path):
    path = tmp_path / "map.zarr"
    shutil.copytree(utm_map, path)
    zarr.open_group(path, mode="r+").update_attributes({"datetime": "2024-03-01T12:20:30.5+02:00"})
    expected = pd.Timestamp("2024-03-01T10:20:30.5Z")
    found = us.targets(path)
    assert (found["datetime"] == expected).all()
    for suffix in ("gpkg", "geojson", "parquet", "fgb", "csv"):
        file = write(find(path), tmp_path / f"list.{suffix}").local
        read = {"csv": pd.read_csv, "parquet": geopandas.read_parquet}.get(suffix)
        more = {"layer": "targets"} if suffix == "gpkg" else {}
        read = geopandas.read_file(file, **more) if read is None else read(file)
        assert (pd.to_datetime(read["datetime"]) == expected).all(), suffix
    found.to_file(tmp_path / "mine.geojson")
    assert '"2024-03-01T10:20:30.500Z"' in (tmp_path / "mine.geojson").read_text()
    assert us.targets(utm_map)["datetime"].isna().all()
