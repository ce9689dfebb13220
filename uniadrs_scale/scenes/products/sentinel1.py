"""Sentinel-1 GRD SAFE folders, as manifest.safe and the annotation files describe them.

Pixels are detected amplitudes in ground range, as stored: not calibrated, zero where there is no
echo. Their georeference is a grid of ground control points inside each TIFF.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.products.metadata import (
    Band,
    Product,
    find_text,
    iso_time,
    metadata_file,
    read_xml,
    require_file,
)

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree import ElementTree as ET


SATELLITES = "Sentinel-1"


def recognise(path: str) -> Product | None:
    """The product of a Sentinel-1 SAFE folder or its manifest.safe; None for others.

    Raises:
        SceneError: It is no GRD product, or a measurement is missing.
    """
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
    ordered = sorted(roots, key=lambda file: file.stem[-3:])  # the image number ends the name
    return Product(
        kind="Sentinel-1 GRD product",
        name=manifest.parent.name,
        bands=tuple(_band(manifest, file, roots[file]) for file in ordered),
        gsd_m=_spacing(first),
        datetime=iso_time(find_text(first, "startTime")),
        platform=(find_text(first, "missionId") or "").replace("S1", "Sentinel-1") or None,
        amplitude=True,
    )


def _band(manifest: Path, annotation: Path, root: ET.Element) -> Band:
    name = find_text(root, "polarisation") or annotation.stem
    image = manifest.parent / "measurement" / f"{annotation.stem}.tiff"
    uri = require_file(image, annotation, "the measurement of this annotation")
    return Band(name=name, uri=uri, aliases=(name.lower(),), nodata=0)


def _spacing(root: ET.Element) -> float | None:
    spacings = [find_text(root, f"{axis}PixelSpacing") for axis in ("range", "azimuth")]
    sides = [float(spacing) for spacing in spacings if spacing]
    return math.sqrt(math.prod(sides)) if len(sides) == len(spacings) else None


def _refuse_foreign(manifest: Path) -> Product | None:
    """A manifest of another mission is not ours to judge; one of Sentinel-1 is incomplete."""
    if SATELLITES.lower() not in manifest.read_text(errors="replace").lower():
        return None
    raise SceneError(
        f"'{manifest.parent}' should be a Sentinel-1 product, but has no 'annotation/s1*.xml': "
        "polarisation and time are unknown. Fetch the whole product, or pass its TIFFs as a list."
    )
