"""Areas: shapes in any CRS, cut at the antimeridian, and the pixels whose centres they hold."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import shapely
from pyproj import CRS, Transformer

from uniadrs_scale.core.machine import vectors
from uniadrs_scale.errors import PlanError, gist

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniadrs_scale.core.lattice import Window

STEPS = 200
"""Parts of an area's extent in which its edges are projected one by one."""
TURN, HALF_TURN, POLE = 360.0, 180.0, 90.0
SLIVER = 1e-9
"""Degrees from the antimeridian within which a corner is on it."""
DIGITS = 7
"""Decimals of degrees in GeoJSON: 1 cm."""
MOST_DIGITS = 10
"""Most of them, for edges below 1 m, and for points: 0.01 mm."""
MARGIN = 0.1
"""Share of an extent around it in which shapes are kept."""
SQUARE = 32
"""Side of a block whose pixels are looked at one by one [px]."""


def read_areas(path: Any) -> tuple[NDArray[Any], str]:
    """Return the shapes of any vector file that GDAL reads, or of a GeoDataFrame, and their CRS.

    Raise PlanError if they cannot be read, or have no CRS or no areas.
    """
    if is_frame(path):
        return _areas(frame_shapes(path), path.crs and path.crs.to_wkt(), "The GeoDataFrame")
    if not isinstance(path, str | Path):
        raise PlanError(
            f"Areas are a vector file or a GeoDataFrame, got {type(path).__name__}. Pass one: "
            "geopandas.GeoDataFrame(geometry=[...], crs=4326)."
        )
    pyogrio = vectors("Areas in files")
    try:
        meta, _, wkb, _ = pyogrio.raw.read(path, layer=only_layer(path), columns=[])
    except (RuntimeError, OSError, ValueError) as error:  # those of pyogrio are RuntimeErrors
        raise PlanError(
            f"'{path}' cannot be read as a vector file ({gist(error)}). Give a GeoPackage, GeoJSON "
            "or Shapefile."
        ) from None
    shapes = shapely.from_wkb(np.array([] if wkb is None else wkb, object))
    return _areas(shapes, meta["crs"], f"'{path}'")


def is_frame(given: Any) -> bool:
    """Return True for a GeoDataFrame or a GeoSeries."""
    return hasattr(given, "geometry") and hasattr(given, "crs")


def frame_shapes(frame: Any) -> NDArray[Any]:
    """Return the shapes of a GeoDataFrame or a GeoSeries."""
    return np.array([*frame.geometry], object)


def _areas(shapes: NDArray[Any], crs: str | None, what: str) -> tuple[NDArray[Any], str]:
    """Return the shapes that are not empty, and their CRS; PlanError without shapes or CRS."""
    shapes = shapes[~shapely.is_missing(shapes) & ~shapely.is_empty(shapes)]
    if not crs or not len(shapes):
        raise PlanError(
            f"{what} has no {'areas' if crs else 'CRS'}. Give a file with areas and their CRS."
        )
    return shapes, str(crs)


def only_layer(path: str | Path) -> Any:
    """Return the layer with shapes, or that of targets; raise ValueError if several have some."""
    layers = vectors("Areas in files").list_layers(path)
    names = [str(name) for name, kind in layers if kind is not None]
    if len(names) > 1 and "targets" not in names:
        said = ", ".join(names)
        raise ValueError(f"it has layers {said}: write one to a file, by ogr2ogr OUT SOURCE LAYER")
    return "targets" if "targets" in names else (*names, 0)[0]


def clipped(shapes: NDArray[Any], crs: CRS, ring: NDArray[np.float64]) -> NDArray[Any]:
    """Return the parts of valid shapes near a ``ring`` (n, 2): a plane cannot show the Earth."""
    x, y = ring[np.isfinite(ring).all(axis=1)].T
    if crs.is_geographic:
        x = np.unwrap(x, period=TURN)
        if abs(x[-1] - x[0]) > TURN / 2:  # a pole is inside
            x, y = np.array([-TURN / 2, TURN / 2]), np.append(y, np.copysign(TURN / 4, y.mean()))
        shapes = turned(shapes, TURN)
    wide, high = MARGIN * np.ptp(x), MARGIN * np.ptp(y)
    near = shapely.box(x.min() - wide, y.min() - high, x.max() + wide, y.max() + high)
    parts = shapely.intersection(shapes, near)
    return cast("NDArray[Any]", parts[~shapely.is_empty(parts)])


def turn_of(crs: CRS) -> float:
    """Return a turn of the Earth along x in a CRS; 0 if x is not a longitude times a factor."""
    if crs.geodetic_crs is None:
        return 0.0
    degrees = Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True)
    x, _ = degrees.transform(*np.meshgrid([-135.3, -135.2, 45.3, 45.4], [0.0, 45.0]))
    steps = np.diff(x)[:, ::2] * TURN * 10
    even = np.allclose(x[0], x[1]) and np.allclose(steps, steps[0, 0], rtol=1e-6)
    return float(steps[0, 0]) if even else 0.0


def turned(shapes: NDArray[Any], turn: float) -> NDArray[Any]:
    """Return shapes, and the same one turn west and one turn east of them."""
    turns = [shapely.transform(shapes, partial(np.add, [by, 0])) for by in (-turn, 0, turn)]
    return np.concatenate(turns)


def within_a_turn(shapes: NDArray[Any]) -> NDArray[Any]:
    """Return the parts of shapes in degrees on both sides of the antimeridian."""
    parts = shapely.intersection(turned(shapes, TURN), shapely.box(-TURN / 2, -90, TURN / 2, 90))
    return cast("NDArray[Any]", parts[~shapely.is_empty(parts)])


def projected(shapes: NDArray[Any], crs: str | CRS, target: str | CRS) -> NDArray[Any]:
    """Return areas in another CRS, without the parts that it cannot show."""
    source, target = CRS.from_user_input(crs), CRS.from_user_input(target)
    if source.is_geographic and not target.is_geographic:
        shapes = within_a_turn(shapes)  # the edge of a projection may be there
    left, bottom, right, top = shapely.total_bounds(shapes)
    fine = shapely.segmentize(shapes, max(right - left, top - bottom, 1e-9) / STEPS)
    transformer = Transformer.from_crs(source, target, always_xy=True)
    corners = shapely.get_coordinates(fine)
    places = np.stack(transformer.transform(*corners.T), axis=-1)
    round_ = target.is_geographic and not source.is_geographic
    moved = (in_degrees if round_ else replaced)(shapely.force_2d(fine), places)
    return cast("NDArray[Any]", shapely.make_valid(moved[~shapely.is_missing(moved)]))


def to_poles(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return places (..., longitude and latitude) that end at the poles.

    A global grid of points ends half a pixel beyond them.
    """
    return places.clip([-np.inf, -POLE], [np.inf, POLE])


def in_degrees(outlines: NDArray[Any], places: NDArray[np.float64]) -> NDArray[Any]:
    """Return ``outlines`` with vertices at ``places``, valid, and cut at the antimeridian."""
    beyond = np.abs(places[:, :1]) > HALF_TURN
    inside = np.where(beyond & [True, False], wrapped(places), places)
    found = replaced(outlines, inside)
    for k, shape in enumerate(found):
        if shape is None:
            continue
        west, _, east, _ = shape.bounds
        valid = shape if shapely.is_valid(shape) or east - west > HALF_TURN else _mended(shape)
        found[k] = _cut(valid) if east - west > HALF_TURN else valid
    return found


def geojson(shape: Any) -> dict[str, Any] | None:
    """Return a geometry in degrees as GeoJSON with DIGITS decimals or more; None for None."""
    if shape is None:
        return None
    rounded = shapely.transform(shape, lambda xy: xy.round(_decimals(xy)))
    return cast("dict[str, Any]", json.loads(json.dumps(shapely.geometry.mapping(rounded))))


def _decimals(places: NDArray[np.float64]) -> int:
    """Return the decimals that keep the shortest edge to a hundredth: pixels may be of 1 cm."""
    edges = np.abs(np.diff(places, axis=0)).max(axis=1, initial=0)
    if not edges.any():
        return MOST_DIGITS
    least = edges[edges > 0].min()
    return int(np.clip(2 - np.floor(np.log10(least)), DIGITS, MOST_DIGITS))


def _cut(shape: Any) -> Any:
    """Return a polygon that crosses the antimeridian in parts on both sides (RFC 7946)."""
    parts = []
    for part in getattr(shape, "geoms", [shape]):
        holes = shapely.union_all([_area_in(ring) for ring in part.interiors])
        parts.append(shapely.difference(_area_in(part.exterior), holes))
    return _mended(shapely.union_all(parts))


def _area_in(ring: Any) -> Any:
    """Return the area in a ring, within -180 to 180; with the nearer pole if it is around one."""
    x, y = np.asarray(ring.coords).T[:2]
    x = x + TURN * np.rint((np.unwrap(x, period=TURN) - x) / TURN)
    edge = np.copysign(HALF_TURN, x)
    x = np.where(np.abs(x - edge) < SLIVER, edge, x)  # rounding must not make a part
    if abs(x[-1] - x[0]) > HALF_TURN:
        x, y = np.append(x, x[[-1, 0]]), np.append(y, [np.copysign(90, y.mean())] * 2)
    area = shapely.make_valid(shapely.Polygon(np.stack([x, y], axis=-1)))
    return shapely.union_all(within_a_turn(np.array([area])))


def _mended(shape: Any) -> Any:
    """Return the polygons of a valid shape."""
    valid = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    polygons = [g for g in shapely.get_parts(valid) if g.geom_type == "Polygon"]
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)


def replaced(outlines: NDArray[Any], places: NDArray[np.float64]) -> NDArray[Any]:
    """Return outlines with other coordinates; None for those with unknown ones."""
    _, owner = shapely.get_coordinates(outlines, return_index=True)
    unknown = np.unique(owner[~np.isfinite(places).all(axis=1)])
    moved = shapely.set_coordinates(outlines.copy(), np.where(np.isfinite(places), places, 0))
    moved[unknown] = None
    return cast("NDArray[Any]", moved)


def wrapped(longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return longitudes within -180 <= x < 180; those that are in this range keep their bits."""
    outside = (longitude < -HALF_TURN) | (longitude >= HALF_TURN)
    return np.where(outside, (longitude + HALF_TURN) % TURN - HALF_TURN, longitude)


@dataclass(frozen=True, slots=True)
class Area:
    """An area of a scene."""

    wkb: bytes
    """In pixels: x is the column, y the row."""

    @property
    def text(self) -> str:
        """The area as text, for attributes and tags."""
        return b64encode(zlib.compress(self.wkb)).decode()

    @classmethod
    def of_text(cls, text: str) -> Area:
        """Return the area that :attr:`text` describes; raise ValueError if it is damaged."""
        try:
            return cls(zlib.decompress(b64decode(text)))
        except zlib.error as error:
            raise ValueError(f"the area is damaged ({error})") from None

    def inside(self, window: Window) -> NDArray[np.bool_]:
        """Return the mask (y, x) of pixels whose centres are in the area.

        Each centre is compared with the area by itself, so that windows cannot differ; blocks that
        are whole in it, or whole outside, are not looked at.
        """
        area = shapely.from_wkb(self.wkb)
        shapely.prepare(area)
        (top, left), (bottom, right) = (window.row, window.col), window.stop
        inside = np.zeros((window.height, window.width), bool)
        blocks = [(top, left, bottom, right)]
        while blocks:
            r0, c0, r1, c1 = blocks.pop()
            box = shapely.box(c0, r0, c1, r1)
            part = inside[r0 - top : r1 - top, c0 - left : c1 - left]
            if shapely.disjoint(area, box):
                continue
            if shapely.covers(area, box):
                part[:] = True
            elif max(r1 - r0, c1 - c0) <= SQUARE:
                rows, cols = np.mgrid[r0:r1, c0:c1] + 0.5
                part[:] = shapely.contains_xy(area, cols, rows)
            else:
                rows_, cols_ = _halves(r0, r1), _halves(c0, c1)
                blocks += [(a, c, b, d) for a, b in rows_ for c, d in cols_]
        return inside


def _halves(start: int, stop: int) -> list[tuple[int, int]]:
    middle = (start + stop) // 2
    return [(a, b) for a, b in ((start, middle), (middle, stop)) if a < b]
