"""Products that are damaged between sweeps: made again, told, and never lost silently."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from archives import write_archive, write_scene
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.archive.listing import record_of
from uniadrs_scale.archive.sink import Sink
from uniadrs_scale.archive.status import read_status, write_page
from uniadrs_scale.errors import StoreError
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uniadrs_scale.archive.product import SweepReport
    from uniadrs_scale.archive.status import Status

PLAIN = {"folder": "maps", "quicklook": False}
NAME, OTHER = "s_20240101", "s_20240102"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two scenes with maps."""
    for day in (1, 2):
        write_scene(tmp_path / "incoming" / f"s_2024010{day}.tif", day)
    assert sweep(tmp_path).complete
    return tmp_path


def sweep(folder: Path, **changes: Any) -> SweepReport:
    config = write_archive(folder, **{"output": PLAIN} | changes)
    return us.sweep(config, detector=FirstBand())


def status(folder: Path) -> Status:
    return read_status(Sink(Place.of(folder / "maps")))


def item_of(folder: Path, name: str = NAME) -> Path:
    return folder / "maps" / name / f"{name}.json"


def version(folder: Path, name: str = NAME) -> Path:
    item = json.loads(item_of(folder, name).read_text())
    return folder / "maps" / name / str(item["properties"]["uniadrs:key"])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("harm", "file"),
    [
        (lambda folder: (folder / "scores.tif").unlink(), "scores.tif"),
        (lambda folder: cut(folder / "scores.tif"), "scores.tif"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "run.json"),
        (shutil.rmtree, "scores.tif"),
    ],
)
def test_a_map_that_lost_files_is_not_there_and_is_made_again(
    archive: Path, harm: Callable[[Path], Any], file: str
) -> None:
    harm(version(archive))
    found = status(archive)
    assert found.done == 1
    assert file in found.notes[NAME][0]
    report = sweep(archive)
    assert report.done == [NAME]
    reason = next(d.reason for d in report.decisions if d.name == NAME)
    assert reason.startswith("damaged, missing or cut off: ")
    assert file in reason
    assert (version(archive) / "scores.tif").exists()
    assert status(archive).done == 2


def test_a_list_that_a_user_marks_is_no_damage(archive: Path) -> None:
    (version(archive) / "run.json").write_text("{}")
    (version(archive) / "scores.tif.aux.xml").touch()
    assert sweep(archive).done == []


def test_a_damaged_map_without_a_scene_is_told_and_keeps_what_it_has(archive: Path) -> None:
    (archive / "incoming" / f"{NAME}.tif").unlink()
    folder = version(archive)
    (folder / "run.json").unlink()
    for _ in range(2):
        report = sweep(archive)
        assert report.exit_code == 1
        assert "run.json, and not in the source. Restore" in report.failed[NAME]
        assert (folder / "scores.tif").exists()
    found = status(archive)
    assert (found.done, found.pending, found.failed) == (1, 0, 1)
    assert f"refused   {NAME} (0 times): damaged" in found.text()
    links = json.loads((archive / "maps" / "collection.json").read_text())["links"]
    assert [link["href"] for link in links[1:]] == [f"./{OTHER}/{OTHER}.json"]
    report = sweep(archive, keep_days=1)
    assert (sorted(report.removed), report.failed) == ([NAME, OTHER], {})
    assert not folder.exists()


def change(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda item: item["properties"].update(changes)


@pytest.mark.parametrize(
    "harm",
    [
        change(datetime=None, start_datetime="2024-01-01T00:00:00Z"),
        change(datetime="2024-01-01T00:00:00"),
        change(**{"uniadrs:highest_score": "high"}),
        change(**{"uniadrs:parts": "x"}),
        change(**{"uniadrs:notes": "careful"}),
        change(created=5),
        lambda item: item.update(bbox=[1, 2, 0, 3, 4, 9]),
        lambda item: item.update(assets=[1]),
        lambda item: item.clear(),
    ],
)
def test_an_item_that_was_edited_ends_no_sweep_and_loses_no_map(
    archive: Path, harm: Callable[[dict[str, Any]], None]
) -> None:
    path = item_of(archive)
    folder, item = version(archive), json.loads(path.read_text())
    assert record_of(json.dumps(item).encode())
    harm(item)
    path.write_text(json.dumps(item))
    scene = archive / "incoming" / f"{NAME}.tif"
    scene.rename(archive / "away.tif")
    report = sweep(archive, keep_days=90_000)
    assert "item not usable" in report.failed[NAME]
    assert (folder / "scores.tif").exists()
    found = status(archive)
    assert found.done == 1
    page = archive / "page.html"
    for _ in range(2):
        write_page(Place.of(page), found)
    page.write_text("<p>mine</p>")
    with pytest.raises(StoreError, match="exists and is not a status page"):
        write_page(Place.of(page), found)
    assert page.read_text() == "<p>mine</p>"
    (archive / "away.tif").rename(scene)
    assert sweep(archive).done == [NAME]
    assert status(archive).done == 2


def test_a_broken_item_of_a_scene_that_is_parked_loses_no_map(archive: Path) -> None:
    item_of(archive).write_text("{")
    folder = archive / "maps" / NAME
    (archive / "incoming" / f"{NAME}.tif").write_text("x")
    assert sweep(archive, tries=1).parked == [NAME]
    assert len(list(folder.glob("*/scores.tif"))) == 1


def test_items_follow_the_id_of_the_collection(archive: Path) -> None:
    before = (version(archive) / "scores.tif").stat().st_mtime_ns
    report = sweep(archive, output=PLAIN | {"collection": "other"})
    assert report.done == []
    assert {
        json.loads(item_of(archive, name).read_text())["collection"] for name in (NAME, OTHER)
    } == {"other"}
    assert (version(archive) / "scores.tif").stat().st_mtime_ns == before
    assert sweep(archive, output=PLAIN | {"collection": "other"}).done == []


def test_what_was_refused_is_in_the_status_and_is_not_pending(archive: Path) -> None:
    write_scene(archive / "incoming" / f"{NAME}.jp2", 1)
    write_scene(archive / "incoming" / "s_20240103.tif", 3)
    source = {"type": "folder", "path": "incoming", "glob": "**/*"}
    report = sweep(archive, source=source)
    assert (report.done, report.refused) == (["s_20240103"], [NAME])
    found = status(archive)
    assert (found.done, found.pending, found.failed) == (3, 0, 1)
    assert "have the id" in found.text()
    with Sink(Place.of(archive / "maps")).ledger() as ledger:
        run = ledger.runs()[0]
        ledger.start_run("me", run | {"todo": 4, "done": 1})
    assert status(archive).pending == 3


def test_a_lost_index_loses_nothing_in_the_status(archive: Path) -> None:
    (archive / "maps" / ".sweep" / "index.sqlite").unlink()
    assert status(archive).done == 2
    (archive / "maps" / ".sweep" / "ledger.sqlite").unlink()
    with pytest.raises(us.StoreError, match="has lost its ledger"):
        status(archive)
