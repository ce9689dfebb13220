"""A long strip whose valid area turns as it goes costs its valid tiles, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from products import write_raster
from readers import write_strip
from standins import Counting

import uniadrs_scale as us

if TYPE_CHECKING:
    from pathlib import Path


def test_a_strip_costs_only_its_valid_tiles(tmp_path: Path) -> None:
    path = tmp_path / "strip.tif"
    write_strip(path, height=3000, width=200)
    with rasterio.open(path) as file:
        valid = file.read(1) != 0
    assert 0.2 < valid.mean() < 0.5
    assert path.stat().st_size < 3000 * 200 * 2 * 2 * 0.7  # sparse: what is invalid is not there
    counting = Counting(tmp_path / "seen")
    counting.folder.mkdir()
    scene = us.open_scene(path)
    options = {"detector": counting, "tile": 32, "stride": 24, "chunk": 128}
    plan = us.plan(scene, **options)
    scores = us.score(scene, scheduler="sync", **options)
    tiles = [plan.lattice.inside(t) for i in plan.lattice.indices()
             for t in plan.lattice.owned_tiles(i)]  # fmt: skip
    wanted = [tile for tile in tiles if valid[tile.slices].any()]
    assert len(counting.seen) == len(wanted) < 0.7 * len(tiles)
    np.testing.assert_array_equal(np.isfinite(scores.values), valid)


def test_an_empty_strip_costs_nothing(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "empty.tif", np.zeros((900, 60), np.uint16), 10, nodata=0)
    counting = Counting(tmp_path / "seen")
    counting.folder.mkdir()
    with pytest.warns(us.SceneWarning, match="No valid pixel"):
        scores = us.score(
            us.open_scene(path), detector=counting, scheduler="sync", tile=32, chunk=64
        )
    assert not counting.seen
    assert np.isnan(scores.values).all()
