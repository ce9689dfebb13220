"""A scene as a lazy DataArray: pixels and valid mask, read where indexed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

import numpy as np
import xarray as xr
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from xarray.backends import BackendArray
from xarray.core import indexing

from uniadrs_scale.core.contracts import SceneInfo, SceneSource, digest
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.core.validity import Nodata, Validity
from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.grids import Grid, ground_size
from uniadrs_scale.swaths.conventions import (
    GEOLOCATION,
    content_digest,
    geolocation_kind,
    geolocation_text,
    placed_by_area,
)
from uniadrs_scale.swaths.grids import (
    SHIFTED,
    Georeference,
    centres,
    georeference,
    is_rotated,
    written_transform,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from uniadrs_scale.scenes.assembly import Facts
    from uniadrs_scale.scenes.cubes import CubeScene
    from uniadrs_scale.scenes.rasters import FileScene, WindowedScene


LARGEST_AREA = 2**42
LARGEST_SIDE = 2**24
"""Pixels of a side; the Earth has 10 million of 4 m. Coordinates of one are held in memory."""


class Opened:
    """A scene that is kept as long as an array of it."""

    scene: WindowedScene


_OPENED: WeakValueDictionary[tuple[str, str], Opened] = WeakValueDictionary()
"""Scenes by the names of their two dask arrays. Any operation on an array renames it, so that a
known name belongs to untouched pixels. (An attribute would survive arithmetic.)"""


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
    if max(info.height, info.width) > LARGEST_SIDE or info.height * info.width > LARGEST_AREA:
        raise SceneError(
            f"'{info.name}' claims {info.height} x {info.width} px: at most {LARGEST_SIDE} per "
            f"side and {LARGEST_AREA} in all "
            f"are allowed. Cut the scene, or check that the file is what it should be."
        )
    valid = _lazy(_ValidArray(scene), ("y", "x"), chunk, info.identity)
    pixels = _PixelArray(scene)
    array = _lazy(pixels, ("band", "y", "x"), chunk, info.identity)
    pixels.opened = _OPENED.setdefault((array.data.name, valid.data.name), Opened())
    pixels.opened.scene = scene  # the latest: its URL may be signed anew
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
    """Return band names and pixel centres: in CRS units, on a rotated grid in pixels."""
    coords: dict[str, Any] = {"band": list(info.bands)}
    if info.transform is None:
        return coords
    transform = Affine(*info.transform)
    if not is_rotated(transform):
        return coords | centres(transform, info.height, info.width)
    counted = {"units": "pixel", "transform": list(info.transform)}
    for name, size in (("y", info.height), ("x", info.width)):
        coords[name] = (name, np.arange(size) + 0.5, counted)
    return coords


class _PixelArray(BackendArray):
    """(band, y, x) pixels of a scene, read where indexed."""

    opened: Opened | None = None

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


WORKED = 2
"""Chunks that band maths hold at once."""


def scene_source(scene: xr.DataArray) -> SceneSource:
    """Return the files of ``scene`` if they hold just these pixels, else the array as a source.

    Raises:
        SceneError: The array's dimensions are not (band, y, x) or (y, x), it is not real, or its
            place is in doubt.
    """
    array, known = _recognised(scene)
    if known is not None:
        return replace(known, info=_placed(known.info, array))
    info = _placed(_describe(array), array)
    # Tasks need no other coordinate, and those of a swath are as large as a band.
    return ArrayScene(info, array.drop_vars([name for name in array.coords if name != "valid"]))


@dataclass(frozen=True, slots=True, eq=False)
class ArrayScene:
    """A scene that exists as an array only: band maths, a mosaic, pixels in memory."""

    info: SceneInfo
    array: xr.DataArray
    """(band, y, x)."""

    def decisive(self) -> dict[str, Any]:
        """Return what decides the pixels, as JSON values."""
        return _decisive(self.array)

    def window(self, window: Window) -> ArrayWindow:
        """The lazy slice of one window."""
        rows, cols = window.slices
        return ArrayWindow(self.array.isel(y=rows, x=cols))


@dataclass(frozen=True, slots=True, eq=False)
class ArrayWindow:
    """A window of an :class:`ArrayScene`, still to be computed."""

    array: xr.DataArray

    def read(self) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read pixels (band, y, x) and valid mask (y, x)."""
        pixels, valid, _ = self.counted()
        return pixels, valid

    def counted(self) -> tuple[NDArray[np.generic], NDArray[np.bool_], Mapping[str, int]]:
        """Read pixels, valid mask, and the number of invalid pixels by reason."""
        # Synchronous: this already runs inside a task, whose threads are in use.
        array = self.array.compute(scheduler="synchronous")
        pixels = array.values
        validity = Validity(pixels.shape[1:])
        validity.drop_not_finite(pixels)
        if "valid" in array.coords:
            validity.drop(~array.coords["valid"].values, "not in 'valid'")
        else:
            nodata = Nodata((array.rio.nodata,) * len(pixels), pixels.dtype.itemsize == 1)
            validity.drop_nodata(pixels, nodata)
        return pixels, validity.valid, validity.lost


def map_coordinates(scene: xr.DataArray) -> Mapping[str, xr.DataArray]:
    """Return the coordinates of the map of ``scene``: the places of its pixels.

    A map on a rotated grid has none but its transform, which every reader understands.
    """
    array, _ = _recognised(scene)
    axes = {name: array.coords[name] for name in ("y", "x") if name in array.coords}
    kind = geolocation_kind(array)
    if kind == "points":
        return axes | {"spatial_ref": array.coords[array.rio.grid_mapping]}
    if kind == "arrays":
        return axes | {name: array.coords[name].transpose("y", "x") for name in GEOLOCATION}
    place = georeference(array)
    if place.transform is None:
        return axes
    if is_rotated(place.transform):
        return {"spatial_ref": _spatial_ref(place)}
    made = centres(place.transform, array.sizes["y"], array.sizes["x"])
    for name, step in (("y", place.transform.e), ("x", place.transform.a)):
        exact = name in axes and np.abs(axes[name].values - made[name]).max() < SHIFTED * abs(step)
        # In the bits of the scene's, so that xarray aligns the two.
        axes[name] = axes[name] if exact else xr.DataArray(made[name], dims=name)
    return axes | {"spatial_ref": _spatial_ref(place)}


def _spatial_ref(place: Georeference) -> xr.DataArray:
    """Return the scalar coordinate that rioxarray and GDAL read CRS and transform from."""
    frame = xr.DataArray(np.zeros((1, 1)), dims=("y", "x"))
    frame = frame if place.crs is None else frame.rio.write_crs(place.crs)
    return cast("xr.DataArray", frame.rio.write_transform(place.transform).coords["spatial_ref"])


def _recognised(scene: xr.DataArray) -> tuple[xr.DataArray, FileScene | CubeScene | None]:
    """Return ``scene`` as (band, y, x), and the files that hold just these pixels, if any do."""
    array = _require_dims(scene)
    valid = array.coords.get("valid")
    names = getattr(array.data, "name", ""), getattr(getattr(valid, "data", None), "name", "")
    entry = _OPENED.get(cast("tuple[str, str]", names))
    known = None if entry is None else cast("FileScene | CubeScene", entry.scene)
    if known is None or known.info.transform is None:
        return array, known
    opened, written = Affine(*known.info.transform), written_transform(array)
    if written in (None, opened) or is_rotated(opened):
        return array, known
    made = centres(opened, known.info.height, known.info.width)
    axes = {name: array.coords[name].values for name in made if name in array.coords}
    stayed = all(name in axes and np.array_equal(axes[name], made[name]) for name in made)
    # A transform that was corrected is newer than coordinates that stayed.
    return (array.drop_vars(["y", "x"]) if stayed else array), known


def _placed(info: SceneInfo, array: xr.DataArray) -> SceneInfo:
    """Return ``info`` with the place that the coordinates and attributes of ``array`` say."""
    geolocation = geolocation_text(array)
    place = Georeference() if geolocation else georeference(array)
    same = place.crs == info.crs or (
        None not in (place.crs, info.crs)
        and CRS.from_user_input(place.crs) == CRS.from_user_input(info.crs)
    )
    crs = info.crs if same else place.crs
    transform = None if place.transform is None else tuple(place.transform)[:6]
    gsd_m = info.gsd_m
    if crs is not None and transform is not None and (crs, transform) != (info.crs, info.transform):
        gsd_m = ground_size(Grid(info.height, info.width, transform, crs))
    return replace(
        info, crs=crs, transform=transform, geolocation=geolocation, gsd_m=gsd_m,
        unplaced=place.problem or ("" if transform or geolocation else info.unplaced),
    )  # fmt: skip


def _require_dims(scene: xr.DataArray) -> xr.DataArray:
    if not isinstance(scene, xr.DataArray):
        raise SceneError(
            f"A scene must be an xarray.DataArray, not {type(scene).__name__}. "
            "Use open_scene(path), or Dataset.to_dataarray('band')."
        )
    scene = placed_by_area(scene) if {"y", "x"} <= set(scene.dims) else scene
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
    return _with_plain_mask(array).transpose("band", "y", "x")


def _with_plain_mask(array: xr.DataArray) -> xr.DataArray:
    """Return ``array`` with its mask, if it has one, spread over both axes.

    Raises:
        SceneError: The mask is not boolean, or not one of y and x.
    """
    if "valid" not in array.coords:
        return array
    valid = array.coords["valid"]
    if valid.dtype != bool:
        raise SceneError(
            f"The coordinate 'valid' has dtype {valid.dtype}: a mask is boolean, True where a "
            "pixel is valid. Assign one, such as valid=scene.valid == 1 (after coarsen or interp, "
            "1 means that all pixels were valid)."
        )
    if not valid.dims or not set(valid.dims) <= {"y", "x"}:
        raise SceneError(
            f"The coordinate 'valid' has dims {valid.dims}: a mask has y, x or both. Use "
            ".all('band') for one that has bands."
        )
    whole = valid.variable.set_dims({axis: array.sizes[axis] for axis in ("y", "x")})
    return array.assign_coords(valid=whole)


def _describe(array: xr.DataArray) -> SceneInfo:
    """Return what a plan must know of an array, but for its place."""
    bands = array.coords["band"].values if "band" in array.coords else range(array.sizes["band"])
    return SceneInfo(
        name=str(array.name or "array"),
        identity=digest(_decisive(array)),
        height=array.sizes["y"],
        width=array.sizes["x"],
        bands=tuple(str(band) for band in bands),
        dtype=str(array.dtype),
        itemsize=array.dtype.itemsize,
        crs=None,
        transform=None,
        gsd_m=_number(array.attrs.get("gsd_m")),
        block_bytes=_worked_bytes(array),
        strip_rows=0 if array.chunks is None else array.sizes["y"],
    )


def _worked_bytes(array: xr.DataArray) -> int:
    """What computing a window holds beside it: its largest chunk, made from another one.

    Measured for ratios, sums over bands and stacked bands, beside two windows: the pieces, and what
    they are put together to. A user's own graph may take more.
    """
    if array.chunks is None:
        return 0
    _, height, width = (max(sizes) for sizes in array.chunks)
    return WORKED * array.sizes["band"] * height * width * array.dtype.itemsize


def _number(value: object) -> float | None:
    """A ground sample distance that arithmetic or a user left among the attributes."""
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _decisive(array: xr.DataArray) -> dict[str, Any]:
    """Return what decides the pixels: Dask's names of lazy arrays, the bytes of others."""
    parts = [array.variable, *([array.coords["valid"].variable] if "valid" in array.coords else [])]
    nodata = array.rio.nodata
    return {
        "content": content_digest(*(xr.DataArray(part) for part in parts)),
        "nodata": None if nodata is None else float(nodata),
    }
