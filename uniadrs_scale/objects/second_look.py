"""The second look: which targets are found again by tiles at other places.

The network normalises whole tiles, so that a score depends on the place of its tile. Here the
surroundings of each peak are scored again, by the tiles of a lattice that is shifted by half a
stride. Only tiles that reach a peak are read.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from uniadrs_scale.core.contracts import warm_up
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.core.layers import units
from uniadrs_scale.core.memory import give_freed_memory_back
from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.core.regions import Grid
from uniadrs_scale.core.seams import SCORE_STEPS, taper
from uniadrs_scale.errors import PlanError, SceneError, counted, gist
from uniadrs_scale.maps.groups import read_cells, read_statistics
from uniadrs_scale.maps.store import ScoreMap
from uniadrs_scale.objects.table import SUPPORT
from uniadrs_scale.runtime.batches import Input, network_input, score_tiles
from uniadrs_scale.runtime.graph import Unseen, compute_each, window_reader
from uniadrs_scale.runtime.statistics import regional, scene_statistics
from uniadrs_scale.scenes.sources import ArrayScene
from uniadrs_scale.scoring.job import compute_for, prepare, scorer_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import SceneSource, Scorer, WindowReader
    from uniadrs_scale.core.lattice import Lattice
    from uniadrs_scale.core.pixels import BandStatistics
    from uniadrs_scale.core.regions import Cells
    from uniadrs_scale.maps.finished import RasterMap
    from uniadrs_scale.objects.components import Columns
    from uniadrs_scale.objects.scored import ScoredScene
    from uniadrs_scale.runtime.batches import Regional, Scaled
    from uniadrs_scale.runtime.compute import Compute
    from uniadrs_scale.runtime.executor import Executor
    from uniadrs_scale.runtime.worker import Shared
    from uniadrs_scale.scoring.job import Job

NEAR = 3
"""Rows and columns around a peak in which a target may be found again."""
CONFIRMED, ALONE, UNKNOWN = SUPPORT
"""Other tiles find the target again; they do not; no other tile reaches it."""


@dataclass(frozen=True, slots=True, eq=False)
class Visit:
    """A tile to score, and the windows around peaks that it reaches."""

    tile: Window
    windows: tuple[Window, ...]
    reader: WindowReader | None
    """The pixels of a scene in memory, which travel with the task."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Again:
    """A scene and its fitted scorer: the value that all tasks share."""

    source: SceneSource | None
    lattice: Lattice
    scaled: Scaled | Regional
    bands: int

    def prepare(self) -> None:
        """Warm the scorer up in a worker."""
        warm_up(self.scaled.scorer, self.lattice.tile, self.bands)

    def scores(self, visits: Sequence[Visit]) -> Iterator[list[NDArray[np.float32]]]:
        """Yield the scores of each tile in its windows: NaN if invalid, or if the tile failed."""
        valid: dict[Window, NDArray[np.bool_]] = {}
        unit, layers = units(self.scaled.layers)[0], self.scaled.layers

        def inputs() -> Iterator[Input]:
            for visit in visits:
                inside, tile = self.lattice.inside(visit.tile), visit.tile
                reader = visit.reader or cast("SceneSource", self.source).window(inside)
                try:
                    pixels, valid[tile] = reader.read()
                except Exception as error:
                    raise SceneError(
                        f"Rows {inside.row} to {inside.stop[0]}, columns {inside.col} to "
                        f"{inside.stop[1]} of the scene cannot be read ({gist(error)}). Run the "
                        "same command again when they can be read."
                    ) from error
                fitted, overhang = self.scaled.of(inside), self.lattice.overhang(tile)
                values = network_input(fitted.scaling.apply(pixels), valid[tile], overhang)
                yield Input(tile, values, fitted.scorer)

        for visit, (tile, found) in zip(visits, score_tiles(inputs(), layers), strict=True):
            rows, cols = self.lattice.inside(tile).within(tile)
            whole = np.full(valid[tile].shape, np.nan, np.float32)
            if not isinstance(found, str):
                whole = np.where(valid[tile], (found[0] * unit)[rows, cols], np.float32(np.nan))
            yield [whole[window.within(tile)] for window in visit.windows]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """The run that made a map, ready to score parts of it again."""

    job: Job
    opened: ScoreMap | RasterMap

    def support(
        self, table: Columns, threshold: float, executor: Executor
    ) -> dict[str, NDArray[np.int8]]:
        """Return the column ``support``: CONFIRMED if a score near the peak reaches ``threshold``.

        Raise SceneError if the scene cannot be read.
        """
        lattice, info = self.job.plan.lattice, self.job.source.info
        if not len(table["edge"]):
            return {"support": np.zeros(0, np.int8)}
        peaks = list(zip(table["peak_row"].tolist(), table["peak_col"].tolist(), strict=True))
        around = [_around(peak, (info.height, info.width)) for peak in peaks]
        reaching: defaultdict[Window, list[int]] = defaultdict(list)
        for number, peak in enumerate(peaks):
            for tile in lattice.shifted(peak):
                reaching[tile].append(number)
        tiles = sorted(reaching)
        seen = self.job.seen
        executor.require_fit(seen, tile=lattice.tile, bands=len(info.bands))
        scaled = regional(seen, *_statistics(self.opened, self.job.source, executor))
        array = self.job.source if isinstance(self.job.source, ArrayScene) else None
        value = Again(
            source=None if array else self.job.source,
            lattice=lattice,
            scaled=scaled,
            bands=len(info.bands),
        )
        visits = [
            _visit(tile, [around[k] for k in reaching[tile]], array, lattice) for tile in tiles
        ]
        size = scaled.scorer.batch
        groups = [Unseen(visits[k : k + size]) for k in range(0, len(visits), size)]
        what = f"The second look at '{self.opened.name}'"
        parts_of = compute_each(_scores, value, groups, executor, what)
        sums = [_Sums(window, lattice) for window in around]
        for visit, tile, parts in zip(visits, tiles, chain.from_iterable(parts_of), strict=True):
            for number, window, part in zip(reaching[tile], visit.windows, parts, strict=True):
                sums[number].add(tile, window, part)
        return {"support": np.array([part.support(threshold) for part in sums], np.int8)}


class _Sums:
    """The blended scores of one window."""

    def __init__(self, window: Window, lattice: Lattice) -> None:
        self.window = window
        self.weights = taper(lattice.tile, lattice.overlap, lattice.halo)
        self.scores, self.total = np.zeros((2, window.height, window.width))

    def add(self, tile: Window, window: Window, part: NDArray[np.float32]) -> None:
        """Add the scores that ``tile`` gives to the part ``window``."""
        rows, cols = window.within(tile)
        weights = np.outer(self.weights[rows], self.weights[cols])
        at = window.within(self.window)
        # Rounded as the map is: sums are exact in any order.
        self.scores[at] += weights * (np.rint(part.astype(np.float64) * SCORE_STEPS) / SCORE_STEPS)
        self.total[at] += weights

    def support(self, threshold: float) -> int:
        """Return what the window says about its target."""
        means = (self.scores / np.where(self.total, self.total, np.nan)).astype(np.float32)
        if np.isnan(means).all():
            return UNKNOWN
        return CONFIRMED if np.nanmax(means) >= np.float32(threshold) else ALONE


@dataclass(frozen=True, slots=True)
class SecondLook:
    """The scorer that looks again."""

    scorer: Scorer

    @classmethod
    def of(cls, detector: Scorer | str | Path | None = None) -> SecondLook:
        """Return the second look by a scorer, as :func:`uniadrs_scale.score` takes it."""
        return cls(scorer_of(detector))

    @property
    def thread_safe(self) -> bool:
        """True if several threads may score at once."""
        return bool(getattr(self.scorer, "thread_safe", False))

    def compute(self, scheduler: str | None = None, workers: int | None = None) -> Compute:
        """Return the processes that suit the scorer."""
        return compute_for(self.scorer, scheduler, workers)

    def prepared(
        self, scored: ScoredScene | None, opened: ScoreMap | RasterMap, compute: Compute
    ) -> Prepared:
        """Return the second look at a map, if scene and scorer are those that made it.

        Raise PlanError if they are not, or the memory does not suffice.
        """
        if scored is None:
            raise PlanError(
                "A second look scores parts of the scene again. Give the scene as well."
            )
        facts = opened.facts
        if facts.detector and self.scorer.identity != facts.detector:
            raise PlanError(
                f"'{opened.name}' was made by '{facts.detector}', the second look would be by "
                f"'{self.scorer.identity}'. Give the weights of the map."
            )
        lattice = facts.plan.get("lattice", {})
        sizes: dict[str, Any] = {name: lattice.get(name) for name in ("tile", "stride", "chunk")}
        if getattr(self.scorer, "tiling", None) is not None:
            sizes = {"chunk": sizes["chunk"]}
        elif facts.preset:
            sizes["preset"] = facts.preset
        job = prepare(scored.array, Sizes(**sizes), self.scorer, compute)
        if job.plan.fingerprint != facts.fingerprint:
            raise PlanError(
                f"This scene, opened like this, by this version, is not the run that made "
                f"'{opened.name}'. Give the scene as it was scored, at the same path."
            )
        tile = job.plan.lattice.tile  # a task reads tiles, not chunks
        small = replace(job.plan, lattice=replace(job.plan.lattice, chunk=tile))
        replace(job, plan=small).on(compute).plan.require_memory(*compute.memory_limit)
        return Prepared(job=job, opened=opened)


def _around(peak: tuple[int, int], shape: tuple[int, int]) -> Window:
    """Return the pixels at most NEAR rows and columns from a peak."""
    row, col = (max(at - NEAR, 0) for at in peak)
    stop = [min(at + NEAR + 1, size) for at, size in zip(peak, shape, strict=True)]
    return Window(row, col, stop[0] - row, stop[1] - col)


def _visit(
    tile: Window, windows: Sequence[Window], array: ArrayScene | None, lattice: Lattice
) -> Visit:
    inside = lattice.inside(tile)
    parts = (window.intersection(inside) for window in windows)
    reader = None if array is None else window_reader(array, inside)
    return Visit(tile, tuple(part for part in parts if part is not None), reader)


def _scores(shared: Shared[Again], group: Unseen[list[Visit]]) -> list[list[NDArray[np.float32]]]:
    try:
        return list(shared.open().scores(group.inside))
    finally:
        give_freed_memory_back()


def _statistics(
    opened: ScoreMap | RasterMap, source: SceneSource, executor: Executor
) -> tuple[BandStatistics, Cells]:
    """Return the statistics that the map was made with: a store keeps them."""
    info = source.info
    if isinstance(opened, ScoreMap) and (kept := read_statistics(opened.group)) is not None:
        return kept, read_cells(opened.group, Grid.of(info.height, info.width, len(info.bands)))
    statistics, cells = scene_statistics(source, executor)
    if statistics.unread or not statistics.count:
        raise SceneError(
            f"{counted(len(statistics.unread), 'part')} of '{info.name}' cannot be read for its "
            "statistics. Run the same command again when they can be read."
        )
    return statistics, cells
