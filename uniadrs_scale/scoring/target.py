"""The target of a run: a Zarr store, or a file that is made from a hidden one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uniadrs_scale.errors import PlanError, StoreError
from uniadrs_scale.maps.exports import EXPORTS
from uniadrs_scale.maps.new_store import require_same_plan
from uniadrs_scale.maps.store import DONE, open_store
from uniadrs_scale.scenes.rasters import raster_tag
from uniadrs_scale.scenes.sources import stores_of
from uniadrs_scale.storage.places import Place
from uniadrs_scale.swaths.geometry import Geocoding

if TYPE_CHECKING:
    from uniadrs_scale.core.contracts import SceneInfo, SceneSource
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.maps.exports import Export


@dataclass(frozen=True, slots=True)
class Target:
    """A place for a map, and the store that a run writes: the same for Zarr.

    The store of a file is hidden next to it. An interrupted run resumes from it; it is removed when
    the file is complete.
    """

    place: Place
    store: Place
    export: Export | None
    """How the file is made; None for Zarr."""
    drawn: Geocoding
    overwrite: bool = False
    """Whether the map of another scene or plan is replaced."""

    @classmethod
    def of(
        cls, output: str | Path | Place, drawn: Geocoding | None = None, *, overwrite: bool = False
    ) -> Target:
        """Return the target that ``output`` names; ``drawn`` is for the COG of a swath.

        Raises:
            StoreError: The format is unknown, or the name cannot be used.
        """
        place = Place.of(output)
        place.require_name()
        geocoding = drawn or Geocoding()
        if place.suffix == ".zarr":
            return cls(place, place, None, geocoding, overwrite)
        for export in EXPORTS.values():
            if place.suffix in export.suffixes:
                hidden = place.beside(f".{place.name}.zarr")
                return cls(place, hidden, export, geocoding, overwrite)
        files = [export.suffixes[0] for export in EXPORTS.values() if export.suffixes]
        known = " or ".join([".zarr", *files])
        raise StoreError(f"Output '{output}' has no known format. Let it end in {known}.")

    def require_drawable(self, scene: SceneInfo) -> None:
        """Refuse geocoding options that have no effect.

        Raises:
            PlanError: The scene is not a swath, or the target is a Zarr store.
        """
        if self.drawn != Geocoding() and (self.export is None or not scene.geolocation):
            raise PlanError(
                f"CRS, resolution and resampling ({self.drawn.text}) are for the COG of a swath, "
                f"got scene '{scene.name}' and target '{self.place.name}'. Drop these options; a "
                "map on a grid can be warped afterwards (rio warp)."
            )

    def require_apart(self, source: SceneSource) -> None:
        """Raise StoreError if it is in a Zarr store of the scene, which it would change."""
        if self.place.local is None:
            return
        real = Path(os.path.realpath(self.place.local))
        for path in stores_of(source):
            if real.is_relative_to(os.path.realpath(path)):
                raise StoreError(
                    f"Output '{self.place}' is inside the scene '{path}', and would change it. "
                    "Choose another output path."
                )

    def is_finished(self, plan: ScorePlan, drawn: Geocoding | None = None) -> bool:
        """Return True if the file is the whole map of this plan, drawn as wanted.

        Raises:
            StoreError: It is another file, or drawn otherwise; to overwrite: it is not a map.
        """
        if self.export is None or not self.place.exists():
            return False
        found = raster_tag(self.place.text, "fingerprint")
        if found != plan.fingerprint:
            if self.overwrite and found is not None:
                return False
            what = "a map" if found is None else "the map of this scene and plan"
            advice = "" if found is None else ", or use --overwrite (overwrite=True)"
            raise StoreError(
                f"'{self.place}' exists and is not {what}. Choose another output path{advice}."
            )
        if self.store.has_store():
            return False
        was = raster_tag(self.place.text, "geocoding") if drawn else None
        if not drawn or was in (None, drawn.text):
            return True
        if self.overwrite:
            return False
        raise StoreError(
            f"'{self.place}' is the map of this scene and plan, but on another grid ({was}, now "
            f"{drawn.text}). Choose another output path, or use --overwrite (overwrite=True)."
        )

    def begin(self, plan: ScorePlan) -> bool:
        """Return True if a run finds no store; one of another plan goes first, if that is wanted.

        Raises:
            StoreError: Something is there that is not a score store.
        """
        if self._holds_other(plan):
            self.store.remove_store()
        return not self.store.has_store()

    def _holds_other(self, plan: ScorePlan) -> bool:
        """Return True if there is a store of another plan that is to be replaced."""
        if not (self.overwrite and self.store.has_store()):
            return False
        return bool(open_store(self.store).attributes.get("fingerprint") != plan.fingerprint)

    def state(self, plan: ScorePlan) -> str:
        """Return a sentence about what a run of ``plan`` would find.

        Raises:
            PlanError: A geocoding option has no effect.
            StoreError: The target cannot be written, or holds another map.
        """
        self.require_drawable(plan.scene)
        if self.is_finished(plan, self.drawn):
            return f"{self.place} is complete: nothing to do"
        self.place.require_writable()
        if self._holds_other(plan) or (self.place.exists() and not self.store.has_store()):
            return f"{self.place} holds another map, which is replaced"
        if not self.store.has_store():
            return f"{self.place} is new"
        done = require_same_plan(open_store(self.store), plan).done == DONE
        complete = f"{int(done.sum())} of {done.size} chunks are complete"
        return f"{self.place}: {complete}, the rest is resumed"
