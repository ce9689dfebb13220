"""NetCDF, HDF5, Zarr and MATLAB: variables by name, lazily, with the place of each pixel."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import TYPE_CHECKING

import h5py
import numpy as np
import products
import pytest
import xarray as xr
from products import place, places, ramp
from scipy.io import savemat
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.scenes import cubes
from uniadrs_scale.scenes.cubes import CubeScene
from uniadrs_scale.scenes.products import matlab
from uniadrs_scale.scenes.products.metadata import families
from uniadrs_scale.scenes.sources import ArrayScene, scene_source
from uniadrs_scale.swaths.conventions import geolocation_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def swath(path: Path, *, engine: str = "h5netcdf", height: int = 30, width: int = 20) -> Path:
    """Three bands as variables, an angle, and 2-D coordinates."""
    longitude, latitude = places(height, width)
    dims = ("y", "x")
    bands = {
        f"rrs_{k}": (dims, ramp(k, height, width, "float32"), {"wavelength": 400.0 + k})
        for k in (10, 2, 1)
    }
    bands["rrs_2"][1][4, 5] = np.nan
    data = xr.Dataset(
        {**bands, "angle": (dims, ramp(9, height, width, "float32"))},
        {"lat": (dims, latitude), "lon": (dims, longitude)},
        {"start_date": "14-APR-2017 10:27:29.454657"},
    )
    if engine == "zarr":
        data.to_zarr(path, zarr_format=3, consolidated=False)
    else:
        data.to_netcdf(path, engine=engine)
    return path


def test_arrays_of_groups_have_names_that_tell_them_apart(tmp_path: Path) -> None:
    with h5py.File(path := tmp_path / "groups.h5", "w") as file:
        for k, group in enumerate(("red", "nir"), start=1):
            file[f"{group}/refl"] = ramp(k, 30, 20, "float32")
            file[f"{group}/cube"] = np.stack([ramp(k, 30, 20, "float32")] * 3)
    scene = us.open_scene(path, variable=["red/refl", "nir/refl"])
    assert list(scene.band.values) == ["red/refl", "nir/refl"]
    one = us.open_scene(path, variable=["red/refl", "nir/refl"], bands="nir/refl")
    np.testing.assert_array_equal(one.values[0], ramp(2, 30, 20))
    cubes = us.open_scene(path, variable="*/cube")
    assert cubes.band.values[2:4].tolist() == ["nir/cube:3", "red/cube:1"]


def test_wavelengths_may_be_an_attribute_of_their_array(tmp_path: Path) -> None:
    cube = np.stack([ramp(k, 30, 20, "float32") for k in range(1, 5)])
    units = ("um", "wavelength_units"), ("nm", "wavelengths_unit"), ("nm", "")
    for k, (unit, name) in enumerate(units):
        values = np.array([0.4, 0.5, 0.6, 0.7]) * (1000 if unit == "nm" else 1)
        said = {"wavelengths": values} | ({name: unit} if name else {})
        made = xr.Dataset({"radiance": (("bands", "y", "x"), cube, said)})
        made.to_netcdf(path := tmp_path / f"cube{k}.nc", engine="h5netcdf")
        np.testing.assert_allclose(us.open_scene(path).wavelength, [400, 500, 600, 700])


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy", "zarr"])
def test_a_swath_carries_the_place_of_each_pixel(tmp_path: Path, engine: str) -> None:
    path = swath(tmp_path / "swath.x", engine=engine)
    scene = us.open_scene(path, variable="rrs_*", chunk=16)
    assert list(scene.band.values) == ["rrs_1", "rrs_2", "rrs_10"]
    np.testing.assert_array_equal(scene.wavelength.values, [401, 402, 410])
    np.testing.assert_array_equal(scene.values[2], ramp(10, 30, 20))
    assert not scene.valid[4, 5]
    assert scene.valid.values.sum() == 30 * 20 - 1
    for name, expected in zip(("longitude", "latitude"), places(30, 20), strict=True):
        assert scene[name].dims == ("y", "x")
        assert scene[name].chunks is not None
        np.testing.assert_allclose(scene[name].values, expected)
    assert scene.attrs["datetime"] == "2017-04-14T10:27:29.454657Z"
    info = scene_source(scene).info
    assert info.geolocation.startswith("latitude and longitude ")
    assert info.transform is None
    first = us.open_scene(path, variable=["angle", "rrs_1"])
    assert list(first.band.values) == ["angle", "rrs_1"]


def test_a_cube_travels_small_and_keeps_its_identity(tmp_path: Path) -> None:
    path = swath(tmp_path / "swath.nc")
    source = scene_source(us.open_scene(path, variable="rrs_*"))
    assert isinstance(source, CubeScene)
    assert scene_source(us.open_scene(path, variable="rrs_*")).info == source.info
    message = pickle.dumps(source.window(Window(3, 4, 5, 6)))
    assert len(message) < 4000
    pixels, valid = pickle.loads(message).read()
    np.testing.assert_array_equal(pixels[0], ramp(1, 30, 20)[3:8, 4:10])
    assert not valid[1, 1]


@pytest.mark.parametrize("make", [products.emit, products.sentinel1])
def test_the_fingerprint_of_a_swath_does_not_depend_on_the_chunks_of_its_array(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    options = {"detector": FirstBand(), "scheduler": "sync", "tile": 24, "chunk": 32}
    plans = [us.plan(us.open_scene(path, chunk=chunk), **options) for chunk in (16, 20, 1024)]
    assert plans[0].scene.geolocation
    assert len({plan.fingerprint for plan in plans}) == 1


def test_the_fingerprint_of_a_swath_depends_on_its_places(tmp_path: Path) -> None:
    """Other arrays of the same file, moved arrays, and arrays that are swapped."""
    path = products.emit(tmp_path)
    scene, other = us.open_scene(path), us.open_scene(path, chunk=16)
    moved = scene.assign_coords(latitude=scene.latitude + 1e-6)
    swapped = other.assign_coords(
        latitude=other.longitude.variable, longitude=other.latitude.variable
    )
    texts = {geolocation_text(array) for array in (scene, other, moved, swapped)}
    assert len(texts) == 3


def test_a_touched_swath_is_scored_like_an_untouched_one(tmp_path: Path) -> None:
    scene = us.open_scene(swath(tmp_path / "swath.nc", height=70, width=50), variable="rrs_*")
    options = {"detector": FirstBand(), "scheduler": "sync", "tile": 32, "chunk": 32}
    expected = us.score(scene, **options)
    touched = scene * 1.0
    assert isinstance(scene_source(touched), ArrayScene)
    assert set(scene_source(touched).array.coords) == {"valid"}  # places are not read by tasks
    np.testing.assert_array_equal(us.score(touched, **options).values, expected.values)


def test_a_gridded_cube_has_crs_and_transform(tmp_path: Path) -> None:
    y, x = 5e6 - 10 * np.arange(20) - 5, 5e5 + 10 * np.arange(30) + 5
    cube = np.stack([ramp(k, 20, 30, "int16") for k in range(3)])
    cube[:, 2, 3] = -1
    array = xr.DataArray(cube, {"y": y, "x": x, "wavelength": ("band", [0.4, 0.5, 0.6])},
                         ("band", "y", "x"), "reflectance")  # fmt: skip
    data = array.rio.write_crs("EPSG:32632").to_dataset()
    data["reflectance"].attrs["_FillValue"] = np.int16(-1)
    data["time"] = ((), 0)
    for path in (tmp_path / "cube.nc", tmp_path / "cube.zarr"):
        if path.suffix == ".zarr":
            data.to_zarr(path, zarr_format=2)
        else:
            data.to_netcdf(path, engine="h5netcdf")
        scene = us.open_scene(path)
        assert scene.shape == (3, 20, 30)
        assert scene.rio.crs == "EPSG:32632"
        assert tuple(scene.rio.transform())[:6] == (10, 0, 5e5, 0, -10, 5e6)
        assert scene.attrs["gsd_m"] == 10
        np.testing.assert_array_equal(scene.wavelength.values, [400, 500, 600])
        assert not scene.valid[2, 3]
        np.testing.assert_array_equal(us.open_scene(path, bands=[3, 1]).values[0, 5:], cube[2, 5:])


def test_latitude_and_longitude_axes_are_wgs_84(tmp_path: Path) -> None:
    coords = {"lat": 50 - 0.01 * np.arange(12), "lon": 8 + 0.01 * np.arange(15)}
    data = xr.Dataset({"sst": (("time", "lat", "lon"), ramp(1, 12, 15, "float32")[None])}, coords)
    data.to_netcdf(tmp_path / "sst.nc", engine="h5netcdf")
    scene = us.open_scene(tmp_path / "sst.nc")
    assert scene.shape == (1, 12, 15)
    assert scene.rio.crs.to_epsg() == 4326
    assert scene.rio.transform().c == pytest.approx(7.995)


@pytest.mark.parametrize("rows", [(0, 50), (7, 50), (16, 32), (3, 4), (15, 17)])
def test_strips_of_a_window_join_without_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: tuple[int, int]
) -> None:
    monkeypatch.setattr(cubes, "STRIP_BYTES", 9 * 30 * 4)  # a row: strips are chunks of the file
    source = scene_source(us.open_scene(products.emit(tmp_path), bands=[9, 2, 5]))
    start, stop = rows
    pixels, _ = source.window(Window(start, 5, stop - start, 30)).read()
    expected = np.stack([ramp(k, 50, 40, "float32") for k in (8, 1, 4)])
    expected[:, :3] = np.nan
    np.testing.assert_array_equal(pixels, expected[:, start:stop, 5:35])


def test_strips_begin_where_chunks_of_the_file_do() -> None:
    assert list(cubes._strips(slice(5, 70), 40, 16)) == [(5, 32), (32, 64), (64, 70)]
    assert list(cubes._strips(slice(5, 70), 3, 16)) == [
        (5, 16), (16, 32), (32, 48), (48, 64), (64, 70),
    ]  # fmt: skip
    assert list(cubes._strips(slice(0, 4), 0, 1)) == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_a_message_names_numbered_arrays_first_as_one_pattern() -> None:
    names = [f"flag_{letter}" for letter in "abcdefghijklmnopqrst"]
    told = families([*names, "rrs_1", "rrs_2", "rrs_11", "B*1", "2019"])
    assert told.startswith("rrs_* (3), flag_a, flag_b, ")
    assert told.endswith(", flag_o, ...")
    assert families(["a", "b1"]) == "a, b1"
    assert families([]) == ""


def test_emit(tmp_path: Path) -> None:
    path = products.emit(tmp_path)
    scene = us.open_scene(path)
    assert list(scene.band.values) == ["1", "2", "3", "6", "7", "8", "9"]  # without the bad bands
    np.testing.assert_array_equal(scene.values[3, 3:], ramp(5, 50, 40)[3:])
    assert scene.wavelength.values[0] == 381
    assert not scene.valid[:3].any()
    assert scene.valid[3:].all()
    assert scene.attrs["platform"] == "ISS"
    longitude, latitude = place(7.5, 9.5)
    assert float(scene.longitude[7, 9]) == pytest.approx(longitude)
    assert float(scene.latitude[7, 9]) == pytest.approx(latitude)
    scores = us.score(scene, detector=FirstBand(), scheduler="sync", tile=32, chunk=32)
    np.testing.assert_array_equal(np.isfinite(scores.values), scene.valid.values)
    with pytest.raises(us.SceneError, match=r"variable='x' applies to other NetCDF.*an EMIT file"):
        us.open_scene(path, variable="x")


def test_files_are_closed_before_the_libraries_are_taken_apart(tmp_path: Path) -> None:
    path = products.emit(tmp_path)
    script = """
import atexit, sys
from h5py import h5f
# Handlers run from the last to the first.
atexit.register(lambda: print("open files:", h5f.get_obj_count(h5f.OBJ_ALL, h5f.OBJ_FILE)))
import uniadrs_scale as us
scene = us.open_scene(sys.argv[1])
part = scene[:, :9, :9].compute()
"""
    command = [sys.executable, "-c", script, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "open files: 0\n")


def test_prisma_on_its_grid_and_in_sensor_geometry(tmp_path: Path) -> None:
    scene = us.open_scene(products.prisma(tmp_path))
    assert list(scene.band.values) == ["VNIR-1", "VNIR-2", "SWIR-1", "SWIR-2"]
    np.testing.assert_array_equal(scene.wavelength.values, [970, 500, 1200, 2400])
    np.testing.assert_array_equal(scene.values[2, :-2], ramp(4, 50, 40)[:-2])
    assert not scene.valid[-2:].any()
    assert tuple(scene.rio.transform())[:6] == (30, 0, products.WEST, 0, -30, products.NORTH)
    assert scene.rio.crs == products.CRS
    sensor = us.open_scene(products.prisma(tmp_path, level="2C"))
    np.testing.assert_allclose(sensor.longitude.values, places(50, 40)[0])
    assert scene_source(sensor).info.transform is None


def test_matlab_5_and_7_3_are_one_scene(tmp_path: Path) -> None:
    new = products.matlab73(tmp_path)
    cube = np.stack([ramp(k, 20, 30, "float64") for k in range(4)], axis=-1)
    table = {"data": cube, "map": np.zeros((20, 30)), "wavelengths": np.linspace(400, 900, 4)}
    old = tmp_path / "cube5.mat"
    savemat(old, table)
    for path in (new, old):
        scene = us.open_scene(path, bands=[4, 1])
        np.testing.assert_array_equal(scene.values, cube.transpose(2, 0, 1)[[3, 0]])
        np.testing.assert_allclose(scene.wavelength.values, [900, 400])
        assert scene.valid.all()
        assert us.open_scene(path, variable="map").shape == (1, 20, 30)
    assert isinstance(scene_source(us.open_scene(new)), CubeScene)
    masked = us.open_scene(old, nodata=1, nodata_when="any")
    assert not masked.valid[0, 0]


def test_strange_arrays_get_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nc = swath(tmp_path / "swath.nc")
    table = tmp_path / "table.mat"
    savemat(table, {"Y": np.zeros((198, 100)), "nRow": 10.0})
    cube = tmp_path / "cube.mat"
    savemat(cube, {"a": np.zeros((5, 6, 7)), "b": np.zeros((5, 6, 7))})
    broken = tmp_path / "broken.mat"
    broken.write_bytes(b"MATLAB 5.0 MAT-file".ljust(300, b"\x01"))
    cut = tmp_path / "cut.nc"
    cut.write_bytes(nc.read_bytes()[:700])
    modern = tmp_path / "modern.nc"
    modern.write_bytes(b"CDF\x05" + bytes(100))
    with h5py.File(tmp_path / "text.h5", "w") as file:
        file["note"] = "no array"
    with h5py.File(tmp_path / "sizes.h5", "w") as file:
        file["a"], file["b"] = np.zeros((5, 6)), np.zeros((5, 7))
    cases = {
        r"swath.nc' has 4 arrays that could be the scene \(.*\): one must be named. Pass": (nc, {}),
        r"variable='chl' is not in '.*swath.nc', which has": (nc, {"variable": "chl"}),
        r"grid='finest' applies to raster files.*'swath.nc' is a NetCDF": (
            nc, {"variable": "rrs_1", "grid": "finest"},
        ),
        r"Band '9' is not one of 'swath.nc'": (nc, {"variable": "rrs_*", "bands": [9]}),
        r"Band 'rrs_2' of 'swath.nc' is selected twice": (
            nc, {"variable": "rrs_*", "bands": [2, "rrs_2"]},
        ),
        r"table.mat' has 0 variables with three axes.*Y 198 x 100.*a table of": (table, {}),
        r"cube.mat' has 2 variables with three axes": (cube, {}),
        r"variable='c' is not an array of two or three axes in": (cube, {"variable": "c"}),
        r"units='dB' applies to Sentinel-1 GRD, but 'cube.mat'": (
            cube, {"variable": "a", "units": "dB"},
        ),
        r"broken.mat' cannot be read as a MATLAB file": (broken, {}),
        r"cut.nc' begins like HDF5 or NetCDF-4, but cannot be read": (cut, {}),
        r"CDF-5.*nccopy": (modern, {}),
        r"text.h5' has no array of numbers": (tmp_path / "text.h5", {}),
        r"'b' of '.*sizes.h5' has 5 x 7 px but 'a' has 5 x 6": (
            tmp_path / "sizes.h5", {"variable": ["a", "b"]},
        ),
    }  # fmt: skip
    for message, (path, options) in cases.items():
        with pytest.raises(us.SceneError, match=message):
            us.open_scene(path, **options)
    monkeypatch.setattr(matlab, "LARGEST", 100)
    with pytest.raises(us.SceneError, match=r"'a' of '.*cube.mat' has .* cannot be read in parts"):
        us.open_scene(cube, variable="a")
