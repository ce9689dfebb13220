"""Arrays in NetCDF, HDF5 and Zarr files, opened one at a time.

xarray's backends open them, lazy and undecoded: an array that cannot be opened or decoded affects
no other array, and nothing but metadata is read.
"""

from __future__ import annotations

import atexit
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

import h5py
import numpy as np
import xarray as xr
import zarr
from xarray.backends import H5NetCDFStore, ScipyDataStore, ZarrStore
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core import indexing

from uniadrs_scale.errors import SceneError, UniadrsScaleError
from uniadrs_scale.scenes.packing import EMPTY, FILL, Packing, packing_of, plain_names, real_factors
from uniadrs_scale.scenes.vrt import file_stamp
from uniadrs_scale.storage.buckets import range_file, zarr_place
from uniadrs_scale.storage.trust import foreign_files, require_self_contained
from uniadrs_scale.storage.urls import is_remote, stable_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Engine = Literal["h5netcdf", "scipy", "zarr"]
OPEN_GROUPS = 32
"""Groups that a process keeps open."""
OPEN_ARRAYS = 256
"""Arrays that a process keeps open."""
KNOWN = {"ncproperties", "dimensionlist", *FILL.split()}
"""Attributes of NetCDF files and of their arrays, and of arrays that declare fill."""
_OPEN: WeakSet[Any] = WeakSet()
"""Files that are not closed yet."""


@atexit.register
def _close_files() -> None:
    """Close all files before the libraries are unloaded: h5netcdf prints errors afterwards."""
    for file in list(_OPEN):
        file.close()


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """A file or store of arrays."""

    path: str
    stamp: str
    """Changes with the file."""
    engine: Engine
    sources: tuple[tuple[str, str], ...] = ()
    """Path and stamp of the other files that hold the values of an array."""

    def variable(self, path: str) -> xr.Variable:
        """Return an array, lazy and not decoded, by its group and name.

        Raise SceneError if it cannot be opened.
        """
        return _open_variable(self, path)

    def attributes(self, group: str = "") -> dict[str, Any]:
        """Return the attributes of a group as text, numbers or small arrays."""
        return {str(k): _plain(v) for k, v in dict(_open_group(self, group).get_attrs()).items()}

    def classic(self) -> dict[str, Any]:
        """Return scipy's variables of a classic NetCDF file, by name."""
        return dict(_open_group(self, "").ds.variables)


@dataclass(frozen=True, slots=True)
class Variable:
    """One array of a file, and how it is read."""

    file: ArrayFile
    path: str
    axes: tuple[str, ...]
    """Role of each axis: 'band', 'y', 'x', or '' for one of length 1 that is dropped."""
    packing: Packing

    @classmethod
    def of(cls, file: ArrayFile, path: str, axes: Sequence[str], **fill: Any) -> Variable:
        """Return an array with its decoding; ``fill`` is what its product says about fill.

        Raise SceneError if it does not hold real numbers, or its factors are for other bands.
        """
        where = f"'{path}' of '{file.path}'"
        file = replace(file, sources=_sources(where, file, path))
        return cls(file, path, tuple(axes), packing_of(where, file.variable(path), axes, **fill))

    def decisive(self) -> dict[str, Any]:
        """Return what decides the pixels, as JSON values."""
        others = [{"file": name, "stamp": stamp} for name, stamp in self.file.sources]
        return {
            "file": stable_uri(self.file.path),
            "stamp": self.file.stamp,
            "path": self.path,
            "axes": list(self.axes),
            "packing": self.packing.decisive(),
            **({"sources": others} if others else {}),
        }

    @property
    def sizes(self) -> dict[str, int]:
        """Size of each axis by what it is."""
        return dict(zip(self.axes, self.file.variable(self.path).shape, strict=True))

    @property
    def chunk(self) -> dict[str, int]:
        """Size of a chunk of the file along each axis; empty if the array has no chunks."""
        encoding = self.file.variable(self.path).encoding
        sizes = encoding.get("chunksizes") or encoding.get("chunks") or ()
        return dict(zip(self.axes, sizes, strict=True)) if sizes else {}

    def stored(self, bands: slice, rows: slice, cols: slice) -> NDArray[Any]:
        """Read numbers (band, y, x) as they are stored, but for the order of bytes.

        A latitude along y only, or a longitude along x only, is repeated along the other axis.
        """
        key = {"": 0, "band": bands, "y": rows, "x": cols}
        part = self.file.variable(self.path)[tuple(key[axis] for axis in self.axes)].values
        kept = [axis for axis in self.axes if axis]
        order = [axis for axis in ("band", "y", "x") if axis in kept]
        part = part.transpose([kept.index(axis) for axis in order])
        for position, axis in enumerate(("band", "y", "x")):
            if axis not in kept:
                part = np.expand_dims(part, position)
        return np.asarray(part.astype(part.dtype.newbyteorder("="), copy=False))

    def plane(self, rows: slice, cols: slice) -> NDArray[np.generic]:
        """Read pixels (y, x) of an array that is one band."""
        pixels, _ = self.packing.pixels(self.stored(slice(0, 1), rows, cols), np.arange(1))
        return np.asarray(pixels[0])


def decoded(variable: xr.Variable) -> NDArray[Any]:
    """Return the numbers of a small array, with factors and fill values applied."""
    plain = xr.Variable(variable.dims, variable.values, real_factors(variable.attrs))
    return np.asarray(xr.conventions.decode_cf_variable("table", plain, decode_times=False).values)


@lru_cache(maxsize=OPEN_GROUPS)
def _open_group(file: ArrayFile, group: str) -> Any:
    """Return xarray's store of one group."""
    path, place = file.path, f"group '{group}' of " if group else ""
    source: Any = path
    try:
        if file.engine == "zarr":
            source = zarr_place(path, read_only=True)
            # Said, not guessed: xarray warns if it has to find out.
            known = zarr.open_group(source, mode="r").metadata.consolidated_metadata is not None
            opened: Any = ZarrStore.open_group(source, group=group or None, consolidated=known)
        elif file.engine == "scipy":
            opened = ScipyDataStore(path)
        else:
            if is_remote(path):
                with h5py.File(_hdf5_source(file)) as checked:
                    require_self_contained(checked, path)
            opened = H5NetCDFStore.open(_hdf5_source(file), group=group or None, phony_dims="sort")
        opened.get_attrs()
    except UniadrsScaleError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        advice = "NetCDF, HDF5 or Zarr was expected. Check the path, and that the file is whole."
        if "unlabeled" in str(error):
            advice = (
                "some axes of an array have scales and others none. Attach all (h5py), or none."
            )
        raise SceneError(
            f"{place}'{path}' cannot be opened as {file.engine} ({error}): {advice}"
        ) from None
    if file.engine != "zarr":
        _OPEN.add(opened._manager)  # noqa: SLF001 - a store cannot be referred to weakly
    return opened


@lru_cache(maxsize=OPEN_ARRAYS)
def _open_variable(file: ArrayFile, path: str) -> xr.Variable:
    group, _, name = path.rpartition("/")
    store = _open_group(file, group)
    try:
        if file.engine == "zarr":
            return _zarr_variable(store, name)
        opened: xr.Variable = store.open_store_variable(name, store.ds.variables[name])
        if file.engine == "h5netcdf":
            opened.attrs |= _hdf5_fill(file, path)
    except UniadrsScaleError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise SceneError(
            f"'{path}' of '{file.path}' cannot be opened ({type(error).__name__}: {error}). "
            "Pass another array, --variable NAME (variable=), or convert the file with nccopy or "
            "h5repack."
        ) from None
    return opened


def _hdf5_fill(file: ArrayFile, path: str) -> dict[str, Any]:
    """Return the fill value that a plain HDF5 file keeps as a property alone, as an attribute.

    HDF5's own, 0, is not one; nor is that of NetCDF, whose writers set it without being asked, but
    add an attribute if they are. 0 may have been set without thought, as in Zarr 2.
    """
    with h5py.File(_hdf5_source(file)) as opened:
        array = opened[path]
        said = {*plain_names(dict.fromkeys(array.attrs)), *plain_names(dict.fromkeys(opened.attrs))}
        asked = array.id.get_create_plist().fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED
        if not asked or array.dtype.kind not in "iuf" or said & KNOWN:
            return {}
        return {"_FillValue" if array.fillvalue else EMPTY: array.fillvalue}


def _sources(where: str, file: ArrayFile, path: str) -> tuple[tuple[str, str], ...]:
    """Return path and stamp of the files from which a local HDF5 file gets the values of an array.

    Raise SceneError if one is lost: HDF5 would read zeros.
    """
    if file.engine != "h5netcdf" or is_remote(file.path):
        return ()
    with h5py.File(file.path) as opened:
        found = set(foreign_files(opened[path]))
    folder = Path(file.path).parent
    names = {name: folder / name for name in found if "%b" not in name}  # a pattern of names
    paths = {name: path if path.is_file() else Path(name) for name, path in names.items()}
    lost = next((name for name in sorted(paths) if not paths[name].is_file()), None)
    if lost is not None:
        raise SceneError(
            f"{where} gets its values from '{lost}', which is not there: HDF5 would take them for "
            "zeros. Fetch that file."
        )
    return tuple((str(path.absolute()), file_stamp(str(path))) for path in sorted(paths.values()))


def _hdf5_source(file: ArrayFile) -> Any:
    """Return what h5py and h5netcdf open."""
    return range_file(file.path, file.stamp) if is_remote(file.path) else file.path


def _zarr_variable(store: Any, name: str) -> xr.Variable:
    """Return an array of a Zarr group; its axes get numbers if the store does not name them."""
    array = store.members[name]
    old = array.metadata.zarr_format in {1, 2}
    try:
        opened: xr.Variable = store.open_store_variable(name)
    except (KeyError, TypeError):
        dims = [f"axis_{k}" for k in range(array.ndim)]
        wrapper: Any = ZarrArrayWrapper
        data = indexing.LazilyIndexedArray(wrapper(array))
        opened = xr.Variable(dims, data, dict(array.attrs), {"chunks": array.chunks})
        if old and array.fill_value is not None:
            opened.attrs["_FillValue"] = array.fill_value
    # Version 3 demands a value: one that is not 0 was chosen.
    chosen = not old and array.dtype.kind in "iuf" and array.fill_value != 0
    if chosen and not {*plain_names(dict.fromkeys(opened.attrs))} & KNOWN:
        opened.attrs["_FillValue"] = array.fill_value
    if old and opened.attrs.get("_FillValue") == 0:
        opened.attrs[EMPTY] = opened.attrs.pop("_FillValue")
    return opened


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    array = np.asarray(value)
    return value if isinstance(value, str | dict | list) or array.size != 1 else array.item()
