"""A job belongs together, is prepared once, and goes through one door."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
from jobs import job_of
from standins import Batched, FirstBand, TileMean

import uniadrs_scale as us
from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.runtime.compute import Compute
from uniadrs_scale.scenes import sources
from uniadrs_scale.scoring import job as job_module
from uniadrs_scale.scoring.job import Job, prepare
from uniadrs_scale.scoring.run import run

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"preset": "single-band", "tile": 64, "stride": 48, "chunk": 100}


def scene(seed: int) -> xr.DataArray:
    pixels = np.random.default_rng(seed).random((1, 150, 130), np.float32)
    return xr.DataArray(pixels, dims=("band", "y", "x"), name=f"scene {seed}")


def test_a_job_of_another_scenes_plan_cannot_be_made() -> None:
    plan = us.plan(scene(2), detector=TileMean(), scheduler="sync", **SIZES)
    with pytest.raises(us.PlanError, match=r"plan is for scene 'scene 2'.*got scene 'scene 1'"):
        Job.of(scene(1), TileMean(), plan)
    assert Job.of(scene(2), TileMean(), plan).plan is plan


def test_a_job_of_another_scorer_cannot_be_made() -> None:
    plan = us.plan(scene(1), detector=TileMean(), scheduler="sync", **SIZES)
    with pytest.raises(us.PlanError, match=r"plan is for the scorer 'TileMean', got 'FirstBand'"):
        Job.of(scene(1), FirstBand(), plan)


def test_parts_of_two_jobs_cannot_be_put_together() -> None:
    one, two = job_of(scene(1), TileMean(), **SIZES), job_of(scene(2), TileMean(), **SIZES)
    for name in ("plan", "source"):
        with pytest.raises(us.PlanError, match="Plan the scene that you want to score"):
            replace(one, **{name: getattr(two, name)})
    with pytest.raises(FrozenInstanceError):
        one.plan = two.plan  # type: ignore[misc]


def test_a_job_on_other_workers_is_the_same_map() -> None:
    job = job_of(scene(1), TileMean(), **SIZES)
    other = job.on(Compute(workers=7, threads=2))
    assert (other.plan.workers, other.plan.threads, other.plan.in_lines) == (7, 2, True)
    assert other.plan.fingerprint == job.plan.fingerprint
    assert other.plan.memory != job.plan.memory


@pytest.mark.parametrize("stored", [True, False])
def test_a_scene_is_hashed_once_and_the_executor_opened_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    calls: list[str] = []

    def counted(name: str, real: object) -> object:
        def call(*arguments: object, **named: object) -> object:
            calls.append(name)
            return real(*arguments, **named)

        return call

    monkeypatch.setattr(sources, "content_digest", counted("hash", sources.content_digest))
    monkeypatch.setattr(job_module, "scene_source", counted("source", job_module.scene_source))
    monkeypatch.setattr(Compute, "open", counted("open", Compute.open))
    monkeypatch.setattr(Compute, "of", counted("decide", Compute.of))
    store = tmp_path / "map.zarr" if stored else None
    us.score(scene(1), store, detector=TileMean(), scheduler="sync", **SIZES)
    assert sorted(calls) == ["decide", "hash", "open", "source"]


def test_one_compute_serves_several_jobs(tmp_path: Path) -> None:
    whole = [
        us.score(scene(n), detector=TileMean(), scheduler="sync", **SIZES).values for n in (1, 2)
    ]
    with Compute(workers=1, threads=1).connected() as compute:
        assert not compute.is_own
        assert compute.client is not None
        for n in (1, 2):
            job = prepare(scene(n), Sizes(**SIZES), Batched(), compute)
            assert run(job, tmp_path / f"{n}.zarr", compute).complete
            got = us.score(scene(n), tmp_path / f"{n}.zarr", detector=TileMean(), **SIZES)
            np.testing.assert_array_equal(got.values, whole[n - 1])
