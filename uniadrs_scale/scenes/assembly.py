"""The way from metadata to a scene that can be read: selection, grid, masks, identity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.core.contracts import SceneInfo, digest
from uniadrs_scale.core.layers import SCORE
from uniadrs_scale.core.validity import Nodata
from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.bands import bands_called, selected_bands
from uniadrs_scale.scenes.files import require_there
from uniadrs_scale.scenes.grids import Grid, choose_grid, ground_size, ground_size_of_points
from uniadrs_scale.scenes.headers import GroundPoint, Header
from uniadrs_scale.scenes.masks import (
    Values,
    common_nodata,
    nodata_values,
    quality_files,
    warp_of,
    words_of_masks,
)
from uniadrs_scale.scenes.products.metadata import FOR_MASK, FOR_UNITS, FOR_VARIABLE, Band, Product
from uniadrs_scale.scenes.rasters import FileScene, RasterFile
from uniadrs_scale.storage.urls import uri_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from uniadrs_scale.scenes.products.metadata import Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts for users, on which no pixel depends."""

    wavelengths: tuple[float | None, ...]
    """One per band, nm."""
    datetime: str | None = None
    platform: str | None = None
    gcps: tuple[GroundPoint, ...] = ()
    gcp_crs: str | None = None


def assemble(
    product: Product, options: Options, headers: Mapping[str, Header]
) -> tuple[FileScene, Facts]:
    """Return the scene that a product and a caller's options make; reads headers only.

    Headers that have been read already are given by URI.

    Raise SceneError if a band, class or option does not exist, or the files do not fit together.
    """
    _require_options(product, options)
    known = dict(headers)
    product = replace(product, bands=tuple(_counted(product.bands, options, known)))
    selected = selected_bands(product, options)
    require_there([b.missing for b in selected], {b.name: b.missing for b in product.bands})
    known |= {uri: Header.of(uri) for uri in {band.uri for band in selected} - set(known)}
    known |= {header.uri: header for header in known.values()}
    for header in {band.uri: known[band.uri] for band in selected}.values():
        header.require_values()
    target, sentence = _common_grid(product, selected, options, known)
    values = nodata_values(selected, known, options)
    files = tuple(_raster_files(selected, known, values, target))
    own = target or (known[selected[0].uri].grid() if product.quality else None)
    scene = FileScene(
        info=_info(product, selected, known, target),
        files=files,
        nodata=common_nodata(files, decibel=options.units == "dB"),
        quality=tuple(quality_files(product, options, own)) if own else (),
        decibel=options.units == "dB",
    )
    info = replace(
        scene.info,
        identity=digest(scene.decisive()),
        dtype="float32" if scene.decibel else scene.info.dtype,
        itemsize=4 if scene.decibel else scene.info.itemsize,
        grid=sentence,
        strip_rows=scene.info.height if len(files) > 1 or scene.decibel else 0,
        block_bytes=sum(known[file.uri].block_bytes for file in files),
        masked=words_of_masks(scene, scaled=any(known[file.uri].scaled for file in files)),
    )
    first = known[selected[0].uri]
    return replace(scene, info=info), Facts(
        wavelengths=tuple(band.wavelength for band in selected),
        datetime=product.datetime,
        platform=product.platform,
        gcps=first.gcps,
        gcp_crs=first.gcp_crs,
    )


def _require_options(product: Product, options: Options) -> None:
    """Raise SceneError if an option does not apply to the product."""
    kind = f"{'an' if product.kind[0] in 'AEIO' else 'a'} {product.kind}"
    options.refuse(product.name, kind, variable=FOR_VARIABLE)
    clouds = any(quality.cloud for quality in product.quality)
    if not product.quality or (options.mask == "cloud" and not clouds):
        options.refuse(product.name, f"{kind} without one", mask=FOR_MASK)
    if not product.amplitude:
        options.refuse(product.name, kind, units=FOR_UNITS)
    if options.units not in (None, "amplitude", "dB"):
        raise SceneError(
            f"units={options.units!r} is unknown: radar amplitudes are 'amplitude' as stored, or "
            "'dB'. Pass one of these."
        )


def _info(
    product: Product, selected: Sequence[Band], headers: Mapping[str, Header], target: Grid | None
) -> SceneInfo:
    """Return what is known before files are chosen; the rest is filled in by :func:`assemble`."""
    first = headers[selected[0].uri]
    dtype = np.result_type(*(headers[band.uri].dtype_of(band.number) for band in selected))
    grid = target or (first.grid() if first.transform and first.crs else None)
    size = ground_size(grid) if grid else product.gsd_m
    return SceneInfo(
        name=product.name,
        identity="",
        height=target.height if target else first.height,
        width=target.width if target else first.width,
        bands=tuple(band.name for band in selected),
        dtype=str(dtype),
        itemsize=dtype.itemsize,
        crs=target.crs if target else first.crs,
        transform=target.transform if target else first.transform,
        gsd_m=size or ground_size_of_points(first.gcps, first.gcp_crs),
        geolocation=f"{len(first.gcps)} ground control points" if first.gcps else "",
        unplaced="" if target else first.unplaced,
        notes=(*product.notes, *_notes(product, selected, headers)),
    )


def _notes(
    product: Product, selected: Sequence[Band], headers: Mapping[str, Header]
) -> Iterator[str]:
    """Yield sentences about bands that are scored, or not, against the words of a file."""
    if [band.name for band in selected] == [SCORE.name]:
        yield (
            f"The only band is called '{SCORE.name}', as in maps of this library. If this is a "
            "map, pass its scene instead."
        )
    described = {(band.uri, band.number) for band in product.bands}
    for uri in {band.uri: None for band in selected}:
        header, name = headers[uri], uri_name(uri)
        if header.measured:
            yield (
                f"Band {header.measured} of '{name}' is tagged as alpha, but holds measurements: "
                "it is scored as a band."
            )
        others = [number for number in header.numbers if (uri, number) not in described]
        if others:
            yield (
                f"'{name}' has {len(others)} more bands than its product describes (from band "
                f"{others[0]}): they are not scored."
            )


def _counted(bands: Sequence[Band], options: Options, headers: dict[str, Header]) -> Iterator[Band]:
    """Yield the bands, each of an undescribed file by itself, as the file counts them."""
    for band in bands:
        named = {band.name, *band.aliases, band.asset}
        wanted = options.bands is not None and named & set(options.bands)
        if band.number or not (band.default or wanted):
            yield replace(band, number=band.number or 1)
            continue
        header = Header.of(band.uri)
        headers[header.uri] = header
        for number in header.numbers:
            name = band.name if len(header.numbers) == 1 else f"{band.name}-{number}"
            aliases = (header.names[number - 1], *band.aliases)
            yield replace(band, name=name, number=number, uri=header.uri, aliases=aliases)


def _common_grid(
    product: Product, selected: Sequence[Band], options: Options, headers: Mapping[str, Header]
) -> tuple[Grid | None, str]:
    """Return the grid that bands must be brought to, and the plan's sentence; None if they fit."""
    uris = list({band.uri: None for band in selected})
    first = headers[uris[0]]
    mixed = not all(first.same_place(headers[uri]) for uri in uris)
    choice = options.grid if options.grid is not None else product.grid
    if not mixed and (options.grid is None or options.grid in ("finest", "coarsest")):
        return None, ""
    if choice is None:
        for uri in uris:
            first.require_same_place(headers[uri])
    named = {band.name: headers[band.uri] for band in reversed(selected)}
    if isinstance(choice, str):
        here = [headers[band.uri] for band in selected if band.name == choice]
        if not all(here[0].same_place(header) for header in here):
            raise SceneError(
                f"grid='{choice}' is the name of several bands of '{product.name}', on different "
                "grids. Pass 'finest' or 'coarsest', or an odc-geo GeoBox."
            )
    others = {name for band in product.bands for name in (band.name, *band.aliases, band.asset)}
    if isinstance(choice, str) and choice in others - set(named):
        # A band that is not itself wanted may still lend its grid.
        uri = bands_called(choice, product)[0].uri
        named[choice] = headers.get(uri) or Header.of(uri)
    ordered = {band.name: named.pop(band.name) for band in selected if band.name in named}
    return choose_grid(choice, {name: h.grid() for name, h in (ordered | named).items()})


def _raster_files(
    selected: Sequence[Band],
    headers: Mapping[str, Header],
    values: Sequence[Values],
    target: Grid | None,
) -> Iterator[RasterFile]:
    """Yield one read for consecutive bands of one file."""

    # A resampled file is read with one nodata value, so that no mean includes it.
    def key(item: tuple[Band, Values]) -> tuple[str, bool, str]:
        band, (value, together) = item
        dtype = headers[band.uri].dtype_of(band.number)  # a VRT may have several
        return band.uri, together, f"{dtype} {value if target else ''}"

    for (uri, together, _), group in groupby(zip(selected, values, strict=True), key=key):
        pairs = list(group)
        header, numbers = headers[uri], tuple(band.number for band, _ in pairs)
        warp = warp_of(header, numbers[0], pairs[0][1], target)
        # GDAL writes nodata outside a warped file: without its outline, any band must count.
        outlined = warp is None or warp.nodata is None or warp.inside is not None
        alone = tuple(n for n in header.masks if n in numbers)
        yield RasterFile(
            uri=header.uri,
            stamp=header.stamp,
            bands=numbers,
            nodata=Nodata(tuple(value for _, (value, _) in pairs), together and outlined),
            # A caller who names the alpha band takes it for a measurement.
            alpha=None if warp or header.alpha in numbers else header.alpha,
            masks=() if warp else (*header.shared_mask, *alone),
            warp=warp,
        )
