"""Levels: the score thresholds of a preset, and the false objects per megapixel that each costs.

An object is an 8-connected component of scores >= :data:`GROW`; its score is its highest. The curve
counts such objects on windows without anomalies. It reads a map and decides nothing of it, so it is
part of no fingerprint.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from uniadrs_scale.errors import PlanError

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROW = 0.3
"""Pixels with this score or more belong to an object."""
RATES: dict[str, float] = {"low": 10.0, "medium": 1.0, "high": 0.1}
"""False objects per megapixel at each level."""


def score_text(score: float, form: str = ".3f") -> str:
    """Return a score in a format, with more decimals if it would read as 1 and is less.

    >>> score_text(0.97571), score_text(0.99986), score_text(1.0)
    ('0.976', '0.99986', '1.000')
    """
    text = format(score, form)
    if not score < 1 <= float(text):
        return text
    return f"{score:.{1 - math.floor(math.log10(1 - score))}f}".rstrip("0")


FEWEST_POINTS, MOST_POINTS, LONGEST_NAME = 2, 1000, 100
DIGITS = 6
"""Decimals of thresholds; curves may crowd near a score of 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """The curve of a preset and its three levels. Foreign text comes in by :meth:`from_json`."""

    preset: str
    scores: tuple[float, ...]
    """Increasing, 0..1."""
    false_per_mpx: tuple[float, ...]
    """False objects per megapixel whose peak is at least that score; positive, not increasing."""
    measured_to: float
    """Beyond this score the curve is extrapolated."""
    low: float
    medium: float
    high: float

    def __post_init__(self) -> None:
        """Raise ValueError if the values are not a curve with levels in order."""
        if not (self.preset.isprintable() and 0 < len(self.preset) <= LONGEST_NAME):
            raise ValueError(f"preset {self.preset[:LONGEST_NAME]!r} is not a printable name")
        if not FEWEST_POINTS <= len(self.scores) == len(self.false_per_mpx) <= MOST_POINTS:
            raise ValueError(
                f"{len(self.scores)} scores and {len(self.false_per_mpx)} rates are not a curve of "
                f"{FEWEST_POINTS} to {MOST_POINTS} points"
            )
        thresholds = self.low, self.medium, self.high
        if not all(0 <= value <= 1 for value in (*self.scores, *thresholds, self.measured_to)):
            raise ValueError("a score is outside 0..1")
        if not all(a < b for a, b in pairwise(self.scores)):
            raise ValueError("the scores do not increase")
        if not all(0 < rate < math.inf for rate in self.false_per_mpx):
            raise ValueError("a rate of false objects is not positive")
        if not all(a >= b for a, b in pairwise(self.false_per_mpx)):
            raise ValueError("the rates of false objects increase with the score")
        if not self.low <= self.medium <= self.high:
            raise ValueError(f"levels {thresholds} are not in order")

    @classmethod
    def of_curve(
        cls,
        preset: str,
        scores: NDArray[np.float64],
        rates: NDArray[np.float64],
        measured_to: float,
    ) -> Self:
        """Return the levels at :data:`RATES` on a curve.

        Raises:
            ValueError: It is not a curve.
            PlanError: The curve ends before a level.
        """
        curve = cls(
            preset=preset,
            scores=tuple(map(float, scores)),
            false_per_mpx=tuple(map(float, rates)),
            measured_to=measured_to,
            low=0.0,
            medium=0.0,
            high=0.0,
        )
        low, medium, high = (curve.threshold_at(rate) for rate in RATES.values())
        return replace(curve, low=low, medium=medium, high=high)

    def threshold(self, level: str) -> float:
        """Return the threshold of ``low``, ``medium`` or ``high``.

        Raises:
            PlanError: The level does not exist.
        """
        if level not in RATES:
            raise PlanError(f"level='{level}' is unknown. Use {', '.join(RATES)}.")
        return cast("float", getattr(self, level))

    def threshold_at(self, false_per_mpx: float) -> float:
        """Return the lowest threshold with at most this many false objects per megapixel.

        It is never below the first score of the curve.

        Raises:
            PlanError: The rate is not positive, or below the end of the curve.
        """
        least = self.false_per_mpx[-1]
        if not least <= false_per_mpx < math.inf:
            raise PlanError(
                f"{false_per_mpx:g} false objects per Mpx are outside the curve of the preset "
                f"'{self.preset}'. Give a number of at least {least:.3g}."
            )
        rates = np.array(self.false_per_mpx)
        after = int(np.argmax(rates <= false_per_mpx))
        if after == 0:
            return self.scores[0]
        between = slice(after - 1, after + 1)
        start, stop = (math.log(rate) for rate in self.false_per_mpx[between])
        share = (start - math.log(false_per_mpx)) / (start - stop)
        low, high = self.scores[between]
        # Rounded up: the rate must not be exceeded.
        rounded: float = math.ceil((low + share * (high - low)) * 10**DIGITS) / 10**DIGITS
        return min(rounded, high)

    def far_per_mpx(self, peaks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the false objects per megapixel with at least the scores ``peaks``.

        Outside the curve its first or last rate; NaN for NaN.
        """
        rates = np.interp(peaks, self.scores, np.log(self.false_per_mpx))
        return np.exp(rates).astype(np.float32)

    def level_of(self, peak: float) -> str | None:
        """Return the highest level that ``peak`` reaches, None if it reaches none."""
        return next((name for name in reversed(RATES) if peak >= self.threshold(name)), None)

    def text(self) -> str:
        """Return the thresholds and what they mean, in a line."""
        thresholds = ", ".join(f"{name} {score_text(self.threshold(name))}" for name in RATES)
        rates = ", ".join(f"{rate:g}" for rate in RATES.values())
        return f"{thresholds} (scores that {rates} false objects per Mpx of empty ground reach)"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: object) -> Self:
        """Return the levels in JSON values, which may come from anywhere.

        Raises:
            ValueError: A field is missing or has another type, or the curve is not one.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(values, dict) or (missing := [n for n in names if n not in values]):
            what = f"no {missing[0]}" if isinstance(values, dict) else f"a {type(values).__name__}"
            raise ValueError(f"levels need {', '.join(names)}, got {what}")
        return cls(
            preset=str(values["preset"]),
            scores=_numbers(values["scores"]),
            false_per_mpx=_numbers(values["false_per_mpx"]),
            **{name: _number(values[name]) for name in ("measured_to", *RATES)},
        )


def _number(value: object) -> float:
    """Return a JSON number; True and False are not numbers, NaN is not one of ours."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number):
                return number
    except OverflowError:
        pass
    raise ValueError(f"{str(value)[:LONGEST_NAME]!r} is not a finite number")


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) > MOST_POINTS:
        raise ValueError(f"a curve of levels is not a list of at most {MOST_POINTS} numbers")
    return tuple(_number(value) for value in values)
