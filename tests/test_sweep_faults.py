"""Faults that an operator of an archive meets: full disks, links, half copies, slips."""

from __future__ import annotations

import errno
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio.shutil
import xarray as xr
from archives import write_archive, write_scene
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.archive import ledger, status
from uniadrs_scale.archive import product as products
from uniadrs_scale.archive.config import load_config
from uniadrs_scale.archive.sink import Sink
from uniadrs_scale.archive.sources import list_items
from uniadrs_scale.maps import new_store
from uniadrs_scale.objects import files
from uniadrs_scale.objects.find import find
from uniadrs_scale.objects.select import Selection
from uniadrs_scale.storage.places import Place

FULL = r"No space left.*No try was counted"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write_scene(tmp_path / "incoming" / "s_20240101.tif", 1)
    return tmp_path


def sink(folder: Path) -> Sink:
    return Sink(Place.of(folder / "maps"))


@pytest.mark.parametrize("step", ["cog", "targets"])
def test_a_full_disk_that_gdal_does_not_name_is_no_fault_of_the_scene(
    archive: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_archive(archive, tries=1, output={"folder": "maps", "formats": ["cog", step]})

    def fail(*_: object, **__: object) -> None:
        # As GDAL does on a full disk: no error at all, or another one.
        raise SystemError("Unknown GDAL Error") if step == "cog" else RuntimeError("no commit")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
        patch.setattr(
            *{"cog": (rasterio.shutil, "copy"), "targets": (pyogrio.raw, "write")}[step], fail
        )
        with pytest.raises(us.StoreError, match=FULL):
            us.sweep(config, detector=FirstBand())
    assert us.sweep(config, detector=FirstBand()).done == ["s_20240101"], "when there is room"


def test_a_list_of_targets_that_is_cut_off_is_not_kept(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    us.score(us.open_scene(archive / "incoming" / "s_20240101.tif"), archive / "map.zarr",
             detector=FirstBand(), tile=32, scheduler="sync")  # fmt: skip
    found, write = find(archive / "map.zarr", Selection(top=20)), pyogrio.raw.write

    def cut(path: Path, *arguments: Any, **options: Any) -> None:
        write(path, *arguments, **options)
        os.truncate(path, path.stat().st_size - 200)  # as on a full disk, where GDAL says nothing

    monkeypatch.setattr(pyogrio.raw, "write", cut)
    with pytest.raises(us.StoreError, match=r"Cannot write .*list\.fgb"):
        files.write(found, archive / "list.fgb")
    assert not (archive / "list.fgb").exists()


def test_a_full_disk_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "run.json").write_text("before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(us.StoreError, match="No space left"):
            Place.of(tmp_path / "run.json").write(b"after")
        scene = us.open_scene(write_scene(tmp_path / "s.tif", 1))
        patch.setattr(new_store, "create", lambda *_: Place.of(tmp_path / "x").write(b"x"))
        with pytest.raises(us.StoreError) as caught:
            us.score(scene, tmp_path / "map.zarr", detector=FirstBand(), scheduler="sync")
    assert str(caught.value).count("choose another") == 1
    assert (tmp_path / "run.json").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "s.tif"]


def test_links_that_lead_nowhere_are_scenes_that_cannot_be_opened(archive: Path) -> None:
    incoming = archive / "incoming"
    (incoming / "circle.tif").symlink_to("circle.tif")
    (incoming / "circle").symlink_to("circle")
    (incoming / "nothing.tif").symlink_to("nowhere.tif")
    report = us.sweep(write_archive(archive), detector=FirstBand())
    assert (report.done, sorted(report.failed)) == (["s_20240101"], ["circle", "nothing"])
    assert "does not exist" in report.failed["circle"]
    source = {"type": "folder", "path": "incoming", "glob": "*/*.tif"}
    other = write_archive(archive, source=source, output={"folder": "other"})
    assert us.sweep(other, detector=FirstBand()).decisions == ()


def test_a_page_replaces_no_scene(archive: Path) -> None:
    config, scene = write_archive(archive), archive / "incoming" / "s_20240101.tif"
    us.sweep(config, detector=FirstBand())
    before = {path: path.read_bytes() for path in (config, scene)}
    found = status.read_status(sink(archive))
    for path in before:
        with pytest.raises(us.StoreError, match=r"Let it end in \.html"):
            status.write_page(Place.of(path), found)
    with pytest.raises(us.StoreError, match=r"Let it end in \.html"):
        us.score(us.open_scene(scene), archive / "map.zarr", detector=FirstBand(), tile=32,
                 scheduler="sync", performance_report=scene)  # fmt: skip
    assert {path: path.read_bytes() for path in before} == before
    status.write_page(Place.of(archive / "page.HTML"), found)


def test_a_ledger_without_room_is_not_called_damaged(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_archive(archive)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "SCHEMA", f"PRAGMA max_page_count = 1; {ledger.SCHEMA}")
        with pytest.raises(us.StoreError, match=r"disk is full\. Check free space") as caught:
            us.sweep(config, detector=FirstBand())
        assert "remove" not in str(caught.value)
    assert us.sweep(config, detector=FirstBand()).complete


def test_an_index_that_is_damaged_inside_is_made_again(archive: Path) -> None:
    config = write_archive(archive)
    assert us.sweep(config, detector=FirstBand()).complete
    index = archive / "maps" / ".sweep" / "index.sqlite"
    content = index.read_bytes()
    for harm in (b"x" * (len(content) - 4096), b"\x00" * (len(content) - 4096)):
        index.write_bytes(content[:4096] + harm)
        assert status.read_status(sink(archive)).done == 1
        index.write_bytes(content[:4096] + harm)
        assert us.sweep(config, detector=FirstBand()).todo == 0


def test_the_status_says_why_a_sweep_ended_early(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_archive(archive, status_page="page.html")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(products, "run", full)
        with pytest.raises(us.StoreError, match=FULL):
            us.sweep(config, detector=FirstBand())
    found = status.read_status(sink(archive))
    assert "the last sweep ended early, last seen" in found.text()
    assert "No space left on device" in found.state_text()
    assert "No space left on device" in (archive / "page.html").read_text()
    us.sweep(config, detector=FirstBand())
    assert "No space" not in status.read_status(sink(archive)).text()


def identity(folder: Path, glob: str) -> str:
    source = {"type": "folder", "path": "incoming", "glob": glob}
    config = load_config(write_archive(folder, source=source))
    (item,) = list_items(config, datetime.now(UTC)).items
    return item.identity


def test_a_scene_changes_with_the_files_that_it_describes_or_needs(tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    tif = write_scene(incoming / "b.tif", 1)
    (incoming / "a.hdr").write_text("ENVI")
    metadata = "L_MTL.txt", "K_MTL.txt", "M_MTL.json", "N_MTL.xml"
    for name in ("S1/manifest.safe", "S1/measurement/vv.tiff", *metadata):
        (incoming / name).parent.mkdir(parents=True, exist_ok=True)
        (incoming / name).touch()
    named = f'<SourceFilename relativeToVRT="1">b.tif</SourceFilename><SourceFilename>{tif}<'
    (incoming / "c.vrt").write_text(named)
    (incoming / "d.vrt").write_text("<SourceFilename>e.vrt<")
    (incoming / "e.vrt").write_text(
        "<SourceFilename>d.vrt</SourceFilename><SourceFilename>f&amp;g<"
    )
    (incoming / "f&g").touch()
    for glob, other in [
        ("*.hdr", "a.img"), ("*.hdr", "a"), ("*.img", "a.hdr"), ("b.tif", "b.tif.msk"),
        ("c.vrt", "b.tif"), ("d.vrt", "f&g"), ("d.vrt", "f&g.hdr"),
        ("*/manifest.safe", "S1/measurement/vv.tiff"), ("L_*.txt", "L_B2.TIF"),
        ("M_*.json", "M_B2.TIF"), ("N_*.xml", "N_B2.TIF"),
    ]:  # fmt: skip
        before = identity(tmp_path, glob)
        (incoming / other).touch()
        os.utime(incoming / other, (1, 1))
        assert identity(tmp_path, glob) != before, other
    kept = "L_*.txt", "M_*.json", "N_*.xml", "b.tif"
    before = [identity(tmp_path, glob) for glob in kept]
    for other in ("K_B2.TIF", "b.tif.aux.xml", "b.png"):
        (incoming / other).touch()
    assert [identity(tmp_path, glob) for glob in kept] == before


def test_a_header_whose_data_come_later_is_not_parked(tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    (incoming / "a.hdr").write_text(
        "ENVI\nsamples = 64\nlines = 64\nbands = 1\ndata type = 4\ninterleave = bsq\n"
    )
    source = {"type": "folder", "path": "incoming", "glob": "*.hdr"}
    config = write_archive(tmp_path, source=source, tries=1)
    assert us.sweep(config, detector=FirstBand()).parked == ["a"]
    for share in (2, 1):
        pixels = np.random.default_rng(0).random(64 * 64 // share, np.float32)
        (incoming / "a.img").write_bytes(pixels.tobytes())
        report = us.sweep(config, detector=FirstBand())
        assert (report.parked, report.done) == (([], ["a"]) if share == 1 else (["a"], []))


def test_a_scene_that_is_cut_off_says_where(archive: Path) -> None:
    cut = write_scene(archive / "incoming" / "cut.tif", 2, side=256)
    os.truncate(cut, cut.stat().st_size // 2)
    report = us.sweep(write_archive(archive), detector=FirstBand())
    assert report.done == ["s_20240101"]
    assert "IReadBlock failed at X offset 0" in report.failed["cut"]
    assert "previous exception" not in report.text()


def test_a_zarr_map_gets_the_picture_that_it_had_no_time_or_room_for(tmp_path: Path) -> None:
    scene = us.open_scene(write_scene(tmp_path / "s.tif", 1))

    def score() -> dict[str, float]:
        us.score(scene, tmp_path / "map.zarr", detector=FirstBand(), tile=32, scheduler="sync")
        files = ("map.png", "map.qml", "map.zarr.run.json")
        return {name: (tmp_path / name).stat().st_mtime_ns for name in files}

    score()
    picture = (tmp_path / "map.png").read_bytes()
    (tmp_path / "map.png").unlink()  # as after a kill that came when the store was whole
    first = score()
    assert (tmp_path / "map.png").read_bytes() == picture
    assert score() == first, "then there is nothing to do"


@pytest.mark.parametrize("lost", ["zarr.json", "score", ""])
def test_a_store_without_its_root_or_scores_is_made_again(archive: Path, lost: str) -> None:
    config = write_archive(archive, output={"folder": "maps", "formats": ["zarr"]})
    us.sweep(config, detector=FirstBand())
    (store,) = archive.glob("maps/*/*/scores.zarr")
    before = xr.open_zarr(store).score.to_numpy()
    gone = store / lost
    gone.unlink() if gone.is_file() else shutil.rmtree(gone)
    store.mkdir(exist_ok=True)
    found = status.read_status(sink(archive))
    assert found.done == 0
    assert "scores.zarr" in found.notes["s_20240101"][0]
    assert us.sweep(config, detector=FirstBand()).done == ["s_20240101"]
    np.testing.assert_array_equal(xr.open_zarr(store).score.to_numpy(), before)
    assert us.sweep(config, detector=FirstBand()).todo == 0


@pytest.mark.parametrize("closed", ["s_20240101.json", "ledger.sqlite", ".sweep"])
def test_files_that_may_not_be_read_are_named(
    archive: Path, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_archive(archive)
    us.sweep(config, detector=FirstBand())
    (archive / "maps" / ".sweep" / "index.sqlite").unlink()

    def refuse(name: str) -> None:
        method = getattr(Path, name)

        def refusing(path: Path, *arguments: Any, **options: Any) -> Any:
            if path.name == closed:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return method(path, *arguments, **options)

        monkeypatch.setattr(Path, name, refusing)

    for name in ("open", "exists", "iterdir"):  # a superuser may read all
        refuse(name)
    with pytest.raises(us.StoreError, match=rf"Cannot read '.*{closed}': Permission denied\. Ch"):
        status.read_status(sink(archive))


def test_a_source_that_may_not_be_read_is_not_empty(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(us.ArchiveError, match=r"incoming' may not be read\. Check its permissions"):
        us.sweep(write_archive(archive), detector=FirstBand())
