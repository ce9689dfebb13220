"""Scenes as xarray sees them: opening files, and taking whatever a user has built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import pystac
import xarray as xr

from uniadrs_scale.errors import SceneError, UniadrsScaleError
from uniadrs_scale.io.areas import placed_by_area
from uniadrs_scale.io.assembly import assemble, plain_product
from uniadrs_scale.io.cubes import CubeScene, CubeSpec, assemble_cube, geolocation
from uniadrs_scale.io.lazy import lazy_scene
from uniadrs_scale.io.patterns import expand
from uniadrs_scale.io.products import recognise
from uniadrs_scale.io.products.contents import is_hdf5
from uniadrs_scale.io.products.matlab import is_matlab, read_matlab
from uniadrs_scale.io.products.stac import of_item
from uniadrs_scale.io.specs import Options
from uniadrs_scale.io.swaths import (
    GEOLOCATION,
    content_digest,
    geolocation_kind,
    geolocation_text,
)
from uniadrs_scale.masks import valid_pixels
from uniadrs_scale.plan import SceneInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

    from uniadrs_scale.io.headers import Header
    from uniadrs_scale.io.readers import FileScene
    from uniadrs_scale.io.specs import Nodata
    from uniadrs_scale.lattice import Window

Source = str | Path | pystac.Item
LONGEST = 300
"""Characters of somebody else's message in ours."""
WORKED = 2
"""Chunks that band maths hold at once."""


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


_OPENED: dict[tuple[str, str], FileScene | CubeScene] = {}
"""Scenes opened here, by the names of their two dask arrays. Any operation on an array renames it,
so a name that is found belongs to untouched pixels. (An attribute would survive arithmetic.)"""


def open_scene(
    source: Source | Sequence[str | Path],
    *,
    bands: Sequence[int | str] | None = None,
    nodata: Nodata = "auto",
    chunk: int = 1024,
    grid: str | GeoBox | None = None,
    variable: str | Sequence[str] | None = None,
    mask: str | Sequence[str | int] = "none",
    units: Literal["amplitude", "dB"] | None = None,
) -> xr.DataArray:
    """A satellite product, a raster file, or several, as one lazy scene.

    Opens what GDAL opens; folders of Sentinel-2 (SAFE, L1C and L2A), Landsat (with its MTL file),
    Sentinel-1 GRD (SAFE) and EnMAP (L1C and L2A), or the metadata file in them; ENVI by header or
    data file, without its bad bands; EMIT and PRISMA files; NetCDF, HDF5, Zarr and ``.mat``; STAC
    items. All are read window by window when they are scored, except ``.mat`` files before version
    7.3, which cannot be: they are read when opened, up to 2 GiB.

    Args:
        source: Path, URI, glob pattern or :class:`pystac.Item`; or a list of raster files (usually
            one file per band), in the order of the bands.
        bands: Names or numbers from 1, in the wanted order; of STAC items also asset keys and
            common names. By default all but alpha, bad bands and Landsat's panchromatic one.
        nodata: The value of invalid pixels; by default as the files say. None: every finite value
            is valid.
        chunk: Side of the lazy array's chunks in pixels. Scores never depend on it.
        grid: For rasters of several resolutions: 'finest', 'coarsest', the name of a band that has
            the wanted grid, or an odc-geo GeoBox. Others are interpolated (bilinear) or averaged
            when they are read. Products are brought to the finest by default.
        variable: For NetCDF, HDF5, Zarr and ``.mat``: name, list of names (bands in that order) or
            pattern ('rrs_*'). Needed where more than one can be meant.
        mask: For products with a quality band: 'cloud', or names or values of its classes, makes
            these pixels invalid. Fill always is.
        units: For Sentinel-1 GRD: 'amplitude', as stored, or 'dB' (20 log10 of it, uncalibrated).

    Returns:
        (band, y, x) in the files' dtype, chunked, with CRS, transform and nodata for ``.rio``;
        coordinates ``band`` and, where known, ``wavelength`` [nm]; attributes ``gsd_m``,
        ``datetime`` (ISO 8601) and ``platform`` where known. A lazy boolean coordinate ``valid``
        (y, x) is True where every band is finite, is not nodata and is not masked out; assign
        another ``valid`` to use a mask of your own. A swath without a grid has lazy coordinates
        ``latitude`` and ``longitude`` (y, x) [degrees], or ground control points
        (``.rio.get_gcps()``) and pixel centres in their count as ``y`` and ``x``.

    Raises:
        SceneError: A file is missing or of no known kind, the files do not fit together, or an
            option means nothing for them.
    """
    options = Options(
        bands=None if bands is None else tuple(bands),
        nodata=nodata,
        grid=grid,
        variable=variable if isinstance(variable, str | None) else tuple(variable),
        mask=cast("Any", mask) if isinstance(mask, str) else tuple(mask),
        units=units,
    )
    try:
        scene, array = _open(source, options, chunk)
    except UniadrsScaleError:
        raise
    except Exception as error:
        # Parsers of damaged files raise whatever they stumble over, each another thing.
        what = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]
        raise SceneError(
            f"{_called(source)} cannot be opened as a scene ({what}): it is damaged, or of a kind "
            "that is not known. Fetch it again, or try it with gdalinfo, ncdump or h5ls."
        ) from error
    if scene is not None:
        _OPENED[array.data.name, array.coords["valid"].data.name] = scene
    return array


def _called(source: Source | Sequence[str | Path]) -> str:
    """What to call ``source`` in a message."""
    if isinstance(source, pystac.Item):
        return f"STAC item '{source.id}'"
    return f"'{source}'" if isinstance(source, str | Path) else f"'{source[0]}'"


def _open(
    source: Source | Sequence[str | Path], options: Options, chunk: int
) -> tuple[FileScene | CubeScene | None, xr.DataArray]:
    """The scene, where it can be read again, and its array."""
    headers: dict[str, Header] = {}
    if isinstance(source, pystac.Item):
        scene, facts = assemble(of_item(source), options, headers)
        return scene, lazy_scene(scene, facts, chunk)
    sources = expand([source] if isinstance(source, str | Path) else source)
    single = sources[0] if len(sources) == 1 else None
    if single is not None and is_matlab(single) and not is_hdf5(single):
        return None, read_matlab(single, options)
    spec = None if single is None else recognise(single, options)
    if isinstance(spec, CubeSpec):
        cube, facts = assemble_cube(spec, options)
        array = lazy_scene(cube, facts, chunk)
        return cube, array.assign_coords(geolocation(spec, chunk))
    scene, facts = assemble(spec or plain_product(sources, headers), options, headers)
    return scene, lazy_scene(scene, facts, chunk)


def scene_source(scene: xr.DataArray) -> SceneSource:
    """Where to read ``scene``: its files if they hold just these pixels, else the array itself.

    Raises:
        SceneError: The array's dimensions are not (band, y, x) or (y, x), or it is not real.
    """
    array = _require_dims(scene)
    valid = array.coords.get("valid")
    names = getattr(array.data, "name", ""), getattr(getattr(valid, "data", None), "name", "")
    known = _OPENED.get(cast("tuple[str, str]", names))
    if known is not None:
        return replace(known, info=replace(known.info, geolocation=geolocation_text(array)))
    info = _describe(array)
    # Tasks need no other coordinate, and those of a swath are as large as a band.
    return ArrayScene(info, array.drop_vars([name for name in array.coords if name != "valid"]))


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
    return array.transpose("band", "y", "x")


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
        gsd_m=_number(array.attrs.get("gsd_m")),
        geolocation=geolocation,
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


def _identity(array: xr.DataArray) -> str:
    """Digest of what decides the pixels: dask's names for lazy arrays, the bytes of others."""
    parts = [array.variable, *([array.coords["valid"].variable] if "valid" in array.coords else [])]
    return content_digest(*(xr.DataArray(part) for part in parts), text=repr(array.rio.nodata))
