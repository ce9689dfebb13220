"""Invalid pixels of files: nodata values of rasters, classes of quality bands and quality arrays.

Quality arrays name their classes as CF does (``flag_meanings``, ``flag_values``, ``flag_masks``).
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from uniadrs_scale.core.validity import Nodata, value_limits
from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.grids import Grid, Warp, covered, resampling
from uniadrs_scale.scenes.headers import Header
from uniadrs_scale.scenes.packing import numbers
from uniadrs_scale.scenes.products.metadata import MOST
from uniadrs_scale.scenes.rasters import FileScene, QualityFile, RasterFile
from uniadrs_scale.storage.urls import uri_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.scenes.arrays import Variable
    from uniadrs_scale.scenes.datasets import Contents
    from uniadrs_scale.scenes.products.metadata import Band, Mask, Options, Product

CLOUD = re.compile(r"cloud|cirrus", re.IGNORECASE)
CLEAR = re.compile(
    r"(^|_)(no|not|non|free|clear|cloudless|risk)(_|$)|cloud_?free|clear", re.IGNORECASE
)
"""Meanings that contain the word cloud for pixels without one."""
FILL = re.compile(r"(fill|no_?data|missing)(_value)?", re.IGNORECASE)
"""Meanings that make a pixel invalid without being asked."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One class of pixels."""

    name: str
    value: int
    mask: int = -1
    """Bits that are compared."""
    band: int = 0
    """Band of the quality array."""


@dataclass(frozen=True, slots=True)
class Flags:
    """A quality array (y, x and maybe band) and its classes."""

    variable: Variable
    flags: tuple[Flag, ...]

    def decisive(self) -> dict[str, Any]:
        """Return what decides the mask, as JSON values."""
        return {"variable": self.variable.decisive(), "flags": [asdict(f) for f in self.flags]}

    def invalid(self, window: Window) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Yield the name of each class and the mask (y, x) of its pixels in a window."""
        rows, cols = window.slices
        for band, flags in groupby(self.flags, key=lambda flag: flag.band):
            stored = self.variable.stored(slice(band, band + 1), rows, cols)[0]
            codes = np.nan_to_num(stored, nan=0).astype(np.int64)
            for flag in flags:
                yield flag.name, (codes & flag.mask) == flag.value


def unwanted(source: str, quality: Sequence[Flags], mask: Mask) -> tuple[Flags, ...]:
    """Return the quality arrays with the classes that a caller's ``mask`` makes invalid.

    Raise SceneError if the file has no such class.
    """
    known = [(flag.name, flag.value) for flags in quality for flag in flags.flags]
    names = {name for name, _ in known if CLOUD.search(name) and not CLEAR.search(name)}
    if mask != "cloud" or not names:
        asked = () if mask == "none" else _asked(mask, source, known)
        names = {pair[0] for pair in known if set(pair) & set(asked)}
    chosen = (
        replace(
            flags, flags=tuple(f for f in flags.flags if f.name in names or FILL.fullmatch(f.name))
        )
        for flags in quality
    )
    return tuple(flags for flags in chosen if flags.flags)


def _asked(mask: Mask, source: str, known: Sequence[tuple[str, int]]) -> tuple[str | int, ...]:
    """Return the names and values of classes in ``mask``; SceneError for one that is not known."""
    asked = (mask,) if isinstance(mask, str) else mask
    for item in asked:
        if all(item not in pair for pair in known):
            names = sorted({name for name, _ in known})
            listing = ", ".join(names[:MOST]) + (", ..." if len(names) > MOST else "")
            raise SceneError(
                f"mask={item!r} is not a class of '{source}', which has {listing or 'none'}. Name "
                "one of these, or drop mask and assign your own 'valid' (y, x) to the scene."
            )
    return asked


def cf_flags(contents: Contents, path: str) -> tuple[Flag, ...]:
    """Return the classes that an array's CF attributes or its type name; empty without any."""
    variable = contents.variable(path)
    if listed := (variable.dtype.metadata or {}).get("enum"):
        return tuple(Flag(name, int(value)) for name, value in listed.items())
    attributes = variable.attrs
    meanings = str(attributes.get("flag_meanings", "")).replace(",", " ").split()
    values, masks = (
        [int(v) for v in numbers(attributes.get(name))] for name in ("flag_values", "flag_masks")
    )
    if not meanings or len(meanings) not in (len(values), len(masks)):
        return ()
    if len(masks) != len(meanings):
        masks = [-1] * len(meanings)
    if len(values) != len(meanings):
        values = masks
    return tuple(Flag(*found) for found in zip(meanings, values, masks, strict=True))


def require_measurements(contents: Contents, path: str) -> None:
    """Raise SceneError if an array that was not asked for holds classes or flags."""
    flags = cf_flags(contents, path)
    if flags:
        names = ", ".join(flag.name for flag in flags[:MOST])
        raise SceneError(
            f"'{contents.file.path}' holds classes or flags only: '{path}' has {names}. Their "
            f"numbers are not measurements. To score them as such, pass --variable {path} "
            f"(variable='{path}')."
        )


Values = tuple[float | None, bool]
"""Nodata value of a band, and True if it counts only where all bands have theirs."""


def nodata_values(
    selected: Sequence[Band], headers: Mapping[str, Header], options: Options
) -> list[Values]:
    """Return each band's nodata value, and whether it counts only where all bands have theirs.

    A tag of the file counts in any band. In 8-bit data and pictures it does not if all bands have
    the same: 255 0 0 is red, and every value there is also a measurement. Integer bands take the
    whole part of a fraction, as in GDAL.
    """
    dtypes = [np.dtype(headers[band.uri].dtype_of(band.number)) for band in selected]
    if options.nodata != "auto":
        require_possible(options.nodata, dtypes)
        return [(options.nodata, options.together(declared=False))] * len(selected)
    tags = [headers[band.uri].nodata[band.number - 1] for band in selected]
    colours = all(
        dtype.itemsize == 1 or headers[band.uri].picture
        for band, dtype in zip(selected, dtypes, strict=True)
    )
    alike = colours and len(set(map(repr, tags))) == 1
    alike = alike or all(headers[band.uri].joint_nodata for band in selected)
    said = [band.nodata if tag is None else tag for band, tag in zip(selected, tags, strict=True)]
    values = [_as_gdal(value, dtype) for value, dtype in zip(said, dtypes, strict=True)]
    rules = [options.together(declared=tag is not None and not alike) for tag in tags]
    return list(zip(values, rules, strict=True))


def _as_gdal(value: float | None, dtype: np.dtype[np.generic]) -> float | None:
    if value is None or dtype.kind not in "iu" or not math.isfinite(value) or value == int(value):
        return value
    return float(int(value))


def common_nodata(files: Sequence[RasterFile], *, decibel: bool) -> float | None:
    """Return the nodata value of all bands, None if they differ."""
    if decibel:
        return float("nan")
    values = {repr(value): value for file in files for value in file.nodata.values}
    return values.popitem()[1] if len(values) == 1 else None


def require_possible(value: float | None, dtypes: Sequence[np.dtype[np.generic]]) -> None:
    """Raise SceneError if no pixel can have the nodata value that the caller names."""
    if value is None or math.isnan(value) or any(value_limits(dtype, value) for dtype in dtypes):
        return
    raise SceneError(
        f"nodata={value:g} is not a value of {dtypes[0]} pixels, so that none would be invalid. "
        "Pass one that the files hold, or None."
    )


def warp_of(header: Header, number: int, values: Values, target: Grid | None) -> Warp | None:
    """Return how a raster is brought to a grid with its invalid pixels; None if it is there.

    Raise SceneError if GDAL would mix up alpha, masks and nodata.
    """
    if target is None or header.fits(target):
        return None
    if header.measured:
        raise SceneError(
            f"Band {header.measured} of '{uri_name(header.uri)}' is tagged as alpha, but holds "
            "measurements: GDAL cannot bring it to another grid. Correct the tag (gdal_edit.py "
            f"-colorinterp_{header.measured} undefined), then open it again."
        )
    source, (nodata, together) = header.grid(), values
    if header.masks or (header.shared_mask and nodata is not None):
        raise SceneError(
            f"'{uri_name(header.uri)}' has a mask and a nodata value, or masks of single bands: "
            "GDAL would not obey all on another grid. Write nodata into masked pixels first."
        )
    method = resampling(source, target, uri_name(header.uri))
    dtype = np.dtype(header.dtype_of(number))
    bare = header.alpha is None and not header.shared_mask
    if nodata is not None and not np.isnan(nodata) and value_limits(dtype, nodata) is None:
        nodata = None
    if dtype.kind == "f" and bare and nodata is None:
        nodata = float("nan")
    inside = covered(source, target) if together and bare and nodata is not None else None
    return Warp(target, method, nodata, inside, single=not together and len(header.dtypes) > 1)


def quality_files(product: Product, options: Options, scene: Grid) -> Iterator[QualityFile]:
    """Yield the quality rasters of which at least one class is unwanted."""
    for quality, codes in zip(product.quality, _unwanted(product, options), strict=True):
        if not codes:
            continue
        header = Header.of(quality.uri)
        how = resampling(header.grid(), scene, quality.uri, classes=True)
        warp = None if header.fits(scene) else Warp(scene, how, None)
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
    mask: Any = options.mask
    if mask not in ("none", "cloud"):
        known = [code for quality in product.quality for code in quality.codes]
        mask = _asked(mask, product.name, known)
    named = () if isinstance(mask, str) else mask
    wanted = [{*q.always, *(q.cloud if mask == "cloud" else named)} for q in product.quality]
    return [
        tuple(pair for pair in quality.codes if names & set(pair))
        for quality, names in zip(product.quality, wanted, strict=True)
    ]


def words_of_masks(scene: FileScene, *, scaled: bool) -> str:
    """Return what makes pixels invalid, for people; ``scaled`` if files have scale or offset."""
    words: dict[str, None] = {}
    for file in scene.files:
        which = f" in {'all bands' if file.nodata.together else 'any band'}"
        which = which * (len(scene.info.bands) > 1) + " before scale and offset" * scaled
        for value in file.nodata.values:
            if value is not None:
                words[f"{value:g}{which}"] = None
        if file.alpha:
            words["alpha"] = None
        if file.masks:
            words["the file's mask"] = None
    for quality in scene.quality:
        words |= dict.fromkeys(name for name, _ in quality.codes)
    return ", ".join(words)
