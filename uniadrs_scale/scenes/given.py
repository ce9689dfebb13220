"""A scene as a caller gives it, as one array: a path, or an object of another library."""

from __future__ import annotations

from functools import reduce
from operator import and_
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from uniadrs_scale.errors import SceneError, gist
from uniadrs_scale.scenes.axes import (
    DEGREES,
    LATITUDES,
    LONGITUDES,
    Role,
    role_of,
    role_of_name,
    taken_for_bands,
)
from uniadrs_scale.scenes.declared import DECLARED, declared_nodata, with_plain_fill
from uniadrs_scale.scenes.open import not_a_source, open_scene
from uniadrs_scale.scenes.products.plain import AUXILIARY
from uniadrs_scale.scenes.sources import ASSUMED
from uniadrs_scale.swaths.conventions import crs_of, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence


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
        return _with_plain_axes(_stacked(scene))
    if isinstance(scene, np.ndarray):
        raise SceneError(
            f"The scene is an array of shape {scene.shape} without names of its axes. Name them: "
            "xr.DataArray(cube, dims=('y', 'x', 'band')), or ('band', 'y', 'x')."
        )
    if not isinstance(scene, xr.DataArray):
        raise not_a_source(type(scene).__name__)
    kind = type(scene.data)
    if kind.__module__.startswith("dask_array"):
        raise SceneError(
            f"The scene is lazy by {kind.__module__}.{kind.__qualname__}, whose graph cannot be "
            "cut into windows. Use scene.compute() if it fits in memory, or open_scene(path)."
        )
    if np.isnan(scene.shape).any():
        raise SceneError(
            f"The sizes {dict(scene.sizes)} of the scene are not known, as of lazy arrays that "
            "were filtered. Call scene.data.compute_chunk_sizes() before, or scene.compute()."
        )
    return _with_plain_axes(scene)


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
    nodata = _only_nodata({str(name): scene[name] for name in names})
    crs = crs_of(scene, named=False)
    plain = {name: with_plain_fill(scene[name]) for name in names}
    masks = [a.coords["valid"] for a in plain.values() if "valid" in {*a.coords} - {*scene.coords}]
    stacked = scene.assign(
        {name: array.drop_vars({*array.coords} - {*scene.coords}) for name, array in plain.items()}
    )[names].to_dataarray("band")
    stacked = stacked if nodata is None else stacked.assign_attrs(_FillValue=nodata)
    if masks:
        present = (stacked != (np.nan if nodata is None else nodata)).all("band")
        words = ", ".join(dict.fromkeys(str(mask.attrs[DECLARED]) for mask in masks))
        valid = reduce(and_, (mask.variable for mask in masks), present.variable)
        valid.attrs = {DECLARED: words}
        stacked = stacked.assign_coords(valid=valid)
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


def _with_plain_axes(scene: xr.DataArray) -> xr.DataArray:
    """Return a scene with axes band, y and x, if its axes can be these: the same rule as for files.

    Other axes of length 1 are dropped. The steps along another axis are bands, which is told.
    """
    axes = {"latitude": "y", "longitude": "x", "lat": "y", "lon": "x"}
    named = {old: new for old, new in axes.items() if old in scene.dims and new not in scene.dims}
    scene = scene.rename(named) if named else scene
    if {*named.values()} == {"y", "x"} <= set(scene.coords) and crs_of(scene) is None:
        scene = scene.rio.write_crs(4326)
    if not {"y", "x"} <= set(scene.dims):
        return scene
    scene = _with_plain_places(scene)
    others = [str(dim) for dim in scene.dims if dim not in ("y", "x")]
    long = [dim for dim in others if scene.sizes[dim] > 1]
    scene = scene.isel({dim: 0 for dim in others if dim not in (long or ["band"])})
    if len(long) > 1 and "time" in long:
        raise SceneError(
            f"The scene has {scene.sizes['time']} times, a map shows one. Select it: "
            "scene.isel(time=0), or scene.median('time')."
        )
    if len(long) != 1 or long == ["band"]:
        return scene
    note = taken_for_bands(long[0], scene.sizes[long[0]], name_of(scene))
    said = {} if role_of_name(long[0]) == "band" else {ASSUMED: note}
    return scene.drop_vars("band", errors="ignore").swap_dims({long[0]: "band"}).assign_attrs(said)


def _with_plain_places(scene: xr.DataArray) -> xr.DataArray:
    """Return a scene whose coordinates along y and x, or of each pixel, have the usual names."""
    kinds: dict[str, set[str]] = {"latitude": LATITUDES, "longitude": LONGITUDES}
    axes: tuple[Role, ...] = ("y", "x")
    for (name, known), axis in zip(kinds.items(), axes, strict=True):
        own = {str(key): value for key, value in scene.coords.items()}
        lines = [k for k, v in own.items() if v.dims == (axis,) and role_of(k, v.variable) == axis]
        planes = [k for k, v in own.items() if {*v.dims} == {"y", "x"} and k.lower() in known]
        if len(lines) == 1 and axis not in own:
            scene = scene.assign_coords({axis: (axis, own[lines[0]].values, own[lines[0]].attrs)})
            degrees = lines[0].lower() in known or DEGREES[axis].fullmatch(_units(own[lines[0]]))
            scene = scene.rio.write_crs(4326) if degrees and crs_of(scene) is None else scene
        elif len(planes) == 1 and name not in own:
            scene = scene.rename({planes[0]: name})
    return scene


def _units(coordinate: xr.DataArray) -> str:
    return str(coordinate.attrs.get("units", "")).lower()
