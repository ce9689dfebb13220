"""Truth for a map: labels as a raster or as vectors, on the grid of the map, window by window."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from affine import Affine
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT

from uniadrs_scale.core.machine import vectors
from uniadrs_scale.errors import SceneError, gist
from uniadrs_scale.scenes.areas import frame_shapes, is_frame, only_layer, turn_of
from uniadrs_scale.scenes.grids import same_crs
from uniadrs_scale.scenes.vrt import require_whole
from uniadrs_scale.storage.trust import open_raster
from uniadrs_scale.storage.urls import canonical

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox
    from rasterio.windows import Window

VECTORS = (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".parquet", ".kml")
REAL, FALSE, UNSURE = 1, 2, 4
"""Kinds of labelled pixels, as bits."""
OURS = {"target_id", "score_max"}
"""Columns of a list that `targets` wrote."""
FOUND = (
    "The truth is a list of targets that were found in a map, not labels: the list of this very "
    "map is found whole, and says nothing about it."
)
MARKED = (
    "The truth is marks: AP, found objects and precision tell of marked places only. Objects that "
    "neither the map nor the reviewer saw are not counted as missed."
)
EDGE = 0.02
"""Pixels by which shapes with an area are smaller than in the file."""
MARKS = {"real": REAL, "false": FALSE, "unsure": UNSURE}
MARK = "mark"
"""The property of a feature that a reviewer has judged."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A window of truth."""

    kinds: NDArray[np.uint8]
    """(y, x) bits."""
    counted: NDArray[np.bool_]
    """(y, x), True if labels are known."""
    objects: NDArray[np.int32] | None
    """(y, x) number of the real object from 1, 0 for none; None if touching pixels are one."""


@dataclass(frozen=True, slots=True, eq=False)
class RasterTruth:
    """A raster whose nonzero pixels are anomalies; its nodata and what is beyond do not count."""

    dataset: Any
    known: bool
    """Whether pixels without data are not counted."""
    marked: bool = False
    notes: tuple[str, ...] = ()
    number: None = None
    """Objects touch nowhere, so their number is not known in advance."""

    def read(self, window: Window) -> Labels:
        """Read a window of the map's grid."""
        try:
            (values,) = self.dataset.read([1], window=window)
            shown = self.dataset.read_masks(1, window=window) > 0
        except RasterioError as error:
            raise SceneError(f"The truth cannot be read ({gist(error)}). Check the file.") from None
        counted = shown if self.known else np.ones(values.shape, bool)
        real = (np.nan_to_num(values) != 0) & counted
        return Labels(np.where(real, np.uint8(REAL), np.uint8(0)), counted, None)


@dataclass(frozen=True, slots=True, eq=False)
class VectorTruth:
    """Shapes in the CRS of the map; a pixel that a shape touches belongs to it."""

    shapes: NDArray[np.object_]
    """Large ones first, so that small ones in them are seen."""
    kinds: NDArray[np.uint8]
    tree: shapely.STRtree
    transform: Affine
    marked: bool
    """Whether a reviewer has judged the shapes: nothing else is then known."""
    notes: tuple[str, ...]
    """Sentences about shapes that are not labels."""

    @property
    def number(self) -> int:
        """Number of shapes."""
        return len(self.shapes)

    def read(self, window: Window) -> Labels:
        """Draw the shapes of a window of the map's grid."""
        (top, bottom), (left, right) = window.toranges()
        corners = [self.transform @ (x, y) for x in (left, right) for y in (top, bottom)]
        (west, south), (east, north) = np.min(corners, axis=0), np.max(corners, axis=0)
        near = np.sort(self.tree.query(shapely.box(west, south, east, north)))
        shape = bottom - top, right - left
        ids = np.zeros(shape, np.int32)
        if near.size:
            place = self.transform @ self.transform.translation(left, top)
            drawn = zip(self.shapes[near], (near + 1).tolist(), strict=True)
            ids = rasterize(drawn, shape, transform=place, all_touched=True, dtype="int32")
        kinds = np.append(np.uint8(0), self.kinds)[ids]
        objects = np.where(kinds == REAL, ids, 0)
        return Labels(kinds, np.ones(shape, bool), objects.astype(np.int32))


def open_truth(path: Any, grid: GeoBox, name: str) -> RasterTruth | VectorTruth:
    """Return the labels in a file or a GeoDataFrame, on the grid of the map ``name``.

    Raises:
        SceneError: The labels cannot be read, or their place on the map is unknown.
    """
    if is_frame(path):
        return _vectors(path, grid, name)
    if not isinstance(path, str | Path):
        raise SceneError(
            f"A truth is a raster file, a vector file or a GeoDataFrame, got {type(path).__name__}."
            " Write an array to a file: truth.rio.to_raster('truth.tif')."
        )
    if str(path).encode(errors="replace").decode() != str(path):
        raise SceneError(f"The name {str(path)!a} is not UTF-8. Rename the file.")
    if str(path).lower().endswith(VECTORS):
        return _vectors(str(path), grid, name)
    try:
        dataset = open_raster(canonical(str(path)))
    except RasterioError as error:
        raise SceneError(
            f"Truth '{path}' is neither a raster nor vectors ({gist(error)}). Give a raster, or "
            f"{_endings()}."
        ) from None
    require_whole(dataset, str(path))
    if sum(band != ColorInterp.alpha for band in dataset.colorinterp) > 1:
        raise SceneError(
            f"Truth '{path}' has {dataset.count} bands, and labels are one band: is it the scene? "
            "Give the band of the labels (gdal_translate -b 1)."
        )
    # A mask often names 0, its background, as nodata.
    known = dataset.nodata is not None and dataset.nodata != 0
    one_crs = dataset.crs and grid.crs and same_crs(dataset.crs.to_wkt(), grid.crs.to_wkt())
    turns = _turns((dataset.bounds.left + dataset.bounds.right) / 2, grid) if one_crs else 0
    place = Affine.translation(turns, 0) @ dataset.transform
    unplaced = dataset.crs is None or grid.crs is None or dataset.transform.is_identity
    same = one_crs and place.almost_equals(grid.affine, abs(grid.affine.a) * 1e-3)
    if dataset.shape == tuple(grid.shape) and (same or unplaced):
        return RasterTruth(dataset, known)
    if dataset.crs is None or grid.crs is None:
        raise SceneError(
            f"Truth '{path}' has {dataset.shape[0]} x {dataset.shape[1]} px and map '{name}' "
            f"{grid.shape[0]} x {grid.shape[1]} px, and one of them has no CRS. Give a truth of "
            "the map's size, or both with a CRS (a swath: its COG)."
        )
    _way(dataset.crs, grid.crs.to_wkt(), f"Truth '{path}' has no place on map '{name}'")
    alpha = ColorInterp.alpha in dataset.colorinterp
    warped = WarpedVRT(
        dataset,
        src_transform=place,
        crs=grid.crs.to_wkt(),
        transform=grid.affine,
        height=grid.shape[0],
        width=grid.shape[1],
        # A label of one fine pixel must not be lost between coarse ones.
        resampling=Resampling.max,
        nodata=dataset.nodata if known else None,
        # Beyond the raster nothing is known: not 0.
        add_alpha=not (known or alpha),
        src_nodata=dataset.nodata if known else None,
    )
    return RasterTruth(warped, known or not alpha)


def _vectors(given: Any, grid: GeoBox, name: str) -> VectorTruth:
    """Return the shapes of a file or a GeoDataFrame in the CRS of the map."""
    path = type(given).__name__ if is_frame(given) else given
    if grid.crs is None:
        raise SceneError(
            f"Map '{name}' has no CRS, so the shapes of '{path}' have no place on it. Give a "
            "raster of the map's size; or the COG of a swath, which has a CRS."
        )
    shapes, crs, marks, fields = _read(given, path)
    if crs is None:
        raise SceneError(f"Truth '{path}' has no CRS. Write it into the file (ogr2ogr -a_srs).")
    to_map = _way(crs, grid.crs.to_wkt(), f"Truth '{path}' has no place on map '{name}'")
    moved = shapely.transform(
        shapely.force_2d(shapes), lambda xy: np.stack(to_map.transform(*xy.T), axis=-1)
    )
    placed = np.isfinite(shapely.bounds(moved)).all(axis=-1)
    moved = _next_to(moved[placed], grid)
    # A shape along the edges of pixels must not reach the next ones by rounding.
    inner = shapely.buffer(moved, -EDGE * abs(grid.affine.determinant) ** 0.5, join_style="mitre")
    moved = np.where(shapely.is_empty(inner) | ~shapely.is_valid(moved), moved, inner)
    order = np.argsort(-shapely.area(moved), kind="stable")
    moved, kinds = moved[order], marks[placed][order]
    tree = shapely.STRtree(moved)
    extent = grid.extent.geom
    if not tree.query(extent).size:
        raise SceneError(
            f"None of the {len(shapes)} shapes of '{path}' is on map '{name}'. Check the CRS of "
            "the file, and that it belongs to this map."
        )
    marked = MARK in fields
    notes = (MARKED,) if marked else (FOUND,) if fields >= OURS else ()
    return VectorTruth(moved, kinds, tree, grid.affine, marked, notes)


def _way(crs: Any, target: str, fault: str) -> Transformer:
    """Return the way to the CRS of the map; SceneError if PROJ knows none."""
    try:
        return Transformer.from_crs(CRS.from_user_input(crs), target, always_xy=True)
    except ProjError as error:
        raise SceneError(f"{fault} ({gist(error)}). Give labels in the map's CRS.") from None


def _next_to(shapes: NDArray[np.object_], grid: GeoBox) -> NDArray[np.object_]:
    """Return shapes by whole turns nearer to a map, which may end at 181 degrees."""
    west, _, east, _ = shapely.bounds(shapes).T
    corners, owner = shapely.get_coordinates(shapes, return_index=True)
    corners[:, 0] += _turns((west + east) / 2, grid)[owner]
    return np.asarray(shapely.set_coordinates(shapes, corners), object)


def _turns(x: Any, grid: GeoBox) -> Any:
    """Return the whole turns of the Earth from places on a map's x axis to the map."""
    turn = turn_of(CRS.from_wkt(grid.crs.to_wkt())) if grid.crs else 0.0
    middle = sum(grid.extent.boundingbox.range_x) / 2
    return turn * np.round((middle - x) / turn) if turn else np.zeros_like(x)


def _endings() -> str:
    """Return the endings of vector files that this GDAL reads."""
    drivers = vectors("Vectors of truth").list_drivers()
    return ", ".join(end for end in VECTORS if end != ".parquet" or "Parquet" in drivers)


def _features(path: str) -> tuple[NDArray[np.object_], Any, dict[str, Any]]:
    """Return the shapes in a file, their CRS, and columns by name."""
    pyogrio = vectors("Vectors of truth")
    try:
        meta, _, geometry, columns = pyogrio.raw.read(path, layer=only_layer(path))
    except (pyogrio.errors.DataSourceError, ValueError) as error:
        raise SceneError(
            f"Truth '{path}' cannot be read ({gist(error)}). Give {_endings()}."
        ) from None
    shapes = np.asarray(shapely.from_wkb(geometry), object)
    return shapes, meta["crs"], dict(zip(meta["fields"], columns, strict=True))


def _read(given: Any, path: str) -> tuple[NDArray[np.object_], Any, NDArray[np.uint8], set[str]]:
    """Return shapes, CRS and kinds of the features of a truth, and the names of their columns."""
    if is_frame(given):
        columns = getattr(given, "columns", ())
        shapes, crs, fields = (
            frame_shapes(given),
            given.crs,
            {name: given[name] for name in columns},
        )
    else:
        shapes, crs, fields = _features(path)
    kinds = np.full(len(shapes), REAL, np.uint8)
    if MARK in fields:
        words = [*fields[MARK]]
        unknown = sorted({str(word) for word in words} - MARKS.keys() - {"None", "nan", ""})
        if unknown:
            raise SceneError(
                f"Truth '{path}' has mark '{unknown[0]}'. Marks are {', '.join(MARKS)}."
            )
        kinds = np.array([MARKS.get(str(word), 0) for word in words], np.uint8)
    there = (kinds > 0) & ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    if not there.any():
        raise SceneError(f"Truth '{path}' has no shapes. Check the file.")
    return shapes[there], crs, kinds[there], set(fields)
