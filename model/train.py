"""Trains a detector on simulated anomalies; killed and started again, it ends at the same weights.

    python model/train.py model/configs/uniadrs-s.toml --data TRAIN_IMAGERY --out runs/uniadrs-s

Without ``--data`` the backgrounds are generated landscapes only. The output folder holds
``checkpoint.pt``, ``log.csv`` and, after the last step, ``NAME.safetensors``.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import simulate
import torch
from losses import detection_loss
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from uniadrs_scale.network import NetworkConfig, UniADRS

FORMAT = "uniadrs-scale 1"
LICENCE = "Apache-2.0; training imagery has licences of its own, see model/README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One training run; equal recipes and data give equal weights."""

    name: str
    width: float = 0.25
    bands: int = 270
    steps: int
    seed: int
    rate: float
    warmup: int = 200
    decay: float = 1e-4
    average: float = 0.9985
    clip: float = 2.0
    half: bool = False

    def rate_at(self, step: int) -> float:
        """Learning rate: linear warm-up, level, then linear to 0 over the last third."""
        rise, fall = (step + 1) / self.warmup, 3 * (1 - step / self.steps)
        return self.rate * min(1.0, rise, fall)


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """The batch of every step, simulated when asked for."""

    def __init__(self, recipe: Recipe, folder: Path | None) -> None:
        self.recipe = recipe
        self.sources = simulate.read_sources(folder) if folder else []

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        pixels, labels = simulate.batch(self.recipe.seed, step, self.sources)
        return torch.from_numpy(pixels), torch.from_numpy(labels)


class Run:
    """Everything that changes while training, and how it is kept."""

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe, self.out, self.step = recipe, out, 0
        torch.manual_seed(recipe.seed)
        self.network = UniADRS(NetworkConfig(recipe.width, recipe.bands))
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(parameters, weight_decay=recipe.decay)
        self.mean = {k: v.clone() for k, v in self.network.state_dict().items()}
        out.mkdir(parents=True, exist_ok=True)
        self.file = out / "checkpoint.pt"

    def descend(self, pixels: Tensor, labels: Tensor) -> float:
        """One step; returns the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate_at(self.step)
        self.optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.half):
            logits = self.network.logits(pixels)
        loss = detection_loss(logits[:, 0].float(), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.step += 1
        # The average forgets its start quickly: untrained weights would stay in it for long.
        keep = min(self.recipe.average, self.step / (self.step + 10))
        for name, value in self.network.state_dict().items():
            self.mean[name].lerp_(value, 1 - keep)
        return loss.item()

    def save(self) -> None:
        """Keep the state so that a kill at any moment leaves a whole checkpoint behind."""
        state = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "mean": self.mean,
            "random": torch.get_rng_state(),
        }
        partial = self.file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.file)

    def resume(self) -> None:
        """Continue where the last checkpoint stands, if there is one.

        Raises:
            ValueError: If the folder holds a run of another recipe.
        """
        if not self.file.exists():
            return
        state = torch.load(self.file, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise ValueError(f"{self.file} is of another recipe. Use another --out, or delete it.")
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.mean, self.step = state["mean"], state["step"]
        torch.set_rng_state(state["random"])


def write_weights(path: Path, state: dict[str, Tensor], about: dict[str, str]) -> None:
    """Weights as safetensors, with all that is needed to use and to judge them.

    Stored as float16, half the size: no figure of a scene moved in its third decimal.
    """
    halves = {name: value.half().contiguous() for name, value in state.items()}
    save_file(halves, path, {"format": FORMAT, **about})
    path.chmod(0o644)  # safetensors leaves it readable by its owner alone


def metadata(recipe: Recipe, file: str, *, with_imagery: bool) -> dict[str, str]:
    """What a weights file says about itself; ``evaluate.py --write`` adds the figures.

    Args:
        recipe: The run.
        file: Name of the recipe's file.
        with_imagery: Whether real scenes served as backgrounds beside generated ones.
    """
    # Folders as seen from the repository, not as this machine calls them.
    data = " --data ../shared/data/train" if with_imagery else ""
    real = " and the real scenes listed in model/README.md" if with_imagery else ""
    return {
        "name": recipe.name,
        "width": str(recipe.width),
        "bands": str(recipe.bands),
        "profile": "corrected",
        "command": f"python model/train.py model/configs/{file}{data} --out runs/{recipe.name}",
        "seed": str(recipe.seed),
        "recipe": json.dumps(asdict(recipe)),
        "data": f"simulated anomalies on generated landscapes{real}",
        "figures": "{}",
        "licence": LICENCE,
    }


def train(recipe: Recipe, data: Path | None, out: Path, every: float, *, workers: int = 1) -> Run:
    """Train to the recipe's last step, saving every so many seconds; 0 workers simulate inline."""
    run = Run(recipe, out)
    run.resume()
    loader = DataLoader(
        Windows(recipe, data),
        batch_size=None,
        sampler=range(run.step, recipe.steps),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="fork" if workers else None,
    )
    log = (out / "log.csv").open("a", newline="")
    writer, began, saved, losses = csv.writer(log), time.monotonic(), time.monotonic(), []
    with log:
        for pixels, labels in loader:
            losses.append(run.descend(pixels, labels))
            if run.step % 50 == 0:
                spent = time.monotonic() - began
                writer.writerow([run.step, f"{sum(losses) / len(losses):.5f}", f"{spent:.0f}"])
                log.flush()
                losses = []
            if time.monotonic() - saved > every:
                run.save()
                saved = time.monotonic()
    run.save()
    return run


def main() -> None:
    """Parse the command line, train, write the averaged weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, help="folder of training imagery")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1, help="the same threads, the same bits")
    parser.add_argument("--every", type=float, default=120.0, help="seconds between checkpoints")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    values: dict[str, Any] = tomllib.loads(args.recipe.read_text())
    recipe = Recipe(**values)
    run = train(recipe, args.data, args.out, args.every)
    about = metadata(recipe, args.recipe.name, with_imagery=args.data is not None)
    write_weights(args.out / f"{recipe.name}.safetensors", run.mean, about)


if __name__ == "__main__":
    main()
