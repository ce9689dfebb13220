"""The grid of an array follows its coordinates, whatever attributes an operation left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import odc.geo.xr  # noqa: F401 - registers the `.odc` accessor
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from uniadrs_scale.errors import SceneError
from uniadrs_scale.swaths.axes import regular_axis
from uniadrs_scale.swaths.grids import georeference

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UTM = Affine(10, 0, 4e5, 0, -10, 6e6)
CODE = 32633


def scene(transform: Affine = UTM, height: int = 12, width: int = 14, **keys: Any) -> xr.DataArray:
    y = transform.f + transform.e * (np.arange(height) + 0.5)
    x = transform.c + transform.a * (np.arange(width) + 0.5)
    array = xr.DataArray(
        np.zeros((1, height, width)), dims=("band", "y", "x"), coords={"y": y, "x": x}, **keys
    )
    return array.rio.write_crs(CODE).rio.write_transform(transform)


def of(array: xr.DataArray) -> tuple[float, ...]:
    place = georeference(array)
    assert place.transform is not None, place.problem
    return tuple(place.transform)[:6]


def test_whole_scene_in_its_exact_bits() -> None:
    odd = Affine(1 / 621, 0, 0.062, 0, -1 / 621, 46.3)
    assert of(scene(odd)) == odd[:6]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: s.sortby("y"), (10, 0, 4e5, 0, 10, 6e6 - 120)),
        (lambda s: s.isel(x=slice(None, None, -1)), (-10, 0, 4e5 + 140, 0, -10, 6e6)),
        (lambda s: s[:, ::2, ::3], (30, 0, 4e5 - 10, 0, -20, 6e6 + 5)),
        (lambda s: s.coarsen(y=2, x=7).mean(), (70, 0, 4e5, 0, -20, 6e6)),
        (lambda s: s.interp(y=s.y.values[:-1] - 2.5), (10, 0, 4e5, 0, -10, 6e6 - 2.5)),
        (lambda s: s.isel(y=slice(3, 9)), (10, 0, 4e5, 0, -10, 6e6 - 30)),
        (lambda s: s.isel(y=slice(3, 4)), (10, 0, 4e5, 0, -10, 6e6 - 30)),
        (lambda s: s.assign_coords(y=s.y + 1e5), (10, 0, 4e5, 0, -10, 6.1e6)),
        (lambda s: s.drop_vars(["y", "x"]), UTM[:6]),
        (lambda s: s.drop_vars("y"), UTM[:6]),
        (lambda s: s.astype("f4").assign_coords(x=s.x.astype("f4")), UTM[:6]),
    ],
)
def test_coordinates_decide(
    change: Callable[[xr.DataArray], xr.DataArray], expected: tuple[float, ...]
) -> None:
    assert of(change(scene())) == pytest.approx(expected, rel=0, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda s: s.isel(y=[0, 1, 3, 7, 8]), "y is not evenly spaced"),
        (lambda s: s.isel(y=[0, 1, 1, 2]), "y repeats values"),
        (lambda s: s.isel(x=[0, 2, 1, 3]), "x goes to and fro"),
        (lambda s: s.assign_coords(x=[f"c{k}" for k in range(14)]), "x is not finite numbers"),
        (lambda s: s.assign_coords(x=s.x.where(s.x > 400020)), "x is not finite numbers"),
        (lambda s: s.coarsen(y=12).mean(), "size of its single row of pixels is unknown"),
        (lambda s: s.drop_vars("spatial_ref")[:, :, :1], "size of its single column"),
        (lambda s: s.drop_vars(["y", "x", "spatial_ref"]).rio.write_crs(CODE), "no transform"),
    ],
)
def test_no_place_is_said(change: Callable[[xr.DataArray], xr.DataArray], problem: str) -> None:
    place = georeference(change(scene()))
    assert place.transform is None
    assert place.crs is None
    assert problem in place.problem


def test_an_array_without_words_of_a_place_has_no_problem() -> None:
    place = georeference(xr.DataArray(np.zeros((3, 4)), dims=("y", "x")))
    assert (place.crs, place.transform, place.problem) == (None, None, "")


def test_coordinates_that_count_pixels_are_no_place() -> None:
    array = scene(Affine(1, 0, 0, 0, 1, 0))
    assert "CRS (EPSG:32633), but no transform" in georeference(array).problem
    assert georeference(array.drop_vars("spatial_ref")).problem == ""


def test_coordinates_without_a_crs_are_a_transform() -> None:
    place = georeference(scene().drop_vars("spatial_ref"))
    assert place.crs is None
    assert tuple(place.transform or ())[:6] == UTM[:6]


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("across", [False, True])
def test_rounded_degrees_and_the_antimeridian(dtype: str, across: bool) -> None:
    lon = (179.9 if across else 120.00135) + 0.0027 * np.arange(140)
    lat = 49.99865 - 0.0027 * np.arange(120)
    wrapped = np.where(lon > 180, lon - 360, lon)
    array = xr.DataArray(
        np.zeros((120, 140)),
        dims=("y", "x"),
        coords={"y": lat.round(4).astype(dtype), "x": wrapped.astype(dtype)},
    ).rio.write_crs(4326)
    transform = georeference(array).transform
    assert transform is not None
    for row, col in ((0, 0), (119, 139)):
        x, y = transform * (col + 0.5, row + 0.5)
        assert abs(x - lon[col]) < 0.00027
        assert abs(y - lat[row]) < 0.00027


def test_a_float32_axis_as_coarse_as_its_pixels_has_no_place() -> None:
    lon = np.float32(120) + np.arange(300) * 4e-6
    assert len(np.unique(lon.astype("f4"))) < 300
    with pytest.raises(ValueError, match="repeats values"):
        regular_axis(lon.astype("f4"), "x")


TILTED = Affine.translation(4e5, 6e6) * Affine.rotation(20) * Affine.scale(10, -10)
QUARTER = Affine(0, 10, 4e5, 10, 0, 6e6)


def counted(transform: Affine) -> xr.DataArray:
    """As the library opens a scene on a rotated grid."""
    array = xr.DataArray(
        np.zeros((1, 12, 14)),
        dims=("band", "y", "x"),
        coords={
            name: (name, np.arange(size) + 0.5, {"units": "pixel", "transform": transform[:6]})
            for name, size in (("y", 12), ("x", 14))
        },
    )
    return array.rio.write_crs(CODE).rio.write_transform(transform)


@pytest.mark.parametrize("transform", [TILTED, QUARTER])
def test_rotated_grids_are_counted_in_pixels(transform: Affine) -> None:
    array = counted(transform)
    assert of(array) == transform[:6]
    part = array.isel(y=slice(3, None), x=slice(None, None, -1))
    expected = transform * Affine(-1, 0, 14, 0, 1, 3)
    assert of(part) == pytest.approx(expected[:6])
    assert part.odc.geobox.affine[:6] == pytest.approx(expected[:6])
    assert of(array.coarsen(y=3, x=2).mean()) == pytest.approx((transform * Affine.scale(2, 3))[:6])
    assert of(array.drop_vars(["y", "x"])) == transform[:6]


def test_rotated_grids_sliced_or_corrected_by_rioxarray() -> None:
    array = counted(TILTED)
    moved = TILTED * Affine.translation(4, 3)
    part = array.isel(y=slice(3, 9), x=slice(4, 11)).rio.write_transform(moved)
    assert of(part) == pytest.approx(moved[:6])
    other = Affine.translation(50, 0) * TILTED
    assert of(array.rio.write_transform(other)) == pytest.approx(other[:6])


def test_world_coordinates_on_a_rotated_grid_are_no_place() -> None:
    array = scene().rio.write_transform(Affine.translation(1, 1) * TILTED)
    assert "does not count pixels" in georeference(array.assign_coords(y=array.y + 9e6)).problem


STACKED = {"transform": UTM, "crs": "epsg:32633", "spec": "RasterSpec", "resolution": 10.0}


def stacked(*, corner: bool, **attrs: Any) -> xr.DataArray:
    shift = 0.5 if corner else 0.0
    array = scene().drop_vars("spatial_ref").assign_attrs(STACKED | attrs)
    return array.assign_coords(y=array.y + 10 * shift, x=array.x - 10 * shift, epsg=CODE)


@pytest.mark.parametrize("corner", [False, True])
def test_stackstac_coordinates_are_corners_or_centres(corner: bool) -> None:
    array = stacked(corner=corner)
    place = georeference(array)
    assert tuple(place.transform or ())[:6] == UTM[:6]
    assert "32633" in str(place.crs) or "33N" in str(place.crs)
    assert of(array.isel(y=slice(3, None))) == (10, 0, 4e5, 0, -10, 6e6 - 30)
    assert of(array.sortby("y")) == (10, 0, 4e5, 0, 10, 6e6 - 120)
    with pytest.raises(SceneError, match=r"corners or centres.*xy_coords"):
        georeference(array[:, ::2, ::2])
    with pytest.raises(SceneError, match=r"corners or centres.*xy_coords"):
        georeference(array.coarsen(y=2, x=2).mean())


def test_a_transform_of_old_readers_does_not_overrule_centres() -> None:
    array = stacked(corner=False)
    del array.attrs["spec"]
    assert of(array[:, ::2, ::2]) == (20, 0, 4e5 - 5, 0, -20, 6e6 + 5)
    assert of(array.assign_attrs(transform="odd")) == UTM[:6]


@pytest.mark.parametrize(
    "array",
    [
        scene().drop_vars("spatial_ref").assign_attrs(crs="epsg:32633"),
        scene().drop_vars("spatial_ref").assign_attrs({"proj:code": "EPSG:32633"}),
        scene().drop_vars("spatial_ref").assign_coords({"epsg": CODE}),
        scene().drop_vars("spatial_ref").assign_coords({"proj:code": "EPSG:32633"}),
        scene()
        .drop_vars(["spatial_ref", "y", "x"])
        .assign_attrs(
            {"proj:code": "EPSG:32633", "spatial:transform": UTM[:6], "spatial:shape": [12, 14]}
        ),
    ],
)
def test_a_crs_in_attributes(array: xr.DataArray) -> None:
    place = georeference(array)
    assert "UTM zone 33N" in str(place.crs)
    assert tuple(place.transform or ())[:6] == UTM[:6]


@pytest.mark.parametrize(
    ("unit", "factor"), [("km", 1e-3), ("m", 1), ("metre", 1), ("US survey foot", 3937 / 1200)]
)
def test_units_of_coordinates_of_arrays(unit: str, factor: float) -> None:
    array = scene()
    array = array.assign_coords(
        {axis: (axis, array[axis].values * factor, {"units": unit}) for axis in ("y", "x")}
    )
    assert of(array) == pytest.approx(UTM[:6])
    degrees = array.drop_vars("spatial_ref").assign_attrs(crs="EPSG:4326")
    assert f"coordinate y is in {unit}, its CRS is not" in georeference(degrees).problem


@pytest.mark.parametrize("west", [False, True])
def test_scan_angles_of_arrays(west: bool) -> None:
    """Angles of Meteosat Third Generation grow towards the west, and its rows towards the north."""
    height, step = 35_786_400.0, 56e-6
    y, x = -0.1 + step * np.arange(12), -0.15 + step * np.arange(14)
    said = {"units": "radian", "long_name": "azimuth angle encoded as column"} if west else {}
    array = xr.DataArray(
        np.zeros((12, 14)),
        {"y": ("y", y, {"units": "radian"}), "x": ("x", -x if west else x, said)},
        ("y", "x"),
        attrs={"crs": f"+proj=geos +h={height} +lon_0=0 +sweep=y +ellps=WGS84"},
    )
    place = georeference(array)
    a, b, c, d, e, f = (place.transform or Affine.identity())[:6]
    assert (b, d) == (0, 0)
    assert (a, e) == pytest.approx((step * height, step * height))
    assert (c, f) == pytest.approx(((-0.15 - step / 2) * height, (-0.1 - step / 2) * height))
    metres = array.assign_coords(
        y=array.y * height, x=("x", np.abs(x) * height, said | {"units": "m"})
    )
    assert (georeference(metres).transform or Affine.identity()).a < 0  # lengths are as they are


def test_a_stale_geozarr_transform_is_no_place() -> None:
    attrs = {"proj:code": "EPSG:32633", "spatial:transform": UTM[:6], "spatial:shape": [12, 14]}
    array = scene().drop_vars(["spatial_ref", "y", "x"]).assign_attrs(attrs)
    assert "for 12 x 14 px" in georeference(array[:, 2:]).problem


def test_a_crs_that_is_none_is_refused() -> None:
    array = scene().drop_vars("spatial_ref").assign_attrs(crs="nowhere")
    with pytest.raises(SceneError, match=r"CRS that is not known.*rio\.write_crs"):
        georeference(array)


TRANSFORMS = st.one_of(
    st.builds(
        lambda a, e: Affine(a, 0, 4e5, 0, e, 6e6),
        st.sampled_from([10.0, -10.0, 0.3]), st.sampled_from([10.0, -10.0, -0.3]),
    ),
    st.builds(
        lambda lon, step, up: Affine(step, 0, lon, 0, up * step, 46.3),
        st.sampled_from([0.062, 179.95, -180.0]), st.sampled_from([1 / 621, 1e-5, 0.1]),
        st.sampled_from([1, -1]),
    ),
    st.builds(
        lambda turn, flip: Affine.translation(4e5, 6e6) @ Affine.rotation(turn)
        @ Affine.scale(10, 10 * flip),
        st.floats(1, 359), st.sampled_from([1, -1]),
    ),
    st.sampled_from([QUARTER, Affine(0, -10, 4e5, 10, 0, 6e6)]),
)  # fmt: skip
AXES = st.sampled_from(["y", "x"])
OPERATIONS: st.SearchStrategy[Callable[[xr.DataArray], xr.DataArray]] = st.one_of(
    st.builds(lambda n, k: lambda s: s.isel({n: slice(k, None)}), AXES, st.integers(0, 5)),
    st.builds(lambda n, k: lambda s: s.isel({n: slice(None, None, k)}), AXES, st.integers(2, 3)),
    st.builds(lambda n: lambda s: s.isel({n: slice(None, None, -1)}), AXES),
    st.builds(lambda n, up: lambda s: s.sortby(n, ascending=up), AXES, st.booleans()),
    st.builds(
        lambda n, k: lambda s: s.coarsen({n: k}, boundary="trim").mean(), AXES, st.integers(2, 3)
    ),
)


def placed(transform: Affine, height: int, width: int) -> xr.DataArray:
    """An array as the library opens it, whose two bands are the true x and y of each pixel."""
    rows, cols = np.mgrid[:height, :width] + 0.5
    coords: dict[str, Any] = {}
    for name, size in (("y", height), ("x", width)):
        start, step = (transform.f, transform.e) if name == "y" else (transform.c, transform.a)
        centres = np.arange(size) + 0.5
        if transform.b or transform.d:
            coords[name] = (name, centres, {"units": "pixel", "transform": transform[:6]})
        else:
            coords[name] = start + step * centres
    x = transform.a * cols + transform.b * rows + transform.c
    y = transform.d * cols + transform.e * rows + transform.f
    truth = xr.DataArray(np.stack([x, y]), dims=("band", "y", "x"), coords=coords)
    crs = 4326 if abs(transform.c) <= 180 else CODE
    return truth.rio.write_crs(crs).rio.write_transform(transform)


@settings(max_examples=200, deadline=None)
@given(transform=TRANSFORMS, operations=st.lists(OPERATIONS, max_size=3))
def test_every_pixel_lies_where_it_is(
    transform: Affine, operations: list[Callable[[xr.DataArray], xr.DataArray]]
) -> None:
    truth = placed(transform, 40, 60)
    for operation in operations:
        truth = operation(truth)
    made = georeference(truth).transform
    assert made is not None
    rows, cols = np.mgrid[: truth.sizes["y"], : truth.sizes["x"]] + 0.5
    x = made.a * cols + made.b * rows + made.c
    y = made.d * cols + made.e * rows + made.f
    pixel = np.hypot(transform.a, transform.d)
    assert np.abs(np.stack([x, y]) - truth.values).max() < 1e-4 * pixel


def test_a_rotated_array_of_rioxarray_knows_its_place_after_slices(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=12, width=14, dtype="uint8",
        crs="EPSG:32633", transform=TILTED,
    ) as file:  # fmt: skip
        file.write(np.zeros((1, 12, 14), np.uint8))
    array = rioxarray.open_rasterio(path)[0]
    assert of(array) == TILTED[:6]
    assert of(array[3:, 5:]) == pytest.approx((TILTED @ Affine.translation(5, 3))[:6])
    turned = array[::-2, ::3]
    assert of(turned) == pytest.approx(
        (
            TILTED
            @ Affine.translation(0.5, 11.5)
            @ Affine.scale(3, -2)
            @ Affine.translation(-0.5, -0.5)
        )[:6]
    )
    assert "single row" in georeference(array[3:4]).problem
    assert of(array[:1]) == TILTED[:6]
