"""The statistics of a scene: every cell is read once, and those with extreme values twice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.core.contracts import layers_of, scaling_of
from uniadrs_scale.core.machine import ONE_BLAS_THREAD
from uniadrs_scale.core.memory import FEW_BANDS, give_freed_memory_back, sample_side
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.core.regions import Cells, Grid, Sample, fences
from uniadrs_scale.errors import SceneError, counted
from uniadrs_scale.runtime.batches import Regional, Scaled
from uniadrs_scale.runtime.dask_internals import task
from uniadrs_scale.runtime.graph import unique, window_reader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uniadrs_scale.core.contracts import SceneSource, Scorer, WindowReader
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.core.regions import Fences, Index
    from uniadrs_scale.runtime.dask_internals import Key
    from uniadrs_scale.runtime.executor import Executor

LARGE = 2**20
"""Pixels of a scene from which on correlations of many bands are taken of every n-th pixel."""


@dataclass(frozen=True, slots=True, eq=False)
class CellStatistics:
    """Moments of a cell, and a sample of its values; None without a valid pixel."""

    moments: BandStatistics
    sample: Sample | None


@dataclass(frozen=True, slots=True, eq=False)
class _Cell:
    """The statistics of one cell, still to be read window by window."""

    readers: tuple[WindowReader, ...]
    fences: Fences | None
    thinned: bool

    def __call__(self) -> CellStatistics | None:
        try:
            with ONE_BLAS_THREAD:
                return cell_statistics(self.readers, self.fences, thinned=self.thinned)
        except Exception:  # noqa: BLE001 - score_chunk meets the same error, and reports it
            return None
        finally:
            give_freed_memory_back()


def cell_statistics(
    readers: tuple[WindowReader, ...], fences: Fences | None = None, *, thinned: bool = False
) -> CellStatistics:
    """Return the statistics of a cell; values beyond ``fences`` are moved there."""
    moments: list[BandStatistics] = []
    samples: list[tuple[Sample, float]] = []
    for reader in readers:
        pixels, valid, lost = reader.counted()
        sample = Sample.of(pixels, valid)
        moments.append(BandStatistics.of(pixels, valid, lost, fences, thinned=thinned))
        if sample is not None:
            samples.append((sample, moments[-1].count))
        bands = len(pixels)
        del pixels, valid  # before the next window is read
    return CellStatistics(
        BandStatistics.combine(moments, bands), Sample.union(samples) if samples else None
    )


def scene_statistics(source: SceneSource, executor: Executor) -> tuple[BandStatistics, Cells]:
    """Return the statistics of all valid pixels of a scene, and those of its cells."""
    info = source.info
    grid = Grid.of(info.height, info.width, len(info.bands))
    found = _read(source, executor, grid, dict.fromkeys(np.ndindex(grid.shape)))
    samples = {
        index: (cell.sample, float(cell.moments.count))
        for index, cell in found.items()
        if cell is not None and cell.sample is not None
    }
    if samples:
        whole = Sample.union(list(samples.values()))
        limits = {
            index: fences([samples[k] for k in grid.neighbours(index) if k in samples], whole)
            for index in samples
        }
        again = {i: limits[i] for i, (sample, _) in samples.items() if sample.beyond(limits[i])}
        found |= _read(source, executor, grid, again)
    moments = {index: cell.moments for index, cell in found.items() if cell is not None}
    # Merged in the order of the cells: the order of completion must not decide a bit.
    total = BandStatistics.combine((moments[i] for i in sorted(moments)), len(info.bands))
    unread = (k for k, index in enumerate(np.ndindex(grid.shape)) if index not in moments)
    return replace(total, unread=tuple(unread)), Cells.of(grid, moments, len(info.bands))


def _read(
    source: SceneSource, executor: Executor, grid: Grid, cells: Mapping[Index, Fences | None]
) -> dict[Index, CellStatistics | None]:
    """Return the statistics of cells, None for one that cannot be read."""
    name, side = unique(f"statistics-{source.info.identity}"), sample_side(len(source.info.bands))
    thinned = len(source.info.bands) > FEW_BANDS and grid.height * grid.width >= LARGE

    def readers(index: Index) -> tuple[WindowReader, ...]:
        return tuple(window_reader(source, window) for window in grid.windows(index, side))

    keys: list[Key] = [(name, *index) for index in cells]
    graph = {
        key: task(key, _Cell(readers(index), limits, thinned))
        for key, (index, limits) in zip(keys, cells.items(), strict=True)
    }
    results = executor.compute(graph, keys) if keys else []
    return {
        index: cell if isinstance(cell, CellStatistics) else None
        for index, cell in zip(cells, results, strict=True)
    }


def require_scalable(statistics: BandStatistics, plan: ScorePlan) -> None:
    """Raise SceneError if values are beyond the range of the arithmetic."""
    beyond = statistics.beyond_float32()
    if not beyond.size:
        return
    raise SceneError(
        f"Band '{plan.scene.bands[beyond[0]]}' of '{plan.scene.name}' has values that are too "
        "large or too small for single precision, or whose squares are too large for double "
        "precision. If they mean no data, pass nodata=; otherwise rescale the band."
    )


def regional(scorer: Scorer, whole: BandStatistics, cells: Cells) -> Scaled | Regional:
    """Return ``scorer`` fitted to each region of the scene."""
    regions: dict[tuple[int, ...], int] = {}
    fitted: list[Scaled] = []
    index = np.zeros(cells.grid.shape, np.intp)
    for cell in np.ndindex(cells.grid.shape):
        key = cells.grid.around(cell)
        ends = key[0].start, key[0].stop, key[1].start, key[1].stop
        if ends not in regions:
            statistics = cells.region(*key, whole)
            regions[ends] = len(fitted)
            scaling = scaling_of(scorer, statistics)
            fitted.append(Scaled(scorer.fitted(statistics), scaling, layers_of(scorer)))
        index[cell] = regions[ends]
    return fitted[0] if len(fitted) == 1 else Regional(cells.grid, tuple(fitted), index)


def partly_read(statistics: BandStatistics) -> SceneError:
    """Return the sentence about statistics of a scene that could not be read whole."""
    return SceneError(
        f"{counted(len(statistics.unread), 'part')} of the scene could not be read for its "
        "statistics, so scores are relative to the rest. Run the same command again when they can "
        "be read."
    )
