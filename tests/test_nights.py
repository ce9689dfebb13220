"""Nights of an operator: faults of disks, mounts, catalogs and names, and what a sweep says."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import rasterio
from archives import stac_item, write_archive, write_catalog, write_scene
from rasterio.errors import RasterioError
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.archive import product as products
from uniadrs_scale.archive import status
from uniadrs_scale.archive.listing import name_time
from uniadrs_scale.archive.sink import Sink
from uniadrs_scale.maps import cog
from uniadrs_scale.storage import folders
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two scenes, named by their days."""
    for day in (1, 2):
        write_scene(tmp_path / "incoming" / f"s_2024010{day}.tif", day)
    return tmp_path


def sink(folder: Path) -> Sink:
    return Sink(Place.of(folder / "maps"))


def test_notes_of_runs_reach_report_status_and_page(archive: Path) -> None:
    path = archive / "incoming" / "s_20240101.tif"
    with rasterio.open(path, "r+") as file:
        pixels = file.read(1)
        pixels[20:60, 20:60] = 0  # the border of a scene without a declared nodata value
        file.write(pixels, 1)
    report = us.sweep(write_archive(archive, status_page="page.html"), detector=FirstBand())
    assert list(report.notes) == ["s_20240101"]
    (note,) = report.notes["s_20240101"]
    assert "lie in areas of 0" in note or "areas of 0" in note
    assert f"note     s_20240101: {note}" in report.text()
    assert report.facts()["notes"] == report.notes
    found = status.read_status(sink(archive))
    assert found.notes == report.notes == found.to_dict()["notes"]
    assert note in found.text()
    assert "areas of 0" in (archive / "page.html").read_text()
    # A later sweep with nothing to do has nothing to note, but the map is still that of before.
    assert us.sweep(write_archive(archive), detector=FirstBand()).notes == {}
    assert status.read_status(sink(archive)).notes == report.notes


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "quota"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "Read-only"),
        (RuntimeError("PROJ: internal: Cannot find proj.db"), r"proj\.db"),
    ],
)
def test_faults_of_the_machine_are_not_blamed_on_scenes(
    archive: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, cause: str
) -> None:
    config = write_archive(archive, tries=1)

    def failing(*_: object, **__: object) -> None:
        raise us.StoreError("Cannot make the map") from fault

    with monkeypatch.context() as patch:
        patch.setattr(products, "run", failing)
        with pytest.raises(us.StoreError, match=rf"{cause}.*No try was counted"):
            us.sweep(config, detector=FirstBand())
    with sink(archive).ledger() as ledger:
        assert all(t.failures == t.interruptions == 0 for t in ledger.tries().values())
        assert not any(trouble["parked"] for trouble in ledger.troubles())
    assert len(us.sweep(config, detector=FirstBand()).done) == 2, "after it is mended"


def test_a_full_disk_that_gdal_does_not_tell_is_not_blamed_on_the_scene(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_archive(archive, tries=1)

    def unreadable(*_: object) -> None:
        raise RasterioError("cog.tif, band 1: IReadBlock failed")

    with monkeypatch.context() as patch:
        patch.setattr(cog, "_verify", unreadable)
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
        with pytest.raises(us.StoreError, match=r"No space left.*No try was counted"):
            us.sweep(config, detector=FirstBand())
    assert len(us.sweep(config, detector=FirstBand()).done) == 2


def test_a_ledger_without_room_is_told(archive: Path) -> None:
    us.sweep(write_archive(archive), detector=FirstBand())
    with sink(archive).ledger() as ledger:
        pages = ledger._rows("PRAGMA page_count")[0][0]
        ledger._rows(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(us.StoreError, match=r"cannot be written: .*disk is full.*free space"):
            ledger.begin("a" * 100_000, "key")


def test_source_and_sink_are_compared_as_real_paths(archive: Path) -> None:
    (archive / "maps" / "in").mkdir(parents=True)
    (archive / "link").symlink_to(archive / "maps" / "in")
    source = {"type": "folder", "path": "link"}
    with pytest.raises(us.ArchiveError, match="is in the output folder"):
        us.sweep(write_archive(archive, source=source), detector=FirstBand())
    # A sink in the source, by way of a link: its maps are not scenes.
    (archive / "out").symlink_to(archive / "incoming" / "maps")
    (archive / "incoming" / "maps").mkdir()
    config = write_archive(archive, output={"folder": "out"})
    assert len(us.sweep(config, detector=FirstBand()).done) == 2
    assert len(us.sweep(config, detector=FirstBand()).decisions) == 2


def test_an_empty_source_that_had_scenes_is_an_alarm(archive: Path) -> None:
    config = write_archive(archive)
    us.sweep(config, detector=FirstBand())
    (archive / "incoming").rename(archive / "away")
    (archive / "incoming").mkdir()  # a mount point without its disk
    with pytest.raises(us.ArchiveError, match="empty, but 2 of its scenes have maps"):
        us.sweep(config, detector=FirstBand())
    (archive / "incoming").rmdir()
    (archive / "away").rename(archive / "incoming")
    assert us.sweep(config, detector=FirstBand()).complete


@pytest.mark.parametrize(
    "words",
    [
        {"conformsTo": ["https://api.stacspec.org/v1.0.0/item-search"], "links": []},
        {"links": [{"rel": "search", "href": "https://example.com/search"}]},
    ],
)
def test_an_api_is_not_a_catalog(tmp_path: Path, words: dict[str, Any]) -> None:
    page = {"type": "Catalog", "id": "api"} | words
    (tmp_path / "api.json").write_text(json.dumps(page))
    source = {"type": "stac", "href": "api.json"}
    with pytest.raises(us.ArchiveError, match=r"is a STAC API\. Use 'type: api'"):
        us.sweep(write_archive(tmp_path, source=source), detector=FirstBand())


def test_any_exception_ends_a_sweep_with_a_message_and_a_note_in_the_ledger(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = archive / "told.json"
    command = ["sh", "-c", f"cat > {told}; echo chatter"]
    config = write_archive(archive, notify={"on_failure": {"command": command}})

    def failing(*_: object) -> None:
        raise KeyError("a mistake")

    with monkeypatch.context() as patch:
        patch.setattr(Sink, "tidy", failing)
        with pytest.raises(us.StoreError, match=r"ended early \(KeyError: 'a mistake'\)"):
            us.sweep(config, detector=FirstBand())
    facts = json.loads(told.read_text())
    assert (facts["complete"], facts["listed"]) == (False, 2)
    assert "a mistake" in facts["error"]
    with sink(archive).ledger() as ledger:
        assert ledger.runs()[0]["state"] == "broken"
    assert len(us.sweep(config, detector=FirstBand()).done) == 2


def test_output_of_a_notification_is_not_on_standard_output(
    archive: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    notify = {"on_complete": {"command": ["echo", "chatter"]}}
    us.sweep(write_archive(archive, notify=notify), detector=FirstBand())
    assert "chatter" not in capfd.readouterr().out


def test_a_page_that_cannot_be_written_is_a_warning(
    archive: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (archive / "file").touch()
    with caplog.at_level(logging.WARNING, "uniadrs_scale.sweep"):
        report = us.sweep(
            write_archive(archive, status_page="file/page.html"), detector=FirstBand()
        )
    assert report.complete
    assert "status page not written" in caplog.text


@pytest.mark.parametrize("days", ["0", 0, -1, float("nan"), float("inf"), 1e9])
def test_absurd_retention_removes_nothing_and_is_refused(archive: Path, days: Any) -> None:
    config = write_archive(archive)
    us.sweep(config, detector=FirstBand())
    with pytest.raises(us.ArchiveError, match="keep_days"):
        us.sweep(config, detector=FirstBand(), keep_days=days)
    with pytest.raises(us.ArchiveError, match="keep_days"):
        us.load_config(write_archive(archive, keep_days=days))
    assert len(list((archive / "maps").glob("*/*.json"))) == 2


def test_a_dry_run_says_which_items_cannot_be_used(tmp_path: Path) -> None:
    broken = stac_item("broken")
    del broken["properties"]["datetime"]
    catalog = write_catalog(tmp_path / "stac", [stac_item("good"), broken])
    source = {"type": "stac", "href": str(catalog), "assets": ["B02"]}
    report = us.sweep(write_archive(tmp_path, source=source), detector=FirstBand(), dry_run=True)
    reasons = {decision.name: decision.reason for decision in report.decisions}
    assert reasons["good"] == "new"
    assert "has no 'start_datetime'" in reasons["broken"]


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("MOD09.A2024032.h18v03", (2024, 2, 1)),
        ("A2023366", None),
        ("2024.05.01", (2024, 5, 1)),
        ("x_2024-05-01", (2024, 5, 1)),
        ("20240501T246060", (2024, 5, 1)),
        ("LC08_L1TP_193024_20240101_02_T1", (2024, 1, 1)),
        ("123420240101", None),
    ],
)
def test_dates_in_names(name: str, date: Any) -> None:
    assert name_time(name) == (date and datetime(*date, tzinfo=UTC))


def test_product_folders_named_by_dates_are_scenes_of_their_own(tmp_path: Path) -> None:
    for day in (1, 2):
        write_scene(tmp_path / "incoming" / f"2024.05.0{day}" / "a.tif", day)
    source = {"type": "folder", "path": "incoming", "group": "folder"}
    report = us.sweep(write_archive(tmp_path, source=source), detector=FirstBand(), dry_run=True)
    assert [d.name for d in report.decisions] == ["2024.05.01", "2024.05.02"]
    source = {"type": "folder", "path": "incoming", "glob": "*"}
    report = us.sweep(write_archive(tmp_path, source=source), detector=FirstBand(), dry_run=True)
    assert [d.name for d in report.decisions] == ["2024.05.01", "2024.05.02"]


def test_a_name_that_is_not_utf8_is_told(archive: Path) -> None:
    good = archive / "incoming" / "s_20240101.tif"
    try:
        os.link(good, os.fsencode(archive / "incoming") + b"/caf\xe9.tif")
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    report = us.sweep(write_archive(archive), detector=FirstBand())
    assert len(report.done) == 2
    (reason,) = report.failed.values()
    assert "is not UTF-8. Rename the file" in reason


def test_the_same_item_twice_is_one_item(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "stac", [stac_item("one")])
    folder = tmp_path / "stac" / "collection"
    item = json.loads((folder / "item0" / "item.json").read_text())
    item["links"] = [{"rel": "self", "href": "https://example.com/one.json"}]
    for href in ("item0/item.json", "item0/again.json"):
        (folder / href).write_text(json.dumps(item))
    links = [{"rel": "item", "href": name} for name in ("item0/item.json", "item0/again.json")]
    (folder / "collection.json").write_text(json.dumps({"type": "Collection", "links": links}))
    source = {"type": "stac", "href": str(catalog), "assets": ["B02"]}
    report = us.sweep(write_archive(tmp_path, source=source), detector=FirstBand(), dry_run=True)
    assert report.counts() == "1 score"


def test_a_sink_below_a_mount_point_that_is_away_is_told(archive: Path) -> None:
    disk = archive / "disk"
    disk.mkdir()
    config = write_archive(archive, output={"folder": "disk/deep/maps"})
    for dry_run in (False, True):
        with pytest.raises(us.StoreError, match=r"disk' is empty: is its disk mounted\?"):
            us.sweep(config, detector=FirstBand(), dry_run=dry_run)
    assert not list(disk.iterdir()), "nothing is made on the wrong disk"
    (disk / "deep" / "maps").mkdir(parents=True)  # as the message says
    assert us.sweep(config, detector=FirstBand()).complete


def test_a_mount_point_of_fstab_must_be_mounted(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = archive / "fstab"
    disk = archive / "my disk"
    disk.mkdir()
    spelled = str(disk).replace(" ", r"\040")
    table.write_text(f"# a comment\nUUID=1 / ext4\n/dev/x {spelled} xfs\n")
    monkeypatch.setattr(folders, "FSTAB", table)
    config = write_archive(archive, output={"folder": "my disk"})
    with pytest.raises(us.StoreError, match="which is not mounted"):
        us.sweep(config, detector=FirstBand())
    assert us.sweep(write_archive(archive), detector=FirstBand()).complete, "another disk"


def test_an_empty_source_whose_scenes_only_failed_is_an_alarm(archive: Path) -> None:
    for path in (archive / "incoming").iterdir():
        path.write_text("not a raster")
    config = write_archive(archive)
    assert len(us.sweep(config, detector=FirstBand()).failed) == 2
    (archive / "incoming").rename(archive / "away")
    (archive / "incoming").mkdir()
    with pytest.raises(
        us.ArchiveError, match=r"empty, but 2 of its scenes have maps or were tried"
    ):
        us.sweep(config, detector=FirstBand())


def test_two_archives_in_one_folder_are_refused(archive: Path) -> None:
    us.sweep(write_archive(archive), detector=FirstBand())
    write_scene(archive / "other" / "x_20240101.tif", 7)
    other = {"type": "folder", "path": "other"}
    for dry_run in (True, False):
        with pytest.raises(us.ArchiveError, match=r"holds the maps of another archive.*0 of 2"):
            us.sweep(write_archive(archive, source=other), detector=FirstBand(), dry_run=dry_run)
    # The same archive at another place is welcome, and so are new scenes of the same source.
    (archive / "incoming").rename(archive / "moved")
    moved = {"type": "folder", "path": "moved"}
    assert us.sweep(write_archive(archive, source=moved), detector=FirstBand()).complete
    for path in (archive / "moved").iterdir():
        path.unlink()
    write_scene(archive / "moved" / "s_20240301.tif", 8)
    report = us.sweep(write_archive(archive, source=moved), detector=FirstBand())
    assert report.done == ["s_20240301"]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_not_busy(
    archive: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    scene = us.open_scene(archive / "incoming" / "s_20240101.tif")
    us.score(scene, archive / "map.zarr", tile=32, detector=FirstBand(), scheduler="sync")
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(us.StoreError, match=r"has no locks \(.*NFS 4"):
        us.sweep(write_archive(archive), detector=FirstBand())
    for name in ("new.zarr", "map.zarr"):
        with pytest.raises(us.StoreError, match="has no locks"):
            us.score(scene, archive / name, tile=32, detector=FirstBand(), scheduler="sync")


def test_the_longest_names_of_files_are_scenes(tmp_path: Path) -> None:
    name = f"{'a' * 242}_20240101"
    write_scene(tmp_path / "incoming" / f"{name}.tif", 1)
    scene = us.open_scene(tmp_path / "incoming" / f"{name}.tif")
    assert scene.shape == (1, 64, 64)


def test_a_pipe_among_scenes_is_told(archive: Path) -> None:
    os.mkfifo(archive / "incoming" / "x_20240103.tif")
    report = us.sweep(write_archive(archive), detector=FirstBand())
    assert len(report.done) == 2
    assert "is a pipe, a socket or a device" in report.failed["x_20240103"]


def test_a_folder_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    try:
        type(tmp_path)(folder).mkdir()
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    with pytest.raises(us.ArchiveError, match=r"caf.udce9' is not UTF-8\. Rename it"):
        us.load_config(write_archive(type(tmp_path)(folder)))
