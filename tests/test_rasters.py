"""Raster files of other people: bands, masks and places, as rasterio and their makers mean them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import products
import pytest
import rasterio
import rasterio.shutil
import xarray as xr
from affine import Affine
from jobs import run_into
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from standins import FirstBand
from typer.testing import CliRunner

import uniadrs_scale as us
from uniadrs_scale.cli.main import app
from uniadrs_scale.scenes import sources
from uniadrs_scale.scenes.sources import scene_source

H, W = 120, 140
UTM = Affine(10, 0, 4e5, 0, -10, 6e6)
BLOCK = np.s_[30:33, 100:103]
ENVI = (
    f"ENVI\nsamples = {W}\nlines = {H}\nbands = 3\nheader offset = 0\ndata type = 2\n"
    "interleave = bsq\nbyte order = 0\n"
)


def noise(bands: int = 3, dtype: str = "uint16", base: float = 1000, sd: float = 50) -> np.ndarray:
    return np.random.default_rng(0).normal(base, sd, (bands, H, W)).astype(dtype)


def write(path: Path, pixels: np.ndarray, **profile: Any) -> Path:
    bands, height, width = pixels.shape
    settings = {
        "driver": "GTiff", "count": bands, "height": height, "width": width,
        "dtype": str(pixels.dtype), "crs": "EPSG:32633", "transform": UTM,
    } | profile  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **{k: v for k, v in settings.items() if v is not None}) as f:
            f.write(pixels)
    return path


def valid(scene: xr.DataArray) -> float:
    return round(float(scene.valid.mean()), 4)


def plan(scene: xr.DataArray) -> str:
    return us.plan(scene, detector=FirstBand(), scheduler="sync").text()


def score(scene: xr.DataArray, tmp_path: Path, **options: Any) -> Any:
    return run_into(scene, tmp_path / "map.zarr", FirstBand(), **options)


# Masks


def test_a_pixel_passes_alpha_and_nodata(tmp_path: Path) -> None:
    pixels = noise(4, "uint8", 120, 8)
    pixels[3] = 255
    pixels[3, :, :40] = 0
    pixels[:3, 7, 90] = 255
    path = write(tmp_path / "a.tif", pixels, photometric="RGB", alpha="YES", nodata=255)
    scene = us.open_scene(path)
    expected = np.ones((H, W), bool)
    expected[:, :40] = expected[7, 90] = False
    np.testing.assert_array_equal(scene.valid.values, expected)
    assert scene.sizes["band"] == 3
    assert "not valid    255 in all bands, alpha" in plan(scene)


def test_every_band_of_a_vrt_has_its_own_mask(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", noise(1))
    mask = np.full((1, H, W), 255, np.uint8)
    mask[:, :, 70:] = 0
    write(tmp_path / "m.tif", mask)

    def source(name: str, dtype: str) -> str:
        return (
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
            f"<SourceBand>1</SourceBand></SimpleSource>"
        )

    (tmp_path / "a.vrt").write_text(
        f'<VRTDataset rasterXSize="{W}" rasterYSize="{H}"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>400000,10,0,6000000,0,-10</GeoTransform>"
        f'<VRTRasterBand dataType="UInt16" band="1">{source("a.tif", "UInt16")}</VRTRasterBand>'
        f'<VRTRasterBand dataType="UInt16" band="2">{source("a.tif", "UInt16")}'
        f'<MaskBand><VRTRasterBand dataType="Byte">{source("m.tif", "Byte")}</VRTRasterBand>'
        "</MaskBand></VRTRasterBand></VRTDataset>"
    )
    assert valid(us.open_scene(tmp_path / "a.vrt")) == 0.5
    assert valid(us.open_scene(tmp_path / "a.vrt", bands=[1])) == 1


def test_different_nodata_values_of_a_vrt_count_for_themselves(tmp_path: Path) -> None:
    pixels = noise(2, "uint8", 120, 8)
    pixels[0, 3, 4], pixels[1, 5, 6], pixels[0, 7, 8] = 1, 2, 2
    write(tmp_path / "a.tif", pixels)
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{k}"><NoDataValue>{k}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{k}</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for k in (1, 2)
    )
    (tmp_path / "a.vrt").write_text(
        f'<VRTDataset rasterXSize="{W}" rasterYSize="{H}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>400000,10,0,6000000,0,-10</GeoTransform>{bands}</VRTDataset>"
    )
    assert np.argwhere(~us.open_scene(tmp_path / "a.vrt").valid.values).tolist() == [[3, 4], [5, 6]]


def test_nodata_of_a_picture_is_a_colour(tmp_path: Path) -> None:
    pixels = noise(3, "uint8", 120, 8)
    pixels[:, *BLOCK] = np.array([255, 0, 0])[:, None, None]
    pixels[:, :, :40] = 0
    scene = us.open_scene(write(tmp_path / "a.tif", pixels, photometric="RGB", nodata=0))
    assert valid(scene) == 0.7143
    one_by_one = [write(tmp_path / f"b{k}.tif", pixels[k : k + 1], nodata=0) for k in range(3)]
    assert valid(us.open_scene(one_by_one)) == 0.7143
    assert valid(us.open_scene(one_by_one, nodata_when="any")) == round(1 - (H * 40 + 9) / H / W, 4)
    assert valid(us.open_scene(tmp_path / "a.tif", nodata=None)) == 1


def test_a_declared_value_counts_in_any_band_and_a_named_one_in_all(tmp_path: Path) -> None:
    pixels = noise(3, "float32")
    pixels[1, *BLOCK], pixels[:, :, :14] = -9999, -9999
    path = write(tmp_path / "a.tif", pixels, nodata=-9999)
    assert valid(us.open_scene(path)) == round(0.9 - 9 / H / W, 4)
    assert valid(us.open_scene(path, nodata_when="all")) == 0.9
    bare = write(tmp_path / "b.tif", pixels)
    assert valid(us.open_scene(bare)) == 1
    assert valid(us.open_scene(bare, nodata=-9999)) == 0.9
    assert valid(us.open_scene(bare, nodata=-9999, nodata_when="any")) == valid(us.open_scene(path))
    with pytest.raises(us.SceneError, match=r"nodata_when='both' is unknown.*'any'.*'all'"):
        us.open_scene(bare, nodata_when="both")  # type: ignore[arg-type]
    integers = write(tmp_path / "c.tif", noise())
    with pytest.raises(us.SceneError, match=r"nodata=-9999 is not a value of uint16 pixels"):
        us.open_scene(integers, nodata=-9999)


def test_rounded_nodata_is_that_of_gdal(tmp_path: Path) -> None:
    pixels = noise(1, "float32")
    pixels[:, :, :40] = np.float32(-3.4028235e38)
    path = write(tmp_path / "a.tif", pixels, nodata=-3.4e38)
    with rasterio.open(path) as file:
        assert valid(us.open_scene(path)) == round(float((file.read_masks(1) > 0).mean()), 4)
    assert valid(us.open_scene(path)) == 0.7143


def test_zeros_of_products_count_where_all_bands_have_them(tmp_path: Path) -> None:
    safe = products.sentinel2(tmp_path, level="1C")
    for k, image in enumerate(sorted(safe.rglob("*_B0[234].*"))):
        with rasterio.open(image, "r+") as file:
            pixels = file.read()
            pixels[:, :10], pixels[:, 20 + k] = 0, 0
            file.write(pixels)
    assert valid(us.open_scene(safe, bands=["B02", "B03", "B04"])) == round(1 - 10 / 120, 4)
    any_band = us.open_scene(safe, bands=["B02", "B03", "B04"], nodata_when="any")
    assert valid(any_band) == round(1 - 13 / 120, 4)


def test_resampled_zeros_and_the_outside_of_a_file_are_told_apart(tmp_path: Path) -> None:
    fine = noise(1)
    fine[:, :12], fine[:, 50:52, 50:52] = 0, 0
    coarse = noise(1)[:, : H // 2, : W // 2 - 10]
    coarse[:, :6] = 0
    a = write(tmp_path / "a.tif", fine)
    b = write(tmp_path / "b.tif", coarse, transform=UTM @ Affine.scale(2))
    scene = us.open_scene([a, b], grid="finest", nodata=0)
    expected = np.ones((H, W), bool)
    expected[:12] = False  # in both
    expected[:, W - 20 :] = False  # outside the coarse one
    np.testing.assert_array_equal(scene.valid.values, expected)


def test_clouds_of_landsat_before_collection_2_are_masked(tmp_path: Path) -> None:
    product = products.landsat(tmp_path)
    metadata = next(product.glob("*_MTL.txt"))
    text = metadata.read_text().replace("FILE_NAME_QUALITY_L1_PIXEL", "FILE_NAME_BAND_QUALITY")
    flags = next(product.glob("*QA_PIXEL*"))
    quality = np.zeros((60, 60), np.uint16)
    quality[:10], quality[10:20], quality[20:30], quality[30:40] = 3 << 14, 2 << 14, 1 << 4, 3 << 5
    with rasterio.open(flags, "r+") as file:
        file.write(quality, 1)

    def cloudless(collection: str) -> list[bool]:
        metadata.write_text(text.replace("    COLLECTION_NUMBER = 02\n", collection))
        return us.open_scene(product, bands=["B4"], mask="cloud").valid.values[5:60:10, 30].tolist()

    assert cloudless("") == [False, True, True, True, True, True]
    # In Collection 1, bit 4 is a flag of its own and bits 5 and 6 the confidence of clouds.
    assert cloudless("    COLLECTION_NUMBER = 01\n") == [True, True, True, False, True, True]
    with pytest.raises(us.SceneError, match=r"mask='cloud' applies to products with a quality"):
        cloudless("    COLLECTION_NUMBER = 09\n")


def test_a_product_without_its_cloud_layer_refuses_the_mask(tmp_path: Path) -> None:
    product = products.enmap(tmp_path)
    for layer in product.glob("*QUALITY*"):
        layer.rename(layer.with_name(layer.name.replace("CIRRUS", "SNOW")))
    next(product.glob("*QUALITY_CLOUD*")).unlink()
    with pytest.raises(us.SceneError, match=r"mask='cloud' applies to products with a quality"):
        us.open_scene(product, mask="cloud")
    assert us.open_scene(product, mask=["snow"]).valid.values[:5].all()


# The mask of the caller


def test_a_plan_says_that_a_mask_decides_about_nodata() -> None:
    pixels = xr.DataArray(noise(2, "float32"), dims=("band", "y", "x"))
    masked = pixels.assign_coords(valid=("y", np.arange(pixels.sizes["y"]) >= 30))
    assert us.plan(masked, detector="rx").scene.masked == "where coordinate 'valid' is False"
    with_nodata = us.plan(masked.rio.write_nodata(7), detector="rx").scene.masked
    assert with_nodata.endswith("(it alone: 7 counts as data)")


@pytest.mark.parametrize("dim", ["y", "x"])
def test_the_name_of_a_dimension_says_which_axis_a_mask_has(dim: str) -> None:
    pixels = xr.DataArray(noise(2, "float32"), dims=("band", "y", "x"))
    kept = np.arange(pixels.sizes[dim]) >= 30
    scores = us.score(
        pixels.assign_coords(valid=(dim, kept)), detector=FirstBand(), scheduler="sync"
    )
    found = np.isfinite(scores.values).all(axis=1 if dim == "y" else 0)
    np.testing.assert_array_equal(found, kept)


def test_a_mask_that_is_none_is_refused_before_anything_is_scored() -> None:
    scene = xr.DataArray(noise(2, "float32"), dims=("band", "y", "x"))
    whole = xr.DataArray(np.ones((H, W), bool), dims=("y", "x"))
    coarse = scene.assign_coords(valid=whole).coarsen(y=2, x=2).mean()
    for wrong, message in (
        (coarse, r"'valid' has dtype float64: a mask is boolean.*valid == 1"),
        (scene.assign_coords(valid=whole.astype("uint8")), "dtype uint8"),
        (scene.assign_coords(valid=("band", [True, False])), r"dims \('band',\).*\.all\('band'\)"),
        (scene.assign_coords(valid=scene > 0), r"dims \('band', 'y', 'x'\)"),
        (scene.assign_coords(valid=True), r"dims \(\)"),
    ):
        with pytest.raises(us.SceneError, match=message):
            us.plan(wrong, detector=FirstBand(), scheduler="sync")


def test_a_tile_below_the_network_is_refused(tmp_path: Path) -> None:
    scene = us.open_scene(write(tmp_path / "a.tif", noise()))
    with pytest.raises(us.PlanError, match=r"tiles of 8 px.*needs 16 px"):
        us.plan(scene, preset="sar", tile=24, scheduler="sync")


# Bands


def test_pages_of_a_tiff_are_bands(tmp_path: Path) -> None:
    pixels = noise(5)
    for k, page in enumerate(pixels):
        write(tmp_path / f"p{k}.tif", page[None])
    rasterio.shutil.copy(tmp_path / "p0.tif", tmp_path / "p.tif", driver="GTiff")
    for k in range(1, 5):
        rasterio.shutil.copy(
            tmp_path / f"p{k}.tif", tmp_path / "p.tif", driver="GTiff", APPEND_SUBDATASET="YES"
        )
    scene = us.open_scene(tmp_path / "p.tif")
    np.testing.assert_array_equal(scene.values, pixels)
    assert list(scene.band.values) == ["1", "2", "3", "4", "5"]
    second = us.open_scene(f"GTIFF_DIR:2:{tmp_path / 'p.tif'}")
    np.testing.assert_array_equal(second.values, pixels[1:2])
    write(tmp_path / "small.tif", pixels[:1, :50, :50])
    rasterio.shutil.copy(
        tmp_path / "small.tif", tmp_path / "p.tif", driver="GTiff", APPEND_SUBDATASET="YES"
    )
    with pytest.raises(us.SceneError, match=r"has 6 pages that are not bands.*GTIFF_DIR:1:"):
        us.open_scene(tmp_path / "p.tif")


def test_other_rasters_of_a_file_are_named(tmp_path: Path) -> None:
    pixels, path = noise(2), tmp_path / "a.ntf"
    for page, more in zip(pixels, ({"NUMI": "2"}, {"APPEND_SUBDATASET": "YES"}), strict=True):
        write(tmp_path / "page.tif", page[None])
        rasterio.shutil.copy(tmp_path / "page.tif", path, driver="NITF", **more)
    scene = us.open_scene(path)
    np.testing.assert_array_equal(scene.values, pixels[:1])
    (note,) = scene_source(scene).info.notes
    assert "'a.ntf' has 2 rasters, of which one is scored" in note
    assert f"NITF_IM:1:{path}" in note
    second = us.open_scene(f"NITF_IM:1:{path}")
    np.testing.assert_array_equal(second.values, pixels[1:])
    assert not scene_source(second).info.notes


@pytest.mark.parametrize("words", ["raster:bands", "eo:bands", "bands", "none"])
def test_bands_of_a_stac_asset_are_counted(tmp_path: Path, words: str) -> None:
    pixels = noise(4)
    write(tmp_path / "a.tif", pixels)
    asset = {"href": "./a.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": None, "links": [],
        "properties": {"datetime": "2024-01-01T00:00:00Z"},
        "assets": {"data": asset if words == "none" else asset | {words: [{"nodata": 0}] * 4}},
    }  # fmt: skip
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item))
    scene = us.open_scene(path)
    np.testing.assert_array_equal(scene.values, pixels)
    assert list(scene.band.values) == [f"data-{k}" for k in range(1, 5)]
    assert us.open_scene(path, bands=["data-3"]).sizes["band"] == 1
    assert us.open_scene(path, bands=["data"]).sizes["band"] == 4  # the whole asset
    assert list(us.open_scene(path, bands=["data-2", "data"]).band.values) == [
        "data-2", "data-1", "data-3", "data-4",
    ]  # fmt: skip
    with pytest.raises(us.SceneError, match="Band 'data-3' of 'a' is selected twice"):
        us.open_scene(path, bands=["data", "data-3"])


def test_a_map_in_the_place_of_the_scene_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", noise(1))
    assert "maps of this library" not in plan(us.open_scene(path))
    with rasterio.open(path, "r+") as file:
        file.set_band_description(1, "score")
    assert "note         The only band is called 'score', as in maps" in plan(us.open_scene(path))


def test_an_alpha_with_many_values_is_a_band(tmp_path: Path) -> None:
    pixels = noise(4)
    pixels[3, 80:100, 10:40] = 0
    path = write(tmp_path / "a.tif", pixels, photometric="RGB", alpha="YES")
    scene = us.open_scene(path)
    np.testing.assert_array_equal(scene.values, pixels)
    assert valid(scene) == 1
    assert "note         Band 4 of 'a.tif' is tagged as alpha, but" in plan(scene)
    soft = pixels.astype("uint8")
    soft[3] = 255
    soft[3, :, :20] = 0
    soft[3, :, 20:40] = np.arange(20)[None] * 12
    picture = write(tmp_path / "b.tif", soft, photometric="RGB", alpha="YES")
    assert us.open_scene(picture).sizes["band"] == 3
    # By number, an alpha band is a band as any other, and then masks nothing.
    asked = us.open_scene(picture, bands=[1, 4])
    np.testing.assert_array_equal(asked.values, soft[[0, 3]])
    assert valid(asked) == 1


def test_raw_files_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    noise(3, "int16").tofile(tmp_path / "e.img")
    (tmp_path / "e.hdr").write_text(ENVI)
    assert us.open_scene(tmp_path / "e.hdr").sizes["band"] == 3
    os.truncate(tmp_path / "e.img", 60480)
    for name in ("e.hdr", "e.img"):
        with pytest.raises(us.SceneError, match=r"is cut off: 60480 of 100800 bytes are there"):
            us.open_scene(tmp_path / name)


def test_a_header_takes_no_data_file_that_has_its_own(tmp_path: Path) -> None:
    pixels = noise(3, "int16")
    pixels.tofile(tmp_path / "a.dat")
    (tmp_path / "a.hdr").write_text(ENVI)
    (tmp_path / "a.dat.hdr").write_text(ENVI.replace("bands = 3", "bands = 1"))
    with pytest.raises(us.SceneError, match=r"'.*a.hdr' is an ENVI header, but its data file"):
        us.open_scene(tmp_path / "a.hdr")
    for name in ("a.dat", "a.dat.hdr"):
        assert us.open_scene(tmp_path / name).sizes["band"] == 1
    pixels.tofile(tmp_path / "a.img")
    np.testing.assert_array_equal(us.open_scene(tmp_path / "a.hdr").values, pixels)


@pytest.mark.parametrize("words", ["data ignore value = 0", "Data_Ignore_Value = 0", "nodata = 0"])
def test_envi_says_which_value_is_missing(tmp_path: Path, words: str) -> None:
    pixels = noise(3, "int16")
    pixels[:, :12] = 0
    pixels.tofile(tmp_path / "a.img")
    (tmp_path / "a.hdr").write_text(f"{ENVI}{words}\n")
    assert valid(us.open_scene(tmp_path / "a.hdr")) == 0.9


def test_a_grey_picture_is_one_band(tmp_path: Path) -> None:
    grey = np.repeat(noise(1, "uint8", 120, 8), 3, axis=0)
    path = write(tmp_path / "a.png", grey, driver="PNG", crs=None, transform=None)
    scene = us.open_scene(path)
    np.testing.assert_array_equal(scene.values, grey[:1])
    assert "note         Red, green and blue of 'a.png' are equal" in plan(scene)
    assert us.open_scene(path, bands=[1, 2, 3]).sizes["band"] == 3
    grey[2, 60, 60] ^= 1
    assert us.open_scene(write(tmp_path / "b.png", grey, driver="PNG")).sizes["band"] == 3


def test_a_palette_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1, "uint8", 5, 2))
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {k: (k, 255 - k, 0, 255) for k in range(256)})
    with pytest.raises(us.SceneError, match=r"'a.tif' has a palette.*-expand rgb"):
        us.open_scene(path)


def test_speckle_without_a_name_is_asked_about(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    ground = np.kron(rng.uniform(50, 400, (8, 8)), np.ones((32, 32)))
    radar = (ground * rng.gamma(1, 1, ground.shape)).astype("uint16")[None]
    optical = (ground + rng.normal(0, 5, ground.shape)).astype("uint16")[None]
    asked = {}
    for name, pixels in (("radar", radar), ("optical", optical)):
        scene = us.open_scene(write(tmp_path / f"{name}.tif", pixels))
        (tmp_path / name).mkdir()
        asked[name] = "--preset sar" in score(scene, tmp_path / name).text()
        (tmp_path / name / "sar").mkdir()
        assert "--preset sar" not in score(scene, tmp_path / name / "sar", preset="sar").text()
    assert asked == {"radar": True, "optical": False}


def test_bands_can_be_named_by_what_their_files_differ_in(tmp_path: Path) -> None:
    pixels = noise()
    for k in range(3):
        write(tmp_path / f"S2B_B0{k + 2}_10m.tif", pixels[k : k + 1])
    scene = us.open_scene(tmp_path / "*.tif", bands=["B04", "B02"])
    np.testing.assert_array_equal(scene.values, pixels[[2, 0]])


@pytest.mark.parametrize("name", ["X.SAFE.zip", "X.tar", "x.tar.gz", "x.tgz", "X.ZIP"])
def test_archives_are_to_be_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    with pytest.raises(us.SceneError, match=r"is an archive\. Unpack it, then pass the folder"):
        us.open_scene(tmp_path / name)


# The place


@pytest.mark.parametrize(("shift", "same"), [(3e-9, True), (0.05, True), (0.2, False)])
def test_grids_a_hundredth_of_a_pixel_apart_are_one(
    tmp_path: Path, shift: float, *, same: bool
) -> None:
    a = write(tmp_path / "a.tif", noise(1))
    b = write(tmp_path / "b.tif", noise(1), transform=Affine.translation(shift, 0) @ UTM)
    if same:
        assert us.open_scene([a, b]).sizes["band"] == 2
    else:
        with pytest.raises(us.SceneError, match=r"must share one grid"):
            us.open_scene([a, b])


def test_a_crs_without_a_transform_is_not_a_place(tmp_path: Path) -> None:
    scene = us.open_scene(write(tmp_path / "a.tif", noise(), transform=None))
    info = scene_source(scene).info
    assert (info.crs, info.transform, info.gsd_m) == (None, None, None)
    assert "gsd_m" not in scene.attrs
    assert "georeference none (the CRS WGS 84 / UTM zone 33N comes without" in plan(scene)
    text = score(scene, tmp_path).text()
    assert "note     The map has no place on the ground: the CRS WGS 84 / UTM zone 33N" in text


def test_control_points_place_what_a_transform_does_not(tmp_path: Path) -> None:
    corners = [(0, 0), (0, W), (H, 0), (H, W)]
    points = [GroundControlPoint(r, c, *(UTM @ (c, r)), id=f"{r}-{c}") for r, c in corners]
    path = write(tmp_path / "a.tif", noise(), transform=None, gcps=points)
    scene = us.open_scene(path)
    assert len(scene.rio.get_gcps()) == 4
    assert scene_source(scene).info.geolocation.startswith("4 ground control points")


def test_rpcs_are_named_as_not_used(tmp_path: Path) -> None:
    rpc = RPC(
        height_off=0, height_scale=1, lat_off=45, lat_scale=1, long_off=9, long_scale=1,
        line_off=60, line_scale=60, samp_off=70, samp_scale=70,
        line_num_coeff=[1.0] * 20, line_den_coeff=[1.0] * 20,
        samp_num_coeff=[1.0] * 20, samp_den_coeff=[1.0] * 20,
    )  # fmt: skip
    path = write(tmp_path / "a.tif", noise(), crs=None, transform=None, rpcs=rpc)
    scene = us.open_scene(path)
    assert "georeference none (RPCs are not used)" in plan(scene)
    assert "no place on the ground: RPCs are not used" in score(scene, tmp_path).text()


@pytest.mark.parametrize("foreign", ["missing", "old"])
@pytest.mark.parametrize("variable", ["PROJ_LIB", "PROJ_DATA"])
def test_foreign_proj_data_are_refused_before_anything_runs(
    tmp_path: Path, foreign: str, variable: str
) -> None:
    path = write(tmp_path / "a.tif", noise())
    (tmp_path / "proj").mkdir()
    if foreign == "old":
        with closing(sqlite3.connect(tmp_path / "proj" / "proj.db")) as database, database:
            database.execute("CREATE TABLE metadata (key TEXT, value TEXT)")
            database.execute("INSERT INTO metadata VALUES ('DATABASE.LAYOUT.VERSION.MAJOR', '1')")
            database.execute("INSERT INTO metadata VALUES ('DATABASE.LAYOUT.VERSION.MINOR', '0')")
    code = (
        "import sys, uniadrs_scale as us\n"
        "for act in (us.open_scene, lambda path: us.to_cog(path, 'map.tif')):\n"
        "    try: act(sys.argv[1])\n"
        "    except us.SceneError as error: print(error)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("PROJ_LIB", "PROJ_DATA")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=environment | {variable: str(tmp_path / "proj")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.count("GDAL cannot use its PROJ data") == 2
    assert f"Unset {variable}=" in done.stdout


# The shares of valid pixels


def test_summary_and_report_say_what_is_not_valid_and_why(tmp_path: Path) -> None:
    safe = products.sentinel2(tmp_path)
    scene = us.open_scene(safe, bands=["B02", "B03"], mask="cloud")
    summary = score(scene, tmp_path)
    share = valid(scene)
    assert summary.valid == int(scene.valid.sum())
    assert set(summary.invalid) == {"no_data", "cloud_high_probability"}
    assert sum(summary.invalid.values()) == pytest.approx(1 - share, abs=1e-4)
    assert f"valid    {share:.1%} (cloud_high_probability 25.0%, no_data" in summary.text()
    facts = json.loads((tmp_path / "map.zarr.run.json").read_text())["pixels"]
    assert facts["valid"] == summary.valid
    assert facts["invalid_share"]["cloud_high_probability"] == 0.25


def test_pixels_lost_in_some_bands_are_mentioned(tmp_path: Path) -> None:
    pixels = noise(2)
    pixels[0, :, :14] = 0
    scene = us.open_scene(write(tmp_path / "a.tif", pixels, nodata=0))
    text = score(scene, tmp_path).text()
    assert "valid    90.0% (nodata in some bands 10.0%) of the pixels" in text
    assert "note     10% of the pixels have their nodata value in some bands only" in text


def test_the_command_plan_says_the_share_of_a_sample(tmp_path: Path) -> None:
    pixels = noise(2)
    pixels[:, :, :14] = 0
    path = str(write(tmp_path / "a.tif", pixels))
    options = ["--detector", "rx", "--scheduler", "sync", "--nodata", "0"]
    found = CliRunner().invoke(app, ["plan", path, *options])
    assert "not valid    0 in all bands" in found.stdout
    assert "valid        90.0% (nodata 10.0%) of a sample of 0.02 Mpx" in found.stdout
    found = CliRunner().invoke(app, ["plan", path, *options, "--nodata-when", "any", "--json"])
    assert json.loads(found.stdout)["sample"] == {
        "pixels": H * W, "valid": H * (W - 14), "invalid": {"nodata": H * 14},
    }  # fmt: skip


# Against rasterio


def rasters() -> list[Path]:
    """Rasters that packages of this environment ship."""
    endings = {".tif", ".tiff", ".vrt", ".jp2", ".png", ".jpg"}
    found = [
        Path(str(file.locate()))
        for package in distributions()
        for file in package.files or []
        if file.suffix in endings and (file.size or 0) < 2**20
    ]
    return sorted({path for path in found if path.is_file()})


def oracle(path: Path) -> dict[str, Any] | None:
    """What rasterio says: pixels, CRS, transform and valid share; None for what is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path) as file:
            colours = file.colorinterp
            if ColorInterp.palette in colours:
                return None
            bands = [n for n, c in enumerate(colours, 1) if c != ColorInterp.alpha] or [1]
            masks = [file.dataset_mask() > 0]
            masks += [file.read(n) > 0 for n, c in enumerate(colours, 1) if c == ColorInterp.alpha]
            pixels = file.read(bands)
            masks += [np.isfinite(band) for band in pixels]
            place = not file.transform.is_identity
            return {
                "pixels": pixels,
                "crs": file.crs if place else None,
                "transform": file.transform if place else None,
                "valid": np.logical_and.reduce(masks).mean(),
            }


def compare(path: Path) -> bool:
    expected = oracle(path)
    if expected is None:
        with pytest.raises(us.SceneError, match="palette"):
            us.open_scene(path)
        return False
    try:
        scene = us.open_scene(path)
    except us.SceneError as error:
        assert "pages that are not bands of one scene" in str(error)  # noqa: PT017 - of some files
        return False
    pixels = expected["pixels"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            pages = file.subdatasets
    if len(pages) > 1 and scene.sizes["band"] == len(pages):
        pixels = np.concatenate([oracle(page)["pixels"] for page in pages])
    if scene.sizes["band"] < len(pixels):  # a grey picture
        assert all((band == pixels[0]).all() for band in pixels)
        pixels = pixels[:1]
    np.testing.assert_array_equal(scene.values, pixels)
    info = scene_source(scene).info
    assert (info.transform is None) == (expected["transform"] is None)
    if info.transform is not None:
        assert info.transform == tuple(expected["transform"])[:6]
    if expected["crs"] is not None:
        assert rasterio.crs.CRS.from_wkt(info.crs) == expected["crs"]
    assert float(scene.valid.mean()) == pytest.approx(expected["valid"], abs=1e-12)
    return True


def test_rasters_of_installed_packages_are_read_as_rasterio_reads_them() -> None:
    found = rasters()
    if not found:
        pytest.skip("no installed package ships a raster")
    assert sum(map(compare, found)) > 0


@pytest.mark.parametrize("nodata", [None, 7])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("driver", ["GTiff", "ENVI", "JP2OpenJPEG", "PNG", "VRT", "HFA"])
def test_rasters_that_gdal_writes_are_read_as_rasterio_reads_them(
    tmp_path: Path, driver: str, dtype: str, nodata: float | None
) -> None:
    if driver in ("JP2OpenJPEG", "PNG") and not dtype.startswith("uint"):
        pytest.skip(f"{driver} holds unsigned integers")
    bands = 1 if driver == "PNG" else 3
    pixels = noise(bands, dtype, 100, 20)
    pixels[:, 20:40, 30:70] = 7
    ending = {"GTiff": "tif", "JP2OpenJPEG": "jp2", "PNG": "png", "VRT": "tif"}.get(driver, "img")
    options: dict[str, Any] = {"QUALITY": 100, "REVERSIBLE": "YES"} if ending == "jp2" else {}
    path = write(
        tmp_path / f"a.{ending}", pixels, nodata=nodata,
        driver="GTiff" if driver == "VRT" else driver, **options,
    )  # fmt: skip
    if driver == "VRT":
        rasterio.shutil.copy(path, tmp_path / "a.vrt", driver="VRT")
        path = tmp_path / "a.vrt"
    assert compare(path)


@pytest.mark.parametrize("masks", ["alpha", "internal", "file"])
def test_masks_that_gdal_writes_are_read_as_rasterio_reads_them(tmp_path: Path, masks: str) -> None:
    pixels = noise(4, "uint8", 100, 20)
    pixels[3] = np.where(np.arange(W) < 50, 0, 255)
    if masks == "alpha":
        path = write(tmp_path / "a.tif", pixels, photometric="RGB", alpha="YES")
    else:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=masks == "internal"):
            path = write(tmp_path / "a.tif", pixels[:3])
            with rasterio.open(path, "r+") as file:
                file.write_mask(pixels[3] > 0)
    assert compare(path)
    assert valid(us.open_scene(path)) == round(90 / 140, 4)


MOSAIC = """<VRTDataset rasterXSize="512" rasterYSize="256">
<GeoTransform>400000, 10, 0, 6000000, 0, -10</GeoTransform>
<VRTRasterBand dataType="UInt16" band="1">
<SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename>
<DstRect xOff="0" yOff="0" xSize="256" ySize="256"/></SimpleSource>
<SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename>
<DstRect xOff="256" yOff="0" xSize="256" ySize="256"/></SimpleSource>
</VRTRasterBand></VRTDataset>"""


def test_sources_of_a_vrt_that_are_lost_are_not_zeros(tmp_path: Path) -> None:
    """As long as any VRT is open, GDAL's second read of a lost source is zeros and no error."""
    for name in "ab":
        write(tmp_path / f"{name}.tif", np.tile(noise(1), (1, 3, 2))[:, :256, :256])
    (tmp_path / "b.vrt").write_text(MOSAIC.format("a.tif", "a.tif"))
    (tmp_path / "a.vrt").write_text(MOSAIC.format("a.tif", "b.tif"))
    (tmp_path / "nested.vrt").write_text(MOSAIC.format("a.tif", "a.vrt"))
    assert valid(us.open_scene(tmp_path / "nested.vrt")) == 1
    with rasterio.open(tmp_path / "b.vrt") as held:
        held.read()
        (tmp_path / "b.tif").write_bytes(b"not a raster")
        for name in ("a.vrt", "nested.vrt"):
            with pytest.raises(us.SceneError, match=r"b.tif', which cannot be opened \("):
                us.open_scene([tmp_path / "b.vrt", tmp_path / name])
        write(tmp_path / "b.tif", noise(1))
        with pytest.raises(us.SceneError, match=r"b.tif', which could not be opened before"):
            us.open_scene(tmp_path / "a.vrt")
    (tmp_path / "c.vrt").write_text(MOSAIC.format("a.tif", "nowhere.tif"))
    with pytest.raises(us.SceneError, match=r"nowhere.tif', which cannot be opened \("):
        us.open_scene(tmp_path / "c.vrt")


def test_a_source_that_vanishes_during_a_run_is_not_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.tif", np.tile(noise(1), (1, 3, 2))[:, :256, :256])
    (tmp_path / "a.vrt").write_text(MOSAIC.format("a.tif", "b.tif"))
    (tmp_path / "b.vrt").write_text(MOSAIC.format("a.tif", "a.tif"))
    scene = us.open_scene([tmp_path / "b.vrt", tmp_path / "a.vrt"])
    (tmp_path / "b.tif").unlink()
    with pytest.raises(us.SceneError, match=r"b\.tif', which cannot be opened"):
        score(scene, tmp_path, tile=64, chunk=64)
    look = sources.require_unchanged  # it vanishes after the first look
    monkeypatch.setattr(
        sources, "require_unchanged", lambda f, *, ended=False: ended and look(f, ended=True)
    )
    report = score(scene, tmp_path, tile=64, chunk=64)
    found = xr.open_zarr(tmp_path / "map.zarr", consolidated=False)["score"].values
    assert report.failures
    assert not np.isfinite(found[:, 256:]).any()


RAW_BAND = """<VRTDataset rasterXSize="14" rasterYSize="12"><VRTRasterBand dataType="Int16" band="1"
subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="1">a.raw</SourceFilename>
<ImageOffset>4</ImageOffset><PixelOffset>2</PixelOffset><LineOffset>28</LineOffset></VRTRasterBand>
</VRTDataset>"""
OF_A_VRT = """<VRTDataset rasterXSize="14" rasterYSize="12">
<VRTRasterBand dataType="Int16" band="1"><SimpleSource>
<SourceFilename relativeToVRT="1">a.vrt</SourceFilename></SimpleSource>
</VRTRasterBand></VRTDataset>"""


@pytest.mark.parametrize("name", ["a.vrt", "b.vrt"])
def test_a_raw_band_of_a_vrt_is_read_whole_or_refused(tmp_path: Path, name: str) -> None:
    pixels = np.arange(12 * 14, dtype="<i2").reshape(12, 14)
    (tmp_path / "a.vrt").write_text(RAW_BAND)
    (tmp_path / "b.vrt").write_text(OF_A_VRT)
    (tmp_path / "a.raw").write_bytes(bytes(4) + pixels.tobytes())
    np.testing.assert_array_equal(us.open_scene(tmp_path / name)[0].values, pixels)
    (tmp_path / "short").mkdir()
    for file in ("a.vrt", "b.vrt"):
        (tmp_path / "short" / file).write_text((tmp_path / file).read_text())
    (tmp_path / "short" / "a.raw").write_bytes(bytes(4) + pixels.tobytes()[:-1])
    with pytest.raises(us.SceneError, match="339 of 340 bytes are there"):
        us.open_scene(tmp_path / "short" / name)


def _header(folder: Path, **fields: str) -> Path:
    """Write an ENVI raster of 2 bands, 3 x 4 px, and return it."""
    pixels = np.arange(24, dtype="<u2")
    (folder / "e.img").write_bytes(pixels.tobytes())
    given = {"samples": 4, "lines": 3, "bands": 2, "data type": 12, "interleave": "bsq"}
    lines = [f"{name} = {value}" for name, value in (given | fields).items()]
    (folder / "e.hdr").write_text("\n".join(["ENVI", *lines]))
    return folder / "e.img"


def test_envi_fields_are_read_in_any_case(tmp_path: Path) -> None:
    path = _header(tmp_path, BBL="{0, 1}", Wavelength="{400, 500}", **{"Band Names": "{a, b}"})
    scene = us.open_scene(path)
    assert (scene.band.values.tolist(), scene.wavelength.values.tolist()) == (["b"], [500.0])


def test_an_envi_classification_is_refused(tmp_path: Path) -> None:
    path = _header(tmp_path, **{"file type": "ENVI Classification", "class names": "{a, b}"})
    with pytest.raises(us.SceneError, match="palette or classes"):
        us.open_scene(path)


@pytest.mark.parametrize("place", [(10, 0, float("nan"), 0, -10, 4e6), (10, 10, 0, 10, 10, 4e6)])
def test_a_transform_that_places_no_pixels_is_told(tmp_path: Path, place) -> None:
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=1, height=9, width=9, dtype="uint8",
        crs="EPSG:32632", transform=rasterio.Affine(*place),
    ) as file:  # fmt: skip
        file.write(np.ones((1, 9, 9), np.uint8))
    (remark,) = scene_source(us.open_scene(tmp_path / "a.tif")).info.remarks
    assert "places no pixels" in remark


def test_metres_in_a_crs_of_degrees_and_scales_are_told(tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=1, height=9, width=9, dtype="uint16",
        crs="EPSG:4326", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 46e5), nodata=0,
    ) as file:  # fmt: skip
        file.write(np.ones((1, 9, 9), np.uint16))
        file.scales, file.offsets = (1e-4,), (-0.1,)
    info = scene_source(us.open_scene(tmp_path / "a.tif")).info
    assert info.masked == "0 before scale and offset"
    assert "gives no place on the Earth in WGS 84" in info.remarks[0]


def test_a_fraction_as_nodata_of_integers_means_what_gdal_takes_it_for(tmp_path: Path) -> None:
    pixels = np.random.default_rng(4).integers(1, 100, (2, H, W)).astype(np.int16)
    pixels[:, :10] = -9999
    path, copy = tmp_path / "scene.tif", tmp_path / "scene.vrt"
    grid = {"count": 2, "height": H, "width": W, "dtype": "int16"}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=UTM, **grid) as file:
        file.write(pixels)
    with rasterio.open(path) as file:
        rasterio.shutil.copy(file, copy, driver="VRT")
    said = "<NoDataValue>-9999.9</NoDataValue><ColorInterp>"
    copy.write_text(copy.read_text().replace("<ColorInterp>", said))
    with rasterio.open(copy) as file:
        expected = file.read_masks(1) > 0
    assert (file.nodata, int((~expected).sum())) == (-9999.9, 10 * W)
    assert np.array_equal(us.open_scene(copy).valid, expected)
