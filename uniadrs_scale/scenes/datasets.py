"""Open groups of NetCDF, HDF5 and Zarr files: each once a process, and closed at its end."""

from __future__ import annotations

import atexit
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from weakref import WeakValueDictionary

import h5py
import numpy as np
import xarray as xr
import zarr

from uniadrs_scale.errors import SceneError, StoreError, TrustError
from uniadrs_scale.scenes.files import locate
from uniadrs_scale.storage.buckets import glimpse, range_file, zarr_place
from uniadrs_scale.storage.remote import canonical, is_remote, uri_name
from uniadrs_scale.storage.trust import require_self_contained

Engine = Literal["h5netcdf", "scipy", "zarr"]
OPEN_GROUPS = 32
"""Groups that a process keeps open."""
_OPEN: WeakValueDictionary[int, xr.Dataset] = WeakValueDictionary()
"""Groups that nobody has closed yet."""


@atexit.register
def _close_groups() -> None:
    """Close them while the libraries are whole: h5netcdf closes files that are left over when it is
    taken apart itself, and prints what goes wrong then.
    """  # noqa: D205 - one sentence
    for group in list(_OPEN.values()):
        group.close()


@lru_cache(maxsize=OPEN_GROUPS)
def open_group(path: str, stamp: str, engine: Engine, group: str) -> xr.Dataset:
    """One group of a file or store, lazily; fill values and factors are applied when it is read.

    Args:
        path: File or store.
        stamp: Makes a changed file another one.
        engine: Of xarray.
        group: Empty for the root.

    Raises:
        SceneError: It cannot be opened.
    """
    source: Any = path
    if engine == "zarr":
        source = zarr_place(path, read_only=True)
    elif is_remote(path):
        with h5py.File(range_file(path, stamp)) as file:
            require_self_contained(file, path)
        source = range_file(path, stamp)
    options: dict[str, Any] = {"phony_dims": "sort"} if engine == "h5netcdf" else {}
    if engine == "zarr":
        # Said, not guessed: xarray warns where it has to find out.
        metadata = zarr.open_group(source, mode="r").metadata
        options["consolidated"] = metadata.consolidated_metadata is not None
    if group:
        options["group"] = group
    try:
        opened = xr.open_dataset(
            source, engine=engine, chunks=None, cache=False, decode_times=False,
            decode_coords=False, **options,
        )  # fmt: skip
    except TrustError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        place = f"group '{group}' of '{path}'" if group else f"'{path}'"
        raise SceneError(
            f"{place} cannot be opened as {engine} ({error}): NetCDF, HDF5 or Zarr was expected. "
            "Check the path, and that the file is whole."
        ) from None
    _OPEN[id(opened)] = opened
    return opened


HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
MATLAB_HEADER = 512
"""Bytes before the HDF5 signature of a MATLAB v7.3 file."""
FOR_GDAL = (".kea", ".bag", ".tif", ".tiff", ".jp2", ".vrt")
"""Rasters, some of them inside HDF5, that GDAL knows better."""
ZARR_FILES = ("zarr.json", ".zgroup", ".zmetadata", ".zattrs")


@dataclass(frozen=True, slots=True)
class Entry:
    """One array."""

    path: str
    """Group and name, separated by slashes."""
    shape: tuple[int, ...]
    numeric: bool

    @property
    def name(self) -> str:
        """Without the group."""
        return PurePosixPath(self.path).name

    @property
    def group(self) -> str:
        """Empty for the root."""
        parent = str(PurePosixPath(self.path).parent)
        return "" if parent == "." else parent

    @property
    def extent(self) -> tuple[int, ...]:
        """Shape without axes of length 1."""
        return tuple(n for n in self.shape if n != 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All arrays of one file or store."""

    path: str
    stamp: str
    engine: Engine
    entries: tuple[Entry, ...]

    def group(self, name: str = "") -> xr.Dataset:
        """One group, opened lazily."""
        return open_group(self.path, self.stamp, self.engine, name)

    def entry(self, path: str) -> Entry | None:
        """The array at that path; None without one."""
        return next((entry for entry in self.entries if entry.path == path), None)

    def numbers(self, path: str) -> list[float]:
        """A small array as numbers; empty without one."""
        entry = self.entry(path)
        if entry is None:
            return []
        return [float(v) for v in np.ravel(self.group(entry.group)[entry.name].values)]

    @property
    def attributes(self) -> dict[str, Any]:
        """Of the file, as text, numbers or small arrays."""
        return {name: _plain(value) for name, value in self.group().attrs.items()}


def read_contents(path: str) -> Contents | None:
    """What the file or store at ``path`` contains; None where it is neither NetCDF nor its like.

    Raises:
        SceneError: It is damaged, or of a kind of NetCDF that cannot be read.
    """
    if is_zarr(path):
        place = canonical(path)
        return Contents(path=place, stamp=_zarr_stamp(path), engine="zarr", entries=_zarr(path))
    if is_remote(path):
        return _remote_contents(canonical(path))
    if "://" in path or not Path(path).is_file() or path.lower().endswith(FOR_GDAL):
        return None
    uri, stamp = locate(path)
    if is_hdf5(path):
        return Contents(path=uri, stamp=stamp, engine="h5netcdf", entries=_hdf5(uri))
    with Path(path).open("rb") as file:
        return _classic_netcdf(uri, stamp, file.read(4))


def _classic_netcdf(uri: str, stamp: str, start: bytes) -> Contents | None:
    if start in (b"CDF\x01", b"CDF\x02"):
        dataset = open_group(uri, stamp, "scipy", "")
        entries = tuple(
            Entry(str(name), v.shape, v.dtype.kind in "buif")
            for name, v in dataset.variables.items()
        )
        return Contents(path=uri, stamp=stamp, engine="scipy", entries=entries)
    if start == b"CDF\x05":
        raise SceneError(
            f"'{uri}' is NetCDF in the 64-bit data format (CDF-5): the classic formats and "
            "NetCDF-4 can be read. Convert it with `nccopy -k nc4`."
        )
    return None


def _remote_contents(uri: str) -> Contents | None:
    """As :func:`read_contents`, for a file on a server."""
    if uri_name(uri).lower().endswith(FOR_GDAL):
        return None
    seen = glimpse(uri)
    if _begins_as_hdf5(seen.start):
        entries = _hdf5(uri, range_file(uri, seen.stamp))
        return Contents(path=uri, stamp=seen.stamp, engine="h5netcdf", entries=entries)
    if seen.start.startswith(b"CDF"):
        raise SceneError(
            f"'{uri}' is NetCDF in a classic format, which is read by URL only whole. Download it, "
            "or convert it with `nccopy -k nc4`."
        )
    return None


def is_hdf5(path: str) -> bool:
    """True for HDF5, and what is built on it: NetCDF-4, MATLAB 7.3."""
    with Path(path).open("rb") as file:
        return _begins_as_hdf5(file.read(MATLAB_HEADER + len(HDF5_SIGNATURE)))


def _begins_as_hdf5(content: bytes) -> bool:
    start = content[: MATLAB_HEADER + len(HDF5_SIGNATURE)]
    return start.startswith(HDF5_SIGNATURE) or start[MATLAB_HEADER:] == HDF5_SIGNATURE


def is_zarr(path: str) -> bool:
    """True for a Zarr store: a folder with its files, or a URL that ends so."""
    if "://" in path:
        return uri_name(path).endswith(".zarr")
    return any(Path(path, name).is_file() for name in ZARR_FILES)


def _hdf5(path: str, content: Any | None = None) -> tuple[Entry, ...]:
    entries: list[Entry] = []

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("#"):
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
    return tuple(entries)


def _zarr(path: str) -> tuple[Entry, ...]:
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
    return tuple(Entry(name, item.shape, item.dtype.kind in "buif") for name, item in arrays)


def _zarr_stamp(path: str) -> str:
    """Changes with the metadata of a store; its chunks are too many to look at."""
    if is_remote(path):
        return _remote_root(canonical(path).rstrip("/")) or ""
    if "://" in path:
        return ""
    found = [Path(path, name) for name in ZARR_FILES if Path(path, name).is_file()]
    newest = max(Path(path).stat().st_mtime_ns, *(file.stat().st_mtime_ns for file in found))
    return str(newest)


def _remote_root(uri: str) -> str | None:
    """Stamp of the first metadata file that the server has; None where it has none."""
    for name in ZARR_FILES:
        with suppress(SceneError):
            return glimpse(f"{uri}/{name}").stamp
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    array = np.asarray(value)
    return value if isinstance(value, str) or array.size != 1 else array.item()
