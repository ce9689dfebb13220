"""Headers of raster files, and the check that several files are one scene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NodataShadowWarning, RasterioError

from uniadrs_scale.core.contracts import crs_name
from uniadrs_scale.errors import Quiet, SceneError
from uniadrs_scale.scenes.files import (
    PAGE,
    RGB,
    block_bytes,
    is_grey_picture,
    locate,
    measured_alpha,
    require_bands,
    require_one_alpha,
    require_real,
)
from uniadrs_scale.scenes.grids import Grid, same_crs, same_transform
from uniadrs_scale.scenes.products.metadata import iso_time, nanometres
from uniadrs_scale.scenes.vrt import envi_fields, file_nodata, require_whole, whole_stamp
from uniadrs_scale.storage.trust import open_raster
from uniadrs_scale.storage.urls import is_remote, uri_name

if TYPE_CHECKING:
    import rasterio

SHADOWED = Quiet(NodataShadowWarning, "The dataset's nodata attribute is shadowing")
"""A context without the warning that nodata hides the alpha band: here a pixel must pass both."""
GroundPoint = tuple[float, float, float, float, float]
"""(row, column, x, y, z) of a ground control point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Metadata of one file."""

    uri: str
    stamp: str
    height: int
    width: int
    numbers: tuple[int, ...]
    """Bands that hold measurements, from 1."""
    alpha: int | None
    """Band that says which pixels are valid."""
    measured: int | None
    """Band that is tagged as alpha but holds measurements."""
    shared_mask: tuple[int, ...]
    """A band with the mask of all bands, if they share one."""
    masks: tuple[int, ...]
    """Bands whose own mask counts, as in a VRT."""
    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    scaled: bool
    """True if a band has a scale or an offset, which is not applied."""
    nodata: tuple[float | None, ...]
    """One per band of the file, as are names and dtypes."""
    joint_nodata: bool
    """True if only pixels of which all bands have theirs are nodata: the tag NODATA_VALUES."""
    picture: bool
    """True if the first three bands are red, green and blue."""
    grey: bool
    """True if these three are equal."""
    palette: bool
    """True if values are numbers of colours or classes."""
    pages: tuple[str, ...]
    """GDAL's names of the rasters in the file if there are several: pages of a TIFF, or others."""
    crs: str | None
    transform: tuple[float, ...] | None
    unplaced: str
    """Why the words about a place do not amount to one, as part of a sentence."""
    wavelengths: tuple[float | None, ...]
    """Centres, nm."""
    datetime: str | None
    """Time of acquisition, ISO 8601."""
    gcps: tuple[GroundPoint, ...]
    """Ground control points, used without a transform only."""
    gcp_crs: str | None
    block_bytes: int
    """Bytes of one block of the file, with all bands if they are next to each other in it."""

    @classmethod
    def of(cls, source: str) -> Header:
        """Read the header of ``source``."""
        uri, stamp = locate(source)
        try:
            with open_raster(uri) as dataset, SHADOWED:
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
        require_bands(uri, dataset.count, dataset.subdatasets)
        # Each once: rasterio asks GDAL for all bands whenever one of these is looked at.
        colours, dtypes, described = dataset.colorinterp, dataset.dtypes, dataset.descriptions
        require_real(uri, dtypes)
        require_whole(dataset, uri)
        alphas = [n for n, c in enumerate(colours, start=1) if c == ColorInterp.alpha]
        clear = [n for n in alphas if not measured_alpha(dataset, n)]
        require_one_alpha(uri, clear)
        measured = next((n for n in alphas if n not in clear), None)
        alpha = None if dataset.count == 1 else next(iter(clear), None)
        flags = list(zip(dataset.indexes, dataset.mask_flag_enums, strict=True))
        shared = tuple(n for n, flag in flags if flag == [MaskFlags.per_dataset])
        joint = {MaskFlags.per_dataset, MaskFlags.nodata} == set(flags[0][1])
        tagged = map(float, dataset.tags().get("NODATA_VALUES", "").split())
        nodata, inexact = file_nodata(dataset)
        stem, envi = Path(uri_name(uri)).stem, envi_fields(dataset)
        return cls(
            uri=uri,
            stamp=whole_stamp(dataset, uri, stamp),
            height=dataset.height,
            width=dataset.width,
            numbers=tuple(n for n in dataset.indexes if n != alpha),
            alpha=alpha,
            measured=measured,
            shared_mask=shared[:1],
            masks=tuple(n for n, flag in flags if not flag or n in inexact),
            names=tuple(
                described[n - 1] or (stem if dataset.count == 1 else str(n))
                for n in dataset.indexes
            ),
            dtypes=dtypes,
            scaled={*dataset.scales} | {*dataset.offsets} != {0.0, 1.0},
            nodata=tuple(tagged) if joint else nodata,
            joint_nodata=joint,
            picture=colours[:3] == RGB,
            grey=is_grey_picture(dataset),
            palette=ColorInterp.palette in colours
            or "class" in envi.get("file_type", "").lower()
            or dataset.tags(1).get("LAYER_TYPE") == "thematic",
            pages=_pages(dataset, uri),
            wavelengths=tuple(_wavelength(dataset, n) for n in dataset.indexes),
            datetime=_acquired(dataset),
            block_bytes=block_bytes(dataset),
            **_place(dataset),
        )

    def dtype_of(self, number: int) -> str:
        """Return the dtype of a band by its number in the file."""
        if not 1 <= number <= len(self.dtypes):
            raise SceneError(
                f"'{self.uri}' has no band {number}, but its product's metadata say so: the two do "
                "not belong together. Fetch the product again."
            )
        return self.dtypes[number - 1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def grid(self) -> Grid:
        """Return the place of the pixels. Raise SceneError if the file has none."""
        if self.transform is None or self.crs is None:
            raise SceneError(
                f"'{uri_name(self.uri)}' has no {'CRS' if self.transform else 'transform'}: only "
                "georeferenced files can be brought to one grid. Give all files one size."
            )
        return Grid(self.height, self.width, self.transform, self.crs)

    def require_values(self) -> None:
        """Raise SceneError if pixels are numbers of colours or classes, not measurements."""
        if self.palette:
            raise SceneError(
                f"'{uri_name(self.uri)}' has a palette or classes: its values are their numbers, "
                "whose differences mean nothing. Pass the measurements that it was made from, or "
                "expand colours (gdal_translate -expand rgb)."
            )

    def require_same_count(self, other: Header) -> None:
        """Raise SceneError if two files of one scene differ in band count."""
        if len(self.numbers) != len(other.numbers):
            mine, theirs = f"'{uri_name(self.uri)}'", f"'{uri_name(other.uri)}'"
            raise SceneError(
                f"{theirs} has {len(other.numbers)} bands but {mine} has {len(self.numbers)}: the "
                "files of one scene must have equally many. Score them separately, or split them."
            )

    def same_place(self, other: Header) -> bool:
        """Return True if two files are pixel on pixel, to a hundredth of a pixel."""
        return (
            self.size == other.size
            and same_crs(self.crs, other.crs)
            and same_crs(self.gcp_crs, other.gcp_crs)
            # The heights of control points place no pixel.
            and [point[:4] for point in self.gcps] == [point[:4] for point in other.gcps]
            and same_transform(self.transform, other.transform, self.size)
        )

    def fits(self, grid: Grid) -> bool:
        """Return True if the file is on ``grid``, to a hundredth of a pixel."""
        return (
            self.size == (grid.height, grid.width)
            and same_crs(self.crs, grid.crs)
            and same_transform(self.transform, grid.transform, self.size)
        )

    def renamed(self, name: str) -> Header:
        """Return the header with ``name`` for its only band, unless that has one."""
        stem = Path(uri_name(self.uri)).stem
        return replace(self, names=tuple(name if own == stem else own for own in self.names))

    def require_same_place(self, other: Header) -> None:
        """Raise SceneError if two files of one scene are not pixel on pixel."""
        if self.same_place(other):
            return
        mine, theirs = f"'{uri_name(self.uri)}'", f"'{uri_name(other.uri)}'"
        advice = (
            "files of one scene must share one grid. Name it: --grid finest, coarsest or a band "
            "(grid=)."
        )
        if not same_crs(self.crs, other.crs):
            crs, other_crs = crs_name(self.crs) or "none", crs_name(other.crs) or "none"
            raise SceneError(
                f"{theirs} and {mine} have different CRS ({other_crs}, {crs}): the {advice}"
            )
        if self.gcps != other.gcps:
            raise SceneError(
                f"{theirs} and {mine} have different ground control points: the files of one scene "
                "must share one geometry. Score them separately."
            )
        raise SceneError(
            f"{theirs} has {other.height} x {other.width} px at {_origin(other.transform)} but "
            f"{mine} has {self.height} x {self.width} px at {_origin(self.transform)}: the {advice}"
        )


def _place(dataset: rasterio.DatasetReader) -> dict[str, Any]:
    """Return the fields of a header that place its pixels: a transform, or control points.

    GDAL has the identity if a file has no transform: its CRS alone places nothing.
    """
    crs = None if dataset.crs is None else dataset.crs.to_wkt()
    transform = tuple(dataset.transform)[:6]
    usable = bool(np.isfinite(transform).all() and dataset.transform.determinant)
    if usable and not dataset.transform.is_identity:
        return {"crs": crs, "transform": transform, "unplaced": "", "gcps": (), "gcp_crs": None}
    points, points_crs = dataset.gcps
    placed = bool(points) and points_crs is not None
    words = {
        "ground control points come without a CRS": points and points_crs is None,
        f"the CRS {crs_name(crs)} comes without a transform": crs is not None and usable,
        f"its transform {transform} places no pixels": not usable,
        "RPCs are not used": bool(dataset.tags(ns="RPC")),
        "geolocation arrays are not used": bool(dataset.tags(ns="GEOLOCATION")),
    }
    return {
        "crs": None,
        "transform": None,
        "unplaced": "" if placed else " and ".join(word for word, found in words.items() if found),
        "gcps": tuple((p.row, p.col, p.x, p.y, p.z or 0.0) for p in points) if placed else (),
        "gcp_crs": points_crs.to_wkt() if placed else None,
    }


def _pages(dataset: rasterio.DatasetReader, uri: str) -> tuple[str, ...]:
    """Return GDAL's names of the rasters in a file, none if there is but one."""
    names = dataset.subdatasets
    return tuple(names) if len(names) > 1 and not PAGE.match(uri) else ()


def _wavelength(dataset: rasterio.DatasetReader, number: int) -> float | None:
    """Return a band's centre in nm, as GDAL knows it from ENVI headers and other metadata."""
    try:
        return nanometres(float(dataset.tags(number, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"]), "um")
    except (KeyError, ValueError):
        tags = dataset.tags(number)  # as in GeoTIFFs that were made from ENVI files
    try:
        return nanometres(float(tags["wavelength"]), tags.get("wavelength_units"))
    except (KeyError, ValueError):
        return None


def _acquired(dataset: rasterio.DatasetReader) -> str | None:
    """Return the acquisition time; GDAL writes the epoch if it cannot parse a product's."""
    time = iso_time(dataset.tags(ns="IMAGERY").get("ACQUISITIONDATETIME"))
    return None if time is None or time.startswith("1970-01-01T00:00:00") else time


def _origin(transform: tuple[float, ...] | None) -> str:
    return "pixel 0, 0" if transform is None else f"({transform[2]:.10g}, {transform[5]:.10g})"
