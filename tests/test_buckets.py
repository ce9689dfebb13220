"""Objects in buckets and files on web servers: what tells versions apart, what goes first."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import obstore
import pytest
import zarr
from servers import PLANTED, FileServer, serving

import uniadrs_scale as us
from uniadrs_scale.storage import buckets, remote
from uniadrs_scale.storage.clients import translated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Files by HTTP, and as the bucket ``s3://maps``."""
    (tmp_path / "maps").mkdir()
    with serving(tmp_path) as state:
        for name, value in {
            "AWS_ENDPOINT_URL": state.url, "AWS_ACCESS_KEY_ID": f"id-{PLANTED}",
            "AWS_SECRET_ACCESS_KEY": PLANTED, "AWS_REGION": "us-east-1",
            "GDAL_HTTP_MAX_RETRY": "0",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        yield state


@pytest.mark.parametrize("tags", [True, False])
def test_a_stamp_changes_with_the_file_though_its_size_does_not(
    files: FileServer, tags: bool
) -> None:
    path = files.folder / "maps" / "a.tif"
    files.tags = tags
    for uri in (f"{files.url}/maps/a.tif", "s3://maps/a.tif"):
        path.write_bytes(b"one")
        os.utime(path, (1_600_000_000, 1_600_000_000))
        first = buckets.glimpse(uri)
        assert first.size == 3
        assert first.start == b"one"
        assert buckets.glimpse(uri).stamp == first.stamp
        path.write_bytes(b"two")
        os.utime(path, (1_600_000_060, 1_600_000_060))
        assert buckets.glimpse(uri).stamp != first.stamp
        path.write_bytes(b"three")
        os.utime(path, (1_600_000_000, 1_600_000_000))
        assert buckets.glimpse(uri).stamp != first.stamp


def test_a_range_is_exactly_that(files: FileServer) -> None:
    (files.folder / "maps" / "a.bin").write_bytes(bytes(range(100)))
    for uri in (f"{files.url}/maps/a.bin", "s3://maps/a.bin"):
        assert buckets.read_range(uri, 10, 12) == bytes([10, 11])
        assert buckets.read_range(uri, 0, 100) == bytes(range(100))


def test_a_server_that_forgets_about_ranges_gives_the_same_bytes(files: FileServer) -> None:
    """A cache in between may send the whole file for a part that it does not have."""
    (files.folder / "maps" / "a.bin").write_bytes(bytes(range(100)))
    files.ranges = False
    assert buckets.read_range(f"{files.url}/maps/a.bin", 10, 12) == bytes([10, 11])
    with pytest.raises(OSError, match="sends 0 bytes instead of 5"):
        buckets.read_range(f"{files.url}/maps/a.bin", 200, 205)


def test_what_makes_a_store_is_written_last_and_goes_first(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"a/1", "zarr.json", "z/2", "z/3"}
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    steps: list[set[str]] = []
    put, delete = obstore.put, obstore.delete

    def key_of(path: str) -> str:
        return path.partition("map.zarr/")[2]

    def noting_put(store: object, path: str, *args: object, **options: object) -> Any:
        steps.append({key_of(path)})
        return put(store, path, *args, **options)

    def noting_delete(store: object, paths: list[str]) -> None:
        steps.append({key_of(path) for path in paths})
        delete(store, paths)

    monkeypatch.setattr(obstore, "put", noting_put)
    monkeypatch.setattr(obstore, "delete", noting_delete)
    buckets.upload(tmp_path, f"{bucket}/map.zarr", last="zarr.json")
    assert steps[-1] == {"zarr.json"}
    assert sorted(key for step in steps for key in step) == sorted(names)
    steps.clear()
    buckets.write_object(f"{bucket}/map.zarr.run.json", b"a neighbour's")
    steps.clear()
    buckets.remove_prefix(f"{bucket}/map.zarr", first="zarr.json")
    assert steps == [{"zarr.json"}, names - {"zarr.json"}]
    assert buckets.list_keys(bucket) == ["map.zarr.run.json"]
    buckets.remove_prefix(f"{bucket}/map.zarr", first="zarr.json")  # nothing left is no error


def test_a_removal_without_a_first_object_removes_all(bucket: str) -> None:
    for name in ("zarr.json", "a"):
        buckets.write_object(f"{bucket}/map.zarr/{name}", b"1")
    buckets.remove_prefix(f"{bucket}/map.zarr")
    assert buckets.list_keys(bucket) == []


def test_folders_that_are_skipped_cost_a_page(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "PAGE", 2)
    names = ["a/item.json", *(f"a/map.zarr/c/{k}" for k in range(9)), "a/next.tif", "b/item.json"]
    for name in names:
        buckets.write_object(f"{bucket}/{name}", b"1")
    seen = [key for key, _ in buckets.list_objects(bucket, skip="map.zarr")]
    assert [key for key in seen if "/map.zarr/" not in key] == [names[0], *names[-2:]]
    assert len(seen) <= 3 + 4
    ranged = buckets.list_objects(bucket, after="a/map.zarr/c/7", until="a/next.tif")
    assert [key for key, _ in ranged] == ["a/map.zarr/c/8", "a/next.tif"]


@pytest.mark.parametrize("before", range(150, 230, 5))
def test_a_message_that_is_cut_short_holds_no_half_secret(
    before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PLANTED)
    with (
        pytest.raises(us.StoreError, match=r"Cannot read 's3://maps/a'") as raised,
        translated("read", "s3://maps/a"),
    ):
        raise OSError("x" * before + PLANTED)
    assert PLANTED[:4] not in str(raised.value)


def test_no_error_tells_a_secret(files: FileServer) -> None:
    secret = files.url.replace("://", f"://me:{PLANTED}@")
    files.failures = -1
    said = []
    for call in (
        lambda: buckets.glimpse(f"{secret}/a.tif?sig={PLANTED}"),
        lambda: buckets.glimpse("s3://maps/a.tif"),
        lambda: buckets.read_range("s3://maps/a.tif", 0, 9),
        lambda: zarr.open_group(buckets.zarr_place(f"{secret}/a.zarr"), mode="r"),
        lambda: remote.fetch(f"http://127.0.0.1:9/a.tif?sig={PLANTED}"),
    ):
        with pytest.raises((OSError, us.UniadrsScaleError)) as raised:
            call()
        said.append(f"{raised.value} {raised.value!r}")
    assert not [text for text in said if PLANTED in text]
    assert "127.0.0.1" in said[-1]


def test_what_is_said_names_the_object_and_its_bucket(files: FileServer) -> None:
    files.failures = -1
    for url in ("s3://maps/map.zarr", f"{files.url}/map.zarr"):
        with pytest.raises(us.StoreError, match=rf"Cannot read 'zarr.json' in '{url}/?' \("):
            zarr.open_group(buckets.zarr_place(url), mode="r", zarr_format=3)


def test_variables_of_gdal_win(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "s3://maps/a.tif"
    for name in ("AWS_S3_ENDPOINT", "AWS_HTTPS", "GDAL_HTTP_CONNECTTIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere:9000/s3/")
    before = remote.gdal_settings(uri)
    assert before["GDAL_HTTP_CONNECTTIMEOUT"] == str(remote.CONNECT_SECONDS)
    assert (before["AWS_S3_ENDPOINT"], before["AWS_HTTPS"]) == ("elsewhere:9000/s3", "NO")
    monkeypatch.setenv("GDAL_HTTP_CONNECTTIMEOUT", "77")
    monkeypatch.setenv("AWS_HTTPS", "YES")
    changed = set(before) - set(remote.gdal_settings(uri))
    assert changed == {"GDAL_HTTP_CONNECTTIMEOUT", "AWS_HTTPS"}
    assert remote.gdal_settings("/data/a.tif") == {}


def test_a_lookup_of_nothing_is_no_error(bucket: str) -> None:
    assert buckets.read_object(f"{bucket}/none") is None
    assert not buckets.exists(f"{bucket}/none")
    buckets.write_object(f"{bucket}/a.json", b"{}")
    assert buckets.exists(f"{bucket}/a.json")
