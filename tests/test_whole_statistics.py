"""Statistics that no accident decides: few valid pixels in a sample, windows that fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import uniadrs_scale as us
from uniadrs_scale.detector.rx import GlobalRX
from uniadrs_scale.maps.store import open_store
from uniadrs_scale.runtime.executor import LocalExecutor
from uniadrs_scale.runtime.statistics import scene_statistics
from uniadrs_scale.scenes.sources import scene_source

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = {"preset": "single-band", "tile": 32, "chunk": 64, "scheduler": "sync"}


def test_one_valid_pixel_more_does_not_stand_for_the_scene() -> None:
    pixels = np.random.default_rng(0).normal(100, 10, (1, 4608, 600)).astype(np.float32)
    valid = np.zeros((4608, 600), bool)
    valid[544:608] = True  # between the first two blocks of the sample
    counts = []
    for one_more in (False, True):
        valid[100, 100] = one_more
        scene = xr.DataArray(
            pixels, dims=("band", "y", "x"), coords={"valid": (("y", "x"), valid.copy())}
        )
        statistics, _ = scene_statistics(scene_source(scene), LocalExecutor("sync"))
        counts.append(statistics.count)
    assert counts == [64 * 600, 64 * 600 + 1]


def half_readable(broken: Path) -> xr.DataArray:
    """Return a scene whose lower half cannot be read while ``broken`` exists."""
    base = np.random.default_rng(1).normal(100, 10, (2, 1024, 64)).astype(np.float32)
    base[:, 512:] *= 3

    def read(block: np.ndarray, block_info: dict | None = None) -> np.ndarray:
        if block_info and broken.exists() and block_info[0]["array-location"][1][0] >= 512:
            raise OSError("no answer")
        return block

    lazy = da.from_array(base, chunks=(2, 512, 64), name="base")
    empty = np.empty((0, 0, 0), np.float32)
    lazy = lazy.map_blocks(read, dtype=np.float32, name="readable", meta=empty)
    return xr.DataArray(lazy, dims=("band", "y", "x"), name="s")


@pytest.mark.filterwarnings("ignore:.*could not be written. no answer")  # the picture
def test_statistics_of_half_a_scene_do_not_stay(tmp_path: Path) -> None:
    broken, store = tmp_path / "broken", tmp_path / "m.zarr"
    undisturbed = us.score(half_readable(broken), detector=GlobalRX(), **OPTIONS)
    broken.touch()
    with pytest.warns(us.IncompleteWarning, match="1 part of the scene could not be read"):
        us.score(half_readable(broken), store, detector=GlobalRX(), **OPTIONS)
    assert open_store(store).statistics.unread
    before = open_store(store).open().values
    with pytest.warns(us.IncompleteWarning):  # nothing has changed: nothing is scored again
        us.score(half_readable(broken), store, detector=GlobalRX(), **OPTIONS)
    np.testing.assert_array_equal(open_store(store).open().values, before)
    broken.unlink()
    again = us.score(half_readable(broken), store, detector=GlobalRX(), **OPTIONS)
    np.testing.assert_array_equal(again.values, undisturbed.values)
    assert not open_store(store).statistics.unread
