"""The run of a job: begin or resume its store, score the missing chunks, report.

Two things are refused before a byte is written: a plan that needs more memory than there is, and
the store of another plan.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from uniadrs_scale.core.compiled import mixed
from uniadrs_scale.core.regions import Grid
from uniadrs_scale.detector.detector import levels_of, weights_digest
from uniadrs_scale.errors import SceneError, StoreError
from uniadrs_scale.maps.exports import FinishedMap, companions, has_companions, require_own_page
from uniadrs_scale.maps.groups import read_cells
from uniadrs_scale.maps.new_store import prepare
from uniadrs_scale.maps.pyramids import finish
from uniadrs_scale.maps.store import DONE
from uniadrs_scale.runtime import graph
from uniadrs_scale.runtime.compute import performance_page
from uniadrs_scale.runtime.graph import Work
from uniadrs_scale.runtime.statistics import (
    partly_read,
    regional,
    require_scalable,
    scene_statistics,
)
from uniadrs_scale.scenes.sources import require_still
from uniadrs_scale.scoring.notes import scene_notes
from uniadrs_scale.scoring.preview_ahead import preview_ahead
from uniadrs_scale.scoring.report import (
    Clock,
    RunSummary,
    report_place,
    run_facts,
    write_report,
)
from uniadrs_scale.scoring.target import Target
from uniadrs_scale.storage.locks import claimed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uniadrs_scale.core.pixels import BandStatistics
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.core.regions import Cells
    from uniadrs_scale.maps.store import ScoreStore
    from uniadrs_scale.runtime.compute import Compute
    from uniadrs_scale.runtime.executor import Executor
    from uniadrs_scale.runtime.graph import Receipt
    from uniadrs_scale.runtime.tasks import ChunkReport
    from uniadrs_scale.scenes.preview import ScenePicture
    from uniadrs_scale.scoring.job import Job
    from uniadrs_scale.storage.places import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Places and functions that a run reports to."""

    on_report: Callable[[ChunkReport], None] = lambda _: None
    """Called after every committed chunk."""
    report: Place | None = None
    """JSON file for the facts of the run; by default ``TARGET.run.json`` next to the target. A run
    that finds nothing to do leaves the report of the one that did it."""
    performance_report: Path | None = None
    """Page for Dask's performance report."""
    companions: bool = True
    """Whether a picture and a style are written next to the map."""


def run(
    job: Job,
    target: Target | str | Path | Place,
    compute: Compute,
    observer: Observer | None = None,
) -> RunSummary:
    """Carry out ``job`` and return a summary. All ways to score a scene come through here.

    Args:
        job: The scene, its scorer and its plan.
        target: Zarr store to write or complete, or a COG.
        compute: The processes that compute.
        observer: Places and functions to report to.

    Raises:
        PlanError: The plan needs more memory than there is, or an option has no effect.
        StoreError: The target cannot be written, or holds another plan's map.
        BusyError: Another run writes there.
    """
    to = target if isinstance(target, Target) else Target.of(target)
    to.require_drawable(job.plan.scene)
    to.require_apart(job.source)
    with claimed(to.place):
        return _Run(job.on(compute), to, observer or Observer()).carry_out(compute)


class _Run:
    """A run that holds its target."""

    def __init__(self, job: Job, target: Target, observer: Observer) -> None:
        self.job, self.target, self.observer = job, target, observer
        self.plan: ScorePlan = job.plan
        self.place = report_place(target.place) if observer.report is None else observer.report
        self.clock, self.started = Clock(), time.perf_counter()
        self.receipts: list[Receipt] = []
        self.levels = levels_of(job.scorer, job.plan.preset_name)
        self.kept = 0
        self.kinds_before: tuple[str, ...] = ()
        self.kinds: set[str] = set()

    def carry_out(self, compute: Compute) -> RunSummary:
        target, store = self.target, self.target.store
        if target.is_finished(self.plan, target.drawn):
            store.remove_leftovers()
            kept = self.plan.chunks
            return RunSummary(output=target.place, kept=kept, levels=self.levels)
        # Before there is a store: a smaller chunk, the advice of a refusal, is another plan.
        self.plan.require_memory(*compute.memory_limit)
        if (page := self.observer.performance_report) is not None:
            require_own_page(page, "a performance report", sign=b"Dask Performance Report")
            compute.require_workers("A performance report")
        new = target.begin(self.plan)
        with self.clock("prepare"):
            weights = weights_digest(self.job.scorer)
            opened = prepare(store, self.plan, self.job.coordinates, weights)
            opened.keep_levels(self.levels)
        self.kept, self.kinds_before = int((opened.done == DONE).sum()), opened.cpu_kinds
        self.kinds = set(self.kinds_before)
        known = opened.statistics
        nothing_to_do = self.kept == opened.done.size and not (known and known.unread)
        pictured = self.observer.companions and not nothing_to_do
        with preview_ahead(self.job.source, wanted=pictured) as preview:
            summary = self.summary([]) if nothing_to_do else self.score(opened, compute, new=new)
            told = not (self.receipts or summary.lost) and self.place.exists()
            if not told:
                self.report(summary)
            made = self.made(summary, opened, preview)
        if made is not summary and not (told and target.export is None):
            self.report(made)
        return made

    def score(self, opened: ScoreStore, compute: Compute, *, new: bool) -> RunSummary:
        """Score the missing chunks; a scene that cannot be scored leaves no new store."""
        try:
            with (
                compute.open() as executor,
                performance_page(executor, self.observer.performance_report),
            ):
                lost, seen = self.compute(opened, executor)
                summary = replace(self.summary(lost), cluster=executor.facts())
        except SceneError:
            if new and not self.receipts:
                self.target.store.remove_store()
            raise
        except Exception as error:
            with suppress(StoreError):  # a full disk must not hide its own error
                self.report(self.summary([error]), error=f"{type(error).__name__}: {error}")
            raise
        self.require_still(opened)
        notes = (*summary.notes, *scene_notes(seen, self.plan))
        return replace(summary, invalid=seen.invalid, notes=notes)

    def compute(
        self, opened: ScoreStore, executor: Executor
    ) -> tuple[list[Exception], BandStatistics]:
        """Check the workers, get the scene's statistics, score; return lost chunks and these."""
        source, seen, lattice = self.job.source, self.job.seen, self.plan.lattice
        with self.clock("workers"):
            executor.require_fit(seen, tile=lattice.tile, bands=len(source.info.bands))
        with self.clock("statistics"):
            statistics, cells = self.statistics(opened, executor)
            require_scalable(statistics, self.plan)
            scaled = regional(seen, statistics, cells)
        at_work = executor.cpu_kinds()
        if len(at_work) == 1:  # before the first chunk, so that it is on record after any kill
            opened.add_cpu_kinds(at_work)
        threads = executor.threads_here if getattr(self.job.scorer, "thread_safe", False) else 1
        work = Work(source=source, plan=self.plan, store=opened, scaled=scaled, threads=threads)
        with self.clock("score"):
            lost = graph.score_scene(work, executor, lambda receipt: self.note(opened, receipt))
        if statistics.unread:
            lost.append(partly_read(statistics))
        return lost, statistics

    def require_still(self, opened: ScoreStore) -> None:
        """Raise SceneError if the scene has changed meanwhile; what was scored is then missing."""
        try:
            require_still(self.job.source)
        except SceneError:
            if self.kept:
                opened.forget(receipt.report.index for receipt in self.receipts)
            else:
                self.target.store.remove_store()
            raise

    def statistics(self, opened: ScoreStore, executor: Executor) -> tuple[BandStatistics, Cells]:
        """Return the statistics that the store was begun with, or those of the scene.

        Cells that could not be read are tried again. If any can be read now, all chunks are
        scored again, so that the map is that of an undisturbed run.
        """
        known, info = opened.statistics, self.plan.scene
        grid = Grid.of(info.height, info.width, len(info.bands))
        if known is not None and not known.unread:
            return known, read_cells(opened.group, grid)
        statistics, cells = scene_statistics(self.job.source, executor)
        if known is not None and statistics.unread == known.unread:
            return known, read_cells(opened.group, grid)
        if statistics.count:
            opened.write_statistics(statistics, cells)
            self.kept = 0
        return statistics, cells

    def note(self, opened: ScoreStore, receipt: Receipt) -> None:
        """Keep the receipt of a chunk."""
        kinds = receipt.report.cpu_kinds
        if not self.kinds.issuperset(kinds):
            self.kinds.update(kinds)
            opened.add_cpu_kinds(kinds)
        self.receipts.append(receipt)
        self.observer.on_report(receipt.report)

    def made(
        self, summary: RunSummary, opened: ScoreStore, preview: Callable[[int], ScenePicture]
    ) -> RunSummary:
        """Write the overviews or the file of a finished store, and pictures; remove a hidden one.

        The picture is drawn meanwhile, and written if all else was.
        """
        target, clock, export = self.target, Clock(), self.target.export
        notes: tuple[str, ...] = ()
        finished = FinishedMap(target.store, target.drawn, preview)
        # A run that had nothing to do makes only what the one before had no time or room for.
        new = export is not None or self.receipts or not has_companions(target.place)
        pictured = self.observer.companions and bool(new)
        with ThreadPoolExecutor(1) as pool:
            drawing = pool.submit(lambda: finished.picture) if pictured else None
            if export is not None:
                with clock(export.name):
                    notes = export.write(finished, target.place)
            elif summary.complete:
                finish(opened)
            if drawing is not None:
                with clock("pictures"):
                    drawing.exception()  # waits; what it raised is raised again, and noted
                    notes += companions(finished, target.place)
        if export is not None and summary.complete:
            target.store.remove_store()
        if not clock.seconds:
            return summary
        return replace(
            summary,
            output=target.place,
            notes=(*summary.notes, *notes),
            stages={**summary.stages, **clock.seconds},
            seconds=time.perf_counter() - self.started,
        )

    def summary(self, lost: list[Exception]) -> RunSummary:
        """Return what this run did so far."""
        summary = RunSummary.of(self.target.store, self.receipts, self.kept, lost)
        return replace(
            summary,
            seconds=time.perf_counter() - self.started,
            stages=dict(self.clock.seconds),
            cpu_kinds_before=self.kinds_before,
            notes=(*self.plan.scene.remarks, *mixed(self.kinds)),
            levels=self.levels,
            crop=self.plan.scene.crop,
        )

    def report(self, summary: RunSummary, **more: str) -> None:
        """Write the report of the run."""
        facts = run_facts(self.plan, summary, weights_digest(self.job.scorer))
        write_report(self.place, facts | more)
