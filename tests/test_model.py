"""How the detector is made: recipes, losses, a run that survives a kill, the weights shipped."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import evaluate
import imagery
import losses
import numpy as np
import pytest
import report
import simulate
import torch
import train
import weightsfile
import xarray as xr
from recipe import Recipe
from safetensors import safe_open
from scipy.io import savemat

import uniadrs_scale
from uniadrs_scale.cli import main as command_line
from uniadrs_scale.detector.network import NetworkConfig, UniADRS
from uniadrs_scale.detector.weights import read_weights, shipped_weights
from uniadrs_scale.evaluation.metrics import figures

MODEL = Path(__file__).parents[1] / "model"


pytestmark = pytest.mark.usefixtures("one_thread")


def recipe(steps: int = 6, **changes: Any) -> Recipe:
    tiny = {"name": "tiny", "width": 0.05, "seed": 11, "rate": 1e-3, "warmup": 2, "windows": 1}
    return Recipe(steps=steps, **(tiny | changes))


def command(out: Path, *more: str) -> list[str]:
    smoke = str(MODEL / "configs" / "smoke.toml")
    return [sys.executable, str(MODEL / "train.py"), smoke, "--out", str(out), *more]


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "smoke.safetensors").read_bytes()).hexdigest()


def killed(out: Path) -> None:
    """A run that dies after a checkpoint, while it saves another."""
    process = subprocess.Popen(command(out, "--every", "0"))
    try:
        while not (out / "checkpoint.pt").exists():
            assert process.poll() is None
            time.sleep(0.005)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    (out / "checkpoint.partial").write_bytes(b"torn")


def test_the_smoke_recipe_gives_the_same_weights_again_killed_or_not(tmp_path: Path) -> None:
    whole, again, cut = (tmp_path / name for name in ("whole", "again", "cut"))
    for out in (whole, again):
        done = subprocess.run(command(out), check=True, stdout=subprocess.PIPE, text=True)
    assert re.fullmatch(
        r"step 12 of 12, \d+ s\n.*again/smoke.safetensors: held-out AUC 0.\d{3}, after \d+ of 12 "
        r"steps\n",
        done.stdout,
    )
    assert digest(whole) == digest(again)
    killed(cut)
    before = torch.load(cut / "checkpoint.pt", weights_only=True)
    assert 1 <= before["step"] < 12
    subprocess.run(command(cut), check=True)
    assert digest(whole) == digest(cut)
    first, second = (torch.load(f / "checkpoint.pt", weights_only=True) for f in (whole, cut))
    assert first["step"] == second["step"] == 12
    for part in ("network", "mean"):
        assert all(torch.equal(v, second[part][k]) for k, v in first[part].items())
        assert not all(torch.equal(v, before[part][k]) for k, v in first[part].items())
    log = (whole / "log.csv").read_text().splitlines()
    assert log[0] == "step,loss,rate,held_out_auc,seconds"
    assert len(log) == 2
    pixels = np.random.default_rng(0).normal(size=(3, 50, 40)).astype(np.float32)
    pixels[:, 20:23, 20:23] += 9
    detector = uniadrs_scale.Detector.load(whole / "smoke.safetensors", device="cpu")
    scene = xr.DataArray(pixels, dims=("band", "y", "x"))
    scores = uniadrs_scale.score(scene, detector=detector, scheduler="sync").to_numpy()
    assert scores.shape == (50, 40)
    assert np.isfinite(scores).all()


def test_training_learns(tmp_path: Path) -> None:
    run = train.Run(recipe(100), tmp_path)
    pixels, labels = (torch.from_numpy(a) for a in simulate.batch(1, 6, [], windows=1))
    losses = [run.descend(pixels, labels) for _ in range(12)]
    assert losses[-1] < 0.97 * losses[0]


def test_a_checkpoint_from_before_a_field_existed_resumes(tmp_path: Path) -> None:
    run = train.Run(recipe(), tmp_path)
    run.step = 3
    run.save()
    state = torch.load(run.file, weights_only=True)
    for name in ("simulation", "optimiser", "sensors", "held_out"):
        del state["recipe"][name]
    torch.save(state, run.file)
    resumed = train.Run(recipe(), tmp_path)
    resumed.resume()
    assert resumed.step == 3


def test_another_recipe_does_not_resume(tmp_path: Path) -> None:
    train.Run(recipe(), tmp_path).save()
    with pytest.raises(ValueError, match=r"another recipe\. Use another --out"):
        train.Run(recipe(7), tmp_path).resume()


def test_a_run_goes_on_from_weights_of_its_own_network_only(tmp_path: Path) -> None:
    first = train.Run(recipe(), tmp_path / "first")
    file = tmp_path / "tiny.safetensors"
    about = train.metadata(recipe(shortcut=0.3), "tiny.toml", with_imagery=False)
    train.write_weights(file, first.mean, about)
    start = read_weights(file)
    run = train.Run(recipe(seed=12), tmp_path / "second", start=start)
    for name, value in run.network.state_dict().items():
        torch.testing.assert_close(value, first.mean[name].half().float(), rtol=0, atol=0)
    run.save()
    with pytest.raises(ValueError, match="began with other weights"):
        train.Run(recipe(seed=12), tmp_path / "second").resume()
    with pytest.raises(ValueError, match="Use the recipe of these weights"):
        train.Run(recipe(width=0.1), tmp_path / "third", start=start)


def test_a_run_goes_on_from_the_logits_before_the_shift(tmp_path: Path) -> None:
    old = recipe(shift=0.5, shortcut=0.3)
    mean = train.Run(old, tmp_path / "first").mean
    about = train.metadata(old, "tiny.toml", with_imagery=False)
    train.write_weights(tmp_path / "a.safetensors", train.finished(mean, old.shift), about)
    start = read_weights(tmp_path / "a.safetensors")
    run = train.Run(replace(old, seed=12), tmp_path / "second", start=start)
    torch.testing.assert_close(
        run.network.state_dict()[train.BIAS], mean[train.BIAS], atol=1e-3, rtol=0
    )
    assert train.changes(start, replace(old, seed=12)) == ""
    lost = "shortcut = 0.0 (they had 0.3), shift = 0.0 (they had 0.5)"
    assert train.changes(start, recipe()) == lost


def test_weights_of_a_recipe_of_a_user_do_not_name_our_imagery() -> None:
    ours = train.metadata(recipe(), "uniadrs-xs.toml", with_imagery=True)
    assert ours["command"].startswith("python model/train.py model/configs/uniadrs-xs.toml --data ")
    assert ours["data"].endswith("listed in model/README.md")
    mine = train.metadata(recipe(), "tuned.toml", with_imagery=True)
    wanted = "uniadrs-scale-train train tuned.toml --data FOLDER --seed 11 --out runs/tiny"
    assert mine["command"] == wanted
    assert mine["data"].endswith("landscapes and the imagery of a folder")
    assert mine["licence"] == "unknown"


def test_the_command_runs_the_scripts_and_nothing_else(monkeypatch, capsys) -> None:
    ran: list[list[str]] = []

    def become(_: str, command: list[str]) -> None:  # a child would outlive a signal
        ran.append(command)
        sys.exit(3)

    monkeypatch.setattr("os.execv", become)
    for arguments, code in ((["evaluate", "--help"], 3), (["--help"], 0), (["rm"], 2), ([], 0)):
        monkeypatch.setattr(sys, "argv", ["uniadrs-scale-train", *arguments])
        with pytest.raises(SystemExit) as stop:
            command_line.train()
        assert stop.value.code == code
    assert ran == [[sys.executable, str(MODEL / "evaluate.py"), "--help"]]
    told = capsys.readouterr().err
    assert told.startswith("error: 'rm' is not a command.\n\nUsage: uniadrs-scale-train COMMAND")


@pytest.mark.parametrize("name", command_line.SCRIPTS)
def test_the_help_of_a_script_names_the_installed_command(name: str) -> None:
    text = (MODEL / f"{name}.py").read_text(encoding="utf-8")
    assert f'prog="uniadrs-scale-train {name}"' in text
    assert f"    uniadrs-scale-train {name} " in text
    assert "python model/" not in text.partition("from __future__")[0]


TINY = 'name = "a"\nsteps = 1\nseed = 1\nrate = 1e-3\nwidth = 0.05'


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("name = = 3", [], "is not TOML"),
        ('name = "a"\nstepz = 3', [], "unknown fields stepz"),
        ("steps = 3", [], "lacks name, rate, seed. Add these fields"),
        (TINY, ["--from", "nothere"], "do not ship with this library"),
        (TINY, ["--from", "uniadrs-xs"], "Use the recipe of these weights"),
        (TINY, ["--data", "."], "holds no imagery"),
    ],
)
def test_a_run_that_cannot_begin_ends_with_a_sentence(
    text: str, options: list[str], message: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text(text)
    monkeypatch.setattr(sys, "argv", ["train.py", "recipe.toml", "--out", "out", *options])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert message in f"{stop.value.code}{capsys.readouterr().err}"
    assert not (tmp_path / "out" / "a.safetensors").exists()


def test_the_rate_rises_stays_and_falls() -> None:
    plan = recipe(90)
    rates = [plan.rate_at(step) / plan.rate for step in range(90)]
    assert rates[0] == 0.5
    assert rates[1:46] == [1.0] * 45
    assert rates[75] == pytest.approx(1 / 3)
    assert 0 < rates[-1] < 0.05


def test_finished_weights_have_shifted_logits() -> None:
    plain, shifted = UniADRS(NetworkConfig(0.125)), UniADRS(NetworkConfig(0.125))
    shifted.load_state_dict(train.finished(plain.state_dict(), 1.5))
    x = torch.randn(1, NetworkConfig().bands, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(shifted.logits(x), plain.logits(x) + 1.5)


def test_the_loss_ranks_and_ignores() -> None:
    labels = torch.zeros(2, 12, 12, dtype=torch.uint8)
    labels[0, 3:5, 3:5], labels[0, 6, :], labels[0, 9:, :3] = 1, 2, 3
    logits = torch.zeros(2, 12, 12, requires_grad=True)
    losses.detection_loss(logits, labels).backward()
    assert logits.grad is not None
    assert (logits.grad[labels == 1] < 0).all()
    assert (logits.grad[labels == 2] == 0).all()
    assert (logits.grad[(labels == 0) | (labels == 3)] > 0).all()


def test_anomalies_rank_above_simulated_background_of_all_windows() -> None:
    labels = torch.zeros(3, 12, 12, dtype=torch.uint8)
    labels[0, 3:5, 3:5], labels[2] = 1, losses.REAL
    logits = torch.zeros(3, 12, 12)
    logits[1, 5, 5] = 2.0  # of an empty simulated window
    logits[2, 5, 5] = 3.0  # of a real one: may be an anomaly without a label
    logits.requires_grad_()

    def gradient(across: float) -> torch.Tensor:
        loss = losses.detection_loss(logits, labels, across=across)
        return torch.autograd.grad(loss, logits)[0]

    change = gradient(0.5) - gradient(0)
    assert change[1, 5, 5] > 0.3
    assert (change[0][labels[0] == 1] < 0).all()
    assert (change[2] == 0).all()


def test_real_background_is_background_to_the_published_loss() -> None:
    rng = torch.Generator().manual_seed(4)
    features = torch.rand(4, 9, 9, generator=rng)
    labels = torch.zeros(9, 9, dtype=torch.uint8)
    labels[3:5, 3:5], labels[7] = 1, 2
    real = torch.where(labels == 0, losses.REAL, labels)
    expected = losses.published_feature_loss(features, labels)
    assert torch.isfinite(expected)
    assert losses.published_feature_loss(features, real) == expected


def test_the_published_loss_of_a_batch_is_that_of_its_parts() -> None:
    rng = torch.Generator().manual_seed(3)
    scores, features = (torch.rand(s, generator=rng) for s in ((3, 9, 9), (3, 4, 9, 9)))
    labels = torch.randint(0, 4, (3, 9, 9), generator=rng, dtype=torch.uint8)
    labels[2][labels[2] == 1] = 0  # a window without anomalies: no feature loss
    multipliers = torch.rand(6, generator=rng)
    # To the pixel loss a large normal object is background, as in the published code.
    counted, anomalies = scores[labels != 2], (labels[labels != 2] == 1).byte()
    pixel = losses.published_pixel_loss(counted, anomalies, multipliers)
    parts = [losses.published_feature_loss(features[n], labels[n]) for n in range(3)]
    assert parts[2] == 0
    expected = pixel + 0.1 * (parts[0] + parts[1]) / 3
    torch.testing.assert_close(
        losses.published_loss(scores, features, labels, multipliers), expected
    )
    labels[labels == 3] = 2
    without = losses.published_loss(scores, features, labels, multipliers)
    assert without != expected


def test_the_loss_darkens_an_empty_window() -> None:
    logits = torch.zeros(1, 12, 12, requires_grad=True)
    losses.detection_loss(logits, torch.zeros(1, 12, 12, dtype=torch.uint8)).backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()


def test_evaluation_goes_through_the_library(tmp_path: Path) -> None:
    weights, folder = tmp_path / "tiny.safetensors", tmp_path / "hyperspectral"
    run = train.Run(recipe(), tmp_path / "run")
    about = train.metadata(run.recipe, "tiny.toml", with_imagery=False)
    train.write_weights(weights, run.mean, about)
    folder.mkdir()
    cube = np.random.default_rng(0).integers(0, 999, (40, 50, 3)).astype(np.int16)
    truth = np.zeros((40, 50), np.uint8)
    truth[5:9, 5:9] = 1
    savemat(folder / "small.mat", {"data": cube, "map": truth})
    group = evaluate.Group.of("hyperspectral", "hyperspectral", imagery.hyperspectral(folder))
    entries = evaluate.entries([weights], ["uniadrs"])
    [(result, scores)] = evaluate.evaluate(group, entries)
    assert result.detector == "tiny"
    assert result.figures == figures(scores, truth > 0)
    before = run.mean["spectral_stem.0.bias"].half()  # as they are stored
    evaluate.write_figures(weights, report.means([result]))
    with safe_open(weights, framework="pt") as file:
        stored = json.loads(file.metadata()["figures"])
        assert torch.equal(file.get_tensor("spectral_stem.0.bias"), before)
    assert stored == {"AUC(D,F) hyperspectral": round(result.figures.auc_df, 4)}


@pytest.mark.parametrize("path", sorted((MODEL / "configs").glob("*.toml")), ids=lambda p: p.stem)
def test_every_recipe_can_be_read(path: Path) -> None:
    plan = Recipe(**tomllib.loads(path.read_text()))
    assert plan.name == path.stem
    assert json.loads(train.metadata(plan, path.name, with_imagery=True)["recipe"]) == asdict(plan)


def test_the_sizes_differ_in_width_alone() -> None:
    small, middle, large = (
        Recipe(**tomllib.loads((MODEL / "configs" / f"uniadrs-{size}.toml").read_text()))
        for size in "sbl"
    )
    assert replace(small, name=middle.name, width=0.5) == middle
    assert replace(small, name=large.name, width=1.0) == large


def test_equal_weights_make_equal_files(tmp_path: Path) -> None:
    state = {"b": torch.arange(3.0).half(), "a": torch.zeros(2, 2)}
    about = {str(n): f"é{n}" for n in range(20)}
    for name in "xy":
        weightsfile.write(tmp_path / name, state, about)
        about = dict(reversed(about.items()))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    with safe_open(tmp_path / "x", framework="pt") as file:
        assert file.metadata() == about
        assert all(torch.equal(file.get_tensor(name), value) for name, value in state.items())


def test_the_shipped_weights_are_small_together() -> None:
    assert shipped_weights() == ["uniadrs-s", "uniadrs-xs"]
    assert sum(path.stat().st_size for path in (MODEL / "weights").iterdir()) < 15e6


@pytest.mark.parametrize("name", shipped_weights())
def test_the_shipped_weights_say_what_they_are(name: str) -> None:
    path = MODEL / "weights" / f"{name}.safetensors"
    with safe_open(path, framework="pt") as file:
        about, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert about["format"] == "uniadrs-scale 1"
    assert about["name"] == path.stem
    assert {"command", "seed", "data", "figures", "licence"} <= about.keys()
    assert 0.5 < float(about["threshold"]) < 1
    assert json.loads(about["figures"])["AUC(D,F) hyperspectral"] >= 0.90
    config = NetworkConfig(float(about["width"]), int(about["bands"]), "corrected")
    assert about["profile"] == config.profile
    UniADRS(config).load_state_dict(state)
    assert all(torch.isfinite(value).all() for value in state.values())
