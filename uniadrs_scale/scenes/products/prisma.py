"""PRISMA HDF5 files (.he5), levels 1 and 2: VNIR and SWIR cube as one scene.

Pixels stay digital numbers: the factors to reflectance or radiance are the same for all bands of a
cube, and scores do not depend on them. Level 2D is on a UTM grid, the others are in sensor
geometry, with the place of each pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pyproj import CRS

from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.arrays import Variable
from uniadrs_scale.scenes.cubes import CubeSpec
from uniadrs_scale.scenes.masks import Flag, Flags
from uniadrs_scale.scenes.products.metadata import FOR_VARIABLE, iso_time

if TYPE_CHECKING:
    from uniadrs_scale.scenes.datasets import Contents, Entry
    from uniadrs_scale.scenes.products.metadata import Options

RANGES = ("Vnir", "Swir")
PIXEL = 30.0
"""Side of a level 2D pixel [m]."""
AXES = ("y", "band", "x")


def recognise(contents: Contents, options: Options) -> CubeSpec | None:
    """Return the hyperspectral cubes of a PRISMA file; None for others.

    Raise SceneError if it has cubes but no wavelengths.
    """
    cubes = [_cube(contents, spectral_range) for spectral_range in RANGES]
    if None in cubes:
        return None
    vnir, swir = (cube for cube in cubes if cube is not None)
    options.refuse(
        contents.name,
        "a PRISMA file, of which the VNIR and SWIR cubes are known",
        variable=f"other {FOR_VARIABLE}",
    )
    attributes = contents.attributes
    tables = [
        _bands(attributes, name, cube.shape[1], contents.file.path)
        for name, cube in zip(RANGES, (vnir, swir), strict=True)
    ]
    crs, transform = _grid(attributes, vnir)
    place = (None, None) if crs else _place(contents, vnir)
    wavelengths = [centre for table in tables for centre, _ in table]
    return CubeSpec(
        kind="a PRISMA file",
        name=contents.name,
        # Zero is fill, but only if all bands have it: dark water has zeros in some.
        variables=tuple(
            Variable.of(contents.file, cube.path, AXES, empty=0) for cube in (vnir, swir)
        ),
        counts=(vnir.shape[1], swir.shape[1]),
        bands=tuple(
            f"{name.upper()}-{k + 1}"
            for name, table in zip(RANGES, tables, strict=True)
            for k in range(len(table))
        ),
        wavelengths=tuple(centre or None for centre in wavelengths),
        good=tuple(present for table in tables for _, present in table),
        latitude=place[0],
        longitude=place[1],
        crs=crs,
        transform=transform,
        quality=_quality(contents, vnir),
        datetime=iso_time(attributes.get("Product_StartTime")),
        platform="PRISMA",
    )


def _quality(contents: Contents, cube: Entry) -> tuple[Flags, ...]:
    """Return the cloud mask, which level 1 has."""
    entry = contents.entries.get(f"{cube.group}/Cloud_Mask")
    if entry is None or entry.shape != (cube.shape[0], cube.shape[2]):
        return ()
    return (Flags(Variable.of(contents.file, entry.path, ("y", "x")), (Flag("cloud", 1),)),)


def _cube(contents: Contents, spectral_range: str) -> Entry | None:
    """Return the co-registered cube of the lowest level that the file has."""
    ending = f"_HCO/Data Fields/{spectral_range.upper()}_Cube"
    found = (e for e in contents.entries.values() if e.path.endswith(ending) and "/PRS_" in e.path)
    return next(found, None)


def _bands(
    attributes: dict[str, Any], name: str, count: int, path: str
) -> list[tuple[float, bool]]:
    """Return (centre in nm, present) of each band of a cube."""
    centres = np.ravel(attributes.get(f"List_Cw_{name}", []))
    if len(centres) != count:
        raise SceneError(
            f"'{path}' has {count} {name.upper()} bands but {len(centres)} wavelengths "
            f"(attribute List_Cw_{name}): it should be a PRISMA file as delivered. Fetch it again."
        )
    flags = np.ravel(attributes.get(f"List_Cw_{name}_Flags", centres > 0))
    return [
        (float(centre), bool(flag) and centre > 0)
        for centre, flag in zip(centres, flags, strict=True)
    ]


def _grid(attributes: dict[str, Any], cube: Entry) -> tuple[str | None, tuple[float, ...] | None]:
    """Return CRS and transform of level 2D.

    The corners are pixel centres, unless the sizes deny it.
    """
    code, west = attributes.get("Epsg_Code"), attributes.get("Product_ULcorner_easting")
    north, east = (
        attributes.get(f"Product_{key}") for key in ("ULcorner_northing", "LRcorner_easting")
    )
    if not code or west is None or north is None or east is None:
        return None, None
    width = cube.shape[2]
    edges = abs(float(east) - float(west) - width * PIXEL) < PIXEL / 4
    shift = 0.0 if edges else PIXEL / 2
    transform = (PIXEL, 0.0, float(west) - shift, 0.0, -PIXEL, float(north) + shift)
    return CRS.from_epsg(int(code)).to_wkt(), transform


def _place(contents: Contents, cube: Entry) -> tuple[Variable | None, Variable | None]:
    folder = cube.group.replace("Data Fields", "Geolocation Fields")
    for suffix in ("", "_VNIR"):
        names = f"Latitude{suffix}", f"Longitude{suffix}"
        paths = [f"{folder}/{name}" for name in names]
        if set(paths) <= set(contents.entries):
            latitude, longitude = (Variable.of(contents.file, path, ("y", "x")) for path in paths)
            return latitude, longitude
    return None, None
