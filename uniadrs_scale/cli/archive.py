"""Commands for archives: sweep, status, retry."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from uniadrs_scale.cli.options import INCOMPLETE
from uniadrs_scale.errors import ArchiveError, ClusterError

if TYPE_CHECKING:
    from uniadrs_scale.archive.product import SweepReport
    from uniadrs_scale.archive.sink import Sink

LOG = logging.getLogger("uniadrs_scale.sweep")
Archive = Annotated[
    Path, typer.Argument(metavar="ARCHIVE.yaml", help="Description; see 'sweep --init'.")
]


def sweep_command(
    archive: Annotated[
        Path | None, typer.Argument(metavar="ARCHIVE.yaml", help="Description of the archive.")
    ] = None,
    *,
    init: Annotated[
        bool, typer.Option("--init", help="Only write a commented description of an archive.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be done and why; write nothing.")
    ] = False,
    every: Annotated[
        str | None, typer.Option(help="Start sweeps at this interval (30m, 6h, 1d) until SIGTERM.")
    ] = None,
    keep_days: Annotated[
        float | None, typer.Option(help="Remove products of acquisitions older than this, in days.")
    ] = None,
    log: Annotated[
        Literal["text", "json"], typer.Option(help="Log for people, or one JSON object per line.")
    ] = "text",
) -> None:
    """Make a map of every scene of an archive; score only new and changed scenes.

    A scene is scored again if its files, the options, the weights or the version have changed.

    Exit codes: 0 complete, 1 a scene failed, 2 bad input, 75 another sweep writes there.

    Codes 130 and 143: ended by SIGINT and SIGTERM; the same command resumes.
    """
    from uniadrs_scale.archive.filters import MOST_DAYS
    from uniadrs_scale.archive.sweep import sweep

    if init:
        if dry_run or every is not None or keep_days is not None:
            raise ArchiveError("--init only writes a description. Drop the other options.")
        _write_example(archive)
        return
    if archive is None:
        raise ArchiveError("No archive was given. Write a description with 'sweep --init'.")
    if keep_days is not None and not 0 < keep_days <= MOST_DAYS:  # --every would only log it
        raise ArchiveError(
            f"--keep-days {keep_days:g} is not allowed. Give a number of days above 0, up to "
            f"{MOST_DAYS}."
        )
    _start_log(log)
    if every is not None and not dry_run:
        raise typer.Exit(_again_and_again(archive, every, keep_days))
    try:
        report = sweep(archive, dry_run=dry_run, keep_days=keep_days)
    except ClusterError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(INCOMPLETE) from None
    _show(report, log, dry_run=dry_run)
    raise typer.Exit(0 if dry_run else report.exit_code)


def status_command(
    archive: Archive,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
    html: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Write a page instead, to a path or URL; it needs no server."
        ),
    ] = None,
) -> None:
    """Show the status of an archive: done, pending, failed, parked, speed, time left, errors."""
    from uniadrs_scale.archive.status import read_status, write_page
    from uniadrs_scale.storage.places import Place

    if as_json and html is not None:
        raise ArchiveError("--json and --html are different outputs. Give one of them.")
    status = read_status(_sink(archive))
    if html is not None:
        write_page(Place.of(html), status)
        typer.echo(f"page     {html}")
    elif as_json:
        typer.echo(json.dumps(status.to_dict(), indent=2))
    else:
        typer.echo(status.text())


def retry_command(
    archive: Archive,
    scenes: Annotated[
        list[str] | None, typer.Argument(metavar="SCENE", help="Default: all parked scenes.")
    ] = None,
) -> None:
    """Let the next sweep try parked scenes again: those that failed too often."""
    from uniadrs_scale.archive.status import read_status

    sink = _sink(archive)
    read_status(sink)  # raises if the sink holds no archive
    with sink.amending() as ledger:
        unparked = ledger.unpark(scenes or ())
    unknown = sorted(set(scenes or ()) - set(unparked))
    for name in unparked:
        typer.echo(f"unparked {name}")
    if unknown:
        raise ArchiveError(
            f"Not parked: {', '.join(unknown)}. 'uniadrs-scale status' lists the parked scenes."
        )
    if not unparked:
        typer.echo("nothing is parked")


def _sink(archive: Path) -> Sink:
    from uniadrs_scale.archive.config import load_config
    from uniadrs_scale.archive.sink import Sink

    return Sink(load_config(archive).output.folder)


def _write_example(archive: Path | None) -> None:
    from uniadrs_scale.archive.config import example

    target = Path("archive.yaml") if archive is None else archive
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(example())
    except FileExistsError:
        raise ArchiveError(f"'{target}' exists. Choose another name.") from None
    except OSError as error:
        raise ArchiveError(f"Cannot write '{target}': {error.strerror}.") from None
    typer.echo(f"wrote    {target}\nnext     edit it, then: uniadrs-scale sweep {target} --dry-run")


def _show(report: SweepReport, log: str, *, dry_run: bool) -> None:
    """Print the decisions of a dry run, or the summary of a real one."""
    from uniadrs_scale.archive.decide import Action

    if log == "json":
        facts = report.facts()
        if dry_run:
            facts["decisions"] = [
                {"scene": d.name, "id": d.item.id, "action": d.action, "reason": d.reason}
                for d in report.decisions
            ]
        typer.echo(json.dumps(facts))
        return
    if dry_run:
        for decision in report.decisions:
            if decision.action is not Action.KEEP:
                typer.echo(f"{decision.action:<8} {decision.name}: {decision.reason}")
        typer.echo("\n".join(report.text().splitlines()[:2]))
        return
    typer.echo(report.text())


def _again_and_again(archive: Path, every: str, keep_days: float | None) -> int:
    """Sweep, wait, sweep; log errors, and try again the next time."""
    from uniadrs_scale.archive.config import duration, load_config
    from uniadrs_scale.archive.sweep import sweep
    from uniadrs_scale.core.machine import interruptible

    pause = duration(every).total_seconds()
    load_config(archive)  # refuse a bad description at once
    with interruptible() as stop:
        while not stop.signal:
            begun = time.monotonic()
            try:
                report = sweep(archive, keep_days=keep_days)
                LOG.info(report.text(), extra={"event": "summary", "facts": report.facts()})
                stop.signal = stop.signal or report.signal
            except Exception as error:  # noqa: BLE001 - the next sweep may succeed
                LOG.error("%s", error, extra={"event": "error"})  # noqa: TRY400
            if not stop.signal:
                # From begin to begin, so that a sweep every day is at the same time of day.
                stop.event.wait(max(pause - (time.monotonic() - begun), 1))
    return 128 + stop.signal


class _Lines(logging.Formatter):
    """A formatter that writes one JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        names = ("event", "scene", "reason", "facts")
        more = {name: getattr(record, name) for name in names if hasattr(record, name)}
        return json.dumps(
            {
                "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
                "level": record.levelname.lower(),
                "message": record.getMessage(),
                **more,
            }
        )


def _start_log(kind: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")
    handler.setFormatter(_Lines() if kind == "json" else plain)
    LOG.handlers[:] = [handler]
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
