"""Tiles on their way through a scorer: scaled by their region, in calls of equal size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.core.contracts import score_jointly
from uniadrs_scale.core.pixels import fill_invalid
from uniadrs_scale.errors import gist
from uniadrs_scale.runtime.worker import IsolatedScorer, Isolation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import FittedScorer
    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.core.pixels import Normalisation
    from uniadrs_scale.core.regions import Grid

    Scored = tuple[Window, NDArray[np.float32] | str]


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """A fitted scorer, and the scaling of its input."""

    scorer: FittedScorer
    scaling: Normalisation

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

    def of(self, window: Window) -> Scaled:
        """Return the scorer and the scaling of a tile whose part in the scene is ``window``."""
        return self.regions[int(self.index[self.grid.cell_of(window)])]


@dataclass(frozen=True, slots=True, eq=False)
class Apart:
    """The same, with scorers in a child process."""

    isolation: Isolation
    scaled: Scaled | Regional

    def of(self, window: Window) -> Scaled:
        """Return the scorer and the scaling of a tile."""
        inside = self.scaled.of(window)
        return Scaled(IsolatedScorer(self.isolation, inside.scorer), inside.scaling)


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
    return np.pad(fill_invalid(scaled, valid), [(0, 0), *overhang], mode="reflect")


def score_tiles(inputs: Iterable[Input]) -> Iterator[Scored]:
    """Yield scores or errors, in calls of exactly ``scorer.batch`` tiles: others change bits."""
    group: list[Input] = []
    for item in inputs:
        group.append(item)
        if len(group) == item.scorer.batch:
            yield from _score_group(group)
            group = []
    if group:
        yield from _score_group(group)


def _score_group(group: list[Input]) -> Iterator[Scored]:
    batch = group[0].scorer.batch
    stack = np.zeros((batch, *group[0].pixels.shape), np.float32)
    for slot, item in zip(stack, group, strict=False):
        slot[...] = item.pixels
    scorers = [item.scorer for item in group]
    scorers += scorers[-1:] * (batch - len(group))
    try:
        scores = score_jointly(scorers, stack)
    except Exception as error:  # noqa: BLE001 - one bad tile must not cost the scene
        if len(group) > 1:
            # Find the bad tile: each alone, in a call of the same shape.
            for item in group:
                yield from _score_group([item])
        else:
            yield group[0].tile, reason(error)
        return
    for item, score in zip(group, scores, strict=False):
        if np.isfinite(score).all():
            yield item.tile, score
        else:
            yield item.tile, "the score is not finite"


def reason(error: Exception) -> str:
    """Return the first line of an error, without secrets."""
    return gist(f"{type(error).__name__}: {error}")
