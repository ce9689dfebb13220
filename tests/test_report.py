"""What a run leaves behind about itself: run.json beside the map."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
from jobs import run_into
from standins import Failing, TileMean

import uniadrs_scale as us
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.runtime.executor import ClusterFacts
from uniadrs_scale.runtime.graph import Receipt
from uniadrs_scale.runtime.tasks import ChunkReport, TileFailure
from uniadrs_scale.scoring.report import Clock, RunSummary, report_place, run_facts, write_report
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

OPTIONS = {"preset": "single-band", "tile": 64, "stride": 48, "chunk": 100}


MAP = Place.of("map.zarr")


def scene() -> xr.DataArray:
    pixels = np.random.default_rng(5).integers(0, 999, (2, 230, 210)).astype(np.float32)
    pixels[0, 96, 144] = 1e6  # the first pixel of one tile, and of no other
    return xr.DataArray(pixels, dims=("band", "y", "x"))


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_report_lies_beside_a_store_and_not_in_it(tmp_path: Path) -> None:
    us.score(scene(), tmp_path / "map.zarr", detector=TileMean(), scheduler="sync", **OPTIONS)
    facts = load(tmp_path / "map.zarr.run.json")
    planned = us.plan(scene(), detector=TileMean(), scheduler="sync", **OPTIONS)
    assert facts["complete"]
    assert facts["fingerprint"] == planned.fingerprint
    assert facts["plan"] == json.loads(json.dumps(planned.to_dict()))
    assert facts["tiles"] == {"scored": planned.lattice.tiles, "skipped": 0, "failed": []}
    assert facts["chunks"] == {"committed": 9, "complete_before": 0, "lost": []}
    assert {"prepare", "statistics", "score", "total"} <= set(facts["seconds"])
    assert facts["memory"]["forecast"] == planned.memory.total
    assert facts["memory"]["peak"] == facts["memory"]["workers"]["this process"] > 2**26
    assert {"torch", "numpy", "zarr", "python", "uniadrs_scale"} <= set(facts["versions"])
    assert facts["weights"] == {"detector": "TileMean", "sha256": None}
    assert not list((tmp_path / "map.zarr").rglob("*run.json"))


def test_a_run_with_nothing_to_do_leaves_the_report(tmp_path: Path) -> None:
    for _ in range(2):
        us.score(scene(), tmp_path / "map.zarr", detector=TileMean(), scheduler="sync", **OPTIONS)
    assert load(tmp_path / "map.zarr.run.json")["chunks"]["committed"] == 9


def test_a_run_that_draws_a_missing_picture_leaves_the_report(tmp_path: Path) -> None:
    for _ in range(2):
        us.score(scene(), tmp_path / "map.zarr", detector=TileMean(), scheduler="sync", **OPTIONS)
        assert load(tmp_path / "map.zarr.run.json")["chunks"]["committed"] == 9
        (tmp_path / "map.png").unlink()


def test_failed_tiles_are_named_with_their_windows(tmp_path: Path) -> None:
    failing = Failing(7.9, raises=True)
    with pytest.warns(us.IncompleteWarning):
        us.score(scene(), tmp_path / "map.zarr", detector=failing, scheduler="sync", **OPTIONS)
    facts = load(tmp_path / "map.zarr.run.json")
    assert not facts["complete"]
    assert facts["tiles"]["failed"] == [
        {
            "window": {"row": 96, "col": 144, "height": 64, "width": 64},
            "reason": "RuntimeError: no score for this one",
        }
    ]


def test_the_report_of_a_cog_carries_its_name_and_stages(tmp_path: Path, cluster: Client) -> None:
    with cluster.as_current():
        summary = run_into(scene(), tmp_path / "map.tif", TileMean(), scheduler=None, **OPTIONS)
    assert summary.complete
    facts = load(tmp_path / "map.tif.run.json")
    assert facts["output"] == "map.tif"
    assert facts["cluster"] == {
        "scheduler": cluster.scheduler.address, "worker_deaths": 0, "retries": 0, "dismissed": [],
    }  # fmt: skip
    assert set(facts["memory"]["workers"]) <= set(cluster.scheduler_info()["workers"])
    assert facts["memory"]["peak"] > 2**26
    assert {"cog", "workers", "score"} <= set(facts["seconds"])
    names = ["map.png", "map.qml", "map.tif", "map.tif.run.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_run_that_breaks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise us.ClusterError("nobody is left")

    monkeypatch.setattr("uniadrs_scale.runtime.graph.score_scene", broken)
    with pytest.raises(us.ClusterError):
        us.score(scene(), tmp_path / "map.zarr", detector=TileMean(), scheduler="sync", **OPTIONS)
    facts = load(tmp_path / "map.zarr.run.json")
    assert not facts["complete"]
    assert facts["error"] == "ClusterError: nobody is left"


def test_a_report_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    place = Place.of(path)
    write_report(place, {"a": 1})
    with pytest.raises(TypeError):
        write_report(place, {"a": object()})
    assert load(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_report(place, {"a": 2})
    assert load(path) == {"a": 1}


def test_more_memory_than_there_is_is_refused_with_the_chunk_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = xr.DataArray(np.zeros((12, 2000, 2000), np.float32), dims=("band", "y", "x"))
    options = {"detector": TileMean(), "scheduler": "sync", "tile": 224, "stride": 168}
    limit = us.plan(wide, chunk=2000, **options).memory.process + 120 * 2**20
    monkeypatch.setattr("uniadrs_scale.runtime.compute.machine_memory", lambda: limit)
    with pytest.raises(us.PlanError, match=r"MiB \(\d\.\d GiB of this machine") as refused:
        us.score(wide, tmp_path / "map.zarr", chunk=2000, **options)
    assert not list(tmp_path.iterdir())
    fits = int(str(refused.value).partition("chunk <= ")[2].split()[0])
    assert us.plan(wide, chunk=fits, **options).memory.total <= limit
    assert us.plan(wide, chunk=fits + 64, **options).memory.total > limit
    with pytest.raises(us.PlanError, match=r"No chunk is small enough"):
        us.plan(wide, chunk=2000, **options).require_memory(2**20, "a tiny machine")
    us.plan(wide, chunk=2000, **options).require_memory(0, "")


def test_a_performance_report_needs_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(us.PlanError, match=r"got scheduler='sync'. Pass --workers 2 \(workers=2\)"):
        us.score(
            scene(), tmp_path / "map.zarr", detector=TileMean(), scheduler="sync",
            performance_report=tmp_path / "page.html", **OPTIONS,
        )  # fmt: skip
    assert not any(tmp_path.iterdir())


def test_a_scene_without_valid_pixels_is_told() -> None:
    with pytest.warns(us.SceneWarning, match=r"No valid pixel was found, .* Check nodata"):
        us.score(scene().where(False), detector=TileMean(), **OPTIONS)


def test_a_performance_report_replaces_no_other_file(tmp_path: Path) -> None:
    page = tmp_path / "notes.html"
    page.write_text("notes")
    with pytest.raises(us.StoreError, match="exists and is not a performance report"):
        us.score(scene(), detector=TileMean(), workers=1, performance_report=page, **OPTIONS)
    assert page.read_text() == "notes"


def test_the_peak_is_that_of_the_largest_worker() -> None:
    facts = ClusterFacts(
        scheduler="tcp://a", deaths=2, retries=3, dismissed=("tcp://e is too old",)
    )
    planned = us.plan(scene(), detector=TileMean(), scheduler="sync", **OPTIONS)
    receipts = [
        Receipt(chunk(n).report, f"tcp://{name}", peak)
        for n, (name, peak) in enumerate([("b", 5), ("c", 9), ("d", 7), ("c", 8)])
    ]
    summary = replace(RunSummary.of(MAP, receipts, 0, []), cluster=facts)
    told = run_facts(planned, summary, None)
    assert told["cluster"] == {
        "scheduler": "tcp://a", "worker_deaths": 2, "retries": 3,
        "dismissed": ["tcp://e is too old"],
    }  # fmt: skip
    assert told["memory"] == {
        "forecast": planned.memory.total, "peak": 9,
        "workers": {"tcp://b": 5, "tcp://c": 9, "tcp://d": 7},
    }  # fmt: skip
    assert run_facts(planned, RunSummary.of(MAP, [], 0, []), None)["memory"]["peak"] == 0


def chunk(number: int, failures: tuple[TileFailure, ...] = ()) -> Receipt:
    report = ChunkReport(
        index=(0, number), pixels=1_000_000, valid=900_000, scored=10 + number, skipped=number,
        failures=failures, complete=not failures,
    )  # fmt: skip
    return Receipt(report, "this process", 4)


def failures(count: int) -> tuple[TileFailure, ...]:
    return tuple(TileFailure(Window(8 * k, k, 64, 64), f"reason {k}") for k in range(count))


def test_a_summary_is_the_sum_of_its_chunks() -> None:
    reports = [chunk(1), chunk(2, failures(1)), chunk(4, failures(2))]
    summary = RunSummary.of(MAP, reports, 5, [us.StoreError("no room")])
    summary = replace(summary, seconds=1.5)
    assert (summary.pixels, summary.chunks, summary.kept) == (3_000_000, 3, 5)
    assert (summary.tiles_scored, summary.tiles_skipped, len(summary.failures)) == (37, 7, 3)
    assert summary.lost == ("StoreError: no room",)
    assert summary.text().splitlines() == [
        "pixels   3.00 Mpx in 3 chunks, 5 were complete before",
        "valid    90.0% of the pixels",
        "tiles    37 scored, 7 skipped (no valid pixel), 3 failed",
        "time     1.5 s, 2.00 Mpx/s",
        "failed   tile at pixel (0, 0): reason 0",
        "failed   tile at pixel (0, 0): reason 0",
        "failed   tile at pixel (8, 1): reason 1",
        "lost     StoreError: no room",
    ]


def test_a_summary_names_ten_failed_tiles_and_counts_the_others() -> None:
    def named(count: int) -> list[str]:
        summary = RunSummary.of(MAP, [chunk(0, failures(count))], 0, [])
        return [line for line in summary.text().splitlines() if line.startswith("failed")]

    assert named(10)[-1] == "failed   tile at pixel (72, 9): reason 9"
    assert named(12)[-2:] == [named(10)[-1], "failed   ... and 2 more tiles"]
    assert len(named(12)) == 11


@pytest.mark.parametrize("lost", [[], [OSError("gone")]])
@pytest.mark.parametrize("failed", [0, 1])
def test_a_run_is_complete_with_nothing_failed_and_nothing_lost(
    failed: int, lost: list[Exception]
) -> None:
    summary = RunSummary.of(MAP, [chunk(0, failures(failed))], 0, lost)
    assert summary.complete == (not failed and not lost)


def test_lost_chunks_and_their_secrets() -> None:
    error = OSError("https://me:pw@host/a?sig=abc is away")
    (said,) = RunSummary.of(MAP, [], 0, [error]).lost
    assert said == "OSError: https://***@host/a?sig=*** is away"


def test_a_stage_that_comes_twice_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 12.5, 20.0, 20.25, 30.0, 31.0])
    monkeypatch.setattr("uniadrs_scale.scoring.report.time.perf_counter", lambda: next(times))
    clock = Clock()
    for stage in ("read", "write"):
        with clock(stage):
            pass
    with pytest.raises(KeyError), clock("read"):
        raise KeyError
    assert clock.seconds == {"read": 3.5, "write": 0.25}


def test_facts_of_a_run_that_lost_something(tmp_path: Path) -> None:
    planned = us.plan(scene(), detector=TileMean(), scheduler="sync", **OPTIONS)
    summary = replace(
        RunSummary.of(MAP, [chunk(3, failures(1))], 2, [OSError("gone")]),
        seconds=1.23456,
        stages={"score": 1.2}, cluster=ClusterFacts(scheduler="sync"),
    )  # fmt: skip
    facts = run_facts(planned, summary, "abc")
    assert facts["output"] == "map.zarr"
    assert facts["complete"] is False
    assert facts["weights"] == {"detector": "TileMean", "sha256": "abc"}
    assert facts["tiles"] == {
        "scored": 13, "skipped": 3,
        "failed": [{"window": {"row": 0, "col": 0, "height": 64, "width": 64},
                    "reason": "reason 0"}],
    }  # fmt: skip
    assert facts["chunks"] == {"committed": 1, "complete_before": 2, "lost": ["OSError: gone"]}
    assert facts["seconds"] == {"score": 1.2, "total": 1.235}
    assert facts["memory"]["peak"] == 4
    assert facts["machine"]["cores"] == os.cpu_count()


def test_a_report_tells_no_secret_and_lies_beside_its_map(tmp_path: Path) -> None:
    write_report(Place.of(tmp_path / "run.json"), {"said": "https://me:pw@host/a?sig=abc"})
    assert load(tmp_path / "run.json") == {"said": "https://***@host/a?sig=***"}
    for name in (str(tmp_path / "map.zarr"), "s3://maps/a/map.tif"):
        assert report_place(Place.of(name)).text == f"{name}.run.json"
