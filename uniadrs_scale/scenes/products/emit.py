"""EMIT level 1B and 2A NetCDF files: in sensor geometry, with the place of each pixel.

The lookup table that would put pixels on a grid is not applied: scores are made from what the
instrument saw, and geocoded afterwards. The clouds of a level 2A file are in its mask file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from uniadrs_scale.scenes.arrays import Variable
from uniadrs_scale.scenes.cubes import CubeSpec
from uniadrs_scale.scenes.datasets import read_contents
from uniadrs_scale.scenes.masks import Flag, Flags
from uniadrs_scale.scenes.products.metadata import FOR_VARIABLE, iso_time
from uniadrs_scale.storage.urls import is_remote

if TYPE_CHECKING:
    from uniadrs_scale.scenes.datasets import Contents
    from uniadrs_scale.scenes.products.metadata import Options

CUBES = ("reflectance", "radiance")
PLACE = ("location/lat", "location/lon")
WAVELENGTHS = "sensor_band_parameters/wavelengths"
GOOD = "sensor_band_parameters/good_wavelengths"
MASK_NAMES = "sensor_band_parameters/mask_bands"
AXES = ("y", "x", "band")


def recognise(contents: Contents, options: Options) -> CubeSpec | None:
    """Return the cube of an EMIT file; None for others."""
    name = next((cube for cube in CUBES if cube in contents.entries), None)
    wavelengths = contents.numbers(WAVELENGTHS).tolist()
    if name is None or not wavelengths or not set(PLACE) <= set(contents.entries):
        return None
    options.refuse(
        contents.name, "an EMIT file, of which one cube is known", variable=f"other {FOR_VARIABLE}"
    )
    good = contents.numbers(GOOD).tolist() or [1.0] * len(wavelengths)
    attributes = contents.attributes
    latitude, longitude = (Variable.of(contents.file, path, ("y", "x")) for path in PLACE)
    return CubeSpec(
        kind="an EMIT file",
        name=contents.name,
        variables=(Variable.of(contents.file, name, AXES, fill=(-9999,)),),
        counts=(len(wavelengths),),
        bands=tuple(str(k + 1) for k in range(len(wavelengths))),
        wavelengths=tuple(wavelengths),
        good=tuple(value != 0 for value in good),
        latitude=latitude,
        longitude=longitude,
        quality=() if options.mask == "none" else _mask(contents),
        datetime=iso_time(attributes.get("time_coverage_start")),
        platform=attributes.get("platform"),
    )


def _mask(contents: Contents) -> tuple[Flags, ...]:
    """Return the flags in the mask file of a reflectance file; none if it is missing."""
    path = contents.file.path
    beside = Path(path).with_name(Path(path).name.replace("_RFL_", "_MASK_"))
    if is_remote(path) or str(beside) == path or not beside.is_file():
        return ()
    masks = read_contents(str(beside))
    if masks is None or not {"mask", MASK_NAMES} <= set(masks.entries):
        return ()
    names = [
        n.decode() if isinstance(n, bytes) else str(n) for n in masks.variable(MASK_NAMES).values
    ]
    flags = [
        Flag("_".join(name.lower().split()), 1, band=k)
        for k, name in enumerate(names)
        if name.lower().endswith(("flag", "mask"))
    ]
    return (Flags(Variable.of(masks.file, "mask", AXES), tuple(flags)),)
