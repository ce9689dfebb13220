"""Targets that are found and false objects at a level, in a map whose objects are known."""

from __future__ import annotations

import numpy as np
from evaluate import Entry
from found import Found, found_at, of_images, targets_of
from imagery import Image

from uniadrs_scale.core.levels import GROW

LEVEL = 0.5


def scene() -> tuple[np.ndarray, Image]:
    """Return a map and its labels: 4 targets, of which 3 are found at .5, and 2 false objects."""
    scores, targets = np.zeros((20, 20), np.float64), np.zeros((20, 20), bool)
    counted = np.ones_like(targets)
    # One object that covers two targets. Its highest score, between them, equals the level.
    targets[2, 2] = targets[2, 6] = True
    scores[2, 2:7] = GROW
    scores[2, 4] = LEVEL
    # One target of three pixels that touch at a corner, in two objects.
    targets[6, 2] = targets[7, 3] = targets[8, 4] = True
    scores[6, 2] = scores[8, 4] = 0.9
    # A target in an object below the level.
    targets[12, 2], scores[12, 2] = True, np.nextafter(LEVEL, 0)
    # A false object whose pixels touch at a corner only; one of the level; one just below it.
    scores[2, 12], scores[3, 13] = 0.9, 0.8
    scores[6, 12] = LEVEL
    scores[9, 12] = np.nextafter(LEVEL, 0)
    # Not an object: outside the counted area, and no score.
    counted[16:] = False
    scores[18, 12], scores[12, 12] = 0.9, np.nan
    pixels = np.zeros((1, 20, 20), np.uint16)
    return scores, Image(name="known", pixels=pixels, targets=targets, counted=counted)


class Known(Entry):
    """Gives the known map."""

    def score(self, image: Image, modality: str) -> np.ndarray:
        assert (image.name, modality) == ("known", "multispectral")
        return scene()[0]


def test_targets_and_false_objects_count_once() -> None:
    scores, image = scene()
    assert targets_of(image) == 4
    assert found_at(scores, image, LEVEL) == Found(3, 2)
    assert found_at(scores, image, 0.4) == Found(4, 3)
    assert found_at(scores, image, 0.85) == Found(1, 1)
    assert found_at(np.zeros_like(scores), image, LEVEL) == Found(0, 0)


def test_the_counts_of_images_are_added() -> None:
    _, image = scene()
    levels = {"low": LEVEL, "high": 0.85}
    total, sums = of_images(Known("known"), [image, image], "multispectral", levels)
    assert (total, sums) == (8, {"low": Found(6, 4), "high": Found(2, 2)})


def test_pixels_below_the_limit_of_objects_part_them() -> None:
    scores, image = scene()
    scores[2, 7:12] = np.nextafter(GROW, 0)
    assert found_at(scores, image, LEVEL) == Found(3, 2)
    scores[2, 7:12] = GROW
    assert found_at(scores, image, LEVEL) == Found(3, 1)
