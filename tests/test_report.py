"""What a run leaves behind about itself: run.json beside the map."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
from standins import Failing, TileMean

import uniadrs_scale as us
from uniadrs_scale.output import run_to_file
from uniadrs_scale.report import write_report
from uniadrs_scale.score import plan

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

OPTIONS = {"preset": "single-band", "tile": 64, "stride": 48, "chunk": 100}


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
        planned = plan(scene(), detector=TileMean(), **OPTIONS)
        summary = run_to_file(scene(), tmp_path / "map.tif", planned, TileMean())
    assert summary.complete
    facts = load(tmp_path / "map.tif.run.json")
    assert facts["output"] == "map.tif"
    assert facts["cluster"] == {
        "scheduler": cluster.scheduler.address, "worker_deaths": 0, "retries": 0, "dismissed": [],
    }  # fmt: skip
    assert set(facts["memory"]["workers"]) <= set(cluster.scheduler_info()["workers"])
    assert facts["memory"]["peak"] > 2**26
    assert {"cog", "workers", "score"} <= set(facts["seconds"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "map.tif.run.json"]


def test_a_run_that_breaks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise us.ClusterError("nobody is left")

    monkeypatch.setattr("uniadrs_scale.run.score_scene", broken)
    with pytest.raises(us.ClusterError):
        us.score(scene(), tmp_path / "map.zarr", detector=TileMean(), scheduler="sync", **OPTIONS)
    facts = load(tmp_path / "map.zarr.run.json")
    assert not facts["complete"]
    assert facts["error"] == "ClusterError: nobody is left"


def test_a_report_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_report(path, {"a": 1})
    with pytest.raises(TypeError):
        write_report(path, {"a": object()})
    assert load(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_more_memory_than_there_is_is_refused_with_the_chunk_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = xr.DataArray(np.zeros((12, 2000, 2000), np.float32), dims=("band", "y", "x"))
    options = {"detector": TileMean(), "scheduler": "sync", "tile": 224, "stride": 168}
    limit = 720 * 2**20
    monkeypatch.setattr("uniadrs_scale.graph.cluster.machine_memory", lambda: limit)
    with pytest.raises(us.PlanError, match=r"MiB \(0.7 GiB of this machine") as refused:
        us.score(wide, tmp_path / "map.zarr", chunk=2000, **options)
    assert not list(tmp_path.iterdir())
    fits = int(str(refused.value).partition("chunk <= ")[2].split()[0])
    assert us.plan(wide, chunk=fits, **options).memory.total <= limit
    assert us.plan(wide, chunk=fits + 64, **options).memory.total > limit
    with pytest.raises(us.PlanError, match=r"No chunk is small enough"):
        us.plan(wide, chunk=2000, **options).require_memory(2**20, "a tiny machine")
    us.plan(wide, chunk=2000, **options).require_memory(0, "")


def test_a_performance_report_needs_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(us.PlanError, match=r"'sync' and 'threads' have none"):
        us.score(
            scene(), tmp_path / "map.zarr", detector=TileMean(), scheduler="sync",
            performance_report=tmp_path / "page.html", **OPTIONS,
        )  # fmt: skip
