"""Telling others how a sweep ended. That nobody could be told is logged, and costs nothing else."""

from __future__ import annotations

import json
import logging
import os
import posixpath
import subprocess
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from uniadrs_scale.errors import HIDDEN, StoreError, redact
from uniadrs_scale.storage.remote import post_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uniadrs_scale.archive.config import Channel, Notify
    from uniadrs_scale.archive.sink import Sink
    from uniadrs_scale.storage.places import Place


LOG = logging.getLogger("uniadrs_scale.sweep")
WEBHOOK_SECONDS, COMMAND_SECONDS = 10, 60
"""How long a receiver may take: a sweep must not hang on it."""


def notify(channels: Notify, facts: Mapping[str, Any]) -> None:
    """Tell whoever wants to know, with ``facts`` as JSON."""
    channel = channels.on_complete if facts["complete"] else channels.on_failure
    for tell in (_post, _run):
        try:
            tell(channel, json.dumps(facts))
        except (OSError, subprocess.SubprocessError) as error:
            # The path of a webhook is a password in itself.
            reason = str(error).replace(urlsplit(channel.webhook or "").path or "\n", f"/{HIDDEN}")
            LOG.warning("nobody was told: %s", redact(reason), extra={"event": "untold"})


def _post(channel: Channel, text: str) -> None:
    if channel.webhook is not None:
        post_json(channel.webhook, text, WEBHOOK_SECONDS)


def _run(channel: Channel, text: str) -> None:
    if channel.command:
        # A list of arguments, never a shell: nothing in a report can become a command.
        subprocess.run(  # noqa: S603 - the operator's own command
            channel.command, input=text, text=True, check=True, timeout=COMMAND_SECONDS
        )


LATEST, TROUBLES = 12, 20
"""Products shown as pictures, and scenes in trouble listed as text."""
SECONDS_TO_REFRESH = 30
SAFE = "/:"
"""Characters that links keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How an archive stands."""

    folder: str
    state: str
    """``running``, ``idle``, ``killed`` (a sweep died), or ``new`` (there was none)."""
    done: int
    """Products in the sink."""
    pending: int
    """Scenes that the present sweep, or the last one, has not come to."""
    failed: int
    """Scenes that will be tried again."""
    parked: int
    """Scenes given up: `retry` tries them again."""
    scenes_per_hour: float | None
    """Of the present or last sweep that did anything."""
    megapixels_per_second: float | None
    eta_seconds: float | None
    """Until the present sweep has come to every scene."""
    troubles: list[dict[str, Any]]
    """Scenes that failed: name, failures, interruptions, error, parked, time."""
    runs: list[dict[str, Any]]
    """The latest sweeps, the last first."""
    latest: list[dict[str, Any]]
    """The latest products: name, time made, quicklook (relative path) or None."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def text(self) -> str:
        """For people, a line a fact."""
        lines = [
            f"archive  {self.folder}",
            f"state    {_state(self)}",
            f"done     {self.done}",
            f"pending  {self.pending}{_eta(self)}",
            f"failed   {self.failed}",
            f"parked   {self.parked}",
        ]
        if self.scenes_per_hour is not None:
            lines.append(
                f"speed    {self.scenes_per_hour:.0f} scenes an hour, "
                f"{self.megapixels_per_second:.2f} Mpx/s"
            )
        for trouble in self.troubles[:TROUBLES]:
            verb = "parked" if trouble["parked"] else "failed"
            lines.append(
                f"{verb}   {trouble['name']} ({trouble['failures']} times): {trouble['error']}"
            )
        if len(self.troubles) > TROUBLES:
            lines.append(f"         ... and {len(self.troubles) - TROUBLES} more")
        return "\n".join(lines)


def read_status(sink: Sink) -> Status:
    """How the archive in ``sink`` stands, from its ledger: quick, whatever its size.

    Raises:
        StoreError: There is no archive.
    """
    if not sink.exists():
        raise StoreError(f"'{sink.place}' holds no archive. Run 'uniadrs-scale sweep' first.")
    with sink.ledger() as ledger:
        runs, troubles = ledger.runs(), ledger.troubles()
        done, records = ledger.product_count(), ledger.products()
    last = runs[0] if runs else {}
    state = "idle" if runs else "new"
    if last.get("state") == "running":
        # A sweep that died cannot say so; that nobody holds the lock does.
        state = last["state"] = "running" if sink.is_busy() else "killed"
    over = last.get("done", 0) + len(last.get("failed", {}))
    pending = max(last.get("todo", 0) - over, 0)
    worked = next((run for run in runs if run.get("done") and run.get("seconds")), None)
    pace = None if worked is None else worked["done"] / worked["seconds"]
    parked = sum(trouble["parked"] for trouble in troubles)
    return Status(
        folder=str(sink.place),
        state=state,
        done=done,
        pending=pending,
        failed=len(troubles) - parked,
        parked=parked,
        scenes_per_hour=None if pace is None else 3600 * pace,
        megapixels_per_second=None
        if worked is None
        else worked["pixels"] / 1e6 / worked["seconds"],
        eta_seconds=pending / pace if state == "running" and pace and worked is last else None,
        troubles=troubles,
        runs=runs,
        latest=_latest(sink, {name: record for name, (_, record) in records.items()}),
    )


def _latest(sink: Sink, records: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    order = sorted(records, key=lambda name: (records[name]["created"], name), reverse=True)
    latest = []
    for name in order[:LATEST]:
        picture = f"{name}/{records[name]['uniadrs:key']}/quicklook.png"
        latest.append(
            {
                "name": name,
                "created": records[name]["created"],
                "highest_score": records[name]["uniadrs:highest_score"],
                "quicklook": picture if sink.has(picture) else None,
            }
        )
    return latest


def write_page(place: Place, status: Status) -> None:
    """The status is at ``place``, as a page that needs no server; pictures by relative links."""
    running = status.state == "running"
    base = _way(place, status.folder)
    refresh = f'\n<meta http-equiv="refresh" content="{SECONDS_TO_REFRESH}">' if running else ""
    template = resources.files("uniadrs_scale.archive").joinpath("status.html").read_text("utf-8")
    text = Template(template).substitute(
        refresh=refresh,
        title=escape(f"Archive {status.folder}"),
        state=escape(_state(status)),
        figures=_figures(status),
        progress=_progress(status),
        troubles=_troubles(status),
        maps=_maps(status, base),
        runs=_runs(status),
        now=_clock(time.time()),
    )
    place.write(text.encode())


def _way(page: Place, folder: str) -> str:
    """From a page to the folder or prefix of maps, as a link."""
    scheme, found, rest = folder.partition("://")
    if page.local is not None:
        return folder if found else os.path.relpath(folder, page.local.parent)
    here, _, there = str(page).partition("://")
    if here != scheme or there.partition("/")[0] != rest.partition("/")[0]:
        return folder
    return posixpath.relpath(f"/{rest}", f"/{there.rpartition('/')[0]}")


def _figures(status: Status) -> str:
    figures: dict[str, str] = {
        "done": str(status.done),
        "pending": str(status.pending),
        "failed": str(status.failed),
        "parked": str(status.parked),
    }
    if status.scenes_per_hour is not None:
        figures["scenes an hour"] = f"{status.scenes_per_hour:.0f}"
        figures["Mpx a second"] = f"{status.megapixels_per_second:.2f}"
    return "".join(f"<div><b>{value}</b>{escape(name)}</div>" for name, value in figures.items())


def _progress(status: Status) -> str:
    todo = status.runs[0].get("todo", 0) if status.runs else 0
    if status.state != "running" or not todo:
        return ""
    share = 100 * (todo - status.pending) / todo
    return (
        f'<div class="bar"><div style="width: {share:.1f}%"></div></div>'
        f"<div>{todo - status.pending} of {todo} in this sweep{escape(_eta(status))}</div>"
    )


def _troubles(status: Status) -> str:
    if not status.troubles:
        return ""
    rows = [
        [
            t["name"],
            "parked" if t["parked"] else "failed",
            str(t["failures"]),
            _clock(t["time"]),
            t["error"],
        ]
        for t in status.troubles
    ]
    return "<h2>In trouble</h2>" + _table(["scene", "state", "times", "last", "last error"], rows)


def _maps(status: Status, base: str) -> str:
    cells = []
    for product in status.latest:
        name, picture = product["name"], product["quicklook"]
        link = quote(f"{base}/{name}/{name}.json", safe=SAFE)
        image = (
            f'<img alt="" loading="lazy" src="{quote(f"{base}/{picture}", safe=SAFE)}">'
            if picture
            else ""
        )
        cells.append(f'<a href="{link}">{image}{escape(name)}</a>')
    return f'<h2>Latest maps</h2><div class="maps">{"".join(cells)}</div>' if cells else ""


def _runs(status: Status) -> str:
    rows = [
        [
            _clock(run["started"]),
            run["state"],
            *(str(run.get(name, "")) for name in ("listed", "todo", "done")),
            str(len(run.get("failed", {}))),
            str(timedelta(seconds=round(run.get("seconds", 0)))),
            run["owner"],
        ]
        for run in status.runs
    ]
    heads = ["begun", "state", "listed", "to do", "done", "failed", "took", "by"]
    return "<h2>Sweeps</h2>" + _table(heads, rows) if rows else ""


def _table(heads: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="table"><table><tr>{top}</tr>{body}</table></div>'


def _state(status: Status) -> str:
    last = status.runs[0] if status.runs else None
    if last is None:
        return "new: no sweep yet"
    if status.state == "running":
        return f"running since {_clock(last['started'])}, {last['owner']}"
    verb = "was killed" if status.state == "killed" else last["state"]
    return f"{status.state}: the last sweep {verb}, last seen {_clock(last['seen'])}"


def _eta(status: Status) -> str:
    if status.eta_seconds is None:
        return ""
    return f", about {timedelta(seconds=round(status.eta_seconds))} left"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
