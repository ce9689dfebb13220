"""Training with teachers: finished weights whose order of the background a run learns too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import train
from recipe import Recipe
from teaching import teaching_loss

from uniadrs_scale.detector.weights import WeightsInfo, read_weights

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("one_thread")
PIXELS = torch.zeros(1, 24, 16, 16)
BACKGROUND = torch.zeros(1, 16, 16, dtype=torch.uint8)


def recipe(**changes: Any) -> Recipe:
    tiny = {"name": "tiny", "width": 0.05, "steps": 3, "seed": 11, "rate": 1e-3, "warmup": 1}
    return Recipe(**(tiny | {"windows": 1, "held_out": 1} | changes))


@pytest.fixture
def teacher(tmp_path: Path) -> WeightsInfo:
    network = train.Run(recipe(seed=5), tmp_path / "teacher").mean
    file = tmp_path / "teacher.safetensors"
    about = train.metadata(recipe(name="teacher"), "tiny.toml", with_imagery=False)
    train.write_weights(file, network, about)
    return read_weights(file)


def logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(seed))


def loss(ours: torch.Tensor, *taught: torch.Tensor, shortcut: float = 0, **more: Any) -> float:
    given = {"pixels": PIXELS, "labels": BACKGROUND} | more
    return teaching_loss(ours, shortcut=shortcut, taught=taught, **given).item()


def test_it_compares_the_order_and_not_the_level() -> None:
    assert loss(logits(), 3 * logits() - 7) == pytest.approx(0, abs=1e-5)
    assert loss(logits(), -logits()) == pytest.approx(4, abs=0.05)
    assert loss(logits(), logits(1)) == pytest.approx(2, abs=0.3)
    assert loss(logits(), logits(), 0 * logits()) == pytest.approx(0, abs=1e-5)


def test_targets_do_not_count() -> None:
    labels, other = BACKGROUND.clone(), logits()
    labels[0, :4, :4], labels[0, 8:, 8:] = 1, 2
    other[0, :4, :4], other[0, 8:, 8:] = 50, -50
    assert loss(logits(), other) > 1
    assert loss(logits(), other, labels=labels) == pytest.approx(0, abs=1e-5)
    assert loss(logits(), other, labels=BACKGROUND + 2) == 0  # no background at all
    real = BACKGROUND + 4
    assert loss(logits(), -logits(), labels=real) == pytest.approx(4, abs=0.05)


def test_the_finished_detector_is_compared_with_its_shortcut() -> None:
    pixels = PIXELS.clone()
    pixels[:, -4:] = 5 * logits(1)[:, None]
    whole = logits() + logits(1)
    assert loss(logits(), whole, pixels=pixels, shortcut=0.2) == pytest.approx(0, abs=1e-5)
    assert loss(logits(), whole, pixels=pixels) > 0.1


def test_a_run_learns_the_order_of_its_teacher(tmp_path: Path, teacher: WeightsInfo) -> None:
    apart = []
    for name, weight in (("alone", 0.0), ("taught", 50.0)):
        of = () if name == "alone" else (teacher,)
        asked = recipe(steps=40, rate=3e-3, taught=weight)
        run = train.train(asked, None, tmp_path / name, train.Machine(workers=0), teachers=of)
        pixels, labels = train.Windows(asked, None)[99]
        theirs = train.Teachers.of([teacher], run.device).logits(pixels)
        ours = run.network.eval().logits(pixels)[:, 0].detach()
        apart.append(teaching_loss(ours, pixels, 0, theirs, labels).item())
    assert apart[1] < 0.9 * apart[0]


def test_a_run_resumes_with_its_own_teachers_only(tmp_path: Path, teacher: WeightsInfo) -> None:
    out = tmp_path / "run"
    train.Run(recipe(taught=1.0), out, teachers=[teacher]).save()
    train.Run(recipe(taught=1.0), out, teachers=[teacher]).resume()
    with pytest.raises(ValueError, match=r"began with other weights or teachers\. Use another"):
        train.Run(recipe(taught=1.0), out, teachers=[teacher, teacher]).resume()


def test_teachers_and_recipe_belong_together(tmp_path: Path, teacher: WeightsInfo) -> None:
    with pytest.raises(ValueError, match=r"taught=1.0 in recipe tiny does not fit 0 teachers"):
        train.Run(recipe(taught=1.0), tmp_path / "a")
    with pytest.raises(ValueError, match=r"taught=0.0 in recipe tiny does not fit 1 teachers"):
        train.Run(recipe(), tmp_path / "b", teachers=[teacher])
    with pytest.raises(ValueError, match=r"taught=1.0 does not fit the published loss"):
        recipe(taught=1.0, loss="published")
