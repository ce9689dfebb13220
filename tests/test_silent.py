"""Inputs of real products that were read, masked or placed wrongly without a word."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import dask.array as da
import geopandas as gpd
import h5py
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from rasterio.vrt import WarpedVRT
from test_rasters import UTM, H, W, noise, write

import uniadrs_scale as us
from uniadrs_scale.core.contracts import crs_name
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.evaluation.truth import open_truth
from uniadrs_scale.scenes.given import scene_of
from uniadrs_scale.scenes.headers import Header
from uniadrs_scale.scenes.sources import scene_source

if TYPE_CHECKING:
    from pathlib import Path

TIL = 'bandId = "P";\nnumTiles = 2;\ntileUnits = "Pixels";\n{}END;\n'
TILE = (
    'BEGIN_GROUP = TILE_{0}\n\tfilename = "T{0}.TIF";\n\tULColOffset = {1};\n\tULRowOffset = 0;\n'
    "\tLRColOffset = {2};\n\tLRRowOffset = {3};\nEND_GROUP = TILE_{0}\n"
)
IMD = f'version = "28.4";\nnumRows = {H};\nnumColumns = {W};\nbitsPerPixel = 16;\nEND;\n'
DIMAP = f"""<Dimap_Document><Metadata_Identification>
<METADATA_FORMAT version="2.0">DIMAP</METADATA_FORMAT></Metadata_Identification>
<Processing_Information/><Raster_Data>
<Data_Access><DATA_FILE_FORMAT>image/tiff</DATA_FILE_FORMAT><Data_Files>
<Data_File tile_R="1" tile_C="1"><DATA_FILE_PATH href="T1.TIF"/></Data_File>
<Data_File tile_R="1" tile_C="2"><DATA_FILE_PATH href="T2.TIF"/></Data_File>
</Data_Files></Data_Access><Raster_Dimensions><NROWS>{H}</NROWS><NCOLS>{W}</NCOLS>
<NBANDS>1</NBANDS><Tile_Set><NTILES>2</NTILES><Regular_Tiling>
<NTILES_SIZE nrows="{H}" ncols="{W // 2}"/><NTILES_COUNT ntiles_R="1" ntiles_C="2"/>
</Regular_Tiling></Tile_Set></Raster_Dimensions><Raster_Encoding><DATA_TYPE>INTEGER</DATA_TYPE>
<NBITS>16</NBITS><SIGN>UNSIGNED</SIGN></Raster_Encoding></Raster_Data></Dimap_Document>"""


@pytest.mark.parametrize("name", ["P.TIL", "DIM_P.XML"])
def test_products_of_several_tiles_of_which_one_is_lost(tmp_path: Path, name: str) -> None:
    """GDAL makes a VRT of the tiles: the second read of a lost one is zeros and no error."""
    half = W // 2
    tiles = TILE.format(1, 0, half - 1, H - 1) + TILE.format(2, half, W - 1, H - 1)
    (tmp_path / "P.TIL").write_text(TIL.format(tiles))
    (tmp_path / "P.IMD").write_text(IMD)
    (tmp_path / "DIM_P.XML").write_text(DIMAP)
    for k, cols in ((1, np.s_[:half]), (2, np.s_[half:])):
        place = UTM @ UTM.translation(cols.start or 0, 0)
        write(tmp_path / f"T{k}.TIF", noise(1)[:, :, cols], transform=place)
    scene = us.open_scene(tmp_path / name)
    np.testing.assert_array_equal(scene, noise(1))
    stamp = Header.of(str(tmp_path / name)).stamp
    write(tmp_path / "T2.TIF", noise(1, base=2000)[:, :, half:])
    assert Header.of(str(tmp_path / name)).stamp != stamp
    (tmp_path / "T2.TIF").unlink()
    with pytest.raises(us.SceneError, match=r"T2.TIF', which cannot be opened \("):
        us.open_scene(tmp_path / name)


def test_an_index_of_tiles_is_refused(tmp_path: Path) -> None:
    """GDAL reads zeros if a tile is lost, and does not say which tiles there are."""
    tile = write(tmp_path / "a.tif", noise(1))
    box = shapely.box(4e5, 6e6 - 10 * H, 4e5 + 10 * W, 6e6)
    index = gpd.GeoDataFrame({"location": [str(tile)]}, geometry=[box], crs=32633)
    index.to_file(tmp_path / "a.gti.gpkg")
    with pytest.raises(us.SceneError, match="is an index of tiles"):
        us.open_scene(tmp_path / "a.gti.gpkg")


def read(scene: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels and the mask that a run reads."""
    source = scene_source(scene_of(scene))
    pixels, mask = source.window(Window(0, 0, H, W)).read()
    return pixels, mask


def array(values: np.ndarray, **attributes: Any) -> xr.DataArray:
    return xr.DataArray(values, dims=("band", "y", "x"), attrs=attributes)


def counts(*, fill: int = -9999, other: int = -32768) -> np.ndarray:
    """Return noise with two values of no data: 40 and 10 columns of 140."""
    values = noise(2, "int32")
    values[:, :, :40], values[0, :, -10:] = fill, other
    return values


WORDS = [
    {"_FillValue": -9999, "missing_value": -32768},
    {"missing_value": np.array([-9999, -32768], "i4")},
    {"_FillValue": -9999, "valid_min": np.int32(0)},
    {"valid_range": np.array([0, 10000], "i4")},
]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("words", WORDS)
def test_all_that_an_array_declares_missing_is_missing(words: dict[str, Any], lazy: bool) -> None:
    """Files with these attributes are read so."""
    scene = array(counts(), **words)
    scene = scene.chunk(y=50, x=50, band=1) if lazy else scene
    expected = np.zeros((H, W), bool)
    expected[:, 40:-10] = True
    np.testing.assert_array_equal(read(scene)[1], expected)
    assert scene_source(scene).info.masked
    lines = scene.rename(y="lat", x="lon").to_dataset("band").rename({0: "red", 1: "nir"})
    np.testing.assert_array_equal(read(lines)[1], expected)
    kept = scene.assign_coords(valid=(("y", "x"), np.ones((H, W), bool)))
    assert read(kept)[1].all()


def test_limits_of_decoded_numbers(tmp_path: Path) -> None:
    """Xarray does not apply limits, and forgets the factor if numbers are computed."""
    stored = counts(fill=-9999, other=20000).astype("i2")
    words = {"_FillValue": np.int16(-9999), "valid_max": np.int16(10000), "scale_factor": 1e-4}
    array(stored, **words).rename("v").to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    expected = np.zeros((H, W), bool)
    expected[:, 40:-10] = True
    for given in (us.open_scene(tmp_path / "a.nc"), xr.open_dataset(tmp_path / "a.nc")["v"]):
        np.testing.assert_array_equal(read(given)[1], expected)
    computed = xr.open_dataset(tmp_path / "a.nc")["v"] * 3
    assert read(computed)[1].mean() == pytest.approx(100 / 140)


def test_unsigned_numbers_of_an_array() -> None:
    values = noise(2, base=40000)
    values[:, 3] = 65535
    pixels, mask = read(array(values.view("i2"), _Unsigned="true", _FillValue=np.int16(-1)))
    np.testing.assert_array_equal(pixels, values)
    np.testing.assert_array_equal(~mask.all(axis=1), np.arange(H) == 3)


def test_floats_that_are_fill_in_every_format() -> None:
    """NetCDF writes 9.97e36 where nothing was written, without an attribute."""
    values = noise(2, "float32")
    values[1, 3] = 9.96921e36
    np.testing.assert_array_equal(~read(array(values))[1].all(axis=1), np.arange(H) == 3)


def placed(scene: Any) -> tuple[str, tuple[float, ...]]:
    """Return the name of the CRS and the transform of a scene."""
    info = scene_source(scene_of(scene)).info
    return crs_name(info.crs), info.transform or ()


def test_geozarr_that_counts_from_centres() -> None:
    words = {"spatial:transform": UTM[:6], "proj:code": "EPSG:32633"}
    corner, node = (
        placed(array(noise(), **words, **{"spatial:registration": kind}))
        for kind in ("pixel", "node")
    )
    assert corner == ("WGS 84 / UTM zone 33N", UTM[:6])
    assert node == ("WGS 84 / UTM zone 33N", (10, 0, 399995, 0, -10, 6000005))


@pytest.mark.parametrize("names", [("lat", "lon"), ("nav_lat", "nav_lon"), ("phi", "theta")])
def test_places_of_an_array_under_other_names(names: tuple[str, str]) -> None:
    """As in files: coordinates of the axes, or of each pixel."""
    y, x = 50 - 0.001 * np.arange(H), 10 + 0.001 * np.arange(W)
    units = {"units": "degrees_north"}, {"units": "degrees_east"}
    lines = array(noise()).assign_coords(
        {names[0]: ("y", y, units[0]), names[1]: ("x", x, units[1])}
    )
    assert placed(lines)[0] == "WGS 84"
    assert placed(lines)[1] == pytest.approx((0.001, 0, 9.9995, 0, -0.001, 50.0005))
    if names[0] != "phi":
        planes = {
            n: (("y", "x"), v) for n, v in zip(names, np.meshgrid(y, x, indexing="ij"), strict=True)
        }
        assert (
            "latitude"
            in scene_source(scene_of(array(noise()).assign_coords(planes))).info.geolocation
        )


@pytest.mark.parametrize("cells", ["from coordinate", "around", "half at the pole", "packed"])
def test_bounds_say_where_the_cells_of_coordinates_are(tmp_path: Path, cells: str) -> None:
    """A coordinate may be anywhere in its cell (CF 7.1)."""
    start, size, count = (90.0, -1.0, 181) if "pole" in cells else (50.0, -0.25, H)
    lat = start + size * np.arange(count)
    shift = 0.5 if cells == "from coordinate" else 0
    edges = np.stack([lat - size * (0.5 - shift), lat + size * (0.5 + shift)], axis=1)
    edges = np.clip(edges, -90, 90) * (100 if cells == "packed" else 1)  # without a factor
    values = np.random.default_rng(0).random((count, W), np.float32)
    scene = xr.Dataset(
        {"v": (("lat", "lon"), values), "edges": (("lat", "two"), edges)},
        {"lat": ("lat", lat, {"bounds": "edges"}), "lon": 10 + 0.25 * np.arange(W)},
    )
    scene.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    _, transform = placed(us.open_scene(tmp_path / "a.nc"))
    assert transform[5] == pytest.approx(start - size * (0.5 - shift))


def test_assets_of_an_item_are_not_dropped_silently(tmp_path: Path) -> None:
    """A media type that is not known does not hide a band; what cannot be read is told."""
    kinds = {"red": "image/tiff; application=geotiff", "nir": "image/x.geotiff"}
    kinds |= {"swir": "application/octet-stream", "lwir": "application/x-hdf5"}
    for name in kinds:
        write(tmp_path / f"{name}.tif", noise(1))
    assets = {
        name: {
            "href": f"./{name}.{'h5' if 'hdf5' in media else 'tif'}",
            "type": media,
            "roles": ["data"],
            "bands": [{"name": name}],
        }
        for name, media in kinds.items()
    }
    item = {
        "type": "Feature", "stac_version": "1.1.0", "id": "a", "geometry": None, "links": [],
        "properties": {"datetime": "2026-01-01T00:00:00Z"}, "assets": assets,
    }  # fmt: skip
    (tmp_path / "item.json").write_text(json.dumps(item))
    scene = us.open_scene(tmp_path / "item.json")
    assert list(scene.band.values) == ["red", "nir", "swir"]
    assert "not scored: lwir" in scene_source(scene).info.notes[0]


OPENERS = {
    "open_zarr": lambda path: xr.open_zarr(path, consolidated=False)["v"],
    "maths": lambda path: xr.open_zarr(path, consolidated=False)["v"].isel(x=slice(100)) * 2,
    "from_zarr": lambda path: array(da.from_zarr(f"{path}/v")),
    "from_array": lambda path: array(da.from_array(zarr.open_array(f"{path}/v"), chunks=50)),
}


@pytest.mark.parametrize("opener", OPENERS)
def test_a_lazy_array_of_a_store_whose_pixels_were_replaced(tmp_path: Path, opener: str) -> None:
    """Names of Dask depend on the path of a store: the old map counted as complete."""
    path = tmp_path / "a.zarr"
    array(noise()).rename("v").to_dataset().to_zarr(path, consolidated=False)
    before, same = (scene_source(OPENERS[opener](path)).info.identity for _ in range(2))
    assert before == same
    zarr.open_group(path)["v"][:, 30:33, 50:53] = 9000
    assert scene_source(OPENERS[opener](path)).info.identity != before


def test_a_rotated_pole_is_not_in_a_geotiff(tmp_path: Path) -> None:
    """Its COG had a transform, but no CRS."""
    mapping = {"grid_mapping_name": "rotated_latitude_longitude"}
    mapping |= {"grid_north_pole_latitude": 39.25, "grid_north_pole_longitude": -162.0}
    axes = {"rlat": np.linspace(-5, 5, H), "rlon": np.linspace(-6, 6, W)}
    scene = xr.Dataset(
        {"v": (("rlat", "rlon"), noise(1, "f4")[0], {"grid_mapping": "g"}), "g": ((), 0, mapping)},
        {name: (name, values, {"units": "degrees"}) for name, values in axes.items()},
    )
    scene.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    plan = us.plan(us.open_scene(tmp_path / "a.nc"), detector="rx", scheduler="sync")
    assert plan.scene.crs
    assert plan.scene.transform
    assert "a COG of the map has none" in plan.text()


def test_files_of_several_dates_are_told(tmp_path: Path) -> None:
    """As steps along an axis ``time`` of an array are."""
    for name in ("S2_20260101_B02", "S2_20260201_B02", "S2_20260101_B03"):
        write(tmp_path / f"{name}.tif", noise(1))
    dates, bands = (
        scene_source(us.open_scene(tmp_path / pattern)).info.notes
        for pattern in ("S2_*_B02.tif", "S2_20260101_*.tif")
    )
    assert "of several dates (20260101, 20260201)" in dates[0]
    assert not bands


def test_a_warped_vrt_of_a_vrt_changes_with_its_sources(tmp_path: Path) -> None:
    """``gdalwarp -of VRT`` names its source in another element than ``gdalbuildvrt``."""
    write(tmp_path / "a.tif", noise(1))
    (tmp_path / "inner.vrt").write_text(
        f'<VRTDataset rasterXSize="{W}" rasterYSize="{H}"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>400000, 10, 0, 6000000, 0, -10</GeoTransform>"
        '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">a.tif</SourceFilename></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    with rasterio.open(tmp_path / "inner.vrt") as inner, WarpedVRT(inner, crs=32632) as warped:
        rasterio.shutil.copy(warped, tmp_path / "outer.vrt", driver="VRT")
    stamp = Header.of(str(tmp_path / "outer.vrt")).stamp
    write(tmp_path / "a.tif", noise(1, base=2000))
    assert Header.of(str(tmp_path / "outer.vrt")).stamp != stamp
    (tmp_path / "a.tif").unlink()
    with pytest.raises(us.SceneError, match=r"a.tif', which cannot be opened"):
        us.open_scene(tmp_path / "outer.vrt")


@pytest.mark.parametrize("kind", ["virtual", "external"])
def test_hdf5_with_values_in_other_files(tmp_path: Path, kind: str) -> None:
    """HDF5 reads zeros if such a file is lost, and keeps its own time if that changes."""
    values, path = noise(1, "float32")[0], tmp_path / "all.h5"
    if kind == "virtual":
        layout, source = h5py.VirtualLayout((H, W), "f4"), tmp_path / "part.h5"
        with h5py.File(source, "w") as file:
            file["v"] = values
        layout[:] = h5py.VirtualSource("part.h5", "v", (H, W))
        with h5py.File(path, "w") as file:
            file.create_virtual_dataset("v", layout)
    else:
        source = tmp_path / "part.raw"
        values.tofile(source)
        with h5py.File(path, "w") as file:
            file.create_dataset("v", (H, W), "f4", external=[(str(source), 0, values.nbytes)])
    scene = us.open_scene(path)
    np.testing.assert_array_equal(scene[0], values)
    os.utime(source, (1, 1))
    with pytest.raises(us.SceneError, match="has changed since the scene was opened"):
        scene_source(scene)
    source.unlink()
    with pytest.raises(us.SceneError, match=r"values from '.*part\.\w+', which is not there"):
        us.open_scene(path)


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("PNG", {}),
        ("PCRaster", {}),
        *[("PCIDSK", {"INTERLEAVING": word}) for word in ("BAND", "PIXEL")],
    ],
)
@pytest.mark.parametrize("lost", [13, 9000])
def test_formats_whose_missing_end_gdal_does_not_notice(
    tmp_path: Path, driver: str, options: dict[str, str], lost: int
) -> None:
    """A cut PNG was noise from its first row on, other formats had zeros."""
    dtype = "float32" if driver == "PCRaster" else "uint8"
    whole = write(tmp_path / "whole.tif", (noise(1) % 200 + 1).astype(dtype))
    path = tmp_path / f"scene{'.pix' if driver == 'PCIDSK' else '.png'}"
    rasterio.shutil.copy(whole, path, driver=driver, **options)
    with rasterio.open(whole) as file:
        np.testing.assert_array_equal(us.open_scene(path), file.read())
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - lost)
    with pytest.raises(us.SceneError, match=r"cut off: .*Fetch the file again"):
        us.open_scene(path)
    grid = GeoBox((H, W), UTM, "EPSG:32633")
    with pytest.raises(us.SceneError, match="cut off"):
        open_truth(path, grid, "map")


def test_values_that_are_too_small_are_called_so(tmp_path: Path) -> None:
    tiny = xr.DataArray(noise(1) * 1e-42, dims=("band", "y", "x"))
    with pytest.raises(us.SceneError, match="or too small for single precision"):
        us.score(tiny, tmp_path / "map.zarr", scheduler="sync", detector="rx")
    assert not (tmp_path / "map.zarr").exists()
