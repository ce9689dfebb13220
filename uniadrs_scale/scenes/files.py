"""Raster files: names, a cache of open files, and checks of their first bytes.

Opening a scene reads no pixel, with two exceptions: a band that is tagged as alpha, and 8-bit
pictures of three bands, which may be one. Tags are often wrong there.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.vrt import (
    file_stamp,
    is_lost,
    note_lost,
    require_sources,
    sources_of,
)
from uniadrs_scale.storage.buckets import glimpse
from uniadrs_scale.storage.remote import gdal_name
from uniadrs_scale.storage.trust import open_raster
from uniadrs_scale.storage.urls import Uri, canonical, for_gdal, is_remote, uri_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.scenes.grids import Warp

PAGE = re.compile(r"(?P<head>GTIFF_DIR:(?:off:)?\d+:)(?P<path>.+)")
"""GDAL's name of one page of a TIFF."""
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
ACROSS = 3
"""Windows per axis."""
SIDE = 128
"""Side of a window [px]."""
WHOLE = 2**21
"""Pixels up to which a picture is read whole."""
SOFT = 0.5
"""Share of alpha values between transparent and opaque from which on they are measurements."""
MANY = 64
"""Different values that a measured band has at least."""
OPEN_FILES = 64
"""Datasets that a thread keeps open."""
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def locate(source: str) -> tuple[str, str]:
    """Return (URI that any worker can open, stamp that changes with the file)."""
    page = PAGE.match(source)
    if page is not None:
        uri, stamp = locate(page["path"])
        return Uri(page["head"] + gdal_name(uri)), stamp
    uri = canonical(source)
    if is_remote(uri):
        return uri, glimpse(uri).stamp
    if for_gdal(source):
        return Uri(source), ""
    path = Path(source).absolute()
    if not path.exists():
        raise SceneError(f"Scene file '{source}' does not exist. Check the path.")
    return str(path), file_stamp(str(path))


def require_plain(source: str) -> None:
    """Raise SceneError if ``source`` is an archive, or a pipe or device: opening one may hang.

    Libraries of scenes take names in UTF-8 only.
    """
    if source.encode(errors="replace").decode() != source:
        raise SceneError(f"The name {source!a} is not UTF-8. Rename the file.")
    mode = 0
    with suppress(OSError, ValueError):
        mode = Path(source).stat().st_mode
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise SceneError(f"'{source}' is a pipe, a socket or a device. Pass a file or a folder.")
    name = uri_name(source).lower()
    if name.endswith((".npy", ".npz")):
        raise SceneError(
            f"'{source}' is a file of numpy arrays, whose axes have no names. Load it, and pass "
            "xr.DataArray(np.load(path), dims=('band', 'y', 'x')) to score(), with the axes in "
            "their order."
        )
    if name.endswith(ARCHIVES) and not Path(source).is_dir():
        raise SceneError(
            f"'{source}' is an archive. Unpack it, then pass the folder or the files in it."
        )


def require_there(wanted: Sequence[str], known: Mapping[str, str]) -> None:
    """Raise SceneError if the file of a band that is wanted is missing.

    Args:
        wanted: Why each of these bands is missing; empty if it is there.
        known: The same for all bands, by name.
    """
    missing = next(filter(None, wanted), "")
    if missing:
        names = [name for name, problem in known.items() if not problem]
        other = f", or name bands that are there: {', '.join(names[:16])}" if names else ""
        raise SceneError(f"{missing} Fetch that file{other}.")


def require_bands(uri: str, count: int, subdatasets: list[str]) -> None:
    """Raise SceneError if a file has no bands of its own."""
    if count:
        return
    hint = "Pass a raster with at least one band"
    if subdatasets:
        hint = f"Open one of its subdatasets: {', '.join(subdatasets[:4])}"
    raise SceneError(f"'{uri}' has no bands. {hint}.")


def require_real(uri: str, dtypes: tuple[str, ...]) -> None:
    """Raise SceneError if pixels are complex."""
    if any("complex" in dtype for dtype in dtypes):
        raise SceneError(
            f"'{uri}' holds complex values ({dtypes[0]}): scores need real ones. "
            "Write the magnitude to a file, or pass abs(...) as a DataArray."
        )


def require_one_alpha(uri: str, bands: Sequence[int]) -> None:
    """Raise SceneError if several bands say which pixels are valid."""
    if len(bands) > 1:
        raise SceneError(
            f"Bands {' and '.join(map(str, bands))} of '{uri}' are tagged as alpha: only one can "
            f"be. Correct the tags (gdal_edit.py -colorinterp_{bands[1]} undefined)."
        )


def measured_alpha(dataset: rasterio.DatasetReader, alpha: int) -> bool:
    """Return True if band ``alpha`` holds measurements, such as near infrared.

    A mask is transparent or opaque, soft edges of a picture are few. NAIP and others have a fourth
    band that some program has tagged as alpha.
    """
    kind = np.dtype(dataset.dtypes[alpha - 1])
    clear = (0, 1 if kind.kind == "f" else np.iinfo(kind).max, np.iinfo(np.uint8).max)
    pieces = [piece.ravel() for piece in _pieces(dataset, [alpha])]
    values = np.concatenate(pieces) if pieces else np.empty(0)
    between = values[~np.isin(values, clear)]
    return between.size > SOFT * values.size and np.unique(between).size >= MANY


def is_grey_picture(dataset: rasterio.DatasetReader) -> bool:
    """Return True if red, green and blue of an 8-bit picture are equal."""
    if dataset.colorinterp[:3] != RGB or set(dataset.dtypes[:3]) != {"uint8"}:
        return False
    seen = False
    for piece in _pieces(dataset, [1, 2, 3]):
        if (piece[0] != piece[1]).any() or (piece[0] != piece[2]).any():
            return False
        seen = seen or bool((piece[0] != piece[0].flat[0]).any())
    return seen


def _pieces(dataset: rasterio.DatasetReader, bands: list[int]) -> Iterator[NDArray[np.generic]]:
    """Yield pixels (band, y, x): all of a small raster, a few windows of a large one."""
    if dataset.height * dataset.width <= WHOLE:
        windows = [Window(0, 0, dataset.width, dataset.height)]
    else:
        windows = [
            Window(col, row, min(SIDE, dataset.width), min(SIDE, dataset.height))
            for row, col in product(_starts(dataset.height), _starts(dataset.width))
        ]
    for window in windows:
        try:
            yield dataset.read(bands, window=window)
        except RasterioError as error:  # the tile that needs it will say so
            note_lost(sources_of(dataset), error)
            continue


def block_bytes(dataset: rasterio.DatasetReader) -> int:
    """Return the bytes that GDAL decodes at once, and keeps while the file is open."""
    height, width = dataset.block_shapes[0]
    # As a tag: rasterio's enumeration does not know every driver's word.
    mixed = dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
    together = dataset.count if mixed else 1
    return int(height * width * together * np.dtype(dataset.dtypes[0]).itemsize)


def _starts(size: int) -> list[int]:
    centres = [(2 * k + 1) * size // (2 * ACROSS) for k in range(ACROSS)]
    return sorted({min(max(centre - SIDE // 2, 0), max(size - SIDE, 0)) for centre in centres})


class _OpenDatasets(threading.local):
    """Datasets of this thread: GDAL handles are not to be shared, so no lock is needed either."""

    def __init__(self) -> None:
        self.datasets: dict[tuple[int, str, str, str], tuple[Any, frozenset[str]]] = {}

    def dataset(self, uri: str, stamp: str, warp: Warp | None = None) -> Any:
        """Return the open dataset or warped view; the least recently opened makes room.

        Raise SceneError if it is a VRT whose sources are lost.
        """
        key = _key(uri, stamp, warp)
        if key in self.datasets and is_lost(self.datasets[key][1]):
            self.forget(uri, stamp, warp)
        if key not in self.datasets:
            if len(self.datasets) >= OPEN_FILES:
                self.datasets.pop(next(iter(self.datasets)))[0].close()
            source = open_raster(uri)
            sources = require_sources(source, uri)
            self.datasets[key] = (source if warp is None else _warped(source, warp)), sources
        return self.datasets[key][0]

    def forget(self, uri: str, stamp: str, warp: Warp | None, error: Any = None) -> None:
        """Close a dataset that could not be read, so that it is opened again."""
        known, sources = self.datasets.pop(_key(uri, stamp, warp), (None, frozenset[str]()))
        note_lost(sources, error)
        if known is not None:
            known.close()


def _key(uri: str, stamp: str, warp: Warp | None) -> tuple[int, str, str, str]:
    """Return the key of an open dataset.

    A fork has its parent's datasets, but one place in each file with it: reads would mix. The view
    as text, because a NaN that has travelled is not equal to itself, and no view would be found.
    """
    return os.getpid(), uri, stamp, repr(warp)


OPEN = _OpenDatasets()


def _warped(source: rasterio.DatasetReader, warp: Warp) -> WarpedVRT:
    """Return a view of ``source`` on another grid. GDAL warps it in fixed blocks."""
    grid = warp.grid
    return WarpedVRT(
        source,
        crs=grid.crs,
        transform=rasterio.Affine(*grid.transform),
        height=grid.height,
        width=grid.width,
        resampling=Resampling[warp.resampling],
        src_nodata=warp.nodata,
        nodata=warp.nodata,
        # Pixels outside the file must not be taken for zeros.
        add_alpha=warp.nodata is None and ColorInterp.alpha not in source.colorinterp,
        # By default, a mean includes nodata if another band has a value there.
        UNIFIED_SRC_NODATA="NO" if warp.single else "YES",
    )
