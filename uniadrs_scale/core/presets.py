"""The settings for each kind of imagery, and the words that an option accepts.

This module imports no library, so that --help is fast.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from uniadrs_scale.errors import PlanError

if TYPE_CHECKING:
    from uniadrs_scale.core.contracts import SceneInfo

Arithmetic = Literal["float32", "bfloat16"]
Resampling = Literal["max", "nearest"]
Terms = tuple[tuple[str, float], ...]
"""Names and factors of what is added to a network's logit: see :mod:`.detector.terms`."""
DEFAULT_WEIGHTS = "uniadrs-xs"
SPECTRAL = 14
"""A scene with this many bands or more has a spectrum per pixel."""
RADAR = {"vv", "vh", "hh", "hv", "sigma0", "gamma0", "beta0", "amplitude"}
"""Words in the names of radar bands."""
POLARISATIONS = 4
"""Largest band count of radar."""
POOLED = 8
"""Side of the squares that the network pools to one sample [coarsened px]."""

THERMAL_NM = 3000.0
"""Wavelength from which on a band shows emitted heat [nm]."""
INFRARED = {"infrared", "thermal", "tir", "tirs", "ir", "lwir", "mwir"}
LOW_LIGHT = {"dnb", "night", "nighttime", "nightlight", "nightlights", "lowlight"}
"""Words in the name of a single band that say its kind; DNB is the day/night band of VIIRS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Tile and step for one kind of imagery."""

    name: str
    tile: int
    """Largest side of a tile [scene px]."""
    least: int
    """Smallest side of a tile [scene px]; a smaller scene is mirrored to this size."""
    coarsen: int = 1
    """The network sees means of ``coarsen`` x ``coarsen`` px: the sensor's resolution, if that is
    coarser than its sampling."""
    coarser: int = 0
    """Side of a second, coarser mean that the network sees; the logits of both are averaged. 0 for
    no. Costs ``(coarsen / coarser) ** 2`` more."""
    smoothing: int = 1
    """How often in a row these means are taken before pixels are sampled. After three, little is
    left that depends on the pixel at which the samples begin."""
    terms: Terms = ()
    """Terms in the logit of networks that see whitened bands."""
    why: str
    """Reason, for the plan's summary."""

    @property
    def scales(self) -> tuple[int, ...]:
        """Sides of the means that the network sees [px]."""
        return (self.coarsen, self.coarser) if self.coarser else (self.coarsen,)

    @property
    def grid(self) -> int:
        """Side of the squares that the network pools at all of its scales [scene px]."""
        return POOLED * math.lcm(*self.scales)

    def tile_of(self, height: int, width: int) -> int:
        """Return the side of the tiles of a scene of this size [px].

        The largest that fits into the scene, as a mirrored border would make targets of its own.
        Steps are small, so that a scene and a part of it get tiles of nearly the same size: larger
        tiles find more, and change less when a scene is cut differently (`model/README.md`).
        """
        return max(min(height, width, self.tile) // self.grid * self.grid, self.least)

    def stride(self, tile: int) -> int:
        """Return the step between tiles of side ``tile`` [px]: at least an eighth overlaps.

        A larger overlap costs time and finds no more: `benchmarks/README.md` has AUC and step at
        seams by overlap. It is a multiple of the squares that the network pools, so that their
        grid is the same in all tiles.
        """
        overlap = -(-tile // 8 // self.grid) * self.grid
        return max(tile - overlap, -(-tile // 2))


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="hyperspectral",
            tile=128,
            least=64,
            terms=(("area", 0.5), ("surroundings", -0.5)),
            why="a spectrum per pixel",
        ),
        Preset(
            name="multispectral",
            tile=768,
            least=128,
            coarsen=2,
            terms=(("area", -0.1),),
            why="a few bands, blurred targets",
        ),
        Preset(
            name="infrared",
            tile=512,
            least=128,
            coarsen=2,
            terms=(("area", 0.5),),
            why="one thermal band, blurred targets",
        ),
        Preset(
            name="low-light",
            tile=224,
            least=112,
            terms=(("area", 0.5), ("local", 0.5)),
            why="one band at night, targets of few px",
        ),
        Preset(
            name="single-band",
            tile=224,
            least=112,
            why="one band of unknown kind; if it is thermal, give preset infrared",
        ),
        Preset(
            name="sar",
            tile=768,
            least=384,
            coarsen=3,
            coarser=6,
            smoothing=3,
            terms=(("bright", 0.65), ("clutter", -2.15)),
            why="speckle, and targets of many px",
        ),
    )
}


def choose_preset(scene: SceneInfo, name: str = "auto") -> Preset:
    """Return the preset called ``name``, or the one that the scene's bands suggest.

    Raises:
        PlanError: The preset does not exist.
    """
    if name != "auto":
        if name not in PRESETS:
            raise PlanError(f"preset='{name}' is unknown. Use auto, {', '.join(PRESETS)}.")
        return PRESETS[name]
    words = _words(scene)
    if _is_radar(words):
        return PRESETS["sar"]
    if len(scene.bands) >= SPECTRAL:
        return PRESETS["hyperspectral"]
    return PRESETS["multispectral" if len(scene.bands) > 1 else _single_band(scene, words[0])]


def _words(scene: SceneInfo) -> list[set[str]]:
    """Return the words in the name of each band.

    File names do not count, HH is also a town: neither the name of the only file, which stands for
    that of its band, nor what the names of all bands share.
    """
    if scene.bands == (PurePath(scene.name).stem,):
        return [set()]
    words = [set(re.findall(r"[a-z]+0?", band.lower())) for band in scene.bands]
    shared = set.intersection(*words) if len(words) > 1 else set()
    return [found - shared for found in words]


def _is_radar(words: list[set[str]]) -> bool:
    """Return True if the names of bands are polarisations: nothing else in a raster says so."""
    radar = [bool(found & RADAR) for found in words]
    few = len(radar) <= POLARISATIONS
    return few and (all(radar) or (any(radar) and len(radar) <= POLARISATIONS // 2))


def _single_band(scene: SceneInfo, words: set[str]) -> str:
    """Return the preset of one band, by its wavelength or its name.

    Without either, the full resolution: half of it costs low light more than it gains infrared.
    """
    if any(centre >= THERMAL_NM for centre in scene.wavelengths) or words & INFRARED:
        return "infrared"
    return "low-light" if words & LOW_LIGHT or {"low", "light"} <= words else "single-band"
