"""Speed of a GPU, and a check that its scores agree with those of the CPU.

    python benchmarks/gpu.py                            # every row, on the GPU
    python benchmarks/gpu.py correct tile               # some rows
    python benchmarks/gpu.py --device cpu --side 512 --tile 64    # tries the script without a GPU

Ends with code 1 if a score differs from the CPU's float32 score by more than a fixed limit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from memory import write_scene
from run import machine, table
from timing import interleaved
from torch.utils.flop_counter import FlopCounterMode
from whole import detectors

import uniadrs_scale as us
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.detector import inference as fast
from uniadrs_scale.detector.detector import gpus_in_use
from uniadrs_scale.detector.gpu import KERNELS, passes_on
from uniadrs_scale.detector.inference import FastNetwork, exact_gpu
from uniadrs_scale.detector.network import NetworkConfig, UniADRS
from uniadrs_scale.detector.passes import PLAIN
from uniadrs_scale.detector.whitening import CHANNELS
from uniadrs_scale.runtime.compute import Compute

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = ("correct", "peak", "passes", "tile", "layers", "calls", "file")
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}
"""Largest difference from the CPU's float32 scores."""
RANDOM_BF16 = 5e-2
"""The same for the random weights of `l` in bfloat16."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BANDS = 4


class Setting(NamedTuple):
    """Settings of all rows."""

    device: torch.device
    folder: Path
    side: int
    """Side of the scene of `file` [px]."""
    tile: int
    repeats: int
    threads: tuple[int, ...]
    """Threads per worker, tried in turn."""

    @property
    def batch(self) -> int:
        """Tiles per call: the detector's, or two on a CPU."""
        return 16 if self.device.type == "cuda" else 2

    def timed(self, calls: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Return the median seconds of each call, including the work of the device."""
        # Several at a time on a GPU, so that the wait for it is a small part.
        times = 10 if self.device.type == "cuda" else 1

        def whole(call: Callable[[], object]) -> None:
            for _ in range(times):
                call()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        with torch.inference_mode(), exact_gpu():
            took = interleaved({k: partial(whole, call) for k, call in calls.items()}, self.repeats)
        return {name: seconds / times for name, seconds in took.items()}


def pixels(setting: Setting, tiles: int) -> np.ndarray:
    """Return noise (tiles, BANDS, y, x) scaled as tiles are: mean 0, deviation 1."""
    shape = (tiles, BANDS, setting.tile, setting.tile)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def fitted(setting: Setting, device: str) -> dict[str, Any]:
    """Return `s` and `l` in both types, fitted to :func:`pixels`."""
    everywhere = np.ones((setting.tile, setting.tile), bool)
    statistics = BandStatistics.of(pixels(setting, 1)[0], everywhere)
    found = detectors(setting.folder, device)
    return {name: detector.fitted(statistics) for name, detector in found.items()}


def correct(setting: Setting) -> dict[str, Any]:
    """Compare scores of tiles, and of a whole map, with the CPU's in float32."""
    tiles, row = pixels(setting, setting.batch), {}
    here, there = fitted(setting, "cpu"), fitted(setting, str(setting.device))
    for name, detector in there.items():
        size, short = name.split()
        expected = here[f"{size} fp32"].score_tiles(tiles[:2])
        apart = float(np.abs(detector.score_tiles(tiles)[:2] - expected).max())
        limit = RANDOM_BF16 if name == "l bf16" else TOLERANCE[short]
        row[f"max abs {name} (at most {limit})"] = apart
        row[f"wrong: {name}"] = not apart <= limit
    write_scene(setting.folder / "small.tif", min(setting.side, 700), BANDS)
    scene = us.open_scene(setting.folder / "small.tif")
    maps = [
        us.score(scene, detector=us.Detector.load(device=d), scheduler="sync", preset="single-band")
        for d in ("cpu", str(setting.device))
    ]
    apart = float(np.abs(maps[1].values - maps[0].values).max())
    row[f"max abs of a map, s fp32 (at most {TOLERANCE['fp32']})"] = apart
    row["wrong: map"] = not apart <= TOLERANCE["fp32"]
    return row


def peak(setting: Setting) -> dict[str, Any]:
    """Measure FLOP/s of a large matrix product, and bytes per second of a copy."""
    side = 8192 if setting.device.type == "cuda" else 512
    row = {}
    for short, dtype in DTYPES.items():
        a, b = (torch.randn(side, side, device=setting.device).to(dtype) for _ in range(2))
        took = setting.timed({"product": lambda a=a, b=b: a @ b})["product"]
        row[f"matrix product {short} [TFLOP/s]"] = round(2 * side**3 / took / 1e12, 2)
    source = torch.ones(4 * side**2, device=setting.device)
    target = torch.empty_like(source)
    took = setting.timed({"copy": lambda: target.copy_(source)})["copy"]
    row["copy [GB/s]"] = round(8 * source.numel() / took / 1e9, 1)
    return row


def passes(setting: Setting) -> dict[str, Any]:
    """Compare each kernel with plain torch at the sizes of `l`, and with a copy's bandwidth."""
    row, dtype, copy = {}, torch.bfloat16, peak(setting)["copy [GB/s]"] * 1e9
    chosen = passes_on(setting.device, dtype)
    for name in KERNELS:
        # (channels, part of the side): the stem, or the decoders' attention.
        for channels, part in [(64, 1)] if name != "attend" else [(64, 2), (128, 4), (512, 8)]:
            arguments, moved = _arguments(setting, name, channels, setting.tile // part)
            calls = {
                which: partial(getattr(one, name), *arguments)
                for which, one in (("plain", PLAIN), ("kernel", chosen))
            }
            took = setting.timed(calls)
            place = f"{name} {channels} @ {setting.tile // part}"
            row[f"{place} plain, kernel [ms]"] = ", ".join(f"{1e3 * t:.3f}" for t in took.values())
            row[f"{place} of bandwidth"] = f"{moved / took['kernel'] / copy:.0%}"
    return row


def _arguments(
    setting: Setting, name: str, channels: int, side: int
) -> tuple[tuple[Any, ...], float]:
    """Return arguments of a pass, and the bytes that it must read and write."""

    def tensor(channels: int, side: int) -> torch.Tensor:
        made = torch.randn(setting.batch, channels, side, side, device=setting.device)
        return made.bfloat16().contiguous(memory_format=torch.channels_last)

    one = 2 * setting.batch * channels * side**2
    if name == "norm_relu":
        return (tensor(channels, side),), 3 * one  # read twice, first for the moments
    if name == "add_enlarged":
        bias = torch.randn(channels, device=setting.device)
        return (tensor(channels, side), tensor(channels, side // 2), bias, "bilinear"), 2.25 * one
    return (tensor(2 * channels, side), tensor(64, side)), (3 + 64 / channels) * one


def tile(setting: Setting) -> dict[str, Any]:
    """Time the network alone, its input on the device; compare with the peak and variants."""
    row: dict[str, Any] = {}
    peaks = peak(setting)
    for size, width in (("l", 1.0), ("s", 0.25)):
        torch.manual_seed(0)
        module = UniADRS(NetworkConfig(width, CHANNELS)).eval()
        for short, dtype in DTYPES.items():
            shape = (setting.batch, CHANNELS, setting.tile, setting.tile)
            x = torch.randn(shape, device=setting.device)
            quick, plain = (
                FastNetwork(module, dtype, setting.device, passes)
                for passes in (passes_on(setting.device, dtype), PLAIN)
            )
            flops = _flops(plain, x)
            calls = {
                "": partial(quick, x),
                "plain": partial(plain, x),
                "benchmark": partial(_benchmarked, quick, x),
            }
            took = {k: t / setting.batch for k, t in setting.timed(calls).items()}
            best = peaks[f"matrix product {short} [TFLOP/s]"] * 1e12
            name = f"{size} {short}"
            row[f"{name} [ms per tile]"] = round(1e3 * took[""], 4)
            row[f"{name} GFLOP per tile"] = round(flops / 1e9, 1)
            row[f"{name} of the peak"] = f"{flops / took[''] / best:.0%}"
            row[f"{name} plain / kernels"] = round(took["plain"] / took[""], 2)
            row[f"{name} with cudnn.benchmark"] = round(took["benchmark"] / took[""], 2)
            row[f"{name} launch / all"] = round(_launch(quick, x) / setting.batch / took[""], 2)
    return row


def layers(setting: Setting) -> dict[str, Any]:
    """Time each convolution of `l` in bfloat16: share of the peak, and of all convolutions."""
    torch.manual_seed(0)
    module = UniADRS(NetworkConfig(1.0, CHANNELS)).eval()
    network = FastNetwork(module, torch.bfloat16, setting.device, PLAIN)
    x = torch.randn(setting.batch, CHANNELS, setting.tile, setting.tile, device=setting.device)
    found: dict[str, list[Any]] = {}
    plain = fast._Convolution.__call__

    def watched(convolution: Any, seen: torch.Tensor) -> torch.Tensor:
        outputs, inputs, side, _ = convolution.weight.shape
        name = f"conv{side} d{convolution.dilation} {inputs}->{outputs} @{seen.shape[-1]}"
        flops = 2.0 * convolution.weight.numel() * seen[:, 0].numel()
        found.setdefault(name, [0, flops, partial(plain, convolution, seen)])[0] += 1
        return plain(convolution, seen)

    fast._Convolution.__call__ = watched  # type: ignore[method-assign]
    try:
        with torch.inference_mode():
            network(x)
    finally:
        fast._Convolution.__call__ = plain  # type: ignore[method-assign]
    best = peak(setting)["matrix product bf16 [TFLOP/s]"] * 1e12
    took = setting.timed({name: call for name, (_, _, call) in found.items()})
    whole = sum(count * took[name] for name, (count, _, _) in found.items())
    return {
        f"{count} x {name}: of the peak, of the time": f"{flops / took[name] / best:.0%}, "
        f"{count * took[name] / whole:.0%}"
        for name, (count, flops, _) in found.items()
    }


def _flops(network: FastNetwork, x: torch.Tensor) -> float:
    """Count the FLOPs of convolutions and matrix products for one tile."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counted:
        network(x[:1])
    return float(counted.get_total_flops())


def _benchmarked(network: FastNetwork, x: torch.Tensor) -> torch.Tensor:
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        return network(x)


def _launch(network: FastNetwork, x: torch.Tensor) -> float:
    """Return the seconds until a call returns: CPU work that a CUDA graph would save."""
    with torch.inference_mode(), exact_gpu():
        started = time.perf_counter()
        network(x)
        took = time.perf_counter() - started
    if x.is_cuda:
        torch.cuda.synchronize()
    return took


def calls(setting: Setting) -> dict[str, Any]:
    """Time `score_tiles` from threads: numpy to numpy, with whitening and transfers."""
    row, tiles = {}, pixels(setting, setting.batch)
    peaks, rounds = peak(setting), 4 * setting.repeats
    x = torch.randn(1, CHANNELS, setting.tile, setting.tile)
    flops = {
        name: _flops(FastNetwork(UniADRS(NetworkConfig(width, CHANNELS)), passes=PLAIN), x)
        for name, width in (("l", 1.0), ("s", 0.25))
    }
    for name, detector in fitted(setting, str(setting.device)).items():
        for threads in setting.threads:
            with ThreadPoolExecutor(threads) as pool:
                ask = partial(_ask, pool, detector, tiles)
                ask(threads)
                started = time.perf_counter()
                ask(rounds)
                a_tile = (time.perf_counter() - started) / rounds / setting.batch
            size, short = name.split()
            best = peaks[f"matrix product {short} [TFLOP/s]"] * 1e12
            place = f"{name} {threads} threads"
            row[f"{place} [ms per tile]"] = round(1e3 * a_tile, 4)
            row[f"{place} of the peak"] = f"{flops[size] / a_tile / best:.0%}"
    return row


def _ask(pool: ThreadPoolExecutor, detector: Any, tiles: np.ndarray, rounds: int) -> None:
    list(pool.map(detector.score_tiles, [tiles] * rounds))


def file(setting: Setting) -> dict[str, Any]:
    """Time a tiled uint16 file of 4 bands, from disk to COG, on warm workers, one per GPU."""
    write_scene(setting.folder / "scene.tif", setting.side, BANDS)
    scene = us.open_scene(setting.folder / "scene.tif")
    corner = scene.isel(y=slice(0, 1024), x=slice(0, 1024))
    row: dict[str, Any] = {}
    for name, detector in detectors(setting.folder, str(setting.device)).items():
        for threads in setting.threads if name.endswith("bf16") else ():
            gpus = gpus_in_use(detector)
            options = {"detector": detector, "preset": "single-band"}
            base = setting.folder / f"{name} {threads}"
            compute = Compute(workers=len(gpus) or 1, threads=threads, gpus=gpus)
            with compute.connected() as cluster:
                assert cluster.client is not None
                with cluster.client.as_current():
                    us.score(corner, f"{base} warm.zarr", chunk=512, **options)
                    started = time.perf_counter()
                    us.score(scene, f"{base}.zarr", **options)
                    scored = time.perf_counter()
                    us.to_cog(f"{base}.zarr", f"{base}.tif")
                    done = time.perf_counter()
            place = f"{name} {threads} threads"
            row[f"{place} disk to COG [s]"] = round(done - started, 2)
            row[f"{place} of that the COG [s]"] = round(done - scored, 2)
            row[f"{place} [Mpx/s]"] = round(setting.side**2 / 1e6 / (done - started), 1)
    return row


def main() -> None:
    """Measure, print the table, and check the scores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="by default all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--side", type=int, default=10_980, help="side of the scene of 'file' [px]")
    parser.add_argument("--tile", type=int, default=224, help="[px]")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4, 8], help="per worker")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    device, results = torch.device(options.device), {}
    if device.type == "cpu":
        torch.set_num_threads(1)  # as the detector does
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        setting = Setting(
            device, Path(name), options.side, options.tile, options.repeats, tuple(options.threads)
        )
        for row in options.rows or ROWS:
            print(f"{row} ...", file=sys.stderr, flush=True)
            results[row] = globals()[row](setting)
            (options.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    text = f"{where}, torch {torch.__version__}; {machine()}\n\n{table(results.items())}\n"
    (options.out / "gpu.md").write_text(text)
    print(text)
    wrong = [name for row in results.values() for name, is_so in row.items() if is_so is True]
    if wrong:
        sys.exit(f"scores differ: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
