"""The network: exact against slow oracles, for any bands and any tile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from uniadrs_scale.detector.network import NetworkConfig, UniADRS, fold_stem
from uniadrs_scale.detector.passes import local_attention, scrambled_attention
from uniadrs_scale.detector.whitening import CHANNELS
from uniadrs_scale.errors import PlanError, WeightsError


def slow_attention(features: Tensor, weights: Tensor) -> Tensor:
    """The 49 shifted copies that the network avoids."""
    batch, channels, height, width = features.shape
    copies = F.unfold(features, 7, dilation=2, padding=6).view(batch, channels, 49, height, width)
    return (copies * weights[:, None]).sum(2)


def pixelwise_attention(features: Tensor, weights: Tensor) -> Tensor:
    """The formula, pixel by pixel: no unfold, no padding."""
    channels, height, width = features.shape
    out = torch.zeros_like(features)
    for y in range(height):
        for x in range(width):
            for n in range(49):
                row, col = y + 2 * (n // 7 - 3), x + 2 * (n % 7 - 3)
                if 0 <= row < height and 0 <= col < width:
                    out[:, y, x] += weights[n, y, x] * features[:, row, col]
    assert out.shape[0] == channels
    return out


def seeded(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture(scope="module")
def network() -> UniADRS:
    torch.manual_seed(3)
    return UniADRS().eval()


@pytest.mark.parametrize("shape", [(2, 5, 9, 13), (1, 3, 30, 28), (1, 1, 2, 3)])
def test_attention_equals_the_unfolded_oracle(shape: tuple[int, int, int, int]) -> None:
    features = seeded(*shape, dtype=torch.float64)
    weights = seeded(shape[0], 49, *shape[2:], dtype=torch.float64).softmax(1)
    slow = slow_attention(features, weights)
    torch.testing.assert_close(local_attention(features, weights), slow, rtol=0, atol=1e-14)
    # Rounding only: the worst case of 49 float32 additions of values about 1.
    fast = local_attention(features.float(), weights.float())
    torch.testing.assert_close(fast.double(), slow, rtol=0, atol=2e-6)


def test_attention_equals_the_formula_pixel_by_pixel() -> None:
    features, weights = seeded(1, 2, 8, 11), seeded(1, 49, 8, 11).softmax(1)
    expected = pixelwise_attention(features[0], weights[0])
    torch.testing.assert_close(local_attention(features, weights)[0], expected)


def test_attention_gradients() -> None:
    features = seeded(2, 2, 5, 4, dtype=torch.float64).requires_grad_()
    weights = seeded(2, 49, 5, 4, dtype=torch.float64).softmax(1).requires_grad_()
    assert torch.autograd.gradcheck(local_attention, (features, weights))


def test_attention_accumulates_half_precision_in_float32() -> None:
    features, weights = seeded(1, 4, 16, 16).bfloat16(), seeded(1, 49, 16, 16).softmax(1).bfloat16()
    out = local_attention(features, weights)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, slow_attention(features.float(), weights.float()).bfloat16())


def test_constant_features_pass_the_attention_unchanged_inside() -> None:
    out = local_attention(torch.ones(1, 3, 20, 20), seeded(1, 49, 20, 20).softmax(1))
    torch.testing.assert_close(out[..., 6:-6, 6:-6], torch.ones(1, 3, 8, 8))


def test_the_published_attention_is_another_function() -> None:
    features, weights = seeded(1, 3, 16, 16), seeded(1, 49, 16, 16).softmax(1)
    apart = (scrambled_attention(features, weights) - local_attention(features, weights)).abs()
    assert apart.max() > 0.5
    flat = F.unfold(features, 7, dilation=2, padding=6)[0, :49].flatten() * weights.flatten()
    expected = flat[5 * 49 : 6 * 49].sum()
    torch.testing.assert_close(scrambled_attention(features, weights)[0, 0, 0, 5], expected)


@pytest.mark.parametrize("bands", [1, 2, 4, 189, 269, 270])
def test_folding_equals_repeating(bands: int) -> None:
    weight = seeded(8, 270, 3, 3, dtype=torch.float64)
    pixels = seeded(1, bands, 12, 10, dtype=torch.float64)
    repeated = pixels[:, torch.arange(270) % bands]
    folded = F.conv2d(pixels, fold_stem(weight, bands))
    torch.testing.assert_close(folded, F.conv2d(repeated, weight))


def test_folding_passes_gradients_to_every_repeat() -> None:
    weight = torch.zeros(1, 7, 1, 1, requires_grad=True)
    fold_stem(weight, 3)[0, :, 0, 0].mul(torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [1, 2, 3, 1, 2, 3, 1]


@pytest.mark.parametrize("bands", [0, 271])
def test_folding_refuses_other_band_counts(bands: int) -> None:
    with pytest.raises(PlanError, match=rf"{bands} bands .* takes 1 to 270 bands"):
        fold_stem(torch.zeros(2, 270, 3, 3), bands)


@pytest.mark.parametrize("side", [(16, 16), (17, 31), (56, 80), (101, 99)])
@pytest.mark.parametrize("bands", [1, 3, 270])
def test_any_size_and_band_count(network: UniADRS, bands: int, side: tuple[int, int]) -> None:
    with torch.inference_mode():
        scores = network(seeded(2, bands, *side))
    assert scores.shape == (2, 1, *side)
    assert 0 <= scores.min() <= scores.max() <= 1


def test_many_bands_are_the_mean_of_contiguous_groups(network: UniADRS) -> None:
    x = seeded(1, 601, 32, 32)
    with torch.inference_mode():
        parts = [network(x[:, :201]), network(x[:, 201:401]), network(x[:, 401:])]
        torch.testing.assert_close(network(x), torch.stack(parts).mean(0))


def test_score_is_the_sigmoid_of_the_logits(network: UniADRS) -> None:
    x = seeded(1, 5, 32, 40)
    with torch.inference_mode():
        logits, features = network.described(x)
        torch.testing.assert_close(network(x), logits.sigmoid())
        assert torch.equal(logits, network.logits(x))
    assert features.shape == (1, 16, 32, 40)


def test_a_tile_does_not_see_its_batch(network: UniADRS) -> None:
    x = seeded(3, 4, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=0, atol=1e-5)


def test_threads_share_one_network(network: UniADRS) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tiles = [seeded(1, bands, 64, 64) for bands in (1, 4, 7, 12, 30, 100)]

    def run(x: Tensor) -> Tensor:
        torch.set_num_threads(1)
        with torch.inference_mode():
            return network(x)

    alone = [run(x) for x in tiles]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, tiles * 3))
    assert all(torch.equal(a, b) for a, b in zip(alone * 3, together, strict=True))
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_every_trained_parameter_reaches_the_score() -> None:
    torch.manual_seed(0)
    network = UniADRS(NetworkConfig(width=0.1, bands=6))
    network(seeded(1, 3, 32, 32)).sum().backward()
    silent = [k for k, p in network.named_parameters() if p.requires_grad and p.grad is None]
    frozen = [k for k, p in network.named_parameters() if not p.requires_grad]
    assert silent == []
    assert all("decoders" in name and ".conv3." in name for name in frozen)
    assert len(frozen) == 10


@pytest.mark.parametrize(("width", "million"), [(0.25, 3.135), (1.0, 49.552)])
def test_size_of_the_network(width: float, million: float) -> None:
    with torch.device("meta"):
        network = UniADRS(NetworkConfig(width))
    count = sum(p.numel() for p in network.parameters())
    assert count / 1e6 == pytest.approx(million, abs=0.0005)


def test_the_shortcut_adds_the_mean_local_energy_to_the_logit() -> None:
    torch.manual_seed(0)
    plain = UniADRS(NetworkConfig(0.05, CHANNELS))
    linked = UniADRS(NetworkConfig(0.05, CHANNELS, shortcut=0.6))
    linked.load_state_dict(plain.state_dict())
    x = seeded(2, CHANNELS, 32, 32)
    energy = x[:, [-4, -3, -2, -1]].mean(1, keepdim=True)
    torch.testing.assert_close(linked.logits(x), plain.logits(x) + 0.6 * energy)
    assert torch.equal(linked(x), linked.logits(x).sigmoid())


def test_short_tiles_are_refused(network: UniADRS) -> None:
    with pytest.raises(PlanError, match=r"15 x 40 px is too small.*needs 16 px"):
        network(torch.zeros(1, 3, 15, 40))


def test_the_published_profile_leaves_slicing_to_its_own_inference() -> None:
    network = UniADRS(NetworkConfig(0.05, 8, "published"))
    with pytest.raises(PlanError, match=r"9 bands .* network of 8.*published\.score"):
        network(torch.zeros(1, 9, 32, 32))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 0.0}, r"width=0.0 is outside"),
        ({"bands": 0}, r"bands=0: .* at least 1 band"),
        ({"bands": 3, "shortcut": 0.5}, r"shortcut=0.5 needs the 24 channels .* not 3 bands"),
        ({"profile": "other"}, r"profile='other' is unknown"),
    ],
)
def test_configurations_that_make_no_network(values: dict[str, float], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        NetworkConfig(**values)  # type: ignore[arg-type]
