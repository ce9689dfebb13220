"""Bytes read: opening reads coordinates only, a window about the chunks that it touches."""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.transform import from_origin
from xarray.backends.scipy_ import ScipyArrayWrapper

import uniadrs_scale as us
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.scenes.sources import scene_source

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE, CHUNK = 1536, 256
COUNTER = Path("/proc/self/io")
pytestmark = pytest.mark.skipif(not COUNTER.exists(), reason="counts bytes as Linux does")
LAYOUTS = {
    "two axes": ("y", "x"),
    "one band": ("band", "y", "x"),
    "many bands": ("band", "y", "x"),
    "bands last": ("y", "x", "band"),
    "time of one": ("time", "y", "x"),
    "array per band": ("y", "x"),
}


def arrays(layout: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = {"y": SIDE, "x": SIDE, "time": 1, "band": 1 if layout == "one band" else 3}
    shape = [sizes[dim] for dim in LAYOUTS[layout]]
    names = ["b1", "b2", "b3"] if layout == "array per band" else ["v"]
    return {name: rng.random(shape, np.float32) for name in names}


def dataset(layout: str, *, swath: bool = False) -> xr.Dataset:
    pixels = {name: (LAYOUTS[layout], values) for name, values in arrays(layout).items()}
    y, x = 5e6 - 10.0 * np.arange(SIDE), 5e5 + 10.0 * np.arange(SIDE)
    if not swath:
        return xr.Dataset(pixels, {"y": y, "x": x})
    latitude, longitude = np.meshgrid(40 + 1e-4 * np.arange(SIDE), 8 + 1e-4 * np.arange(SIDE))
    places = {"lat": (("y", "x"), latitude), "lon": (("y", "x"), longitude)}
    return xr.Dataset(pixels, places)


def chunks(data: xr.Dataset, key: str) -> dict[str, dict[str, tuple[int, ...]]]:
    sizes = {"y": CHUNK, "x": CHUNK}
    names = [*data.data_vars, *(n for n in data.coords if data[n].ndim == 2)]
    return {n: {key: tuple(sizes.get(d, data.sizes[d]) for d in data[n].dims)} for n in names}


def netcdf4(path: Path, data: xr.Dataset) -> None:
    data.to_netcdf(path, engine="h5netcdf", encoding=chunks(data, "chunksizes"))


def netcdf3(path: Path, data: xr.Dataset) -> None:
    data.to_netcdf(path, engine="scipy", format="NETCDF3_64BIT")


def hdf5(path: Path, data: xr.Dataset) -> None:
    """Without names of axes."""
    with h5py.File(path, "w") as file:
        for name, sizes in chunks(data, "chunks").items():
            file.create_dataset(name, data=data[name].values, chunks=sizes["chunks"])


def zarr_2(path: Path, data: xr.Dataset) -> None:
    data.to_zarr(path, zarr_format=2, encoding=chunks(data, "chunks"))


def zarr_3(path: Path, data: xr.Dataset) -> None:
    data.to_zarr(path, zarr_format=3, consolidated=False, encoding=chunks(data, "chunks"))


FORMATS = {"nc4": netcdf4, "nc3": netcdf3, "h5": hdf5, "zarr2": zarr_2, "zarr3": zarr_3}


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that tells the bytes read since it was called before."""
    mapped = [0]
    get = ScipyArrayWrapper._getitem

    def counted(self: ScipyArrayWrapper, key: object) -> np.ndarray:
        found = get(self, key)
        mapped[0] += found.nbytes
        return found

    # Classic NetCDF is mapped into memory: the system does not count it.
    monkeypatch.setattr(ScipyArrayWrapper, "_getitem", counted)

    def total() -> int:
        return int(COUNTER.read_text().split()[1]) + mapped[0]

    last = [total()]

    def since() -> int:
        before, last[0] = last[0], total()
        return last[0] - before

    return since


def read_window(scene: xr.DataArray) -> np.ndarray:
    pixels, valid = scene_source(scene).window(Window(CHUNK, CHUNK, CHUNK, CHUNK)).read()
    assert valid.all()
    return pixels


@pytest.mark.parametrize(("form", "layout"), list(itertools.product(FORMATS, LAYOUTS)))
def test_arrays_are_read_by_the_window(
    tmp_path: Path, count: Callable[[], int], form: str, layout: str
) -> None:
    data = dataset(layout)
    whole = sum(data[name].nbytes for name in data.data_vars)
    names = list(data.data_vars)
    FORMATS[form](tmp_path / "warm", data.isel(y=slice(0, 600), x=slice(0, 600)))
    read_window(us.open_scene(tmp_path / "warm", variable=names))  # loads the libraries
    path = tmp_path / "scene"
    FORMATS[form](path, data)
    count()
    scene = us.open_scene(path, variable=names)
    assert count() < 0.02 * whole + 150_000  # coordinates and metadata
    pixels = read_window(scene)
    assert count() < 2 * pixels.nbytes + 150_000
    part = slice(CHUNK, 2 * CHUNK)
    expected = [data[n].isel(y=part, x=part) for n in names]
    expected = [a.isel(time=0) if "time" in a.dims else a for a in expected]
    flat = [
        p.values for a in expected for p in (a.transpose("band", ...) if "band" in a.dims else [a])
    ]
    np.testing.assert_array_equal(pixels, np.stack(flat))


@pytest.mark.parametrize("form", FORMATS)
def test_latitude_and_longitude_are_read_by_the_window(
    tmp_path: Path, count: Callable[[], int], form: str
) -> None:
    data = dataset("two axes", swath=True)
    FORMATS[form](tmp_path / "warm", data.isel(y=slice(0, 600), x=slice(0, 600)))
    us.open_scene(tmp_path / "warm", variable="v").latitude[:4, :4].compute()
    FORMATS[form](tmp_path / "scene", data)
    count()
    scene = us.open_scene(tmp_path / "scene", variable="v", chunk=CHUNK)
    piece = 2 * CHUNK * CHUNK * 8  # the ground size is taken from the centre of the swath
    assert count() < 4 * piece + 150_000
    alone = scene.longitude.reset_coords(drop=True)
    part = alone[CHUNK : 2 * CHUNK, CHUNK : 2 * CHUNK].compute(scheduler="sync")
    assert count() < 2 * part.nbytes + 150_000
    np.testing.assert_array_equal(part.values, data.lon[CHUNK : 2 * CHUNK, CHUNK : 2 * CHUNK])


@pytest.mark.parametrize("driver", ["GTiff", "ENVI"])
def test_rasters_are_read_by_the_window(
    tmp_path: Path, count: Callable[[], int], driver: str
) -> None:
    def write(path: Path, side: int) -> np.ndarray:
        pixels = np.random.default_rng(0).random((3, side, side), np.float32)
        profile = {
            "driver": driver, "count": 3, "height": side, "width": side, "dtype": "float32",
            "crs": "EPSG:32632", "transform": from_origin(5e5, 5e6, 10, 10),
        }  # fmt: skip
        tiles = {"tiled": True, "blockxsize": CHUNK, "blockysize": CHUNK}
        with rasterio.open(path, "w", **profile, **(tiles if driver == "GTiff" else {})) as file:
            file.write(pixels)
        return pixels

    ending = ".tif" if driver == "GTiff" else ".img"
    write(tmp_path / f"warm{ending}", 600)
    read_window(us.open_scene(tmp_path / f"warm{ending}"))
    pixels = write(tmp_path / f"scene{ending}", SIDE)
    count()
    scene = us.open_scene(tmp_path / f"scene{ending}")
    assert count() < 0.02 * pixels.nbytes + 150_000
    read = read_window(scene)
    lines = SIDE / CHUNK if driver == "ENVI" else 1  # whole lines
    assert count() < (1 + lines) * read.nbytes + 150_000
    np.testing.assert_array_equal(read, pixels[:, CHUNK : 2 * CHUNK, CHUNK : 2 * CHUNK])


def test_a_slice_of_the_lazy_array_reads_its_own_chunks(
    tmp_path: Path, count: Callable[[], int]
) -> None:
    data = dataset("two axes")
    netcdf4(tmp_path / "scene.nc", data)
    scene = us.open_scene(tmp_path / "scene.nc")
    scene[:, :9, :9].compute(scheduler="sync")
    count()
    part = scene[:, CHUNK : 2 * CHUNK, CHUNK : 2 * CHUNK].compute(scheduler="sync")
    assert count() < 3 * part.nbytes + 150_000  # the pixels, and once more for their valid mask


def test_a_small_file_that_claims_a_huge_array_costs_nothing(tmp_path: Path) -> None:
    """Its chunks do not exist: only a fill value does."""
    path = tmp_path / "huge.h5"
    side = 200_000
    with h5py.File(path, "w") as file:
        file.create_dataset("v", (side, side), "f4", chunks=(64, 64), fillvalue=1.0)
        file.create_dataset("lat", (side, side), "f8", chunks=(64, 64))
        file.create_dataset("lon", (side, side), "f8", chunks=(64, 64))
    assert path.stat().st_size < 50_000
    script = """
import resource, sys
import uniadrs_scale as us
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(us.open_scene(sys.argv[1], variable="v").shape)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    command = [sys.executable, "-c", script, path]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    shape, grown = done.stdout.splitlines()
    assert shape == f"(1, {side}, {side})"
    assert int(grown) < 400  # MiB


@pytest.mark.parametrize("shape", [(2**26, 10), (10, 2**26), (2**20, 20, 20)])
def test_a_size_that_no_scene_has_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    dims = ["band", "y", "x"][-len(shape) :]
    with h5py.File(tmp_path / "claim.h5", "w") as file:
        file.create_dataset("v", shape, "f4", chunks=True, fillvalue=1.0)
        for dim, size in zip(dims, shape, strict=True):
            file.create_dataset(dim, (size,), "f8", chunks=True).make_scale(dim)
        for axis, dim in enumerate(dims):
            file["v"].dims[axis].attach_scale(file[dim])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(us.SceneError, match=r"claims \d+"):
        us.open_scene(tmp_path / "claim.h5", variable="v")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
