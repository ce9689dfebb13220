"""Exports of a product: those of every map, and those of the rooms above ``maps``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uniadrs_scale.core.machine import vectors
from uniadrs_scale.maps.exports import EXPORTS, Export
from uniadrs_scale.objects.files import write
from uniadrs_scale.objects.find import find
from uniadrs_scale.objects.select import Selection
from uniadrs_scale.pages.report import REPORT
from uniadrs_scale.runtime.compute import Compute

if TYPE_CHECKING:
    from collections.abc import Collection

    from uniadrs_scale.maps.exports import FinishedMap
    from uniadrs_scale.storage.places import Place

HIGHEST = 100
"""Targets of a map without levels."""


def _write_targets(finished: FinishedMap, target: Place) -> tuple[str, ...]:
    leveled = finished.opened.levels is not None
    selection = Selection() if leveled else Selection(top=HIGHEST)
    # In this thread, but for a second look: the workers are busy with the next scenes.
    table = find(
        finished.store, selection, **{"compute": Compute.of("sync"), **finished.second_look}
    )
    write(table, target)
    return () if leveled else (f"The map has no levels: its targets are the {HIGHEST} highest.",)


TARGETS = Export(
    name="targets",
    asset="targets",
    file="targets.gpkg",
    media_type="application/geopackage+sqlite3",
    roles=("data",),
    title="Targets, GeoPackage",
    write=_write_targets,
)
"""Targets at level medium; without levels those with the highest peaks."""
PRODUCT_EXPORTS = EXPORTS | {export.name: export for export in (TARGETS, REPORT)}
"""All files that a product of an archive may have besides a store and ``run.json``, by name."""


def require_libraries(formats: Collection[str]) -> None:
    """Raise PlanError if a library for these formats is not installed, before any scene is read."""
    if TARGETS.name in formats:
        vectors("Targets in the formats of a sweep")
