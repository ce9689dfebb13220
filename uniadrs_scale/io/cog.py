"""A score store as one Cloud Optimized GeoTIFF.

    store -> tiled GeoTIFF -> max-pooled levels -> GDAL's COG driver -> rename

Overviews hold the *maximum* of what they cover: averaging by 2 fades a boat of 3 pixels to a tenth
of its score within two levels, nearest neighbour drops it by chance. GDAL's overview builder knows
no maximum, so the levels are written here and handed to the COG driver as the chain of side files
that GDAL itself understands (``a.tif``, ``a.tif.ovr``, ``a.tif.ovr.ovr``, ...). Rejected: a VRT
with ``<Overview>`` elements (the same files plus hand-written XML), and writing into overviews that
``build_overviews`` made first (GDAL opens overviews of a GeoTIFF read-only).

Not with dask: writers that stream a COG from a graph pad its shape, grow with the scene and turn an
encoder's error into an empty tile. Not the COG driver straight from memory: it needs the raster.
"""

from __future__ import annotations

import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import rasterio
import rasterio.shutil
import rioxarray.exceptions  # registers the `.rio` accessor
import xarray as xr
import zarr
from affine import Affine
from rasterio._err import CPLE_BaseError  # what GDAL raises while a dataset closes
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

import uniadrs_scale
from uniadrs_scale.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

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
}
COG = {
    "driver": "COG",
    # DEFLATE, not ZSTD: 8 % larger, but browsers and old desktop programs can open it.
    "COMPRESS": "DEFLATE",
    "PREDICTOR": "FLOATING_POINT",
    "BLOCKSIZE": BLOCK,
    "OVERVIEWS": "FORCE_USE_EXISTING",
    "BIGTIFF": "IF_SAFER",
    "NUM_THREADS": "2",
}


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """A score store, opened for reading."""

    name: str
    """What the caller called it."""
    score: zarr.Array[Any]
    """float32 (y, x)."""
    profile: dict[str, Any]
    """Shape, CRS and transform as rasterio takes them."""
    tags: dict[str, str]
    """Where the pixels come from."""


def to_cog(store: str | Path, path: str | Path) -> Path:
    """A Cloud Optimized GeoTIFF of a score store is at ``path``; an older file there is replaced.

    Same shape, CRS, transform and bits as the store, nodata NaN, overviews by NaN-aware maximum.
    Needs about 150 MB of memory whatever the size, and room for the file twice over on disk.

    Args:
        store: Zarr group with an array ``score`` (y, x) float32.
        path: The file to write; its folder exists.

    Returns:
        ``path``.

    Raises:
        StoreError: There is no score store, or the file cannot be written. ``path`` is then as it
            was before.
    """
    target = Path(path)
    source = _open(store)
    _require_folder(target)
    try:
        with (
            tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder,
            rasterio.Env(**GDAL_OPTIONS),
            _quietly(),
        ):
            base = Path(folder, "base.tif")
            _copy_scores(source, base)
            _add_overviews(base)
            finished = Path(folder, "cog.tif")
            rasterio.shutil.copy(base, finished, **COG)
            _verify(source, finished)
            finished.replace(target)
    except (OSError, RasterioError, CPLE_BaseError) as error:
        reason = str(error.__cause__ or error).rstrip(".")
        raise StoreError(
            f"Cannot make '{target}' from '{source.name}' ({reason}): a COG is written whole or "
            "not at all. Check permissions and free space of its folder, then try again."
        ) from error
    return target


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


def _open(store: str | Path) -> _Source:
    """Everything the file needs to know, read and checked before a byte is written."""
    name = str(store)
    try:
        group = zarr.open_group(name, mode="r")
    except (OSError, ValueError, KeyError):
        if "://" not in name and not Path(name).exists():
            raise StoreError(f"Score store '{name}' does not exist. Check the path.") from None
        raise _not_a_store(name, "no Zarr group") from None
    score = group.get("score")
    if not isinstance(score, zarr.Array):
        raise _not_a_store(name, "no array 'score'")
    if score.ndim != 2 or score.dtype != np.float32:  # noqa: PLR2004 - y, x
        raise _not_a_store(name, f"'score' is {score.dtype} with {score.ndim} axes")
    _warn_if_incomplete(name, group)
    return _Source(name, score, _georeference(name) | _shape(score), _tags(group))


def _not_a_store(name: str, met: str) -> StoreError:
    return StoreError(
        f"'{name}' is not a score store ({met}): it needs an array 'score' (y, x) of float32. "
        "Pass what `score` wrote."
    )


def _shape(score: zarr.Array[Any]) -> dict[str, int]:
    return {"height": score.shape[0], "width": score.shape[1]}


def _tags(group: zarr.Group) -> dict[str, str]:
    """The file's tags; the software is the one that made the scores, if the store says so."""
    ours = f"uniadrs_scale {uniadrs_scale.__version__}"
    tags = {
        "AREA_OR_POINT": "Area",
        "TIFFTAG_SOFTWARE": str(group.attrs.get("software", ours)),
    }
    fingerprint = group.attrs.get("fingerprint")
    return tags if fingerprint is None else tags | {"fingerprint": str(fingerprint)}


def _georeference(name: str) -> dict[str, Any]:
    """CRS and transform, as far as the store has any."""
    with (
        _quietly(),
        xr.open_zarr(name, consolidated=False, chunks=None, decode_coords="all") as dataset,
    ):
        score = dataset["score"]
        found: dict[str, Any] = {} if score.rio.crs is None else {"crs": score.rio.crs}
        transform = _transform(score)
    # Without coordinates rioxarray answers with the identity, which means "none" to GDAL.
    return found if transform.is_identity else found | {"transform": transform}


def _transform(score: xr.DataArray) -> Affine:
    """The transform of the coordinates, in the exact bits of the scene's if it is the same.

    The coordinates decide, because slicing moves them and leaves ``GeoTransform`` stale; but a
    corner computed from them is off by rounding, and then maps no longer stack.
    """
    try:
        transform = cast("Affine", score.rio.transform())
    except rioxarray.exceptions.OneDimensionalRaster:  # a single column has no spacing
        return Affine.identity()
    spatial_ref = score.coords.get(score.rio.grid_mapping)
    written = None if spatial_ref is None else spatial_ref.attrs.get("GeoTransform")
    if written is None:
        return transform
    exact = Affine.from_gdal(*map(float, str(written).split()))
    tolerance = 1e-6 * max(abs(exact.a), abs(exact.b))
    return exact if transform.almost_equals(exact, tolerance) else transform


def _warn_if_incomplete(name: str, group: zarr.Group) -> None:
    done = group.get("done")
    if not isinstance(done, zarr.Array):
        return
    states = np.asarray(done[:])
    missing = int((states != 1).sum())
    if missing:
        warnings.warn(
            f"{missing} of {states.size} chunks of '{name}' are not complete: their pixels become "
            "nodata. Run the same score again, then make the file again.",
            stacklevel=4,
        )


def _require_folder(target: Path) -> None:
    folder = target.absolute().parent
    if not folder.is_dir():
        raise StoreError(f"Output folder '{folder}' does not exist. Create it, or choose another.")
    if target.is_dir():
        raise StoreError(f"'{target}' is a folder, and a COG is a file. Choose another name.")


@contextmanager
def _quietly() -> Iterator[None]:
    """Without two warnings that are none of the user's business.

    rasterio's, that a raster has no georeference (the scene had none either), and affine's, about
    how rioxarray multiplies matrices.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        yield


def _copy_scores(source: _Source, path: Path) -> None:
    """Stream the store into a tiled GeoTIFF."""
    with rasterio.open(path, "w", **TEMPORARY, **source.profile) as output:
        output.set_band_description(1, "score")
        output.update_tags(**source.tags)
        for window in _windows(output.height, output.width):
            output.write(cast("Any", source.score[window.toslices()]), 1, window=window)


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
        pooled = max_pool(lower.read(1, window=window))
        yield Window(window.col_off // 2, window.row_off // 2, *pooled.shape[::-1]), pooled


def _verify(source: _Source, path: Path) -> None:
    """Raise unless the file holds the store's bits, and each overview the maximum of the one below.

    GDAL tells of a disk that fills up while it closes a file by a line on stderr, and nobody else:
    when tried, a truncated file passed as finished. Reading back costs a quarter of the time.
    """
    with rasterio.open(path) as output:
        levels = len(output.overviews(1))
        for window in _windows(output.height, output.width):
            _require_equal(output, window, cast("Any", source.score[window.toslices()]))
    for level in range(levels):
        options = {} if level == 0 else {"overview_level": level - 1}
        with (
            rasterio.open(path, **options) as lower,
            rasterio.open(path, overview_level=level) as upper,
        ):
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
