"""The store: georeferenced, a ledger that tells the truth, damage that is noticed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from standins import TileMean

import uniadrs_scale as us
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.maps.finished import open_finished
from uniadrs_scale.maps.new_store import prepare
from uniadrs_scale.maps.store import DONE, open_store

OPTIONS = {"tile": 64, "stride": 48, "chunk": 256}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = np.random.default_rng(0).integers(1, 999, (2, 300, 410)).astype(np.uint16)
    pixels[:, :40, :90] = 0
    scene = (
        xr.DataArray(
            pixels,
            dims=("band", "y", "x"),
            coords={"y": 5e6 - 10 * np.arange(300) - 5, "x": 5e5 + 10 * np.arange(410) + 5},
            name="made up",
        )
        .rio.write_crs("EPSG:32632")
        .rio.write_nodata(0)
    )
    path = tmp_path_factory.mktemp("store") / "map.zarr"
    us.score(scene, path, detector=TileMean(), scheduler="sync", **OPTIONS)
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "map.zarr"))


def test_any_reader_finds_place_and_values(whole: Path) -> None:
    with xr.open_zarr(whole, consolidated=False, decode_coords="all") as dataset:
        score = dataset["score"]
        assert score.rio.crs.to_epsg() == 32632
        assert score.rio.transform()[:6] == (10, 0, 5e5, 0, -10, 5e6)
        assert score.attrs["proj:code"] == "EPSG:32632"
        assert score.attrs["spatial:transform"] == [10, 0, 5e5, 0, -10, 5e6]
        assert np.isnan(score.values[:40, :90]).all()
        assert np.isfinite(score.values).sum() == 300 * 410 - 40 * 90
        assert dataset.attrs["title"] == "Anomaly scores of made up"
    array = zarr.open_array(whole / "score", mode="r")
    assert array.metadata.zarr_format == 3
    assert array.shards == (256, 256)
    assert len([p for p in (whole / "score" / "c").rglob("*") if p.is_file()]) == 4


def test_a_whole_store_verifies(whole: Path) -> None:
    assert list(open_store(whole).verify()) == []
    assert (open_store(whole).done == DONE).all()


def test_a_flipped_bit_is_found(store: Path) -> None:
    shard = store / "score" / "c" / "0" / "1"
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 16
    shard.write_bytes(data)
    assert [fault[:35] for fault in open_store(store).verify()] == [
        "Chunk (0, 1) at pixel (0, 256) cann"
    ]


def test_what_a_bucket_says_is_said_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = us.StoreError("Cannot write 'c/0/0': the bucket is away.")

    def refuse(*_: object) -> None:
        raise said

    opened = open_store(store)
    monkeypatch.setattr(zarr.Array, "__setitem__", refuse)
    with pytest.raises(us.StoreError) as caught:
        opened.write_chunk((0, 0), Window(0, 0, 256, 256), np.zeros((256, 256), np.float32), DONE)
    assert caught.value is said


def test_a_lost_object_is_found(store: Path) -> None:
    (store / "score" / "c" / "1" / "0").unlink()
    (fault,) = open_store(store).verify()
    assert fault == ("Chunk (1, 0) at pixel (256, 0) holds 0 scored pixels, the ledger says 11264.")


@pytest.mark.parametrize("part", ["0/0", "1/1"])
def test_a_lost_object_is_not_invalid_ground(store: Path, tmp_path: Path, part: str) -> None:
    (store / "score" / "c" / part).unlink()
    for make in (
        lambda path: us.targets(path, top=5),
        lambda path: us.to_cog(path, tmp_path / "map.tif"),
    ):
        with pytest.raises(us.errors.StoreError, match=r"chunk \(\d, \d\) is lost.*score it again"):
            make(store)
    assert not (tmp_path / "map.tif").exists()


def test_a_run_scores_a_lost_chunk_again(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((1, 300, 300), np.float32)
    scene, path = xr.DataArray(pixels, dims=("band", "y", "x"), name="a"), tmp_path / "map.zarr"
    before = us.score(scene, path, detector=TileMean(), scheduler="sync", **OPTIONS).values
    (path / "score" / "c" / "0" / "1").unlink()
    after = us.score(scene, path, detector=TileMean(), scheduler="sync", **OPTIONS).values
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("by", ["another", "nothing"])
@pytest.mark.parametrize("name", ["map.zarr", "map.tif"])
def test_a_map_replaced_while_it_is_read(store: Path, tmp_path: Path, name: str, by: str) -> None:
    made = tmp_path / name
    if name == "map.tif":
        us.to_cog(store, made)
    opened = open_finished(made)
    made.rename(tmp_path / f"old {name}")
    if by == "another":
        other = xr.DataArray(
            np.random.default_rng(1).random((1, 300, 410), np.float32),
            dims=("band", "y", "x"),
            name="b",
        )
        second = made if made == store else tmp_path / "second.zarr"
        us.score(other, second, detector=TileMean(), scheduler="sync", **OPTIONS)
        if made != second:
            us.to_cog(second, made)
    with pytest.raises(us.errors.StoreError, match=r"was replaced|cannot be opened"):
        opened.read(slice(0, 300), slice(0, 300))


def test_an_edited_plan_is_found(store: Path) -> None:
    opened = open_store(store)
    plan = opened.attributes["plan"]
    opened.group.attrs.update({"plan": plan | {"detector": "another"}})
    assert any("edited" in fault for fault in opened.verify())


def test_a_missing_chunk_is_found(store: Path) -> None:
    zarr.open_group(store)["done"][1, 1] = 0
    (fault,) = open_store(store).verify()
    assert "is missing" in fault


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    plan = us.plan(xr.DataArray(np.zeros((9, 9)), dims=("y", "x")), detector=TileMean())
    with pytest.raises(us.StoreError, match=r"Output folder '.*none' does not exist"):
        prepare(tmp_path / "none" / "map.zarr", plan, {})
    (tmp_path / "taken.zarr").mkdir()
    (tmp_path / "taken.zarr" / "mine.txt").write_text("precious")
    with pytest.raises(us.StoreError, match=r"'.*taken.zarr' is not a score store"):
        prepare(tmp_path / "taken.zarr", plan, {})
    assert (tmp_path / "taken.zarr" / "mine.txt").read_text() == "precious"
    with pytest.raises(us.StoreError, match=r"'.*nowhere.zarr' does not exist"):
        open_store(tmp_path / "nowhere.zarr")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(us.StoreError):
        prepare(blocked / "map.zarr", plan, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken.zarr"]


class Swapping(TileMean):
    """A scorer that finds another map in the place of the run's store, or none."""

    def __init__(self, path: Path, other: Path | None) -> None:
        self.path, self.other = path, other

    def score_tiles(self, tiles: Any) -> Any:
        if self.path.exists() and not self.path.with_name("old.zarr").exists():
            self.path.rename(self.path.with_name("old.zarr"))
            if self.other is not None:
                shutil.copytree(self.other, self.path)
        return super().score_tiles(tiles)


@pytest.mark.parametrize("gone", [True, False])
def test_a_run_writes_into_its_own_store_only(whole: Path, tmp_path: Path, *, gone: bool) -> None:
    """A machine that slept may have lost its lock, and then its store to another plan."""
    pixels = np.random.default_rng(3).random((2, 300, 410), np.float32)
    scene, path = xr.DataArray(pixels, dims=("band", "y", "x"), name="b"), tmp_path / "map.zarr"
    scorer = Swapping(path, None if gone else whole)
    with pytest.raises(us.errors.StoreError, match="was replaced or removed while this run"):
        us.score(scene, path, detector=scorer, scheduler="sync", **OPTIONS)
    if gone:
        assert not path.exists()
    else:
        theirs = [zarr.open_array(p / "score", mode="r")[:] for p in (path, whole)]
        np.testing.assert_array_equal(*theirs)
