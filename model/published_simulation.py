"""The simulation of Li et al. (arXiv 2310.07511), written after the behaviour of their code.

For the recipe ``published``, to compare with ours (``simulate.py``). Source: the behaviour of
github.com/Jingtao-Li-CVer/UniADRS, commit 0ca8a7c.

As published: one window of 224 px per step, half of them spectral, half spatial.
Spectral: in a piece of 100 px, 2 to 5 rectangles of large normal objects, then 2 to 5 of anomalies
get the same pixels with their bands shuffled; rotation by up to 45 degrees, zoom by up to 10 %, a
piecewise warp, enlarged by nearest neighbour, 270 bands drawn with replacement.
Spatial: a piece of 224 px, noisy in 70 % of the windows; two objects of 6 to 50 % of the area are
normal, two of 2 to 6 % anomalies; three bands, or one of them in half of the windows.
Every window has anomalies, with hard edges; existing targets are ignored.

Not as published: pasted objects do not turn black (a bug: bytes resized to 0..1 were pasted among
bytes); iSAID and its bank of objects are replaced by the scenes at hand, generated landscapes, and
shapes of ``targets.py`` filled with a piece of another scene; WHU-Hi by the hyperspectral scenes at
hand, drawn by weight instead of by file; pieces are not divided by their maximum, as the library
scales every band by its scene; the warp is bilinear between its 4 x 4 knots instead of linear in
triangles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from simulate import standard
from spectra import SPECTRAL
from targets import ANOMALY, IGNORED, LARGE, SHAPES, Window

from uniadrs_scale.core.pixels import CLIP, BandStatistics, Normalisation
from uniadrs_scale.demo.landscape import background
from uniadrs_scale.detector.published import BANDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sources import Source

    Floats = NDArray[np.float32]

SIDE, SPECTRAL_SIDE = 224, 100
"""Sides of a window, and of the piece that a spectral one is enlarged from [px]."""
SPECTRAL_ANOMALY, SPECTRAL_LARGE = (0.0064, 0.0225), (0.0225, 0.5)
SPATIAL_ANOMALY, SPATIAL_LARGE = (0.02, 0.06), (0.06, 0.5)
"""Share of the window's area per object."""
HOLES = (2, 5)
"""Rectangles of each kind in a spectral window."""
OBJECTS = 2
"""Objects of each kind in a spatial window."""
NOISE = (0.06, 0.14)
"""Deviation of the noise [deviations of the scene]: the published variance of 10 to 50 of bytes,
for a picture with a deviation of about 50."""


def batch(seed: int, step: int, sources: Sequence[Source]) -> tuple[Floats, NDArray[np.uint8]]:
    """Simulate the window of one training step.

    Args:
        seed: Seed of the whole run.
        step: Number of the step.
        sources: Real scenes. If none is of the drawn kind, a landscape is generated.

    Returns:
        float32 (1, band, y, x) scaled bands, 270, 3 or 1 of them, and labels uint8 (1, y, x).
    """
    rng = np.random.default_rng((seed, step))
    window = (spectral if rng.random() > 0.5 else spatial)(rng, sources)
    return window.pixels[None], window.labels[None]


def spectral(rng: np.random.Generator, sources: Sequence[Source]) -> Window:
    """Simulate a window with shuffled bands, in large rectangles and in small ones."""
    pixels, ignored, scaling = _spectral_piece(rng, sources)
    labels = np.where(ignored, IGNORED, 0).astype(np.uint8)
    # In the scene's units: bands differ in level, so a shuffle changes them more than scaled ones.
    planted = pixels.copy()
    for share, value in ((SPECTRAL_LARGE, LARGE), (SPECTRAL_ANOMALY, ANOMALY)):
        inside = _holes(rng, labels.shape, share)
        planted[:, inside] = pixels[rng.permutation(len(pixels))][:, inside]
        labels[inside] = value
    index = _warp(rng, labels.shape)
    rows, cols = (np.arange(SIDE) * n // SIDE for n in labels.shape)
    index = index[rows[:, None], cols]
    bands = rng.integers(0, len(pixels), BANDS)
    flat = scaling.apply(planted).reshape(len(pixels), -1)
    return Window(pixels=flat[bands[:, None, None], index], labels=labels.ravel()[index])


def _spectral_piece(
    rng: np.random.Generator, sources: Sequence[Source]
) -> tuple[Floats, NDArray[np.bool_], Normalisation]:
    """Draw (band, y, x) in the units of a scene, the pixels to ignore, and the scene's scaling."""
    source = _draw(rng, [s for s in sources if len(s.pixels) >= SPECTRAL])
    if source is None:
        pixels = background(rng, BANDS, SPECTRAL_SIDE, SPECTRAL_SIDE)
        everywhere = np.ones(pixels.shape[1:], bool)
        return pixels, ~everywhere, BandStatistics.of(pixels, everywhere).normalisation()
    scaled, ignored = _crop(rng, source, SPECTRAL_SIDE)
    mean, deviation = source.mean[:, None, None], source.deviation[:, None, None]
    inverse = np.divide(
        1, source.deviation, out=np.zeros_like(source.deviation), where=source.deviation > 0
    )
    scaling = Normalisation(offset=source.mean, scale=inverse.astype(np.float32))
    return (scaled * deviation + mean).astype(np.float32), ignored, scaling


def spatial(rng: np.random.Generator, sources: Sequence[Source]) -> Window:
    """Simulate a window with pieces of other scenes, normal if large and anomalies if small."""
    few = [s for s in sources if len(s.pixels) < SPECTRAL]
    pixels, ignored = _spatial_piece(rng, few)
    labels = np.where(ignored, IGNORED, 0).astype(np.uint8)
    if rng.random() < 0.7:
        level = np.float32(rng.uniform(*NOISE))
        pixels = pixels + level * rng.standard_normal(pixels.shape, np.float32)
    rows, cols = (np.arange(SIDE) * n // SIDE for n in labels.shape)
    pixels, labels = pixels[:, rows[:, None], cols], labels[rows[:, None], cols]
    for share, value in ((SPATIAL_LARGE, LARGE), (SPATIAL_ANOMALY, ANOMALY)):
        for _ in range(OBJECTS):
            shape = _object(rng, rng.uniform(*share) * SIDE**2)
            top, left = (int(rng.integers(SIDE - n + 1)) for n in shape.shape)
            here = np.s_[top : top + shape.shape[0], left : left + shape.shape[1]]
            content = _content(rng, few, shape.shape, len(pixels))
            pixels[:, *here] = np.where(shape, content, pixels[:, *here])
            labels[here][shape] = value
    if rng.random() > 0.5:
        pixels = pixels[[rng.integers(len(pixels))]]
    return Window(pixels=np.clip(pixels, -CLIP, CLIP), labels=labels)


def _spatial_piece(
    rng: np.random.Generator, sources: Sequence[Source]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Draw (band, y, x) of up to 3 scaled bands and 224 px, and the pixels to ignore."""
    source = _draw(rng, sources)
    if source is None:
        pixels = standard(background(rng, 3, SIDE, SIDE))
        return pixels, np.zeros(pixels.shape[1:], bool)
    pixels, ignored = _crop(rng, source, SIDE)
    return pixels[np.sort(rng.permutation(len(pixels))[:3])], ignored


def _content(
    rng: np.random.Generator, sources: Sequence[Source], shape: tuple[int, ...], bands: int
) -> Floats:
    """Draw the pixels (band, y, x) of an object: a piece of any scene, enlarged if too small."""
    piece, _ = _spatial_piece(rng, sources)
    rows, cols = (
        np.arange(n) * min(n, m) // n for n, m in zip(shape, piece.shape[1:], strict=True)
    )
    index = np.linspace(0, len(piece) - 1, bands).round().astype(int)
    return piece[index][:, rows[:, None], cols]


def _draw(rng: np.random.Generator, sources: Sequence[Source]) -> Source | None:
    """Draw one of the sources by weight; None without sources."""
    if not sources:
        return None
    weights = np.array([s.weight for s in sources])
    return sources[rng.choice(len(sources), p=weights / weights.sum())]


def _crop(rng: np.random.Generator, source: Source, side: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Cut a piece of up to ``side`` px from a scene, not turned."""
    sizes = [min(side, n) for n in source.ignored.shape]
    top, left = (
        int(rng.integers(n - m + 1)) for n, m in zip(source.ignored.shape, sizes, strict=True)
    )
    here = np.s_[top : top + sizes[0], left : left + sizes[1]]
    return source.pixels[:, *here], source.ignored[here]


def _holes(
    rng: np.random.Generator, shape: tuple[int, ...], share: tuple[float, float]
) -> NDArray[np.bool_]:
    """Draw 2 to 5 upright rectangles (y, x), each with an area of ``share``."""
    inside = np.zeros(shape, bool)
    shortest, longest = (int(np.sqrt(s * shape[0] * shape[1])) for s in share)
    for _ in range(int(rng.integers(HOLES[0], HOLES[1] + 1))):
        sides = [min(int(rng.integers(shortest, longest + 1)), n) for n in shape]
        top, left = (int(rng.integers(n - m + 1)) for n, m in zip(shape, sides, strict=True))
        inside[top : top + sides[0], left : left + sides[1]] = True
    return inside


def _object(rng: np.random.Generator, area: float) -> NDArray[np.bool_]:
    """Draw a shape (y, x) of about ``area`` px, squeezed if longer than a window, as published.

    A squeezed side is 0.9 of the window's, and the other grows to keep the area.
    """
    shape = SHAPES[rng.integers(len(SHAPES))](rng, area) >= 0.5
    shape = shape[np.ix_(shape.any(1), shape.any(0))]
    sizes = list(shape.shape)
    for axis in (0, 1):
        if sizes[axis] > SIDE:
            squeezed = int(0.9 * SIDE)
            sizes[1 - axis] = min(sizes[1 - axis] * sizes[axis] // squeezed, SIDE)
            sizes[axis] = squeezed
    rows, cols = (np.arange(n) * m // n for n, m in zip(sizes, shape.shape, strict=True))
    return shape[rows[:, None], cols]


def _warp(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return (y, x): the number of the source pixel (row by row) of every pixel.

    A rotation of up to 45 degrees and a zoom of up to 10 % around the centre, then shifts of 3 to
    5 % of the side, normally distributed, at 4 x 4 knots. Missing pixels at the edges are mirrored.
    """
    size = np.array(shape, float)[:, None, None]
    where = np.indices(shape).astype(float)
    knots = rng.normal(0, rng.uniform(0.03, 0.05), (2, 4, 4))
    at = where / (size - 1) * 3
    where += size * np.stack([ndimage.map_coordinates(k, at, order=1) for k in knots])
    angle, zoom = rng.uniform(-np.pi / 4, np.pi / 4), rng.uniform(0.9, 1.1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    middle = (size - 1) / 2
    where = np.einsum("ij,jyx->iyx", turn, where - middle) + middle
    number = np.arange(shape[0] * shape[1]).reshape(shape)
    return ndimage.map_coordinates(number, where, order=0, mode="mirror").astype(np.intp)
