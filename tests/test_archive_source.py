"""What a source lists, how its scenes are named, and what its filters let through."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from archives import serve, stac_item, write_catalog, write_scene
from hypothesis import given
from hypothesis import strategies as st
from servers import s3_server

from uniadrs_scale.archive.config import ArchiveConfig
from uniadrs_scale.archive.decide import safe_name
from uniadrs_scale.archive.filters import boxes_meet
from uniadrs_scale.archive.listing import below, name_time, path_time
from uniadrs_scale.archive.sources import LOG, Listing, list_items
from uniadrs_scale.errors import ArchiveError
from uniadrs_scale.storage import buckets

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

NOW = datetime(2024, 6, 1, tzinfo=UTC)


def listing(tmp_path: Path, source: dict[str, Any], **filters: Any) -> Listing:
    output = {"folder": tmp_path / "maps"}
    values = {"source": source, "filters": filters, "output": output}
    return list_items(ArchiveConfig.model_validate(values), NOW)


@given(st.text() | st.sampled_from(["..", ".", "/etc/passwd", "../../x", "a/../..", "C:\\x", "~"]))
def test_no_id_leaves_its_folder(identifier: str) -> None:
    name = safe_name(identifier)
    assert Path("/sink", name).resolve().parent == Path("/sink")
    assert name.isascii()
    assert len(name) <= 120
    assert not name.startswith(".")
    # Nor does it take the place of what lies beside the folders of scenes.
    assert not name.endswith((".json", ".html"))


@given(st.text(), st.text())
def test_different_ids_have_different_names(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (one == other)


def test_names_stay_readable() -> None:
    assert safe_name("S2B_13SDV_20240101") == "S2B_13SDV_20240101"
    assert safe_name("Zürich/2024").startswith("Zurich_2024-")
    assert safe_name("x" * 4000).startswith("x" * 100)
    assert safe_name("日本").startswith("item-")
    assert safe_name("a\ud800").startswith("a-")
    assert safe_name("collection.json") != "collection.json"


def test_times_in_names() -> None:
    assert name_time("S2_20240131T101559_x") == datetime(2024, 1, 31, 10, 15, 59, tzinfo=UTC)
    assert name_time("20240131") == datetime(2024, 1, 31, tzinfo=UTC)
    assert name_time("id99999999_20249931_20240201") == datetime(2024, 2, 1, tzinfo=UTC)
    assert name_time("scene 120240131") is None


def test_the_nearest_date_in_a_path_counts() -> None:
    """The same in a folder and in a bucket: not that of the archive before that of the scene."""
    assert path_time("backup_20200101/S2_20240131") == datetime(2024, 1, 31, tzinfo=UTC)
    assert path_time("20240501/B04") == datetime(2024, 5, 1, tzinfo=UTC)
    assert path_time("a/b") is None


def test_the_folder_of_a_scene_may_have_its_date(tmp_path: Path) -> None:
    write_scene(tmp_path / "in" / "20240501" / "B04.tif", 1)
    (item,) = listing(tmp_path, {"type": "folder", "path": tmp_path / "in"}).items
    assert item.when == datetime(2024, 5, 1, tzinfo=UTC)


def test_boxes_over_the_antimeridian() -> None:
    fiji = (177.0, -20.0, -178.0, -15.0)
    assert boxes_meet(fiji, (179.5, -18, 180, -17))
    assert boxes_meet((-179.5, -18, -179, -17), fiji)
    assert not boxes_meet(fiji, (0, -18, 10, -17))
    assert boxes_meet((190, -18, 200, -17), (-165, -18, -164, -17))  # counted from 0 to 360
    assert not boxes_meet(fiji, (177, 0, 179, 10))


def test_a_folder_of_files(tmp_path: Path) -> None:
    files = tmp_path / "in"
    first = write_scene(files / "a_20240102.tif", 0)
    write_scene(files / "deep" / "er" / "b.tif", 1)
    write_scene(files / ".hidden" / "c.tif", 2)
    write_scene(tmp_path / "in" / "maps" / "d" / "scores.tif", 3)
    os.utime(files / "deep" / "er" / "b.tif", (1_700_000_000, 1_700_000_000))
    source = {"type": "folder", "path": files}
    output = {"folder": files / "maps"}
    config = ArchiveConfig.model_validate({"source": source, "output": output})
    b, a = list_items(config, NOW).items
    assert (a.id, a.when, a.hrefs) == (
        "a_20240102",
        datetime(2024, 1, 2, tzinfo=UTC),
        (str(first),),
    )
    assert (b.id, b.when) == ("deep/er/b", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC))
    assert (a.dated_by, b.dated_by) == ("", "last change of the files")
    first.write_bytes(first.read_bytes() + b"more")
    changed = list_items(config, NOW).items
    assert changed[0] == b
    assert changed[1].identity != a.identity


def test_files_of_a_folder_as_bands_and_product_folders(tmp_path: Path) -> None:
    for scene in ("20240101", "20240102"):
        for band in ("B03", "B02"):
            write_scene(tmp_path / "in" / scene / f"{band}.tif", 1)
    source = {"type": "folder", "path": tmp_path / "in", "glob": "*/B0?.tif", "group": "folder"}
    items = listing(tmp_path, source).items
    assert [item.id for item in items] == ["20240101", "20240102"]
    assert [Path(href).name for href in items[0].hrefs] == ["B02.tif", "B03.tif"]
    products = {"type": "folder", "path": tmp_path / "in", "glob": "2024*"}
    before = listing(tmp_path, products).items
    assert before[0].hrefs == (str(tmp_path / "in" / "20240101"),)
    (tmp_path / "in" / "20240102" / "late.xml").write_text("x")
    after = listing(tmp_path, products).items
    assert before[0] == after[0]
    assert before[1].identity != after[1].identity


def test_a_missing_source_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="does not exist"):
        listing(tmp_path, {"type": "folder", "path": tmp_path / "nowhere"})
    with pytest.raises(ArchiveError, match="cannot be read"):
        listing(tmp_path, {"type": "stac", "href": str(tmp_path / "nowhere.json")})
    (tmp_path / "x.json").write_text('{"type": "Recipe"}')
    with pytest.raises(ArchiveError, match="type 'Recipe'"):
        listing(tmp_path, {"type": "stac", "href": str(tmp_path / "x.json")})
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ArchiveError, match="not a JSON object"):
        listing(tmp_path, {"type": "stac", "href": str(tmp_path / "x.json")})


@pytest.mark.parametrize("remote", [False, True])
def test_a_static_catalog(tmp_path: Path, remote: bool) -> None:
    items = [stac_item("one"), stac_item("two"), stac_item("../../evil")]
    catalog = write_catalog(tmp_path / "stac", items)
    with serve(tmp_path / "stac") as address:
        href = f"{address}/catalog.json" if remote else str(catalog)
        base = f"{address}/" if remote else f"{tmp_path}/stac/"
        found = listing(tmp_path, {"type": "stac", "href": href, "assets": ["blue", "B03"]}).items
        assert {item.id for item in found} == {"one", "two", "../../evil"}
        one = next(item for item in found if item.id == "one")
        # In the order that was asked for, whatever the item's own, by name or by common name.
        assert one.hrefs == tuple(f"{base}collection/item0/{b}.tif" for b in ("B02", "B03"))
        assert one.box == (10, 50, 11, 51)
        assert one.fault == ""
        data = listing(tmp_path, {"type": "stac", "href": href}).items[0]
        assert [Path(href).stem for href in data.hrefs] == ["B03", "B02"]


def test_what_changes_an_identity(tmp_path: Path) -> None:
    checksummed = stac_item("c")
    for asset in checksummed["assets"].values():
        asset["file:checksum"] = "1220aa"
    catalog = write_catalog(tmp_path, [stac_item("a"), checksummed])
    source = {"type": "stac", "href": str(catalog)}

    def identities() -> dict[str, str]:
        return {item.id: item.identity for item in listing(tmp_path, source).items}

    before = identities()
    for number in (0, 1):
        os.utime(tmp_path / "collection" / f"item{number}" / "B02.tif", (1, 1))
    after = identities()
    assert before["a"] != after["a"], "a local file is known by its size and time"
    assert before["c"] == after["c"], "a checksum says more than a time"
    checksummed["assets"]["B02"]["file:checksum"] = "1220bb"
    (tmp_path / "collection" / "item1" / "item.json").write_text(json.dumps(checksummed))
    assert identities()["c"] != after["c"]


def test_items_with_faults_are_listed_with_them(tmp_path: Path) -> None:
    items = [stac_item(name) for name in ("none", "gone", "broken", "timeless", "odd")]
    items[0]["assets"] = {}
    items[3]["properties"] = {}
    items[4]["assets"] = ["a list"]
    catalog = write_catalog(tmp_path, items)
    (tmp_path / "collection" / "item1" / "B02.tif").unlink()
    (tmp_path / "collection" / "item2" / "item.json").write_text('{"type": "Feature", "id"')
    source = {"type": "stac", "href": str(catalog), "assets": ["B02"]}
    faults = {item.id: item.fault for item in listing(tmp_path, source, newest_days=9999).items}
    assert "has no raster asset" in faults["none"]
    assert "No such file" in faults["gone"]
    assert "item2/item.json' cannot be used" in faults["item"]
    assert "has no 'start_datetime'" in faults["timeless"]
    assert "cannot be used" in faults["odd"]


def test_filters(tmp_path: Path) -> None:
    plain = {"datetime": "2024-05-01T23:30:00Z"}
    items = [
        stac_item("clear", properties=plain | {"eo:cloud_cover": 1, "platform": "a", "n": 3}),
        stac_item("cloudy", properties=plain | {"eo:cloud_cover": 90}, bbox=[0, 0, 5, 1, 1, 9]),
        stac_item("old", properties={"datetime": "2019-01-01T00:00:00Z"}),
        stac_item("span", properties={"datetime": None, "start_datetime": "2024-05-31T00:00:00"}),
    ]
    catalog = write_catalog(tmp_path, items)

    def left(**filters: Any) -> set[str]:
        found = listing(tmp_path, {"type": "stac", "href": str(catalog)}, **filters)
        assert found.left_out + len(found.items) == 4
        return {item.id for item in found.items}

    assert left() == {"clear", "cloudy", "old", "span"}
    assert left(datetime="2024-05-01") == {"clear", "cloudy"}
    assert left(datetime="2024-05-02/..") == {"span"}
    assert left(datetime="../2024-05-01T23:29:59Z") == {"old"}
    assert left(newest_days=2) == {"span"}
    assert left(bbox=[0.5, 0.5, 2, 2]) == {"cloudy"}
    assert left(cloud_cover=20) == {"clear"}
    assert left(properties={"platform": ["a", "b"]}) == {"clear"}
    assert left(properties={"n": {"min": 2, "max": 3}}) == {"clear"}
    assert left(properties={"n": {"min": 4}}) == set()


class _Api(SimpleHTTPRequestHandler):
    """A STAC API of two pages; remembers what it was asked."""

    asked: list[dict[str, Any]] = []  # noqa: RUF012 - one for the class is what is wanted

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if "B02" in self.path:
            self.send_error(404)
            return
        root = f"http://{self.headers['Host']}"
        self._answer(
            {
                "type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "d",
                "conformsTo": [
                    "https://api.stacspec.org/v1.0.0/core",
                    "https://api.stacspec.org/v1.0.0/item-search",
                ],
                "links": [
                    {"rel": "self", "href": root},
                    {"rel": "root", "href": root},
                    {"rel": "search", "href": f"{root}/search", "method": "POST",
                     "type": "application/geo+json"},
                ],
            }
        )  # fmt: skip

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(query)
        root = f"http://{self.headers['Host']}"
        page = query.get("page", 1)
        item = stac_item(f"found{page}")
        for asset in item["assets"].values():
            asset["href"] = f"{root}/{asset['href']}?signature={len(self.asked)}"
        item["links"] = [{"rel": "self", "href": f"{root}/items/found{page}"}]
        more = {"rel": "next", "href": f"{root}/search", "method": "POST",
                "body": query | {"page": 2}}  # fmt: skip
        self._answer(
            {"type": "FeatureCollection", "features": [item], "links": [more] if page == 1 else []}
        )

    def do_HEAD(self) -> None:
        self.send_response(404 if "B02" in self.path else 200)
        self.send_header("ETag", '"v1"')
        self.end_headers()

    def _answer(self, document: dict[str, Any]) -> None:
        text = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def test_an_api_is_searched_page_by_page(tmp_path: Path) -> None:
    _Api.asked.clear()
    with serve(tmp_path, _Api) as address:
        source = {"type": "api", "href": address, "collections": ["c"], "assets": ["B03"]}
        filters = {"datetime": "2024-01-01/..", "bbox": [9, 49, 12, 52]}
        one, two = listing(tmp_path, source, **filters).items
        again = listing(tmp_path, source, **filters).items
        broken = listing(tmp_path, source | {"assets": ["B02"]}).items[0]
        asked = len(_Api.asked)
        listing(tmp_path, source, bbox=[190, -5, 355, 5])
        listing(tmp_path, source, bbox=[0, -5, 360, 5])
    assert (one.id, two.id) == ("found1", "found2")
    assert one.href == f"{address}/items/found1"
    assert _Api.asked[0]["collections"] == ["c"]
    assert _Api.asked[0]["datetime"] == "2024-01-01T00:00:00Z/.."
    assert _Api.asked[0]["bbox"] == [9, 49, 12, 52]
    assert _Api.asked[asked]["bbox"] == [-170, -5, -5, 5], "longitudes up to 360"
    assert _Api.asked[asked + 2]["bbox"] == [-180, -5, 180, 5]
    # Signed addresses change from search to search; what they point to does not.
    assert again[0].hrefs != one.hrefs
    assert again[0].identity == one.identity
    assert "404" in broken.fault
    with pytest.raises(ArchiveError, match="cannot be searched"):
        listing(tmp_path, source)


def test_a_bucket_is_listed_as_a_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as url:
        for name, value in {
            "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "planted", "AWS_REGION": "us-east-1",
            "AWS_SECRET_ACCESS_KEY": "planted",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        requests.put(f"{url}/incoming", timeout=60).raise_for_status()
        scene = write_scene(tmp_path / "a.tif", 1)
        for key in ("2024/S2_20240131T101559_x.tif", "2024/b.tif", "other/c.png"):
            buckets.write_object(f"s3://incoming/new/{key}", scene)
        source = {"type": "folder", "path": "s3://incoming/new"}
        first, second = listing(tmp_path, source).items
        assert first.id == "2024/S2_20240131T101559_x"
        assert first.hrefs == ("s3://incoming/new/2024/S2_20240131T101559_x.tif",)
        assert first.when == datetime(2024, 1, 31, 10, 15, 59, tzinfo=UTC)
        assert (first.dated_by, second.dated_by) == ("", "last change of the files")
        buckets.write_object("s3://incoming/new/2024/b.tif", write_scene(tmp_path / "b.tif", 2))
        assert listing(tmp_path, source).items[1].identity != second.identity
        (both,) = listing(tmp_path, source | {"group": "folder"}).items
        assert (both.id, len(both.hrefs)) == ("2024", 2)
        with pytest.raises(ArchiveError, match="s3://incoming/nothing' is empty"):
            listing(tmp_path, {"type": "folder", "path": "s3://incoming/nothing"})
        item = stac_item("one", assets={"data": {"href": "./2024/b.tif", "roles": ["data"]}})
        buckets.write_object("s3://incoming/new/item.json", json.dumps(item).encode())
        (found,) = listing(tmp_path, {"type": "stac", "href": "s3://incoming/new/item.json"}).items
        assert found.hrefs == ("s3://incoming/new/2024/b.tif",)
        assert not found.fault


def test_a_folder_that_is_taken_away_while_it_is_listed_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, staging, scan = tmp_path / "in", tmp_path / "in" / "staging", os.scandir
    write_scene(files / "a_20240102.tif", 0)
    write_scene(staging / "b_20240103.tif", 1)

    def late(path: str | Path = ".") -> Any:
        if str(path) == str(staging) and staging.exists():
            shutil.rmtree(staging)  # the folder above has been read, and this one has not
        return scan(path)

    monkeypatch.setattr(os, "scandir", late)
    items = listing(tmp_path, {"type": "folder", "path": files}).items
    assert not staging.exists()
    assert [item.id for item in items] == ["a_20240102"]


@pytest.mark.parametrize("gone", ["b_20240103.tif", "product/half.xml"])
def test_a_file_that_is_taken_away_while_it_is_listed_leaves_its_scene_to_the_next_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    files, stat = tmp_path / "in", Path.stat
    for number, name in enumerate(("a_20240102.tif", "b_20240103.tif", "product/half.xml")):
        write_scene(files / name, number)
    # What is there, but leads nowhere, is not left out: it fails, and somebody hears of it.
    (files / "link_20240104.tif").symlink_to(tmp_path / "nowhere")

    def late(path: Path, **options: Any) -> os.stat_result:
        if path == files / gone:
            path.unlink(missing_ok=True)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", late)
    items = listing(tmp_path, {"type": "folder", "path": files, "glob": "*"}).items
    everything = {"a_20240102", "b_20240103", "product", "link_20240104"}
    assert {item.id for item in items} == everything - {Path(gone).parts[0].removesuffix(".tif")}


def test_which_names_a_pattern_matches(tmp_path: Path) -> None:
    names = ("a.tif", "x/b.tif", "x/y/c.tif", "x/.part/d.tif", ".e.tif", "f.png", "S.SAFE/g.tif")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)

    def found(pattern: str) -> set[str]:
        paths = below(str(tmp_path), pattern.split("/"))
        return {Path(path).relative_to(tmp_path).as_posix() for path in paths}

    assert found("**/*.tif") == {"a.tif", "x/b.tif", "x/y/c.tif", "S.SAFE/g.tif"}
    assert found("*.tif") == {"a.tif"}
    assert found("x/**/*.tif") == {"x/b.tif", "x/y/c.tif"}
    assert found("*.SAFE") == {"S.SAFE"}
    assert found("loop/*.png") == {"loop/f.png"}  # a link that is named is followed
    assert found("a.tif/*") == set()


@pytest.mark.parametrize("source", ["in", "in/deep"])
def test_a_source_in_the_folder_of_maps_is_refused(tmp_path: Path, source: str) -> None:
    write_scene(tmp_path / "in" / "deep" / "a.tif", 0)
    values = {
        "source": {"type": "folder", "path": tmp_path / source},
        "output": {"folder": tmp_path / "in"},
    }
    with pytest.raises(ArchiveError, match=r"is in the output folder .* may be in the source"):
        list_items(ArchiveConfig.model_validate(values), NOW)
    # A name that only begins alike is another folder.
    values["output"] = {"folder": tmp_path / "i"}
    assert len(list_items(ArchiveConfig.model_validate(values), NOW).items) == 1


def test_a_pattern_that_matches_nothing_is_told(
    tmp_path: Path, hear: Callable[[logging.Logger], list[str]]
) -> None:
    heard = hear(LOG)
    source = {"type": "folder", "path": tmp_path / "in", "glob": "*.jp2"}
    (tmp_path / "in").mkdir()
    assert not listing(tmp_path, source).items
    assert not heard, "an empty folder is waiting for scenes"
    write_scene(tmp_path / "in" / "a.tif", 0)
    assert not listing(tmp_path, source).items
    assert heard == [f"nothing below '{tmp_path / 'in'}' matches source.glob '*.jp2'"]
