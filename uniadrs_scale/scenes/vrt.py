"""VRTs and raw files: the files that a scene needs and changes with, and the bytes in them."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from functools import lru_cache
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio._err import CPLE_AppDefinedError, CPLE_FileIOError
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError

from uniadrs_scale.core.contracts import digest
from uniadrs_scale.core.validity import EXACT
from uniadrs_scale.errors import SceneError, gist
from uniadrs_scale.scenes.ends import least_bytes
from uniadrs_scale.scenes.packing import numbers
from uniadrs_scale.storage.trust import open_raster

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import rasterio

RAW = {"ENVI", "EHdr", "ERS", "ISCE", "PAux", "ROI_PAC", "RRASTER", "GenBin"}
"""Drivers of files without structure: bytes missing at the end read as zeros."""
WHOLE = {"GTiff", "COG", "JP2OpenJPEG", "PNG", "JPEG"}
"""Drivers of files that hold all their pixels."""
TILED = {"TIL", "DIMAP", "SENTINEL2"}
"""Drivers that make a VRT of the images that a product names."""
IMAGES = (".tif", ".tiff", ".jp2", ".ntf")
"""Endings of these images, among all files of the product."""
INDEX = "GTI"
"""Driver of indexes of tiles. GDAL does not list the tiles."""
SUFFIXES = ("", ".dat", ".img", ".bsq", ".bil", ".bip", ".raw", ".bin", ".envi", ".rfl", ".rdn")
"""Endings of the data file of an ENVI header, besides that in the header's own name."""
METADATA = ".xml", ".txt", ".safe"
"""Endings of the metadata files of products."""
PART = re.compile(r"(.+[_-])(?:MTL\.(?:txt|json|xml)|METADATA\.XML)$", re.IGNORECASE)
"""Metadata files whose product may be in one folder with others, and the start of its files."""
MOST_TEXT = 2**22
"""Characters of a VRT that are searched for its sources."""
RAW_BAND = re.compile("<VRTRasterBand[^>]*VRTRawRasterBand.*?</VRTRasterBand>", re.DOTALL)
"""A band of a VRT that is a file without structure."""
SOURCE = re.compile(r"<Source(?:Filename|Dataset)([^>]*)>([^<]+)<")
PLAIN = re.compile(r"\s*([+-]?[\d.]+(e[+-]?\d+)?|nan|[+-]?inf(inity)?)\s*", re.IGNORECASE)
"""A number that GDAL understands."""
NUMBER = re.compile(r"""(?:<(\w+Offset)>|\b(band)=["'])\s*(-?\d+)""")
RELATIVE = re.compile(r"""relativeToVRT\s*=\s*["']1""")
WORDED = re.compile(r"\w{2,}:")
_LOST: set[str] = set()
"""Sources of VRTs that GDAL could not open in this process."""


def envi_fields(dataset: rasterio.DatasetReader) -> dict[str, str]:
    """Return the fields of an ENVI header by their names in lower case, as GDAL takes them."""
    return {name.lower(): words.strip() for name, words in dataset.tags(ns="ENVI").items()}


def file_nodata(dataset: rasterio.DatasetReader) -> tuple[tuple[float | None, ...], list[int]]:
    """Return the nodata value of each band, and the bands whose value only GDAL's mask knows.

    rasterio has values as floats, in which large integers are not exact, or missing. GDAL takes
    words of an ENVI header that it does not understand, such as {-9999}, for 0.
    """
    values = dataset.nodatavals
    text = envi_fields(dataset).get("data_ignore_value")
    if text is not None and not PLAIN.fullmatch(text):
        values = per_band(text, dataset.count)
    inexact = [
        n
        for n, (value, dtype) in enumerate(zip(values, dataset.dtypes, strict=True), start=1)
        if dtype in ("int64", "uint64")
        and dataset.mask_flag_enums[n - 1] == [MaskFlags.nodata]
        and (value is None or abs(value) >= EXACT)
    ]
    return tuple(None if n in inexact else v for n, v in enumerate(values, start=1)), inexact


def per_band(text: str | None, count: int) -> tuple[float | None, ...]:
    """Return the number of each band that '{1, 2}' or '1' says; None if it says no such thing."""
    said = numbers(text)
    if len(said) == 1:
        said = said * count
    return tuple(said) if len(said) == count else (None,) * count


def require_whole(dataset: rasterio.DatasetReader, uri: str) -> None:
    """Raise SceneError if a raw file is shorter than its header says, or a VRT names lost files."""
    require_sources(dataset, uri)
    _require_bytes(dataset, uri)


def _require_bytes(dataset: rasterio.DatasetReader, uri: str) -> None:
    """Raise SceneError if a raw file, or that of a band in a VRT, is shorter than it must be."""
    raw = list(_raw_bands(dataset))
    envi = envi_fields(dataset)
    for field in ("major_frame_offsets", "minor_frame_offsets"):
        if re.search("[1-9]", envi.get(field, "")):
            raise SceneError(
                f"'{uri}' has bytes between its lines or bands ({field} = {envi[field]}), which "
                "GDAL would read as pixels. Remove them, and the field from the header."
            )
    if dataset.driver in RAW and envi.get("file_compression", "0") == "0":
        pixel = sum(np.dtype(dtype).itemsize for dtype in dataset.dtypes)
        size = int(envi.get("header_offset", 0)) + dataset.height * dataset.width * pixel
        # ERS and RRASTER are opened by their header, which is next to the pixels.
        files = [path for name in dataset.files if (path := Path(name)).is_file()]
        raw = [(max(files, key=lambda path: path.stat().st_size, default=Path(uri)), size)]
    raw += [(Path(uri), least_bytes(dataset, Path(uri)))]
    for path, size in raw:
        found = path.stat().st_size if path.is_file() else size
        if found < size:
            raise SceneError(
                f"'{path}' is cut off: {found} of {size} bytes are there, as its header says "
                f"({dataset.height} x {dataset.width} px, {dataset.count} bands, "
                f"{dataset.dtypes[0]}). Fetch the file again, or correct the header."
            )


def sources_of(dataset: Any) -> frozenset[str]:
    """Return the rasters that a VRT names, or the metadata of a product of several tiles."""
    if dataset.driver in TILED:
        return frozenset(name for name in dataset.files if name.lower().endswith(IMAGES))
    if dataset.driver != "VRT":
        return frozenset()
    text = RAW_BAND.sub("", "".join(dataset.tags(ns="xml:VRT").values()))
    folder = Path(dataset.name).parent
    found = _named(text)
    # GDAL alone knows how "HDF5:a.h5://b" is relative.
    return frozenset(
        str(folder / name) if relative else name
        for relative, name in found
        if not (relative and WORDED.match(name))
    )


def _named(text: str) -> list[tuple[bool, str]]:
    """Return the names of files in a VRT, and True if they are relative to it."""
    found = SOURCE.findall(text)
    return [(RELATIVE.search(words) is not None, unescape(name)) for words, name in found]


def _raw_bands(dataset: Any) -> Iterator[tuple[Path, int]]:
    """Yield the raw file of each such band of a VRT, and the bytes that it must have."""
    for band in RAW_BAND.findall("".join(dataset.tags(ns="xml:VRT").values())):
        said = {tag or name: int(number) for tag, name, number in NUMBER.findall(band)}
        pixel, line = said.get("PixelOffset", 0), said.get("LineOffset", 0)
        last = max(0, (dataset.width - 1) * pixel) + max(0, (dataset.height - 1) * line)
        item = np.dtype(dataset.dtypes[said["band"] - 1]).itemsize
        for relative, name in _named(band):
            path = Path(dataset.name).parent / name if relative else Path(name)
            yield path, said.get("ImageOffset", 0) + last + item


def data_paths(header: Path) -> list[Path]:
    """Return the paths that the data file of an ENVI header may have."""
    endings = dict.fromkeys(ending for s in SUFFIXES for ending in (s, s.upper()))
    return [header.with_name(header.stem + ending) for ending in endings]


def header_paths(data: Path) -> list[Path]:
    """Return the paths that the header of a raw file may have, the first one its own alone."""
    return [data.with_name(f"{data.name}.hdr"), data.with_suffix(".hdr")]


def belonging(
    path: Path, names: Callable[[Path], Collection[str]], seen: frozenset[Path] = frozenset()
) -> list[Path]:
    """Return the other files that a scene changes with, without opening it.

    They are the data of an ENVI header, the header and the mask of a raster, the sources of a VRT
    with all of that, and the files of the product whose metadata are in ``path``. An open file
    knows better: :func:`whole_stamp`.

    Args:
        path: A file of the scene.
        names: Returns the names in a folder.
        seen: VRTs that have been looked at.
    """
    folder, ending = path.parent, path.suffix.lower()
    if ending == ".vrt" and path.is_file():  # a pipe would never end
        if path in seen:
            return []
        with path.open(encoding="utf-8", errors="replace") as file:
            named = [folder / name.strip() for _, name in _named(file.read(MOST_TEXT))]
        sources = [source for source in named if source.is_file()]
        return sources + [more for s in sources for more in belonging(s, names, seen | {path})]
    if start := PART.match(path.name):
        same = (name for name in names(folder) if name.startswith(start[1]))
        return [folder / name for name in sorted(same) if name != path.name]
    if ending in METADATA:
        found = (Path(base, name) for base, _, files in os.walk(folder) for name in files)
        return [other for other in found if other != path]
    mask = path.with_name(f"{path.name}.msk")
    possible = data_paths(path) if ending == ".hdr" else [*header_paths(path), mask]
    return [other for other in possible if other.name in names(folder)]


def whole_stamp(dataset: rasterio.DatasetReader, uri: str, stamp: str) -> str:
    """Return a stamp that also changes with the other files that decide the pixels.

    These are headers of raw files, masks, tiles, and what a VRT names. Overviews, statistics and
    texts next to an image decide none.
    """
    names = {*dataset.files, *require_sources(dataset, uri)}
    names |= {str(path) for path, _ in _raw_bands(dataset)}
    if dataset.driver == "VRT":
        names |= {str(header) for name in names for header in header_paths(Path(name))}
    if dataset.driver in WHOLE:
        names = {name for name in names if name.endswith(".msk")}
    decisive = {name for name in names if not name.endswith((".aux.xml", ".ovr"))} - {uri}
    parts = [found for name in sorted(decisive) if (found := file_stamp(name))]
    return f"{stamp}-{digest({'parts': parts})}" if parts else stamp


def note_lost(sources: frozenset[str], error: BaseException | None) -> None:
    """Remember sources that GDAL could not open: next time, zeros would come without an error.

    GDAL's pool of sources keeps a failed one as long as any VRT is open, and says nothing then.
    """
    while error is not None:
        known = isinstance(error, RasterioError | CPLE_AppDefinedError | CPLE_FileIOError)
        if not known:  # a damaged block can be read again
            _LOST.update(sources)
        error = error.__cause__


def require_sources(dataset: rasterio.DatasetReader, uri: str) -> frozenset[str]:
    """Return the files that a VRT names, directly or by another VRT; empty for other files.

    Raise SceneError if one cannot be opened, or could not be opened before.
    """
    if dataset.driver == INDEX:
        raise SceneError(
            f"'{uri}' is an index of tiles, in which GDAL takes lost tiles for zeros. Make a VRT "
            "of the tiles (gdalbuildvrt all.vrt TILES), and pass that."
        )
    if dataset.driver not in {"VRT", *TILED}:
        return frozenset()
    waiting, found = [uri], set[str]()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        own = "", sources_of(dataset)
        problem, deeper = own if name == uri else _looked_at(name, file_stamp(name))
        waiting += deeper
        if problem:
            _LOST.add(name)
        if name in _LOST:
            raise SceneError(
                f"'{uri}' names '{name}', which {'cannot' if problem else 'could not'} be opened"
                f"{f' ({problem})' if problem else ' before'}: GDAL would take its pixels for "
                "zeros. Fetch it, or correct what names it, then run the same command again."
            )
    return frozenset(found)


def stamp_now(uri: str) -> str:
    """Return the stamp of a file with the others that decide its pixels; empty if it is damaged."""
    with suppress(RasterioError), open_raster(uri) as dataset:
        return whole_stamp(dataset, uri, file_stamp(uri))
    return ""


def file_stamp(name: str) -> str:
    """Return size and time of a file; empty if it is not there."""
    with suppress(OSError, ValueError):
        found = Path(name).stat()
        return f"{found.st_size}-{found.st_mtime_ns}"
    return ""


@lru_cache(maxsize=2**14)
def _looked_at(name: str, stamp: str) -> tuple[str, frozenset[str]]:
    """Return why a file cannot be opened, empty if it can; and the files that it names."""
    del stamp
    try:
        with open_raster(name) as source:
            _require_bytes(source, name)
            return "", sources_of(source)
    except (RasterioError, SceneError) as error:
        return gist(error), frozenset()


def is_lost(sources: frozenset[str]) -> bool:
    """Return True if one of these could not be opened before."""
    return bool(sources & _LOST)
