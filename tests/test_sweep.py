"""Sweeps over small archives: what is there afterwards, and what is not."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import sqlite3
import threading
import warnings
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import xarray as xr
from archives import stac_item, write_archive, write_catalog, write_scene
from PIL import Image
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from standins import Failing, FirstBand, TileMean

import uniadrs_scale as us
from uniadrs_scale.archive.batch import Batch, Outcome
from uniadrs_scale.archive.ledger import Ledger
from uniadrs_scale.archive.sink import Sink
from uniadrs_scale.maps.colours import map_colours
from uniadrs_scale.maps.layout import Layout
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client
    from numpy.typing import NDArray


def tree(folder: Path) -> list[str]:
    """Every file and folder below ``folder`` but what is inside stores and the sweep's own."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if ".zarr/" not in str(path) and ".sweep" not in str(path)
    )


def names(folder: Path) -> list[str]:
    """What lies directly in ``folder``."""
    return sorted(path.name for path in folder.iterdir())


def product(folder: Path, name: str) -> tuple[dict[str, Any], Path]:
    """(item, folder of its files)."""
    item = json.loads((folder / "maps" / name / f"{name}.json").read_text())
    return item, folder / "maps" / name / item["properties"]["uniadrs:key"]


def read(path: Path) -> NDArray[np.float32]:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three scenes, named by their days."""
    for day in (1, 2, 3):
        write_scene(tmp_path / "incoming" / f"s_2024010{day}.tif", day)
    return tmp_path


def test_a_sweep_leaves_products_and_nothing_else(archive: Path) -> None:
    config = write_archive(
        archive, output={"folder": "maps", "formats": ["cog", "zarr"]}, status_page="status.html"
    )
    report = us.sweep(config, detector=TileMean())
    assert report.complete
    assert sorted(report.done) == ["s_20240101", "s_20240102", "s_20240103"]
    expected = ["collection.json"]
    for name in report.done:
        key = product(archive, name)[1].name
        files = ("quicklook.png", "run.json", "scores.qml", "scores.tif", "scores.zarr")
        expected += [name, f"{name}/{name}.json", f"{name}/{key}"]
        expected += [f"{name}/{key}/{file}" for file in files]
    assert tree(archive / "maps") == sorted(expected)
    for name in report.done:
        scene = us.open_scene(archive / "incoming" / f"{name}.tif")
        wanted = us.score(scene, tile=32, chunk=32, detector=TileMean(), scheduler="sync")
        _, folder = product(archive, name)
        np.testing.assert_array_equal(read(folder / "scores.tif"), wanted)
        np.testing.assert_array_equal(
            xr.open_zarr(folder / "scores.zarr", consolidated=False)["score"], wanted
        )
    before = {path: path.stat().st_mtime_ns for path in archive.rglob("*") if path.is_file()}
    again = us.sweep(config, detector=TileMean())
    assert again.facts()["decided"]["keep"] == 3
    assert again.done == []
    changed = {p.name for p, time in before.items() if p.stat().st_mtime_ns != time}
    assert changed <= {"status.html", "ledger.sqlite", "lock"}


def test_run_json_tells_how_it_was_made(archive: Path) -> None:
    us.sweep(write_archive(archive), detector=TileMean())
    _, folder = product(archive, "s_20240101")
    facts = json.loads((folder / "run.json").read_text())
    plan = us.plan(
        us.open_scene(archive / "incoming" / "s_20240101.tif"),
        tile=32, chunk=32, detector=TileMean(), scheduler="sync",
    )  # fmt: skip
    assert facts["plan"]["fingerprint"] == plan.fingerprint
    assert facts["tiles"] == {"scored": plan.lattice.tiles, "skipped": 0, "failed": []}
    assert facts["memory"]["forecast"] == plan.memory.total
    assert 0.2 < facts["memory"]["peak"] / plan.memory.total < 9  # the peak of this test process
    assert facts["versions"]["uniadrs_scale"] == us.__version__
    stages = {"prepare", "workers", "statistics", "score", "overview", "cog", "style", "quicklook"}
    assert facts["seconds"].keys() == stages | {"total"}
    with Image.open(folder / "quicklook.png") as file:
        picture = np.asarray(file.convert("RGB")).astype(int)
    score = read(folder / "scores.tif")
    layout = Layout.of(score.shape, 2)
    (left, top), (height, width) = layout.corner(1), layout.panel
    panel = picture[top : top + height, left : left + width][:: layout.zoom, :: layout.zoom]
    wanted = map_colours(score, None)[..., :3]
    same = (panel == wanted).all(axis=2)
    assert same.mean() > 0.8, "all but the circles has the colours of the scale"
    assert panel[3, 3].tolist() == [0x8F, 0x8F, 0x8F], "no data is grey"


def test_items_say_how_to_show_the_map_and_the_collection_what_items_have(archive: Path) -> None:
    us.sweep(write_archive(archive), detector=TileMean())
    item, _ = product(archive, "s_20240101")
    render = item["properties"]["renders"]["score"]
    assert (render["assets"], render["rescale"]) == (["score"], [[0.0, 1.0]])
    assert len(render["colormap"]) == 256
    assert render["colormap"]["0"][3] == 0, "clear below objects"
    assert render["colormap"]["255"][3] == 255
    (band,) = item["assets"]["score"]["raster:bands"]
    assert band["statistics"].keys() == {"minimum", "maximum", "mean", "stddev", "valid_percent"}
    collection = json.loads((archive / "maps" / "collection.json").read_text())
    assert collection["item_assets"].keys() == item["assets"].keys()
    for name, asset in collection["item_assets"].items():
        assert {key: item["assets"][name][key] for key in asset} == asset
    assert item["assets"]["style"]["roles"] == ["metadata", "style"]


def test_the_collection_is_valid_and_opens(archive: Path) -> None:
    us.sweep(write_archive(archive), detector=TileMean())
    collection = pystac.Collection.from_file(str(archive / "maps" / "collection.json"))
    JsonSchemaSTACValidator().validate_core(
        collection.to_dict(), pystac.STACObjectType.COLLECTION, "1.1.0"
    )
    items = list(collection.get_items())
    assert [item.id for item in items] == ["s_20240101", "s_20240102", "s_20240103"]
    for item in items:
        JsonSchemaSTACValidator().validate_core(item.to_dict(), pystac.STACObjectType.ITEM, "1.1.0")
        assert item.get_collection().id == "anomaly-maps"
        derived = item.get_single_link("derived_from").href
        assert derived == str(archive / "incoming" / f"{item.id}.tif")
    assert collection.extent.spatial.bboxes[0] == [
        min(item.bbox[0] for item in items), min(item.bbox[1] for item in items),
        max(item.bbox[2] for item in items), max(item.bbox[3] for item in items),
    ]  # fmt: skip
    assert [str(time.date()) for time in collection.extent.temporal.intervals[0]] == [
        "2024-01-01", "2024-01-03",
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cube = odc.stac.load(items, bands=["score"])
    assert cube["score"].dtype == "float32"
    assert cube.sizes == {"y": 64, "x": 64 + 200, "time": 3}
    first = read(product(archive, "s_20240101")[1] / "scores.tif")
    np.testing.assert_array_equal(cube["score"].isel(time=0, x=slice(64)), first)


def test_extension_fields(archive: Path) -> None:
    us.sweep(write_archive(archive), detector=TileMean())
    item, folder = product(archive, "s_20240102")
    properties, asset = item["properties"], item["assets"]["score"]
    assert properties["processing:software"] == {"uniadrs_scale": us.__version__}
    assert properties["proj:code"] == "EPSG:32633"
    assert properties["proj:shape"] == [64, 64]
    assert asset["raster:bands"][0]["nodata"] == "nan"
    score = read(folder / "scores.tif")
    statistics = asset["raster:bands"][0]["statistics"]
    assert statistics["maximum"] == float(np.nanmax(score))
    assert statistics["mean"] == pytest.approx(float(np.nanmean(score, dtype=float)))
    assert statistics["valid_percent"] == pytest.approx(100 * (1 - 1 / 64))
    assert asset["file:size"] == (folder / "scores.tif").stat().st_size
    sha256 = hashlib.sha256((folder / "scores.tif").read_bytes()).hexdigest()
    assert asset["file:checksum"] == f"1220{sha256}"
    west, south, east, north = item["bbox"]
    with rasterio.open(folder / "scores.tif") as file:
        bounds = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    np.testing.assert_allclose([west, south, east, north], bounds, atol=1e-6)


def test_input_and_recipe_changes_mean_rework_and_the_old_map_stays_till_then(
    archive: Path,
) -> None:
    config = write_archive(archive)
    us.sweep(config, detector=FirstBand())
    old, folder = product(archive, "s_20240101")
    pixels = read(folder / "scores.tif")
    # The new input is broken: the old map stays, whole.
    (archive / "incoming" / "s_20240101.tif").write_text("broken")
    report = us.sweep(config, detector=FirstBand())
    assert report.exit_code == 1
    assert report.failed.keys() == {"s_20240101"}
    assert product(archive, "s_20240101")[0] == old
    np.testing.assert_array_equal(read(folder / "scores.tif"), pixels)
    # Now it is whole, and so is its map; nothing is left of the old one.
    write_scene(archive / "incoming" / "s_20240101.tif", 77)
    report = us.sweep(config, detector=FirstBand())
    assert report.done == ["s_20240101"]
    assert not np.array_equal(read(product(archive, "s_20240101")[1] / "scores.tif"), pixels)
    assert len([p for p in (archive / "maps" / "s_20240101").iterdir() if p.is_dir()]) == 1
    reasons = {d.name: d.reason for d in us.sweep(
        write_archive(archive, plan={"tile": 64}), detector=FirstBand(), dry_run=True
    ).decisions}  # fmt: skip
    assert set(reasons.values()) == {"changed: config (plan.chunk, plan.tile)"}
    assert len(us.sweep(config, detector=TileMean()).done) == 3


def test_failures_are_bounded_parked_and_retried(archive: Path) -> None:
    (archive / "incoming" / "bad.tif").write_text("no raster")
    config = write_archive(archive, tries=2)
    first = us.sweep(config, detector=FirstBand())
    assert (len(first.done), list(first.failed), first.parked) == (3, ["bad"], [])
    second = us.sweep(config, detector=FirstBand())
    assert (second.done, list(second.failed), second.parked) == ([], ["bad"], ["bad"])
    assert "not a raster" in second.failed["bad"]
    third = us.sweep(config, detector=FirstBand())
    assert third.complete, "what is parked is no news"
    assert third.facts()["decided"]["parked"] == 1
    assert "bad" not in names(archive / "maps")
    with Sink(Place.of(archive / "maps")).ledger() as ledger:
        assert ledger.unpark() == ["bad"]
    assert us.sweep(config, detector=FirstBand()).failed.keys() == {"bad"}


@pytest.mark.parametrize("publish", [False, True])
def test_failed_tiles(archive: Path, publish: bool) -> None:
    config = write_archive(archive, tries=2, publish_incomplete=publish)
    detector = Failing(0.5, raises=True)  # tiles whose scaled first pixel exceeds this
    first = us.sweep(config, detector=detector)
    assert first.done == []
    assert all("tiles failed" in reason for reason in first.failed.values())
    second = us.sweep(config, detector=detector)
    if not publish:
        assert sorted(second.parked) == ["s_20240101", "s_20240102", "s_20240103"]
        assert names(archive / "maps") == [".sweep"]
        return
    assert sorted(second.incomplete) == sorted(second.done)
    assert len(second.done) == 3
    _, folder = product(archive, "s_20240101")
    failed = json.loads((folder / "run.json").read_text())["tiles"]["failed"]
    score = read(folder / "scores.tif")
    for failure in failed:
        window = failure["window"]
        rows = slice(window["row"], window["row"] + window["height"])
        cols = slice(window["col"], window["col"] + window["width"])
        assert np.isnan(score[rows, cols]).all()
    assert failed


def test_evil_ids_stay_in_the_sink(tmp_path: Path) -> None:
    evil = ["../../x", "/etc/evil", "n" * 3000, "Ärger 😀", "a\nb", "collection.json", ".sweep"]
    catalog = write_catalog(tmp_path / "stac", [stac_item(name) for name in evil])
    source = {"type": "stac", "href": str(catalog), "assets": ["B02"]}
    (tmp_path / "work").mkdir()
    config = write_archive(tmp_path / "work", source=source)
    before = set(tree(tmp_path))
    report = us.sweep(config, detector=FirstBand())
    assert len(report.done) == len(evil)
    new = {path for path in tree(tmp_path) if path not in before}
    assert all(path.startswith("work/maps") for path in new)
    collection = pystac.Collection.from_file(str(tmp_path / "work" / "maps" / "collection.json"))
    items = list(collection.get_items())
    assert {item.properties["uniadrs:source_id"] for item in items} == set(evil)
    assert not any("uniadrs:datetime_from" in item.properties for item in items)
    assert all(item.bbox == [10, 50, 11, 51] for item in items)


def test_items_say_that_their_date_is_that_of_a_file(tmp_path: Path) -> None:
    for name in ("a", "b_20240301"):
        write_scene(tmp_path / "incoming" / f"{name}.tif", 1)
    us.sweep(write_archive(tmp_path), detector=FirstBand())
    for name, dated_by in (("a", "last change of the files"), ("b_20240301", None)):
        item = pystac.Item.from_file(str(tmp_path / "maps" / name / f"{name}.json"))
        assert item.properties.get("uniadrs:datetime_from") == dated_by


def test_two_items_with_the_same_file_both_get_their_map(tmp_path: Path, cluster: Client) -> None:
    items = [stac_item(f"twin{number}") for number in range(4)]
    for item in items:
        item["assets"]["B02"]["href"] = "../item0/B02.tif"
    catalog = write_catalog(tmp_path / "stac", items)
    source = {"type": "stac", "href": str(catalog), "assets": ["B02"]}
    report = us.sweep(write_archive(tmp_path, source=source, scheduler=None), detector=TileMean())
    assert sorted(report.done) == [f"twin{number}" for number in range(4)], report.failed
    maps = [read(product(tmp_path, name)[1] / "scores.tif") for name in report.done]
    for other in maps[1:]:
        np.testing.assert_array_equal(maps[0], other)


def test_doubles_are_refused(tmp_path: Path) -> None:
    write_scene(tmp_path / "incoming" / "same.tif", 0)
    write_scene(tmp_path / "incoming" / "same.tiff", 1)
    source = {"type": "folder", "path": "incoming", "glob": "*.tif*"}
    report = us.sweep(write_archive(tmp_path, source=source), detector=FirstBand())
    assert (report.done, report.exit_code) == ([], 1)
    assert "2 items of the source have the id 'same'" in report.failed["same"]


def test_a_dry_run_writes_nothing(archive: Path) -> None:
    config = write_archive(archive, status_page="status.html")
    before = tree(archive)
    report = us.sweep(config, detector=FirstBand(), dry_run=True)
    assert [d.reason for d in report.decisions] == ["new"] * 3
    assert tree(archive) == before
    assert not (archive / "maps").exists()


def test_retention_touches_only_what_sweeps_made(archive: Path) -> None:
    today = datetime.now(UTC)
    write_scene(archive / "incoming" / f"s_{today - timedelta(days=5):%Y%m%d}.tif", 9)
    config = write_archive(archive)
    assert len(us.sweep(config, detector=FirstBand()).done) == 4
    maps = archive / "maps"
    _, folder = product(archive, "s_20240101")
    (folder / "notes.txt").write_text("mine")
    (maps / "s_20240102" / "0123456789abcdef.txt").write_text("mine")
    foreign = stac_item("foreign", properties={"datetime": "2019-01-01T00:00:00Z"})
    (maps / "foreign").mkdir()
    (maps / "foreign" / "foreign.json").write_text(json.dumps(foreign))
    (maps / "elsewhere").symlink_to(archive / "incoming")
    (maps / "empty").mkdir()
    report = us.sweep(config, detector=FirstBand(), keep_days=30)
    assert sorted(report.removed) == ["s_20240101", "s_20240102", "s_20240103"]
    assert report.facts()["decided"]["expired"] == 3
    left = [path for path in tree(maps) if f"{today.year}" not in path]
    key = folder.name
    assert left == [
        "collection.json", "elsewhere", "empty", "foreign", "foreign/foreign.json",
        "s_20240101", f"s_20240101/{key}", f"s_20240101/{key}/notes.txt",
        "s_20240102", "s_20240102/0123456789abcdef.txt",
    ]  # fmt: skip
    collection = pystac.Collection.from_file(str(maps / "collection.json"))
    assert len(list(collection.get_items())) == 1
    assert us.sweep(config, detector=FirstBand(), keep_days=30).removed == []


def test_a_clock_that_is_years_ahead_removes_nothing(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=9000)

    config = write_archive(archive, keep_days=9000)
    assert len(us.sweep(config, detector=FirstBand()).done) == 3
    before = tree(archive / "maps")
    monkeypatch.setattr("uniadrs_scale.archive.sweep.datetime", Ahead)
    for dry_run in (True, False, False):
        with pytest.raises(us.ArchiveError, match=r"clock .* says 20\d\d-\d\d-\d\d.*is it right"):
            us.sweep(config, detector=FirstBand(), dry_run=dry_run)
    assert tree(archive / "maps") == before
    (archive / "maps" / ".sweep" / "ledger.sqlite").unlink()
    assert len(us.sweep(config, detector=FirstBand()).removed) == 3


def test_something_in_the_way_of_a_scene(archive: Path) -> None:
    (archive / "maps").mkdir()
    (archive / "maps" / "s_20240101").write_text("a file")
    (archive / "outside").mkdir()
    (archive / "maps" / "s_20240102").symlink_to(archive / "outside")
    report = us.sweep(write_archive(archive), detector=FirstBand())
    assert report.done == ["s_20240103"]
    assert all("is in the way" in reason for reason in report.failed.values())
    assert names(archive / "outside") == []


def test_a_lost_ledger_loses_counts_only(archive: Path) -> None:
    config = write_archive(archive)
    us.sweep(config, detector=FirstBand())
    (archive / "maps" / ".sweep" / "ledger.sqlite").write_bytes(b"rubbish" * 999)
    with pytest.raises(us.StoreError, match="remove it"):
        us.sweep(config, detector=FirstBand())
    (archive / "maps" / ".sweep" / "ledger.sqlite").unlink()
    report = us.sweep(config, detector=FirstBand())
    assert report.facts()["decided"]["keep"] == 3


def test_a_product_that_somebody_removed_is_made_again(archive: Path) -> None:
    config = write_archive(archive)
    us.sweep(config, detector=FirstBand())
    item, _folder = product(archive, "s_20240101")
    (archive / "maps" / "s_20240101" / "s_20240101.json").unlink()
    _, other = product(archive, "s_20240102")
    for file in other.iterdir():
        file.unlink()
    other.rmdir()
    assert sorted(us.sweep(config, detector=FirstBand()).done) == ["s_20240101", "s_20240102"]
    assert product(archive, "s_20240101")[0]["assets"]["score"] == item["assets"]["score"]


def test_killed_before_the_item_is_written(archive: Path) -> None:
    config = write_archive(archive)
    us.sweep(config, detector=FirstBand())
    item, folder = product(archive, "s_20240101")
    place = archive / "maps" / "s_20240101" / "s_20240101.json"
    place.replace(folder / "item.json")
    made = (folder / "scores.tif").stat().st_mtime_ns
    report = us.sweep(config, detector=FirstBand())
    assert report.done == ["s_20240101"]
    assert product(archive, "s_20240101")[0] == item
    assert (folder / "scores.tif").stat().st_mtime_ns == made, "nothing was scored again"


def test_leftovers_of_dead_runs_go(archive: Path) -> None:
    config = write_archive(archive)
    us.sweep(config, detector=FirstBand())
    scene = archive / "maps" / "s_20240101"
    (scene / ".00000000000000aa.part" / "scores.zarr").mkdir(parents=True)
    (scene / "00000000000000bb").mkdir()
    gone = archive / "maps" / "vanished" / ".00000000000000cc.part"
    gone.mkdir(parents=True)
    us.sweep(config, detector=FirstBand())
    assert sorted(names(scene)) == sorted(
        [product(archive, "s_20240101")[1].name, "s_20240101.json"]
    )
    assert not gone.parent.exists()


def test_unfinished_files_of_a_killed_try_go(archive: Path) -> None:
    config = write_archive(archive)
    todo = us.sweep(config, detector=FirstBand(), dry_run=True).decisions
    for decision in todo:
        scene, key = archive / "maps" / decision.name, decision.fingerprint.key
        for version in (scene / key, scene / f".{key}.part", scene / f".{key}.0123abcd.tmp"):
            (version / ".scores.tif.x1y2.tmp").mkdir(parents=True)
            (version / ".scores.tif.x1y2.tmp" / "base.tif").touch()
            (version / ".scores.zarr.ab.tmp").mkdir()
            (version / "quicklook.png").touch()
        (scene / f".{decision.name}.json.tmp").touch()
    assert len(us.sweep(config, detector=FirstBand()).done) == 3
    for decision in todo:
        _, folder = product(archive, decision.name)
        assert names(folder) == ["quicklook.png", "run.json", "scores.qml", "scores.tif"]
        assert names(folder.parent) == sorted([folder.name, f"{decision.name}.json"])
        assert folder.name == decision.fingerprint.key


class _Workers:
    """Stands for clusters whose workers die in the hands of some scenes."""

    def __init__(self, batch: Batch, killers: set[str], together: int) -> None:
        self.batch, self.killers, self.together = batch, killers, together
        self.ran: list[list[str]] = []

    def score(self, queue, compute, *, width=9) -> list[Outcome]:
        """Instead of the batch's: at most ``together`` scenes, all lost with their killer."""
        del compute
        scenes = [queue.popleft() for _ in range(min(self.together, width, len(queue)))]
        self.ran.append([decision.name for decision in scenes])
        lost = bool(self.killers & set(self.ran[-1]))
        outcomes = [Outcome(decision=d, cluster_lost=lost, error="gone") for d in scenes]
        for outcome in outcomes if not lost else []:
            self.batch._on_outcome(outcome)
        return outcomes


@pytest.mark.parametrize(
    ("killers", "guilty", "raises"),
    [({"s_20240102"}, {"s_20240102"}, False), ({"s_20240101", "s_20240102", "s_20240103"},
      {"s_20240101", "s_20240102"}, True)],
)  # fmt: skip
def test_who_kills_the_workers(archive: Path, killers, guilty, raises) -> None:
    config = us.load_config(write_archive(archive, scheduler="sync"))
    todo = us.sweep(config, detector=FirstBand(), dry_run=True).decisions
    config = config.model_copy(update={"scheduler": None})
    sink = Sink(Place.of(archive / "maps"))
    with sink.ledger() as ledger:
        batch = Batch(config, FirstBand(), sink, ledger, threading.Event())
        workers = _Workers(batch, killers, together=2)
        batch._score = workers.score  # type: ignore[method-assign]
        batch._cluster = nullcontext  # type: ignore[method-assign]
        told: list[Outcome] = []
        with pytest.raises(us.ClusterError) if raises else nullcontext():
            batch.work(todo, told.append, lambda: None)
    assert {o.decision.name for o in told if o.cluster_lost} == guilty
    assert all("all workers died" in o.error for o in told if o.cluster_lost)
    if not raises:
        assert {o.decision.name for o in told} == {d.name for d in todo}, "nobody is left out"


class NoRoom(FirstBand):
    """As if the disk were full."""

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        del tiles
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_nobodys_failure(archive: Path) -> None:
    config = write_archive(archive)
    with pytest.raises(us.StoreError, match=r"takes no more .*No space left"):
        us.sweep(config, detector=NoRoom())
    with Sink(Place.of(archive / "maps")).ledger() as ledger:
        assert all(t.failures == t.interruptions == 0 for t in ledger.tries().values())
        assert len(ledger.tries()) == 1, "the others were not begun"
        assert ledger.runs()[0]["state"] == "broken"


class Terminated(FirstBand):
    """Somebody ends the sweep once it has scored a few tiles."""

    def __init__(self, tiles: int) -> None:
        self.left = tiles

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().score_tiles(tiles)


def test_sigterm_ends_cleanly_and_the_next_sweep_resumes(archive: Path) -> None:
    config = write_archive(archive)
    report = us.sweep(config, detector=Terminated(tiles=15))
    assert report.exit_code == 128 + signal.SIGTERM
    assert len(report.done) < 3
    assert report.failed == {}
    with Sink(Place.of(archive / "maps")).ledger() as ledger:
        assert ledger.runs()[0]["state"] == "stopped"
        assert all(t.interruptions == t.failures == 0 for t in ledger.tries().values())
    again = us.sweep(config, detector=FirstBand())  # the same identity? no: its class differs
    assert sorted([*again.done]) == ["s_20240101", "s_20240102", "s_20240103"]
    assert [path for path in tree(archive / "maps") if ".part" in path] == []


def test_one_sweep_at_a_time(archive: Path) -> None:
    config = write_archive(archive)
    sink = Sink(Place.of(archive / "maps"))
    with sink.locked():
        assert sink.is_busy()
        with pytest.raises(us.BusyError, match="one at a time"):
            us.sweep(config, detector=FirstBand())
    assert not sink.is_busy()
    assert len(us.sweep(config, detector=FirstBand()).done) == 3


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(Place.of(tmp_path)) as opened:
        yield opened


def test_ledger_counts_tries_for_one_key(ledger: Ledger) -> None:
    ledger.begin("a", "k1")
    assert ledger.tries()["a"].interruptions == 1, "nobody has ended it"
    ledger.begin("a", "k1")
    assert ledger.tries()["a"].interruptions == 2
    ledger.fail("a", "why", parked=False)
    assert (ledger.tries()["a"].failures, ledger.tries()["a"].interruptions) == (1, 1)
    ledger.begin("a", "k2")
    ledger.release("a")
    assert (ledger.tries()["a"].failures, ledger.tries()["a"].interruptions) == (0, 0)
    ledger.begin("a", "k2")
    ledger.fail("a", "why", parked=True)
    assert ledger.unpark(["b"]) == []
    assert ledger.unpark() == ["a"]
    assert ledger.tries() == {}
    ledger.begin("a", "k2")
    ledger.settle(names=[], parked=[])
    assert ledger.tries() == {}


def test_a_change_of_one_database_does_not_lock_the_other(tmp_path: Path) -> None:
    """SQLite writes a journal of both if both are locked, and a kill leaves it behind."""
    with Ledger(Place.of(tmp_path)) as ledger:
        for schema, other in (("main", "index"), ("products_index", "ledger")):
            own = "index" if other == "ledger" else "ledger"
            with ledger._transaction(schema):
                free = sqlite3.connect(tmp_path / f"{other}.sqlite", timeout=0)
                free.execute("BEGIN IMMEDIATE")
                free.close()
                taken = sqlite3.connect(tmp_path / f"{own}.sqlite", timeout=0)
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    taken.execute("BEGIN IMMEDIATE")
                taken.close()
