"""Files from elsewhere run no code, and those on a server name no file of this machine."""

from __future__ import annotations

import gc
import json
import os
import pickle
import shutil
import struct
import tracemalloc
from typing import TYPE_CHECKING, Any

import h5py
import numcodecs
import numpy as np
import psutil
import pytest
import rasterio
import xarray as xr
import zarr
from archives import stac_item, write_archive, write_scene
from servers import FileServer, serving
from test_security import Malicious

import uniadrs_scale as us
from uniadrs_scale.detector.rx import GlobalRX
from uniadrs_scale.errors import TrustError
from uniadrs_scale.maps.store import open_store
from uniadrs_scale.scenes import lazy, sources
from uniadrs_scale.scenes.rasters import FileScene
from uniadrs_scale.storage.buckets import zarr_place
from uniadrs_scale.storage.clients import STORES, bucket_of, connect
from uniadrs_scale.storage.places import write_whole
from uniadrs_scale.storage.trust import SWITCH, require_plain_codecs, resolve
from uniadrs_scale.storage.urls import Uri, public_uri, stable_uri, uri_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = b"SECRETxx"
SIZE = 64
VRT = """<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1">
<SimpleSource><SourceFilename relativeToVRT="0">{}</SourceFilename><SourceBand>1</SourceBand>
</SimpleSource></VRTRasterBand></VRTDataset>"""
RAW = """<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1"
subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="0">{}</SourceFilename>
<ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>64</LineOffset>
</VRTRasterBand></VRTDataset>"""
WMS = """<GDAL_WMS><Service name="TMS"><ServerUrl>file://{}?${{z}}</ServerUrl></Service>
<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>64</UpperLeftY><LowerRightX>64</LowerRightX>
<LowerRightY>0</LowerRightY><SizeX>64</SizeX><SizeY>64</SizeY><TileLevel>0</TileLevel></DataWindow>
<BandsCount>1</BandsCount><BlockSizeX>64</BlockSizeX><BlockSizeY>64</BlockSizeY></GDAL_WMS>"""
MRF = """<MRF_META><Raster><Size x="64" y="64" c="1"/><PageSize x="64" y="64" c="1"/>
<Compression>NONE</Compression><DataType>Byte</DataType><DataFile>{0}</DataFile>
<IndexFile>{0}</IndexFile></Raster></MRF_META>"""

pytestmark = pytest.mark.filterwarnings("ignore:.*has no geotransform")


def write_tiff(path: Path, **tags: str) -> Path:
    pixels = np.full((1, SIZE, SIZE), 77, np.uint8)
    keys = {"driver": "GTiff", "count": 1, "height": SIZE, "width": SIZE, "dtype": "uint8"}
    with rasterio.open(path, "w", **keys) as file:
        file.write(pixels)
        for domain, value in tags.items():
            file.update_tags(ns=domain, OVERVIEW_FILE=value, X_DATASET=value)
    return path


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder with files that no map may show."""
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "secret.bin").write_bytes(SECRET * 512)
    write_tiff(folder / "scene.tif")
    with h5py.File(folder / "scene.h5", "w") as file:
        file["scene"] = np.full((3, SIZE, SIZE), 77, np.uint8)
    return folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(folder) as state:
        yield state


# --- remote stays remote -------------------------------------------------------------------------

DESCRIPTIONS = {"vrt": (VRT, "scene.tif"), "raw vrt": (RAW, "secret.bin"),
                "wms": (WMS, "scene.tif"), "mrf": (MRF, "secret.bin")}  # fmt: skip


@pytest.mark.parametrize("kind", DESCRIPTIONS)
@pytest.mark.parametrize("suffix", ["tif", "vrt", "xml", "png"])
def test_a_remote_description_reads_no_local_file(
    server: FileServer, local: Path, kind: str, suffix: str
) -> None:
    text, name = DESCRIPTIONS[kind]
    (server.folder / f"scene.{suffix}").write_text(text.format(local / name))
    with pytest.raises(TrustError, match=f"VRT .* {SWITCH}=yes"):
        us.open_scene(f"{server.url}/scene.{suffix}")


@pytest.mark.parametrize("domain", ["OVERVIEWS", "GEOLOCATION"])
def test_a_remote_geotiff_names_no_other_file(server: FileServer, local: Path, domain: str) -> None:
    write_tiff(server.folder / "scene.tif", **{domain: str(local / "scene.tif")})
    with pytest.raises(TrustError, match="remote files must be whole"):
        us.open_scene(f"{server.url}/scene.tif")
    assert us.open_scene(server.folder / "scene.tif").shape == (1, SIZE, SIZE)


@pytest.mark.parametrize("chain", ["/vsicurl/{}", "/vsicurl_streaming/{}", "/vsicurl?url={}"])
def test_gdals_own_words_for_a_url_change_nothing(
    server: FileServer, local: Path, chain: str
) -> None:
    (server.folder / "scene.tif").write_text(RAW.format(local / "secret.bin"))
    with pytest.raises(TrustError, match="by URL"):
        us.open_scene(chain.format(f"{server.url}/scene.tif"))


def test_a_vrt_on_disk_is_opened_and_so_is_a_trusted_one(
    server: FileServer, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server.folder / "scene.vrt").write_text(VRT.format(local / "scene.tif"))
    assert us.open_scene(server.folder / "scene.vrt").values.max() == 77
    monkeypatch.setenv(SWITCH, "yes")
    assert us.open_scene(f"{server.url}/scene.vrt").values.max() == 77


def hdf5(kind: str, path: Path, local: Path) -> None:
    shape = (3, SIZE, SIZE)
    with h5py.File(path, "w") as file:
        file["whole"] = np.zeros(shape, np.uint8)
        if kind == "external storage":
            size = 3 * SIZE * SIZE
            file.create_dataset("a/scene", shape, "u1", external=[(local / "secret.bin", 0, size)])
        elif kind == "external link":
            file["a/scene"] = h5py.ExternalLink(local / "scene.h5", "/scene")
        else:
            layout = h5py.VirtualLayout(shape, "u1")
            layout[:] = h5py.VirtualSource(local / "scene.h5", "scene", shape=shape)
            file.create_virtual_dataset("a/scene", layout)


@pytest.mark.parametrize("kind", ["external storage", "external link", "virtual dataset"])
def test_a_remote_hdf5_file_holds_its_own_data(server: FileServer, local: Path, kind: str) -> None:
    hdf5(kind, server.folder / "scene.h5", local)
    with pytest.raises(TrustError, match=r"'a/scene' (is a link to|gets its values from)"):
        us.open_scene(f"{server.url}/scene.h5", variable="whole")


def test_a_view_of_the_same_hdf5_file_is_fine(server: FileServer) -> None:
    with h5py.File(server.folder / "scene.h5", "w") as file:
        file["real"] = np.full((3, SIZE, SIZE), 5, np.uint8)
        layout = h5py.VirtualLayout((3, SIZE, SIZE), "u1")
        layout[:] = h5py.VirtualSource(".", "real", shape=(3, SIZE, SIZE))
        file.create_virtual_dataset("view", layout)
    assert us.open_scene(f"{server.url}/scene.h5", variable="real").shape == (3, SIZE, SIZE)


LOCAL_HREFS = ["file://{}", "file://localhost{}", "vrt://{}", "/vsisubfile/0,{}", "zip://{}!x"]


@pytest.mark.parametrize("href", LOCAL_HREFS)
def test_a_remote_item_names_remote_assets_only(server: FileServer, local: Path, href: str) -> None:
    item = stac_item("a", assets={"b": {"href": href.format(local / "scene.tif"),
                                        "type": "image/tiff", "roles": ["data"]}})  # fmt: skip
    (server.folder / "item.json").write_text(json.dumps(item))
    with pytest.raises(TrustError, match="remote documents may name remote files only"):
        us.open_scene(f"{server.url}/item.json")


def test_an_absolute_path_in_a_remote_item_is_one_on_its_server(
    server: FileServer, local: Path
) -> None:
    write_tiff(server.folder / "scene.tif")
    item = stac_item("a", assets={"b": {"href": "/scene.tif", "type": "image/tiff"}})
    (server.folder / "item.json").write_text(json.dumps(item))
    assert us.open_scene(f"{server.url}/item.json").values.max() == 77


@pytest.mark.parametrize("base", ["https://host/c/catalog.json", "s3://bucket/c/catalog.json"])
def test_links_of_remote_catalogs_stay_remote(base: str) -> None:
    start = base.rpartition("/")[0]
    assert resolve("./a/item.json", base) == f"{start}/a/item.json"
    assert resolve("https://other/x.tif", base) == "https://other/x.tif"
    assert resolve("/vsicurl/https://other/x.tif", base) == "https://other/x.tif"
    for href in ("file:///etc/passwd", "/vsizip//etc/x.zip/a", "vrt:///etc/passwd"):
        with pytest.raises(TrustError):
            resolve(href, base)
    root = "/".join(base.split("/")[:3])
    assert resolve("/etc/passwd", base) == f"{root}/etc/passwd"
    assert resolve("/data/x.tif", "/catalogs/catalog.json") == "/data/x.tif"


def test_a_sweep_of_a_remote_catalog_reads_no_local_item(
    server: FileServer, local: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    href = f"file://{local}/scene.tif"
    item = stac_item("a", assets={"b": {"href": href, "type": "image/tiff", "roles": ["data"]}})
    item["links"] = [{"rel": "self", "href": f"file://{local}/item.json"}]
    (server.folder / "item.json").write_text(json.dumps(item))
    archive = write_archive(
        tmp_path, source={"type": "stac", "href": f"{server.url}/item.json"},
        detector={"weights": str(tiny_weights)},
    )  # fmt: skip
    report = us.sweep(archive)
    assert "remote documents may name remote files only" in str(report.failed)


# --- no code from a store ------------------------------------------------------------------------


@pytest.fixture
def unsafe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make numcodecs what it was before 0.16.6."""
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)


def hostile_store(path: Path, trace: Path, where: str, *, consolidated: bool) -> None:
    """A Zarr 2 store with a pickle as a chunk of ``y``."""
    scene = xr.DataArray(np.ones((2, 8, 9), np.uint16), dims=("band", "y", "x"), name="scene")
    scene = scene.assign_coords(y=np.arange(8.0), x=np.arange(9.0))
    scene.to_dataset().to_zarr(path, zarr_format=2, consolidated=consolidated)
    changed: dict[str, Any] = {"filter": {"filters": [{"id": "pickle"}], "compressor": None},
                               "compressor": {"compressor": {"id": "pickle"}},
                               "objects": {"dtype": "|O", "fill_value": None, "compressor": None,
                                           "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},
                               }[where]  # fmt: skip
    if consolidated:
        document = json.loads((path / ".zmetadata").read_text())
        document["metadata"]["y/.zarray"] |= changed
        (path / ".zmetadata").write_text(json.dumps(document))
    else:
        document = json.loads((path / "y/.zarray").read_text()) | changed
        (path / "y/.zarray").write_text(json.dumps(document))
    (path / "y/0").write_bytes(pickle.dumps(Malicious(trace)))


@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize("where", ["filter", "compressor", "objects"])
def test_a_pickle_in_a_zarr_store_is_refused_and_not_run(
    unsafe: None, tmp_path: Path, where: str, consolidated: bool
) -> None:
    trace, path = tmp_path / "trace", tmp_path / "scene.zarr"
    hostile_store(path, trace, where, consolidated=consolidated)
    with pytest.raises(TrustError, match="'pickle'"):
        us.open_scene(path)
    assert not trace.exists()


def test_the_pickle_would_have_run(unsafe: None, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "scene.zarr"
    hostile_store(path, trace, "objects", consolidated=False)
    with pytest.raises(Exception):  # noqa: B017, PT011 - what was unpickled is not an array
        zarr.open_group(path, mode="r")["y"][:]
    assert trace.exists()


def test_a_pickle_on_a_server_is_refused(unsafe: None, server: FileServer, tmp_path: Path) -> None:
    hostile_store(server.folder / "scene.zarr", tmp_path / "trace", "compressor", consolidated=True)
    with pytest.raises(TrustError, match="'pickle'"):
        us.open_scene(f"{server.url}/scene.zarr")
    assert not (tmp_path / "trace").exists()


def test_a_pickle_in_a_score_store_is_refused(unsafe: None, tmp_path: Path, scores: Path) -> None:
    trace = tmp_path / "trace"
    metadata = scores / "y/zarr.json"
    document = json.loads(metadata.read_text())
    document["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
    metadata.write_text(json.dumps(document))
    root = json.loads((scores / "zarr.json").read_text())
    if consolidated := root.get("consolidated_metadata"):
        consolidated["metadata"]["y"]["codecs"] = document["codecs"]
        (scores / "zarr.json").write_text(json.dumps(root))
    for call in (lambda: us.to_cog(scores, tmp_path / "map.tif"), lambda: us.open_scene(scores),
                 lambda: open_store(scores).open()):  # fmt: skip
        with pytest.raises(TrustError, match=r"'numcodecs\.pickle'"):
            call()
    assert not trace.exists()


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """A finished score store with coordinates."""
    scene = xr.DataArray(np.random.default_rng(0).random((2, 40, 40), np.float32),
                         dims=("band", "y", "x"))  # fmt: skip
    scene = scene.assign_coords(y=np.arange(40.0), x=np.arange(40.0)).rio.write_crs(32632)
    path = tmp_path / "map.zarr"
    us.score(scene, path, detector=GlobalRX(), preset="single-band", tile=32, chunk=64,
             scheduler="sync")  # fmt: skip
    return path


def test_a_store_that_is_gone_stays_gone(tmp_path: Path) -> None:
    with pytest.raises((OSError, us.StoreError)):
        open_store(tmp_path / "none.zarr")
    assert not (tmp_path / "none.zarr").exists()


@pytest.mark.parametrize(
    ("metadata", "allowed"),
    [
        ({"filters": [{"id": "vlen-utf8"}], "dtype": "|O"}, True),
        ({"filters": [{"id": "delta"}], "compressor": {"id": "blosc"}}, True),
        ({"attributes": {"id": "pickle"}}, True),
        ({"metadata": {"a/.zattrs": {"id": "pickle"}}}, True),
        ({"metadata": {"a/.zarray": {"filters": [{"id": "json2"}]}}}, False),
        ({"codecs": [{"name": "sharding_indexed", "configuration": {
            "codecs": [{"name": "numcodecs.pickle"}]}}]}, False),
        ({"consolidated_metadata": {"metadata": {"a": {"codecs": [{"name": "pickle"}]}}}}, False),
    ],
)  # fmt: skip
def test_codecs_of_numbers_and_strings_only(metadata: dict[str, Any], allowed: bool) -> None:
    content = json.dumps(metadata).encode()
    if allowed:
        require_plain_codecs(content, "here")
        return
    with pytest.raises(TrustError, match="here decodes an array"):
        require_plain_codecs(content, "here")


def test_metadata_that_nest_too_deep_are_left_to_zarr(tmp_path: Path) -> None:
    require_plain_codecs(b"[" * 10**6, "here")
    (tmp_path / "scene.zarr").mkdir()
    (tmp_path / "scene.zarr/zarr.json").write_bytes(b"[" * 10**6)
    with pytest.raises(us.SceneError):
        us.open_scene(tmp_path / "scene.zarr")


# --- links in a shared folder --------------------------------------------------------------------


def test_a_planted_link_is_neither_followed_nor_emptied(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    target = tmp_path / "out" / "collection.json"
    target.parent.mkdir()
    (target.parent / ".collection.json.tmp").symlink_to(precious)
    target.symlink_to(precious)
    write_whole(target, b"new")
    assert precious.read_text() == "mine"
    assert target.read_text() == "new"
    assert not target.is_symlink()
    write_whole(target, b"newer")
    assert target.read_bytes() == b"newer"
    assert [path.name for path in target.parent.iterdir()] == ["collection.json"]


@pytest.mark.parametrize(
    "name",
    ["{key}", "{key}/scores.zarr", "", ".sweep", ".sweep/lock", ".sweep/ledger.sqlite"],
)
def test_a_sweep_follows_no_planted_link(tmp_path: Path, tiny_weights: Path, name: str) -> None:
    source, precious, sink = tmp_path / "source", tmp_path / "precious", tmp_path / "sink"
    for folder in (source, precious, sink):
        folder.mkdir()
    (precious / "run.json").write_text("mine")
    write_scene(source / "scene.tif", 1)
    archive = write_archive(
        tmp_path, source={"type": "folder", "path": str(source)},
        output={"folder": str(sink)}, detector={"weights": str(tiny_weights)},
    )  # fmt: skip
    us.sweep(archive)
    (product,) = (path for path in (sink / "scene").iterdir() if path.is_dir())
    shutil.rmtree(sink)
    key = product.name
    link = sink / name if name.startswith(".sweep") else sink / "scene" / name.format(key=key)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(precious)
    said = ""
    try:
        said = str(us.sweep(archive).failed)
    except us.StoreError as error:
        said = str(error)
    assert "link" in said or "in the way" in said
    assert [path.name for path in precious.iterdir()] == ["run.json"]
    assert (precious / "run.json").read_text() == "mine"


# --- documents that claim too much ---------------------------------------------------------------

LAUGHS = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "{}">]>
<n1:Level-2A_User_Product xmlns:n1="x">&b;</n1:Level-2A_User_Product>""".format("&a;" * 1000)
OUTSIDE = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<n1:Level-2A_User_Product xmlns:n1="x">&a;</n1:Level-2A_User_Product>"""


@pytest.mark.parametrize("text", [LAUGHS, OUTSIDE], ids=["laughs", "outside"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_with_declarations_is_refused(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "MTD_MSIL2A.xml").write_bytes(text.encode(encoding))
    with pytest.raises(us.SceneError, match="declares a document type"):
        us.open_scene(tmp_path)


def test_huge_xml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "MTD_MSIL2A.xml").touch()
    os.truncate(tmp_path / "MTD_MSIL2A.xml", 1 << 30)
    with pytest.raises(us.SceneError, match="has 1024 MiB"):
        us.open_scene(tmp_path)


@pytest.mark.parametrize("text", ["[" * 10**6, '{"a":' * 10**6, "<" * 10**6])
def test_a_document_that_nests_too_deep_ends_in_a_sentence(tmp_path: Path, text: str) -> None:
    for name in ("item.json", "MTD_MSIL2A.xml", "scene.vrt"):
        (tmp_path / name).write_text(text)
        with pytest.raises(us.SceneError):
            us.open_scene(tmp_path / name)
    for name in ("catalog.json", "archive.yaml"):
        (tmp_path / name).write_text(text)
    with pytest.raises(us.ArchiveError):
        us.load_config(tmp_path / "archive.yaml")
    archive = write_archive(
        tmp_path, source={"type": "stac", "href": str(tmp_path / "catalog.json")}
    )
    with pytest.raises(us.ArchiveError, match="cannot be read"):
        us.sweep(archive)


def test_an_endless_answer_is_cut(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniadrs_scale.storage.remote.LARGEST", 1000)
    (server.folder / "item.json").write_text("{" + " " * 5000 + "}")
    with pytest.raises(us.SceneError, match="has more than"):
        us.open_scene(f"{server.url}/item.json")


def test_a_yaml_bomb_ends_at_once(tmp_path: Path) -> None:
    levels = "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12))
    (tmp_path / "archive.yaml").write_text(f"a0: &a0 [x]\n{levels}")
    with pytest.raises(us.ArchiveError, match="more than 16 aliases"):
        us.load_config(tmp_path / "archive.yaml")


def test_a_few_aliases_are_fine(tmp_path: Path) -> None:
    (tmp_path / "archive.yaml").write_text(
        "source: {type: folder, path: &in incoming}\noutput: {folder: maps, title: *in}\n"
    )
    assert us.load_config(tmp_path / "archive.yaml").output.title == "incoming"


def claim(width: int, height: int) -> bytes:
    """A TIFF of one strip that does not exist."""
    numbers = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 9}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in numbers.items())
    return struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 9) + entries + bytes(4)


@pytest.mark.parametrize("shape", [(2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (10**9, 10)])
def test_a_raster_that_claims_the_impossible_is_refused(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    (tmp_path / "scene.tif").write_bytes(claim(*shape))
    tracemalloc.start()
    try:
        with pytest.raises(us.SceneError):
            us.open_scene(tmp_path / "scene.tif")
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


# --- secrets -------------------------------------------------------------------------------------

SIGNED = "https://me:PlAnTeD@host/a.tif?X-Amz-Signature=PlAnTeD"
QUOTED = "https%3A%2F%2Fme%3APlAnTeD%40host%2Fa.tif%3Fsig%3DPlAnTeD"
CHAINS = [SIGNED, f"/vsicurl/{SIGNED}", f"/vsicurl_streaming/{SIGNED}", f"/vsizip/vsicurl/{SIGNED}",
          f"/vsitar//vsicurl/{SIGNED}", f"/vsizip/{{/vsicurl/{SIGNED}}}/a.tif", f"zip+{SIGNED}",
          f"/vsicurl?url={QUOTED}&header.Authorization=Bearer%20PlAnTeD",
          f"/vsizip//vsicurl?max_retry=1&url={QUOTED}", f"vrt://{SIGNED}"]  # fmt: skip


@pytest.mark.parametrize("uri", CHAINS)
def test_no_chain_of_prefixes_tells_a_secret(uri: str) -> None:
    said = [str(name(uri)) for name in (stable_uri, public_uri, uri_name, us.SceneError)]
    said.append(repr(Uri(uri)))
    assert not [text for text in said if "PlAnTeD" in text]
    assert stable_uri(uri) != stable_uri(uri.replace("a.tif", "b.tif"))


# --- what is dropped leaves nothing behind -------------------------------------------------------


def test_scenes_and_urls_that_are_dropped_leave_no_memory(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene.tif", 1)

    def work(count: int) -> None:
        for number in range(count):
            us.open_scene(tmp_path / "scene.tif", chunk=100 + number)
        for number in range(10 * count):
            bucket_of(f"https://host/product{number}/scene.tif")
            assert "host" in stable_uri(f"https://host/{number}.tif?sig=1")
        for number in range(count):
            zarr_place(f"https://host/product{number}.zarr", read_only=True)
        gc.collect()

    work(20)
    before = memory()
    work(200)
    assert not len(lazy._OPENED)
    assert connect.cache_info().currsize <= STORES
    assert memory() - before < 30e6


def memory() -> int:
    return psutil.Process().memory_info().rss


def test_a_scene_is_known_as_long_as_one_array_of_it(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", 1)
    first = us.open_scene(path)
    second = us.open_scene(path)
    del second
    gc.collect()
    assert isinstance(sources.scene_source(first), FileScene)
    assert isinstance(sources.scene_source(first.assign_attrs(a=1)), FileScene)
    assert isinstance(sources.scene_source(first + 1), sources.ArrayScene)
    copy = first.copy()
    del first
    gc.collect()
    assert isinstance(sources.scene_source(copy), FileScene)


def test_names_that_are_not_utf8_are_told(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tif")
    with pytest.raises(us.SceneError, match=r"caf.udce9.tif' is not UTF-8. Rename the file"):
        us.open_scene(name)
    with pytest.raises(us.StoreError, match=r"caf.udce9.tif' is not UTF-8. Choose another"):
        us.to_cog(tmp_path / "map.zarr", name)
