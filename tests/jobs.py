"""Shorthands for tests that carry out a job themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uniadrs_scale.core.pixels import Normalisation
from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.runtime.batches import Scaled
from uniadrs_scale.runtime.graph import Work
from uniadrs_scale.scoring.job import Job, compute_for, prepare
from uniadrs_scale.scoring.run import Observer, run

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

    from uniadrs_scale.core.contracts import Scorer
    from uniadrs_scale.maps.store import ScoreStore
    from uniadrs_scale.scoring.report import RunSummary


def job_of(
    scene: xr.DataArray, scorer: Scorer, scheduler: str | None = "sync", **sizes: Any
) -> Job:
    """The job of a scene."""
    return prepare(scene, Sizes(**sizes), scorer, compute_for(scorer, scheduler))


def run_into(
    scene: xr.DataArray,
    output: Path,
    scorer: Scorer,
    *,
    scheduler: str | None = "sync",
    workers: int | None = None,
    observer: Observer | None = None,
    **sizes: Any,
) -> RunSummary:
    """A whole run, as the command line does it."""
    compute = compute_for(scorer, scheduler, workers)
    return run(prepare(scene, Sizes(**sizes), scorer, compute), output, compute, observer)


def work_of(job: Job, store: ScoreStore, scaling: Normalisation | None = None) -> Work:
    """The work of a job whose scorer needs no fitting; bands are not scaled by default."""
    bands = len(job.plan.scene.bands)
    plain = Normalisation(offset=np.zeros(bands, np.float32), scale=np.ones(bands, np.float32))
    scaled = Scaled(job.scorer, scaling or plain)
    return Work(source=job.source, plan=job.plan, store=store, scaled=scaled)
