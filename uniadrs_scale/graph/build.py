"""The tasks of a run.

Strategy. Three tasks a chunk:

    score (i, j)    reads its window from the source itself, scores its tiles, sums them up
    strips (i, j)   keeps of that sum what reaches right, below and diagonal
    commit (i, j)   adds the strips of (i, j-1), (i-1, j), (i-1, j-1), divides, writes to the store

Only reports travel to the driver. The strips are a task of their own so that a chunk's body can go
once it is committed: without it, two rows of whole bodies waited for their lower neighbours (190 of
700 MiB at 8 x 8 chunks). Dask orders the tasks by raster position, so about one row of strips is
alive. Task names are deterministic: the plan's fingerprint and the chunk's index.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from dask.base import optimize
from dask.delayed import delayed
from dask.sizeof import sizeof
from distributed.scheduler import KilledWorker

from uniadrs_scale.io.scenes import ArrayWindow
from uniadrs_scale.io.store import DONE
from uniadrs_scale.plan import sample_windows
from uniadrs_scale.stats import BandStatistics
from uniadrs_scale.tasks import (
    ChunkReport,
    ScoredPart,
    commit_chunk,
    score_chunk,
    score_chunk_apart,
    take_strips,
    window_statistics,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from dask.delayed import Delayed

    from uniadrs_scale.graph.execute import Executor
    from uniadrs_scale.io.scenes import SceneSource, WindowReader
    from uniadrs_scale.io.store import ScoreStore
    from uniadrs_scale.lattice import Lattice, Window
    from uniadrs_scale.plan import ScorePlan, TileScorer
    from uniadrs_scale.stats import Normalisation
    from uniadrs_scale.tasks import Index


MANY_BANDS = 16


@sizeof.register(ScoredPart)  # type: ignore[untyped-decorator]  # dask.sizeof has no types
def _size_of_part(part: ScoredPart) -> int:
    """Bytes: Dask's memory management sees nothing inside a dataclass."""
    return int(part.body.nbytes + sum(strip.nbytes for strip in part.strips.values()))


def scene_statistics(source: SceneSource, run: Executor) -> BandStatistics:
    """Band statistics of a sample of the scene, or of all of it where the sample has no pixel."""
    height, width = source.info.height, source.info.width
    # The covariance of hundreds of bands costs their square: 4.2 million pixels are enough for it.
    block = 512 if len(source.info.bands) <= MANY_BANDS else 256
    for across in (8, max(height, width)):
        name = f"statistics-{source.info.identity}-{across}"
        windows = sample_windows(height, width, block=block, across=across)
        parts = run.compute(
            [
                _task((name, order), partial(window_statistics, _reader(source, window)))
                for order, window in enumerate(windows)
            ]
        )
        # Merged in the order of the windows: the order of completion must not decide a bit. A
        # window that cannot be read is left out here and reported when its tiles are scored.
        total = BandStatistics.combine(
            (part for part in parts if isinstance(part, BandStatistics)), len(source.info.bands)
        )
        if total.count:
            break
    return total


def score_scene(
    source: SceneSource,
    plan: ScorePlan,
    store: ScoreStore,
    run: Executor,
    *,
    scaled: tuple[TileScorer, Normalisation],
    on_report: Callable[[ChunkReport], None],
) -> list[Exception]:
    """Score and commit every chunk that ``store`` does not have yet; what was lost, and why.

    A chunk that is lost with one worker after the other has a tile that kills them, or bad luck. It
    is tried once more with its tiles in a process of their own, where such a tile is just a tile
    that failed.
    """
    todo = {(int(i), int(j)) for i, j in np.argwhere(store.done != DONE)}
    tasks = _score_tasks(source, plan, store, todo, scaled)
    lost = _carry_out(tasks, run, on_report)
    deadly = {index for index, error in lost.items() if isinstance(error, KilledWorker)}
    if deadly:
        tasks = _score_tasks(source, plan, store, deadly, scaled, apart=True)
        lost = {k: e for k, e in lost.items() if k not in deadly} | _carry_out(
            tasks, run, on_report
        )
    return list(lost.values())


def _score_tasks(
    source: SceneSource,
    plan: ScorePlan,
    store: ScoreStore,
    todo: Collection[Index],
    scaled: tuple[TileScorer, Normalisation],
    *,
    apart: bool = False,
) -> dict[Index, Delayed]:
    """The commits of the chunks ``todo``, and behind them all that they need."""
    lattice = plan.lattice
    score, run_name = (score_chunk_apart, "apart") if apart else (score_chunk, "")
    names = tuple(filter(None, (plan.fingerprint, run_name)))
    scores: dict[Index, Delayed] = {}
    for owner in lattice.indices():
        tiles = needed_tiles(lattice, owner, todo)
        if tiles or owner in todo:
            reader = _reader(source, lattice.read_window(owner))
            call = partial(score, reader, owner, tiles, lattice, scaled)
            scores[owner] = _task(("score", *names, *owner), call)
    strips = {
        owner: _task(("strips", *names, *owner), take_strips, part)
        for owner, part in scores.items()
    }
    return {
        index: _task(
            ("commit", *names, *index),
            partial(commit_chunk, index, lattice, store),
            scores[index],
            *(strips[owner] for owner in _neighbours(index) if owner in strips),
        )
        for index in sorted(todo)
    }


def _carry_out(
    commits: dict[Index, Delayed], run: Executor, on_report: Callable[[ChunkReport], None]
) -> dict[Index, Exception]:
    """Have ``commits`` done and reported; the exceptions of those that are lost."""

    def on_result(result: object) -> None:
        if isinstance(result, ChunkReport):
            on_report(result)

    results = run.compute(list(commits.values()), on_result)
    return {
        index: result
        for index, result in zip(commits, results, strict=False)
        if isinstance(result, Exception)
    }


def needed_tiles(lattice: Lattice, owner: Index, todo: Collection[Index]) -> tuple[Window, ...]:
    """The tiles of ``owner`` that reach into a chunk of ``todo``: all, unless a run is resumed."""
    targets = [target for target in _receivers(owner) if target in todo]
    if owner in targets:
        return lattice.owned_tiles(owner)
    windows = [lattice.chunk_window(target) for target in targets]
    return tuple(
        tile
        for tile in (lattice.owned_tiles(owner) if windows else ())
        if any(tile.intersection(window) for window in windows)
    )


def _receivers(owner: Index) -> tuple[Index, ...]:
    i, j = owner
    return (i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1)


def _neighbours(receiver: Index) -> tuple[Index, ...]:
    i, j = receiver
    return (i, j - 1), (i - 1, j), (i - 1, j - 1)


def _task(key: tuple[str | int, ...], call: Callable[..., Any], *needed: Delayed) -> Delayed:
    # What is inside `call`, a partial, Dask does not see. As arguments of the task it would walk
    # through them, find the lazy array of an ArrayWindow and compute it as tasks of its own.
    delayed_call = delayed(call, traverse=False)
    return cast("Delayed", delayed_call(*needed, dask_key_name="-".join(map(str, key))))


def _reader(source: SceneSource, window: Window) -> WindowReader:
    """The reader of ``window``; a user's graph is cut down to what the window needs."""
    reader = source.window(window)
    if isinstance(reader, ArrayWindow):
        return ArrayWindow(optimize(reader.array)[0])
    return reader
