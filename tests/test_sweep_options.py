"""Ledgers that cannot be used, and options of scenes: what is refused before the first scene."""

from __future__ import annotations

import json
import sqlite3
from inspect import signature
from typing import TYPE_CHECKING, Any

import pytest
from archives import stac_item, write_archive, write_catalog, write_scene
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.archive.filters import OPTIONS, chosen
from uniadrs_scale.archive.sink import Sink
from uniadrs_scale.archive.status import read_status
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from pathlib import Path

    from uniadrs_scale.archive.product import SweepReport
    from uniadrs_scale.archive.status import Status

PLAIN = {"folder": "maps", "quicklook": False}
NAME, OTHER = "s_20240101", "s_20240102"


def sweep(folder: Path, **changes: Any) -> SweepReport:
    config = write_archive(folder, **{"output": PLAIN} | changes)
    return us.sweep(config, detector=FirstBand())


def status(folder: Path) -> Status:
    return read_status(Sink(Place.of(folder / "maps")))


@pytest.mark.parametrize(
    "harm",
    [
        "DROP TABLE runs",
        "DROP TABLE tries; CREATE TABLE tries (name TEXT, key TEXT)",
        "UPDATE runs SET facts = '{'",
    ],
)
def test_a_ledger_that_cannot_be_used_is_told(tmp_path: Path, harm: str) -> None:
    archive = tmp_path
    write_scene(archive / "incoming" / f"{NAME}.tif", 1)
    assert sweep(archive).complete
    database = sqlite3.connect(archive / "maps" / ".sweep" / "ledger.sqlite")
    database.executescript(harm)
    database.close()
    with pytest.raises(
        us.StoreError, match=r"Ledger '.*ledger.sqlite' cannot be used: .*remove it"
    ):
        status(archive)
    with pytest.raises(us.StoreError, match="remove it"):
        sweep(archive)


def test_times_of_items_are_in_utc(tmp_path: Path) -> None:
    item = stac_item("a")
    item["properties"]["datetime"] = "2024-05-01T01:00:00+02:00"
    write_catalog(tmp_path, [item])
    source = {"type": "stac", "href": "catalog.json"}
    assert sweep(tmp_path, source=source, scene={"bands": ["B02"]}).complete
    made = json.loads((tmp_path / "maps" / "a" / "a.json").read_text())
    assert made["properties"]["datetime"] == "2024-04-30T23:00:00Z"


def test_options_that_fit_no_scene_are_refused_before_the_first(tmp_path: Path) -> None:
    for day in (1, 2):
        write_scene(tmp_path / "incoming" / f"s_2024010{day}.tif", day)
    for scene in ({"mask": "clowd"}, {"bands": [9]}):
        for dry_run in (True, False):
            config = write_archive(tmp_path, output=PLAIN, scene=scene)
            with pytest.raises(
                us.ArchiveError, match=r"No scene can be opened with the options of 'scene'"
            ):
                us.sweep(config, detector=FirstBand(), dry_run=dry_run)
    assert status(tmp_path).troubles == []
    write_scene(tmp_path / "incoming" / "s_20240103.tif", 3, bands=9)
    report = sweep(tmp_path, scene={"bands": [9]})
    assert report.done == ["s_20240103"]
    assert sorted(report.failed) == [NAME, OTHER]
    assert sorted(sweep(tmp_path, scene={"bands": [9]}).failed) == [NAME, OTHER]


def test_options_are_those_of_the_functions() -> None:
    assert OPTIONS["scene"].keys() == signature(us.open_scene).parameters.keys() - {
        "source", "chunk",
    }  # fmt: skip
    defaults = {name: p.default for name, p in signature(us.open_scene).parameters.items()}
    for name in OPTIONS["scene"]:
        assert chosen({name: defaults[name]}) == {}
        assert chosen({name: 7}) == {name: 7}
    assert OPTIONS["detector"].keys() == signature(us.Detector.load).parameters.keys()


def test_a_nodata_value_that_is_not_a_number_is_told(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", 1)
    for value in ("abc", "", "none", True):
        with pytest.raises(us.SceneError, match=r"nodata=.* is unknown. Pass a number"):
            us.open_scene(path, nodata=value)  # type: ignore[arg-type]


def test_files_of_a_folder_are_one_scene_next_to_folders(tmp_path: Path) -> None:
    for name in ("a/1.tif", "a/b/2.tif", "a/c.tif", "d.tif"):
        write_scene(tmp_path / "incoming" / name, 1)
    source = {"type": "folder", "path": "incoming", "group": "folder"}
    config = write_archive(tmp_path, source=source)
    found = us.sweep(config, detector=FirstBand(), dry_run=True).decisions
    assert {d.item.id: len(d.item.hrefs) for d in found} == {"a": 2, "a/b": 1, "incoming": 1}
    assert {d.action for d in found} == {"score"}


def test_empty_values_and_defaults_mean_no_rework_and_others_are_named(tmp_path: Path) -> None:
    write_scene(tmp_path / "incoming" / f"{NAME}.tif", 1)
    plan = {"tile": 32, "chunk": 32}
    assert sweep(tmp_path).complete

    def reason(**changes: Any) -> str:
        config = write_archive(tmp_path, **{"output": PLAIN} | changes)
        return us.sweep(config, detector=FirstBand(), dry_run=True).decisions[0].reason

    assert reason(plan=plan | {"stride": None, "preset": "auto"}) == "done"
    assert reason(scene={"bands": None, "nodata": "auto", "mask": "none"}) == "done"
    assert reason(output=PLAIN | {"formats": None}, notify={"on_failure": None}) == "done"
    assert reason(plan={"tile": 16, "chunk": 32}) == "changed: config (plan.tile)"
    assert reason(scene={"nodata": None}, output={"folder": "maps"}) == (
        "changed: config (output.quicklook, scene.nodata)"
    )
    with pytest.raises(us.ArchiveError, match=r"plan\.tyle"):
        reason(plan={"tyle": None})
