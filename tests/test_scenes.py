"""Opening scenes: lazily, rightly, and with a clear word where it cannot be done."""

from __future__ import annotations

import pickle
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.scenes.rasters import FileScene
from uniadrs_scale.scenes.sources import ArrayScene, scene_source

if TYPE_CHECKING:
    from pathlib import Path

UTM = {"crs": "EPSG:32632", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}


def write(path: Path, pixels: np.ndarray, **profile: object) -> Path:
    """A GeoTIFF of (band, y, x) pixels."""
    bands, height, width = pixels.shape
    settings = UTM | {"count": bands, "height": height, "width": width, "dtype": pixels.dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", **settings | profile) as file:
            file.write(pixels)
    return path


def noise(bands: int = 3, height: int = 40, width: int = 50, dtype: str = "uint16") -> np.ndarray:
    values = np.random.default_rng(bands).integers(1, 250, (bands, height, width))
    return values.astype(dtype)


def test_open_is_lazy_and_says_where(tmp_path: Path) -> None:
    pixels = noise()
    pixels[:, :5] = 0
    scene = us.open_scene(write(tmp_path / "a.tif", pixels, nodata=0), chunk=16)
    assert scene.dims == ("band", "y", "x")
    assert scene.chunks is not None
    assert scene.rio.crs.to_epsg() == 32632
    assert scene.rio.transform() == UTM["transform"]
    assert scene.rio.nodata == 0
    assert scene.dtype == np.uint16
    np.testing.assert_array_equal(scene.values, pixels)
    np.testing.assert_array_equal(scene.valid.values, pixels[0] != 0)
    assert float(scene.x[0]) == 500_005
    assert float(scene.y[0]) == 4_999_995


@given(
    st.tuples(*[st.slices(n) for n in (3, 40, 50)]),
    st.booleans(),
)
@settings(max_examples=60)
def test_lazy_slices_equal_numpy_slices(
    tmp_path_factory: pytest.TempPathFactory, key: tuple[slice, ...], integer: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "slices.tif"
    pixels = noise()
    if not path.exists():
        write(path, pixels)
    scene = us.open_scene(path, chunk=17)
    if integer:
        key = (key[0], 7, key[2])
    np.testing.assert_array_equal(scene[key].values, pixels[key])


def test_one_file_a_band(tmp_path: Path) -> None:
    pixels = noise()
    files = [write(tmp_path / f"B{k}.tif", pixels[k : k + 1]) for k in range(3)]
    scene = us.open_scene(files)
    assert list(scene.band.values) == ["B0", "B1", "B2"]
    np.testing.assert_array_equal(scene.values, pixels)
    swapped = us.open_scene(files, bands=["B2", 1])
    np.testing.assert_array_equal(swapped.values, pixels[[2, 0]])


def test_alpha_and_masks_make_the_valid_mask(tmp_path: Path) -> None:
    pixels = noise(4, dtype="uint8")
    pixels[3] = 255
    pixels[3, 10:20] = 0
    path = write(tmp_path / "rgba.tif", pixels, photometric="RGB", alpha="YES")
    with rasterio.open(path) as file:
        assert file.colorinterp[3] == ColorInterp.alpha
    scene = us.open_scene(path)
    np.testing.assert_array_equal(scene.values, pixels[:3])
    np.testing.assert_array_equal(scene.valid.values, pixels[3] > 0)


def test_nodata_can_be_given_or_denied(tmp_path: Path) -> None:
    pixels = noise()
    pixels[1, 3, 4] = 0
    path = write(tmp_path / "a.tif", pixels, nodata=0)
    assert not us.open_scene(path).valid[3, 4]
    assert us.open_scene(path, nodata=None).valid.all()
    value = int(pixels[0, 0, 0])
    assert us.open_scene(path, nodata=value).valid[0, 0]  # in one band only
    assert not us.open_scene(path, nodata=value, nodata_when="any").valid[0, 0]
    assert us.open_scene(path, nodata_when="all").valid[3, 4]


def test_an_untouched_scene_is_read_from_its_files_any_other_from_its_array(
    tmp_path: Path,
) -> None:
    scene = us.open_scene(write(tmp_path / "a.tif", noise()))
    assert isinstance(scene_source(scene), FileScene)
    assert isinstance(scene_source(scene.rename("x").assign_attrs(a=1)), FileScene)
    for touched in (
        scene * 1,
        scene.isel(band=[0, 1]),
        scene.isel(y=slice(1, None)),
        scene.transpose("y", "x", "band"),
        scene.assign_coords(valid=(("y", "x"), np.ones((40, 50), bool))),
        scene.drop_vars("valid"),
        scene.load(),
    ):
        assert isinstance(scene_source(touched), ArrayScene)


def test_file_and_array_give_the_same_map(tmp_path: Path) -> None:
    pixels = noise(height=300, width=280)
    pixels[:, 100:140, 30:90] = 0
    scene = us.open_scene(write(tmp_path / "a.tif", pixels, nodata=0), chunk=64)
    options = {"detector": FirstBand(), "scheduler": "sync", "chunk": 256}
    expected = us.score(scene, **options)
    for same in (scene.load(), scene.transpose("x", "y", "band"), scene.astype("float64")):
        got = us.score(same, **options)
        np.testing.assert_array_equal(got.values, expected.values)
        assert got.rio.crs == expected.rio.crs
        assert got.rio.transform() == expected.rio.transform()
    assert np.isnan(expected.values[100:140, 30:90]).all()


def test_band_maths_on_a_lazy_scene_is_scored(tmp_path: Path) -> None:
    scene = us.open_scene(write(tmp_path / "a.tif", noise(height=100, width=90)))
    ratio = scene.isel(band=0) / (scene.isel(band=1) + 1.0)
    got = us.score(ratio, detector=FirstBand(), scheduler="threads")
    assert got.shape == (100, 90)
    assert np.isfinite(got.values).all()


def test_a_changed_file_is_another_scene(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise())
    first = scene_source(us.open_scene(path)).info.identity
    assert scene_source(us.open_scene(path)).info.identity == first
    changed = noise() + 1
    write(path, changed)
    scene = us.open_scene(path)
    assert scene_source(scene).info.identity != first
    np.testing.assert_array_equal(scene.values, changed)


def test_a_window_travels_small(tmp_path: Path) -> None:
    source = scene_source(us.open_scene(write(tmp_path / "a.tif", noise())))
    message = pickle.dumps(source.window(Window(3, 4, 5, 6)))
    assert len(message) < 3000
    pixels, valid = pickle.loads(message).read()
    np.testing.assert_array_equal(pixels, noise()[:, 3:8, 4:10])
    assert valid.shape == (5, 6)


def test_no_georeference_is_no_obstacle(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(), crs=None, transform=Affine.identity())
    scene = us.open_scene(path)
    assert scene_source(scene).info.transform is None
    got = us.score(scene, detector=FirstBand(), scheduler="sync")
    assert got.rio.crs is None


def test_what_cannot_be_a_scene_is_refused_with_one_sentence(tmp_path: Path) -> None:
    a = write(tmp_path / "a.tif", noise(1))
    (tmp_path / "text.tif").write_text("no raster")
    other = Affine(10, 0, 500_010, 0, -10, 5_000_000)
    cases = {
        r"got an empty list": [],
        r"'.*none.tif' does not exist": [tmp_path / "none.tif"],
        r"text.tif' is not a raster that can be opened: not recognized as .* file format\. Give": [
            tmp_path / "text.tif"
        ],
        r"'b.tif' has 2 bands but 'a.tif' has 1": [a, write(tmp_path / "b.tif", noise(2))],
        r"'c.tif' and 'a.tif' have different CRS \(.* zone 33N, .* zone 32N\)": [
            a,
            write(tmp_path / "c.tif", noise(1), crs="EPSG:32633"),
        ],
        r"'d.tif' has 40 x 50 px at \(500010, 5000000\) but 'a.tif'": [
            a,
            write(tmp_path / "d.tif", noise(1), transform=other),
        ],
        r"holds complex values": [write(tmp_path / "e.tif", noise(1, dtype="complex64"))],
    }
    for message, files in cases.items():
        with pytest.raises(us.SceneError, match=message):
            us.open_scene(files)
    with pytest.raises(us.SceneError, match=r"Band '7' is not one of .*a.tif', which has a\. "):
        us.open_scene(a, bands=[7])
    with pytest.raises(us.SceneError, match=r"Name them: xr.DataArray\(cube, dims="):
        us.score(np.zeros((3, 4, 5)), scheduler="sync")  # type: ignore[arg-type]
    with pytest.raises(us.SceneError, match=r"has dims \('p', 'q'\)"):
        us.score(xr.DataArray(np.zeros((4, 5)), dims=("p", "q")), scheduler="sync")


def test_hard_formats_open(shared: Path) -> None:
    formats = shared / "data" / "formats"
    coast = sorted((formats / "sentinel2_coast_one_file_per_band").glob("*.tiff"))
    scene = us.open_scene(coast, nodata=255)
    assert scene.shape == (8, 2201, 2629)
    assert 0.6 < float(scene.valid.mean()) < 0.75
    edges = us.open_scene(formats / "landsat8_nodata_edges" / "LC08_B2_60m.TIF", nodata=0)
    assert 0 < float(edges.valid.mean()) < 1
    swath = us.open_scene(formats / "sentinel1_swath_gcps.tif")
    assert scene_source(swath).info.transform is None
    mixed = sorted((formats / "landsat8_mixed_resolution").glob("l8_B[78].tif"))
    with pytest.raises(us.SceneError, match=r"must share one grid"):
        us.open_scene(mixed)
