"""Open groups of NetCDF, HDF5 and Zarr files: each once a process, and closed at its end."""

from __future__ import annotations

import atexit
from functools import lru_cache
from typing import Any, Literal
from weakref import WeakValueDictionary

import xarray as xr
import zarr

from uniadrs_scale.errors import SceneError
from uniadrs_scale.io.buckets import zarr_place
from uniadrs_scale.io.range_file import RangeFile
from uniadrs_scale.io.remote import is_remote

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
    if is_remote(path):
        source = zarr_place(path, read_only=True) if engine == "zarr" else RangeFile(path, stamp)
    options: dict[str, Any] = {"phony_dims": "sort"} if engine == "h5netcdf" else {}
    if engine == "zarr":
        # Said, not guessed: xarray warns where it has to find out.
        metadata = zarr.open_group(zarr_place(path, read_only=True), mode="r").metadata
        options["consolidated"] = metadata.consolidated_metadata is not None
    if group:
        options["group"] = group
    try:
        opened = xr.open_dataset(
            source, engine=engine, chunks=None, cache=False, decode_times=False,
            decode_coords=False, **options,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        place = f"group '{group}' of '{path}'" if group else f"'{path}'"
        raise SceneError(
            f"{place} cannot be opened as {engine} ({error}): NetCDF, HDF5 or Zarr was expected. "
            "Check the path, and that the file is whole."
        ) from None
    _OPEN[id(opened)] = opened
    return opened
