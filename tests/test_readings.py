"""Files that are read, masked or placed wrongly without a word unless a reader looks closely."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from affine import Affine
from PIL import Image
from pyproj import CRS
from rasterio.enums import ColorInterp

import uniadrs_scale as us
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.core.validity import flat_areas
from uniadrs_scale.scenes.products.metadata import nanometres
from uniadrs_scale.scenes.sources import scene_source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

H, W = 20, 30
GRID = 10.0, 0.0, 4e5, 0.0, -10.0, 6e6


def pixels(bands: int = 3, dtype: str = "int16") -> NDArray[Any]:
    high = 255 if dtype == "uint8" else 4000
    return np.random.default_rng(bands).integers(100, high, (bands, H, W)).astype(dtype)


def write(
    path: Path, values: NDArray[Any], *, mask: Any = None, tags: Any = None, **options: Any
) -> Path:
    count, height, width = values.shape
    options = {"crs": "EPSG:32633", "transform": Affine(*GRID), "driver": "GTiff"} | options
    sizes = {"count": count, "height": height, "width": width}
    with rasterio.open(path, "w", dtype=values.dtype, **sizes, **options) as file:
        file.write(values)
        file.update_tags(**(tags or {}))
        if mask is not None:
            file.write_mask(mask)
    return path


@pytest.mark.parametrize(
    ("data", "place"),
    [("{}", "{}"), ("SWATHS/{}/Data Fields", "SWATHS/{}/Geolocation Fields")],
)
def test_places_and_classes_come_from_the_nearest_group(
    tmp_path: Path, data: str, place: str
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for shift, name in enumerate(("S1", "S2")):
            rows, cols = np.mgrid[:H, :W] * 0.01 + 50 * shift
            file[f"{data.format(name)}/image"] = pixels(1)[0]
            file[f"{place.format(name)}/Latitude"] = rows
            file[f"{place.format(name)}/Longitude"] = cols
            classes = np.zeros((H, W), "u1")
            classes[shift] = 1
            file[f"{data.format(name)}/quality"] = classes
            said = {"flag_values": np.array([0, 1], "u1"), "flag_meanings": "clear cloud"}
            file[f"{data.format(name)}/quality"].attrs.update(said)
    for shift, name in enumerate(("S1", "S2")):
        variable = f"{data.format(name)}/image"
        scene = us.open_scene(tmp_path / "a.h5", variable=variable, mask="cloud")
        assert float(scene.latitude[0, 0]) == 50 * shift
        assert np.flatnonzero(~scene.valid.values.all(axis=1)).tolist() == [shift]


def test_signs_that_zarr_tells_in_json(tmp_path: Path) -> None:
    stored = pixels(1, "uint16")[0]
    stored[0], stored[1] = 65535, 65534
    said = {"_Unsigned": "true", "_FillValue": np.int16(-1), "valid_range": [0, -3]}
    for version in (2, 3):
        path = tmp_path / f"{version}.zarr"
        data = xr.Dataset({"v": (("y", "x"), stored.view("i2"), said)})
        data.to_zarr(path, zarr_format=version, consolidated=False)
        scene = us.open_scene(path)
        np.testing.assert_array_equal(scene.values[0, 2:], stored[2:])
        assert np.flatnonzero(~scene.valid.values.all(axis=1)).tolist() == [0, 1]


def test_signed_numbers_that_are_stored_as_unsigned(tmp_path: Path) -> None:
    stored = np.arange(-100, 100, dtype=np.int8).reshape(10, 20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = stored.view("u1")
        file["v"].attrs.update({"_Unsigned": "false", "_FillValue": np.uint8(156)})
    scene = us.open_scene(tmp_path / "a.h5")
    np.testing.assert_array_equal(scene.values[0, 1:], stored[1:])
    assert np.argwhere(~scene.valid.values).tolist() == [[0, 0]]


@pytest.mark.parametrize(("value", "lost"), [(-9999, 5), (0, 0)])
def test_pixels_that_a_zarr_store_does_not_hold(tmp_path: Path, value: int, lost: int) -> None:
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    array = root.create_array(
        "v", shape=(3, H, W), chunks=(3, 5, W), dtype="i2", fill_value=value,
        dimension_names=("band", "y", "x"),
    )  # fmt: skip
    array[:, 5:] = pixels()[:, 5:]
    scene = us.open_scene(tmp_path / "a.zarr")
    assert np.count_nonzero(~scene.valid.values) == lost * W


@pytest.mark.parametrize("said", [-999.9, -9999])
def test_fill_of_packed_numbers_may_be_scaled(tmp_path: Path, said: float) -> None:
    stored = pixels()
    stored[:, 3] = -9999
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = stored
        file["v"].attrs.update({"scale_factor": 0.1, "missing_value": said})
    valid = us.open_scene(tmp_path / "a.h5").valid.values
    assert np.flatnonzero(~valid.all(axis=1)).tolist() == [3]


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("m", 1e-9), ("Angstroms", 10), ("mm", 1e-6), ("µm", 1e-3), ("1e-6 m", 1e-3), (None, 1)],
)
def test_units_of_wavelengths(tmp_path: Path, unit: str | None, factor: float) -> None:
    centres = np.array([450, 550, 2200]) * factor
    said = {} if unit is None else {"units": unit}
    data = xr.Dataset({"v": (("wavelength", "y", "x"), pixels())})
    data = data.assign_coords(wavelength=("wavelength", centres, said))
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    np.testing.assert_allclose(us.open_scene(tmp_path / "a.nc").wavelength, [450, 550, 2200])
    array = data["v"].rename(wavelength="band").assign_coords(wavelength=("band", centres, said))
    np.testing.assert_allclose(us.plan(array, detector="rx").scene.wavelengths, [450, 550, 2200])


@pytest.mark.parametrize("unit", ["Index", "cm-1", "GHz"])
def test_numbers_that_are_not_wavelengths(unit: str) -> None:
    assert nanometres(3, unit) is None


def test_nodata_of_a_picture_counts_in_all_bands(tmp_path: Path) -> None:
    picture = pixels(3, "uint8")
    picture[:, 2] = np.array([9, 8, 7])[:, None]
    picture[0, 5] = 9
    write(tmp_path / "a.tif", picture, tags={"NODATA_VALUES": "9 8 7"})
    Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / "a.png", transparency=(9, 8, 7))
    for name in ("a.tif", "a.png"):
        valid = us.open_scene(tmp_path / name).valid.values
        assert np.flatnonzero(~valid.all(axis=1)).tolist() == [2]


def test_a_mask_and_nodata_are_not_brought_to_another_grid(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", pixels(1), mask=np.eye(H, W) > 0, nodata=0)
    write(tmp_path / "b.tif", pixels(1)[:, ::2, ::2], transform=Affine(*GRID) @ Affine.scale(2))
    both = [tmp_path / "a.tif", tmp_path / "b.tif"]
    assert us.open_scene(both, grid="finest").shape == (2, H, W)
    with pytest.raises(us.SceneError, match="would not obey all"):
        us.open_scene(both, grid="coarsest")


def test_a_vrt_of_several_dtypes(tmp_path: Path) -> None:
    parts = {"Int16": pixels(1), "Float32": pixels(1, "float32") + 0.5, "Byte": np.eye(H, W)[None]}
    text = ""
    for number, (dtype, part) in enumerate(parts.items(), start=1):
        write(tmp_path / f"{dtype}.tif", part.astype("u1") if dtype == "Byte" else part)
        alpha = "<ColorInterp>Alpha</ColorInterp>" if dtype == "Byte" else ""
        text += (
            f'<VRTRasterBand dataType="{dtype}" band="{number}">{alpha}<SimpleSource>'
            f'<SourceFilename relativeToVRT="1">{dtype}.tif</SourceFilename>'
            "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        )
    vrt = f'<VRTDataset rasterXSize="{W}" rasterYSize="{H}">{text}</VRTDataset>'
    (tmp_path / "a.vrt").write_text(vrt)
    scene = us.open_scene(tmp_path / "a.vrt")
    np.testing.assert_array_equal(scene.values, np.concatenate([parts["Int16"], parts["Float32"]]))
    np.testing.assert_array_equal(scene.valid.values, np.eye(H, W) > 0)


def test_assets_that_are_not_measurements(tmp_path: Path) -> None:
    keys = ["AOT_10m", "B02_10m", "B03_10m", "SCL_20m", "SCL_60m", "SZA", "Fmask", "qa"]
    for named in (True, False):
        assets = {}
        for key in keys:
            classes = np.where(np.eye(H, W), 9, 4)[None].astype("u1")
            known = {"SCL_20m": classes, "Fmask": 0 * classes}
            write(tmp_path / f"{key}.tif", known.get(key, pixels(1)))
            asset = {"href": f"{key}.tif", "type": "image/tiff", "roles": ["data"]}
            assets[key] = asset | ({"bands": [{"name": key}]} if named else {})
        assets["extra"] = assets["qa"] | ({"bands": [{"nodata": 0}]} if named else {"roles": []})
        item = {
            "type": "Feature", "stac_version": "1.1.0", "id": "a", "geometry": None, "links": [],
            "properties": {"datetime": "2024-01-01T00:00:00Z"}, "assets": assets,
        }  # fmt: skip
        (tmp_path / "a.json").write_text(json.dumps(item))
        scene = us.open_scene(tmp_path / "a.json", mask="cloud")
        found = [name for name in scene.band.values if name != "extra"]
        assert found == ["B02_10m", "B03_10m"]
        assert ("extra" in scene.band.values) == (not named)
        np.testing.assert_array_equal(scene.valid.values, np.eye(H, W) == 0)


def test_files_next_to_a_raster_are_not_bands(tmp_path: Path) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
        for name in ("B1", "B2"):
            write(tmp_path / f"{name}.tif", pixels(1), mask=np.eye(H, W) == 0)
            (tmp_path / f"{name}.tif.aux.xml").write_text("<PAMDataset/>")
    assert (tmp_path / "B1.tif.msk").exists()
    scene = us.open_scene(tmp_path / "B*")
    assert list(scene.band.values) == ["B1", "B2"]
    np.testing.assert_array_equal(scene.valid.values, np.eye(H, W) == 0)


def test_a_file_given_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels(1))
    with pytest.raises(us.SceneError, match="is given twice"):
        us.open_scene([path, str(path)])


def test_several_envi_files_keep_the_words_of_their_headers(tmp_path: Path) -> None:
    for name in "ab":
        pixels().tofile(tmp_path / f"{name}.img")
        (tmp_path / f"{name}.hdr").write_text(
            f"ENVI\nsamples = {W}\nlines = {H}\nbands = 3\ndata type = 2\ninterleave = bsq\n"
            "byte order = 0\nbbl = {1, 0, 1}\nnodata = 7\n"
            f"band names = {{{name}1, {name}2, {name}3}}\n"
        )
    for ending in ("hdr", "img"):
        scene = us.open_scene([tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"])
        assert list(scene.band.values) == ["a1", "a3", "b1", "b3"]


def test_a_grid_mapping_that_was_left_behind(tmp_path: Path) -> None:
    axes = {"y": 6e6 - 10.0 * np.arange(H), "x": 4e5 + 10.0 * np.arange(W)}
    mapping = ((), 0, CRS.from_epsg(32633).to_cf())
    data = xr.Dataset({"v": (("y", "x"), pixels(1)[0], {"grid_mapping": "m"}), "m": mapping}, axes)
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as opened:
        assert "decode_coords" in us.plan(opened["v"], detector="rx").scene.unplaced
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf", decode_coords="all") as opened:
        scene = us.plan(opened["v"], detector="rx").scene
    assert not scene.unplaced
    assert CRS(str(scene.crs)).to_epsg() == 32633


def test_latitudes_and_longitudes_of_an_array_are_wgs_84() -> None:
    axes = {"lat": 50 - 0.1 * np.arange(H), "lon": 10 + 0.1 * np.arange(W)}
    array = xr.DataArray(pixels(1)[0], axes, ("lat", "lon"))
    assert CRS(str(us.plan(array, detector="rx").scene.crs)).to_epsg() == 4326


def test_a_header_of_several_data_files_is_refused(tmp_path: Path) -> None:
    for name in ("a.img", "a.dat"):
        pixels().tofile(tmp_path / name)
    (tmp_path / "a.hdr").write_text(
        f"ENVI\nsamples = {W}\nlines = {H}\nbands = 3\ndata type = 2\ninterleave = bsq\n"
    )
    with pytest.raises(us.SceneError, match=r"any of a.dat, a.img. Pass one"):
        us.open_scene(tmp_path / "a.hdr")
    assert us.open_scene(tmp_path / "a.img").shape == (3, H, W)


def test_axes_of_which_only_some_have_scales(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"], file["y"] = pixels(), np.arange(H)
        file["y"].make_scale("y")
        file["v"].dims[1].attach_scale(file["y"])
    with pytest.raises(us.SceneError, match=r"others none. Attach all"):
        us.open_scene(tmp_path / "a.h5")


@pytest.mark.parametrize(("value", "asked"), [(128, False), (0, True), (255, True)])
def test_flat_greys_of_a_picture_are_not_asked_about(value: int, asked: bool) -> None:
    picture = pixels(1, "uint8")
    picture[:, :, 12:] = value
    assert bool(flat_areas(picture, np.ones((H, W), bool))) == asked


def described(path: Path, *names: str, **options: Any) -> Path:
    write(path, pixels(len(names)), **options)
    with rasterio.open(path, "r+") as file:
        file.descriptions = names
    return path


def test_a_name_of_several_bands_chooses_none(tmp_path: Path) -> None:
    files = [described(tmp_path / f"{name}.tif", "red", name) for name in ("nir", "swir")]
    with pytest.raises(us.SceneError, match=r"'red': 1 \(nir.tif\), 3 \(swir.tif\). Pass the num"):
        us.open_scene(files, bands=["red"])
    assert us.open_scene(files, bands=["swir", 3]).shape == (2, H, W)
    twice = described(tmp_path / "twice.tif", "2", "2", "1")
    assert us.open_scene(twice, bands=["2"]).values.tolist() == pixels()[1:2].tolist()
    data = xr.Dataset({"v": (("band", "y", "x"), pixels())}, {"band": ["a", "b", "a"]})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(us.SceneError, match=r"'a': 1, 3. Pass"):
        us.open_scene(tmp_path / "a.nc", bands=["a"])


def test_a_name_of_bands_on_two_grids_is_not_a_grid(tmp_path: Path) -> None:
    fine = described(tmp_path / "a.tif", "red")
    coarse = tmp_path / "b.tif"
    write(coarse, pixels(1)[:, ::2, ::2], transform=Affine(*GRID) @ Affine.scale(2))
    with rasterio.open(coarse, "r+") as file:
        file.descriptions = ("red",)
    with pytest.raises(us.SceneError, match="grid='red' is the name of several bands"):
        us.open_scene([fine, coarse], grid="red")


UTM = CRS.from_epsg(32633)


@pytest.mark.parametrize(
    "said",
    [
        {"srid": "urn:ogc:def:crs:EPSG::32633"},
        {"srid": 32633},
        {"code": "EPSG:32633"},
        {"projjson": UTM.to_json()},
        {"wkt2": UTM.to_wkt()},
        {"proj:code": "EPSG:32633"},
    ],
)
def test_a_grid_mapping_that_names_its_crs(tmp_path: Path, said: dict[str, Any]) -> None:
    crs = placed(tmp_path, said)
    assert [CRS(str(found.crs)).to_epsg() for found in crs] == [32633, 32633]


def test_a_grid_mapping_without_a_known_crs_is_told(tmp_path: Path) -> None:
    transform = " ".join(map(str, Affine(*GRID).to_gdal()))
    found = placed(tmp_path, {"grid_mapping_name": "universal_transverse_mercator", "zone": 33})
    assert all("describes no CRS that is known" in info.unplaced for info in found)
    assert "describes no CRS" in placed(tmp_path, {})[0].unplaced
    assert all(not info.unplaced for info in placed(tmp_path, {"GeoTransform": transform}))


def placed(folder: Path, said: dict[str, Any]) -> list[Any]:
    """Return what is known of a scene as a file and as an array, with such a grid mapping."""
    axes = {"y": 6e6 - 10.0 * np.arange(H), "x": 4e5 + 10.0 * np.arange(W)}
    mapping = ((), 0, said)
    data = xr.Dataset({"v": (("y", "x"), pixels(1)[0], {"grid_mapping": "m"}), "m": mapping}, axes)
    data.to_zarr(folder / "a.zarr", mode="w", consolidated=False)
    array = xr.open_zarr(folder / "a.zarr", decode_coords="all", consolidated=False)["v"]
    scenes = us.open_scene(folder / "a.zarr"), array
    return [us.plan(scene, detector="rx").scene for scene in scenes]


FLAGGED = {"LC08_QA_PIXEL": 1 << 3, "HLS.T33.Fmask": 1 << 3, "T33_SCL_20m": 9}


@pytest.mark.parametrize("quality", FLAGGED)
def test_quality_bands_among_the_files_of_a_pattern(tmp_path: Path, quality: str) -> None:
    bands = {name: pixels(1) for name in ("LC08_SR_B4", "LC08_SR_B5")}
    classes = np.where(np.eye(H, W), FLAGGED[quality], 64)[None].astype("uint16")
    helpers = ("LC08_ST_QA", "LC08_SR_QA_AEROSOL", "MSK_CLDPRB_20m", "HLS.VZA")
    files = bands | dict.fromkeys(helpers, pixels(1)) | {"T33_TCI_10m": pixels(3), quality: classes}
    for name, values in files.items():
        write(tmp_path / f"{name}.tif", values)
    scene = us.open_scene(tmp_path / "*.tif", mask="cloud")
    assert list(scene.band.values) == list(bands)
    np.testing.assert_array_equal(scene.valid.values, np.eye(H, W) == 0)
    assert f"{quality}.tif" in us.plan(scene, detector="rx").text()
    assert us.open_scene(tmp_path / "*.tif", bands=["HLS.VZA", 1]).shape == (2, H, W)
    assert us.open_scene(tmp_path / "*.tif").valid.values.all()
    assert us.open_scene(tmp_path / f"{quality}.tif").shape == (1, H, W)


@pytest.mark.parametrize(("fill", "lost"), [(7, 1), (7.0, 1), (np.nan, 0), (70000, 0)])
@pytest.mark.parametrize("place", ["attrs", "encoding"])
def test_fill_of_an_array_of_integers(place: str, fill: float, lost: int) -> None:
    array = xr.DataArray(pixels(), dims=("band", "y", "x"))
    array[:, 3] = 7
    getattr(array, place)["_FillValue"] = fill
    source = scene_source(array)
    _, valid = source.window(Window(0, 0, H, W)).read()
    assert np.count_nonzero(~valid.all(axis=1)) == lost
    assert source.info.identity  # nodata is part of it


def test_fill_of_an_array_is_a_number() -> None:
    array = xr.DataArray(pixels(), dims=("band", "y", "x"), attrs={"_FillValue": "none"})
    with pytest.raises(us.SceneError, match="not a number"):
        us.plan(array, detector="rx")


@pytest.mark.parametrize("field", ["major", "minor"])
def test_envi_files_with_bytes_between_their_frames_are_refused(tmp_path: Path, field: str) -> None:
    pixels().tofile(tmp_path / "a.img")
    head = f"ENVI\nsamples = {W}\nlines = {H}\nbands = 3\ndata type = 2\ninterleave = bsq\n"
    for said in ("{0, 0}", "{0, 16}"):
        (tmp_path / "a.hdr").write_text(f"{head}{field} frame offsets = {said}\n")
        if said == "{0, 0}":
            assert us.open_scene(tmp_path / "a.hdr").shape == (3, H, W)
    with pytest.raises(us.SceneError, match=f"{field}_frame_offsets = {{0, 16}}"):
        us.open_scene(tmp_path / "a.hdr")


@pytest.mark.parametrize("variable", [None, "v"])
def test_complex_arrays_are_refused_as_such(tmp_path: Path, variable: str | None) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = pixels().astype("c8")
    zarr.save_group(tmp_path / "a.zarr", v=pixels().astype("c8"))
    for name in ("a.h5", "a.zarr"):
        with pytest.raises(us.SceneError, match="holds complex values"):
            us.open_scene(tmp_path / name, variable=variable)


def test_several_alpha_bands_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.full((3, H, W), 255, "u1"))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.gray, ColorInterp.alpha, ColorInterp.alpha]
    with pytest.raises(us.SceneError, match=r"Bands 2 and 3 of .* tagged as alpha"):
        us.open_scene(path)


def test_quality_bands_among_the_bands_of_a_file(tmp_path: Path) -> None:
    path = described(tmp_path / "export.tif", "B4", "B8", "SCL", "QA60", "MSK_CLDPRB")
    scene = us.open_scene(path)
    assert list(scene.band.values) == ["B4", "B8"]
    assert "Not scored: SCL, QA60, MSK_CLDPRB" in us.plan(scene, detector="rx").text()
    assert us.open_scene(path, bands=[3, "QA60"]).shape == (2, H, W)


def test_names_of_several_assets_of_an_item(tmp_path: Path) -> None:
    assets = {}
    for key, common in {"B05": "rededge", "B06": "rededge", "B08": "nir", "B8": "nir"}.items():
        fine = Affine(*GRID) @ Affine.scale(2 if key == "B8" else 1)
        write(tmp_path / f"{key}.tif", pixels(1), transform=fine)
        own = {"name": key.replace("B8", "B08"), "common_name": common}
        assets[key] = {"href": f"{key}.tif", "type": "image/tiff", "eo:bands": [own]}
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": None, "links": [],
        "properties": {"datetime": "2024-01-01T00:00:00Z"}, "assets": assets,
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(item))
    with pytest.raises(us.SceneError, match=r"'rededge': 1 \(B05.tif\), 2 \(B06.tif\)"):
        us.open_scene(tmp_path / "a.json", bands=["rededge"])
    assert list(us.open_scene(tmp_path / "a.json", bands=["nir"]).band.values) == ["B08"]
    scene = us.open_scene(tmp_path / "a.json", bands=["B8", "B05"], grid="nir")
    assert scene.rio.transform().a == 10
    with pytest.raises(us.SceneError, match="'rededge': 1"):
        us.open_scene(tmp_path / "a.json", bands=["B8", "B08"], grid="rededge")


def test_arrays_of_one_name_and_classes_among_arrays(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("S1/image", "S2/image", "S2/image_flags"):
            file[name] = pixels(1)[0]
        file["S2/image_flags"].attrs.update({"flag_values": [0, 1], "flag_meanings": "clear cloud"})
    with pytest.raises(us.SceneError, match=r"may be any of S1/image, S2/image. Pass one"):
        us.open_scene(tmp_path / "a.h5", variable="image")
    assert us.open_scene(tmp_path / "a.h5", variable="*/image").shape == (2, H, W)
    assert us.open_scene(tmp_path / "a.h5", variable="S2/*").shape == (1, H, W)
    assert us.open_scene(tmp_path / "a.h5", variable="image_flags").shape == (1, H, W)
