"""What a score store says about itself, read and checked before a COG is begun."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import rioxarray.exceptions
import xarray as xr
import zarr
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

from uniadrs_scale.errors import StoreError
from uniadrs_scale.maps.overviews import THREADS
from uniadrs_scale.storage.buckets import zarr_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from uniadrs_scale.storage.places import Place


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreSource:
    """A score store, opened for reading."""

    readers: ClassVar = THREADS
    """Threads that may read at once."""
    name: str
    """What the caller called it."""
    group: zarr.Group
    score: zarr.Array[Any]
    """float32 (y, x)."""
    profile: dict[str, Any]
    """Shape, CRS and transform as rasterio takes them."""
    tags: dict[str, str]
    """Where the pixels come from."""

    def read(self, rows: slice, cols: slice) -> NDArray[np.float32]:
        """Scores (y, x) of a window.

        Raises:
            StoreError: A chunk is damaged.
        """
        try:
            return np.asarray(self.score[rows, cols], np.float32)
        except (OSError, ValueError, RuntimeError) as error:  # codecs and checksums raise all three
            raise StoreError(
                f"Rows {rows.start} to {rows.stop}, columns {cols.start} to {cols.stop} of "
                f"'{self.name}' cannot be read ({error}). Verify the store and score it again."
            ) from error


def open_source(store: str | Path | Place) -> ScoreSource:
    """The score store at a path or URL, read as far as a file needs to know it.

    Raises:
        StoreError: There is no score store.
    """
    name = str(store)
    try:
        group = zarr.open_group(zarr_place(name, read_only=True), mode="r")
    except StoreError:
        raise
    except (OSError, ValueError, KeyError):
        if "://" in name or not Path(name).exists():
            raise StoreError(f"Score store '{name}' does not exist. Check the path.") from None
        raise _not_a_store(name, "no Zarr group") from None
    score = group.get("score")
    if not isinstance(score, zarr.Array):
        raise _not_a_store(name, "no array 'score'")
    if score.ndim != 2 or score.dtype != np.float32:  # noqa: PLR2004 - y, x
        raise _not_a_store(name, f"'score' is {score.dtype} with {score.ndim} axes")
    _warn_if_incomplete(name, group)
    return ScoreSource(
        name=name,
        group=group,
        score=score,
        profile=_georeference(group, score) | _shape(score),
        tags=_tags(group),
    )


def _not_a_store(name: str, met: str) -> StoreError:
    return StoreError(
        f"'{name}' is not a score store ({met}): it needs an array 'score' (y, x) of float32. "
        "Pass what `score` wrote."
    )


def _shape(score: zarr.Array[Any]) -> dict[str, int]:
    return {"height": score.shape[0], "width": score.shape[1]}


def _tags(group: zarr.Group) -> dict[str, str]:
    """The file's tags; the software is what made the scores, version and all, as the store says."""
    known = {"TIFFTAG_SOFTWARE": "software", "fingerprint": "fingerprint"}
    present = {tag: str(group.attrs[key]) for tag, key in known.items() if key in group.attrs}
    return {"AREA_OR_POINT": "Area", "TIFFTAG_SOFTWARE": "uniadrs_scale", **present}


def _georeference(group: zarr.Group, score: zarr.Array[Any]) -> dict[str, Any]:
    """CRS and transform, as far as the store has any."""
    with quietly():
        frame = _frame(group, score)
        found: dict[str, Any] = {} if frame.rio.crs is None else {"crs": frame.rio.crs}
        transform = _transform(frame)
    # Without coordinates rioxarray answers with the identity, which means "none" to GDAL.
    return found if transform.is_identity else found | {"transform": transform}


def _frame(group: zarr.Group, score: zarr.Array[Any]) -> xr.DataArray:
    """The coordinates that place ``score``, around values that are none of its own.

    By hand: xarray opens every array of a store, 15 requests where it lies in a bucket.
    """
    dims = getattr(score.metadata, "dimension_names", None) or ("y", "x")
    found = {name: group.get(name) for name in (*dims, grid_mapping(score))}
    variables = {
        name: ((name,) if array.ndim else (), np.asarray(array[...]), _attributes(array))
        for name, array in found.items()
        if isinstance(array, zarr.Array) and array.ndim < 2  # noqa: PLR2004 - y, x
    }
    values = np.broadcast_to(np.float32(0), score.shape)
    frame = xr.Dataset({**variables, "score": (dims, values, _attributes(score))})
    return xr.decode_cf(frame, decode_coords="all")["score"]


def grid_mapping(score: zarr.Array[Any]) -> str:
    """The name of the array that holds the CRS."""
    return str(score.attrs.get("grid_mapping", "spatial_ref"))


def _attributes(array: zarr.Array[Any]) -> dict[str, Any]:
    """What an array says of itself, but for its fill value, which xarray encodes for Zarr, and for
    coordinates that are left out.
    """  # noqa: D205 - one sentence
    return {k: v for k, v in array.attrs.items() if k not in ("_FillValue", "coordinates")}


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


@contextmanager
def quietly() -> Iterator[None]:
    """Without two warnings that are none of the user's business.

    rasterio's, that a raster has no georeference (the scene had none either), and affine's, about
    how rioxarray multiplies matrices.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        yield
