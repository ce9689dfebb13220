"""A sweep: look at source and sink, decide about each scene, carry it out."""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from uniadrs_scale.archive.batch import Batch, Outcome
from uniadrs_scale.archive.config import ArchiveConfig, load_config
from uniadrs_scale.archive.decide import (
    Action,
    Fingerprint,
    Known,
    Policy,
    differing,
    reconcile,
    require_items,
    require_same_archive,
)
from uniadrs_scale.archive.exports import require_libraries
from uniadrs_scale.archive.filters import MOST_DAYS, is_older, oldest_kept, require_clock
from uniadrs_scale.archive.product import SweepReport, require_scorer, require_some_scene
from uniadrs_scale.archive.sink import COLLECTION, Sink
from uniadrs_scale.archive.sources import list_items, source_text
from uniadrs_scale.archive.stac import collection_text
from uniadrs_scale.archive.status import notify, read_status, write_page
from uniadrs_scale.core import __version__
from uniadrs_scale.core.arguments import require_flag
from uniadrs_scale.core.machine import Stop, interruptible
from uniadrs_scale.detector.detector import Detector
from uniadrs_scale.errors import ArchiveError, BusyError, StoreError, UniadrsScaleError, redact
from uniadrs_scale.scoring.job import scorer_of
from uniadrs_scale.storage.folders import require_mounted

if TYPE_CHECKING:
    from pathlib import Path

    from uniadrs_scale.archive.decide import Decision
    from uniadrs_scale.archive.ledger import Ledger
    from uniadrs_scale.archive.listing import Survey
    from uniadrs_scale.core.contracts import Scorer

LOG = logging.getLogger("uniadrs_scale.sweep")
REFRESH = 10.0
"""Seconds between updates of the collection and the status page while scenes are scored; more for
a large archive, where an update must not take more than a twentieth of the time."""


def sweep(
    archive: ArchiveConfig | str | Path,
    *,
    detector: Scorer | str | Path | None = None,
    dry_run: bool = False,
    keep_days: float | None = None,
) -> SweepReport:
    """Make a map of every scene of an archive; score only new and changed scenes.

    Args:
        archive: The description, or its YAML file.
        detector: Scorer of the tiles, as in :func:`score`; by default the one that the description
            names.
        dry_run: True to decide only, and write nothing.
        keep_days: Days after which products are removed, instead of those in the description.

    Returns:
        The decisions with reasons, and the results.

    Raises:
        ArchiveError: The description or the source cannot be used.
        BusyError: Another sweep writes to the same folder or bucket.
        UniadrsScaleError: The weights, the cluster, the folder or bucket cannot be used.
    """
    require_flag("dry_run", dry_run)
    config = archive if isinstance(archive, ArchiveConfig) else load_config(archive)
    if keep_days is not None:
        number = isinstance(keep_days, int | float) and keep_days is not True
        if not (number and 0 < keep_days <= MOST_DAYS):
            raise ArchiveError(
                f"keep_days={keep_days!r} is not allowed. Give a number of days above 0, up to "
                f"{MOST_DAYS}."
            )
        config = config.model_copy(update={"keep_days": keep_days})
    require_libraries(config.output.formats)
    sink, report = Sink(config.output.folder), SweepReport()
    try:
        require_mounted(sink.place.local)
        scorer = Detector.load(**config.detector) if detector is None else scorer_of(detector)
        require_scorer(config, scorer)
        if dry_run:
            return _foresee(config, scorer, sink)
        with sink.locked() as ledger, interruptible() as stop:
            return _Sweep(config, scorer, sink, ledger, stop, report).run()
    except BusyError:
        raise
    except Exception as error:
        text = redact(f"{type(error).__name__}: {error}")
        facts = report.facts() | {"complete": False, "error": text, "archive": str(sink.place)}
        if not dry_run:
            LOG.error("sweep broken: %s", text, extra={"event": "broken", "facts": facts})  # noqa: TRY400
            notify(config.notify, facts)
        if isinstance(error, UniadrsScaleError):
            raise
        raise StoreError(
            f"The sweep into '{sink.place}' ended early ({text}). Run the same command again."
        ) from error


def _foresee(config: ArchiveConfig, detector: Scorer, sink: Sink) -> SweepReport:
    """Return what a sweep would decide; write nothing, not even a new ledger."""
    report = SweepReport()
    with sink.ledger() if sink.exists() else nullcontext() as ledger:
        found = sink.survey({} if ledger is None else ledger.products())
        _decide(report, config, detector, found, ledger)
    return report


def _decide(
    report: SweepReport,
    config: ArchiveConfig,
    detector: Scorer,
    found: Survey,
    ledger: Ledger | None,
) -> None:
    """List the source, and put a decision about each item into ``report``."""
    now, tries = datetime.now(UTC), {} if ledger is None else ledger.tries()
    listing = list_items(config, now)
    recipe = Fingerprint(config=config.digest, detector=detector.identity, version=__version__)
    policy = Policy(
        tries=config.tries,
        interruptions=config.interruptions,
        oldest=oldest_kept(config.keep_days, now),
    )
    runs = [] if ledger is None else ledger.runs()
    if policy.oldest is not None:
        require_clock(now, runs, config.output.folder)
    known = Known(
        products={name: record["uniadrs:parts"] for name, record in found.products.items()},
        tries=tries,
        damaged={name: why for name, (why, _) in found.damaged.items()},
        options=differing(runs, config.recipe),
    )
    names = {item.name for item in listing.items}
    before = known.products.keys() | known.damaged.keys() | tries.keys()
    require_items(len(names) + listing.left_out, before)
    require_same_archive(source_text(config.source), names, before, runs, config.output.folder)
    report.decisions = reconcile(listing.items, known, recipe, policy)
    report.left_out = listing.left_out
    report.failed = {d.item.id: d.reason for d in report.decisions if d.action is Action.REFUSE}
    for name, (why, record) in found.damaged.items():
        if name not in names and not is_older(record, policy.oldest):
            advice = f"Restore its files, or remove '{config.output.folder.child(name)}'"
            report.failed[name] = f"{why}, and not in the source. {advice}"
    report.refused = list(report.failed)
    todo = [d.item for d in report.decisions if d.action is Action.SCORE]
    proven = any(parts.get("config") == config.digest for parts in known.products.values())
    if config.scene and not proven:
        require_some_scene(todo, config.scene)


@dataclass(slots=True)
class _Sweep:
    """A sweep that holds the sink."""

    config: ArchiveConfig
    detector: Scorer
    sink: Sink
    ledger: Ledger
    stop: Stop
    report: SweepReport
    number: int = 0
    started: float = field(default_factory=time.monotonic)
    next_refresh: float = field(default_factory=lambda: time.monotonic() + REFRESH)
    untouched: bool = False
    """True once it is clear that there is nothing to do: the sink is as it was surveyed."""

    def run(self) -> SweepReport:
        """Decide, carry out, and note in the ledger how it ends, whatever happens."""
        found, report = self._survey(), self.report
        _decide(report, self.config, self.detector, found, self.ledger)
        LOG.info(
            "sweep begins: %s", report.counts(), extra={"event": "begin", "facts": report.facts()}
        )
        owner = f"process {os.getpid()} on {socket.gethostname()}"
        self.number = self.ledger.start_run(owner, self._facts())
        try:
            self._carry_out(found)
            self._close("stopped" if report.signal else "ended", found)
        except BaseException as error:
            with suppress(Exception):  # the first error counts
                self._close("broken", None, error=redact(f"{type(error).__name__}: {error}"))
            raise
        if not report.signal and (report.failed or report.done or report.removed):
            notify(self.config.notify, report.facts() | {"archive": str(self.sink.place)})
        return report

    def _facts(self) -> dict[str, Any]:
        source = source_text(self.config.source)
        return self.report.facts() | {"source": source, "options": self.config.recipe}

    def _close(self, state: str, found: Survey | None, **more: str) -> None:
        self.report.seconds = time.monotonic() - self.started
        self.ledger.update_run(self.number, self._facts() | more, state)
        self._refresh(found if self.untouched else None)
        LOG.info("sweep %s", state, extra={"event": "end", "facts": self.report.facts()})

    def _survey(self) -> Survey:
        """Return the content of the sink, and bring the index up to date."""
        found = self.sink.survey(self.ledger.products())
        self.ledger.index(found.changed, found.gone)
        return found

    def _carry_out(self, found: Survey) -> None:
        decisions, report = self.report.decisions, self.report
        todo = [decision for decision in decisions if decision.action is Action.SCORE]
        parked = [d.name for d in decisions if d.action is Action.PARKED]
        self.ledger.settle((d.name for d in decisions), parked)
        published = self.sink.tidy(found, {d.name: d.fingerprint.key for d in todo})
        for name in published:
            self.ledger.succeed(name)
            report.done.append(name)
        moved = self.sink.adopt(found, self.config.output.collection)
        self._expire(found)
        todo = [decision for decision in todo if decision.name not in set(published)]
        self.untouched = not (todo or published or moved or report.removed)
        if todo:
            batch = Batch(self.config, self.detector, self.sink, self.ledger, self.stop.event)
            batch.work(todo, self._note, self._beat)
            # Late writes of a worker that outlived its scene must not leave anything behind.
            self.sink.tidy(self._survey(), self._resumable(todo))
        report.signal = self.stop.signal

    def _resumable(self, todo: list[Decision]) -> dict[str, str]:
        over = {*self.report.done, *self.report.parked}
        return {d.name: d.fingerprint.key for d in todo if d.name not in over}

    def _expire(self, found: Survey) -> None:
        oldest = oldest_kept(self.config.keep_days, datetime.now(UTC))
        damaged = {name: record for name, (_, record) in found.damaged.items()}
        for name, record in (found.products | damaged).items():
            if is_older(record, oldest):
                self.sink.remove(name)
                self.report.removed.append(name)
                LOG.info("%s removed: older than keep_days", name, extra={"event": "removed"})

    def _note(self, outcome: Outcome) -> None:
        """Put the outcome of a scene into ledger and report."""
        name, report = outcome.decision.name, self.report
        if outcome.summary is not None:
            self.ledger.succeed(name)
            report.done.append(name)
            report.pixels += outcome.summary.pixels
            if not outcome.summary.complete:
                report.incomplete.append(name)
            if outcome.summary.notes:
                report.notes[name] = list(outcome.summary.notes)
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
            extra = {"event": event, "scene": name, "reason": outcome.error}
            LOG.error("%s %s: %s", name, event, outcome.error, extra=extra)

    def _beat(self) -> None:
        begun = time.monotonic()
        if begun < self.next_refresh:
            return
        self.report.seconds = begun - self.started
        self.ledger.update_run(self.number, self._facts())
        self._refresh()
        ended = time.monotonic()
        self.next_refresh = ended + max(REFRESH, 20 * (ended - begun))

    def _refresh(self, found: Survey | None = None) -> None:
        """Bring the collection and the status page up to date; look at the sink unless known."""
        products = (found or self._survey()).products
        if products or self.sink.place.child(COLLECTION).exists():
            self.sink.write_text(COLLECTION, collection_text(self.config.output, products))
        if self.config.status_page is not None:
            try:
                write_page(self.config.status_page, read_status(self.sink))
            except OSError as error:
                LOG.warning("status page not written: %s", error, extra={"event": "no page"})
