"""Scores the validation imagery with a weights file and prints a table of figures.

    python model/evaluate.py model/weights/uniadrs-s.safetensors --data VALIDATION_IMAGERY

Every scene goes through the library's public path at its native resolution, without any setting of
its own. ``--out`` also writes the table (``.md`` or ``.csv``), ``--write`` stores the mean figures
in the weights' metadata.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import imagery
import numpy as np
import xarray as xr
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import uniadrs_scale
from uniadrs_scale.metrics import Figures, figures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

GROUPS: dict[str, tuple[str, Callable[[Path], list[imagery.Image]]]] = {
    "hyperspectral": ("hyperspectral", imagery.hyperspectral),
    "ports": ("multispectral", imagery.ports),
    "sar": ("sar", imagery.sar),
    "infrared": ("infrared", imagery.infrared),
}
"""Group of scenes: its folder and its reader."""

HEADER = ("group", "scene", "AUC(D,F)", "AUC(D,tau)", "AUC(F,tau)")


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of one scene."""

    group: str
    scene: str
    figures: Figures

    def row(self) -> tuple[str, ...]:
        """The line of the table."""
        f = self.figures
        return (self.group, self.scene, *(f"{v:.3f}" for v in (f.auc_df, f.auc_dt, f.auc_ft)))


def anomaly_map(image: imagery.Image, detector: uniadrs_scale.Detector) -> NDArray[np.float32]:
    """The map (y, x) that a user of the library gets."""
    scene = xr.DataArray(image.pixels, dims=("band", "y", "x"), name=image.name)
    scores: NDArray[np.float32] = uniadrs_scale.score(
        scene, detector=detector, scheduler="sync"
    ).to_numpy()
    return scores


def evaluate(folder: Path, detector: uniadrs_scale.Detector, groups: Iterable[str]) -> list[Result]:
    """Figures of every scene with labels, where its labels count."""
    results = []
    for group in groups:
        name, read = GROUPS[group]
        for image in read(folder / name):
            if not (image.targets & image.counted).any():
                continue
            scores = anomaly_map(image, detector)
            found = figures(scores[image.counted], image.targets[image.counted])
            results.append(Result(group, image.name, found))
    return results


def means(results: list[Result]) -> dict[str, float]:
    """Mean AUC(D,F) of each group."""
    groups = dict.fromkeys(result.group for result in results)
    return {
        group: round(float(np.mean([r.figures.auc_df for r in results if r.group == group])), 4)
        for group in groups
    }


def table(results: list[Result], long: int = 10) -> list[tuple[str, ...]]:
    """Rows of scenes, groups of over ``long`` scenes as their mean only, then the means."""
    names = [result.group for result in results]
    rows = [r.row() for r in results if names.count(r.group) <= long]
    for group, mean in means(results).items():
        rows.append((group, f"mean of {names.count(group)}", f"{mean:.3f}", "", ""))
    return rows


def markdown(rows: list[tuple[str, ...]]) -> str:
    """The rows as a Markdown table."""
    lines = [HEADER, ("---",) * len(HEADER), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_figures(weights: Path, found: dict[str, float]) -> None:
    """Store the mean figures in the metadata; the weights stay as they are."""
    with safe_open(weights, framework="pt") as file:
        about = dict(file.metadata())
    about["figures"] = json.dumps({f"AUC(D,F) {group}": mean for group, mean in found.items()})
    save_file(load_file(weights), weights, about)
    weights.chmod(0o644)  # safetensors leaves it readable by its owner alone


def main() -> None:
    """Parse the command line, evaluate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of validation imagery")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--out", type=Path, help="table as .md, or every scene as .csv")
    parser.add_argument("--write", action="store_true", help="store the means in the weights")
    args = parser.parse_args()
    detector = uniadrs_scale.Detector.load(args.weights, device="cpu")
    results = evaluate(args.data, detector, args.groups)
    text = markdown(table(results))
    print(text)
    if args.out is not None and args.out.suffix == ".csv":
        with args.out.open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *(result.row() for result in results)])
    elif args.out is not None:
        args.out.write_text(text + "\n")
    if args.write:
        write_figures(args.weights, means(results))


if __name__ == "__main__":
    main()
