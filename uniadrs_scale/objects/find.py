"""Targets of a finished map: chunks are searched on the same executors that score them.

The map is read once. A chunk returns its objects and the components that may go on in another
chunk; these are joined here, and the table is made by rank. The result is in memory until it is
written, about 2 kB per target, so that an interrupted search begins again: it takes a small part of
the time of scoring (docs/targets.md).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Unpack, cast

import numpy as np
from pyproj import CRS

from uniadrs_scale.core.arguments import require_flag
from uniadrs_scale.core.lattice import Window, pieces
from uniadrs_scale.core.levels import score_text
from uniadrs_scale.core.memory import MIB, PROCESS_BYTES, give_freed_memory_back
from uniadrs_scale.errors import PlanError, StoreError
from uniadrs_scale.maps.finished import open_finished, open_scores
from uniadrs_scale.maps.store import ScoreMap
from uniadrs_scale.objects.components import BOX, find_components
from uniadrs_scale.objects.ground import degrees_text, ground_of
from uniadrs_scale.objects.measures import contrasts_of, view_of
from uniadrs_scale.objects.merge import merge
from uniadrs_scale.objects.scored import scored_scene
from uniadrs_scale.objects.select import Options, Selection
from uniadrs_scale.objects.table import TargetTable, choose, tabulate
from uniadrs_scale.runtime.compute import Compute
from uniadrs_scale.runtime.graph import compute_each
from uniadrs_scale.scoring.report import IncompleteWarning, SceneWarning
from uniadrs_scale.storage.trust import require_proj

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import Scorer
    from uniadrs_scale.maps.finished import RasterMap
    from uniadrs_scale.objects.components import ChunkObjects, Columns, Cut
    from uniadrs_scale.objects.ground import Ground
    from uniadrs_scale.objects.second_look import SecondLook
    from uniadrs_scale.runtime.worker import Shared
    from uniadrs_scale.scoring.job import Scene
    from uniadrs_scale.storage.places import Place

CHUNK = 2048
"""Side of the windows in which a COG is read [px]."""
MOST_CHUNK = 4096
"""Side of the windows in which a store with larger shards is read [px]."""
SMALL = 64_000_000
"""Pixels of a map for which starting processes takes longer than it saves."""
PIXEL_BYTES = 24
"""Memory per pixel of a chunk: score, masks, labels, and their copies for the highest score."""


@dataclass(eq=False)
class Search:
    """A map and what makes its objects: the value that all tasks share."""

    path: str
    cut: Cut
    opened: ScoreMap | RasterMap | None = field(default=None, repr=False)

    def __reduce__(self) -> tuple[type[Search], tuple[str, Cut]]:
        return Search, (self.path, self.cut)

    def prepare(self) -> None:
        """Open the map in a worker."""
        self.opened = open_finished(self.path)

    def objects(self, window: Window) -> ChunkObjects:
        """Return the objects of a chunk."""
        opened = cast("ScoreMap | RasterMap", self.opened)
        shape = cast("tuple[int, int]", opened.geobox.shape)
        try:
            return find_components(scores(opened, window), window, shape, self.cut)
        finally:
            give_freed_memory_back()


def targets(
    map_path: str | Path | Place,
    scene: Scene | None = None,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    second_look: bool = False,
    detector: Scorer | str | Path | None = None,
    **selection: Unpack[Options],
) -> Any:
    """Return the targets in a finished map as a geopandas.GeoDataFrame, by rank.

    Args:
        map_path: A score store (Zarr) or COG that :func:`uniadrs_scale.score` wrote, by path or
            URL.
        scene: The scene of this map, as :func:`uniadrs_scale.score` takes it, also if a part of it
            was scored; with it, columns ``contrast_BAND`` say why a target was found.
        scheduler: As :func:`uniadrs_scale.score`; by default threads for up to 64 megapixels.
        workers: As :func:`uniadrs_scale.score`.
        second_look: True to score the surroundings of each peak again, with shifted tiles: a
            column ``support`` says which targets are found again. Needs ``scene``.
        detector: The scorer of the map, for ``second_look``; as :func:`uniadrs_scale.score`.
        selection: One of ``level`` (low, medium or high; by default medium), ``threshold`` (0..1),
            ``top`` (number) and ``false_alarms`` (per megapixel); ``grow`` (0..1), ``min_area`` and
            ``max_area`` [m2], ``aoi`` and ``exclude`` (vector file or GeoDataFrame), ``buffer`` of
            ``exclude`` [m], ``geometry`` (polygon, point or box).

    Returns:
        One row per target, in the CRS of the map (a swath's in degrees); the columns are described
        in docs/targets.md. ``attrs`` hold its provenance.

    Raises:
        PlanError: The options cannot be used, or geopandas is not installed.
        StoreError: The map is missing, damaged, or that of another scene.
    """
    require_flag("second_look", second_look)
    # Not at the head: it loads torch, and without a second look nothing else does.
    second = import_module("uniadrs_scale.objects.second_look") if second_look else None
    again = None if second is None else second.SecondLook.of(detector)
    compute = compute_of(scheduler, workers, again)
    chosen = Selection(**selection)
    table = find(map_path, chosen, scene=scene, compute=compute, again=again)
    for text in filter(None, (table.missing, table.empty_because, *table.notes)):
        kind = IncompleteWarning if text == table.missing else SceneWarning
        warnings.warn(text, kind, stacklevel=2)
    return table.to_geopandas()


def compute_of(
    scheduler: str | None, workers: int | None, again: SecondLook | None
) -> Compute | None:
    """Return the processes that a caller asks for, None if the map decides."""
    if (scheduler, workers) == (None, None):
        return None
    return (Compute.of if again is None else again.compute)(scheduler, workers)


def find(
    map_path: str | Path | Place,
    selection: Selection | None = None,
    *,
    scene: Scene | None = None,
    compute: Compute | None = None,
    chunk: int | None = None,
    again: SecondLook | None = None,
) -> TargetTable:
    """Return the targets in a finished map.

    Args:
        map_path: A store or COG.
        selection: The choice of targets; by default the level ``medium``.
        scene: The scene of this map, or the larger one of which it shows a part, for contrasts.
        compute: Processes that search; by default threads for a small map, else one per core.
        chunk: Side of a chunk [px]; by default that of the store. Never changes a row.
        again: The second look at each target, with the scorer of the map.

    Raises:
        PlanError: The selection does not suit the map, or the scorer is another one.
        SceneError: The scene cannot be read.
        StoreError: The map is missing, damaged, or that of another scene.
    """
    require_proj()
    chosen = selection or Selection()
    opened = open_scores(map_path)
    facts, ground = opened.facts, ground_of(opened)
    if not facts.fingerprint:
        raise StoreError(
            f"'{map_path}' has no fingerprint, so its targets could not be told from those of "
            "another map. Pass the map as `score` or `cog` wrote it."
        )
    if chosen.needs_ground and not ground.known:
        raise PlanError(
            f"'{map_path}' has no CRS of the Earth, so areas and files with areas cannot be used. "
            "Drop min_area, max_area, aoi and exclude, or georeference the scene and score again."
        )
    scored = None if scene is None else scored_scene(scene, opened)
    cut = chosen.cut(facts.levels, str(map_path))
    work = compute or _default(opened, again)
    look = None if again is None else again.prepared(scored, opened, work)
    search = Search(str(map_path), cut, opened)
    windows = _windows(opened, chunk)
    _require_memory(work, windows[0])
    with work.connected() as there, there.open() as executor:
        what = f"The targets in a chunk of '{map_path}'"
        found = compute_each(_objects, search, windows, executor, what)
        with_counts = _counted(merge(found, cut), opened)
        kept = choose(with_counts, chosen, ground)
        # The scores that make this list: those of the N highest have no other threshold.
        least = kept.table["score_max"].min(initial=1) if chosen.top else cut.threshold
        support = {} if look is None else look.support(kept.table, least, executor)
    contrasts = (
        {} if scored is None else contrasts_of(kept.table, view_of(scored.source), opened, cut)
    )
    columns, geometry, peaks = tabulate(kept, chosen, facts, ground, support | contrasts)
    empty = "" if len(peaks) else _why_empty(found, chosen, len(with_counts["edge"]), ground)
    return TargetTable(
        columns=columns,
        geometry=geometry,
        peaks=peaks,
        crs=ground.crs,
        facts={
            "map": str(map_path),
            "scene": facts.scene,
            "fingerprint": facts.fingerprint,
            "software": facts.software,
            "weights_sha256": facts.weights,
            "preset": facts.preset,
            "threshold": cut.threshold,
            "grow": cut.grow,
            "levels": None if facts.levels is None else facts.levels.to_json(),
            "selection": chosen.to_dict(),
            "crs": None if ground.crs is None else CRS.from_wkt(ground.crs).to_string(),
            "count": len(peaks),
        },
        empty_because=empty,
        missing=_what_is_missing(opened),
        notes=() if scored is None else scored.notes,
    )


def scores(opened: ScoreMap | RasterMap, window: Window) -> NDArray[np.float32]:
    """Return the scores (y, x) of a window: the first layer."""
    score: NDArray[np.float32] = opened.read(*window.slices)[0]
    return score


def _default(opened: ScoreMap | RasterMap, again: SecondLook | None) -> Compute:
    if math.prod(opened.geobox.shape) > SMALL:
        return Compute.of() if again is None else again.compute()
    return Compute.of("threads" if again is None or again.thread_safe else "sync")


def _windows(opened: ScoreMap | RasterMap, chunk: int | None) -> list[Window]:
    """Return the chunks in which a map is searched, the largest first."""
    side = chunk or CHUNK
    if chunk is None and isinstance(opened, ScoreMap):
        array = opened.array()
        side = min((array.shards or array.chunks)[0], MOST_CHUNK)
    return list(pieces(opened.geobox.shape, (side, side)))


def _require_memory(compute: Compute, window: Window) -> None:
    """Raise PlanError if a worker would need more memory than it may take."""
    limit, origin = compute.memory_limit
    needed = PROCESS_BYTES + compute.threads * window.height * window.width * PIXEL_BYTES
    if limit and needed > limit:
        raise PlanError(
            f"Searching chunks of {window.height} x {window.width} px needs {needed / MIB:.0f} MiB "
            f"per worker, but it may take {limit / MIB:.0f} MiB ({origin}). Use fewer workers."
        )


def _objects(shared: Shared[Search], window: Window) -> ChunkObjects:
    return shared.open().objects(window)


def _counted(table: Columns, opened: ScoreMap | RasterMap) -> Columns:
    """Return the table with the pixels that have a score, of objects of several chunks too."""
    for k in np.flatnonzero(table["valid"] < 0):
        row0, col0, row1, col1 = (int(table[n][k]) for n in BOX)
        table["valid"][k] = sum(
            np.count_nonzero(np.isfinite(scores(opened, Window(row, col0, rows, col1 - col0))))
            for row in range(row0, row1, CHUNK)
            for rows in [min(CHUNK, row1 - row)]
        )
    return table


def _why_empty(found: list[ChunkObjects], selection: Selection, before: int, ground: Ground) -> str:
    """Return a sentence about an empty table."""
    score, row, col = min(
        (chunk.highest for chunk in found), key=lambda best: (-best[0], *best[1:])
    )
    if score < 0:
        return "0 targets: the map has no pixel with a score"
    place = f"row {row}, column {col}"
    longitude, latitude = ground.centres(np.array([col]), np.array([row]))[0]
    if np.isfinite(longitude):
        place = degrees_text(longitude, latitude)
    dropped = f" ({before} were dropped by size or area)" if before else ""
    most = score_text(score)
    return f"0 targets {selection.text}{dropped}; the highest score is {most} at {place}"


def _what_is_missing(opened: ScoreMap | RasterMap) -> str:
    """Return a sentence if chunks of the map are not complete."""
    chunks = f"{opened.facts.missing} of {opened.facts.chunks} chunks of '{opened.name}'"
    text = f"{chunks} are not complete, so targets are missing. Run the same score again, then this"
    return f"{text}." if opened.facts.missing else ""
