"""From what metadata say to a scene that can be read: selection, grid, masks, identity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.core.contracts import SceneInfo, digest
from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.grids import (
    Grid,
    choose_grid,
    ground_size,
    ground_size_of_points,
    resampling,
)
from uniadrs_scale.scenes.headers import GroundPoint, Header
from uniadrs_scale.scenes.products.metadata import FOR_MASK, FOR_UNITS, FOR_VARIABLE, Band, Product
from uniadrs_scale.scenes.rasters import FileScene, QualityFile, RasterFile, Warp
from uniadrs_scale.storage.remote import uri_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from uniadrs_scale.scenes.products.metadata import Nodata, Options, Quality


MANY = 16
"""Names that fit in an error message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What users want to know of a scene and its pixels do not depend on."""

    wavelengths: tuple[float | None, ...]
    """nm, one a band."""
    datetime: str | None = None
    platform: str | None = None
    gcps: tuple[GroundPoint, ...] = ()
    gcp_crs: str | None = None


def plain_product(sources: Sequence[str], headers: dict[str, Header]) -> Product:
    """Raster files without product metadata, one after the other.

    Args:
        sources: Paths or URIs.
        headers: Receives what the files say of themselves.

    Raises:
        SceneError: A file is missing or no raster, or the files differ in their number of bands.
    """
    bands: list[Band] = []
    first = None
    for source in sources:
        header = Header.of(source)
        first = first or header
        first.require_same_count(header)
        headers[header.uri] = header
        bands += (
            Band(name=name, uri=header.uri, number=number, wavelength=wavelength)
            for name, number, wavelength in zip(
                header.names, header.numbers, header.wavelengths, strict=True
            )
        )
    if first is None:
        raise SceneError("No scene file was given. Name at least one raster file.")
    name = uri_name(first.uri) if len(sources) == 1 else f"{uri_name(first.uri)} ..."
    return Product(kind="raster file", name=name, bands=tuple(bands), datetime=first.datetime)


def assemble(
    product: Product, options: Options, headers: Mapping[str, Header]
) -> tuple[FileScene, Facts]:
    """The scene that a product and a caller's options make; reads headers only.

    Args:
        product: What there is.
        options: What is wanted.
        headers: Those that have been read already, by URI.

    Raises:
        SceneError: A band, class or option does not exist, or the files do not fit together.
    """
    kind = f"{'an' if product.kind[0] in 'AEIO' else 'a'} {product.kind}"
    options.refuse(product.name, kind, variable=FOR_VARIABLE)
    if not product.quality:
        options.refuse(product.name, f"{kind} without one", mask=FOR_MASK)
    if not product.amplitude:
        options.refuse(product.name, kind, units=FOR_UNITS)
    known = dict(headers)
    selected = _selected_bands(product, options)
    known |= {uri: Header.of(uri) for uri in {band.uri for band in selected} - set(known)}
    target, sentence = _common_grid(product, selected, options, known)
    files = tuple(_raster_files(selected, known, options.nodata, target))
    own = target or (Grid.of(known[selected[0].uri]) if product.quality else None)
    quality = tuple(_quality_files(product, options, own)) if own else ()
    return _scene(
        product, options, selected, known,
        parts=(files, quality), grid=(target, sentence),
    )  # fmt: skip


def _scene(
    product: Product,
    options: Options,
    selected: Sequence[Band],
    headers: Mapping[str, Header],
    *,
    parts: tuple[tuple[RasterFile, ...], tuple[QualityFile, ...]],
    grid: tuple[Grid | None, str],
) -> tuple[FileScene, Facts]:
    files, quality = parts
    target, sentence = grid
    first = headers[selected[0].uri]
    decibel = options.units == "dB"
    dtypes = [headers[band.uri].dtype_of(band.number) for band in selected]
    dtype = np.dtype(np.float32) if decibel else np.result_type(*dtypes)
    values = {repr(value): value for file in files for value in file.nodata}
    georeferenced = target or (Grid.of(first) if first.transform and first.crs else None)
    height = target.height if target else first.height
    info = SceneInfo(
        name=product.name,
        identity="",
        height=height,
        width=target.width if target else first.width,
        bands=tuple(band.name for band in selected),
        dtype=str(dtype),
        itemsize=dtype.itemsize,
        crs=target.crs if target else first.crs,
        transform=target.transform if target else first.transform,
        gsd_m=(ground_size(georeferenced) if georeferenced else product.gsd_m)
        or ground_size_of_points(first.gcps, first.gcp_crs),
        grid=sentence,
        geolocation=f"{len(first.gcps)} ground control points"
        if first.gcps and first.gcp_crs
        else "",
        block_bytes=sum(headers[file.uri].block_bytes for file in files),
        # What was read of each is held until all are put together.
        strip_rows=height if len(files) > 1 or decibel else 0,
    )
    scene = FileScene(
        info=info,
        files=files,
        nodata=float("nan") if decibel else values.popitem()[1] if len(values) == 1 else None,
        quality=quality,
        decibel=decibel,
    )
    scene = replace(scene, info=replace(info, identity=digest(scene.decisive())))
    facts = Facts(
        wavelengths=tuple(band.wavelength for band in selected),
        datetime=product.datetime,
        platform=product.platform,
        gcps=first.gcps if first.gcp_crs else (),
        gcp_crs=first.gcp_crs,
    )
    return scene, facts


def _selected_bands(product: Product, options: Options) -> list[Band]:
    if options.units not in (None, "amplitude", "dB"):
        raise SceneError(
            f"units={options.units!r} is unknown: radar amplitudes are 'amplitude' as stored, or "
            "'dB'. Pass one of these."
        )
    if options.bands is None:
        return [band for band in product.bands if band.default]
    names = [(band.name, *band.aliases) for band in product.bands]
    return [product.bands[k] for k in select(options.bands, names, product.name)]


def select(wanted: Sequence[int | str], names: Sequence[Sequence[str]], source: str) -> list[int]:
    """Positions of the wanted bands, by 1-based number or by any of their names.

    Raises:
        SceneError: One does not exist, or none is wanted.
    """
    positions = {name: k for k in reversed(range(len(names))) for name in reversed(names[k])}
    positions |= {group[0]: k for k, group in reversed(list(enumerate(names)))}
    selected = []
    for band in wanted:
        if isinstance(band, str) and band in positions:
            selected.append(positions[band])
        elif str(band).isdecimal() and 1 <= int(band) <= len(names):
            selected.append(int(band) - 1)
        else:
            few = len(names) <= MANY
            known = ", ".join(group[0] for group in names) if few else f"1 to {len(names)}"
            raise SceneError(
                f"Band '{band}' is not one of '{source}', which has {known}. "
                "Name these, or count from 1."
            )
    if not selected:
        raise SceneError(f"No bands of '{source}' are selected. Select at least one.")
    return selected


def _common_grid(
    product: Product, selected: Sequence[Band], options: Options, headers: Mapping[str, Header]
) -> tuple[Grid | None, str]:
    """The grid that bands must be brought to, and what the plan says of it; None where none."""
    uris = list({band.uri: None for band in selected})
    first = headers[uris[0]]
    mixed = not all(first.same_place(headers[uri]) for uri in uris)
    choice = options.grid if options.grid is not None else product.grid
    if not mixed and (options.grid is None or options.grid in ("finest", "coarsest")):
        return None, ""
    if choice is None:
        for uri in uris:
            first.require_same_place(headers[uri])
    named = dict.fromkeys([band.name for band in selected])
    candidates = {name: _header(name, selected, headers) for name in named}
    if isinstance(choice, str) and choice not in candidates:
        # A band that is not itself wanted may still lend its grid.
        for band in product.bands:
            if choice in (band.name, *band.aliases):
                candidates[choice] = headers.get(band.uri) or Header.of(band.uri)
    return choose_grid(choice, candidates)


def _header(name: str, bands: Sequence[Band], headers: Mapping[str, Header]) -> Header:
    return next(headers[band.uri] for band in bands if band.name == name)


def _raster_files(
    selected: Sequence[Band], headers: Mapping[str, Header], nodata: Nodata, target: Grid | None
) -> Iterator[RasterFile]:
    """Consecutive bands of one file become one read."""

    def value(band: Band) -> float | None:
        if nodata != "auto":
            return nodata
        tagged = headers[band.uri].nodata_of(band.number)
        return band.nodata if tagged is None else tagged

    # A resampled file is read with one nodata value, so that no mean is taken over it.
    def key(band: Band) -> tuple[str, str]:
        return band.uri, str(value(band)) if target else ""

    for (uri, _), group in groupby(selected, key=key):
        bands = list(group)
        header, values = headers[uri], tuple(value(band) for band in bands)
        yield RasterFile(
            uri=header.uri,
            stamp=header.stamp,
            bands=tuple(band.number for band in bands),
            nodata=values,
            masked=header.masked,
            warp=_warp(header, values[0], target),
        )


def _warp(header: Header, nodata: float | None, target: Grid | None) -> Warp | None:
    if target is None or target == (Grid.of(header)):
        return None
    method = resampling(Grid.of(header), target, uri_name(header.uri))
    real = header.dtypes[0].startswith("float")
    if real and not header.masked and nodata is None:
        nodata = float("nan")
    if not real and nodata is not None and nodata != int(nodata):
        nodata = None
    return Warp(target, method, nodata)


def _quality_files(product: Product, options: Options, scene: Grid) -> Iterator[QualityFile]:
    """Quality rasters of which at least one class is unwanted."""
    unwanted = _unwanted(product, options)
    for quality, codes in zip(product.quality, unwanted, strict=True):
        if not codes:
            continue
        header = Header.of(quality.uri)
        own = Grid.of(header)
        method = None if own == scene else resampling(own, scene, quality.uri, classes=True)
        warp = None if method is None else Warp(scene, method, None)
        file = RasterFile(
            uri=header.uri, stamp=header.stamp, bands=header.numbers[:1], nodata=(None,),
            masked=False, warp=warp,
        )  # fmt: skip
        yield QualityFile(file, quality.kind, codes)


def _unwanted(product: Product, options: Options) -> list[tuple[int, ...]]:
    """Codes to mask out, for each quality raster of the product."""
    mask = options.mask
    if isinstance(mask, str) and mask not in ("none", "cloud"):
        mask = (mask,)
    known = {name for quality in product.quality for name, _ in quality.codes}
    numbers = {code for quality in product.quality for _, code in quality.codes}
    for item in mask if isinstance(mask, tuple) else ():
        if item not in known and item not in numbers:
            raise SceneError(
                f"mask={item!r} is no class of '{product.name}', which has "
                f"{', '.join(sorted(known))}. Name these, or pass 'cloud' or 'none'."
            )
    return [_codes(quality, mask) for quality in product.quality]


def _codes(quality: Quality, mask: str | tuple[str | int, ...]) -> tuple[int, ...]:
    wanted: set[str | int] = set(quality.always)
    wanted |= set(quality.cloud if mask == "cloud" else () if isinstance(mask, str) else mask)
    return tuple(code for name, code in quality.codes if name in wanted or code in wanted)
