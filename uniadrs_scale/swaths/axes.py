"""Regular axes of pixel centres, in the units of a CRS."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from pyproj import CRS, get_units_map

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

UNEVEN = 0.1
"""Pixels by which a coordinate may differ from a regular axis: rounded decimals, float32."""
TURN = 360.0
"""Degrees around the Earth."""
ALIASES = {"km": "kilometre", "rad": "radian", "urad": "microradian"}
UNNAMED = {"", "1", "-", "none", "null", "unitless", "dimensionless", "unknown", "pixel"}
"""Texts without a unit, in the singular: coordinates are then in that of the CRS."""
WESTWARDS = re.compile(r"\bazimuth\b", re.IGNORECASE)
"""Long name of an x whose angles grow towards the west, as of Meteosat Third Generation."""


class NoPlaceError(ValueError):
    """An array has no place; the text says why."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A regular axis of pixel centres."""

    first: float
    step: float | None
    """None for a single pixel."""
    size: int

    @property
    def last(self) -> float:
        """Centre of the last pixel."""
        return self.first + (self.step or 0.0) * (self.size - 1)

    def scaled(self, factor: float) -> Axis:
        """Return the axis in another unit."""
        return Axis(self.first * factor, self.step and self.step * factor, self.size)


def axis_of(coordinate: xr.DataArray, wkt: str | None) -> Axis:
    """Return the regular axis through a coordinate, in the units of its CRS.

    Raise ValueError if it is not regular, or its units do not fit the CRS; the text says which.
    """
    name, values = str(coordinate.name), coordinate.values
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise NoPlaceError(f"coordinate {name} is not finite numbers")
    if wkt is None:
        return regular_axis(values, name)
    known, unit = _known(wkt), str(coordinate.attrs.get("units", ""))
    words = _plain(unit), _plain(re.split(r"[\s(,]", unit.strip())[0])  # metres east
    kind, size = next((_units()[word] for word in words if word in _units()), ("", known.unit))
    if not kind and words[0] not in {*UNNAMED, known.name}:
        raise NoPlaceError(f"coordinate {name} is in '{unit}', which is not a known unit")
    if not kind and known.height and np.abs(values).max() < 1:
        kind, size = "angular", 1.0  # scan angles
    factor = size / known.unit
    if kind == "angular" and known.height:
        west = name == "x" and WESTWARDS.search(str(coordinate.attrs.get("long_name", "")))
        factor *= -known.height if west else known.height
    elif kind not in ("", "angular" if known.is_geographic else "linear"):
        raise NoPlaceError(f"coordinate {name} is in {unit}, its CRS is not")
    turn = TURN / factor if name == "x" and known.is_geographic else None
    return regular_axis(values, name, turn).scaled(factor)


def regular_axis(values: NDArray[Any], name: str = "axis", turn: float | None = None) -> Axis:
    """Return the regular axis through ``values`` (n,) of pixel centres, rounded or not.

    They may wrap around on a circle of length ``turn``.

    Raise ValueError if the values do not make a regular axis; the text is the rest of a sentence.
    """
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise NoPlaceError(f"coordinate {name} is not finite numbers")
    centres = values.astype(np.float64)
    if turn is not None:
        centres = np.unwrap(centres, period=turn)
    if centres.size == 1:
        return Axis(float(centres[0]), None, 1)
    step = float(centres[-1] - centres[0]) / (centres.size - 1)
    steps = np.diff(centres) * math.copysign(1.0, step)
    if (steps <= 0).any():
        what = "repeats values" if (steps == 0).any() else "goes to and fro"
        raise NoPlaceError(f"coordinate {name} {what}")
    # A float32 axis may be as coarse as half a pixel.
    grain = float(np.spacing(np.abs(values).max())) if values.dtype.kind == "f" else 0.0
    allowed = max(UNEVEN * abs(step), min(grain, abs(step) / 2))
    uneven = np.abs(centres - (centres[0] + step * np.arange(centres.size))).max()
    if uneven > allowed:
        raise NoPlaceError(
            f"coordinate {name} is not evenly spaced (off by {uneven / abs(step):.2g} px)"
        )
    return Axis(float(centres[0]), step, centres.size)


@dataclass(frozen=True, slots=True)
class _Known:
    """Kind and unit of the coordinates of a CRS."""

    is_geographic: bool
    name: str
    """Name of its unit."""
    unit: float
    """Size of its unit, in metres or radians."""
    height: float
    """Height of a geostationary satellite in metres; 0 for any other projection."""


@lru_cache(maxsize=64)
def _known(wkt: str) -> _Known:
    crs = CRS.from_wkt(wkt)
    axis = crs.axis_info[0] if crs.axis_info else None
    name, unit = (_plain(axis.unit_name), axis.unit_conversion_factor) if axis else ("", 1.0)
    projection = crs.coordinate_operation if crs.is_projected else None
    said = {p.name.lower(): p.value for p in (projection.params if projection else ())}
    return _Known(crs.is_geographic, name, unit, float(said.get("satellite height", 0.0)))


def _plain(unit: str) -> str:
    """Return a unit as PROJ calls it."""
    text = unit.strip().lower().replace("_", " ")
    name = "degree" if text.startswith("degree") else text.removesuffix("s").replace("µ", "u")
    name = re.sub("meter$", "metre", re.sub("feet$", "foot", name))
    return ALIASES.get(name, name)


@cache
def _units() -> dict[str, tuple[str, float]]:
    """Return kind and size of each unit that PROJ knows, in metres or radians."""
    return {
        name.lower(): (kind, unit.conv_factor)
        for kind in ("linear", "angular")
        for unit in get_units_map(category=kind).values()
        for name in (unit.name, unit.proj_short_name or unit.name)
    }
