"""Products: from a scene to its files and its item, and the report of a sweep."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from signal import Signals
from typing import TYPE_CHECKING, Any

from pystac.utils import datetime_to_str

from uniadrs_scale.archive.decide import Action
from uniadrs_scale.archive.exports import TARGETS
from uniadrs_scale.archive.sink import ITEM
from uniadrs_scale.archive.stac import make_item, wanted_exports
from uniadrs_scale.core.contracts import Printed, layers_of
from uniadrs_scale.core.layers import SCORE
from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.detector.detector import weights_digest
from uniadrs_scale.errors import ArchiveError, PlanError, SceneError, counted
from uniadrs_scale.maps.exports import FinishedMap
from uniadrs_scale.maps.store import is_score_store, open_store
from uniadrs_scale.objects.second_look import SecondLook
from uniadrs_scale.pages.report import REPORT
from uniadrs_scale.scenes.open import open_scene
from uniadrs_scale.scenes.preview import scene_picture
from uniadrs_scale.scoring.job import prepare
from uniadrs_scale.scoring.report import Clock, run_facts, write_report
from uniadrs_scale.scoring.run import Observer, run
from uniadrs_scale.storage.places import Place
from uniadrs_scale.storage.urls import public_uri
from uniadrs_scale.swaths.geometry import Geocoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import xarray as xr

    from uniadrs_scale.archive.config import ArchiveConfig
    from uniadrs_scale.archive.decide import Decision, SourceItem
    from uniadrs_scale.archive.sink import Workplace
    from uniadrs_scale.core.contracts import Scorer
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.runtime.compute import Compute
    from uniadrs_scale.runtime.tasks import ChunkReport
    from uniadrs_scale.scoring.job import Job
    from uniadrs_scale.scoring.report import RunSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A product to make: which, how, where, and a function that hears of each chunk."""

    decision: Decision
    config: ArchiveConfig
    detector: Scorer
    compute: Compute
    workplace: Workplace
    on_report: Callable[[ChunkReport], None]
    accept_incomplete: bool
    """True if a map with failed tiles is better than none."""


class IncompleteError(SceneError):
    """Some tiles have no score."""


def open_item(item: SourceItem, options: Mapping[str, Any]) -> xr.DataArray:
    """Return the scene of an item, with its date. Nothing else in a sweep opens pixels.

    Raises:
        SceneError: It cannot be opened.
    """
    if item.fault:
        raise SceneError(item.fault)
    hrefs = item.hrefs[0] if len(item.hrefs) == 1 else list(item.hrefs)
    scene = open_scene(item.product or hrefs, **options)
    if not item.dated_by and not scene.attrs.get("datetime"):
        scene.attrs["datetime"] = datetime_to_str(item.when)
    return scene


def require_some_scene(items: Iterable[SourceItem], options: Mapping[str, Any]) -> None:
    """Raise ArchiveError if scenes can be opened, but none with these options."""
    reason = ""
    for item in items:
        try:
            open_item(item, options)
        except SceneError as error:
            with suppress(SceneError):
                open_item(item, {})
                reason = reason or str(error)
        else:
            return
    if reason:
        raise ArchiveError(f"No scene can be opened with the options of 'scene': {reason}")


def require_scorer(config: ArchiveConfig, scorer: Scorer) -> None:
    """Raise PlanError if no scene could have its product by ``scorer``, before any is scored."""
    Sizes(**config.plan.given).require_free(getattr(scorer, "tiling", None))
    layers = layers_of(scorer)
    formats = [name for name in config.output.formats if name in (TARGETS.name, REPORT.name)]
    if formats and SCORE not in layers:
        raise PlanError(
            f"output.formats {', '.join(formats)} need an anomaly score, but the layers of the "
            f"scorer are {', '.join(layer.name for layer in layers)}. Use cog and zarr only."
        )


def prepare_order(order: Order) -> Job:
    """Open the scene and plan it; remove a store of another plan in its place."""
    config = order.config
    scene = open_item(order.decision.item, config.scene)
    job = prepare(scene, Sizes(**config.plan.given), order.detector, order.compute)
    store = order.workplace.store
    store.remove_leftovers()
    # The same product under another path, say a new mount point, has another plan.
    if store.has_store() and not (
        is_score_store(store)
        and open_store(store).attributes.get("fingerprint") == job.plan.fingerprint
    ):
        store.remove_store()
    return job


def make_product(order: Order, job: Job) -> RunSummary:
    """Score the scene and make all files of its product, the item last; publish nothing yet.

    Raises:
        IncompleteError: Tiles have failed, and that is not accepted; the next try does just those.
    """
    config, store, part = order.config, order.workplace.store, order.workplace.files
    clock = Clock()
    report = Place.of(part / "run.json")
    observer = Observer(on_report=order.on_report, report=report, companions=False)
    summary = run(job, store, order.compute, observer)
    if not (summary.complete or order.accept_incomplete):
        raise IncompleteError(_what_is_missing(summary))
    look = _second_look(order) if config.output.second_look else {}
    finished = FinishedMap(store, Geocoding(), lambda side: scene_picture(job.source, side), look)
    with clock("overview"):
        _ = finished.overview
    notes = summary.notes
    for export in wanted_exports(config.output):
        with clock(export.name):
            notes += export.write(finished, Place.of(part / export.file))
    write_report(report, _run_facts(order, job.plan, summary, clock.seconds))
    item = make_item(
        order.decision, job.plan, part, output=config.output, finished=finished, notes=notes
    )
    Place.of(part / ITEM).write(json.dumps(item, indent=1, allow_nan=False).encode())
    return summary


def _second_look(order: Order) -> dict[str, Any]:
    """Return the arguments of a search that scores the surroundings of its targets again."""
    scene = open_item(order.decision.item, order.config.scene)
    return {"scene": scene, "again": SecondLook(order.detector), "compute": order.compute}


def _what_is_missing(summary: RunSummary) -> str:
    reasons = [failure.reason for failure in summary.failures] or list(summary.lost)
    failed, lost = counted(len(summary.failures), "tile"), counted(len(summary.lost), "chunk")
    return f"{failed} failed, {lost} lost: {reasons[0]}"


def _run_facts(
    order: Order, plan: ScorePlan, summary: RunSummary, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Return the content of ``run.json``: that of any run, and what only a sweep knows."""
    item, facts = order.decision.item, run_facts(plan, summary, weights_digest(order.detector))
    return {
        "item": {
            "id": item.id,
            "href": public_uri(item.href),
            "hrefs": [public_uri(href) for href in item.hrefs],
        },
        "why": order.decision.reason,
        **facts,
        "fingerprint": order.decision.fingerprint.to_dict(),
        "options": {
            "scene": order.config.scene,
            "detector": order.config.detector,
            "plan": order.config.plan.given,
        },
        "seconds": {
            **facts["seconds"],
            **seconds,
            "total": round(facts["seconds"]["total"] + sum(seconds.values()), 3),
        },
    }


@dataclass(slots=True, kw_only=True, repr=False)
class SweepReport(Printed):
    """The decisions and results of a sweep."""

    decisions: tuple[Decision, ...] = ()
    left_out: int = 0
    """Items that the filters exclude."""
    done: list[str] = field(default_factory=list)
    """Scenes that have a new product."""
    incomplete: list[str] = field(default_factory=list)
    """Scenes among them with failed tiles."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Notes about scenes among them whose map may mislead."""
    failed: dict[str, str] = field(default_factory=dict)
    """Scenes that failed in this sweep, and why; also those in ``refused``."""
    refused: list[str] = field(default_factory=list)
    """Scenes that were not tried: several have one id, or a damaged one is not in the source."""
    parked: list[str] = field(default_factory=list)
    """Scenes among them that will not be tried again."""
    removed: list[str] = field(default_factory=list)
    """Products that retention removed."""
    signal: int = 0
    """The signal that ended the sweep early; 0 for none."""
    pixels: int = 0
    seconds: float = 0.0

    @property
    def todo(self) -> int:
        """Number of products to make."""
        return sum(decision.action is Action.SCORE for decision in self.decisions)

    @property
    def complete(self) -> bool:
        """True if everything that was to do is done."""
        return not self.failed and not self.signal

    @property
    def exit_code(self) -> int:
        """0 complete, 1 a scene failed, 128 + signal if a signal ended the sweep."""
        return 128 + self.signal if self.signal else int(bool(self.failed))

    def facts(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = ("todo", "incomplete", "notes", "failed", "refused", "parked", "removed")
        return {
            "listed": len(self.decisions),
            "left_out": self.left_out,
            "decided": count(self.decisions),
            "done": len(self.done),
            **{name: getattr(self, name) for name in (*plain, "signal", "pixels")},
            "seconds": round(self.seconds, 1),
            "complete": self.complete,
        }

    def counts(self) -> str:
        """Return the decisions by action, for people."""
        found = count(self.decisions).items()
        return ", ".join(f"{number} {action}" for action, number in found if number) or "nothing"

    def text(self) -> str:
        """Return the closing summary, one line per fact."""
        speed = f"{self.pixels / 1e6:.2f} Mpx in {self.seconds:.1f} s"
        lines = [
            f"listed   {counted(len(self.decisions), 'item')}, {self.left_out} excluded by filters",
            f"decided  {self.counts()}",
            f"done     {len(self.done)} of {self.todo}, {speed}",
        ]
        lines += [f"removed  {name}: older than keep_days" for name in self.removed]
        lines += [f"partial  {name}: tiles failed, see its run.json" for name in self.incomplete]
        lines += [f"note     {name}: {note}" for name, all_ in self.notes.items() for note in all_]
        for name, reason in self.failed.items():
            lines.append(f"{'parked' if name in self.parked else 'failed'}   {name}: {reason}")
        if self.signal:
            lines.append(f"ended by {Signals(self.signal).name}: the same command resumes")
        return "\n".join(lines)


def count(decisions: Iterable[Decision]) -> dict[str, int]:
    """Return the number of decisions by action, with all actions."""
    found = Counter(decision.action for decision in decisions)
    return {str(action): found[action] for action in Action}
