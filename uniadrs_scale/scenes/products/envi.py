"""ENVI rasters: a data file and its .hdr, either of which may be given.

GDAL reads the header; here the bad band list is heeded, and bands get their names.
"""

from __future__ import annotations

from pathlib import Path

from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.headers import open_dataset
from uniadrs_scale.scenes.products.metadata import Band, Product, iso_time, nanometres

SUFFIXES = ("", ".dat", ".img", ".bsq", ".bil", ".bip", ".raw", ".bin", ".envi", ".rfl", ".rdn")
"""Of the data file, beside what the header's own name says."""


def recognise(path: str) -> Product | None:
    """The raster of an ENVI header or data file; None for others.

    Raises:
        SceneError: There is a header but no data file.
    """
    header = _header_of(Path(path))
    if header is None:
        return None
    data = _data_of(header) if Path(path) == header else Path(path)
    with open_dataset(str(data)) as dataset:
        if dataset.driver != "ENVI":
            return None
        fields, count, nodata = dataset.tags(ns="ENVI"), dataset.count, dataset.nodata
    wavelengths = _numbers(fields.get("wavelength"), count)
    unit = fields.get("wavelength_units")
    good = _numbers(fields.get("bbl"), count) or [1.0] * count
    names = _items(fields.get("band_names")) or [str(k + 1) for k in range(count)]
    named = len(set(names)) == count
    bands = tuple(
        Band(
            name=names[k] if named else str(k + 1),
            uri=str(data),
            number=k + 1,
            wavelength=nanometres(wavelengths[k], unit) if wavelengths else None,
            default=good[k] != 0,
            nodata=nodata,
        )
        for k in range(count)
    )
    return Product(
        kind="ENVI raster",
        name=data.name,
        bands=bands,
        datetime=iso_time(fields.get("acquisition_time")),
        platform=fields.get("sensor_type"),
    )


def _header_of(path: Path) -> Path | None:
    """The ENVI header of ``path``, which may be that header."""
    for header in (path, path.with_suffix(".hdr"), path.with_name(f"{path.name}.hdr")):
        if header.suffix.lower() == ".hdr" and header.is_file() and path.is_file():
            with header.open("rb") as file:
                if file.read(4) == b"ENVI":
                    return header
    return None


def _data_of(header: Path) -> Path:
    stem = header.with_suffix("")
    for suffix in SUFFIXES:
        for data in (
            stem.with_name(stem.name + suffix),
            stem.with_name(stem.name + suffix.upper()),
        ):
            if data.is_file() and data != header:
                return data
    raise SceneError(
        f"'{header}' is an ENVI header, but its data file is not beside it: it should be called "
        f"'{stem.name}', with or without .dat, .img, .bsq, .bil, .bip or .raw. "
        "Pass the data file itself if it has another name."
    )


def _items(text: str | None) -> list[str]:
    """'{a, b}' as a list."""
    return [part.strip() for part in text.strip("{} \n").split(",")] if text else []


def _numbers(text: str | None, count: int) -> list[float]:
    """'{1, 2}' as numbers; empty where they are not one a band."""
    try:
        numbers = [float(item) for item in _items(text)]
    except ValueError:
        return []
    return numbers if len(numbers) == count else []
