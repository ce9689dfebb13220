"""Measures of objects: sizes on the ground in metres, and contrasts to their surroundings.

Sizes are measured in the plane around an object's peak that keeps geodesic distances and directions
from it (azimuthal equidistant). At 500 km from the peak it is off by 0.1 %, so that map units,
which overstate areas 1.6 times at 38 degrees north in EPSG:3857, do not matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from scipy import ndimage

from uniadrs_scale.core.lattice import Window
from uniadrs_scale.objects.components import BOX, EIGHT, box_of
from uniadrs_scale.scenes.areas import HALF_TURN, replaced
from uniadrs_scale.scenes.grids import ELLIPSOID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import SceneSource
    from uniadrs_scale.maps.finished import RasterMap
    from uniadrs_scale.maps.store import ScoreMap
    from uniadrs_scale.objects.components import Columns, Cut
    from uniadrs_scale.objects.ground import Floats, Ground

FEW = 5
"""Pixels below which second moments say more of a shape than its outline."""
SIGMAS = 4
"""A uniform line is 3.5 of its standard deviations long, a uniform ellipse 4."""
MOMENTS = (("cols2", "cols", "cols"), ("rows2", "rows", "rows"), ("products", "rows", "cols"))
"""Columns of a sum of products and of its two factors: along columns, along rows, mixed."""


def with_boxes(table: Columns) -> NDArray[Any]:
    """Return the outlines of objects; the box for those beyond the limit."""
    outlines: NDArray[Any] = table["outline"].copy()
    for k in np.flatnonzero([outline is None for outline in outlines]):
        outlines[k] = box_of([table[name][k] for name in BOX])
    return outlines


def measured(table: Columns, outlines: NDArray[Any], ground: Ground) -> dict[str, Floats]:
    """Return ``lon``, ``lat``, ``area_m2``, ``length_m``, ``width_m``, ``orientation_deg``.

    NaN if the map has no CRS, or the position is unknown. Length and width are those of the
    smallest rectangle around the outline; below FEW pixels, and for objects without an outline,
    SIGMAS standard deviations of the pixels. Orientation is that of the length, 0 <= x < 180
    degrees clockwise from north.
    """
    peaks = ground.centres(table["peak_col"], table["peak_row"])
    corners, owner = shapely.get_coordinates(outlines, return_index=True)
    plane = _plane(peaks[owner], ground.corners(*corners.T))
    flat = replaced(outlines, plane)
    area = shapely.area(flat)  # NaN for None
    pixels = table["pixels"].astype(np.float64)
    has_outline = np.array([outline is not None for outline in table["outline"]], bool)
    area = np.where(has_outline, area, area * (pixels / np.maximum(shapely.area(outlines), 1)))
    by_moments = ~has_outline | (pixels < FEW)
    envelope, moments = _rectangles(flat), _ellipses(table, peaks, ground)
    length, width, orientation = np.where(by_moments, moments, envelope)
    size = {"area_m2": area, "length_m": length, "width_m": width, "orientation_deg": orientation}
    return {"lon": peaks[:, 0], "lat": peaks[:, 1], **size}


def _plane(origin: Floats, places: Floats) -> Floats:
    """Return (n, 2) metres east and north of the origins (n, 2) in degrees."""
    known = np.isfinite(origin).all(axis=1) & np.isfinite(places).all(axis=1)
    plane = np.full(places.shape, np.nan)
    azimuth, _, distance = ELLIPSOID.inv(*origin[known].T, *places[known].T)
    turn = np.radians(azimuth)
    plane[known] = np.stack([distance * np.sin(turn), distance * np.cos(turn)], axis=-1)
    return plane


def _rectangles(flat: NDArray[Any]) -> Floats:
    """Return (3, n) length, width and orientation of the smallest rectangles around shapes."""
    sizes = np.full((3, len(flat)), np.nan)
    for k, shape in enumerate(shapely.oriented_envelope(flat)):
        if shape is not None and shape.geom_type == "Polygon":
            sides = np.diff(shapely.get_coordinates(shape)[:3], axis=0)
            lengths = np.hypot(*sides.T)
            east, north = sides[np.argmax(lengths)]
            sizes[:, k] = lengths.max(), lengths.min(), _bearing(east, north)
    return sizes


def _ellipses(table: Columns, peaks: Floats, ground: Ground) -> Floats:
    """Return (3, n) length, width and orientation by second moments, of a pixel's area too."""
    n = table["pixels"]
    square = (n * n).astype(np.float64)
    variances = (
        (n * table[two] - table[one] * table[other]).astype(np.float64) / square
        for two, one, other in MOMENTS
    )
    across, down, mixed = variances
    spread = np.moveaxis(np.array([[across + 1 / 12, mixed], [mixed, down + 1 / 12]]), -1, 0)
    # The sides of the pixel at the peak, in metres.
    cols, rows = (table[name].astype(np.float64) for name in ("peak_col", "peak_row"))
    at = [_plane(peaks, ground.corners(cols + x, rows + y)) for y in (0, 1) for x in (0, 1)]
    right, below = (at[1] - at[0] + at[3] - at[2]) / 2, (at[2] - at[0] + at[3] - at[1]) / 2
    sides = np.stack([right, below], axis=-1)
    sizes = np.full((3, len(n)), np.nan)
    for k in np.flatnonzero(np.isfinite(sides).all(axis=(1, 2))):
        values, axes = np.linalg.eigh(sides[k] @ spread[k] @ sides[k].T)
        width, length = SIGMAS * np.sqrt(np.maximum(values, 0))
        sizes[:, k] = length, width, _bearing(*axes[:, 1])
    return sizes


def _bearing(east: float, north: float) -> float:
    return float(np.degrees(np.arctan2(east, north)) % HALF_TURN)


MOST_BANDS = 16
"""Bands beyond which three components stand for all of them."""
COMPONENTS = 3
GAP, REACH = 2, 7
"""The ring around a target: pixels farther than GAP and at most REACH from it."""
WIDEST = 512
"""Side of a target's box beyond which its contrast is not measured [px]."""
FEW_AROUND = 8
"""Pixels of a ring below which it says nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A scene, and the weighted sums of its bands that are measured."""

    source: SceneSource
    names: tuple[str, ...]
    weights: NDArray[np.float64] | None
    """(component, band); None for the bands themselves."""

    def read(self, window: Window) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return values (name, y, x) and valid mask (y, x)."""
        pixels, valid = self.source.window(window).read()
        values = np.where(valid, pixels, 0).astype(np.float64)
        if self.weights is not None:
            values = np.tensordot(self.weights, values, axes=1)
        return values, valid


def view_of(source: SceneSource) -> View:
    """Return the view of a scene: its bands, or components of many bands."""
    bands = source.info.bands
    if len(bands) <= MOST_BANDS:
        return View(source, column_names(bands), None)
    return View(source, tuple(f"component{k + 1}" for k in range(COMPONENTS)), _leading(source))


def contrasts_of(
    table: Columns, view: View, opened: ScoreMap | RasterMap, cut: Cut
) -> dict[str, NDArray[np.float32]]:
    """Return ``contrast_NAME``: (object mean - ring mean) / ring deviation; NaN if unknown.

    The ring has only valid pixels with a score below ``grow``, of no target.
    """
    found = np.full((len(view.names), len(table["edge"])), np.nan, np.float32)
    shape = opened.geobox.shape
    boxes = np.stack([table[name] for name in BOX], axis=-1)
    # By place, so that neighbours are read from the same blocks of a file.
    for k in np.lexsort((boxes[:, 1] // WIDEST, boxes[:, 0] // WIDEST)):
        row0, col0, row1, col1 = boxes[k].tolist()
        if max(row1 - row0, col1 - col0) > WIDEST:
            continue
        row, col = max(row0 - REACH, 0), max(col0 - REACH, 0)
        stop = min(row1 + REACH, shape[0]), min(col1 + REACH, shape[1])
        window = Window(row, col, stop[0] - row, stop[1] - col)
        score = opened.read(*window.slices)[0]
        labels, _ = ndimage.label(score >= np.float32(cut.grow), EIGHT)
        body = labels == labels[table["peak_row"][k] - row, table["peak_col"][k] - col]
        found[:, k] = _contrast(*view.read(window), body, score < np.float32(cut.grow))
    return {f"contrast_{name}": line for name, line in zip(view.names, found, strict=True)}


def _contrast(
    values: NDArray[np.float64],
    valid: NDArray[np.bool_],
    body: NDArray[np.bool_],
    background: NDArray[np.bool_],
) -> Any:
    near = ndimage.binary_dilation(body, EIGHT, iterations=GAP)
    far = ndimage.binary_dilation(body, EIGHT, iterations=REACH)
    ring, inside = far & ~near & background & valid, body & valid
    if np.count_nonzero(ring) < FEW_AROUND or not inside.any():
        return np.nan
    around = values[:, ring]
    deviation = around.std(axis=1)
    difference = values[:, inside].mean(axis=1) - around.mean(axis=1)
    return np.divide(difference, deviation, out=np.full(len(values), np.nan), where=deviation > 0)


def _leading(source: SceneSource) -> NDArray[np.float64]:
    """Return the weights (component, band) of the leading components of a sample of the scene.

    Of each, the largest weight is positive.
    """
    height, width = source.info.height, source.info.width
    parts = []
    for row in np.linspace(0, max(height - 64, 0), 6, dtype=int):
        for col in np.linspace(0, max(width - 64, 0), 6, dtype=int):
            window = Window(int(row), int(col), min(64, height), min(64, width))
            pixels, valid = source.window(window).read()
            parts.append(pixels[:, valid].astype(np.float64))
    sample = np.concatenate(parts, axis=1)
    _, axes = np.linalg.eigh(np.cov(sample) if sample.shape[1] > 1 else np.eye(len(sample)))
    weights = axes[:, ::-1][:, :COMPONENTS].T
    signs = np.sign(weights[np.arange(COMPONENTS), np.argmax(np.abs(weights), axis=1)])
    return np.asarray(weights * signs[:, None], np.float64)


def column_names(bands: Sequence[str]) -> tuple[str, ...]:
    """Return parts of names of columns, all different: databases ignore upper and lower case.

    >>> column_names(["a b", "A-b", "c"])
    ('a_b_1', 'A_b_2', 'c')
    """
    names = [_plain(band) for band in bands]
    lower = [name.lower() for name in names]
    if len({*lower}) == len(lower):
        return tuple(names)
    marked = [f"{n}_{k}" if lower.count(n.lower()) > 1 else n for k, n in enumerate(names, 1)]
    clear = len({name.lower() for name in marked}) == len(marked)
    return tuple(marked if clear else (f"band_{k}" for k in range(1, len(names) + 1)))


def _plain(band: str) -> str:
    """Return the name of a band as part of a column's name."""
    return re.sub(r"\W+", "_", band).strip("_") or "band"
