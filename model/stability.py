"""How many objects are found again after a crop or a half turn of the scene.

    python model/stability.py WEIGHTS --data ../shared/data/validate

A score must depend on the ground, not on how the scene was cut. Each scene is scored as it is,
without its first rows and columns, and turned by 180 degrees. An object is a group of pixels that
touch, with a score of at least ``--threshold``; it is found again if one of its pixels reaches the
threshold in the other map. Objects that the cut divides do not count. Both directions do: objects
that vanish, and objects that are new.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from evaluate import GROUPS, VALIDATION, Entry, Group
from scipy import ndimage

import uniadrs_scale
from uniadrs_scale.objects.components import EIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imagery import Image
    from numpy.typing import NDArray

CROP = 112
"""Rows and columns that are cut off; of a small scene a quarter."""


def found_again(
    scores: NDArray[np.float32], other: NDArray[np.float32], threshold: float
) -> tuple[int, int]:
    """Return (found again, all) objects of a map (y, x) in another map of the same pixels."""
    labels, number = ndimage.label(scores >= threshold, EIGHT)
    peaks = ndimage.maximum(other, labels, np.arange(1, number + 1)) if number else []
    return int(np.count_nonzero(np.asarray(peaks) >= threshold)), number


def both_ways(
    pairs: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]], threshold: float
) -> tuple[int, int]:
    """Return the sum of :func:`found_again` over pairs of maps."""
    counts = [found_again(scores, other, threshold) for scores, other in pairs]
    return sum(again for again, _ in counts), sum(total for _, total in counts)


def apart_from(scores: NDArray[np.float32], threshold: float, cut: int) -> NDArray[np.float32]:
    """Return the map (y, x) without its first rows and columns, and the objects that they touch."""
    labels, _ = ndimage.label(scores >= threshold, EIGHT)
    touched = np.unique(np.concatenate([labels[: cut + 1].ravel(), labels[:, : cut + 1].ravel()]))
    kept = np.where(np.isin(labels, touched[touched > 0]), 0, scores)
    cropped: NDArray[np.float32] = kept[cut:, cut:]
    return cropped


def of_image(
    entry: Entry, image: Image, modality: str, threshold: float
) -> dict[str, tuple[int, int]]:
    """Return (found again, all) after the crop and after the half turn of one scene."""
    cut = min(CROP, min(image.pixels.shape[1:]) // 4)
    scores = entry.score(image, modality)
    turned = entry.score(_with(image, image.pixels[:, ::-1, ::-1]), modality)[::-1, ::-1]
    cropped = entry.score(_with(image, image.pixels[:, cut:, cut:]), modality)
    # An object that is cut is another one on each side.
    crop = (
        (apart_from(scores, threshold, cut), cropped),
        (apart_from(cropped, threshold, 0), scores[cut:, cut:]),
    )
    half_turn = ((scores, turned), (turned, scores))
    return {"crop": both_ways(crop, threshold), "half turn": both_ways(half_turn, threshold)}


def _with(image: Image, pixels: NDArray[np.generic]) -> Image:
    return replace(image, pixels=np.ascontiguousarray(pixels))


def main() -> None:
    """Score each scene three times, and print a row per group."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=VALIDATION)
    parser.add_argument("--threshold", type=float, default=0.5)
    asked = parser.parse_args()
    entry = Entry(uniadrs_scale.Detector.load(asked.weights, device="cpu").info.name, asked.weights)
    print("| group | scenes | found again after a crop | after a half turn |")
    print("| --- | --- | --- | --- |")
    for name in asked.groups:
        modality, read = GROUPS[name]
        group = Group.of(name, modality, read(asked.data / modality))
        counts = [of_image(entry, i, modality, asked.threshold) for i in group.images]
        cells = []
        for kind in ("crop", "half turn"):
            again, total = (sum(count[kind][k] for count in counts) for k in (0, 1))
            cells.append(f"{again} of {total} ({again / max(total, 1):.0%})")
        print(f"| {name} | {len(group.images)} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
