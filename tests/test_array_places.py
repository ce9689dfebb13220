"""The place of arrays in files: every way in which NetCDF, HDF5 and Zarr say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5netcdf
import h5py
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import xarray as xr
import zarr
from affine import Affine
from pyproj import CRS, Transformer

import uniadrs_scale as us
from uniadrs_scale.scenes.sources import scene_source

if TYPE_CHECKING:
    from pathlib import Path

H, W = 12, 14
UTM = (10.0, 0.0, 4e5, 0.0, -10.0, 6e6)
X, Y = 4e5 + 10 * (np.arange(W) + 0.5), 6e6 - 10 * (np.arange(H) + 0.5)
CF = CRS.from_epsg(32633).to_cf()
PIXELS = np.arange(H * W, dtype=np.float32).reshape(H, W)


def place(path: Path, **options: Any) -> tuple[int | None, tuple[float, ...] | None]:
    info = scene_source(us.open_scene(path, **options)).info
    crs = None if info.crs is None else CRS(info.crs).to_epsg()
    transform = info.transform
    return crs, None if transform is None else tuple(round(value, 6) for value in transform)


def grid(path: Path, **attributes: Any) -> Path:
    """A grid in UTM whose CRS is only in the attributes of the array."""
    data = xr.Dataset({"v": (("y", "x"), PIXELS, attributes)}, {"y": Y, "x": X})
    data.to_netcdf(path, engine="h5netcdf")
    return path


@pytest.mark.parametrize(
    "attributes",
    [
        {"crs": "+proj=utm +zone=33 +datum=WGS84"},
        {"crs": "epsg:32633"},
        {"crs": "EPSG:32633"},
        {"epsg": 32633},
        {"epsg_code": "EPSG:32633"},
        {"crs_wkt": CRS.from_epsg(32633).to_wkt()},
        {"spatial_ref": CRS.from_epsg(32633).to_wkt("WKT1_GDAL")},
        {"proj:code": "EPSG:32633"},
        {"proj:epsg": 32633},
        {"proj:wkt2": CRS.from_epsg(32633).to_wkt()},
        {"proj4": "+proj=utm +zone=33 +datum=WGS84 +units=m"},
        {"coordinate_reference_system": "urn:ogc:def:crs:EPSG::32633"},
        {"CRS_code": "EPSG 32633"},
        {"proj4string": "+proj=utm +zone=33 +datum=WGS84"},
        {"crs": "WGS 84 / UTM zone 33N"},
        {"geospatial_bounds_crs": "EPSG:32633"},
    ],
)
def test_a_crs_among_the_attributes_of_an_array_or_its_file(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    assert place(grid(tmp_path / "array.nc", **attributes)) == (32633, UTM)
    data = xr.Dataset({"v": (("y", "x"), PIXELS)}, {"y": Y, "x": X}, attributes)
    data.to_netcdf(tmp_path / "file.nc", engine="h5netcdf")
    assert place(tmp_path / "file.nc") == (32633, UTM)


def test_words_that_proj_would_also_take_are_no_crs(tmp_path: Path) -> None:
    assert place(grid(tmp_path / "a.nc", projection="Mercator", crs="crs", epsg=0))[0] is None


@pytest.mark.parametrize("attributes", [{"crs": "UTM33N"}, {"epsg": 99999}, {"srs": b"EPSG:1"}])
def test_words_of_a_crs_that_is_not_known_are_told(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    scene = us.open_scene(grid(tmp_path / "a.nc", **attributes))
    info = scene_source(scene).info
    ((name, value),) = attributes.items()
    text = value.decode() if isinstance(value, bytes) else value
    assert f"its CRS ({name}: '{text}') is not known" in info.remarks[-1]
    assert f"{name}: '{text}'" in info.georeference
    assert not scene_source(scene.rio.write_crs(32633)).info.remarks


@pytest.mark.parametrize("text", ["crs", "crs: x y", "wgs: lat lon crs: x y", "nothing"])
def test_grid_mappings_of_cf(tmp_path: Path, text: str) -> None:
    data = xr.Dataset(
        {
            "v": (("y", "x"), PIXELS, {"grid_mapping": text}),
            "crs": ((), 0, CF),
            "wgs": ((), 0, CRS.from_epsg(4326).to_cf()),
        },
        {"y": Y, "x": X},
    )
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert place(tmp_path / "a.nc", variable="v") == (32633, UTM)


@pytest.mark.parametrize("missing", ["crs_wkt", "grid_mapping_name"])
def test_a_grid_mapping_with_half_of_its_attributes(tmp_path: Path, missing: str) -> None:
    attributes = {name: value for name, value in CF.items() if name != missing}
    if missing == "crs_wkt":
        attributes["crs_wkt"] = "broken"
    data = xr.Dataset(
        {"v": (("y", "x"), PIXELS, {"grid_mapping": "m"}), "m": ((), 0, attributes)},
        {"y": Y, "x": X},
    )
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    crs, transform = place(tmp_path / "a.nc")
    assert transform == UTM
    assert crs == 32633 or missing == "crs_wkt"  # parameters alone have no name
    assert scene_source(us.open_scene(tmp_path / "a.nc")).info.crs is not None


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("feet", 0.3048), ("US_survey_feet", 1200 / 3937), ("Metres east", 1), ("1", 1), ("rods", 0)],
)
def test_units_are_known_or_told(tmp_path: Path, unit: str, factor: float) -> None:
    size = factor or 1
    data = xr.Dataset(
        {"v": (("y", "x"), PIXELS, {"crs": "EPSG:32633"})},
        {"y": ("y", Y / size, {"units": unit}), "x": ("x", X / size, {"units": unit})},
    )
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert place(tmp_path / "a.nc") == ((32633, UTM) if factor else (None, None))
    unplaced = scene_source(us.open_scene(tmp_path / "a.nc")).info.unplaced
    assert ("is in 'rods', which is not a known unit" in unplaced) == (not factor)


@pytest.mark.parametrize(
    ("unit", "factor"), [("km", 1e-3), ("kilometers", 1e-3), ("m", 1), ("metres", 1), ("cm", 100)]
)
def test_units_of_projection_coordinates(tmp_path: Path, unit: str, factor: float) -> None:
    both = {"units": unit, "standard_name": "projection_x_coordinate"}  # wrong for y, and seen
    data = xr.Dataset(
        {"ice": (("yc", "xc"), PIXELS, {"grid_mapping": "g"}), "g": ((), 0, CF)},
        {"yc": ("yc", Y * factor, both), "xc": ("xc", X * factor, both)},
    )
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert place(tmp_path / "a.nc") == (32633, UTM)


def test_units_that_do_not_fit_the_crs_are_no_place(tmp_path: Path) -> None:
    data = xr.Dataset(
        {"v": (("y", "x"), PIXELS, {"crs": "EPSG:4326"})},
        {"y": ("y", Y, {"units": "m"}), "x": ("x", X, {"units": "m"})},
    )
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert place(tmp_path / "a.nc") == (None, None)


@pytest.mark.parametrize("unit", ["rad", "radian", "microradian", None, "degrees"])
def test_scan_angles_of_a_geostationary_satellite(tmp_path: Path, unit: str | None) -> None:
    height = 35_786_023.0
    mapping = {
        "grid_mapping_name": "geostationary", "perspective_point_height": height,
        "semi_major_axis": 6378137.0, "semi_minor_axis": 6356752.31414,
        "longitude_of_projection_origin": -75.0, "latitude_of_projection_origin": 0.0,
        "sweep_angle_axis": "x",
    }  # fmt: skip
    size = {"microradian": 1e6, "degrees": 180 / np.pi}.get(str(unit), 1.0)
    step = 56e-6
    attributes = {} if unit is None else {"units": unit}
    data = xr.Dataset(
        {"v": (("y", "x"), PIXELS, {"grid_mapping": "p"}), "p": ((), 0, mapping)},
        {
            "y": ("y", (0.1 - step * np.arange(H)) * size, attributes),
            "x": ("x", (-0.05 + step * np.arange(W)) * size, attributes),
        },
    )
    # As GOES writes them: whole numbers with a factor.
    packed = {"dtype": "int32", "scale_factor": step * size / 1000, "add_offset": 0.0}
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding={"x": packed, "y": packed})
    info = scene_source(us.open_scene(tmp_path / "a.nc", variable="v")).info
    assert info.transform is not None
    a, b, c, d, e, f = info.transform
    assert (b, d) == (0, 0)
    assert (a, e) == (
        pytest.approx(step * height, rel=1e-4),
        pytest.approx(-step * height, rel=1e-4),
    )
    assert c == pytest.approx((-0.05 - step / 2) * height, abs=0.05 * a)
    assert f == pytest.approx((0.1 + step / 2) * height, abs=0.05 * a)
    assert "Geostationary" in str(info.crs)


@pytest.mark.parametrize("decimals", [None, 4])
def test_rounded_axes_are_regular(tmp_path: Path, decimals: int | None) -> None:
    lat, lon = 49.99865 - 0.0027 * np.arange(120), 120.00135 + 0.0027 * np.arange(140)
    if decimals is None:
        lat, lon = lat.astype(np.float32), lon.astype(np.float32)
    else:
        lat, lon = lat.round(decimals), lon.round(decimals)
    data = xr.Dataset({"v": (("lat", "lon"), np.zeros((120, 140), "f4"))}, {"lat": lat, "lon": lon})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    info = scene_source(us.open_scene(tmp_path / "a.nc")).info
    assert info.crs is not None
    assert CRS(info.crs).to_epsg() == 4326
    for column, row in ((0, 0), (140, 120)):
        found = Affine(*info.transform) @ (column, row)
        right = 120.0 + 0.0027 * column, 50.0 - 0.0027 * row
        assert np.abs(np.subtract(found, right)).max() < 0.1 * 0.0027


@pytest.mark.parametrize(
    ("names", "attributes"),
    [
        (("lat", "lon"), ({}, {})),
        (("a", "b"), ({"units": "degrees_north"}, {"units": "degrees_east"})),
        (("a", "b"), ({"standard_name": "latitude"}, {"standard_name": "longitude"})),
        (("nav_lat", "nav_lon"), ({}, {})),
    ],
)
def test_latitude_and_longitude_axes_by_name_or_attributes(
    tmp_path: Path, names: tuple[str, str], attributes: tuple[dict[str, str], ...]
) -> None:
    y, x = names
    lat, lon = 50 - 0.01 * np.arange(H), 8 + 0.01 * np.arange(W)
    coords = {y: (y, lat, attributes[0]), x: (x, lon, attributes[1])}
    right = 4326, (0.01, 0.0, 7.995, 0.0, -0.01, 50.005)
    xr.Dataset({"v": ((y, x), PIXELS)}, coords).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert place(tmp_path / "a.nc") == right
    xr.Dataset({"v": ((x, y), PIXELS.T)}, coords).to_netcdf(tmp_path / "t.nc", engine="h5netcdf")
    assert place(tmp_path / "t.nc") == right
    np.testing.assert_array_equal(us.open_scene(tmp_path / "t.nc").values[0], PIXELS)


def test_axes_that_are_not_named_as_their_dimensions(tmp_path: Path) -> None:
    data = xr.Dataset(
        {"v": (("nj", "ni"), PIXELS, {"grid_mapping": "crs"}), "crs": ((), 0, CF)},
        {
            "north": ("nj", Y, {"standard_name": "projection_y_coordinate"}),
            "east": ("ni", X, {"standard_name": "projection_x_coordinate"}),
        },
    )
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert place(tmp_path / "a.nc") == (32633, UTM)


def test_axes_of_hdf5_without_dimension_scales(tmp_path: Path) -> None:
    for size in (W, H):  # also of a square image
        with h5py.File(tmp_path / f"{size}.h5", "w") as file:
            file["v"] = np.zeros((H, size), "f4")
            file["v"].attrs["crs"] = "EPSG:32633"
            file["northing"], file["easting"] = Y, X[:size]
        assert place(tmp_path / f"{size}.h5") == (32633, UTM)


def test_axes_in_a_group_above(tmp_path: Path) -> None:
    with h5netcdf.File(tmp_path / "root.nc", "w") as file:
        file.dimensions = {"y": H, "x": W}
        for name, values in (("y", Y), ("x", X)):
            file.create_variable(name, (name,), data=values)
        file.create_variable("crs", (), "i4").attrs.update(CF)
        group = file.create_group("measurements").create_group("image")
        group.create_variable("v", ("y", "x"), data=PIXELS).attrs["grid_mapping"] = "crs"
    assert place(tmp_path / "root.nc") == (32633, UTM)


@pytest.mark.parametrize(
    "attributes",
    [
        {"GeoTransform": "400000.0 10.0 0.0 6000000.0 0.0 -10.0"},
        {"GeoTransform": np.array([4e5, 10, 0, 6e6, 0, -10])},
        {"spatial:transform": list(UTM)},
        {"proj:transform": [*UTM, 0.0, 0.0, 1.0]},
        {"spatial:transform": [10.0, 0.0, 4e5 + 5, 0.0, -10.0, 6e6 - 5],
         "spatial:registration": "node"},
    ],
)  # fmt: skip
def test_a_transform_without_axes(tmp_path: Path, attributes: dict[str, Any]) -> None:
    mapping = xr.Dataset({"v": (("y", "x"), PIXELS, {"grid_mapping": "g"})})
    mapping["g"] = ((), 0, CF | attributes)
    mapping.to_netcdf(tmp_path / "mapping.nc", engine="h5netcdf")
    assert place(tmp_path / "mapping.nc") == (32633, UTM)
    own = xr.Dataset({"v": (("y", "x"), PIXELS, attributes | {"crs": "EPSG:32633"})})
    own.to_netcdf(tmp_path / "own.nc", engine="h5netcdf")
    assert place(tmp_path / "own.nc") == (32633, UTM)
    counted = own.assign_coords(y=np.arange(H), x=np.arange(W))  # numbers of pixels, no place
    counted.to_netcdf(tmp_path / "counted.nc", engine="h5netcdf")
    assert place(tmp_path / "counted.nc") == (32633, UTM)


def test_axes_win_over_a_stale_transform(tmp_path: Path) -> None:
    stale = "0.0 10.0 0.0 0.0 0.0 -10.0"
    assert place(grid(tmp_path / "a.nc", crs="EPSG:32633", GeoTransform=stale)) == (32633, UTM)


def test_a_crs_alone_is_not_a_place(tmp_path: Path) -> None:
    data = xr.Dataset({"v": (("y", "x"), PIXELS, {"crs": "EPSG:32633"})})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert place(tmp_path / "a.nc") == (None, None)
    assert "gsd_m" not in us.open_scene(tmp_path / "a.nc").attrs


def test_a_store_as_gdal_writes_it(tmp_path: Path) -> None:
    """GDAL has the CRS in an attribute with several forms of it."""
    corner = rasterio.transform.from_origin(4e5, 6e6, 10, 10)
    size = {"height": H, "width": W, "count": 1, "dtype": "float32"}
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", crs="EPSG:32633", transform=corner, **size
    ) as file:
        file.write(PIXELS[None])
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.zarr", driver="Zarr")
    assert place(tmp_path / "a.zarr") == (32633, UTM)
    root = zarr.open_group(tmp_path / "a.zarr")
    url = "http://www.opengis.net/def/crs/EPSG/0/32633"
    for said in ({"projjson": CRS.from_epsg(32633).to_json_dict()}, {"url": url}):
        root["a"].attrs["_CRS"] = said
        zarr.consolidate_metadata(tmp_path / "a.zarr")
        assert place(tmp_path / "a.zarr") == (32633, UTM)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_eopf_store(tmp_path: Path, zarr_format: int) -> None:
    """As the Sentinel-2 products of ESA's new format: the CRS is said by the root."""
    root = zarr.open_group(tmp_path / "s2.zarr", mode="w", zarr_format=zarr_format)
    root.attrs["other_metadata"] = {"horizontal_CRS_code": "EPSG:32633"}
    root.attrs["stac_discovery"] = {
        "properties": {"datetime": "2024-09-29T10:17:59Z", "platform": "sentinel-2a"}
    }
    for metres in (10, 20):
        n = metres // 10
        data = xr.Dataset(
            {name: (("y", "x"), (PIXELS[::n, ::n] + 1).astype("u2")) for name in ("b02", "b03")},
            {"y": Y[::n] - 5 * (n - 1), "x": X[::n] + 5 * (n - 1)},
        )
        data.to_zarr(
            tmp_path / "s2.zarr", group=f"measurements/reflectance/r{metres}m",
            zarr_format=zarr_format, consolidated=False, mode="a",
        )  # fmt: skip
    path = tmp_path / "s2.zarr"
    assert place(path, variable="measurements/reflectance/r10m/*") == (32633, UTM)
    scene = us.open_scene(path, variable="measurements/reflectance/r20m/*")
    assert scene.shape == (2, 6, 7)
    assert tuple(scene.rio.transform())[:6] == (20, 0, 4e5, 0, -20, 6e6)
    assert scene.attrs["platform"] == "sentinel-2a"
    assert scene.attrs["datetime"] == "2024-09-29T10:17:59Z"


def test_a_geozarr_store_with_overviews(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    root.attrs.update(
        {
            "proj:code": "EPSG:32633",
            "multiscales": {"layout": [{"asset": "0"}, {"asset": "1", "derived_from": "0"}]},
        }
    )
    for level in (0, 1):
        n = 2**level
        group = root.create_group(str(level))
        group.attrs.update(
            {
                "spatial:dimensions": ["y", "x"],
                "spatial:transform": [10.0 * n, 0.0, 4e5, 0.0, -10.0 * n, 6e6],
                "spatial:shape": [H // n, W // n],
            }
        )
        array = group.create_array(
            "v", shape=(H // n, W // n), dtype="f4", dimension_names=("y", "x")
        )
        array[:] = PIXELS[::n, ::n]
    assert place(tmp_path / "a.zarr") == (32633, UTM)
    assert place(tmp_path / "a.zarr", variable="1/v")[1] == (20, 0, 4e5, 0, -20, 6e6)


def test_a_transform_for_another_size_is_not_used(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    root.attrs.update(
        {"proj:code": "EPSG:32633", "spatial:transform": list(UTM), "spatial:shape": [99, 99]}
    )
    root.create_array("v", data=PIXELS, dimension_names=("y", "x"))
    assert place(tmp_path / "a.zarr") == (None, None)


def test_a_grid_with_latitude_and_longitude_stays_a_grid(tmp_path: Path) -> None:
    turned = Transformer.from_crs(32633, 4326, always_xy=True)
    lon, lat = turned.transform(*np.meshgrid(X, Y))
    data = xr.Dataset(
        {"v": (("y", "x"), PIXELS, {"grid_mapping": "crs", "coordinates": "lat lon"}),
         "crs": ((), 0, CF), "lat": (("y", "x"), lat), "lon": (("y", "x"), lon)},
        {"y": Y, "x": X},
    )  # fmt: skip
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert place(tmp_path / "a.nc") == (32633, UTM)
    assert "latitude" not in us.open_scene(tmp_path / "a.nc").coords
    without = data.drop_vars(["crs", "y", "x"])
    without["v"].attrs.pop("grid_mapping")
    without.to_netcdf(tmp_path / "swath.nc", engine="h5netcdf")
    assert set(us.open_scene(tmp_path / "swath.nc").coords) >= {"latitude", "longitude"}


def test_two_dimensional_places_by_units(tmp_path: Path) -> None:
    lat, lon = np.meshgrid(40 + 0.01 * np.arange(H), 8 + 0.01 * np.arange(W), indexing="ij")
    data = xr.Dataset(
        {"v": (("r", "s"), PIXELS),
         "north": (("r", "s"), lat, {"units": "degrees_north"}),
         "east": (("r", "s"), lon, {"units": "degrees_east"})}
    )  # fmt: skip
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    np.testing.assert_allclose(us.open_scene(tmp_path / "a.nc").longitude.values, lon)


def test_uneven_latitudes_place_each_pixel(tmp_path: Path) -> None:
    lat, lon = np.degrees(np.arcsin(np.linspace(0.9, -0.9, H))), 1.5 * np.arange(W)
    data = xr.Dataset({"v": (("lat", "lon"), PIXELS)}, {"lat": lat, "lon": lon})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    scene = us.open_scene(tmp_path / "a.nc")
    assert scene_source(scene).info.transform is None
    np.testing.assert_allclose(scene.latitude.values, np.broadcast_to(lat[:, None], (H, W)))
    np.testing.assert_allclose(scene.longitude[3].values, lon)


@pytest.mark.parametrize("shift", [0.0, 3e-9])
def test_files_of_one_band_each_are_one_scene(tmp_path: Path, shift: float) -> None:
    for k in (1, 2):
        data = xr.Dataset(
            {"v": (("y", "x"), PIXELS + k, {"crs": "EPSG:32633", "wavelength": 500.0 * k})},
            {"y": Y, "x": X + (k - 1) * shift},
        )
        data.to_netcdf(tmp_path / f"b{k}.nc", engine="h5netcdf")
    scene = us.open_scene([tmp_path / "b1.nc", tmp_path / "b2.nc"])
    assert list(scene.band.values) == ["b1", "b2"]
    assert list(scene.wavelength.values) == [500, 1000]
    np.testing.assert_array_equal(scene.values, [PIXELS + 1, PIXELS + 2])
    assert scene.rio.crs == "EPSG:32633"
    assert us.open_scene(tmp_path / "b*.nc").equals(scene)
    assert scene_source(scene).info.name == "b1.nc ..."


def test_files_that_differ_are_not_one_scene(tmp_path: Path) -> None:
    first = grid(tmp_path / "a.nc", crs="EPSG:32633")
    data = xr.open_dataset(first, engine="h5netcdf").load()
    swath = np.meshgrid(np.arange(W), np.arange(H))
    others = {
        "has 6 x 14 px": data.isel(y=slice(0, 6)),
        "is on another grid": data.assign_coords(x=X + 5),
        "has another CRS": data.assign(v=data.v.assign_attrs(crs="EPSG:32632")),
    }
    for k, (message, other) in enumerate(others.items()):
        other.to_netcdf(tmp_path / f"o{k}.nc", engine="h5netcdf")
        with pytest.raises(us.SceneError, match=f"'o{k}.nc' {message}.*'a.nc'"):
            us.open_scene([first, tmp_path / f"o{k}.nc"])
    for k in (0, 1):
        places = {"lat": (("y", "x"), swath[1] + k), "lon": (("y", "x"), swath[0])}
        data = xr.Dataset({"v": (("y", "x"), PIXELS)} | places)
        data.to_netcdf(tmp_path / f"s{k}.nc", engine="h5netcdf")
    with pytest.raises(us.SceneError, match="other latitudes"):
        us.open_scene([tmp_path / "s0.nc", tmp_path / "s1.nc"])
    (tmp_path / "x.tif").write_bytes(b"II*\0")
    with pytest.raises(us.SceneError, match=r"'.*x.tif' is not a file of arrays, but '.*a.nc' is"):
        us.open_scene([first, tmp_path / "x.tif"])


OVERVIEWS = {
    "layout": {"layout": [{"asset": "0"}, {"asset": "1"}]},
    "draft": {
        "tile_matrix_set": {
            "tileMatrices": [{"id": "1", "cellSize": 20.0}, {"id": "0", "cellSize": 10.0}]
        }
    },
    "ome": [{"datasets": [{"path": "0"}, {"path": "1"}]}],
}


@pytest.mark.parametrize("convention", OVERVIEWS)
@pytest.mark.parametrize("wanted", [None, "v"])
def test_overviews_are_left_out_by_every_convention(
    tmp_path: Path, convention: str, wanted: str | None
) -> None:
    root = zarr.open_group(tmp_path / "s.zarr", mode="w")
    root.attrs["multiscales"] = OVERVIEWS[convention]
    for level in ("0", "1", "10"):
        pixels = np.stack([PIXELS, PIXELS])[:, :: int(level) + 1, :: int(level) + 1]
        group = root.create_group(level) if level != "10" else root.create_group("1/0")
        names = ("band", "y", "x")
        array = group.create_array("v", shape=pixels.shape, dtype="f4", dimension_names=names)
        array[:] = pixels
    scene = us.open_scene(tmp_path / "s.zarr", variable=wanted)
    np.testing.assert_array_equal(scene[0].values, PIXELS)


def test_a_coordinate_of_another_length_than_its_axis_is_refused(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "s.zarr", mode="w")
    names = ("y", "x")
    root.create_array("v", shape=(H, W), dtype="f4", dimension_names=names)[:] = PIXELS
    root.create_array("y", shape=(2**60,), chunks=(2**59,), dtype="f8", dimension_names=("y",))
    with pytest.raises(us.SceneError, match=rf"'y' of .* has {2**60} values for {H} pixels"):
        us.open_scene(tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("said", "code"),
    [({}, 32632), ({"utm_zone_number": -32}, 32732), ({"semi_major_axis": 1e6}, 0)],
)
def test_utm_zones_of_grid_mappings_are_read(tmp_path: Path, said: dict, code: int) -> None:
    mapping = {"grid_mapping_name": "universal_transverse_mercator", "utm_zone_number": 32} | said
    coords = {"y": 46e5 - 10.0 * np.arange(9), "x": 5e5 + 10.0 * np.arange(8)}
    data = xr.Dataset({"v": (("y", "x"), np.ones((9, 8), "f4"), {"grid_mapping": "m"})}, coords)
    data["m"] = ((), 0, mapping)
    data.to_netcdf(tmp_path / "a.nc")
    info = scene_source(us.open_scene(tmp_path / "a.nc")).info
    assert (0 if info.crs is None else CRS(info.crs).to_epsg()) == code
