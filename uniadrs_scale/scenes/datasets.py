"""The arrays in a NetCDF, HDF5 or Zarr file, and their sizes. Reads no pixels."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import rasterio
import zarr

from uniadrs_scale.core.contracts import digest
from uniadrs_scale.errors import SceneError, StoreError, TrustError
from uniadrs_scale.scenes.arrays import ArrayFile, Engine, decoded
from uniadrs_scale.scenes.files import locate, require_real
from uniadrs_scale.scenes.vrt import file_stamp
from uniadrs_scale.storage.buckets import glimpse, range_file, zarr_place
from uniadrs_scale.storage.trust import require_self_contained
from uniadrs_scale.storage.urls import canonical, is_remote, uri_name
from uniadrs_scale.swaths.axes import UNEVEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

LONGEST_TABLE = 2**16
"""Numbers in a table (wavelengths, flags) that are read."""
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
HDF4_SIGNATURE = b"\x0e\x03\x13\x01"
MATLAB_HEADER = 512
"""Bytes before the HDF5 signature of a MATLAB v7.3 file."""
FOR_GDAL = (".kea", ".bag", ".tif", ".tiff", ".jp2", ".vrt")
"""Rasters, some of them inside HDF5, that GDAL reads better."""
NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"
ZARR_FILES = ("zarr.json", ".zgroup", ".zmetadata", ".zattrs")
ZARR_ARRAY = ".zarray"


@dataclass(frozen=True, slots=True)
class Entry:
    """One array in a list of contents."""

    path: str
    """Group and name, separated by slashes."""
    shape: tuple[int, ...]
    numeric: bool

    @property
    def name(self) -> str:
        """Name without the group."""
        return self.path.rpartition("/")[2]

    @property
    def group(self) -> str:
        """Group; empty for the root."""
        return self.path.rpartition("/")[0]

    @property
    def extent(self) -> tuple[int, ...]:
        """Shape without axes of length 1."""
        return tuple(n for n in self.shape if n != 1)


@dataclass(frozen=True, slots=True)
class Contents:
    """All arrays of one file or store."""

    file: ArrayFile
    entries: Mapping[str, Entry]
    """Arrays by path."""

    @property
    def name(self) -> str:
        """Name of the file."""
        return uri_name(self.file.path)

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the file."""
        return self.file.attributes()

    def variable(self, path: str) -> xr.Variable:
        """Return an array, lazy and not decoded."""
        return self.file.variable(path)

    def nearest(self, group: str, name: str) -> str | None:
        """Return the path of an array in a group or the groups above it; None without one."""
        paths = (f"{scope}/{name}".lstrip("/") for scope in scopes(group))
        return next((path for path in paths if path in self.entries), None)

    def require_real(self, entries: Sequence[Entry]) -> None:
        """Raise SceneError if one of the arrays holds complex numbers."""
        for entry in entries:
            dtype = np.dtype("f4")
            with suppress(SceneError):
                dtype = dtype if entry.numeric else self.variable(entry.path).dtype
            require_real(f"{self.file.path}:{entry.path}", (str(dtype),))

    def numbers(self, path: str) -> NDArray[np.float64]:
        """Return a small decoded array, flat; empty if it is missing or large."""
        entry = self.entries.get(path)
        if entry is None or not entry.numeric or math.prod(entry.shape) > LONGEST_TABLE:
            return np.empty(0)
        return decoded(self.variable(path)).astype(np.float64).ravel()


def scopes(group: str) -> Iterator[str]:
    """Yield a group and those above it, up to the root."""
    while group:
        yield group
        group = group.rpartition("/")[0]
    yield ""


def off_centre(contents: Contents, path: str) -> float:
    """Return the distance from a coordinate to the middle of its cells, by its bounds (CF).

    Cells at a pole may be half as large as others.
    """
    words = str(contents.variable(path).attrs.get("bounds", "")).split()
    group = contents.entries[path].group
    bounds = contents.nearest(group, words[0]) if words else None
    values = decoded(contents.variable(path))
    shape = (*values.shape, len(("start", "stop")))
    if bounds is None or contents.entries[bounds].shape != shape or values.size == 1:
        return 0.0
    off = float(np.median(decoded(contents.variable(bounds)).mean(axis=1) - values))
    step = abs(float(values[1]) - float(values[0]))
    return off if UNEVEN * step < abs(off) <= step else 0.0  # farther away are other numbers


def read_contents(path: str) -> Contents | None:
    """Return what the file or store at ``path`` contains; None if it is not a file of arrays.

    Raise SceneError if it is damaged, or of a kind that cannot be read.
    """
    if is_zarr(path):
        entries = [*_zarr(path)]
        stamp = store_stamp(path)
        return _contents(canonical(path), stamp, "zarr", entries)
    if is_remote(path):
        return _remote_contents(canonical(path))
    if "://" in path or not Path(path).is_file() or path.lower().endswith(FOR_GDAL):
        return None
    uri, stamp = locate(path)
    if is_hdf5(path):
        return _contents(uri, stamp, "h5netcdf", _hdf5(uri))
    with Path(path).open("rb") as file:
        return _classic(uri, stamp, file.read(4))


def _contents(path: str, stamp: str, engine: Engine, entries: Iterable[Entry]) -> Contents:
    return Contents(ArrayFile(path, stamp, engine), {entry.path: entry for entry in entries})


def _classic(uri: str, stamp: str, start: bytes) -> Contents | None:
    if start in (b"CDF\x01", b"CDF\x02"):
        variables = ArrayFile(uri, stamp, "scipy").classic().items()
        entries = (Entry(k, v.shape, np.dtype(v.typecode()).kind in "buif") for k, v in variables)
        return _contents(uri, stamp, "scipy", entries)
    if start == b"CDF\x05":
        raise SceneError(
            f"'{uri}' is NetCDF in the 64-bit data format (CDF-5): the classic formats and "
            "NetCDF-4 can be read. Convert it with `nccopy -k nc4`."
        )
    if start == HDF4_SIGNATURE and not _gdal_has("HDF4"):
        raise SceneError(
            f"'{uri}' is HDF4 (HDF-EOS 2), which this GDAL cannot read: GeoTIFF, NetCDF and HDF5 "
            "can be. Convert it with `h4toh5`, or with `gdal_translate` of a GDAL with HDF4."
        )
    return None


def _gdal_has(driver: str) -> bool:
    with rasterio.Env() as environment:
        return driver in environment.drivers()


def _remote_contents(uri: str) -> Contents | None:
    """Do the same for a file on a server."""
    if uri_name(uri).lower().endswith(FOR_GDAL):
        return None
    seen = glimpse(uri)
    if _begins_as_hdf5(seen.start):
        return _contents(uri, seen.stamp, "h5netcdf", _hdf5(uri, range_file(uri, seen.stamp)))
    if seen.start.startswith(b"CDF"):
        raise SceneError(
            f"'{uri}' is NetCDF in a classic format, which is read by URL only whole. Download it, "
            "or convert it with `nccopy -k nc4`."
        )
    return None


def is_hdf5(path: str) -> bool:
    """Return True for HDF5, and what is built on it: NetCDF-4, MATLAB 7.3."""
    with Path(path).open("rb") as file:
        return _begins_as_hdf5(file.read(MATLAB_HEADER + len(HDF5_SIGNATURE)))


def _begins_as_hdf5(content: bytes) -> bool:
    start = content[: MATLAB_HEADER + len(HDF5_SIGNATURE)]
    return start.startswith(HDF5_SIGNATURE) or start[MATLAB_HEADER:] == HDF5_SIGNATURE


def is_zarr(path: str) -> bool:
    """Return True for a Zarr store: a folder with its files, or a URL that ends so."""
    if "://" in path:
        return uri_name(path).endswith(".zarr")
    return any(Path(path, name).is_file() for name in ZARR_FILES)


def _hdf5(path: str, content: Any | None = None) -> Iterator[Entry]:
    entries: list[Entry] = []

    def note(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset) or name.startswith("#"):
            return
        if not item.is_scale or not bytes(item.attrs.get("NAME", b"")).startswith(NO_VARIABLE):
            entries.append(Entry(name, item.shape or (), item.dtype.kind in "buif"))

    try:
        with h5py.File(content or path) as file:
            require_self_contained(file, path)
            file.visititems(note)
    except TrustError:
        raise
    except OSError as error:
        raise SceneError(
            f"'{path}' begins like HDF5 or NetCDF-4, but cannot be read ({error}): it is cut off "
            "or damaged. Fetch it again."
        ) from None
    return iter(entries)


def _zarr(path: str) -> Iterator[Entry]:
    try:
        group = zarr.open_group(zarr_place(path, read_only=True), mode="r")
        members = group.members(max_depth=None)
    except TrustError:
        raise
    except StoreError as error:
        raise SceneError(
            f"{error} A Zarr store on a web server must have consolidated metadata."
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise SceneError(
            f"'{path}' should be a Zarr group, but cannot be opened as one ({error}). "
            "Pass the folder that holds zarr.json or .zgroup."
        ) from None
    arrays = sorted((name, item) for name, item in members if isinstance(item, zarr.Array))
    return (Entry(name, item.shape, item.dtype.kind in "buif") for name, item in arrays)


def store_stamp(path: str) -> str:
    """Return what changes with a Zarr store: names, sizes and times of all its files.

    Only the metadata of a store on a server count, as its files cannot be listed.
    """
    if is_remote(path):
        for name in ZARR_FILES:  # the first that the server has
            with suppress(SceneError):
                return glimpse(f"{canonical(path).rstrip('/')}/{name}").stamp
        return ""
    if "://" in path:
        return ""
    found: list[tuple[str, str]] = []
    for folder, _, names in os.walk(path):
        known = (n for n in names if n[0] != "." or n in (*ZARR_FILES, ZARR_ARRAY))
        files = (f"{folder}/{name}" for name in known)
        found += ((file[len(path) :], file_stamp(file)) for file in files)
    return digest({"files": sorted(found)})
