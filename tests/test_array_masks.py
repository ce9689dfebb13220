"""Invalid pixels of arrays in files: fill, valid ranges and classes, as their attributes say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import products
import pytest
import xarray as xr
import zarr

import uniadrs_scale as us
from uniadrs_scale.scenes.sources import scene_source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

H, W = 10, 12


def counts(dtype: str = "int16") -> NDArray[Any]:
    return np.arange(100, 100 + H * W).reshape(H, W).astype(dtype)


def write(path: Path, values: NDArray[Any], attributes: dict[str, Any]) -> Path:
    """With h5py: xarray would encode attributes that it knows."""
    with h5py.File(path, "w") as file:
        file["v"] = values
        file["v"].attrs.update(attributes)
    return path


FILL = [
    {"_FillValue": np.int16(-9)},
    {"missing_value": np.int16(-9)},
    {"missing_value": np.array([-9, -8], "i2")},
    {"_FillValue": np.int16(-8), "missing_value": np.int16(-9)},
    {"Data_Ignore_Value": -9.0},
    {"data ignore value": "-9"},
    {"nodata": -9},
    {"NoData_Value": np.array([-9.0])},
    {"nodatavals": np.array([-9.0, -9.0])},
    {"_FillValue": "-9"},
    {"valid_min": np.int16(0)},
    {"valid_range": np.array([0, 9999], "i2")},
    {"valid_range": "0, 9999"},
]


@pytest.mark.parametrize("attributes", FILL)
def test_fill_and_limits_by_any_name(tmp_path: Path, attributes: dict[str, Any]) -> None:
    values = counts()
    values[2, 3:5] = -9
    scene = us.open_scene(write(tmp_path / "a.h5", values, attributes))
    expected = np.ones((H, W), bool)
    expected[2, 3:5] = False
    np.testing.assert_array_equal(scene.valid.values, expected)
    np.testing.assert_array_equal(scene.values[0][expected], values[expected])
    everything = us.open_scene(tmp_path / "a.h5", nodata=None)
    assert everything.valid.values.sum() >= expected.sum()
    if scene.dtype.kind == "f":
        assert np.isnan(scene.values[0][~expected]).all()


@pytest.mark.parametrize(
    "attributes", [{"_FillValue": -99999}, {"nodata": 0.5}, {"nodata": "none"}]
)
def test_fill_that_no_pixel_can_be_changes_nothing(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    scene = us.open_scene(write(tmp_path / "a.h5", counts("uint8"), attributes))
    assert scene.dtype == "uint8"
    assert scene.valid.values.all()


def test_limits_apply_to_stored_numbers_or_to_pixels(tmp_path: Path) -> None:
    values = counts("uint16")
    values[0, :3] = 65533
    packed = {"scale_factor": 0.01, "add_offset": -1.0}
    limits = {
        "stored": {"valid_max": np.uint16(65527)},
        "pixels": {"valid_max": 600.0},  # a float for packed integers: in units of the pixels
    }
    for name, attributes in limits.items():
        scene = us.open_scene(write(tmp_path / f"{name}.h5", values, packed | attributes))
        assert (~scene.valid.values).sum() == 3
        np.testing.assert_allclose(scene.values[0, 1:], values[1:] * 0.01 - 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("made", "attributes", "lost"),
    [
        ({"fillvalue": -9}, {}, "any"),
        ({"fillvalue": -9}, {"_FillValue": np.int16(-8)}, ""),  # what is written last counts
        ({"fillvalue": 0}, {}, "all"),  # some libraries set it without being asked
        ({}, {}, ""),  # HDF5's own 0
    ],
)
def test_fill_that_is_a_property_of_an_hdf5_array_alone(
    tmp_path: Path, made: dict[str, Any], attributes: dict[str, Any], lost: str
) -> None:
    values = np.stack([counts()] * 3)
    fill = made.get("fillvalue", 0)
    values[:, 2, 3], values[0, 4, 5] = fill, fill
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", data=values, **made)
        file["v"].attrs.update(attributes)
    valid = us.open_scene(tmp_path / "a.h5").valid.values
    assert valid[2, 3] == (lost == "")
    assert valid[4, 5] == (lost != "any")
    assert np.count_nonzero(~valid) == {"any": 2, "all": 1, "": 0}[lost]


def test_a_property_of_netcdf_without_an_attribute_is_not_fill(tmp_path: Path) -> None:
    # Its writers set its own fill without being asked.
    with h5py.File(tmp_path / "new.h5", "w") as file:
        file.attrs["_NCProperties"] = "version=2,netcdf=4.9.2,hdf5=1.14.0"
        file.create_dataset("v", data=counts(), fillvalue=100)
    assert us.open_scene(tmp_path / "new.h5").valid.values.all()
    with h5py.File(tmp_path / "old.h5", "w") as file:  # before 2016
        file.create_dataset("v", data=counts(), fillvalue=100)
        for axis, name in enumerate("yx"):
            file[name] = np.arange(counts().shape[axis])
            file[name].make_scale(name)
            file["v"].dims[axis].attach_scale(file[name])
    assert us.open_scene(tmp_path / "old.h5", variable="v").valid.values.all()


def test_an_empty_range_is_not_used(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", counts(), {"valid_min": 0, "valid_max": 0})
    assert us.open_scene(path).valid.values.all()


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (-3.4028235e38, -3.4e38),
        (-3.4028235e38, "-3.40282e+38"),
        (9.96921e36, 9.969209968386869e36),
        (9.96921e36, None),
        (-9999.9, -9999.9),
        (1e20, 1e20),
    ],
)
def test_fill_of_floats_may_be_rounded(tmp_path: Path, stored: float, said: object) -> None:
    values = counts("float32")
    values[:, :4] = np.float32(stored)
    attributes = {} if said is None else {"_FillValue": said}
    scene = us.open_scene(write(tmp_path / "a.h5", values, attributes))
    assert scene.valid.values.mean() == pytest.approx(2 / 3)
    assert not scene.valid.values[:, :4].any()


def test_unsigned_numbers_in_signed_arrays(tmp_path: Path) -> None:
    values = np.full((H, W), 200, "u1")
    values[0, 0], values[0, 1] = 255, 254
    attributes = {"_Unsigned": "true", "_FillValue": np.int8(-1), "valid_range": [0, 253]}
    scene = us.open_scene(write(tmp_path / "a.h5", values.view("i1"), attributes))
    assert scene.values[0, 3, 3] == 200
    assert (~scene.valid.values).sum() == 2


@pytest.mark.parametrize("factor", [np.int8(100), np.int16(100), np.int32(100), 100])
@pytest.mark.parametrize("fill", [{}, {"_FillValue": np.int16(-9)}])
def test_whole_numbers_as_factors_do_not_overflow(
    tmp_path: Path, factor: Any, fill: dict[str, Any]
) -> None:
    values = counts() * 10
    values[2, 3] = -9
    scene = us.open_scene(write(tmp_path / "a.h5", values, {"scale_factor": factor, **fill}))
    valid = scene.valid.values
    assert (~valid).sum() == len(fill)
    np.testing.assert_array_equal(scene.values[0][valid], values[valid].astype(float) * 100)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["v"] = values
        for k, name in enumerate(("y", "x")):
            file[name] = np.arange(values.shape[k], dtype="i2") + 4000
            file[name].attrs["scale_factor"] = np.int16(10)
            file[name].make_scale(name)
            file["v"].dims[k].attach_scale(file[name])
    transform = us.open_scene(tmp_path / "b.h5", variable="v").rio.transform()
    assert (*transform[:6],) == (10, 0, 39995, 0, 10, 39995)


def test_an_enumeration_names_classes(tmp_path: Path) -> None:
    """NetCDF-4 and HDF5 have types of them, which need no attributes."""
    kind = h5py.enum_dtype({"clear": 0, "cloud": 1, "no_data": 7}, basetype="u1")
    classes = np.zeros((H, W), "u1")
    classes[0, :3], classes[1, :4] = 1, 7
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("sky", data=classes, dtype=kind)
    with pytest.raises(us.SceneError, match=r"classes or flags only: 'sky' has clear, cloud, no_d"):
        us.open_scene(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("sky", data=classes, dtype=kind)
        file["v"] = counts()
    scene = us.open_scene(tmp_path / "b.h5")
    np.testing.assert_array_equal(scene.values[0], counts())
    np.testing.assert_array_equal(~scene.valid.values, classes == 7)
    masked = us.open_scene(tmp_path / "b.h5", mask="cloud")
    np.testing.assert_array_equal(masked.valid.values, classes == 0)


def test_a_factor_per_band(tmp_path: Path) -> None:
    cube = np.stack([counts("uint16"), counts("uint16"), counts("uint16")])
    attributes = {"scale_factor": [0.1, 0.2, 0.3], "add_offset": np.array([0.0, 1.0, 2.0])}
    path = write(tmp_path / "a.h5", cube, attributes)
    factors = np.array([0.1, 0.2, 0.3])[:, None, None]
    right = cube * factors + np.array([0, 1, 2])[:, None, None]
    np.testing.assert_allclose(us.open_scene(path).values, right, rtol=1e-6)
    np.testing.assert_allclose(us.open_scene(path, bands=[3, 1]).values, right[[2, 0]], rtol=1e-6)
    wrong = write(tmp_path / "b.h5", cube, {"scale_factor": [0.1, 0.2]})
    with pytest.raises(us.SceneError, match=r"'v' of .*b.h5' has 2 values of scale_factor for 3"):
        us.open_scene(wrong)


def test_an_array_that_cannot_be_decoded_spoils_no_other(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["good"] = np.zeros((3, H, W), "f4")
        file["odd"] = np.zeros((3, H, W), "f4")
        file["odd"].attrs["scale_factor"] = [1.0, 2.0]
        file["table"] = np.zeros(5, [("a", "i4"), ("b", "f8")])
        file["text"] = "words"
    assert us.open_scene(tmp_path / "a.h5", variable="good").shape == (3, H, W)
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    for name, n in (("good", W), ("overview", W // 2)):  # one name for dimensions of two sizes
        root.create_array(name, data=np.ones((H, n), "f4")).attrs["_ARRAY_DIMENSIONS"] = ["y", "x"]
    assert us.open_scene(tmp_path / "a.zarr", variable="good").shape == (1, H, W)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_arrays_without_dimensions(tmp_path: Path, zarr_format: int) -> None:
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    cube = np.ones((3, H, W), "u2")
    cube[0, 0, 0] = 0  # dark in one band
    cube[:, 1, 1] = 0  # the fill value of zarr if nothing else is said
    root.create_array("v", data=cube)
    scene = us.open_scene(tmp_path / "a.zarr")
    assert scene.shape == (3, H, W)
    assert scene.dtype == "uint16"
    assert scene.valid.values[0, 0]
    assert scene.valid.values[1, 1] == (zarr_format == 3)


def test_zeros_of_prisma_are_fill_where_all_bands_have_them(tmp_path: Path) -> None:
    path = products.prisma(tmp_path)
    with h5py.File(path, "r+") as file:
        file["HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/VNIR_Cube"][5:9, 0] = 0
    valid = us.open_scene(path).valid.values
    assert valid[:-2].all()
    assert not valid[-2:].any()


def classified(path: Path, **attributes: Any) -> Path:
    flags = np.zeros((H, W), np.uint8)
    flags[0], flags[1], flags[2] = 1, 2, 4
    data = xr.Dataset(
        {
            "v": (("y", "x"), counts("float32"), {"ancillary_variables": "quality"}),
            "quality": (("y", "x"), flags, attributes),
        }
    )
    data.to_netcdf(path, engine="h5netcdf")
    return path


CLASSES = {
    "flag_values": np.array([0, 1, 2, 4], "u1"),
    "flag_meanings": "cloud_free cloud snow fill",
}
BITS = {"flag_masks": np.array([1, 2, 4], "u1"), "flag_meanings": "cloud snow fill"}


@pytest.mark.parametrize("attributes", [CLASSES, BITS])
def test_classes_of_cf_mask_pixels(tmp_path: Path, attributes: dict[str, Any]) -> None:
    path = classified(tmp_path / "a.nc", **attributes)
    rows = {
        "none": {2},
        "cloud": {0, 2},
        "snow": {1, 2},
        ("snow", "cloud"): {0, 1, 2},
        (2,): {1, 2},
    }
    for mask, invalid in rows.items():
        valid = us.open_scene(path, mask=mask).valid.values
        assert set(np.flatnonzero(~valid.all(axis=1))) == invalid
        assert set(np.flatnonzero(~valid.any(axis=1))) == invalid
    with pytest.raises(
        us.SceneError, match=r"mask='haze' is not a class of 'a.nc', which has cloud"
    ):
        us.open_scene(path, mask="haze")


def test_a_cloud_mask_masks_or_refuses(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.h5", counts(), {})
    snow = classified(tmp_path / "s.nc", flag_masks=[2], flag_meanings="snow")
    emit = products.emit(tmp_path)
    prisma = products.prisma(tmp_path)
    for path in (plain, snow, emit, prisma):
        with pytest.raises(us.SceneError, match=r"mask='cloud'.* Name one of these, or drop mask"):
            us.open_scene(path, mask="cloud")


def test_emit_takes_clouds_from_the_mask_file_beside_it(tmp_path: Path) -> None:
    made = products.emit(tmp_path)
    path = made.rename(made.with_name("EMIT_L2A_RFL_001_20230101T000000_1_1.nc"))
    height, width = us.open_scene(path).shape[1:]
    with h5py.File(tmp_path / path.name.replace("_RFL_", "_MASK_"), "w") as file:
        mask = np.zeros((height, width, 3), "f4")
        mask[20, :, 0], mask[21, :, 1], mask[22, :, 2] = 1, 1, 0.5
        file["mask"] = mask
        names = ["Cloud flag", "Cirrus flag", "AOD550"]
        file["sensor_band_parameters/mask_bands"] = np.array(names, h5py.string_dtype())
    before, after = us.open_scene(path), us.open_scene(path, mask="cloud")
    lost = before.valid.values & ~after.valid.values
    assert set(np.flatnonzero(lost.any(axis=1))) == {20, 21}
    with pytest.raises(us.SceneError, match="which has cirrus_flag, cloud_flag"):
        us.open_scene(path, mask="snow")


def test_prisma_takes_clouds_from_level_1(tmp_path: Path) -> None:
    path = products.prisma(tmp_path, level="1")
    folder = "HDFEOS/SWATHS/PRS_L1_HCO/Data Fields"
    with h5py.File(path, "r+") as file:
        clouds = np.zeros((50, 40), "u1")
        clouds[3] = 1
        file[f"{folder}/Cloud_Mask"] = clouds
    assert us.open_scene(path).valid.values[:-2].all()
    valid = us.open_scene(path, mask="cloud").valid.values[:-2]
    assert set(np.flatnonzero(~valid.all(axis=1))) == {3}


def test_a_value_given_by_the_user_counts_beside_the_fill_of_the_file(tmp_path: Path) -> None:
    values = counts()
    values[0, 0], values[1, 1] = -9, 7
    path = write(tmp_path / "a.h5", values, {"_FillValue": np.int16(-9)})
    assert np.flatnonzero(~us.open_scene(path, nodata=7).valid.values).tolist() == [0, W + 1]


def test_fill_in_any_band_or_in_all(tmp_path: Path) -> None:
    cube = np.stack([counts("uint8"), counts("uint8")])
    cube[0, 0, 0] = 255
    cube[:, 1, 1] = 255
    lost = {"any": {0, W + 1}, "all": {W + 1}}
    for dtype, usual in (("uint8", "all"), ("int16", "any"), ("float32", "any")):
        values = cube.astype(dtype)
        path = write(tmp_path / f"{dtype}.h5", values, {"_FillValue": values.dtype.type(255)})
        for when, expected in (("auto", usual), ("any", "any"), ("all", "all")):
            scene = us.open_scene(path, nodata_when=when)
            assert set(np.flatnonzero(~scene.valid.values)) == lost[expected]
        assert us.open_scene(path, nodata=None).valid.values.all()
    plain = write(tmp_path / "plain.h5", cube, {})
    assert set(np.flatnonzero(~us.open_scene(plain, nodata=255).valid.values)) == lost["all"]
    given = us.open_scene(plain, nodata=255, nodata_when="any")
    assert set(np.flatnonzero(~given.valid.values)) == lost["any"]


def test_a_plan_says_what_makes_pixels_invalid(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", counts(), {"_FillValue": np.int16(-9), "valid_max": 500})
    masked = scene_source(us.open_scene(path)).info.masked
    assert masked == "-9, values outside -inf to 500"


def test_fill_of_unsigned_numbers_that_are_stored_as_signed(tmp_path: Path) -> None:
    """Classic NetCDF has no unsigned bytes: 255 is -1 there, also as fill and limit."""
    pixels = np.arange(240, dtype=np.uint8).reshape(12, 20)
    pixels[0, :5], pixels[1, :3] = 255, 254
    attributes = {
        "_Unsigned": "true", "_FillValue": np.int8(-1), "valid_range": np.array([0, -3], np.int8),
    }  # fmt: skip
    data = xr.Dataset({"v": (("y", "x"), pixels.view(np.int8), attributes)})
    for name in ("a.nc", "b.nc"):
        if name == "a.nc":
            data.to_netcdf(tmp_path / name, engine="h5netcdf")
        else:
            data.to_netcdf(tmp_path / name, engine="scipy", format="NETCDF3_CLASSIC")
        scene = us.open_scene(tmp_path / name)
        right = np.where(pixels < 254, pixels, np.float32(np.nan))
        np.testing.assert_array_equal(scene.values[0], right)
        np.testing.assert_array_equal(scene.valid.values, pixels < 254)


def test_signed_fill_of_unsigned_numbers(tmp_path: Path) -> None:
    """Classic NetCDF has no unsigned types: -1 stands for 255."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = np.array([[[7, 255, 9]] * 2], "u1").repeat(2, axis=1)
        file["v"].attrs["_FillValue"] = np.int8(-1)
    scene = us.open_scene(tmp_path / "a.h5")
    assert scene.valid.values[0].tolist() == [True, False, True]
