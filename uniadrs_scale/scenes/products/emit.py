"""EMIT level 1B and 2A NetCDF files: in sensor geometry, with the place of each pixel.

The lookup table that would put pixels on a grid is not applied: scores are made from what the
instrument saw, and geocoded afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uniadrs_scale.scenes.cubes import CubeSpec, Variable
from uniadrs_scale.scenes.products.metadata import FOR_VARIABLE, iso_time
from uniadrs_scale.storage.remote import uri_name

if TYPE_CHECKING:
    from uniadrs_scale.scenes.datasets import Contents
    from uniadrs_scale.scenes.products.metadata import Options


CUBES = ("reflectance", "radiance")
PLACE = ("location/lat", "location/lon")
WAVELENGTHS = "sensor_band_parameters/wavelengths"
GOOD = "sensor_band_parameters/good_wavelengths"


def recognise(contents: Contents, options: Options) -> CubeSpec | None:
    """The cube of an EMIT file; None for others."""
    name = next((cube for cube in CUBES if contents.entry(cube)), None)
    wavelengths = contents.numbers(WAVELENGTHS)
    if name is None or not wavelengths or not all(map(contents.entry, PLACE)):
        return None
    options.refuse(contents.path, "an EMIT file, of which one cube is known",
                   variable=f"other {FOR_VARIABLE}")  # fmt: skip
    good = contents.numbers(GOOD) or [1.0] * len(wavelengths)
    attributes = contents.attributes
    latitude, longitude = (Variable("location", name, ("y", "x")) for name in ("lat", "lon"))
    return CubeSpec(
        kind="an EMIT file",
        name=uri_name(contents.path),
        path=contents.path,
        stamp=contents.stamp,
        engine=contents.engine,
        variables=(Variable("", name, ("y", "x", "band")),),
        counts=(len(wavelengths),),
        bands=tuple(str(k + 1) for k in range(len(wavelengths))),
        wavelengths=tuple(wavelengths),
        good=tuple(value != 0 for value in good),
        latitude=latitude,
        longitude=longitude,
        nodata=-9999,
        datetime=iso_time(attributes.get("time_coverage_start")),
        platform=attributes.get("platform"),
    )
