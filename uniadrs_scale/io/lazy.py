"""A scene as a lazy DataArray: pixels and valid mask, read where indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import rioxarray  # noqa: F401 - registers the .rio accessor
import xarray as xr
from affine import Affine
from rasterio.control import GroundControlPoint
from xarray.backends import BackendArray
from xarray.core import indexing

from uniadrs_scale.lattice import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniadrs_scale.io.assembly import Facts
    from uniadrs_scale.io.readers import WindowedScene
    from uniadrs_scale.plan import SceneInfo


def lazy_scene(scene: WindowedScene, facts: Facts, chunk: int) -> xr.DataArray:
    """``scene`` as a chunked DataArray with everything known about it.

    Args:
        scene: Where pixels come from.
        facts: What users want to know beside them.
        chunk: Side of the chunks in pixels.

    Returns:
        (band, y, x); see :func:`uniadrs_scale.open_scene`.
    """
    info = scene.info
    valid = _lazy(_ValidArray(scene), ("y", "x"), chunk, info.identity)
    array = _lazy(_PixelArray(scene), ("band", "y", "x"), chunk, info.identity)
    array = array.assign_coords({**_coordinates(info), "valid": valid.variable})
    if any(facts.wavelengths):
        centres = [np.nan if centre is None else float(centre) for centre in facts.wavelengths]
        array = array.assign_coords(wavelength=("band", centres, {"units": "nm"}))
    if info.transform is not None:
        array = array.rio.write_transform(Affine(*info.transform))
    if info.crs is not None:
        array = array.rio.write_crs(info.crs)
    if facts.gcps:
        points = [GroundControlPoint(*point, id=str(k)) for k, point in enumerate(facts.gcps)]
        # In the points' count, so that they stay right when the scene is sliced.
        places = {axis: np.arange(array.sizes[axis]) + 0.5 for axis in ("y", "x")}
        array = array.assign_coords(places).rio.write_gcps(points, facts.gcp_crs)
    if scene.nodata is not None and _can_hold(info.dtype, scene.nodata):
        array = array.rio.write_nodata(scene.nodata)
    known = {"gsd_m": info.gsd_m, "datetime": facts.datetime, "platform": facts.platform}
    return array.assign_attrs({k: v for k, v in known.items() if v is not None}).rename(info.name)


def _can_hold(dtype: str, value: float) -> bool:
    """False for a nodata value that no pixel can have, such as -9999 of uint8."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return not np.isfinite(value) or abs(value) <= np.finfo(kind).max
    limits = (0, 1) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)
    return bool(np.isfinite(value)) and limits[0] <= value <= limits[1]


def _coordinates(info: SceneInfo) -> dict[str, Any]:
    """Band names, and pixel centres along y and x where the grid is not rotated."""
    coords: dict[str, Any] = {"band": list(info.bands)}
    if info.transform is not None:
        a, b, c, d, e, f = info.transform
        if b == 0 and d == 0:
            coords["x"] = c + a * (np.arange(info.width) + 0.5)
            coords["y"] = f + e * (np.arange(info.height) + 0.5)
    return coords


class _PixelArray(BackendArray):
    """(band, y, x) pixels of a scene, read where indexed."""

    def __init__(self, scene: WindowedScene) -> None:
        self.scene = scene
        info = scene.info
        self.shape: tuple[int, ...] = (len(info.bands), info.height, info.width)
        self.dtype = np.dtype(info.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[np.generic]:
        (rows, row), (cols, col) = map(_span, key[-2:], self.shape[-2:])
        window = Window(rows.start, cols.start, len(rows), len(cols))
        return self._part(window)[(*key[:-2], row, col)]

    def _part(self, window: Window) -> NDArray[np.generic]:
        return self.scene.read(window)[0]


class _ValidArray(_PixelArray):
    """(y, x) valid mask of a scene, read where indexed."""

    def __init__(self, scene: WindowedScene) -> None:
        super().__init__(scene)
        self.shape = self.shape[1:]
        self.dtype = np.dtype(bool)

    def _part(self, window: Window) -> NDArray[np.bool_]:
        return self.scene.read(window)[1]


def _span(key: int | slice, size: int) -> tuple[range, int | slice]:
    """(contiguous pixels to read, what to take of them) for one basic index of an axis."""
    if isinstance(key, slice):
        wanted = range(size)[key]
        if not wanted:
            return range(0), slice(0)
        low, high = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
        return range(low, high + 1), slice(None, None, wanted.step)
    return range(int(key) % size, int(key) % size + 1), 0


def _lazy(array: _PixelArray, dims: tuple[str, ...], chunk: int, identity: str) -> xr.DataArray:
    lazy = xr.DataArray(indexing.LazilyIndexedArray(array), dims=dims)
    sizes = {"y": chunk, "x": chunk}
    return lazy.chunk(sizes, name_prefix=f"{type(array).__name__}-", token=f"{identity}-{chunk}")
