"""The choice of targets: thresholds, sizes, and areas in vector files that they touch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

import numpy as np
import shapely
from pyproj import CRS, Transformer

from uniadrs_scale.core.arguments import real, whole
from uniadrs_scale.core.levels import GROW, RATES
from uniadrs_scale.errors import PlanError
from uniadrs_scale.objects.components import Cut
from uniadrs_scale.scenes.areas import clipped, is_frame, projected, read_areas, replaced
from uniadrs_scale.swaths.geometry import degrees_of, unit_vectors

if TYPE_CHECKING:
    from pathlib import Path

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from uniadrs_scale.core.levels import Levels
    from uniadrs_scale.objects.ground import Ground

Geometry = Literal["polygon", "point", "box"]
MEDIUM = "medium"
"""The level if the caller names no threshold."""
LARGEST = 250_000
"""Pixels beyond which an object keeps its box instead of an outline, so that memory is bounded."""


CELL, BESIDE = 5.0, 1000.0
"""Degrees within which objects are neighbours; metres beyond them in which areas are projected."""


class Options(TypedDict, total=False):
    """The fields of :class:`Selection`, for functions that take them as keywords."""

    level: str | None
    threshold: float | None
    grow: float | None
    top: int | None
    false_alarms: float | None
    min_area: float | None
    max_area: float | None
    aoi: str | Path | GeoDataFrame | None
    exclude: str | Path | GeoDataFrame | None
    buffer: float
    geometry: Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The choice of targets. Without a threshold of any kind it is the level ``medium``."""

    level: str | None = None
    """``low``, ``medium`` or ``high``: about 10, 1 or 0.1 false objects per megapixel."""
    threshold: float | None = None
    """Least peak of a target, 0..1."""
    grow: float | None = None
    """Least score of the pixels around a peak that belong to it; by default GROW."""
    top: int | None = None
    """Number of targets with the highest peaks."""
    false_alarms: float | None = None
    """Wanted number of false objects per megapixel."""
    min_area: float | None = None
    """Square metres below which objects are dropped."""
    max_area: float | None = None
    """Square metres beyond which objects keep their box instead of an outline."""
    aoi: str | Path | GeoDataFrame | None = None
    """Vector file or GeoDataFrame: only targets that touch its areas are kept."""
    exclude: str | Path | GeoDataFrame | None = None
    """Vector file or GeoDataFrame: targets that touch its areas are dropped."""
    buffer: float = 0.0
    """Metres by which the areas of ``exclude`` are larger than those given."""
    geometry: Geometry = "polygon"
    """Outline, peak or box."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        given = {
            name: value
            for name in ("level", "threshold", "top", "false_alarms")
            if (value := getattr(self, name)) is not None
        }
        if len(given) > 1:
            raise PlanError(
                f"{' and '.join(given)} each choose the targets. Give one of level, threshold, top "
                "and false_alarms."
            )
        if self.level is not None and self.level not in RATES:
            raise PlanError(f"level='{self.level}' is unknown. Use {', '.join(RATES)}.")
        self._require_numbers()
        for name in ("threshold", "grow"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise PlanError(f"{name}={value} is not a score. Give a number in 0 < x <= 1.")
        for name in ("min_area", "max_area", "false_alarms"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise PlanError(f"{name}={value} is not positive. Give a positive number.")
        if not 0 <= self.buffer < math.inf or (self.buffer and self.exclude is None):
            raise PlanError(
                f"buffer={self.buffer} m needs areas to exclude, and must not be negative. Give "
                "exclude as well, or drop buffer."
            )
        if self.geometry not in get_args(Geometry):
            raise PlanError(
                f"geometry='{self.geometry}' is unknown. Use {', '.join(get_args(Geometry))}."
            )

    def _require_numbers(self) -> None:
        if self.top is not None:
            whole("top", self.top, 1)
        for name in ("threshold", "grow", "min_area", "max_area", "false_alarms", "buffer"):
            if getattr(self, name) is not None:
                real(name, getattr(self, name))

    def cut(self, levels: Levels | None, name: str) -> Cut:
        """Return the thresholds for the map ``name``.

        Raises:
            PlanError: The map has no levels, and the selection needs them; or the threshold is
                below ``grow``.
        """
        grow = GROW if self.grow is None else self.grow
        threshold = grow if self.top is not None else self.threshold
        if threshold is None:
            if levels is None:
                raise PlanError(
                    f"'{name}' has no levels (they come with the weights; RX and weights of your "
                    "own have none). Give --top N or --threshold T."
                )
            rate, most = self.false_alarms, levels.false_per_mpx[0]
            if rate is not None and rate > most:
                raise PlanError(
                    f"{rate:g} false objects per Mpx are more than all objects of empty ground "
                    f"({most:.3g} from a score of {levels.scores[0]:g} up). Give at most "
                    f"{most:.3g}, or --threshold T."
                )
            level = levels.threshold(self.level or MEDIUM)
            threshold = level if rate is None else levels.threshold_at(rate)
        if threshold < grow and self.grow is None:
            grow = threshold
        if threshold < grow:
            raise PlanError(
                f"threshold={threshold:g} is below grow={grow:g}, the least score of a target's "
                "pixels. Lower grow, or raise the threshold."
            )
        return Cut(grow=grow, threshold=threshold, largest=LARGEST)

    @property
    def needs_ground(self) -> bool:
        """True if it counts metres or uses areas on the ground."""
        asked = (self.min_area, self.max_area, self.aoi, self.exclude)
        return any(value is not None for value in asked)

    @property
    def text(self) -> str:
        """The choice of the threshold, in words."""
        if self.top is not None:
            least = GROW if self.grow is None else self.grow
            return f"with scores of at least grow={least:g}"
        if self.threshold is not None:
            return f"at threshold {self.threshold:g}"
        if self.false_alarms is not None:
            return f"at {self.false_alarms:g} false objects per Mpx"
        return f"at level {self.level or MEDIUM}"

    def to_dict(self) -> dict[str, Any]:
        """Return what the caller chose, as JSON values."""
        asked = {field.name: getattr(self, field.name) for field in fields(self)}
        frames = {k: f"a {type(v).__name__}" for k, v in asked.items() if is_frame(v)}
        asked = {k: v for k, v in (asked | frames).items() if v not in (None, 0.0)}
        return {k: v if isinstance(v, int | float | str) else str(v) for k, v in asked.items()}


def levels_at(peaks: np.ndarray[Any, Any], levels: Levels | None) -> np.ndarray[Any, Any]:
    """Return the level of each peak; None below the lowest, and without levels."""
    found = np.full(len(peaks), None, object)
    if levels is not None:
        for name in RATES:  # from low to high
            found[peaks >= np.float32(levels.threshold(name))] = name
    return found


def touching(
    areas: str | Path | GeoDataFrame, outlines: NDArray[Any], ground: Ground, *, grown: float = 0.0
) -> NDArray[np.bool_]:
    """Return True for outlines, in pixels, that touch one of ``areas``.

    Neighbours are compared in a plane around them that keeps distances from its centre.

    Args:
        areas: Any vector file that GDAL reads, or a GeoDataFrame, in any CRS.
        outlines: In pixels of the map.
        ground: The tie between pixels and the ground.
        grown: Metres by which areas are larger than those given.

    Raises:
        PlanError: The areas cannot be read, or have no CRS or no shapes.
    """
    shapes, crs = read_areas(areas)
    shapes = shapely.make_valid(shapes)
    corners, owner = shapely.get_coordinates(outlines, return_index=True)
    places = ground.corners(*corners.T)
    degrees = replaced(outlines, places)
    result = np.zeros(len(outlines), bool)
    known = np.flatnonzero(~shapely.is_missing(degrees))
    first = places[np.searchsorted(owner, known)]
    _, cell = np.unique(np.floor(first / CELL), axis=0, return_inverse=True)
    for number in np.unique(cell):
        members = known[cell.ravel() == number]
        result[members] = _touched(shapes, CRS.from_user_input(crs), degrees[members], grown)
    return result


def _touched(
    shapes: NDArray[Any], crs: CRS, degrees: NDArray[Any], grown: float
) -> NDArray[np.bool_]:
    """Return True for outlines, in degrees and near each other, that touch a shape."""
    vectors = unit_vectors(*shapely.get_coordinates(degrees)[:, ::-1].T)
    latitude, longitude = degrees_of(vectors.min(axis=0) + vectors.max(axis=0))
    plane = CRS.from_proj4(f"+proj=aeqd +lat_0={latitude} +lon_0={longitude} +datum=WGS84")
    into = Transformer.from_crs(4326, plane, always_xy=True)
    moved = shapely.transform(degrees, lambda xy: np.stack(into.transform(*xy.T), axis=-1))
    reach = np.abs(shapely.get_coordinates(moved)).max() + grown + BESIDE
    square = shapely.segmentize(shapely.box(-reach, -reach, reach, reach), reach / 32)
    back = Transformer.from_crs(plane, crs, always_xy=True)
    ring = np.stack(back.transform(*shapely.get_coordinates(square).T), axis=-1)
    near = clipped(shapes, crs, ring)
    tree = shapely.STRtree(projected(near, crs, plane) if len(near) else near)
    found = tree.query(moved, predicate="dwithin", distance=grown)[0]
    return np.isin(np.arange(len(degrees)), found)
