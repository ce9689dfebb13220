"""Scenes by URL: the same pixels as from disk, few requests, servers that fail."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import requests
import xarray as xr
from affine import Affine
from servers import FileServer, s3_server, serving
from standins import TileMean

import uniadrs_scale as us
from uniadrs_scale.scenes.sources import scene_source
from uniadrs_scale.storage import buckets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPTIONS = {"tile": 64, "stride": 48, "chunk": 128, "detector": TileMean(), "scheduler": "sync"}


def make_cog(path: Path, size: int = 256, bands: int = 2, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(1, 999, (bands, size, size)).astype(np.uint16)
    pixels[:, :20, :30] = 0
    options = {"driver": "COG", "blocksize": 128, "compress": "deflate", "nodata": 0}
    with rasterio.open(
        path, "w", height=size, width=size, count=bands, dtype="uint16", crs="EPSG:32632",
        transform=Affine(10, 0, 5e5, 0, -10, 5e6), **options,
    ) as output:  # fmt: skip
        output.write(pixels)
    return pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def pixels(folder: Path) -> np.ndarray:
    (folder / "a b").mkdir()
    made = make_cog(folder / "scene.tif")
    (folder / "a b" / "scene é.tif").write_bytes((folder / "scene.tif").read_bytes())
    return made


@pytest.fixture
def server(
    folder: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileServer]:
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.05")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "5")
    with serving(folder) as state:
        yield state


@pytest.fixture(scope="module")
def s3(folder: Path, pixels: np.ndarray) -> Iterator[str]:
    """URL of a bucket that holds the folder."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as url:
        for name, value in {
            "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "planted-id",
            "AWS_SECRET_ACCESS_KEY": "planted-secret", "AWS_REGION": "us-east-1",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        requests.put(f"{url}/scenes", timeout=60).raise_for_status()
        for path in (folder / "scene.tif", folder / "a b" / "scene é.tif"):
            buckets.write_object(f"s3://scenes/{path.relative_to(folder)}", path)
        yield "s3://scenes"


def test_a_cog_by_http_is_the_one_on_disk(
    server: FileServer, folder: Path, pixels: np.ndarray
) -> None:
    here, there = us.open_scene(folder / "scene.tif"), us.open_scene(f"{server.url}/scene.tif")
    assert np.array_equal(there.values, pixels)
    assert there.name == "scene.tif"
    assert there.rio.crs == here.rio.crs
    assert there.rio.transform() == here.rio.transform()
    xr.testing.assert_equal(there.valid.compute(), here.valid.compute())
    odd = us.open_scene(f"{server.url}/a%20b/scene%20%C3%A9.tif")
    assert odd.name == "scene é.tif"
    assert np.array_equal(odd.values, pixels)


def test_scores_by_http_are_those_from_disk(
    server: FileServer, folder: Path, tmp_path: Path
) -> None:
    here = us.score(us.open_scene(folder / "scene.tif"), **OPTIONS)
    there = us.score(us.open_scene(f"{server.url}/scene.tif"), tmp_path / "map.zarr", **OPTIONS)
    assert np.array_equal(here.values, there.values, equal_nan=True)


def test_a_window_costs_its_blocks(
    server: FileServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    make_cog(server.folder / "large.tif", size=2048, bands=1)
    whole = (server.folder / "large.tif").stat().st_size
    scene = us.open_scene(f"{server.url}/large.tif")
    opened, server.requests[:] = len(server.requests), []
    part = scene.isel(y=slice(900, 1000), x=slice(900, 1000)).values
    assert part.shape == (1, 100, 100)
    assert opened <= 4
    assert len(server.requests) <= 6
    assert server.bytes_sent < whole / 10
    assert all(asked for _, asked, _ in server.requests)


def test_a_server_that_is_away_for_a_moment_is_asked_again(
    server: FileServer, pixels: np.ndarray
) -> None:
    server.failures = 2
    scene = us.open_scene(f"{server.url}/scene.tif")
    server.failures = 2
    assert np.array_equal(scene.values, pixels)


def test_a_server_that_is_away_costs_the_tiles_not_the_store(
    server: FileServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, store = us.open_scene(f"{server.url}/scene.tif"), tmp_path / "map.zarr"
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    server.failures = -1
    with (
        pytest.warns(us.IncompleteWarning, match=r"scene.tif' cannot be read .*503.*try again"),
        pytest.warns(us.SceneWarning, match="The quicklook shows no scene: .*503"),
    ):
        us.score(scene, store, **OPTIONS)
    with pytest.raises(us.SceneError, match=r"scene.tif' cannot be read \(.*503.*server is up"):
        us.open_scene(f"{server.url}/scene.tif")
    server.failures = 0
    scores = us.score(us.open_scene(f"{server.url}/scene.tif"), store, **OPTIONS)
    whole = us.score(us.open_scene(folder / "scene.tif"), **OPTIONS)
    assert np.array_equal(scores.values, whole.values, equal_nan=True)


def test_what_is_not_there_or_not_in_ranges_is_said(server: FileServer) -> None:
    with pytest.raises(us.SceneError, match=r"none.tif' cannot be read \(the server responds 404"):
        us.open_scene(f"{server.url}/none.tif")
    (server.folder / "text.tif").write_text("no raster")
    with pytest.raises(us.SceneError, match="not a raster that can be opened"):
        us.open_scene(f"{server.url}/text.tif")
    server.ranges = False
    with pytest.raises(us.SceneError, match="server without range requests"):
        us.open_scene(f"{server.url}/scene.tif")


def test_a_replaced_file_is_another_scene(server: FileServer) -> None:
    make_cog(server.folder / "changing.tif", size=128, seed=1)
    first = scene_source(us.open_scene(f"{server.url}/changing.tif")).info.identity
    assert scene_source(us.open_scene(f"{server.url}/changing.tif")).info.identity == first
    pixels = make_cog(server.folder / "changing.tif", size=128, seed=2)
    scene = us.open_scene(f"{server.url}/changing.tif")
    assert scene_source(scene).info.identity != first
    assert np.array_equal(scene.values, pixels)


def test_a_signed_url_is_one_scene_however_signed(
    server: FileServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.token = "abc"  # noqa: S105 - made up
    query = "X-Amz-Date={}&X-Amz-Credential=id&X-Amz-Signature=abc{}"
    with caplog.at_level(logging.DEBUG):
        plans = [
            us.plan(us.open_scene(f"{server.url}/scene.tif?{query.format(n, n)}"), tile=64)
            for n in (1, 2)
        ]
    assert plans[0].fingerprint == plans[1].fingerprint
    assert "abc" not in json.dumps(plans[0].to_dict()) + repr(plans[0])
    with pytest.raises(us.SceneError, match="403") as error:
        us.open_scene(f"{server.url}/scene.tif?{query.format(1, '').replace('abc', 'xyz')}")
    assert "xyz" not in str(error.value) + repr(error.value)
    assert plans[0].scene.name == "scene.tif"


def test_hdf5_and_zarr_by_url(server: FileServer, s3: str) -> None:
    values = np.random.default_rng(3).random((3, 90, 80)).astype(np.float32)
    cube = xr.Dataset(
        {"rrs": (("band", "y", "x"), values)}, {"y": -np.arange(90.0), "x": np.arange(80.0)}
    )
    cube.to_netcdf(server.folder / "cube.nc", engine="h5netcdf")
    cube.to_zarr(server.folder / "cube.zarr", zarr_format=2, consolidated=True)
    buckets.write_object(f"{s3}/cube.nc", server.folder / "cube.nc")
    buckets.upload(server.folder / "cube.zarr", f"{s3}/cube.zarr", last=".zmetadata")
    for url in (server.url, s3):
        for name in ("cube.nc", "cube.zarr"):
            scene = us.open_scene(f"{url}/{name}")
            assert scene.name == name
            assert np.array_equal(scene.values, values), (url, name)
    server.failures = 2
    assert np.array_equal(us.open_scene(f"{server.url}/cube.nc").values, values)
    server.failures = -1
    with pytest.raises(us.SceneError, match=r"cube.nc' cannot be read"):
        us.open_scene(f"{server.url}/cube.nc")


def test_scenes_in_a_bucket(s3: str, folder: Path, pixels: np.ndarray) -> None:
    scene = us.open_scene(f"{s3}/scene.tif")
    assert np.array_equal(scene.values, pixels)
    both = us.open_scene(f"{s3}/**/*.tif", bands=[1, 3])
    assert np.array_equal(both.values, pixels[[0, 0]])
    with pytest.raises(us.SceneError, match=r"'s3://scenes/none.tif' does not exist"):
        us.open_scene(f"{s3}/none.tif")
    with pytest.raises(us.SceneError, match="matches no object"):
        us.open_scene(f"{s3}/*.jp2")
    here = us.score(us.open_scene(folder / "scene.tif"), **OPTIONS)
    assert np.array_equal(us.score(scene, **OPTIONS).values, here.values, equal_nan=True)


def test_a_stac_item_by_url(server: FileServer, s3: str, folder: Path, pixels: np.ndarray) -> None:
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "made up", "geometry": None,
        "properties": {"datetime": "2026-01-02T03:04:05Z"}, "links": [],
        "assets": {
            name: {"href": href, "type": "image/tiff; application=geotiff", "roles": ["data"]}
            for name, href in (("one", "./scene.tif"), ("two", f"{server.url}/scene.tif"))
        },
    }  # fmt: skip
    (folder / "item.json").write_text(json.dumps(item))
    (folder / "item").write_text(json.dumps(item))
    buckets.write_object(f"{s3}/item.json", folder / "item.json")
    for url in (f"{server.url}/item.json", f"{server.url}/item", f"{s3}/item.json"):
        scene = us.open_scene(url)
        assert scene.name == "made up"
        assert list(scene.band.values) == ["one-1", "one-2", "two-1", "two-2"]
        assert np.array_equal(scene.values[0], pixels[0])
