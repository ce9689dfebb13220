"""What raster files say of themselves, and whether several of them are one scene."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from uniadrs_scale.errors import SceneError
from uniadrs_scale.plan import crs_name


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

    @classmethod
    def of(cls, source: str) -> Header:
        """Read the header of ``source``."""
        uri, stamp = locate(source)
        try:
            with open_dataset(uri) as dataset:
                return cls._of_dataset(dataset, uri, stamp)
        except RasterioError as error:
            raise SceneError(
                f"'{source}' is not a raster that can be opened: {error}. "
                "Give a file that `rio info` or `gdalinfo` can read."
            ) from None

    @classmethod
    def _of_dataset(cls, dataset: rasterio.DatasetReader, uri: str, stamp: str) -> Header:
        numbers = tuple(
            number
            for number, colour in zip(dataset.indexes, dataset.colorinterp, strict=True)
            if colour != ColorInterp.alpha
        )
        dtypes = tuple(dataset.dtypes[n - 1] for n in numbers)
        _require_real_bands(uri, dtypes, dataset.subdatasets)
        stem = Path(uri).stem
        names = tuple(
            dataset.descriptions[n - 1] or (stem if dataset.count == 1 else str(n)) for n in numbers
        )
        flags = dataset.mask_flag_enums[numbers[0] - 1]
        bare = dataset.transform.is_identity and dataset.crs is None
        return cls(
            uri=uri,
            stamp=stamp,
            height=dataset.height,
            width=dataset.width,
            numbers=numbers,
            names=names,
            dtypes=dtypes,
            nodata=tuple(dataset.nodatavals[n - 1] for n in numbers),
            masked=MaskFlags.per_dataset in flags,
            crs=None if dataset.crs is None else dataset.crs.to_wkt(),
            transform=None if bare else tuple(dataset.transform)[:6],
        )

    def require_same_grid(self, other: Header) -> None:
        """Raise where two files of one scene do not lie pixel on pixel."""
        mine, theirs = f"'{Path(self.uri).name}'", f"'{Path(other.uri).name}'"
        crs, other_crs = crs_name(self.crs) or "none", crs_name(other.crs) or "none"
        if len(self.names) != len(other.names):
            raise SceneError(
                f"{theirs} has {len(other.names)} bands but {mine} has {len(self.names)}: the "
                "files of one scene must have equally many. Score them apart, or split them."
            )
        if self.crs != other.crs:
            raise SceneError(
                f"{theirs} and {mine} have different CRS ({other_crs}, {crs}): "
                "the files of one scene must share one grid. Reproject with `rio warp` first."
            )
        if (self.height, self.width, self.transform) != (
            other.height,
            other.width,
            other.transform,
        ):
            raise SceneError(
                f"{theirs} has {other.height} x {other.width} px at {_origin(other.transform)} but "
                f"{mine} has {self.height} x {self.width} px at {_origin(self.transform)}: the "
                "files of one scene must share one grid. Resample with `rio warp --like` first."
            )


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
    with warnings.catch_warnings():
        # A scene without georeference is scored like any other; the plan says so.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(uri)


def locate(source: str) -> tuple[str, str]:
    """(URI that any worker can open, stamp that changes with the file)."""
    if "://" in source or source.startswith("/vsi") or ":" in Path(source).name:
        return source, ""
    path = Path(source).absolute()
    if not path.exists():
        raise SceneError(f"Scene file '{source}' does not exist. Check the path.")
    stat = path.stat()
    return str(path), f"{stat.st_size}-{stat.st_mtime_ns}"


def _origin(transform: tuple[float, ...] | None) -> str:
    return "pixel 0, 0" if transform is None else f"({transform[2]:g}, {transform[5]:g})"
