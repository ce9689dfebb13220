"""The place of an array on a regular grid: its CRS, and the transform of its pixel corners.

Coordinates decide. ``GeoTransform`` is written once and survives slicing, so it only lends its
exact bits, the size of a single row of pixels, and the place of an array without coordinates. A
rotated grid has no coordinates in CRS units: its ``y`` and ``x`` are pixel centres in the count of
the transform, as odc-geo writes them (units ``pixel``), and stay right when the array is sliced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import xarray as xr
from affine import Affine

from uniadrs_scale.errors import SceneError
from uniadrs_scale.swaths.axes import TURN, UNEVEN, Axis, NoPlaceError, axis_of, regular_axis
from uniadrs_scale.swaths.conventions import affine_of, crs_of, name_of, written_transform

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT = 1e-6
"""Pixels within which a computed axis is the written one."""
SHIFTED = 0.25
"""Pixels from which coordinates are not those of pixel centres: corners, a turn of the Earth."""
MOST_PIXELS = 1e7
"""Pixel coordinates of a rotated grid beyond which they must mean something else."""


@dataclass(frozen=True, slots=True)
class Georeference:
    """The place of a regular grid, or the reason why an array has none."""

    crs: str | None = None
    """WKT; None if it is unknown or useless: without a transform."""
    transform: Affine | None = None
    """Of pixel corners."""
    problem: str = ""
    """Why words about a place do not amount to one, as part of a sentence."""


def georeference(array: xr.DataArray) -> Georeference:
    """Return the place of ``array`` (y, x and maybe band) on a regular grid.

    Raises:
        SceneError: An attribute names a CRS that does not exist, or coordinates that may be
            centres or corners.
    """
    crs = crs_of(array)
    try:
        transform = _transform(array, None if crs is None else crs.to_wkt())
    except NoPlaceError as error:
        return Georeference(problem=str(error))
    if transform is not None:
        if crs is not None:
            return Georeference(crs.to_wkt(), transform)
        name, problem = array.rio.grid_mapping, ""
        if name not in {"spatial_ref", *array.coords}:
            problem = f"its grid mapping '{name}' is missing (open it with decode_coords='all')"
        elif name in array.coords and set(array.coords[name].attrs) - {"GeoTransform"}:
            problem = f"its grid mapping '{name}' describes no CRS that is known"
        return Georeference(None, transform, problem)
    named = "" if crs is None else f"it has a CRS ({crs.to_string()[:40]}), but no transform"
    return Georeference(problem=named)


def centres(transform: Affine, height: int, width: int) -> dict[str, NDArray[np.float64]]:
    """Return ``y`` and ``x`` of pixel centres on a grid that is not rotated."""
    return {
        "y": transform.f + transform.e * (np.arange(height, dtype=np.float64) + 0.5),
        "x": transform.c + transform.a * (np.arange(width, dtype=np.float64) + 0.5),
    }


def map_axes(array: xr.DataArray, transform: Affine) -> dict[str, xr.DataArray]:
    """Return ``y`` and ``x`` of the map of ``array``, whose transform is ``transform``.

    In the bits of the array's own, so that xarray aligns the two, unless those are not centres. A
    rotated grid has no such axes: every reader understands the transform.
    """
    axes: dict[str, xr.DataArray] = {}
    if is_rotated(transform):
        return axes
    for name, values in centres(transform, array.sizes["y"], array.sizes["x"]).items():
        axes[name] = xr.DataArray(values, dims=name)
        step = transform.e if name == "y" else transform.a
        own = array.coords.get(name)
        if own is not None and np.abs(own.values - values).max() < SHIFTED * abs(step):
            axes[name] = own
    return axes


def without_old_coordinates(array: xr.DataArray, opened: Affine) -> xr.DataArray:
    """Return ``array`` without coordinates if its transform was corrected, and they stayed.

    Args:
        array: With the pixels of a whole file.
        opened: Its transform when it was opened.
    """
    written = written_transform(array)
    if written in (None, opened) or is_rotated(opened):
        return array
    made = centres(opened, array.sizes["y"], array.sizes["x"])
    axes = {name: array.coords[name].values for name in made if name in array.coords}
    stayed = all(name in axes and np.array_equal(axes[name], made[name]) for name in made)
    return array.drop_vars(["y", "x"]) if stayed else array


def is_rotated(transform: Affine) -> bool:
    """Return True if rows and columns of pixels are not along x and y."""
    return bool(transform.b or transform.d)


def _transform(array: xr.DataArray, wkt: str | None) -> Affine | None:
    written = written_transform(array)
    found = [name for name in ("y", "x") if name in array.coords]
    if not found:
        _require_same_shape(array, written)
        return _from_planes(array, written)
    if written is not None and is_rotated(written):
        return _rotated(array, written)
    y, x = (
        axis_of(array.coords[name], wkt)
        if name in found
        else _counted(name, written, array.sizes[name])
        for name in ("y", "x")
    )
    steps = _steps(y, x, written)
    y_step, x_step = steps
    y_shift, x_shift = _corner_shift(array, (y, x), steps)
    top, left = y.first + y_shift - y_step / 2, x.first + x_shift - x_step / 2
    made = Affine(x_step, 0, left, 0, y_step, top)
    if made.is_identity:  # coordinates that count pixels
        return None
    return made if written is None else _snapped(made, written, (y.size, x.size))


def _counted(name: str, written: Affine | None, size: int) -> Axis:
    """Return an axis without coordinates, as the written transform counts it."""
    if written is None:
        raise NoPlaceError(f"it has no coordinate {name}")
    start, step = (written.f, written.e) if name == "y" else (written.c, written.a)
    return Axis(start + step / 2, step, size)


def _steps(y: Axis, x: Axis, written: Affine | None) -> tuple[float, float]:
    """Return the pixel sizes; that of a single pixel as written, if the rest agrees with it."""
    if y.step is not None and x.step is not None:
        return y.step, x.step
    rows = "row" if y.step is None else "column"
    unknown = NoPlaceError(f"the size of its single {rows} of pixels is unknown")
    if written is None:
        raise unknown
    steps = []
    for axis, start, size in ((y, written.f, written.e), (x, written.c, written.a)):
        place = (axis.first - start) / size - 0.5
        same = axis.step is None or abs(abs(axis.step / size) - 1) < EXACT
        if not same or abs(place - round(place)) > UNEVEN:
            raise unknown
        steps.append(size if axis.step is None else axis.step)
    return steps[0], steps[1]


def _snapped(made: Affine, written: Affine, shape: tuple[int, int]) -> Affine:
    """Return ``made`` in the exact bits of ``written`` along each axis on which they agree."""
    parts = []
    for step, start, exact, origin, size in (
        (made.a, made.c, written.a, written.c, shape[1]),
        (made.e, made.f, written.e, written.f, shape[0]),
    ):
        agrees = abs(step - exact) * size <= EXACT * abs(exact)
        parts += [exact if agrees else step]
        parts += [origin if agrees and abs(start - origin) <= EXACT * abs(exact) else start]
    a, c, e, f = parts
    return Affine(a, 0, c, 0, e, f)


def _rotated(array: xr.DataArray, written: Affine) -> Affine:
    """Return the transform of an array whose coordinates count pixels of a rotated grid."""
    counted = []
    own = None
    for name in ("x", "y"):
        if name not in array.coords:
            counted.append((0.0, 1.0))
            continue
        coordinate = array.coords[name]
        own = own or affine_of(coordinate.attrs.get("transform"))
        axis = regular_axis(coordinate.values, name)
        step = 1.0 if axis.step is None else axis.step
        if max(abs(axis.first), abs(axis.last)) > MOST_PIXELS or abs(step) < 1 / TURN:
            raise NoPlaceError(
                f"coordinate {name} of its rotated grid does not count pixels (units pixel)"
            )
        counted.append((axis.first - step / 2, step))
    (left, across), (top, down) = counted
    pixels = Affine(across, 0, left, 0, down, top)
    # Slicing with rioxarray moves the written transform too.
    moved = own is not None and written.almost_equals(own @ pixels, EXACT * _side(written))
    return written if moved else written @ pixels


def _from_planes(array: xr.DataArray, written: Affine | None) -> Affine | None:
    """Return the transform of a rotated grid whose pixels have places (y, x), as in rioxarray."""
    planes = [array.coords[name] for name in ("xc", "yc") if name in array.coords]
    if written is None or not is_rotated(written) or len(planes) < len(("xc", "yc")):
        return written
    height, width = array.sizes["y"], array.sizes["x"]
    corners = [
        plane.transpose("y", "x")[:: max(height - 1, 1), :: max(width - 1, 1)].values
        for plane in planes
    ]
    first, *others = (
        np.array([c[row, col] for c in corners]) for row, col in ((0, 0), (0, -1), (-1, 0))
    )
    if 1 in (height, width):
        if np.abs(first - written @ (0.5, 0.5)).max() < EXACT * _side(written):
            return written
        raise NoPlaceError("the size of its single row of pixels is unknown")
    along, down = (others[0] - first) / (width - 1), (others[1] - first) / (height - 1)
    left, top = first - (along + down) / 2
    made = Affine(along[0], down[0], left, along[1], down[1], top)
    return written if made.almost_equals(written, EXACT * _side(written)) else made


def _side(transform: Affine) -> float:
    return math.hypot(transform.a, transform.d)


def _corner_shift(
    array: xr.DataArray, axes: tuple[Axis, Axis], steps: tuple[float, float]
) -> tuple[float, float]:
    """Return what makes centres of coordinates that are corners, as stackstac writes them.

    Its ``attrs["transform"]`` tells the two apart, unless pixels were skipped or averaged since.
    """
    transform = affine_of(array.attrs.get("transform"))
    if transform is None or is_rotated(transform):
        return 0.0, 0.0
    sizes, starts = (transform.e, transform.a), (transform.f, transform.c)
    places = [
        (axis.first - start) / size for axis, start, size in zip(axes, starts, sizes, strict=True)
    ]
    whole = all(abs(abs(step / size) - 1) < EXACT for step, size in zip(steps, sizes, strict=True))
    if whole and all(abs(place - round(place)) < UNEVEN for place in places):
        return sizes[0] / 2, sizes[1] / 2
    centred = all(abs(place - math.floor(place) - 0.5) < UNEVEN for place in places)
    if "spec" in array.attrs and not (whole and centred):
        raise SceneError(
            f"Scene '{name_of(array)}' may have corners or centres of pixels as coordinates: "
            "stackstac's attrs['transform'] is not that of its pixels any more. Stack it with "
            "xy_coords='center' and drop the attributes spec and transform."
        )
    return 0.0, 0.0


def _require_same_shape(array: xr.DataArray, written: Affine | None) -> None:
    shape = array.attrs.get("spatial:shape")
    sizes = array.sizes["y"], array.sizes["x"]
    if written is not None and shape is not None and tuple(shape) != sizes:
        raise NoPlaceError(f"its transform is for {shape[0]} x {shape[1]} px")


def spatial_ref(place: Georeference) -> xr.DataArray:
    """Return the scalar coordinate that rioxarray and GDAL read CRS and transform from."""
    frame = xr.DataArray(np.zeros((1, 1)), dims=("y", "x"))
    frame = frame if place.crs is None else frame.rio.write_crs(place.crs)
    return cast("xr.DataArray", frame.rio.write_transform(place.transform).coords["spatial_ref"])
