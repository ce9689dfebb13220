"""The targets of a report: rows of a table, checked against the map, in pixels and in degrees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pyproj import CRS, Transformer
from shapely.geometry import Polygon, box

from uniadrs_scale.errors import StoreError
from uniadrs_scale.objects.components import BOX
from uniadrs_scale.objects.ground import ground_of
from uniadrs_scale.scenes.areas import DIGITS, geojson, in_degrees

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

    from uniadrs_scale.maps.finished import RasterMap
    from uniadrs_scale.maps.store import ScoreMap
    from uniadrs_scale.objects.ground import Ground
    from uniadrs_scale.pages.report_files import Table

SAME = 1e-6
"""Largest difference of a score in a table and in its map."""
MOST_CORNERS, MOST_SIMPLE = 100, 64
"""Corners of an outline in a page, and the most pixels by which a longer one is simplified."""
NEAR = 2.0
"""Pixels that an outline may exceed its box."""
ROUNDING = 1e-2
"""Largest distance of a pixel coordinate to the integer that it stands for [px]."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """A target."""

    properties: dict[str, Any]
    """The columns of the table, as JSON values."""
    score: float
    peak: tuple[int, int]
    """Row and column."""
    box: tuple[int, int, int, int]
    """Row and column of the first pixel, and those after the last."""
    rings: list[list[list[float]]]
    """Outlines as (column, row) of pixel corners."""
    geometry: dict[str, Any] | None
    """GeoJSON in degrees, None if the map has no CRS."""
    degrees: tuple[float, float] | None
    """Longitude and latitude of the peak."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Positions:
    """The tie between the pixels of a map and the ground."""

    geobox: GeoBox
    """The map's grid; the identity for a swath."""
    ground: Ground

    @classmethod
    def of(cls, opened: ScoreMap | RasterMap) -> Positions:
        """Return the positions of the pixels of a map."""
        return cls(geobox=opened.geobox, ground=ground_of(opened))

    def to_pixels(self, shape: Any, crs: str | None) -> Any:
        """Return a geometry in (column, row); it makes no sense for a swath."""
        own = self.ground.crs
        if crs is not None and own is not None and CRS.from_user_input(crs) != CRS.from_wkt(own):
            way = Transformer.from_crs(crs, own, always_xy=True)
            shape = shapely.transform(shape, lambda xy: np.stack(way.transform(*xy.T), axis=1))
        a, b, c, d, e, f = tuple(~self.geobox.affine)[:6]
        return shapely.transform(
            shape, lambda xy: xy @ np.array([[a, d], [b, e]]) + np.array([c, f])
        )

    def to_degrees(self, shapes: NDArray[Any]) -> NDArray[Any]:
        """Return geometries in (column, row) in degrees, None if a corner is unknown."""
        corners = shapely.get_coordinates(shapes)
        return in_degrees(shapes, self.ground.corners(*corners.T))

    def grid(self, side: int) -> dict[str, list[list[float]]] | None:
        """Return longitudes and latitudes at ``side`` x ``side`` even places; None if unknown."""
        height, width = self.geobox.shape
        rows, cols = np.meshgrid(
            np.linspace(0, height, side), np.linspace(0, width, side), indexing="ij"
        )
        places = self.ground.corners(cols.ravel(), rows.ravel()).reshape(side, side, 2)
        if not np.isfinite(places).all():
            return None
        lon = np.unwrap(np.unwrap(places[..., 0], period=360, axis=0), period=360, axis=1)
        return {"lon": lon.round(DIGITS).tolist(), "lat": places[..., 1].round(DIGITS).tolist()}


def checked_rows(
    table: Table, source: ScoreMap | RasterMap, positions: Positions, top: int
) -> list[Row]:
    """Return the ``top`` targets by score, each at a place of the map with just its score.

    Raises:
        StoreError: A column is missing or is not a number, or the table is that of another map.
    """
    height, width = positions.geobox.shape
    names = "score_max", "peak_row", "peak_col"
    found = [[number(record, name, table.name) for name in names] for record in table.records]
    ranked = sorted((-score, int(row), int(col), n) for n, (score, row, col) in enumerate(found))
    for negative, row, col, _ in ranked[:top]:
        inside = 0 <= row < height and 0 <= col < width
        here = (
            float(source.read(slice(row, row + 1), slice(col, col + 1))[0, 0, 0])
            if inside
            else np.nan
        )
        if not abs(here + negative) <= SAME:
            met = (
                f"this map has {here:.6g} there"
                if inside
                else f"this map has {height} x {width} px"
            )
            raise StoreError(
                f"'{table.name}' is the table of another map: it has a score of {-negative:.6g} at "
                f"row {row}, column {col}, but {met}. Pass the table of this map, or drop "
                "--targets."
            )
    return _rows(table, [(n, (row, col)) for _, row, col, n in ranked[:top]], positions)


def number(record: Mapping[str, Any], column: str, name: str) -> float:
    """Return a number of a record.

    Raises:
        StoreError: The column is missing, or it is not a finite number.
    """
    if column not in record:
        raise StoreError(
            f"Targets '{name}' have no column '{column}'. Pass a file that `targets` wrote."
        )
    try:
        value = float(record[column])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise StoreError(
            f"Targets '{name}' have {column} = {str(record[column])[:40]!r}, which is not a "
            "number. Pass a file that `targets` wrote."
        )
    return value


def _rows(
    table: Table, ranked: list[tuple[int, tuple[int, int]]], positions: Positions
) -> list[Row]:
    """Return the targets of records with their peaks.

    The ground is asked once for all: a swath reads its positions in blocks.
    """
    if not ranked:
        return []
    boxes = [_box(table, n, peak, positions) for n, peak in ranked]
    drawn = [_drawn(table, n, own, positions) for (n, _), own in zip(ranked, boxes, strict=True)]
    rows, cols = np.array([peak for _, peak in ranked]).T
    centres = positions.ground.centres(cols, rows)
    outlines = positions.to_degrees(np.array(drawn, object))
    return [
        Row(
            properties={str(name): _plain(value) for name, value in table.records[n].items()},
            score=number(table.records[n], "score_max", table.name),
            peak=peak,
            box=own,
            rings=_rings(shape),
            geometry=geojson(outline) if np.isfinite(place).all() else None,
            degrees=(float(place[0]), float(place[1])) if np.isfinite(place).all() else None,
        )
        for (n, peak), own, shape, place, outline in zip(
            ranked, boxes, drawn, centres, outlines, strict=True
        )
    ]


def _box(
    table: Table, n: int, peak: tuple[int, int], positions: Positions
) -> tuple[int, int, int, int]:
    """Return the box of a record; that of its peak if it has none."""
    record = table.records[n]
    if not all(column in record for column in BOX):
        return (peak[0], peak[1], peak[0] + 1, peak[1] + 1)
    given = [int(number(record, column, table.name)) for column in BOX]
    # Never larger than the map, whatever a table says.
    most = positions.geobox.shape
    return (
        min(max(given[0], 0), peak[0]),
        min(max(given[1], 0), peak[1]),
        max(min(given[2], most[0]), peak[0] + 1),
        max(min(given[3], most[1]), peak[1] + 1),
    )


def _drawn(table: Table, n: int, own: tuple[int, int, int, int], positions: Positions) -> Any:
    """Return the outline of a record in (column, row), or its box if that is not its outline."""
    shape, square = table.geometries[n], box(own[1], own[0], own[3], own[2])
    if shape is None or shape.geom_type not in ("Polygon", "MultiPolygon"):
        return square
    pixels = positions.to_pixels(shape, table.crs)
    near = square.buffer(NEAR, join_style="mitre")
    return _simple(pixels) if near.covers(pixels) else square  # that of a swath is in degrees


def _plain(value: Any) -> Any:
    """Return a cell as a JSON value; NaN and other missing values as None."""
    if hasattr(value, "item"):
        value = value.item()
    if hasattr(value, "isoformat"):
        text = value.isoformat()
        return None if text == "NaT" else text
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else None


def _simple(shape: Any) -> Any:
    """Return an outline with few enough corners for a page."""
    tolerance = 1
    while shapely.get_num_coordinates(shape) > MOST_CORNERS and tolerance <= MOST_SIMPLE:
        shape = shapely.simplify(shape, tolerance)
        tolerance *= 2
    return (
        shape if shapely.get_num_coordinates(shape) <= MOST_CORNERS else shapely.convex_hull(shape)
    )


def _rings(shape: Any) -> list[list[list[float]]]:
    """Return the outlines without their last corner, which is the first one."""
    parts = [part for part in getattr(shape, "geoms", [shape]) if isinstance(part, Polygon)]
    rings = [ring for part in parts for ring in (part.exterior, *part.interiors)]
    return [[[_short(x), _short(y)] for x, y in list(ring.coords)[:-1]] for ring in rings]


def _short(value: float) -> float:
    """Return a pixel coordinate: an integer if it is one but for rounding."""
    return round(value) if abs(value - round(value)) < ROUNDING else round(value, 2)
