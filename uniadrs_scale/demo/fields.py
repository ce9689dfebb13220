"""The ingredients of a landscape: random fields, parcels and lines on a pixel grid, and spectra.

No shape repeats or follows the grid: a network finds any period within minutes, and then knows the
generator instead of landscapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import fft, ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["vegetation", "soil", "water", "built", "any"]
"""A kind of land cover. ``any`` is an arbitrary smooth curve, for sensors that do not measure
reflectance."""
MARGIN = 0.25
"""Share by which fields are drawn too large and then cropped: an FFT field is a torus, and its
opposite borders must not match."""
ISLET = 400
"""Area of the smallest island, pond, wood or group of roofs [px]. Smaller ones look like boats and
vehicles: a network that learns them as normal misses those."""
SPECTROMETER = 20
"""A sensor with this many bands or more samples the spectrum evenly."""


def white(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return independent float32 samples of mean 0 and variance 1 within +-5.7.

    The number of set bits among 32 random ones is binomial, so close to normal, and takes a third
    of the time of ``standard_normal``, which would dominate a hyperspectral tile.
    """
    words = rng.integers(0, 2**32, size=shape, dtype=np.uint32)
    samples = np.bitwise_count(words).astype(np.float32)
    samples -= np.float32(16.0)
    samples *= np.float32(8.0**-0.5)
    return samples


def random_field(
    rng: np.random.Generator, shape: tuple[int, int], *, slope: float, stretch: float = 1.0
) -> NDArray[np.float32]:
    """Return a 1/f field: amplitude falls with spatial frequency as f ** -slope.

    Args:
        rng: The only source of randomness.
        shape: (y, x) [px].
        slope: 0 is white noise, 1 is rough as bushes, 2 is smooth as hills.
        stretch: Above 1, structures are longer by this factor along a random direction.

    Returns:
        float32 (y, x), mean 0, standard deviation 1.
    """
    height, width = (fft.next_fast_len(round(n * (1 + MARGIN)) + 8, real=True) for n in shape)
    fy = fft.fftfreq(height).astype(np.float32)[:, None]
    fx = fft.rfftfreq(width).astype(np.float32)[None, :]
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * fx + np.sin(angle) * fy
    across = np.cos(angle) * fy - np.sin(angle) * fx
    power = np.square(along * stretch) + np.square(across / stretch)
    power[0, 0] = np.inf  # the mean is removed below
    amplitude = power ** np.float32(-slope / 2)
    wave = np.empty(amplitude.shape, np.complex64)
    wave.real = white(rng, wave.shape)
    wave.imag = white(rng, wave.shape)
    wave *= amplitude
    field = fft.irfft2(wave, s=(height, width))[: shape[0], : shape[1]]
    field = field - field.mean(dtype=np.float64)
    return np.asarray(field / (field.std(dtype=np.float64) + 1e-12), np.float32)


def region(field: NDArray[np.float32], share: float, softness: float) -> NDArray[np.float32]:
    """Return weights 0..1 (y, x) that cover the highest ``share`` of a field.

    Args:
        field: (y, x).
        share: Covered share of the area, 0..1.
        softness: Width of the border [standard deviations of the field].
    """
    # A strided sample is enough for a threshold; sorting 4 million pixels takes half a second.
    step = max(1, min(field.shape) // 128)
    edge = np.quantile(field[::step, ::step], 1 - share)
    weight = (field - np.float32(edge)) / np.float32(softness) + np.float32(0.5)
    return np.asarray(np.clip(weight, 0, 1))


def without_islets(cover: NDArray[np.float32], least: int) -> NDArray[np.float32]:
    """Drop pieces of a cover (y, x) in 0..1, and fill its holes, of fewer than ``least`` px.

    Pieces and holes that the border cuts are kept, since they may go on beyond it.
    """
    cover = np.where(_small(cover > 0, least), np.float32(0), cover)
    return np.where(_small(cover < 1, least), np.float32(1), cover)


def _small(inside: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Return the connected parts (y, x) of fewer than ``least`` pixels that touch no border."""
    parts, count = ndimage.label(inside)
    small = np.bincount(parts.ravel(), minlength=count + 1) < least
    small[0] = False
    for border in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        small[border] = False
    return np.asarray(small[parts])


@dataclass(frozen=True, slots=True, eq=False)
class Parcels:
    """An irregular partition into four-sided pieces, like farmland or city blocks."""

    labels: NDArray[np.intp]
    """(y, x), 0 <= label < count."""
    count: int
    """Number of labels; some may have no pixel."""
    margin: NDArray[np.float32]
    """(y, x) distance to the nearest border of the parcel [px]."""


def parcels(
    rng: np.random.Generator, shape: tuple[int, int], *, size: float, bend: NDArray[np.float32]
) -> Parcels:
    """Cut strips at a random angle, and each strip crosswise, into parcels of log-normal widths.

    Args:
        rng: The only source of randomness.
        shape: (y, x) [px].
        size: Typical side of a parcel [px].
        bend: (y, x) displacement that curves the borders [px].
    """
    angle = rng.uniform(0, np.pi)
    y = np.arange(shape[0], dtype=np.float32)[:, None]
    x = np.arange(shape[1], dtype=np.float32)[None, :]
    across = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y + bend
    along = np.float32(np.cos(angle)) * y - np.float32(np.sin(angle)) * x - bend
    strips, strip_margin = _cut(rng, across, size)
    number = int(strips.max()) + 1
    shift = rng.uniform(0, 8 * size, number).astype(np.float32)
    factor = np.exp(rng.normal(0, 0.4, number)).astype(np.float32) * np.float32(rng.uniform(0.3, 1))
    pieces, piece_margin = _cut(rng, along * factor[strips] + shift[strips], size)
    labels = strips * (int(pieces.max()) + 1) + pieces
    margin = np.minimum(strip_margin, piece_margin / factor[strips])
    return Parcels(labels, int(labels.max()) + 1, margin)


def _cut(
    rng: np.random.Generator, position: NDArray[np.float32], size: float
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the interval that each position is in, and the distance to the interval's ends."""
    low, high = float(position.min()), float(position.max())
    number = int((high - low) / size * 1.6) + 4
    widths = size * np.exp(rng.normal(-0.12, 0.5, number))
    # The last cut is far out, so that no position is behind it.
    cuts = np.concatenate(
        [[low - size], low - size * rng.uniform(0, 1) + np.cumsum(widths), [high * 2 + 9e6]]
    )
    cuts = cuts.astype(np.float32)
    index = np.searchsorted(cuts, position.ravel(), side="right").reshape(position.shape) - 1
    index = np.clip(index, 0, len(cuts) - 2)
    return index, np.minimum(position - cuts[index], cuts[index + 1] - position)


def lines(rng: np.random.Generator, shape: tuple[int, int], *, count: int) -> NDArray[np.float32]:
    """Return the coverage 0..1 (y, x) by ``count`` gently winding roads, anti-aliased.

    Points along each road are spread bilinearly; a distance map per road would cost the area of
    the scene each time.
    """
    reach = 1.5 * max(shape)
    along = np.arange(0, 2 * reach, 0.5)
    coverage = np.zeros(shape[0] * shape[1])
    for _ in range(count):
        turns = rng.normal(0, 1, int(reach / 24) + 4).cumsum() * rng.choice([0.01, 0.05, 0.12])
        knots = np.linspace(0, 2 * reach, len(turns))
        heading = rng.uniform(0, 2 * np.pi) + np.interp(
            along, knots, turns - turns[len(turns) // 2]
        )
        path = np.stack([np.sin(heading), np.cos(heading)]).cumsum(axis=1) * 0.5
        path += (rng.uniform(0, 1, 2) * shape - path[:, path.shape[1] // 2])[:, None]
        offsets = np.arange(0.25, rng.uniform(0.6, 3.2), 0.5)
        normal = np.stack([np.cos(heading), -np.sin(heading)])
        points = path[:, :, None] + normal[:, :, None] * offsets
        coverage += splat(points.reshape(2, -1), shape, weight=0.25).ravel()
    return np.clip(coverage, 0, 1).astype(np.float32).reshape(shape)


def splat(
    points: NDArray[np.float64], shape: tuple[int, int], *, weight: float
) -> NDArray[np.float64]:
    """Spread points bilinearly over their four pixels.

    Args:
        points: (2, point) rows and columns [px]; points outside are dropped.
        shape: (y, x) [px].
        weight: Sum that each point adds.

    Returns:
        float64 (y, x).
    """
    corner = np.floor(points).astype(np.intp)
    inside = ((corner >= 0) & (corner < np.array(shape)[:, None] - 1)).all(axis=0)
    corner, fraction = corner[:, inside], (points - corner)[:, inside]
    flat = corner[0] * shape[1] + corner[1]
    total = np.zeros(shape[0] * shape[1])
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(1 - dy - fraction[0]) * np.abs(1 - dx - fraction[1])
            total += np.bincount(flat + dy * shape[1] + dx, share * weight, minlength=total.size)
    return total.reshape(shape)


def contour(field: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """Return the coverage 0..1 (y, x) by a river of ``width`` px along the field's zero line."""
    down, right = np.gradient(field)
    distance = np.abs(field) / (np.hypot(down, right) + np.float32(1e-6))
    return np.asarray(np.clip(np.float32(width / 2 + 0.5) - distance, 0, 1))


def wavelengths(rng: np.random.Generator, bands: int) -> NDArray[np.float64]:
    """Return (band,) increasing band centres of an invented sensor, 0.4..2.4 micrometres."""
    last = rng.choice([0.9, 1.0, 2.4])
    if bands >= SPECTROMETER:
        return np.linspace(0.4, last, bands)
    return np.sort(rng.uniform(0.42, last, bands))


def smooth(rng: np.random.Generator, waves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a random smooth curve (band,) of magnitude about 1: offset, slope and four bumps."""
    span = (waves - 0.4) / 2.0
    centres, widths = rng.uniform(-0.1, 1.1, 4), np.exp(rng.uniform(-3.5, -0.7, 4))
    bumps = np.exp(-np.square((span[:, None] - centres) / widths))
    curve = rng.normal(0, 0.7) + rng.normal(0, 0.7) * (span - 0.5) + bumps @ rng.normal(0, 0.7, 4)
    return np.asarray(curve)


def material(
    rng: np.random.Generator, waves: NDArray[np.float64], kind: Kind
) -> NDArray[np.float32]:
    """Return a random spectrum of one kind of land cover.

    Args:
        rng: The only source of randomness.
        waves: (band,) wavelengths [micrometres].
        kind: The kind that the spectrum resembles.

    Returns:
        float32 (band,), reflectance in 0.005..0.95.
    """
    curve = _SHAPES[kind](rng, waves)
    curve = curve * (1 + 0.08 * smooth(rng, waves))
    return np.asarray(np.clip(curve, 0.005, 0.95), np.float32)


def _bump(waves: NDArray[np.float64], centre: float, width: float) -> NDArray[np.float64]:
    return np.asarray(np.exp(-np.square((waves - centre) / width)))


def _vegetation(rng: np.random.Generator, waves: NDArray[np.float64]) -> NDArray[np.float64]:
    red_edge = 1 / (1 + np.exp(-(waves - rng.uniform(0.705, 0.725)) / 0.015))
    wetness = rng.uniform(0.3, 0.9)
    infrared = np.heaviside(waves - 1.3, 1)
    dips = 0.5 * _bump(waves, 1.45, 0.1) + 0.8 * _bump(waves, 1.94, 0.15) + 0.35 * infrared
    visible = rng.uniform(0.02, 0.05) + rng.uniform(0.02, 0.07) * _bump(waves, 0.555, 0.045)
    dryness = 0.07 * rng.uniform(0, 1) ** 3 * np.heaviside(waves - 0.6, 1)
    plateau = rng.uniform(0.18, 0.45) * np.clip(1 - wetness * dips, 0.05, 1)
    return np.asarray(visible + dryness + plateau * red_edge)


def _soil(rng: np.random.Generator, waves: NDArray[np.float64]) -> NDArray[np.float64]:
    rise = 1 - np.exp(-(waves - 0.33) / rng.uniform(0.15, 0.6))
    return np.asarray(rng.uniform(0.02, 0.06) + rng.uniform(0.12, 0.42) * rise)


def _water(rng: np.random.Generator, waves: NDArray[np.float64]) -> NDArray[np.float64]:
    clear = rng.uniform(0.02, 0.08) * np.exp(-(waves - 0.4) / rng.uniform(0.08, 0.2))
    murky = rng.uniform(0, 0.05) * _bump(waves, 0.57, 0.08)
    return np.asarray(0.008 + clear + murky)


def _built(rng: np.random.Generator, waves: NDArray[np.float64]) -> NDArray[np.float64]:
    grey = rng.uniform(0.07, 0.28)
    return np.asarray(grey * (1 + 0.3 * smooth(rng, waves)) + rng.uniform(0, 0.08) * (waves - 0.4))


def _any(rng: np.random.Generator, waves: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rng.uniform(0.03, 0.6) * (1 + 0.45 * smooth(rng, waves)))


_SHAPES = {"vegetation": _vegetation, "soil": _soil, "water": _water, "built": _built, "any": _any}
