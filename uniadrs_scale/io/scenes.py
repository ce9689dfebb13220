"""Scenes as xarray sees them: opening files, and taking whatever a user has built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import rioxarray  # noqa: F401 - registers the .rio accessor
import xarray as xr
from affine import Affine
from xarray.backends import BackendArray
from xarray.core import indexing

from uniadrs_scale.errors import SceneError
from uniadrs_scale.io.readers import FileScene, Nodata, describe_files
from uniadrs_scale.io.swaths import (
    GEOLOCATION,
    content_digest,
    file_control_points,
    geolocation_kind,
    geolocation_text,
)
from uniadrs_scale.lattice import Window
from uniadrs_scale.masks import valid_pixels
from uniadrs_scale.plan import SceneInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


class WindowReader(Protocol):
    """A window of a scene, still to be read; small, picklable."""

    def read(self) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Pixels (band, y, x) and valid mask (y, x)."""


class SceneSource(Protocol):
    """Where a run takes its pixels from."""

    @property
    def info(self) -> SceneInfo:
        """Size, bands, georeference and identity."""

    def window(self, window: Window) -> WindowReader:
        """The reader of one window."""


_FILE_SCENES: dict[tuple[str, str], FileScene] = {}
"""Scenes opened here, by the names of their two dask arrays. Any operation on an array renames it,
so a name that is found belongs to untouched pixels. (An attribute would survive arithmetic.)"""


def open_scene(
    source: str | Path | Sequence[str | Path],
    *,
    bands: Sequence[int | str] | None = None,
    nodata: Nodata = "auto",
    chunk: int = 1024,
) -> xr.DataArray:
    """A raster file, or several on one grid, as one lazy scene.

    Args:
        source: Path or URI that GDAL opens, or a list of such (usually one file per band).
        bands: Names or numbers from 1, in the wanted order. All but alpha by default.
        nodata: The value of invalid pixels; by default as the files say. None: every finite value
            is valid.
        chunk: Side of the lazy array's chunks in pixels. Scores never depend on it.

    Returns:
        (band, y, x) in the files' dtype, chunked, with CRS, transform and nodata for ``.rio``, and
        with a lazy boolean coordinate ``valid`` (y, x), True = valid: where every band is finite,
        is not nodata and is not masked out. Assign another ``valid`` to use a mask of your own.
        A swath with ground control points has these for ``.rio``, and pixel centres in their count
        as ``y`` and ``x``.

    Raises:
        SceneError: A file is missing or no raster, or the files do not fit together.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    scene = describe_files(sources, bands=bands, nodata=nodata)
    info = scene.info
    valid = _lazy(_ValidArray(scene), ("y", "x"), chunk, info.identity)
    array = _lazy(_PixelArray(scene), ("band", "y", "x"), chunk, info.identity)
    array = array.assign_coords({**_coordinates(info), "valid": valid.variable})
    if info.transform is not None:
        array = array.rio.write_transform(Affine(*info.transform))
    if info.crs is not None:
        array = array.rio.write_crs(info.crs)
    if info.transform is None:
        array = _with_control_points(array, scene)
    if scene.nodata is not None:
        array = array.rio.write_nodata(scene.nodata)
    array = array.rename(info.name)
    _FILE_SCENES[array.data.name, array.coords["valid"].data.name] = scene
    return array


def scene_source(scene: xr.DataArray) -> SceneSource:
    """Where to read ``scene``: its files if they hold just these pixels, else the array itself.

    Raises:
        SceneError: The array's dimensions are not (band, y, x) or (y, x), or it is not real.
    """
    array = _require_dims(scene)
    valid = array.coords.get("valid")
    names = getattr(array.data, "name", ""), getattr(getattr(valid, "data", None), "name", "")
    known = _FILE_SCENES.get(cast("tuple[str, str]", names))
    if known is None:
        # A task needs no geolocation, and would read it with its pixels.
        return ArrayScene(_describe(array), array.drop_vars(GEOLOCATION, errors="ignore"))
    return replace(known, info=replace(known.info, geolocation=geolocation_text(array)))


@dataclass(frozen=True, slots=True, eq=False)
class ArrayScene:
    """A scene that exists as an array only: band maths, a mosaic, pixels in memory."""

    info: SceneInfo
    array: xr.DataArray
    """(band, y, x)."""

    def window(self, window: Window) -> ArrayWindow:
        """The lazy slice of one window."""
        rows, cols = window.slices
        return ArrayWindow(self.array.isel(y=rows, x=cols))


@dataclass(frozen=True, slots=True, eq=False)
class ArrayWindow:
    """A window of an :class:`ArrayScene`, still to be computed."""

    array: xr.DataArray

    def read(self) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Pixels (band, y, x) and valid mask (y, x)."""
        # Synchronous: this already runs inside a task, whose threads are spoken for.
        array = self.array.compute(scheduler="synchronous")
        pixels = array.values
        nodata = None if "valid" in array.coords else array.rio.nodata
        valid = valid_pixels(pixels, [nodata] * pixels.shape[0])
        if "valid" in array.coords:
            valid &= array.coords["valid"].values.astype(bool)
        return pixels, valid


def map_coordinates(scene: xr.DataArray) -> Mapping[str, xr.DataArray]:
    """The coordinates of ``scene`` that its map shares: where its pixels are."""
    array = _require_dims(scene)
    kept = {name: array.coords[name] for name in ("y", "x") if name in array.coords}
    if geolocation_kind(array) == "arrays":
        kept |= {name: array.coords[name].transpose("y", "x") for name in GEOLOCATION}
    if array.rio.crs is not None or "spatial_ref" in array.coords:
        kept["spatial_ref"] = array.coords[array.rio.grid_mapping]
    return kept


def _require_dims(scene: xr.DataArray) -> xr.DataArray:
    if not isinstance(scene, xr.DataArray):
        raise SceneError(
            f"A scene must be an xarray.DataArray, not {type(scene).__name__}. "
            "Use open_scene(path), or Dataset.to_dataarray('band')."
        )
    array = scene.expand_dims("band") if set(scene.dims) == {"y", "x"} else scene
    if set(array.dims) != {"band", "y", "x"}:
        raise SceneError(
            f"Scene '{scene.name}' has dims {scene.dims}: (band, y, x) or (y, x) are needed. "
            "Use .rename() or .isel()."
        )
    if array.dtype.kind not in "buif":
        raise SceneError(
            f"Scene '{scene.name}' has dtype {array.dtype}: scores need real numbers. "
            "Take abs(...) of complex values."
        )
    return array.transpose("band", "y", "x")


def _with_control_points(array: xr.DataArray, scene: FileScene) -> xr.DataArray:
    """``array`` with the ground control points of its files, if there are any."""
    control = file_control_points([file.uri for file in scene.files])
    if control is None:
        return array
    places = {axis: np.arange(array.sizes[axis]) + 0.5 for axis in ("y", "x")}
    placed: xr.DataArray = array.assign_coords(places).rio.write_gcps(*control)
    return placed


def _describe(array: xr.DataArray) -> SceneInfo:
    geolocation = geolocation_text(array)
    crs = None if geolocation else array.rio.crs
    known = not geolocation and (
        {"y", "x"} <= set(array.coords)
        or "GeoTransform" in array.coords.get("spatial_ref", xr.DataArray()).attrs
    )
    bands = array.coords["band"].values if "band" in array.coords else range(array.sizes["band"])
    return SceneInfo(
        name=str(array.name or "array"),
        identity=_identity(array),
        height=array.sizes["y"],
        width=array.sizes["x"],
        bands=tuple(str(band) for band in bands),
        dtype=str(array.dtype),
        itemsize=array.dtype.itemsize,
        crs=None if crs is None else crs.to_wkt(),
        transform=tuple(array.rio.transform())[:6] if known and min(array.shape[1:]) > 1 else None,
        geolocation=geolocation,
    )


def _identity(array: xr.DataArray) -> str:
    """Digest of what decides the pixels: dask's names for lazy arrays, the bytes of others."""
    parts = [array.variable, *([array.coords["valid"].variable] if "valid" in array.coords else [])]
    return content_digest(*(xr.DataArray(part) for part in parts), text=repr(array.rio.nodata))


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
    """(band, y, x) pixels of a FileScene, read where indexed."""

    def __init__(self, scene: FileScene) -> None:
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
    """(y, x) valid mask of a FileScene, read where indexed."""

    def __init__(self, scene: FileScene) -> None:
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
