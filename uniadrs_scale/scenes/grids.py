"""Grids: which one a scene of several resolutions gets, and how large its pixels are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.overlap import compute_reproject_roi
from odc.geo.roi import roi_is_empty
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError

from uniadrs_scale.errors import SceneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.scenes.headers import Header


Resampling = Literal["nearest", "bilinear", "average", "mode"]
ELLIPSOID = Geod(ellps="WGS84")


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the pixels of a raster lie."""

    height: int
    width: int
    transform: tuple[float, ...]
    """Affine coefficients (a, b, c, d, e, f) of pixel corners."""
    crs: str
    """WKT."""

    @classmethod
    def of(cls, header: Header) -> Grid:
        """The grid of a raster file.

        Raises:
            SceneError: It has none.
        """
        if header.transform is None or header.crs is None:
            raise SceneError(
                f"'{Path(header.uri).name}' has no {'CRS' if header.transform else 'transform'}: "
                "only georeferenced files can be brought to one grid. Give all files one size."
            )
        return cls(header.height, header.width, header.transform, header.crs)

    def decisive(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "height": self.height,
            "width": self.width,
            "transform": list(self.transform),
            "crs": self.crs,
        }

    @property
    def geobox(self) -> GeoBox:
        """The same for odc-geo."""
        return GeoBox((self.height, self.width), Affine(*self.transform), self.crs)


def choose_grid(choice: object, headers: Mapping[str, Header]) -> tuple[Grid, str]:
    """The common grid of a scene, and the sentence that tells of it.

    Args:
        choice: 'finest', 'coarsest', a key of ``headers``, or an odc-geo GeoBox.
        headers: By band name, of the bands that make the scene.

    Raises:
        SceneError: The choice is none of these, or a file has no georeference.
    """
    if isinstance(choice, GeoBox):
        crs = None if choice.crs is None else choice.crs.to_wkt()
        if crs is None:
            raise SceneError("grid= has no CRS: give a GeoBox with one.")
        height, width = choice.shape
        return Grid(height, width, tuple(choice.affine)[:6], crs), _sentence("given", choice)
    grids = {name: Grid.of(header) for name, header in headers.items()}
    sizes = {name: ground_size(grid) or math.inf for name, grid in grids.items()}
    if choice in ("finest", "coarsest"):
        name = (min if choice == "finest" else max)(sizes, key=lambda band: sizes[band])
        return grids[name], _sentence(f"{choice}: that of {name}", grids[name].geobox)
    if isinstance(choice, str) and choice in grids:
        return grids[choice], _sentence(f"that of {choice}", grids[choice].geobox)
    raise SceneError(
        f"grid={choice!r} is no grid of this scene: it must be 'finest', 'coarsest', one of its "
        f"bands ({', '.join(list(grids)[:16])}) or an odc-geo GeoBox. Pass one of these."
    )


def _sentence(which: str, geobox: GeoBox) -> str:
    return f"{which}, {abs(geobox.resolution.x):g} {geobox.crs.units[0]} pixels"  # type: ignore[union-attr]


def resampling(source: Grid, target: Grid, name: str, *, classes: bool = False) -> Resampling:
    """How a raster is brought to ``target``: unchanged if the pixels coincide.

    Smaller pixels are interpolated, since repeated ones would draw squares; larger ones averaged,
    so that no source pixel is dropped. Classes are never mixed.

    Raises:
        SceneError: The raster does not reach into the grid.
    """
    overlap = compute_reproject_roi(source.geobox, target.geobox)
    if roi_is_empty(overlap.roi_dst):
        raise SceneError(
            f"'{name}' does not overlap the common grid: the files of one scene must show one "
            "place. Check that they belong together."
        )
    if overlap.paste_ok and math.isclose(overlap.scale, 1):
        return "nearest"
    if overlap.scale > 1:
        return "mode" if classes else "average"
    return "nearest" if classes else "bilinear"


def ground_size(grid: Grid) -> float | None:
    """Side of the central pixel on the ground [m], to three digits; None where it has no place.

    Measured along the ellipsoid: 10 m of a Mercator projection are 7 m on the ground at 45 degrees.
    """
    rows, cols = grid.height / 2 + np.array([0, 0, 1]), grid.width / 2 + np.array([0, 1, 0])
    a, b, c, d, e, f = grid.transform
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    try:
        to_degrees = Transformer.from_crs(CRS(grid.crs), 4326, always_xy=True)
        return side_length(*to_degrees.transform(x, y))
    except ProjError:  # a local or engineering CRS
        return None


def ground_size_of_points(points: Sequence[tuple[float, ...]], crs: str | None) -> float | None:
    """The same from ground control points (row, column, x, y, z): the mean over the swath."""
    if len(points) < 3 or crs is None:  # noqa: PLR2004 - a plane
        return None
    rows, cols, x, y, _ = np.transpose(points)
    design = np.column_stack([np.ones_like(rows), cols, rows])
    coefficients, *_ = np.linalg.lstsq(design, np.column_stack([x, y]), rcond=None)
    (c, f), (a, d), (b, e) = coefficients
    size = int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1
    return ground_size(Grid(*size, (a, b, c, d, e, f), crs))


def side_length(longitude: NDArray[np.float64], latitude: NDArray[np.float64]) -> float | None:
    """Side of a pixel [m] from three places: a corner, the next along x, the next along y."""
    if not np.isfinite([longitude, latitude]).all():
        return None
    _, _, sides = ELLIPSOID.inv(longitude[[0, 0]], latitude[[0, 0]], longitude[1:], latitude[1:])
    mean = math.sqrt(sides[0] * sides[1])
    return float(f"{mean:.3g}") if mean > 0 else None
