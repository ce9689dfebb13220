"""Areas in vector files, and the targets that touch them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pyproj import CRS, Transformer

from uniadrs_scale.scenes.areas import projected, read_areas

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from uniadrs_scale.objects.ground import Ground


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
    shapes, crs = read_areas(path)
    corners, owner = shapely.get_coordinates(outlines, return_index=True)
    places = ground.corners(*corners.T)
    seen = np.isfinite(places).all(axis=1)
    if not seen.any():
        return np.zeros(len(outlines), bool)
    plane = _plane_around(places[seen])
    into = Transformer.from_crs(4326, plane, always_xy=True)
    moved = shapely.set_coordinates(outlines.copy(), np.stack(into.transform(*places.T), axis=-1))
    moved[np.unique(owner[~seen])] = None
    areas = projected(shapes, crs, plane)
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
