"""The tasks of a run: four per chunk, and one that all share.

    run             scene, lattice, store and fitted scorer: what every task needs (see `worker`)
    score (i, j)    reads its window from the source itself, scores its tiles, sums them up
    beside (i, j)   keeps the part of that sum that reaches into the next chunk of its line
    beyond (i, j)   keeps the part of that sum that reaches into the next line
    commit (i, j)   adds what three neighbours keep for it, divides, writes to the store

Only receipts travel to the driver. Strips are tasks of their own so that a chunk's body is freed
once it is committed: without them, two rows of whole bodies waited for their lower neighbours (190
of 700 MiB at 8 x 8 chunks). They are two, since the next chunk of a line comes soon and the next
line does not.

A task's name is the plan's fingerprint, a part that no other graph has, and the chunk's index. Dask
takes tasks of one name for one task, and keeps its result as long as there is a future of it, for
example in the traceback of an earlier run.

A task's arguments name its chunk and nothing else. The graph is a low-level one: 7,200 delayed
objects took five times as long to make (docs/scale.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from uuid import uuid4

import numpy as np
from dask.base import optimize
from dask.sizeof import sizeof

from uniadrs_scale.core.contracts import warm_up
from uniadrs_scale.core.machine import Later
from uniadrs_scale.core.memory import give_freed_memory_back
from uniadrs_scale.errors import ClusterError, UniadrsScaleError, gist
from uniadrs_scale.maps.groups import require_own_store
from uniadrs_scale.maps.store import DONE
from uniadrs_scale.runtime.dask_internals import data, producer, result_of, task
from uniadrs_scale.runtime.tasks import (
    ScoredPart,
    Strips,
    commit_chunk,
    score_chunk,
    score_chunk_apart,
    take_strips,
)
from uniadrs_scale.runtime.worker import Shared, process_peak, worker_address
from uniadrs_scale.scenes.sources import ArrayScene, ArrayWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from uniadrs_scale.core.contracts import SceneSource, WindowReader
    from uniadrs_scale.core.lattice import Lattice, Window
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.maps.store import ScoreStore
    from uniadrs_scale.runtime.batches import Regional, Scaled
    from uniadrs_scale.runtime.dask_internals import Graph, Key
    from uniadrs_scale.runtime.executor import Executor
    from uniadrs_scale.runtime.tasks import ChunkReport, Index


scheduler = Later("distributed.scheduler")
Inside = TypeVar("Inside")
FEW = 4
"""Chunks per thread from which on no chunk gets several threads: a large chunk owns all tiles of a
scene that is hardly larger, and its neighbours none."""
KINDS = "score", "beside", "beyond", "commit"
"""Tasks of a chunk."""


@sizeof.register(ScoredPart)  # type: ignore[untyped-decorator]  # dask.sizeof has no types
def _size_of_part(part: ScoredPart) -> int:
    """Return the bytes: Dask's memory management does not look into a dataclass."""
    return int(part.body.nbytes + sum(piece.nbytes for piece in part.strips.values()))


@sizeof.register(Strips)  # type: ignore[untyped-decorator]  # dask.sizeof has no types
def _size_of_strips(strips: Strips) -> int:
    """Return the bytes of the arrays inside."""
    return sum(piece.nbytes for piece in strips.pieces.values())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """A scene to score into a store: the value that all tasks of a run share."""

    source: SceneSource | None
    """None on a worker if the scene is an array: its windows travel with the tasks."""
    plan: ScorePlan
    store: ScoreStore
    scaled: Scaled | Regional
    apart: bool = False
    """Whether tiles are read and scored in child processes."""
    threads: int = 1
    """Threads of this process that may score at once; for a task, those of its chunk."""

    @property
    def lattice(self) -> Lattice:
        """Geometry of the run."""
        return self.plan.lattice

    def prepare(self) -> None:
        """Warm the scorer up, unless it must not run in this process."""
        if not self.apart:
            warm_up(self.scaled.scorer, self.lattice.tile, len(self.plan.scene.bands))


@dataclass(frozen=True, slots=True)
class Receipt:
    """The message of a committed chunk to the driver."""

    report: ChunkReport
    worker: str
    peak: int
    """Highest resident set of the worker so far, in bytes. It travels with the chunk, since a
    worker that is lost later, or hangs, cannot be asked."""


def score_scene(
    work: Work, executor: Executor, on_receipt: Callable[[Receipt], None]
) -> list[Exception]:
    """Score and commit every chunk that the store lacks; return the errors of lost chunks.

    A chunk that several workers died of has a tile that kills them, or was there by accident. It is
    tried once more with its tiles in child processes, where such a tile fails alone.
    """
    chunks = {(int(i), int(j)) for i, j in np.argwhere(work.store.done != DONE)}

    def attempt(work: Work, todo: Collection[Index]) -> dict[Index, Exception]:
        graph, commits = run_graph(work, todo)
        results = executor.compute(graph, commits, note, line_axis=work.lattice.line_axis)
        ended = zip(sorted(todo), results, strict=True)
        return {
            index: result if isinstance(result, Exception) else ClusterError(f"It is {result!r}.")
            for index, result in ended
            if not isinstance(result, Receipt)  # no receipt, no chunk
        }

    def note(result: object) -> None:
        if isinstance(result, Receipt):
            on_receipt(result)

    lost = attempt(replace(work, threads=_spare(work, chunks)), chunks)
    deadly = {index for index, error in lost.items() if isinstance(error, scheduler.KilledWorker)}
    if deadly:
        others = {index: error for index, error in lost.items() if index not in deadly}
        lost = others | attempt(replace(work, apart=True), deadly)
    return list(lost.values())


def _spare(work: Work, todo: Collection[Index]) -> int:
    """Return the threads per chunk: more than one if fewer chunks than threads own tiles."""
    if work.threads == 1 or len(todo) > FEW * work.threads:
        return 1  # before all chunks are looked at
    owners = work.lattice.indices()
    busy = sum(bool(needed_tiles(work.lattice, owner, todo)) for owner in owners)
    return max(1, work.threads // max(busy, 1))


def run_graph(work: Work, todo: Collection[Index]) -> tuple[Graph, list[Key]]:
    """Return the tasks that commit the chunks of ``todo``, and the names of the commits."""
    lattice, name = work.lattice, unique(work.plan.fingerprint)
    # One string per kind: pickle writes each once.
    scored, beside, beyond, committed = (f"{kind}-{name}" for kind in KINDS)
    # An array's pixels travel with the tasks that need them; a scene of files is a few paths.
    array = work.source if isinstance(work.source, ArrayScene) else None
    key: Key = (f"run-{name}",)
    shared = Shared(work if array is None else replace(work, source=None))
    graph: Graph = {key: data(key, shared)}
    axis = lattice.line_axis

    def strips_of(owner: Index, line: int) -> Key:
        return (beside if owner[axis] == line else beyond, *owner)

    for owner in lattice.indices():
        targets = tuple(target for target in _receivers(owner) if target in todo)
        if owner in todo or needed_tiles(lattice, owner, targets):
            score: Key = (scored, *owner)
            reader = Unseen(window_reader(array, lattice.read_window(owner))) if array else None
            graph[score] = producer(score, _score, result_of(key), owner, targets, reader)
            for line in sorted({target[axis] for target in targets if target != owner}):
                strips = strips_of(owner, line)
                graph[strips] = task(strips, take_strips, result_of(score), axis, line)
    commits: list[Key] = []
    for index in sorted(todo):
        commit: Key = (committed, *index)
        line = index[axis]
        # A commit does not use its own strips, but its chunk's body is freed only after they are
        # taken: if it did not wait for them, Dask's order would keep a line of bodies.
        own = strips_of(index, line), strips_of(index, line + 1)
        parts = (scored, *index), *own, *(strips_of(o, line) for o in _neighbours(index))
        needs = (result_of(part) for part in parts if part in graph)
        graph[commit] = task(commit, _commit, result_of(key), index, *needs)
        commits.append(commit)
    return graph, commits


@dataclass(frozen=True, slots=True, eq=False)
class Unseen(Generic[Inside]):
    """A reader, or several, hidden from Dask.

    Dask would find the lazy array of an ArrayWindow and compute it as tasks of its own.
    """

    inside: Inside


def _score(
    shared: Shared[Work],
    owner: Index,
    targets: tuple[Index, ...],
    unseen: Unseen[WindowReader] | None,
) -> ScoredPart:
    """Score the tiles of ``owner`` that reach into ``targets``."""
    work = shared.open()
    window = work.lattice.read_window(owner)
    reader = unseen.inside if unseen else cast("SceneSource", work.source).window(window)
    tiles = needed_tiles(work.lattice, owner, targets)
    try:
        if work.apart:
            return score_chunk_apart(reader, owner, tiles, work.lattice, work.scaled)
        return score_chunk(reader, owner, tiles, work.lattice, work.scaled, threads=work.threads)
    finally:
        give_freed_memory_back()


def _commit(shared: Shared[Work], index: Index, part: ScoredPart, *neighbours: Strips) -> Receipt:
    work = shared.open()
    require_own_store(work.store.path, work.plan.fingerprint)
    report = commit_chunk(index, work.lattice, work.store, part, *neighbours)
    return Receipt(report, worker_address(), process_peak())


def compute_each(
    function: Callable[[Shared[Any], Any], object],
    value: object,
    arguments: Iterable[object],
    executor: Executor,
    what: str,
) -> list[Any]:
    """Return ``function(shared, argument)`` for each argument; all tasks share ``value``.

    Raises:
        UniadrsScaleError: A task raised it.
        ClusterError: A task was lost; ``what`` names it.
    """
    name = unique(function.__name__.strip("_"))
    shared: Key = (f"shared-{name}",)
    graph: Graph = {shared: data(shared, Shared(value))}
    keys: list[Key] = []
    for number, argument in enumerate(arguments):
        key: Key = (name, number)
        graph[key] = producer(key, function, result_of(shared), argument)
        keys.append(key)
    results = executor.compute(graph, keys) if keys else []
    for result in results:
        if isinstance(result, UniadrsScaleError):
            raise result
        if isinstance(result, BaseException):
            raise ClusterError(
                f"{what} could not be computed ({gist(result)}). Run the same command again."
            )
    return results


def needed_tiles(lattice: Lattice, owner: Index, todo: Collection[Index]) -> tuple[Window, ...]:
    """Return the tiles of ``owner`` that reach into ``todo``: all, unless a run is resumed."""
    targets = [target for target in _receivers(owner) if target in todo]
    if owner in targets:
        return lattice.owned_tiles(owner)
    windows = [lattice.chunk_window(target) for target in targets]
    return tuple(
        tile
        for tile in (lattice.owned_tiles(owner) if windows else ())
        if any(tile.intersection(window) for window in windows)
    )


def unique(name: str) -> str:
    """Return ``name`` with a part that no other task has."""
    return f"{name}-{uuid4().hex[:8]}"


def _receivers(owner: Index) -> tuple[Index, ...]:
    i, j = owner
    return (i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1)


def _neighbours(receiver: Index) -> tuple[Index, ...]:
    i, j = receiver
    return (i, j - 1), (i - 1, j), (i - 1, j - 1)


def window_reader(source: SceneSource, window: Window) -> WindowReader:
    """Return the reader of ``window``; a user's graph is cut down to its needs."""
    reader = source.window(window)
    if isinstance(reader, ArrayWindow):
        return ArrayWindow(optimize(reader.array)[0])
    return reader
