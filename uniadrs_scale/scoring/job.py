"""Jobs: everything that a run needs, prepared once, and checked to belong together.

Callers name scenes and scorers by a path, an array of another library, or a word.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from uniadrs_scale.core import __version__
from uniadrs_scale.core.contracts import layers_of
from uniadrs_scale.core.plan import ScorePlan
from uniadrs_scale.detector.coarse import coarsened, with_terms
from uniadrs_scale.detector.detector import Detector, gpus_in_use, is_gpu_build
from uniadrs_scale.detector.rx import GlobalRX, LocalRX
from uniadrs_scale.errors import PlanError, SceneError, gist
from uniadrs_scale.runtime.compute import Compute
from uniadrs_scale.scenes.axes import LATITUDES, LONGITUDES
from uniadrs_scale.scenes.open import open_scene
from uniadrs_scale.scenes.products.plain import AUXILIARY
from uniadrs_scale.scenes.sources import declared_nodata, map_coordinates, scene_source
from uniadrs_scale.storage.trust import require_proj
from uniadrs_scale.swaths.conventions import crs_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


def scene_of(scene: Any) -> xr.DataArray:
    """Return the array of a scene: a path is opened, and the bands of a Dataset are stacked.

    Raises:
        SceneError: It is not a scene; the message has the line that makes one.
    """
    origin = type(scene).__module__.partition(".")[0]
    if isinstance(scene, str | Path) or origin == "pystac":
        return open_scene(scene)
    if isinstance(scene, list | tuple) and scene and isinstance(scene[0], str | Path):
        return open_scene(scene)
    if origin == "satpy":
        names = [array.attrs["name"] for array in scene]
        if not names:
            raise SceneError("The satpy Scene has no bands yet. Call scene.load([...]) first.")
        return _of_satpy({name: scene[name] for name in names})
    if isinstance(scene, xr.Dataset):
        return _without_time(_stacked(scene))
    if isinstance(scene, np.ndarray):
        raise SceneError(
            f"The scene is an array of shape {scene.shape} without names of its axes. Name them: "
            "xr.DataArray(cube, dims=('y', 'x', 'band')), or ('band', 'y', 'x')."
        )
    if not isinstance(scene, xr.DataArray):
        raise SceneError(
            f"A scene is a path or an xarray.DataArray, got {type(scene).__name__}. Use "
            "open_scene(path), or xr.DataArray(values, dims=('band', 'y', 'x'))."
        )
    kind = type(scene.data)
    if kind.__module__.startswith("dask_array"):
        raise SceneError(
            f"The scene is lazy by {kind.__module__}.{kind.__qualname__}, whose graph cannot be "
            "cut into windows. Use scene.compute() if it fits in memory, or open_scene(path)."
        )
    return _without_time(scene)


def _stacked(scene: xr.Dataset) -> xr.DataArray:
    """Return the variables of a Dataset that have rows and columns as bands."""
    names = [n for n, v in scene.data_vars.items() if len(v.dims) > 1 and v.dtype.kind in "buif"]
    _require_bands(scene, [str(name) for name in names])
    shapes = {name: dict(scene[name].sizes) for name in names}
    if not names or any(shape != shapes[names[0]] for shape in shapes.values()):
        raise SceneError(
            f"The Dataset has no bands of one shape ({shapes}). Choose some: "
            "ds[['red', 'nir']], or ds['red']."
        )
    if "band" in shapes[names[0]]:
        if len(names) == 1:
            return scene[names[0]]
        raise SceneError(
            f"The Dataset has several arrays with bands ({', '.join(map(str, names)):.100}), a "
            f"scene is one. Choose it: ds['{names[0]}']."
        )
    stacked = scene[names].to_dataarray("band")
    nodata, crs = _only_nodata({str(name): scene[name] for name in names}), scene.rio.crs
    stacked = stacked if nodata is None else stacked.assign_attrs(_FillValue=nodata)
    return stacked if crs is None else stacked.rio.write_crs(crs)


def _require_bands(scene: xr.Dataset, names: Sequence[str]) -> None:
    """Raise SceneError if some variables of a Dataset are classes, angles or places, not bands."""
    places = [name for name in names if name.lower() in LATITUDES | LONGITUDES]
    other = {n for n in names if AUXILIARY.fullmatch(n) or "flag_meanings" in scene[n].attrs}
    bands = [name for name in names if name not in {*places, *other}]
    if len(bands) == len(names) or not bands:
        return
    left = ", ".join(sorted({*places, *other}))
    place = f".set_coords({places})" if places else ""
    raise SceneError(
        f"The Dataset has {left} next to its bands: by name or attributes these hold places, "
        f"quality, angles or pictures. Choose the bands: ds{place}[{bands}]."
    )


def _of_satpy(bands: dict[str, xr.DataArray]) -> xr.DataArray:
    """Return the bands of a satpy Scene as one array; refuse bands on several grids."""
    _only_nodata(bands)
    try:
        joined: xr.DataArray = xr.concat([*bands.values()], "band", coords="minimal", join="exact")
    except ValueError as error:
        raise SceneError(
            f"The bands of the satpy Scene are not on one grid ({gist(error)}). Bring them to one: "
            "scene.resample(resampler='native')."
        ) from None
    return joined.assign_coords(band=[*bands])


def _only_nodata(bands: dict[str, xr.DataArray]) -> float | None:
    """Return the nodata value that all bands have; refuse several: one would be lost."""
    values = {name: declared_nodata(array) for name, array in bands.items()}
    values |= {
        name: None for name, value in values.items() if value is not None and np.isnan(value)
    }
    if len({*values.values()}) > 1:
        said = ", ".join(f"{name}: {value}" for name, value in values.items())
        raise SceneError(
            f"The bands have several nodata values ({said:.300}). Choose bands with one: ds[['red',"
            " 'nir']], or write one: ds['red'] = ds['red'].rio.write_nodata(0)."
        )
    return next(iter(values.values()))


def _without_time(scene: xr.DataArray) -> xr.DataArray:
    """Return a scene of one time, with y and x for latitude and longitude; refuse more times."""
    axes = {"latitude": "y", "longitude": "x", "lat": "y", "lon": "x"}
    named = {old: new for old, new in axes.items() if old in scene.dims and new not in scene.dims}
    scene = scene.rename(named) if named else scene
    if {*named.values()} == {"y", "x"} <= set(scene.coords) and crs_of(scene) is None:
        scene = scene.rio.write_crs(4326)
    if "time" not in scene.dims:
        return scene
    if scene.sizes["time"] > 1:
        raise SceneError(
            f"The scene has {scene.sizes['time']} times, a map shows one. Select it: "
            "scene.isel(time=0), or scene.median('time')."
        )
    return scene.isel(time=0)


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
        return coarsened(self.scorer, plan.scales, plan.lattice.tile, plan.terms)

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
    seen = coarsened(scorer, preset.scales, lattice.tile, terms)
    plan = ScorePlan(
        scene=info,
        lattice=lattice,
        preset=f"{preset.name} ({preset.why if sizes.preset == 'auto' else 'as asked for'})",
        coarsen=preset.coarsen,
        coarser=preset.coarser,
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
