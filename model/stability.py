"""How many objects are found again after a crop or a half turn of the scene.

    python model/stability.py WEIGHTS --data ../shared/data/validate
    python model/stability.py WEIGHTS --data ../shared/data/validate --groups ports --bank 600

A score must depend on the ground, not on how the scene was cut. Each scene is scored as it is,
without its first rows and columns, and turned by 180 degrees. An object is a group of pixels that
touch, with a score of at least ``--threshold``; it is found again if one of its pixels reaches the
threshold in the other map. Objects that the cut divides do not count. Both directions do: objects
that vanish, and objects that are new.

``--bank`` prints the AUC of each scene alone and next to a cloud bank of this width instead.
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
from uniadrs_scale.evaluation.metrics import figures
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


def cloud_bank(pixels: NDArray[np.generic], width: int) -> NDArray[np.float32]:
    """Return smooth clouds (band, y, ``width``), half to one and a half times the brightest ground.

    The brightest ground is what one pixel in a thousand exceeds, in each band.
    """
    rng = np.random.default_rng(1)
    bands, height, _ = pixels.shape
    brightest = np.quantile(pixels.reshape(bands, -1), 0.999, axis=1)
    smooth = ndimage.gaussian_filter(rng.normal(size=(height, width)), 25)
    fine = ndimage.gaussian_filter(rng.normal(size=(height, width)), 3)
    light = 0.5 + 0.5 * (smooth - smooth.min()) / np.ptp(smooth) + 0.03 * fine / fine.std()
    return (1.5 * brightest[:, None, None] * light).astype(np.float32)


def next_to_bank(entry: Entry, image: Image, modality: str, width: int) -> tuple[float, float]:
    """Return AUC(D,F) of a scene alone, and with a cloud bank at its right."""
    clouds = cloud_bank(image.pixels, width)
    both = np.concatenate([image.pixels.astype(np.float32), clouds], axis=2)
    columns = image.pixels.shape[2]
    alone = entry.score(image, modality)
    beside = entry.score(_with(image, both), modality)[:, :columns]
    found = [
        figures(scores[image.counted], image.targets[image.counted]) for scores in (alone, beside)
    ]
    return found[0].auc_df, found[1].auc_df


def _with(image: Image, pixels: NDArray[np.generic]) -> Image:
    return replace(image, pixels=np.ascontiguousarray(pixels))


def main() -> None:
    """Score each scene three times, and print a row per group."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=VALIDATION)
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--bank", type=int, metavar="PX", help="width of a cloud bank")
    asked = parser.parse_args()
    entry = Entry(uniadrs_scale.Detector.load(asked.weights, device="cpu").info.name, asked.weights)
    groups = [
        Group.of(name, GROUPS[name][0], GROUPS[name][1](asked.data / GROUPS[name][0]))
        for name in asked.groups
    ]
    if asked.bank is None:
        print_found_again(entry, groups, asked.threshold)
    else:
        print_next_to_bank(entry, groups, asked.bank)


def print_found_again(entry: Entry, groups: Iterable[Group], threshold: float) -> None:
    """Print the objects that are found again, a row per group."""
    print("| group | scenes | found again after a crop | after a half turn |")
    print("| --- | --- | --- | --- |")
    for group in groups:
        counts = [of_image(entry, i, group.modality, threshold) for i in group.images]
        cells = []
        for kind in ("crop", "half turn"):
            again, total = (sum(count[kind][k] for count in counts) for k in (0, 1))
            cells.append(f"{again} of {total} ({again / max(total, 1):.0%})")
        print(f"| {group.name} | {len(group.images)} | {cells[0]} | {cells[1]} |", flush=True)


def print_next_to_bank(entry: Entry, groups: Iterable[Group], width: int) -> None:
    """Print AUC(D,F) alone and next to a cloud bank, a row per scene."""
    print("| group | scene | alone | next to a cloud bank |")
    print("| --- | --- | --- | --- |")
    for group in groups:
        for image in group.images:
            alone, beside = next_to_bank(entry, image, group.modality, width)
            print(f"| {group.name} | {image.name} | {alone:.4f} | {beside:.4f} |", flush=True)


if __name__ == "__main__":
    main()
