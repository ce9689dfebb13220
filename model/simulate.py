"""Training windows: real or generated background, planted anomalies, labels.

A batch is a pure function of (seed, step): a resumed run sees exactly the windows that an
uninterrupted one would have seen, and no state of a generator has to be saved.

Differences from the published simulation (Li et al., arXiv 2310.07511), each on purpose: targets of
1 to 400 px with soft edges and mixed pixels instead of large rectangles; windows without any
anomaly, which is what most of a scene is; large objects and roads as negatives; any band count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from planting import plant_anomalies, plant_normal
from sensors import degrade, disturb
from sources import cut, draw_source
from spectra import Space, expand, pick, smooth_curves
from targets import IGNORED, Window, log_uniform

from uniadrs_scale.core.pixels import CLIP, BandStatistics
from uniadrs_scale.demo.landscape import background
from uniadrs_scale.detector.whitening import COMPONENTS, Whitening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sources import Source

    Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What whitening must know of the scene that a window is a part of."""

    deviation: NDArray[np.float64]
    """(band,) in the scene's units."""
    correlation: NDArray[np.float64] | None
    """(band, band); None where the window is all there is."""


def batch(
    seed: int,
    step: int,
    sources: Sequence[Source],
    *,
    windows: float = 8,
    empty: float = 0.2,
    sensors: Literal["basic", "all"] = "basic",
) -> tuple[Floats, NDArray[np.uint8]]:
    """The windows of one training step.

    Args:
        seed: Of the whole run.
        step: Number of the step.
        sources: Real scenes; none leaves generated landscapes only.
        windows: How many windows of 96 px it shall equal in area.
        empty: Share of windows without any anomaly, which is what most of a scene is.
        sensors: ``basic`` are noise, stripes and speckle; ``all`` adds :mod:`sensors`.

    Returns:
        float32 (window, CHANNELS, y, x) whitened, and labels uint8 (window, y, x).
    """
    rng = np.random.default_rng((seed, step))
    side = int(rng.choice([64, 80, 96, 112, 128]))
    count = max(round(windows * 96**2 / side**2), 1)
    bands = draw_bands(rng)
    # A stream of its own: without these effects every window is what it was before they existed.
    effects = np.random.default_rng((seed, step, 1)) if sensors == "all" else None
    drawn = [draw_window(rng, bands, side, sources, empty, effects) for _ in range(count)]
    return np.stack([w.pixels for w in drawn]), np.stack([w.labels for w in drawn])


def draw_bands(rng: np.random.Generator) -> int:
    """A band count: radar and grey, colour and infrared, multispectral, hyperspectral."""
    low, high = [(1, 1), (2, 4), (4, 16), (17, 90), (90, 160)][
        rng.choice(5, p=[0.14, 0.24, 0.12, 0.22, 0.28])
    ]
    return int(rng.integers(low, high + 1))


def draw_window(  # noqa: PLR0917 - what a window depends on
    rng: np.random.Generator,
    bands: int,
    side: int,
    sources: Sequence[Source],
    empty: float,
    effects: np.random.Generator | None = None,
) -> Window:
    """One window of ``side`` px: background, objects, targets, sensor, scaling, fill."""
    inner = side if rng.random() < 0.7 else int(side * rng.uniform(0.5, 0.95))  # noqa: PLR2004
    window, scene = draw_background(rng, bands, inner, sources)
    space = Space.of(window.pixels, scene.deviation, scene.correlation)
    plant_normal(rng, window, sources, space)
    if rng.random() >= empty:
        plant_anomalies(rng, window, sources, space)
    sensed, labels = disturb(rng, window.pixels), window.labels
    if effects is not None:
        sensed = degrade(effects, sensed)
    # A noisy sensor has noise all over the scene: its statistics are not those of the clean source.
    known = scene if sensed is window.pixels else Scene(scene.deviation, None)
    pixels = whiten(rng, sensed, known)
    if rng.random() < 0.1:  # noqa: PLR2004
        pixels, labels = mirror_edge(rng, pixels, labels)
    # As the library does with a scene smaller than a tile.
    pad = ((0, side - inner),) * 2
    pixels = np.pad(pixels, ((0, 0), *pad), mode="reflect")
    return Window(pixels=pixels, labels=np.pad(labels, pad, mode="reflect"))


def draw_background(
    rng: np.random.Generator, bands: int, side: int, sources: Sequence[Source]
) -> tuple[Window, Scene]:
    """A generated landscape, or a piece of a real scene with other bands."""
    gains = np.exp(rng.uniform(0, 1) * smooth_curves(rng, 1, bands)[0]).astype(np.float64)
    if not sources or rng.random() < 0.3:  # noqa: PLR2004
        pixels = background(rng, bands, side, side)
        window = Window(pixels=standard(pixels), labels=np.zeros((side, side), np.uint8))
        return window, Scene(gains, None)
    source = draw_source(rng, sources, bands)
    pixels, ignored = cut(rng, source, side)
    labels = np.where(ignored, IGNORED, 0).astype(np.uint8)
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
    """Scaled as the library scales a scene, from a quarter of the pixels."""
    sample = pixels[:, ::2, ::2]
    return BandStatistics.of(sample, np.ones(sample.shape[1:], bool)).normalisation().apply(pixels)


def whiten(rng: np.random.Generator, pixels: Floats, scene: Scene) -> Floats:
    """As the library does it: by the statistics of the window, or of the scene it is a part of."""
    if scene.correlation is not None and rng.random() < 0.5:  # noqa: PLR2004
        correlation = scene.correlation
    else:
        pixels = standard(pixels)
        flat = pixels.reshape(len(pixels), -1)
        correlation = (flat @ flat.T).astype(np.float64) / flat.shape[1]
    whitening = Whitening.from_correlation(correlation, scene.deviation)
    scaled = torch.from_numpy(np.clip(pixels, -CLIP, CLIP))
    channels: Floats = whitening.apply(scaled[None])[0].numpy()
    # Which way an eigenvector points says nothing, but for brightness.
    channels[1:COMPONENTS] *= rng.choice([-1, 1], (COMPONENTS - 1, 1, 1))
    return channels


def mirror_edge(
    rng: np.random.Generator, pixels: Floats, labels: NDArray[np.uint8]
) -> tuple[Floats, NDArray[np.uint8]]:
    """A swath's edge: beyond a slanted line the rows are mirrored, and nothing there counts."""
    side = labels.shape[0]
    edge = side * rng.uniform(0.3, 0.9) + np.arange(side) * rng.uniform(-0.3, 0.3)
    edge = np.clip(edge.astype(int), side // 6, side - 1)[:, None]
    col = np.arange(side)[None]
    source = np.where(col > edge, np.maximum(2 * edge - col, 0), col)
    rows = np.arange(side)[:, None]
    return pixels[:, rows, source], np.where(col > edge, IGNORED, labels[rows, source]).astype(
        np.uint8
    )
