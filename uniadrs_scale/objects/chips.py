"""Chips: small pictures of targets, the scene next to the map."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from uniadrs_scale.maps.colours import map_colours
from uniadrs_scale.maps.finished import open_finished
from uniadrs_scale.objects.scored import scored_scene
from uniadrs_scale.scenes.preview import scene_picture

if TYPE_CHECKING:
    import xarray as xr

    from uniadrs_scale.objects.table import TargetTable
    from uniadrs_scale.storage.places import Place

MOST_CHIPS = 1000
"""Targets that get a chip, the highest first: a folder that can still be looked through."""
SIDE, MARGIN, LARGEST = 32, 8, 512
"""Least side of a chip, pixels around a target, and most pixels of a side that are read."""
SHOWN = 192
"""Least side of each of the two pictures, enlarged by whole pixels."""
LOOKED = 1024
"""Side of the picture of the scene that decides the colours [px]."""
GAP = 4


def with_chips(table: TargetTable, scene: xr.DataArray, output: Place) -> TargetTable:
    """Write a PNG per target to the folder OUTPUT.chips; return the table with the column ``chip``.

    The column is the path from the folder of ``output``; None beyond MOST_CHIPS.

    Raises:
        SceneError: The scene cannot be read.
        StoreError: The map cannot be read, or the folder cannot be written.
    """
    opened = open_finished(table.facts["map"])
    picture = scene_picture(scored_scene(scene, opened).array, LOOKED)
    folder = output.beside(f"{output.name.removesuffix(output.suffix)}.chips")
    if len(table):
        folder.make_folder()
    columns, shape = table.columns, opened.shape
    paths = np.full(len(table), None, object)
    for k in range(min(len(table), MOST_CHIPS)):
        high, wide = (int(columns[f"{n}1"][k] - columns[f"{n}0"][k]) for n in ("row", "col"))
        side = min(max(SIDE, max(high, wide) + 2 * MARGIN), LARGEST)
        middle = [
            (int(columns[f"{n}0"][k]) + int(columns[f"{n}1"][k])) // 2 for n in ("row", "col")
        ]
        if max(high, wide) > LARGEST:
            middle = [int(columns["peak_row"][k]), int(columns["peak_col"][k])]
        rows, cols = (_around(at, side, size) for at, size in zip(middle, shape, strict=True))
        colours = map_colours(opened.read(rows, cols)[0], opened.levels)[..., :3]
        name = f"{columns['target_id'][k].rpartition('-')[2]}.png"
        folder.child(name).write(_png(picture.window(rows, cols), colours))
        paths[k] = f"{folder.name}/{name}"
    return replace(table, columns={**columns, "chip": paths})


def _around(middle: int, side: int, size: int) -> slice:
    """Return ``side`` pixels around ``middle``, moved into 0 .. ``size``."""
    start = max(min(middle - side // 2, size - side), 0)
    return slice(start, min(start + side, size))


def _png(scene: np.ndarray, colours: np.ndarray) -> bytes:
    """Return two pictures (y, x, 3) side by side, enlarged, as a file."""
    factor = max(SHOWN // max(scene.shape[:2]), 1)
    parts = [part.repeat(factor, 0).repeat(factor, 1) for part in (scene, colours)]
    gap = np.full((parts[0].shape[0], GAP, 3), 255, np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.concatenate([parts[0], gap, parts[1]], axis=1)).save(file, "PNG")
    return file.getvalue()
