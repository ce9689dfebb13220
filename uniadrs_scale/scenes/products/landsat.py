"""Landsat folders (4 to 9), as their MTL file describes them: text, JSON or XML.

Collection 2, levels 1 and 2, and Collection 1 and before. The quality band has changed twice: first
it held confidences in pairs of bits, then flags among them, now flags alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.products.metadata import (
    Band,
    Product,
    Quality,
    iso_time,
    metadata_file,
    missing_file,
    not_there,
    read_xml,
)
from uniadrs_scale.storage.trust import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLAGS = ("fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow", "clear", "water")
"""Flags of QA_PIXEL in Collection 2, by bit."""
PAIRS = {
    0: {"water": 4, "vegetation": 8, "snow": 10, "thin_cirrus": 12, "cloud": 14},
    1: {"cloud": 5, "cloud_shadow": 7, "snow": 9, "cirrus": 11},
}
"""Confidences in BQA of Collection 1 and before (0), by their lower bit; high if both are set.

Before, cirrus is not a cloud for the mask: a third of a scene with 11 % of cloud has it.
"""
FMASK = ("cirrus", "cloud", "dilated_cloud", "cloud_shadow", "snow", "water")
"""Flags of Fmask in HLS, by bit; bit 2 is called adjacent to cloud or shadow there."""
CLOUD = ("dilated_cloud", "cirrus", "cloud", "cloud_shadow")
SENSORS = {
    "OLI": "B1 coastal 443, B2 blue 482, B3 green 561, B4 red 655, B5 nir08 865, B6 swir16 1609, "
    "B7 swir22 2201, B8 pan 590, B9 cirrus 1373, B10 lwir11 10895, B11 lwir12 12005",
    "ETM": "B1 blue 485, B2 green 560, B3 red 660, B4 nir08 835, B5 swir16 1650, B7 swir22 2220, "
    "B8 pan 710, B6 lwir 11450, B6_VCID_1 - 11450, B6_VCID_2 - 11450",
    "TM": "B1 blue 485, B2 green 560, B3 red 660, B4 nir08 830, B5 swir16 1650, B6 lwir 11450, "
    "B7 swir22 2215",
    "MSS": "B1 - 550, B2 - 650, B3 - 750, B4 - 950, B5 - 650, B6 - 750, B7 - 950",
}
"""Bands of each sensor: name, common name if there is one, centre in nm."""
PAN = "pan"
"""Omitted unless named: it would make all other bands four times their size."""
LINE = re.compile(r'^\s*(?P<key>[A-Z0-9_]+)\s*=\s*"?(?P<value>[^"]*?)"?\s*$')
QUALITY = "FILE_NAME_QUALITY_L1_PIXEL", "FILE_NAME_BAND_QUALITY"
"""Keys of the quality band, in Collection 2 and before."""
BAND_KEY = re.compile(r"^FILE_NAME_BAND_(?P<band>(?:ST_B)?[0-9]+(?:_VCID_[12])?)$")


def recognise(path: str) -> Product | None:
    """Return the product of a Landsat folder or its MTL file, None for others.

    Raise SceneError if the MTL file names no band.
    """
    found = (metadata_file(path, [f"*_mtl.{ending}"]) for ending in ("txt", "json", "xml"))
    metadata = next(filter(None, found), None)
    if metadata is None:
        return None
    facts: dict[str, str] = {}
    for group, key, value in _lines(metadata):
        if not group.startswith("LEVEL1_"):  # about the product that it was made from
            facts.setdefault(key, value)
    sensor = next((name for name in SENSORS if name in facts.get("SENSOR_ID", "")), "OLI")
    bands = tuple(_bands(metadata, facts, sensor))
    if not bands:
        raise SceneError(
            f"'{metadata}' names no band (FILE_NAME_BAND_1 ...): it should be the MTL file of a "
            "Landsat product. Fetch it again, or pass the rasters as a list."
        )
    return Product(
        kind=f"Landsat {facts.get('PROCESSING_LEVEL', facts.get('DATA_TYPE', ''))} product",
        name=_product_id(facts) or metadata.stem,
        bands=bands,
        quality=_quality(metadata, facts),
        notes=tuple(_notes(metadata, facts)),
        grid="finest",
        datetime=iso_time(f"{facts.get('DATE_ACQUIRED')}T{facts.get('SCENE_CENTER_TIME')}"),
        platform=facts.get("SPACECRAFT_ID"),
    )


def pixel_flags(uri: str, flags: tuple[str, ...] = FLAGS) -> Quality:
    """Return the band at ``uri`` as a quality raster: QA_PIXEL, or one of other ``flags``."""
    return Quality(
        uri=uri,
        kind="bits",
        codes=tuple((name, bit) for bit, name in enumerate(flags)),
        cloud=tuple(name for name in CLOUD if name in flags),
        always=("fill",),
    )


def _lines(metadata: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (group, key, value) of an MTL file."""
    if metadata.suffix.lower() == ".xml":
        for inner in read_xml(metadata):
            yield from ((inner.tag, fact.tag, (fact.text or "").strip()) for fact in inner)
        return
    if metadata.suffix.lower() == ".json":
        groups = parse_json(metadata.read_bytes()).get("LANDSAT_METADATA_FILE", {})
        for name, facts in groups.items():
            yield from ((name, key, str(value)) for key, value in facts.items())
        return
    group = ""
    for line in metadata.read_text(encoding="utf-8", errors="replace").splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        if match["key"] == "GROUP":
            group = match["value"]
        elif match["key"] != "END_GROUP":
            yield group, match["key"], match["value"]


def _bands(metadata: Path, facts: dict[str, str], sensor: str) -> list[Band]:
    rows = (row.split() for row in SENSORS[sensor].split(", "))
    known = {band: (name if name != "-" else None, float(nm)) for band, name, nm in rows}
    bands = []
    for key in facts:
        match = BAND_KEY.match(key)
        if match is None:
            continue
        thermal = match["band"].startswith("ST_")
        name = match["band"] if thermal else f"B{match['band']}"
        bare = name.removeprefix("ST_")
        common, centre = known.get(bare, (None, None))
        path = _find(metadata, facts, key)
        bands.append(
            Band(
                name=name,
                uri=str(path),
                missing=missing_file(path, metadata, key),
                wavelength=centre,
                aliases=(common,) if common else (),
                default=common != PAN,
                nodata=0,
            )
        )
    return bands


def _quality(metadata: Path, facts: dict[str, str]) -> tuple[Quality, ...]:
    """Return the quality band in the words of its collection; none if it is not there."""
    key = next((key for key in QUALITY if key in facts), None)
    path = None if key is None else _find(metadata, facts, key)
    if path is None or not path.exists():
        return ()
    uri = str(path)
    if key == QUALITY[0]:
        return (pixel_flags(uri),)
    pairs = PAIRS.get(int(facts.get("COLLECTION_NUMBER", "0")), {})
    return (
        pixel_flags(uri, FLAGS[:1]),
        Quality(
            uri=uri,
            kind="pairs",
            codes=tuple(pairs.items()),
            cloud=tuple(name for name in CLOUD if name in pairs),
        ),
    )


def _notes(metadata: Path, facts: dict[str, str]) -> Iterator[str]:
    """Yield a sentence about a quality band that is named, but not there."""
    for key in QUALITY:
        if key in facts and not _find(metadata, facts, key).exists():
            yield not_there(facts[key], "the value 0")


def _find(metadata: Path, facts: dict[str, str], key: str) -> Path:
    """Return the file that the MTL names, under another prefix if the product was renamed."""
    file, prefix = facts[key], _product_id(facts)
    renamed = metadata.stem[: -len("_MTL")] + file.removeprefix(prefix)
    wanted = {file.lower(), renamed.lower()}
    for other in sorted(metadata.parent.iterdir()):
        if other.name.lower() in wanted:
            return other
    return metadata.with_name(file)


def _product_id(facts: dict[str, str]) -> str:
    """Return the product's name, of files before Collection 1 that of the scene."""
    return facts.get("LANDSAT_PRODUCT_ID") or facts.get("LANDSAT_SCENE_ID") or ""
