"""Sentinel-2 SAFE folders, levels 1C and 2A, as their MTD_MSIL*.xml describes them.

Pixels stay digital numbers: the offset and factor to reflectance are the same for all bands of a
product, and scores do not depend on them. The finest raster of each band is taken; those of 20 and
60 m are brought to the common grid while they are read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.products.metadata import (
    Band,
    Product,
    Quality,
    find_text,
    iso_time,
    metadata_file,
    read_xml,
    require_file,
)

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree import ElementTree as ET


SCENE_CLASSES = (
    "no_data", "saturated_or_defective", "cast_shadow", "cloud_shadow", "vegetation",
    "not_vegetated", "water", "unclassified", "cloud_medium_probability",
    "cloud_high_probability", "thin_cirrus", "snow",
)  # fmt: skip
"""Of the scene classification (SCL), by value."""
CLOUD = ("cloud_shadow", "cloud_medium_probability", "cloud_high_probability", "thin_cirrus")
COMMON_NAMES = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge071",
    "B06": "rededge075", "B07": "rededge078", "B08": "nir", "B8A": "nir08", "B09": "nir09",
    "B10": "cirrus", "B11": "swir16", "B12": "swir22",
}  # fmt: skip
ORDER = tuple(COMMON_NAMES)
IMAGE = re.compile(r"_(?P<band>B\d[0-9A]|SCL)(?:_(?P<metres>\d+)m)?$")
TILE = re.compile(r"T\d{2}[A-Z]{3}(?=_)")


def recognise(path: str) -> Product | None:
    """The product of a SAFE folder or its MTD_MSIL1C.xml / MTD_MSIL2A.xml; None for others.

    Raises:
        SceneError: The metadata name no image, or one that is missing.
    """
    metadata = metadata_file(path, ["mtd_msil1c.xml", "mtd_msil2a.xml"])
    if metadata is None:
        return None
    root = read_xml(metadata)
    images = _finest_images(metadata, root)
    wavelengths = _wavelengths(root)
    bands = tuple(
        Band(
            name=name,
            uri=images[name],
            wavelength=wavelengths.get(name),
            aliases=(COMMON_NAMES[name], name.replace("B0", "B")),
            nodata=0,
        )
        for name in ORDER
        if name in images
    )
    if not bands:
        raise SceneError(
            f"'{metadata}' names no image of a band (IMAGE_FILE): nothing can be scored. "
            "Fetch the whole product, or pass its rasters as a list."
        )
    level = metadata.stem[-3:]
    return Product(
        kind=f"Sentinel-2 {level} product",
        name=find_text(root, "PRODUCT_URI") or metadata.parent.name,
        bands=bands,
        quality=(scene_classes(images["SCL"]),) if "SCL" in images else (),
        grid="finest",
        datetime=iso_time(
            find_text(root, "DATATAKE_SENSING_START") or find_text(root, "PRODUCT_START_TIME")
        ),
        platform=find_text(root, "SPACECRAFT_NAME"),
    )


def scene_classes(uri: str) -> Quality:
    """The scene classification at ``uri`` as a quality raster."""
    codes = tuple((name, value) for value, name in enumerate(SCENE_CLASSES))
    return Quality(uri=uri, kind="classes", codes=codes, cloud=CLOUD, always=("no_data",))


def _finest_images(metadata: Path, root: ET.Element) -> dict[str, str]:
    """Path by band, of the smallest pixels that the product has of it."""
    finest: dict[str, tuple[int, str]] = {}
    _require_one_tile(metadata, root)
    for element in root.iter("IMAGE_FILE"):
        relative = (element.text or "").strip()
        match = IMAGE.search(relative)
        if match is None:
            continue
        band, metres = match["band"], int(match["metres"] or 0)
        if band not in finest or metres < finest[band][0]:
            finest[band] = metres, relative
    return {
        band: require_file(_with_suffix(metadata.parent / relative), metadata, "IMAGE_FILE")
        for band, (_, relative) in finest.items()
    }


def _require_one_tile(metadata: Path, root: ET.Element) -> None:
    """Products before 2016 hold several tiles, which are scenes of their own."""
    files = (element.text or "" for element in root.iter("IMAGE_FILE"))
    tiles = {match[0] for match in map(TILE.search, files) if match}
    if len(tiles) > 1:
        raise SceneError(
            f"'{metadata.parent}' holds {len(tiles)} tiles ({', '.join(sorted(tiles))}): one tile "
            "is one scene. Pass the images of one, as a list or a pattern, with grid='finest'."
        )


def _with_suffix(path: Path) -> Path:
    """The image that the metadata name without its suffix: JPEG 2000, or a converted TIFF."""
    suffixes = (".jp2", ".tif", ".tiff")
    candidates = [path.with_name(path.name + suffix) for suffix in suffixes]
    return next((file for file in candidates if file.exists()), candidates[0])


def _wavelengths(root: ET.Element) -> dict[str, float]:
    """Centre in nm by band name; the metadata write B1 for B01."""
    found = {}
    for element in root.iter("Spectral_Information"):
        physical, centre = element.get("physicalBand", ""), find_text(element, "CENTRAL")
        if centre is not None:
            found[re.sub(r"^B(\d)$", r"B0\1", physical)] = float(centre)
    return found
