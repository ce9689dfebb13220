"""A satellite scene with planted anomalies, in memory and as a file.

The anomalies are small, spectrally unlike their surroundings, blurred as the whole scene is, and no
stronger than the roofs, roads and shores of the landscape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import rasterio
from affine import Affine
from scipy import ndimage

from uniadrs_scale.demo.landscape import BUILT, KINDS, Landscape, Recipe, expose, landscape
from uniadrs_scale.errors import SceneError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TargetKind = Literal["boat", "vehicle", "roof", "tank", "plume"]
WAVES = np.array([0.49, 0.56, 0.665, 0.842])
"""Band centres [micrometres]: blue, green, red and near infrared."""
REFLECTANCE_UNIT = 10_000
"""Stored value of reflectance 1, as in Sentinel-2 products."""
TRANSFORM = Affine(10, 0, 600_000, 0, -10, 5_300_000)
"""Pixels of 10 m in UTM zone 32 North (EPSG:32632)."""
RECIPE = Recipe(farms=4, towns=2, built=0.05, lakes=0.16, river=5.0, roads=9, relief=0.06)
"""A landscape with all kinds of land cover."""
SMALLEST = 256
"""Smallest side [px]: smaller scenes have no calm surroundings for each anomaly."""
GAP, SHORE = 40, 24
"""Least distance between two footprints, and from a centre to nodata or the scene's edge [px]."""
BERTH = 2000
"""Pixels of open water per boat."""
CALM = 8
"""Radius of the surroundings that have to be uniform [px]."""
DRY, UNBUILT, OPEN = 0.01, 0.05, 0.97
"""Most water and most buildings around a target ashore, and least water around a boat, 0..1."""
FAINTEST, SUBPIXELS = 0.25, 5
"""Least cover of a pixel of the footprint, 0..1; samples of an outline per pixel and axis."""
LEAST_CONTRAST = 0.12
"""Least difference of a tone from the ground in at least one band [reflectance]."""
_ASHORE: tuple[TargetKind, ...] = ("vehicle", "roof", "tank", "plume")
_TONES: dict[TargetKind, tuple[tuple[float, float, float, float], ...]] = {
    "boat": ((0.42, 0.44, 0.45, 0.42), (0.10, 0.16, 0.38, 0.40), (0.30, 0.22, 0.14, 0.16)),
    "vehicle": ((0.52, 0.54, 0.56, 0.55), (0.06, 0.07, 0.42, 0.45), (0.45, 0.28, 0.08, 0.10)),
    "roof": ((0.36, 0.24, 0.10, 0.16), (0.08, 0.10, 0.40, 0.46), (0.60, 0.60, 0.60, 0.58)),
    "tank": ((0.36, 0.42, 0.22, 0.04), (0.62, 0.62, 0.62, 0.60), (0.02, 0.02, 0.02, 0.02)),
    "plume": ((0.55, 0.54, 0.53, 0.50), (0.34, 0.30, 0.28, 0.12), (0.12, 0.20, 0.36, 0.38)),
}
"""Tones of each kind, as reflectance in ``WAVES``."""
_LENGTHS: dict[TargetKind, tuple[float, float]] = {
    "boat": (2.5, 9),
    "vehicle": (1.8, 3.5),
    "roof": (4, 14),
    "tank": (3, 9),
    "plume": (11, 20),
}
"""Shortest and longest extent of each kind [px]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedTarget:
    """A planted anomaly."""

    kind: TargetKind
    row: int
    col: int
    """Place of the centre [px]."""
    radius: int
    """Most rows and columns between the centre and a pixel of the footprint. No other footprint is
    as near."""
    area: int
    """Pixels of the footprint."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SyntheticScene:
    """A scene and its true anomalies."""

    pixels: NDArray[np.uint16]
    """(band, y, x) reflectance x 10000 of blue, green, red and near infrared; 0 = nodata."""
    valid: NDArray[np.bool_]
    """(y, x), True = valid; its edges are slanted as those of a satellite's swath."""
    targets: tuple[PlantedTarget, ...]
    truth: NDArray[np.bool_]
    """(y, x), True in the footprint of a target."""


@dataclass(frozen=True, slots=True, eq=False)
class _Stamp:
    """The shape of a target, to be pressed onto the scene."""

    kind: TargetKind
    cover: NDArray[np.float32]
    """(side, side) share of the target in each pixel, 0..1; the side is odd."""

    @property
    def radius(self) -> int:
        """Half the side [px]."""
        return len(self.cover) // 2


def demo_scene(seed: int, size: int = 2048, anomalies: int = 40) -> SyntheticScene:
    """Invent a square four-band scene with small anomalies, about a quarter of them on water.

    Args:
        seed: Equal seeds give equal scenes.
        size: Side [px], at least 256.
        anomalies: Number of anomalies, at least 0.

    Raises:
        SceneError: The scene is too small for the anomalies.
    """
    rng = np.random.default_rng(seed)
    if size < SMALLEST or anomalies < 0:
        raise SceneError(
            f"A demo scene of size={size} px with anomalies={anomalies} cannot be made: it needs "
            f"at least {SMALLEST} px and 0 anomalies. Ask for more."
        )
    land = landscape(rng, (size, size), RECIPE)
    reflectance = expose(rng, land, WAVES, KINDS)
    valid = _swath(size)
    truth = np.zeros_like(valid)
    wet, calm = _habitats(land, reflectance, valid)
    boats = min(round(anomalies / 4), int(wet.sum()) // BERTH)
    kinds: list[TargetKind] = ["boat"] * boats
    kinds += [_ASHORE[i] for i in rng.integers(0, len(_ASHORE), anomalies - boats)]
    stamps = [_stamp(rng, kind, land.blur) for kind in kinds]
    spots = _sites(rng, stamps, wet, calm)
    targets = tuple(
        _plant(rng, reflectance, truth, stamp, spot)
        for stamp, spot in zip(stamps, spots, strict=True)
    )
    pixels = np.clip(np.rint(reflectance * REFLECTANCE_UNIT), 1, 65535).astype(np.uint16)
    pixels *= valid
    return SyntheticScene(pixels=pixels, valid=valid, targets=targets, truth=truth)


def _swath(size: int) -> NDArray[np.bool_]:
    """Return the valid mask (y, x): a parallelogram, as the satellite does not fly due south."""
    y, x = np.ogrid[:size, :size]
    left = size * 0.13 - y * 0.115
    return np.asarray((x >= left) & (x < left + size * 0.86))


def _stamp(rng: np.random.Generator, kind: TargetKind, blur: float) -> _Stamp:
    """Draw the outline of one target, average it over pixels and blur it like the scene."""
    length = rng.uniform(*_LENGTHS[kind])
    radius = int(np.ceil(0.71 * length + 0.5 + 2 * blur))  # distance of a roof's corner
    side = (2 * radius + 1) * SUBPIXELS
    points = (np.arange(side) + 0.5) / SUBPIXELS - radius - 0.5
    y, x = (points - offset for offset in rng.uniform(-0.5, 0.5, 2))
    angle = rng.uniform(0, 2 * np.pi)
    u = np.cos(angle) * x[None, :] + np.sin(angle) * y[:, None]
    v = np.cos(angle) * y[:, None] - np.sin(angle) * x[None, :]
    fine = _outline(rng, kind, u / length, v / length)
    shape = (2 * radius + 1, SUBPIXELS) * 2
    cover = ndimage.gaussian_filter(fine.reshape(shape).mean(axis=(1, 3)), blur, mode="constant")
    return _Stamp(kind, cover.astype(np.float32))


def _outline(
    rng: np.random.Generator, kind: TargetKind, u: NDArray[np.float64], v: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the opacity 0..1 at positions in units of the target's length; 2 |u| <= 1 along it."""
    if kind == "plume":  # widens and thins away from its source
        run = np.clip(u + 0.5, 0, 1)
        spread = 0.06 + 0.16 * run
        smoke = np.exp(-np.square(v / spread)) * (1 - 0.9 * run)
        return np.asarray(smoke * (2 * np.abs(u) <= 1) * rng.uniform(0.75, 0.95))
    slimness = {"boat": 0.35, "vehicle": 0.6, "roof": rng.uniform(0.5, 1), "tank": 1}[kind]
    if kind in ("boat", "tank"):
        return np.asarray(2 * np.hypot(u, v / slimness) <= 1, np.float64)
    return np.asarray(2 * np.maximum(np.abs(u), np.abs(v / slimness)) <= 1, np.float64)


def _habitats(
    land: Landscape, reflectance: NDArray[np.float32], valid: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the places for centres of targets: open water and calm ground, both (y, x) bool."""
    room = ndimage.minimum_filter(valid, 2 * SHORE + 1, mode="constant")
    side = 2 * CALM + 1
    wet = ndimage.uniform_filter(land.water, side)
    built = ndimage.uniform_filter(land.abundance[BUILT].sum(axis=0), side)
    brightness = reflectance.mean(axis=0)
    spread = ndimage.uniform_filter(np.square(brightness), side)
    spread -= np.square(ndimage.uniform_filter(brightness, side))
    ground = room & (wet < DRY) & (built < UNBUILT)
    # The calmer half: on the border of two fields it is not clear what is unusual.
    calm = ground & (spread <= np.median(spread[ground])) if ground.any() else ground
    return room & (wet > OPEN), calm


def _sites(
    rng: np.random.Generator, stamps: list[_Stamp], wet: NDArray[np.bool_], calm: NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """Return a (row, col) per stamp: boats on water, the rest on calm ground, all far apart."""
    spots = {True: _shuffled(rng, wet), False: _shuffled(rng, calm)}
    taken: list[tuple[int, int, int]] = []
    for stamp in stamps:
        candidates = spots[stamp.kind == "boat"]
        spot = next((c for c in candidates if _is_free(c, stamp.radius, taken)), None)
        if spot is None:
            raise SceneError(
                f"A demo scene of {wet.shape[0]} px has no room for {len(stamps)} anomalies: only "
                f"{len(taken)} fit with {GAP} px between them. Ask for fewer, or a larger scene."
            )
        taken.append((*spot, stamp.radius))
    return [(row, col) for row, col, _ in taken]


def _shuffled(rng: np.random.Generator, where: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return at most 20,000 (row, col) of the set pixels, in random order."""
    flat = np.flatnonzero(where)
    flat = rng.choice(flat, min(len(flat), 20_000), replace=False)
    rows, cols = np.unravel_index(flat, where.shape)
    return list(zip(rows.tolist(), cols.tolist(), strict=True))


def _is_free(spot: tuple[int, int], radius: int, taken: list[tuple[int, int, int]]) -> bool:
    """Return True if the squares around all targets stay ``GAP`` px apart."""
    return all(max(abs(spot[0] - y), abs(spot[1] - x)) > radius + r + GAP for y, x, r in taken)


def _plant(
    rng: np.random.Generator,
    reflectance: NDArray[np.float32],
    truth: NDArray[np.bool_],
    stamp: _Stamp,
    spot: tuple[int, int],
) -> PlantedTarget:
    """Press one stamp onto the scene and the truth, in place."""
    row, col = spot
    reach = slice(row - stamp.radius, row + stamp.radius + 1)
    window = (reach, slice(col - stamp.radius, col + stamp.radius + 1))
    beneath = reflectance[:, *window]
    tones = np.array(_TONES[stamp.kind]) * np.exp(rng.normal(0, 0.08, (3, len(WAVES))))
    # Only tones that differ from the ground: a green roof in a meadow is not an anomaly.
    ground = beneath.mean(axis=(1, 2))
    contrast = np.abs(tones - ground).max(axis=1)
    tone = tones[rng.choice(np.flatnonzero(contrast >= min(LEAST_CONTRAST, contrast.max())))]
    beneath += stamp.cover * (tone.astype(np.float32)[:, None, None] - beneath)
    footprint = stamp.cover > min(FAINTEST, 0.5 * float(stamp.cover.max()))
    truth[window] |= footprint
    return PlantedTarget(
        kind=stamp.kind, row=row, col=col, radius=stamp.radius, area=int(footprint.sum())
    )


def write_scene(scene: SyntheticScene, path: Path) -> None:
    """Write the scene as a georeferenced GeoTIFF, in a folder that is made if it is missing.

    A file that holds the same pixels is kept: a new one would be another scene to the run that is
    to be resumed.

    Raises:
        StoreError: The file cannot be written, or ``path`` holds something else.
    """
    if not path.exists():
        try:
            _write(scene, path)
        except OSError as error:
            raise StoreError(
                f"Cannot write '{path}' ({error}). Choose a folder that you may write to."
            ) from error
    elif not _holds(path, scene):
        raise StoreError(
            f"'{path}' is not the scene of this demo (other size, seed or version), and is not "
            "overwritten. Choose another folder, or remove this one."
        )


def _write(scene: SyntheticScene, path: Path) -> None:
    """Write a hidden file and rename it: an interrupted run leaves no half scene."""
    bands, height, width = scene.pixels.shape
    size = {"count": bands, "height": height, "width": width, "dtype": "uint16", "nodata": 0}
    blocks = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256}
    other = {"compress": "deflate", "predictor": 2, "crs": "EPSG:32632", "transform": TRANSFORM}
    temporary = path.with_name(f".{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(temporary, "w", **size, **blocks, **other) as output:
        output.write(scene.pixels)
        output.descriptions = ("blue", "green", "red", "near infrared")
    temporary.replace(path)


def _holds(path: Path, scene: SyntheticScene) -> bool:
    """Return True if the file at ``path`` is a raster of the scene's pixels."""
    try:
        with rasterio.open(path) as present:
            same = present.count == len(scene.pixels)
            return same and np.array_equal(present.read(), scene.pixels)
    except OSError:
        return False
