"""Nodata of arrays that are passed: fill, limits and signs in their attributes, as in files.

One nodata value is compared when pixels are read. More words become the coordinate ``valid``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from uniadrs_scale.core.validity import can_hold, exact
from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.packing import VALID, Packing, agreed, numbers, packing_of, plain_names
from uniadrs_scale.swaths.conventions import name_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILL = ("_FillValue", "missing_value", "fill_value", "nodata")
"""Attributes that hold the nodata value of an array, as rioxarray reads them."""
DECLARED = "declared"
"""Attribute of a mask: the words of an array that it was made from."""


def with_plain_fill(array: xr.DataArray) -> xr.DataArray:
    """Return an array whose nodata is one attribute, or its coordinate ``valid``.

    xarray keeps the fill of decoded numbers as encoding. Integers that have one are not decoded.
    """
    said = _said(array)
    if array.dtype.kind == "f" or not ({*said} | {*plain_names(array.attrs)} & {"unsigned"}):
        return _with_mask(array, said)
    packing = _packing(array, said)
    held = [array.dtype.type(v) for v in map(_first, said.values()) if can_hold(array.dtype, v)]
    plain = array.copy(deep=False)
    if np.dtype(packing.stored) != array.dtype:  # the same bits, counted otherwise
        plain = array.astype(packing.stored, keep_attrs=True)
        held = [plain.dtype.type(value) for value in packing.missing]
    left_out = {*FILL, *(name for name in array.attrs if "unsigned" in plain_names({name: 0}))}
    plain.attrs = {k: v for k, v in array.attrs.items() if k not in left_out}
    plain.attrs |= dict(zip(FILL, held[:1], strict=False))
    plain.encoding = {k: v for k, v in array.encoding.items() if k not in FILL}
    return _with_mask(plain, {}, packing)


def declared_nodata(array: xr.DataArray) -> float | None:
    """Return the nodata value that an array declares, if a pixel can have it."""
    nodata = with_plain_fill(array).rio.nodata
    return None if nodata is None else exact(nodata)


def _first(value: Any) -> float:
    return exact(np.ravel(value)[0])


def _said(array: xr.DataArray) -> dict[str, Any]:
    """Return the fill values of an array by the names of their attributes."""
    said = {name: array.attrs[name] for name in FILL if name in array.attrs}
    if array.dtype.kind != "f":
        said = {n: array.encoding[n] for n in FILL[:2] if n in array.encoding} | said
    try:
        for value in said.values():
            _first(value)
    except (TypeError, ValueError, IndexError):
        raise SceneError(
            f"The fill value of scene '{name_of(array)}' is not a number ({said}). Correct the "
            "attribute, or drop it."
        ) from None
    return said


def _packing(array: xr.DataArray, said: dict[str, Any]) -> Packing:
    """Return how files with the attributes of an array are read; pixels stay as they are."""
    attributes = {k: v for k, v in array.attrs.items() if np.size(v) == 1 or "valid" in str(k)}
    if array.dtype.kind == "f":
        attributes = _unpacked_limits(array, attributes)
    none = np.broadcast_to(array.dtype.type(0), array.shape)
    words = xr.Variable(array.dims, none, attributes | said)
    found = packing_of(f"Scene '{name_of(array)}'", words, [str(dim) for dim in array.dims])
    return agreed((found,), "auto", array.sizes.get("band", 1))[0]


def _unpacked_limits(array: xr.DataArray, attributes: dict[Any, Any]) -> dict[Any, Any]:
    """Return attributes with the limits of floats as they are decoded.

    Floats that were computed since have kept the attributes, but not the encoding: their limits are
    those of other numbers.
    """
    names = [name for name in attributes if {*plain_names({name: 0})} & {*VALID}]
    others = {k: v for k, v in attributes.items() if k not in names}
    if "dtype" not in array.encoding:
        return others
    factor, offset = (array.encoding.get(k, d) for k, d in (("scale_factor", 1), ("add_offset", 0)))
    packed = np.dtype(array.encoding["dtype"]).kind in "iu"
    for name in names:
        value = np.asarray(numbers(attributes[name]))
        stored = packed and np.asarray(attributes[name]).dtype.kind != "f"
        others[name] = np.sort(value * factor + offset) if stored else value
    return others


def _with_mask(
    array: xr.DataArray, said: dict[str, Any], packing: Packing | None = None
) -> xr.DataArray:
    """Return an array with a mask if it declares more than one nodata value."""
    if "valid" in array.coords or array.dtype.kind == "b":
        return array
    packing = packing or _packing(array, said)
    if packing.limits is None and len(packing.missing) <= 1:
        return array
    return array.assign_coords(valid=_mask(array, packing))


def _mask(array: xr.DataArray, packing: Packing) -> xr.Variable:
    """Return the lazy or computed mask of pixels that are neither fill nor outside the limits."""
    core = ["band"] if "band" in array.dims else []
    whole = array.chunk(band=-1) if core and array.chunks is not None else array

    def present(pixels: NDArray[Any]) -> NDArray[np.bool_]:
        bands = np.moveaxis(pixels, -1, 0) if core else pixels[None]
        found = ~packing.blank(bands)
        for band in bands:  # copied, because floats that are missing become NaN
            found &= packing.pixels(band[None].copy(), np.arange(1))[1]
        return found

    made: xr.Variable = xr.apply_ufunc(
        present,
        whole.variable,
        input_core_dims=[core],
        dask="parallelized",
        output_dtypes=[bool],
    )
    made.attrs = {DECLARED: ", ".join(packing.words)}
    return made
