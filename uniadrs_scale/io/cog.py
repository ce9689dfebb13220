"""A score store as one Cloud Optimized GeoTIFF.

    store -> tiled GeoTIFF -> max-pooled levels -> GDAL's COG driver -> rename

The scores of a swath are drawn on a grid on the way (:mod:`uniadrs_scale.io.geocode`).

Overviews hold the *maximum* of what they cover: averaging by 2 fades a boat of 3 pixels to a fifth
of its score within two levels, nearest neighbour drops it by chance. GDAL's overview builder knows
no maximum, so the levels are written here and handed to the COG driver as the chain of side files
that GDAL itself understands (``a.tif``, ``a.tif.ovr``, ``a.tif.ovr.ovr``, ...). Rejected: a VRT
with ``<Overview>`` elements (the same files plus hand-written XML), and overwriting what
``build_overviews`` made (works too, but computes and writes every level twice).

Not with dask: writers that stream a COG from a graph pad its shape, grow with the scene and turn an
encoder's error into an empty tile. Not the COG driver straight from memory: it needs the raster.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError  # what GDAL raises while a dataset closes
from rasterio.errors import RasterioError
from rasterio.windows import Window

from uniadrs_scale.errors import StoreError, UniadrsScaleError
from uniadrs_scale.geolocation import Geocoding
from uniadrs_scale.io.buckets import write_object
from uniadrs_scale.io.cog_source import open_source, quietly
from uniadrs_scale.io.geocode import on_a_grid
from uniadrs_scale.io.places import place_of, require_folder
from uniadrs_scale.redaction import uri_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from uniadrs_scale.choices import Resampling
    from uniadrs_scale.io.cog_source import ScoreSource
    from uniadrs_scale.io.geocode import GeocodedScores
    from uniadrs_scale.io.places import Place

MEDIA_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
BLOCK = 512
"""Side of the file's internal tiles; a raster that fits into one gets no overviews."""
WINDOW = 2 * BLOCK
"""Side of what is copied at once, 4 MB; a multiple of two blocks, so that neither a level nor the
one above it ever writes part of a block: a compressed block written twice leaves a hole."""
CACHE = 32 << 20
"""Bytes of GDAL's block cache, which takes 5 % of the machine's memory if it is let."""

GDAL_OPTIONS = {
    "GDAL_CACHEMAX": CACHE,
    # Cloud users often export EMPTY_DIR here, and GDAL would then not look for our side files.
    "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE",
}
THREADS = {"num_threads": 2}
"""Of GDAL, to compress and to decompress."""
TEMPORARY = {
    "driver": "GTiff",
    "count": 1,
    "dtype": "float32",
    "nodata": float("nan"),
    "tiled": True,
    "blockxsize": BLOCK,
    "blockysize": BLOCK,
    "compress": "zstd",
    "zstd_level": 1,
    "predictor": 3,
    "bigtiff": "if_safer",
    **THREADS,
}
COG = {
    "driver": "COG",
    # DEFLATE, not ZSTD: 2 % larger, but browsers and old desktop programs can open it.
    "COMPRESS": "DEFLATE",
    "PREDICTOR": "FLOATING_POINT",
    "BLOCKSIZE": BLOCK,
    "OVERVIEWS": "FORCE_USE_EXISTING",
    "BIGTIFF": "IF_SAFER",
    **THREADS,
}


def to_cog(
    store: str | Path,
    path: str | Path,
    *,
    crs: str | None = None,
    resolution: float | None = None,
    resampling: Resampling = "max",
) -> Place:
    """A Cloud Optimized GeoTIFF of a score store is at ``path``; an older file there is replaced.

    Same shape, CRS, transform and bits as the store, nodata NaN, overviews by NaN-aware maximum.
    Needs about 150 MB of memory whatever the size, and room for the file twice over on disk; for a
    bucket in the folder for temporary files, from where it is sent as one object.

    The scores of a swath (a scene with 2-D latitude and longitude, or ground control points) are
    geocoded, on square north-up cells; NaN outside the swath. That takes 8 bytes a pixel more on
    disk.

    Args:
        store: Zarr group with an array ``score`` (y, x) float32, a path or URL.
        path: The file to write; its folder exists. Or a URL in a bucket.
        crs: Of a swath's map, as pyproj takes it. By default UTM for a swath of up to about 800 km,
            WGS 84 degrees for a larger one, polar stereographic near a pole.
        resolution: Side of a swath's cells [CRS units]; by default the median spacing of pixels.
        resampling: ``max`` shows in each cell the highest pixel whose centre lies in it, so that an
            anomaly of one pixel survives; ``nearest`` the pixel nearest to its centre. Cells
            between pixels show the pixel whose footprint covers them.

    Returns:
        ``path``.

    Raises:
        PlanError: The options cannot be used, are for swaths and this is none, or the CRS tears the
            swath apart (across the antimeridian, or around a pole).
        StoreError: There is no score store, or the file cannot be written. ``path`` is then as it
            was before.
    """
    target = place_of(path)
    geocoding = Geocoding(crs, resolution, resampling)
    opened = open_source(store)
    if isinstance(target, Path):
        _make(opened, target, geocoding)
        return Path(path)
    with tempfile.TemporaryDirectory(prefix="uniadrs-scale-") as folder:
        made = Path(folder, uri_name(target))
        _make(opened, made, geocoding)
        write_object(target, made, attributes={"Content-Type": MEDIA_TYPE})
    return target


def _make(opened: ScoreSource, target: Path, geocoding: Geocoding) -> None:
    """The file of an open store is at ``target``, whole or not at all."""
    require_folder(target)
    if target.is_dir():
        raise StoreError(f"'{target}' is a folder, and a COG is a file. Choose another name.")
    try:
        with (
            tempfile.TemporaryDirectory(
                prefix=f".{target.name}.", suffix=".tmp", dir=target.parent
            ) as folder,
            rasterio.Env(**GDAL_OPTIONS),
            quietly(),
        ):
            source = on_a_grid(opened, geocoding, Path(folder))
            base = Path(folder, "base.tif")
            _copy_scores(source, base)
            _add_overviews(base)
            finished = Path(folder, "cog.tif")
            rasterio.shutil.copy(base, finished, **COG)
            _verify(source, finished)
            finished.replace(target)
    except UniadrsScaleError:
        raise
    except (OSError, RasterioError, CPLE_BaseError) as error:
        reason = str(error.__cause__ or error).rstrip(".")
        raise StoreError(
            f"Cannot make '{target}' from '{opened.name}' ({reason}): a COG is written whole or "
            "not at all. Check permissions and free space of its folder, then try again."
        ) from error


def max_pool(score: NDArray[np.float32]) -> NDArray[np.float32]:
    """Half the size, each pixel the highest of the up to four it covers.

    Args:
        score: (y, x), NaN = invalid.

    Returns:
        float32 (ceil(y / 2), ceil(x / 2)); NaN only where all covered pixels are NaN.
    """
    even = np.pad(score, [(0, n % 2) for n in score.shape], constant_values=np.float32(np.nan))
    rows = np.fmax(even[0::2], even[1::2])
    return np.asarray(np.fmax(rows[:, 0::2], rows[:, 1::2]))


def _copy_scores(source: ScoreSource | GeocodedScores, path: Path) -> None:
    """Stream the store into a tiled GeoTIFF."""
    with rasterio.open(path, "w", **TEMPORARY, **source.profile) as output:
        output.set_band_description(1, "score")
        output.update_tags(**source.tags)
        for window in _windows(output.height, output.width):
            output.write(source.read(*window.toslices()), 1, window=window)


def _add_overviews(base: Path) -> None:
    """Write level after level, each from the one below, until one fits into a block."""
    path = base
    while True:
        upper = path.with_name(f"{path.name}.ovr")
        with rasterio.open(path) as lower:
            if max(lower.shape) <= BLOCK:
                return
            _pool_file(lower, upper)
        path = upper


def _pool_file(lower: Any, path: Path) -> None:
    """Write the next level of an open single-band raster."""
    height, width = (-(-n // 2) for n in lower.shape)
    with rasterio.open(path, "w", **TEMPORARY, height=height, width=width) as upper:
        for window, pooled in _pooled(lower):
            upper.write(pooled, 1, window=window)


def _pooled(lower: Any) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """The next level of an open single-band raster, window by window."""
    for window in _windows(*lower.shape):
        yield _above(window), max_pool(lower.read(1, window=window))


def _above(window: Window) -> Window:
    """Where the next level shows ``window``."""
    height, width = -(-window.height // 2), -(-window.width // 2)
    return Window(window.col_off // 2, window.row_off // 2, width, height)


def _verify(source: ScoreSource | GeocodedScores, path: Path) -> None:
    """Raise unless the file holds the store's bits, and each overview the maximum of the one below.

    GDAL tells of a disk that fills up while it closes a file by a line on stderr, and nobody else:
    when tried, a truncated file passed as finished. Reading back costs a sixth of the time.
    """
    with ExitStack() as files:
        full = files.enter_context(rasterio.open(path))
        levels = [
            files.enter_context(rasterio.open(path, overview_level=level))
            for level in range(len(full.overviews(1)))
        ]
        for window in _windows(full.height, full.width):
            expected = source.read(*window.toslices())
            _require_equal(full, window, expected)
            if levels:
                _require_equal(levels[0], _above(window), max_pool(expected))
        for lower, upper in pairwise(levels):
            for window, pooled in _pooled(lower):
                _require_equal(upper, window, pooled)


def _require_equal(output: Any, window: Window, expected: NDArray[np.float32]) -> None:
    # As integers: NaN is not equal to itself, and 0.0 is equal to -0.0.
    if not np.array_equal(output.read(1, window=window).view(np.uint32), expected.view(np.uint32)):
        raise OSError(f"reading back {window} gave other values than were written")


def _windows(height: int, width: int) -> Iterator[Window]:
    """The raster in squares of WINDOW pixels, row by row; those at the end are smaller."""
    for row in range(0, height, WINDOW):
        for col in range(0, width, WINDOW):
            yield Window(col, row, min(WINDOW, width - col), min(WINDOW, height - row))
