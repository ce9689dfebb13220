"""Comparison of this library with other tools, each as a whole process.

    python benchmarks/run.py side_by_side --sides 1024 3000

A short script runs our networks with MONAI's ``sliding_window_inference``, and with the tiles, the
overlap and the resolution of our plan. It reads the file, scales the bands, runs the network and
writes a GeoTIFF. Spectral Python's ``rx`` reads an ENVI cube of 200 bands. Needs the extra
``benchmarks``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from uniadrs_scale.core.presets import DEFAULT_WEIGHTS

if TYPE_CHECKING:
    from pathlib import Path

REPEATS = 3
CUBE_BANDS = 200
LARGER = "uniadrs-s"
"""The default weights of 0.1.0."""
MONAI = """
import sys
import numpy as np, rasterio, torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
import uniadrs_scale as us
from uniadrs_scale.core.pixels import BandStatistics

scene, output, weights = sys.argv[1:4]
tile, stride, coarsen = map(int, sys.argv[4:])
with rasterio.open(scene) as file:
    pixels, profile = file.read(), file.profile
moments = BandStatistics.of(pixels[:, ::8, ::8], np.ones(pixels[0, ::8, ::8].shape, bool))
fitted = us.Detector.load(weights, device="cpu").fitted(moments)
scaled = torch.from_numpy(moments.normalisation().apply(pixels))[None]

def network(tiles):
    seen = F.avg_pool2d(tiles, coarsen) if coarsen > 1 else tiles
    scores = torch.from_numpy(fitted.score_tiles(seen.numpy()))[:, None]
    if coarsen == 1:
        return scores
    return F.interpolate(scores, size=tiles.shape[2:], mode="bilinear", align_corners=False)

score = sliding_window_inference(scaled, tile, 1, network, overlap=1 - stride / tile,
                                 mode="gaussian")
profile.update(count=1, dtype="float32", driver="GTiff", tiled=True, compress="deflate")
with rasterio.open(output, "w", **profile) as file:
    file.write(score[0].numpy())
"""
SPECTRAL = """
import sys
import numpy as np, spectral
cube = spectral.open_image(sys.argv[1]).load()
np.save(sys.argv[2], spectral.rx(cube).astype(np.float32))
"""
PEAK = """
import os, subprocess, sys, threading, time
import psutil
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
parent, peak = psutil.Process(child.pid), 0
while child.poll() is None:
    try:
        family = [parent, *parent.children(recursive=True)]
        peak = max(peak, sum(p.memory_info().rss for p in family))
    except psutil.NoSuchProcess:
        pass
    time.sleep(0.05)
print(peak)
sys.exit(child.returncode)
"""


def side_by_side(folder: Path, sides: list[int], cube_side: int) -> dict[str, Any]:
    """Measure seconds and memory of whole processes, in turn, and their ratios."""
    figures: dict[str, Any] = {}
    for side in sides:
        scene = _scene(folder / f"scene{side}.tif", side)
        tile, stride, coarsen = _plan(scene)
        tiling = [str(tile), str(stride), str(coarsen)]
        monai = [sys.executable, "-c", MONAI, str(scene), str(folder / "theirs.tif")]
        figures |= _compare(
            f"{side} px",
            [*_ours(), str(scene), "-o", str(folder / "ours.tif")],
            {f"MONAI with {name}": [*monai, name, *tiling] for name in (DEFAULT_WEIGHTS, LARGER)},
            folder,
        )
    cube = _cube(folder / "cube", cube_side, CUBE_BANDS)
    figures |= _compare(
        f"RX, {cube_side} px, {CUBE_BANDS} bands",
        [*_ours(), str(cube), "-o", str(folder / "ours.tif"), "--detector", "rx"],
        {"Spectral Python": [sys.executable, "-c", SPECTRAL, str(cube), str(folder / "rx.npy")]},
        folder,
    )
    return figures


def _ours() -> list[str]:
    return [sys.executable, "-m", "uniadrs_scale.cli.main", "score"]


def _plan(scene: Path) -> tuple[int, int, int]:
    """Return tile, step and coarsening of our plan, for use by the other tool."""
    told = subprocess.check_output(
        [sys.executable, "-m", "uniadrs_scale.cli.main", "plan", str(scene), "--json"]
    )
    plan = json.loads(told)
    return plan["lattice"]["tile"], plan["lattice"]["stride"], plan["coarsen"]


def _compare(
    name: str, ours: list[str], others: dict[str, list[str]], folder: Path
) -> dict[str, Any]:
    """Run all in turn; return median seconds, highest memory, and ratios."""
    commands = {"uniadrs_scale": ours, **others}
    found: dict[str, list[tuple[float, int]]] = {who: [] for who in commands}
    for _ in range(REPEATS):
        for who, command in commands.items():
            for old in folder.glob("ours*"):
                old.unlink()
            found[who].append(_run(command))
    seconds = {who: statistics.median(s for s, _ in runs) for who, runs in found.items()}
    peaks = {who: max(peak for _, peak in runs) for who, runs in found.items()}
    figures: dict[str, Any] = {}
    for who in found:
        figures[f"{name}: {who} [s]"] = round(seconds[who], 1)
        figures[f"{name}: {who} [GiB]"] = round(peaks[who] / 2**30, 2)
    for other in others:
        time = seconds["uniadrs_scale"] / seconds[other]
        memory = peaks["uniadrs_scale"] / peaks[other]
        figures[f"{name}: share of {other}'s time"] = round(time, 2)
        figures[f"{name}: share of {other}'s memory"] = round(memory, 2)
    return figures


def _run(command: list[str]) -> tuple[float, int]:
    """Return the seconds and the highest resident set of a process and its children."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    started = time.perf_counter()
    told = subprocess.check_output([sys.executable, "-c", PEAK, *command], env=environment)
    return time.perf_counter() - started, int(told)


def _scene(path: Path, side: int) -> Path:
    """Write a tiled scene of four bands, strip by strip."""
    rng = np.random.default_rng(side)
    profile = {"count": 4, "height": side, "width": side, "dtype": "uint16", "tiled": True}
    place = {"crs": "EPSG:32633", "transform": from_origin(4e5, 6e6, 10, 10)}
    with rasterio.open(path, "w", driver="GTiff", compress="deflate", **profile, **place) as file:
        for row in range(0, side, 512):
            rows = min(512, side - row)
            strip = rng.normal(1000, 100, (4, rows, side)).astype(np.uint16)
            file.write(strip, window=((row, row + rows), (0, side)))
    return path


def _cube(path: Path, side: int, bands: int) -> Path:
    """Write an ENVI cube of many bands; return its header, which Spectral Python asks for."""
    rng = np.random.default_rng(side)
    profile = {"count": bands, "height": side, "width": side, "dtype": "float32"}
    place = {"crs": "EPSG:32633", "transform": from_origin(4e5, 6e6, 10, 10)}
    common = (np.arange(bands, dtype=np.float32) % 7)[:, None, None]
    with rasterio.open(path, "w", driver="ENVI", interleave="bip", **profile, **place) as file:
        for row in range(0, side, 32):
            rows = min(32, side - row)
            pixels = rng.standard_normal((bands, rows, side), np.float32)
            pixels += common * rng.standard_normal((rows, side), np.float32)
            file.write(pixels, window=((row, row + rows), (0, side)))
    return path.with_suffix(".hdr")
