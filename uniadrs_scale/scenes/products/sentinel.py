"""Sentinel SAFE folders, as their XML metadata describe them.

Sentinel-2, levels 1C and 2A: pixels stay digital numbers, since the offset and factor to
reflectance are the same for all bands of a product, and scores do not depend on them. The finest
raster of each band is taken; those of 20 and 60 m are brought to the common grid when they are
read.

Sentinel-1 GRD: pixels are detected amplitudes in ground range, as stored, zero without an echo. A
grid of ground control points inside each TIFF places them.
"""

from __future__ import annotations

import math
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
    missing_file,
    not_there,
    read_xml,
)

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree import ElementTree as ET

WORDS = re.compile(r"\w+")
SCENE_CLASSES = WORDS.findall(
    "no_data saturated_or_defective cast_shadow cloud_shadow vegetation not_vegetated water "
    "unclassified cloud_medium_probability cloud_high_probability thin_cirrus snow"
)
"""Classes of the scene classification (SCL), by value."""
CLOUD = ("cloud_shadow", "cloud_medium_probability", "cloud_high_probability", "thin_cirrus")
ORDER = WORDS.findall("B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12")
NAMES = WORDS.findall(
    "coastal blue green red rededge071 rededge075 rededge078 nir nir08 nir09 cirrus swir16 swir22"
)
COMMON_NAMES = dict(zip(ORDER, NAMES, strict=True))
IMAGE = re.compile(r"_(?P<band>B\d[0-9A]|SCL)(?:_(?P<metres>\d+)m)?$")
COG = "-cog"
"""End of names in Sentinel-1 products as COGs."""
TILE = re.compile(r"T\d{2}[A-Z]{3}(?=_)")


def recognise(path: str) -> Product | None:
    """Return the product of a SAFE folder or its metadata file, None for others.

    Raise SceneError if it is damaged, or of a kind that cannot be scored.
    """
    return _optical(path) or _radar(path)


def _optical(path: str) -> Product | None:
    """Return the product of Sentinel-2 metadata, None for others."""
    metadata = metadata_file(path, ["mtd_msil1c.xml", "mtd_msil2a.xml"])
    if metadata is None:
        return None
    root = read_xml(metadata)
    images, notes = _finest_images(metadata, root)
    wavelengths = _wavelengths(root)
    bands = tuple(
        Band(
            name=name,
            uri=str(images[name]),
            missing=missing_file(images[name], metadata, "IMAGE_FILE"),
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
    classes = images.get("SCL")
    if classes is not None and not classes.exists():
        notes.append(not_there(classes.name, "the value 0"))
        classes = None
    return Product(
        kind=f"Sentinel-2 {level} product",
        name=find_text(root, "PRODUCT_URI") or metadata.parent.name,
        bands=bands,
        quality=() if classes is None else (scene_classes(str(classes)),),
        grid="finest",
        datetime=iso_time(
            find_text(root, "DATATAKE_SENSING_START") or find_text(root, "PRODUCT_START_TIME")
        ),
        platform=find_text(root, "SPACECRAFT_NAME"),
        notes=tuple(notes),
    )


def scene_classes(uri: str) -> Quality:
    """Return the scene classification at ``uri`` as a quality raster."""
    codes = tuple((name, value) for value, name in enumerate(SCENE_CLASSES))
    return Quality(uri=uri, kind="classes", codes=codes, cloud=CLOUD, always=("no_data",))


def _finest_images(metadata: Path, root: ET.Element) -> tuple[dict[str, Path], list[str]]:
    """Return the path of each band with the smallest pixels that there are, and notes.

    A resolution of which no image exists was not fetched, and the next one is taken. If others of
    it exist, an image is missing.
    """
    named: dict[str, dict[int, Path]] = {}
    _require_one_tile(metadata, root)
    for element in root.iter("IMAGE_FILE"):
        relative = (element.text or "").strip()
        match = IMAGE.search(relative)
        if match is None:
            continue
        path = _with_suffix(metadata.parent / relative)
        named.setdefault(match["band"], {})[int(match["metres"] or 0)] = path
    fetched = {m for images in named.values() for m, path in images.items() if path.exists()}
    chosen = {band: min(images.keys() & fetched or images) for band, images in named.items()}
    coarse = [f"{band} ({m} m)" for band, m in chosen.items() if m > min(named[band])]
    note = f"Finer images of these bands are not there, coarser ones are read: {', '.join(coarse)}."
    images = {band: named[band][metres] for band, metres in chosen.items()}
    return images, [note] if coarse else []


def _require_one_tile(metadata: Path, root: ET.Element) -> None:
    """Raise SceneError for products before 2016 of several tiles, each of them a scene."""
    files = (element.text or "" for element in root.iter("IMAGE_FILE"))
    tiles = {match[0] for match in map(TILE.search, files) if match}
    if len(tiles) > 1:
        raise SceneError(
            f"'{metadata.parent}' holds {len(tiles)} tiles ({', '.join(sorted(tiles))}): one tile "
            "is one scene. Pass the images of one, as a list or a pattern, with "
            "--grid finest (grid='finest')."
        )


def _with_suffix(path: Path) -> Path:
    """Return the image that the metadata name without its suffix: JPEG 2000, or a TIFF."""
    suffixes = (".jp2", ".tif", ".tiff")
    candidates = [path.with_name(path.name + suffix) for suffix in suffixes]
    return next((file for file in candidates if file.exists()), candidates[0])


def _wavelengths(root: ET.Element) -> dict[str, float]:
    """Return centres in nm by band name; the metadata write B1 for B01."""
    found = {}
    for element in root.iter("Spectral_Information"):
        physical, centre = element.get("physicalBand", ""), find_text(element, "CENTRAL")
        if centre is not None:
            found[re.sub(r"^B(\d)$", r"B0\1", physical)] = float(centre)
    return found


def _radar(path: str) -> Product | None:
    """Return the GRD product of a Sentinel-1 manifest, None for others."""
    manifest = metadata_file(path, ["manifest.safe"])
    if manifest is None:
        return None
    annotations = sorted((manifest.parent / "annotation").glob("s1*.xml"))
    if not annotations:
        return _refuse_foreign(manifest)
    roots = {file: read_xml(file) for file in annotations}
    first = next(iter(roots.values()))
    kind = find_text(first, "productType")
    if kind != "GRD":
        raise SceneError(
            f"'{manifest.parent}' is a Sentinel-1 {kind} product: detected amplitudes (GRD) are "
            "needed, since scores need real numbers on one raster. Fetch the GRD product."
        )
    # The number of the image ends the name, but for the word cog.
    ordered = sorted(roots, key=lambda file: file.stem.removesuffix(COG)[-3:])
    return Product(
        kind="Sentinel-1 GRD product",
        name=manifest.parent.name,
        bands=tuple(_polarisation(manifest, file, roots[file]) for file in ordered),
        gsd_m=_spacing(first),
        datetime=iso_time(find_text(first, "startTime")),
        platform=(find_text(first, "missionId") or "").replace("S1", "Sentinel-1") or None,
        amplitude=True,
    )


def _polarisation(manifest: Path, annotation: Path, root: ET.Element) -> Band:
    name = find_text(root, "polarisation") or annotation.stem
    stem = annotation.stem.removesuffix(COG)
    images = [manifest.parent / "measurement" / f"{stem}{end}.tiff" for end in ("", COG)]
    image = next((image for image in images if image.exists()), images[0])
    missing = missing_file(image, annotation, "the measurement of this annotation")
    return Band(name=name, uri=str(image), aliases=(name.lower(),), nodata=0, missing=missing)


def _spacing(root: ET.Element) -> float | None:
    spacings = [find_text(root, f"{axis}PixelSpacing") for axis in ("range", "azimuth")]
    sides = [float(spacing) for spacing in spacings if spacing]
    return math.sqrt(math.prod(sides)) if len(sides) == len(spacings) else None


def _refuse_foreign(manifest: Path) -> Product | None:
    """Raise SceneError if the manifest is one of Sentinel-1; others are not judged here."""
    if "sentinel-1" not in manifest.read_text(errors="replace").lower():
        return None
    raise SceneError(
        f"'{manifest.parent}' should be a Sentinel-1 product, but has no 'annotation/s1*.xml': "
        "polarisation and time are unknown. Fetch the whole product, or pass its TIFFs as a list."
    )
