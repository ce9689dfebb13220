"""The second look: tiles at other places say which targets they find again."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from distributed.protocol import pickle
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.core.lattice import Lattice
from uniadrs_scale.errors import UniadrsScaleError
from uniadrs_scale.objects.find import find
from uniadrs_scale.objects.second_look import SecondLook
from uniadrs_scale.objects.select import Selection
from uniadrs_scale.runtime.compute import Compute
from uniadrs_scale.runtime.executor import LocalExecutor

TILE, STRIDE, SIDE = 64, 48, 208
SYNC = Compute.of("sync")
ABOVE = Selection(threshold=0.5)


class NotBelow(FirstBand):
    """Finds nothing in the lowest quarter of a tile."""

    inputs, batch = "raw", 4

    def score_tiles(self, tiles):
        score = tiles[:, 0].copy()
        score[:, -(score.shape[1] // 4) :] = 0
        return score


AGAIN = SecondLook(NotBelow())


def scene(side=SIDE, bright=()):
    pixels = np.random.default_rng(0).uniform(0, 0.1, (1, side, side)).astype(np.float32)
    for row, col in bright:
        pixels[0, row, col] = 0.875
    array = xr.DataArray(pixels, dims=("band", "y", "x"), name="a.tif")
    return array.rio.write_crs("EPSG:32633").rio.write_transform(Affine(10, 0, 0, 0, -10, 0))


# Rows of tiles: 0 to 64, 48 to 112, ...; shifted 24 to 88, 72 to 136, ...; at the border 12 to 76.
PLACES = {
    "seen by both": ((66, 100), 2),
    "lowest in a shifted tile": ((73, 100), 1),
    "corner": ((3, 4), 0),
    "upper border": ((5, 100), 2),
}


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    path = tmp_path_factory.mktemp("second") / "map.zarr"
    bright = scene(bright=[place for place, _ in PLACES.values()])
    us.score(
        bright, path, tile=TILE, stride=STRIDE, chunk=104, detector=NotBelow(), scheduler="sync"
    )
    return path, bright


def support(table):
    peaks = zip(table.columns["peak_row"], table.columns["peak_col"], strict=True)
    return dict(zip(peaks, table.columns["support"].tolist(), strict=True))


def test_targets_that_shifted_tiles_find_are_confirmed(scored):
    path, bright = scored
    table = find(path, ABOVE, scene=bright, compute=SYNC, again=AGAIN)
    assert support(table) == dict(PLACES.values())
    assert table.summary()[1] == (
        "second look: 2 confirmed, 1 not confirmed, 1 without another tile"
    )
    assert "support" not in find(path, ABOVE, compute=SYNC).columns


@pytest.mark.parametrize("chunk", [50, 104, 1000])
def test_any_chunk_gives_the_same_column(scored, chunk):
    path, bright = scored
    compute = Compute.of("threads")
    table = find(path, ABOVE, scene=bright, compute=compute, chunk=chunk, again=AGAIN)
    assert support(table) == dict(PLACES.values())


def test_tasks_that_travel_give_the_same_column(scored, monkeypatch):
    path, bright = scored
    here = LocalExecutor.compute

    def there(self, graph, *arguments, **options):
        return here(self, pickle.loads(pickle.dumps(graph)), *arguments, **options)

    monkeypatch.setattr(LocalExecutor, "compute", there)
    table = find(path, ABOVE, scene=bright, compute=SYNC, again=AGAIN)
    assert support(table) == dict(PLACES.values())


BAD = {
    "another scene": ({"scene": scene(100)}, "is the map of"),
    "another scorer": ({"again": SecondLook(FirstBand())}, "Give the weights of the map"),
    "no scene": ({"scene": None}, "Give the scene as well"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_second_look_at_another_run_is_refused(scored, case):
    path, bright = scored
    given, words = BAD[case]
    with pytest.raises(UniadrsScaleError, match=words):
        find(path, ABOVE, **{"scene": bright, "again": AGAIN, "compute": SYNC, **given})


def test_a_cog_knows_the_sizes_of_its_tiles(scored, tmp_path):
    path, bright = scored
    us.to_cog(path, tmp_path / "map.tif")
    table = find(tmp_path / "map.tif", ABOVE, scene=bright, compute=SYNC, again=AGAIN)
    assert support(table) == dict(PLACES.values())
    us.score(bright, tmp_path / "plain.zarr", detector=NotBelow(), scheduler="sync")
    us.to_cog(tmp_path / "plain.zarr", tmp_path / "plain.tif")
    frame = us.targets(tmp_path / "plain.tif", bright, top=3, second_look=True, detector=NotBelow())
    assert frame["support"].tolist() == [0, 0, 0]  # one tile covers the scene


def test_every_pixel_but_those_in_corners_has_another_tile():
    lattice = Lattice(height=37, width=52, tile=16, stride=12, chunk=26)
    alone = np.zeros((37, 52), bool)
    for pixel in np.ndindex(alone.shape):
        tiles = lattice.shifted(pixel)
        alone[pixel] = not tiles
        for tile in tiles:
            assert tile.row <= pixel[0] < tile.stop[0] <= 37
            assert tile.col <= pixel[1] < tile.stop[1] <= 52
            assert tile.row not in lattice.rows or tile.col not in lattice.cols
    for corners in (alone, alone[::-1]):
        assert corners[:3, :3].all()
        assert corners[:3, -3:].all()
    assert alone.sum() == 4 * 3 * 3


def test_a_scene_of_one_tile_has_no_second_look():
    lattice = Lattice(height=50, width=60, tile=64, stride=48, chunk=64)
    assert lattice.shifted((9, 9)) == ()
