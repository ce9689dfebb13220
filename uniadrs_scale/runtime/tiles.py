"""Tiles in groups through a scorer, each with its layers or the reason for none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.core.layers import HEADROOM, SCORE, Layer, units
from uniadrs_scale.errors import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import AsIs, FittedScorer
    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.core.pixels import Normalisation


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """The scorer of a scene, the scaling of its input, and its layers."""

    scorer: FittedScorer
    scaling: Normalisation | AsIs
    layers: tuple[Layer, ...] = (SCORE,)


def score_tiles(
    inputs: Iterator[tuple[Window, NDArray[np.float32]]], scaled: Scaled
) -> Iterator[tuple[Window, NDArray[np.float32] | str]]:
    """Yield scores or errors, in calls of exactly ``scorer.batch`` tiles: others change bits."""
    group: list[tuple[Window, NDArray[np.float32]]] = []
    for item in inputs:
        group.append(item)
        if len(group) == scaled.scorer.batch:
            yield from _score_group(group, scaled)
            group = []
    if group:
        yield from _score_group(group, scaled)


def _score_group(
    group: list[tuple[Window, NDArray[np.float32]]], scaled: Scaled
) -> Iterator[tuple[Window, NDArray[np.float32] | str]]:
    """Yield the layers (layer, y, x) of each tile in their units, or the reason for none."""
    shape = group[0][1].shape
    stack = np.zeros((scaled.scorer.batch, *shape), np.float32)
    for slot, (_, pixels) in zip(stack, group, strict=False):
        slot[...] = pixels
    try:
        scores = scaled.scorer.score_tiles(stack)
    except Exception as error:  # noqa: BLE001 - one bad tile must not cost the scene
        if len(group) > 1:
            # Find the bad tile: each alone, in a call of the same shape.
            for item in group:
                yield from _score_group([item], scaled)
        else:
            yield group[0][0], reason_of(error)
        return
    one = len(scaled.layers) == 1 and scores.ndim == len(shape)
    scores = scores[:, None] if one else scores
    wanted = (len(stack), len(scaled.layers), *shape[1:])
    for number, (tile, _) in enumerate(group):
        if scores.shape != wanted:
            yield tile, f"the scorer returned an array of {scores.shape}, not {wanted}"
        else:
            score = scores[number].astype(np.float32, copy=False) / units(scaled.layers)
            yield tile, _doubt(score, scaled) or score


def _doubt(score: NDArray[np.float32], scaled: Scaled) -> str:
    """Return the reason why a tile's layers, in their units, cannot be summed; usually none."""
    if not np.isfinite(score).all():
        return "the score is not finite"
    for values, layer in zip(np.abs(score).max(axis=(1, 2)), scaled.layers, strict=True):
        if values > HEADROOM:  # beyond it sums are rounded, and the map depends on chunks
            low, high = layer.valid_range
            return f"{layer.name} reaches {values * layer.unit:g}, its range is {low:g} to {high:g}"
    return ""


def reason_of(error: Exception) -> str:
    """Return the first line of an error, without secrets."""
    return redact(f"{type(error).__name__}: {error}".splitlines()[0])[:300]
