"""Which axis of an array in a file is what, and which array of a file is the scene."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import xarray as xr
from products import ramp
from scipy.io import savemat

import uniadrs_scale as us
from uniadrs_scale.scenes import datasets

if TYPE_CHECKING:
    from pathlib import Path


def cube(bands: int, height: int, width: int) -> np.ndarray:
    return np.stack([ramp(k, height, width, "float32") for k in range(bands)])


NAMES = [
    ("band", "y", "x"),
    ("bands", "height", "width"),
    ("wavelength", "lines", "samples"),
    ("n_bands", "nrows", "ncols"),
    ("channel", "lat", "lon"),
    ("wavelength_3d", "number_of_lines", "pixels_per_line"),
    ("time", "latitude", "longitude"),
    ("spectral_channel", "downtrack", "crosstrack"),
    ("z", "row", "col"),
    ("bands", "d1", "d2"),
]


@pytest.mark.parametrize("names", NAMES)
def test_axes_by_name(tmp_path: Path, names: tuple[str, str, str]) -> None:
    """The bands are the longest axis, in every place."""
    pixels = cube(40, 12, 14)
    orders = [(0, 1, 2), (1, 2, 0), (1, 0, 2)]
    if names[1] != "d1":
        orders = list(itertools.permutations(range(3)))
    for order in orders:
        data = xr.Dataset({"v": ([names[k] for k in order], pixels.transpose(order))})
        path = tmp_path / f"{order}.nc"
        data.to_netcdf(path, engine="h5netcdf")
        np.testing.assert_array_equal(us.open_scene(path).values, pixels)


def test_axes_by_their_wavelengths(tmp_path: Path) -> None:
    pixels = cube(40, 12, 14)
    for order in ((0, 1, 2), (1, 2, 0), (1, 0, 2)):
        path = tmp_path / f"{order}.h5"
        with h5py.File(path, "w") as file:
            file["v"] = pixels.transpose(order)
            file["metadata/wavelengths"] = np.linspace(400, 2400, 40)
        scene = us.open_scene(path)
        np.testing.assert_array_equal(scene.values, pixels)
        assert scene.wavelength.values[-1] == 2400


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0)])
def test_nameless_axes_by_size(tmp_path: Path, order: tuple[int, int, int]) -> None:
    pixels = cube(4, 12, 14)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = pixels.transpose(order)
    np.testing.assert_array_equal(us.open_scene(tmp_path / "a.h5").values, pixels)


@pytest.mark.parametrize(
    "shape", [(40, 12, 14), (12, 14, 40), (12, 12, 40), (12, 12, 12), (12, 3, 14), (10, 12, 14)]
)
def test_axes_that_nothing_tells_apart_are_refused(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = np.zeros(shape, "f4")
    with pytest.raises(
        us.SceneError, match=r"'v' of '.*a.h5' has the axes .*: nothing tells which"
    ):
        us.open_scene(tmp_path / "a.h5")


@pytest.mark.parametrize("sizes", [(3, 1, 14), (3, 12, 1)])
def test_a_row_of_pixels_keeps_its_axes(tmp_path: Path, sizes: tuple[int, int, int]) -> None:
    pixels = cube(*sizes)
    data = xr.Dataset({"v": (("band", "y", "x"), pixels)})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    np.testing.assert_array_equal(us.open_scene(tmp_path / "a.nc").values, pixels)


def test_arrays_that_are_no_scene_get_a_sentence(tmp_path: Path) -> None:
    four = xr.Dataset({"v": (("time", "band", "y", "x"), np.zeros((2, 3, 12, 14), "f4"))})
    four.to_netcdf(tmp_path / "four.nc", engine="h5netcdf")
    for options in ({}, {"variable": "v"}):
        with pytest.raises(us.SceneError, match=r"4 axes longer than 1 \(time 2, band 3.*isel"):
            us.open_scene(tmp_path / "four.nc", **options)
    table = xr.Dataset({"v": (("band", "pixel"), np.zeros((3, 14), "f4"))})
    table.to_netcdf(tmp_path / "table.nc", engine="h5netcdf")
    with pytest.raises(us.SceneError, match="a table of bands and pixels is not an image"):
        us.open_scene(tmp_path / "table.nc")
    (tmp_path / "modis.hdf").write_bytes(b"\x0e\x03\x13\x01" + bytes(200))
    if not datasets._gdal_has("HDF4"):
        with pytest.raises(us.SceneError, match=r"modis.hdf' is HDF4 .*h4toh5"):
            us.open_scene(tmp_path / "modis.hdf")
    with h5py.File(tmp_path / "complex.h5", "w") as file:
        file["v"] = np.zeros((12, 14), "c8")
    with pytest.raises(us.SceneError, match=r"complex.h5:v' holds complex values"):
        us.open_scene(tmp_path / "complex.h5")


def test_arrays_that_describe_others_are_not_the_scene(tmp_path: Path) -> None:
    coords = {
        "lat": ("lat", 50 - 0.1 * np.arange(12), {"bounds": "lat_bnds"}),
        "lon": ("lon", 8 + 0.1 * np.arange(14), {"bounds": "lon_bnds"}),
    }
    plane = (("lat", "lon"), np.zeros((12, 14), "f4"))
    flags = {"flag_values": [0, 1], "flag_meanings": "clear cloud"}
    data = xr.Dataset(
        {
            "sst": (*plane, {"ancillary_variables": "sst_error"}),
            "sst_error": plane,
            "quality": (("lat", "lon"), np.zeros((12, 14), "u1"), flags),
            "lat_bnds": (("lat", "nv"), np.zeros((12, 2))),
            "lon_bnds": (("lon", "nv"), np.zeros((14, 2))),
        },
        coords,
    )
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    scene = us.open_scene(tmp_path / "a.nc")
    assert list(scene.band.values) == ["sst"]
    assert us.open_scene(tmp_path / "a.nc", variable="sst_error").shape == (1, 12, 14)


def test_band_names_from_coordinates_and_attributes(tmp_path: Path) -> None:
    pixels = cube(3, 12, 14)
    texts = xr.Dataset({"v": (("band", "y", "x"), pixels)}, {"band": ["red", "nir", "swir"]})
    texts.to_netcdf(tmp_path / "t.nc", engine="h5netcdf")
    assert list(us.open_scene(tmp_path / "t.nc").band.values) == ["red", "nir", "swir"]
    texts.to_zarr(tmp_path / "t.zarr", zarr_format=2)
    assert list(us.open_scene(tmp_path / "t.zarr").band.values) == ["red", "nir", "swir"]
    listed = xr.Dataset({"v": (("band", "y", "x"), pixels, {"long_name": ["a", "b", "c"]})})
    listed.to_netcdf(tmp_path / "l.nc", engine="h5netcdf")
    assert list(us.open_scene(tmp_path / "l.nc").band.values) == ["a", "b", "c"]


def test_matlab_axes_by_their_wavelengths(tmp_path: Path) -> None:
    pixels = cube(40, 12, 14)
    table = np.linspace(400, 900, 40)
    for k, order in enumerate([(1, 2, 0), (0, 1, 2), (1, 0, 2)]):
        old, new = tmp_path / f"old{k}.mat", tmp_path / f"new{k}.mat"
        savemat(old, {"data": pixels.transpose(order), "wavelengths": table})
        with h5py.File(new, "w", userblock_size=512) as file:
            file["data"] = pixels.transpose(order).T
            file["wavelengths"] = table
        for path in (old, new):
            scene = us.open_scene(path)
            np.testing.assert_array_equal(scene.values, pixels)
            assert scene.wavelength.values[-1] == 900
