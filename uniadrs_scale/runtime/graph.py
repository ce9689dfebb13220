"""The tasks of a run.

Strategy. Four tasks a chunk, and one that they share:

    run             scene, lattice, store and fitted scorer: what every task needs (see `shared`)
    score (i, j)    reads its window from the source itself, scores its tiles, sums them up
    beside (i, j)   keeps of that sum what reaches into the next chunk of its line
    beyond (i, j)   keeps of that sum what reaches into the next line
    commit (i, j)   adds what three neighbours keep for it, divides, writes to the store

Only reports travel to the driver. Strips are tasks of their own so that a chunk's body can go once
it is committed: without them, two rows of whole bodies waited for their lower neighbours (190 of
700 MiB at 8 x 8 chunks). Two of them, since the next chunk of a line comes soon and the next line
does not. Names of tasks: the plan's fingerprint, a part that no other graph has, and the chunk's
index. Dask takes tasks of one name for one task, and keeps its result as long as anybody has a
future of it, as a traceback of an earlier run may.

A task names its chunk and nothing else; a low-level graph, since 7,200 delayed objects took five
times as long to make (docs/scale.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import numpy as np
from dask._task_spec import DataNode, Task, TaskRef
from dask.base import optimize
from dask.sizeof import sizeof
from distributed.scheduler import KilledWorker

from uniadrs_scale.core.contracts import warm_up
from uniadrs_scale.core.lattice import sample_windows
from uniadrs_scale.core.memory import give_freed_memory_back, sample_side
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.errors import ClusterError
from uniadrs_scale.maps.store import DONE
from uniadrs_scale.runtime.tasks import (
    ScoredPart,
    Strips,
    commit_chunk,
    score_chunk,
    score_chunk_apart,
    take_strips,
    window_statistics,
)
from uniadrs_scale.runtime.worker import Shared, process_peak, worker_address
from uniadrs_scale.scenes.sources import ArrayScene, ArrayWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from uniadrs_scale.core.contracts import FittedScorer, SceneSource, WindowReader
    from uniadrs_scale.core.lattice import Lattice, Window
    from uniadrs_scale.core.pixels import Normalisation
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.maps.store import ScoreStore
    from uniadrs_scale.runtime.executor import Executor, Graph, Key
    from uniadrs_scale.runtime.tasks import ChunkReport, Index


KINDS = "score", "beside", "beyond", "commit"
"""Tasks of a chunk."""


@sizeof.register(ScoredPart)  # type: ignore[untyped-decorator]  # dask.sizeof has no types
def _size_of_part(part: ScoredPart) -> int:
    """Bytes: Dask's memory management sees nothing inside a dataclass."""
    return int(part.body.nbytes + sum(piece.nbytes for piece in part.strips.values()))


@sizeof.register(Strips)  # type: ignore[untyped-decorator]  # dask.sizeof has no types
def _size_of_strips(strips: Strips) -> int:
    """Return the bytes of the arrays inside."""
    return sum(piece.nbytes for piece in strips.pieces.values())


def scene_statistics(source: SceneSource, run: Executor) -> BandStatistics:
    """Band statistics of a sample of the scene, or of all of it where the sample has no pixel."""
    height, width = source.info.height, source.info.width
    block = sample_side(len(source.info.bands))
    for across in (8, max(height, width)):
        name = _unique(f"statistics-{source.info.identity}")
        windows = sample_windows(height, width, block=block, across=across)
        parts = run.compute(
            {
                (name, order): Task((name, order), _Statistics(_reader(source, window)))
                for order, window in enumerate(windows)
            },
            [(name, order) for order in range(len(windows))],
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
    scaled: tuple[FittedScorer, Normalisation],
    on_report: Callable[[ChunkReport], None],
) -> list[Exception]:
    """Score and commit every chunk that ``store`` does not have yet; what was lost, and why.

    A chunk that is lost with one worker after the other has a tile that kills them, or bad luck. It
    is tried once more with its tiles in a process of their own, where such a tile is just a tile
    that failed.
    """
    chunks = {(int(i), int(j)) for i, j in np.argwhere(store.done != DONE)}

    def attempt(todo: Collection[Index], *, apart: bool) -> dict[Index, Exception]:
        graph, commits = run_graph(source, plan, store, scaled=scaled, todo=todo, apart=apart)
        results = run.compute(graph, commits, note, line_axis=plan.lattice.line_axis)
        ended = zip(sorted(todo), results, strict=True)
        return {
            index: result if isinstance(result, Exception) else ClusterError(f"It is {result!r}.")
            for index, result in ended
            if not isinstance(result, Receipt)  # whatever else there may be: no receipt, no chunk
        }

    def note(result: object) -> None:
        if isinstance(result, Receipt):
            run.peaks[result.worker] = max(run.peaks.get(result.worker, 0), result.peak)
            on_report(result.report)

    lost = attempt(chunks, apart=False)
    deadly = {index for index, error in lost.items() if isinstance(error, KilledWorker)}
    if deadly:
        lost = {k: e for k, e in lost.items() if k not in deadly} | attempt(deadly, apart=True)
    return list(lost.values())


def run_graph(
    source: SceneSource,
    plan: ScorePlan,
    store: ScoreStore,
    *,
    scaled: tuple[FittedScorer, Normalisation],
    todo: Collection[Index],
    apart: bool = False,
) -> tuple[Graph, list[Key]]:
    """The tasks that commit the chunks of ``todo``, and the names of those that do.

    ``apart`` has tiles read and scored in processes of their own.
    """
    lattice, name = plan.lattice, _unique(plan.fingerprint)
    # One string a kind, which pickle then writes once.
    scored, beside, beyond, committed = (f"{kind}-{name}" for kind in KINDS)
    # An array's pixels travel with the tasks that need them; a scene of files is a few paths.
    files = None if isinstance(source, ArrayScene) else source
    key: Key = (f"run-{name}",)
    shared = Shared(_Run(source=files, lattice=lattice, store=store, scaled=scaled, apart=apart))
    graph: Graph = {key: DataNode(key, shared)}
    axis = lattice.line_axis

    def strips_of(owner: Index, line: int) -> Key:
        return (beside if owner[axis] == line else beyond, *owner)

    for owner in lattice.indices():
        targets = tuple(target for target in _receivers(owner) if target in todo)
        if owner in todo or needed_tiles(lattice, owner, targets):
            score: Key = (scored, *owner)
            reader = None if files else _Unseen(_reader(source, lattice.read_window(owner)))
            # A producer goes to whoever is idle. Without the mark, all tasks of a scene of few
            # chunks a worker follow the shared value to the one worker that has it.
            graph[score] = Task(
                score, _score, TaskRef(key), owner, targets, reader, _data_producer=True
            )
            for line in sorted({target[axis] for target in targets if target != owner}):
                strips = strips_of(owner, line)
                graph[strips] = Task(strips, take_strips, TaskRef(score), axis, line)
    commits: list[Key] = []
    for index in sorted(todo):
        commit: Key = (committed, *index)
        line = index[axis]
        # It needs nothing of its own strips, but its chunk's body goes only when they are taken:
        # if it did not wait for them, Dask's order would keep a line of bodies.
        own = strips_of(index, line), strips_of(index, line + 1)
        parts = (scored, *index), *own, *(strips_of(o, line) for o in _neighbours(index))
        needs = (TaskRef(part) for part in parts if part in graph)
        graph[commit] = Task(commit, _commit, TaskRef(key), index, *needs)
        commits.append(commit)
    return graph, commits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Run:
    """What all tasks of a run share."""

    source: SceneSource | None
    """None for an array, whose windows come with the tasks."""
    lattice: Lattice
    store: ScoreStore
    scaled: tuple[FittedScorer, Normalisation]
    apart: bool
    """Whether tiles are read and scored in processes of their own."""

    def prepare(self) -> None:
        """Warm the scorer up, unless it shall not touch this process."""
        scorer, scaling = self.scaled
        if not self.apart:
            warm_up(scorer, self.lattice.tile, len(scaling.offset))


@dataclass(frozen=True, slots=True)
class Receipt:
    """What travels to the driver of a committed chunk."""

    report: ChunkReport
    worker: str
    peak: int
    """Highest resident set of the worker so far, in bytes. With the chunk, since a worker that dies
    later cannot be asked, and one that hangs does not answer."""


@dataclass(frozen=True, slots=True, eq=False)
class _Unseen:
    """A reader that Dask does not look into.

    It would find the lazy array of an ArrayWindow and compute it as tasks of its own.
    """

    reader: WindowReader


@dataclass(frozen=True, slots=True, eq=False)
class _Statistics:
    """The moments of one window, still to be read."""

    reader: WindowReader

    def __call__(self) -> BandStatistics | None:
        try:
            return window_statistics(self.reader)
        finally:
            give_freed_memory_back()


def _score(
    shared: Shared[_Run], owner: Index, targets: tuple[Index, ...], unseen: _Unseen | None
) -> ScoredPart:
    """The tiles of ``owner`` that reach into ``targets``, scored."""
    run = shared.value
    window = run.lattice.read_window(owner)
    reader = _reader(run.source, window) if run.source else cast("_Unseen", unseen).reader
    tiles = needed_tiles(run.lattice, owner, targets)
    score = score_chunk_apart if run.apart else score_chunk
    try:
        return score(reader, owner, tiles, run.lattice, run.scaled)
    finally:
        give_freed_memory_back()


def _commit(shared: Shared[_Run], index: Index, part: ScoredPart, *neighbours: Strips) -> Receipt:
    run = shared.value
    report = commit_chunk(index, run.lattice, run.store, part, *neighbours)
    return Receipt(report, worker_address(), process_peak())


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


def _unique(name: str) -> str:
    return f"{name}-{uuid4().hex[:8]}"


def _receivers(owner: Index) -> tuple[Index, ...]:
    i, j = owner
    return (i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1)


def _neighbours(receiver: Index) -> tuple[Index, ...]:
    i, j = receiver
    return (i, j - 1), (i - 1, j), (i - 1, j - 1)


def _reader(source: SceneSource, window: Window) -> WindowReader:
    """The reader of ``window``; a user's graph is cut down to what the window needs."""
    reader = source.window(window)
    if isinstance(reader, ArrayWindow):
        return ArrayWindow(optimize(reader.array)[0])
    return reader
