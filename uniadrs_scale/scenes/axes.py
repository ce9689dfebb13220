"""The roles of the axes of an array: bands, rows and columns, by names, attributes and sizes.

Names and attributes decide. Sizes decide only if nothing contradicts them: the bands of an array
whose axes have no names are the axis that is by far the shortest.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.datasets import scopes
from uniadrs_scale.scenes.packing import numbers
from uniadrs_scale.scenes.products.metadata import nanometres

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import xarray as xr

    from uniadrs_scale.scenes.arrays import Variable
    from uniadrs_scale.scenes.datasets import Contents

Role = Literal["band", "y", "x", ""]
LATITUDES = {"lat", "latitude", "nav_lat", "xlat", "lats", "latitudes"}
LONGITUDES = {"lon", "longitude", "nav_lon", "xlong", "xlon", "lons", "longitudes", "long"}
ROWS = re.compile(
    r"y|yc|y1|ny|nj|j|n?rows?|n?lines?|height|northings?|rlat|ydim|downtrack|along_track|"
    r"number_of_lines|scanlines?"
)
COLUMNS = re.compile(
    r"x|xc|x1|nx|ni|i|n?cols?|columns?|n?samples?|width|eastings?|rlon|xdim|cross_?track|"
    r"across_track|(ground_)?pixels?|pixels_per_line"
)
BANDS = re.compile(
    r"(^|_)(n?bands?|n?channels?|wavelengths?|wavebands?|wvl|wl|lambda|spectral|spectrum|"
    r"frequency)(_|\d|$)"
)
WAVELENGTHS = re.compile(
    r"wavelengths?|wavelength_nm|radiation_wavelength|(center|centre|central)_wavelengths?|wl|wvl"
)
SPECTRAL_UNITS = re.compile(r"(nm|um|µm|μm|micron|(nano|micro)met(er|re))s?")
STANDARD: dict[Role, re.Pattern[str]] = {
    "y": re.compile("projection_y_(angular_)?coordinate|(grid_)?latitude"),
    "x": re.compile("projection_x_(angular_)?coordinate|(grid_)?longitude"),
}
DEGREES: dict[Role, re.Pattern[str]] = {
    "y": re.compile("degrees?_?n(orth)?"),
    "x": re.compile("degrees?_?e(ast)?"),
}
UNIT_NAMES = ("units", "unit")
PLANE, CUBE = 2, 3
"""Axes of an image without and with bands."""
LONGEST = 2**25
"""Pixels along an axis that are believed: a coordinate of them takes 256 MiB."""
NAMELESS = ("phony_dim_", "axis_")
"""Beginnings of names that libraries give to dimensions without one."""
SHORTER = 2
"""Factor by which the shortest of nameless axes must be shorter to hold the bands."""


def coordinates_of(contents: Contents, group: str, dim: str, size: int) -> list[str]:
    """Return the paths of one-dimensional arrays that may be the coordinate of a dimension.

    One with the dimension's name, in the group or above; else those along the dimension that say
    that they are coordinates. A dimension without a name is known by its size.
    """
    own = contents.nearest(group, dim)
    if own is not None:
        shape = contents.entries[own].shape
        if shape == (size,):
            return [own]
        if len(shape) == 1 and contents.variable(own).dims == (dim,):
            raise SceneError(
                f"Coordinate '{own}' of '{contents.file.path}' has {shape[0]} values for {size} "
                "pixels or bands: the file is damaged. Fetch it again."
            )
    along = [p for p, e in contents.entries.items() if e.shape == (size,) and e.numeric]
    near = [path for path in along if contents.entries[path].group in scopes(group)]
    if not dim.startswith(NAMELESS):
        near = [path for path in near if contents.variable(path).dims == (dim,)]
    return [path for path in near if role_of_coordinate(contents, path)]


def role_of_coordinate(contents: Contents, path: str) -> Role:
    """Return the role of a coordinate in a file: see :func:`role_of`."""
    return role_of(contents.entries[path].name, contents.variable(path))


def role_of(name: str, variable: xr.Variable) -> Role:
    """Return what the attributes of a coordinate say, or its name; empty if nothing."""
    return role_of_attributes(variable) or role_of_name(name)


def role_of_name(name: str) -> Role:
    """Return what the name of a dimension or coordinate says; empty if nothing."""
    lower = name.lower()
    if lower in LATITUDES or ROWS.fullmatch(lower):
        return "y"
    if lower in LONGITUDES or COLUMNS.fullmatch(lower):
        return "x"
    return "band" if BANDS.search(lower) else ""


def role_of_attributes(variable: xr.Variable) -> Role:
    """Return what the CF attributes of a coordinate say; empty if nothing."""
    names = ("standard_name", "units", "axis")
    standard, units, axis = (str(variable.attrs.get(name, "")).lower() for name in names)
    for role, pattern in STANDARD.items():
        if pattern.fullmatch(standard) or DEGREES[role].fullmatch(units) or axis == role:
            return role
    return "band" if "wavelength" in standard or SPECTRAL_UNITS.fullmatch(units) else ""


def spectral_table(contents: Contents, group: str, dim: str, size: int) -> str | None:
    """Return the path of the wavelengths of an axis; None without any.

    It is in the group or above it, or the only one of that size in the file.
    """
    tables = [p for p, e in contents.entries.items() if e.shape == (size,) and e.numeric]
    named = [path for path in tables if WAVELENGTHS.fullmatch(contents.entries[path].name.lower())]
    near = [path for path in named if contents.entries[path].group in scopes(group)]
    own = contents.nearest(group, dim)
    if not near and own in tables and role_of_attributes(contents.variable(own)) == "band":
        return own
    found = near or named
    return found[0] if near or len(found) == 1 else None


def axis_roles(contents: Contents, path: str, swath: str | None = None) -> tuple[Role, ...]:
    """Return what each axis of an array is; empty for one of length 1 that is dropped.

    A ``swath`` has the latitude (y, x) of its pixels there.

    Raise SceneError if the axes are ambiguous, or are too many.
    """
    entry = contents.entries[path]
    axes = [(str(d), n) for d, n in zip(contents.variable(path).dims, entry.shape, strict=True)]
    known = [_evidence(contents, entry.group, dim, size) for dim, size in axes]
    if known.count("y") > 1 or known.count("x") > 1:
        known = [role_of_name(dim) for dim, _ in axes]  # attributes that contradict each other
    extent = contents.entries[swath].extent if swath else None
    if swath and contents.entries[swath].group == entry.group:
        lines = [d for d in contents.variable(swath).dims if d in dict(axes)]
        known = [_at(lines, dim) or role for (dim, _), role in zip(axes, known, strict=True)]
    placed = {"y", "x"} <= set(known)
    kept = [k for k, (_, n) in enumerate(axes) if n > 1 or (placed and known[k] in ("y", "x"))]
    said = [known[k] for k in kept]
    if len(kept) == CUBE and "band" not in said and not placed:
        tables = [spectral_table(contents, entry.group, *axes[k]) for k in kept]
        said = [role or ("band" if t else "") for role, t in zip(said, tables, strict=True)]
    roles = _resolved(said, [axes[k][1] for k in kept], extent)
    if roles is None:
        shown = ", ".join(f"{dim} {size}" for dim, size in axes)
        raise SceneError(f"'{path}' of '{contents.file.path}' {_problem(said, shown)}")
    found = dict(zip(kept, roles, strict=True))
    return tuple(found.get(k, "") for k in range(len(axes)))


def guessed_bands(contents: Contents, variable: Variable) -> str:
    """Return a sentence about an axis that is taken for the bands; empty if it says that it is."""
    if "band" not in variable.axes:
        return ""
    axis, group = variable.axes.index("band"), contents.entries[variable.path].group
    array = contents.variable(variable.path)
    dim, size = str(array.dims[axis]), array.shape[axis]
    said = _evidence(contents, group, dim, size) or spectral_table(contents, group, dim, size)
    if said or dim.startswith(NAMELESS):
        return ""
    return taken_for_bands(dim, size, variable.path)


def taken_for_bands(dim: str, size: int, name: str) -> str:
    """Return the sentence about an axis of an array that does not say that it holds bands."""
    return (
        f"The {size} steps along '{dim}' of '{name}' are scored as bands of one scene. If they are "
        f"scenes of their own, select one with xarray (.isel({dim}=0)), and score that."
    )


def _at(lines: Sequence[Hashable], dim: str) -> Role:
    """Return the role of a dimension among those of a latitude."""
    if len(lines) != PLANE or dim not in lines:
        return ""
    return "y" if dim == lines[0] else "x"


def _problem(known: Sequence[Role], shown: str) -> str:
    """Return what is wrong with the axes, and what to do."""
    if len(known) not in {PLANE, CUBE}:
        return (
            f"has {len(known)} axes longer than 1 ({shown}): a scene has bands, rows and columns. "
            "Open it with xarray, select along the others (.isel(time=0)), and pass the result."
        )
    if len(known) == PLANE and "band" in known:
        return (
            f"has the axes {shown}: a table of bands and pixels is not an image. Reshape it to "
            "(band, y, x) and pass it as a DataArray."
        )
    return (
        f"has the axes {shown}: nothing tells which are bands, rows and columns. Open it, "
        "name its dimensions (band, y, x) with .rename(), and pass that."
    )


def _evidence(contents: Contents, group: str, dim: str, size: int) -> Role:
    """Return what names and attributes say about one axis."""
    paths = coordinates_of(contents, group, dim, size)
    said = {role_of_coordinate(contents, path) for path in paths}
    return said.pop() if len(said) == 1 and said != {""} else role_of_name(dim)


def _resolved(
    known: Sequence[Role], sizes: Sequence[int], extent: tuple[int, ...] | None
) -> list[Role] | None:
    """Return the role of each axis longer than 1; None if they are ambiguous."""
    if len(sizes) not in {PLANE, CUBE} or any(known.count(role) > 1 for role in ("band", "y", "x")):
        return None
    if len(sizes) == PLANE:
        return None if "band" in known else _in_order(known, None)
    if "band" in known:
        return _in_order(known, known.index("band"))
    free = [k for k, role in enumerate(known) if not role]
    if len(free) == 1:
        return _in_order(known, free[0])
    if extent is not None:
        fits = [k for k in free if tuple(sizes[:k]) + tuple(sizes[k + 1 :]) == extent]
        return _in_order(known, fits[0]) if len(fits) == 1 else None
    shortest = min(free, key=lambda k: sizes[k])
    others = [sizes[k] for k in range(len(sizes)) if k != shortest]
    clear = SHORTER * sizes[shortest] <= min(others)
    # Bands between rows and columns are not guessed: a column of pixels looks the same.
    middle = shortest == 1 and len(free) == len(sizes)
    return _in_order(known, shortest) if clear and not middle else None


def _in_order(known: Sequence[Role], band: int | None) -> list[Role]:
    """Return the roles if ``band`` is the axis of the bands; rows come first unless named."""
    rest = [k for k in range(len(known)) if k != band]
    turned = known[rest[0]] == "x" or known[rest[1]] == "y"
    roles: list[Role] = ["band"] * len(known)
    roles[rest[0]], roles[rest[1]] = ("x", "y") if turned else ("y", "x")
    return roles


def wavelengths_of(array: xr.DataArray) -> tuple[float, ...]:
    """Return the centres of bands [nm] if the array has them."""
    centres = array.coords.get("wavelength")
    if centres is None or centres.dims != ("band",) or centres.dtype.kind not in "iuf":
        return ()
    unit = str(centres.attrs.get("units", ""))
    found = [nanometres(value, unit) for value in centres.values.tolist()]
    return () if None in found else tuple(value or math.nan for value in found)


def own_wavelength(attributes: Mapping[Any, Any]) -> float | None:
    """Return the wavelength of an array that is one band, from its attributes."""
    for name in filter(WAVELENGTHS.fullmatch, attributes):
        value = np.ravel(attributes[name])
        if value.size == 1 and value.dtype.kind in "iuf" and value[0] > 0:
            unit = attributes.get(f"{name}_unit") or attributes.get(f"{name}_units")
            return nanometres(float(value[0]), None if unit is None else str(unit))
    return None


def listed_wavelengths(attributes: Mapping[Any, Any], count: int) -> tuple[list[float], str | None]:
    """Return the wavelengths that an array lists as an attribute (Tanager), and their unit."""
    for name in filter(WAVELENGTHS.fullmatch, map(str, attributes)):
        if len(values := numbers(attributes[name])) == count:
            said = (attributes.get(f"{n}_{u}") for n in (name, "wavelength") for u in UNIT_NAMES)
            return values, next((str(unit) for unit in said if unit is not None), None)
    return [], None


def band_names(
    contents: Contents, group: str, dim: str, attributes: Mapping[Any, Any], count: int
) -> list[str]:
    """Return the band names along an axis: texts, whole numbers or a list; empty without any."""
    path = contents.nearest(group, dim)
    if path is not None and contents.entries[path].shape == (count,):
        own = contents.variable(path)
        if own.dtype.kind in "OUSTiu":
            texts = (v.decode(errors="replace") if isinstance(v, bytes) else v for v in own.values)
            return [str(text) for text in texts]
    for name in ("band_names", "long_name"):
        value = attributes.get(name)
        if isinstance(value, list | tuple | np.ndarray) and len(value) == count > 1:
            return [str(item) for item in value]
    return []
