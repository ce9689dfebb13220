"""The scene of a map: cut to the part that was scored, and checked to be that scene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import xarray as xr

from uniadrs_scale.errors import StoreError
from uniadrs_scale.scenes.crop import crop_again
from uniadrs_scale.scenes.given import scene_of
from uniadrs_scale.scenes.grids import same_crs, same_transform
from uniadrs_scale.scenes.sources import scene_source
from uniadrs_scale.storage.urls import uri_name

if TYPE_CHECKING:
    from uniadrs_scale.core.contracts import SceneInfo, SceneSource
    from uniadrs_scale.maps.facts import MapFacts
    from uniadrs_scale.maps.finished import RasterMap
    from uniadrs_scale.maps.store import ScoreMap


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredScene:
    """A scene with the pixels of a map."""

    array: xr.DataArray
    source: SceneSource
    notes: tuple[str, ...]
    """Sentences about what could not be compared."""

    @property
    def info(self) -> SceneInfo:
        """The facts of the scene."""
        return self.source.info


def scored_scene(scene: Any, opened: ScoreMap | RasterMap) -> ScoredScene:
    """Return the scene of a map, which `score` would take; a map of a part knows which part it is.

    A scene has the name that the map says, if it has the pixels that the map says.

    Raise SceneError if it is not a scene, StoreError if the map is that of another one.
    """
    if not isinstance(scene, xr.DataArray) or {*scene.dims} - {"band", "y", "x"}:
        scene = scene_of(scene)
    facts, source = opened.facts, scene_source(scene)
    identity = facts.plan.get("scene", {}).get("identity", "")
    size = source.info.height, source.info.width
    if facts.parts and source.info.identity != identity and size == facts.parts[0].whole:
        scene = crop_again(scene, facts.parts)
        source = scene_source(scene)
    if source.info.identity == identity and facts.scene:
        scene = scene.rename(facts.scene)
        named = replace(cast("Any", source), info=replace(source.info, name=facts.scene))
        source = cast("SceneSource", named)
    _require_same_shape(source.info, opened, facts)
    _require_same_place(source.info, opened)
    notes = _notes(source.info, identity, opened.name, facts)
    return ScoredScene(array=scene, source=source, notes=notes)


def _require_same_shape(info: SceneInfo, opened: ScoreMap | RasterMap, facts: MapFacts) -> None:
    """Raise StoreError if a scene and a map differ in size."""
    height, width = opened.geobox.shape
    if (info.height, info.width) == (height, width):
        return
    part = f" ({facts.parts[0]})" if facts.parts else ""
    raise StoreError(
        f"'{uri_name(opened.name)}' is the map of {facts.scene or 'another scene'}, {height} x "
        f"{width} px{part}, but scene '{info.name}' has {info.height} x {info.width} px. Pass the "
        "scene that was scored, opened with the same options; for a swath pass the Zarr store, "
        "because its COG is on another grid."
    )


def _require_same_place(info: SceneInfo, opened: ScoreMap | RasterMap) -> None:
    """Raise StoreError if a scene and a map are at other places on the ground."""
    here = opened.geobox
    if info.crs is None or info.transform is None or here.crs is None:
        return
    size, transform = (info.height, info.width), tuple(here.affine)[:6]
    if not same_crs(here.crs.to_wkt(), info.crs) or not same_transform(
        transform, info.transform, size
    ):
        raise StoreError(
            f"'{uri_name(opened.name)}' is the map of {opened.facts.scene or 'another scene'}, at "
            f"another place on the ground than scene '{info.name}'. Pass the scene that was scored."
        )


def _notes(info: SceneInfo, identity: str, name: str, facts: MapFacts) -> tuple[str, ...]:
    """Return what could not be compared; raise StoreError if the names of the scenes differ."""
    if info.identity == identity:
        return ()
    if facts.scene not in ("", info.name):
        raise StoreError(
            f"'{uri_name(name)}' is the map of scene '{facts.scene}', got scene '{info.name}'. "
            "Pass the scene that was scored, opened with the same options. If it was moved, give "
            f"it the name of the map in Python: open_scene(...).rename({facts.scene!r})."
        )
    if not identity:
        return ()
    note = (
        f"The fingerprint of scene '{info.name}' is not that of the scene that was scored: the "
        "file was moved or changed, or other bands were chosen."
    )
    return (note,)
