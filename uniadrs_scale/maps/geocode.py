"""The scores of a swath as they lie on a map: a source for a COG like a store on a grid.

    positions -> CRS -> map coordinates, in side files -> grid -> blocks of the map

A block is drawn when it is read, from the windows of the swath that reach into it, so that memory
depends neither on the swath nor on the map. On disk it takes 8 bytes a pixel while it lasts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import rasterio
import xarray as xr

from uniadrs_scale.core.lattice import Window
from uniadrs_scale.errors import PlanError, StoreError
from uniadrs_scale.maps.placing import Placer, require_shown
from uniadrs_scale.maps.reader import grid_mapping
from uniadrs_scale.storage.buckets import zarr_place
from uniadrs_scale.swaths.conventions import (
    GEOLOCATION,
    control_points,
    geolocation_kind,
    pixel_centres,
)
from uniadrs_scale.swaths.footprints import splat
from uniadrs_scale.swaths.geometry import (
    ControlSurface,
    Extent,
    Geocoding,
    OutputGrid,
    Projection,
    parse_crs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import zarr
    from numpy.typing import NDArray

    from uniadrs_scale.maps.placing import Floats, PlacedWindow, Positions
    from uniadrs_scale.maps.reader import ScoreSource


SIDE = 512
"""Of the windows in which a swath is handled, in pixels, about: whole chunks of the store."""
SAMPLES = 1 << 17
"""About how many pixels tell where on Earth the swath is. Every 8th, as before, took 190 MiB for
20,000 x 4,000."""
TEAR = 0.5
"""The share of the map's extent that two neighbouring pixels do not lie apart."""
FEW = 32
"""Pixels' spacings in an extent that is too small to tell a tear."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GeocodedScores:
    """The map of a swath, drawn where it is read."""

    readers: ClassVar = 1
    """Threads that may read at once: each takes 50 MB."""
    name: str
    profile: dict[str, Any]
    tags: dict[str, str]
    scores: ScoreSource
    """In sensor geometry."""
    grid: OutputGrid
    origin: tuple[float, float]
    """X and y from which the windows' places are counted, so that float32 holds them."""
    windows: tuple[PlacedWindow, ...]
    keep_maximum: bool

    def read(self, rows: slice, cols: slice) -> NDArray[np.float32]:
        """The map (y, x) of a window of cells; NaN outside the swath.

        Raises:
            StoreError: A chunk of the store is damaged.
        """
        shape = rows.stop - rows.start, cols.stop - cols.start
        value, rank = np.full(shape, np.nan, np.float32), np.full(shape, np.inf, np.float32)
        size = self.grid.resolution
        left = (self.grid.left - self.origin[0]) / size + cols.start
        top = (self.grid.top - self.origin[1]) / size - rows.start
        for placed in self.windows:
            first_col, last_row, last_col, first_row = placed.bounds / size
            reach = 2 * placed.widest / size
            if not (
                first_col - left <= shape[1] + reach
                and last_col - left >= -reach
                and top - first_row <= shape[0] + reach
                and top - last_row >= -reach
            ):
                continue
            x, y = np.load(placed.path).astype(np.float64)
            place = np.stack([top - y / size, x / size - left])
            score = self.scores.read(*placed.window.slices)
            splat(value, rank, score, place, reach, self.keep_maximum)
        return value


def on_a_grid(
    source: ScoreSource, geocoding: Geocoding, folder: Path
) -> ScoreSource | GeocodedScores:
    """``source`` itself if it is on a grid, else its scores as they lie on a map.

    Args:
        source: The store.
        geocoding: How the map of a swath is to be drawn.
        folder: Where to keep the places of pixels while the map is read.

    Raises:
        PlanError: CRS or resolution are asked for but there is nothing to geocode, or they do not
            suit the swath.
        StoreError: No pixel of the swath has a position.
    """
    positions = _positions(source)
    if positions is None:
        if geocoding != Geocoding():
            raise PlanError(
                f"'{source.name}' is not the map of a swath (2-D latitude and longitude, or ground "
                "control points), so it has nothing to geocode. Leave CRS, resolution and "
                "resampling away, and warp the finished file (rio warp)."
            )
        return source
    extent = _extent(source, positions)
    projection = Projection.into(
        extent.crs if geocoding.crs is None else parse_crs(geocoding.crs), extent.longitude
    )
    middle = projection.apply(np.array([extent.latitude]), np.array([extent.longitude]))
    origin = float(middle[0][0]), float(middle[1][0])
    require_shown(all(map(math.isfinite, origin)), projection)
    placer = Placer(
        positions=positions,
        projection=projection,
        origin=origin,
        shape=source.score.shape,
        folder=folder,
    )
    windows = tuple(map(placer.place, _windows(source)))
    grid = _grid(windows, origin, projection, geocoding, source)
    placement = {
        "height": grid.height,
        "width": grid.width,
        "transform": grid.transform,
        "crs": rasterio.CRS.from_user_input(grid.crs),
    }
    return GeocodedScores(
        name=source.name,
        profile=placement,
        tags=source.tags | {"geocoding": geocoding.text},
        scores=source,
        grid=grid,
        origin=origin,
        windows=tuple(w for w in windows if np.isfinite(w.bounds).all()),
        keep_maximum=geocoding.resampling == "max",
    )


def _positions(source: ScoreSource) -> Positions | None:
    """Where the pixels of a store are; None where it is no swath."""
    group = source.group
    if not _may_be_swath(source):
        return None
    place = zarr_place(source.name, read_only=True)
    with xr.open_zarr(place, consolidated=False, chunks=None, decode_coords="all") as dataset:
        score = dataset["score"]
        kind = geolocation_kind(score)
        if kind == "points":
            rows, cols = pixel_centres(score)
            surface = ControlSurface.through(control_points(score), rows, cols)
            return lambda y, x: surface.at(rows[y], cols[x])
    if kind is None:
        return None
    latitude, longitude = (cast("zarr.Array[Any]", group[name]) for name in GEOLOCATION)

    def stored(y: slice, x: slice) -> tuple[Floats, Floats]:
        north, east = (np.asarray(part[y, x], np.float64) for part in (latitude, longitude))
        known = (np.abs(north) <= 90) & (np.abs(east) <= 360)  # noqa: PLR2004 - degrees; not -999
        return np.where(known, north, np.nan), np.where(known, east, np.nan)

    return stored


def _may_be_swath(source: ScoreSource) -> bool:
    """False where the store plainly has no geolocation; opening it with xarray costs 40 ms."""
    if all(name in source.group for name in GEOLOCATION):
        return True
    mapping = source.group.get(grid_mapping(source.score))
    return mapping is not None and "gcps" in mapping.attrs


def _windows(source: ScoreSource) -> Iterator[Window]:
    """The swath in windows of whole chunks, row by row."""
    height, width = source.score.shape
    side_y, side_x = (n * max(1, SIDE // n) for n in source.score.chunks)
    for row, col in product(range(0, height, side_y), range(0, width, side_x)):
        yield Window(row, col, min(side_y, height - row), min(side_x, width - col))


def _extent(source: ScoreSource, positions: Positions) -> Extent:
    """Where on Earth the swath is, from a sample of its pixels: as many whatever its size."""
    windows = list(_windows(source))
    side = max(2, math.isqrt(SAMPLES // len(windows)))
    samples = [_sample(np.stack(positions(*window.slices)), side) for window in windows]
    latitude, longitude = np.concatenate(samples, axis=1)
    if not np.isfinite(latitude).any():
        raise StoreError(
            f"No pixel of '{source.name}' has a latitude within 90 and a longitude within 360 "
            "degrees: its map cannot be drawn. Check the scene's geolocation."
        )
    return Extent.of(latitude, longitude)


def _sample(places: Floats, side: int) -> Floats:
    """Of (2, y, x) places about ``side`` rows and columns, first and last ones among them, as
    (2, n); where nothing is known there, as many of those that are known elsewhere.
    """  # noqa: D205 - one sentence
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
    source: ScoreSource,
) -> OutputGrid:
    """The cells of the map: as asked for, or as large as the median pixel."""
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
    pixels = math.prod(source.score.shape)
    return OutputGrid.around(outline, resolution, projection.crs, pixels)


def _typical(spacings: Sequence[Floats]) -> float:
    """Side of a square as large as the median pixel; NaN where no two neighbours are known."""
    down, right = np.array(spacings).T
    sides = [np.median(steps[steps > 0]) for steps in (down, right) if (steps > 0).any()]
    return float(np.prod(sides) ** (1 / len(sides))) if sides else np.nan
