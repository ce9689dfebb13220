"""Filters: conditions for the items of an archive, and for the options of its scenes. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter, model_validator

from uniadrs_scale.archive.decide import Box
from uniadrs_scale.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uniadrs_scale.archive.decide import SourceItem

MOST_DAYS = 100_000
"""Longest time in a description: more would be before the calendar."""
LONGEST_PAUSE = 366
"""Days between two sweeps, beyond which the clock is taken for wrong."""
TURN = 360.0
Word = Annotated[str, Field(pattern=r"\S")]
Bands = Annotated[Sequence[Word | PositiveInt], Field(min_length=1)]
OPTIONS: dict[str, dict[str, tuple[Any, str]]] = {
    "scene": {
        "bands": (Bands | None, "a list of names or of numbers from 1"),
        "nodata": (float | Literal["auto"] | None, "a number, auto, or null: no value is nodata"),
        "nodata_when": (Literal["auto", "any", "all"], "auto, any or all"),
        "grid": (Word | None, "finest, coarsest, or the name of a band"),
        "variable": (Word | Sequence[Word] | None, "a name, a pattern, or a list of names"),
        "mask": (Word | Sequence[Word | int], "none, cloud, or a list of names or values"),
        "units": (Literal["amplitude", "dB"] | None, "amplitude or dB"),
    },
    "detector": dict.fromkeys(("weights", "device", "dtype"), (Word, "a text")),
}
"""Type of each option of ``open_scene`` and ``Detector.load``, and words for it."""


DEFAULTS = {"nodata": "auto", "nodata_when": "auto", "mask": "none"}
"""Options of ``open_scene`` whose default is not None."""


def chosen(scene: dict[str, Any]) -> dict[str, Any]:
    """Return the options of ``open_scene`` that differ from its defaults."""
    return {name: value for name, value in scene.items() if value != DEFAULTS.get(name)}


def require_options(section: str, given: dict[str, Any]) -> None:
    """Raise ValueError for an option that does not exist, or a value that fits no scene."""
    known = OPTIONS[section]
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{section}.{name} is unknown; {section} takes {sorted(known)}")
        try:
            TypeAdapter(known[name][0]).validate_python(value, strict=True)
        except ValueError:
            words = known[name][1]
            raise ValueError(f"{section}.{name} takes {words}, got {value!r:.80}") from None


def oldest_kept(keep_days: float | None, now: dt.datetime) -> dt.datetime | None:
    """Return the time before which products are removed; None if all are kept."""
    return None if keep_days is None else now - dt.timedelta(days=keep_days)


def is_older(record: Mapping[str, Any], oldest: dt.datetime | None) -> bool:
    """Return True if a product is to be removed."""
    return (
        oldest is not None
        and bool(record)
        and dt.datetime.fromisoformat(record["datetime"]) < oldest
    )


def require_clock(now: dt.datetime, runs: Sequence[Mapping[str, Any]], sink: object) -> None:
    """Raise ArchiveError if the clock is far ahead: all maps would count as old, and be removed.

    Args:
        now: The time of this machine.
        runs: Earlier sweeps, the latest first.
        sink: The folder or prefix of maps.
    """
    last = dt.datetime.fromtimestamp(runs[0]["seen"] if runs else now.timestamp(), dt.UTC)
    if (now - last).days > LONGEST_PAUSE:
        raise ArchiveError(
            f"The clock of this machine says {now:%Y-%m-%d}, but the last sweep was on "
            f"{last:%Y-%m-%d}: is it right? With keep_days, a wrong clock removes maps. Set the "
            f"clock; if it is right, remove '{sink}/.sweep/ledger.sqlite', which holds no maps."
        )


def boxes_meet(one: Box, other: Box) -> bool:
    """Return True if two boxes share a point; either may cross the antimeridian."""
    if one[3] < other[1] or other[3] < one[1]:
        return False
    (west, east), (west_b, east_b) = (
        (box[0], box[2] + (TURN if box[0] > box[2] else 0)) for box in (one, other)
    )
    turns = (k * TURN for k in (-2, -1, 0, 1, 2))  # longitudes may count from 0 to 360
    return any(west <= east_b + turn and west_b + turn <= east for turn in turns)


class Section(BaseModel):
    """Base of sections: it refuses unknown fields, and its values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, values: Any) -> Any:
        """Return the fields that have a value: an empty one means its default.

        Refuse yes as a number: with ``keep_days: yes``, maps older than a day would go.
        """
        if not isinstance(values, dict):
            return values
        for name, field in cls.model_fields.items():
            if isinstance(values.get(name), bool) and field.annotation is not bool:
                raise ValueError(f"{name} takes neither yes nor no (true, on, false, off)")
        empty = {name for name in cls.model_fields if values.get(name) is None}
        return {name: value for name, value in values.items() if name not in empty}


class Filters(Section):
    """Conditions for items of the source; all that are given must hold."""

    datetime: str | None = None
    """Acquisition: ``2024-01-01/2024-06-30``, either end may be ``..``; the last day counts."""
    newest_days: float | None = Field(default=None, gt=0, le=MOST_DAYS)
    """Acquired within so many days before now."""
    bbox: Box | None = None
    """West, south, east, north in degrees; items that touch it. West > east: over 180 degrees."""
    cloud_cover: float | None = Field(default=None, ge=0, le=100)
    """At most so many percent; items that do not say are left out."""
    properties: dict[str, Any] = Field(default_factory=dict)
    """Any property: a value, a list of values, or ``{min: , max: }``."""

    @model_validator(mode="after")
    def _can_hold(self) -> Filters:
        first, last = self.interval()
        if first is not None and last is not None and first > last:
            raise ValueError(f"datetime '{self.datetime}' ends before it begins. Swap the dates")
        if self.bbox is not None:
            west, south, east, north = self.bbox
            on_earth = -TURN / 4 <= south <= north <= TURN / 4
            if not (on_earth and -TURN <= west <= TURN and abs(east) <= TURN):
                raise ValueError(f"bbox {self.bbox} is not west, south, east, north in degrees")
        for name, wanted in self.properties.items():
            if isinstance(wanted, dict) and (
                not wanted.keys() <= {"min", "max"}
                or not any(_holds(w, wanted) for w in wanted.values())
            ):
                raise ValueError(f"properties.{name} takes min <= max, one or both, got {wanted}")
        return self

    def interval(self) -> tuple[dt.datetime | None, dt.datetime | None]:
        """Return the first and last instant of ``datetime``."""
        if self.datetime is None:
            return None, None
        first, slash, last = self.datetime.partition("/")
        return _instant(first), _instant(last if slash else first, end=True)

    def refusal(self, item: SourceItem, now: dt.datetime) -> str:
        """Return the name of the condition that ``item`` fails; empty if it fails none."""
        first, last = self.interval()
        if self.newest_days is not None:
            newest = now - dt.timedelta(days=self.newest_days)
            first = newest if first is None else max(first, newest)
        if (first is not None and item.when < first) or (last is not None and item.when > last):
            return "datetime"
        if self.bbox is not None and (item.box is None or not boxes_meet(self.bbox, item.box)):
            return "bbox"
        limits = dict(self.properties)
        if self.cloud_cover is not None:
            limits["eo:cloud_cover"] = {"max": self.cloud_cover}
        for name, wanted in limits.items():
            if not _holds(item.properties.get(name), wanted):
                return name
        return ""


def _instant(text: str, *, end: bool = False) -> dt.datetime | None:
    """Return a date or time as an aware instant; for a date, its first or last moment."""
    if (text := text.strip()) in ("", ".."):
        return None
    try:
        instant = dt.datetime.fromisoformat("" if "W" in text else text)  # not a week
    except ValueError:
        raise ValueError(
            f"'{text}' is not a date. Use 2024-01-31 or 2024-01-31T10:00:00Z"
        ) from None
    if end and len(text) <= len("2024-01-31"):
        instant += dt.timedelta(days=1, microseconds=-1)
    return instant if instant.tzinfo else instant.replace(tzinfo=dt.UTC)


def _holds(value: Any, wanted: Any) -> bool:
    """Return True if a property meets a condition of the filters."""
    if isinstance(wanted, list):
        return value in wanted
    if isinstance(wanted, dict):
        try:
            return bool(wanted.get("min", value) <= value <= wanted.get("max", value))
        except TypeError:
            return False
    return bool(value == wanted)
