"""How the detector is made: simulation, loss, a run that survives a kill, the weights shipped."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy.io import savemat

from uniadrs_scale.metrics import figures
from uniadrs_scale.network import NetworkConfig, UniADRS

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = Path(__file__).parents[1] / "model"
NAMES = ("evaluate", "baselines", "charts", "empty", "imagery", "losses", "report", "simulate",
         "spectra", "targets", "train")  # fmt: skip


class Scripts:
    """The scripts of model/, which import each other by lying in one folder."""

    evaluate: Any
    baselines: Any
    charts: Any
    empty: Any
    imagery: Any
    losses: Any
    report: Any
    simulate: Any
    targets: Any
    train: Any


@pytest.fixture(scope="module")
def model() -> Iterator[Scripts]:
    scripts = Scripts()
    sys.path.insert(0, str(MODEL))
    try:
        for name in NAMES:
            setattr(scripts, name, importlib.import_module(name))
        yield scripts
    finally:
        sys.path.remove(str(MODEL))
        for name in NAMES:  # their names are common ones
            sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def recipe(model: Scripts, steps: int = 6) -> Any:
    return model.train.Recipe(name="tiny", width=0.05, steps=steps, seed=11, rate=1e-3, warmup=2)


class KilledError(Exception):
    """Stands for a kill at any moment."""


def test_a_killed_run_ends_at_the_same_weights(
    model: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = recipe(model)
    whole = model.train.train(plan, None, tmp_path / "whole", 1e9, workers=0)
    descend = model.train.Run.descend

    def dies(run: Any, pixels: torch.Tensor, labels: torch.Tensor) -> float:
        if run.step == 4:
            raise KilledError
        return float(descend(run, pixels, labels))

    monkeypatch.setattr(model.train.Run, "descend", dies)
    with pytest.raises(KilledError):
        model.train.train(plan, None, tmp_path / "cut", 0, workers=0)
    (tmp_path / "cut" / "checkpoint.partial").write_bytes(b"torn")  # killed while saving
    monkeypatch.setattr(model.train.Run, "descend", descend)
    resumed = model.train.Run(plan, tmp_path / "cut")
    resumed.resume()
    assert resumed.step == 4
    resumed = model.train.train(plan, None, tmp_path / "cut", 1e9, workers=0)
    assert resumed.step == whole.step == 6
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
        assert torch.equal(whole.mean[name], resumed.mean[name]), name
    start = UniADRS(NetworkConfig(0.05)).state_dict()["spectral_stem.0.weight"]
    assert not torch.equal(start, whole.mean["spectral_stem.0.weight"])


def test_training_learns(model: Scripts, tmp_path: Path) -> None:
    run = model.train.Run(recipe(model, 100), tmp_path)
    pixels, labels = (torch.from_numpy(a) for a in model.simulate.batch(1, 6, []))
    losses = [run.descend(pixels, labels) for _ in range(12)]
    assert losses[-1] < 0.97 * losses[0]


def test_another_recipe_does_not_resume(model: Scripts, tmp_path: Path) -> None:
    model.train.Run(recipe(model), tmp_path).save()
    with pytest.raises(ValueError, match=r"another recipe\. Use another --out"):
        model.train.Run(recipe(model, 7), tmp_path).resume()


def test_the_rate_rises_stays_and_falls(model: Scripts) -> None:
    plan = recipe(model, 90)
    rates = [plan.rate_at(step) / plan.rate for step in range(90)]
    assert rates[0] == 0.5
    assert rates[1:60] == [1.0] * 59
    assert rates[75] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.05


def test_a_batch_depends_on_seed_and_step_only(model: Scripts) -> None:
    first, second = model.simulate.batch(5, 9, []), model.simulate.batch(5, 9, [])
    other = model.simulate.batch(5, 10, [])
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert first[0].shape != other[0].shape or not np.array_equal(first[0], other[0])


def test_windows_are_what_the_network_will_meet(model: Scripts) -> None:
    source = model.simulate.Source(
        pixels=np.random.default_rng(0).standard_normal((30, 90, 70)).astype(np.float32),
        ignored=np.zeros((90, 70), bool),
        weight=1.0,
    )
    bands, empty, windows = set(), 0, 0
    for step in range(40):
        pixels, labels = model.simulate.batch(2, step, [source])
        assert pixels.dtype == np.float32
        assert np.isfinite(pixels).all()
        assert np.abs(pixels).max() <= 8
        assert pixels.shape[0] == labels.shape[0]
        assert pixels.shape[2:] == labels.shape[1:]
        assert labels.max() <= 3
        bands.add(pixels.shape[1])
        windows += len(labels)
        empty += sum(not (one == 1).any() for one in labels)
        assert (labels == 1).mean() < 0.25
    assert min(bands) == 1
    assert max(bands) > 90
    assert 0.1 < empty / windows < 0.5


def test_planted_targets_stand_out_and_have_a_rim(model: Scripts) -> None:
    rng = np.random.default_rng(4)
    found = []
    for _ in range(30):
        window = model.targets.Window(
            pixels=rng.normal(0, 0.1, (6, 64, 64)).astype(np.float32),
            labels=np.zeros((64, 64), np.uint8),
        )
        model.simulate.plant_anomalies(rng, window, ())
        strength = np.sqrt(np.square(window.pixels).mean(0))
        if (window.labels == 1).any():
            found.append(strength[window.labels == 1].mean() / strength[window.labels == 0].mean())
    assert np.median(found) > 2
    assert min(found) > 1


def test_shapes_have_the_area_asked_for(model: Scripts) -> None:
    rng = np.random.default_rng(1)
    for shape in set(model.targets.SHAPES):
        areas = [shape(rng, 40.0).sum() for _ in range(50)]
        assert 20 < np.mean(areas) < 60, shape.__name__
        assert shape(rng, 0.5).max() <= 1


def test_validation_imagery_never_trains(model: Scripts, tmp_path: Path) -> None:
    folder = tmp_path / "validate" / "hyperspectral"
    folder.mkdir(parents=True)
    for inside in (folder, folder.parent):
        with pytest.raises(ValueError, match="is validation imagery"):
            model.simulate.read_sources(inside)
    with pytest.raises(ValueError, match="holds no imagery"):
        model.simulate.read_sources(tmp_path)


def test_cubes_are_read_band_first(model: Scripts, tmp_path: Path) -> None:
    cube = np.arange(24, dtype=np.int16).reshape(3, 4, 2)
    savemat(tmp_path / "a.mat", {"data": cube, "map": np.eye(3, 4, dtype=np.uint8)})
    flat = np.arange(45.0).reshape(5, 9)
    savemat(tmp_path / "b.mat", {"Y": flat})
    first, second = model.imagery.hyperspectral(tmp_path)
    assert np.array_equal(first.pixels, cube.transpose(2, 0, 1))
    assert first.targets.sum() == 3
    assert second.pixels.shape == (5, 3, 3)
    assert second.pixels[2, 1, 2] == flat[2, 1 + 3 * 2]  # Fortran order: rows run first
    assert abs(first.scaled().mean()) < 1e-6


def test_water_keeps_its_ships(model: Scripts) -> None:
    green, infrared = np.full((40, 40), 200), np.full((40, 40), 50)
    infrared[:, :10] = 900  # land
    infrared[20:23, 25:28] = 900  # a ship
    water = model.imagery.water(green, infrared)
    assert water[20:23, 25:28].all()
    assert not water[5:35, :9].any()


def test_the_loss_ranks_and_ignores(model: Scripts) -> None:
    labels = torch.zeros(2, 12, 12, dtype=torch.uint8)
    labels[0, 3:5, 3:5], labels[0, 6, :], labels[0, 9:, :3] = 1, 2, 3
    logits = torch.zeros(2, 12, 12, requires_grad=True)
    model.losses.detection_loss(logits, labels).backward()
    assert logits.grad is not None
    assert (logits.grad[labels == 1] < 0).all()
    assert (logits.grad[labels == 2] == 0).all()
    assert (logits.grad[(labels == 0) | (labels == 3)] > 0).all()


def test_the_loss_darkens_an_empty_window(model: Scripts) -> None:
    logits = torch.zeros(1, 12, 12, requires_grad=True)
    model.losses.detection_loss(logits, torch.zeros(1, 12, 12, dtype=torch.uint8)).backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()


def test_evaluation_goes_through_the_library(model: Scripts, tmp_path: Path) -> None:
    weights, folder = tmp_path / "tiny.safetensors", tmp_path / "hyperspectral"
    run = model.train.Run(recipe(model), tmp_path / "run")
    about = model.train.metadata(run.recipe, "tiny.toml", with_imagery=False)
    model.train.write_weights(weights, run.mean, about)
    folder.mkdir()
    cube = np.random.default_rng(0).integers(0, 999, (40, 50, 3)).astype(np.int16)
    truth = np.zeros((40, 50), np.uint8)
    truth[5:9, 5:9] = 1
    savemat(folder / "small.mat", {"data": cube, "map": truth})
    group = model.evaluate.Group.of(
        "hyperspectral", "hyperspectral", model.imagery.hyperspectral(folder)
    )
    entries = model.evaluate.entries([weights], ["uniadrs"])
    [(result, scores)] = model.evaluate.evaluate(group, entries)
    assert result.detector == "tiny"
    assert result.figures == figures(scores, truth > 0)
    before = run.mean["spectral_stem.0.bias"].half()  # as they are stored
    model.evaluate.write_figures(weights, model.report.means([result]))
    with safe_open(weights, framework="pt") as file:
        stored = json.loads(file.metadata()["figures"])
        assert torch.equal(file.get_tensor("spectral_stem.0.bias"), before)
    assert stored == {"AUC(D,F) hyperspectral": round(result.figures.auc_df, 4)}


def test_the_shipped_weights_say_what_they_are() -> None:
    path = MODEL / "weights" / "uniadrs-s.safetensors"
    assert path.stat().st_size < 15e6
    with safe_open(path, framework="pt") as file:
        about, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert about["format"] == "uniadrs-scale 1"
    assert about["name"] == path.stem
    assert {"command", "seed", "data", "figures", "licence"} <= about.keys()
    assert json.loads(about["figures"])["AUC(D,F) hyperspectral"] >= 0.90
    config = NetworkConfig(float(about["width"]), int(about["bands"]), "corrected")
    assert about["profile"] == config.profile
    UniADRS(config).load_state_dict(state)
    assert all(torch.isfinite(value).all() for value in state.values())
