"""Previews: a scene of any size as a small picture, and windows of it in the same colours.

True colour if wavelengths or names say which bands are red, green and blue; radar in dB; three
leading components of any other scene. One pixel of each square is taken, from the overviews of a
file if it has some. Memory depends on the picture and not on the scene.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from rasterio.errors import RasterioError

from uniadrs_scale.core.lattice import Window, sample_windows
from uniadrs_scale.core.presets import choose_preset
from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.crop import Cropped
from uniadrs_scale.scenes.cubes import CubeScene
from uniadrs_scale.scenes.files import OPEN
from uniadrs_scale.scenes.rasters import FileScene
from uniadrs_scale.scenes.raw import RawFile, middles
from uniadrs_scale.scenes.sources import ArrayScene, scene_source

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import SceneInfo, SceneSource

    Part = tuple[slice, slice]
    Windowed = FileScene | CubeScene | Cropped | ArrayScene

VISIBLE = (660.0, 560.0, 485.0)
"""Red, green and blue [nm]."""
NEAR = 45.0
"""Largest distance of a band from its colour [nm]."""
NAMED = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("b04", "b03", "b02"),  # Sentinel-2
    ("sr_b4", "sr_b3", "sr_b2"),  # Landsat 8 and 9
    ("b4", "b3", "b2"),
)
"""Names of red, green and blue bands."""
RGB = 3
READ = 4 << 20
"""Values read at once, or one block if it has more."""
SPARSE = 4
"""Lines of blocks per square of the picture from which on those without its middle are omitted."""
SQUARE = 512
"""Least side of what is read at once of a scene without blocks [px]."""
LEAST, MOST = 0.5, 99.5
"""Percentiles that become black and white."""
GAMMA = 0.8
GREY = 0x8F
"""Grey of pixels without data."""
LOOKED, ACROSS = 64, 4
"""Side of the windows that components are found in [px], and windows along an axis."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """The way from pixels to colours."""

    indices: tuple[int, ...]
    """Bands that are read."""
    weights: NDArray[np.float32]
    """(channel, band) of 1 or 3 channels."""
    bands: str
    """The bands shown, for people."""
    logarithmic: bool = False
    """True for echoes, whose logarithm is shown."""
    low: NDArray[np.float32] | None = None
    """(channel,) values that become black; None until they are known."""
    high: NDArray[np.float32] | None = None

    def values(self, pixels: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return float32 (channel, y, x) of pixels (band, y, x)."""
        bands = pixels.astype(np.float32)
        if self.logarithmic:
            bands = 20 * np.log10(np.maximum(bands, np.float32(1e-6)))
        return np.asarray(np.tensordot(self.weights, bands, axes=1), np.float32)

    def stretched(self, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> Look:
        """Return the look whose black and white suit these values."""
        seen = values[:, valid & np.isfinite(values).all(axis=0)]
        if not seen.size:
            seen = np.zeros((len(values), 1), np.float32)
        # Pixels that are darkest or brightest in all bands are often fill that no tag declares.
        ends = seen.min(axis=1, keepdims=True), seen.max(axis=1, keepdims=True)
        inside = ~np.logical_or(*((seen == end).all(axis=0) for end in ends))
        seen = seen[:, inside] if inside.any() else seen
        low, high = np.percentile(seen, [LEAST, MOST], axis=1).astype(np.float32)
        least = np.maximum(low + np.float32(1e-6), np.nextafter(low, np.float32(np.inf)))
        return replace(self, low=low, high=np.maximum(high, least))

    def colours(self, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return uint8 (y, x, 3) of values (channel, y, x); grey if invalid."""
        low, high = (cast("NDArray[np.float32]", v)[:, None, None] for v in (self.low, self.high))
        shade = np.clip((values - low) / (high - low), 0, 1) ** (1 if self.logarithmic else GAMMA)
        grey = np.rint(255 * np.nan_to_num(shade)).astype(np.uint8)
        picture = np.moveaxis(np.broadcast_to(grey, (RGB, *grey.shape[1:])), 0, -1).copy()
        picture[~valid] = GREY
        return picture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScenePicture:
    """A scene seen from afar."""

    rgb: NDArray[np.uint8]
    """(y, x, 3), grey if invalid."""
    valid: NDArray[np.bool_]
    """(y, x)."""
    factor: int
    """Scene pixels per side of a pixel; squares begin at pixel 0, 0."""
    look: Look
    scene: Windowed
    """The bands that are shown, at full resolution."""

    @property
    def bands(self) -> str:
        """The bands shown, for people."""
        return self.look.bands

    def window(self, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """Return uint8 (y, x, 3) of a window at full resolution, in the same colours.

        Raise SceneError if the scene cannot be read.
        """
        window = Window(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)
        pixels, valid = self.scene.window(window).read()
        return self.look.colours(self.look.values(pixels), valid)


def scene_picture(
    scene: xr.DataArray | SceneSource, side: int, stop: threading.Event | None = None
) -> ScenePicture:
    """Return a picture of ``scene`` of at most ``side`` px.

    Raise SceneError if the scene is not a raster, cannot be read, or if ``stop`` is set meanwhile.
    """
    source: Any = scene
    if not isinstance(scene, FileScene | CubeScene | Cropped | ArrayScene):
        source = scene_source(cast("xr.DataArray", scene))
    info = source.info
    factor = -(-max(info.height, info.width) // side)
    look = _look(source)
    shape = -(-info.height // factor), -(-info.width // factor)
    values = np.empty((len(look.weights), *shape), np.float32)
    valid = np.zeros(shape, bool)
    for part, pixels, mask in _thinned(source, look.indices, factor):
        if stop is not None and stop.is_set():
            raise SceneError("it is not wanted any more.")
        values[(slice(None), *part)], valid[part] = look.values(pixels), mask
    valid &= np.isfinite(values).all(axis=0)
    look = look.stretched(values, valid)
    shown, rgb = _some_bands(source, look.indices, 1), look.colours(values, valid)
    return ScenePicture(rgb=rgb, valid=valid, factor=factor, look=look, scene=shown)


def _some_bands(source: Windowed, indices: Sequence[int], every: int) -> Windowed:
    """Return the scene with these bands, in rising order; files thinned if they can be."""
    if isinstance(source, FileScene):
        return source.thinned(indices, every)
    info = replace(source.info, bands=tuple(source.info.bands[k] for k in indices))
    if isinstance(source, CubeScene):
        return replace(source, info=info, selected=tuple(source.selected[k] for k in indices))
    if isinstance(source, Cropped):
        return replace(source, info=info, scene=cast("Any", _some_bands)(source.scene, indices, 1))
    return replace(source, info=info, array=source.array.isel(band=list(indices)))


def _thinned(
    source: Windowed, indices: Sequence[int], factor: int
) -> Iterator[tuple[Part, NDArray[np.generic], NDArray[np.bool_]]]:
    """Yield (part of the picture, pixels, valid) for all parts; the middle pixel of each square."""
    # Without blocks: squares, because chunks are about square.
    side = max(SQUARE, int((READ // len(indices)) ** 0.5) // SQUARE * SQUARE)
    every, block = _blocks(source, factor) or (1, (side, side))
    reader = _some_bands(source, indices, every)
    info, held = source.info, READ * every**2 // len(indices)
    # Whole blocks, each in one window only: GDAL decodes a block again once its cache is full.
    wide = block[1] * max(1, min(held // block[0], info.width) // block[1])
    # Lines of blocks that hold no middle are not read.
    high = block[0] * (1 if SPARSE * block[0] <= factor else max(1, held // wide // block[0]))
    for row in range(0, info.height, high):
        down, rows = _middles(row, high, factor, info.height)
        for col in range(0, info.width, wide):
            right, cols = _middles(col, wide, factor, info.width)
            if not rows.size or not cols.size:
                continue
            window = Window(row, col, min(high, info.height - row), min(wide, info.width - col))
            pixels, valid = reader.window(window).read()
            taken = np.ix_(
                np.minimum((rows - row) // every, valid.shape[0] - 1),
                np.minimum((cols - col) // every, valid.shape[1] - 1),
            )
            yield (down, right), pixels[:, *taken], valid[taken]


def _blocks(source: Windowed, factor: int) -> tuple[int, tuple[int, int]] | None:
    """Return the step of the overviews to read (1: none), and what a block covers (y, x) [px].

    None for scenes that are not read by blocks of files.
    """
    if not isinstance(source, FileScene):
        return None
    files = [*source.files, *(quality.file for quality in source.quality)]
    if any(file.warp for file in files):
        return None
    try:
        opened = [OPEN.dataset(file.uri, file.stamp) for file in files]
    except RasterioError:
        return None  # reading says what is wrong, and tries again if the file is on a server
    levels = set.intersection(*(set(dataset.overviews(1)) for dataset in opened))
    raw = all(RawFile.of(dataset) for dataset in opened)  # any step
    every = factor if raw else max((level for level in levels if level <= factor), default=1)
    shapes = [dataset.block_shapes[0] for dataset in opened]
    return every, (every * max(high for high, _ in shapes), every * max(wide for _, wide in shapes))


def _middles(start: int, size: int, factor: int, end: int) -> tuple[slice, NDArray[np.intp]]:
    """Return which squares have their middle in start .. start + size, and these middles [px].

    A square that the end of the scene cuts has its last pixel as middle.
    """
    seen = middles(end, factor)
    first, last = np.searchsorted(seen, (start, start + size))
    return slice(int(first), int(last)), seen[first:last]


def _look(source: Windowed) -> Look:
    """Return the bands to show, as the scene's names and wavelengths suggest."""
    info = source.info
    one, count = np.ones((1, 1), np.float32), len(info.bands)
    if choose_preset(info).name == "sar":
        decibel = isinstance(source, FileScene) and source.decibel
        amplitude = not decibel and np.dtype(info.dtype).kind == "u"
        name = f"{info.bands[0]}{' in dB' if amplitude else ''}"
        return Look((0,), one, name, logarithmic=amplitude)
    if count < RGB:
        return Look((0,), one, info.bands[0])
    found = _true_colour(info)
    if found is None:
        return _components(source)
    order = sorted(found)
    weights = np.array([[float(k == band) for k in order] for band in found], np.float32)
    names = [info.bands[k] for k in found]
    # The last words tell them apart: one file per band repeats the name of the scene.
    last = [re.split(r"[^A-Za-z0-9]", name)[-1] for name in names]
    return Look(tuple(order), weights, ", ".join(last if len(set(last)) == RGB else names))


def _true_colour(info: SceneInfo) -> tuple[int, int, int] | None:
    """Return the red, green and blue band, None if they are unknown."""
    centres = np.array(info.wavelengths)
    if centres.size and np.isfinite(centres).any():
        apart = np.abs(centres - np.array(VISIBLE)[:, None])
        nearest = np.nanargmin(np.where(np.isnan(apart), np.inf, apart), axis=1)
        close = all(apart[channel, band] <= NEAR for channel, band in enumerate(nearest))
        if close and len(set(nearest.tolist())) == RGB:
            return cast("tuple[int, int, int]", tuple(nearest.tolist()))
    for colours in NAMED:
        patterns = [re.compile(rf"(?:^|[^a-z0-9]){name}(?:$|[^a-z0-9])") for name in colours]
        words = [band.lower() for band in info.bands]
        places = [next((k for k, w in enumerate(words) if p.search(w)), None) for p in patterns]
        if None not in places:
            return cast("tuple[int, int, int]", tuple(places))
    # A picture: three or four bands of bytes are red, green, blue and one more.
    if np.dtype(info.dtype).itemsize == 1 and len(info.bands) in (RGB, RGB + 1):
        return 0, 1, 2
    return None


def _components(source: Windowed) -> Look:
    """Return the look of the three leading components of all bands, by small windows."""
    info = source.info
    total, seen = np.zeros(len(info.bands)), 0
    products = np.zeros((len(info.bands),) * 2)
    for window in sample_windows(info.height, info.width, block=LOOKED, across=ACROSS):
        pixels, valid = source.window(window).read()
        known = valid & np.isfinite(pixels).all(axis=0)
        picked = pixels.reshape(len(pixels), -1) if known.all() else pixels[:, known]
        values = picked.astype(np.float64)
        total, seen = total + values.sum(axis=1), seen + values.shape[1]
        products += values @ values.T
    mean = total / max(seen, 1)
    _, vectors = np.linalg.eigh(products / max(seen, 1) - np.outer(mean, mean))
    leading = vectors[:, : -RGB - 1 : -1].T
    # Signs are free: bright is where most bands are.
    leading = leading * np.where(leading.sum(axis=1) < 0, -1, 1)[:, None]
    indices = tuple(range(len(info.bands)))
    return Look(indices, leading.astype(np.float32), bands="three leading components")
