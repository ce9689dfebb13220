"""Exports: the files that are made from a finished store, one row each.

The run, the sweep, the STAC item and the command line read this table: a new export is a row here
and the module that writes it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from uniadrs_scale.errors import SceneError, StoreError, gist
from uniadrs_scale.maps.cog import write_cog
from uniadrs_scale.maps.colours import qgis_style
from uniadrs_scale.maps.facts import SOFTWARE
from uniadrs_scale.maps.layout import Layout, placed, top_peaks
from uniadrs_scale.maps.overviews import Overview
from uniadrs_scale.maps.pictures import (
    Ring,
    Subject,
    draw,
    encoded,
    facts_line,
    least_peak,
    result_line,
)
from uniadrs_scale.maps.store import open_map
from uniadrs_scale.storage.places import PAGES, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from uniadrs_scale.maps.pictures import Preview
    from uniadrs_scale.maps.store import ScoreMap
    from uniadrs_scale.swaths.geometry import Geocoding


MOST_PEAKS = 20
"""Peaks that a picture numbers."""
OWN = SOFTWARE.encode()
LOOKED_AT = 1024
"""First bytes of a file, in which ours say who wrote them."""


@dataclass(frozen=True)
class FinishedMap:
    """A store whose scores are computed, as exports see it. They share what is slow to read."""

    store: Place
    drawn: Geocoding
    """How the map of a swath is drawn."""
    preview: Callable[[int], Preview] | None = None
    """Function that reads a picture of the scene, of at most so many pixels; None: no scene."""
    second_look: Mapping[str, Any] = field(default_factory=dict)
    """Arguments with which the search for targets looks a second time; empty if it does not."""

    @cached_property
    def opened(self) -> ScoreMap:
        """The map."""
        return open_map(self.store)

    @cached_property
    def layout(self) -> Layout:
        """Sizes of its picture."""
        return Layout.of(self.opened.shape, 1 if self.preview is None else 2)

    @cached_property
    def overview(self) -> Overview:
        """The map at the size of its picture, and its statistics."""
        return Overview.of(self.scores, self.opened.shape, self.layout.factor)

    @cached_property
    def picture(self) -> tuple[bytes, tuple[str, ...]]:
        """The quicklook as PNG, and notes about it."""
        layout, overview, scene = self.layout, self.overview, None
        notes: tuple[str, ...] = ()
        if self.preview is not None:
            try:
                # Its squares are those of the map.
                scene = self.preview(layout.side)
            except SceneError as error:
                layout = replace(layout, panels=1)
                notes = (f"The quicklook shows no scene: {error}",)
        facts = self.opened.facts
        peaks = top_peaks(
            overview.small, overview.factor, least=least_peak(facts.levels), count=MOST_PEAKS
        )
        exact = [placed(peak, overview.factor, self.scores) for peak in peaks]
        highest = overview.statistics.figures().get("maximum", math.nan)
        subject = Subject(
            title=facts.scene or "Anomaly map",
            lines=(
                facts_line(facts, layout.shape, None if scene is None else scene.bands),
                result_line(highest, exact, facts.levels),
            ),
            small=overview.small,
            read=self.scores,
            rings=[Ring(peak, str(rank)) for rank, peak in enumerate(exact, start=1)],
            scene=scene,
            levels=facts.levels,
        )
        return encoded(draw(subject, layout), subject.title), notes

    def scores(self, rows: slice, cols: slice) -> NDArray[np.float32]:
        """Return the score (y, x) of a window, or the first layer of other maps."""
        layers = self.opened.read(rows, cols)
        return np.asarray(layers[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A kind of file that is made from a store."""

    name: str
    """Name in the description of an archive, and of the stage in reports."""
    asset: str
    """Key in STAC items."""
    file: str
    """Name of the file in a product of an archive."""
    suffixes: tuple[str, ...] = ()
    """Endings of an output path that ask for this export; empty if it cannot be an output."""
    beside: str = ""
    """Ending of the file that every run leaves next to its map; empty for none."""
    media_type: str
    roles: tuple[str, ...]
    """Roles of a STAC asset."""
    title: str
    write: Callable[[FinishedMap, Place], tuple[str, ...]]
    """Function that writes the file to a place, and returns notes about it."""


def _write_cog(finished: FinishedMap, target: Place) -> tuple[str, ...]:
    # The summary of a run names missing chunks and a missing place.
    return write_cog(finished.opened, target, finished.drawn)


def _write_style(finished: FinishedMap, target: Place) -> tuple[str, ...]:
    target.write(qgis_style(finished.opened.levels).encode())
    return ()


def _write_quicklook(finished: FinishedMap, target: Place) -> tuple[str, ...]:
    picture, notes = finished.picture
    target.write(picture)
    return notes


def companions(finished: FinishedMap, output: Place) -> tuple[str, ...]:
    """Write the files that belong to a map, and return notes about them.

    Files of others with these names stay. A file that cannot be written is not worth a map: a note
    says so.
    """
    notes: list[str] = []
    for export, target in _beside(output):
        try:
            there = target.read(LOOKED_AT)
            if there is None or OWN in there:
                notes += export.write(finished, target)
            else:
                notes.append(f"'{target.name}' is not of this library, so it was left as it is.")
        except Exception as error:  # noqa: BLE001 - the scene is read again: GDAL, Zarr, a graph
            notes.append(f"'{target.name}' could not be written: {gist(error)}.")
    return tuple(notes)


def require_own(
    place: Place, what: str, *, sign: bytes = OWN, edited: bytes = b"", within: int | None = None
) -> None:
    """Raise StoreError if there is a file that this library did not write, or one edited since.

    Args:
        place: The file that is to be replaced.
        what: The kind of file that may be replaced, for the message.
        sign: Bytes near the beginning of files that do not name this library.
        edited: Regular expression for bytes that are in a file only after an edit.
        within: First bytes in which a file names this library; None: anywhere.
    """
    try:
        there = place.read(within)
        own = there is None or OWN in there or sign in there[:LOOKED_AT]
        if own and edited:
            own = not re.search(edited, place.read() or b"")
    except OSError as error:
        raise StoreError(f"'{place}' cannot be replaced ({gist(error)}).") from None
    if not own:
        raise StoreError(f"'{place}' exists and is not {what}. Choose another output path.")


def require_own_page(path: str | Path | Place, what: str, *, sign: bytes) -> None:
    """Raise StoreError as :func:`require_own` does, or if the name is not that of a page."""
    place = Place.of(path)
    if place.suffix.lower() not in PAGES:
        raise StoreError(f"Output '{place}' is not a page. Let it end in .html.")
    require_own(place, what, sign=sign, within=LOOKED_AT)


EXPORTS = {
    export.name: export
    for export in (
        Export(
            name="cog",
            asset="score",
            file="scores.tif",
            suffixes=(".tif", ".tiff"),
            media_type="image/tiff; application=geotiff; profile=cloud-optimized",
            roles=("data",),
            title="Anomaly map, COG",
            write=_write_cog,
        ),
        Export(
            name="style",
            asset="style",
            file="scores.qml",
            beside=".qml",
            media_type="application/xml",
            roles=("metadata", "style"),
            title="QGIS style of the map",
            write=_write_style,
        ),
        Export(
            name="quicklook",
            asset="quicklook",
            file="quicklook.png",
            beside=".png",
            media_type="image/png",
            roles=("overview", "thumbnail"),
            title="Quicklook",
            write=_write_quicklook,
        ),
    )
}


def has_companions(output: Place) -> bool:
    """Return True if all files that belong to a map are there."""
    return all(target.exists() for _, target in _beside(output))


def _beside(output: Place) -> Iterator[tuple[Export, Place]]:
    """Yield the exports next to the map ``output``, and their places."""
    stem = output.name.removesuffix(output.suffix)
    for export in EXPORTS.values():
        if export.beside:
            yield export, output.beside(f"{stem}{export.beside}")
