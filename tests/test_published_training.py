"""The authors' recipe: its windows, its optimiser, and weights that the library scores with."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import published_simulation
import pytest
import recipe
import torch
import train
from test_simulate import same, source

import uniadrs_scale
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.detector.whitening import CHANNELS

CONFIG = Path(train.__file__).parent / "configs" / "published.toml"


pytestmark = pytest.mark.usefixtures("one_thread")


def tiny() -> recipe.Recipe:
    return replace(recipe.Recipe(**tomllib.loads(CONFIG.read_text())), width=0.02, held_out=1)


def test_half_of_the_windows_are_spectral_half_spatial() -> None:
    sources, kinds = [source(30, 120, 110), source(3, 240, 80)], []
    for step in range(16):
        window = published_simulation.batch(4, step, sources)
        pixels, labels = window
        assert same(window, published_simulation.batch(4, step, sources))
        assert pixels.dtype == np.float32
        assert np.isfinite(pixels).all()
        assert np.abs(pixels).max() <= 8
        assert pixels.shape[2:] == labels.shape[1:] == (224, 224)
        assert {1, 3} <= set(np.unique(labels)) <= {0, 1, 2, 3}
        assert 0.003 < (labels == 1).mean() < 0.13
        kinds.append(pixels.shape[1])
    assert set(kinds) == {1, 3, 270}
    assert 4 <= kinds.count(270) <= 12


def test_generated_landscapes_serve_where_no_scene_does() -> None:
    rng = np.random.default_rng(1)
    for draw, bands in (
        (published_simulation.spectral, {270}),
        (published_simulation.spatial, {1, 3}),
    ):
        window = draw(rng, [])
        assert len(window.pixels) in bands
        assert (window.labels == 1).any()
        assert not (window.labels == 2).any()


def test_spectral_anomalies_are_pixels_with_shuffled_bands() -> None:
    """Of a scene whose bands hold their own number, so that what lies where can be read off."""
    bands = source(20, 100, 100)
    level = replace(bands, pixels=np.zeros_like(bands.pixels), deviation=np.full(20, 100.0))
    window = published_simulation.spectral(np.random.default_rng(3), [level])
    assert np.abs(window.pixels[:, window.labels == 0]).max() < 1e-5
    for value in (1, 3):
        planted = window.pixels[:, window.labels == value]
        assert np.abs(planted).max() > 0.1
        np.testing.assert_allclose(planted, planted[:, :1].repeat(planted.shape[1], 1), atol=1e-5)


def test_pasted_objects_are_not_black() -> None:
    window = published_simulation.spatial(np.random.default_rng(5), [source(3, 240, 240)])
    for value in (1, 3):
        inside = window.pixels[:, window.labels == value]
        assert inside.std() > 0.5
        assert len(np.unique(inside)) > 500


def test_real_targets_are_ignored() -> None:
    scene = source(3, 224, 224)
    scene = replace(scene, ignored=np.arange(224)[:, None] * np.ones(224) < 30)
    window = published_simulation.spatial(np.random.default_rng(0), [scene])
    assert (window.labels[:30] != 0).all()
    assert (window.labels[30:] != 2).all()


def test_holes_have_the_areas_asked_for() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        share = published_simulation._holes(rng, (100, 100), (0.0064, 0.0225)).mean()
        assert 0.0064 <= share <= 5 * 0.0225
        assert published_simulation._object(rng, 0.5 * 224**2).shape <= (224, 224)


def test_the_rate_is_that_of_torch() -> None:
    plan, weight = tiny(), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([weight], lr=plan.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
        optimiser, recipe.CYCLE, 2, recipe.LOWEST
    )
    optimiser.step()
    for epoch in range(100):
        for step in (101 * epoch, 101 * epoch + 100):
            assert plan.rate_at(step) == pytest.approx(optimiser.param_groups[0]["lr"])
        schedule.step()


def test_a_published_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train.Run(tiny(), tmp_path)
    decoders = "normality_extractor.normality_decoders."
    pixels = torch.randn(1, 3, 32, 32)
    labels = torch.zeros(1, 32, 32, dtype=torch.uint8)
    labels[0, 4:8, 4:8], labels[0, 12:, 12:] = 1, 3

    def step() -> set[str]:
        before = {k: v.clone() for k, v in run.network.state_dict().items()}
        run.descend(pixels, labels)
        after = run.network.state_dict()
        assert all(torch.equal(v, run.mean[k]) for k, v in after.items())  # no average
        return {k for k, v in after.items() if not torch.equal(v, before[k])}

    changed = step()
    assert "spectral_stem.0.weight" in changed
    assert not any(name.startswith(decoders) for name in changed)
    assert (run.multipliers > 1).all()  # ascends
    assert [g["lr"] for g in run.optimiser.param_groups] == [1e-2, 1e-3]
    nothing = sum(p.sum() for p in run.network.parameters()) * 0
    monkeypatch.setattr(train.Run, "_loss", lambda *_: nothing)
    assert step() == set()


def test_published_weights_say_that_they_see_bands(tmp_path: Path) -> None:
    run = train.Run(tiny(), tmp_path)
    about = train.metadata(run.recipe, CONFIG.name, with_imagery=False)
    train.write_weights(tmp_path / "published.safetensors", run.mean, about)
    detector = uniadrs_scale.Detector.load(tmp_path / "published.safetensors", device="cpu")
    assert detector.info.input == "bands"
    assert detector.info.config.bands == 270
    tiles = np.random.default_rng(0).standard_normal((1, 5, 32, 32), np.float32)
    statistics = BandStatistics.of(tiles[0], np.ones((32, 32), bool))
    assert np.isfinite(detector.fitted(statistics).score_tiles(tiles)).all()


def test_held_out_windows_are_of_the_same_simulation() -> None:
    [(pixels, labels)] = train.Windows(tiny(), None).held_out()
    assert pixels.shape[1] in (1, 3, 270)
    assert labels.shape == (1, 224, 224)
    ours = train.Windows(replace(tiny(), simulation="ours"), None)
    assert ours.held_out()[0][0].shape[1] == CHANNELS


@pytest.mark.parametrize(
    "wrong",
    [
        {"windows": 8},
        {"empty": 0.2},
        {"sensors": "all"},
        {"wider": 0.5, "consistency": 1.0, "loss": "detection"},
        {"islet": 0},
    ],
)
def test_options_that_the_published_simulation_lacks_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="do not fit the published simulation"):
        replace(tiny(), **wrong)
