"""Variants of products that other programs write, and what is decided about their pixels."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import products
import pytest
import rasterio
import rasterio.shutil
import xarray as xr
import zarr
from affine import Affine
from scipy.io import savemat

import uniadrs_scale as us
from uniadrs_scale.cli.values import nodata_value
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.scenes.sources import scene_source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

H, W = 20, 30


def pixels(bands: int = 3, dtype: str = "int16") -> NDArray[Any]:
    return np.random.default_rng(bands).integers(100, 4000, (bands, H, W)).astype(dtype)


def envi(header: Path, values: NDArray[Any], fields: str) -> Path:
    """Write 16-bit integers as ENVI, with more fields in the header."""
    values.tofile(header.with_suffix(".img"))
    header.write_text(
        f"ENVI\nsamples = {W}\nlines = {H}\nbands = {len(values)}\nheader offset = 0\n"
        f"data type = 2\ninterleave = bsq\nbyte order = 0\n{fields}"
    )
    return header


@pytest.mark.parametrize("text", ["{-9999}", "{ -9999, -9999, -9999 }", "-9999,", "{-9.999e3}"])
@pytest.mark.parametrize("name", ["data ignore value", "nodata value"])
def test_envi_nodata_in_any_spelling(tmp_path: Path, name: str, text: str) -> None:
    """GDAL takes what it does not understand for 0."""
    stored = pixels(3, "int16")
    stored[:, 0], stored[:, 1] = -9999, 0
    scene = us.open_scene(envi(tmp_path / "a.hdr", stored, f"{name} = {text}\n"))
    assert np.flatnonzero(~scene.valid.values.all(axis=1)).tolist() == [0]
    assert not scene_source(scene).info.notes


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("data ignore value = none", "'data_ignore_value' of 'a.hdr' is 'none', not a number"),
        ("bbl = {1, 0}", "'bbl' of 'a.hdr' does not have one number for each of the 3 bands"),
        ("bbl = {1, 0, x}", "no band is left out as bad"),
        ("wavelength = {450, 550}", "wavelengths are not known"),
    ],
)
def test_envi_fields_that_cannot_be_obeyed_are_told(tmp_path: Path, field: str, said: str) -> None:
    stored = pixels(3, "int16")
    stored[:, 0] = 0
    header = envi(tmp_path / "a.hdr", stored, field + "\n")
    for source in (header, [header]):
        scene = us.open_scene(source)
        assert scene.valid.all()
        assert said in scene_source(scene).info.notes[0]
    assert said in us.plan(header, preset="multispectral", scheduler="sync").text()


def test_envi_lists_without_commas(tmp_path: Path) -> None:
    header = envi(tmp_path / "a.hdr", pixels(3, "int16"), "bbl = {1 0 1,}\nwavelength = {4 5 6}\n")
    assert us.open_scene(header).wavelength.values.tolist() == [4000, 6000]


def test_places_of_envi_in_units_that_gdal_does_not_know(tmp_path: Path) -> None:
    for units in ("Meters", "Km", "Feet", "Unknown", "Nautical Miles"):
        info = f"map info = {{UTM, 1, 1, 400, 6000, .01, .01, 33, North, WGS-84, units={units}}}\n"
        assert us.open_scene(envi(tmp_path / "a.hdr", pixels(1, "int16"), info)).rio.crs
    info = info.replace("Nautical Miles", "Kilometers")
    with pytest.raises(
        us.SceneError, match=r"'Kilometers' .*read as metres. Write one of Meters, Km"
    ):
        us.open_scene(envi(tmp_path / "a.hdr", pixels(1, "int16"), info))


def test_a_rotated_place_of_envi_starts_at_the_first_pixel(tmp_path: Path) -> None:
    info = "map info = {UTM, 1.0, 1.0, 400, 6000, 2, 2, 33, North, WGS-84, rotation=30.0}\n"
    transform = us.open_scene(envi(tmp_path / "a.hdr", pixels(1, "int16"), info)).rio.transform()
    assert (transform.a, transform.c, transform.f) == (pytest.approx(3**0.5), 400, 6000)
    straight = info.replace("1.0, 1.0", "6, 11").replace("30.0", "0.0")
    transform = us.open_scene(
        envi(tmp_path / "a.hdr", pixels(1, "int16"), straight)
    ).rio.transform()
    assert transform * (5, 10) == (400, 6000)
    turned = info.replace("1.0, 1.0", "6, 11")
    with pytest.raises(
        us.SceneError, match=r"rotated about pixel \(6, 11\).*place of pixel \(1, 1"
    ):
        us.open_scene(envi(tmp_path / "a.hdr", pixels(1, "int16"), turned))


def test_scenes_without_a_band_to_score(tmp_path: Path) -> None:
    header = envi(tmp_path / "a.hdr", pixels(3, "int16"), "bbl = {0, 0, 0}\n")
    with pytest.raises(us.SceneError, match=r"'a.img' has no band of measurements.*Name those"):
        us.open_scene(header)
    assert us.open_scene(header, bands=[2]).shape[0] == 1


LARGE = [("int64", 2**63 - 1), ("int64", 2 - 2**63), ("uint64", 2**64 - 1), ("int64", 2**53 + 1)]


@pytest.mark.parametrize(("dtype", "fill"), LARGE)
def test_integers_that_no_float_can_be_are_nodata(tmp_path: Path, dtype: str, fill: int) -> None:
    values = pixels(2, dtype)
    values[0, 0], values[1, 1] = fill, fill - 1
    data = xr.Dataset({"v": (("band", "y", "x"), values, {"_FillValue": values[0, 0, 0]})})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    data.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    raster = tmp_path / "a.tif"
    grid = {"count": 2, "height": H, "width": W, "transform": Affine(10, 0, 4e5, 0, -10, 6e6)}
    with rasterio.open(raster, "w", driver="GTiff", dtype=dtype, **grid) as file:
        file.write(values)
    rasterio.shutil.copy(raster, tmp_path / "a.vrt", driver="VRT")
    text = (tmp_path / "a.vrt").read_text()
    text = text.replace("<ColorInterp>", f"<NoDataValue>{fill}</NoDataValue><ColorInterp>")
    (tmp_path / "b.vrt").write_text(text)
    rasterio.shutil.copy(tmp_path / "b.vrt", tmp_path / "b.tif", driver="GTiff")
    for name in ("a.nc", "a.zarr", "b.vrt", "b.tif"):
        valid = us.open_scene(tmp_path / name).valid.values
        assert not valid[0].any()
        assert valid[2:].all()
    for when in ("any", "all"):
        valid = us.open_scene(raster, nodata=fill, nodata_when=when).valid.values
        assert (~valid).sum() == (W if when == "any" else 0)
    assert nodata_value(str(fill)) == fill
    source = scene_source(data.v)
    assert (~source.window(Window(0, 0, H, W)).read()[1]).sum() == W


def test_a_nodata_value_beyond_every_integer_is_refused(tmp_path: Path) -> None:
    header = envi(tmp_path / "a.hdr", pixels(), "")
    with pytest.raises(us.SceneError, match="is not a value of int16 pixels"):
        us.open_scene(header, nodata=2**80)


def test_nodata_rules_of_matlab_files(tmp_path: Path) -> None:
    """Version 5 is read at once, 7.3 as HDF5: both obey the same rules."""
    values = pixels(2)
    values[:, 0], values[0, 1] = 0, 0
    savemat(tmp_path / "old.mat", {"cube": values.transpose(1, 2, 0)})
    with h5py.File(tmp_path / "new.mat", "w", userblock_size=512) as file:
        file["cube"] = values.transpose(0, 2, 1)
    for name in ("old.mat", "new.mat"):
        path = tmp_path / name
        for when, rows in (("auto", [0]), ("all", [0]), ("any", [0, 1])):
            valid = us.open_scene(path, nodata=0, nodata_when=when).valid.values
            assert np.flatnonzero(~valid.all(axis=1)).tolist() == rows
        with pytest.raises(us.SceneError, match="nodata=99999 is not a value of int16 pixels"):
            us.open_scene(path, nodata=99999)


CLASSES = {"flag_meanings": "water land cloud", "flag_values": np.arange(3, dtype="u1")}


def test_classes_are_not_scored_unless_they_are_named(tmp_path: Path) -> None:
    classes = (("t", "y", "x"), pixels(2, "uint8") % 3, CLASSES)
    xr.Dataset({"lc": classes}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(us.SceneError, match=r"'lc' has water, land, cloud.* pass --variable lc"):
        us.open_scene(tmp_path / "a.nc")
    assert us.open_scene(tmp_path / "a.nc", variable="lc").shape == (2, H, W)


def test_steps_that_are_taken_for_bands_are_told(tmp_path: Path) -> None:
    for dim, told in (("time", True), ("depth", True), ("band", False), ("wavelength", False)):
        data = xr.Dataset({"v": ((dim, "y", "x"), pixels())}, {dim: [400.0, 500.0, 600.0]})
        data.to_netcdf(path := tmp_path / f"{dim}.nc", engine="h5netcdf")
        notes = scene_source(us.open_scene(path)).info.notes
        assert bool(notes) == told
        if told:
            assert f"The 3 steps along '{dim}' of 'v' are scored as bands" in notes[0]
            assert notes[0] in us.plan(path, detector="rx", scheduler="sync").text()


def test_quality_and_places_of_a_dataset_are_not_bands() -> None:
    plane = ("y", "x")
    bands = {name: (plane, values) for name, values in zip(("red", "nir"), pixels(2), strict=True)}
    more = {"SCL": plane, "lat": plane, "clouds": plane}
    data = xr.Dataset(bands | {name: (dims, pixels(1)[0]) for name, dims in more.items()})
    data["clouds"].attrs = CLASSES
    with pytest.raises(
        us.SceneError, match=r"SCL, clouds, lat .* ds.set_coords\(\['lat'\]\)\[\['r"
    ):
        us.plan(data, detector="rx", scheduler="sync")
    assert us.plan(data[["red", "nir"]], detector="rx").scene.bands == ("red", "nir")


def write(path: Path, values: NDArray[Any], **options: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 4e5, 0, -10, 6e6)}
    sizes = dict(zip(("count", "height", "width"), values.shape, strict=True))
    options = {"driver": "GTiff"} | place | options
    with rasterio.open(path, "w", dtype=values.dtype, **sizes, **options) as file:
        file.write(values)
    return path


@pytest.mark.parametrize("ending", ["json", "xml"])
def test_landsat_metadata_as_json_and_xml(tmp_path: Path, ending: str) -> None:
    """Collection 2 has the MTL file in three formats; the text is dropped first by some."""
    folder = products.landsat(tmp_path)
    text = next(folder.glob("*_MTL.txt"))
    expected = us.open_scene(folder, mask="cloud").compute()
    groups: dict[str, dict[str, str]] = {}
    for key, value in re.findall(r"(\w+) = \"?([^\"\n]*)", text.read_text()):
        if key == "GROUP":
            name = value
        elif key != "END_GROUP":
            groups.setdefault(name, {})[key] = value
    if ending == "json":
        content = json.dumps({"LANDSAT_METADATA_FILE": groups})
    else:
        inner = [
            f"<{name}>{''.join(f'<{k}>{v}</{k}>' for k, v in facts.items())}</{name}>"
            for name, facts in groups.items()
        ]
        content = f"<LANDSAT_METADATA_FILE>{''.join(inner)}</LANDSAT_METADATA_FILE>"
    text.with_suffix(f".{ending}").write_text(content)
    text.unlink()
    for source in (folder, text.with_suffix(f".{ending}")):
        scene = us.open_scene(source, mask="cloud")
        xr.testing.assert_identical(scene.compute(), expected)


def test_sentinel1_products_as_cogs(tmp_path: Path) -> None:
    """Names end in -cog: of the images, and of the annotations of some products."""
    folder = products.sentinel1(tmp_path)
    expected = us.open_scene(folder).compute()
    for place in ("measurement", "annotation"):
        for path in [*(folder / place).glob("s1*")]:
            path.rename(path.with_stem(path.stem + "-cog"))
        scene = us.open_scene(folder)
        np.testing.assert_array_equal(scene.values, expected.values)
        assert list(scene.band.values) == list(expected.band.values)


def test_parts_of_a_product_lead_to_it(tmp_path: Path) -> None:
    safe = products.sentinel2(tmp_path)
    granule = next((safe / "GRANULE").iterdir())
    (granule / "MTD_TL.xml").write_text("<a/>")
    for part in (granule, granule / "MTD_TL.xml", next(granule.glob("IMG_DATA/*"))):
        with pytest.raises(us.SceneError, match=f"a part of the product '{safe}'"):
            us.open_scene(part)
    (tmp_path / "order").mkdir()
    (tmp_path / "order" / "manifest.json").write_text("{}")
    write(tmp_path / "order" / "files" / "a.tif", pixels(1))
    with pytest.raises(us.SceneError, match=r"Pass its rasters: '.*order/\*/\*.tif'"):
        us.open_scene(tmp_path / "order")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    with pytest.raises(us.SceneError, match="It has no rasters: check the path"):
        us.open_scene(tmp_path / "texts")


@pytest.mark.parametrize(
    "name",
    ["1_3B_udm2_clip", "LC08_PIXELQA", "M_state_1km", "QC_500m", "S1_RTC_inc_map", "a_ls_map"],
)
def test_quality_under_other_names_is_not_a_band(tmp_path: Path, name: str) -> None:
    image, other = (
        write(tmp_path / "image.tif", pixels()),
        write(tmp_path / f"{name}.tif", pixels()),
    )
    scene = us.open_scene([image, other])
    assert scene.shape[0] == 3
    assert name in scene_source(scene).info.notes[0]


def test_thematic_layers_are_not_scored(tmp_path: Path) -> None:
    path = write(tmp_path / "a.img", pixels(1, "uint8"), driver="HFA")
    assert us.open_scene(path).shape[0] == 1
    with rasterio.open(path, "r+") as file:
        file.update_tags(1, LAYER_TYPE="thematic")
    with pytest.raises(us.SceneError, match="has a palette or classes"):
        us.open_scene(path)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_numpy_files_get_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(us.SceneError, match=r"xr.DataArray\(np.load\(path\), dims="):
        us.open_scene(tmp_path / name)


def test_a_nodata_word_of_an_item_is_named(tmp_path: Path) -> None:
    asset = {
        "href": str(write(tmp_path / "a.tif", pixels(1))),
        "raster:bands": [{"nodata": "none"}],
    }
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": None, "links": []}
    item |= {"properties": {"datetime": "2024-01-01T00:00:00Z"}, "assets": {"red": asset}}
    (tmp_path / "a.json").write_text(json.dumps(item))
    with pytest.raises(us.SceneError, match=r"nodata value 'none' of '.*a.tif' is not a number"):
        us.open_scene(tmp_path / "a.json")


def test_sentinel3_has_its_places_in_another_file(tmp_path: Path) -> None:
    folder = tmp_path / "S3A.SEN3"
    folder.mkdir()
    rows, cols = np.mgrid[:H, :W]
    planes = {"latitude": 50 - 0.003 * rows, "longitude": 8 + 0.004 * cols}
    packed = {"scale_factor": 1e-6, "_FillValue": np.int32(-1)}
    dims = ("rows", "columns")
    for end, name in (("", "geo_coordinates"), ("_an", "geodetic_an")):
        stored = {
            f"{key}{end}": (dims, np.round(v * 1e6).astype("i4"), packed)
            for key, v in planes.items()
        }
        xr.Dataset(stored).to_netcdf(folder / f"{name}.nc", engine="h5netcdf")
    for k, values in enumerate(pixels(2, "uint16"), start=1):
        for name in (f"Oa{k:02d}_radiance", f"S{k}_radiance_an"):
            xr.Dataset({name: (dims, values)}).to_netcdf(folder / f"{name}.nc", engine="h5netcdf")
    (folder / "xfdumanifest.xml").write_text("<a/>")
    for source in (folder, folder / "xfdumanifest.xml"):
        with pytest.raises(us.SceneError, match=r"Pass its images: '.*S3A.SEN3/\w+\*_radiance"):
            us.open_scene(source)
    for pattern in ("Oa*_radiance.nc", "S*_radiance_an.nc"):
        scene = us.open_scene(str(folder / pattern))
        assert scene.shape == (2, H, W)
        np.testing.assert_allclose(scene.latitude.values, planes["latitude"], atol=1e-6)
        np.testing.assert_allclose(scene.longitude.values, planes["longitude"], atol=1e-6)
        assert scene.attrs["gsd_m"] == pytest.approx(310, rel=0.1)


@pytest.mark.parametrize(
    ("projection", "corners", "crs", "transform"),
    [
        (
            "HE5_GCTP_GEO",
            ((-73030000, 40000000), (-73000000, 39040000)),
            "EPSG:4326",
            (0.5 / W, 0, -73.5, 0, -1 / 3 / H, 40),
        ),
        (
            "HE5_GCTP_SNSOID\n\t\tProjParams=(6371007.181,0,0,0,0,0,0,0,0,0,0,0,0)",
            ((1e6, 5e6), (1e6 + 500 * W, 5e6 - 500 * H)),
            "+proj=sinu +R=6371007.181",
            (500, 0, 1e6, 0, -500, 5e6),
        ),
        (
            "HE5_GCTP_GEO",
            ((179000000, 40000000), (-179000000, 39000000)),
            "EPSG:4326",
            (2 / W, 0, 179, 0, -1 / H, 40),
        ),
        (
            "HE5_GCTP_SNSOID\n\t\tProjParams=(0,0,0,0,-90030000,0,5000,7000,0,0,0,0,0)",
            ((1e6, 5e6), (1e6 + 500 * W, 5e6 - 500 * H)),
            "+proj=sinu +R=6371007.181 +lon_0=-90.5 +x_0=5000 +y_0=7000",
            (500, 0, 1e6, 0, -500, 5e6),
        ),
        ("HE5_GCTP_LAMAZ", ((0, 0), (1, 1)), None, None),
    ],
)
def test_grids_of_hdf_eos(
    tmp_path: Path, projection: str, corners: Any, crs: str | None, transform: Any
) -> None:
    """VIIRS says its place in StructMetadata alone."""
    other = 'GROUP=GRID_1\n\tGridName="Coarse"\n\tXDim=7\n\tYDim=5\nEND_GROUP=GRID_1\n'
    (west, north), (east, south) = corners
    own = (
        f'GROUP=GRID_2\n\t\tGridName="Fine"\n\t\tXDim={W}\n\t\tYDim={H}\n'
        f"\t\tUpperLeftPointMtrs=({west:.6f},{north:.6f})\n"
        f"\t\tLowerRightMtrs=({east:.6f},{south:.6f})\n\t\tProjection={projection}\n"
        "END_GROUP=GRID_2\n"
    )
    with h5py.File(tmp_path / "a.h5", "w") as file:
        text = np.bytes_(f"GROUP=GridStructure\n{other}{own}END_GROUP=GridStructure\nEND\n")
        file["HDFEOS INFORMATION/StructMetadata.0"] = text
        file["HDFEOS/GRIDS/Fine/Data Fields/DNB"] = pixels(1)[0]
    scene = us.open_scene(tmp_path / "a.h5")
    info = scene_source(scene).info
    if crs is None or transform is None:
        assert "HDF-EOS grid 'Fine' (HE5_GCTP_LAMAZ) is not known" in info.unplaced
    else:
        assert scene.rio.crs == crs
        np.testing.assert_allclose(scene.rio.transform()[:6], transform)


@pytest.mark.parametrize(("driver", "name"), [("ERS", "a.ers"), ("RRASTER", "a.grd")])
def test_raw_files_that_are_opened_by_their_header(tmp_path: Path, driver: str, name: str) -> None:
    """The header is shorter than the pixels, which are in another file."""
    path = write(tmp_path / name, values := pixels(), driver=driver)
    np.testing.assert_array_equal(us.open_scene(path).values, values)
    with rasterio.open(path) as file:
        data = next(other for other in map(type(path), file.files) if other != path)
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(us.SceneError, match=f"'{data}' is cut off"):
        us.open_scene(path)


def fingerprint(path: Path) -> str:
    return us.plan(path, detector="rx", scheduler="sync").fingerprint


def test_a_corrected_header_makes_another_scene(tmp_path: Path) -> None:
    """The pixels of raw files depend on it, and the map of the old one must not be returned."""
    header = envi(tmp_path / "a.hdr", pixels(), "")
    old = us.score(header, tmp_path / "m.zarr", detector="rx", scheduler="sync").values
    text = header.read_text()
    header.write_text(text.replace("byte order = 0", "byte order = 1"))
    new = us.score(header, detector="rx", scheduler="sync").values
    expected = us.open_scene(header).copy(data=pixels().byteswap())
    np.testing.assert_array_equal(us.open_scene(header).values, expected.values)
    np.testing.assert_array_equal(new, us.score(expected, detector="rx", scheduler="sync").values)
    assert not np.array_equal(new, old)
    with pytest.raises(us.UniadrsScaleError, match="another plan"):
        us.score(header, tmp_path / "m.zarr", detector="rx", scheduler="sync")


def test_files_that_decide_pixels_decide_the_fingerprint(tmp_path: Path) -> None:
    image = write(tmp_path / "a.tif", pixels())
    rasterio.shutil.copy(image, tmp_path / "b.vrt", driver="VRT")
    outer = tmp_path / "c.vrt"
    outer.write_text((tmp_path / "b.vrt").read_text().replace("a.tif", "b.vrt"))
    first = fingerprint(image), fingerprint(outer)
    (tmp_path / "a.tif.ovr").write_bytes(image.read_bytes())
    for name in ("a.tif.aux.xml", "a_MTL.txt"):
        (tmp_path / name).write_text("<PAMDataset/>")
    assert (fingerprint(image), fingerprint(outer)) == first
    write(image, pixels() + 1)
    assert fingerprint(outer) != first[1]
    second = ""
    for value in (255, 0):
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False),
            rasterio.open(image, "r+") as file,
        ):
            file.write_mask(np.full((H, W), value, "u1"))
        assert (tmp_path / "a.tif.msk").exists()
        assert fingerprint(image) != second
        second = fingerprint(image)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_corrected_attributes_of_zarr_are_read(tmp_path: Path, zarr_format: Any) -> None:
    """Arrays of a store are kept open; only the metadata of its root was looked at."""
    path = tmp_path / "a.zarr"
    data = xr.Dataset({"v": (("y", "x"), pixels(1)[0])})
    xr.Dataset().to_zarr(path, zarr_format=zarr_format, consolidated=False)
    data.to_zarr(path, group="g", zarr_format=zarr_format, consolidated=False, mode="a")
    before, first = us.open_scene(path).values, fingerprint(path)
    zarr.open_group(path)["g/v"].attrs["scale_factor"] = 2.0
    np.testing.assert_array_equal(us.open_scene(path).values, before * 2)
    assert fingerprint(path) != first


def test_a_header_and_its_data_are_one_raster(tmp_path: Path) -> None:
    header = envi(tmp_path / "a.hdr", values := pixels(), "")
    (tmp_path / "a.qml").write_text("<a/>")
    for source in (str(tmp_path / "a*"), [header, header.with_suffix(".img")]):
        np.testing.assert_array_equal(us.open_scene(source).values, values)
    assert us.open_scene(str(tmp_path / "*.hdr")).shape[0] == 3


def test_scenes_of_their_own_in_a_list(tmp_path: Path) -> None:
    image = write(tmp_path / "a.tif", pixels(1))
    savemat(tmp_path / "b.mat", {"cube": pixels().transpose(1, 2, 0)})
    (tmp_path / "c.json").write_text("{}")
    (tmp_path / "d").mkdir()
    for name in ("b.mat", "c.json", "d"):
        with pytest.raises(us.SceneError, match=f"{name}' is a .*Open it alone, and join"):
            us.open_scene([image, tmp_path / name])


def test_options_of_odd_types(tmp_path: Path) -> None:
    image = write(tmp_path / "a.tif", pixels())
    for value in ([0, 1], "0", True, 1j):
        with pytest.raises(us.SceneError, match=r"nodata=.* is unknown. Pass a number"):
            us.open_scene(image, nodata=value)  # type: ignore[arg-type]
    for bands in (slice(2), [1.0]):
        with pytest.raises(us.SceneError, match="holds neither names nor numbers"):
            us.open_scene(image, bands=bands)  # type: ignore[arg-type]
    assert us.open_scene(image, bands=np.int64(2), nodata=np.int16(5)).shape[0] == 1


def test_wavelengths_in_tags_of_bands(tmp_path: Path) -> None:
    image = write(tmp_path / "a.tif", pixels())
    with rasterio.open(image, "r+") as file:
        for number, centre in enumerate((0.45, 0.55, 0.65), start=1):
            file.update_tags(number, wavelength=str(centre), wavelength_units="Micrometers")
    assert us.open_scene(image).wavelength.values.tolist() == [450, 550, 650]


def test_bands_that_an_item_does_not_describe_are_told(tmp_path: Path) -> None:
    asset: dict[str, Any] = {"href": str(write(tmp_path / "a.tif", pixels())), "roles": ["data"]}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": None, "links": []}
    item |= {"properties": {"datetime": "2024-01-01T00:00:00Z"}, "assets": {"image": asset}}
    for count, told in ((2, True), (3, False)):
        asset["eo:bands"] = [{"name": f"B{k}"} for k in range(count)]
        (tmp_path / "a.json").write_text(json.dumps(item))
        scene = us.open_scene(tmp_path / "a.json")
        assert scene.shape[0] == count
        assert bool(scene_source(scene).info.notes) == told
        if told:
            assert "'a.tif' has 1 more bands" in scene_source(scene).info.notes[0]


def test_paths_from_the_root_of_a_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["hi/b"], file["lo/b"] = pixels(1)[0], pixels(1)[0] + 1
    scene = us.open_scene(tmp_path / "a.h5", variable="/lo/b")
    np.testing.assert_array_equal(scene.values, pixels(1) + 1)
