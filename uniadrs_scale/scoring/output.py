"""The map as the file that was asked for: a Zarr store, or a COG by way of a hidden one."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

from uniadrs_scale.detector.detector import weights_digest
from uniadrs_scale.errors import PlanError, StoreError
from uniadrs_scale.maps.cog import to_cog
from uniadrs_scale.maps.new_store import require_same_plan
from uniadrs_scale.maps.store import DONE, open_store
from uniadrs_scale.runtime.cluster import connected
from uniadrs_scale.scenes.rasters import raster_tag
from uniadrs_scale.scoring.report import Clock, RunSummary, report_place, run_facts, write_report
from uniadrs_scale.scoring.run import carry_out, run
from uniadrs_scale.storage.locks import claimed
from uniadrs_scale.storage.places import Place
from uniadrs_scale.swaths.geometry import Geocoding

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import xarray as xr

    from uniadrs_scale.core.contracts import Scorer
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.runtime.tasks import ChunkReport


def run_to_file(
    scene: xr.DataArray,
    output: str | Path | Place,
    plan: ScorePlan,
    detector: Scorer,
    *,
    scheduler: str | None = None,
    on_report: Callable[[ChunkReport], None] = lambda _: None,
    geocoding: Geocoding | None = None,
    report: Place | None = None,
    performance_report: Path | None = None,
) -> RunSummary:
    """:func:`run` into ``OUT.zarr``, or by way of a hidden store beside it into ``OUT.tif`` (COG).

    The hidden store is what an interrupted run resumes from; it goes when the map is complete.
    ``report`` is where to write what was done, by default ``OUTPUT.run.json``.

    Raises:
        PlanError: ``geocoding`` is asked for but the scene is no swath, or the output no COG.
        StoreError: ``output`` ends in neither, cannot be written, or holds another plan's map.
    """
    target, hidden = _targets(output)
    drawn = geocoding or Geocoding()
    if drawn != Geocoding() and (target == hidden or not plan.scene.geolocation):
        raise PlanError(
            f"CRS, resolution and resampling ({drawn.text}) are for the COG of a swath, and "
            f"'{plan.scene.name}' into '{target.name}' is none. Leave them away; a map on a "
            "grid can be warped afterwards (rio warp)."
        )
    if target == hidden:
        return run(
            scene, target, plan, detector, scheduler=scheduler, on_report=on_report,
            report=report, performance_report=performance_report,
        )  # fmt: skip
    path = report_place(target) if report is None else report
    with claimed(target), connected(scheduler) as where:
        if _is_finished(target, hidden, plan, drawn):
            hidden.remove_leftovers()
            return RunSummary.of(target, [], plan.chunks, [], 0.0)
        summary = carry_out(
            scene, hidden, plan, detector, scheduler=where, on_report=on_report,
            report=path, performance_report=performance_report,
        )  # fmt: skip
        summary = _into_cog(hidden, target, drawn, summary)
        write_report(path, run_facts(plan, summary, weights_digest(detector)))
    return summary


def _into_cog(hidden: Place, target: Place, drawn: Geocoding, summary: RunSummary) -> RunSummary:
    """Write the COG of the store at ``hidden``, which goes if complete; the summary of both."""
    clock = Clock()
    with clock("cog"), warnings.catch_warnings():
        # That the store is incomplete is in the summary, with the reasons.
        warnings.simplefilter("ignore", UserWarning)
        to_cog(
            hidden,
            target,
            crs=drawn.crs,
            resolution=drawn.resolution,
            resampling=drawn.resampling,
        )
    if summary.complete:
        hidden.remove_store()
    return replace(
        summary,
        output=target,
        stages={**summary.stages, **clock.seconds},
        seconds=summary.seconds + clock.seconds["cog"],
    )


def output_state(output: str | Path, plan: ScorePlan) -> str:
    """What a run of ``plan`` into ``output`` would find there.

    Raises:
        StoreError: As :func:`run_to_file`.
    """
    target, store = _targets(output)
    if target != store and _is_finished(target, store, plan):
        return f"{output} is complete: nothing to do"
    if not store.has_store():
        target.require_folder()
        return f"{output} is new"
    done = require_same_plan(open_store(store), plan).done == DONE
    return f"{output}: {int(done.sum())} of {done.size} chunks are complete, the rest is resumed"


def _targets(output: str | Path | Place) -> tuple[Place, Place]:
    """(what the user asked for, the store that a run writes): the same for Zarr."""
    target = Place.of(output)
    target.require_name()
    if target.suffix == ".zarr":
        return target, target
    if target.suffix in (".tif", ".tiff"):
        return target, target.beside(f".{target.name}.zarr")
    raise StoreError(f"Output '{output}' has no known format. Let it end in .zarr or .tif.")


def _is_finished(
    target: Place, hidden: Place, plan: ScorePlan, drawn: Geocoding | None = None
) -> bool:
    """True where the COG at ``target`` is this plan's whole map already, drawn as wanted."""
    there = target.exists()
    if there and raster_tag(target.text, "fingerprint") != plan.fingerprint:
        raise StoreError(
            f"'{target}' exists and is not the map of this scene and plan. "
            "Remove it, or choose another output path."
        )
    finished = there and not hidden.has_store()
    if (
        finished
        and drawn
        and (was := raster_tag(target.text, "geocoding")) not in (None, drawn.text)
    ):
        raise StoreError(
            f"'{target}' is the map of this scene and plan, but drawn otherwise ({was}, now "
            f"{drawn.text}). Remove it, or choose another output path."
        )
    return finished
