"""Arrays in NetCDF, HDF5 and Zarr as lazy scenes that travel as a small spec.

xarray opens them; a task reads the window it needs through the same backend. Rejected: an xarray
with dask chunks as the scene itself. Its windows cannot be cut below a whole chunk of all bands
once a valid mask hangs on it: 1.2 GB for 1024 x 1024 pixels of an imaging spectrometer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from uniadrs_scale.core.contracts import SceneInfo, digest
from uniadrs_scale.core.validity import Nodata, Validity
from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.assembly import Facts, select
from uniadrs_scale.scenes.datasets import Engine, open_group
from uniadrs_scale.scenes.grids import Grid, ground_size, side_length
from uniadrs_scale.scenes.products.metadata import FOR_GRID, FOR_MASK, FOR_UNITS
from uniadrs_scale.scenes.rasters import SceneWindow
from uniadrs_scale.storage.remote import stable_uri
from uniadrs_scale.swaths.conventions import remember_content

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.scenes.products.metadata import Options


STRIP_BYTES = 8 * 2**20
"""What is read at once, about: decoding needs several times as much."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One array in a file or store."""

    group: str
    """Empty for the root."""
    name: str
    axes: tuple[str, ...]
    """What each axis is: 'band', 'y', 'x', or '' for one of length 1 that is dropped."""

    def decisive(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"group": self.group, "name": self.name, "axes": list(self.axes)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeSpec:
    """Arrays that are one scene, and what their file says of them."""

    kind: str
    """For people, with its article: 'an EMIT L2A file'."""
    name: str
    path: str
    stamp: str
    """Size and modification time."""
    engine: Engine
    variables: tuple[Variable, ...]
    """One after the other along the band axis."""
    counts: tuple[int, ...]
    """Bands of each variable."""
    bands: tuple[str, ...]
    wavelengths: tuple[float | None, ...]
    """nm."""
    good: tuple[bool, ...]
    """False for bands that are left out unless named."""
    latitude: Variable | None = None
    longitude: Variable | None = None
    """Places of the pixels (y, x) in degrees, where there is no grid."""
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    nodata: float | None = None
    """Beside what the file's own fill attributes say."""
    datetime: str | None = None
    platform: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeScene:
    """The wanted bands of a :class:`CubeSpec`, seen as one scene."""

    info: SceneInfo
    spec: CubeSpec
    selected: tuple[int, ...]
    """Bands to read, in order."""
    nodata: float | None

    def decisive(self) -> dict[str, Any]:
        """Return what decides the pixels, as JSON values."""
        return {
            "path": stable_uri(self.spec.path),
            "stamp": self.spec.stamp,
            "variables": [variable.decisive() for variable in self.spec.variables],
            "selected": list(self.selected),
            "nodata": self.nodata,
        }

    def window(self, window: Window) -> SceneWindow:
        """A reader of ``window``, small enough to travel."""
        return SceneWindow(self, window)

    def read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read pixels (band, y, x) in the scene's dtype and valid mask (y, x)."""
        pixels, validity = self.counted(window)
        return pixels, validity.valid

    def counted(self, window: Window) -> tuple[NDArray[np.generic], Validity]:
        """Read pixels (band, y, x), which are valid, and why others are not."""
        shape = (len(self.selected), window.height, window.width)
        pixels = np.empty(shape, self.info.dtype)
        first = 0
        for variable, count in zip(self.spec.variables, self.spec.counts, strict=True):
            places = [k for k, band in enumerate(self.selected) if first <= band < first + count]
            if places:
                wanted = np.array([self.selected[k] - first for k in places])
                _read_into(pixels, places, open_variable(self.spec, variable), wanted, window)
            first += count
        validity = Validity(pixels.shape[1:])
        validity.drop_not_finite(pixels)
        validity.drop_nodata(pixels, Nodata((self.nodata,) * len(pixels)))
        return pixels, validity


def _read_into(
    pixels: NDArray[np.generic],
    places: list[int],
    array: xr.DataArray,
    wanted: NDArray[np.intp],
    window: Window,
) -> None:
    """Fill bands ``places`` of ``pixels`` with bands ``wanted`` of a variable, strip by strip.

    Decoding, transposing and picking bands copy what was read several times: in one piece that was
    eight times the window.
    """
    low, high = int(wanted.min()), int(wanted.max()) + 1
    rows, cols = window.slices
    row_bytes = (high - low) * window.width * array.dtype.itemsize
    for start, stop in _strips(rows, STRIP_BYTES // row_bytes, _stored_rows(array)):
        piece = array.isel(band=slice(low, high), y=slice(start, stop), x=cols)
        values = piece.transpose("band", "y", "x").values
        for place, band in zip(places, wanted - low, strict=True):
            pixels[place, start - rows.start : stop - rows.start] = values[band]


def _stored_bytes(array: xr.DataArray) -> int:
    """What decoding holds beside a strip: a chunk of the file twice, and copies of a small strip.

    Measured for HDF5 and Zarr.
    """
    chunk = math.prod(_stored_sizes(array) or ()) * array.dtype.itemsize
    return 2 * chunk + 4 * STRIP_BYTES


def _stored_sizes(array: xr.DataArray) -> tuple[int, ...] | None:
    """Of a chunk in the file; None where it has none."""
    return array.encoding.get("chunksizes") or array.encoding.get("chunks")


def _stored_rows(array: xr.DataArray) -> int:
    """Rows of a chunk in the file, which is decompressed whole; 1 where it has no chunks."""
    sizes = _stored_sizes(array)
    axes = array.encoding.get("axes", ())
    return int(sizes[axes.index("y")]) if sizes and "y" in axes else 1


def _strips(rows: slice, most: int, stored: int) -> Iterator[tuple[int, int]]:
    """``rows`` in strips of about ``most``, cut where chunks of ``stored`` rows begin."""
    step = max(most // stored, 1) * stored
    cuts = [rows.start, *range((rows.start // step + 1) * step, rows.stop, step), rows.stop]
    return pairwise(cuts)


def open_variable(spec: CubeSpec, variable: Variable) -> xr.DataArray:
    """The lazy (band, y, x) or (y, x) array of a variable, in the file's own order of axes."""
    array = open_group(spec.path, spec.stamp, spec.engine, variable.group)[variable.name]
    # As a bare variable: coordinates of that name would be in the way of the new ones.
    bare = xr.DataArray(array.variable)
    drop = {dim: 0 for dim, axis in zip(bare.dims, variable.axes, strict=True) if not axis}
    names = {dim: axis for dim, axis in zip(bare.dims, variable.axes, strict=True) if axis}
    bare = bare.isel(drop).rename(names)
    bare = bare if "band" in bare.dims else bare.expand_dims("band")
    bare.encoding = array.encoding | {"axes": variable.axes}
    return bare


def assemble_cube(spec: CubeSpec, options: Options) -> tuple[CubeScene, Facts]:
    """The scene that a spec and a caller's options make; reads no pixels.

    Raises:
        SceneError: A band does not exist, or an option means nothing here.
    """
    options.refuse(spec.name, spec.kind, grid=FOR_GRID, mask=FOR_MASK, units=FOR_UNITS)
    if options.bands is None:
        selected = [k for k, good in enumerate(spec.good) if good]
    else:
        selected = select(options.bands, [(band,) for band in spec.bands], spec.name)
    arrays = [open_variable(spec, variable) for variable in spec.variables]
    dtype = np.result_type(*(array.dtype for array in arrays))
    if dtype.kind not in "buif":
        raise SceneError(
            f"'{spec.variables[0].name}' of '{spec.name}' has dtype {dtype}: scores need real "
            "numbers. Pass variable= with one that holds them."
        )
    sizes = arrays[0].sizes
    nodata = spec.nodata if options.nodata == "auto" else options.nodata
    info = SceneInfo(
        name=spec.name,
        identity="",
        height=sizes["y"],
        width=sizes["x"],
        bands=tuple(spec.bands[k] for k in selected),
        dtype=str(dtype),
        itemsize=dtype.itemsize,
        crs=spec.crs,
        transform=spec.transform,
        gsd_m=_ground_size(spec, sizes["y"], sizes["x"]),
        geolocation="2-D latitude and longitude" if spec.latitude else "",
        block_bytes=max(map(_stored_bytes, arrays)),
        strip_rows=max(map(_stored_rows, arrays)),
    )
    scene = CubeScene(info=info, spec=spec, selected=tuple(selected), nodata=nodata)
    scene = replace(scene, info=replace(info, identity=digest(scene.decisive())))
    wavelengths = tuple(spec.wavelengths[k] for k in selected)
    facts = Facts(wavelengths=wavelengths, datetime=spec.datetime, platform=spec.platform)
    return scene, facts


def geolocation(spec: CubeSpec, chunk: int) -> dict[str, xr.DataArray]:
    """Lazy coordinates ``latitude`` and ``longitude`` (y, x) in degrees; none for a grid."""
    coords = {}
    for name, variable in (("latitude", spec.latitude), ("longitude", spec.longitude)):
        if variable is not None:
            lazy = xr.DataArray(
                indexing.LazilyIndexedArray(_Plane(spec, variable)), dims=("y", "x")
            )
            content = digest(
                {"path": stable_uri(spec.path), "stamp": spec.stamp, **variable.decisive()}
            )
            units = {"units": "degrees_north" if name == "latitude" else "degrees_east"}
            chunked = lazy.chunk(
                {"y": chunk, "x": chunk}, name_prefix=f"{name}-", token=f"{content}-{chunk}"
            )
            remember_content(chunked, content)
            coords[name] = chunked.assign_attrs(standard_name=name, **units)
    return coords


class _Plane(BackendArray):
    """A (y, x) variable, read where indexed; pickled as its spec."""

    def __init__(self, spec: CubeSpec, variable: Variable) -> None:
        self.spec, self.variable = spec, variable
        array = open_variable(spec, variable)
        self.shape: tuple[int, ...] = (array.sizes["y"], array.sizes["x"])
        self.dtype = array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[np.generic]:
        plane = open_variable(self.spec, self.variable).isel(band=0).transpose("y", "x")
        return np.asarray(plane[key].values)


def _ground_size(spec: CubeSpec, height: int, width: int) -> float | None:
    if spec.crs is not None and spec.transform is not None:
        return ground_size(Grid(height, width, spec.transform, spec.crs))
    if spec.latitude is None or spec.longitude is None or min(height, width) < 2:  # noqa: PLR2004
        return None
    row, col = height // 2 - 1, width // 2 - 1
    corner = {"y": slice(row, row + 2), "x": slice(col, col + 2), "band": 0}
    longitude, latitude = (
        open_variable(spec, variable).isel(corner).transpose("y", "x").values.ravel()[:3]
        for variable in (spec.longitude, spec.latitude)
    )
    return side_length(np.asarray(longitude, float), np.asarray(latitude, float))
