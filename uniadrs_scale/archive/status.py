"""Status of an archive as text, JSON and a page, and messages about how a sweep ended."""

from __future__ import annotations

import json
import logging
import os
import posixpath
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from jinja2 import Environment, StrictUndefined

from uniadrs_scale.archive.listing import Survey
from uniadrs_scale.core.contracts import Printed
from uniadrs_scale.errors import HIDDEN, StoreError, counted, redact
from uniadrs_scale.maps.exports import require_own_page
from uniadrs_scale.storage.remote import post_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uniadrs_scale.archive.config import Channel, Notify
    from uniadrs_scale.archive.sink import Sink
    from uniadrs_scale.storage.places import Place

LOG = logging.getLogger("uniadrs_scale.sweep")
WEBHOOK_SECONDS, COMMAND_SECONDS = 10, 60
"""How long a receiver may take: a sweep must not wait for it forever."""
LATEST, MOST_LINES, MOST_SCENES = 12, 20, 1000
"""Products shown as pictures; failures and notes listed as text; products in the table."""
PAGES = "report.html", "targets.gpkg"
"""Files that show the targets of a scene, the better one first; their modules are slow to load."""
SECONDS_TO_REFRESH = 30
COUNTS = "done", "pending", "failed", "parked"


def notify(channels: Notify, facts: Mapping[str, Any]) -> None:
    """Send ``facts`` as JSON to the channels for a complete sweep, or those for a failed one.

    A message that cannot be sent is logged, and has no other effect.
    """
    channel = channels.on_complete if facts["complete"] else channels.on_failure
    for send in (_post, _run):
        try:
            send(channel, json.dumps(facts))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            # The path of a webhook is a password in itself.
            reason = str(error).replace(urlsplit(channel.webhook or "").path or "\n", f"/{HIDDEN}")
            LOG.warning("message not sent: %s", redact(reason), extra={"event": "unsent"})


def _post(channel: Channel, text: str) -> None:
    if channel.webhook is not None:
        post_json(channel.webhook, text, WEBHOOK_SECONDS)


def _run(channel: Channel, text: str) -> None:
    if channel.command:
        # A list of arguments, never a shell: nothing in a report can become a command. Its output
        # goes to standard error, as standard output is for the report.
        subprocess.run(  # noqa: S603 - the operator's own command
            channel.command,
            input=text,
            text=True,
            check=True,
            timeout=COMMAND_SECONDS,
            stdout=sys.__stderr__,
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Status(Printed):
    """State of an archive."""

    folder: str
    state: str
    """``running``, ``idle``, ``killed`` (the latest sweep died), or ``new`` (no sweep yet)."""
    done: int
    """Products in the sink."""
    pending: int
    """Scenes that the present sweep, or the latest one, has not reached."""
    failed: int
    """Scenes that will be tried again."""
    parked: int
    """Scenes given up: `retry` tries them again."""
    scenes_per_hour: float | None
    """Speed of the latest sweep that made a product."""
    megapixels_per_second: float | None
    eta_seconds: float | None
    """Until the present sweep has reached every scene."""
    troubles: list[dict[str, Any]]
    """Scenes that failed: name, failures, interruptions, error, parked, time."""
    notes: dict[str, list[str]]
    """Notes about scenes whose map may mislead, by name."""
    runs: list[dict[str, Any]]
    """The latest sweeps, the last one first."""
    latest: list[dict[str, Any]]
    """The first of :attr:`scenes`, with their quicklook: a relative path or None."""
    scenes: list[dict[str, Any]]
    """The latest products: name, folder, times made and acquired, number of targets (None if the
    sweep does not list them), highest score, relative path of the report or the list, or None."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return the status for people, one line per fact."""
        lines = [f"archive  {self.folder}", f"state    {self.state_text()}"]
        lines += [f"{name:<8} {getattr(self, name)}" for name in COUNTS]
        lines[3] += self.eta_text()
        if self.scenes_per_hour is not None:
            lines.append(
                f"speed    {self.scenes_per_hour:.0f} scenes per hour, "
                f"{self.megapixels_per_second:.2f} Mpx/s"
            )
        lines += _first(
            f"{_verb(trouble)}   {trouble['name']} ({counted(trouble['failures'], 'time')}): "
            f"{trouble['error']}"
            for trouble in self.troubles
        )
        lines += _first(
            f"note     {name}: {note}" for name, notes in self.notes.items() for note in notes
        )
        return "\n".join(lines)

    def state_text(self) -> str:
        """Return the state and the latest sweep, for people."""
        if not self.runs:
            return "new: no sweep yet"
        last = self.runs[0]
        if self.state == "running":
            return f"running since {_clock(last['started'])}, {last['owner']}"
        verb = {"killed": "was killed", "broken": "ended early"}.get(last["state"], last["state"])
        why = f": {last['error']}" if last.get("error") else ""
        return f"{self.state}: the last sweep {verb}, last seen {_clock(last['seen'])}{why}"

    def eta_text(self) -> str:
        """Return the time left, for people; empty if unknown."""
        if self.eta_seconds is None:
            return ""
        return f", about {_took(self.eta_seconds)} left"


def _first(lines: Any) -> list[str]:
    """Return the first lines, and how many more there are."""
    found = list(lines)
    more = [f"         ... and {len(found) - MOST_LINES} more"] if len(found) > MOST_LINES else []
    return found[:MOST_LINES] + more


def read_status(sink: Sink) -> Status:
    """Return the status of the archive in ``sink``, from its ledger and a look at its files.

    While a sweep holds the sink, its index says what is there.

    Raises:
        StoreError: The sink holds no archive.
    """
    if not sink.exists():
        raise StoreError(
            f"'{sink.place}' holds no archive, or has lost its ledger. Run 'uniadrs-scale sweep' "
            "first: it keeps the maps that are there."
        )
    with sink.ledger() as ledger:
        runs, troubles, index = ledger.runs(), ledger.troubles(), ledger.products()
    busy = sink.is_busy()
    found = Survey() if busy else sink.survey(index)
    records = {name: record for name, (_, record) in index.items()} if busy else found.products
    order = sorted(records, key=lambda name: (records[name]["created"], name), reverse=True)
    scenes = [_scene(name, records[name]) for name in order[:MOST_SCENES]]
    last = runs[0] if runs else {}
    state = "idle" if runs else "new"
    if last.get("state") == "running":
        # A sweep that was killed could not note it, but it does not hold the lock any more.
        state = last["state"] = "running" if busy else "killed"
    refused = last.get("refused", [])
    plain = {"failures": 0, "interruptions": 0, "parked": False, "time": last.get("seen")}
    troubles += [{"name": name, **plain, "error": last["failed"][name]} for name in refused]
    over = last.get("done", 0) + len(last.get("failed", {})) - len(refused)
    pending = max(last.get("todo", 0) - over, 0)
    worked = next((run for run in runs if run.get("done") and run.get("seconds")), None)
    pace = speed = None
    if worked is not None:
        pace, speed = (worked[name] / worked["seconds"] for name in ("done", "pixels"))
    parked = sum(trouble["parked"] for trouble in troubles)
    return Status(
        folder=str(sink.place),
        state=state,
        done=len(records),
        pending=pending,
        failed=len(troubles) - parked,
        parked=parked,
        scenes_per_hour=None if pace is None else 3600 * pace,
        megapixels_per_second=None if speed is None else speed / 1e6,
        eta_seconds=pending / pace if state == "running" and pace and worked is last else None,
        troubles=troubles,
        notes={name: record["notes"] for name, record in records.items() if record.get("notes")}
        | {name: [why] for name, (why, _) in found.damaged.items()},
        runs=runs,
        latest=[scene | {"quicklook": _quicklook(sink, scene)} for scene in scenes[:LATEST]],
        scenes=scenes,
    )


def _scene(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    folder = f"{name}/{record['uniadrs:key']}"
    pages = [file for file in PAGES if file in record["files"]]
    return {
        "name": name,
        "folder": folder,
        "created": record["created"],
        "acquired": record["datetime"],
        "targets": record.get("targets"),
        "highest_score": record["uniadrs:highest_score"],
        "page": f"{folder}/{pages[0]}" if pages else None,
    }


def _quicklook(sink: Sink, scene: Mapping[str, Any]) -> str | None:
    path = f"{scene['folder']}/quicklook.png"
    return path if sink.place.child(path).exists() else None


def write_page(place: Place, status: Status) -> None:
    """Write the status to ``place`` as a page that needs no server; its links are relative.

    Raises:
        StoreError: It cannot be written, is not named as a page, or there is another file.
    """
    require_own_page(place, "a status page", sign=b"<title>Archive ")
    base = _link_base(place, status.folder)

    def link(path: str | None) -> str:
        return quote(f"{base}/{path}", safe="/:") if path else ""

    def shown(product: dict[str, Any]) -> dict[str, Any]:
        return product | {
            "item": link("{name}/{name}.json".format(**product)),
            "page": link(product["page"]),
            "picture": link(product.get("quicklook")),
            "acquired": str(product["acquired"])[:16].replace("T", " "),
        }

    # Escapes whatever metadata and error messages hold.
    pages = Environment(autoescape=True, undefined=StrictUndefined)
    pages.filters |= {"clock": _clock, "verb": _verb, "took": _took}
    template = resources.files("uniadrs_scale.archive").joinpath("status.html").read_text("utf-8")
    text = pages.from_string(template).render(
        status=status,
        refresh=SECONDS_TO_REFRESH,
        maps=[shown(product) for product in status.latest],
        scenes=[shown(scene) for scene in status.scenes],
        now=_clock(time.time()),
    )
    place.write(text.encode())


def _took(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _link_base(page: Place, folder: str) -> str:
    """Return the link from a page to the folder or prefix of maps."""
    scheme, found, rest = folder.partition("://")
    if page.local is not None:
        return folder if found else os.path.relpath(folder, page.local.parent)
    here, _, there = page.text.partition("://")
    if here != scheme or there.partition("/")[0] != rest.partition("/")[0]:
        return folder
    return posixpath.relpath(f"/{rest}", f"/{there.rpartition('/')[0]}")


def _verb(trouble: Mapping[str, Any]) -> str:
    return "parked" if trouble["parked"] else "failed" if trouble["failures"] else "refused"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
