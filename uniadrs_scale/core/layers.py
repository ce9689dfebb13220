"""Values that a map carries: its layers, and the part of a larger scene that it shows."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from uniadrs_scale.core.lattice import Window
from uniadrs_scale.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

RESERVED = (
    *("band_mean", "band_scatter", "done", "scored_pixels", "overviews", "spatial_ref"),
    *("band", "layer", "latitude", "longitude", "valid", "x", "y"),
)
"""Names in a store that are not those of layers."""
HEADROOM = 8
"""Sums of a layer are exact up to so many of its units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer of a map: its name, and the way it is stored and pooled."""

    name: str
    """Name of its array in a store, and of its band in a file."""
    dtype: Literal["float32"] = "float32"
    long_name: str = ""
    """Description (CF); by default the name."""
    units: str = "1"
    """Unit (CF), such as ``m``; ``1`` for numbers without one."""
    valid_range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest value. It decides the step to which values are rounded."""
    pooled: Literal["max", "mean"] = "max"
    """The way overviews combine pixels."""

    def __post_init__(self) -> None:
        """Refuse a name or a range that cannot be stored."""
        low, high = self.valid_range
        if not re.fullmatch(r"[A-Za-z]\w{0,63}", self.name) or self.name in RESERVED:
            raise PlanError(
                f"Layer name '{self.name}' cannot be used. Use letters, digits and underscores, "
                f"a letter first, and none of {', '.join(RESERVED)}."
            )
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise PlanError(
                f"Layer '{self.name}' has the valid range {low} to {high}. Give two finite "
                "numbers, the lower one first."
            )
        if self.pooled not in ("max", "mean"):
            raise PlanError(f"Layer '{self.name}' has pooled='{self.pooled}'. Use max or mean.")

    @property
    def unit(self) -> float:
        """Power of two that reaches the largest value: sums are made in these units, exactly."""
        return 2.0 ** math.ceil(math.log2(max(map(abs, self.valid_range))))

    @property
    def attributes(self) -> dict[str, Any]:
        """CF attributes, as JSON values."""
        named = {"long_name": self.long_name or self.name, "units": self.units}
        return named | {"valid_range": list(self.valid_range)}

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**self.attributes, "name": self.name, "pooled": self.pooled}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Layer:
        """Return the layer of which :meth:`to_json` returned ``values``."""
        low, high = values["valid_range"]
        return cls(
            name=str(values["name"]),
            long_name=str(values["long_name"]),
            units=str(values["units"]),
            valid_range=(float(low), float(high)),
            pooled=values["pooled"],
        )


SCORE = Layer(name="score", long_name="anomaly score")


def units(layers: tuple[Layer, ...]) -> NDArray[np.float32]:
    """Return (layer, 1, 1) the units of layers."""
    return np.array([layer.unit for layer in layers], np.float32)[:, None, None]


@dataclass(frozen=True, slots=True)
class Part:
    """A window of a larger scene that was scored as a scene of its own."""

    window: Window
    whole: tuple[int, int]
    """Size (y, x) of the larger scene."""
    area: str = ""
    """Area outside of which pixels are invalid, as text; empty for none."""

    def __post_init__(self) -> None:
        """Refuse a window that is not in the larger scene."""
        least, size = min(self.window.row, self.window.col), self.whole
        if least < 0 or Window(0, 0, *size).intersection(self.window) != self.window:
            raise ValueError(f"{self.window} is not a part of {size[0]} x {size[1]} px")

    def __str__(self) -> str:
        (top, left), (bottom, right), (height, width) = self.origin, self.window.stop, self.whole
        ends = f"rows {top} to {bottom}, columns {left} to {right} of {height} x {width} px"
        return f"{ends}, in an area" if self.area else ends

    @property
    def origin(self) -> tuple[int, int]:
        """(row, col) of the first pixel in the larger scene."""
        return self.window.row, self.window.col

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        size = [self.window.height, self.window.width]
        plain = {"origin": list(self.origin), "size": size, "whole": list(self.whole)}
        return plain | ({"area": self.area} if self.area else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Part:
        """Return the part that :meth:`to_json` describes; raise ValueError if it cannot be."""
        try:
            sides = [int(side) for name in ("origin", "size") for side in values[name]]
            height, width = map(int, values["whole"])
            return cls(Window(*sides), (height, width), str(values.get("area", "")))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{values!r:.80} is not a part of a scene") from error


def real_values(answer: Any) -> NDArray[np.float32]:
    """Return the answer of a model as an own array; masked values become NaN.

    Raises:
        TypeError: It has no real numbers. Complex ones would lose half, texts and dates be parsed.
    """
    values = answer if isinstance(answer, np.ma.MaskedArray) else np.asarray(answer)
    if values.dtype.kind not in "biufO":
        raise TypeError(f"it returns {values.dtype}, not arrays of real numbers")
    with np.errstate(over="ignore"):  # it is infinite then, and its tile fails
        return np.ma.filled(values.astype(np.float32), np.nan)
