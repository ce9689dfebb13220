"""The product of one scene, from opening its files to its item."""

from __future__ import annotations

import json
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uniadrs_scale.archive.sink import ITEM
from uniadrs_scale.archive.stac import make_item
from uniadrs_scale.detector.detector import weights_digest
from uniadrs_scale.errors import SceneError
from uniadrs_scale.maps.cog import to_cog
from uniadrs_scale.maps.overviews import Overview
from uniadrs_scale.maps.store import is_score_store, open_map, open_store
from uniadrs_scale.scenes.open import open_scene
from uniadrs_scale.scoring.output import run_to_file
from uniadrs_scale.scoring.report import Clock, run_facts, write_report
from uniadrs_scale.scoring.score import plan as make_plan
from uniadrs_scale.storage.places import Place
from uniadrs_scale.storage.remote import public_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import xarray as xr

    from uniadrs_scale.archive.config import ArchiveConfig
    from uniadrs_scale.archive.decide import Decision, SourceItem
    from uniadrs_scale.archive.sink import Workplace
    from uniadrs_scale.core.contracts import Scorer
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.runtime.tasks import ChunkReport
    from uniadrs_scale.scoring.report import RunSummary


_FILTERS = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A product to make: which, how, where, and a function that hears of each chunk."""

    decision: Decision
    config: ArchiveConfig
    detector: Scorer
    workplace: Workplace
    on_report: Callable[[ChunkReport], None]
    accept_incomplete: bool
    """True if a map with failed tiles is better than none."""


class IncompleteError(SceneError):
    """Some tiles have no score."""


def open_item(item: SourceItem, options: Mapping[str, Any]) -> xr.DataArray:
    """Return the scene of an item. Nothing else in a sweep opens pixels.

    Raises:
        SceneError: It cannot be opened.
    """
    if item.fault:
        raise SceneError(item.fault)
    hrefs = item.hrefs[0] if len(item.hrefs) == 1 else list(item.hrefs)
    return open_scene(hrefs, **options)


def plan_order(order: Order) -> tuple[xr.DataArray, ScorePlan]:
    """Open the scene and plan it; remove a store of another plan in its place."""
    config = order.config
    scene = open_item(order.decision.item, config.scene)
    plan = make_plan(
        scene, detector=order.detector, scheduler=config.scheduler, workers=config.workers,
        **config.plan.given,
    )  # fmt: skip
    store = order.workplace.store
    store.remove_leftovers()
    # The same product under another path, say a new mount point, has another plan.
    if store.has_store() and not (
        is_score_store(store)
        and open_store(store).attributes.get("fingerprint") == plan.fingerprint
    ):
        store.remove_store()
    return scene, plan


def make_product(order: Order, scene: xr.DataArray, plan: ScorePlan) -> RunSummary:
    """Score ``scene`` and make all files of its product, the item last; publish nothing yet.

    Raises:
        IncompleteError: Tiles have failed, and that is not accepted; the next try does just those.
    """
    config, store, part = order.config, order.workplace.store, order.workplace.files
    clock = Clock()
    summary = run_to_file(
        scene, store, plan, order.detector, scheduler=config.scheduler,
        on_report=order.on_report, report=Place.of(part / "run.json"),
    )  # fmt: skip
    if not (summary.complete or order.accept_incomplete):
        raise IncompleteError(_what_is_missing(summary))
    with clock("overview"):
        overview = Overview.of(open_map(store).array())
        if config.output.quicklook:
            overview.write_png(part / "quicklook.png")
    if "cog" in config.output.formats:
        with clock("cog"):
            _to_cog(store, part / "scores.tif", complete=summary.complete)
    write_report(Place.of(part / "run.json"), _run_facts(order, plan, summary, clock.seconds))
    item = make_item(
        order.decision,
        plan,
        part,
        output=config.output,
        statistics=overview.statistics,
        notes=summary.notes,
    )
    Place.of(part / ITEM).write(json.dumps(item, indent=1, allow_nan=False).encode())
    return summary


def _to_cog(store: Place, path: Path, *, complete: bool) -> None:
    if complete:
        to_cog(store, path)
        return
    # An incomplete map has been accepted. Filters of warnings belong to all threads: one at a time,
    # or another thread would restore the filters that it found.
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        to_cog(store, path)


def _what_is_missing(summary: RunSummary) -> str:
    reasons = [failure.reason for failure in summary.failures] or list(summary.lost)
    tiles, chunks = len(summary.failures), len(summary.lost)
    return f"{tiles} tiles failed, {chunks} chunks were lost: {reasons[0]}"


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
