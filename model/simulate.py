"""Training windows: real or generated background, planted anomalies, labels.

A batch is a pure function of (seed, step): a resumed run gets exactly the windows of an
uninterrupted one, and no state of a generator has to be saved.

Deliberate differences from the published simulation (Li et al., arXiv 2310.07511): targets of 1 to
400 px with soft edges and mixed pixels instead of large rectangles; windows without anomalies, as
most of a scene is; large objects and roads as negatives; any band count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import radar
import torch
from planting import plant_anomalies, plant_normal
from sensors import degrade, disturb
from sources import cut, draw_source
from spectra import Space, expand, pick, signature, smooth_curves
from targets import IGNORED, REAL, Window, log_uniform

from uniadrs_scale.core.pixels import CLIP, BandStatistics
from uniadrs_scale.demo.fields import ISLET
from uniadrs_scale.demo.landscape import background
from uniadrs_scale.detector.whitening import COMPONENTS, Whitening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sources import Source

    Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Statistics of the scene that a window is a part of, for its whitening."""

    deviation: NDArray[np.float64]
    """(band,) in the scene's units."""
    correlation: NDArray[np.float64] | None
    """(band, band); None if the window is the whole scene."""


def batch(
    seed: int,
    step: int,
    sources: Sequence[Source],
    *,
    windows: float = 8,
    empty: float = 0.2,
    sensors: Literal["basic", "all"] = "basic",
    radar_share: float = 0.0,
    wider: float = 0.0,
    islet: int = ISLET,
) -> tuple[Floats, NDArray[np.uint8]]:
    """Simulate the windows of one training step.

    Args:
        seed: Seed of the whole run.
        step: Number of the step.
        sources: Real scenes; without any, all landscapes are generated.
        windows: Area of the batch, in windows of 96 px.
        empty: Share of windows without anomalies, 0..1.
        sensors: ``basic`` is noise, stripes and speckle; ``all`` adds dead bands, haze, low light.
        radar_share: Share of the batches that are radar, 0..1.
        wider: Share of whitenings by the statistics of a scene that goes on beyond the window,
            0..1. Above 0, every window is whitened twice, by different statistics.
        islet: Area of the smallest island or lone parcel of generated landscapes [px]; 0: any.

    Returns:
        float32 (window, CHANNELS or twice as many, y, x) whitened, and labels uint8
        (window, y, x).
    """
    rng = np.random.default_rng((seed, step))
    side = int(rng.choice([64, 80, 96, 112, 128]))
    count = max(round(windows * 96**2 / side**2), 1)
    own = np.random.default_rng((seed, step, 3))
    beyond = Beyond(np.random.default_rng((seed, step, 4)), wider, sources) if wider else None
    if own.random() < radar_share:
        drawn = [_radar_window(own, side, empty, beyond) for _ in range(count)]
        return np.stack([w.pixels for w in drawn]), np.stack([w.labels for w in drawn])
    bands = draw_bands(rng)
    # A separate stream: windows without these effects do not depend on them.
    effects = np.random.default_rng((seed, step, 1)) if sensors == "all" else None
    parts = Parts(sources, empty, effects, beyond, islet)
    drawn = [draw_window(rng, bands, side, parts) for _ in range(count)]
    return np.stack([w.pixels for w in drawn]), np.stack([w.labels for w in drawn])


def draw_bands(rng: np.random.Generator) -> int:
    """Draw a band count: radar and grey, colour and infrared, multispectral, hyperspectral."""
    low, high = [(1, 1), (2, 4), (4, 16), (17, 90), (90, 160)][
        rng.choice(5, p=[0.14, 0.24, 0.12, 0.22, 0.28])
    ]
    return int(rng.integers(low, high + 1))


@dataclass(frozen=True, slots=True)
class Parts:
    """The contents of the windows of a step."""

    sources: Sequence[Source]
    empty: float
    """Share of windows without anomalies, 0..1."""
    effects: np.random.Generator | None
    """Draws dead bands, haze and low light."""
    beyond: Beyond | None
    islet: int


def draw_window(rng: np.random.Generator, bands: int, side: int, parts: Parts) -> Window:
    """Simulate one window of ``side`` px: background, objects, targets, sensor, whitening, fill."""
    inner = side if rng.random() < 0.7 else int(side * rng.uniform(0.5, 0.95))
    window, scene = draw_background(rng, bands, inner, parts)
    space = Space.of(window.pixels, scene.deviation, scene.correlation)
    plant_normal(rng, window, parts.sources, space)
    if rng.random() >= parts.empty:
        plant_anomalies(rng, window, parts.sources, space)
    sensed, labels = disturb(rng, window.pixels), window.labels
    if parts.effects is not None:
        sensed = degrade(parts.effects, sensed)
    # A noisy sensor adds noise to the whole scene, so the statistics of the source do not hold.
    known = scene if sensed is window.pixels else Scene(scene.deviation, None)
    return finished(rng, whiten(rng, sensed, known, parts.beyond), labels, side)


def _radar_window(
    rng: np.random.Generator, side: int, empty: float, beyond: Beyond | None
) -> Window:
    """Simulate one window of radar."""
    inner = side if rng.random() < 0.7 else int(side * rng.uniform(0.5, 0.95))
    window = radar.draw(rng, inner, empty)
    known = Scene(np.ones(len(window.pixels)), None)
    return finished(rng, whiten(rng, window.pixels, known, beyond), window.labels, side)


def finished(
    rng: np.random.Generator, pixels: Floats, labels: NDArray[np.uint8], side: int
) -> Window:
    """Mirror an edge now and then, and fill a smaller window up to ``side`` px."""
    inner = labels.shape[0]
    if rng.random() < 0.1:
        pixels, labels = mirror_edge(rng, pixels, labels)
    # The library does the same with a scene smaller than a tile.
    pad = ((0, side - inner),) * 2
    pixels = np.pad(pixels, ((0, 0), *pad), mode="reflect")
    return Window(pixels=pixels, labels=np.pad(labels, pad, mode="reflect"))


def draw_background(
    rng: np.random.Generator, bands: int, side: int, parts: Parts
) -> tuple[Window, Scene]:
    """Draw a generated landscape, or a piece of a real scene with other bands."""
    gains = np.exp(rng.uniform(0, 1) * smooth_curves(rng, 1, bands)[0]).astype(np.float64)
    if not parts.sources or rng.random() < 0.3:
        pixels = background(rng, bands, side, side, parts.islet)
        window = Window(pixels=standard(pixels), labels=np.zeros((side, side), np.uint8))
        return window, Scene(gains, None)
    source = draw_source(rng, parts.sources, bands)
    pixels, ignored = cut(rng, source, side)
    labels = np.where(ignored, IGNORED, REAL).astype(np.uint8)
    own = pixels.shape[0]
    fits = own >= bands
    if fits:
        chosen = pick(rng, own, bands)
        pixels = pixels[chosen]
        scene = Scene(source.deviation[chosen], source.correlation[np.ix_(chosen, chosen)])
    else:
        pixels = standard(expand(rng, pixels, bands))
        level = log_uniform(rng, 0.005, 0.1) * np.exp(0.5 * smooth_curves(rng, 1, bands)[0])
        pixels += level[:, None, None] * rng.standard_normal(pixels.shape, np.float32)
        scene = Scene(gains, None)
    return Window(pixels=np.ascontiguousarray(pixels), labels=labels), scene


def standard(pixels: Floats) -> Floats:
    """Scale pixels as the library scales a scene, by a quarter of them."""
    sample = pixels[:, ::2, ::2]
    return BandStatistics.of(sample, np.ones(sample.shape[1:], bool)).normalisation().apply(pixels)


def whiten(
    rng: np.random.Generator, pixels: Floats, scene: Scene, beyond: Beyond | None = None
) -> Floats:
    """Whiten as the library does, by the statistics of the window or of its scene.

    Returns:
        float32 (CHANNELS, y, x); with ``beyond`` twice as many channels, of two whitenings.
    """
    if beyond is None:
        return _whitened(rng, *_measured(rng, pixels, scene))
    generators = (rng, beyond.rng)
    views = [_whitened(g, *beyond.seen(*_measured(g, pixels, scene))) for g in generators]
    return np.concatenate(views)


def _measured(
    rng: np.random.Generator, pixels: Floats, scene: Scene
) -> tuple[Floats, NDArray[np.float64], NDArray[np.float64]]:
    """Return scaled pixels, and deviation and correlation of the window or of its scene."""
    if scene.correlation is not None and rng.random() < 0.5:
        return pixels, scene.deviation, scene.correlation
    pixels = standard(pixels)
    flat = pixels.reshape(len(pixels), -1)
    return pixels, scene.deviation, (flat @ flat.T).astype(np.float64) / flat.shape[1]


def _whitened(
    rng: np.random.Generator,
    pixels: Floats,
    deviation: NDArray[np.float64],
    correlation: NDArray[np.float64],
) -> Floats:
    whitening = Whitening.from_correlation(correlation, deviation)
    scaled = torch.from_numpy(np.clip(pixels, -CLIP, CLIP))
    channels: Floats = whitening.apply(scaled[None])[0].numpy()
    # The sign of an eigenvector is arbitrary, except of the first (brightness).
    channels[1:COMPONENTS] *= rng.choice([-1, 1], (COMPONENTS - 1, 1, 1))
    return channels


@dataclass(frozen=True, slots=True, eq=False)
class Beyond:
    """Draws what a scene holds beyond a window: other ground, which changes its statistics."""

    rng: np.random.Generator
    share: float
    """Share of the whitenings that are changed, 0..1."""
    sources: Sequence[Source]

    def seen(
        self, pixels: Floats, deviation: NDArray[np.float64], correlation: NDArray[np.float64]
    ) -> tuple[Floats, NDArray[np.float64], NDArray[np.float64]]:
        """Return pixels, deviation and correlation as of a scene that has the window as a part.

        Now and then this is the window alone. Else the rest of the scene has one to five other
        spectra, and the texture of the window.
        """
        rng = self.rng
        if rng.random() >= self.share:
            return pixels, deviation, correlation
        shares = rng.dirichlet(np.ones(int(rng.integers(1, 6)))) * rng.uniform(0.05, 0.9)
        window = Window(pixels=pixels, labels=np.zeros(pixels.shape[1:], np.uint8))
        others = np.stack([signature(rng, window, self.sources) for _ in shares]).astype(float)
        others /= np.sqrt(np.square(others).mean(1, keepdims=True)) + 1e-6
        others *= np.exp(rng.uniform(np.log(0.5), np.log(10), (len(shares), 1)))
        texture = 1 - shares.sum() * (1 - log_uniform(rng, 0.1, 2))
        mean, covariance = mixed(correlation, texture, shares, others)
        spread = np.sqrt(np.maximum(np.diag(covariance), 1e-6))
        moved = (pixels - mean[:, None, None]) / spread[:, None, None]
        return (
            moved.astype(np.float32),
            deviation * spread,
            covariance / np.outer(spread, spread),
        )


def mixed(
    correlation: NDArray[np.float64],
    texture: float,
    shares: NDArray[np.float64],
    spectra: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean (band,) and covariance (band, band) of a scene of several grounds.

    Args:
        correlation: (band, band) of a window, scaled to mean 0.
        texture: Mean strength of the window's texture in the scene, as a variance.
        shares: (ground,) share of the scene that each other ground covers; the window covers the
            rest.
        spectra: (ground, band) their means, in the scale of the window.
    """
    mean = shares @ spectra
    between = (spectra.T * shares) @ spectra - np.outer(mean, mean)
    return mean, texture * correlation + between


def mirror_edge(
    rng: np.random.Generator, pixels: Floats, labels: NDArray[np.uint8]
) -> tuple[Floats, NDArray[np.uint8]]:
    """Mirror the rows beyond a slanted line, as at a swath's edge; labels there are ignored."""
    side = labels.shape[0]
    edge = side * rng.uniform(0.3, 0.9) + np.arange(side) * rng.uniform(-0.3, 0.3)
    edge = np.clip(edge.astype(int), side // 6, side - 1)[:, None]
    col = np.arange(side)[None]
    source = np.where(col > edge, np.maximum(2 * edge - col, 0), col)
    rows = np.arange(side)[:, None]
    return pixels[:, rows, source], np.where(col > edge, IGNORED, labels[rows, source]).astype(
        np.uint8
    )
