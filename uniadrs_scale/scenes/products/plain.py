"""Rasters without a product around them: single files, one file per band, pages, ENVI.

GDAL reads ENVI headers; here the list of bad bands is obeyed, and bands get their names.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.files import PAGE
from uniadrs_scale.scenes.headers import Header
from uniadrs_scale.scenes.packing import numbers
from uniadrs_scale.scenes.products.metadata import Band, Product, iso_time, nanometres
from uniadrs_scale.scenes.products.stac import HELPERS, QUALITY
from uniadrs_scale.scenes.vrt import PLAIN, data_paths, envi_fields, header_paths, per_band
from uniadrs_scale.storage.trust import open_raster
from uniadrs_scale.storage.urls import is_remote, uri_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

IGNORED = ("data_ignore_value", "nodata", "nodata_value", "no_data_value", "fill_value")
"""Fields of an ENVI header for the value of missing pixels; GDAL knows the first."""
LISTS = {"bbl": "no band is left out as bad", "wavelength": "wavelengths are not known"}
"""Fields of an ENVI header with one number per band, and what follows if they have not."""
MAP_INFO = re.compile(r"^\s*map info\s*=\s*{([^}]*)}", re.IGNORECASE | re.MULTILINE)
MAP_UNITS = "Meters Km Feet Yards Miles Degrees Minutes Seconds Radians"
"""Units of a place that GDAL knows, but for nautical miles."""
SAME_UNITS = "m meter metre metres degree unknown none pixels pixel"
"""Words for a unit that mean what GDAL takes without one."""
LONGEST_HEADER = 2**24
"""Bytes of an ENVI header that are looked at."""
FEW = 4
"""Pages that a message names."""
WORD = re.compile(r"[^_\-. ]+")
DATE = re.compile(r"(19|20)\d\d(0\d|1[0-2])[0-3]\d(T\d{4,6})?Z?")
"""A word in a file's name that is a date."""
AUXILIARY = re.compile(
    r"(.*[-_.])?(?P<word>" + HELPERS + r"|tci(_[rgb])?|pvi|udm2?|(cloud_?)?mask|"
    r"b?qa|qa\d0|qa_(pixel|radsat|aerosol)|(msk|ql)_\w+|sr_(aerosol|atmos_opacity)|"
    r"(pixel|radsat|sraerosol|lineage|state)qa|qc|state_\d+k?m|(inc|ls)_map|"
    r"st_(atran|cdist|drad|emis|emsd|trad|urad))(_(\d+k?m|clip|file_format))*",
    re.IGNORECASE,
)
"""Names of classes, angles, states of the air and pictures, in files of Landsat, HLS, Sentinel-2,
EnMAP, Planet, MODIS and radar of HyP3: not bands next to others unless named, as in STAC items."""


def plain_product(sources: Sequence[str], headers: dict[str, Header]) -> Product:
    """Return raster files without product metadata, one after the other; adds their headers.

    Raises:
        SceneError: A file is missing or not a raster, or the files differ in their number of bands.
    """
    known = [None if is_remote(source) else recognise(source) for source in sources]
    described = {product.bands[0].uri: product.bands for product in known if product}
    # A header and its data file are one raster.
    uris = dict.fromkeys(p.bands[0].uri if p else s for p, s in zip(known, sources, strict=True))
    found = [Header.of(uri) for uri in uris]
    found = list(chain.from_iterable(map(_pages, found)))
    headers |= {header.uri: header for header in found}
    auxiliary = {header.uri: word for header in found if (word := _auxiliary(header))}
    scored = [header for header in found if header.uri not in auxiliary]
    if not scored:
        scored, auxiliary = found, {}
    first = scored[0]
    words = _distinct([Path(uri_name(header.uri)).stem for header in scored])
    for header in scored:
        first.require_same_count(header)
    grey = [header for header in scored if header.grey and len(header.numbers) == len("rgb")]
    bands = [
        band
        for header, word in zip(scored, words, strict=True)
        for band in described.get(header.uri) or _bands(header, word, grey=header in grey)
    ]
    left_out = [uri_name(uri) for uri in auxiliary]
    for uri in auxiliary:  # last, so that they do not count among the numbers of the others
        more = described.get(uri) or _bands(headers[uri], "", grey=False)
        bands += [replace(band, default=False) for band in more]
    helpers = [b.name for b in bands if b.default and AUXILIARY.fullmatch(b.name)]
    if len(helpers) < sum(band.default for band in bands):
        bands = [replace(b, default=b.default and b.name not in helpers) for b in bands]
        left_out += helpers
    placed = first.transform is not None and first.crs is not None
    classes = {
        word: QUALITY[word](uri) for uri, word in reversed(auxiliary.items()) if word in QUALITY
    }
    notes = [
        f"Red, green and blue of '{uri_name(header.uri)}' are equal: they are scored as one "
        "band. Name all (1,2,3) to score them as three."
        for header in grey
    ]
    notes += dict.fromkeys(note for product in known if product for note in product.notes)
    notes += [
        f"'{uri_name(header.uri)}' has {len(header.pages)} rasters, of which one is scored. To "
        f"score another, pass its name: {', '.join(header.pages[:FEW])}."
        for header in found
        if header.pages
    ]
    dates = [word for word in words if DATE.fullmatch(word)]
    if len(dates) == len(scored) > 1:
        notes.append(
            f"The files are of several dates ({', '.join(dates[:FEW])}), which are scored as bands "
            "of one scene. Score each file by itself if they are scenes of their own."
        )
    if left_out:
        notes.append(
            f"Not scored: {', '.join(left_out)}. By their names they hold quality, angles or "
            "pictures. Name them as bands to score them."
        )
    return Product(
        kind="raster file",
        name=uri_name(first.uri) if len(sources) == 1 else f"{uri_name(first.uri)} ...",
        bands=tuple(bands),
        quality=tuple(classes.values()) if placed else (),
        datetime=first.datetime,
        notes=tuple(notes),
    )


def _auxiliary(header: Header) -> str:
    """Return the word in a file's name that says that it holds no bands; empty without one."""
    match = AUXILIARY.fullmatch(Path(uri_name(header.uri)).stem)
    return match["word"].lower() if match else ""


def _bands(header: Header, word: str, *, grey: bool) -> Iterator[Band]:
    wanted = set(header.numbers[:1] if grey else header.numbers)
    for number, name in enumerate(header.names, start=1):
        yield Band(
            name=name,
            uri=header.uri,
            number=number,
            wavelength=header.wavelengths[number - 1],
            aliases=(word,) if word and len(header.names) == 1 else (),
            default=number in wanted,
        )


def _pages(header: Header) -> list[Header]:
    """Return the headers of all pages of a TIFF, if they are alike: the bands of one scene."""
    if not (header.pages and PAGE.match(header.pages[0])):
        return [header]
    pages = [] if is_remote(header.uri) else [Header.of(page) for page in header.pages]
    if pages and all(page.numbers == (1,) and page.size == header.size for page in pages):
        return [page.renamed(str(k)) for k, page in enumerate(pages, start=1)]
    raise SceneError(
        f"'{header.uri}' has {len(header.pages)} pages that are not bands of one scene"
        f"{', or is not on this disk' if not pages else ''}. Name one of them: "
        f"{', '.join(header.pages[:FEW])}."
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the word of each name that the others do not have; empty if it is not one word.

    >>> _distinct(["S2B_B02_10m", "S2B_B03_10m"]), _distinct(["a"]), _distinct(["a_b", "c_d"])
    (['B02', 'B03'], [''], ['', ''])
    """
    words = [WORD.findall(name) for name in names]
    if len({len(parts) for parts in words}) != 1:
        return [""] * len(names)
    differ = [column for column in zip(*words, strict=True) if len(set(column)) > 1]
    alone = len(differ) == 1 and len(set(differ[0])) == len(names)
    return list(differ[0]) if alone else [""] * len(names)


def recognise(path: str) -> Product | None:
    """Return the raster of an ENVI header or data file, None for others.

    Raise SceneError if there is a header but no data file.
    """
    header = _header_of(Path(path))
    if header is None:
        return None
    data = _data_of(header) if Path(path) == header else Path(path).absolute()
    with open_raster(str(data)) as dataset:
        if dataset.driver != "ENVI":
            return None
        fields, count = envi_fields(dataset), dataset.count
    _require_known_place(header)
    wavelengths = _numbers(fields.get("wavelength"), count)
    unit = fields.get("wavelength_units")
    good = _numbers(fields.get("bbl"), count) or [1.0] * count
    names = _items(fields.get("band_names")) or [str(k + 1) for k in range(count)]
    named = len(set(names)) == count
    ignored = per_band(next((fields[name] for name in IGNORED if name in fields), None), count)
    bands = tuple(
        Band(
            name=names[k] if named else str(k + 1),
            uri=str(data),
            number=k + 1,
            wavelength=nanometres(wavelengths[k], unit) if wavelengths else None,
            default=good[k] != 0,
            nodata=ignored[k],
        )
        for k in range(count)
    )
    return Product(
        kind="ENVI raster",
        name=data.name,
        bands=bands,
        datetime=iso_time(fields.get("acquisition_time")),
        platform=fields.get("sensor_type"),
        notes=tuple(_unread(header.name, fields, count)),
    )


def _unread(name: str, fields: Mapping[str, str], count: int) -> Iterator[str]:
    """Yield sentences about fields of an ENVI header that cannot be obeyed."""
    for field, effect in LISTS.items():
        if fields.get(field, "{}").strip("{} ") and not _numbers(fields[field], count):
            yield (
                f"Field '{field}' of '{name}' does not have one number for each of the {count} "
                f"bands: {effect}. Correct the header."
            )
    for field in IGNORED:
        text = fields.get(field, "0")
        if len(numbers(text)) not in {1, count} and not PLAIN.fullmatch(text):
            yield (
                f"Field '{field}' of '{name}' is '{text}', not a number: no value is "
                "nodata. Correct the header, or pass nodata."
            )


def _require_known_place(header: Path) -> None:
    """Raise SceneError if GDAL would misplace the pixels of an ENVI header.

    It takes unknown units for metres, and does not turn a map about another pixel than the first.
    """
    with header.open("rb") as file:
        found = MAP_INFO.search(file.read(LONGEST_HEADER).decode(errors="replace"))
    parts = _items(found[1]) if found else []
    said = {name.strip().lower(): words for name, _, words in (p.partition("=") for p in parts)}
    unit, pixel = said.get("units", "").strip(), numbers(",".join(parts[1:3]))
    known = {"", "nautical miles", *f"{MAP_UNITS} {SAME_UNITS}".lower().split()}
    if unit.lower() not in known:
        raise SceneError(
            f"'{header}' has the place of its pixels in '{unit}' (map info, units), "
            f"which would be read as metres. Write one of {MAP_UNITS.replace(' ', ', ')}."
        )
    if any(numbers(said.get("rotation"))) and pixel != [1, 1]:
        raise SceneError(
            f"'{header}' has a map that is rotated about pixel ({', '.join(parts[1:3])}) (map "
            "info), which would be read as misplaced. Write the place of pixel (1, 1) instead."
        )


def _header_of(path: Path) -> Path | None:
    """Return the ENVI header of ``path``, which may be that header."""
    for header in (path, *header_paths(path)):
        with suppress(OSError):  # not found, or a name that is too long
            if header.suffix.lower() == ".hdr" and header.is_file() and path.is_file():
                with header.open("rb") as file:
                    if file.read(4) == b"ENVI":
                        return header
    return None


def _data_of(header: Path) -> Path:
    files = [file for file in data_paths(header.absolute()) if file.is_file()]
    free = [f for f in files if f != header and not header_paths(f)[0].is_file()]
    own = [f for f in files if header_paths(f)[0] == header.absolute()]
    found = own or free
    if len(found) == 1 or (found and found[0].samefile(found[-1])):
        return found[0]
    if found:
        raise SceneError(
            f"'{header}' may describe any of {', '.join(f.name for f in found)}. Pass one of them."
        )
    raise SceneError(
        f"'{header}' is an ENVI header, but its data file is not next to it: it should be called "
        f"'{header.stem}', with or without .dat, .img, .bsq, .bil, .bip or .raw, and have no "
        "header of its own. Pass the data file itself if it has another name."
    )


def _items(text: str | None) -> list[str]:
    """Return the parts of '{a, b}'."""
    return [part.strip() for part in text.strip("{} \n").split(",")] if text else []


def _numbers(text: str | None, count: int) -> list[float]:
    """Return the numbers of '{1, 2}', none if there is not one per band."""
    found = numbers(text)
    return found if len(found) == count else []
