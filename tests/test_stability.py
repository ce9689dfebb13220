"""Objects that are found again: counted both ways, and without those that a cut goes through."""

from __future__ import annotations

import numpy as np
from evaluate import Entry
from imagery import Image
from stability import apart_from, both_ways, found_again, next_to_bank


def map_of(*places: tuple[slice, slice]) -> np.ndarray:
    scores = np.zeros((20, 20), np.float32)
    for place in places:
        scores[place] = 0.9
    return scores


HERE, THERE = (slice(2, 4), slice(2, 5)), (slice(10, 12), slice(10, 12))


def test_objects_that_vanish_and_objects_that_are_new_count() -> None:
    one, two = map_of(HERE), map_of(HERE, THERE)
    assert found_again(one, two, 0.5) == (1, 1)
    assert found_again(two, one, 0.5) == (1, 2)
    assert both_ways([(one, two), (two, one)], 0.5) == (2, 3)
    assert found_again(map_of(), two, 0.5) == (0, 0)


def test_what_a_cut_goes_through_or_touches_does_not_count() -> None:
    scores = map_of(HERE, THERE)
    for cut in (2, 3):  # its first row, and its last one
        assert found_again(apart_from(scores, 0.5, cut), scores[cut:, cut:], 0.5) == (1, 1)
    assert (apart_from(scores, 0.5, 1) > 0.5).sum() == 6 + 4, "a row lies between"


def test_a_cut_through_rows_or_columns_alone_is_one_too() -> None:
    above, left = map_of((slice(3, 5), slice(10, 12))), map_of((slice(10, 12), slice(3, 5)))
    for scores in (above, left):
        for cut, kept in ((2, 4), (3, 0), (4, 0)):  # before it, its first row, its last one
            assert (apart_from(scores, 0.5, cut) > 0.5).sum() == kept


class FromMean(Entry):
    """Scores are differences from the mean of all pixels, clouds included."""

    def score(self, image: Image, modality: str) -> np.ndarray:
        assert modality == "multispectral"
        return np.abs(image.pixels[0] - image.pixels[0].mean(dtype=float)).astype(np.float32)


def test_a_cloud_bank_is_next_to_the_scene_and_only_the_scene_is_judged() -> None:
    pixels = np.full((2, 40, 50), 100, np.uint16)
    pixels[:, 5:8, 5:8] = 120
    targets = pixels[0] > 100
    image = Image(name="port", pixels=pixels, targets=targets, counted=np.ones_like(targets))
    # The mean of both is above the targets: they differ less from it than the ground does.
    assert next_to_bank(FromMean("mean"), image, "multispectral", 200) == (1.0, 0.0)
    assert next_to_bank(FromMean("mean"), image, "multispectral", 1)[1] == 1.0
