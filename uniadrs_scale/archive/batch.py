"""Scores the scenes of a sweep on one cluster, several at a time.

Scenes are let in as long as the cluster has fewer chunks waiting than it could take at once: so
the next scene is opened, planned and sampled while the last chunks of this one are scored, and one
more is written out; a large scene fills the cluster by itself. Rejected: two scenes at a time,
whatever their size, which leaves half a cluster idle where a scene is one chunk.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from uniadrs_scale.archive.product import Order, make_product, plan_order
from uniadrs_scale.detector.detector import gpus_in_use
from uniadrs_scale.errors import ClusterError, StoreError, redact
from uniadrs_scale.runtime.cluster import active_client
from uniadrs_scale.runtime.compute import Resources, executor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from uniadrs_scale.archive.config import ArchiveConfig
    from uniadrs_scale.archive.decide import Decision
    from uniadrs_scale.archive.ledger import Ledger
    from uniadrs_scale.archive.sink import Sink
    from uniadrs_scale.core.contracts import Scorer
    from uniadrs_scale.runtime.executor import Executor
    from uniadrs_scale.runtime.tasks import ChunkReport
    from uniadrs_scale.scoring.report import RunSummary


LOG = logging.getLogger("uniadrs_scale.sweep")
AHEAD = 2
"""Chunks that wait for each thread of the cluster before no more scenes are let in."""
MOST_SCENES = 32
BEAT = 0.02
"""Seconds between looks at whether another scene can be let in, or to stop."""
NO_ROOM = ("No space left on device", "Disk quota exceeded", "Read-only file system")
"""Faults of the folder, not of the scene that met them."""


class StoppedError(Exception):
    """The sweep was asked to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one scene."""

    decision: Decision
    summary: RunSummary | None = None
    """None where there is no product."""
    error: str = ""
    stopped: bool = False
    """True where it was neither finished nor has it failed."""
    cluster_lost: bool = False
    """True where all workers died: it may be the scene's fault, or its neighbour's."""
    no_room: bool = False
    """True where the folder takes no more."""

    @property
    def fatal(self) -> bool:
        """True where no other scene should be begun."""
        return self.cluster_lost or self.no_room


class Crew:
    """Works through decisions; what becomes of each, ``on_outcome`` is told in this thread."""

    def __init__(
        self,
        config: ArchiveConfig,
        detector: Scorer,
        sink: Sink,
        ledger: Ledger,
        stop: threading.Event,
    ) -> None:
        self.config, self.detector, self.sink, self.ledger = config, detector, sink, ledger
        self.stop = stop
        self._waiting = _Waiting()
        self._executor: Executor | None = None

    def work(
        self,
        todo: Iterable[Decision],
        on_outcome: Callable[[Outcome], None],
        on_beat: Callable[[], None],
    ) -> None:
        """Make the product of each decision, or learn why not; returns early if stopped.

        Raises:
            ClusterError: A cluster that was not started here has lost its workers, or several
                scenes, each alone, have lost those of one that was.
            StoreError: The folder takes no more.
        """
        queue = deque(todo)
        while queue and not self.stop.is_set():
            with self._cluster() as (width, slots):
                outcomes = self._shift(queue, width, slots, (on_outcome, on_beat))
            lost = [outcome for outcome in outcomes if outcome.cluster_lost]
            if lost and self._is_guest:
                raise ClusterError(lost[0].error)
            self._alone([outcome.decision for outcome in lost], (on_outcome, on_beat))

    def _alone(
        self,
        suspects: list[Decision],
        tell: tuple[Callable[[Outcome], None], Callable[[], None]],
    ) -> None:
        """All workers died while these scenes were in their hands: each by itself now.

        Whoever loses them again is the one; its neighbours must not be parked with it.
        """
        guilty: list[Outcome] = []
        for suspect in suspects:
            if self.stop.is_set():
                return
            LOG.warning("%s runs alone: the workers died while it was scored", suspect.name)
            with self._cluster() as (_, slots):
                outcomes = self._shift(deque([suspect]), 1, slots, tell)
            guilty += [outcome for outcome in outcomes if outcome.cluster_lost]
        for outcome in guilty:
            tell[0](replace(outcome, error=f"all workers died: {outcome.error}"))
        if len(guilty) > 1 and len(guilty) == len(suspects):
            raise ClusterError(guilty[0].error)  # the cluster's fault, rather than theirs

    @property
    def _is_guest(self) -> bool:
        """True where the cluster is not this sweep's own."""
        return self.config.scheduler is not None or active_client() is not None

    @contextmanager
    def _cluster(self) -> Iterator[tuple[int, int]]:
        """(scenes at a time, chunks at a time) of a cluster that all scenes use."""
        config = self.config
        resources = Resources.of(config.scheduler, config.workers, gpus_in_use(self.detector))
        with executor(config.scheduler, resources) as self._executor:
            if self._executor.client is None:
                # Dask's callbacks are global to a process, and so is its pool of threads.
                yield 1, 1
            else:
                workers, threads = self._executor.size()
                slots = workers * threads
                yield min(AHEAD * slots + 2, MOST_SCENES), slots

    def _shift(
        self,
        queue: deque[Decision],
        width: int,
        slots: int,
        tell: tuple[Callable[[Outcome], None], Callable[[], None]],
    ) -> list[Outcome]:
        """Work until the queue is empty, the cluster dies, or somebody says stop.

        Of scenes whose workers have died, nobody is told yet.
        """
        on_outcome, on_beat = tell
        outcomes: list[Outcome] = []
        running: set[Future[Outcome]] = set()
        healthy = True
        with ThreadPoolExecutor(width, "scene") as pool:
            while running or (queue and healthy and not self.stop.is_set()):
                while (
                    queue
                    and healthy
                    and not self.stop.is_set()
                    and len(running) < width
                    and (not running or self._waiting.total() < AHEAD * slots)
                ):
                    running.add(pool.submit(self._one, queue.popleft()))
                done, running = wait(running, BEAT, FIRST_COMPLETED)
                for future in done:
                    outcome = future.result()
                    outcomes.append(outcome)
                    healthy = healthy and not outcome.fatal
                    if not outcome.cluster_lost:
                        on_outcome(outcome)
                on_beat()
        full = next((outcome.error for outcome in outcomes if outcome.no_room), None)
        if full is not None:
            raise StoreError(
                f"'{self.sink.place}' takes no more ({full}). Make room, then run the same "
                "command: it resumes. No try was counted."
            )
        return outcomes

    def _one(self, decision: Decision) -> Outcome:
        """Make one product. Whatever goes wrong is an outcome: no scene stops the next."""
        name, key = decision.name, decision.fingerprint.key
        self.ledger.begin(name, key)
        try:
            summary = self._make(decision)
        except StoppedError:
            self.ledger.release(name)
            return Outcome(decision=decision, stopped=True)
        except ClusterError as error:
            self.ledger.release(name)
            return Outcome(decision=decision, error=str(error), cluster_lost=True)
        except Exception as error:  # noqa: BLE001 - whatever a file, a library or a disk comes up with
            reason = _reason(error)
            if any(text in reason for text in NO_ROOM):
                self.ledger.release(name)
                return Outcome(decision=decision, error=reason, stopped=True, no_room=True)
            return Outcome(decision=decision, error=reason)
        finally:
            self._waiting.drop(decision)
        return Outcome(decision=decision, summary=summary)

    def _make(self, decision: Decision) -> RunSummary:
        name, key = decision.name, decision.fingerprint.key
        self._waiting.expect(decision, 1)

        def report(_: ChunkReport) -> None:
            self._waiting.one_less(decision)
            if self.stop.is_set():
                raise StoppedError

        with self.sink.workplace(name, key) as workplace:
            order = Order(
                decision=decision,
                config=self.config,
                detector=self.detector,
                workplace=workplace,
                on_report=report,
                accept_incomplete=self.config.publish_incomplete and self.is_last_try(name),
            )
            scene, plan = plan_order(order)
            if self.stop.is_set():
                raise StoppedError
            self._waiting.expect(decision, plan.chunks)
            summary = make_product(order, scene, plan)
            self.sink.publish(name, key, workplace)
        return summary

    def is_last_try(self, name: str) -> bool:
        """True where one more failure parks the scene."""
        tries = self.ledger.tries().get(name)
        return tries is not None and tries.failures + 1 >= self.config.tries


class _Waiting:
    """Chunks that scenes still have to score."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chunks: dict[str, int] = {}

    def expect(self, decision: Decision, chunks: int) -> None:
        with self._lock:
            self._chunks[decision.name] = chunks

    def one_less(self, decision: Decision) -> None:
        with self._lock:
            self._chunks[decision.name] -= 1

    def drop(self, decision: Decision) -> None:
        with self._lock:
            self._chunks.pop(decision.name, None)

    def total(self) -> int:
        with self._lock:
            return sum(self._chunks.values())


def _reason(error: Exception) -> str:
    text = redact(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:500]
