"""A scene that changes while it is scored: its scores are of no one version."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import xarray as xr
from jobs import job_of, run_into
from rasterio.transform import Affine
from standins import Interrupted, TileMean

import uniadrs_scale as us
from uniadrs_scale.maps.store import DONE, MISSING, open_store
from uniadrs_scale.scoring.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


SIZES = {"preset": "single-band", "tile": 64, "stride": 48, "chunk": 128}
SIDE = 300
PLACE = Affine(10, 0, 4e5, 0, -10, 6e6)


def write(path: Path, seed: int) -> None:
    """A scene of one band, in place of the one before."""
    pixels = np.random.default_rng(seed).integers(1, 999, (1, SIDE, SIDE)).astype(np.uint16)
    axis = np.arange(SIDE)
    places = {"y": 6e6 - 5 - 10 * axis, "x": 4e5 + 5 + 10 * axis}
    array = xr.DataArray(pixels, dims=("band", "y", "x"), coords=places, name="refl")
    path.unlink(missing_ok=True) if path.is_file() else shutil.rmtree(path, ignore_errors=True)
    if path.suffix == ".tif":
        with rasterio.open(path, "w", count=1, height=SIDE, width=SIDE, dtype="uint16",
                           crs="EPSG:32633", transform=PLACE) as file:  # fmt: skip
            file.write(pixels)
    elif path.suffix == ".nc":
        array.to_netcdf(path, engine="h5netcdf")
    else:
        array.to_dataset().to_zarr(path, consolidated=False)


def lazy_store(path: Path) -> xr.DataArray:
    return xr.open_zarr(path, consolidated=False)["refl"]


@pytest.mark.parametrize(
    ("name", "opened"),
    [
        ("scene.tif", us.open_scene),
        ("scene.tif", lambda path: us.open_scene(path) * 2),
        ("scene.nc", us.open_scene),
        ("scene.zarr", us.open_scene),
        ("scene.zarr", lazy_store),
    ],
)
def test_a_scene_that_is_replaced_midway_leaves_no_map(
    tmp_path: Path, name: str, opened: Callable[[Path], xr.DataArray]
) -> None:
    source, store = tmp_path / name, tmp_path / "map.zarr"
    write(source, 1)
    replaced = Interrupted(lambda: write(source, 2))
    with pytest.raises(us.SceneError, match=r"changed.*mix two versions"):
        run_into(opened(source), store, replaced, **SIZES)
    assert not store.exists()
    assert run_into(opened(source), store, TileMean(), **SIZES).complete


@pytest.mark.parametrize(
    ("name", "opened"),
    [
        ("scene.tif", us.open_scene),
        ("scene.tif", lambda path: us.open_scene(path) * 2),
        ("scene.zarr", us.open_scene),
        ("scene.zarr", lazy_store),
    ],
)
def test_a_scene_that_vanishes_midway_keeps_its_scores(
    tmp_path: Path, name: str, opened: Callable[[Path], xr.DataArray]
) -> None:
    """As with a disk that is away for a while: what cannot be read is named, and can be resumed."""
    source, store, away = tmp_path / name, tmp_path / "map.zarr", tmp_path / "away"
    write(source, 1)
    scene = opened(source)
    run_into(scene, store, Interrupted(lambda: source.rename(away)), **SIZES)
    assert (open_store(store).done == DONE).any()
    away.rename(source)
    assert run_into(opened(source), store, TileMean(), **SIZES).complete


def test_chunks_of_runs_before_the_change_stay(tmp_path: Path) -> None:
    source, store = tmp_path / "scene.tif", tmp_path / "map.zarr"
    write(source, 1)
    scene = us.open_scene(source)
    assert run_into(scene, store, TileMean(), **SIZES).complete
    opened = open_store(store)
    opened.forget([(0, 0), (1, 1)])
    with pytest.raises(us.SceneError, match="changed"):
        run_into(scene, store, Interrupted(lambda: write(source, 2), 1), **SIZES)
    done = opened.done
    assert done[0, 0] == done[1, 1] == MISSING
    assert (done == DONE).sum() == done.size - 2


def test_a_scene_made_of_a_changed_file_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "scene.tif"
    write(source, 1)
    double = us.open_scene(source) * 2
    write(source, 2)
    with pytest.raises(us.SceneError, match=r"changed since.*Open it again"):
        us.plan(double)


@pytest.mark.parametrize(
    "opened", [us.open_scene, lambda path: us.open_scene(path) * 2, lazy_store]
)
@pytest.mark.parametrize("name", ["map.zarr", "map.tif"])
def test_a_map_inside_the_store_of_its_scene_is_refused(
    tmp_path: Path, opened: Callable[[Path], xr.DataArray], name: str
) -> None:
    source = tmp_path / "scene.zarr"
    write(source, 1)
    before = sorted(source.rglob("*"))
    with pytest.raises(us.StoreError, match=r"inside the scene .*another output"):
        run_into(opened(source), source / name, TileMean(), **SIZES)
    assert sorted(source.rglob("*")) == before
    job = job_of(opened(source), TileMean(), **SIZES)
    Target.of(tmp_path / "scene.zarr2" / name).require_apart(job.source)
