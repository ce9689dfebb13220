"""The settings for each kind of imagery, and the values that an option accepts.

This module imports no library, so that --help is fast.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from uniadrs_scale.errors import PlanError

if TYPE_CHECKING:
    from uniadrs_scale.core.contracts import SceneInfo

Arithmetic = Literal["float32", "bfloat16"]
Resampling = Literal["max", "nearest"]
DEFAULT_WEIGHTS = "uniadrs-s"
SPECTRAL = 14
"""A scene with this many bands or more has a spectrum per pixel."""
RADAR = {"vv", "vh", "hh", "hv", "sigma0", "gamma0", "beta0", "amplitude"}
"""Words in the names of radar bands."""
POLARISATIONS = 4
"""Largest band count of radar."""
POOLED = 8
"""Side of the squares that the network pools to one sample [coarsened px]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Tile and step for one kind of imagery."""

    name: str
    tile: int
    """Side of a tile [scene px]."""
    coarsen: int = 1
    """The network sees means of ``coarsen`` x ``coarsen`` px: the sensor's resolution, if that is
    coarser than its sampling."""
    why: str
    """Reason, for the plan's summary."""

    def stride(self, tile: int) -> int:
        """Return the step between tiles of side ``tile`` [px]: at least an eighth overlaps.

        A larger overlap costs time and finds no more: `benchmarks/README.md` has AUC and step at
        seams by overlap. It is a multiple of the squares that the network pools, so that their
        grid is the same in all tiles.
        """
        pooled = POOLED * self.coarsen
        overlap = -(-tile // 8 // pooled) * pooled
        return max(tile - overlap, tile // 2)


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(name="hyperspectral", tile=128, why="a spectrum per pixel, scenes of few pixels"),
        Preset(name="multispectral", tile=256, coarsen=2, why="some bands, targets of many pixels"),
        Preset(name="single-band", tile=224, why="infrared, panchromatic or low light"),
        Preset(name="sar", tile=384, coarsen=3, why="speckle, and targets of many pixels"),
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
    if _is_radar(scene):
        return PRESETS["sar"]
    if len(scene.bands) >= SPECTRAL:
        return PRESETS["hyperspectral"]
    return PRESETS["multispectral" if len(scene.bands) > 1 else "single-band"]


def _is_radar(scene: SceneInfo) -> bool:
    """Return True if the names of bands are polarisations: nothing else in a raster says so.

    File names do not count, HH is also a town: neither the name of the only file, which stands for
    that of its band, nor what the names of all bands share.
    """
    if len(scene.bands) > POLARISATIONS or scene.bands == (PurePath(scene.name).stem,):
        return False
    words = [set(re.findall(r"[a-z]+0?", band.lower())) for band in scene.bands]
    shared = set.intersection(*words) if len(words) > 1 else set()
    radar = [bool((found - shared) & RADAR) for found in words]
    return all(radar) or (any(radar) and len(radar) <= POLARISATIONS // 2)
