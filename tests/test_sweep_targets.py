"""Targets and pages as files of each product of an archive."""

from __future__ import annotations

import json
import re
import sys

import geopandas
import numpy as np
import pytest
import rasterio
from archives import write_archive, write_scene
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.archive.sink import Sink
from uniadrs_scale.archive.status import read_status, write_page
from uniadrs_scale.objects.find import find
from uniadrs_scale.objects.select import Selection
from uniadrs_scale.storage.places import Place


def test_a_sweep_writes_the_targets_of_each_scene(tmp_path):
    write_scene(tmp_path / "incoming" / "s_20240101.tif", 1)
    output = {"folder": "maps", "formats": ["cog", "targets"]}
    report = us.sweep(write_archive(tmp_path, output=output), detector=FirstBand())
    assert report.complete
    folder = tmp_path / "maps" / "s_20240101"
    item = json.loads((folder / "s_20240101.json").read_text())
    asset = item["assets"]["targets"]
    assert asset["type"] == "application/geopackage+sqlite3"
    frame = geopandas.read_file(folder / asset["href"], layer="targets")
    expected = find((folder / item["assets"]["score"]["href"]), Selection(top=100))
    assert frame["target_id"].tolist() == expected.columns["target_id"].tolist()
    assert "has no levels" in json.dumps(item)
    assert item["properties"]["uniadrs:targets"] == asset["table:row_count"] == len(frame)
    columns = {column["name"]: column["type"] for column in asset["table:columns"]}
    assert list(columns) == [*expected.columns, asset["table:primary_geometry"]]
    assert (columns["datetime"], columns["score_max"]) == ("datetime", "float32")
    assert str(frame["datetime"][0])[:10] == item["properties"]["datetime"][:10] == "2024-01-01"
    assert (columns["level"], columns["geom"]) == ("string", "MultiPolygon")
    assert any("/table/" in url for url in item["stac_extensions"])
    assert "raster:bands" in item["assets"]["score"]
    assert "raster:bands" not in asset
    page = Place.of(tmp_path / "status.html")
    found = read_status(Sink(Place.of(tmp_path / "maps")))
    write_page(page, found)
    assert found.scenes[0]["targets"] == len(frame)
    text = page.read().decode()
    link = f"maps/s_20240101/{asset['href'].removeprefix('./')}"
    assert f'<td data-value="{len(frame)}"><a href="{link}">{len(frame)}</a></td>' in text
    assert "2024-01-01 00:00" in text


WRONG = {
    "no score": (
        {"output": {"folder": "maps", "formats": ["cog", "targets", "report"]}, "plan": {}},
        "targets, report need an anomaly score, but the layers of the scorer are wet, dry",
    ),
    "tiles": (
        {"plan": {"tile": 32, "stride": 30, "chunk": 64}},
        r"sets tiles of 32 px with a step of 28 px\. Drop tile and stride, or make",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_model_that_can_make_no_product_is_refused_before_it_scores(tmp_path, case):
    changes, message = WRONG[case]
    write_scene(tmp_path / "incoming" / "s_20240101.tif", 1)
    scorer = us.scorer(wet_and_dry, tile=32, layers=["wet", "dry"])
    with pytest.raises(us.PlanError, match=message):
        us.sweep(write_archive(tmp_path, **changes), detector=scorer)
    assert not (tmp_path / "maps").exists()


def test_a_model_whose_tiling_is_none_takes_the_tiles_of_the_archive(tmp_path):
    class Untiled(FirstBand):
        tiling = None

    write_scene(tmp_path / "incoming" / "s_20240101.tif", 1)
    assert us.sweep(write_archive(tmp_path), detector=Untiled()).complete


def wet_and_dry(tiles):
    score = np.tanh(np.abs(tiles[:, 0]) / 4)
    return score, 1 - score


def test_a_sweep_by_a_model_of_several_layers(tmp_path):
    scene = write_scene(tmp_path / "incoming" / "s_20240101.tif", 1)
    scorer = us.scorer(wet_and_dry, tile=32, layers=["wet", "dry"])
    output = {"folder": "maps", "formats": ["cog", "zarr"]}
    archive = write_archive(tmp_path, output=output, plan={"chunk": 32})
    assert us.sweep(archive, detector=scorer).text().endswith("s")
    (cog,) = (tmp_path / "maps").glob("s_20240101/*/scores.tif")
    with rasterio.open(cog) as file:
        found = file.read()
    wanted = us.score(str(scene), detector=scorer, scheduler="sync")
    np.testing.assert_array_equal(found, wanted)


def test_a_sweep_takes_detectors_by_name(tmp_path):
    write_scene(tmp_path / "incoming" / "s_20240101.tif", 1, bands=3)
    assert us.sweep(write_archive(tmp_path), detector="rx").complete
    with pytest.raises(us.PlanError, match="takes a scorer, got int"):
        us.sweep(write_archive(tmp_path), detector=3)


def test_a_sweep_takes_a_second_look(tmp_path):
    write_scene(scene := tmp_path / "incoming" / "s_20240101.tif", 1)
    output = {"folder": "maps", "formats": ["cog", "targets"], "second_look": True}
    description = write_archive(tmp_path, output=output)
    assert us.sweep(description, detector=FirstBand()).complete
    folder = tmp_path / "maps" / "s_20240101"
    assets = json.loads((folder / "s_20240101.json").read_text())["assets"]
    frame = geopandas.read_file(folder / assets["targets"]["href"], layer="targets")
    expected = us.targets(
        folder / assets["score"]["href"],
        us.open_scene(scene),
        top=100,
        second_look=True,
        detector=FirstBand(),
    )
    assert 2 in set(expected["support"])
    assert frame["support"].tolist() == expected["support"].tolist()
    assert list(frame) == list(expected)
    assert us.sweep(description, detector=FirstBand()).todo == 0
    with pytest.raises(us.ArchiveError, match="add targets to"):
        us.sweep(write_archive(tmp_path, output=output | {"formats": ["cog"]}))


def test_a_sweep_writes_a_page_of_each_scene(tmp_path):
    write_scene(tmp_path / "incoming" / "s_20240101.tif", 1)
    output = {"folder": "maps", "formats": ["cog", "report"]}
    report = us.sweep(write_archive(tmp_path, output=output), detector=FirstBand())
    assert report.complete
    folder = tmp_path / "maps" / "s_20240101"
    item = json.loads((folder / "s_20240101.json").read_text())
    asset = item["assets"]["report"]
    assert asset["type"] == "text/html"
    page = (folder / asset["href"]).read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    expected = find((folder / item["assets"]["score"]["href"]), Selection(top=200))
    found = [target["properties"]["target_id"] for target in data["targets"]]
    assert found == expected.columns["target_id"].tolist()


def test_a_sweep_says_first_that_a_library_is_missing(tmp_path, monkeypatch):
    write_scene(tmp_path / "incoming" / "s_20240101.tif", 1)
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    archive = write_archive(tmp_path, output={"folder": "maps", "formats": ["targets"]})
    with pytest.raises(us.PlanError, match="uniadrs-scale"):
        us.sweep(archive, detector=FirstBand())
    assert not (tmp_path / "maps").exists()
