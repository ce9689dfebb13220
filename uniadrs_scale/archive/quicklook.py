"""A small picture of a map of any size, and its statistics, in one pass."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from uniadrs_scale.picture import COLOURS, NODATA, block_maximum, colour_range

if TYPE_CHECKING:
    from pathlib import Path

    import zarr
    from numpy.typing import NDArray

SIDE = 1024
"""Of the picture at most, in pixels."""
NODATA_INDEX = 255
"""The last of a palette."""
BLOCK = 1024
"""About the side of what is read at once, in pixels: a strip of a wide map would not fit."""


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """A map seen from afar."""

    small: NDArray[np.float32]
    """(y, x), the highest score of each square of pixels; NaN where a square has none."""
    statistics: dict[str, float]
    """``minimum``, ``maximum``, ``mean``, ``valid_percent``; empty where there is no score."""

    @classmethod
    def of(cls, score: zarr.Array[Any], side: int = SIDE) -> Overview:
        """Read ``score`` once, block by block.

        The highest, not the mean: averaging fades what is small, which is what a map is for.

        Args:
            score: (y, x) on disk; NaN = invalid.
            side: Longest side of the result [px].
        """
        height, width = score.shape
        factor = -(-max(height, width) // side)
        step = factor * max(1, BLOCK // factor)
        small = np.empty((-(-height // factor), -(-width // factor)), np.float32)
        count, sums, low, high = 0, [0.0], math.inf, -math.inf
        for row in range(0, height, step):
            for col in range(0, width, step):
                # Here: a picture must not compete with the scenes on the cluster.
                pixels = np.asarray(score[row : row + step, col : col + step], np.float32)
                pooled = block_maximum(pixels, factor)
                top, left = row // factor, col // factor
                small[top : top + pooled.shape[0], left : left + pooled.shape[1]] = pooled
                finite = pixels[np.isfinite(pixels)]
                if finite.size:
                    count += finite.size
                    sums.append(float(finite.sum(dtype=np.float64)))
                    low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        if not count:
            return cls(small, {})
        percent = 100 * count / (height * width)
        figures = {"minimum": low, "maximum": high, "mean": math.fsum(sums) / count}
        return cls(small, figures | {"valid_percent": percent})

    def write_png(self, path: Path) -> None:
        """The picture is at ``path``: dark where nothing is, grey where there is no data.

        With a palette, which needs a quarter of the bytes of true colours, and of the time: with
        many small scenes, writing pictures took a seventh of the machine.
        """
        known = np.isfinite(self.small)
        shades = np.asarray(colour_range(self.small)(np.where(known, self.small, 0)))
        indices = np.rint((NODATA_INDEX - 1) * shades.clip(0, 1)).astype(np.uint8)
        picture = Image.fromarray(np.where(known, indices, np.uint8(NODATA_INDEX)))
        picture.putpalette(_palette())
        # Runs of equal bytes only: scores rarely repeat otherwise. A twelfth smaller or larger than
        # with a search for strings, in a third (a map that is dark) to a tenth (noise) of the time.
        picture.save(path, compress_type=zlib.Z_RLE)


def _palette() -> bytes:
    """RGB of each index."""
    colours = mpl.colormaps[COLOURS](np.linspace(0, 1, NODATA_INDEX), bytes=True)[:, :3]
    nodata = np.rint(255 * np.array(to_rgb(NODATA))).astype(np.uint8)
    return np.vstack([colours, nodata]).tobytes()
