"""Invalid pixels of raster files: nodata values, and classes of quality bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.core.validity import Nodata, value_limits
from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.grids import Grid, Warp, resampling
from uniadrs_scale.scenes.headers import Header
from uniadrs_scale.scenes.rasters import FileScene, QualityFile, RasterFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from uniadrs_scale.scenes.products.metadata import Band, Options, Product, Quality

Values = tuple[float | None, bool]
"""Nodata value of a band, and True if it counts only where all bands have theirs."""


def nodata_values(
    selected: Sequence[Band], headers: Mapping[str, Header], options: Options
) -> list[Values]:
    """Return each band's nodata value, and whether it counts only where all bands have theirs.

    A tag of the file counts in any band. In 8-bit data and pictures it does not if all bands have
    the same: 255 0 0 is red, and every value there is also a measurement.
    """
    dtypes = [np.dtype(headers[band.uri].dtype_of(band.number)) for band in selected]
    if options.nodata != "auto":
        _require_possible(options.nodata, dtypes)
        return [(options.nodata, options.together(declared=False))] * len(selected)
    tags = [headers[band.uri].nodata_of(band.number) for band in selected]
    colours = all(
        dtype.itemsize == 1 or headers[band.uri].picture
        for band, dtype in zip(selected, dtypes, strict=True)
    )
    alike = colours and len(set(map(repr, tags))) == 1
    values = [band.nodata if tag is None else tag for band, tag in zip(selected, tags, strict=True)]
    rules = [options.together(declared=tag is not None and not alike) for tag in tags]
    return list(zip(values, rules, strict=True))


def _require_possible(value: float | None, dtypes: Sequence[np.dtype[np.generic]]) -> None:
    """Raise SceneError if no pixel can have the nodata value that the caller names."""
    if value is None or np.isnan(value) or any(value_limits(dtype, value) for dtype in dtypes):
        return
    raise SceneError(
        f"nodata={value:g} is not a value of {dtypes[0]} pixels, so that none would be invalid. "
        "Pass one that the files hold, or None."
    )


def quality_files(product: Product, options: Options, scene: Grid) -> Iterator[QualityFile]:
    """Yield the quality rasters of which at least one class is unwanted."""
    for quality, codes in zip(product.quality, _unwanted(product, options), strict=True):
        if not codes:
            continue
        header = Header.of(quality.uri)
        own = header.grid()
        warp = None
        if not header.fits(scene):
            warp = Warp(scene, resampling(own, scene, quality.uri, classes=True), None)
        file = RasterFile(
            uri=header.uri,
            stamp=header.stamp,
            bands=header.numbers[:1],
            nodata=Nodata((None,)),
            warp=warp,
        )
        yield QualityFile(file, quality.kind, codes)


def _unwanted(product: Product, options: Options) -> list[tuple[tuple[str, int], ...]]:
    """Return the classes to mask out, for each quality raster of the product."""
    mask = options.mask
    if isinstance(mask, str) and mask not in ("none", "cloud"):
        mask = (mask,)
    known = {name for quality in product.quality for name, _ in quality.codes}
    numbers = {code for quality in product.quality for _, code in quality.codes}
    for item in mask if isinstance(mask, tuple) else ():
        if item not in known and item not in numbers:
            raise SceneError(
                f"mask={item!r} is not a class of '{product.name}', which has "
                f"{', '.join(sorted(known))}. Name these, or pass 'cloud' or 'none'."
            )
    return [_codes(quality, mask) for quality in product.quality]


def _codes(quality: Quality, mask: str | tuple[str | int, ...]) -> tuple[tuple[str, int], ...]:
    wanted: set[str | int] = set(quality.always)
    wanted |= set(quality.cloud if mask == "cloud" else () if isinstance(mask, str) else mask)
    return tuple(pair for pair in quality.codes if wanted & set(pair))


def words_of_masks(scene: FileScene) -> str:
    """Return what makes pixels invalid, for people."""
    words: dict[str, None] = {}
    for file in scene.files:
        which = "all bands" if file.nodata.together else "any band"
        for value in file.nodata.values:
            if value is not None:
                words[f"{value:g} in {which}" if len(scene.info.bands) > 1 else f"{value:g}"] = None
        if file.alpha:
            words["alpha"] = None
        if file.masks:
            words["the file's mask"] = None
    for quality in scene.quality:
        words |= dict.fromkeys(name for name, _ in quality.codes)
    return ", ".join(words)
