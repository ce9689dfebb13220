"""False alarms by object: against a slow count, and at the rules' edges."""

from __future__ import annotations

import numpy as np
import pytest

from uniadrs_scale.errors import SceneError
from uniadrs_scale.evaluation.metrics import ObjectScene


def components(marked: np.ndarray) -> list[set[tuple[int, int]]]:
    """Sets of touching pixels, corners included, by flooding."""
    left = {(int(y), int(x)) for y, x in np.argwhere(marked)}
    found = []
    while left:
        front = [left.pop()]
        one = set(front)
        while front:
            y, x = front.pop()
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            one |= near
            front += near
        found.append(one)
    return found


def is_near(pixels: set[tuple[int, int]], others: set[tuple[int, int]]) -> bool:
    return any(max(abs(y - b), abs(x - a)) <= 2 for y, x in pixels for b, a in others)


@pytest.mark.parametrize("seed", range(60))
def test_counts_are_those_of_a_slow_search(seed) -> None:
    # Drawn here: hypothesis fills arrays with one value, and then nearly all have no object.
    rng = np.random.default_rng(seed)
    shape, levels = (9, 16), [0.0, 0.1, 0.2, 0.5, 0.9, np.nan]
    scores = rng.choice(levels, shape, p=[0.6, 0.15, 0.1, 0.05, 0.05, 0.05]).astype(np.float32)
    truth = rng.random(shape) < 0.04
    counted = rng.random(shape) < 0.8
    detection = rng.choice([0.3, 0.5, 0.8, 1.0])
    judged = counted & np.isfinite(scores)
    objects = components(truth & counted)
    if not (objects and judged.any()):
        return
    scene = ObjectScene.of(scores, truth, counted)
    thresholds = [0.9, 0.5, 0.2, 0.1, 0.0, -np.inf]
    alarms = {t: components(judged & (scores >= t)) for t in thresholds}
    everywhere = {(int(y), int(x)) for y, x in np.argwhere(truth)}
    for threshold in thresholds:  # the first that finds enough is the highest
        found = sum(any(is_near(alarm, one) for alarm in alarms[threshold]) for one in objects)
        false = sum(not is_near(alarm, everywhere) for alarm in alarms[threshold])
        assert scene.false_alarms(threshold) == false
        if found >= detection * len(objects) - 1e-9:
            expected = false * 1e6 / judged.sum()
            assert scene.threshold_at(detection) == np.float32(threshold)
            assert scene.false_alarms_per_megapixel(detection) == pytest.approx(expected)
            break
    else:  # no score is near some object
        assert scene.threshold_at(detection) == -np.inf


def test_four_of_five_objects_are_80_percent() -> None:
    truth = np.zeros((10, 60), bool)
    truth[5, 4:60:12] = True
    scores = np.where(truth, np.linspace(0.4, 0.9, 60), 0).astype(np.float32)
    scores[1, 50] = 0.5  # 4 px from an object: a false alarm once the threshold is that low
    scene = ObjectScene.of(scores, truth)
    assert scene.threshold_at(0.8) == scores[5, 16]
    assert scene.false_alarms_per_megapixel(0.8) == 0
    assert scene.false_alarms_per_megapixel(1) == 1e6 / 600


def test_what_cannot_be_judged_is_refused() -> None:
    scores, truth = np.zeros((4, 5), np.float32), np.zeros((4, 5), bool)
    with pytest.raises(SceneError, match="0 objects on 20 scored pixels"):
        ObjectScene.of(scores, truth)
    with pytest.raises(SceneError, match="differ in size"):
        ObjectScene.of(scores[:3], truth)
    with pytest.raises(SceneError, match="1 objects on 0 scored pixels"):
        ObjectScene.of(scores * np.nan, ~truth)
    with pytest.raises(SceneError, match=r"detection=0 is not a share of objects"):
        ObjectScene.of(scores, ~truth).threshold_at(0)
