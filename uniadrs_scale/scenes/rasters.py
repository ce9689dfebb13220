"""Raster files as lazy scenes.

A scene opened here is an ordinary chunked DataArray. Beside it, a small :class:`FileScene` knows
where the pixels came from, so that a score task on another machine can read its own window from the
file: a fraction of the memory and traffic of moving raw chunks between tasks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from uniadrs_scale.core.validity import MASKED, Nodata, Validity
from uniadrs_scale.scenes.files import OPEN
from uniadrs_scale.scenes.raw import RawFile
from uniadrs_scale.storage.buckets import await_same
from uniadrs_scale.storage.remote import gdal_env, unreachable
from uniadrs_scale.storage.retries import answered, server_of
from uniadrs_scale.storage.trust import open_raster
from uniadrs_scale.storage.urls import canonical, is_remote, stable_uri

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.vrt import WarpedVRT

    from uniadrs_scale.core.contracts import SceneInfo
    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.scenes.grids import Warp


GDAL_CACHE_BYTES = 16 * 2**20
"""GDAL's default block cache is 5 % of the machine's memory, in every worker process."""


class WindowedScene(ABC):
    """A scene that reads any window of itself. Subclasses are dataclasses that can be pickled."""

    __slots__ = ()
    info: SceneInfo
    """Size, bands, georeference and identity."""
    nodata: float | None
    """The one nodata value of all bands, None if they differ or have no value."""

    @abstractmethod
    def decisive(self) -> dict[str, Any]:
        """Return what decides the pixels, as JSON values."""

    @abstractmethod
    def counted(self, window: Window) -> tuple[NDArray[np.generic], Validity]:
        """Read pixels (band, y, x), which of them are valid, and why others are not."""

    def read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read pixels (band, y, x) in the scene's dtype and valid mask (y, x)."""
        pixels, validity = self.counted(window)
        return pixels, validity.valid

    def window(self, window: Window) -> SceneWindow:
        """Return a reader of ``window``, small enough to travel."""
        return SceneWindow(self, window)


@dataclass(frozen=True, slots=True)
class SceneWindow:
    """A window of such a scene, still to be read."""

    scene: WindowedScene
    window: Window

    def read(self) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read pixels (band, y, x) and valid mask (y, x)."""
        return self.scene.read(self.window)

    def counted(self) -> tuple[NDArray[np.generic], NDArray[np.bool_], Mapping[str, int]]:
        """Read pixels, valid mask, and the number of invalid pixels by reason."""
        pixels, validity = self.scene.counted(self.window)
        return pixels, validity.valid, validity.lost


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterFile:
    """One file and the bands to read from it."""

    uri: str
    stamp: str
    """Size and modification time: a changed file is another scene, and is opened again."""
    bands: tuple[int, ...]
    """1-based, in the order to read."""
    nodata: Nodata
    alpha: int | None = None
    """Band that is zero where pixels are invalid."""
    masks: tuple[int, ...] = ()
    """Bands whose masks say which pixels are valid."""
    warp: Warp | None = None
    every: int = 1
    """Step between pixels that are read, along both axes; more than 1 for pictures only."""

    def decisive(self) -> dict[str, Any]:
        """Return what decides the pixels, as JSON values."""
        return {
            "uri": stable_uri(self.uri),
            "stamp": self.stamp,
            "bands": list(self.bands),
            "nodata": {"values": list(self.nodata.values), "together": self.nodata.together},
            "alpha": self.alpha,
            "masks": list(self.masks),
            "warp": None if self.warp is None else self.warp.decisive(),
        }

    def read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        """Read pixels (band, y, x) of ``window``, and what alpha and masks show (None: all)."""
        try:
            return self._try(window)
        except RasterioError:
            if not is_remote(self.uri):
                raise
        # GDAL gives up soon, and at once if it cannot connect. This tries for longer.
        await_same(self.uri, self.stamp)
        try:
            return self._try(window)
        except RasterioError as error:
            raise unreachable(self.uri, error.__cause__ or error) from None

    def _try(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        try:
            with gdal_env(self.uri, GDAL_CACHEMAX=GDAL_CACHE_BYTES):
                read = self._read(window)
        except RasterioError as error:
            # The next try opens it again: GDAL may remember what went wrong.
            OPEN.forget(self.uri, self.stamp, self.warp, error)
            raise
        if is_remote(self.uri):
            answered(server_of(self.uri))
        return read

    def _read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        area = RasterWindow(window.col, window.row, window.width, window.height)
        dataset = OPEN.dataset(self.uri, self.stamp, self.warp)
        if self.warp is not None:
            return dataset.read(list(self.bands), window=area), self._warped(dataset, window, area)
        # Thinned by GDAL, which takes overviews if there are any.
        shape = thinned_shape(window, self.every)
        shown = [dataset.read_masks(band, window=area, out_shape=shape) > 0 for band in self.masks]
        alike = self.alpha and dataset.dtypes[self.alpha - 1] == dataset.dtypes[self.bands[0] - 1]
        bands = [*self.bands, *([self.alpha] if self.alpha and alike else [])]
        raw = RawFile.of(dataset)
        pixels = raw.read(bands, area, self.every) if raw else None
        if pixels is None:
            pixels = dataset.read(bands, window=area, out_shape=(len(bands), *shape))
        if alike:  # in the same read, one for all bands that are stored together
            shown.append(pixels[-1] > 0)
            pixels = pixels[:-1]
        elif self.alpha is not None:
            shown.append(dataset.read(self.alpha, window=area, out_shape=shape) > 0)
        return pixels, np.logical_and.reduce(shown) if shown else None

    def _warped(
        self, dataset: WarpedVRT, window: Window, area: RasterWindow
    ) -> NDArray[np.bool_] | None:
        """Return what a warped view shows: GDAL sets nodata elsewhere, if there is such a value."""
        warp = self.warp
        if warp is None or warp.nodata is None:
            return np.asarray(dataset.read_masks(1, window=area) > 0, bool)
        if warp.inside is None:
            return None
        top, bottom, left, right = warp.inside
        rows, cols = (np.arange(span.start, span.stop) for span in window.slices)
        down, along = (rows >= top) & (rows < bottom), (cols >= left) & (cols < right)
        return np.asarray(down[:, None] & along, bool)


@dataclass(frozen=True, slots=True)
class QualityFile:
    """A raster of classes or flags, and which of them make a pixel invalid."""

    file: RasterFile
    kind: Literal["classes", "bits", "pairs"]
    codes: tuple[tuple[str, int], ...]
    """Names and class values, or bit numbers from 0; of pairs the lower bit."""

    def decisive(self) -> dict[str, Any]:
        """Return what decides the mask, as JSON values."""
        codes = [code for _, code in self.codes]
        return {"file": self.file.decisive(), "kind": self.kind, "codes": codes}

    def drop(self, validity: Validity, window: Window) -> None:
        """Make pixels invalid in which an unwanted class or flag is set."""
        (values,), shown = self.file.read(window)
        for name, code in self.codes:
            if self.kind == "classes":
                found = values == code
            else:
                wanted = (1 if self.kind == "bits" else 3) << code
                found = (values & wanted) == wanted
            validity.drop(np.asarray(found, bool), name)
        if shown is not None:
            validity.drop(~shown, MASKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileScene(WindowedScene):
    """Raster files on one grid, seen as one scene."""

    info: SceneInfo
    files: tuple[RasterFile, ...]
    nodata: float | None
    quality: tuple[QualityFile, ...] = ()
    decibel: bool = False
    """True if amplitudes are turned into dB."""
    every: int = 1
    """Step between pixels that are read: see :meth:`thinned`."""

    def thinned(self, bands: Sequence[int], every: int) -> FileScene:
        """Return some bands, by index, of one pixel in ``every`` x ``every``, for a picture.

        Files on another grid are read in full, so all or none of the files are thinned.
        """
        files, first, order = [], 0, []
        for file in self.files:
            here = [k for k in bands if first <= k < first + len(file.bands)]
            order += here
            if here:
                numbers = tuple(file.bands[k - first] for k in here)
                values = tuple(file.nodata.values[k - first] for k in here)
                nodata = replace(file.nodata, values=values)
                files.append(replace(file, bands=numbers, nodata=nodata))
            first += len(file.bands)
        whole = [*files, *(quality.file for quality in self.quality)]
        step = 1 if any(file.warp for file in whole) else every
        quality = tuple(replace(q, file=replace(q.file, every=step)) for q in self.quality)
        info = replace(self.info, bands=tuple(self.info.bands[k] for k in order))
        return replace(
            self,
            info=info,
            files=tuple(replace(file, every=step) for file in files),
            quality=quality,
            every=step,
        )

    def decisive(self) -> dict[str, Any]:
        """Return what decides the pixels, as JSON values."""
        return {
            "files": [file.decisive() for file in self.files],
            "quality": [quality.decisive() for quality in self.quality],
            "decibel": self.decibel,
        }

    def counted(self, window: Window) -> tuple[NDArray[np.generic], Validity]:
        """Read pixels (band, y, x), which are valid, and why others are not."""
        validity = Validity(thinned_shape(window, self.every))
        parts = []
        for file in self.files:
            pixels, shown = file.read(window)
            parts.append((pixels, file.nodata))
            validity.drop_not_finite(pixels)
            if shown is not None:
                validity.drop(~shown, MASKED)
        validity.drop_nodata_of(parts)
        for quality in self.quality:
            quality.drop(validity, window)
        if self.decibel:
            scaled = np.concatenate([decibels(pixels) for pixels, _ in parts])
            validity.drop_not_finite(scaled)
            return scaled, validity
        if len(parts) == 1:
            return parts[0][0], validity
        return np.concatenate([pixels for pixels, _ in parts], dtype=self.info.dtype), validity


def thinned_shape(window: Window, every: int) -> tuple[int, int]:
    """Return the shape (y, x) of a window of which one pixel in ``every`` x ``every`` is read."""
    return -(-window.height // every), -(-window.width // every)


def decibels(amplitude: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return 20 log10 of radar amplitudes, float32; NaN without an echo."""
    numbers = amplitude.astype(np.float32)
    numbers[numbers <= 0] = np.nan
    return np.asarray(20 * np.log10(numbers), np.float32)


def raster_tag(path: str | Path, name: str) -> str | None:
    """Return one tag of a raster file, None without such a tag, or such a raster."""
    try:
        with open_raster(canonical(str(path))) as dataset:
            tags: dict[str, str] = dataset.tags()
            return tags.get(name)
    except RasterioError:
        return None
