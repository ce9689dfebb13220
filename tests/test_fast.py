"""The inference network: the module's function, for any size, width, profile and arithmetic."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from uniadrs_scale.detector import cpu_kernels as kernels
from uniadrs_scale.detector import window_kernels as windows
from uniadrs_scale.detector.coarse import means
from uniadrs_scale.detector.inference import FastNetwork
from uniadrs_scale.detector.network import NetworkConfig, UniADRS
from uniadrs_scale.detector.passes import (
    NUMBA,
    PLAIN,
    Passes,
    enlargement,
    fast_ring_mean,
    local_attention,
    scrambled_attention,
)
from uniadrs_scale.detector.weights import load_network, read_weights, shipped_weights
from uniadrs_scale.detector.whitening import CHANNELS, COMPONENTS, ring_mean
from uniadrs_scale.errors import PlanError


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def module(config: NetworkConfig) -> UniADRS:
    torch.manual_seed(1)
    return UniADRS(config).eval()


def nhwc(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())


def nchw(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x).permute(0, 3, 1, 2)


@pytest.mark.parametrize("profile", ["corrected", "published"])
@pytest.mark.parametrize(
    ("width", "bands", "shape"),
    [
        (0.25, 24, (1, 24, 96, 96)),
        (0.25, 24, (2, 3, 64, 80)),  # a batch, folded bands
        (0.03, 12, (1, 5, 47, 61)),  # odd channels, sides that 8 does not divide
        (0.03, 12, (1, 12, 16, 16)),  # the smallest tile: 2 px at the deepest level
        (0.5, 10, (1, 4, 40, 40)),  # the attention's convolutions composed into one
    ],
)
@pytest.mark.parametrize("passes", [NUMBA, PLAIN], ids=["numba", "plain"])
def test_it_is_the_module_to_rounding(
    profile: str, width: float, bands: int, shape: tuple[int, ...], passes: Passes
) -> None:
    network = module(NetworkConfig(width, bands, profile))
    expected = network(seeded(*shape)).detach()
    got = FastNetwork(network, passes=passes)(seeded(*shape))
    assert got.dtype == torch.float32
    assert expected.std() > 1e-3
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", shipped_weights())
def test_the_shipped_weights_score_as_the_module_does(name: str) -> None:
    """What the recipe trained and judged is what users get: float32 to 1e-5, bfloat16 to 2e-2."""
    network = load_network(read_weights(name)).eval()
    x = 2 * seeded(1, network.config.bands, 128, 128)
    expected = network(x).detach()
    torch.testing.assert_close(FastNetwork(network)(x), expected, rtol=0, atol=1e-5)
    low = FastNetwork(network, torch.bfloat16)(x)
    torch.testing.assert_close(low, expected, rtol=0, atol=2e-2)


def test_groups_of_bands_and_the_shortcut() -> None:
    many = module(NetworkConfig(0.05, 6))
    x = seeded(1, 15, 32, 32)
    torch.testing.assert_close(FastNetwork(many)(x), many(x).detach(), rtol=0, atol=1e-5)
    short = module(NetworkConfig(0.05, 24, shortcut=0.5))
    x = seeded(1, 24, 32, 32)
    torch.testing.assert_close(FastNetwork(short)(x), short(x).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("passes", [NUMBA, PLAIN], ids=["numba", "plain"])
@pytest.mark.parametrize("bands", [1, 4, COMPONENTS])
def test_components_that_few_bands_lack_count_as_zeros(bands: int, passes: Passes) -> None:
    network = module(NetworkConfig(0.25, CHANNELS, shortcut=0.5))
    every = seeded(1, CHANNELS, 40, 48)
    every[:, bands:COMPONENTS] = 0
    there = torch.cat([every[:, :bands], every[:, COMPONENTS:]], 1)
    got = FastNetwork(network, passes=passes, whitened=True)(there)
    torch.testing.assert_close(got, network(every).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3, 5, 130), (1, 12, 64, 64), (1, 1, 1, 1)])
def test_channels_last(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = seeded(*shape).to(dtype)
    got = NUMBA.channels_last(x)
    assert torch.equal(got, x)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_the_module_is_left_as_it_was() -> None:
    network, x = module(NetworkConfig(0.05, 6)), seeded(1, 6, 32, 32)
    before = network(x)
    fast = FastNetwork(network)
    first = fast(x)
    assert torch.equal(network(x), before)
    assert not first.requires_grad
    assert torch.equal(x, seeded(1, 6, 32, 32))  # kernels work in place, never on the input


def test_bits_depend_neither_on_the_batch_nor_on_threads() -> None:
    fast, tiles = FastNetwork(module(NetworkConfig(0.1, 8))), seeded(4, 8, 48, 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = [fast(tile[None]) for tile in tiles]
    torch.set_num_threads(threads)

    def one(tile: Tensor) -> Tensor:
        torch.set_num_threads(1)
        return fast(tile[None])

    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(one, list(tiles) * 3))
    assert all(torch.equal(a, b) for a, b in zip(alone * 3, together, strict=True))


def test_bfloat16_is_as_close_as_autocast() -> None:
    """Halfway precision costs what it costs the module: at most half as much again."""
    network, x = module(NetworkConfig(0.25, 24)), seeded(1, 24, 96, 96)
    exact = network(x).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast_error = (network(x).detach().float() - exact).abs().mean()
    got = FastNetwork(network, torch.bfloat16)(x)
    assert got.dtype == torch.float32
    assert (got - exact).abs().mean() < 1.5 * cast_error
    assert (got - exact).abs().max() < 0.03


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 3, 15, 40), "15 x 40 px is too small"), ((1, 9, 32, 32), "9 bands")]
)
def test_it_refuses_what_the_module_refuses(shape: tuple[int, ...], message: str) -> None:
    fast = FastNetwork(module(NetworkConfig(0.05, 8, "published")))
    with pytest.raises(PlanError, match=message):
        fast(torch.zeros(shape))


def test_a_tile_with_nan_scores_nan() -> None:
    fast, x = FastNetwork(module(NetworkConfig(0.05, 4))), seeded(1, 4, 32, 32)
    x[0, 2, 5, 7] = torch.nan
    assert fast(x).isnan().all()


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_norm(offset: float) -> None:
    x = seeded(2, 5, 30, 17) * 3 + offset
    expected = F.relu(F.instance_norm(x.double()))
    got = nhwc(x)
    kernels.norm_relu(got)
    # A thousand deviations off zero, float32 input has lost three digits already.
    tolerance = 2e-6 if offset == 0 else 2e-4
    torch.testing.assert_close(nchw(got).double(), expected, rtol=0, atol=tolerance)


def test_halving_drops_the_odd_row() -> None:
    x = seeded(2, 3, 7, 10)
    out = np.empty((2, 3, 5, 3), np.float32)
    kernels.halve(nhwc(x), out)
    assert torch.equal(nchw(out), F.max_pool2d(x, 2))


@pytest.mark.parametrize(("small", "large"), [(4, 8), (7, 15), (1, 2), (5, 5)])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_enlarging(small: int, large: int, mode: str) -> None:
    coarse, x, bias = seeded(2, 3, small, 6), seeded(2, 3, large, 13), seeded(3)
    enlarged = F.interpolate(coarse.double(), size=(large, 13), mode=mode)
    expected = F.relu(x + enlarged + bias[:, None, None])
    axes = [enlargement(a, b, mode) for a, b in ((small, large), (6, 13))]
    got = nhwc(x)
    kernels.add_enlarged(got, nhwc(coarse), *axes, bias.numpy())
    torch.testing.assert_close(nchw(got).double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("shape", [(1, 4, 9, 13), (2, 3, 30, 20), (1, 1, 2, 3)])
@pytest.mark.parametrize("kernel", [kernels.attend, kernels.attend_scrambled])
def test_attention(shape: tuple[int, int, int, int], kernel: object) -> None:
    batch, channels, height, width = shape
    own, near = seeded(*shape), seeded(*shape).flip(-1)
    logits = 5 * seeded(batch, 64, height, width)  # whole blocks of channels: 49 count
    weights = logits[:, :49].double().softmax(1)
    plain = local_attention if kernel is kernels.attend else scrambled_attention
    expected = own + plain(near.double(), weights)
    out = np.empty((batch, height, width, channels), np.float32)
    kernel(nhwc(torch.cat([own, near], 1)), nhwc(logits), out)  # type: ignore[operator]
    torch.testing.assert_close(nchw(out).double(), expected, rtol=0, atol=3e-6)


def test_the_exponential_of_all_that_softmax_asks() -> None:
    values = -np.logspace(-6, np.log10(60), 2000).astype(np.float32)
    got = np.array([kernels.exponential(v) for v in values], np.float64)
    np.testing.assert_allclose(got, np.exp(values.astype(np.float64)), rtol=3e-7)
    assert kernels.exponential(np.float32(0)) == 1
    # Products of weights below exp(-60) could be subnormal.
    assert [kernels.exponential(np.float32(v)) for v in (-60.001, -87, -1000, -np.inf)] == [0] * 4
    assert np.isnan(kernels.exponential(np.float32(np.nan)))


@pytest.mark.parametrize("shape", [(2, 3, 40, 33), (1, 1, 5, 60), (1, 2, 21, 21), (1, 1, 12, 1)])
def test_ring_means(shape: tuple[int, ...]) -> None:
    values = seeded(*shape) + 100
    expected = ring_mean(values, 3, 9)
    torch.testing.assert_close(fast_ring_mean(values, 3, 9), expected, rtol=0, atol=1e-4)
    strided = values[..., ::2] if shape[-1] > 1 else values
    expected = ring_mean(strided, 3, 9)
    torch.testing.assert_close(fast_ring_mean(strided, 3, 9), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_coarse_means_are_those_of_torch(factor: int) -> None:
    planes = seeded(2, 37, 50) * 1e3
    out = np.empty((2, 37 // factor, 50 // factor), np.float32)
    windows.coarser(planes.numpy(), factor, out)
    assert torch.equal(torch.from_numpy(out), F.avg_pool2d(planes, factor))


@pytest.mark.parametrize(("factor", "smoothing"), [(2, 3), (3, 3), (6, 3), (3, 5)])
def test_means_of_means(factor: int, smoothing: int) -> None:
    """As running means of all pixels one after the other, of which some are kept."""
    tiles = (seeded(2, 3, 36, 48) * 1e3).numpy()
    got = means(tiles, factor, smoothing)
    margin = factor * smoothing
    wide = np.pad(tiles.astype(float), ((0, 0), (0, 0), *((margin, margin),) * 2), "symmetric")
    for _ in range(smoothing):
        for axis in (2, 3):
            wide = np.lib.stride_tricks.sliding_window_view(wide, factor, axis).mean(-1)
    first = margin - (factor - 1) * (smoothing - 1) // 2
    kept = wide[:, :, first::factor, first::factor][:, :, : 36 // factor, : 48 // factor]
    np.testing.assert_allclose(got, kept, rtol=1e-5, atol=1e-3)
    turned = means(np.ascontiguousarray(tiles[..., ::-1, ::-1]), factor, smoothing)
    np.testing.assert_allclose(got, turned[..., ::-1, ::-1], atol=1e-3)


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (5, 5), (1, 15), (15, 1), (3, 9)])
@pytest.mark.parametrize("shape", [(20, 33), (4, 40), (40, 3), (1, 1)])
def test_the_highest_around_each_pixel(rows: int, cols: int, shape: tuple[int, int]) -> None:
    plane = seeded(*shape).numpy()
    out = np.empty_like(plane)
    windows.highest(plane, rows, cols, out)
    around = {"mode": "constant", "cval": -np.inf}
    assert np.array_equal(out, ndimage.maximum_filter(plane, (rows, cols), **around))


def test_bfloat16_rounds_as_torch_does() -> None:
    # 1 + 2^-8 and 1 + 3 * 2^-8 lie half way between two bfloat16: the even one is right.
    ties = torch.tensor([0.0, 1 + 2**-8, 1 + 3 * 2**-8, 1.0, torch.nan])
    values = torch.cat([seeded(5000).abs(), ties])
    got = np.zeros((1, len(values), 1, 1), np.uint16)
    axes = [enlargement(n, n, "bilinear") for n in (len(values), 1)]
    exact = values.numpy()[None, :, None, None]
    kernels.add_enlarged(got, exact, *axes, np.zeros(1, np.float32))
    rounded = torch.from_numpy(got).view(torch.bfloat16).flatten()
    torch.testing.assert_close(rounded[:-2], values.bfloat16()[:-2], rtol=0, atol=0)
    assert rounded[-1].isnan()
