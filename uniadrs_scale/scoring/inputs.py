"""Scenes and scorers as callers name them: a path, an array of another library, a word."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from uniadrs_scale.detector.detector import Detector
from uniadrs_scale.detector.rx import GlobalRX, LocalRX
from uniadrs_scale.errors import PlanError, SceneError
from uniadrs_scale.scenes.open import open_scene

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uniadrs_scale.core.contracts import Scorer

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
                f"detector='{detector}' is a model of your own: say its tile. Use "
                f"detector=us.scorer('{detector}', tile=256)."
            )
        return Detector.load(detector)
    if not all(hasattr(detector, name) for name in ("identity", "fitted", "activation_bytes")):
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
        stacked = xr.concat([scene[name] for name in names], "band", coords="minimal")
        named: xr.DataArray = stacked.assign_coords(band=names)
        return named
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
    shapes = {name: dict(scene[name].sizes) for name in names}
    if not names or any(shape != shapes[names[0]] for shape in shapes.values()):
        raise SceneError(
            f"The Dataset has no bands of one shape ({shapes}). Choose some: "
            "ds[['red', 'nir']], or ds['red']."
        )
    stacked = scene[names].to_dataarray("band")
    return stacked if "spatial_ref" not in scene.coords else stacked.rio.write_crs(scene.rio.crs)


def _without_time(scene: xr.DataArray) -> xr.DataArray:
    """Return a scene of one time, with y and x for latitude and longitude.

    Raises:
        SceneError: There are several times.
    """
    axes = {"latitude": "y", "longitude": "x", "lat": "y", "lon": "x"}
    named = {old: new for old, new in axes.items() if old in scene.dims and new not in scene.dims}
    scene = scene.rename(named) if named else scene
    if "time" not in scene.dims:
        return scene
    if scene.sizes["time"] > 1:
        raise SceneError(
            f"The scene has {scene.sizes['time']} times, and a map is of one. Choose it: "
            "scene.isel(time=0), or scene.median('time')."
        )
    return scene.isel(time=0)
