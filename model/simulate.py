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

import imagery
import numpy as np
import torch
from scipy import ndimage
from sensors import degrade
from spectra import ENERGY, SPECTRAL, Space, contrasted, expand, pick, signature, smooth_curves
from targets import Patch, Window, coverage, log_uniform, mix, place

from uniadrs_scale.stats import CLIP, BandStatistics
from uniadrs_scale.synthetic import background
from uniadrs_scale.whitening import COMPONENTS, Whitening

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

ANOMALY, IGNORED, LARGE = 1, 2, 3
"""Labels beside 0, background. ``LARGE`` is a large normal object."""
RIM = (0.08, 0.4)
"""Share of a target in a pixel: below, the pixel is background; above, it is target."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A scaled scene to cut windows from."""

    pixels: Floats
    """(band, y, x), scaled."""
    ignored: NDArray[np.bool_]
    """(y, x), True on real targets and on pixels without data."""
    weight: float
    """How often it is drawn, relative to the others."""
    mean: NDArray[np.float64]
    """(band,) mean of each band in the file's units."""
    deviation: NDArray[np.float64]
    """(band,) standard deviation of each band in the file's units."""
    correlation: NDArray[np.float64]
    """(band, band) of the whole scene."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What whitening must know of the scene that a window is a part of."""

    deviation: NDArray[np.float64]
    """(band,) in the scene's units."""
    correlation: NDArray[np.float64] | None
    """(band, band); None where the window is all there is."""


def read_sources(folder: Path) -> list[Source]:
    """Every training scene below ``folder``, real targets ignored.

    A folder with the layout of the data README is read by kind of imagery, each with its share of
    the windows. Any other folder is read as plain rasters, at any depth, all equally often: see
    :func:`imagery.rasters`.

    Raises:
        ValueError: If the folder belongs to the validation imagery or holds it, or holds none at
            all.
    """
    if "validate" in folder.resolve().parts:
        raise ValueError(f"{folder} is validation imagery. Train on the folder beside it.")
    spectral = folder / "multispectral"
    groups = [
        (imagery.hyperspectral(folder / "hyperspectral"), 4.0),
        (imagery.ports(spectral), 1.0),
        (imagery.multispectral(spectral), 1.5),
        (imagery.sar(folder / "sar"), 1.5),
        (imagery.infrared(folder / "infrared"), 2.0),
    ]
    sources = [
        _source(image, image.targets, share / len(images))
        for images, share in groups
        for image in images
    ]
    if not sources:
        if next(folder.rglob("validate"), None):
            raise ValueError(f"{folder} holds validation imagery. Train on the folder beside it.")
        images = imagery.rasters(folder)
        sources = [_source(image, ~image.counted, 1 / len(images)) for image in images]
    if not sources:
        raise ValueError(f"{folder} holds no imagery. See the data README for its layout.")
    return sources


def _source(image: imagery.Image, ignored: NDArray[np.bool_], weight: float) -> Source:
    dark = (image.pixels == 0).all(axis=0)
    pixels, ignored = image.scaled(), ignored | dark
    flat = pixels.reshape(len(pixels), -1)[:, :: max(1, ignored.size // 40_000)]
    return Source(
        pixels=pixels,
        ignored=ignored,
        weight=weight,
        mean=image.pixels.mean(axis=(1, 2), dtype=np.float64),
        deviation=image.pixels.std(axis=(1, 2), dtype=np.float64),
        correlation=(flat @ flat.T).astype(np.float64) / flat.shape[1],
    )


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
    weights = np.array([affinity(s, bands) for s in sources])
    source = sources[rng.choice(len(sources), p=weights / weights.sum())]
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


def affinity(source: Source, bands: int) -> float:
    """How often a source should serve a band count: cubes for many, grey scenes for one."""
    own = source.pixels.shape[0]
    if bands == 1:
        return source.weight * (3 if own == 1 else 1)
    if own == 1:
        return source.weight * (0.1 if bands < SPECTRAL else 0.02)
    return source.weight * (2 if own >= SPECTRAL and bands >= SPECTRAL else 1)


def cut(rng: np.random.Generator, source: Source, side: int) -> tuple[Floats, NDArray[np.bool_]]:
    """A square of ``side`` px, turned, mirrored and at another scale now and then."""
    height, width = source.ignored.shape
    zoom = log_uniform(rng, 0.6, 2) if rng.random() < 0.4 else 1.0  # noqa: PLR2004
    want = max(16, min(round(side / zoom), height, width))
    for _ in range(4):  # look for a place that is not mostly without data
        top, left = int(rng.integers(height - want + 1)), int(rng.integers(width - want + 1))
        here = np.s_[top : top + want, left : left + want]
        if source.ignored[here].mean() < 0.3:  # noqa: PLR2004
            break
    pixels, ignored = source.pixels[:, *here], source.ignored[here]
    # Nearest neighbour keeps the noise of each pixel; interpolation would give zoomed windows away.
    index = np.minimum((np.arange(side) * want) // side, want - 1)
    pixels, ignored = pixels[:, index[:, None], index], ignored[index[:, None], index]
    if want < side:
        pixels = ndimage.uniform_filter1d(pixels, 2, axis=1)
        pixels = ndimage.uniform_filter1d(pixels, 2, axis=2)
    turns = int(rng.integers(4))
    pixels, ignored = np.rot90(pixels, turns, (1, 2)), np.rot90(ignored, turns)
    if rng.random() < 0.5:  # noqa: PLR2004
        pixels, ignored = pixels[:, :, ::-1], ignored[:, ::-1]
    return pixels, ignored


def standard(pixels: Floats) -> Floats:
    """Scaled as the library scales a scene, from a quarter of the pixels."""
    sample = pixels[:, ::2, ::2]
    return BandStatistics.of(sample, np.ones(sample.shape[1:], bool)).normalisation().apply(pixels)


def plant_anomalies(
    rng: np.random.Generator, window: Window, sources: Sequence[Source], space: Space
) -> None:
    """A few small targets, often of one signature."""
    side = window.labels.shape[0]
    # Radar and grey scenes are finer than spectral ones: a ship has hundreds of pixels.
    large = rng.random() < (0.4 if len(window.pixels) <= 2 else 0.1)  # noqa: PLR2004
    # Ships in a port, cars, tanks and roofs come in crowds.
    crowd = not large and rng.random() < 0.3  # noqa: PLR2004
    count = int(
        log_uniform(rng, 1, 5)
        if large
        else log_uniform(rng, 10, 40)
        if crowd
        else log_uniform(rng, 1, 14)
    )
    typical = log_uniform(rng, *((40, 0.05 * side**2) if large else (2, 20) if crowd else (1, 40)))
    by_energy = len(window.pixels) >= SPECTRAL and rng.random() < 0.75  # noqa: PLR2004
    shared = (
        draw_signature(rng, window, sources, space)
        if rng.random() < (0.85 if crowd else 0.6)
        else None
    )
    want = log_uniform(rng, *ENERGY)
    centre, reach = rng.integers(0, side, 2), side * rng.uniform(0.12, 0.5) if crowd else None
    for _ in range(count):
        patch = place(
            rng,
            coverage(rng, typical * log_uniform(rng, 0.5, 2)),
            side,
            centre if crowd else None,
            reach,
        )
        if patch.alpha.size == 0 or patch.alpha.max() < RIM[1]:
            continue
        spectrum = draw_signature(rng, window, sources, space) if shared is None else shared
        if by_energy:
            spectrum = space.rescaled(
                rng, spectrum, None if shared is None else want * log_uniform(rng, 0.6, 1.6)
            )
        else:
            spectrum = contrasted(rng, window, patch, spectrum)
        grain = rng.normal(1, rng.uniform(0, 0.25), patch.alpha.shape).astype(np.float32)
        opaque = np.float32(1 if rng.random() < 0.7 else rng.uniform(0.4, 1))  # noqa: PLR2004
        mix(
            window,
            Patch(patch.rows, patch.cols, patch.alpha * opaque),
            spectrum[:, None, None] * grain,
        )
        label(window, patch, ANOMALY)


def label(window: Window, patch: Patch, value: int) -> None:
    """Mark a target and its rim; a rim never hides another target."""
    under = window.labels[patch.rows, patch.cols]
    under[(patch.alpha > RIM[0]) & (under != ANOMALY)] = IGNORED if value == ANOMALY else value
    under[patch.alpha >= RIM[1]] = value


def plant_normal(
    rng: np.random.Generator, window: Window, sources: Sequence[Source], space: Space
) -> None:
    """Large objects and roads, which are not anomalies, however strange their material."""
    side = window.labels.shape[0]
    kinds = ["large"] * int(rng.choice([0, 1, 2, 4], p=[0.45, 0.3, 0.15, 0.1]))
    kinds += ["road"] * int(rng.choice([0, 1, 3], p=[0.8, 0.12, 0.08]))
    for kind in kinds:
        large = kind == "large"
        area = log_uniform(rng, 0.03, 0.4) * side**2
        patch = place(rng, coverage(rng, area) if large else road(rng, side), side)
        if patch.alpha.size == 0:
            continue
        content = texture(rng, window, sources, patch, space) if large else None
        if content is None:
            spectrum = draw_signature(rng, window, sources, space)
            if len(window.pixels) >= SPECTRAL and rng.random() < 0.5:  # noqa: PLR2004
                spectrum = space.rescaled(rng, spectrum)
            else:
                spectrum = contrasted(rng, window, patch, spectrum)
            grain = rng.normal(1, rng.uniform(0, 0.2), patch.alpha.shape).astype(np.float32)
            content = spectrum[:, None, None] * grain
        mix(window, patch, content)
        label(window, patch, LARGE)


def draw_signature(
    rng: np.random.Generator, window: Window, sources: Sequence[Source], space: Space
) -> Floats:
    """(band,) a spectrum that the window may not contain."""
    if len(window.pixels) >= SPECTRAL and rng.random() < 0.4:  # noqa: PLR2004
        return space.rare(rng)
    return signature(rng, window, sources)


def texture(
    rng: np.random.Generator,
    window: Window,
    sources: Sequence[Source],
    patch: Patch,
    space: Space,
) -> Floats | None:
    """(band, y, x) a piece of another place, with the pixels it really has; now and then None."""
    if not sources or rng.random() < 0.4:  # noqa: PLR2004
        return None
    bands = len(window.pixels)
    weights = np.array([affinity(s, bands) for s in sources])
    other = sources[rng.choice(len(sources), p=weights / weights.sum())].pixels
    height, width = patch.alpha.shape
    top, left = (
        int(rng.integers(max(n - m, 0) + 1))
        for n, m in zip(other.shape[1:], (height, width), strict=True)
    )
    rows = np.minimum(top + np.arange(height), other.shape[1] - 1)
    cols = np.minimum(left + np.arange(width), other.shape[2] - 1)
    index = np.linspace(0, len(other) - 1, bands).round().astype(int)
    piece = other[index][:, rows[:, None], cols]
    mean = piece.mean(axis=(1, 2))
    if bands >= SPECTRAL and rng.random() < 0.7:  # noqa: PLR2004
        moved = space.rescaled(rng, mean)
        size = float(np.abs(mean).mean()) + 0.3
        piece = (piece - mean[:, None, None]) * (float(np.abs(moved).mean()) / size) + moved[
            :, None, None
        ]
    return piece.astype(np.float32)


def road(rng: np.random.Generator, side: int) -> Floats:
    """A bent line of 1 to 5 px across a window of twice the side."""
    y, x = np.mgrid[-side : side + 1, -side : side + 1].astype(np.float32)
    angle, bend = rng.uniform(0, np.pi), rng.normal(0, 0.3) / side
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle) + bend * along**2
    return np.clip(rng.uniform(0.5, 2.5) - np.abs(across) + 0.5, 0, 1).astype(np.float32)


def disturb(rng: np.random.Generator, pixels: Floats) -> Floats:
    """Noise, stripes and speckle of a sensor, none of them in half of the windows."""
    bands, height, width = pixels.shape
    if rng.random() < 0.3:  # noqa: PLR2004
        level = np.float32(log_uniform(rng, 0.02, 0.4))
        pixels = pixels + level * rng.standard_normal(pixels.shape, np.float32)
    if rng.random() < 0.08:  # noqa: PLR2004
        level = np.float32(log_uniform(rng, 0.02, 0.3))
        pixels = pixels + level * rng.standard_normal((bands, 1, width), np.float32)
    if bands <= 2 and rng.random() < 0.4:  # noqa: PLR2004 - radar: multiplicative, above a floor
        looks = rng.uniform(1, 8)
        speckle = rng.gamma(looks, 1 / looks, (1, height, width)).astype(np.float32)
        pixels = (pixels - pixels.min()) * speckle
    return pixels


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
