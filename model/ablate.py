"""Ablation: the recipe with one thing changed, at the same budget, over several seeds.

    python model/ablate.py --data TRAIN_IMAGERY --validation VALIDATION_IMAGERY --out runs/ablation

Every run leaves a file in the output folder, so a killed ablation resumes. The table has the mean
AUC(D,F) of each group of scenes, with its smallest and largest seed.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from evaluate import GROUPS, Entry, Group, evaluate
from threadpoolctl import threadpool_limits
from train import Machine, Recipe, metadata, train, write_weights

CONFIG = Path(__file__).parent / "configs" / "ablation.toml"
VARIANTS: dict[str, dict[str, object]] = {
    "the recipe": {},
    "with local RX added": {"shortcut": 0.3},
    "published network": {"profile": "published", "decoders": "frozen"},
    "published attention, trained decoders": {"profile": "published"},
    "true attention, frozen decoders": {"decoders": "frozen"},
    "published loss": {"loss": "published"},
    "generated backgrounds only": {},
    "no empty windows": {"empty": 0.0},
    "width 1/2": {"width": 0.5},
}
"""Name to the values that it changes in the recipe; the data decide the backgrounds."""
GENERATED = "generated backgrounds only"


def figures_of(
    recipe: Recipe, data: Path | None, validation: Path, folder: Path, groups: list[str]
) -> dict[str, float]:
    """Train one variant with one seed, or read its result; return mean AUC(D,F) by group."""
    done = folder / "figures.json"
    if done.exists():
        found: dict[str, float] = json.loads(done.read_text())
        return found
    run = train(recipe, data, folder, Machine(every=1e9))
    weights = folder / "weights.safetensors"
    about = metadata(recipe, CONFIG.name, with_imagery=data is not None)
    write_weights(weights, run.best["mean"], about)
    found = {"held_out": float(run.best["figure"])}
    for name in groups:
        modality, read = GROUPS[name]
        group = Group.of(name, modality, read(validation / modality))
        judged = evaluate(group, [Entry(recipe.name, weights)])
        found[name] = float(np.mean([result.figures.auc_df for result, _ in judged]))
    done.write_text(json.dumps(found))
    for name in ("checkpoint.pt", "weights.safetensors"):
        (folder / name).unlink(missing_ok=True)
    return found


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Return a Markdown table: one row per variant, mean (smallest to largest seed)."""
    columns = list(next(iter(found.values()))[0])
    lines = ["| variant | seeds | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, seeds in found.items():
        cells = []
        for column in columns:
            values = [figures[column] for figures in seeds]
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        lines.append(f"| {name} | {len(seeds)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, run the missing variants, print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=["hyperspectral", "sar"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    base = Recipe(**tomllib.loads(CONFIG.read_text()))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in args.variants}
    for seed, name in product(args.seeds, args.variants):
        recipe = replace(base, seed=seed, **VARIANTS[name])
        folder = args.out / f"{name.replace(' ', '_').replace('/', '-')}-{seed}"
        data = None if name == GENERATED else args.data
        with threadpool_limits(1):
            figures = figures_of(recipe, data, args.validation, folder, args.groups)
        found[name].append(figures)
        print(f"{name}, seed {seed}: {figures}", flush=True)
    text = table(found)
    print(text)
    (args.out / "table.md").write_text(text + "\n")
    (args.out / "recipe.json").write_text(json.dumps(asdict(base)))


if __name__ == "__main__":
    main()
