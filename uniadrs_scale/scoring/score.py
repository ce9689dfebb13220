"""The public functions: score a scene, or plan it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from uniadrs_scale.core.arguments import require_flag
from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.errors import PlanError
from uniadrs_scale.maps.store import open_store
from uniadrs_scale.scenes.given import scene_of
from uniadrs_scale.scoring.job import compute_for, prepare, scorer_of, suited
from uniadrs_scale.scoring.progress import shown
from uniadrs_scale.scoring.report import IncompleteWarning, SceneWarning
from uniadrs_scale.scoring.run import Observer, run
from uniadrs_scale.scoring.target import Target
from uniadrs_scale.storage.folders import temporary_folder

if TYPE_CHECKING:
    import xarray as xr

    from uniadrs_scale.core.contracts import Scorer
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.scoring.job import Scene
    from uniadrs_scale.scoring.progress import Progress
    from uniadrs_scale.scoring.report import RunSummary


def score(
    scene: Scene,
    store: str | Path | None = None,
    *,
    preset: str = "auto",
    tile: int | None = None,
    stride: int | None = None,
    chunk: int | None = None,
    detector: Scorer | str | Path | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    wait_for_workers: float | None = None,
    performance_report: str | Path | None = None,
    progress: Progress = False,
    overwrite: bool = False,
) -> xr.DataArray:
    """Return the anomaly map of ``scene``.

    Args:
        scene: (band, y, x) or (y, x), from :func:`open_scene` or built with xarray; a path or
            paths, which are opened; a Dataset of bands (odc.stac) or a loaded satpy Scene.
        store: Zarr store to write, a path or URL in a bucket (``s3://``, ``gs://``); one that was
            begun with the same plan is completed. None: the map is returned in memory, and must
            fit into it. ``STORE.run.json``, next to the store, reports the run.
        preset: Kind of imagery, which decides tile, stride and coarsening: ``auto``,
            ``hyperspectral``, ``multispectral``, ``infrared``, ``low-light``, ``single-band`` or
            ``sar``.
        tile: Side of the square that the network gets [px]; by default by preset and scene size.
        stride: Step between tiles [px]; by default about seven eighths of a tile.
        chunk: Side of a compute chunk and Zarr shard [px]; by default 512 or 1024, by the size of
            the scene, and whole steps if tiles are large. Never changes a score.
        detector: Scorer of the tiles: a name of weights, ``rx``, ``lrx``, the path of weights, a
            :class:`Detector`, your own model (:func:`scorer`) or :class:`Scorer`; by default the
            weights that ship with the library.
        scheduler: None for the active Dask client, or else threads of this process if the run is
            short and workers on this machine if it is long: the plan says which. ``sync`` or
            ``threads`` for this process; an address (``tcp://...``) for a cluster, which must see
            the same files.
        workers: Processes of a cluster on this machine; by default one per core, or one per GPU.
        wait_for_workers: Seconds that a running cluster may be without workers; by default a
            minute, or a day if the cluster object starts workers when there is work.
        performance_report: Page for Dask's performance report (HTML; needs bokeh).
        progress: True for a bar in a terminal and lines elsewhere; or a function that is called
            with the numbers of finished and of all chunks.
        overwrite: Replace the map of another scene or plan in ``store``; one of the same plan is
            completed, as always. Nothing but a map is ever replaced.

    Returns:
        (y, x) float32 in 0..1 with the scene's georeference, or (layer, y, x) of a scorer with
        several layers; NaN exactly where the scene is invalid, or where a tile failed (an
        IncompleteWarning says so). Lazy and chunked if ``store`` is given.

    Raises:
        UniadrsScaleError: The scene, the options, the weights or the store cannot be used.
    """
    require_flag("overwrite", overwrite)
    require_flag("progress", callable(progress) or progress)
    target = None if store is None else _store(store, overwrite=overwrite)
    scorer = scorer_of(detector)
    compute = compute_for(scorer, scheduler, workers, wait=wait_for_workers)
    job = prepare(scene_of(scene), Sizes(preset, tile, stride, chunk), scorer, compute)
    compute = suited(job, compute)
    page = None if performance_report is None else Path(performance_report)
    with shown(progress, job.plan.chunks) as advance, temporary_folder() as folder:
        observer = Observer(on_report=advance, performance_report=page)
        if target is not None:
            summary = run(job, target, compute, observer)
            made = open_store(target.store).open()
        else:
            # As for a scene of any size: workers write, this process reads the result.
            hidden = folder / "map.zarr"
            summary = run(job, hidden, compute, replace(observer, companions=False))
            made = open_store(hidden).open().load()
    _warn(summary, job.plan.scene.name)
    return made


def _store(store: str | Path, *, overwrite: bool) -> Target:
    """Return the target of a map that is read again afterwards."""
    target = Target.of(store, overwrite=overwrite)
    if target.export is None:
        return target
    raise PlanError(
        f"score() writes a Zarr store and returns its map, got '{store}'. Let the path end in "
        f".zarr; then make the file: us.to_cog(STORE, '{store}')."
    )


def plan(
    scene: Scene,
    *,
    preset: str = "auto",
    tile: int | None = None,
    stride: int | None = None,
    chunk: int | None = None,
    detector: Scorer | str | Path | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
) -> ScorePlan:
    """Forecast a run of :func:`score` with the same arguments; no pixels are read.

    Returns:
        The plan: ``lattice.tiles``, ``tasks``, ``memory.total`` (bytes per worker) and more. In a
        notebook it prints as a table.

    Raises:
        PlanError: The sizes contradict each other, or the scheduler does not answer.
        SceneError: The scene is not a raster.
    """
    scorer = scorer_of(detector)
    compute = compute_for(scorer, scheduler, workers)
    job = prepare(scene_of(scene), Sizes(preset, tile, stride, chunk), scorer, compute)
    return job.on(suited(job, compute)).plan


def _warn(summary: RunSummary, scene: str) -> None:
    """Warn the caller of :func:`score` about missing pixels and the notes of a run."""
    if not summary.complete:
        message = f"The map is not complete.\n{summary.text()}"
        warnings.warn(message, IncompleteWarning, stacklevel=3)
    for note in summary.notes:
        warnings.warn(f"{scene}: {note}", SceneWarning, stacklevel=3)
