"""Contrasts: how far a target stands out of its surroundings, per band of the scene."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from uniadrs_scale.core.lattice import Window
from uniadrs_scale.objects.components import EIGHT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import SceneSource
    from uniadrs_scale.maps.finished import RasterMap
    from uniadrs_scale.maps.store import ScoreMap
    from uniadrs_scale.objects.components import Columns, Cut

MOST_BANDS = 16
"""Bands beyond which three components stand for all of them."""
COMPONENTS = 3
GAP, REACH = 2, 7
"""The ring around a target: pixels farther than GAP and at most REACH from it."""
WIDEST = 512
"""Side of a target's box beyond which its contrast is not measured [px]."""
FEW = 8
"""Pixels of a ring below which it says nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A scene, and the weighted sums of its bands that are measured."""

    source: SceneSource
    names: tuple[str, ...]
    weights: NDArray[np.float64] | None
    """(component, band); None for the bands themselves."""

    def read(self, window: Window) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return values (name, y, x) and valid mask (y, x)."""
        pixels, valid = self.source.window(window).read()
        values = np.where(valid, pixels, 0).astype(np.float64)
        if self.weights is not None:
            values = np.tensordot(self.weights, values, axes=1)
        return values, valid


def view_of(source: SceneSource) -> View:
    """Return the view of a scene: its bands, or components of many bands."""
    bands = source.info.bands
    if len(bands) <= MOST_BANDS:
        return View(source, tuple(map(_plain, bands)), None)
    return View(source, tuple(f"component{k + 1}" for k in range(COMPONENTS)), _leading(source))


def contrasts_of(
    table: Columns, view: View, opened: ScoreMap | RasterMap, cut: Cut
) -> dict[str, NDArray[np.float32]]:
    """Return ``contrast_NAME``: (object mean - ring mean) / ring deviation; NaN if unknown.

    The ring has only valid pixels with a score below ``grow``, of no target.
    """
    found = np.full((len(view.names), len(table["edge"])), np.nan, np.float32)
    shape = opened.geobox.shape
    boxes = np.stack([table[name] for name in ("row0", "col0", "row1", "col1")], axis=-1)
    # By place, so that neighbours are read from the same blocks of a file.
    for k in np.lexsort((boxes[:, 1] // WIDEST, boxes[:, 0] // WIDEST)):
        row0, col0, row1, col1 = boxes[k].tolist()
        if max(row1 - row0, col1 - col0) > WIDEST:
            continue
        row, col = max(row0 - REACH, 0), max(col0 - REACH, 0)
        stop = min(row1 + REACH, shape[0]), min(col1 + REACH, shape[1])
        window = Window(row, col, stop[0] - row, stop[1] - col)
        score = opened.read(*window.slices)[0]
        labels, _ = ndimage.label(score >= np.float32(cut.grow), EIGHT)
        body = labels == labels[table["peak_row"][k] - row, table["peak_col"][k] - col]
        found[:, k] = _contrast(*view.read(window), body, score < np.float32(cut.grow))
    return {f"contrast_{name}": line for name, line in zip(view.names, found, strict=True)}


def _contrast(
    values: NDArray[np.float64],
    valid: NDArray[np.bool_],
    body: NDArray[np.bool_],
    background: NDArray[np.bool_],
) -> Any:
    near = ndimage.binary_dilation(body, EIGHT, iterations=GAP)
    far = ndimage.binary_dilation(body, EIGHT, iterations=REACH)
    ring, inside = far & ~near & background & valid, body & valid
    if np.count_nonzero(ring) < FEW or not inside.any():
        return np.nan
    around = values[:, ring]
    deviation = around.std(axis=1)
    difference = values[:, inside].mean(axis=1) - around.mean(axis=1)
    return np.divide(difference, deviation, out=np.full(len(values), np.nan), where=deviation > 0)


def _leading(source: SceneSource) -> NDArray[np.float64]:
    """Return the weights (component, band) of the leading components of a sample of the scene.

    Of each, the largest weight is positive.
    """
    height, width = source.info.height, source.info.width
    parts = []
    for row in np.linspace(0, max(height - 64, 0), 6, dtype=int):
        for col in np.linspace(0, max(width - 64, 0), 6, dtype=int):
            window = Window(int(row), int(col), min(64, height), min(64, width))
            pixels, valid = source.window(window).read()
            parts.append(pixels[:, valid].astype(np.float64))
    sample = np.concatenate(parts, axis=1)
    _, axes = np.linalg.eigh(np.cov(sample) if sample.shape[1] > 1 else np.eye(len(sample)))
    weights = axes[:, ::-1][:, :COMPONENTS].T
    signs = np.sign(weights[np.arange(COMPONENTS), np.argmax(np.abs(weights), axis=1)])
    return np.asarray(weights * signs[:, None], np.float64)


def _plain(band: str) -> str:
    """Return the name of a band as part of a column's name."""
    return re.sub(r"\W+", "_", band).strip("_") or "band"
