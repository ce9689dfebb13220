"""Score the scenes of a sweep on one cluster, several at a time.

Scenes are let in as long as the cluster has fewer chunks waiting than it could take at once: so
the next scene is opened and sampled while the last chunks of this one are scored, and one more is
written; a large scene fills the cluster. Two at a time would leave half a cluster idle.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from uniadrs_scale.archive.product import Order, make_product, prepare_order
from uniadrs_scale.errors import ClusterError, StoreError, redact
from uniadrs_scale.scoring.job import compute_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from uniadrs_scale.archive.config import ArchiveConfig
    from uniadrs_scale.archive.decide import Decision
    from uniadrs_scale.archive.ledger import Ledger
    from uniadrs_scale.archive.sink import Sink
    from uniadrs_scale.core.contracts import Scorer
    from uniadrs_scale.runtime.compute import Compute
    from uniadrs_scale.runtime.tasks import ChunkReport
    from uniadrs_scale.scoring.report import RunSummary

LOG = logging.getLogger("uniadrs_scale.sweep")
AHEAD = 2
"""Chunks that wait for each thread of the cluster before no more scenes are let in."""
MOST_SCENES = 32
BEAT = 0.02  # seconds between looks at whether to let another scene in, or to stop
FULL = "disk is full", *map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS))
ENVIRONMENT = *FULL, "proj.db", "GDAL_DATA"
"""Words of faults of the machine or the sink, not of scenes."""


class StoppedError(Exception):
    """The sweep was asked to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of one scene."""

    decision: Decision
    summary: RunSummary | None = None
    """None without a product."""
    error: str = ""
    stopped: bool = False
    """True if it has neither finished nor failed."""
    cluster_lost: bool = False
    """True if all workers died: because of this scene, or of another one."""
    environment: bool = False
    """True if the machine or the sink failed, such as a full disk."""

    @property
    def fatal(self) -> bool:
        """True if no other scene should be begun."""
        return self.cluster_lost or self.environment


class Batch:
    """Scenes to score, on a cluster that is opened when needed."""

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
        self._lock = threading.Lock()
        self._waiting: dict[str, int] = {}
        """Chunks that scenes still have to score, by name."""
        self._is_guest = False
        """True if the cluster was not started by this sweep."""

    def work(
        self,
        todo: Iterable[Decision],
        on_outcome: Callable[[Outcome], None],
        on_beat: Callable[[], None],
    ) -> None:
        """Make the product of each decision, or find out why not; return early if stopped.

        Both functions are called in this thread.

        Raises:
            ClusterError: A cluster that was not started here has lost its workers, or several
                scenes, each alone, have lost those of one that was.
            StoreError: The machine or the sink has failed.
        """
        self._on_outcome, self._on_beat = on_outcome, on_beat
        queue = deque(todo)
        while queue and not self.stop.is_set():
            with self._cluster() as compute:
                outcomes = self._score(queue, compute)
            lost = [outcome for outcome in outcomes if outcome.cluster_lost]
            if lost and self._is_guest:
                raise ClusterError(lost[0].error)
            self._score_alone([outcome.decision for outcome in lost])

    def _score_alone(self, suspects: list[Decision]) -> None:
        """Score each scene by itself, as all workers died while these scenes were scored.

        A scene that loses them again is the cause; the others must not be parked with it.
        """
        causes: list[Outcome] = []
        for suspect in suspects:
            if self.stop.is_set():
                return
            LOG.warning("%s runs alone: the workers died while it was scored", suspect.name)
            with self._cluster() as compute:
                outcomes = self._score(deque([suspect]), compute, width=1)
            causes += [outcome for outcome in outcomes if outcome.cluster_lost]
        for outcome in causes:
            self._on_outcome(replace(outcome, error=f"all workers died: {outcome.error}"))
        if len(causes) > 1 and len(causes) == len(suspects):
            raise ClusterError(causes[0].error)  # the cluster is the cause, not the scenes

    @contextmanager
    def _cluster(self) -> Iterator[Compute]:
        """Open the cluster that all scenes use."""
        config, wait = self.config, self.config.wait_for_workers
        seconds = None if wait is None else wait.total_seconds()
        compute = compute_for(self.detector, config.scheduler, config.workers, wait=seconds)
        self._is_guest = not compute.is_own
        with compute.connected() as connected:
            yield connected

    def _score(
        self, queue: deque[Decision], compute: Compute, *, width: int = MOST_SCENES
    ) -> list[Outcome]:
        """Work until the queue is empty, the cluster has died, or a stop is requested.

        Outcomes of scenes that lost their workers are held back.
        """
        slots = compute.workers * compute.threads
        # Dask's callbacks are global to a process, and so is its pool of threads.
        width = 1 if compute.in_process else min(AHEAD * slots + 2, width)
        outcomes: list[Outcome] = []
        running: set[Future[Outcome]] = set()

        def may_begin() -> bool:
            fatal = any(outcome.fatal for outcome in outcomes)
            return bool(queue) and not fatal and not self.stop.is_set()

        with ThreadPoolExecutor(width, "scene") as pool:
            try:
                while running or may_begin():
                    while may_begin() and len(running) < width:
                        with self._lock:
                            waiting = sum(self._waiting.values())
                        if running and waiting >= AHEAD * slots:
                            break
                        running.add(pool.submit(self._one, queue.popleft(), compute))
                    done, running = wait(running, BEAT, FIRST_COMPLETED)
                    for future in done:
                        outcomes.append(future.result())
                        if not outcomes[-1].cluster_lost:
                            self._on_outcome(outcomes[-1])
                    self._on_beat()
            except BaseException:
                self._note_rest(running)
                raise
        fault = next((outcome.error for outcome in outcomes if outcome.environment), None)
        if fault is not None:
            raise StoreError(
                f"'{self.sink.place}' takes no more maps, or this machine makes none ({fault}). "
                "Mend that, then run the same command: it resumes. No try was counted."
            )
        return outcomes

    def _note_rest(self, running: set[Future[Outcome]]) -> None:
        """Note scenes that end after the sweep has failed: their maps exist."""
        for outcome in (f.result() for f in wait(running).done if not f.exception()):
            if not outcome.cluster_lost:
                self._on_outcome(outcome)

    def _one(self, decision: Decision, compute: Compute) -> Outcome:
        """Make one product. An error is an outcome: no scene stops the next."""
        name = decision.name
        self.ledger.begin(name, decision.fingerprint.key)
        try:
            summary = self._make(decision, compute)
        except StoppedError:
            self.ledger.release(name)
            return Outcome(decision=decision, stopped=True)
        except ClusterError as error:
            self.ledger.release(name)
            return Outcome(decision=decision, error=str(error), cluster_lost=True)
        except Exception as error:  # noqa: BLE001 - whatever a file, a library or a disk raises
            fault = _environment_fault(error)
            reason = f"{type(error).__name__}: {_one_line(error)}"
            if not fault:
                return Outcome(decision=decision, error=reason)
            self.ledger.release(name)
            reason += "" if fault in reason else f" ({fault})"
            return Outcome(decision=decision, error=reason, stopped=True, environment=True)
        finally:
            with self._lock:
                self._waiting.pop(name, None)
        return Outcome(decision=decision, summary=summary)

    def _make(self, decision: Decision, compute: Compute) -> RunSummary:
        name, key = decision.name, decision.fingerprint.key
        self._expect(name, 1)

        def report(_: ChunkReport) -> None:
            self._expect(name, self._waiting[name] - 1)
            if self.stop.is_set():
                raise StoppedError

        with self.sink.workplace(name, key) as workplace:
            order = Order(
                decision=decision,
                config=self.config,
                detector=self.detector,
                compute=compute,
                workplace=workplace,
                on_report=report,
                accept_incomplete=self.config.publish_incomplete and self._is_last_try(name),
            )
            job = prepare_order(order)
            if self.stop.is_set():
                raise StoppedError
            self._expect(name, job.plan.chunks)
            summary = make_product(order, job)
            self.sink.publish(name, key, workplace)
        return summary

    def _expect(self, name: str, chunks: int) -> None:
        with self._lock:
            self._waiting[name] = chunks

    def _is_last_try(self, name: str) -> bool:
        """Return True if one more failure parks the scene."""
        tries = self.ledger.tries().get(name)
        return tries is not None and tries.failures + 1 >= self.config.tries


def _one_line(error: BaseException) -> str:
    return redact(" ".join(str(error).split()))[:500]


def _environment_fault(error: BaseException) -> str:
    """Return what says that the machine or the sink failed, in an error or its causes, if so."""
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) and before not in chain:
        chain.append(before)
    texts = map(_one_line, chain)
    return next((text for text in texts if any(word in text for word in ENVIRONMENT)), "")
