"""EnMAP folders, levels 1C and 2A, as their *-METADATA.XML describes them."""

from __future__ import annotations

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
)

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree import ElementTree as ET

SUFFIXES = ("TIF", "BSQ", "BIL", "BIP", "JP2")
"""Formats that the product is delivered in."""
QUALITY = ("cloud", "cloud_shadow", "haze", "cirrus", "snow")
"""Classes, each in a file of its own that holds degrees from 0, without an underscore in names."""
DEGREES = (1, 2, 3)
BACKGROUND = -32768.0


def recognise(path: str) -> Product | None:
    """Return the product of an EnMAP folder or its *-METADATA.XML, None for others.

    Raise SceneError if it is level 1B, in sensor geometry and two rasters, or its image is missing.
    """
    metadata = metadata_file(path, ["enmap*-metadata.xml"])
    if metadata is None:
        return None
    root = read_xml(metadata)
    prefix = metadata.name[: -len("METADATA.XML")]
    image = _image(metadata, prefix)
    background = find_text(root, "backgroundValue")
    level = find_text(root, "level") or ""
    bands = tuple(_bands(root, str(image), float(background or BACKGROUND)))
    if not bands:
        raise SceneError(
            f"'{metadata}' describes no band (bandCharacterisation): wavelengths are unknown. "
            f"Fetch it again, or pass '{image.name}' itself."
        )
    return Product(
        kind=f"EnMAP {level} product".replace("  ", " "),
        name=prefix.rstrip("-"),
        bands=bands,
        quality=tuple(_quality(metadata.parent, prefix)),
        datetime=iso_time(find_text(root, "startTime")),
        platform="EnMAP",
    )


def _image(metadata: Path, prefix: str) -> Path:
    for suffix in SUFFIXES:
        image = metadata.with_name(f"{prefix}SPECTRAL_IMAGE.{suffix}")
        if image.exists():
            return image
    found = "level 1B" if list(metadata.parent.glob("*SPECTRAL_IMAGE_VNIR*")) else "incomplete"
    raise SceneError(
        f"'{metadata.parent}' has no '{prefix}SPECTRAL_IMAGE.TIF', it is {found}: levels 1C and 2A "
        "hold one image on one grid. Fetch one of these, or pass a raster of it by name."
    )


def _bands(root: ET.Element, uri: str, background: float) -> list[Band]:
    bands: list[Band] = []
    for element in root.iter("bandID"):
        centre = find_text(element, "wavelengthCenterOfBand")
        if centre is not None:  # other lists of band numbers have none
            number = int(element.get("number", len(bands) + 1))
            wavelength = float(centre)
            bands.append(
                Band(
                    name=str(number),
                    uri=uri,
                    number=number,
                    wavelength=wavelength,
                    nodata=background,
                )
            )
    return bands


def _quality(folder: Path, prefix: str) -> list[Quality]:
    rasters = []
    for name in QUALITY:
        path = folder / f"{prefix}QL_QUALITY_{name.replace('_', '').upper()}.TIF"
        if path.exists():
            cloud = (name,) if name != "snow" else ()
            codes = tuple((name, degree) for degree in DEGREES)
            rasters.append(Quality(uri=str(path), kind="classes", codes=codes, cloud=cloud))
    return rasters
