"""Any NetCDF, HDF5 or Zarr file: which of its arrays are the scene, and where it lies."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
from pyproj import CRS
from pyproj.exceptions import CRSError

from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.cubes import CubeSpec, Variable
from uniadrs_scale.scenes.products.metadata import iso_time, nanometres, natural_order
from uniadrs_scale.storage.remote import uri_name

if TYPE_CHECKING:
    import xarray as xr

    from uniadrs_scale.scenes.datasets import Contents, Entry
    from uniadrs_scale.scenes.products.metadata import Options


LATITUDES = {"lat", "latitude", "nav_lat", "xlat", "lats", "latitudes"}
LONGITUDES = {"lon", "longitude", "nav_lon", "xlong", "xlon", "lons", "longitudes", "long"}
ROWS = LATITUDES | {"y", "row", "rows", "line", "lines", "northing", "downtrack", "along_track",
                    "nj", "number_of_lines", "ydim"}  # fmt: skip
COLUMNS = LONGITUDES | {"x", "col", "cols", "column", "columns", "sample", "samples", "easting",
                        "crosstrack", "across_track", "ni", "pixels_per_line", "xdim"}  # fmt: skip
WAVELENGTHS = ("wavelength", "wavelengths", "wavelength_nm", "radiation_wavelength", "wl")
TIMES = ("time_coverage_start", "start_date", "start_time", "datetime", "acquisition_time")
MANY = 16
"""Names that fit in an error message."""
REGULAR = 1e-3
"""By how much of a pixel coordinates may stray from a grid."""


def recognise(contents: Contents, options: Options) -> CubeSpec:
    """The arrays that ``variable`` names, or the one that can be meant.

    Raises:
        SceneError: None or several can be meant, or they do not fit together.
    """
    places = _swath_places(contents)
    chosen = _chosen(contents, options.variable, {path for pair in places for path in pair})
    place = next((pair for pair in places if _covers(contents, pair[0], chosen[0])), None)
    variables = tuple(_variable(contents, entry, place and contents.entry(place[0]))
                      for entry in chosen)  # fmt: skip
    _require_same_size(contents, chosen, variables)
    tables = [_bands(contents, e, v) for e, v in zip(chosen, variables, strict=True)]
    crs, transform = (None, None) if place else _grid(contents, chosen[0], variables[0])
    bands = tuple(name for table in tables for name, _ in table)
    located = [_place_variable(contents, path) for path in place] if place else [None, None]
    return CubeSpec(
        kind="a Zarr store" if contents.engine == "zarr" else "a NetCDF or HDF5 file",
        name=uri_name(contents.path),
        path=contents.path,
        stamp=contents.stamp,
        engine=contents.engine,
        variables=variables,
        counts=tuple(len(table) for table in tables),
        bands=bands,
        wavelengths=tuple(centre for table in tables for _, centre in table),
        good=(True,) * len(bands),
        latitude=located[0],
        longitude=located[1],
        crs=crs,
        transform=transform,
        datetime=next(
            filter(None, (iso_time(str(contents.attributes.get(k))) for k in TIMES)), None
        ),
        platform=contents.attributes.get("platform"),
    )


def _chosen(
    contents: Contents, wanted: str | tuple[str, ...] | None, places: set[str]
) -> list[Entry]:
    """The arrays that are the scene, in the order they were asked for."""
    possible = [e for e in contents.entries if e.numeric and len(e.extent) in (2, 3)]
    possible = [e for e in possible if e.path not in places]
    names = ", ".join([e.path for e in possible][:MANY]) + (", ..." if len(possible) > MANY else "")
    if wanted is None:
        cubes = [e for e in possible if len(e.extent) == 3]  # noqa: PLR2004 - band, y, x
        for candidates in (cubes, possible):
            if len(candidates) == 1:
                return candidates
        met = f"{len(possible)} arrays that could be the scene ({names})" if possible else (
            "no array of numbers with two or three axes"
        )  # fmt: skip
        raise SceneError(
            f"'{contents.path}' has {met}: one must be named. "
            "Pass variable='name', a list of names, or a pattern such as 'rrs_*'."
        )
    chosen: list[Entry] = []
    for pattern in (wanted,) if isinstance(wanted, str) else wanted:
        found = {e.path: e for e in possible if fnmatchcase(e.path, pattern)}
        found = found or {e.path: e for e in possible if fnmatchcase(e.name, pattern)}
        if not found:
            raise SceneError(
                f"variable='{pattern}' is not in '{contents.path}', which has "
                f"{names or 'no array of two or three axes'}. Pass one of these."
            )
        chosen += (found[path] for path in natural_order(found))
    return chosen


def _swath_places(contents: Contents) -> list[tuple[str, str]]:
    """Paths of (latitude, longitude) that have two axes."""

    def flat(names: set[str]) -> dict[tuple[str, tuple[int, ...]], str]:
        return {
            (e.group, e.extent): e.path
            for e in contents.entries
            if e.name.lower() in names and len(e.extent) == 2 and e.numeric  # noqa: PLR2004
        }

    latitudes, longitudes = flat(LATITUDES), flat(LONGITUDES)
    return [(path, longitudes[key]) for key, path in latitudes.items() if key in longitudes]


def _covers(contents: Contents, latitude: str, entry: Entry) -> bool:
    """True where a latitude has the two spatial axes of an array."""
    place = contents.entry(latitude)
    if place is None:
        return False
    if place.group == entry.group:
        dataset = contents.group(entry.group)
        return set(dataset[place.name].dims) <= set(dataset[entry.name].dims)
    return place.extent in (entry.extent[:2], entry.extent[1:], entry.extent[::2])


def _place_variable(contents: Contents, path: str) -> Variable:
    entry = contents.entry(path)
    assert entry is not None  # noqa: S101 - it was found by its path
    axes = iter(("y", "x"))
    return Variable(
        entry.group, entry.name, tuple(next(axes) if n > 1 else "" for n in entry.shape)
    )


def _variable(contents: Contents, entry: Entry, place: Entry | None) -> Variable:
    """An array and what its axes are."""
    dims = [str(dim) for dim in contents.group(entry.group)[entry.name].dims]
    kept = [k for k, n in enumerate(entry.shape) if n > 1]
    axes = [""] * len(dims)
    rows, cols = _spatial(contents, entry, place, [dims[k] for k in kept])
    for k in kept:
        axes[k] = "y" if dims[k] == rows else "x" if dims[k] == cols else "band"
    return Variable(entry.group, entry.name, tuple(axes))


def _spatial(
    contents: Contents, entry: Entry, place: Entry | None, dims: list[str]
) -> tuple[str, str]:
    """Names of the two axes on the ground."""
    if place is not None and place.group == entry.group:
        rows, cols = (d for d in contents.group(place.group)[place.name].dims if d in dims)
        return str(rows), str(cols)
    rows_named = [d for d in dims if d.lower() in ROWS]
    cols_named = [d for d in dims if d.lower() in COLUMNS]
    if rows_named and cols_named:
        return rows_named[0], cols_named[0]
    if len(dims) == 2:  # noqa: PLR2004 - y, x
        return dims[0], dims[1]
    # Axes without names: the shortest is that of the bands, the others are in order.
    sizes = entry.extent
    if place is not None:
        shortest = next(k for k in (2, 0, 1) if sizes[:k] + sizes[k + 1 :] == place.extent)
    else:
        shortest = min((2, 0, 1), key=lambda k: sizes[k])
    rows, cols = (dim for k, dim in enumerate(dims) if k != shortest)
    return rows, cols


def _require_same_size(
    contents: Contents, chosen: list[Entry], variables: tuple[Variable, ...]
) -> None:
    sizes = {}
    for entry, variable in zip(chosen, variables, strict=True):
        shape = dict(zip(variable.axes, entry.shape, strict=True))
        sizes[entry.path] = shape.get("y"), shape.get("x")
    first = chosen[0].path
    for path, size in sizes.items():
        if size != sizes[first]:
            raise SceneError(
                f"'{path}' of '{contents.path}' has {size[0]} x {size[1]} px but '{first}' has "
                f"{sizes[first][0]} x {sizes[first][1]}: arrays of one scene must have one size. "
                "Pass variable= with those that fit."
            )


def _bands(contents: Contents, entry: Entry, variable: Variable) -> list[tuple[str, float | None]]:
    """(name, wavelength in nm) of each band of an array."""
    dataset = contents.group(entry.group)
    array = dataset[entry.name]
    if "band" not in variable.axes:
        return [(entry.name, _own_wavelength(array.attrs))]
    axis = variable.axes.index("band")
    count, dim = entry.shape[axis], array.dims[axis]
    own = dataset.variables.get(dim)
    named = own is not None and own.dtype.kind in "OUSiu" and own.ndim == 1
    names = [str(v) for v in own.values] if own is not None and named else [
        str(k + 1) for k in range(count)
    ]  # fmt: skip
    return list(zip(names, _wavelengths(dataset, dim, count), strict=True))


def _wavelengths(dataset: xr.Dataset, dim: Any, count: int) -> list[float | None]:
    for name in (*WAVELENGTHS, str(dim)):
        table = dataset.variables.get(name)
        spectral = name in WAVELENGTHS or "wavelength" in str(
            "" if table is None else table.attrs.get("standard_name", "")
        )
        if table is not None and spectral and table.shape == (count,) and table.dtype.kind in "iuf":
            unit = table.attrs.get("units")
            return [nanometres(float(value), unit) for value in table.values]
    return [None] * count


def _own_wavelength(attributes: dict[Any, Any]) -> float | None:
    """Of an array that is one band, from its attributes."""
    for name in WAVELENGTHS:
        value = np.ravel(attributes.get(name, 0))
        if value.size == 1 and value.dtype.kind in "iuf" and value[0] > 0:
            unit = attributes.get(f"{name}_unit")
            return nanometres(float(value[0]), None if unit is None else str(unit))
    return None


def _grid(
    contents: Contents, entry: Entry, variable: Variable
) -> tuple[str | None, tuple[float, ...] | None]:
    """CRS and transform from coordinates (CF conventions); None where they make no grid."""
    dataset = contents.group(entry.group)
    array = dataset[entry.name]
    dims = {axis: str(dim) for dim, axis in zip(array.dims, variable.axes, strict=True)}
    steps = {axis: _regular(dataset, dims[axis]) for axis in ("y", "x")}
    y, x = steps["y"], steps["x"]
    if y is None or x is None:
        return None, None
    transform = (x[1], 0.0, x[0] - x[1] / 2, 0.0, y[1], y[0] - y[1] / 2)
    return _crs(dataset, array, dims["y"]), transform


def _regular(dataset: xr.Dataset, dim: str) -> tuple[float, float] | None:
    """(first, step) of an evenly spaced coordinate; None without one."""
    coordinate = dataset.variables.get(dim)
    if coordinate is None or coordinate.ndim != 1 or coordinate.size < 2:  # noqa: PLR2004
        return None
    values = np.asarray(coordinate.values, float)
    step = (values[-1] - values[0]) / (values.size - 1)
    even = values[0] + step * np.arange(values.size)
    if step == 0 or not np.allclose(values, even, rtol=0, atol=REGULAR * abs(step)):
        return None
    return float(values[0]), float(step)


def _crs(dataset: xr.Dataset, array: xr.DataArray, row_dim: str) -> str | None:
    """WKT from the grid mapping; WGS 84 where the axes are latitude and longitude."""
    for name in (array.attrs.get("grid_mapping"), "spatial_ref", "crs"):
        mapping = dataset.variables.get(str(name))
        if mapping is not None:
            try:
                return CRS.from_cf(dict(mapping.attrs)).to_wkt()
            except (CRSError, KeyError):
                continue
    return CRS.from_epsg(4326).to_wkt() if row_dim.lower() in LATITUDES else None
