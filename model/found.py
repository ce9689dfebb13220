"""How many labelled targets and how many false objects are found at each level.

    python model/found.py WEIGHTS [WEIGHTS ...] --data ../shared/data/validate
    python model/found.py WEIGHTS --data ../shared/data/validate --groups ports sar

An object is a group of pixels that touch, with a score of at least ``GROW``; it is found at a level
if its highest score reaches the level of the weights. A target is found if one of its pixels is in
such an object, and an object without a pixel of a target is false. Outside the counted area only
the targets are scored.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from baselines import MODALITIES
from evaluate import GROUPS, VALIDATION, Entry
from scipy import ndimage

import uniadrs_scale
from uniadrs_scale.core.levels import GROW, RATES
from uniadrs_scale.detector.detector import levels_of
from uniadrs_scale.objects.components import EIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from imagery import Image
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Found:
    """Counts at one level."""

    targets: int
    """Labelled targets that are found."""
    false: int
    """Objects that touch no target."""

    def __add__(self, other: Found) -> Found:
        """Return the sum of both counts."""
        return Found(self.targets + other.targets, self.false + other.false)


def targets_of(image: Image) -> int:
    """Return the number of labelled targets."""
    return int(ndimage.label(image.targets, EIGHT)[1])


def found_at(scores: NDArray[np.float32], image: Image, threshold: float) -> Found:
    """Return what is found in a map (y, x) by objects that reach a threshold."""
    known = np.where(image.counted | image.targets, np.nan_to_num(scores), 0)
    objects, number = ndimage.label(known >= GROW, EIGHT)
    reaches = np.zeros(number + 1, bool)
    if number:
        peaks = ndimage.maximum(known, objects, np.arange(1, number + 1))
        reaches[1:] = np.asarray(peaks) >= threshold
    targets, _ = ndimage.label(image.targets, EIGHT)
    hit = reaches[objects] & image.targets
    false = reaches.copy()
    false[objects[image.targets]] = False
    return Found(np.unique(targets[hit]).size, int(np.count_nonzero(false)))


def of_images(
    entry: Entry, images: Iterable[Image], modality: str, levels: Mapping[str, float]
) -> tuple[int, dict[str, Found]]:
    """Return the number of targets, and what is found at each level, of all images."""
    total, sums = 0, dict.fromkeys(levels, Found(0, 0))
    for image in images:
        scores = entry.score(image, modality)
        total += targets_of(image)
        sums = {name: sums[name] + found_at(scores, image, levels[name]) for name in levels}
    return total, sums


def main() -> None:
    """Score each scene once, and print a row per group, a table per weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=VALIDATION)
    asked = parser.parse_args()
    for path in asked.weights:
        detector = uniadrs_scale.Detector.load(path, device="cpu")
        heads = " | ".join(f"{name}: found / false" for name in RATES)
        print(f"| {path.stem} | targets | {heads} |\n{'| --- ' * (2 + len(RATES))}|", flush=True)
        for group in asked.groups:
            modality, read = GROUPS[group]
            measured = levels_of(detector, MODALITIES[modality])
            if measured is None:
                parser.error(f"{path} has no levels for {group}; measure them by threshold.py")
            levels = {name: measured.threshold(name) for name in RATES}
            entry = Entry(detector.info.name, path)
            total, sums = of_images(entry, read(asked.data / modality), modality, levels)
            cells = " | ".join(f"{found.targets} / {found.false}" for found in sums.values())
            print(f"| {group} | {total} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
