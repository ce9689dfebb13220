"""The regular grid of an array in a file: CRS and transform, from coordinates and attributes.

The conventions of CF, GDAL, rioxarray, GeoZarr and EOPF are read, in the array's group and those
above it. Coordinates along the axes decide; a transform among the attributes counts without them.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from affine import Affine
from pyproj import CRS
from pyproj.exceptions import CRSError

from uniadrs_scale.scenes.arrays import decoded
from uniadrs_scale.scenes.axes import (
    LATITUDES,
    LONGEST,
    LONGITUDES,
    coordinates_of,
    role_of_coordinate,
)
from uniadrs_scale.scenes.datasets import off_centre, scopes
from uniadrs_scale.scenes.packing import numbers, plain_names
from uniadrs_scale.swaths.grids import Georeference, georeference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from uniadrs_scale.scenes.arrays import Variable
    from uniadrs_scale.scenes.datasets import Contents

MAPPINGS = ("spatial_ref", "crs")
"""Usual names of variables that describe a CRS."""
CRS_NAMES = (
    "crswkt spatialref projwkt2 projprojjson projcode projepsg crs epsg epsgcode crsepsg crscode "
    "horizontalcrscode horizontalcrswkt proj4 proj4params proj4string proj4text gdalprojection "
    "projection projectionepsg srs wkt esripestring spatialreference spatialreferencesystem "
    "coordinatereferencesystem coordinatesystem geospatialboundscrs"
)
"""Attributes that may hold a CRS, in lower case, without separators."""
MAPPING_NAMES = f"{CRS_NAMES} wkt2 projjson code srid"
"""Those of a variable that describes a CRS and nothing else."""
CRS_TEXT = re.compile(
    r"\s*(\d{4,6}|(epsg|esri|iau\w*|ogc|urn|https?)\s*:.+|\+\w.*|\w+\s*\[.*|\{.*|wgs[ _]?84|crs84)"
    r"|.* / .* zone .*",
    re.DOTALL | re.IGNORECASE,
)
"""Texts that are taken for a CRS: PROJ would find one for many other words too."""
EPSG_CODE = re.compile(r"\s*epsg[\s_:]*(\d{4,6})(\.0)?\s*", re.IGNORECASE)
EOS = "HDFEOS INFORMATION/StructMetadata.0"
EOS_SINUSOIDAL = "+proj=sinu +R={} +lon_0={} +x_0={} +y_0={} +units=m +type=crs"
EOS_CRS = {"HE5_GCTP_GEO": "EPSG:4326", "HE5_GCTP_SNSOID": EOS_SINUSOIDAL}
"""Projections of VIIRS on HDF-EOS grids."""
EOS_UPPER = "HE5_HDFE_GD_UL"
SPHERE = 6371007.181
"""Radius of the Earth on the sinusoidal grid of MODIS and VIIRS [m]."""
TRANSFORMS = ("geotransform", "spatialtransform", "projtransform", "transform")
WGS_84_RADIUS = 6378137.0
SMALLEST_CODE = 1024
"""The first code of EPSG."""


def grid_of(contents: Contents, variable: Variable) -> Georeference:
    """Return the grid of an array, or the reason why words about a place do not make one."""
    places = coordinate_paths(contents, variable)
    mapping = _mapping(contents, variable.path, places)
    crs = _crs(contents, variable.path, mapping)
    if crs is None and {"y", "x"} == set(places) and all(map(_is_angle(contents), places.values())):
        crs = CRS.from_epsg(4326)
    coords: dict[str, Any] = {}
    for role, place in places.items():
        found = contents.variable(place)
        said = {name: found.attrs[name] for name in ("units", "long_name") if name in found.attrs}
        coords[role] = (role, decoded(found) + off_centre(contents, place), said)
    shape = variable.sizes["y"], variable.sizes["x"]
    if crs is None and (eos := _eos_grid(contents, variable.path, shape)):
        return eos
    grid = _georeference(shape, coords, crs, _transform(contents, variable.path, mapping, shape))
    if crs is None and not grid.problem:
        return replace(grid, problem=_unknown_crs(contents, variable.path, mapping))
    return grid


def _georeference(
    shape: tuple[int, int], coords: dict[str, Any], crs: CRS | None, transform: Affine | None
) -> Georeference:
    attributes = {} if crs is None else {"crs_wkt": crs.to_wkt()}
    if transform is not None:
        attributes["GeoTransform"] = " ".join(map(repr, transform.to_gdal()))
    empty = xr.DataArray(np.broadcast_to(np.uint8(0), shape), coords, ("y", "x"))
    found = georeference(empty.assign_coords(spatial_ref=((), 0, attributes)))
    wkt = None if crs is None or found.transform is None else crs.to_wkt()
    return Georeference(wkt, found.transform, found.problem)


def _eos_grid(contents: Contents, path: str, shape: tuple[int, int]) -> Georeference | None:
    """Return the grid of an array that the StructMetadata of HDF-EOS 5 describe, if they do."""
    if EOS not in contents.entries:
        return None
    text = contents.variable(EOS).values.item()
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    for said in re.findall(r"GROUP=GRID_\d+(.*?)END_GROUP=GRID_\d+", text, re.DOTALL):
        facts = dict(re.findall(r"^\s*(\w+)=(.+?)\s*$", said, re.MULTILINE))
        name = facts.get("GridName", "").strip('"')
        sizes = [*numbers(facts.get("YDim")), *numbers(facts.get("XDim"))]
        if f"/{name}/" not in f"/{path}" or sizes != [*shape]:
            continue
        corners = [numbers(facts.get(k)) for k in ("UpperLeftPointMtrs", "LowerRightMtrs")]
        kind, upper = facts.get("Projection", ""), facts.get("GridOrigin", EOS_UPPER) == EOS_UPPER
        given = [*numbers(facts.get("ProjParams")), *[0.0] * 8]
        projected = given[0] or SPHERE, _degrees(given[4]), given[6], given[7]
        if list(map(len, corners)) != [2, 2] or kind not in EOS_CRS or not upper:
            return Georeference(problem=f"its HDF-EOS grid '{name}' ({kind}) is not known")
        crs = CRS.from_user_input(EOS_CRS[kind].format(*projected))
        unit = _degrees if crs.is_geographic else float
        (west, north), (east, south) = (map(unit, corner) for corner in corners)
        east += 360 if crs.is_geographic and east < west else 0  # across the antimeridian
        steps = (east - west) / shape[1], (south - north) / shape[0]
        return Georeference(crs.to_wkt(), Affine(steps[0], 0, west, 0, steps[1], north))
    return None


def _degrees(packed: float) -> float:
    """Return an angle that HDF-EOS writes as DDDMMMSSS.SS.

    >>> _degrees(-10030036)
    -10.51
    """
    size = abs(packed)
    angle = size // 1e6 + size % 1e6 // 1e3 / 60 + size % 1e3 / 3600
    return math.copysign(round(angle, 12), packed)


def coordinate_paths(contents: Contents, variable: Variable) -> dict[str, str]:
    """Return the paths of the coordinates along y and x; without those that number pixels."""
    found: dict[str, str] = {}
    dims = contents.variable(variable.path).dims
    for role in ("y", "x"):
        axis, size = variable.axes.index(role), variable.sizes[role]
        group = contents.entries[variable.path].group
        for path in coordinates_of(contents, group, str(dims[axis]), size):
            named = contents.entries[path].name == dims[axis]
            fits = named or role_of_coordinate(contents, path) in {role, ""}
            if fits and size <= LONGEST and not _counts(contents, path):
                found.setdefault(role, path)
    return found


def _counts(contents: Contents, path: str) -> bool:
    """Return True for coordinates 0, 1, 2 ... without units: they number pixels."""
    variable = contents.variable(path)
    named = contents.entries[path].name.lower() in LATITUDES | LONGITUDES
    if named or "units" in variable.attrs or variable.dtype.kind not in "iuf":
        return variable.dtype.kind not in "iuf"
    values = decoded(variable)
    return bool(values[0] in (0, 0.5, 1) and (np.diff(values) == 1).all())


def _is_angle(contents: Contents) -> Any:
    """Return a test for coordinates that are latitudes or longitudes."""

    def test(path: str) -> bool:
        said = contents.variable(path).attrs
        name = str(said.get("standard_name", contents.entries[path].name)).lower()
        degrees = str(said.get("units", "")).lower().replace("_", "")
        return name in LATITUDES | LONGITUDES or bool(re.match("degrees?[ne]", degrees))

    return test


def _mapping(contents: Contents, path: str, places: Mapping[str, str]) -> dict[str, Any]:
    """Return the attributes of the variable that describes the array's CRS; empty without one."""
    group = contents.entries[path].group
    text = str(contents.variable(path).attrs.get("grid_mapping", ""))
    named = re.findall(r"([^\s:]+)\s*:([^:]*)(?=\s[^\s:]+\s*:|$)", text)
    along = {place.rpartition("/")[2] for place in places.values()}
    named.sort(key=lambda pair: not along & set(pair[1].split()))
    names = [name for name, _ in named] or text.split()
    scalars = (p for p, e in contents.entries.items() if not e.extent and e.group in scopes(group))
    found = [p for name in (*names, *MAPPINGS) if (p := contents.nearest(group, name))]
    for candidate in found or scalars:
        attributes = dict(contents.variable(candidate).attrs)
        if found or "grid_mapping_name" in attributes:
            return attributes
    return {}


def _crs(contents: Contents, path: str, mapping: Mapping[str, Any]) -> CRS | None:
    """Return the CRS of an array: of its grid mapping, its attributes, or those of its groups."""
    for left_out in ((), ("crs_wkt", "spatial_ref")):
        try:
            return CRS.from_cf({k: v for k, v in mapping.items() if k not in left_out})
        except (CRSError, KeyError, TypeError, ValueError):
            continue
    said = (_parsed(value) for _, value in _words_of_crs(contents, path, mapping))
    return next((crs for crs in said if crs is not None), None) or _utm(mapping)


def _utm(mapping: Mapping[str, Any]) -> CRS | None:
    """Return the zone of WGS 84 in GDAL's ``utm_zone_number``, south below 0; None without one."""
    zone, radius = (
        next(iter(numbers(mapping.get(name))), other)
        for name, other in (("utm_zone_number", 0), ("semi_major_axis", WGS_84_RADIUS))
    )
    known = abs(zone) in range(1, 61) and radius == WGS_84_RADIUS
    return CRS.from_epsg(int(abs(zone)) + (32600 if zone > 0 else 32700)) if known else None


def _words_of_crs(
    contents: Contents, path: str, mapping: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield the attributes that may hold the CRS of an array; the most likely ones come first."""
    for attributes, _ in _descriptions(contents, path, mapping):
        plain = plain_names(attributes)
        names = MAPPING_NAMES if attributes is mapping else CRS_NAMES
        yield from ((name, plain[name]) for name in names.split() if name in plain)


def _unknown_crs(contents: Contents, path: str, mapping: Mapping[str, Any]) -> str:
    """Return why words about a CRS are not one, as part of a sentence; empty without any."""
    for name, value in _words_of_crs(contents, path, mapping):
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        if text.strip():
            return f"its CRS ({name}: '{text.strip()[:40]}') is not known"
    named = str(contents.variable(path).attrs.get("grid_mapping", ""))
    if (named and not mapping) or set(mapping) - {"GeoTransform"}:
        there = mapping or contents.nearest(contents.entries[path].group, named)
        state = "describes no CRS that is known" if there else "is missing"
        return f"its grid mapping ({mapping.get('grid_mapping_name') or named}) {state}"
    return ""


def _descriptions(
    contents: Contents, path: str, mapping: Mapping[str, Any]
) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Yield attributes that may describe a place, and True if they are the array's or its group's.

    The closest come first.
    """
    yield mapping, True
    yield contents.variable(path).attrs, True
    own = contents.entries[path].group
    for group in scopes(own):
        attributes = contents.file.attributes(group)
        yield attributes, group == own
        stac = attributes.get("stac_discovery")
        for inner in (attributes.get("other_metadata"), (stac or {}).get("properties")):
            if isinstance(inner, dict):
                yield inner, False


def _parsed(value: Any) -> CRS | None:
    """Return the CRS that an attribute holds; None if it holds none. GDAL's is in several forms."""
    if isinstance(value, dict):
        value = value.get("wkt") or value.get("projjson") or value.get("url") or value
    if isinstance(value, np.ndarray | np.generic):
        value = value.item() if value.size == 1 else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        code = EPSG_CODE.fullmatch(value)
        value = code[1] if code else value
        value = value.strip() if CRS_TEXT.match(value) else None
        value = int(value) if value and value.isdecimal() else value
    if not value or (isinstance(value, int) and value < SMALLEST_CODE):
        return None
    try:
        return CRS.from_user_input(value)
    except (CRSError, TypeError, ValueError):
        return None


def _transform(
    contents: Contents, path: str, mapping: Mapping[str, Any], shape: tuple[int, int]
) -> Affine | None:
    """Return the transform among the attributes; None without one for this size.

    Attributes of the groups above count only if they say for which size they are.
    """
    for attributes, near in _descriptions(contents, path, mapping):
        plain = plain_names(attributes)
        sized = [numbers(plain[name]) for name in ("spatialshape", "projshape") if name in plain]
        if tuple(sized[0]) != shape if sized else not near:
            continue
        for name in TRANSFORMS:
            values = numbers(plain.get(name))[:6]
            if len(values) == 6:  # noqa: PLR2004 - an affine
                gdal = name == "geotransform"
                found = Affine.from_gdal(*values) if gdal else Affine(*values)
                node = plain.get("spatialregistration") == "node"
                return found @ Affine.translation(-0.5, -0.5) if node else found
    return None
