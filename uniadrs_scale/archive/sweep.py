"""What a sweep found and did."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sqlite3
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from signal import Signals
from typing import TYPE_CHECKING, Any

from uniadrs_scale.archive.batch import Crew, Outcome
from uniadrs_scale.archive.config import ArchiveConfig, load_config
from uniadrs_scale.archive.decide import Action, Known, Policy, Recipe, count, reconcile
from uniadrs_scale.archive.sink import COLLECTION, Sink
from uniadrs_scale.archive.sources import list_items
from uniadrs_scale.archive.stac import collection_text
from uniadrs_scale.archive.status import notify, read_status, write_page
from uniadrs_scale.core import __version__
from uniadrs_scale.detector.detector import Detector
from uniadrs_scale.errors import BusyError, StoreError, UniadrsScaleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from uniadrs_scale.archive.decide import Decision, Tries
    from uniadrs_scale.archive.ledger import Ledger
    from uniadrs_scale.archive.sink import Survey
    from uniadrs_scale.core.contracts import Scorer


@dataclass(slots=True, kw_only=True)
class SweepReport:
    """What a sweep found and did."""

    decisions: tuple[Decision, ...] = ()
    left_out: int = 0
    """Items that the filters left out."""
    done: list[str] = field(default_factory=list)
    """Scenes that have a new product."""
    incomplete: list[str] = field(default_factory=list)
    """Of these, those with failed tiles."""
    failed: dict[str, str] = field(default_factory=dict)
    """Scenes that failed in this sweep, and why; also items that were refused."""
    parked: list[str] = field(default_factory=list)
    """Of these, those that will not be tried again."""
    removed: list[str] = field(default_factory=list)
    """Products that retention removed."""
    signal: int = 0
    """That ended the sweep early; 0 for none."""
    pixels: int = 0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """True where everything that was to do is done."""
        return not self.failed and not self.signal

    @property
    def exit_code(self) -> int:
        """0 complete, 1 a scene failed, 128 + signal where the sweep was ended."""
        return 128 + self.signal if self.signal else int(bool(self.failed))

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "listed": len(self.decisions),
            "left_out": self.left_out,
            "decided": count(self.decisions),
            "todo": sum(d.action is Action.SCORE for d in self.decisions),
            "done": len(self.done),
            "incomplete": self.incomplete,
            "failed": self.failed,
            "parked": self.parked,
            "removed": self.removed,
            "signal": self.signal,
            "pixels": self.pixels,
            "seconds": round(self.seconds, 1),
            "complete": self.complete,
        }

    def counts(self) -> str:
        """Decisions by action, for people."""
        found = count(self.decisions).items()
        return ", ".join(f"{number} {action}" for action, number in found if number) or "nothing"

    def text(self) -> str:
        """The closing summary, a line a fact."""
        facts = self.facts()
        speed = f"{self.pixels / 1e6:.2f} Mpx in {self.seconds:.1f} s"
        lines = [
            f"listed   {facts['listed']} items, {self.left_out} left out by filters",
            f"decided  {self.counts()}",
            f"done     {len(self.done)} of {facts['todo']}, {speed}",
        ]
        lines += [f"removed  {name}: older than keep_days" for name in self.removed]
        lines += [
            f"partial  {name}: some tiles failed, see its run.json" for name in self.incomplete
        ]
        for name, reason in self.failed.items():
            verb = "parked " if name in self.parked else "failed "
            lines.append(f"{verb}  {name}: {reason}")
        if self.signal:
            lines.append(f"ended by {Signals(self.signal).name}: the same command resumes")
        return "\n".join(lines)


LOG = logging.getLogger("uniadrs_scale.sweep")
REFRESH = 10.0
"""Seconds between updates of the collection and the status page while scenes are scored; more for
a large archive, where an update must not take more than a twentieth of the time."""


def sweep(
    archive: ArchiveConfig | str | Path,
    *,
    detector: Scorer | None = None,
    dry_run: bool = False,
    keep_days: float | None = None,
) -> SweepReport:
    """Every item of an archive has its map, made of its present input with the present recipe.

    Args:
        archive: The description, or its YAML file.
        detector: Scores the tiles; by default what the description says.
        dry_run: Decide only; nothing is written.
        keep_days: Instead of the description's.

    Returns:
        What was decided, with reasons, and what was done.

    Raises:
        ArchiveError: The description or the source cannot be used.
        BusyError: Another sweep writes to the same folder or bucket.
        UniadrsScaleError: The weights, the cluster, the folder or bucket cannot be used.
    """
    config = archive if isinstance(archive, ArchiveConfig) else load_config(archive)
    if keep_days is not None:
        config = config.model_copy(update={"keep_days": keep_days})
    scorer = detector if detector is not None else Detector.load(**config.detector)
    sink = Sink(config.output.folder)
    if dry_run:
        return _foresee(config, scorer, sink)
    try:
        with sink.locked() as ledger, interruptible() as stop:
            return _Sweep(config, scorer, sink, ledger, stop).run()
    except BusyError:
        raise
    except (UniadrsScaleError, OSError, sqlite3.Error) as error:
        facts = {"complete": False, "error": str(error), "archive": str(sink.place)}
        notify(config.notify, facts)
        if isinstance(error, UniadrsScaleError):
            raise
        raise StoreError(
            f"The sweep into '{sink.place}' ended early: {error}. Run the same command again."
        ) from error


def _foresee(config: ArchiveConfig, detector: Scorer, sink: Sink) -> SweepReport:
    """What a sweep would decide. Nothing is written: not even a ledger where there is none yet."""
    if not sink.exists():
        return _decide(config, detector, sink.survey({}), {})
    with sink.ledger() as ledger:
        return _decide(config, detector, sink.survey(ledger.products()), ledger.tries())


def _decide(
    config: ArchiveConfig, detector: Scorer, found: Survey, tries: Mapping[str, Tries]
) -> SweepReport:
    """List the source and decide about each item; writes nothing."""
    now = datetime.now(UTC)
    listing = list_items(config, now)
    recipe = Recipe(config=config.digest, detector=detector.identity, version=__version__)
    policy = Policy(
        tries=config.tries, interruptions=config.interruptions, oldest=_oldest(config, now)
    )
    known = Known(
        products={name: record["uniadrs:parts"] for name, record in found.products.items()},
        tries=tries,
    )
    decisions = reconcile(listing.items, known, recipe, policy)
    return SweepReport(decisions=decisions, left_out=listing.left_out)


def _oldest(config: ArchiveConfig, now: datetime) -> datetime | None:
    return None if config.keep_days is None else now - timedelta(days=config.keep_days)


@dataclass(slots=True)
class Stop:
    """Set by a signal."""

    event: threading.Event = field(default_factory=threading.Event)
    signal: int = 0


@contextmanager
def interruptible() -> Iterator[Stop]:
    """SIGTERM and SIGINT end a sweep cleanly; the second one ends the process at once.

    What is interruptible inside another one ends both: a signal may come when the sweep has done
    its last scene and looks no more, but is not over yet.
    """
    stop = Stop()
    before: dict[int, Any] = {}

    def ask(number: int, frame: object) -> None:
        stop.signal = number
        stop.event.set()
        outer = before[number]
        restore()
        if getattr(outer, "__name__", "") == ask.__name__:
            outer(number, frame)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        before.clear()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        restore()


class _Sweep:
    """A sweep that holds the sink."""

    def __init__(
        self,
        config: ArchiveConfig,
        detector: Scorer,
        sink: Sink,
        ledger: Ledger,
        stop: Stop,
    ) -> None:
        self.config, self.detector, self.sink, self.ledger = config, detector, sink, ledger
        self.stop = stop
        self.started = time.monotonic()
        self.next_refresh = self.started + REFRESH
        self.report = SweepReport()
        self.number = 0
        self.untouched = False
        """True once it is clear that nothing was to do: the sink is as it was surveyed."""

    def run(self) -> SweepReport:
        """Do it all."""
        found = self._survey()
        tries = self.ledger.tries()
        self.report = report = _decide(self.config, self.detector, found, tries)
        LOG.info(
            "sweep begins: %s", report.counts(), extra={"event": "begin", "facts": report.facts()}
        )
        self.number = self.ledger.start_run(owner(), report.facts())
        try:
            self._carry_out(found)
            state = "stopped" if report.signal else "ended"
        except BaseException:
            state = "broken"
            raise
        finally:
            report.seconds = time.monotonic() - self.started
            self.ledger.update_run(self.number, report.facts(), state)
            self._refresh(found if self.untouched else None)
        LOG.info("sweep %s", state, extra={"event": "end", "facts": report.facts()})
        if not report.signal and (report.failed or report.done or report.removed):
            notify(self.config.notify, report.facts() | {"archive": str(self.config.output.folder)})
        return report

    def _survey(self) -> Survey:
        """What lies in the sink now; the index knows it then."""
        found = self.sink.survey(self.ledger.products())
        self.ledger.index(found.changed, found.gone)
        return found

    def _carry_out(self, found: Survey) -> None:
        decisions, report = self.report.decisions, self.report
        todo = [decision for decision in decisions if decision.action is Action.SCORE]
        for decision in decisions:
            if decision.action is Action.REFUSE:
                report.failed[decision.item.id] = decision.reason
        parked = [d.name for d in decisions if d.action is Action.PARKED]
        self.ledger.settle((d.name for d in decisions), parked)
        wanted = {decision.name: decision.fingerprint.key for decision in todo}
        published = self.sink.tidy(found, wanted)
        for name in published:
            self.ledger.succeed(name)
            report.done.append(name)
        self._expire(found)
        todo = [decision for decision in todo if decision.name not in set(published)]
        self.untouched = not (todo or published or self.report.removed)
        if todo:
            crew = Crew(self.config, self.detector, self.sink, self.ledger, self.stop.event)
            crew.work(todo, self._note, self._beat)
            # Late writes of a worker that outlived its scene must not leave anything behind.
            self.sink.tidy(self._survey(), self._resumable(todo))
        report.signal = self.stop.signal

    def _resumable(self, todo: list[Decision]) -> dict[str, str]:
        over = {*self.report.done, *self.report.parked}
        return {d.name: d.fingerprint.key for d in todo if d.name not in over}

    def _expire(self, found: Survey) -> None:
        oldest = _oldest(self.config, datetime.now(UTC))
        if oldest is None:
            return
        for name, record in found.products.items():
            if datetime.fromisoformat(record["datetime"]) < oldest:
                self.sink.remove(name)
                self.report.removed.append(name)
                LOG.info("%s removed: older than keep_days", name, extra={"event": "removed"})

    def _note(self, outcome: Outcome) -> None:
        """Write down what became of a scene."""
        name, report = outcome.decision.name, self.report
        if outcome.summary is not None:
            self.ledger.succeed(name)
            report.done.append(name)
            report.pixels += outcome.summary.pixels
            if not outcome.summary.complete:
                report.incomplete.append(name)
            LOG.info(
                "%s done: %s", name, outcome.decision.reason, extra={"event": "done", "scene": name}
            )
        elif not outcome.stopped:
            tries = self.ledger.tries()[name]
            parked = tries.failures + 1 >= self.config.tries
            self.ledger.fail(name, outcome.error, parked=parked)
            report.failed[name] = outcome.error
            if parked:
                report.parked.append(name)
                self.sink.discard(name)
            event = "parked" if parked else "failed"
            LOG.error(
                "%s %s: %s", name, event, outcome.error,
                extra={"event": event, "scene": name, "reason": outcome.error},
            )  # fmt: skip

    def _beat(self) -> None:
        begun = time.monotonic()
        if begun < self.next_refresh:
            return
        self.report.seconds = begun - self.started
        self.ledger.update_run(self.number, self.report.facts())
        self._refresh()
        ended = time.monotonic()
        self.next_refresh = ended + max(REFRESH, 20 * (ended - begun))

    def _refresh(self, found: Survey | None = None) -> None:
        """Bring the collection and the status page up to date.

        Args:
            found: What lies in the sink, where that is known: looking takes a third of a sweep
                with nothing to do.
        """
        products = (found or self._survey()).products
        if products or self.sink.has(COLLECTION):
            self.sink.write_text(COLLECTION, collection_text(self.config.output, products))
        if self.config.status_page is not None:
            write_page(self.config.status_page, read_status(self.sink))


def owner() -> str:
    """This process, for people."""
    return f"process {os.getpid()} on {socket.gethostname()}"
