"""The border of a swath must not light up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import distance_transform_edt, gaussian_filter
from standins import TileMean

import uniadrs_scale as us
from uniadrs_scale.maps.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

NEAR = 16
"""Pixels from the edge of the valid area."""


def swath(texture: float, *, size: int = 700, bands: int = 4) -> xr.DataArray:
    """Noise, smoothed by ``texture`` pixels, with a diagonal nodata edge."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(bands, size, size))
    if texture:
        noise = np.stack([gaussian_filter(band, texture) for band in noise])
        noise += 0.3 * noise.std() * rng.normal(size=noise.shape)
    pixels = (noise / noise.std() * 300 + 2000).astype(np.int16)
    rows, cols = np.indices((size, size))
    pixels[:, rows + 2 * cols < 0.9 * size] = 0
    return xr.DataArray(pixels, dims=("band", "y", "x")).rio.write_nodata(0)


def near_and_far(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores within NEAR pixels of invalid ones, and all other scores."""
    distance = distance_transform_edt(np.isfinite(score))
    return score[(distance > 0) & (distance <= NEAR)], score[distance > NEAR]


@pytest.mark.parametrize("texture", [0, 2])
def test_the_edge_of_a_swath_is_as_dark_as_the_rest(texture: float) -> None:
    scene = swath(texture)
    score = us.score(scene, scheduler="sync").values
    np.testing.assert_array_equal(np.isnan(score), scene.values[0] == 0)
    near, far = (np.quantile(part, 0.99) for part in near_and_far(score))
    assert near <= 1.1 * far


def test_the_edge_of_a_real_coast_is_as_dark_as_the_rest(shared: Path) -> None:
    folder = shared / "data" / "formats" / "sentinel2_coast_one_file_per_band"
    coast = us.open_scene(sorted(folder.glob("*.tiff")), nodata=255)
    scene = coast.isel(y=slice(900, 1700), x=slice(0, 900))
    score = us.score(scene, scheduler="sync").values
    assert 0.2 < np.isfinite(score).mean() < 0.95
    near, far = (np.quantile(part, 0.99) for part in near_and_far(score))
    assert near <= 1.1 * far


@pytest.mark.parametrize("value", [0, 255, -9999])
def test_a_summary_asks_whether_areas_of_one_value_are_data(value: int, tmp_path: Path) -> None:
    declared = swath(0, size=300)
    forgotten = declared.where(declared != 0, value)
    del forgotten.attrs["_FillValue"]
    wanted = rf"19% of the valid pixels .* areas of {value}\..*--nodata {value},"
    with pytest.warns(us.SceneWarning, match=wanted):
        us.score(forgotten, tmp_path / "map.zarr", detector=TileMean(), scheduler="sync")
    (note,) = json.loads((tmp_path / "map.zarr.run.json").read_text())["notes"]
    assert f"areas of {value}." in note


def test_no_summary_asks_about_pixels_here_and_there(tmp_path: Path) -> None:
    declared = swath(0, size=300)
    dark = declared.where(declared.band > 0, 0)  # one band of four
    speckle = ((declared > 1900) * declared)[:1, :, 150:].drop_attrs()
    assert 0.3 < (speckle == 0).mean() < 0.5
    for scene in (declared, speckle):
        us.score(scene, detector=TileMean(), scheduler="sync")  # any warning is an error
    with pytest.warns(us.SceneWarning, match="No valid pixel was found"):
        us.score(dark, detector=TileMean(), scheduler="sync")


def test_a_resumed_run_knows_the_areas(tmp_path: Path) -> None:
    ramp = np.arange(1.0, 200 * 180 + 1).reshape(1, 200, 180)
    scene = xr.DataArray(np.pad(ramp, ((0, 0), (0, 0), (0, 20))), dims=("band", "y", "x"))
    with pytest.warns(us.SceneWarning, match="8%"):
        us.score(scene, tmp_path / "map.zarr", detector=TileMean(), scheduler="sync")
    statistics = open_store(tmp_path / "map.zarr").statistics
    assert statistics is not None
    assert (statistics.count, statistics.flat) == (40_000, {0.0: 200 * 15})
