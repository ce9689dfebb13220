"""Targets as an export of a finished map: a file of a product of an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uniadrs_scale.maps.exports import Export
from uniadrs_scale.objects.files import write
from uniadrs_scale.objects.find import find
from uniadrs_scale.objects.select import Selection
from uniadrs_scale.runtime.compute import Compute

if TYPE_CHECKING:
    from uniadrs_scale.maps.exports import FinishedMap
    from uniadrs_scale.storage.places import Place

HIGHEST = 100
"""Targets of a map without levels."""


def _write_targets(finished: FinishedMap, target: Place) -> tuple[str, ...]:
    # In this thread: the workers are busy with the next scenes.
    leveled = finished.opened.levels is not None
    selection = Selection() if leveled else Selection(top=HIGHEST)
    table = find(finished.store, selection, compute=Compute.of("sync"))
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
