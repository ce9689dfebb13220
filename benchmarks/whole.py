"""Rows about whole runs: pipeline, workers, file to file, COG, imports, overlap."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import torch
import xarray as xr
from as_published import PublishedForward
from distributed import Client
from memory import Deviation, write_scene
from networks import published_module
from rasterio.shutil import copy as gdal_copy
from timing import interleaved

import uniadrs_scale as us
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.detector.published import PRESETS, score
from uniadrs_scale.evaluation.metrics import figures
from uniadrs_scale.runtime.cluster import await_workers, local_cluster
from uniadrs_scale.scoring.job import compute_for, prepare, suited
from uniadrs_scale.scoring.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SECONDS = time.perf_counter


def _forwards(tiles: int, side: int, bands: int) -> None:
    """Score a number of tiles in this process, and do nothing else."""
    pixels = np.random.default_rng(0).normal(size=(1, bands, side, side)).astype(np.float32)
    everywhere = np.ones((side, side), bool)
    detector = us.Detector.load(device="cpu").fitted(BandStatistics.of(pixels[0], everywhere))
    for _ in range(tiles):
        detector.score_tiles(pixels)


@contextmanager
def _warm(workers: int, folder: Path, scene: Any, **options: Any) -> Iterator[Client]:
    """Start a cluster whose workers have weights and compiled kernels."""
    # Not the default client: an executor would use the cluster of the other one.
    with (
        local_cluster(workers, 1) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        await_workers(client, workers)
        # Enough chunks for all workers.
        corner = scene.isel(y=slice(0, 1024), x=slice(0, 1024))
        with client.as_current():
            us.score(corner, folder / f"warm{workers}.zarr", chunk=256, **options)
        yield client


def pipeline(folder: Path, side: int = 4096, repeats: int = 3) -> dict[str, Any]:
    """Time file to Zarr with one and two workers, and the forward passes of these tiles alone."""
    bands, maps = 4, count()
    write_scene(folder / "scene.tif", side, bands)
    scene = us.open_scene(folder / "scene.tif")
    options = {"preset": "single-band"}
    tiles = us.plan(scene, scheduler="sync", **options).lattice.tiles

    def score_on(client: Client) -> None:
        with client.as_current():
            us.score(scene, folder / f"map{next(maps)}.zarr", chunk=512, **options)

    def forwards(pool: ProcessPoolExecutor) -> None:
        halves = tiles // 2, tiles - tiles // 2
        list(pool.map(_forwards, halves, [224] * 2, [bands] * 2))

    with (
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
        _warm(1, folder, scene, **options) as one,
        _warm(2, folder, scene, **options) as two,
    ):
        calls = {
            "f": lambda: forwards(pool),
            "2": lambda: score_on(two),
            "1": lambda: score_on(one),
        }
        walls = interleaved(calls, repeats)
    return {
        "tiles": tiles,
        "forward only, 2 processes [s]": round(walls["f"], 1),
        "run, 2 workers [s]": round(walls["2"], 1),
        "run, 1 worker [s]": round(walls["1"], 1),
        "run / forward only": round(walls["2"] / walls["f"], 2),
        "1 to 2 workers": round(walls["1"] / walls["2"], 2),
        "Mpx/s, 2 workers": round(side**2 / 1e6 / walls["2"], 2),
    }


def file_to_file(folder: Path, side: int = 1024, bands: int = 4) -> dict[str, Any]:
    """Time file to COG of 1024 x 1024 px, against the published inference (extrapolated).

    The process is warm. The scene is scored in threads of this process, as by default.
    """
    write_scene(folder / "scene.tif", side, bands)
    with rasterio.open(folder / "scene.tif") as file:
        pixels = file.read().astype(np.float32) / 10_000
    tiling = PRESETS["hyperspectral"]
    torch.set_num_threads(2)
    part, network = 100, PublishedForward(published_module().state_dict())
    with torch.inference_mode():
        score(pixels[:, :51, :51], network, **_numbers(tiling))
        started = SECONDS()
        score(pixels[:, : part - 1, : part - 1], network, **_numbers(tiling))
        a_tile = (SECONDS() - started) / (part // tiling.patch) ** 2
    tiles = (side // tiling.patch + 1) ** 2
    row: dict[str, Any] = {
        "published, extrapolated [s]": round(a_tile * tiles, 1),
        "published tiles measured": (part // tiling.patch) ** 2,
        "published tiles": tiles,
    }
    scene = us.open_scene(folder / "scene.tif")
    for name, detector in detectors(folder).items():
        walls = []
        for number in range(4):
            started = SECONDS()
            _score_to_cog(scene, detector, folder / f"{name} {number}.tif")
            walls.append(SECONDS() - started)
        walls = walls[1:]  # the first run compiles and loads
        wall = statistics.median(walls)
        row[f"{name} [s]"] = round(wall, 2)
        row[f"published / {name}"] = round(a_tile * tiles / wall, 1)
    return row


def _score_to_cog(scene: Any, detector: us.Detector, path: Path) -> None:
    """Do what ``uniadrs-scale score`` does once its arguments are read."""
    compute = compute_for(detector)
    job = prepare(scene, Sizes(), detector, compute)
    run(job, path, suited(job, compute))


def _numbers(tiling: Any) -> dict[str, int]:
    return {"patch": tiling.patch, "pad": tiling.pad, "size": tiling.size}


def detectors(folder: Path, device: str = "cpu") -> dict[str, us.Detector]:
    """Return `s` and `xs` as shipped, and `l`, which is not trained, with random weights."""
    from safetensors.torch import save_file

    from uniadrs_scale.detector.network import NetworkConfig, UniADRS
    from uniadrs_scale.detector.whitening import CHANNELS

    torch.manual_seed(0)
    facts = {"name": "l", "width": "1", "bands": str(CHANNELS), "profile": "corrected"}
    path = folder / "l.safetensors"
    state = UniADRS(NetworkConfig(1.0, CHANNELS)).state_dict()
    save_file(state, path, facts | {"input": "whitened"})
    return {
        f"{name} {short}": us.Detector.load(weights, device=device, dtype=dtype)
        for name, weights in (("s", "uniadrs-s"), ("xs", "uniadrs-xs"), ("l", path))
        for short, dtype in (("fp32", "float32"), ("bf16", "bfloat16"))
    }


def cog(folder: Path, side: int = 20_000) -> dict[str, Any]:
    """Time a store's COG, against a copy by GDAL (all levels decoded and compressed again)."""
    write_scene(folder / "scene.tif", side, 1)
    scene = us.open_scene(folder / "scene.tif")
    options = {"preset": "single-band", "scheduler": "threads"}
    us.score(scene, folder / "map.zarr", detector=Deviation(), **options)
    started = SECONDS()
    us.to_cog(folder / "map.zarr", folder / "map.tif")
    ours = SECONDS() - started
    with rasterio.open(folder / "map.tif") as file:
        made = file.profile | file.tags(ns="IMAGE_STRUCTURE")
    creation = {
        "compress": str(made["compress"]).upper(),
        "tiled": True,
        "copy_src_overviews": True,
        "blockxsize": made["blockxsize"],
        "blockysize": made["blockysize"],
        "bigtiff": "yes",
        "predictor": made.get("PREDICTOR", 1),
    }
    started = SECONDS()
    gdal_copy(folder / "map.tif", folder / "copy.tif", driver="GTiff", **creation)
    gdal = SECONDS() - started
    return {
        "ours [s]": round(ours, 1),
        "GDAL [s]": round(gdal, 1),
        "ours / GDAL": round(ours / gdal, 2),
        "bytes, ours / GDAL": round(
            (folder / "map.tif").stat().st_size / (folder / "copy.tif").stat().st_size, 3
        ),
    }


def imports(repeats: int = 7) -> dict[str, Any]:
    """Time new interpreters, median; each time includes the start of an empty interpreter."""
    codes = {
        "python": "pass",
        "import uniadrs_scale": "import uniadrs_scale",
        "import all of it": "import uniadrs_scale as us; us.score; us.to_cog",
        "--help": "import sys; sys.argv = ['uniadrs-scale', '--help']; "
        "from uniadrs_scale.cli.main import main; main()",
    }
    took: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(repeats):
        for name, code in codes.items():
            started = SECONDS()
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
            took[name].append(SECONDS() - started)
    return {f"{name} [s]": round(statistics.median(values), 2) for name, values in took.items()}


def overlap(data: Path | None) -> dict[str, Any]:
    """Return mean AUC and seam step of `uniadrs-s` by overlap, on validation scenes."""
    row: dict[str, Any] = {}
    scenes = _validation(data, hyperspectral_tile=64)
    for share in (0, 8, 4, 2) if scenes else ():
        areas, steps = [], []
        for array, targets, preset, tile in scenes:
            stride = tile - (tile // share if share else 0)
            scores = us.score(array, preset=preset, tile=tile, stride=stride, scheduler="sync")
            areas.append(figures(scores.to_numpy(), targets).auc_df)
            steps.append(seam_step(scores.to_numpy(), tile, stride))
        name = f"overlap 1/{share}" if share else "overlap 0"
        row[f"{name}: AUC, seam step"] = f"{np.mean(areas):.4f}, {np.mean(steps):.2f}"
    return row or {"skipped": "needs --data FOLDER, the validation imagery"}


def precision(data: Path | None) -> dict[str, Any]:
    """Compare the AUC of `uniadrs-s` in bfloat16 and float32, on validation scenes."""
    apart, areas = 0.0, []
    for array, targets, preset, tile in _validation(data, hyperspectral_tile=128):
        maps = [
            us.score(
                array,
                preset=preset,
                tile=tile,
                scheduler="sync",
                detector=us.Detector.load(device="cpu", dtype=dtype),
            ).to_numpy()
            for dtype in ("float32", "bfloat16")
        ]
        areas.append([figures(scores, targets).auc_df for scores in maps])
        apart = max(apart, float(np.abs(maps[1] - maps[0]).max()))
    if not areas:
        return {"skipped": "needs --data FOLDER, the validation imagery"}
    change = np.diff(areas, axis=1)[:, 0]
    return {
        "scenes": len(areas),
        "mean AUC fp32": round(float(np.mean([pair[0] for pair in areas])), 4),
        "mean AUC bf16": round(float(np.mean([pair[1] for pair in areas])), 4),
        "largest change of a scene's AUC": round(float(np.abs(change).max()), 5),
        "max abs of scores": round(apart, 4),
    }


def _validation(
    data: Path | None, hyperspectral_tile: int
) -> list[tuple[xr.DataArray, NDArray[np.bool_], str, int]]:
    """Read scene, targets, preset and tile of labelled scenes; no scenes without a folder."""
    if data is None:
        return []
    sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
    import imagery  # a script of model/

    found = [
        (image, "hyperspectral", hyperspectral_tile)
        for image in imagery.hyperspectral(data / "hyperspectral")
    ]
    found += [(image, "sar", 384) for image in imagery.sar(data / "sar")]
    return [
        (xr.DataArray(i.pixels, dims=("band", "y", "x"), name=i.name), i.targets, preset, tile)
        for i, preset, tile in found
    ]


def seam_step(scores: NDArray[np.float32], tile: int, stride: int) -> float:
    """Return the mean step across edges of tiles, divided by that between other columns."""
    steps = np.abs(np.diff(scores, axis=1)).mean(axis=0)
    edges = np.zeros(len(steps), bool)
    for origin in range(0, scores.shape[1] - tile + 1, stride):
        edges[[n for n in (origin - 1, origin + tile - 1) if 0 <= n < len(steps)]] = True
    return float(steps[edges].mean() / steps[~edges].mean()) if edges.any() else 1.0
