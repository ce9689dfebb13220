"""Levels: the curve of a preset, its thresholds, and the way from a weights file to a map."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.core.levels import MOST_POINTS, RATES, Levels
from uniadrs_scale.detector.rx import GlobalRX
from uniadrs_scale.detector.weights import read_weights
from uniadrs_scale.errors import PlanError, StoreError, WeightsError
from uniadrs_scale.maps.store import open_map, open_store

if TYPE_CHECKING:
    from pathlib import Path

SCORES, CURVE = (0.3, 0.5, 0.7, 0.9, 0.99), (1000.0, 50.0, 5.0, 5.0, 0.05)
LEVELS = Levels.of_curve("multispectral", np.array(SCORES), np.array(CURVE), 0.7)


@st.composite
def curves(draw: st.DrawFn) -> Levels:
    """Draw any curve that has all levels."""
    scores = sorted(draw(st.sets(st.floats(0, 1), min_size=2, max_size=40)))
    rate = st.floats(1e-6, 1e6)
    rates = sorted(
        [*draw(st.lists(rate, min_size=len(scores) - 1, max_size=len(scores) - 1)), 0.05],
        reverse=True,
    )
    if rates[-1] > min(RATES.values()):
        rates[-1] = 0.05
    return Levels.of_curve("sar", np.array(scores), np.array(rates), scores[-1])


@given(curves(), st.floats(1e-2, 1e5))
def test_a_threshold_keeps_its_rate(levels: Levels, rate: float) -> None:
    if rate < levels.false_per_mpx[-1]:
        with pytest.raises(PlanError, match="Give a number of at least"):
            levels.threshold_at(rate)
        return
    threshold = levels.threshold_at(rate)
    assert levels.scores[0] <= threshold <= levels.scores[-1]
    found = float(levels.far_per_mpx(np.array([threshold], np.float64))[0])
    assert found <= rate * 1.00001 or threshold in (levels.scores[0], levels.scores[-1])


@given(curves(), st.lists(st.floats(0, 1, width=32), min_size=2, max_size=20))
def test_more_score_never_means_more_false_objects(levels: Levels, peaks: list[float]) -> None:
    rates = levels.far_per_mpx(np.array(sorted(peaks), np.float32))
    assert rates.dtype == np.float32
    assert (np.diff(rates) <= 0).all()
    assert rates.max() <= np.float32(levels.false_per_mpx[0])
    assert rates.min() >= np.float32(levels.false_per_mpx[-1])


@given(curves())
def test_levels_survive_json(levels: Levels) -> None:
    assert Levels.from_json(json.loads(json.dumps(levels.to_json()))) == levels


def test_levels_are_points_on_the_curve() -> None:
    assert LEVELS.low <= LEVELS.medium <= LEVELS.high
    for name, rate in RATES.items():
        threshold = LEVELS.threshold(name)
        assert threshold == LEVELS.threshold_at(rate)
        assert LEVELS.far_per_mpx(np.array([threshold]))[0] == pytest.approx(rate, rel=1e-3)
        assert LEVELS.level_of(threshold) == name
    assert LEVELS.level_of(LEVELS.low - 1e-6) is None
    assert LEVELS.level_of(1.0) == "high"
    assert LEVELS.level_of(float("nan")) is None
    # The first of several scores with one rate, and halfway in the logarithm of the rate.
    assert LEVELS.threshold_at(5) == 0.7
    assert LEVELS.threshold_at(np.sqrt(1000 * 50)) == pytest.approx(0.4, abs=2e-6)
    assert LEVELS.threshold_at(1e9) == 0.3
    ends = LEVELS.far_per_mpx(np.array([0, 1, np.nan], np.float32))
    np.testing.assert_allclose(ends, [1000, 0.05, np.nan], rtol=1e-6)


@pytest.mark.parametrize("rate", [0, -1, 0.049, float("nan"), float("inf")])
def test_rates_without_a_threshold_are_refused(rate: float) -> None:
    with pytest.raises(PlanError, match=r"outside the curve of the preset 'multispectral'"):
        LEVELS.threshold_at(rate)
    with pytest.raises(PlanError, match=r"level='top' is unknown. Use low, medium, high"):
        LEVELS.threshold("top")


JSON = LEVELS.to_json()
DAMAGED: tuple[tuple[Any, str], ...] = (
    (None, "got a NoneType"),
    ([], "got a list"),
    ({k: v for k, v in JSON.items() if k != "medium"}, "got no medium"),
    (JSON | {"preset": ""}, "not a printable name"),
    (JSON | {"preset": "a\x1b[31m"}, "not a printable name"),
    (JSON | {"scores": "0.1 0.2"}, "not a list"),
    (JSON | {"scores": [0.1] * (MOST_POINTS + 1)}, "at most 1000"),
    (JSON | {"scores": [0.5]}, "not a curve"),
    (JSON | {"scores": [0.3, 0.5, 0.7, 0.9, "1"]}, "not a finite number"),
    (JSON | {"scores": [0.3, 0.5, 0.7, 0.9, True]}, "not a finite number"),
    (JSON | {"scores": [0.3, 0.5, 0.7, 0.9, 10**400]}, "not a finite number"),
    (JSON | {"scores": [0.3, 0.5, 0.7, 0.9, float("nan")]}, "not a finite number"),
    (JSON | {"scores": [0.3, 0.5, 0.7, 0.9, 1.5]}, "outside 0..1"),
    (JSON | {"scores": [0.3, 0.5, 0.5, 0.9, 0.99]}, "do not increase"),
    (JSON | {"false_per_mpx": [9, 8, 7, 6, 0]}, "not positive"),
    (JSON | {"false_per_mpx": [9, 8, 7, 8, 1]}, "increase with the score"),
    (JSON | {"medium": 0.1}, "not in order"),
    (JSON | {"high": 1.1}, "outside 0..1"),
    (JSON | {"measured_to": -1}, "outside 0..1"),
    (JSON | {"measured_to": None}, "not a finite number"),
)


@pytest.mark.parametrize(("values", "message"), DAMAGED)
def test_foreign_values_are_checked(values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Levels.from_json(values)


def with_levels(source: Path, path: Path, text: str) -> Path:
    """Copy a weights file with this text as its levels."""
    with safe_open(source, framework="pt") as file:
        metadata = dict(file.metadata()) | {"levels": text}
    save_file(load_file(source), path, metadata)
    return path


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "[" * 100_000, '{"sar": 1}', json.dumps({"sar": JSON}), '{"sar": NaN}'],
)
def test_damaged_levels_of_weights_are_refused(tiny_weights: Path, tmp_path: Path, text: str):
    with pytest.raises(WeightsError, match="do not describe a network"):
        read_weights(with_levels(tiny_weights, tmp_path / "w.safetensors", text))


def test_levels_are_part_of_no_identity(tiny_weights: Path, tmp_path: Path) -> None:
    plain = us.Detector.load(tiny_weights)
    text = json.dumps({"multispectral": JSON})
    copy = with_levels(tiny_weights, tmp_path / tiny_weights.name, text)
    detector = us.Detector.load(copy)
    assert detector.info.levels == {"multispectral": LEVELS}
    assert not plain.info.levels
    assert detector.info.sha256 != plain.info.sha256
    assert detector.identity == plain.identity
    # Tensors, and metadata that build the network, are part of it.
    with safe_open(copy, framework="pt") as file:
        metadata = dict(file.metadata())
    tensors = load_file(copy)
    save_file(tensors, copy, metadata | {"profile": "published"})
    assert read_weights(copy).content != plain.info.content
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, copy, metadata)
    assert us.Detector.load(copy).identity != plain.identity


def test_a_map_has_the_levels_of_its_preset(tiny_weights: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((3, 70, 80), np.float32)
    scene = xr.DataArray(pixels, dims=("band", "y", "x"), name="scene")
    options = {"tile": 64, "chunk": 64, "scheduler": "sync"}
    text = json.dumps({"multispectral": JSON})
    detector = us.Detector.load(
        with_levels(tiny_weights, tmp_path / "w.safetensors", text), device="cpu"
    )
    store = tmp_path / "map.zarr"
    us.score(scene, store, detector=detector, **options)
    assert open_map(store).levels == LEVELS
    assert not list(open_store(store).verify())
    # Another curve reads the same scores otherwise: the map is finished, and keeps its pixels.
    before = open_store(store).attributes
    other = replace(LEVELS, high=1.0)
    text = json.dumps({"multispectral": other.to_json()})
    detector = us.Detector.load(
        with_levels(tiny_weights, tmp_path / "w.safetensors", text), device="cpu"
    )
    us.score(scene, store, detector=detector, **options)
    assert open_map(store).levels == other
    assert open_store(store).attributes == before | {"levels": other.to_json()}
    for name, scorer, preset in (
        ("rx", GlobalRX(), "auto"), ("own", FirstBand(), "auto"), ("none", detector, "sar"),
    ):  # fmt: skip
        sizes = options | ({"tile": 96, "chunk": 96} if preset == "sar" else {})
        us.score(scene, tmp_path / f"{name}.zarr", detector=scorer, preset=preset, **sizes)
        assert open_map(tmp_path / f"{name}.zarr").levels is None
    open_store(store).group.update_attributes({"levels": {"preset": "x"}})
    with pytest.raises(StoreError, match=r"The levels of '.*map.zarr' are damaged"):
        _ = open_map(store).levels
