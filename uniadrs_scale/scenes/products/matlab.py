"""MATLAB files: one variable as a scene.

Version 7.3 is HDF5 and read lazily. Version 5 and before is one compressed stream a variable: it
cannot be read in parts, so it is read whole, when it is opened.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from uniadrs_scale.core.machine import Later
from uniadrs_scale.core.validity import valid_pixels
from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.arrays import Variable
from uniadrs_scale.scenes.axes import CUBE
from uniadrs_scale.scenes.bands import select
from uniadrs_scale.scenes.cubes import CubeSpec
from uniadrs_scale.scenes.masks import require_possible
from uniadrs_scale.scenes.products.metadata import FOR_GRID, FOR_MASK, FOR_UNITS, nanometres
from uniadrs_scale.storage.urls import is_remote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uniadrs_scale.scenes.datasets import Contents
    from uniadrs_scale.scenes.products.metadata import Options

scipy_io = Later("scipy.io")

LARGEST = 2 << 30
"""Bytes of a variable that are read at once."""
ITEMSIZES = {"double": 8, "single": 4, "logical": 1} | {
    f"{sign}int{8 * size}": size for sign in ("", "u") for size in (1, 2, 4, 8)
}
WAVELENGTHS = ("wavelengths", "wavelength", "wl", "lambda")


def is_matlab(path: str) -> bool:
    """Return True for the name of a MATLAB file."""
    return not is_remote(path) and path.lower().endswith(".mat") and Path(path).is_file()


def recognise(contents: Contents, options: Options) -> CubeSpec | None:
    """Return the cube of a version 7.3 file; None for other HDF5 files.

    MATLAB writes its axes in reverse: (row, column, band) is stored as (band, column, row).

    Raise SceneError if no variable, or several, can be meant.
    """
    path = contents.file.path
    if not is_matlab(path):
        return None
    shapes = {e.path: e.shape[::-1] for e in contents.entries.values() if e.numeric and not e.group}
    name = _choose(path, shapes, options.variable)
    tables = {len(t): t for w in reversed(WAVELENGTHS) if len(t := contents.numbers(w)) > 1}
    axes = _axes(shapes[name], set(tables))
    count = shapes[name][axes.index("band")] if "band" in axes else 1
    table = tables.get(count)
    return CubeSpec(
        kind="a MATLAB file",
        name=contents.name,
        variables=(Variable.of(contents.file, name, axes[::-1]),),
        counts=(count,),
        bands=tuple(str(k + 1) for k in range(count)),
        wavelengths=(None,) * count if table is None else tuple(map(nanometres, table.tolist())),
        good=(True,) * count,
    )


def _axes(shape: tuple[int, ...], tables: set[int]) -> tuple[str, ...]:
    """Return what each axis is: (row, column, band), unless the wavelengths fit another order."""
    if len(shape) == CUBE and shape[2] not in tables:
        for axes in (("band", "y", "x"), ("y", "band", "x")):
            if shape[axes.index("band")] in tables:
                return axes
    return ("y", "x", "band")[: len(shape)]


def read_matlab(path: str, options: Options) -> xr.DataArray:
    """Read a variable of a version 4 or 5 file into memory, with its wavelengths if there are any.

    Raises:
        SceneError: No variable, or several, can be meant, or the one that is meant is too large.
    """
    name = Path(path).name
    options.refuse(name, "a MATLAB file", grid=FOR_GRID, mask=FOR_MASK, units=FOR_UNITS)
    try:
        found = {key: (shape, kind) for key, shape, kind in scipy_io.whosmat(path)}
        shapes = {k: shape for k, (shape, kind) in found.items() if kind in ITEMSIZES}
        variable = _choose(path, shapes, options.variable)
        _require_small(path, variable, *found[variable])
        values = scipy_io.loadmat(path, variable_names=[variable, *WAVELENGTHS])
    except (
        scipy_io.matlab.MatReadError,
        ValueError,
        TypeError,
        OSError,
        NotImplementedError,
    ) as error:
        if isinstance(error, SceneError):
            raise
        raise SceneError(
            f"'{path}' cannot be read as a MATLAB file ({error}): it is cut off, damaged or "
            "something else. Save it again, or pass the array itself."
        ) from None
    tables = {np.size(values[w]) for w in WAVELENGTHS if np.size(values.get(w, 0)) > 1}
    cube = np.atleast_3d(values[variable])
    axes = _axes(cube.shape, tables)
    cube = cube.transpose([axes.index(axis) for axis in ("band", "y", "x")])
    return _as_scene(name, cube, values, options)


def _as_scene(
    name: str, cube: np.ndarray, values: Mapping[str, np.ndarray], options: Options
) -> xr.DataArray:
    names = [str(k + 1) for k in range(len(cube))]
    positions = list(range(len(cube)))
    if options.bands is not None:
        positions = select(options.bands, [(band,) for band in names], name)
    pixels = np.ascontiguousarray(cube[positions])
    nodata = None if options.nodata == "auto" else options.nodata
    require_possible(nodata, [pixels.dtype])
    together = options.together(declared=False)
    valid = valid_pixels(pixels, [nodata] * len(pixels), together=together)
    coords = {"band": [names[k] for k in positions], "valid": (("y", "x"), valid)}
    array = xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords, name=name)
    for key in WAVELENGTHS:
        table = np.ravel(values.get(key, []))
        if table.size == len(cube) > 1 and table.dtype.kind in "iuf":
            centres = [nanometres(float(table[k])) for k in positions]
            array = array.assign_coords(wavelength=("band", centres))
    return array if nodata is None else array.rio.write_nodata(nodata)


def _choose(
    path: str, shapes: Mapping[str, tuple[int, ...]], wanted: str | tuple[str, ...] | None
) -> str:
    """Return the variable that is meant: the one named, or the only one with three axes."""
    listing = ", ".join(f"{k} {' x '.join(map(str, s))}" for k, s in shapes.items()) or "no numbers"
    if isinstance(wanted, tuple):
        wanted = wanted[0] if len(wanted) == 1 else ", ".join(wanted)
    if wanted is None:
        cubes = [key for key, shape in shapes.items() if len(shape) == CUBE]
        if len(cubes) == 1:
            return cubes[0]
        raise SceneError(
            f"'{path}' has {len(cubes)} variables with three axes (row, column, band); it holds "
            f"{listing}. Pass the name of one, --variable NAME (variable=), or reshape it: a table "
            "of (band, pixel) has no rows and columns."
        )
    if len(shapes.get(wanted, ())) not in (2, 3):
        raise SceneError(
            f"variable='{wanted}' is not an array of two or three axes in '{path}', which holds "
            f"{listing}. Pass one of these."
        )
    return wanted


def _require_small(path: str, variable: str, shape: tuple[int, ...], kind: str) -> None:
    size = math.prod(shape) * ITEMSIZES[kind]
    if size > LARGEST:
        raise SceneError(
            f"'{variable}' of '{path}' has {size / 2**30:.1f} GiB: MATLAB files before version 7.3 "
            f"cannot be read in parts, so {LARGEST >> 30} GiB are the limit. "
            "Save it with '-v7.3', or as a GeoTIFF or Zarr."
        )
