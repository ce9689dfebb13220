"""A random landscape, painted as shares of materials, and its image by an invented sensor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from uniadrs_scale.demo import fields
from uniadrs_scale.demo.fields import ISLET, Kind, material, smooth, wavelengths
from uniadrs_scale.errors import SceneError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SMALLEST = 8
"""Smallest side of a landscape [px]; smaller ones have no texture."""
_NATURE: tuple[Kind, ...] = ("vegetation", "vegetation", "soil", "vegetation", "soil")
_CROPS: tuple[Kind, ...] = ("vegetation", "vegetation", "soil", "soil")
KINDS: tuple[Kind, ...] = (*_NATURE, *_CROPS, "built", "built", "built", "water")
"""Kinds of the materials: nature, crops, roofs and roads, water."""
NATURE, CROPS, BUILT, WATER = slice(0, 5), slice(5, 9), slice(9, 12), 12
"""Places of each group in ``KINDS``."""
TREES, ROOFS, STREET = 0, (9, 10), 11
"""Materials of a town."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The contents of a landscape besides nature."""

    farms: int
    """Number of districts of farmland, each with its own orientation."""
    towns: int
    """Number of groups of towns."""
    built: float
    """Share of the area per group of towns, 0..1."""
    lakes: float
    """Share of the area under lakes or sea, 0..1."""
    river: float
    """Width of the river [px]; 0 for none."""
    roads: int
    """Number of roads."""
    relief: float
    """Standard deviation of the illumination that hills cause, 0..1; 0 for a plain."""
    islet: int = ISLET
    """Area of the smallest island, pond, wood or group of roofs [px]; 0: any."""

    @classmethod
    def draw(cls, rng: np.random.Generator, side: int) -> Recipe:
        """Draw a recipe for a landscape of ``side`` px: the larger, the more it holds."""
        large = side // 512
        return cls(
            farms=int(rng.integers(0, 3)) + large,
            towns=_now_and_then(rng, 0.35) + large // 2,
            built=rng.uniform(0.03, 0.5) / (1 + large),
            lakes=_now_and_then(rng, 0.35) * rng.uniform(0.05, 0.8),
            river=_now_and_then(rng, 0.25) * rng.uniform(1, 8),
            roads=int(rng.poisson(0.9)) + 3 * large,
            relief=_now_and_then(rng, 0.4) * rng.uniform(0.05, 0.3),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Landscape:
    """The share of each material in every pixel."""

    abundance: NDArray[np.float32]
    """(material, y, x); the sum over materials is about the illumination."""
    water: NDArray[np.float32]
    """(y, x) share of water, 0..1."""
    blur: float
    """Standard deviation of the sensor's point spread [px]."""


def background(
    rng: np.random.Generator, bands: int, height: int, width: int, islet: int = ISLET
) -> NDArray[np.float32]:
    """Return a random landscape as an invented sensor records it.

    Args:
        rng: The only source of randomness; equal states give equal pixels.
        bands: At least 1.
        height: At least 8 [px].
        width: At least 8 [px].
        islet: Area of the smallest island, pond, wood or group of roofs [px]; 0: any.

    Returns:
        float32 (band, y, x), similar to reflectance, within 0..1.5 and mostly 0..0.6.

    Raises:
        SceneError: The size is too small.
    """
    if bands < 1 or min(height, width) < SMALLEST:
        raise SceneError(
            f"A background of {bands} x {height} x {width} (band, y, x) is too small: it needs 1 "
            f"band and {SMALLEST} px on each side. Ask for a larger one."
        )
    waves = wavelengths(rng, bands)
    invented = _now_and_then(rng, 0.3)  # radar, thermal and night sensors
    kinds: list[Kind] = ["any"] * len(KINDS) if invented else list(KINDS)
    recipe = replace(Recipe.draw(rng, max(height, width)), islet=islet)
    return expose(rng, landscape(rng, (height, width), recipe), waves, kinds)


def landscape(rng: np.random.Generator, shape: tuple[int, int], recipe: Recipe) -> Landscape:
    """Paint nature, then farmland, towns, water and roads over it.

    Args:
        rng: The only source of randomness.
        shape: (y, x) [px].
        recipe: The amount of each.
    """
    abundance = np.zeros((len(KINDS), *shape), np.float32)
    _paint_nature(rng, abundance)
    for _ in range(recipe.farms):
        _paint_farmland(rng, abundance, recipe.islet)
    for _ in range(recipe.towns):
        _paint_town(rng, abundance, recipe)
    _paint_water(rng, abundance, recipe)
    roads = fields.lines(rng, shape, count=recipe.roads)
    water = abundance[WATER].copy()
    roads *= 1 - water * np.float32(1 - _now_and_then(rng, 0.15))  # bridges are rare
    _paint(abundance, roads, rng.choice([*ROOFS, STREET, 2]))
    if recipe.relief > 0:
        abundance *= _light(rng, shape, water, recipe.relief)
    _grain(rng, abundance)
    return Landscape(abundance, water, rng.uniform(0.3, 0.8))


def expose(
    rng: np.random.Generator, land: Landscape, waves: NDArray[np.float64], kinds: Sequence[Kind]
) -> NDArray[np.float32]:
    """Return the image of a landscape in bands at ``waves`` (band,) micrometres.

    Returns:
        float32 (band, y, x), similar to reflectance, within 0..1.5.
    """
    materials = np.stack([material(rng, waves, kind) for kind in kinds], axis=1)
    # Each texture moves the spectra of all materials a little along its own curve.
    textures = np.stack([_texture(rng, land) for _ in range(3)])
    drift = [smooth(rng, waves) * materials.mean(axis=1) for _ in textures]
    basis = np.concatenate([materials, np.stack(drift, axis=1).astype(np.float32)], axis=1)
    maps = np.concatenate([land.abundance, textures])
    basis *= _air(rng, waves)[:, None]
    if len(waves) >= len(maps):  # mixing and blurring commute: blur the smaller stack
        maps = _blur(maps, land.blur)
    mixed = (basis @ maps.reshape(len(maps), -1)).reshape(len(waves), *maps.shape[1:])
    if len(waves) < len(maps):
        mixed = _blur(mixed, land.blur)
    noise = fields.white(rng, mixed.shape)
    noise *= _noise_level(rng, basis)[:, None, None]
    noise += mixed
    return np.clip(noise, 0, 1.5, out=noise)


def _now_and_then(rng: np.random.Generator, chance: float) -> int:
    """Return 1 with a chance in 0..1, else 0."""
    return int(rng.random() < chance)


def _paint(abundance: NDArray[np.float32], cover: NDArray[np.float32], material: int) -> None:
    """Cover (y, x) in 0..1 with one material, in place."""
    abundance *= 1 - cover
    abundance[material] += cover


def _paint_nature(rng: np.random.Generator, abundance: NDArray[np.float32]) -> None:
    """Paint, in each pixel, the material whose 1/f field is strongest, with a random sharpness."""
    members = rng.permutation(np.arange(len(KINDS))[NATURE])[: rng.integers(2, 6)]
    shape = (abundance.shape[1], abundance.shape[2])
    sharpness = np.float32(np.exp(rng.uniform(0.5, 3.5)))
    slope = rng.uniform(1.1, 2.2)
    for member in members:
        field = fields.random_field(
            rng, shape, slope=slope + rng.uniform(-0.2, 0.2), stretch=np.exp(rng.uniform(0, 0.5))
        )
        abundance[member] = (field + rng.normal(0, 0.5)) * sharpness
    chosen = abundance[members]
    chosen = np.exp(chosen - chosen.max(axis=0))
    abundance[members] = chosen / chosen.sum(axis=0)


def _paint_farmland(rng: np.random.Generator, abundance: NDArray[np.float32], islet: int) -> None:
    """Paint parcels, each with its own mixture of crops and its own brightness."""
    shape = (abundance.shape[1], abundance.shape[2])
    terrain = fields.random_field(rng, shape, slope=rng.uniform(1.6, 2.2))
    cover = fields.region(terrain, rng.uniform(0.2, 0.9), rng.uniform(0.02, 0.1))
    bend = terrain * np.float32(rng.choice([0.0, 2.0, 6.0]))
    plots = fields.parcels(rng, shape, size=np.exp(rng.uniform(2.3, 4.2)), bend=bend)
    if _now_and_then(rng, 0.6):  # the wood ends where the parcel does
        cover = _whole_parcels(rng, plots, cover, islet)
    mixture = rng.dirichlet([0.25] * (CROPS.stop - CROPS.start), plots.count)
    mixture *= np.exp(rng.normal(0, 0.12, (plots.count, 1)))
    abundance *= 1 - cover
    for column, crop in enumerate(range(CROPS.start, CROPS.stop)):
        abundance[crop] += cover * mixture[:, column].astype(np.float32)[plots.labels]


def _paint_town(rng: np.random.Generator, abundance: NDArray[np.float32], recipe: Recipe) -> None:
    """Paint small roofs of many tones between streets, gardens and trees."""
    shape = (abundance.shape[1], abundance.shape[2])
    terrain = fields.random_field(rng, shape, slope=1.7)
    cover = fields.region(terrain, recipe.built, rng.uniform(0.2, 1.0))
    plots = fields.parcels(rng, shape, size=rng.uniform(4, 10), bend=terrain * np.float32(3))
    cover = _whole_parcels(rng, plots, cover, recipe.islet)
    tone = np.exp(rng.normal(0, 0.3, plots.count)).astype(np.float32)[plots.labels]
    kind = rng.integers(ROOFS[0], ROOFS[-1] + 1, plots.count)[plots.labels]
    trees = fields.random_field(rng, shape, slope=rng.uniform(0.9, 1.4))
    trees = fields.region(trees, rng.uniform(0.1, 0.5), 0.5) * cover
    street = np.clip(np.float32(1.2) - plots.margin, 0, 1) * (cover - trees)
    abundance *= 1 - cover
    tone *= cover - trees - street
    for roof in ROOFS:
        abundance[roof] += np.where(kind == roof, tone, 0)
    abundance[STREET] += street
    abundance[TREES] += trees


def _whole_parcels(
    rng: np.random.Generator, plots: fields.Parcels, cover: NDArray[np.float32], islet: int
) -> NDArray[np.float32]:
    """Round cover (y, x) to 0 or 1 per parcel, with its mean cover as the chance of 1."""
    flat = plots.labels.ravel()
    area = np.bincount(flat, minlength=plots.count)
    chance = np.bincount(flat, cover.ravel(), minlength=plots.count) / np.maximum(area, 1)
    whole = (rng.random(plots.count) < chance).astype(np.float32)
    return fields.without_islets(whole[plots.labels], islet)


def _paint_water(rng: np.random.Generator, abundance: NDArray[np.float32], recipe: Recipe) -> None:
    """Paint lakes or a coast, and a river."""
    shape = (abundance.shape[1], abundance.shape[2])
    if recipe.lakes > 0:
        terrain = fields.random_field(rng, shape, slope=rng.uniform(1.5, 2.3))
        lakes = fields.region(terrain, recipe.lakes, 0.03)
        _paint(abundance, fields.without_islets(lakes, recipe.islet), WATER)
    if recipe.river > 0:
        terrain = fields.random_field(rng, shape, slope=2.4)
        river = fields.contour(terrain, recipe.river)
        _paint(abundance, fields.without_islets(river, recipe.islet), WATER)


def _light(
    rng: np.random.Generator, shape: tuple[int, int], water: NDArray[np.float32], relief: float
) -> NDArray[np.float32]:
    """Return the illumination (y, x) around 1: hills have a sunny side, water is level."""
    hills = fields.random_field(rng, shape, slope=rng.uniform(1.8, 2.2))
    slope = np.gradient(hills, axis=int(rng.integers(2)))
    slope *= np.float32(relief / (slope.std() + 1e-6)) * (1 - water)
    return np.asarray(np.clip(1 + slope, np.float32(0.25), np.float32(2)))


def _grain(rng: np.random.Generator, abundance: NDArray[np.float32]) -> None:
    """Brighten and darken each material by its own roughness: woods are rough, water is not."""
    shape = (abundance.shape[1], abundance.shape[2])
    grains = [fields.random_field(rng, shape, slope=rng.uniform(0.2, 1.3)) for _ in range(3)]
    roughness = np.exp(rng.uniform(-4, -1.8, len(abundance))).astype(np.float32)
    roughness[WATER] *= np.float32(0.3)
    for member, rough in enumerate(roughness):
        factor = grains[member % len(grains)] * rough + 1
        abundance[member] *= np.maximum(factor, 0.2, out=factor)


def _texture(rng: np.random.Generator, land: Landscape) -> NDArray[np.float32]:
    """Return a map (y, x) of the drift of the spectra, weak on water."""
    shape = (land.water.shape[0], land.water.shape[1])
    field = fields.random_field(rng, shape, slope=rng.uniform(0.6, 1.8))
    field *= np.float32(rng.uniform(0.01, 0.08)) * (1 - np.float32(0.8) * land.water)
    return field


def _air(rng: np.random.Generator, waves: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the transmission of the air (band,): half of the scenes have water vapour bands."""
    depth = rng.uniform(0.2, 0.9) if _now_and_then(rng, 0.5) else 0.0
    dips = np.zeros_like(waves)
    for centre, breadth in ((0.76, 0.008), (0.94, 0.03), (1.13, 0.04), (1.38, 0.06), (1.88, 0.08)):
        dips += np.exp(-np.square((waves - centre) / breadth))
    return np.clip(1 - depth * dips, 0.02, 1).astype(np.float32)


def _noise_level(rng: np.random.Generator, basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the standard deviation of the sensor's noise (band,); a few bands are worse."""
    level = basis[:, : len(KINDS)].mean(axis=1) * np.exp(rng.uniform(-6, -3))
    level = level * np.exp(np.abs(rng.normal(0, 0.3, len(level))))
    return np.asarray(level, np.float32)


def _blur(maps: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Apply the point spread to the last two axes, cut at 3 standard deviations."""
    return np.asarray(
        ndimage.gaussian_filter(maps, (0, sigma, sigma), mode="nearest", truncate=3), np.float32
    )
