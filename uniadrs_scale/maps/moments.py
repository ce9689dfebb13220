"""Statistics of a scene in the store of its map, so that a resumed run scales as the first one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.core.regions import Cells

if TYPE_CHECKING:
    import zarr
    from numpy.typing import NDArray

    from uniadrs_scale.core.regions import Grid

BAND_MEAN, BAND_SCATTER = "band_mean", "band_scatter"
CELLS = "cell_pixels", "cell_mean", "cell_scatter"
"""Arrays of :class:`.Cells`."""
AXES = "cell_y", "cell_x", "band", "other_band"


def read_statistics(group: zarr.Group) -> BandStatistics | None:
    """Return the statistics that the scores were made with; None if the run had not begun."""
    if BAND_SCATTER not in group or "valid_pixels" not in group[BAND_SCATTER].attrs:
        return None
    mean, scatter = (
        np.asarray(_array(group, name)[:], float) for name in (BAND_MEAN, BAND_SCATTER)
    )
    return BandStatistics.from_counts(dict(group[BAND_SCATTER].attrs), mean, scatter)


def read_cells(group: zarr.Group, grid: Grid) -> Cells:
    """Return the moments of the cells of ``grid``; there are some if there are statistics."""
    count, mean, scatter = (np.asarray(_array(group, name)[:]) for name in CELLS)
    return Cells(grid=grid, count=count, mean=mean, scatter=scatter)


def write_statistics(group: zarr.Group, statistics: BandStatistics, cells: Cells) -> None:
    """Write the statistics of a scene and of its cells."""
    arrays = (
        (CELLS[0], cells.count, AXES[:2]),
        (CELLS[1], cells.mean, AXES[:3]),
        (CELLS[2], cells.scatter, AXES),
        (BAND_MEAN, statistics.mean, AXES[2:3]),
        (BAND_SCATTER, statistics.scatter, AXES[2:]),
    )
    for name, values, dims in arrays:
        data = cast("NDArray[Any]", values)
        group.create_array(name, data=data, dimension_names=dims, overwrite=True)
    # Last, and in one write, because the counts make the statistics valid.
    _array(group, BAND_SCATTER).update_attributes(statistics.counts())


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    return cast("zarr.Array[Any]", group[name])
