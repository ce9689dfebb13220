"""Exports of a product: those of every map, and those of the rooms above ``maps``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uniadrs_scale.maps.exports import EXPORTS
from uniadrs_scale.objects.export import TARGETS
from uniadrs_scale.objects.extra import vectors

if TYPE_CHECKING:
    from collections.abc import Collection

PRODUCT_EXPORTS = EXPORTS | {export.name: export for export in (TARGETS,)}
"""All files that a product of an archive may have besides a store and ``run.json``, by name."""


def require_libraries(formats: Collection[str]) -> None:
    """Raise PlanError if a library for these formats is not installed, before any scene is read."""
    if TARGETS.name in formats:
        vectors("Targets in the formats of a sweep")
