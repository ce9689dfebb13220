"""A plan is carried out: its store is begun or resumed, what it lacks is scored, and that is told.

Refused before a byte is written: more memory than there is, and the store of another plan.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from uniadrs_scale.core.validity import SOME_BANDS
from uniadrs_scale.detector.detector import coarsened, gpus_in_use, weights_digest
from uniadrs_scale.errors import SceneError
from uniadrs_scale.maps.new_store import prepare
from uniadrs_scale.maps.pyramids import finish
from uniadrs_scale.maps.store import DONE, open_store
from uniadrs_scale.runtime.cluster import connected, require_fit
from uniadrs_scale.runtime.compute import Resources, executor, memory_limit
from uniadrs_scale.runtime.cpu import mixed
from uniadrs_scale.runtime.graph import scene_statistics, score_scene
from uniadrs_scale.scenes.sources import map_coordinates, scene_source
from uniadrs_scale.scoring.report import Clock, RunSummary, report_place, run_facts, write_report
from uniadrs_scale.storage.locks import claimed
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import xarray as xr

    from uniadrs_scale.core.contracts import SceneSource, Scorer
    from uniadrs_scale.core.pixels import BandStatistics
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.maps.store import ScoreStore
    from uniadrs_scale.runtime.executor import Executor
    from uniadrs_scale.runtime.tasks import ChunkReport


LARGE_AREAS = 0.01
"""Share of pixels in areas of one value from which on a summary asks whether these are data."""


def run(
    scene: xr.DataArray,
    store: str | Path | Place,
    plan: ScorePlan,
    detector: Scorer,
    *,
    scheduler: str | None = None,
    on_report: Callable[[ChunkReport], None] = lambda _: None,
    report: Place | None = None,
    performance_report: Path | None = None,
) -> RunSummary:
    """Carry out ``plan``, as :func:`score` does; what was done is returned instead of the map.

    Args:
        scene: As for :func:`score`.
        store: Zarr store to write or complete.
        plan: Of :func:`plan`, for the same scene and detector.
        detector: Scores the tiles.
        scheduler: As for :func:`score`.
        on_report: Called after every committed chunk.
        report: Where to write what was done, as JSON; by default ``STORE.run.json`` beside it. A
            run that finds nothing to do leaves the report of the one that did it.
        performance_report: As for :func:`score`.
    """
    place = Place.of(store)
    with claimed(place), connected(scheduler) as where:
        summary = carry_out(
            scene, place, plan, detector, scheduler=where, on_report=on_report,
            report=report_place(place) if report is None else report,
            performance_report=performance_report,
        )  # fmt: skip
        if summary.complete:
            finish(open_store(place))
        return summary


def carry_out(
    scene: xr.DataArray,
    store: Place,
    plan: ScorePlan,
    detector: Scorer,
    *,
    scheduler: str | None,
    on_report: Callable[[ChunkReport], None],
    report: Place,
    performance_report: Path | None,
) -> RunSummary:
    """:func:`run`, of a store that nobody else writes to."""
    clock, started = Clock(), time.perf_counter()
    source, resources = scene_source(scene), _resources(plan, detector)
    # Before there is a store: what a refusal advises, a smaller chunk, is another plan.
    plan.require_memory(*memory_limit(scheduler, resources))
    new = not store.has_store()
    with clock("prepare"):
        target = prepare(store, plan, map_coordinates(scene))
    before, kinds_before = int((target.done == DONE).sum()), target.cpu_kinds
    reports: list[ChunkReport] = []
    kinds = set(kinds_before)

    def note(chunk: ChunkReport) -> None:
        if not kinds.issuperset(chunk.cpu_kinds):
            kinds.update(chunk.cpu_kinds)
            target.add_cpu_kinds(chunk.cpu_kinds)
        reports.append(chunk)
        on_report(chunk)

    def summarise(lost: list[Exception], tasks: Executor | None = None) -> RunSummary:
        took = time.perf_counter() - started
        summary = RunSummary.of(target.path, reports, before, lost, took)
        facts = None if tasks is None else tasks.facts()
        return replace(
            summary, stages=dict(clock.seconds), cluster=facts,
            cpu_kinds_before=kinds_before, notes=(*plan.scene.remarks, *mixed(kinds)),
        )  # fmt: skip

    if before == target.done.size:
        summary = summarise([])
        if not report.exists():
            write_report(report, run_facts(plan, summary, weights_digest(detector)))
        return summary
    try:
        with executor(scheduler, resources) as tasks:
            with tasks.reported(performance_report):
                lost, seen = _compute(source, target, plan, detector, tasks, note, clock)
            summary = summarise(lost, tasks)
            summary = replace(
                summary, invalid=seen.invalid, notes=(*summary.notes, *_notes(seen, plan)),
            )  # fmt: skip
    except SceneError:
        if new and not reports:  # a scene that cannot be scored begins no store
            store.remove_store()
        raise
    except Exception as error:
        facts = run_facts(plan, summarise([error]), weights_digest(detector))
        write_report(report, facts | {"error": f"{type(error).__name__}: {error}"})
        raise
    write_report(report, run_facts(plan, summary, weights_digest(detector)))
    return summary


def _resources(plan: ScorePlan, detector: Scorer) -> Resources:
    return Resources(plan.workers, plan.threads, gpus_in_use(detector))


def _compute(  # noqa: PLR0917 - one step of run(), with what it has gathered
    source: SceneSource,
    store: ScoreStore,
    plan: ScorePlan,
    detector: Scorer,
    tasks: Executor,
    on_report: Callable[[ChunkReport], None],
    clock: Clock,
) -> tuple[list[Exception], BandStatistics]:
    """Check the workers, learn the scene's statistics, score; return what was lost, and these."""
    seen = coarsened(detector, plan.coarsen, plan.lattice.tile)
    if tasks.client is not None:
        with clock("workers"):
            require_fit(tasks.client, seen, tile=plan.lattice.tile, bands=len(source.info.bands))
    with clock("statistics"):
        statistics = _statistics(source, store, tasks)
        _require_scalable(statistics, source)
        scaled = (seen.fitted(statistics), statistics.normalisation())
    at_work = tasks.cpu_kinds()
    if len(at_work) == 1:  # before the first chunk, so that a run killed at any moment said it
        store.add_cpu_kinds(at_work)
    with clock("score"):
        lost = score_scene(source, plan, store, tasks, scaled=scaled, on_report=on_report)
    return lost, statistics


def _notes(statistics: BandStatistics, plan: ScorePlan) -> Iterator[str]:
    """Yield what looks wrong with the scene, and what to do."""
    pixels, value = max(
        ((pixels, value) for value, pixels in statistics.flat.items()), default=(0, 0)
    )
    if LARGE_AREAS * statistics.count <= pixels < statistics.count:
        yield (
            f"{pixels / statistics.count:.0%} of the valid pixels seen are in areas of {value}. If "
            f"{value} means no data, say so (--nodata {value}, or open_scene(nodata={value})): its "
            "border glows otherwise."
        )
    partly = statistics.invalid.get(SOME_BANDS, 0)
    if partly >= LARGE_AREAS:
        yield (
            f"{partly:.0%} of the pixels have their nodata value in some bands only. If they are "
            "data, keep them (--nodata-when all, or open_scene(nodata_when='all'))."
        )
    looks, judged = statistics.speckle
    if 2 * looks > judged and plan.coarsen == 1:
        yield "The band varies as radar does (speckle). If it is radar, score it with --preset sar."


def _require_scalable(statistics: BandStatistics, source: SceneSource) -> None:
    """Raise where values are beyond arithmetic."""
    beyond = statistics.beyond_float32()
    if not beyond.size:
        return
    raise SceneError(
        f"Band '{source.info.bands[beyond[0]]}' of '{source.info.name}' has values that single "
        "precision cannot hold, or whose squares double precision cannot. Are they a nodata value? "
        "Name it (nodata=), or rescale the band."
    )


def _statistics(source: SceneSource, store: ScoreStore, tasks: Executor) -> BandStatistics:
    """The statistics that ``store`` was begun with; of a new one, those of the scene."""
    known = store.statistics
    if known is not None:
        return known
    statistics = scene_statistics(source, tasks)
    if statistics.count:  # of pixels that could not be read, the next run shall know better
        store.write_statistics(statistics)
    return statistics
