"""Pixels of raw files (ENVI), without GDAL.

GDAL takes whole lines apart for any window: up to 20 times as long if lines are long.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.scenes.vrt import envi_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    import rasterio
    from numpy.typing import NDArray
    from rasterio.windows import Window


@dataclass(frozen=True, slots=True)
class RawFile:
    """The layout of a local file that holds nothing but numbers."""

    path: Path
    start: int
    """First byte of the pixels."""
    order: str
    """``bip``, ``bil`` or ``bsq``: by pixel, by line, or band after band."""
    dtype: np.dtype[np.generic]
    shape: tuple[int, int, int]
    """(band, y, x)."""

    @classmethod
    def of(cls, dataset: rasterio.DatasetReader) -> RawFile | None:
        """Return the layout of an ENVI file; None if GDAL has to read it."""
        said = envi_fields(dataset) if dataset.driver == "ENVI" else {}
        start, order = said.get("header_offset", "0"), said.get("interleave", "").lower()
        packed = said.get("file_compression", "0") != "0"
        if order not in ("bip", "bil", "bsq") or packed or not start.isdigit():
            return None
        ends = ">" if said.get("byte_order") == "1" else "<"
        dtype = np.dtype(dataset.dtypes[0]).newbyteorder(ends)
        shape = dataset.count, dataset.height, dataset.width
        return cls(Path(dataset.files[0]), int(start), order, dtype, shape)

    def read(
        self, bands: Sequence[int], window: Window, every: int = 1
    ) -> NDArray[np.generic] | None:
        """Return pixels (band, y, x) of a window; None if GDAL has to say what is wrong.

        Args:
            bands: Numbers from 1 on.
            window: Inside the file.
            every: The middle pixel of each square of this side is read.
        """
        rows, cols = (middles(size, every) for size in (window.height, window.width))
        pixels = np.empty((len(bands), len(rows), len(cols)), self.dtype)
        count, chosen = self.shape[0], [band - 1 for band in bands]
        by_pixel, whole = self.order == "bip", chosen == [*range(count)]
        line = np.empty((window.width, count) if by_pixel else window.width, self.dtype)
        try:
            with self.path.open("rb", buffering=0) as file:
                for (y, row), k in product(enumerate(rows), range(1 if by_pixel else len(bands))):
                    file.seek(self._place(window.row_off + int(row), window.col_off, chosen[k]))
                    if file.readinto(line.data) != line.nbytes:
                        return None
                    if by_pixel:
                        spectra = line.T if every == 1 else line[cols].T
                        pixels[:, y] = spectra if whole else spectra[chosen]
                    else:
                        pixels[k, y] = line if every == 1 else line[cols]
        except OSError:
            return None
        return pixels.astype(self.dtype.newbyteorder("="), copy=False)

    def _place(self, row: int, col: int, band: int) -> int:
        """Return the byte of a pixel, of its first band if all bands follow each other."""
        count, height, width = self.shape
        if self.order == "bip":
            first = (row * width + col) * count
        else:
            line = row * count + band if self.order == "bil" else band * height + row
            first = line * width + col
        return self.start + first * self.dtype.itemsize


def middles(size: int, every: int) -> NDArray[np.intp]:
    """Return the middle of each ``every`` px; the last pixel if the end cuts before the middle."""
    return np.minimum(np.arange(0, size, every) + every // 2, size - 1)
