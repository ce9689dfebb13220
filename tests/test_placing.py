"""A planted pixel is in its place in the plan, the store, its coordinates, overviews and COG."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import odc.geo.xr  # noqa: F401 - registers the `.odc` accessor
import pytest
import rasterio
import xarray as xr
import zarr
from affine import Affine
from geozarr import MULTISCALES, PROJ, SPATIAL, faults
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rio_cogeo import cog_validate
from standins import FirstBand
from swaths import Swath, store_of
from test_georeference import OPERATIONS, QUARTER, STACKED, TILTED, TRANSFORMS, UTM

import uniadrs_scale as us
from uniadrs_scale.errors import PlaceWarning
from uniadrs_scale.maps.pyramids import finish
from uniadrs_scale.maps.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEIGHT, WIDTH = 60, 70


def raster(path: Path, transform: Affine | None = UTM, crs: Any = None) -> xr.DataArray:
    """A file whose two bands are the true x and y of each pixel, opened."""
    rows, cols = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    at = transform or Affine.identity()
    truth = np.stack([at.a * cols + at.b * rows + at.c, at.d * cols + at.e * rows + at.f])
    code = 4326 if abs(at.c) <= 180 else 32633
    profile = {
        "driver": "GTiff", "count": 2, "height": HEIGHT, "width": WIDTH, "dtype": "float64",
        "crs": crs or f"EPSG:{code}", "transform": transform,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **{k: v for k, v in profile.items() if v is not None}) as f:
            f.write(truth)
        return us.open_scene(path)


def plan_of(scene: xr.DataArray) -> Any:
    return us.plan(scene, tile=32, chunk=512, detector=FirstBand(), scheduler="sync")


def planted(folder: Path, scene: xr.DataArray, row: int, col: int) -> Path:
    """A store of ``scene`` in which one pixel is higher than the others."""
    score = np.full((scene.sizes["y"], scene.sizes["x"]), 0.25, np.float32)
    score[row, col] = 1
    return store_of(scene, score, folder / "s.zarr", chunk=512)


def places(store: Path, folder: Path) -> dict[str, tuple[float, float]]:
    """Where each reader of a map sees the highest pixel."""
    found = {}
    with xr.open_zarr(store, decode_coords="all") as dataset:
        score = dataset["score"].load()
    row, col = (int(k) for k in np.argwhere(score.values == 1)[0])
    middle = col + 0.5, row + 0.5
    found["spatial:transform"] = Affine(*score.attrs["spatial:transform"]) @ middle
    written = Affine.from_gdal(*map(float, score.spatial_ref.attrs["GeoTransform"].split()))
    found["GeoTransform"] = written @ middle
    if written.a:  # rioxarray takes a quarter turn for none
        found["rioxarray"] = score.rio.transform() @ middle
    found["odc-geo"] = score.odc.geobox.affine @ middle
    if "y" in score.coords:
        found["coordinates"] = float(score.x[col]), float(score.y[row])
    path = us.to_cog(store, folder / "s.tif")
    with rasterio.open(path) as file:
        ((row, col),) = np.argwhere(file.read(1) == 1)
        found["COG"] = file.transform @ (col + 0.5, row + 0.5)
        assert file.crs == score.rio.crs
    return found


@settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(
    transform=TRANSFORMS,
    operations=st.lists(OPERATIONS, max_size=3),
    at=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_a_planted_pixel_lies_where_it_is(
    tmp_path_factory: pytest.TempPathFactory,
    transform: Affine,
    operations: list[Callable[[xr.DataArray], xr.DataArray]],
    at: tuple[float, float],
) -> None:
    folder = tmp_path_factory.mktemp("placing")
    scene = raster(folder / "in.tif", transform)
    for operation in operations:
        scene = operation(scene)
    scene = scene.assign_coords(valid=scene.valid == 1)  # coarsening averages it
    row, col = int(at[0] * scene.sizes["y"]), int(at[1] * scene.sizes["x"])
    truth = scene.isel(y=row, x=col).values
    pixel = np.hypot(transform.a, transform.d)
    found = places(planted(folder, scene, row, col), folder)
    wrong = {
        name: place for name, place in found.items() if np.abs(place - truth).max() > pixel / 100
    }
    assert not wrong, truth


@pytest.mark.parametrize("transform", [UTM, TILTED, QUARTER])
def test_a_place_corrected_on_an_opened_scene_is_used(tmp_path: Path, transform: Affine) -> None:
    scene = raster(tmp_path / "in.tif", transform)
    before = plan_of(scene)
    assert before.scene.transform == pytest.approx(transform[:6], abs=1e-9)
    crs = plan_of(scene.rio.write_crs(32634))
    assert "34N" in crs.scene.crs
    assert crs.fingerprint != before.fingerprint
    assert plan_of(scene.rio.write_crs(32633)).fingerprint == before.fingerprint
    moved = Affine.translation(30, 0) @ transform
    written = scene.rio.write_transform(moved)
    assert plan_of(written).scene.transform == pytest.approx(moved[:6])
    assert plan_of(written).fingerprint != before.fingerprint
    found = places(planted(tmp_path, written.rio.write_crs(32634), 3, 5), tmp_path)
    for place in found.values():
        assert place == pytest.approx(moved @ (5.5, 3.5))
    with zarr.open_group(tmp_path / "s.zarr", mode="r").store:
        attrs = zarr.open_group(tmp_path / "s.zarr", mode="r")["score"].attrs
    assert attrs["proj:code"] == "EPSG:32634"


def test_coordinates_corrected_on_an_opened_scene_are_used(tmp_path: Path) -> None:
    scene = raster(tmp_path / "in.tif")
    corrected = scene.assign_coords(x=scene.x + 1000)
    assert plan_of(corrected).scene.transform == (10, 0, 401_000, 0, -10, 6e6)
    assert plan_of(corrected).fingerprint != plan_of(scene).fingerprint
    assert plan_of(scene[:, ::2, ::2]).scene.gsd_m == pytest.approx(20, rel=0.01)


def test_attributes_of_stackstac_are_a_place(tmp_path: Path) -> None:
    y, x = 6e6 - 10 * np.arange(HEIGHT), 4e5 + 10 * np.arange(WIDTH)
    scene = xr.DataArray(
        np.ones((2, HEIGHT, WIDTH)), dims=("band", "y", "x"),
        coords={"y": y, "x": x, "epsg": 32633}, attrs=STACKED,
    )  # fmt: skip
    for place in places(planted(tmp_path, scene, 7, 9), tmp_path).values():
        assert place == pytest.approx(UTM @ (9.5, 7.5))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: s.isel(x=[0, 1, 2, 5, 7, 11]), "coordinate x is not evenly spaced"),
        (lambda s: s.isel(y=[4, 4, 5]), "coordinate y repeats values"),
        (lambda s: s.drop_vars(["x", "y"]).reset_coords("spatial_ref", drop=True), ""),
    ],
)
def test_a_scene_without_a_place_gives_a_map_without_one(
    tmp_path: Path, change: Callable[[xr.DataArray], xr.DataArray], why: str
) -> None:
    scene = change(raster(tmp_path / "in.tif"))
    plan = plan_of(scene)
    assert (plan.scene.crs, plan.scene.transform) == (None, None)
    assert why in plan.text()
    store = planted(tmp_path, scene, 1, 1)
    attrs = zarr.open_group(store, mode="r")["score"].attrs
    assert not [key for key in attrs if key.startswith(("spatial:", "proj:"))]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", PlaceWarning)
        us.to_cog(store, tmp_path / "s.tif")
        with rasterio.open(tmp_path / "s.tif") as file:
            assert (file.crs, file.transform) == (None, Affine.identity())
    assert bool(why) == any("no place on the ground" in str(w.message) for w in caught)


def test_a_single_row_keeps_its_place_or_says_that_it_has_none(tmp_path: Path) -> None:
    scene = raster(tmp_path / "in.tif")
    assert plan_of(scene.isel(y=[5])).scene.transform == (10, 0, 4e5, 0, -10, 6e6 - 50)
    bare = scene.isel(y=[5]).drop_vars("spatial_ref")
    assert plan_of(bare).scene.transform is None
    assert "size of its single row of pixels is unknown" in plan_of(bare).text()


def test_geozarr_attributes_on_array_and_root(tmp_path: Path) -> None:
    store = planted(tmp_path, raster(tmp_path / "in.tif"), 1, 1)
    for node in (store, store / "score"):
        attributes = json.loads((node / "zarr.json").read_text())["attributes"]
        assert [(c["uuid"][:8], c["name"]) for c in attributes["zarr_conventions"]] == [
            ("689b58e2", "spatial"), ("f17cb550", "proj:"),
        ]  # fmt: skip
        assert attributes["proj:code"] == "EPSG:32633"
        assert not {"proj:wkt2", "proj:projjson"} & set(attributes)
        assert attributes["spatial:dimensions"] == ["y", "x"]
        assert attributes["spatial:transform"] == list(UTM[:6])
        assert attributes["spatial:shape"] == [HEIGHT, WIDTH]
        assert attributes["spatial:bbox"] == [4e5, 6e6 - 600, 4e5 + 700, 6e6]
        assert not faults(node, SPATIAL, PROJ)


def test_a_crs_without_a_code_is_written_in_words(tmp_path: Path) -> None:
    local = "+proj=laea +lat_0=50 +lon_0=11 +datum=WGS84"
    store = planted(tmp_path, raster(tmp_path / "in.tif", crs=local), 1, 1)
    attributes = json.loads((store / "score" / "zarr.json").read_text())["attributes"]
    assert "proj:code" not in attributes
    assert not faults(store / "score", SPATIAL, PROJ)
    assert rasterio.CRS.from_wkt(attributes["proj:wkt2"]) == rasterio.CRS.from_string(local)


@pytest.mark.parametrize("rotated", [False, True])
def test_overviews_of_a_finished_store(tmp_path: Path, rotated: bool) -> None:
    height, width = 1500, 1101
    transform = TILTED if rotated else UTM
    scene = (
        xr.DataArray(np.ones((1, height, width), np.float32), dims=("band", "y", "x"))
        .rio.write_crs(32633)
        .rio.write_transform(transform)
    )
    score = np.random.default_rng(0).random((height, width), np.float32)
    score[:600, :200] = np.nan
    path = store_of(scene, score, tmp_path / "s.zarr", chunk=512)
    before = {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    finish(open_store(path))
    after = {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        levels = [
            xr.open_zarr(path, group=group, decode_coords="all")
            for group in (None, "overviews/1", "overviews/2")
        ]
        root = xr.open_zarr(path)
    layout = root.attrs["multiscales"]["layout"]
    assert [entry["asset"] for entry in layout] == [
        "score", "overviews/1/score", "overviews/2/score",
    ]  # fmt: skip
    expected = score
    for k, (level, entry) in enumerate(zip(levels, layout, strict=True)):
        np.testing.assert_array_equal(level["score"].values, expected)
        at = transform @ Affine.scale(2**k)
        assert entry["spatial:transform"] == list(at[:6])
        assert entry["spatial:shape"] == list(expected.shape)
        assert level["score"].attrs["spatial:transform"] == list(at[:6])
        assert level["score"].rio.transform()[:6] == pytest.approx(at[:6])
        padded = np.pad(expected, [(0, n % 2) for n in expected.shape], constant_values=np.nan)
        h, w = (n // 2 for n in padded.shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            expected = np.nanmax(padded.reshape(h, 2, w, 2), axis=(1, 3))
    assert not faults(path, MULTISCALES, SPATIAL, PROJ)
    for name in ("score", "overviews/1/score", "overviews/2/score"):
        assert not faults(path / name, SPATIAL, PROJ)
    # Not open_datatree: a group below another shares its sizes there.
    groups = xr.open_groups(path, engine="zarr")
    assert groups["/overviews/2"].sizes == {"y": 375, "x": 276}
    tree = xr.open_datatree(path, engine="zarr", group="overviews")
    assert tree["2"].sizes == {"y": 375, "x": 276}
    assert "spatial:transform" not in root.attrs  # where levels say it, the root does not
    assert [c["name"] for c in root.attrs["zarr_conventions"]] == [
        "multiscales", "spatial", "proj:",
    ]  # fmt: skip
    # Whatever was interrupted is done again to the same bytes; a finished store stays.
    finish(open_store(path))
    again = {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    assert again == after
    root_json = next(p for p in before if p.name == "zarr.json" and len(p.parts) == 1)
    (path / root_json).write_bytes(before[root_json])
    (path / "overviews" / "1" / "score" / "c" / "0" / "0").unlink()
    finish(open_store(path))
    again = {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    assert again == after


@pytest.mark.parametrize(("height", "width"), [(1, 1), (700, 1), (1300, 1), (1, 1300), (1300, 2)])
def test_a_narrow_cog_is_valid(tmp_path: Path, height: int, width: int) -> None:
    scene = xr.DataArray(np.ones((1, height, width), np.float32), dims=("band", "y", "x"))
    scene = scene.rio.write_crs(32633).rio.write_transform(UTM)
    path = us.to_cog(planted(tmp_path, scene, 0, 0), tmp_path / "s.tif")
    valid, errors, _ = cog_validate(path, quiet=True)
    assert (valid, errors) == (True, [])
    with rasterio.open(path) as file:
        assert file.transform == UTM


@pytest.mark.parametrize(("rows", "cols"), [([40], [60]), ([40, 40], [60, 61]), (range(30), [0])])
def test_swath_pixels_at_null_island_are_left_out(tmp_path: Path, rows: Any, cols: Any) -> None:
    swath = Swath()
    scene = swath.scene()
    latitude, longitude = scene.latitude.values.copy(), scene.longitude.values.copy()
    lost = {(r, c) for r in rows for c in cols}
    for place in lost:
        latitude[place] = longitude[place] = 0
    score = np.random.default_rng(0).random((swath.height, swath.width), np.float32) / 2
    score[70, 80] = 1
    damaged = scene.assign_coords(
        latitude=(("y", "x"), latitude), longitude=(("y", "x"), longitude)
    )
    whole = us.to_cog(store_of(scene, score, tmp_path / "w.zarr"), tmp_path / "w.tif")
    store = store_of(damaged, score, tmp_path / "s.zarr")
    with pytest.warns(PlaceWarning, match=rf"^{len(lost)} of 18000 pixels are left out"):
        us.to_cog(store, tmp_path / "s.tif")
    with rasterio.open(whole) as ours, rasterio.open(tmp_path / "s.tif") as file:
        assert file.crs == ours.crs
        assert np.abs(np.subtract(file.bounds, ours.bounds)).max() < 5 * file.res[0]
        ((row, col),) = np.argwhere(file.read(1) == 1)
        ((own_row, own_col),) = np.argwhere(ours.read(1) == 1)
        assert file.xy(row, col) == pytest.approx(ours.xy(own_row, own_col), abs=file.res[0])
