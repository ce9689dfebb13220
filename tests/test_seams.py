"""With the real network on real scenes nothing shows where tiles and chunks meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import uniadrs_scale as us
from uniadrs_scale.core.lattice import origins
from uniadrs_scale.core.presets import choose_preset
from uniadrs_scale.scenes.sources import scene_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHUNK = 512
GRID = 8
"""The network pools by 8, so how much neighbours differ depends on their place in a grid of 8
pixels it sees, all over the map. Lines are therefore compared with lines at the same place."""
CHANCE = 2.5
"""Standard errors, of lines where nothing is, that lines at borders may exceed their mean by."""


def jumps(score: np.ndarray, lines: list[int], axis: int, grid: int) -> np.ndarray:
    """Mean jump across each line, relative to lines elsewhere at the same place in the grid."""
    change = np.nanmean(np.abs(np.diff(score, axis=axis)), axis=1 - axis)
    every = np.arange(change.size)
    elsewhere = ~np.isin(every, lines)
    return np.array(
        [change[n] / change[elsewhere & (every % grid == n % grid)].mean() for n in lines]
    )


def borders(size: int, tile: int, stride: int) -> tuple[list[int], list[int]]:
    """The last pixel before each tile border, and before each chunk border."""
    starts = origins(size, tile, stride)
    tiles = {edge - 1 for start in starts for edge in (start, start + tile) if 0 < edge < size}
    return sorted(tiles), list(range(CHUNK - 1, size - 1, CHUNK))


@pytest.mark.parametrize(
    ("file", "size", "tile"),
    [
        ("multispectral/naip/m_4709963_se_14_1_20100629.tif", (720, 928), 512),
        ("sar/umbra_mount_yasur.tiff", (1200, 1200), 480),
    ],
)
def test_no_step_across_tile_or_chunk_borders(
    shared: Path, file: str, size: tuple[int, int], tile: int
) -> None:
    scene = us.open_scene(shared / "data" / "train" / file)
    scene = scene.isel(y=slice(size[0]), x=slice(size[1]))
    score = us.score(scene, scheduler="threads", tile=tile, chunk=CHUNK).values
    preset = choose_preset(scene_source(scene).info)
    grid = GRID * preset.coarsen
    for axis in (0, 1):
        at_borders = borders(size[axis], tile, preset.stride(tile))
        others = sorted(
            set(range(40, size[axis] - 40)) - {n for lines in at_borders for n in lines}
        )
        spread = jumps(score, others, axis, grid).std()
        for lines in at_borders:
            found = jumps(score, lines, axis, grid).mean()
            assert found <= 1 + CHANCE * spread / len(lines) ** 0.5


def test_the_outermost_pixels_are_as_dark_as_the_rest(shared: Path) -> None:
    scene = us.open_scene(shared / "data" / "train" / "sar" / "umbra_mount_yasur.tiff")
    # Four scenes: in one of 700 px, the frame of 2 px is too little ground to compare.
    corners = [(y, x) for y in (0, 700) for x in (0, 700)]
    scores = [
        # A named preset, so that the run adds no note about speckle.
        us.score(
            scene.isel(y=slice(y, y + 700), x=slice(x, x + 700)),
            preset="multispectral",
            scheduler="threads",
        ).values
        for y, x in corners
    ]

    def ratio(width: int, statistic: Callable[[np.ndarray], float]) -> float:
        frame = np.ones((700, 700), bool)
        frame[width:-width, width:-width] = False
        return float(np.mean([statistic(s[frame]) / statistic(s[~frame]) for s in scores]))

    for width in (2, 16):
        assert ratio(width, lambda part: float(np.quantile(part, 0.99))) <= 1.1
        assert ratio(width, lambda part: float(part.mean())) <= 1.2
