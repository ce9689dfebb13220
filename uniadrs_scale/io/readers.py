"""Raster files as lazy scenes.

A scene opened here is an ordinary chunked DataArray. Beside it, a small :class:`FileScene` knows
where the pixels came from, so that a score task on another machine can read its own window from the
file: a fraction of the memory and traffic of moving raw chunks between tasks.
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from uniadrs_scale.errors import SceneError
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
            self.datasets[key] = _open(uri)
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
    headers = [_Header.of(str(source)) for source in sources]
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
    headers: list[_Header], selected: list[tuple[int, int]], nodata: Nodata
) -> Iterator[RasterFile]:
    """Consecutive bands of one file become one read."""
    run: RasterFile | None = None
    for h, b in selected:
        header = headers[h]
        value = header.nodata[b] if nodata == "auto" else nodata
        if run is not None and run.uri == header.uri:
            run = replace(run, bands=(*run.bands, header.numbers[b]), nodata=(*run.nodata, value))
            continue
        if run is not None:
            yield run
        run = RasterFile(header.uri, header.stamp, (header.numbers[b],), (value,), header.masked)
    if run is not None:
        yield run


def _select(headers: list[_Header], bands: Sequence[int | str] | None) -> list[tuple[int, int]]:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What one file says of itself."""

    uri: str
    stamp: str
    height: int
    width: int
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    nodata: tuple[float | None, ...]
    masked: bool
    crs: str | None
    transform: tuple[float, ...] | None

    @classmethod
    def of(cls, source: str) -> _Header:
        """Read the header of ``source``."""
        uri, stamp = _locate(source)
        try:
            with _open(uri) as dataset:
                return cls._of_dataset(dataset, uri, stamp)
        except RasterioError as error:
            raise SceneError(
                f"'{source}' is not a raster that can be opened: {error}. "
                "Give a file that `rio info` or `gdalinfo` can read."
            ) from None

    @classmethod
    def _of_dataset(cls, dataset: rasterio.DatasetReader, uri: str, stamp: str) -> _Header:
        numbers = tuple(
            number
            for number, colour in zip(dataset.indexes, dataset.colorinterp, strict=True)
            if colour != ColorInterp.alpha
        )
        dtypes = tuple(dataset.dtypes[n - 1] for n in numbers)
        _require_real_bands(uri, dtypes, dataset.subdatasets)
        stem = Path(uri).stem
        names = tuple(
            dataset.descriptions[n - 1] or (stem if dataset.count == 1 else str(n)) for n in numbers
        )
        flags = dataset.mask_flag_enums[numbers[0] - 1]
        bare = dataset.transform.is_identity and dataset.crs is None
        return cls(
            uri=uri,
            stamp=stamp,
            height=dataset.height,
            width=dataset.width,
            numbers=numbers,
            names=names,
            dtypes=dtypes,
            nodata=tuple(dataset.nodatavals[n - 1] for n in numbers),
            masked=MaskFlags.per_dataset in flags,
            crs=None if dataset.crs is None else dataset.crs.to_wkt(),
            transform=None if bare else tuple(dataset.transform)[:6],
        )

    def require_same_grid(self, other: _Header) -> None:
        """Raise where two files of one scene do not lie pixel on pixel."""
        mine, theirs = f"'{Path(self.uri).name}'", f"'{Path(other.uri).name}'"
        crs, other_crs = _short(self.crs), _short(other.crs)
        if len(self.names) != len(other.names):
            raise SceneError(
                f"{theirs} has {len(other.names)} bands but {mine} has {len(self.names)}: the "
                "files of one scene must have equally many. Score them apart, or split them."
            )
        if self.crs != other.crs:
            raise SceneError(
                f"{theirs} and {mine} have different CRS ({other_crs}, {crs}): "
                "the files of one scene must share one grid. Reproject with `rio warp` first."
            )
        if (self.height, self.width, self.transform) != (
            other.height,
            other.width,
            other.transform,
        ):
            raise SceneError(
                f"{theirs} has {other.height} x {other.width} px at {_origin(other.transform)} but "
                f"{mine} has {self.height} x {self.width} px at {_origin(self.transform)}: the "
                "files of one scene must share one grid. Resample with `rio warp --like` first."
            )


def _require_real_bands(uri: str, dtypes: tuple[str, ...], subdatasets: list[str]) -> None:
    if not dtypes:
        hint = (
            f"Open one of its subdatasets: {', '.join(subdatasets[:4])}"
            if subdatasets
            else ("Give a raster with at least one band that is not alpha")
        )
        raise SceneError(f"'{uri}' has no bands. {hint}.")
    if any(dtype.startswith("complex") for dtype in dtypes):
        raise SceneError(
            f"'{uri}' holds complex values ({dtypes[0]}): scores need real ones. "
            "Write the magnitude to a file, or pass abs(...) as a DataArray."
        )


def _open(uri: str) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        # A scene without georeference is scored like any other; the plan says so.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(uri)


def _locate(source: str) -> tuple[str, str]:
    """(URI that any worker can open, stamp that changes with the file)."""
    if "://" in source or source.startswith("/vsi") or ":" in Path(source).name:
        return source, ""
    path = Path(source).absolute()
    if not path.exists():
        raise SceneError(f"Scene file '{source}' does not exist. Check the path.")
    stat = path.stat()
    return str(path), f"{stat.st_size}-{stat.st_mtime_ns}"


def _short(wkt: str | None) -> str:
    return "none" if wkt is None else wkt.split('"')[1] if '"' in wkt else wkt


def _origin(transform: tuple[float, ...] | None) -> str:
    return "pixel 0, 0" if transform is None else f"({transform[2]:g}, {transform[5]:g})"


def raster_tag(path: str | Path, name: str) -> str | None:
    """One tag of a raster file; None where there is no such tag, or no such raster."""
    try:
        with _open(str(path)) as dataset:
            tags: dict[str, str] = dataset.tags()
            return tags.get(name)
    except RasterioError:
        return None
