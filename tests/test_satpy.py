"""The recipe of docs/satpy.md, with satpy and pyresample themselves where they are installed."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from archives import write_scene
from standins import TileMean
from swaths import Swath

import uniadrs_scale as us

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS: dict[str, Any] = {"detector": TileMean(), "scheduler": "sync", "tile": 32, "chunk": 64}


@pytest.fixture(autouse=True)
def satpy() -> Any:
    """The library; its own warnings are none of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("satpy")


def test_a_grid_that_satpy_reads(satpy: Any, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", 1, side=96, bands=3)
    loaded = satpy.Scene([str(path)], reader="generic_image")
    loaded.load(["image"])
    assert loaded["image"].dims == ("bands", "y", "x")
    there = us.score(loaded["image"], tmp_path / "there.zarr", **OPTIONS)
    here = us.score(us.open_scene(path), **OPTIONS)
    np.testing.assert_array_equal(there, here)
    assert there.rio.crs == here.rio.crs
    assert there.rio.transform().almost_equals(here.rio.transform())
    # Cropped by satpy, area and all.
    part = loaded.crop(xy_bbox=(402_000, 5_999_000, 403_000, 6_000_000))["image"]
    cut = us.open_scene(path).isel(y=slice(part.sizes["y"]), x=slice(part.sizes["x"]))
    np.testing.assert_array_equal(us.score(part, **OPTIONS), us.score(cut, **OPTIONS))
    assert us.score(part, **OPTIONS).rio.bounds() == pytest.approx(cut.rio.bounds())


def test_a_swath_of_several_bands(satpy: Any, tmp_path: Path) -> None:
    from pyresample import SwathDefinition  # noqa: PLC0415 - comes with satpy

    swath = Swath(height=40, width=50)
    longitude, latitude = (
        xr.DataArray(part, dims=("y", "x")).chunk(25) for part in swath.centres()
    )
    area, names, loaded = SwathDefinition(longitude, latitude), ["I01", "I02"], satpy.Scene()
    pixels = np.random.default_rng(0).random((2, 40, 50), np.float32)
    for name, band in zip(names, pixels, strict=True):
        loaded[name] = xr.DataArray(band, dims=("y", "x")).chunk(25).assign_attrs(area=area)
    scene = xr.concat([loaded[name] for name in names], "band").assign_coords(band=names)
    us.score(scene, tmp_path / "there.zarr", **OPTIONS)
    us.to_cog(tmp_path / "there.zarr", tmp_path / "there.tif")
    ours = xr.DataArray(
        pixels,
        dims=("band", "y", "x"),
        coords={
            "band": names,
            "latitude": latitude.compute(),
            "longitude": longitude.compute(),
        },
    )
    us.score(ours, tmp_path / "here.zarr", **OPTIONS)
    us.to_cog(tmp_path / "here.zarr", tmp_path / "here.tif")
    with (
        xr.open_dataarray(tmp_path / "there.tif") as there,
        xr.open_dataarray(tmp_path / "here.tif") as here,
    ):
        xr.testing.assert_equal(there.drop_attrs(), here.drop_attrs())
        assert there.rio.crs == here.rio.crs
