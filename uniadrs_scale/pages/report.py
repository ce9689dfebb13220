"""The report of a map: one HTML file that loads nothing, to look through targets and mark them."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from uniadrs_scale.core.arguments import whole
from uniadrs_scale.core.contracts import Printed
from uniadrs_scale.errors import PlanError, redact
from uniadrs_scale.maps.exports import Export, require_own_page
from uniadrs_scale.maps.finished import open_scores
from uniadrs_scale.maps.overviews import reduced
from uniadrs_scale.maps.store import DONE, ScoreMap
from uniadrs_scale.objects.scored import scored_scene
from uniadrs_scale.pages.report_content import Content, data_of, words_of
from uniadrs_scale.pages.report_files import found_table, read_table, require_same_grid
from uniadrs_scale.pages.report_layers import (
    NO_DATA,
    UNSCORED,
    CloseUp,
    Scale,
    data_url,
    packed_layer,
    packed_sheet,
    scene_sheet,
    score_sheet,
)
from uniadrs_scale.pages.report_table import Positions, checked_rows
from uniadrs_scale.runtime.compute import Compute
from uniadrs_scale.scenes.preview import scene_picture
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import zarr
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from uniadrs_scale.maps.exports import FinishedMap
    from uniadrs_scale.maps.finished import RasterMap
    from uniadrs_scale.scenes.preview import ScenePicture
    from uniadrs_scale.scoring.job import Scene

SIDE = 2048
"""Longest side of the pictures of scene and map, in pixels."""
MOST = 1000
"""Targets in a page."""
SCENE_BYTES, SCORE_BYTES, SHEET_BYTES = 1_700_000, 1_100_000, 550_000
"""Most characters of the picture of the scene, of all layers of scores, and of the close-ups of
the scene and of all maps: a page stays below 5 MB."""
MEDIA = "text/html; charset=utf-8"
SIGN = b'content="no-referrer">\n<link rel="icon" href="data:,">\n<title>'
"""Bytes near the beginning of every report."""
TOP = 200
"""Targets in a page, unless a caller says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ReportSummary(Printed):
    """The page that was written."""

    output: Place
    shown: int
    """Targets in the page."""
    total: int
    """Targets in the table."""
    incomplete: bool
    """True if a chunk of a map has no scores."""
    notes: tuple[str, ...]
    """Sentences about what looks wrong; the page shows them, too."""

    def text(self) -> str:
        """Return the closing lines, one per fact."""
        counted = f"{self.shown}" if self.shown == self.total else f"{self.shown} of {self.total}"
        lines = [f"targets  {counted}", *(f"note     {n}" for n in self.notes)]
        return "\n".join([*lines, f"output   {self.output}"])


def report(
    map_path: str | Path,
    scene: Scene,
    output: str | Path,
    *,
    targets: str | Path | GeoDataFrame | None = None,
    top: int = TOP,
    compare: str | Path | None = None,
    command: str = "",
) -> ReportSummary:
    """Write a page with the scene, its map and a list of targets that can be marked.

    The page is one HTML file that needs no server and no network. Equal input gives equal bytes.

    Args:
        map_path: Zarr store or COG that ``score`` wrote, a path or URL.
        scene: The scene that was scored, as :func:`uniadrs_scale.score` takes it, or the larger one
            of which the map shows a part.
        output: The page to write, .html; an older report is replaced, no other page.
        targets: Table of targets of this map, a file or a GeoDataFrame; by default they are found
            now.
        top: Number of targets to show, those with the highest scores: 1 to 1000.
        compare: Another map of the same grid, for a before/after line.
        command: The command that made the page, for its list of origins; without secrets.

    Returns:
        The number of targets in the page (``shown``) and of all (``total``), and ``notes``.

    Raises:
        PlanError: ``top`` is not allowed.
        SceneError: The scene cannot be read.
        StoreError: The map is that of another scene, the table that of another map, a file cannot
            be read, or the page cannot be written.
    """
    if not 1 <= whole("top", top) <= MOST:
        raise PlanError(f"top={top} is not a number of targets. Use 1 to {MOST}.")
    place = Place.of(output)
    place.require_name()
    place.require_folder()
    require_own_page(place, "a report", sign=SIGN)
    opened = open_scores(map_path)
    scored = scored_scene(scene, opened)
    other = None if compare is None else require_same_grid(opened, open_scores(compare))
    table = found_table(map_path, top, scored.array) if targets is None else read_table(targets)
    positions = Positions.of(opened)
    content = Content(
        maps=(opened,) if other is None else (opened, other),
        info=scored.info,
        scale=Scale.of(opened.levels),
        rows=checked_rows(table, opened, positions, top),
        table=table,
        positions=positions,
        notes=scored.notes,
        command=redact(command),
    )
    page = render(content, scene_picture(scored.source, SIDE))
    place.write(page, media=MEDIA)
    return ReportSummary(
        output=place,
        shown=len(content.rows),
        total=len(table.records),
        incomplete=any(shown.facts.missing for shown in content.maps),
        notes=content.warnings,
    )


def _write_report(finished: FinishedMap, target: Place) -> tuple[str, ...]:
    picture = cast("Callable[[int], ScenePicture]", finished.preview)(SIDE)
    opened = finished.opened
    # A picture knows the bands that it shows only.
    bands = opened.facts.plan["scene"]["bands"]
    # In this thread: the workers are busy with the next scenes.
    table = found_table(finished.store, TOP, compute=Compute.of("sync"))
    positions = Positions.of(opened)
    content = Content(
        maps=(opened,),
        info=replace(picture.scene.info, bands=tuple(bands)),
        scale=Scale.of(opened.levels),
        rows=checked_rows(table, opened, positions, TOP),
        table=table,
        positions=positions,
    )
    target.write(render(content, picture), media=MEDIA)
    return content.warnings


REPORT = Export(
    name="report",
    asset="report",
    file="report.html",
    media_type="text/html",
    roles=("overview",),
    title="Scene, map and targets as one page to review",
    write=_write_report,
)
"""The page of a product of an archive, with the TOP highest scores."""


def render(content: Content, picture: ScenePicture) -> bytes:
    """Return the page as bytes."""
    shape = content.info.height, content.info.width
    frames = [CloseUp.around(row.box, row.peak) for row in content.rows]
    scene_url, coarser = data_url(picture.rgb, SCENE_BYTES)
    chip_url = (
        data_url(scene_sheet(picture, frames, shape), SHEET_BYTES, whole=True)[0] if frames else ""
    )
    layers = []
    highest = np.empty((0, 0), np.float32)
    for opened in content.maps:
        small = reduced(_first_layer(opened), shape, picture.factor)
        values = content.scale.values(small)
        gaps = picture.valid & _missing(opened, small.shape, picture.factor)
        values = np.where((values == NO_DATA) & gaps, np.uint8(UNSCORED), values)
        layer = packed_layer(values, picture.factor, SCORE_BYTES // len(content.maps))
        if frames:
            sheet = score_sheet(opened, frames, shape, content.scale)
            layer["chips"] = packed_sheet(sheet, content.scale, SHEET_BYTES // len(content.maps))
        layers.append(layer)
        highest = highest if highest.size else small
    data = data_of(content, layers, frames, picture.factor * coarser)
    words = words_of(content, picture, highest)
    files = resources.files("uniadrs_scale.pages")
    style, script = (files.joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    page = environment.from_string(files.joinpath("report.html").read_text("utf-8")).render(
        words,
        data=data,
        policy=_policy(style, script),
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        scene_picture=scene_url,
        chip_picture=chip_url,
    )
    return page.encode()


def _first_layer(opened: ScoreMap | RasterMap) -> Callable[[slice, slice], NDArray[np.float32]]:
    return lambda rows, cols: opened.read(rows, cols)[0]


def _missing(
    opened: ScoreMap | RasterMap, shape: tuple[int, ...], factor: int
) -> NDArray[np.bool_]:
    """Return the pixels of a reduced map that are in chunks without all of their scores.

    Other pixels without a score were not data for the detector. A COG does not say which chunks
    are missing.
    """
    if not opened.facts.missing or not isinstance(opened, ScoreMap):
        return np.full(shape, bool(opened.facts.missing))
    score, done = opened.array(), cast("zarr.Array[Any]", opened.group["done"])
    sides = score.shards or score.chunks
    places = [np.arange(n) * factor // side for n, side in zip(shape, sides, strict=True)]
    return np.asarray(np.asarray(done[:])[np.ix_(*places)] != DONE)


def _policy(style: str, script: str) -> str:
    """Return a policy that allows just these texts and pictures in the page, and no request."""
    allowed = {
        "default-src": "'none'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    for name, text in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        allowed[name] = f"'sha256-{digest}'"
    return "; ".join(f"{name} {value}" for name, value in allowed.items())
