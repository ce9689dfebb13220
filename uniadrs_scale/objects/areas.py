"""Areas in vector files, and the targets that touch them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import shapely
from pyproj import CRS, Transformer

from uniadrs_scale.errors import PlanError, gist
from uniadrs_scale.objects.extra import vectors

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from uniadrs_scale.objects.ground import Ground

STEPS = 200
"""Parts of an area's extent in which its edges are projected one by one."""


def touching(
    path: str | Path, outlines: NDArray[Any], ground: Ground, *, grown: float = 0.0
) -> NDArray[np.bool_]:
    """Return True for outlines, in pixels, that touch an area in the file at ``path``.

    In a plane around the targets that keeps distances from its centre.

    Args:
        path: Any vector file that GDAL reads, in any CRS.
        outlines: In pixels of the map.
        ground: The tie between pixels and the ground.
        grown: Metres by which areas are larger than in the file.

    Raises:
        PlanError: The file cannot be read, or has no CRS or no areas.
    """
    pyogrio = vectors("Areas in files")
    try:
        meta, _, wkb, _ = pyogrio.raw.read(path, columns=[])
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, OSError) as error:
        raise PlanError(
            f"'{path}' cannot be read as a vector file ({gist(error)}). Give a GeoPackage, GeoJSON "
            "or Shapefile."
        ) from None
    shapes = shapely.from_wkb(np.array([] if wkb is None else wkb, object))
    shapes = shapes[~shapely.is_missing(shapes) & ~shapely.is_empty(shapes)]
    if not meta["crs"] or not len(shapes):
        missing = "areas" if meta["crs"] else "CRS"
        raise PlanError(f"'{path}' has no {missing}. Give a file with areas and their CRS.")
    corners, owner = shapely.get_coordinates(outlines, return_index=True)
    places = ground.corners(*corners.T)
    seen = np.isfinite(places).all(axis=1)
    if not seen.any():
        return np.zeros(len(outlines), bool)
    plane = _plane_around(places[seen])
    into = Transformer.from_crs(4326, plane, always_xy=True)
    moved = shapely.set_coordinates(outlines.copy(), np.stack(into.transform(*places.T), axis=-1))
    moved[np.unique(owner[~seen])] = None
    areas = _projected(shapes, meta["crs"], plane)
    tree = shapely.STRtree(areas)
    found = tree.query(moved, predicate="dwithin", distance=grown)[0]
    result = np.zeros(len(outlines), bool)
    result[found] = True
    return result


def _plane_around(places: NDArray[np.float64]) -> CRS:
    turn = np.radians(places)
    vectors_ = np.stack(
        [
            np.cos(turn[:, 1]) * np.cos(turn[:, 0]),
            np.cos(turn[:, 1]) * np.sin(turn[:, 0]),
            np.sin(turn[:, 1]),
        ]
    )
    x, y, z = vectors_.min(axis=1) + vectors_.max(axis=1)
    longitude, latitude = np.degrees([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))])
    return CRS.from_proj4(f"+proj=aeqd +lat_0={latitude} +lon_0={longitude} +datum=WGS84 +units=m")


def _projected(shapes: NDArray[Any], crs: str, plane: CRS) -> NDArray[Any]:
    """Return areas in the plane, without the parts that it cannot show."""
    left, bottom, right, top = shapely.total_bounds(shapes)
    fine = shapely.segmentize(shapes, max(right - left, top - bottom, 1e-9) / STEPS)
    transformer = Transformer.from_crs(crs, plane, always_xy=True)
    corners, owner = shapely.get_coordinates(fine, return_index=True)
    places = np.stack(transformer.transform(*corners.T), axis=-1)
    hidden = np.unique(owner[~np.isfinite(places).all(axis=1)])
    moved = shapely.set_coordinates(shapely.force_2d(fine), np.nan_to_num(places, posinf=0))
    kept = np.delete(moved, hidden)
    return cast("NDArray[Any]", shapely.make_valid(kept))
