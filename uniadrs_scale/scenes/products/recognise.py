"""Products by their metadata: one module per product, one function ``recognise`` in each."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.arrays import Variable
from uniadrs_scale.scenes.datasets import read_contents
from uniadrs_scale.scenes.grids import same_crs, same_transform
from uniadrs_scale.scenes.products import (
    emit,
    enmap,
    landsat,
    matlab,
    netcdf,
    plain,
    prisma,
    sentinel,
    stac,
)
from uniadrs_scale.storage.urls import is_remote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uniadrs_scale.scenes.cubes import CubeSpec
    from uniadrs_scale.scenes.products.metadata import Options, Product

RASTERS = (sentinel, landsat, enmap, stac, plain)
ARRAYS = (matlab, emit, prisma, netcdf)
"""The first that knows the file takes it; NetCDF takes what is left."""
ENDINGS = {".tif", ".tiff", ".jp2", ".img", ".vrt", ".png"}
"""Endings of rasters."""
CUBES = {".nc", ".nc4", ".h5", ".he5", ".hdf5", ".mat", ".hdr", ".zarr"}
"""Endings of files of arrays."""
PRODUCTS = ("MTD_MSIL1C.xml", "MTD_MSIL2A.xml", "manifest.safe")
MANIFEST_3 = "xfdumanifest.xml"
"""The manifest of Sentinel-3."""
DEPTH = 5
"""Folders above a part of a product that are looked at."""


def recognise(path: str, options: Options) -> Product | CubeSpec | None:
    """Return the product that the metadata at ``path`` describe, None for a plain raster.

    Raise SceneError if it is a folder that no product is known to look like, or a damaged product.
    """
    for module in (stac,) if is_remote(path) else RASTERS:
        product: Product | None = module.recognise(path)
        if product is not None:
            return product
    spec = _arrays(path, options)
    if spec is not None:
        return spec
    if not is_remote(path) and Path(path).is_dir():
        raise SceneError(
            f"'{path}' is a folder, but not a product: expected were MTD_MSIL1C.xml, "
            "MTD_MSIL2A.xml (Sentinel-2), manifest.safe (Sentinel-1), *_MTL.txt (Landsat), "
            f"*-METADATA.XML (EnMAP) or a Zarr store. {_instead(Path(path))}"
        )
    if Path(path).name == MANIFEST_3 and not is_remote(path):
        raise SceneError(f"'{path}' only lists files. {_instead(Path(path).absolute().parent)}")
    if not is_remote(path) and Path(path).suffix.lower() in {".xml", ".safe"}:
        above = _product_above(Path(path))
        if above is not None:
            raise SceneError(f"'{path}' is a part of the product '{above}'. Pass that folder.")
    return None


def recognise_arrays(paths: Sequence[str], options: Options) -> CubeSpec | None:
    """Return several files of arrays as one scene; None if they are rasters.

    Raise SceneError if some files are rasters, or the files do not fit together.
    """
    first = _arrays(paths[0], options) if paths else None
    if first is None:
        return None
    specs = [first]
    for path in paths[1:]:
        spec = _arrays(path, options)
        if spec is None:
            raise SceneError(
                f"'{path}' is not a file of arrays, but '{paths[0]}' is: the files of one scene "
                "must be of one kind. Convert one of them, or open them singly and join them."
            )
        specs.append(spec)
    return _joined([Path(path).stem for path in paths], specs)


def _arrays(path: str, options: Options) -> CubeSpec | None:
    """Return what a file of arrays holds; None for another file."""
    contents = read_contents(path)
    found = (reader.recognise(contents, options) for reader in ARRAYS) if contents else ()
    spec: CubeSpec | None = next((spec for spec in found if spec is not None), None)
    return None if spec is None else _placed(spec, Path(path))


def _placed(spec: CubeSpec, path: Path) -> CubeSpec:
    """Return arrays of Sentinel-3 with their latitudes and longitudes, which are in another file.

    OLCI has ``geo_coordinates.nc``, SLSTR one file for each of its views and resolutions.
    """
    if spec.crs is not None or spec.latitude is not None or is_remote(str(path)):
        return spec
    view = path.stem.rpartition("_")[2]
    for name, end in (("geo_coordinates", ""), (f"geodetic_{view}", f"_{view}")):
        beside = path.with_name(f"{name}.nc")
        contents = read_contents(str(beside)) if beside.is_file() else None
        entries = contents.entries if contents else {}
        paths = [f"latitude{end}", f"longitude{end}"]
        size = tuple(spec.variables[0].sizes[axis] for axis in ("y", "x"))
        if contents and all(p in entries and entries[p].shape == size for p in paths):
            places = (Variable.of(contents.file, p, ("y", "x")) for p in paths)
            latitude, longitude = places
            return replace(spec, latitude=latitude, longitude=longitude, transform=None)
    return spec


def _joined(stems: Sequence[str], specs: Sequence[CubeSpec]) -> CubeSpec:
    """Return arrays of several files as one scene; refuse several sizes or places."""
    first = specs[0]
    for spec in specs[1:]:
        problem = _difference(first, spec)
        if problem:
            raise SceneError(
                f"'{spec.name}' {problem} '{first.name}': the files of one scene must share one "
                "grid. Open them singly, bring them to one grid, and join them with xr.concat."
            )
    bands = [band for spec in specs for band in spec.bands]
    if len(set(bands)) < len(bands):
        bands = [
            stem if len(spec.bands) == 1 else f"{stem}:{band}"
            for stem, spec in zip(stems, specs, strict=True)
            for band in spec.bands
        ]
    return replace(
        first,
        name=first.name if len(specs) == 1 else f"{first.name} ...",
        bands=tuple(bands),
        variables=tuple(variable for spec in specs for variable in spec.variables),
        counts=tuple(count for spec in specs for count in spec.counts),
        wavelengths=tuple(centre for spec in specs for centre in spec.wavelengths),
        good=tuple(good for spec in specs for good in spec.good),
        quality=tuple(flags for spec in specs for flags in spec.quality),
        notes=tuple(dict.fromkeys(note for spec in specs for note in spec.notes)),
    )


def _difference(first: CubeSpec, other: CubeSpec) -> str:
    """Return how the place of a scene differs from that of the first; empty if it does not."""
    one, two = first.variables[0].sizes, other.variables[0].sizes
    height, width = one["y"], one["x"]
    if (two["y"], two["x"]) != (height, width):
        return f"has {two['y']} x {two['x']} px, not the {height} x {width} px of"
    places = [(spec.crs is not None, spec.latitude is not None) for spec in (first, other)]
    if places[0] != places[1] or not same_crs(first.crs, other.crs):
        return "has another CRS, or another kind of place, than"
    grids = first.transform, other.transform
    if all(grids) and not same_transform(*grids, (height, width)):
        return "is on another grid than"
    for corner in ((0, 0), (height - 1, width - 1), (height // 2, width // 2)):
        span = [slice(k, k + 1) for k in corner]
        for mine, its in ((first.latitude, other.latitude), (first.longitude, other.longitude)):
            if (
                mine
                and its
                and not np.allclose(mine.plane(*span), its.plane(*span), equal_nan=True)
            ):
                return "has other latitudes and longitudes than"
    return ""


def _instead(folder: Path) -> str:
    """Return what to pass instead of a folder: the product it is in, or its rasters."""
    above = _product_above(folder)
    if above is not None:
        return f"It is a part of the product '{above}': pass that folder."
    named = Counter(re.sub(r"^([A-Z][a-z]?)\d+", r"\1*", p.name) for p in folder.glob("*_r*.nc"))
    if (folder / MANIFEST_3).is_file() and named:
        return f"Pass its images: '{folder}/{named.most_common(1)[0][0]}' (Sentinel-3)."
    for pattern in ("*", "*/*", "*/*/*", "*/*/*/*"):
        endings = Counter(p.suffix for p in folder.glob(pattern) if p.suffix.lower() in ENDINGS)
        if endings:
            return f"Pass its rasters: '{folder}/{pattern}{endings.most_common(1)[0][0]}'."
    arrays = Counter(p.suffix for p in folder.iterdir() if p.suffix.lower() in CUBES)
    if arrays:
        return f"Pass its files: '{folder}/*{arrays.most_common(1)[0][0]}'."
    return "It has no rasters: check the path."


def _product_above(path: Path) -> Path | None:
    """Return the nearest folder above that is a product of Sentinel-1 or 2, None without one."""
    above = (folder for folder in path.absolute().parents[:DEPTH])
    return next((f for f in above for name in PRODUCTS if (f / name).is_file()), None)
