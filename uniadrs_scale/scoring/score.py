"""score(scene): the composition of everything else."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from uniadrs_scale.core import __version__
from uniadrs_scale.core.lattice import Lattice, default_chunk
from uniadrs_scale.core.plan import ScorePlan
from uniadrs_scale.core.presets import choose_preset
from uniadrs_scale.detector.detector import Detector, coarsened, gpus_in_use, is_gpu_build
from uniadrs_scale.maps.store import open_store
from uniadrs_scale.runtime.cluster import connected
from uniadrs_scale.runtime.compute import Resources
from uniadrs_scale.scenes.sources import scene_source
from uniadrs_scale.scoring.report import IncompleteWarning, SceneWarning
from uniadrs_scale.scoring.run import run

if TYPE_CHECKING:
    import xarray as xr

    from uniadrs_scale.core.contracts import Scorer


def score(
    scene: xr.DataArray,
    store: str | Path | None = None,
    *,
    preset: str = "auto",
    tile: int | None = None,
    stride: int | None = None,
    chunk: int | None = None,
    detector: Scorer | None = None,
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
            :data:`uniadrs_scale.core.presets.PRESETS`.
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
    detector: Scorer,
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
    for note in summary.notes:
        warnings.warn(f"{scene.name or 'scene'}: {note}", SceneWarning, stacklevel=3)
    return open_store(store).open()


def plan(
    scene: xr.DataArray,
    *,
    preset: str = "auto",
    tile: int | None = None,
    stride: int | None = None,
    chunk: int | None = None,
    detector: Scorer | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
) -> ScorePlan:
    """What scoring ``scene`` with the same arguments will do and need; reads no pixels.

    See :func:`score` for what they mean.

    Raises:
        PlanError: The sizes contradict each other, or the scheduler does not answer.
        SceneError: The scene is no raster.
    """
    info = scene_source(scene).info
    kind = choose_preset(info, preset)
    side = kind.tile if tile is None else tile
    whole = detector if detector is not None else Detector.load()
    scorer = coarsened(whole, kind.coarsen, side)
    resources = Resources.of(scheduler, workers, gpus_in_use(whole))
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
        in_lines=resources.in_lines,
        gpu_build=is_gpu_build(),
        version=__version__,
    )
