"""Any NetCDF, HDF5 or Zarr file: selects the arrays that are the scene, and places them."""

from __future__ import annotations

from contextlib import suppress
from fnmatch import fnmatchcase
from glob import has_magic
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.arrays import Variable
from uniadrs_scale.scenes.axes import (
    CUBE,
    LATITUDES,
    LONGITUDES,
    PLANE,
    axis_roles,
    band_names,
    guessed_bands,
    listed_wavelengths,
    own_wavelength,
    spectral_table,
)
from uniadrs_scale.scenes.cubes import CubeSpec
from uniadrs_scale.scenes.datasets import LONGEST_TABLE
from uniadrs_scale.scenes.grid_mapping import coordinate_paths, grid_of
from uniadrs_scale.scenes.masks import Flags, cf_flags, require_measurements
from uniadrs_scale.scenes.products.metadata import families, iso_time, nanometres, natural_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uniadrs_scale.scenes.datasets import Contents, Entry
    from uniadrs_scale.scenes.products.metadata import Options
    from uniadrs_scale.swaths.grids import Georeference

TIMES = "time_coverage_start start_date start_time start_datetime datetime acquisition_time"
"""Attributes that may hold the time."""
HELPERS = ("bounds", "ancillary_variables", "coordinates", "cell_measures", "grid_mapping")
"""Attributes that name arrays which describe another one."""


def recognise(contents: Contents, options: Options) -> CubeSpec:
    """Return the arrays that ``variable`` names, or the one that can be meant.

    Raise SceneError if none or several can be meant, or they do not fit together.
    """
    places = _swath_places(contents)
    chosen = _chosen(contents, options.variable, {path for pair in places for path in pair})
    covering = [pair for pair in places if _covers(contents, pair[0], chosen[0])]
    place = max(covering, key=lambda pair: _shared(pair[0], chosen[0].path), default=None)
    variables = tuple(
        Variable.of(contents.file, entry.path, axis_roles(contents, entry.path, place and place[0]))
        for entry in chosen
    )
    _require_same_size(contents, variables)
    tables = [_bands(contents, variable) for variable in variables]
    first = variables[0]
    grid = grid_of(contents, first)
    latitude, longitude = _located(contents, first, grid, place)
    swath = latitude is not None
    bands = _distinct(variables, tables)
    stac = contents.attributes.get("stac_discovery")
    facts = contents.attributes | (stac.get("properties", {}) if isinstance(stac, dict) else {})
    return CubeSpec(
        kind="a Zarr store" if contents.file.engine == "zarr" else "a NetCDF or HDF5 file",
        name=contents.name,
        variables=variables,
        counts=tuple(len(table) for table in tables),
        bands=bands,
        wavelengths=tuple(centre for table in tables for _, centre in table),
        good=(True,) * len(bands),
        latitude=latitude,
        longitude=longitude,
        crs=None if swath else grid.crs,
        transform=None if swath or grid.transform is None else tuple(grid.transform)[:6],
        unplaced="" if swath else grid.problem,
        quality=tuple(_quality(contents, first)),
        datetime=next(filter(None, (iso_time(str(facts.get(k))) for k in TIMES.split())), None),
        platform=facts.get("platform"),
        notes=tuple({note: None for v in variables if (note := guessed_bands(contents, v))}),
    )


def _chosen(
    contents: Contents, wanted: str | tuple[str, ...] | None, places: set[str]
) -> list[Entry]:
    """Return the arrays that are the scene, in the order they were asked for."""
    sized = [e for e in contents.entries.values() if e.numeric and len(e.extent) in {PLANE, CUBE}]
    possible = [e for e in sized if e.path not in places]
    names = families(e.path for e in possible)
    if wanted is None:
        meant = _data_arrays(contents, possible) if len(possible) > 1 else possible
        cubes = [e for e in meant if len(e.extent) == CUBE]
        for candidates in (cubes, meant):
            if len(candidates) == 1:
                require_measurements(contents, candidates[0].path)
                return candidates
        if not possible:
            _refuse_unusable(contents)
        many = f"{len(possible)} arrays that could be the scene ({names})"
        met = many if possible else "no array of numbers with two or three axes"
        raise SceneError(
            f"'{contents.file.path}' has {met}: one must be named. "
            "Pass --variable NAME (variable='name'), several names, or a pattern such as 'rrs_*'."
        )
    chosen: list[Entry] = []
    fine = _finest(contents, possible)
    # Other programs begin paths at the root.
    for pattern in (w.strip("/") for w in ((wanted,) if isinstance(wanted, str) else wanted)):
        found = {e.path: e for e in possible if fnmatchcase(e.path, pattern)}
        found = found or {e.path: e for e in fine if fnmatchcase(e.name, pattern)}
        if not found:
            _refuse_unusable(contents, pattern)
            raise SceneError(
                f"variable='{pattern}' is not in '{contents.file.path}', which has "
                f"{names or 'no array of two or three axes'}. Pass one of these."
            )
        if len(found) > 1 and not has_magic(pattern):
            several = ", ".join(found)
            raise SceneError(f"variable='{pattern}' may be any of {several}. Pass one, or a list.")
        data = (path for path in found if not _has_classes(contents, path))
        chosen += (found[path] for path in natural_order(data) or found)
    return chosen


def _has_classes(contents: Contents, path: str) -> bool:
    """Return True if an array holds classes, even if they are not described as CF does it."""
    return "flag_meanings" in contents.variable(path).attrs or bool(cf_flags(contents, path))


def _refuse_unusable(contents: Contents, name: str | None = None) -> None:
    """Raise SceneError if arrays (of that name) are complex, or one has more axes than a scene."""
    named = [e for e in contents.entries.values() if name in (None, e.path, e.name)]
    contents.require_real([e for e in named if len(e.extent) in {PLANE, CUBE}])
    many = [e for e in named if e.numeric and len(e.extent) > CUBE]
    if len(many) == 1:
        axis_roles(contents, many[0].path)


def _data_arrays(contents: Contents, entries: list[Entry]) -> list[Entry]:
    """Return the arrays that are not overviews and do not describe others; all if none is left."""
    helpers: set[str] = set()
    for entry in contents.entries.values():
        with suppress(SceneError):
            attributes = contents.variable(entry.path).attrs
            for name in HELPERS:
                words = str(attributes.get(name, "")).replace(":", " ").split()
                helpers |= {p for word in words if (p := contents.nearest(entry.group, word))}
            if _has_classes(contents, entry.path):
                helpers.add(entry.path)
    left = [e for e in _finest(contents, entries) if e.path not in helpers]
    return left or entries


def _finest(contents: Contents, entries: list[Entry]) -> list[Entry]:
    """Return the arrays that are not in coarser levels, which `multiscales` name."""
    coarser: list[str] = []
    for group in {""} | {entry.group.rpartition("/")[0] for entry in contents.entries.values()}:
        with suppress(SceneError, AttributeError, KeyError, TypeError):
            names = _levels(contents.file.attributes(group)["multiscales"])
            coarser += [f"{group}/{name}".strip("/") + "/" for name in names[1:]]
    return [e for e in entries if not f"{e.path}/".startswith(tuple(coarser))]


def _levels(multiscales: Any) -> list[str]:
    """Return the names of levels, the finest first: GeoZarr, its draft of 2024, or OME-Zarr."""
    if isinstance(multiscales, list):
        return [str(level["path"]) for level in multiscales[0]["datasets"]]
    if "layout" in multiscales:
        levels = multiscales["layout"]
        return [level.get("asset") or level.get("group") or level["path"] for level in levels]
    matrices = multiscales["tile_matrix_set"]["tileMatrices"]
    return [str(m["id"]) for m in sorted(matrices, key=lambda m: float(m.get("cellSize", 0)))]


def _swath_places(contents: Contents) -> list[tuple[str, str]]:
    """Return paths of (latitude, longitude) that have two axes, by their names or else units."""

    def planes(names: set[str], unit: str) -> dict[tuple[str, tuple[int, ...]], str]:
        flat = [e for e in contents.entries.values() if len(e.extent) == PLANE and e.numeric]
        named = [e for e in flat if e.name.lower() in names]
        found: dict[tuple[str, tuple[int, ...]], str] = {}
        for e in named or flat:
            with suppress(SceneError):
                if named or contents.variable(e.path).attrs.get("units") == unit:
                    found.setdefault((e.group, e.extent), e.path)
        return found

    latitudes, longitudes = planes(LATITUDES, "degrees_north"), planes(LONGITUDES, "degrees_east")
    return [(path, longitudes[key]) for key, path in latitudes.items() if key in longitudes]


def _covers(contents: Contents, latitude: str, entry: Entry) -> bool:
    """Return True if a latitude has the two spatial axes of an array."""
    place = contents.entries[latitude]
    if place.group == entry.group:
        return set(contents.variable(latitude).dims) <= set(contents.variable(entry.path).dims)
    return place.extent in (entry.extent[:2], entry.extent[1:], entry.extent[::2])


def _shared(path: str, other: str) -> int:
    """Return the number of groups that two paths share: a file may hold several granules."""
    pairs = zip(path.split("/")[:-1], other.split("/")[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _located(
    contents: Contents, variable: Variable, grid: Georeference, place: tuple[str, str] | None
) -> tuple[Variable | None, Variable | None]:
    """Return latitude and longitude of the pixels of an array that has no grid on the ground."""
    if grid.crs is not None:
        return None, None
    if place is not None:
        axes = iter(("y", "x"))
        roles = [next(axes) if n > 1 else "" for n in contents.entries[place[0]].shape]
        latitude, longitude = (Variable.of(contents.file, path, roles) for path in place)
        return latitude, longitude
    return _uneven(contents, variable)


def _uneven(contents: Contents, variable: Variable) -> tuple[Variable | None, Variable | None]:
    """Return latitude along y and longitude along x that are not a grid, such as Gaussian ones."""
    paths = coordinate_paths(contents, variable)
    for role, names, unit in (("y", LATITUDES, "north"), ("x", LONGITUDES, "east")):
        path = paths.get(role)
        units = contents.variable(path).attrs.get("units") if path else None
        if not path or (contents.entries[path].name not in names and units != f"degrees_{unit}"):
            return None, None
    latitude, longitude = (Variable.of(contents.file, paths[role], (role,)) for role in ("y", "x"))
    return latitude, longitude


def _quality(contents: Contents, variable: Variable) -> list[Flags]:
    """Return the arrays of classes that have the size of the scene; of equal names the nearest."""
    size = variable.sizes["y"], variable.sizes["x"]
    found: dict[tuple[str, int], list[Flags]] = {}
    for entry in contents.entries.values():
        if entry.extent == size and entry.numeric and entry.path != variable.path:
            with suppress(SceneError):
                flags = cf_flags(contents, entry.path)
                if flags:
                    roles = axis_roles(contents, entry.path)
                    own = Flags(Variable.of(contents.file, entry.path, roles), flags)
                    key = entry.name, _shared(entry.path, variable.path)
                    found.setdefault(key, []).append(own)
    nearest = dict(sorted(found))  # the last of a name counts
    return [flags for key, same in found.items() if nearest[key[0]] == key[1] for flags in same]


def _require_same_size(contents: Contents, variables: Sequence[Variable]) -> None:
    first = variables[0].sizes
    for variable in variables:
        sizes = variable.sizes
        if (sizes["y"], sizes["x"]) != (first["y"], first["x"]):
            raise SceneError(
                f"'{variable.path}' of '{contents.file.path}' has {sizes['y']} x {sizes['x']} px "
                f"but '{variables[0].path}' has {first['y']} x {first['x']}: arrays of one scene "
                "must have one size. Pass those that fit: --variable A,B (variable=)."
            )


def _bands(contents: Contents, variable: Variable) -> list[tuple[str, float | None]]:
    """Return (name, wavelength in nm) of each band of an array."""
    entry, array = contents.entries[variable.path], contents.variable(variable.path)
    if "band" not in variable.axes:
        return [(entry.name, own_wavelength(array.attrs))]
    axis = variable.axes.index("band")
    count, dim = entry.shape[axis], str(array.dims[axis])
    if count > LONGEST_TABLE:
        raise SceneError(
            f"'{entry.path}' of '{contents.file.path}' claims {count} bands: at most "
            f"{LONGEST_TABLE} can be read. Check the file."
        )
    names = band_names(contents, entry.group, dim, array.attrs, count)
    table = spectral_table(contents, entry.group, dim, count)
    units = contents.variable(table).attrs.get("units") if table else None
    values = contents.numbers(table).tolist() if table else []
    if not values:
        values, units = listed_wavelengths(array.attrs, count)
    centres: list[float | None] = [None] * count
    if values:
        centres = [nanometres(value, units) if value > 0 else None for value in values]
    return list(zip(names or [str(k + 1) for k in range(count)], centres, strict=True))


def _distinct(
    variables: Sequence[Variable], tables: Sequence[Sequence[tuple[str, float | None]]]
) -> tuple[str, ...]:
    """Return the band names of all arrays; with their paths if arrays of groups have equal ones."""
    names = [name for table in tables for name, _ in table]
    if len({*names}) == len(names) or len(variables) == 1:
        return tuple(names)
    found = (
        (v.path, name, len(t)) for v, t in zip(variables, tables, strict=True) for name, _ in t
    )
    return tuple(path if count == 1 else f"{path}:{name}" for path, name, count in found)
