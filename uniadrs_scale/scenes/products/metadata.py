"""Contents of a product's metadata: frozen values, the same for every sensor.

A recogniser reads only metadata and returns one of two specs: a :class:`Product` of rasters that
GDAL opens, or a :class:`~uniadrs_scale.scenes.cubes.CubeSpec` of arrays that xarray opens.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from xml.etree import ElementTree as ET
from xml.parsers import expat

from uniadrs_scale.errors import SceneError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LARGEST_XML = 64 << 20
"""Bytes; those of Sentinel-1, the longest known, have about 3 MiB."""
MOST = 16
"""Names that fit in a message."""
Nodata = float | Literal["auto"] | None
SHORTEST = 100
"""Wavelength below which a number without a unit is in micrometres: no sensor sees 100 nm."""
NodataWhen = Literal["auto", "any", "all"]
Mask = Literal["none", "cloud"] | tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """One band of a product, and the raster that holds it."""

    name: str
    uri: str
    number: int = 1
    """Position in its file, from 1; 0 stands for all bands of a file that nothing describes."""
    wavelength: float | None = None
    """Centre, nm."""
    aliases: tuple[str, ...] = ()
    """Other names it may be asked for by, e.g. STAC's common name."""
    asset: str = ""
    """Key of the STAC asset that holds it."""
    default: bool = True
    """Part of the scene if no bands are named."""
    nodata: float | None = None
    """Fill value by the product's metadata; the file's own tag comes first."""
    missing: str = ""
    """Why the band cannot be read, as a sentence; it matters if the band is selected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """A raster that classifies pixels: scene classes, or flags in bits."""

    uri: str
    kind: Literal["classes", "bits", "pairs"]
    codes: tuple[tuple[str, int], ...]
    """(name, class value or bit number); of pairs of bits, set if both are, the lower one."""
    cloud: tuple[str, ...] = ()
    """Classes that ``mask="cloud"`` makes invalid."""
    always: tuple[str, ...] = ()
    """Classes that are never valid pixels, e.g. fill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Rasters that are one scene."""

    kind: str
    """For people: 'Sentinel-2 L2A'."""
    name: str
    bands: tuple[Band, ...]
    quality: tuple[Quality, ...] = ()
    grid: str | None = None
    """Common grid if the bands differ and the caller names none; None: the caller must."""
    gsd_m: float | None = None
    """Ground sample distance if the metadata know it and the rasters, without a grid, do not."""
    datetime: str | None = None
    platform: str | None = None
    amplitude: bool = False
    """True for radar amplitudes, which can be turned into dB."""
    notes: tuple[str, ...] = ()
    """Sentences about what was assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Arguments of a call of ``open_scene``."""

    bands: tuple[str | int, ...] | None = None
    nodata: Nodata = "auto"
    nodata_when: NodataWhen = "auto"
    grid: object = None
    variable: str | tuple[str, ...] | None = None
    mask: Mask = "none"
    units: str | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown rule, and a nodata value that is not one."""
        value: Any = self.nodata
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not (number or value is None or (isinstance(value, str) and value == "auto")):
            raise SceneError(f"nodata={self.nodata!r} is unknown. Pass a number, 'auto' or None.")
        if self.nodata_when not in get_args(NodataWhen):
            raise SceneError(
                f"nodata_when={self.nodata_when!r} is unknown: a pixel is invalid if 'any' band "
                "has its nodata value, or if 'all' bands have theirs. Pass one of these, or 'auto'."
            )

    def together(self, *, declared: bool) -> bool:
        """Return True if a pixel is invalid only where all bands have their nodata value.

        Args:
            declared: True if a format declares the value for each band. A value that the caller
                names, or that products fill with, may be a measurement in one band.
        """
        if self.nodata_when != "auto":
            return self.nodata_when == "all"
        return self.nodata != "auto" or not declared

    def refuse(self, source: str, kind: str, **reasons: str) -> None:
        """Raise SceneError if an option was given that means nothing for this kind of source.

        The ``reasons`` are what each option that must not be given applies to.
        """
        for option, applies_to in reasons.items():
            value = getattr(self, option)
            if value is not None and value != "none":
                raise SceneError(
                    f"{option}={value!r} applies to {applies_to}, but '{source}' is {kind}. "
                    f"Drop {option}."
                )


FOR_GRID = "raster files of several resolutions"
FOR_VARIABLE = "NetCDF, HDF5, Zarr and .mat files"
FOR_MASK = "products with a quality band (Sentinel-2 L2A, Landsat Collection 2, HLS, EnMAP, STAC)"
FOR_UNITS = "Sentinel-1 GRD"


def iso_time(text: str | None) -> str | None:
    """Return a time in any usual spelling as ISO 8601 in UTC, None if it is not a time.

    >>> iso_time("14-APR-2017 10:27:29.454657"), iso_time("2015-08-04T16:19:21.7917421Z")
    ('2017-04-14T10:27:29.454657Z', '2015-08-04T16:19:21.791742Z')
    """
    for parse in (datetime.fromisoformat, _parse_snap):
        try:
            time = parse((text or "").strip())
        except ValueError:
            continue
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return None


def _parse_snap(text: str) -> datetime:
    return datetime.strptime(text, "%d-%b-%Y %H:%M:%S.%f").replace(tzinfo=UTC)


LENGTHS = {
    r"(^|\W)nm|nano|1e-0?9": 1.0,
    r"(^|\W)um|micro|1e-0?6": 1e3,
    r"(^|\W)mm|milli": 1e6,
    r"^(m|met(er|re)s?)$": 1e9,
    "^(a$|å|ang)": 0.1,
}
"""Units of wavelengths, in nm."""


def nanometres(value: float, unit: str | None = None) -> float | None:
    """Return a wavelength in nm, None if it is not a length.

    Without a unit, values below 100 are micrometres.

    >>> nanometres(0.45), nanometres(450), nanometres(0.45, "Micrometers"), nanometres(12, "nm")
    (450.0, 450.0, 450.0, 12.0)
    """
    given = (unit or "").strip().lower().replace("µ", "u").replace("μ", "u")
    if given in {"", "unknown", "none"}:
        given = "um" if value < SHORTEST else "nm"
    factor = next((nm for text, nm in LENGTHS.items() if re.search(text, given)), None)
    return None if factor is None else round(float(value) * factor, 6)


def natural_order(names: Iterable[str]) -> list[str]:
    """Sort numbers in names by value: B2 before B10.

    >>> natural_order(["B10", "B1", "B8A", "B2"])
    ['B1', 'B2', 'B8A', 'B10']
    """

    def parts(name: str) -> list[tuple[int, int, str]]:
        found = [part for part in re.split(r"(\d+)", name) if part]
        return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in found]

    return sorted(names, key=parts)


def families(names: Iterable[str]) -> str:
    """List names for a message, at most MOST of them, numbered ones first as one pattern.

    >>> families(["depth", "rrs_1", "rrs_2", "chl_1"])
    'rrs_* (2), depth, chl_1'
    """
    kinds = {name: re.sub(r"\d+$", "*", name) for name in names}
    members = Counter(kinds.values())
    many = [kind for kind, count in members.items() if count > 1]
    single = [name for name, kind in kinds.items() if members[kind] == 1]
    told = [*(f"{kind} ({members[kind]})" for kind in many), *single]
    return ", ".join(told[:MOST]) + (", ..." if len(told) > MOST else "")


def read_xml(path: Path) -> ET.Element:
    """Return the root of an XML file, without namespaces.

    Raise SceneError if it is not well-formed.
    """
    builder = ET.TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    # Entities are declared there, and no product has any: they multiply text and name files.
    parser.StartDoctypeDeclHandler = lambda *_: _refuse_declarations(path)
    parser.StartElementHandler = lambda tag, facts: builder.start(tag.rpartition("}")[2], facts)
    parser.EndElementHandler = lambda tag: builder.end(tag.rpartition("}")[2])
    parser.CharacterDataHandler = builder.data
    if path.stat().st_size > LARGEST_XML:
        raise SceneError(
            f"'{path}' has {path.stat().st_size / 2**20:.0f} MiB, and metadata of a product have "
            f"at most {LARGEST_XML >> 20}. Pass its rasters as a list."
        )
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
        return builder.close()
    except expat.ExpatError as error:
        raise SceneError(
            f"'{path}' should be the XML metadata of a product, but is not well-formed ({error}). "
            "Fetch the product again, or pass its rasters as a list."
        ) from None


def _refuse_declarations(path: Path) -> None:
    raise SceneError(
        f"'{path}' declares a document type (DOCTYPE), as no product does: such declarations can "
        "name other files. Fetch the product again, or pass its rasters as a list."
    )


def find_text(root: ET.Element, tag: str) -> str | None:
    """Return the text of the first element of that name, None if it has no such element."""
    found = root.find(f".//{tag}")
    return None if found is None or found.text is None else found.text.strip()


def metadata_file(path: str, patterns: Sequence[str]) -> Path | None:
    """Return the file that describes a product: ``path`` itself, or one in that folder.

    ``patterns`` are for file names in lower case.
    """
    given = Path(path)
    if given.is_file():
        candidates = [given]
    elif given.is_dir():
        candidates = sorted(file for file in given.iterdir() if file.is_file())
    else:
        return None
    named = (
        file for file in candidates for pattern in patterns if fnmatch(file.name.lower(), pattern)
    )
    return next(named, None)


def missing_file(path: Path, product: Path, tag: str) -> str:
    """Return which metadata name ``path``, as a sentence; empty if the file exists."""
    if path.exists():
        return ""
    return (
        f"'{product}' names '{path.name}' ({tag}), but '{path}' does not exist: the product is "
        "incomplete."
    )


def not_there(quality: str, fill: str) -> str:
    """Return a note about a quality raster that the metadata name, but that does not exist."""
    return (
        f"'{quality}' is not there, so its classes cannot be masked. Fill is known by {fill} alone."
    )
