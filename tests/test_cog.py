"""The COG holds the store's bits, its overviews maxima, and a failure leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import rioxarray  # noqa: F401 - registers the `.rio` accessor
import xarray as xr
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio._err import CPLE_AppDefinedError
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rio_cogeo import cog_validate
from zarr.codecs import BloscCodec, Crc32cCodec

from uniadrs_scale.errors import PlanError, StoreError
from uniadrs_scale.maps import cog
from uniadrs_scale.maps.overviews import BLOCK, max_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

TRANSFORM = Affine(10, 0, 600_000, 0, -10, 5_100_000)
TILTED = Affine(9, 3, 600_000, 3, -9, 5_100_000)
DEGREES = Affine(
    1 / 621, 0, 0.062, 0, -1 / 621, 46.3
)  # 0.062 + half a pixel - half a pixel is not 0.062
CRS = rasterio.CRS.from_epsg(32632)


@contextmanager
def quiet() -> Iterator[None]:
    """Reading a raster without georeference warns, and writing one with rioxarray does too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        yield


def write_store(
    path: Path,
    score: np.ndarray[Any, Any],
    *,
    crs: Any = CRS,
    transform: Affine | None = TRANSFORM,
    shard: int = 1024,
) -> Path:
    """A score store as small as the contract allows."""
    frame = xr.Dataset()
    if transform is not None and not transform.b:
        x = transform.c + (np.arange(score.shape[1]) + 0.5) * transform.a
        y = transform.f + (np.arange(score.shape[0]) + 0.5) * transform.e
        frame = frame.assign_coords(x=x, y=y)
    with quiet():
        if crs is not None:
            frame = frame.rio.write_crs(crs)
        if transform is not None:
            frame = frame.rio.write_transform(transform)
    frame.attrs = {"fingerprint": "0123abc", "software": "uniadrs_scale 9.8.7"}
    frame.to_zarr(path, zarr_format=3, consolidated=False)
    array = zarr.open_group(path, mode="r+").create_array(
        "score",
        shape=score.shape,
        chunks=(512, 512),
        shards=(shard, shard),
        dtype="float32",
        fill_value=np.nan,
        compressors=(BloscCodec(), Crc32cCodec()),
        dimension_names=("y", "x"),
        attributes={"grid_mapping": "spatial_ref"} if "spatial_ref" in frame.coords else {},
    )
    array[:] = score
    return path


def random_score(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Scores with scattered NaN and, if there is room, a wholly invalid corner."""
    rng = np.random.default_rng(seed)
    score = rng.random((height, width), np.float32)
    score[rng.random(score.shape) < 0.3] = np.nan
    score[: height // 2, : width // 2] = np.nan
    return score


def nan_max_pool(score: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The slow and obvious one."""
    height, width = (-(-n // 2) for n in score.shape)
    pooled = np.full((height, width), np.nan, np.float32)
    for row in range(height):
        for col in range(width):
            block = score[2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
            if np.isfinite(block).any():
                pooled[row, col] = np.nanmax(block)
    return pooled


def same_bits(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    return a.shape == b.shape and np.array_equal(a.view(np.uint32), b.view(np.uint32))


@settings(max_examples=25, deadline=None)
@given(
    # Not one column: rasterio tells an overview's factor by its width, and 1 / 1 is no factor.
    # Not one block: rio-cogeo takes a file of that width for one without tiles.
    shape=st.tuples(st.integers(1, 1200), st.integers(2, 1200).filter(lambda side: side != BLOCK)),
    seed=st.integers(0, 2**32 - 1),
    georeference=st.sampled_from([{}, {"crs": None, "transform": None}]),
)
def test_any_shape_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int],
    seed: int,
    georeference: dict[str, Any],
) -> None:
    folder = tmp_path_factory.mktemp("cog")
    score = random_score(*shape, seed)
    path = cog.to_cog(write_store(folder / "s.zarr", score, **georeference), folder / "s.tif")
    with quiet():
        assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
        with rasterio.open(path) as output:
            assert same_bits(output.read(1), score)
            assert np.isnan(output.nodata)
            assert output.crs == georeference.get("crs", CRS)
            assert output.transform == (Affine.identity() if georeference else TRANSFORM)
            assert bool(output.overviews(1)) == (max(shape) > BLOCK)
    assert sorted(p.name for p in folder.iterdir()) == ["s.tif", "s.zarr"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 4), (33, 50)])
def test_max_pool_is_the_nan_maximum(shape: tuple[int, int]) -> None:
    score = random_score(*shape)
    assert np.array_equal(max_pool(score), nan_max_pool(score), equal_nan=True)


# Around the sides at which a window, a level or a block begins.
@pytest.mark.parametrize("shape", [(513, 40), (1024, 1025), (2049, 130), (120, 3100)])
def test_overviews_are_nan_max_pools(tmp_path: Path, shape: tuple[int, int]) -> None:
    expected = random_score(*shape)
    path = cog.to_cog(write_store(tmp_path / "s.zarr", expected), tmp_path / "s.tif")
    with rasterio.open(path) as output:
        levels = output.overviews(1)
    assert levels == [2 ** (k + 1) for k in range(len(levels))]
    for level in range(len(levels)):
        expected = nan_max_pool(expected)
        with rasterio.open(path, overview_level=level) as overview:
            assert same_bits(overview.read(1), expected)
    assert max(expected.shape) <= BLOCK


def test_a_narrow_anomaly_is_as_high_in_the_coarsest_overview(tmp_path: Path) -> None:
    score = np.zeros((2100, 2100), np.float32)
    score[1001:1003, 777] = 0.75
    path = cog.to_cog(write_store(tmp_path / "s.zarr", score), tmp_path / "s.tif")
    with rasterio.open(path) as output:
        thumbnail = output.read(1, out_shape=(263, 263))
    assert thumbnail.max() == np.float32(0.75)


@pytest.mark.parametrize("shard", [512, 1536])
def test_shards_do_not_show(tmp_path: Path, shard: int) -> None:
    score = random_score(1700, 1300)
    store = write_store(tmp_path / "s.zarr", score, shard=shard)
    with rasterio.open(cog.to_cog(store, tmp_path / "s.tif")) as output:
        assert same_bits(output.read(1), score)


@pytest.mark.parametrize("transform", [TRANSFORM, TILTED, DEGREES])
def test_transform_keeps_its_bits(tmp_path: Path, transform: Affine) -> None:
    store = write_store(tmp_path / "s.zarr", random_score(30, 31), transform=transform)
    with rasterio.open(cog.to_cog(store, tmp_path / "s.tif")) as output:
        assert output.transform == transform


def test_coordinates_overrule_a_stale_transform(tmp_path: Path) -> None:
    # What `scene.isel(...)` leaves: coordinates of the slice, GeoTransform of the whole.
    store = write_store(tmp_path / "s.zarr", random_score(30, 31))
    whole = TRANSFORM @ Affine.translation(-400, -20)
    attributes = zarr.open_group(store, mode="r+")["spatial_ref"].attrs
    attributes["GeoTransform"] = " ".join(str(v) for v in whole.to_gdal())
    with rasterio.open(cog.to_cog(store, tmp_path / "s.tif")) as output:
        assert output.transform == TRANSFORM


def test_transform_without_crs_is_kept(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", random_score(30, 31), crs=None)
    with rasterio.open(cog.to_cog(store, tmp_path / "s.tif")) as output:
        assert (output.crs, output.transform) == (None, TRANSFORM)


def test_file_says_what_it_is(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", random_score(30, 30))
    with rasterio.open(cog.to_cog(store, tmp_path / "s.tif")) as output:
        tags, profile = output.tags(), output.profile
        assert output.descriptions == ("score",)
        assert output.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"
    assert tags["fingerprint"] == "0123abc"
    assert tags["TIFFTAG_SOFTWARE"] == "uniadrs_scale 9.8.7"
    assert tags["AREA_OR_POINT"] == "Area"
    assert (profile["compress"], profile["blockxsize"]) == ("deflate", 512)


def test_odd_floats_survive(tmp_path: Path) -> None:
    score = random_score(600, 600)
    score[:500] = np.uint32(0xFFC00001).view(np.float32)  # a NaN that is not the usual one
    score[550], score[551] = -0.0, np.inf
    store = write_store(tmp_path / "s.zarr", score)
    with rasterio.open(cog.to_cog(store, tmp_path / "s.tif")) as output:
        assert same_bits(output.read(1), score)


@pytest.mark.parametrize(("states", "missing"), [([[1, 0], [1, 2]], 2), ([[1, 1]], 0)])
def test_incomplete_store_is_told(tmp_path: Path, states: list[list[int]], missing: int) -> None:
    store = write_store(tmp_path / "s.zarr", random_score(30, 30))
    done = np.array(states, np.uint8)
    zarr.open_group(store, mode="r+").create_array(
        "done", data=done, dimension_names=("chunk_y", "chunk_x")
    )
    if not missing:
        cog.to_cog(store, tmp_path / "s.tif")
        return
    with pytest.warns(UserWarning, match=f"{missing} of {done.size} chunks .* nodata") as caught:
        cog.to_cog(store, tmp_path / "s.tif")
    assert caught[0].filename == __file__


def test_missing_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no.zarr' does not exist. Check the path"):
        cog.to_cog(tmp_path / "no.zarr", tmp_path / "s.tif")


def test_not_a_score_store(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=r"not a score store \(no Zarr group\)"):
        cog.to_cog(tmp_path / "folder", tmp_path / "s.tif")
    group = zarr.open_group(tmp_path / "other.zarr", mode="w")
    with pytest.raises(StoreError, match=r"not a score store \(no array 'score'\)"):
        cog.to_cog(tmp_path / "other.zarr", tmp_path / "s.tif")
    group.create_array("score", data=np.zeros((2, 2, 2)))
    with pytest.raises(StoreError, match=r"'score' is float64 with 3 axes"):
        cog.to_cog(tmp_path / "other.zarr", tmp_path / "s.tif")


def test_damaged_chunk(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", random_score(30, 30))
    chunk = store / "score" / "c" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 3] ^= 0xFF
    chunk.write_bytes(content)
    with pytest.raises(StoreError, match=r"Rows 0 to 30, columns 0 to 30 of .* cannot be read"):
        cog.to_cog(store, tmp_path / "s.tif")
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_only_maps_are_replaced(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", random_score(30, 30))
    array = xr.open_zarr(store, consolidated=False)["score"]
    scene = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "height": 30, "width": 30, "count": 4, "dtype": "uint16"}
    with rasterio.open(scene, "w", **profile, crs=CRS, transform=TRANSFORM):
        pass
    (tmp_path / "notes.tif").write_text("notes")
    for path in (scene, tmp_path / "notes.tif"):
        before = path.read_bytes()
        for written in (store, array):
            with pytest.raises(StoreError, match="exists and is not a map"):
                cog.to_cog(written, path)
        assert path.read_bytes() == before
    made = cog.to_cog(array + 0.1, tmp_path / "map.tif")
    for written in (store, array, store):  # a map of an array, and one of a run, are ours
        assert cog.to_cog(written, made) == made
    with rasterio.open(made) as output:
        assert same_bits(output.read(1), array.values)


def test_output_folder_missing(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", random_score(30, 30))
    with pytest.raises(StoreError, match=r"Output folder '.*nowhere' does not exist"):
        cog.to_cog(store, tmp_path / "nowhere" / "s.tif")
    with pytest.raises(StoreError, match="is a folder, and a COG is a file"):
        cog.to_cog(store, tmp_path)


def test_output_folder_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pretended: root, as which containers run tests, may write into any folder.
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    store = write_store(tmp_path / "s.zarr", random_score(30, 30))
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"Permission denied.*Check free space and permissions"):
        cog.to_cog(store, tmp_path / "s.tif")


# GDAL's own class was met when the disk filled up while a file was closed.
@pytest.mark.parametrize(
    "error", [RasterioIOError("on fire"), CPLE_AppDefinedError(3, 1, "on fire")]
)
@pytest.mark.parametrize("step", ["_copy_scores", "_add_overviews", "_verify"])
def test_failure_leaves_the_older_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    store = write_store(tmp_path / "s.zarr", random_score(600, 30))
    older = cog.to_cog(store, tmp_path / "s.tif").read_bytes()
    monkeypatch.setattr(cog, step, fail)
    with pytest.raises(StoreError, match="on fire"):
        cog.to_cog(store, tmp_path / "s.tif")
    assert (tmp_path / "s.tif").read_bytes() == older
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.tif", "s.zarr"]


FULL_DISK = """
import resource, signal, sys
from uniadrs_scale.errors import PlanError, StoreError
from uniadrs_scale.maps.cog import to_cog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    to_cog(sys.argv[1], sys.argv[2])
except StoreError as error:
    print(error)
    raise SystemExit(7)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs file size limits")
@pytest.mark.parametrize("share", [0.3, 0.8, 0.97, 0.999])
def test_a_full_disk_is_noticed_wherever_it_strikes(tmp_path: Path, share: float) -> None:
    # GDAL loses the error when it strikes while a file is closed: near the end of the last one.
    store = write_store(tmp_path / "s.zarr", random_score(1300, 1300))
    path = cog.to_cog(store, tmp_path / "s.tif")
    before = path.read_bytes()
    limit = str(int(len(before) * share))
    command = [sys.executable, "-c", FULL_DISK, str(store), str(path), limit]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 7, run.stderr
    assert "Check permissions and free space" in run.stdout
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.tif", "s.zarr"]


def test_overviews_are_found_with_cloud_settings(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", random_score(600, 30))
    # Not a variable of the environment: rasterio would keep it for good, and ENVI fail ever after.
    with (
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
        rasterio.open(cog.to_cog(store, tmp_path / "s.tif")) as output,
    ):
        assert output.overviews(1) == [2]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_scene(
    tmp_path: Path, peak_of_cog: Callable[[Path], float]
) -> None:
    peaks = []
    for side in (4000, 8000):  # windows for all threads, in both
        line = np.random.default_rng(0).random(side, np.float32)
        score = np.ascontiguousarray(np.broadcast_to(line, (side, side)))  # compresses fast
        peaks.append(peak_of_cog(write_store(tmp_path / f"{side}.zarr", score)))
    assert peaks[1] - peaks[0] < 90, peaks  # MiB; the raster grows by 183


def test_an_array_becomes_the_same_file_as_its_store(tmp_path: Path) -> None:
    store = write_store(tmp_path / "map.zarr", random_score(300, 200))
    array = xr.open_zarr(store, consolidated=False, decode_coords="all")["score"]
    with quiet():
        cog.to_cog(store, tmp_path / "store.tif")
        for number, same in enumerate((array, array.load(), array.reset_coords(drop=True))):
            cog.to_cog(same, path := tmp_path / f"array{number}.tif")
            with rasterio.open(path) as got, rasterio.open(tmp_path / "store.tif") as want:
                assert same_bits(got.read(), want.read())
                assert got.transform == want.transform
                assert got.descriptions == ("score",)
        cog.to_cog(array[50:, 20:].rename("ship"), tmp_path / "part.tif")
    with rasterio.open(tmp_path / "part.tif") as part:
        assert part.transform == TRANSFORM @ Affine.translation(20, 50)
        assert part.crs == CRS
        assert part.descriptions == ("ship",)


def test_an_array_with_layers_becomes_a_file_with_bands(tmp_path: Path) -> None:
    values = np.stack([random_score(70, 90, seed) for seed in (1, 2)])
    array = xr.DataArray(values, {"layer": ["water", "ice"]}, ("layer", "y", "x"))
    with quiet():
        cog.to_cog(array, tmp_path / "map.tif")
        with rasterio.open(tmp_path / "map.tif") as file:
            assert file.descriptions == ("water", "ice")
            assert same_bits(file.read(), values)


def test_an_array_that_is_no_map_is_refused(tmp_path: Path) -> None:
    plane = xr.DataArray(np.zeros((4, 5), np.float32), dims=("y", "x"), name="plane")
    swath = plane.rio.write_crs(4326).assign_coords(
        latitude=(("y", "x"), plane.values), longitude=(("y", "x"), plane.values)
    )
    for array, words in (
        (plane.expand_dims("time"), "needs real numbers"),
        (plane.astype(complex), "needs real numbers"),
        (swath, "Pass the path of the store"),
    ):
        with pytest.raises(StoreError, match=words):
            cog.to_cog(array, tmp_path / "map.tif")
    with pytest.raises(PlanError, match="not the map of a swath"):
        cog.to_cog(plane.rename("score"), tmp_path / "map.tif", resolution=10)


def test_map_is_read_once(tmp_path: Path) -> None:
    # Reading an array may compute it, and a graph may give other values the second time.
    computed: list[int] = []

    def block(score: NDArray[np.float32]) -> NDArray[np.float32]:
        computed.append(score.size)
        return score

    score = random_score(700, 600)
    blocks = dask.array.from_array(score, (700, 600)).map_blocks(block, dtype=np.float32)
    computed.clear()
    cog.to_cog(xr.DataArray(blocks, dims=("y", "x"), name="score"), tmp_path / "s.tif")
    assert sum(computed) == score.size


def test_changed_bit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(source: Path, path: Path, **options: Any) -> None:
        copy(source, path, **options)
        with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
            pixels = file.read(1)
            pixels[-1, -1] = np.nextafter(pixels[-1, -1], np.float32(0))
            file.write(pixels, 1)

    copy = rasterio.shutil.copy
    monkeypatch.setattr(rasterio.shutil, "copy", damaged)
    # Odd sides: the last window is not a whole one.
    store = write_store(tmp_path / "s.zarr", np.full((1100, 1030), 0.5, np.float32))
    with pytest.raises(StoreError, match="gave other values than were written"):
        cog.to_cog(store, tmp_path / "s.tif")
    assert not (tmp_path / "s.tif").exists()
