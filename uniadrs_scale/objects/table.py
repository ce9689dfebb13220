"""The table of targets: one row per target, by rank."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from uniadrs_scale.core.levels import score_text
from uniadrs_scale.core.machine import library
from uniadrs_scale.errors import counted
from uniadrs_scale.objects.components import BOX, SCORE_UNIT
from uniadrs_scale.objects.ground import degrees_text
from uniadrs_scale.objects.measures import measured, with_boxes
from uniadrs_scale.objects.select import levels_at, touching

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniadrs_scale.maps.facts import MapFacts
    from uniadrs_scale.objects.components import Columns
    from uniadrs_scale.objects.ground import Ground
    from uniadrs_scale.objects.select import Selection

ID_DIGITS = 10
NAMED = 10
"""Targets that a summary lists."""
SUPPORT = {2: "confirmed", 1: "not confirmed", 0: "without another tile"}
"""Words about the column ``support``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TargetTable:
    """Targets of a map, by rank."""

    columns: dict[str, NDArray[Any]]
    """(n,) each; null is None in columns of objects, NaN in columns of floats."""
    geometry: NDArray[Any]
    """(n,) shapes in :attr:`crs`; None if the position is unknown."""
    peaks: NDArray[Any]
    """(n,) points at the pixels with the highest scores, in :attr:`crs`."""
    crs: str | None
    """WKT; None if the map has no CRS: coordinates are those of its transform, or pixels."""
    facts: dict[str, Any]
    """Provenance, as JSON values."""
    empty_because: str = ""
    """A sentence about why the table is empty, if it is."""
    missing: str = ""
    """A sentence if the map is not complete."""
    notes: tuple[str, ...] = ()
    """Sentences about the scene that was given."""

    def __len__(self) -> int:
        return len(self.columns["rank"])

    @property
    def geometry_type(self) -> str:
        """Type of all shapes in a file: points, or multipolygons of one polygon or more."""
        point = self.facts["selection"].get("geometry") == "point"
        return "Point" if point else "MultiPolygon"

    def summary(self) -> list[str]:
        """Return a few lines for people: how many, and the first of them."""
        notes = [f"note: {note}" for note in self.notes]
        if self.empty_because:
            return [self.empty_because, *notes]
        columns = self.columns
        found = [level for level in ("high", "medium", "low") if (columns["level"] == level).any()]
        counts = (f"{np.count_nonzero(columns['level'] == level)} {level}" for level in found)
        lines = [counted(len(self), "target") + (f" ({', '.join(counts)})" if found else "")]
        support = columns.get("support")
        if support is not None:
            shares = (f"{np.count_nonzero(support == k)} {word}" for k, word in SUPPORT.items())
            lines.append(f"second look: {', '.join(shares)}")
        for k in range(min(len(self), NAMED)):
            lon, lat, area = (columns[name][k] for name in ("lon", "lat", "area_m2"))
            pixel = f"row {columns['peak_row'][k]}, column {columns['peak_col'][k]}"
            there = pixel if np.isnan(lat) else degrees_text(lon, lat)
            size = f"{columns['pixels'][k]} px" + ("" if np.isnan(area) else f", {area:.0f} m2")
            more = "" if support is None else f", {SUPPORT[int(support[k])]}"
            score = score_text(columns["score_max"][k])
            lines.append(f"{k + 1:>4}  {score}  {there}  {size}{more}")
        if len(self) > NAMED:
            lines.append(f" ...  and {counted(len(self) - NAMED, 'more target')}")
        return lines + notes

    def to_geopandas(self) -> Any:
        """Return a geopandas.GeoDataFrame, with the facts in ``attrs``.

        Raise PlanError if geopandas is not installed.
        """
        geopandas = library("geopandas", "Tables in geopandas")
        frame = geopandas.GeoDataFrame(self.columns, geometry=self.geometry, crs=self.crs)
        frame["datetime"] = frame["datetime"].dt.tz_localize("UTC")
        frame.attrs = self.facts
        return frame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chosen:
    """The objects of a map that are targets, with all that is known of them so far."""

    table: Columns
    outlines: NDArray[Any]
    """In pixels."""
    sizes: dict[str, NDArray[np.float64]]

    def at(self, kept: NDArray[Any]) -> Chosen:
        """Return some of them."""
        return replace(
            self,
            table={name: column[kept] for name, column in self.table.items()},
            outlines=self.outlines[kept],
            sizes={name: column[kept] for name, column in self.sizes.items()},
        )


def choose(table: Columns, selection: Selection, ground: Ground) -> Chosen:
    """Return the objects in ``table``, by rank, that the selection keeps.

    Raise PlanError if a file with areas cannot be read.
    """
    outlines = with_boxes(table)
    chosen = Chosen(table=table, outlines=outlines, sizes=measured(table, outlines, ground))
    if selection.min_area is not None:
        chosen = chosen.at(chosen.sizes["area_m2"] >= selection.min_area)
    if selection.aoi is not None:
        chosen = chosen.at(touching(selection.aoi, chosen.outlines, ground))
    if selection.exclude is not None:
        hit = touching(selection.exclude, chosen.outlines, ground, grown=selection.buffer)
        chosen = chosen.at(~hit)
    if selection.top is not None:
        chosen = chosen.at(np.arange(min(selection.top, len(chosen.outlines))))
    if selection.max_area is not None or selection.geometry == "box":
        large = chosen.sizes["area_m2"] > (selection.max_area or np.inf)
        boxed = np.full(len(large), selection.geometry == "box") | large
        chosen.table["outline"][boxed] = None
        chosen = replace(chosen, outlines=with_boxes(chosen.table))
    return chosen


def tabulate(
    chosen: Chosen,
    selection: Selection,
    facts: MapFacts,
    ground: Ground,
    more: dict[str, NDArray[Any]],
) -> tuple[dict[str, NDArray[Any]], NDArray[Any], NDArray[Any]]:
    """Return the columns, ``more`` columns last, the outlines, and the peaks as points."""
    table, count = chosen.table, len(chosen.outlines)
    peaks = table["score_max"]
    pixels = table["pixels"].astype(np.int64)
    box = np.prod([table["row1"] - table["row0"], table["col1"] - table["col0"]], axis=0)
    levels = facts.levels
    unknown = np.full(count, np.nan, np.float32)
    columns = {
        "target_id": _identities(table, facts),
        "scene_id": np.full(count, facts.scene or None, object),
        "datetime": np.full(count, _time(facts.datetime), "datetime64[ms]"),
        "platform": np.full(count, facts.platform or None, object),
        "rank": np.arange(1, count + 1),
        "level": levels_at(peaks, levels),
        "score_max": peaks,
        "score_mean": (table["scores"] / table["pixels"] / SCORE_UNIT).astype(np.float32),
        "far_per_mpx": unknown if levels is None else levels.far_per_mpx(peaks),
        "pixels": pixels,
        **chosen.sizes,
        "peak_row": table["peak_row"],
        "peak_col": table["peak_col"],
        **{name: table[name] for name in BOX},
        "edge": table["edge"],
        "valid_fraction": (table["valid"] / np.maximum(box, 1)).astype(np.float32),
        **more,
    }
    peaks_there = ground.points(table["peak_col"], table["peak_row"])
    if selection.geometry == "point":
        return columns, peaks_there, peaks_there
    return columns, ground.geometry(chosen.outlines), peaks_there


def _identities(table: Columns, facts: MapFacts) -> NDArray[Any]:
    """Return the scene and a digest of map and peak, the same for any chunks."""
    scene = facts.scene or "map"
    texts = (
        f"{facts.fingerprint} {row} {col}"
        for row, col in zip(table["peak_row"], table["peak_col"], strict=True)
    )
    digits = (hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS] for text in texts)
    return np.array([f"{scene}-{digest}" for digest in digits], object)


def _time(text: str) -> np.datetime64:
    """Return an ISO 8601 time in UTC; NaT if it is unknown."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return np.datetime64("NaT", "ms")
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return np.datetime64(aware.astimezone(UTC).replace(tzinfo=None), "ms")
