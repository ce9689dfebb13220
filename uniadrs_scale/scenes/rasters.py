"""Raster files as lazy scenes.

A scene opened here is an ordinary chunked DataArray. Beside it, a small :class:`FileScene` knows
where the pixels came from, so that a score task on another machine can read its own window from the
file: a fraction of the memory and traffic of moving raw chunks between tasks.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from uniadrs_scale.core.pixels import valid_pixels
from uniadrs_scale.scenes.headers import open_dataset
from uniadrs_scale.storage.buckets import await_same
from uniadrs_scale.storage.remote import canonical, gdal_env, is_remote, stable_uri, unreachable
from uniadrs_scale.storage.retries import answered, server_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import SceneInfo
    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.scenes.grids import Grid


OPEN_FILES = 64
"""Datasets that a thread keeps open."""
GDAL_CACHE_BYTES = 16 * 2**20
"""GDAL's default block cache is 5 % of the machine's memory, in every worker process."""


class WindowedScene(Protocol):
    """A scene that reads any window of itself."""

    @property
    def info(self) -> SceneInfo:
        """Size, bands, georeference and identity."""

    @property
    def nodata(self) -> float | None:
        """The one nodata value of all bands, if any."""

    def read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Pixels (band, y, x) and valid mask (y, x)."""


@dataclass(frozen=True, slots=True)
class SceneWindow:
    """A window of such a scene, still to be read."""

    scene: WindowedScene
    window: Window

    def read(self) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Pixels (band, y, x) and valid mask (y, x)."""
        return self.scene.read(self.window)


@dataclass(frozen=True, slots=True)
class Warp:
    """How a raster is brought to another grid while it is read."""

    grid: Grid
    resampling: str
    """A name of ``rasterio.enums.Resampling``."""
    nodata: float | None
    """Left out of every mean; None: an alpha band or mask decides. Floats without one have NaN:
    GDAL's alpha of a float raster is opaque everywhere."""

    def decisive(self) -> dict[str, Any]:
        """Return what decides the resampled pixels, as JSON values."""
        return {
            "grid": self.grid.decisive(),
            "resampling": self.resampling,
            "nodata": self.nodata,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
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
    warp: Warp | None = None

    def decisive(self) -> dict[str, Any]:
        """Return what decides the pixels, as JSON values."""
        return {
            "uri": stable_uri(self.uri),
            "stamp": self.stamp,
            "bands": list(self.bands),
            "nodata": list(self.nodata),
            "masked": self.masked,
            "warp": None if self.warp is None else self.warp.decisive(),
        }

    def read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Pixels (band, y, x) and valid mask (y, x) of ``window``, in one read."""
        try:
            return self._try(window)
        except RasterioError:
            if not is_remote(self.uri):
                raise
        # GDAL gives up soon, and where it cannot connect, at once. This goes on asking.
        await_same(self.uri, self.stamp)
        try:
            return self._try(window)
        except RasterioError as error:
            raise unreachable(self.uri, error.__cause__ or error) from None

    def _try(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        try:
            with gdal_env(self.uri, GDAL_CACHEMAX=GDAL_CACHE_BYTES):
                read = self._read(window)
        except RasterioError:
            # The next try opens it anew: GDAL may remember what went wrong.
            _OPEN.forget(self.uri, self.stamp, self.warp)
            raise
        if is_remote(self.uri):
            answered(server_of(self.uri))
        return read

    def _read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        area = RasterWindow(window.col, window.row, window.width, window.height)
        dataset = _OPEN.dataset(self.uri, self.stamp, self.warp)
        pixels = dataset.read(list(self.bands), window=area)
        valid = valid_pixels(pixels, self.nodata)
        if self.masked or self.warp is not None:
            valid &= dataset.read_masks(1, window=area) > 0
        return pixels, valid


@dataclass(frozen=True, slots=True)
class QualityFile:
    """A raster of classes or flags, and which of them make a pixel invalid."""

    file: RasterFile
    kind: Literal["classes", "bits"]
    codes: tuple[int, ...]
    """Class values, or bit numbers from 0."""

    def decisive(self) -> dict[str, Any]:
        """Return what decides the mask, as JSON values."""
        return {"file": self.file.decisive(), "kind": self.kind, "codes": list(self.codes)}

    def valid(self, window: Window) -> NDArray[np.bool_]:
        """(y, x) True where no unwanted class or flag is set."""
        (values,), valid = self.file.read(window)
        if self.kind == "classes":
            return valid & ~np.isin(values, self.codes)
        flagged = np.asarray(values & sum(1 << bit for bit in self.codes), bool)
        return np.asarray(valid & ~flagged, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileScene:
    """Raster files on one grid, seen as one scene."""

    info: SceneInfo
    files: tuple[RasterFile, ...]
    nodata: float | None
    """The one nodata value of all bands; None where there is none or they differ."""
    quality: tuple[QualityFile, ...] = ()
    decibel: bool = False
    """True where amplitudes are turned into dB."""

    def decisive(self) -> dict[str, Any]:
        """Return what decides the pixels, as JSON values."""
        return {
            "files": [file.decisive() for file in self.files],
            "quality": [quality.decisive() for quality in self.quality],
            "decibel": self.decibel,
        }

    def window(self, window: Window) -> SceneWindow:
        """A reader of ``window``, small enough to travel."""
        return SceneWindow(self, window)

    def read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Pixels (band, y, x) in the scene's dtype and valid mask (y, x)."""
        parts = [file.read(window) for file in self.files]
        masks = [valid for _, valid in parts]
        masks += [quality.valid(window) for quality in self.quality]
        valid = masks[0] if len(masks) == 1 else np.logical_and.reduce(masks)
        if self.decibel:
            return np.concatenate([decibels(pixels) for pixels, _ in parts]), valid
        if len(parts) == 1:
            return parts[0][0], valid
        return np.concatenate([pixels for pixels, _ in parts], dtype=self.info.dtype), valid


def decibels(amplitude: NDArray[np.generic]) -> NDArray[np.float32]:
    """20 log10 of radar amplitudes, float32; NaN where there is no echo."""
    numbers = amplitude.astype(np.float32)
    numbers[numbers <= 0] = np.nan
    return np.asarray(20 * np.log10(numbers), np.float32)


class _OpenDatasets(threading.local):
    """Datasets of this thread: GDAL handles are not to be shared, so no lock is needed either."""

    def __init__(self) -> None:
        self.datasets: dict[tuple[str, str, str], Any] = {}

    def dataset(self, uri: str, stamp: str, warp: Warp | None = None) -> Any:
        """The open dataset or warped view of one; the least recently opened makes room."""
        # As text: a NaN that has travelled is not equal to itself, and no view would be found.
        key = uri, stamp, repr(warp)
        if key not in self.datasets:
            if len(self.datasets) >= OPEN_FILES:
                self.datasets.pop(next(iter(self.datasets))).close()
            source = open_dataset(uri)
            self.datasets[key] = source if warp is None else _warped(source, warp)
        return self.datasets[key]

    def forget(self, uri: str, stamp: str, warp: Warp | None = None) -> None:
        """Close a dataset, so that it is opened anew."""
        known = self.datasets.pop((uri, stamp, repr(warp)), None)
        if known is not None:
            known.close()


_OPEN = _OpenDatasets()


def _warped(source: rasterio.DatasetReader, warp: Warp) -> WarpedVRT:
    """A view of ``source`` on another grid. GDAL warps it in fixed blocks, whatever is read."""
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
        # What lies outside the file must not be taken for zeros.
        add_alpha=warp.nodata is None and ColorInterp.alpha not in source.colorinterp,
    )


def raster_tag(path: str | Path, name: str) -> str | None:
    """One tag of a raster file; None where there is no such tag, or no such raster."""
    try:
        with open_dataset(canonical(str(path))) as dataset:
            tags: dict[str, str] = dataset.tags()
            return tags.get(name)
    except RasterioError:
        return None
