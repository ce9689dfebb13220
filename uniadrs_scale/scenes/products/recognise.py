"""Products by their metadata: one module a product, one function ``recognise`` in each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.datasets import read_contents
from uniadrs_scale.scenes.products import (
    emit,
    enmap,
    landsat,
    matlab,
    netcdf,
    plain,
    prisma,
    sentinel1,
    sentinel2,
    stac,
)
from uniadrs_scale.storage.remote import is_remote

if TYPE_CHECKING:
    from uniadrs_scale.scenes.cubes import CubeSpec
    from uniadrs_scale.scenes.products.metadata import Options, Product


RASTERS = (sentinel2, sentinel1, landsat, enmap, stac, plain)
ARRAYS = (matlab, emit, prisma, netcdf)
"""The first that knows the file takes it; NetCDF takes what is left."""


def recognise(path: str, options: Options) -> Product | CubeSpec | None:
    """What the metadata at ``path`` say; None for a plain raster, which needs none.

    Raises:
        SceneError: It is a folder that no product is known to look like, or a damaged product.
    """
    for module in (stac,) if is_remote(path) else RASTERS:
        product: Product | None = module.recognise(path)
        if product is not None:
            return product
    contents = read_contents(path)
    if contents is not None:
        for reader in ARRAYS:
            spec: CubeSpec | None = reader.recognise(contents, options)
            if spec is not None:
                return spec
    if not is_remote(path) and Path(path).is_dir():
        raise SceneError(
            f"'{path}' is a folder, but no product: expected were MTD_MSIL1C.xml or MTD_MSIL2A.xml "
            "(Sentinel-2), manifest.safe (Sentinel-1), *_MTL.txt (Landsat), *-METADATA.XML (EnMAP) "
            f"or a Zarr store. Pass its rasters: '{path}/*{_usual_ending(Path(path))}'."
        )
    return None


def _usual_ending(folder: Path) -> str:
    """What most names in ``folder`` end in: a pattern with another one matches nothing."""
    endings = Counter(path.suffix for path in folder.iterdir() if path.suffix)
    return endings.most_common(1)[0][0] if endings else ".tif"
