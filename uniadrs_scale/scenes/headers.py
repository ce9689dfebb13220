"""What raster files say of themselves, and whether several of them are one scene."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from uniadrs_scale.core.contracts import crs_name
from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.products.metadata import iso_time, nanometres
from uniadrs_scale.storage.buckets import glimpse
from uniadrs_scale.storage.remote import Uri, canonical, is_remote, uri_name
from uniadrs_scale.storage.trust import open_raster

if TYPE_CHECKING:
    import rasterio

GroundPoint = tuple[float, float, float, float, float]
"""(row, column, x, y, z) of a ground control point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
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
    wavelengths: tuple[float | None, ...]
    """Centres, nm."""
    datetime: str | None
    """Of acquisition, ISO 8601."""
    gcps: tuple[GroundPoint, ...]
    """Ground control points, where there is no transform."""
    gcp_crs: str | None
    block_bytes: int
    """Of one block of the file, with all bands where they lie side by side in it."""

    @classmethod
    def of(cls, source: str) -> Header:
        """Read the header of ``source``."""
        uri, stamp = locate(source)
        try:
            with open_dataset(uri) as dataset:
                return cls._of_dataset(dataset, uri, stamp)
        except RasterioError as error:
            if is_remote(uri):
                raise SceneError(
                    f"'{source}' is not a raster that can be opened ({error}). Give a GeoTIFF, COG "
                    "or JPEG 2000 that `gdalinfo` can read there; product folders and formats of "
                    "several files are opened from disk only."
                ) from None
            reason = str(error).removeprefix(f"'{uri}' ").rstrip(".")
            raise SceneError(
                f"'{source}' is not a raster that can be opened: {reason}. "
                "Give a file that `rio info` or `gdalinfo` can read."
            ) from None

    @classmethod
    def _of_dataset(cls, dataset: rasterio.DatasetReader, uri: str, stamp: str) -> Header:
        numbers = tuple(
            number
            for number, colour in zip(dataset.indexes, dataset.colorinterp, strict=True)
            if colour != ColorInterp.alpha
        )
        # Each once: rasterio asks GDAL for all bands whenever one of these is looked at.
        kinds, described, missing = dataset.dtypes, dataset.descriptions, dataset.nodatavals
        dtypes = tuple(kinds[n - 1] for n in numbers)
        _require_real_bands(uri, dtypes, dataset.subdatasets)
        stem = Path(uri_name(uri)).stem
        names = tuple(described[n - 1] or (stem if dataset.count == 1 else str(n)) for n in numbers)
        flags = dataset.mask_flag_enums[numbers[0] - 1]
        bare = dataset.transform.is_identity and dataset.crs is None
        points, points_crs = dataset.gcps if bare else ([], None)
        return cls(
            uri=uri,
            stamp=stamp,
            height=dataset.height,
            width=dataset.width,
            numbers=numbers,
            names=names,
            dtypes=dtypes,
            nodata=tuple(missing[n - 1] for n in numbers),
            masked=MaskFlags.per_dataset in flags,
            crs=None if dataset.crs is None else dataset.crs.to_wkt(),
            transform=None if bare else tuple(dataset.transform)[:6],
            wavelengths=tuple(_wavelength(dataset, n) for n in numbers),
            datetime=_acquired(dataset),
            gcps=tuple((p.row, p.col, p.x, p.y, p.z or 0.0) for p in points),
            gcp_crs=None if points_crs is None else points_crs.to_wkt(),
            block_bytes=_block_bytes(dataset),
        )

    def dtype_of(self, number: int) -> str:
        """Of a band by its number in the file."""
        return self.dtypes[self._place(number)]

    def nodata_of(self, number: int) -> float | None:
        """Of a band by its number in the file."""
        return self.nodata[self._place(number)]

    def _place(self, number: int) -> int:
        place = bisect_left(self.numbers, number)
        if self.numbers[place : place + 1] == (number,):
            return place
        raise SceneError(
            f"'{self.uri}' has no band {number}, but its product's metadata say so: the two do not "
            "belong together. Fetch the product again."
        )

    def require_same_count(self, other: Header) -> None:
        """Raise where two files of one scene have differently many bands."""
        if len(self.names) != len(other.names):
            mine, theirs = f"'{uri_name(self.uri)}'", f"'{uri_name(other.uri)}'"
            raise SceneError(
                f"{theirs} has {len(other.names)} bands but {mine} has {len(self.names)}: the "
                "files of one scene must have equally many. Score them apart, or split them."
            )

    def same_place(self, other: Header) -> bool:
        """True where two files lie pixel on pixel."""
        return self._placement == other._placement

    @property
    def _placement(self) -> object:
        """What decides where pixels are: of control points not their heights."""
        points = tuple(point[:4] for point in self.gcps)
        return self.crs, self.height, self.width, self.transform, points, self.gcp_crs

    def require_same_place(self, other: Header) -> None:
        """Raise where two files of one scene do not lie pixel on pixel."""
        if self.same_place(other):
            return
        mine, theirs = f"'{uri_name(self.uri)}'", f"'{uri_name(other.uri)}'"
        advice = (
            "files of one scene must share one grid. Name it: grid='finest', 'coarsest' or a band."
        )
        if self.crs != other.crs:
            crs, other_crs = crs_name(self.crs) or "none", crs_name(other.crs) or "none"
            raise SceneError(
                f"{theirs} and {mine} have different CRS ({other_crs}, {crs}): the {advice}"
            )
        if self.gcps != other.gcps:
            raise SceneError(
                f"{theirs} and {mine} have different ground control points: the files of one scene "
                "must share one geometry. Score them apart."
            )
        raise SceneError(
            f"{theirs} has {other.height} x {other.width} px at {_origin(other.transform)} but "
            f"{mine} has {self.height} x {self.width} px at {_origin(self.transform)}: the {advice}"
        )


def _block_bytes(dataset: rasterio.DatasetReader) -> int:
    """What GDAL decodes at once, and keeps while the file is open."""
    height, width = dataset.block_shapes[0]
    # As a tag: rasterio's enumeration does not know every driver's word.
    mixed = dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
    together = dataset.count if mixed else 1
    return int(height * width * together * np.dtype(dataset.dtypes[0]).itemsize)


def _wavelength(dataset: rasterio.DatasetReader, number: int) -> float | None:
    """Centre in nm, as GDAL knows it from ENVI headers and other formats' metadata."""
    tags = dataset.tags(number, ns="IMAGERY")
    try:
        return nanometres(float(tags["CENTRAL_WAVELENGTH_UM"]), "um")
    except (KeyError, ValueError):
        return None


def _acquired(dataset: rasterio.DatasetReader) -> str | None:
    """Acquisition time; GDAL writes the epoch where it cannot parse a product's metadata."""
    time = iso_time(dataset.tags(ns="IMAGERY").get("ACQUISITIONDATETIME"))
    return None if time is None or time.startswith("1970-01-01T00:00:00") else time


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


def open_dataset(uri: str) -> rasterio.DatasetReader:
    """Open a raster for reading, georeferenced or not."""
    return open_raster(uri)


def locate(source: str) -> tuple[str, str]:
    """(URI that any worker can open, stamp that changes with the file)."""
    uri = canonical(source)
    if is_remote(uri):
        return uri, glimpse(uri).stamp
    if "://" in source or source.startswith("/vsi") or ":" in Path(source).name:
        return Uri(source), ""
    path = Path(source).absolute()
    if not path.exists():
        raise SceneError(f"Scene file '{source}' does not exist. Check the path.")
    stat = path.stat()
    return str(path), f"{stat.st_size}-{stat.st_mtime_ns}"


def _origin(transform: tuple[float, ...] | None) -> str:
    return "pixel 0, 0" if transform is None else f"({transform[2]:g}, {transform[5]:g})"
