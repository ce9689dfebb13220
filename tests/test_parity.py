"""Golden values of the published code: network, tiled inference, losses and figures."""

from __future__ import annotations

import importlib.util
import json
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from uniadrs_scale.detector import published
from uniadrs_scale.errors import SceneError, WeightsError
from uniadrs_scale.evaluation.metrics import figures

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray
    from torch import Tensor

ROOT = Path(__file__).parents[1]
PARITY = ROOT.parent / "shared" / "parity"

if not PARITY.exists() and os.environ.get("CI") != "true":
    pytest.skip("the golden values are not on this machine", allow_module_level=True)


def golden(name: str) -> dict[str, Any]:
    with np.load(PARITY / f"{name}.npz") as content:
        return dict(content)


def image(values: dict[str, Any]) -> NDArray[np.float32]:
    """What the published network saw of a stored image."""
    return values["image_u8"].astype(np.float32) / 255


def weights(name: str, shape: list[int]) -> Tensor:
    """The golden weights: a formula instead of a file."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    values *= np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
    return torch.from_numpy(values.astype(np.float32))


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    shapes = json.loads((PARITY / "shapes.json").read_text())
    return {name: weights(name, shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def network(checkpoint: dict[str, Tensor]) -> torch.nn.Module:
    return published.network(checkpoint)


@pytest.fixture(scope="module")
def losses() -> ModuleType:
    spec = importlib.util.spec_from_file_location("losses", ROOT / "model" / "losses.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def standin(x: Tensor) -> Tensor:
    """Stand-in of the tiling's golden values: |mean over bands - mean| / deviation of the tile."""
    mean = x.mean(1, keepdim=True)
    return (mean - x.mean()).abs() / (x.std() + 1e-6)


@pytest.mark.parametrize("name", ["network_1band", "network_4band", "network_189band"])
def test_network(network: torch.nn.Module, name: str) -> None:
    values = golden(name)
    with torch.inference_mode():
        scores = network(torch.from_numpy(image(values))).numpy()
    np.testing.assert_allclose(scores, values["score"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("tiling_standin", 1e-6), ("tiling_network", 1e-5), ("band_slices", 1e-5)],
)
def test_tiled_inference(network: torch.nn.Module, name: str, tolerance: float) -> None:
    values = golden(name)
    sizes = {key: int(values[key]) for key in ("patch", "pad", "size")}
    scorer = standin if name == "tiling_standin" else network
    scores = published.score(image(values), scorer, **sizes)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, values["score"], rtol=0, atol=tolerance)


def test_slices_of_bands_step_by_one_band() -> None:
    """Three slices, told apart by their first band; golden values have two."""
    bands = np.arange(600, dtype=np.float32)[:, None, None]
    scored = published.score(
        np.broadcast_to(bands, (600, 20, 20)), lambda x: x[:, :1], patch=16, pad=2, size=20
    )
    np.testing.assert_allclose(scored, ((0 / 2 + 1) / 2 + 330) / 2)


def test_whole_patches_get_another_one() -> None:
    """The published padding adds a patch even where none is missing: seen where pad > patch."""
    pixels = np.random.default_rng(0).random((1, 40, 60), np.float32)
    patch, pad = 20, 30
    reflected = np.pad(pixels[0], ((0, patch), (0, patch)), mode="reflect")
    reflected = np.pad(reflected, pad, mode="reflect")
    corner = reflected[patch : 2 * patch + 2 * pad, 2 * patch : 3 * patch + 2 * pad]
    scored = published.score(
        pixels, lambda x: x.mean((2, 3), keepdim=True).expand_as(x), patch=patch, pad=pad, size=80
    )
    np.testing.assert_allclose(scored[20:, 40:], corner.mean(), rtol=1e-5)


def test_pixel_loss(losses: ModuleType) -> None:
    values = golden("pixel_loss")
    scores = torch.from_numpy(values["scores"]).requires_grad_()
    multipliers = torch.from_numpy(values["lambdas"]).requires_grad_()
    loss = losses.published_pixel_loss(scores, torch.from_numpy(values["labels"]), multipliers)
    loss.backward()
    assert loss.item() == pytest.approx(float(values["loss"]), rel=1e-5)
    for got, expected in ((scores, "grad_scores"), (multipliers, "grad_lambdas")):
        assert got.grad is not None
        np.testing.assert_allclose(got.grad.numpy(), values[expected], rtol=1e-5)
    assert (values["grad_lambdas"] < 0).all()  # more weight would raise the loss: reversed


def test_feature_loss(losses: ModuleType) -> None:
    values = golden("feature_loss")
    features = torch.from_numpy(values["features"]).requires_grad_()
    loss = losses.published_feature_loss(features[0], torch.from_numpy(values["mask"][0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(float(values["loss"]), rel=1e-5)
    assert features.grad is not None
    expected = values["grad_features"]
    # Relative to the largest: single gradients cross zero.
    np.testing.assert_allclose(features.grad, expected, rtol=1e-5, atol=1e-5 * expected.max())


def test_figures() -> None:
    values = golden("metrics")
    found = figures(values["scores"], values["truth"])
    names = [name for name in values if name.startswith("auc_")]
    assert len(names) == 8
    areas = {"auc_df": "AUC(D,F)", "auc_dt": "AUC(D,tau)", "auc_ft": "AUC(F,tau)"}
    for name in names:
        ours = found.family[areas.get(name, name.upper())]
        assert ours == pytest.approx(float(values[name]), abs=1e-9), name
    # The ninth is not in the file.
    assert found.family["AUC_OA"] == pytest.approx(found.auc_df + found.family["AUC_TDBS"])


def test_ties_count_one_half() -> None:
    found = figures(np.array([[1.0, 2.0, 2.0, np.nan]]), np.array([[False, False, True, True]]))
    assert found.auc_df == 0.75
    assert (found.auc_dt, found.auc_ft) == (1.0, 0.5)


def test_a_flat_map_knows_nothing() -> None:
    found = figures(np.ones(4), np.array([True, False, False, False]))
    assert (found.auc_df, found.auc_dt, found.auc_ft) == (0.5, 0, 0)
    assert found.family["AUC_SNPR"] == float("inf")


def test_figures_need_both_classes_on_one_grid() -> None:
    with pytest.raises(SceneError, match="0 of 3 scored pixels are anomalies"):
        figures(np.array([1.0, 2, 3, np.nan]), np.array([False, False, False, True]))
    with pytest.raises(SceneError, match=r"shape \(3,\) and labels of shape \(4,\)"):
        figures(np.zeros(3), np.zeros(4, bool))


def test_a_published_checkpoint_lacks_its_decoders(checkpoint: dict[str, Tensor]) -> None:
    kept = {k: v for k, v in checkpoint.items() if "normality_decoders" not in k}
    torch.manual_seed(5)
    following = torch.rand(1)
    torch.manual_seed(5)
    with pytest.warns(UserWarning, match="no decoders.*from seed 0"):
        first = published.network(kept)
    assert torch.equal(torch.rand(1), following)  # the caller's random numbers did not move
    with pytest.warns(UserWarning, match="no decoders"):
        second = published.network(kept)
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())
    stem = first.state_dict()["spectral_stem.0.weight"]
    assert torch.equal(stem, checkpoint["spectral_stem.0.weight"])


def test_other_checkpoints_are_refused(checkpoint: dict[str, Tensor]) -> None:
    name = "spectral_stem.3.bias"
    with pytest.raises(WeightsError, match=rf"lacks 1 weights.*first: \['{name}'\]"):
        published.network({k: v for k, v in checkpoint.items() if k != name})
    with pytest.raises(WeightsError, match=r"1 unknown ones \(first: \['module.x'\]\)"):
        published.network({**checkpoint, "module.x": torch.zeros(1)})
    with pytest.raises(WeightsError, match=rf"'{name}' .* shape \(2,\).*needs \(64,\)"):
        published.network({**checkpoint, name: torch.zeros(2)})


def test_an_image_too_small_to_reflect_is_refused() -> None:
    with pytest.raises(SceneError, match="30 x 40 px cannot be reflected"):
        published.score(np.zeros((1, 30, 40), np.float32), standin, patch=80, pad=10, size=64)
    with pytest.raises(SceneError, match="patch=0, pad=1, size=8 make no tile"):
        published.score(np.zeros((1, 30, 40), np.float32), standin, patch=0, pad=1, size=8)


def test_presets_are_the_published_ones() -> None:
    found = {k: (t.patch, t.pad, t.size) for k, t in published.PRESETS.items()}
    assert found == {
        "hyperspectral": (50, 40, 128),
        "visible": (120, 20, 256),
        "infrared": (120, 40, 224),
        "sar": (80, 140, 224),
        "lowlight": (100, 60, 224),
    }
