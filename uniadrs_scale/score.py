"""score(scene): the composition of everything else."""

from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from uniadrs_scale import __version__
from uniadrs_scale.coarse import coarsened
from uniadrs_scale.detector import Detector, gpus_in_use, weights_digest
from uniadrs_scale.errors import PlanError, SceneError, StoreError
from uniadrs_scale.geolocation import Geocoding
from uniadrs_scale.graph import (
    Resources,
    connected,
    executor,
    memory_limit,
    require_fit,
    scene_statistics,
    score_scene,
)
from uniadrs_scale.io.claims import claimed
from uniadrs_scale.io.cog import to_cog
from uniadrs_scale.io.places import (
    beside,
    has_file,
    has_store,
    place_of,
    remove_leftovers,
    remove_store,
    suffix_of,
)
from uniadrs_scale.io.readers import raster_tag
from uniadrs_scale.io.scenes import map_coordinates, scene_source
from uniadrs_scale.io.store import (
    DONE,
    open_store,
    prepare,
    require_folder,
    require_name,
    require_same_plan,
)
from uniadrs_scale.lattice import Lattice, default_chunk
from uniadrs_scale.plan import ScorePlan
from uniadrs_scale.presets import choose_preset
from uniadrs_scale.redaction import uri_name
from uniadrs_scale.report import (
    Clock,
    IncompleteWarning,
    RunSummary,
    report_place,
    run_facts,
    write_report,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from uniadrs_scale.graph.execute import Executor
    from uniadrs_scale.io.places import Place
    from uniadrs_scale.io.scenes import SceneSource
    from uniadrs_scale.io.store import ScoreStore
    from uniadrs_scale.plan import TileScorer
    from uniadrs_scale.stats import BandStatistics
    from uniadrs_scale.tasks import ChunkReport


def plan(
    scene: xr.DataArray,
    *,
    preset: str = "auto",
    tile: int | None = None,
    stride: int | None = None,
    chunk: int | None = None,
    detector: TileScorer | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
) -> ScorePlan:
    """What scoring ``scene`` with the same arguments will do and need; reads no pixels.

    Args:
        scene: (band, y, x) or (y, x), from :func:`open_scene` or built with xarray.
        preset: Kind of imagery, which decides tile, stride and coarsening: ``auto`` or a name in
            :data:`uniadrs_scale.presets.PRESETS`.
        tile: Side of the square that the network sees [px]; by default the preset's.
        stride: Step between tiles [px]; by default about seven eighths of a tile.
        chunk: Side of a compute chunk and Zarr shard [px]; by default 512 or 1024, by the size of
            the scene. Never changes a score.
        detector: Scores the tiles; by default the weights that ship with the library.
        scheduler: See :func:`score`.
        workers: Processes of a cluster on this machine; by default one a core, or one a GPU.

    Raises:
        PlanError: The sizes contradict each other, or the scheduler does not answer.
        SceneError: The scene is no raster.
    """
    info = scene_source(scene).info
    kind = choose_preset(info, preset)
    side = kind.tile if tile is None else tile
    scorer = coarsened(detector if detector is not None else Detector.load(), kind.coarsen, side)
    resources = Resources.of(scheduler, workers, gpus_in_use(scorer))
    return ScorePlan(
        scene=info,
        lattice=Lattice(
            height=info.height,
            width=info.width,
            tile=side,
            stride=kind.stride(side) if stride is None else stride,
            chunk=default_chunk(info.height, info.width, side) if chunk is None else chunk,
        ),
        preset=f"{kind.name} ({kind.why if preset == 'auto' else 'as asked for'})",
        coarsen=kind.coarsen,
        detector=scorer.identity,
        batch=scorer.batch,
        activation_bytes=scorer.activation_bytes(side, len(info.bands)),
        workers=resources.workers,
        threads=resources.threads,
        version=__version__,
    )


def score(
    scene: xr.DataArray,
    store: str | Path | None = None,
    *,
    preset: str = "auto",
    tile: int | None = None,
    stride: int | None = None,
    chunk: int | None = None,
    detector: TileScorer | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    performance_report: str | Path | None = None,
) -> xr.DataArray:
    """The anomaly map of ``scene``.

    Args:
        scene: (band, y, x) or (y, x), from :func:`open_scene` or built with xarray.
        store: Zarr store to write, a path or URL in a bucket (``s3://``, ``gs://``); one that was
            begun with the same plan is completed. None: the map is returned in memory, for scenes
            that fit.
        preset: Kind of imagery, which decides tile, stride and coarsening: ``auto`` or a name in
            :data:`uniadrs_scale.presets.PRESETS`.
        tile: Side of the square that the network sees [px]; by default the preset's.
        stride: Step between tiles [px]; by default about seven eighths of a tile.
        chunk: Side of a compute chunk and Zarr shard [px]; by default 512 or 1024, by the size of
            the scene. Never changes a score.
        detector: Scores the tiles; by default the weights that ship with the library.
        scheduler: None for the active Dask client, or else workers on this machine; ``sync`` or
            ``threads`` for this process; an address (``tcp://...``) for a cluster, which must see
            the same files.
        workers: Processes of a cluster on this machine; by default one a core, or one a GPU.
        performance_report: Where to write Dask's performance report (HTML; needs bokeh).

    What was done lies beside a store as ``STORE.run.json``.

    Returns:
        (y, x) float32 in 0..1 with the scene's georeference; NaN exactly where the scene is
        invalid, or where a tile failed, which an IncompleteWarning then says. Lazy and chunked if
        ``store`` is given.

    Raises:
        UniadrsScaleError: The scene, the options, the weights or the store cannot be used.
    """
    scorer = detector if detector is not None else Detector.load()
    report = None if performance_report is None else Path(performance_report)
    with connected(scheduler) as where:  # once, for the plan and the run
        run_plan = plan(
            scene, preset=preset, tile=tile, stride=stride, chunk=chunk, detector=scorer,
            scheduler=where, workers=workers,
        )  # fmt: skip
        if store is not None:
            return _score_into(scene, store, run_plan, scorer, where, report)
        # The same path as for a scene of any size: workers write, the driver reads back.
        with tempfile.TemporaryDirectory(prefix="uniadrs-scale-") as folder:
            target = Path(folder) / "map.zarr"
            return _score_into(scene, target, run_plan, scorer, where, report).load()


def _score_into(  # noqa: PLR0917 - what score() was given, in its order
    scene: xr.DataArray,
    store: str | Path,
    run_plan: ScorePlan,
    detector: TileScorer,
    scheduler: str | None,
    performance_report: Path | None,
) -> xr.DataArray:
    summary = run(
        scene, store, run_plan, detector,
        scheduler=scheduler, performance_report=performance_report,
    )  # fmt: skip
    if not summary.complete:
        message = f"The map is not complete.\n{summary.text()}"
        warnings.warn(message, IncompleteWarning, stacklevel=3)
    return open_store(store).open()


def run(
    scene: xr.DataArray,
    store: str | Path,
    plan: ScorePlan,
    detector: TileScorer,
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
    place = place_of(store)
    with claimed(place), connected(scheduler) as where:
        return _run(
            scene, place, plan, detector, scheduler=where, on_report=on_report,
            report=report_place(place) if report is None else report,
            performance_report=performance_report,
        )  # fmt: skip


def _run(
    scene: xr.DataArray,
    store: Place,
    plan: ScorePlan,
    detector: TileScorer,
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
    new = not has_store(store)
    with clock("prepare"):
        target = prepare(store, plan, map_coordinates(scene))
    before = int((target.done == DONE).sum())
    reports: list[ChunkReport] = []

    def note(chunk: ChunkReport) -> None:
        reports.append(chunk)
        on_report(chunk)

    def summarise(lost: list[Exception], tasks: Executor | None = None) -> RunSummary:
        took = time.perf_counter() - started
        summary = RunSummary.of(target.path, reports, before, lost, took)
        facts = None if tasks is None else tasks.facts()
        return replace(summary, stages=dict(clock.seconds), cluster=facts)

    if before == target.done.size:
        summary = summarise([])
        if not has_file(report):
            write_report(report, run_facts(plan, summary, weights_digest(detector)))
        return summary
    try:
        with executor(scheduler, resources) as tasks:
            with tasks.reported(performance_report):
                lost = _compute(source, target, plan, detector, tasks, note, clock)
            summary = summarise(lost, tasks)
    except SceneError:
        if new and not reports:  # a scene that cannot be scored begins no store
            remove_store(store)
        raise
    except Exception as error:
        facts = run_facts(plan, summarise([error]), weights_digest(detector))
        write_report(report, facts | {"error": f"{type(error).__name__}: {error}"})
        raise
    write_report(report, run_facts(plan, summary, weights_digest(detector)))
    return summary


def _resources(plan: ScorePlan, detector: TileScorer) -> Resources:
    return Resources(plan.workers, plan.threads, gpus_in_use(detector))


def _compute(  # noqa: PLR0917 - one step of run(), with what it has gathered
    source: SceneSource,
    store: ScoreStore,
    plan: ScorePlan,
    detector: TileScorer,
    tasks: Executor,
    on_report: Callable[[ChunkReport], None],
    clock: Clock,
) -> list[Exception]:
    """Check the workers, learn the scene's statistics, score; what was lost, and why."""
    seen = coarsened(detector, plan.coarsen, plan.lattice.tile)
    if tasks.client is not None:
        with clock("workers"):
            require_fit(tasks.client, seen, tile=plan.lattice.tile, bands=len(source.info.bands))
    with clock("statistics"):
        statistics = _statistics(source, store, tasks)
        _require_scalable(statistics, source)
        scaled = (seen.fitted(statistics), statistics.normalisation())
    with clock("score"):
        return score_scene(source, plan, store, tasks, scaled=scaled, on_report=on_report)


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


def run_to_file(
    scene: xr.DataArray,
    output: str | Path,
    plan: ScorePlan,
    detector: TileScorer,
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
            f"'{plan.scene.name}' into '{uri_name(target)}' is none. Leave them away; a map on a "
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
            remove_leftovers(hidden)
            return RunSummary.of(target, [], plan.chunks, [], 0.0)
        summary, clock = _run(
            scene, hidden, plan, detector, scheduler=where, on_report=on_report,
            report=path, performance_report=performance_report,
        ), Clock()  # fmt: skip
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
            remove_store(hidden)
        summary = replace(
            summary,
            output=target,
            stages={**summary.stages, **clock.seconds},
            seconds=summary.seconds + clock.seconds["cog"],
        )
        write_report(path, run_facts(plan, summary, weights_digest(detector)))
    return summary


def output_state(output: str | Path, plan: ScorePlan) -> str:
    """What a run of ``plan`` into ``output`` would find there.

    Raises:
        StoreError: As :func:`run_to_file`.
    """
    target, store = _targets(output)
    if target != store and _is_finished(target, store, plan):
        return f"{output} is complete: nothing to do"
    if not has_store(store):
        require_folder(target)
        return f"{output} is new"
    done = require_same_plan(open_store(store), plan).done == DONE
    return f"{output}: {int(done.sum())} of {done.size} chunks are complete, the rest is resumed"


def _targets(output: str | Path) -> tuple[Place, Place]:
    """(what the user asked for, the store that a run writes): the same for Zarr."""
    target = place_of(output)
    require_name(target)
    if suffix_of(target) == ".zarr":
        return target, target
    if suffix_of(target) in (".tif", ".tiff"):
        return target, beside(target, f".{uri_name(target)}.zarr")
    raise StoreError(f"Output '{output}' has no known format. Let it end in .zarr or .tif.")


def _is_finished(
    target: Place, hidden: Place, plan: ScorePlan, drawn: Geocoding | None = None
) -> bool:
    """True where the COG at ``target`` is this plan's whole map already, drawn as wanted."""
    there = has_file(target)
    if there and raster_tag(target, "fingerprint") != plan.fingerprint:
        raise StoreError(
            f"'{target}' exists and is not the map of this scene and plan. "
            "Remove it, or choose another output path."
        )
    finished = there and not has_store(hidden)
    if finished and drawn and (was := raster_tag(target, "geocoding")) not in (None, drawn.text):
        raise StoreError(
            f"'{target}' is the map of this scene and plan, but drawn otherwise ({was}, now "
            f"{drawn.text}). Remove it, or choose another output path."
        )
    return finished
