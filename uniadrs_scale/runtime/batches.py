"""Batches of tiles for a scorer: scaled by the statistics of their region, equal in size."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.core.contracts import score_jointly
from uniadrs_scale.core.layers import HEADROOM, SCORE, Layer, units
from uniadrs_scale.core.pixels import fill_invalid
from uniadrs_scale.errors import gist
from uniadrs_scale.runtime.worker import IsolatedScorer, Isolation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import AsIs, FittedScorer
    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.core.pixels import Normalisation
    from uniadrs_scale.core.regions import Grid

    Scored = tuple[Window, NDArray[np.float32] | str]


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """A fitted scorer, and the scaling of its input."""

    scorer: FittedScorer
    scaling: Normalisation | AsIs
    layers: tuple[Layer, ...] = (SCORE,)

    def of(self, window: Window) -> Scaled:
        """Return itself: all tiles are scaled alike."""
        del window
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Regional:
    """The fitted scorers of the regions of a scene."""

    grid: Grid
    regions: tuple[Scaled, ...]
    index: NDArray[np.intp]
    """(row, col) position in ``regions`` for the tiles centred in each cell."""

    @property
    def scorer(self) -> FittedScorer:
        """The scorer of one region."""
        return self.regions[0].scorer

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Layers of the map."""
        return self.regions[0].layers

    def of(self, window: Window) -> Scaled:
        """Return the scorer and the scaling of a tile whose part in the scene is ``window``."""
        return self.regions[int(self.index[self.grid.cell_of(window)])]


@dataclass(frozen=True, slots=True, eq=False)
class Apart:
    """The same, with scorers in a child process."""

    isolation: Isolation
    scaled: Scaled | Regional

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Layers of the map."""
        return self.scaled.layers

    def of(self, window: Window) -> Scaled:
        """Return the scorer and the scaling of a tile."""
        inside = self.scaled.of(window)
        return replace(inside, scorer=IsolatedScorer(self.isolation, inside.scorer))


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """A tile as its scorer sees it."""

    tile: Window
    pixels: NDArray[np.float32]
    """(band, tile, tile)."""
    scorer: FittedScorer


def network_input(
    scaled: NDArray[np.float32],
    valid: NDArray[np.bool_],
    overhang: tuple[tuple[int, int], tuple[int, int]],
) -> NDArray[np.float32]:
    """Return (band, tile, tile): invalid pixels filled, the part beyond the scene reflected."""
    filled = fill_invalid(scaled, valid)
    beyond = any(size for sides in overhang for size in sides)
    return np.pad(filled, [(0, 0), *overhang], mode="reflect") if beyond else filled


def score_tiles(
    inputs: Iterable[Input], layers: tuple[Layer, ...] = (SCORE,), threads: int = 1
) -> Iterator[Scored]:
    """Yield scores or errors, in calls of exactly ``scorer.batch`` tiles: others change bits.

    With several threads so many calls are made at once; the order of the results stays.
    """
    if threads == 1:
        for group in _groups(inputs):
            yield from _score_group(group, layers)
        return
    running: deque[Future[list[Scored]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for group in _groups(inputs):
            running.append(pool.submit(lambda tiles: list(_score_group(tiles, layers)), group))
            if len(running) == threads:  # not more: the forecast of memory has one per thread
                yield from running.popleft().result()
        for future in running:
            yield from future.result()


def _groups(inputs: Iterable[Input]) -> Iterator[list[Input]]:
    """Yield the tiles of one call after the other."""
    group: list[Input] = []
    for item in inputs:
        group.append(item)
        if len(group) == item.scorer.batch:
            yield group
            group = []
    if group:
        yield group


def _score_group(group: list[Input], layers: tuple[Layer, ...]) -> Iterator[Scored]:
    """Yield the layers (layer, y, x) of each tile in their units, or the reason for none."""
    batch, shape = group[0].scorer.batch, group[0].pixels.shape
    # The last tile fills the call up: a model may refuse zeros.
    filled = group + group[-1:] * (batch - len(group))
    stack = np.ascontiguousarray(group[0].pixels)[None]
    if batch > 1:
        stack = np.stack([item.pixels for item in filled])
    scorers = [item.scorer for item in filled]
    try:
        scores = score_jointly(scorers, stack)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - sys.exit, a panic of Rust: one tile, no more
        if len(group) > 1:
            # Find the bad tile: each alone, in a call of the same shape.
            for item in group:
                yield from _score_group([item], layers)
        else:
            yield group[0].tile, reason(error)
        return
    if len(layers) == 1 and scores.ndim == len(shape):
        scores = scores[:, None]
    wanted = batch, len(layers), *shape[1:]
    for number, item in enumerate(group):
        if scores.shape != wanted:
            yield item.tile, f"the scorer returned an array of {scores.shape}, not {wanted}"
        else:
            score = scores[number].astype(np.float32, copy=False) / units(layers)
            yield item.tile, _doubt(score, layers) or score


def _doubt(score: NDArray[np.float32], layers: tuple[Layer, ...]) -> str:
    """Return the reason why a tile's layers, in their units, cannot be summed; usually none."""
    if not np.isfinite(score).all():
        return "the score is not finite"
    for values, layer in zip(np.abs(score).max(axis=(1, 2)), layers, strict=True):
        if values > HEADROOM:  # beyond it sums are rounded, and the map depends on chunks
            low, high = layer.valid_range
            return f"{layer.name} reaches {values * layer.unit:g}, its range is {low:g} to {high:g}"
    return ""


def reason(error: BaseException) -> str:
    """Return the class and the first line of an error, without secrets."""
    name, text = type(error).__name__, gist(error)
    return name if text == name else f"{name}: {text}"
