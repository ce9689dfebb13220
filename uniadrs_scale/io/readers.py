"""Raster files as lazy scenes.

A scene opened here is an ordinary chunked DataArray. Beside it, a small :class:`FileScene` knows
where the pixels came from, so that a score task on another machine can read its own window from the
file: a fraction of the memory and traffic of moving raw chunks between tasks.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from uniadrs_scale.errors import SceneError
from uniadrs_scale.io.headers import Header, open_dataset
from uniadrs_scale.masks import valid_pixels
from uniadrs_scale.plan import SceneInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.lattice import Window

Nodata = float | Literal["auto"] | None

MANY = 16
"""Names that fit in an error message."""
OPEN_FILES = 64
"""Datasets that a thread keeps open."""
GDAL_CACHE_BYTES = 16 * 2**20
"""GDAL's default block cache is 5 % of the machine's memory, in every worker process."""


@dataclass(frozen=True, slots=True)
class RasterFile:
    """One file and the bands to read from it."""

    uri: str
    stamp: str
    """Size and modification time: a changed file is another scene, and is opened anew."""
    bands: tuple[int, ...]
    """1-based, in the order to read."""
    nodata: tuple[float | None, ...]
    """One a band."""
    masked: bool
    """True where an alpha band or a mask says what is valid."""

    def read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Pixels (band, y, x) and valid mask (y, x) of ``window``, in one read."""
        area = RasterWindow(window.col, window.row, window.width, window.height)
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
            dataset = _OPEN.dataset(self.uri, self.stamp)
            pixels = dataset.read(list(self.bands), window=area)
            valid = valid_pixels(pixels, self.nodata)
            if self.masked:
                valid &= dataset.read_masks(1, window=area) > 0
        return pixels, valid


@dataclass(frozen=True, slots=True)
class FileScene:
    """Raster files on one grid, seen as one scene."""

    info: SceneInfo
    files: tuple[RasterFile, ...]
    nodata: float | None
    """The one nodata value of all bands; None where there is none or they differ."""

    def window(self, window: Window) -> FileWindow:
        """A reader of ``window``, small enough to travel."""
        return FileWindow(self, window)

    def read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Pixels (band, y, x) in the scene's dtype and valid mask (y, x)."""
        parts = [file.read(window) for file in self.files]
        if len(parts) == 1:
            return parts[0]
        pixels = np.concatenate([pixels for pixels, _ in parts], dtype=self.info.dtype)
        return pixels, np.logical_and.reduce([valid for _, valid in parts])


@dataclass(frozen=True, slots=True)
class FileWindow:
    """A window of a :class:`FileScene`, still to be read."""

    scene: FileScene
    window: Window

    def read(self) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Pixels (band, y, x) and valid mask (y, x)."""
        return self.scene.read(self.window)


class _OpenDatasets(threading.local):
    """Datasets of this thread: GDAL handles are not to be shared, so no lock is needed either."""

    def __init__(self) -> None:
        self.datasets: dict[tuple[str, str], rasterio.DatasetReader] = {}

    def dataset(self, uri: str, stamp: str) -> rasterio.DatasetReader:
        """The open dataset; the least recently opened one makes room."""
        key = uri, stamp
        if key not in self.datasets:
            if len(self.datasets) >= OPEN_FILES:
                self.datasets.pop(next(iter(self.datasets))).close()
            self.datasets[key] = open_dataset(uri)
        return self.datasets[key]


_OPEN = _OpenDatasets()


def describe_files(
    sources: Sequence[str | Path],
    *,
    bands: Sequence[int | str] | None = None,
    nodata: Nodata = "auto",
) -> FileScene:
    """What is needed to read ``sources`` as one scene; reads headers only.

    Raises:
        SceneError: A file is missing or no raster, has no bands, or the files share no grid.
    """
    if not sources:
        raise SceneError("No scene file was given. Name at least one raster file.")
    headers = [Header.of(str(source)) for source in sources]
    for other in headers[1:]:
        headers[0].require_same_grid(other)
    selected = _select(headers, bands)
    files = tuple(_raster_files(headers, selected, nodata))
    values = {value for file in files for value in file.nodata}
    names = tuple(headers[h].names[b] for h, b in selected)
    first = headers[0]
    dtype = np.result_type(*(headers[h].dtypes[b] for h, b in selected))
    identity = repr([(file.uri, file.stamp, file.bands, file.nodata) for file in files])
    info = SceneInfo(
        name=Path(first.uri).name if len(headers) == 1 else f"{Path(first.uri).name} ...",
        identity=hashlib.sha256(identity.encode()).hexdigest()[:16],
        height=first.height,
        width=first.width,
        bands=names,
        dtype=str(dtype),
        itemsize=dtype.itemsize,
        crs=first.crs,
        transform=first.transform,
    )
    return FileScene(info, files, values.pop() if len(values) == 1 else None)


def _raster_files(
    headers: list[Header], selected: list[tuple[int, int]], nodata: Nodata
) -> Iterator[RasterFile]:
    """Consecutive bands of one file become one read."""
    for h, group in groupby(selected, key=itemgetter(0)):
        header, places = headers[h], [b for _, b in group]
        values = [header.nodata[b] if nodata == "auto" else nodata for b in places]
        numbers = tuple(header.numbers[b] for b in places)
        yield RasterFile(header.uri, header.stamp, numbers, tuple(values), header.masked)


def _select(headers: list[Header], bands: Sequence[int | str] | None) -> list[tuple[int, int]]:
    """(file, band) positions of the wanted bands, by 1-based number or by name."""
    every = [(h, b) for h, header in enumerate(headers) for b in range(len(header.names))]
    if bands is None:
        return every
    names = [headers[h].names[b] for h, b in every]
    selected = []
    for band in bands:
        if isinstance(band, str) and band in names:
            selected.append(every[names.index(band)])
        elif str(band).isdecimal() and 1 <= int(band) <= len(every):
            selected.append(every[int(band) - 1])
        else:
            known = ", ".join(names) if len(names) <= MANY else f"1 to {len(names)}"
            raise SceneError(
                f"Band '{band}' is not one of '{headers[0].uri}', which has {known}. "
                "Name these, or count from 1."
            )
    if not selected:
        raise SceneError(f"No bands of '{headers[0].uri}' are selected. Select at least one.")
    return selected


def raster_tag(path: str | Path, name: str) -> str | None:
    """One tag of a raster file; None where there is no such tag, or no such raster."""
    try:
        with open_dataset(str(path)) as dataset:
            tags: dict[str, str] = dataset.tags()
            return tags.get(name)
    except RasterioError:
        return None
