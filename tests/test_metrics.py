"""Figures of maps: exact ones against scikit-learn, counted ones against exact ones."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields
from itertools import pairwise

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from uniadrs_scale.errors import SceneError
from uniadrs_scale.evaluation.histogram import CAPACITY, ScoreHistogram, _keys, _scores
from uniadrs_scale.evaluation.maps import evaluate_map
from uniadrs_scale.evaluation.metrics import RocCurve, figures

UNIT_SCORES = st.floats(0, 1, width=32)


@st.composite
def labelled(draw, scores=UNIT_SCORES, least=2, most=60):
    """Scores of few distinct values, so that ties are common, and labels of both classes."""
    size = draw(st.integers(least, most))
    pool = draw(st.lists(scores, min_size=1, max_size=12))
    values = np.array(draw(st.lists(st.sampled_from(pool), min_size=size, max_size=size)))
    truth = draw(hnp.arrays(bool, size))
    truth[:2] = True, False
    return values.astype(np.float32), truth


@given(labelled(st.floats(-1e3, 1e3, width=32)))
def test_figures_are_those_of_scikit_learn(map_and_truth) -> None:
    scores, truth = map_and_truth
    curve = RocCurve.of(scores, truth)
    assert curve.area == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert curve.average_precision == pytest.approx(average_precision_score(truth, scores))
    alarm, detection, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.alarm_rate, alarm[1:])
    np.testing.assert_allclose(curve.detection_rate, detection[1:])
    assert np.array_equal(curve.thresholds, thresholds[1:])
    assert curve.alarm_rate_at(0.95) == alarm[detection >= 0.95].min()


def test_equal_scores_are_found_together() -> None:
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    truth = np.array([True, True, False, False, False])
    curve = RocCurve.of(scores, truth)
    assert curve.average_precision == 0.5 * 1 + 0.5 * 2 / 4
    assert curve.alarm_rate_at(0.5) == 0
    assert curve.alarm_rate_at(0.51) == 2 / 3
    with pytest.raises(SceneError, match=r"detection=95 is not a share\. Use a number in 0\.\.1"):
        curve.alarm_rate_at(95)


def test_nineteen_of_twenty_are_95_percent() -> None:
    truth = np.arange(40) < 20
    curve = RocCurve.of(np.linspace(1, 0, 40), truth)
    assert curve.detected[curve.at(0.95)] == 19


def test_a_thinned_curve_lies_on_the_whole_one() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(30_000) < 0.01
    curve = RocCurve.of(rng.normal(truth * 2.0), truth)
    thin = curve.thinned(300)
    assert thin.thresholds.size <= 300
    assert thin.area == pytest.approx(curve.area, abs=2e-3)
    where = np.searchsorted(-curve.thresholds, -thin.thresholds)
    assert np.array_equal(curve.alarms[where], thin.alarms)
    assert thin.alarms[-1] == curve.alarms[-1]


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=UNIT_SCORES))
def test_keys_rise_with_the_score_and_lead_back(scores) -> None:
    scores += np.float32(0)
    keys = _keys(scores)
    assert np.array_equal(_scores(keys), scores)
    assert np.array_equal(np.argsort(keys, kind="stable"), np.argsort(scores, kind="stable"))


def test_keys_at_their_ends() -> None:
    half = np.float32(0.5)
    ends = [0, np.nextafter(np.float32(0), half), np.nextafter(half, np.float32(0)), half,
            np.nextafter(half, np.float32(1)), np.nextafter(np.float32(1), half), 1]  # fmt: skip
    keys = _keys(np.array(ends, np.float32))
    assert all(a < b for a, b in pairwise(keys.tolist()))
    assert np.array_equal(_scores(keys), np.array(ends, np.float32))


def same(a: ScoreHistogram, b: ScoreHistogram) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


@given(labelled(most=200), st.integers(2, 6), st.randoms(use_true_random=False))
def test_a_histogram_is_exact_to_its_own_bound_in_any_order(map_and_truth, capacity, random):
    scores, truth = map_and_truth
    cut = sorted(random.randrange(scores.size + 1) for _ in range(3))
    parts = [
        ScoreHistogram.of(part, label, capacity=capacity)
        for part, label in zip(np.split(scores, cut), np.split(truth, cut), strict=True)
    ]
    whole = ScoreHistogram.of(scores, truth, capacity=capacity)
    random.shuffle(parts)
    pairs = parts[0].merge(parts[1]).merge(parts[2].merge(parts[3]))
    assert same(whole, pairs)
    assert same(whole, ScoreHistogram.combine(parts, capacity=capacity))
    assert whole.keys.size <= capacity
    exact, found = figures(scores, truth), whole.figures()
    assert abs(found.auc_df - exact.auc_df) <= whole.area_error + 1e-12
    if whole.shift == 0:
        assert found.auc_df == pytest.approx(exact.auc_df, abs=1e-12)
    if np.ptp(scores) > 1e-3:  # else float32 scaling is what is inexact
        assert found.auc_dt == pytest.approx(exact.auc_dt, abs=1e-5)
        assert found.auc_ft == pytest.approx(exact.auc_ft, abs=1e-5)


DISTRIBUTIONS = {
    "a network's, near 0": (-7, 1.5, 4),
    "narrow, near 0": (-12, 0.1, 0.1),
    "near 1": (9, 1, 1),
    "a spike": (0, 1e-3, 1e-3),
    "over many magnitudes": (-30, 8, 12),
}


@pytest.mark.parametrize("shape", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_area_is_exact_to_1e_4_wherever_scores_crowd(shape) -> None:
    centre, spread, lift = shape
    rng = np.random.default_rng(3)
    truth = rng.random(1_500_000) < 0.02
    scores = expit(rng.normal(centre + lift * truth, spread)).astype(np.float32)
    counted = ScoreHistogram.of(scores, truth)
    exact, curve = RocCurve.of(scores, truth), counted.curve()
    assert counted.keys.size <= CAPACITY
    assert counted.area_error <= 1e-4
    assert abs(curve.area - exact.area) <= min(counted.area_error + 1e-12, 1e-6)
    assert curve.average_precision == pytest.approx(exact.average_precision, abs=1e-4)
    assert curve.alarm_rate_at(0.95) == pytest.approx(exact.alarm_rate_at(0.95), abs=2e-4)


def test_what_cannot_be_counted_is_refused() -> None:
    truth = np.array([True, False])
    with pytest.raises(SceneError, match=r"Scores of 0\.0\.\.1\.5 cannot be counted"):
        ScoreHistogram.of(np.array([0.0, 1.5], np.float32), truth)
    small = ScoreHistogram.of(np.array([0.0, 1], np.float32), truth, capacity=4)
    with pytest.raises(SceneError, match="4 and 8 bins cannot be"):
        small.merge(ScoreHistogram.combine((), capacity=8))
    with pytest.raises(SceneError, match="0 of 0 scored pixels are anomalies"):
        ScoreHistogram.combine(()).figures()


def scene(side: int, chunk: int, seed: int = 1) -> tuple[xr.DataArray, xr.DataArray]:
    """A lazy map and its labels, the same for every chunk size."""

    def row(start: int, width: int) -> np.ndarray:
        return np.random.default_rng([seed, start]).standard_normal(width)

    def noise(block_info: dict) -> np.ndarray:
        (top, bottom), (left, right) = block_info[None]["array-location"]
        return np.stack([row(y, side)[left:right] for y in range(top, bottom)])

    grid = da.map_blocks(noise, chunks=da.core.normalize_chunks(chunk, (side, side)), dtype=float)
    truth = grid > 2
    scores = (1 / (1 + da.exp(6 - grid - da.roll(grid, 1, 0)))).astype(np.float32)
    return xr.DataArray(scores, dims=("y", "x")), xr.DataArray(truth, dims=("y", "x"))


def test_a_map_has_the_same_figures_for_every_chunking() -> None:
    scores, truth = scene(160, 160)
    scores = scores.where(scores.to_numpy() < 0.5)  # holes
    exact = figures(scores.to_numpy(), truth.to_numpy())
    whole = evaluate_map(scores.compute(), truth.compute())
    assert whole.figures().auc_df == pytest.approx(exact.auc_df, abs=1e-12)
    for chunk, other in ((160, 40), (33, 160), (64, 50)):
        part = evaluate_map(scores.chunk(chunk), truth.chunk(other))
        assert same(part, whole)
    counted = xr.DataArray(np.arange(160)[:, None] + np.zeros(160) < 80, dims=("y", "x"))
    half = evaluate_map(scores.chunk(33), truth, counted=counted)
    expected = figures(scores.to_numpy()[:80], truth.to_numpy()[:80])
    assert half.figures().auc_ft == pytest.approx(expected.auc_ft, abs=1e-6)


def test_a_map_and_labels_of_another_grid_are_refused() -> None:
    scores = xr.DataArray(np.zeros((4, 5)), dims=("y", "x"), coords={"y": range(4)})
    moved = scores.assign_coords(y=scores.y + 1).rename("labels")
    with pytest.raises(SceneError, match=r"'labels' .* are not on one grid"):
        evaluate_map(scores, moved)
    with pytest.raises(SceneError, match="are not on one grid"):
        evaluate_map(scores, scores[:3])


def test_memory_is_bounded_by_a_chunk() -> None:
    def peak(side: int, chunk: int) -> int:
        flat = da.random.default_rng(0).random((side, side), chunks=chunk, dtype=np.float32)
        scores = xr.DataArray(flat / 100, dims=("y", "x"))
        truth = xr.DataArray(flat > 0.99, dims=("y", "x"))
        with dask.config.set(scheduler="sync"):
            tracemalloc.start()
            evaluate_map(scores, truth)
            _, highest = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return highest

    small, large, whole = peak(1024, 256), peak(3072, 256), peak(3072, 3072)
    # 144 instead of 16 chunks: one more level of the tree, at most three histograms of 5 MiB.
    assert large < small + 20e6
    # Its 38 MB of scores, 9 of labels and as much of the random numbers are there at once.
    assert whole > small + 30e6
