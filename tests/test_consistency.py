"""Training for scores that depend on the ground: symmetric kernels, and two views of a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import symmetry
import torch
import train
from losses import consistency_loss
from recipe import Recipe

from uniadrs_scale.detector.network import NetworkConfig, UniADRS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("one_thread")


def turn_error(network: UniADRS) -> float:
    """How much a half turn of the scene changes its logits, in deviations of the logits."""
    network.eval()
    tiles = torch.randn(1, network.config.bands, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        logits, turned = network.logits(tiles), network.logits(tiles.flip(-2, -1)).flip(-2, -1)
    return ((turned - logits).abs().max() / logits.std()).item()


def test_a_symmetric_network_stays_symmetric_while_it_learns() -> None:
    torch.manual_seed(0)
    network = UniADRS(NetworkConfig(0.05, 6))
    assert turn_error(network) > 0.1
    symmetry.keep(network)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    for step in range(3):
        optimiser.zero_grad()
        network.logits(torch.randn(1, 6, 48, 48))[..., : 10 + step].square().mean().backward()
        optimiser.step()
    assert turn_error(network) < 1e-3


def test_a_recipe_makes_symmetric_weights(tmp_path: Path) -> None:
    recipe = Recipe(
        name="even", width=0.05, steps=3, seed=1, rate=1e-3, warmup=1, windows=1, held_out=1,
        symmetric=True, consistency=1.0,
    )  # fmt: skip
    run = train.train(recipe, None, tmp_path, train.Machine(workers=0))
    network = UniADRS(recipe.network)
    network.load_state_dict(run.best["mean"])
    assert turn_error(network) < 1e-3


def test_the_second_view_shows_the_same_ground() -> None:
    pixels = torch.arange(64 * 64.0).reshape(64, 64)
    views = [train.View.drawn(5, step, 64) for step in range(40)]
    assert views[0] == train.View.drawn(5, 0, 64)
    assert {view.turns for view in views} == {0, 1, 2, 3}
    assert {view.mirrored for view in views} == {False, True}
    for view in views:
        seen = view.of(pixels)
        assert seen.shape == (view.side, view.side)
        assert 48 <= view.side <= 64
        corner = pixels[view.top, view.left]
        assert seen.min() == corner
        assert len(seen.unique()) == view.side**2


def test_views_that_agree_or_are_both_sure_cost_nothing() -> None:
    logits = torch.tensor([[[-9.0, 0.0], [2.0, 30.0]]])
    assert consistency_loss(logits, logits) == 0
    assert consistency_loss(logits, torch.tensor([[[-6.0, 0.0], [2.0, 7.0]]])) == 0
    assert consistency_loss(logits, logits + torch.tensor([[0.0, 2.0], [0.0, 0.0]])) == 1


def test_a_weight_that_the_published_loss_would_ignore_is_refused() -> None:
    with pytest.raises(ValueError, match=r"consistency=1.0 does not fit the published loss"):
        Recipe(name="x", steps=1, seed=1, rate=1e-3, loss="published", consistency=1.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"wider": 0.5}, r"wider=0.5 does not fit consistency=0"),
        ({"loss": "published", "across": 0.5}, r"across=0.5 does not fit the published loss"),
    ],
)
def test_a_recipe_refuses_what_would_have_no_effect(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(name="x", steps=1, seed=1, rate=1e-3, **wrong)
