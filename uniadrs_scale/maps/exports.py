"""Exports: the files that are made from a finished store, one row each.

The run, the sweep, the STAC item and the command line read this table: a new export is a row here
and the module that writes it.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from uniadrs_scale.errors import PlaceWarning
from uniadrs_scale.maps.cog import to_cog
from uniadrs_scale.maps.overviews import Overview
from uniadrs_scale.maps.store import open_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from uniadrs_scale.storage.places import Place
    from uniadrs_scale.swaths.geometry import Geocoding


@dataclass(frozen=True)
class FinishedMap:
    """A store whose scores are computed, as exports see it. They share what is slow to read."""

    store: Place
    drawn: Geocoding
    """How the map of a swath is drawn."""

    @cached_property
    def overview(self) -> Overview:
        """The map at the size of a screen, and its statistics."""
        return Overview.of(open_map(self.store).array())


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
    media_type: str
    roles: tuple[str, ...]
    """Roles of a STAC asset."""
    title: str
    write: Callable[[FinishedMap, Place], tuple[str, ...]]
    """Function that writes the file to a place, and returns notes about it."""


_FILTERS = threading.Lock()
"""Held while warnings are filtered: filters belong to all threads of a process."""


def _write_cog(finished: FinishedMap, target: Place) -> tuple[str, ...]:
    drawn = finished.drawn
    with _FILTERS, warnings.catch_warnings(record=True) as caught:
        # It warns of missing chunks and of no place, which the summary of a run names anyway.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("always", PlaceWarning)
        warnings.filterwarnings("ignore", "The map has no place")
        to_cog(
            finished.store,
            target,
            crs=drawn.crs,
            resolution=drawn.resolution,
            resampling=drawn.resampling,
        )
    return tuple(str(warning.message) for warning in caught)


def _write_quicklook(finished: FinishedMap, target: Place) -> tuple[str, ...]:
    with target.scratch() as folder:
        picture = folder / target.name
        finished.overview.write_png(picture)
        target.write(picture)
    return ()


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
            name="quicklook",
            asset="quicklook",
            file="quicklook.png",
            media_type="image/png",
            roles=("overview", "thumbnail"),
            title="Quicklook",
            write=_write_quicklook,
        ),
    )
}
