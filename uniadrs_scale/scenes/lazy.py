"""Pixels of files as lazy arrays, whose origin is known until they are changed."""

from __future__ import annotations

import re
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.storage import LocalStore

from uniadrs_scale.core.lattice import Window
from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.datasets import is_zarr, store_stamp
from uniadrs_scale.scenes.vrt import file_stamp, stamp_now

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.scenes.arrays import Variable
    from uniadrs_scale.scenes.rasters import WindowedScene
    from uniadrs_scale.swaths.conventions import Content


ALONE = re.compile(r"\d+--?\d+")
"""The stamp of one file: its size and time."""


class Opened:
    """A scene that is kept as long as an array of it."""

    scene: WindowedScene


_OPENED: WeakValueDictionary[tuple[str, str], Opened] = WeakValueDictionary()
"""Scenes by the names of their two dask arrays. Any operation on an array renames it, so that a
known name belongs to untouched pixels. (An attribute would survive arithmetic.)"""


def lazy_pixels(scene: WindowedScene, chunk: int) -> xr.DataArray:
    """Return the pixels (band, y, x) of ``scene`` with its mask; their origin is remembered."""
    valid = chunked(_ValidArray(scene), ("y", "x"), chunk, scene.info.identity)
    pixels = _PixelArray(scene)
    array = chunked(pixels, ("band", "y", "x"), chunk, scene.info.identity)
    pixels.opened = _OPENED.setdefault((array.data.name, valid.data.name), Opened())
    pixels.opened.scene = scene  # the latest: its URL may have a new signature
    return array.assign_coords(valid=valid.variable)


def origin(array: xr.DataArray) -> Any:
    """Return the files that hold just the pixels and the mask of ``array``; None if none do."""
    valid = array.coords.get("valid")
    names = getattr(array.data, "name", ""), getattr(getattr(valid, "data", None), "name", "")
    entry = _OPENED.get(names)
    return None if entry is None else entry.scene


class _Windowed(BackendArray):
    """An array (..., y, x) that reads the window that an index needs."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[np.generic]:
        (rows, row), (cols, col) = map(_span, key[-2:], self.shape[-2:])
        window = Window(rows.start, cols.start, len(rows), len(cols))
        return self._part(window)[(*key[:-2], row, col)]

    @abstractmethod
    def _part(self, window: Window) -> NDArray[np.generic]:
        """Read a window."""


class Plane(_Windowed):
    """A (y, x) array of a file, read when indexed; pickled as its description."""

    content: Content | None = None

    def __init__(self, variable: Variable, shape: tuple[int, int]) -> None:
        self.variable, self.shape = variable, shape
        self.dtype = np.dtype(variable.packing.dtype)

    def _part(self, window: Window) -> NDArray[np.generic]:
        plane = self.variable.plane(*window.slices)
        return np.broadcast_to(plane, (window.height, window.width))


class _PixelArray(_Windowed):
    """(band, y, x) pixels of a scene, read where indexed."""

    opened: Opened | None = None

    def __init__(self, scene: WindowedScene) -> None:
        self.scene = scene
        info = scene.info
        self.shape = (len(info.bands), info.height, info.width)
        self.dtype = np.dtype(info.dtype)

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
    """Return (contiguous pixels to read, index into them) for one basic index of an axis."""
    if isinstance(key, slice):
        wanted = range(size)[key]
        if not wanted:
            return range(0), slice(0)
        low, high = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
        return range(low, high + 1), slice(None, None, wanted.step)
    return range(int(key) % size, int(key) % size + 1), 0


def chunked(array: _Windowed, dims: tuple[str, ...], chunk: int, identity: str) -> xr.DataArray:
    """Return a lazy array in chunks of ``chunk`` x ``chunk`` px; equal identities, equal names."""
    lazy = xr.DataArray(indexing.LazilyIndexedArray(array), dims=dims)
    sizes = {"y": chunk, "x": chunk}
    return lazy.chunk(sizes, name_prefix=f"{type(array).__name__}-", token=f"{identity}-{chunk}")


REOPEN = "Open it again: open_scene(...)."
MIXED = "Its scores may mix two versions, so they were dropped. Run the same command again."


def require_unchanged(facts: Any, *, ended: bool = False) -> None:
    """Raise SceneError if a file on this machine is not as it was when the scene was opened.

    A file that is not there changes no score: what needs it fails, and is named. After a run
    (``ended``), this also holds for files that another one names.
    """
    for path, stamp in dict.fromkeys(_stamps(facts)):
        store = Path(path).is_dir() and is_zarr(path)
        if not store and not Path(path).is_file():
            continue
        # Other stamps are also those of headers, masks or sources, which GDAL has to name.
        alone = ALONE.fullmatch(stamp)
        try:
            now = store_stamp(path) if store else file_stamp(path) if alone else stamp_now(path)
        except SceneError:  # a source of a VRT is lost
            if ended:
                continue
            raise
        if now != stamp:
            advice = MIXED if ended else REOPEN
            raise SceneError(f"'{path}' has changed since the scene was opened. {advice}")


def _stamps(facts: Any) -> Iterator[tuple[str, str]]:
    """Yield path and stamp of all files of a scene, from what decides its pixels."""
    if isinstance(facts, list):
        facts = dict(enumerate(facts))
    elif not isinstance(facts, dict):
        return
    for part in facts.values():
        yield from _stamps(part)
    if "stamp" in facts:
        yield str(facts.get("uri") or facts.get("file") or ""), facts["stamp"]


def folders_in(facts: Any) -> Iterator[str]:
    """Yield the Zarr stores on this machine among the files of a scene."""
    yield from (path for path, _ in _stamps(facts) if Path(path).is_dir())


def stores_in(parts: Sequence[xr.Variable]) -> Iterator[tuple[str, str]]:
    """Yield path and stamp of the Zarr stores on this machine that lazy arrays read.

    Dask's names stay the same if pixels in a store are replaced.
    """
    for inner in _read_by(parts, zarr.Array):
        store: Any = getattr(inner, "store", None)
        root = str(getattr(store, "root", getattr(store, "path", "")))
        if root and Path(root).is_dir():
            yield root, store_stamp(root)


def is_store_lost(parts: Sequence[xr.Variable]) -> bool:
    """Return True if a Zarr store on this machine that lazy arrays read is not there."""
    stores = (getattr(inner, "store", None) for inner in _read_by(parts, zarr.Array))
    return any(isinstance(s, LocalStore) and not Path(s.root).is_dir() for s in stores)


def scenes_in(parts: Sequence[xr.Variable]) -> Iterator[WindowedScene]:
    """Yield the scenes of this library that lazy arrays read."""
    yield from (inner.scene for inner in _read_by(parts, _PixelArray))


def _read_by(parts: Sequence[xr.Variable], kind: type) -> Iterator[Any]:
    """Yield the arrays of a kind that the graphs of lazy arrays read."""
    graphs = (getattr(getattr(part.data, "dask", None), "layers", {}) for part in parts)
    for name, layer in (item for layers in graphs for item in layers.items()):
        for held in dict(layer).values() if "original-" in name else ():
            inner = getattr(held, "value", held)
            while inner is not None and not isinstance(inner, kind):
                inner = getattr(inner, "array", getattr(inner, "_array", None))
            if inner is not None:
                yield inner
