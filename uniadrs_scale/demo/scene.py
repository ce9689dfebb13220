"""A whole satellite scene with planted anomalies, for the demo and for tests.

The anomalies are small, spectrally unlike what surrounds them, blurred like everything else the
sensor sees, and no stronger than the roofs, roads and shores that are there by right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage

from uniadrs_scale.demo.landscape import BUILT, KINDS, Landscape, Recipe, expose, landscape
from uniadrs_scale.errors import SceneError

if TYPE_CHECKING:
    from numpy.typing import NDArray


TargetKind = Literal["boat", "vehicle", "roof", "tank", "plume"]
WAVES = np.array([0.49, 0.56, 0.665, 0.842])
"""Band centres in micrometres: blue, green, red and near infrared."""
REFLECTANCE_UNIT = 10_000
"""Stored value of reflectance 1, as in Sentinel-2 products."""
RECIPE = Recipe(farms=4, towns=2, built=0.05, lakes=0.16, river=5.0, roads=9, relief=0.06)
"""Something of everything."""
SMALLEST = 256
"""Side in pixels below which no anomaly has calm surroundings of its own."""
GAP = 40
"""Least distance in pixels between two footprints."""
SHORE = 24
"""Least distance in pixels from a target's centre to nodata and to the scene's edge."""
BERTH = 2000
"""Pixels of open water a boat needs."""
CALM = 8
"""Radius in pixels of the surroundings in which a site has to be uniform."""
FAINTEST = 0.25
"""Pixels covered less than this by the target are not part of its footprint."""
LEAST_CONTRAST = 0.12
"""A tone differs from the ground by this reflectance in at least one band."""
SUBPIXELS = 5
"""Points per pixel and axis at which a target's outline is sampled."""
_ASHORE: tuple[TargetKind, ...] = ("vehicle", "roof", "tank", "plume")
_TONES: dict[TargetKind, tuple[tuple[float, float, float, float], ...]] = {
    "boat": ((0.42, 0.44, 0.45, 0.42), (0.10, 0.16, 0.38, 0.40), (0.30, 0.22, 0.14, 0.16)),
    "vehicle": ((0.52, 0.54, 0.56, 0.55), (0.06, 0.07, 0.42, 0.45), (0.45, 0.28, 0.08, 0.10)),
    "roof": ((0.36, 0.24, 0.10, 0.16), (0.08, 0.10, 0.40, 0.46), (0.60, 0.60, 0.60, 0.58)),
    "tank": ((0.36, 0.42, 0.22, 0.04), (0.62, 0.62, 0.62, 0.60), (0.02, 0.02, 0.02, 0.02)),
    "plume": ((0.55, 0.54, 0.53, 0.50), (0.34, 0.30, 0.28, 0.12), (0.12, 0.20, 0.36, 0.38)),
}
"""Reflectance in ``WAVES`` of what each kind may be painted with."""
_LENGTHS: dict[TargetKind, tuple[float, float]] = {
    "boat": (2.5, 9),
    "vehicle": (1.8, 3.5),
    "roof": (4, 14),
    "tank": (3, 9),
    "plume": (11, 20),
}
"""Shortest and longest extent in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedTarget:
    """One anomaly whose place is known."""

    kind: TargetKind
    """What it stands for."""
    row: int
    """Row of the centre."""
    col: int
    """Column of the centre."""
    radius: int
    """The footprint lies within this many rows and columns of the centre, and nothing else does."""
    area: int
    """Pixels of the footprint."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SyntheticScene:
    """A scene and the truth about it."""

    pixels: NDArray[np.uint16]
    """(band, y, x) reflectance x 10000 of blue, green, red and near infrared; 0 = nodata."""
    valid: NDArray[np.bool_]
    """(y, x), True = valid; slanted edges as of a satellite's swath."""
    targets: tuple[PlantedTarget, ...]
    """What was planted."""
    truth: NDArray[np.bool_]
    """(y, x), True inside the footprint of a target."""


@dataclass(frozen=True, slots=True, eq=False)
class _Stamp:
    """A target ready to be pressed onto the scene."""

    kind: TargetKind
    cover: NDArray[np.float32]
    """(side, side), odd, 0..1."""

    @property
    def radius(self) -> int:
        """Half the side in pixels."""
        return len(self.cover) // 2


def demo_scene(seed: int, size: int = 2048, anomalies: int = 40) -> SyntheticScene:
    """A square four-band scene with small planted anomalies, about a quarter of them on water.

    Args:
        seed: Equal seeds give equal scenes.
        size: Side in pixels, at least 256.
        anomalies: How many to plant.

    Raises:
        SceneError: The scene is too small for the anomalies.
    """
    rng = np.random.default_rng(seed)
    if size < SMALLEST or anomalies < 0:
        raise SceneError(
            f"A demo scene of size={size} px with anomalies={anomalies} cannot be made: it takes "
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
    """(y, x) valid mask: a parallelogram, since the satellite does not fly due south."""
    y, x = np.ogrid[:size, :size]
    left = size * 0.13 - y * 0.115
    return np.asarray((x >= left) & (x < left + size * 0.86))


def _stamp(rng: np.random.Generator, kind: TargetKind, blur: float) -> _Stamp:
    """Draw the outline of one target, average it over pixels and blur it like the scene."""
    length = rng.uniform(*_LENGTHS[kind])
    radius = int(np.ceil(0.71 * length + 0.5 + 2 * blur))  # a roof's corner lies that far out
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
    """Opacity 0..1 at positions in units of the target's length, |u| <= 0.5 along it."""
    if kind == "plume":  # widens and thins away from its source
        run = np.clip(u + 0.5, 0, 1)
        spread = 0.06 + 0.16 * run
        smoke = np.exp(-np.square(v / spread)) * (1 - 0.9 * run)
        return np.asarray(smoke * (np.abs(u) <= 0.5) * rng.uniform(0.75, 0.95))  # noqa: PLR2004
    slimness = {"boat": 0.35, "vehicle": 0.6, "roof": rng.uniform(0.5, 1), "tank": 1}[kind]
    if kind in ("boat", "tank"):
        return np.asarray(np.hypot(u, v / slimness) <= 0.5, np.float64)  # noqa: PLR2004
    return np.asarray(np.maximum(np.abs(u), np.abs(v / slimness)) <= 0.5, np.float64)  # noqa: PLR2004


def _habitats(
    land: Landscape, reflectance: NDArray[np.float32], valid: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where a target's centre may lie: open water and calm ground, both (y, x) bool."""
    room = ndimage.minimum_filter(valid, 2 * SHORE + 1, mode="constant")
    side = 2 * CALM + 1
    wet = ndimage.uniform_filter(land.water, side)
    built = ndimage.uniform_filter(land.abundance[BUILT].sum(axis=0), side)
    brightness = reflectance.mean(axis=0)
    spread = ndimage.uniform_filter(np.square(brightness), side)
    spread -= np.square(ndimage.uniform_filter(brightness, side))
    ground = room & (wet < 0.01) & (built < 0.05)  # noqa: PLR2004
    # On the border of two fields nobody could say what is unusual, hence the calmer half.
    calm = ground & (spread <= np.median(spread[ground])) if ground.any() else ground
    return room & (wet > 0.97), calm  # noqa: PLR2004


def _sites(
    rng: np.random.Generator,
    stamps: list[_Stamp],
    wet: NDArray[np.bool_],
    calm: NDArray[np.bool_],
) -> list[tuple[int, int]]:
    """A (row, col) for each stamp: boats on water, the rest on calm ground, none near another."""
    spots = {True: _shuffled(rng, wet), False: _shuffled(rng, calm)}
    taken: list[tuple[int, int, int]] = []
    for stamp in stamps:
        free = (spot for spot in spots[stamp.kind == "boat"] if _is_free(spot, stamp, taken))
        spot = next(free, None)
        if spot is None:
            raise SceneError(
                f"A demo scene of {wet.shape[0]} px has no room for {len(stamps)} anomalies: only "
                f"{len(taken)} fit with {GAP} px between them. Ask for fewer or a larger scene."
            )
        taken.append((*spot, stamp.radius))
    return [(row, col) for row, col, _ in taken]


def _shuffled(rng: np.random.Generator, where: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """At most 20000 (row, col) of the set pixels in random order."""
    flat = np.flatnonzero(where)
    flat = rng.choice(flat, min(len(flat), 20_000), replace=False)
    rows, cols = np.unravel_index(flat, where.shape)
    return list(zip(rows.tolist(), cols.tolist(), strict=True))


def _is_free(spot: tuple[int, int], stamp: _Stamp, taken: list[tuple[int, int, int]]) -> bool:
    """Whether the squares around all targets stay ``GAP`` pixels apart."""
    return all(
        max(abs(spot[0] - row), abs(spot[1] - col)) > stamp.radius + radius + GAP
        for row, col, radius in taken
    )


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
    # A green roof in a meadow is no anomaly: only tones that differ from the ground.
    ground = beneath.mean(axis=(1, 2))
    contrast = np.abs(tones - ground).max(axis=1)
    tone = tones[rng.choice(np.flatnonzero(contrast >= min(LEAST_CONTRAST, contrast.max())))]
    beneath += stamp.cover * (tone.astype(np.float32)[:, None, None] - beneath)
    footprint = stamp.cover > min(FAINTEST, 0.5 * float(stamp.cover.max()))
    truth[window] |= footprint
    return PlantedTarget(
        kind=stamp.kind, row=row, col=col, radius=stamp.radius, area=int(footprint.sum())
    )
