"""Jobs: everything that a run needs, prepared once, and checked to belong together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from uniadrs_scale.core import __version__
from uniadrs_scale.core.contracts import layers_of
from uniadrs_scale.core.plan import ScorePlan
from uniadrs_scale.detector.coarse import coarsened, with_terms
from uniadrs_scale.detector.detector import Detector, gpus_in_use, is_gpu_build
from uniadrs_scale.detector.rx import GlobalRX, LocalRX
from uniadrs_scale.errors import PlanError
from uniadrs_scale.runtime.compute import Compute
from uniadrs_scale.scenes.sources import map_coordinates, scene_source
from uniadrs_scale.storage.trust import require_proj

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

    from uniadrs_scale.core.contracts import SceneSource, Scorer
    from uniadrs_scale.core.plan import Sizes
    from uniadrs_scale.runtime.cluster import TlsFiles

    Scene = xr.DataArray | xr.Dataset | str | Path | Sequence[str | Path]

MODELS = ".pt2", ".onnx"
RX = {"rx": GlobalRX, "lrx": LocalRX}


def scorer_of(detector: Scorer | str | Path | None) -> Scorer:
    """Return the scorer that a caller names: None, weights by name or path, ``rx`` or ``lrx``.

    Raises:
        PlanError: It is not a scorer, or a file that needs more words.
        WeightsError: The weights are unknown.
    """
    if detector is None:
        return Detector.load()
    if isinstance(detector, str | Path):
        if str(detector) in RX:
            return RX[str(detector)]()
        if Path(detector).suffix in MODELS:
            raise PlanError(
                f"detector='{detector}' is a model of your own: its tile is needed. Use "
                f"detector=us.scorer('{detector}', tile=256)."
            )
        return Detector.load(detector)
    parts = ("identity", "fitted", "activation_bytes")
    if isinstance(detector, type) or not all(hasattr(detector, name) for name in parts):
        raise PlanError(
            f"detector= takes a scorer, got {type(detector).__name__}. Use a name of weights, rx, "
            "lrx, a path, a Detector, or us.scorer(model, tile=256)."
        )
    return detector


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """A scene, the coordinates of its map, a scorer, and the plan that was made for them."""

    source: SceneSource
    coordinates: Mapping[str, xr.DataArray]
    scorer: Scorer
    """The scorer as the caller gave it: at full resolution."""
    plan: ScorePlan

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        mine, planned = self.source.info, self.plan.scene
        if mine.decisive() != planned.decisive():
            raise PlanError(
                f"The plan is for scene '{planned.name}' ({planned.identity}), got scene "
                f"'{mine.name}' ({mine.identity}). Plan the scene that you want to score."
            )
        if self.scorer.identity != self.plan.detector:
            raise PlanError(
                f"The plan is for the scorer '{self.plan.detector}', got "
                f"'{self.scorer.identity}'. Plan with the scorer that you want to use."
            )
        if layers_of(self.scorer) != self.plan.layers:
            raise PlanError(
                f"The plan is for the layers {', '.join(self.plan.layer_names)}, but the "
                "scorer has other layers. Plan with the scorer that you want to use."
            )

    @classmethod
    def of(cls, scene: xr.DataArray, scorer: Scorer, plan: ScorePlan) -> Job:
        """Return the job of a plan that was made before.

        Raises:
            PlanError: The plan is for another scene or scorer.
            SceneError: The scene is not a raster.
        """
        source, coordinates = scene_source(scene), map_coordinates(scene)
        return cls(source=source, coordinates=coordinates, scorer=scorer, plan=plan)

    @property
    def seen(self) -> Scorer:
        """The scorer at the resolution of the plan."""
        plan = self.plan
        return coarsened(
            self.scorer, plan.scales, plan.lattice.tile, plan.terms, smoothing=plan.smoothing
        )

    def on(self, compute: Compute) -> Job:
        """Return the job with the forecast for these workers; its scores are the same."""
        return replace(
            self,
            plan=replace(
                self.plan,
                workers=compute.workers,
                threads=compute.threads,
                in_lines=not compute.in_process,
                compute=compute.why,
            ),
        )


def prepare(scene: xr.DataArray, sizes: Sizes, scorer: Scorer, compute: Compute) -> Job:
    """Return the job that scores ``scene``; reads no pixels of files.

    Raises:
        PlanError: The sizes contradict each other.
        SceneError: The scene is not a raster.
    """
    require_proj()
    source = scene_source(scene)
    info = source.info
    preset, lattice = sizes.decide(info, getattr(scorer, "tiling", None))
    terms = preset.terms if with_terms(scorer, preset.terms) is not scorer else ()
    smoothing = preset.smoothing
    seen = coarsened(scorer, preset.scales, lattice.tile, terms, smoothing=smoothing)
    plan = ScorePlan(
        scene=info,
        lattice=lattice,
        preset=f"{preset.name} ({preset.why if sizes.preset == 'auto' else 'as asked for'})",
        coarsen=preset.coarsen,
        coarser=preset.coarser,
        smoothing=smoothing,
        detector=scorer.identity,
        batch=seen.batch,
        activation_bytes=seen.activation_bytes(lattice.tile, len(info.bands)),
        workers=compute.workers,
        threads=compute.threads,
        in_lines=not compute.in_process,
        gpu_build=is_gpu_build(),
        version=__version__,
        layers=layers_of(scorer),
        terms=terms,
        compute=compute.why,
        asked_chunk=sizes.chunk,
    )
    return Job(source=source, coordinates=map_coordinates(scene), scorer=scorer, plan=plan)


def suited(job: Job, compute: Compute) -> Compute:
    """Return the processes for ``job``: ``compute``, or this process if that is faster.

    Never changes a score. A caller's own choice of processes stays.
    """
    if not getattr(job.scorer, "thread_safe", False):
        return compute
    here = compute.here()
    return compute.suited(here, job.plan.seen_pixels, job.on(here).plan.memory.total)


def compute_for(
    scorer: Scorer,
    scheduler: str | None = None,
    workers: int | None = None,
    tls: TlsFiles | None = None,
    wait: float | None = None,
) -> Compute:
    """Return the :class:`Compute` of ``scheduler``, with the GPUs that ``scorer`` uses.

    Raises:
        PlanError: As :meth:`Compute.of`.
    """
    return Compute.of(scheduler, workers, gpus=gpus_in_use(scorer), tls=tls, wait=wait)
