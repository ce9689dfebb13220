"""Rows about one tile: our network compared with the published one, and with the peak FLOP/s."""

from __future__ import annotations

import time
from collections import defaultdict
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from as_published import PublishedForward
from timing import bandwidth, interleaved, peak_flops

import uniadrs_scale as us
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.core.seams import accumulate, taper
from uniadrs_scale.detector import inference as fast
from uniadrs_scale.detector.inference import FastNetwork
from uniadrs_scale.detector.network import NetworkConfig, UniADRS
from uniadrs_scale.detector.whitening import CHANNELS, COMPONENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from uniadrs_scale.core.presets import Arithmetic

SIDE, BANDS = 224, 4
ARITHMETICS: dict[str, Arithmetic] = {"fp32": "float32", "bf16": "bfloat16"}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def published_module() -> UniADRS:
    """Build the published network with random weights: speed does not depend on them."""
    torch.manual_seed(0)
    return UniADRS(NetworkConfig(1.0, 270, "published")).eval()


def tile(repeats: int = 5) -> dict[str, Any]:
    """Time one tile of 224 px and 4 bands, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    x, module = torch.rand(1, BANDS, SIDE, SIDE), published_module()
    published = PublishedForward(module.state_dict())
    pixels = torch.randn(1, BANDS, SIDE, SIDE).numpy()
    statistics = BandStatistics.of(pixels[0], np.ones((SIDE, SIDE), bool))
    calls: dict[str, Callable[[], object]] = {"published": lambda: published(x)}
    worst = {}
    with torch.inference_mode():
        expected = published(x)
        for name, dtype in DTYPES.items():
            large = FastNetwork(module, dtype)
            worst[name] = float((large(x) - expected).abs().max())
            calls[f"l {name}"] = lambda network=large: network(x)
        seen = torch.randn(1, CHANNELS - COMPONENTS + BANDS, SIDE, SIDE)
        for size, (name, dtype) in product(("s", "xs"), ARITHMETICS.items()):
            detector = us.Detector.load(f"uniadrs-{size}", device="cpu", dtype=dtype)
            fitted, network = detector.fitted(statistics), detector._network
            calls[f"{size} {name}"] = lambda n=network: n(seen)
            calls[f"{size} {name} with whitening"] = lambda d=fitted: d.score_tiles(pixels)
        took = interleaved(calls, repeats)
    row = {f"{name} [ms]": round(1e3 * seconds, 1) for name, seconds in took.items()}
    ratios = {
        f"published / {name}": round(took["published"] / seconds, 1)
        for name, seconds in took.items()
        if name != "published"
    }
    return row | ratios | {f"max abs l {name}": value for name, value in worst.items()}


def layers(repeats: int = 9) -> dict[str, Any]:
    """Time `uniadrs-s`: share of the matrix-product peak per convolution, and of the forward."""
    torch.set_num_threads(1)
    row: dict[str, Any] = {}
    x = torch.randn(1, CHANNELS, SIDE, SIDE)
    for name, dtype in ARITHMETICS.items():
        network = us.Detector.load(device="cpu", dtype=dtype)._network
        peak = peak_flops(DTYPES[name])
        whole, flops, seconds = _profiled(network, x, repeats)
        row[f"peak {name} [GFLOP/s]"] = round(peak / 1e9)
        row[f"overall {name}"] = f"{sum(flops.values()) / whole / peak:.0%}"
        row[f"convolutions {name}"] = f"{sum(flops.values()) / sum(seconds.values()) / peak:.0%}"
        for layer, count in flops.items():
            row[f"{layer} {name}"] = f"{count / seconds[layer] / peak:.0%}"
    return row


def _profiled(
    network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, repeats: int
) -> tuple[float, dict[str, float], dict[str, float]]:
    """Return median seconds of a forward; FLOPs and fastest seconds of convolutions by shape."""
    plain = fast._Convolution.__call__
    flops: dict[str, float] = {}
    seconds: dict[str, list[float]] = defaultdict(list)

    def watched(self: Any, seen: torch.Tensor) -> torch.Tensor:
        started = time.perf_counter()
        out = plain(self, seen)
        outputs, inputs, side, _ = self.weight.shape
        name = f"conv{side} d{self.dilation} {inputs}->{outputs} @{seen.shape[-1]}"
        seconds[name].append(time.perf_counter() - started)
        flops[name] = 2.0 * self.weight.numel() * seen.shape[-1] * seen.shape[-2]
        return out

    with torch.inference_mode():
        whole = interleaved({"forward": lambda: network(x)}, repeats)["forward"]
        fast._Convolution.__call__ = watched  # type: ignore[method-assign]
        try:
            for _ in range(repeats):
                network(x)
        finally:
            fast._Convolution.__call__ = plain  # type: ignore[method-assign]
    times = {name: len(values) / repeats for name, values in seconds.items()}
    return (
        whole,
        {name: flops[name] * times[name] for name in flops},
        {name: min(values) * times[name] for name, values in seconds.items()},
    )


def blend(repeats: int = 15) -> dict[str, Any]:
    """Time the blend kernel against the memory bandwidth, and its share of a tile."""
    torch.set_num_threads(1)
    tiles = 24  # more than the caches hold
    weights = taper(SIDE, SIDE // 4)
    total = np.zeros((SIDE, SIDE * tiles * 4))
    score = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    network = us.Detector.load(device="cpu")._network
    x = torch.randn(1, CHANNELS, SIDE, SIDE)

    def blended() -> None:
        for n in range(tiles * 4):
            accumulate(total[:, n * SIDE : (n + 1) * SIDE], score, weights, weights)

    with torch.inference_mode():
        took = interleaved({"blend": blended, "forward": lambda: network(x)}, repeats)
    one = took["blend"] / (tiles * 4)
    speed = (2 * 8 + 4) * SIDE**2 / one  # numerator read and written, score read
    return {
        "blend [ms per tile]": round(1e3 * one, 3),
        "share of memory bandwidth": f"{speed / bandwidth():.0%}",
        "share of a tile's time (s, fp32)": f"{one / (one + took['forward']):.1%}",
    }
