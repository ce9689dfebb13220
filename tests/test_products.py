"""Product folders: recognised by their metadata, band by band where they belong."""

from __future__ import annotations

import json
import pickle
import shutil
from typing import TYPE_CHECKING

import numpy as np
import products
import pystac
import pytest
from products import CRS, NORTH, WEST, ramp
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.scenes.products.metadata import iso_time
from uniadrs_scale.scenes.rasters import FileScene
from uniadrs_scale.scenes.sources import scene_source

if TYPE_CHECKING:
    from pathlib import Path


def test_sentinel2_level_2a(tmp_path: Path) -> None:
    safe = products.sentinel2(tmp_path)
    scene = us.open_scene(safe)
    names = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12"
    assert " ".join(scene.band.values) == names
    assert scene.shape == (12, 120, 120)
    np.testing.assert_array_equal(scene.sel(band="B08").values, ramp(8, 120, 120))
    assert scene.wavelength.sel(band="B11").item() == 1613.7
    assert scene.attrs == {
        "gsd_m": 10.0, "datetime": "2024-09-29T10:17:59.024000Z", "platform": "Sentinel-2A",
        "_FillValue": 0,
    }  # fmt: skip
    assert scene.rio.crs == CRS
    # Where the classification says no data, 2 pixels of 20 m; clouds stay by default.
    assert not scene.valid[-4:].any()
    assert not scene.valid[:, -4:].any()
    assert scene.valid[:-4, :-4].all()
    same = us.open_scene(safe / "MTD_MSIL2A.xml")
    assert scene_source(same).info == scene_source(scene).info


def test_sentinel2_takes_native_bands_at_a_common_grid(tmp_path: Path) -> None:
    safe = products.sentinel2(tmp_path)
    scene = us.open_scene(safe, bands=["B05", "green", "B1"], grid="B05")
    assert list(scene.band.values) == ["B05", "B03", "B01"]
    np.testing.assert_array_equal(scene[0].values, ramp(5, 60, 60))
    fine = ramp(3, 120, 120).astype(float)
    mean = fine.reshape(60, 2, 60, 2).mean(axis=(1, 3))
    assert np.abs(scene[1].values - mean).max() <= 0.5
    assert scene_source(scene).info.grid == "that of B05, 20 metre pixels"
    assert (
        "grid         that of B05, 20 metre pixels" in us.plan(scene, detector=FirstBand()).text()
    )


def test_sentinel2_classes_can_be_masked(tmp_path: Path) -> None:
    safe = products.sentinel2(tmp_path)
    for mask in ("cloud", ["cloud_high_probability"], [9], "cloud_high_probability"):
        valid = us.open_scene(safe, bands=["B02"], mask=mask).valid.values
        assert not valid[:60, :60].any()
        assert valid[:116, 60:116].all()
    assert us.open_scene(safe, bands=["B02"], mask=["snow"]).valid.values[:116, :116].all()


def test_sentinel2_level_1c_has_no_classes(tmp_path: Path) -> None:
    safe = products.sentinel2(tmp_path, level="1C")
    assert us.open_scene(safe).sizes["band"] == 13
    with pytest.raises(us.SceneError, match=r"mask='cloud' applies to products with a quality"):
        us.open_scene(safe, mask="cloud")


def test_landsat_collection_2(tmp_path: Path) -> None:
    product = products.landsat(tmp_path)
    scene = us.open_scene(product)
    assert list(scene.band.values) == [*(f"B{k}" for k in range(1, 8)), "ST_B10"]
    np.testing.assert_array_equal(scene.sel(band="B5").values, ramp(5, 60, 60))
    assert scene.wavelength.values[4] == 865
    assert scene.attrs["datetime"] == "2020-05-07T10:16:18.481467Z"
    assert scene.attrs["platform"] == "LANDSAT_8"
    expected = np.ones((60, 60), bool)
    expected[:, :4] = False
    np.testing.assert_array_equal(scene.valid.values, expected)
    expected[10:20] = False
    cloudless = us.open_scene(product, bands=["red", "swir22"], mask="cloud")
    assert list(cloudless.band.values) == ["B4", "B7"]
    np.testing.assert_array_equal(cloudless.valid.values, expected)


def test_landsat_renamed_as_a_whole_is_still_found(tmp_path: Path) -> None:
    product = products.landsat(tmp_path)
    for file in product.iterdir():
        file.rename(file.with_name(file.name.replace(products.LANDSAT, "mine")))
    assert us.open_scene(product / "mine_MTL.txt").shape == (8, 60, 60)


def test_sentinel1_amplitude_and_decibel(tmp_path: Path) -> None:
    safe = products.sentinel1(tmp_path)
    scene = us.open_scene(safe)
    assert list(scene.band.values) == ["VV", "VH"]
    assert scene.dtype == np.uint16
    assert scene.attrs["gsd_m"] == 10.0
    assert scene.attrs["platform"] == "Sentinel-1A"
    expected = np.ones((80, 100), bool)
    expected[:, :6] = False
    np.testing.assert_array_equal(scene.valid.values, expected)
    points = scene.rio.get_gcps()
    assert len(points) == 25
    longitude, latitude = products.place(points[7].row, points[7].col)
    assert (points[7].x, points[7].y) == pytest.approx((longitude, latitude), abs=1e-9)
    info = scene_source(scene).info
    assert info.transform is None
    assert info.geolocation.startswith("25 ground control points ")
    decibel = us.open_scene(safe, units="dB", bands=["vh"])
    np.testing.assert_allclose(
        decibel.values[0, :, 6:], 20 * np.log10(ramp(2, 80, 100)[:, 6:]), rtol=1e-6
    )
    assert np.isnan(decibel.values[0, :, :6]).all()
    np.testing.assert_array_equal(decibel.valid.values, expected)


def test_envi_by_header_or_data(tmp_path: Path) -> None:
    header = products.envi(tmp_path)
    scene = us.open_scene(header)
    np.testing.assert_array_equal(scene.wavelength.values, [450, 550, 2200])
    np.testing.assert_array_equal(scene.values[2], ramp(4, 40, 40))
    assert scene.attrs["datetime"] == "2023-07-01T09:30:00Z"
    assert scene.rio.nodata == -9999
    data = us.open_scene(header.with_suffix(".dat"))
    assert scene_source(data).info == scene_source(scene).info
    bad = us.open_scene(header, bands=[3])
    np.testing.assert_array_equal(bad.values[0], ramp(3, 40, 40))


def test_enmap(tmp_path: Path) -> None:
    scene = us.open_scene(products.enmap(tmp_path))
    np.testing.assert_array_equal(scene.wavelength.values, [418, 426, 434, 442, 450])
    assert not scene.valid[20, 20]
    assert scene.valid.values.sum() == 40 * 40 - 1
    masked = us.open_scene(products.enmap(tmp_path), mask="cloud").valid.values
    assert not masked[:5].any()
    assert not masked[-5:].any()
    assert us.open_scene(products.enmap(tmp_path), mask=["cirrus"]).valid.values[:5].all()


def test_stac_bands_follow_the_item_or_the_request(tmp_path: Path) -> None:
    path = products.stac_item(tmp_path)
    scene = us.open_scene(path)
    assert list(scene.band.values) == ["swir22", "blue", "red"]  # not B02, B04, B12
    np.testing.assert_array_equal(scene.values[1], ramp(2, 40, 40))
    np.testing.assert_array_equal(scene.wavelength.values, [2190, 492, 664])
    assert scene.attrs["datetime"] == "2024-09-29T10:17:59Z"
    for wanted in (["red", "swir22"], ["B04", "B12"]):  # keys and common names, or band names
        asked = us.open_scene(path, bands=wanted)
        assert list(asked.band.values) == ["red", "swir22"]
        np.testing.assert_array_equal(asked.values[0], ramp(3, 40, 40))
    again = us.open_scene(pystac.Item.from_file(str(path)))
    assert scene_source(again).info == scene_source(scene).info
    assert not us.open_scene(path, mask="cloud").valid.any()


MAKERS = {
    "Sentinel-2": products.sentinel2, "Sentinel-1": products.sentinel1,
    "Landsat": products.landsat, "EnMAP": products.enmap, "ENVI": products.envi,
    "EMIT": products.emit, "PRISMA": products.prisma, "STAC": products.stac_item,
    "MATLAB 7.3": products.matlab73,
}  # fmt: skip


@pytest.mark.parametrize("kind", MAKERS)
def test_a_relative_path_is_the_same_scene(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = MAKERS[kind](tmp_path)
    absolute = scene_source(us.open_scene(path))
    monkeypatch.chdir(tmp_path)
    relative = pickle.dumps(scene_source(us.open_scene(path.relative_to(tmp_path))))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")  # as a worker may be
    again = pickle.loads(relative)
    assert again == absolute
    assert again.read(Window(0, 0, 16, 16))[0].shape[1:] == (16, 16)
    assert scene_source(us.open_scene(f"../{path.name}")).info.bands == again.info.bands


def test_files_of_a_relative_list_and_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("B1.tif", "B2:x.tif"):  # a colon does not make it a name of GDAL's
        products.write_raster(tmp_path / name, ramp(1, 20, 20), 10)
    wanted = scene_source(us.open_scene([tmp_path / "B1.tif", tmp_path / "B2:x.tif"]))
    monkeypatch.chdir(tmp_path)
    assert scene_source(us.open_scene(["B1.tif", "B2:x.tif"])) == wanted
    assert scene_source(us.open_scene("./B*.tif")) == wanted


@pytest.mark.parametrize("self_href", ["item.json", None])
def test_a_stac_item_with_relative_hrefs(
    self_href: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = products.stac_item(tmp_path)
    absolute = scene_source(us.open_scene(path))
    monkeypatch.chdir(tmp_path)
    item = pystac.Item.from_dict(json.loads(path.read_text()))
    item.set_self_href(self_href)
    assert scene_source(us.open_scene(item)) == absolute


def test_stac_in_the_words_of_version_1_1(tmp_path: Path) -> None:
    path = products.stac_item(tmp_path)
    item = json.loads(path.read_text())
    item["stac_version"] = "1.1.0"
    for asset in item["assets"].values():
        for band in asset.pop("eo:bands", []):
            words = {k if k == "name" else f"eo:{k}": v for k, v in band.items()}
            asset["bands"] = [words | {"nodata": 0}]
        asset.pop("raster:bands", None)
    path.write_text(json.dumps(item))
    scene = us.open_scene(path)
    np.testing.assert_array_equal(scene.wavelength.values, [2190, 492, 664])
    assert scene.rio.nodata == 0


def test_a_product_scene_travels_small_and_reads_alike(tmp_path: Path) -> None:
    scene = us.open_scene(products.sentinel2(tmp_path), mask="cloud", chunk=50)
    source = scene_source(scene)
    assert isinstance(source, FileScene)
    message = pickle.dumps(source.window(Window(10, 20, 70, 60)))
    assert len(message) < 12_000
    pixels, valid = pickle.loads(message).read()
    whole, whole_valid = source.read(Window(0, 0, 120, 120))
    np.testing.assert_array_equal(pixels, whole[:, 10:80, 20:80])
    np.testing.assert_array_equal(valid, whole_valid[10:80, 20:80])
    np.testing.assert_array_equal(scene.values, whole)


def test_every_product_is_scored(tmp_path: Path) -> None:
    for make in (products.landsat, products.sentinel1, products.enmap, products.stac_item):
        scene = us.open_scene(
            make(tmp_path / make.__name__ if make is not products.stac_item else tmp_path)
        )
        scores = us.score(
            scene, detector=FirstBand(), scheduler="sync", tile=32, chunk=64, preset="single-band"
        )
        np.testing.assert_array_equal(np.isfinite(scores.values), scene.valid.values)


@pytest.mark.parametrize(
    ("kind", "gone", "message"),
    [
        ("sentinel2", "*B05_20m.jp2", r"MTD_MSIL2A.xml' names '.*B05_20m.jp2' \(IMAGE_FILE\), but"),
        (
            "landsat",
            "*SR_B3.TIF",
            r"names '.*SR_B3.TIF' \(FILE_NAME_BAND_3\), but .* bands that are there: B1, B2, B4",
        ),
        ("sentinel1", "*-vh-*.tiff", r"names '.*-vh-.*tiff' .*incomplete"),
        ("sentinel1", "s1*.xml", r"should be a Sentinel-1 product, but has no 'annotation"),
        ("enmap", "*SPECTRAL_IMAGE.TIF", r"has no '.*SPECTRAL_IMAGE.TIF', it is incomplete"),
    ],
)
def test_an_incomplete_product_is_named(tmp_path: Path, kind: str, gone: str, message: str) -> None:
    product = getattr(products, kind)(tmp_path)
    for file in list(product.rglob(gone)):
        file.unlink()
    with pytest.raises(us.SceneError, match=message):
        us.open_scene(product)


def without(product: Path, *patterns: str) -> Path:
    """Return the product after the files of these patterns are removed."""
    for file in [file for pattern in patterns for file in product.rglob(pattern)]:
        file.unlink()
    return product


@pytest.mark.parametrize(
    ("kind", "gone", "bands"),
    [
        ("sentinel2", ["*_60m.jp2"], ["B02", "B8A"]),
        ("landsat", ["*SR_B[167].TIF", "*ST_B10.TIF"], ["B2", "nir08"]),
        ("sentinel1", ["*-vh-*.tiff"], ["VV"]),
    ],
)
def test_bands_that_are_named_need_no_other_files(
    tmp_path: Path, kind: str, gone: list[str], bands: list[str]
) -> None:
    whole = us.open_scene(getattr(products, kind)(tmp_path), bands=bands).values
    part = us.open_scene(without(next(tmp_path.iterdir()), *gone), bands=bands)
    np.testing.assert_array_equal(part.values, whole)


def test_a_resolution_that_was_not_fetched_is_replaced_by_the_next_one(tmp_path: Path) -> None:
    safe = without(products.sentinel2(tmp_path), "*_10m.jp2")
    scene = us.open_scene(safe, bands=["B02", "B05"])
    assert scene.shape == (2, 60, 60)
    (note,) = scene_source(scene).info.notes
    assert note.startswith("Finer images of these bands are not there")
    assert "B02 (20 m)" in note


@pytest.mark.parametrize(("kind", "gone"), [("sentinel2", "*SCL*"), ("landsat", "*QA_PIXEL*")])
def test_a_quality_band_that_is_not_there_is_told(tmp_path: Path, kind: str, gone: str) -> None:
    product = without(getattr(products, kind)(tmp_path), gone)
    (note,) = scene_source(us.open_scene(product)).info.notes
    assert "is not there, so its classes cannot be masked" in note
    with pytest.raises(us.SceneError, match="without one"):
        us.open_scene(product, mask="cloud")


def test_strange_products_get_a_sentence(tmp_path: Path) -> None:
    safe = products.sentinel2(tmp_path)
    header = products.envi(tmp_path)
    item = products.stac_item(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bands").mkdir()
    for name in ("B1.TIFF", "B2.TIFF", "a.txt", "b.txt", "c.txt"):
        (tmp_path / "bands" / name).touch()
    (tmp_path / "list.json").write_text('{"type": "FeatureCollection", "features": []}')
    (tmp_path / "broken.json").write_text("{")
    picture = json.loads(item.read_text())
    picture["assets"] = {"thumbnail": picture["assets"]["thumbnail"]}
    (tmp_path / "picture.json").write_text(json.dumps(picture))
    cases = {
        r"empty' is a folder, but not a product: expected were MTD_MSIL1C.xml.*no rasters": "empty",
        r"bands' is a folder, but not a product.*bands/\*\.TIFF'\.": "bands",
        r"list.json' is not a STAC item": "list.json",
        r"broken.json' is not a STAC item": "broken.json",
        r"has no raster asset: its assets are thumbnail": "picture.json",
        r"Pattern '.*none\*.tif' matches no file": "none*.tif",
    }
    for message, name in cases.items():
        with pytest.raises(us.SceneError, match=message):
            us.open_scene(tmp_path / name)
    options = {
        r"mask='cloudy' is not a class of 'S2A_.*which has cast_shadow": (safe, {"mask": "cloudy"}),
        r"units='dB' applies to Sentinel-1 GRD, but 'S2A": (safe, {"units": "dB"}),
        r"variable='x' applies to NetCDF.*but 'S2A": (safe, {"variable": "x"}),
        r"grid='B99' is not a grid of this scene": (safe, {"grid": "B99"}),
        r"mask='cloud' applies to products.*'flight.dat' is an ENVI": (header, {"mask": "cloud"}),
        r"Band 'B99' is not one of 'S2A_": (safe, {"bands": ["B99"]}),
    }
    for message, (path, option) in options.items():
        with pytest.raises(us.SceneError, match=message):
            us.open_scene(path, **option)
    header.with_suffix(".dat").unlink()
    with pytest.raises(us.SceneError, match=r"is an ENVI header, but its data file is not next"):
        us.open_scene(header)
    metadata = safe / "MTD_MSIL2A.xml"
    two = metadata.read_text().replace(
        "</Granule>", "<IMAGE_FILE>G/T32TQN_B02</IMAGE_FILE></Granule>"
    )
    metadata.write_text(two)
    with pytest.raises(us.SceneError, match=r"holds 2 tiles \(T32TQM, T32TQN\): one tile is one"):
        us.open_scene(safe)
    metadata.write_text("<a>")
    with pytest.raises(us.SceneError, match=r"should be the XML metadata .* not well-formed"):
        us.open_scene(safe)
    with pytest.raises(us.SceneError, match=r"is a Sentinel-1 SLC product: detected amplitudes"):
        us.open_scene(products.sentinel1(tmp_path / "slc", kind="SLC"))
    with pytest.raises(us.SceneError, match=r"it is level 1B: levels 1C and 2A"):
        us.open_scene(products.enmap(tmp_path / "l1b", level="L1B"))


def test_times_in_the_words_of_many_missions() -> None:
    assert iso_time("2024-05-03T05:40:00+02:00") == "2024-05-03T03:40:00Z"
    assert iso_time("2015-08-04T16:19:21.7917421Z") == "2015-08-04T16:19:21.791742Z"
    assert iso_time("14-APR-2017 10:27:29.454657") == "2017-04-14T10:27:29.454657Z"
    assert iso_time("yesterday") is None
    assert iso_time(None) is None


def test_globs_are_in_natural_order(tmp_path: Path) -> None:
    for k in (10, 2, 1):
        products.write_raster(tmp_path / f"x_B{k}.tif", ramp(k, 20, 20), 10)
    scene = us.open_scene(tmp_path / "*.tif")
    assert list(scene.band.values) == ["x_B1", "x_B2", "x_B10"]
    assert float(scene.x[0]) == WEST + 5
    assert float(scene.y[0]) == NORTH - 5


def test_real_formats_open_with_one_call(shared: Path, tmp_path: Path) -> None:
    formats = shared / "data" / "formats"
    landsat = us.open_scene(formats / "landsat8_mixed_resolution")
    assert landsat.shape == (10, 603, 627)
    assert landsat.attrs["platform"] == "LANDSAT_8"
    sharp = us.open_scene(formats / "landsat8_mixed_resolution" / "l8_B[1-8].tif", grid="finest")
    assert sharp.shape == (8, 1207, 1254)
    assert 0.998 < float(sharp.valid.mean()) < 1  # the panchromatic band is half a pixel wider
    radar = us.open_scene(formats / "sentinel1_swath_gcps.tif")
    assert len(radar.rio.get_gcps()) == 210
    olci = us.open_scene(next((formats / "olci_swath_2d_latlon").glob("*.nc")), variable="rtoa_*")
    assert olci.shape == (21, 100, 100)
    assert list(olci.wavelength.values[:2]) == [400, 412.5]
    assert 52 < float(olci.latitude.mean()) < 54
    copy = shutil.copytree(formats / "landsat8_mixed_resolution", tmp_path / "copy")
    assert us.open_scene(copy).shape == landsat.shape
