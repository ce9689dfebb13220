"""The door for scenes: `open_scene`."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import xarray as xr

from uniadrs_scale.core.arguments import whole
from uniadrs_scale.core.machine import Later
from uniadrs_scale.errors import LONGEST, SceneError, UniadrsScaleError
from uniadrs_scale.scenes.assembly import assemble
from uniadrs_scale.scenes.cubes import CubeSpec, assemble_cube, geolocation
from uniadrs_scale.scenes.datasets import is_hdf5, is_zarr
from uniadrs_scale.scenes.files import require_plain
from uniadrs_scale.scenes.products.matlab import is_matlab, read_matlab
from uniadrs_scale.scenes.products.metadata import Options, Product, natural_order
from uniadrs_scale.scenes.products.plain import plain_product
from uniadrs_scale.scenes.products.recognise import recognise, recognise_arrays
from uniadrs_scale.scenes.products.stac import of_item
from uniadrs_scale.scenes.sources import lazy_scene
from uniadrs_scale.storage.buckets import list_keys
from uniadrs_scale.storage.trust import require_proj
from uniadrs_scale.storage.urls import canonical, in_bucket, is_remote, key_matches

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pystac
    from odc.geo.geobox import GeoBox

    from uniadrs_scale.scenes.headers import Header
    from uniadrs_scale.scenes.products.metadata import Nodata, NodataWhen

    Source = str | Path | pystac.Item | Product
else:
    pystac = Later("pystac")


SIDE_FILES = (
    *(".msk", ".ovr", ".xml", ".hdr", ".json", ".txt"),
    *(".qml", ".tfw", ".jgw", ".j2w", ".wld", ".prj", ".md5"),
)
"""Endings of files next to a raster that a pattern leaves out, if it has others."""


def open_scene(
    source: Source | Sequence[str | Path],
    *,
    bands: int | str | Sequence[int | str] | None = None,
    nodata: Nodata = "auto",
    nodata_when: NodataWhen = "auto",
    chunk: int = 1024,
    grid: str | GeoBox | None = None,
    variable: str | Sequence[str] | None = None,
    mask: str | Sequence[str | int] = "none",
    units: Literal["amplitude", "dB"] | None = None,
) -> xr.DataArray:
    """Open a satellite product, a raster file, or several, as one lazy scene.

    It opens files that GDAL reads; folders of Sentinel-2 (SAFE, L1C and L2A), Landsat (with its MTL
    file), Sentinel-1 GRD (SAFE) and EnMAP (L1C and L2A), or the metadata file in them; ENVI by
    header or data file, without its bad bands; EMIT and PRISMA files; NetCDF, HDF5, Zarr and
    ``.mat``; STAC items. All are read window by window when they are scored, except ``.mat`` files
    before version 7.3: these are read when they are opened, up to 2 GiB.

    Args:
        source: Path, URI, glob pattern, :class:`pystac.Item` or product; or a list of raster files
            (usually one file per band), in the order of the bands.
        bands: Name or number from 1, or several in the wanted order; for STAC items also asset
            keys and common names. By default all but alpha, bad bands and the panchromatic band of
            Landsat.
        nodata: The value of invalid pixels; 'auto' for the values that the files declare. None:
            every finite value is valid.
        nodata_when: 'any': a pixel is invalid if any band has its nodata value; 'all': only if all
            bands have theirs. By default 'any' for values that files declare, and 'all' for a value
            given here, for the zeros that products fill with, and for 8-bit data and pictures, in
            which each value is also a measurement.
        chunk: Side of the lazy array's chunks in pixels. Scores never depend on it.
        grid: For rasters of several resolutions: 'finest', 'coarsest', the name of a band that has
            the wanted grid, or an odc-geo GeoBox. Others are interpolated (bilinear) or averaged
            when they are read. Products are brought to the finest by default.
        variable: For NetCDF, HDF5, Zarr and ``.mat``: name, list of names (bands in that order) or
            pattern ('rrs_*'). Required if several arrays are possible.
        mask: For products with a quality band: 'cloud', or names or values of its classes. These
            pixels are invalid, and so is fill in any case.
        units: For Sentinel-1 GRD: 'amplitude', as stored, or 'dB' (20 log10 of it, uncalibrated).

    Returns:
        (band, y, x) in the files' dtype, chunked, with CRS, transform and nodata for ``.rio``;
        coordinates ``band`` and, if known, ``wavelength`` [nm]; attributes, if known: ``gsd_m``
        (pixel size [m]), ``datetime`` (ISO 8601) and ``platform``. A lazy boolean coordinate
        ``valid`` (y, x) is True for pixels that are finite, not nodata and not masked in any band.
        To mask more pixels: ``scene.assign_coords(valid=scene.valid & clear)``. A swath without a
        grid has lazy coordinates ``latitude`` and ``longitude`` (y, x) [degrees], or ground control
        points (``.rio.get_gcps()``) and pixel centres in their count as ``y`` and ``x``.

    Raises:
        SceneError: A file is missing or of no known kind, the files do not fit together, or an
            option means nothing for them.
    """
    whole("chunk", chunk, 1)
    options = Options(
        bands=None if bands is None else _several("bands", bands),
        nodata=nodata,
        nodata_when=nodata_when,
        grid=grid,
        variable=variable
        if isinstance(variable, str | None)
        else cast("Any", _several("variable", variable)),
        mask=cast("Any", mask if isinstance(mask, str) else _several("mask", mask)),
        units=units,
    )
    require_proj()
    try:
        return _open(source, options, chunk)
    except UniadrsScaleError:
        raise
    except Exception as error:
        # Parsers of damaged files raise all kinds of exceptions.
        what = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]
        raise SceneError(
            f"{_called(source)} cannot be opened as a scene ({what}): it is damaged, or of a kind "
            "that is not known. Fetch it again, or try it with gdalinfo, ncdump or h5ls."
        ) from error


def _several(name: str, given: Any) -> tuple[str | int, ...]:
    """Return the names or numbers of an option; one counts as several."""
    values = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | Integral):
            raise SceneError(f"{name}={given!r:.60} holds neither names nor numbers. Pass some.")
    return cast("tuple[str | int, ...]", values)


def _called(source: Source | Sequence[str | Path]) -> str:
    """Return the name of ``source`` for a message."""
    if isinstance(source, str | Path):
        return f"'{source}'"
    if isinstance(source, Product):
        return f"{source.kind} '{source.name}'"
    if isinstance(source, list | tuple):
        return f"'{source[0]}'"
    return f"STAC item '{source.id}'" if isinstance(source, pystac.Item) else "A file"


def _open(source: Source | Sequence[str | Path], options: Options, chunk: int) -> xr.DataArray:
    """Return the lazy array of a scene."""
    headers: dict[str, Header] = {}
    # In this order, because most runs need no pystac.
    if isinstance(source, str | Path):
        sources = expand([source])
    elif isinstance(source, Iterable) and not isinstance(source, Mapping | xr.DataArray):
        sources = expand([*source])
    elif isinstance(source, Product | pystac.Item):
        product = source if isinstance(source, Product) else of_item(source)
        scene, facts = assemble(product, options, headers)
        return lazy_scene(scene, facts, chunk)
    else:
        raise not_a_source(type(source).__name__)
    for name in sources:
        require_plain(name)
    _require_images(sources)
    single = sources[0] if len(sources) == 1 else None
    if single is not None and is_matlab(single) and not is_hdf5(single):
        return read_matlab(single, options)
    alone = len(sources) == 1
    spec = recognise(sources[0], options) if alone else recognise_arrays(sources, options)
    if isinstance(spec, CubeSpec):
        cube, facts = assemble_cube(spec, options)
        array = lazy_scene(cube, facts, chunk)
        return array.assign_coords(geolocation(spec, chunk))
    scene, facts = assemble(spec or plain_product(sources, headers), options, headers)
    return lazy_scene(scene, facts, chunk)


def _require_images(sources: Sequence[str]) -> None:
    """Raise SceneError if one of several sources is a scene of its own, not a file of one."""
    for source in sources if len(sources) > 1 else ():
        folder = not is_remote(source) and Path(source).is_dir() and not is_zarr(source)
        old = is_matlab(source) and not is_hdf5(source)
        if folder or old or source.lower().endswith(".json"):
            raise SceneError(
                f"'{source}' is a {'folder' if folder else 'scene of its own'}: several files can "
                "be one scene if they are rasters, or NetCDF, HDF5 or Zarr. Open it alone, and "
                "join scenes with xr.concat(scenes, 'band')."
            )


def expand(sources: Sequence[str | Path]) -> list[str]:
    """Return absolute paths and URIs: patterns become what they match, in natural order.

    This is the door: no reader, and no worker in another folder, ever sees a relative path.
    """
    wrong = [type(source).__name__ for source in sources if not isinstance(source, str | Path)]
    if wrong or not sources:
        raise not_a_source(f"a list of {wrong[0]}" if wrong else "an empty list")
    expanded: list[str] = []
    for source in map(str, sources):
        bucket = in_bucket(source)
        plain = not bucket and ("://" in source or Path(source).exists())
        if plain or not glob.has_magic(source):
            expanded.append(source)
            continue
        names = _matching(source) if bucket else glob.glob(source, recursive=True)  # noqa: PTH207
        if not (found := _rasters(names)):
            what = "object. Check bucket, prefix" if bucket else "file. Check the folder"
            raise SceneError(
                f"Pattern '{source}' matches no {what} and the ending, upper and lower case "
                "included."
            )
        expanded += found
    names = [canonical(source) for source in expanded]
    twice = next((name for k, name in enumerate(names) if name in names[:k]), None)
    if twice is not None:
        raise SceneError(f"'{twice}' is given twice: a scene has each band once. Drop one of them.")
    return names


def not_a_source(what: str) -> SceneError:
    """Return the error for an object of this type, with the line that makes a scene of it."""
    advice = {
        "dict": "Pass a STAC item as pystac.Item.from_dict(item), and paths as a list.",
        "DataTree": "Pass one of its Datasets to score(): tree['group'].to_dataset().",
    }
    other = "Open a file by open_scene(path); an array or Dataset goes to score() as it is."
    return SceneError(
        "A scene is a path, a list of paths, a STAC item, or an xarray.DataArray or Dataset; got "
        f"{what}. {advice.get(what, other)}"
    )


def _rasters(names: Sequence[str]) -> list[str]:
    """Return names in natural order, without the files next to a raster: mask, header, texts."""
    found = (name for name in names if not name.lower().endswith(SIDE_FILES))
    return natural_order(found) or natural_order(names)


def _matching(pattern: str) -> list[str]:
    """URLs in a bucket that match a pattern; ``*`` ends at a slash, ``**/`` is any depth."""
    whole = str(pattern).split("/")
    fixed = next(k for k, part in enumerate(whole) if glob.has_magic(part))
    base, rest = "/".join(whole[:fixed]), "/".join(whole[fixed:])
    return [f"{base}/{key}" for key in list_keys(base) if key_matches(key, rest)]
