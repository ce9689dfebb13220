"""Arrays in NetCDF, HDF5 and Zarr as lazy scenes that travel as a small spec.

A task reads the window it needs through xarray's backends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from uniadrs_scale.core.contracts import SceneInfo, digest
from uniadrs_scale.core.validity import EVERY_BAND, OUTSIDE, Nodata, Validity
from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.assembly import Facts
from uniadrs_scale.scenes.axes import LONGEST
from uniadrs_scale.scenes.bands import select
from uniadrs_scale.scenes.datasets import LONGEST_TABLE
from uniadrs_scale.scenes.grids import Grid, ground_size, side_length
from uniadrs_scale.scenes.lazy import Plane, chunked
from uniadrs_scale.scenes.masks import Flags, require_possible, unwanted
from uniadrs_scale.scenes.packing import agreed
from uniadrs_scale.scenes.products.metadata import FOR_GRID, FOR_UNITS
from uniadrs_scale.scenes.rasters import WindowedScene
from uniadrs_scale.swaths.conventions import remember_content

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.scenes.arrays import Variable
    from uniadrs_scale.scenes.packing import Packing
    from uniadrs_scale.scenes.products.metadata import Options

STRIP_BYTES = 8 * 2**20
"""Size of a read, about: decoding needs several times as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeSpec:
    """Arrays that are one scene, and what their file says of them."""

    kind: str
    """For people, with its article: 'an EMIT L2A file'."""
    name: str
    variables: tuple[Variable, ...]
    """Arrays in the order of their bands."""
    counts: tuple[int, ...]
    """Bands of each array."""
    bands: tuple[str, ...]
    wavelengths: tuple[float | None, ...]
    """nm."""
    good: tuple[bool, ...]
    """False for bands that are left out unless named."""
    latitude: Variable | None = None
    longitude: Variable | None = None
    """Coordinates of the pixels [degrees], without a grid."""
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    unplaced: str = ""
    """Why words about a place do not make one, as part of a sentence."""
    quality: tuple[Flags, ...] = ()
    datetime: str | None = None
    platform: str | None = None
    notes: tuple[str, ...] = ()
    """Sentences about what was assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeScene(WindowedScene):
    """The wanted bands of a :class:`CubeSpec`, seen as one scene."""

    info: SceneInfo
    spec: CubeSpec
    selected: tuple[int, ...]
    """Bands to read, in order."""
    nodata: float | None = None
    """Value of invalid pixels, if the caller named one."""
    together: bool = True
    """True if ``nodata`` counts only if all bands have it."""
    masked: tuple[Flags, ...] = ()
    """Classes of pixels that are invalid."""

    def decisive(self) -> dict[str, Any]:
        """Return what decides the pixels, as JSON values."""
        return {
            "variables": [variable.decisive() for variable in self.spec.variables],
            "selected": list(self.selected),
            "nodata": self.nodata,
            "together": self.together,
            "masked": [flags.decisive() for flags in self.masked],
        }

    def counted(self, window: Window) -> tuple[NDArray[np.generic], Validity]:
        """Return pixels (band, y, x) in the scene's dtype and the valid ones of them."""
        shape = (window.height, window.width)
        target = _Target(
            np.empty((len(self.selected), *shape), self.info.dtype),
            present=np.ones(shape, bool),
            blank=np.ones(shape, bool),
        )
        first = 0
        for variable, count in zip(self.spec.variables, self.spec.counts, strict=True):
            places = [k for k, band in enumerate(self.selected) if first <= band < first + count]
            if places:
                wanted = np.array([self.selected[k] - first for k in places])
                _read_into(target, places, variable, wanted, window)
            first += count
        validity = Validity(shape)
        validity.drop(target.blank, EVERY_BAND)
        validity.drop(~target.present, OUTSIDE)
        nodata = (self.nodata,) * len(self.selected)
        validity.drop_nodata(target.pixels, Nodata(nodata, self.together))
        validity.drop_not_finite(target.pixels)
        for flags in self.masked:
            for name, invalid in flags.invalid(window):
                validity.drop(invalid, name)
        return target.pixels, validity


@dataclass(frozen=True, slots=True)
class _Target:
    """A window that is being filled."""

    pixels: NDArray[np.generic]
    present: NDArray[np.bool_]
    """Mask (y, x): False if a band is missing."""
    blank: NDArray[np.bool_]
    """Mask (y, x): True if all bands read so far are empty."""


def _read_into(
    target: _Target, places: list[int], variable: Variable, wanted: NDArray[np.intp], window: Window
) -> None:
    """Fill bands ``places`` of ``target`` with bands ``wanted`` of an array, strip by strip.

    Decoding, transposing and picking bands copy what was read several times: in one piece that was
    eight times the window.
    """
    low, high = int(wanted.min()), int(wanted.max()) + 1
    rows, cols = window.slices
    row_bytes = (high - low) * window.width * np.dtype(variable.packing.dtype).itemsize
    for start, stop in _strips(rows, STRIP_BYTES // row_bytes, variable.chunk.get("y", 1)):
        stored = variable.stored(slice(low, high), slice(start, stop), cols)
        if len(wanted) < high - low or (np.diff(wanted) != 1).any():
            stored = stored[wanted - low]
        values, present = variable.packing.pixels(stored, wanted)
        part = slice(start - rows.start, stop - rows.start)
        for place, band in zip(places, values, strict=True):
            target.pixels[place, part] = band
        target.present[part] &= present
        target.blank[part] &= variable.packing.blank(stored)


def _stored_bytes(variable: Variable) -> int:
    """Return the memory for decoding a strip: a chunk of the file twice, copies of the strip.

    Measured for HDF5 and Zarr.
    """
    chunk = math.prod(variable.chunk.values()) if variable.chunk else 0
    return 2 * chunk * np.dtype(variable.packing.dtype).itemsize + 4 * STRIP_BYTES


def _strips(rows: slice, most: int, stored: int) -> Iterator[tuple[int, int]]:
    """Yield ``rows`` in strips of about ``most``, cut where chunks of ``stored`` rows begin."""
    step = max(most // stored, 1) * stored
    cuts = [rows.start, *range((rows.start // step + 1) * step, rows.stop, step), rows.stop]
    return pairwise(cuts)


def assemble_cube(spec: CubeSpec, options: Options) -> tuple[CubeScene, Facts]:
    """Return the scene that a spec and a caller's options make; reads no pixels.

    Raises:
        SceneError: A band or class does not exist, an option means nothing here, or the file
            claims a size that no scene has.
    """
    options.refuse(spec.name, spec.kind, grid=FOR_GRID, units=FOR_UNITS)
    masked = unwanted(spec.name, spec.quality, options.mask)
    if options.bands is None:
        good = [k for k, good in enumerate(spec.good) if good]
        selected = good or select((), (), spec.name)
    else:
        selected = select(options.bands, [(band,) for band in spec.bands], spec.name)
    height, width = (spec.variables[0].sizes[axis] for axis in ("y", "x"))
    if max(height, width) > LONGEST or len(spec.bands) > LONGEST_TABLE:
        raise SceneError(
            f"'{spec.name}' claims {len(spec.bands)} bands of {height} x {width} px: at most "
            f"{LONGEST_TABLE} bands of {LONGEST} x {LONGEST} px can be read. Check the file."
        )
    packings: Sequence[Packing] = [variable.packing for variable in spec.variables]
    if options.nodata is None:
        packings = [packing.without_fill() for packing in packings]
    packings = agreed(packings, options.nodata_when, len(selected))
    pairs = zip(spec.variables, packings, strict=True)
    spec = replace(spec, variables=tuple(replace(v, packing=packing) for v, packing in pairs))
    nodata = None if options.nodata == "auto" else options.nodata
    require_possible(nodata, [np.dtype(packing.dtype) for packing in packings])
    dtype = np.result_type(*(variable.packing.dtype for variable in spec.variables))
    info = SceneInfo(
        name=spec.name,
        identity="",
        height=height,
        width=width,
        bands=tuple(spec.bands[k] for k in selected),
        dtype=str(dtype),
        itemsize=dtype.itemsize,
        crs=spec.crs,
        transform=spec.transform,
        gsd_m=_ground_size(spec, height, width),
        geolocation="2-D latitude and longitude" if spec.latitude else "",
        unplaced=spec.unplaced,
        notes=spec.notes,
        masked=_words(spec, nodata, masked),
        block_bytes=max(map(_stored_bytes, spec.variables)),
        strip_rows=max(variable.chunk.get("y", 1) for variable in spec.variables),
    )
    scene = CubeScene(
        info=info,
        spec=spec,
        selected=tuple(selected),
        nodata=nodata,
        together=options.together(declared=False),
        masked=masked,
    )
    scene = replace(scene, info=replace(info, identity=digest(scene.decisive())))
    wavelengths = tuple(spec.wavelengths[k] for k in selected)
    facts = Facts(wavelengths=wavelengths, datetime=spec.datetime, platform=spec.platform)
    return scene, facts


def _words(spec: CubeSpec, nodata: float | None, masked: Sequence[Flags]) -> str:
    """Return what makes pixels invalid, for people."""
    packed = any(v.packing.dtype != v.packing.stored for v in spec.variables)
    words = [] if nodata is None else [f"{nodata:g}{' after scale and offset' * packed}"]
    words += [word for variable in spec.variables for word in variable.packing.words]
    words += [flag.name for flags in masked for flag in flags.flags]
    return ", ".join(dict.fromkeys(words))


def geolocation(spec: CubeSpec, chunk: int) -> dict[str, xr.DataArray]:
    """Return lazy coordinates ``latitude`` and ``longitude`` (y, x) [degrees]; none for a grid."""
    coords = {}
    sizes = spec.variables[0].sizes
    for name, variable in (("latitude", spec.latitude), ("longitude", spec.longitude)):
        if variable is not None:
            plane = Plane(variable, (sizes["y"], sizes["x"]))
            content = digest(variable.decisive())
            lazy = chunked(plane, ("y", "x"), chunk, content)
            plane.content = remember_content(lazy, content)
            units = {"units": "degrees_north" if name == "latitude" else "degrees_east"}
            coords[name] = lazy.assign_attrs(standard_name=name, **units)
    return coords


def _ground_size(spec: CubeSpec, height: int, width: int) -> float | None:
    if spec.crs is not None and spec.transform is not None:
        return ground_size(Grid(height, width, spec.transform, spec.crs))
    if spec.latitude is None or spec.longitude is None or min(height, width) <= 1:
        return None
    rows, cols = (slice(n // 2 - 1, n // 2 + 1) for n in (height, width))
    longitude, latitude = (
        np.broadcast_to(variable.plane(rows, cols), (2, 2)).astype(float).ravel()[:3]
        for variable in (spec.longitude, spec.latitude)
    )
    return side_length(longitude, latitude)
