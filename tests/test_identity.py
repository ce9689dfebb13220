"""Identities are digests of values that are spelled out: no name in the code decides them."""

from __future__ import annotations

from dataclasses import field, fields, make_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
import zarr
from standins import TileMean

import uniadrs_scale as us
from uniadrs_scale.core.contracts import SceneInfo, digest
from uniadrs_scale.core.lattice import Lattice
from uniadrs_scale.core.plan import ScorePlan
from uniadrs_scale.core.validity import Nodata
from uniadrs_scale.scenes.arrays import ArrayFile, Variable
from uniadrs_scale.scenes.cubes import CubeScene, CubeSpec
from uniadrs_scale.scenes.grids import Grid, Warp
from uniadrs_scale.scenes.packing import Packing
from uniadrs_scale.scenes.rasters import FileScene, QualityFile, RasterFile
from uniadrs_scale.scenes.sources import scene_source

if TYPE_CHECKING:
    from pathlib import Path

INFO = SceneInfo(
    name="scene", identity="", height=300, width=400, bands=("red", "green"), dtype="uint16",
    itemsize=2, crs='LOCAL_CS["a grid"]', transform=(10.0, 0.0, 5e5, 0.0, -10.0, 6e6),
)  # fmt: skip
GRID = Grid(300, 400, (10.0, 0.0, 5e5, 0.0, -10.0, 6e6), "EPSG:32632")
FILE = RasterFile(
    uri="https://me:secret@host/scene.tif?X-Amz-Signature=1",
    stamp="100-200",
    bands=(1, 2),
    nodata=Nodata((0.0, float("nan"))),
    warp=Warp(GRID, "average", None),
)
FILES = FileScene(
    info=INFO,
    files=(FILE,),
    nodata=None,
    quality=(QualityFile(FILE, "bits", (("cloud", 3), ("snow", 4))),),
)
CUBE = CubeScene(
    info=INFO,
    spec=CubeSpec(
        kind="a NetCDF file", name="cube.nc", counts=(2,),
        variables=(
            Variable(
                ArrayFile("/data/cube.nc", "1-2", "h5netcdf"), "group/pixels", ("band", "y", "x"),
                Packing(dtype="float32", stored="int16", attributes=(("_FillValue", np.int16(0)),),
                        missing=(0.0,), limits=(1.0, 100.0)),
            ),
        ),
        bands=("1", "2"), wavelengths=(None, None), good=(True, True),
    ),
    selected=(0, 1),
    nodata=-9999.0,
)  # fmt: skip
PLAN = ScorePlan(
    scene=replace(INFO, identity=digest(FILES.decisive())),
    lattice=Lattice(height=300, width=400, tile=64, stride=48, chunk=128),
    preset="rgb (as asked for)", coarsen=1, detector="TileMean", batch=1, activation_bytes=0,
    workers=2, threads=1, in_lines=True, gpu_build=False, version="0.2.0",
)  # fmt: skip
RECORDED = {"files": "d0d6414d34848b96", "cube": "7b404b5c547473bb", "plan": "5a9bc346cc69d2ad"}
"""Digests of the values above. A new one makes all half-done stores foreign: raise the version."""


def renamed(value: Any) -> Any:
    """The same value of a class with another name and one more field, parts included."""
    if isinstance(value, tuple):
        return tuple(renamed(part) for part in value)
    if not hasattr(value, "__dataclass_fields__"):
        return value
    more = make_dataclass(
        "Renamed", [("added", int, field(default=0, kw_only=True))], bases=(type(value),),
        frozen=True,
    )  # fmt: skip
    return more(**{one.name: renamed(getattr(value, one.name)) for one in fields(value)})


def test_identities_are_those_that_were_recorded():
    found = {
        "files": digest(FILES.decisive()),
        "cube": digest(CUBE.decisive()),
        "plan": PLAN.fingerprint,
    }
    assert found == RECORDED


@pytest.mark.parametrize("value", [FILES, CUBE, PLAN], ids=["files", "cube", "plan"])
def test_names_of_classes_and_new_fields_decide_nothing(value):
    other = renamed(value)
    assert repr(other) != repr(value)
    assert digest(other.decisive()) == digest(value.decisive())


@pytest.mark.parametrize(
    "changed",
    [
        replace(FILES, decibel=True),
        replace(FILES, quality=()),
        replace(FILES, files=(replace(FILE, stamp="100-201"),)),
        replace(FILES, files=(replace(FILE, bands=(2, 1)),)),
        replace(FILES, files=(replace(FILE, nodata=Nodata((0.0, 1.0))),)),
        replace(FILES, files=(replace(FILE, nodata=Nodata(FILE.nodata.values, together=True)),)),
        replace(FILES, files=(replace(FILE, alpha=4),)),
        replace(FILES, files=(replace(FILE, masks=(1,)),)),
        replace(FILES, files=(replace(FILE, warp=Warp(GRID, "average", None, (0, 9, 0, 9))),)),
        replace(FILES, files=(replace(FILE, warp=None),)),
        replace(FILES, files=(replace(FILE, warp=Warp(GRID, "mode", None)),)),
        replace(FILES, files=(replace(FILE, uri="https://host/other.tif"),)),
    ],
)
def test_what_decides_pixels_decides_the_identity(changed):
    assert digest(changed.decisive()) != digest(FILES.decisive())


def test_a_new_signature_of_a_url_is_the_same_scene():
    again = replace(FILE, uri="https://host/scene.tif?X-Amz-Signature=2")
    assert digest(again.decisive()) == digest(FILE.decisive())


def test_workers_and_words_decide_no_fingerprint():
    scene = replace(PLAN.scene, grid="in other words", gsd_m=3.0, block_bytes=7, strip_rows=8)
    other = replace(PLAN, scene=scene, workers=7, threads=3, preset="other words", batch=4)
    assert other.fingerprint == PLAN.fingerprint


@pytest.mark.parametrize("value", [FILES, CUBE], ids=["files", "cube"])
def test_decisive_values_are_json_without_secrets(value):
    assert "secret" not in str(value.decisive())
    assert "X-Amz" not in str(value.decisive())


def test_a_source_has_the_identity_of_its_decisive_values(small_raster: Path, tmp_path: Path):
    cube = xr.Dataset({"pixels": (("band", "y", "x"), np.ones((3, 40, 50), np.float32))})
    cube.to_netcdf(tmp_path / "cube.nc")
    array = xr.DataArray(np.arange(12.0).reshape(3, 4), dims=("y", "x"))
    opened = us.open_scene(small_raster)
    for scene in (opened, us.open_scene(tmp_path / "cube.nc"), array, opened + 1):
        source = scene_source(scene)
        assert source.info.identity == digest(source.decisive())


def test_a_store_of_another_version_is_refused_with_advice(tmp_path: Path):
    scene = xr.DataArray(np.eye(9), dims=("y", "x"))
    options = {"tile": 16, "detector": TileMean(), "scheduler": "sync"}
    us.score(scene, tmp_path / "map.zarr", **options)
    group = zarr.open_group(tmp_path / "map.zarr", mode="r+")
    group.attrs["plan"] = group.attrs["plan"] | {"version": "0.1.0"}
    group.attrs["fingerprint"] = "0" * 16
    with pytest.raises(
        us.StoreError, match=r"begun with uniadrs_scale 0\.1\.0.*overwrite=True.*==0\.1\.0"
    ):
        us.score(scene, tmp_path / "map.zarr", **options)
