"""A sweep over STAC items scores what ``open_scene(item)`` opens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import products
import pytest
import rasterio
import xarray as xr
from affine import Affine
from archives import write_archive
from maps import NOT_OF_THE_EARTH
from products import ramp, write_raster
from standins import FirstBand, TileMean

import uniadrs_scale as us
from uniadrs_scale.archive.stac import footprint
from uniadrs_scale.errors import TrustError
from uniadrs_scale.storage.trust import resolve
from uniadrs_scale.storage.urls import join

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLAN = {"tile": 16, "chunk": 32}


@pytest.fixture
def item(tmp_path: Path) -> Path:
    """Bands of 10 and 20 m with a declared nodata value; clouds over the lower half."""
    path = products.stac_item(tmp_path / "stac")
    classes = np.full((20, 20), 4, np.uint8)
    classes[10:] = 9
    write_raster(path.parent / "scl.tif", classes, 20)
    cube = np.stack([ramp(k, 40, 40) for k in (1, 2, 3)])
    write_raster(path.parent / "cube.tif", cube, 10)
    text = json.loads(path.read_text())
    bands = [{"name": name} for name in ("one", "two", "three")]
    text["assets"]["cube"] = {"href": "./cube.tif", "roles": ["overview"], "eo:bands": bands}
    path.write_text(json.dumps(text))
    return path


def swept(folder: Path, item: Path, detector: Any, **changes: Any) -> np.ndarray:
    """Scores of the only map of a sweep."""
    source = {"type": "stac", "href": str(item)} | changes.pop("source", {})
    config = write_archive(folder, source=source, plan=PLAN, **changes)
    report = us.sweep(config, detector=detector)
    assert report.complete, report.failed
    (path,) = (folder / "maps").glob("*/*/scores.tif")
    with rasterio.open(path) as file:
        return file.read(1)


def scored(item: Path, detector: Any, **options: Any) -> np.ndarray:
    scene = us.open_scene(item, **options)
    return us.score(scene, detector=detector, scheduler="sync", **PLAN).values


@pytest.mark.parametrize(
    ("assets", "scene"),
    [
        ([], {}),
        ([], {"mask": "cloud"}),
        (["red", "swir22"], {"mask": "cloud"}),
        (["B12", "blue"], {"grid": "coarsest"}),
        (["cube"], {}),
        (["three", "blue"], {}),
    ],
)
@pytest.mark.parametrize("detector", [FirstBand, TileMean])
def test_items_are_opened_as_single_scenes_are(
    tmp_path: Path, item: Path, detector: Callable[[], Any], assets: list[str], scene: Any
) -> None:
    found = swept(tmp_path, item, detector(), source={"assets": assets}, scene=scene)
    wanted = scored(item, detector(), **scene, **({"bands": assets} if assets else {}))
    np.testing.assert_array_equal(found, wanted)
    if scene.get("mask"):
        assert np.isnan(found[20:]).all()
        assert np.isfinite(found[1:20]).all()


def test_an_asset_stands_for_all_its_bands(item: Path) -> None:
    assert list(us.open_scene(item, bands=["cube"]).band.values) == ["one", "two", "three"]
    assert list(us.open_scene(item, bands=["two"]).band.values) == ["two"]


def test_files_of_arrays_are_opened_as_files(tmp_path: Path, item: Path) -> None:
    text = json.loads(item.read_text())
    us.open_scene(item, bands=["blue"]).drop_vars("valid").to_dataset(name="b").to_netcdf(
        item.parent / "b.nc"
    )
    text["assets"]["arrays"] = {"href": "b.nc", "type": "application/x-netcdf"}
    item.write_text(json.dumps(text))
    found = swept(tmp_path, item, FirstBand(), source={"assets": ["arrays"]})
    np.testing.assert_array_equal(found, scored(item.parent / "b.nc", FirstBand()))
    source = {"type": "stac", "href": str(item), "assets": ["arrays", "blue"]}
    report = us.sweep(write_archive(tmp_path, source=source), detector=FirstBand(), dry_run=True)
    assert "only some of its assets" in report.decisions[0].reason


@pytest.mark.parametrize("change", ["nodata", "mask"])
def test_what_an_item_says_of_its_pixels_is_part_of_its_identity(
    tmp_path: Path, item: Path, change: str
) -> None:
    config = write_archive(tmp_path, source={"type": "stac", "href": str(item)}, plan=PLAN)
    us.sweep(config, detector=FirstBand())
    assert us.sweep(config, detector=FirstBand()).counts() == "1 keep"
    if change == "nodata":
        text = item.read_text()
        item.write_text(text.replace('"nodata": 0', '"nodata": 7'))
    else:
        write_raster(item.parent / "scl.tif", np.full((20, 20), 4, np.uint8), 20)
    (decision,) = us.sweep(config, detector=FirstBand(), dry_run=True).decisions
    assert decision.reason == "changed: input"


def test_an_asset_that_cannot_be_reached_from_here_matters_only_if_it_is_wanted(
    tmp_path: Path, item: Path
) -> None:
    text = json.loads(item.read_text())
    text["assets"]["elsewhere"] = text["assets"]["blue"] | {"href": "file://tape/blue.tif"}
    item.write_text(json.dumps(text))
    swept(tmp_path, item, FirstBand(), source={"assets": ["red"]})
    source = {"type": "stac", "href": str(item), "assets": ["elsewhere"]}
    report = us.sweep(write_archive(tmp_path, source=source), detector=FirstBand(), dry_run=True)
    assert "is a file of the machine 'tape'" in report.decisions[0].reason


@pytest.mark.parametrize(
    ("base", "href", "meant"),
    [
        ("https://h/c/i.json?sig=a", "./b.tif", "https://h/c/b.tif"),
        ("https://h/c/i.json", "../b%20c.tif?x=1", "https://h/b%20c.tif?x=1"),
        ("https://h/c/i.json", "/b.tif", "https://h/b.tif"),
        ("https://h/c/i.json", "//other/b.tif", "https://other/b.tif"),
        ("http://h:81/c/i.json", "//other/b.tif", "http://other/b.tif"),
        ("https://h/c/i.json", "https://other/b.tif", "https://other/b.tif"),
        ("https://h/c/i.json", "s3://b/k%20.tif", "s3://b/k%20.tif"),
        ("s3://b/c/i.json", "k.tif", "s3://b/c/k.tif"),
        ("s3://b/c/i.json", "../k%20l.tif", "s3://b/k l.tif"),
        ("s3://b/c d?/i.json", "k.tif", "s3://b/c d?/k.tif"),
        ("gs://b/c/i.json", "/k.tif", "gs://b/k.tif"),
        ("s3://b/c/i.json", "../../../k.tif", "s3://b/k.tif"),
        ("/c/i.json", "b.tif", "/c/b.tif"),
        ("/c/i.json", "../b%20c.tif", "/b c.tif"),
        ("/c/i.json", "/d/b.tif", "/d/b.tif"),
        ("/c/i.json", "file:///d/b%20c.tif", "/d/b c.tif"),
        ("/c/i.json", "file://localhost/d/b.tif", "/d/b.tif"),
        ("/c/i.json", "file:/d/b.tif", "/d/b.tif"),
        ("file:///c/i.json", "b.tif", "/c/b.tif"),
        ("/c/i.json", "https://h/b.tif", "https://h/b.tif"),
        ("/c/i.json", "/vsicurl/https://h/b.tif", "https://h/b.tif"),
    ],
)
def test_hrefs_by_rfc_3986(base: str, href: str, meant: str) -> None:
    assert join(base, href) == resolve(href, base) == meant


@pytest.mark.parametrize("base", ["https://h/c/i.json", "s3://b/c/i.json"])
def test_no_local_file_stands_for_a_remote_one(base: str) -> None:
    for href in ("file:///etc/passwd", "file://localhost/etc/passwd", "file:/etc/passwd"):
        with pytest.raises(TrustError):
            resolve(href, base)


def test_hosts_that_cannot_be_reached_are_told() -> None:
    with pytest.raises(ValueError, match="has a host and no scheme: write https://other/b"):
        join("/c/i.json", "//other/b.tif")
    with pytest.raises(ValueError, match="is a file of the machine 'tape'"):
        join("/c/i.json", "file://tape/b.tif")


def test_a_file_with_the_literal_name_comes_first(tmp_path: Path) -> None:
    base = str(tmp_path / "i.json")
    (tmp_path / "a b.tif").touch()
    assert join(base, "a%20b.tif") == str(tmp_path / "a b.tif")
    (tmp_path / "a%20b.tif").touch()
    assert join(base, "a%20b.tif") == str(tmp_path / "a%20b.tif")


def plan_of(crs: Any, *place: float) -> us.ScorePlan:
    array = xr.DataArray(np.zeros((2, 73, 144)), dims=("band", "y", "x"))
    placed = array.rio.write_crs(crs).rio.write_transform(Affine(*place))
    return us.plan(placed, detector="rx")


def test_a_global_grid_of_points_has_a_footprint_up_to_the_poles() -> None:
    _, box = footprint(plan_of(4326, 2.5, 0, -91.25, 0, -2.5, 91.25))
    assert box is not None
    assert (box[1], box[3]) == (-90, 90)


@pytest.mark.parametrize("crs", NOT_OF_THE_EARTH.values(), ids=NOT_OF_THE_EARTH)
def test_a_scene_of_another_planet_has_no_footprint(crs: str) -> None:
    assert footprint(plan_of(crs, 5, 0, 0, 0, -5, 0)) == (None, None)
