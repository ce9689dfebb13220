"""A score store as one Cloud Optimized GeoTIFF.

    store -> tiled GeoTIFF -> max-pooled levels -> GDAL's COG driver -> rename

The scores of a swath are drawn on a grid on the way (:mod:`uniadrs_scale.maps.geocode`).

Overviews hold the *maximum* of what they cover: averaging by 2 fades a boat of 3 pixels to a fifth
of its score within two levels, nearest neighbour drops it by chance. GDAL's overview builder knows
no maximum, so the levels are written here and handed to the COG driver as the chain of side files
that GDAL itself understands (``a.tif``, ``a.tif.ovr``, ``a.tif.ovr.ovr``, ...).
"""

from __future__ import annotations

import warnings
import zlib
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import rasterio.shutil
import xarray as xr
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from uniadrs_scale.errors import PlaceWarning, StoreError, UniadrsScaleError
from uniadrs_scale.maps.finished import FILES, ArrayMap, made_here
from uniadrs_scale.maps.geocode import GeocodedScores, on_a_grid
from uniadrs_scale.maps.overviews import (
    BLOCK,
    GDAL_OPTIONS,
    THREADS,
    Level,
    ScoreStatistics,
    above,
    ahead,
    pool,
    windows,
)
from uniadrs_scale.maps.store import ScoreMap, open_map
from uniadrs_scale.storage.folders import room_checked
from uniadrs_scale.storage.places import Place
from uniadrs_scale.storage.trust import NO_PLACE, require_proj
from uniadrs_scale.swaths.geometry import Geocoding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox
    from rasterio.windows import Window

    from uniadrs_scale.core.presets import Resampling

    Source = ScoreMap | ArrayMap | GeocodedScores

FAULTS = RasterioError, CPLE_BaseError, SystemError
"""Errors of GDAL; a SystemError if it does not say why, as on a full disk."""
TEMPORARY = {
    "driver": "GTiff",
    "dtype": "float32",
    "nodata": float("nan"),
    "tiled": True,
    "blockxsize": BLOCK,
    "blockysize": BLOCK,
    # Not compressed: that took a fifth of the time of the COG. Areas of nodata take no room.
    "sparse_ok": True,
    "bigtiff": "if_safer",
}
COG = {
    "driver": "COG",
    # DEFLATE, not ZSTD: 2 % larger, but browsers and old desktop programs can open it.
    "COMPRESS": "DEFLATE",
    # The lowest level: files are 1.7 % larger than with level 6, in half the time.
    "LEVEL": 1,
    "PREDICTOR": "FLOATING_POINT",
    "BLOCKSIZE": BLOCK,
    "OVERVIEWS": "FORCE_USE_EXISTING",
    "BIGTIFF": "IF_SAFER",
    "NUM_THREADS": THREADS,
}


def to_cog(
    store: str | Path | Place | xr.DataArray,
    path: str | Path | Place,
    *,
    crs: str | None = None,
    resolution: float | None = None,
    resampling: Resampling = "max",
) -> Path | str:
    """Write a score store as a Cloud Optimized GeoTIFF; an older map at ``path`` is replaced.

    Same shape, CRS, transform and bits as the store, a band per layer, nodata NaN, overviews by
    NaN-aware maximum (or by the mean, if a layer says so).
    Needs about 150 MB of memory whatever the size (and 20 MB for each core beyond two, up to eight
    cores), and room on disk for the file and for 5.4 bytes per valid pixel and layer more. For a
    bucket that is in the folder for temporary files; the file is sent as one object.

    The scores of a swath (a scene with 2-D latitude and longitude, or ground control points) are
    geocoded, on square north-up cells; NaN outside the swath. That takes 8 bytes per pixel more on
    disk. Pixels whose positions cannot be true are left out, with a warning.

    Args:
        store: Zarr group with an array ``score`` (y, x) float32, a path or URL. Or an array on a
            grid: it is written as it is, but who made it, its levels and its fingerprint are in
            the store only, and `targets` and `report` need them.
        path: The file to write; its folder exists. Or a URL in a bucket.
        crs: CRS of a swath's map, as pyproj takes it. By default UTM for a swath of up to about
            800 km, WGS 84 degrees for a larger one, polar stereographic near a pole.
        resolution: Side of a swath's cells [CRS units]; by default the median spacing of pixels.
        resampling: ``max`` shows in each cell the highest pixel whose centre is in it, so that an
            anomaly of one pixel survives; ``nearest`` the pixel nearest to its centre. Cells
            between pixels show the pixel whose footprint covers them.

    Returns:
        ``path``.

    Raises:
        PlanError: The options cannot be used, are for swaths only, or the CRS tears the swath
            apart (across the antimeridian, or around a pole).
        SceneError: GDAL cannot use its PROJ data.
        StoreError: The store is missing, ``path`` is a file that this library did not write (such
            as the scene), or the file cannot be written. ``path`` is then as it was before.
    """
    require_proj()
    target = Place.of(path)
    opened = ArrayMap.of(store) if isinstance(store, xr.DataArray) else open_map(store)
    _require_replaceable(target)
    for shortcoming in shortcomings(opened):
        warnings.warn(shortcoming, stacklevel=2)
    for note in write_cog(opened, target, Geocoding(crs, resolution, resampling)):
        warnings.warn(note, PlaceWarning, stacklevel=2)
    return target.local or target.text


def write_cog(opened: ScoreMap | ArrayMap, target: Place, geocoding: Geocoding) -> tuple[str, ...]:
    """Write a map as :func:`to_cog` does, and return notes about pixels that are left out."""
    target.require_folder()
    if target.local is not None and target.local.is_dir():
        raise StoreError(f"'{target}' is a folder, and a COG is a file. Choose another name.")
    if target.suffix.lower() not in FILES:
        raise StoreError(f"'{target}' is not the name of a COG. Let it end in .tif or .tiff.")
    try:
        with target.scratch() as folder, rasterio.Env(**GDAL_OPTIONS), NO_PLACE:
            # Arrays of swaths were refused, so that this reads the place of an array only.
            source: Source = on_a_grid(cast("ScoreMap", opened), geocoding, folder)
            finished = folder / "cog.tif"
            with room_checked(folder, *FAULTS, StoreError):
                _make(source, finished)
            target.write(finished)
            return source.notes if isinstance(source, GeocodedScores) else ()
    except UniadrsScaleError:
        raise
    except (OSError, *FAULTS) as error:
        reason = str(error.__cause__ or error).rstrip(".")
        raise StoreError(
            f"Cannot make '{target}' from '{opened.name}' ({reason}): a COG is written whole or "
            "not at all. Check permissions and free space of its folder, then try again."
        ) from error


def _require_replaceable(target: Place) -> None:
    """Raise StoreError if there is another raster than a map of this library: maybe the scene."""
    if target.suffix.lower() in FILES and target.exists() and not made_here(target):
        raise StoreError(
            f"'{target}' exists and is not a map that this library wrote. Choose another output "
            "path."
        )


def _make(source: Source, path: Path) -> None:
    """Write a COG, and the files that it is made from next to it."""
    base, ways = path.with_name("base.tif"), tuple(layer.pooled for layer in source.layers)
    checksums = _copy_scores(source, base, ways)
    _add_overviews(base, ways)
    rasterio.shutil.copy(base, path, **COG)
    _verify(checksums, path, ways)


def shortcomings(opened: ScoreMap | ArrayMap) -> Iterator[UserWarning]:
    """Yield a warning if chunks are missing, and if words about a place do not amount to one."""
    facts = opened.facts
    if facts.missing:
        yield UserWarning(
            f"{facts.missing} of {facts.chunks} chunks of '{opened.name}' are not complete: their "
            "pixels become nodata. Run the same score again, then make the file again."
        )
    if opened.place.problem:
        yield PlaceWarning(
            f"The map has no place on the ground ({opened.place.problem}), so the file has none "
            "either. Write its coordinates (assign_coords), or score the whole scene."
        )


def _copy_scores(source: Source, path: Path, ways: tuple[str, ...]) -> list[int]:
    """Stream the map into a tiled GeoTIFF with its statistics, and into its first overview.

    The map is read once: reading an array may compute it. Return the checksum of each window.
    """

    def read(
        window: Window,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], int, list[ScoreStatistics]]:
        scores = source.read(*window.toslices())
        statistics = [ScoreStatistics.of(values) for values in scores]
        return scores, pool(scores, ways), _checksum(scores), statistics

    grid = profile_of(source.geobox, len(source.layers))
    shape, checksums, parts = (grid["height"], grid["width"]), [], []
    with ExitStack() as files:
        output = files.enter_context(rasterio.open(path, "w", **TEMPORARY, **grid))
        upper = _new_overview(path, shape, len(ways)) if _has_overview(shape) else None
        if upper is not None:
            files.enter_context(upper)
        output.update_tags(**source.tags)
        for window, (scores, pooled, checksum, statistics) in ahead(
            read, windows(*shape), source.threads or THREADS
        ):
            output.write(scores, window=window)
            if upper is not None:
                upper.write(pooled, window=above(window))
            checksums.append(checksum)
            parts.append(statistics)
        output.units = [layer.units for layer in source.layers]
        for band, (layer, *seen) in enumerate(zip(source.layers, *parts, strict=True), start=1):
            output.set_band_description(band, layer.name)
            # A tile server stretches its preview between these.
            tags = ScoreStatistics.combine(seen).gdal_tags()
            output.update_tags(band, long_name=layer.long_name, **tags)
    return checksums


def _checksum(scores: NDArray[np.float32]) -> int:
    return zlib.crc32(np.ascontiguousarray(scores).data)


def profile_of(geobox: GeoBox, bands: int) -> dict[str, Any]:
    """Return a grid as rasterio takes it; without a place if its transform is the identity."""
    height, width = geobox.shape
    profile: dict[str, Any] = {"count": bands, "height": height, "width": width}
    if geobox.affine.is_identity:  # "none" to GDAL
        return profile
    crs = {} if geobox.crs is None else {"crs": rasterio.CRS.from_user_input(geobox.crs.proj)}
    return profile | crs | {"transform": geobox.affine}


def _has_overview(shape: tuple[int, int]) -> bool:
    """Return True if a level of this shape (y, x) has an overview.

    A single column has none: readers tell the factor of a level by its width.
    """
    return max(shape) > BLOCK and shape[1] > 1


def _new_overview(path: Path, shape: tuple[int, int], bands: int) -> Any:
    """Create the overview of the level ``path``, as a file next to it, and return it opened."""
    grid = {"count": bands, "height": -(-shape[0] // 2), "width": -(-shape[1] // 2)}
    return rasterio.open(path.with_name(f"{path.name}.ovr"), "w", **TEMPORARY, **grid)


def _add_overviews(base: Path, ways: tuple[str, ...]) -> None:
    """Write the overviews after the first, each from the one below, until one fits into a block."""
    path = base
    while (path := path.with_name(f"{path.name}.ovr")).exists():
        if _has_overview(shape := Level(path).shape()):
            with _new_overview(path, shape, len(ways)) as output:
                for window, pooled in ahead(Level(path, None, ways).pooled, windows(*shape)):
                    output.write(pooled, window=above(window))


def _verify(checksums: list[int], path: Path, ways: tuple[str, ...]) -> None:
    """Raise unless the file holds the map's bits, and each overview those of the one below.

    GDAL tells of a disk that fills up while it closes a file by a line on stderr only: when
    tried, a truncated file passed as finished.
    """
    with rasterio.open(path) as file:
        numbers = range(len(file.overviews(1)))
    overviews = [Level(path, number, ways) for number in numbers]
    full = Level(path, None, ways)

    def check(window: Window) -> int:
        scores = full.read(window)
        for first in overviews[:1]:
            first.require(above(window), pool(scores, ways))
        return _checksum(scores)

    found = ahead(check, windows(*full.shape()))
    for expected, (window, checksum) in zip(checksums, found, strict=True):
        if checksum != expected:
            raise OSError(f"reading back {window} gave other values than were written")
    for lower, upper in pairwise(overviews):
        for window, pooled in ahead(lower.pooled, windows(*lower.shape())):
            upper.require(above(window), pooled)
