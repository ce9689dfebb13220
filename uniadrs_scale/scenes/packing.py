"""Stored numbers as pixels: scale, offset, fill values and valid range of an array.

xarray's decoder applies factors and fill values (CF conventions). Added here: valid ranges, other
names of fill values, one factor per band, and fill that counts only if all bands have it.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from uniadrs_scale.core.validity import exact, matches, value_limits
from uniadrs_scale.errors import SceneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

FILL = (
    "fillvalue missingvalue fillvalues nodata nodatavalue nodatavalues nodatavals dataignorevalue "
    "ignorevalue"
)
"""Names of attributes that declare fill, in lower case, without separators."""
EMPTY = "zarr_empty"
"""Attribute for a fill value of 0 in Zarr 2, and in HDF5 as a property: writers set it unasked."""
WHOLE = re.compile(r"[+-]?\d+")
HUGE = 9.9e36
"""Magnitude from which floats are fill in every format (NetCDF's default, the float32 maximum)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """Decoding of one array."""

    dtype: str
    """Type of the pixels."""
    stored: str
    """Type of the stored numbers; unsigned if the attributes say so."""
    attributes: tuple[tuple[str, Any], ...] = ()
    """Input of xarray's decoder."""
    missing: tuple[float, ...] = ()
    """Stored numbers that are fill."""
    empty: float | None = None
    """Stored number that is fill if all bands of the scene have it."""
    limits: tuple[float, float] | None = None
    """Valid range."""
    unpacked: bool = False
    """True if the valid range applies to the pixels, False if to the stored numbers."""
    factors: tuple[tuple[float, float], ...] = ()
    """(factor, offset) per band, if the bands differ."""

    def decisive(self) -> dict[str, Any]:
        """Return what decides the pixels, as JSON values."""
        return {
            "dtype": self.dtype,
            "stored": self.stored,
            "attributes": dict(self.attributes),
            "missing": list(self.missing),
            "empty": self.empty,
            "limits": self.limits,
            "unpacked": self.unpacked,
            "factors": self.factors,
        }

    def pixels(
        self, stored: NDArray[np.generic], bands: NDArray[np.intp]
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Return the pixels (band, y, x) of stored numbers, and the mask (y, x) of present ones.

        Floats that are missing become NaN. ``bands`` are positions in the array.
        """
        plain = stored.view(self.stored)
        values = self._decoded(plain, bands)
        present = np.ones(plain.shape[1:], bool)
        for band, value in zip(plain, values, strict=True):
            lost = self._lost(band, value)
            if lost is not None and lost.any():
                present &= ~lost
                if value.dtype.kind == "f":
                    value[lost] = np.nan
        return values, present

    def blank(self, stored: NDArray[np.generic]) -> NDArray[np.bool_]:
        """Return a mask (y, x): True if every band has the value ``empty``."""
        if self.empty is None:
            return np.zeros(stored.shape[1:], bool)
        return np.asarray(matches(stored.view(self.stored), self.empty).all(axis=0))

    def in_any_band(self) -> Packing:
        """Return the packing whose fill counts in any band."""
        more = () if self.empty is None else (self.empty,)
        return replace(self, missing=(*self.missing, *more), empty=None)

    def in_all_bands(self) -> Packing:
        """Return the packing whose fill counts only if all bands have it."""
        first = self.missing[0] if self.missing else self.empty
        bare = replace(self.without_fill(), limits=self.limits)
        return replace(bare, missing=self.missing[1:], empty=first)

    def without_fill(self) -> Packing:
        """Return the packing of an array in which every finite number is a pixel."""
        attributes = tuple(pair for pair in self.attributes if pair[0] != "_FillValue")
        dtype = self.dtype if self.factors else _dtype(self.stored, dict(attributes))
        bare = replace(self, missing=(), empty=None, limits=None)
        return replace(bare, dtype=dtype, attributes=attributes)

    @property
    def words(self) -> list[str]:
        """Fill and valid range, for people."""
        found = [f"{value:g}" for value in self.missing]
        found += [] if self.empty is None else [f"{self.empty:g} in all bands"]
        if self.limits is not None:
            found.append("values outside {:g} to {:g}".format(*self.limits))
        return found

    def _decoded(self, plain: NDArray[np.generic], bands: NDArray[np.intp]) -> NDArray[np.generic]:
        if self.factors:
            table = np.array([self.factors[band] for band in bands], self.dtype)
            factor, offset = table.T[:, :, None, None]
            return np.asarray(plain.astype(self.dtype) * factor + offset)
        if not self.attributes:
            return plain if plain.flags.writeable else plain.copy()
        variable = xr.Variable(("band", "y", "x"), plain, dict(self.attributes))
        return np.asarray(xr.conventions.decode_cf_variable("pixels", variable).values)

    def _lost(
        self, stored: NDArray[np.generic], values: NDArray[np.generic]
    ) -> NDArray[np.bool_] | None:
        """Return the mask of fill and out-of-range numbers of a band; None if not needed."""
        found = [matches(stored, value) for value in self.missing]
        if self.limits is not None:
            checked: NDArray[Any] = values if self.unpacked else stored
            found += [checked < self.limits[0], checked > self.limits[1]]
        if stored.dtype.kind == "f":
            found.append(np.abs(stored) > HUGE)
        return np.logical_or.reduce(found) if found else None


def agreed(packings: Sequence[Packing], when: str, bands: int) -> tuple[Packing, ...]:
    """Return the arrays of one scene of ``bands`` with one rule for fill.

    'any': fill in one band makes a pixel invalid; 'all': only fill in all bands does; 'auto':
    'any', but 'all' for 8-bit data, in which the fill is also a measurement.
    """
    if when == "any":
        return tuple(packing.in_any_band() for packing in packings)
    small = all(np.dtype(packing.stored).itemsize == 1 for packing in packings)
    alike = len({packing.missing for packing in packings}) == 1 and len(packings[0].missing) == 1
    if when == "all" or (small and alike and bands > 1):
        return tuple(packing.in_all_bands() for packing in packings)
    return tuple(packings)


def packing_of(
    where: str,
    variable: xr.Variable,
    axes: Sequence[str],
    *,
    empty: float | None = None,
    fill: Sequence[float] = (),
) -> Packing:
    """Return how the numbers of an array, which is not decoded, become pixels.

    Its product may have ``fill``, and fill that counts if all bands have it (``empty``).

    Raise SceneError if the array does not hold real numbers, or has factors for other bands.
    """
    named = plain_names(variable.attrs)
    kind = _stored_kind(where, variable.dtype, named)
    if kind.kind == "u" or kind.kind != variable.dtype.kind:
        named = _in_sign(named, kind, said=kind.kind != variable.dtype.kind)
    said = [value for name in FILL.split() if name in named for value in numbers(named[name])]
    scaled = (_unscaled(kind, value, _scaling(named)) for value in (*said, *fill))
    missing = tuple(dict.fromkeys(value for value in scaled if value_limits(kind, value)))
    count = variable.shape[axes.index("band")] if "band" in axes else 1
    factors = _factors(where, named, count)
    scaling = _scaling(named) if not factors else {}
    decoded: dict[str, Any] = {"_FillValue": kind.type(missing[0])} if missing else {}
    first = dict(zip(("scale_factor", "add_offset"), factors[0], strict=True)) if factors else {}
    packed = kind.kind in "iu" and bool(scaling or factors)
    ranges = (np.asarray(named[name]) for name in VALID if name in named)
    return Packing(
        dtype=_dtype(str(kind), decoded | scaling | first),
        stored=str(kind),
        attributes=tuple((decoded | scaling).items()) if not factors else (),
        missing=missing,
        empty=next(iter(numbers(variable.attrs.get(EMPTY, empty))), None),
        limits=_limits(named),
        unpacked=packed and any(value.dtype.kind == "f" for value in ranges),
        factors=factors,
    )


def _dtype(stored: str, attributes: Mapping[str, Any]) -> str:
    """Return the type of decoded numbers."""
    example = xr.Variable((), np.zeros((), stored), dict(attributes))
    return str(xr.conventions.decode_cf_variable("pixels", example).dtype)


VALID = ("validrange", "validmin", "validmax")


def _limits(named: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the valid range; None without one, or if it is empty."""
    both = numbers(named.get("validrange"))
    low, high = both if len(both) == 2 else (-math.inf, math.inf)  # noqa: PLR2004 - a range
    low = next(iter(numbers(named.get("validmin"))), low)
    high = next(iter(numbers(named.get("validmax"))), high)
    return (low, high) if low < high and (low, high) != (-math.inf, math.inf) else None


def _scaling(named: Mapping[str, Any]) -> dict[str, Any]:
    """Return factor and offset as xarray takes them."""
    found = {}
    for name in ("scale_factor", "add_offset"):
        value: Any = named.get(name.replace("_", ""))
        value = numbers(value) if isinstance(value, str | bytes) else value
        if numbers(value):
            found[name] = np.ravel(value)[0]
    return real_factors(found)


def real_factors(attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return attributes without factors of integers: with these, xarray's products overflow."""
    both = [(name, np.asarray(attributes.get(name))) for name in ("scale_factor", "add_offset")]
    return dict(attributes) | {k: v.astype(float)[()] for k, v in both if v.dtype.kind in "iu"}


def _unscaled(kind: np.dtype[Any], value: float, scaling: Mapping[str, Any]) -> float:
    """Return fill as a stored number: one that is not, of packed integers, is a scaled one."""
    if kind.kind not in "iu" or not scaling or value_limits(kind, value):
        return value
    stored = (value - float(scaling.get("add_offset", 0))) / float(scaling.get("scale_factor", 1))
    return float(round(stored)) if math.isclose(stored, round(stored), abs_tol=1e-3) else value


def _factors(where: str, named: Mapping[str, Any], count: int) -> tuple[tuple[float, float], ...]:
    """Return factor and offset of each band, if one per band; empty if the bands share them."""
    scale, offset = (numbers(named.get(name)) for name in ("scalefactor", "addoffset"))
    if len(scale) <= 1 and len(offset) <= 1:
        return ()
    for name, values in (("scale_factor", scale), ("add_offset", offset)):
        if len(values) not in {0, 1, count}:
            raise SceneError(
                f"{where} has {len(values)} values of {name} for {count} bands: one value, or one "
                "per band, can be applied. Decode the array yourself and pass it as a DataArray."
            )
    scale = (scale or [1.0]) * (1 if len(scale) > 1 else count)
    offset = (offset or [0.0]) * (1 if len(offset) > 1 else count)
    return tuple(zip(scale, offset, strict=True))


def _stored_kind(where: str, dtype: np.dtype[Any], named: Mapping[str, Any]) -> np.dtype[Any]:
    if dtype.kind not in "buif":
        raise SceneError(
            f"{where} has dtype {dtype}: scores need real numbers. Pass an array that holds "
            "them: --variable NAME (variable=)."
        )
    said = str(named.get("unsigned", "")).lower() + dtype.kind
    other = {"truei": "u", "falseu": "i"}.get(said)
    return (np.dtype(f"{other}{dtype.itemsize}") if other else dtype).newbyteorder("=")


def _in_sign(named: Mapping[str, Any], kind: np.dtype[Any], *, said: bool) -> dict[str, Any]:
    """Return attributes with fill and limits in the sign of ``kind``: NetCDF-3 has only -1."""
    read = dict(named)
    other = np.dtype(f"{'i' if kind.kind == 'u' else 'u'}{kind.itemsize}")
    for name in {*FILL.split(), *VALID} & set(named):
        value = np.asarray(named[name])
        whole = said and value.dtype.kind in "iu"  # of any size, as in JSON
        if value.dtype == other or (whole and (value.astype(other) == value).all()):
            read[name] = value.astype(other).view(kind)
    return read


def plain_names(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Return attributes by their names in lower case without separators, EOPF's own included."""
    nested = attributes.get("_eopf_attrs")
    both = (nested if isinstance(nested, dict) else {}) | dict(attributes)
    return {re.sub(r"[\W_]", "", str(name)).lower(): value for name, value in both.items()}


def numbers(value: Any) -> list[float]:
    """Return the numbers in an attribute, however it is written; none if it holds no numbers."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        value = re.split(r"[\s,;{}\[\]()]+", value.strip(" ,;{}[]()"))
        value = [int(item) if WHOLE.fullmatch(item) else item for item in value]
    with suppress(TypeError, ValueError, OverflowError):
        found = [exact(item) for item in np.ravel(value).tolist() if item is not None]
        return [item for item in found if math.isfinite(item)]
    return []
