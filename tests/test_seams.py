"""With the real network on real scenes nothing shows where tiles and chunks meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import uniadrs_scale as us
from uniadrs_scale.lattice import origins

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TILE, STRIDE, CHUNK = 224, 168, 512
GRID = 8
"""The network pools by 8, so how much neighbours differ depends on their place in a grid of 8
pixels, all over the map. Lines are therefore compared with lines at the same place."""


def jumps(score: np.ndarray, lines: list[int], axis: int) -> np.ndarray:
    """Mean jump across each line, relative to lines elsewhere at the same place in the grid."""
    change = np.nanmean(np.abs(np.diff(score, axis=axis)), axis=1 - axis)
    every = np.arange(change.size)
    elsewhere = ~np.isin(every, lines)
    return np.array(
        [change[n] / change[elsewhere & (every % GRID == n % GRID)].mean() for n in lines]
    )


def borders(size: int) -> tuple[list[int], list[int]]:
    """The last pixel before each tile border, and before each chunk border."""
    starts = origins(size, TILE, STRIDE)
    tiles = {edge - 1 for start in starts for edge in (start, start + TILE) if 0 < edge < size}
    return sorted(tiles), list(range(CHUNK - 1, size - 1, CHUNK))


@pytest.mark.parametrize(
    ("file", "size"),
    [
        ("multispectral/naip/m_4709963_se_14_1_20100629.tif", (720, 928)),
        ("sar/umbra_mount_yasur.tiff", (1200, 1200)),
    ],
)
def test_no_step_across_tile_or_chunk_borders(
    shared: Path, file: str, size: tuple[int, int]
) -> None:
    scene = us.open_scene(shared / "data" / "train" / file)
    scene = scene.isel(y=slice(size[0]), x=slice(size[1]))
    score = us.score(scene, scheduler="threads", chunk=CHUNK).values
    for axis in (0, 1):
        tiles, chunks = borders(size[axis])
        # Single chunk lines vary with what lies under them; the mean over all tile lines does not.
        assert jumps(score, tiles, axis).mean() <= 1.05
        assert jumps(score, chunks, axis).mean() <= 1.2


def test_the_outermost_pixels_are_as_dark_as_the_rest(shared: Path) -> None:
    scene = us.open_scene(shared / "data" / "train" / "sar" / "umbra_mount_yasur.tiff")
    scene = scene.isel(y=slice(700), x=slice(700))
    score = us.score(scene, scheduler="threads").values

    def ratio(width: int, statistic: Callable[[np.ndarray], float]) -> float:
        frame = np.ones(score.shape, bool)
        frame[width:-width, width:-width] = False
        return statistic(score[frame]) / statistic(score[~frame])

    for width in (2, 16):
        assert ratio(width, lambda part: float(np.quantile(part, 0.99))) <= 1.1
        assert ratio(width, lambda part: float(part.mean())) <= 1.2
