"""The scores of a swath on a map grid, as a source for a COG.

    positions -> CRS -> map coordinates, in side files -> grid -> blocks of the map

A block is drawn when it is read, from the windows of the swath that reach into it, so that memory
depends neither on the swath nor on the map. It takes 8 bytes per pixel on disk meanwhile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import numpy as np

from uniadrs_scale.core.lattice import Window, pieces
from uniadrs_scale.core.memory import give_freed_memory_back
from uniadrs_scale.errors import PlanError, StoreError
from uniadrs_scale.swaths.axes import TURN
from uniadrs_scale.swaths.conventions import (
    GEOLOCATION,
    control_points,
    geolocation_kind,
    pixel_centres,
)
from uniadrs_scale.swaths.footprints import Placer, require_shown, splat
from uniadrs_scale.swaths.geometry import (
    APART,
    ControlSurface,
    Extent,
    Geocoding,
    Projection,
    grid_around,
    misplaced,
    parse_crs,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import zarr
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

    from uniadrs_scale.core.layers import Layer
    from uniadrs_scale.maps.store import ScoreMap
    from uniadrs_scale.swaths.footprints import Floats, PlacedWindow, Positions

T = TypeVar("T")
POLE = 90.0
"""Degrees of latitude."""
SIDE = 512
"""About the side of the windows of a swath, in pixels: whole chunks of the store."""
SAMPLES = 1 << 17
"""About how many pixels tell where on Earth the swath is. Every 8th, as before, took 190 MiB for
20,000 x 4,000."""
TEAR = 0.5
"""Share of the map's extent that two neighbouring pixels are never apart."""
MOST_FILL = 64
"""Positions of one window that may be taken for fill."""
FEW = 32
"""Pixels' spacings in an extent that is too small to tell a tear."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GeocodedScores:
    """The map of a swath, drawn when it is read."""

    threads: ClassVar[int | None] = 1
    """Threads that may read at once: each takes 50 MB."""
    name: str
    geobox: GeoBox
    tags: dict[str, str]
    scores: ScoreMap
    """In sensor geometry."""
    origin: tuple[float, float]
    """X and y from which the windows' places are counted, so that float32 holds them."""
    windows: tuple[PlacedWindow, ...]
    keep_maximum: bool
    notes: tuple[str, ...]
    """Sentences about pixels that are left out."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of the swath."""
        return self.scores.layers

    def read(self, rows: slice, cols: slice) -> NDArray[np.float32]:
        """Return the map (layer, y, x) of a window of cells; NaN outside the swath.

        Raises:
            StoreError: A chunk of the store is damaged.
        """
        shape = rows.stop - rows.start, cols.stop - cols.start
        value = np.full((len(self.layers), *shape), np.nan, np.float32)
        rank = np.full(value.shape, np.inf, np.float32)
        corner = self.geobox.affine
        left = (corner.c - self.origin[0]) / corner.a + cols.start
        top = (corner.f - self.origin[1]) / corner.a - rows.start
        for placed in self.windows:
            first_col, last_row, last_col, first_row = placed.bounds / corner.a
            reach = 2 * placed.widest / corner.a
            if not (
                first_col - left <= shape[1] + reach
                and last_col - left >= -reach
                and top - first_row <= shape[0] + reach
                and top - last_row >= -reach
            ):
                continue
            x, y = np.load(placed.path).astype(np.float64)
            place = np.stack([top - y / corner.a, x / corner.a - left])
            scores = self.scores.read(*placed.window.slices)
            for number, (score, layer) in enumerate(zip(scores, self.layers, strict=True)):
                highest = self.keep_maximum and layer.pooled == "max"
                splat(value[number], rank[number], score, place, reach, highest)
        return value


def on_a_grid(source: ScoreMap, geocoding: Geocoding, folder: Path) -> ScoreMap | GeocodedScores:
    """Return ``source`` itself if it is on a grid, else its scores on a map.

    The folder keeps the places of pixels while the map is read.

    Raises:
        PlanError: CRS or resolution are asked for but there is nothing to geocode, or they do not
            suit the swath.
        StoreError: No pixel of the swath has a position.
    """
    positions = positions_of(source)
    if positions is None:
        if geocoding != Geocoding():
            raise PlanError(
                f"'{source.name}' is not the map of a swath (2-D latitude and longitude, or ground "
                "control points), so it has nothing to geocode. Drop CRS, resolution and "
                "resampling, and warp the finished file (rio warp)."
            )
        return source
    extent, fill = _extent(source, positions)
    projection = Projection.into(
        extent.crs if geocoding.crs is None else parse_crs(geocoding.crs), extent.longitude
    )
    middle = projection.apply(np.array([extent.latitude]), np.array([extent.longitude]))
    origin = float(middle[0][0]), float(middle[1][0])
    require_shown(projection, shown=all(map(math.isfinite, origin)))
    placer = Placer(
        positions=positions,
        projection=projection,
        origin=origin,
        shape=source.frame.shape,
        folder=folder,
        fill=fill,
    )
    windows = tuple(_each(placer.place, _windows(source)))
    return GeocodedScores(
        name=source.name,
        geobox=_grid(windows, origin, projection, geocoding, source),
        tags=source.tags | {"geocoding": geocoding.text},
        scores=source,
        origin=origin,
        windows=tuple(w for w in windows if np.isfinite(w.bounds).all()),
        keep_maximum=geocoding.resampling == "max",
        notes=_dropped(windows, source),
    )


def positions_of(source: ScoreMap) -> Positions | None:
    """Return the places of the pixels of a store; None if it is not a swath."""
    kind = geolocation_kind(source.frame)
    if kind is None:
        return None
    if kind == "points":
        rows, cols = pixel_centres(source.frame)
        surface = ControlSurface.through(control_points(source.frame), rows, cols)
        return lambda y, x: surface.at(rows[y], cols[x])
    latitude, longitude = (cast("zarr.Array[Any]", source.group[name]) for name in GEOLOCATION)

    def stored(y: slice, x: slice) -> tuple[Floats, Floats]:
        north, east = (np.asarray(part[y, x], np.float64) for part in (latitude, longitude))
        known = (np.abs(north) <= POLE) & (np.abs(east) <= TURN)  # not -999
        return np.where(known, north, np.nan), np.where(known, east, np.nan)

    return stored


def _dropped(windows: Sequence[PlacedWindow], source: ScoreMap) -> tuple[str, ...]:
    """Return a note about pixels whose positions cannot be true, if there are any."""
    dropped = sum(window.dropped for window in windows)
    note = (
        f"{dropped} of {math.prod(source.frame.shape)} pixels are left out of the map: their "
        f"latitude and longitude are more than {APART} pixels away from those of all their "
        "neighbours. Check the scene's geolocation if they matter."
    )
    return (note,) if dropped else ()


def _windows(source: ScoreMap) -> Iterator[Window]:
    """Return the swath in windows of whole chunks, row by row."""
    return pieces(source.frame.shape, (n * max(1, SIDE // n) for n in source.array().chunks))


def _each(function: Callable[[Window], T], windows: Iterable[Window]) -> Iterator[T]:
    """Yield the result for each window; what it freed goes back to the system, not to fragments."""
    for window in windows:
        yield function(window)
        give_freed_memory_back()


def _extent(source: ScoreMap, positions: Positions) -> tuple[Extent, NDArray[np.complex128]]:
    """Return where on Earth the swath is, and positions of it that stand for none.

    From a sample of its pixels: as many whatever its size.
    """
    windows = list(_windows(source))
    side = max(2, math.isqrt(SAMPLES // len(windows)))
    samples, fill = [], set[complex]()
    for latitude, longitude in _each(lambda window: positions(*window.slices), windows):
        wrong = misplaced(latitude, longitude)
        fill |= set((longitude[wrong] + 1j * latitude[wrong])[:MOST_FILL].tolist())
        latitude[wrong] = np.nan
        samples.append(_sample(np.stack([latitude, longitude]), side))
    latitude, longitude = np.concatenate(samples, axis=1)
    known = np.array(list(fill), np.complex128)
    latitude[np.isin(longitude + 1j * latitude, known)] = np.nan
    if not np.isfinite(latitude).any():
        raise StoreError(
            f"No pixel of '{source.name}' has a latitude within 90 and a longitude within 360 "
            "degrees: its map cannot be drawn. Check the scene's geolocation."
        )
    return Extent.of(latitude, longitude), known


def _sample(places: Floats, side: int) -> Floats:
    """Return (2, n) of (2, y, x) places: about ``side`` rows and columns, the outer ones included.

    If nothing is known there, as many of those that are known elsewhere.
    """
    rows, cols = (np.unique(np.linspace(0, n - 1, side, dtype=int)) for n in places.shape[1:])
    sample = places[:, rows[:, None], cols].reshape(2, -1)
    if np.isfinite(sample).all(axis=0).any():
        return sample
    known = np.flatnonzero(np.isfinite(places).all(axis=0))
    return places.reshape(2, -1)[:, known[:: max(1, known.size // side**2)]]


def _grid(
    windows: tuple[PlacedWindow, ...],
    origin: tuple[float, float],
    projection: Projection,
    geocoding: Geocoding,
    source: ScoreMap,
) -> GeoBox:
    """Return the cells of the map: as asked for, or as large as the median pixel."""
    half = np.array([np.nanmax(w.spacing, initial=0) / 2 for w in windows])[:, None]
    bounds = np.array([w.bounds for w in windows])
    left, bottom = np.nanmin(bounds[:, :2] - half, axis=0)
    right, top = np.nanmax(bounds[:, 2:] + half, axis=0)
    spacing = _typical([w.spacing for w in windows])
    extent, widest = max(right - left, top - bottom), max(w.widest for w in windows)
    if widest > TEAR * extent and extent > FEW * spacing:
        raise PlanError(
            f"{projection.crs.name} tears the swath apart: two neighbouring pixels are "
            f"{widest:.6g} of its units apart, as at the antimeridian or a pole. Name another CRS "
            "(UTM, or polar stereographic: EPSG:3995 in the north, EPSG:3031 in the south)."
        )
    resolution = float(f"{spacing:.3g}") if geocoding.resolution is None else geocoding.resolution
    if not resolution > 0:
        raise PlanError(
            f"The spacing of the pixels of '{source.name}' is unknown: no two neighbours have a "
            "position. Give a resolution in units of the CRS."
        )
    outline = np.array([left, bottom, right, top]) + np.tile(origin, 2)
    pixels = math.prod(source.frame.shape)
    return grid_around(outline, resolution, projection.crs, pixels)


def _typical(spacings: Sequence[Floats]) -> float:
    """Return the side of a square as large as the median pixel; NaN without known neighbours."""
    down, right = np.array(spacings).T
    sides = [np.median(steps[steps > 0]) for steps in (down, right) if (steps > 0).any()]
    return float(np.prod(sides) ** (1 / len(sides))) if sides else np.nan
