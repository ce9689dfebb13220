"""Train a detector on simulated anomalies; a killed and resumed run ends at the same weights.

    uniadrs-scale-train train uniadrs-s --data TRAIN_IMAGERY --out runs/uniadrs-s
    uniadrs-scale-train train RECIPE --from WEIGHTS --data TRAIN_IMAGERY --out runs/tuned
    uniadrs-scale-train train RECIPE --from WEIGHTS --teachers WEIGHTS ... --out runs/taught

RECIPE is a file, or the name of one that ships with the library. Without ``--data`` all backgrounds
are generated landscapes. The output folder holds ``checkpoint.pt``, ``log.csv``, TensorBoard events
and, at the end, ``NAME.safetensors``: the moving average of the weights that was best on held-out
windows.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
import tomllib
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import published_simulation
import simulate
import symmetry
import torch
import weightsfile
from losses import ANOMALY, IGNORED, consistency_loss, detection_loss, published_loss
from recipe import Recipe
from runlog import Log
from sources import read_sources
from teaching import Teachers, teaching_loss
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from uniadrs_scale.detector.network import UniADRS
from uniadrs_scale.detector.weights import WeightsInfo, load_network, read_weights
from uniadrs_scale.errors import UniadrsScaleError
from uniadrs_scale.evaluation.metrics import figures

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIGS = Path(__file__).parent / "configs"
FORMAT = "uniadrs-scale 1"
HELD_OUT = 987_654_321
"""Seed of the held-out windows."""
LOGGED = 50
"""Steps between lines of the log."""
BIAS = "features_DN_combine.conv2.bias"
"""The last bias of the network: a number that is added to every logit."""
LICENCE = "Apache-2.0; training imagery has licences of its own, see model/README.md"


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """The batch of every step, simulated on demand."""

    def __init__(self, recipe: Recipe, folder: Path | None) -> None:
        self.recipe = recipe
        self.sources = read_sources(folder) if folder else []

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        recipe = self.recipe
        if recipe.simulation == "published":
            pixels, labels = published_simulation.batch(recipe.seed, step, self.sources)
        else:
            pixels, labels = simulate.batch(
                recipe.seed,
                step,
                self.sources,
                windows=recipe.windows,
                empty=recipe.empty,
                sensors=recipe.sensors,
                radar_share=recipe.radar,
                wider=recipe.wider,
                islet=recipe.islet,
            )
        return torch.from_numpy(pixels), torch.from_numpy(labels)

    def held_out(self) -> list[tuple[Tensor, Tensor]]:
        """Simulate windows that no recipe trains on, equal for all recipes of one simulation."""
        published = self.recipe.simulation == "published"
        batch = published_simulation.batch if published else simulate.batch
        drawn = (batch(HELD_OUT, step, self.sources) for step in range(self.recipe.held_out))
        return [(torch.from_numpy(pixels), torch.from_numpy(labels)) for pixels, labels in drawn]


@dataclass(frozen=True, slots=True)
class View:
    """A part of a window, turned and mirrored."""

    top: int
    left: int
    side: int
    turns: int
    """Quarter turns, 0..3."""
    mirrored: bool

    @classmethod
    def drawn(cls, seed: int, step: int, side: int) -> View:
        """Draw the second view of the windows of a step, of ``side`` px: at least 3/4 of it."""
        rng = np.random.default_rng((seed, step, 2))
        part = int(rng.integers(3 * side // 4, side, endpoint=True))
        top, left = rng.integers(0, side - part, 2, endpoint=True)
        return cls(int(top), int(left), part, int(rng.integers(4)), bool(rng.random() < 0.5))

    def of(self, pixels: Tensor) -> Tensor:
        """Cut and turn pixels (..., y, x)."""
        bottom, right = self.top + self.side, self.left + self.side
        cut = torch.rot90(pixels[..., self.top : bottom, self.left : right], self.turns, (-2, -1))
        return cut.flip(-1) if self.mirrored else cut


class Run:
    """The state of a training run, and its checkpoint."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        device: str = "cpu",
        start: WeightsInfo | None = None,
        *,
        teachers: Sequence[WeightsInfo] = (),
    ) -> None:
        if bool(recipe.taught) != bool(teachers):
            raise ValueError(
                f"taught={recipe.taught} in recipe {recipe.name} does not fit {len(teachers)} "
                "teachers. Give --teachers WEIGHTS for a recipe with taught above 0, and only then."
            )
        self.recipe, self.out, self.step = recipe, out, 0
        self.start = "" if start is None else start.content
        self.device = torch.device(device)
        self.teachers = Teachers.of(teachers, self.device)
        torch.manual_seed(recipe.seed)
        self.network = UniADRS(recipe.network)
        if start is not None:
            state = _fitting(start, recipe).state_dict()
            self.network.load_state_dict(finished(state, -_recipe_of(start).get("shift", 0.0)))
        if recipe.symmetric:
            symmetry.keep(self.network)
        self.network.to(self.device)
        if recipe.decoders == "frozen":
            self.network.normality_extractor.normality_decoders.requires_grad_(requires_grad=False)
        self.multipliers = torch.ones(6, device=self.device, requires_grad=True)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = recipe.optimiser_of(parameters, self.multipliers)
        self.mean = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.best: dict[str, Any] = {"figure": -1.0, "step": 0, "mean": self.mean}
        out.mkdir(parents=True, exist_ok=True)
        self.file = out / "checkpoint.pt"

    def descend(self, pixels: Tensor, labels: Tensor) -> float:
        """Make one step, and return the loss."""
        published = self.recipe.optimiser == "published"
        # The published multipliers have their own rate.
        for group in self.optimiser.param_groups[: 1 if published else None]:
            group["lr"] = self.recipe.rate_at(self.step)
        self.optimiser.zero_grad()
        loss = self._loss(pixels.to(self.device), labels.to(self.device))
        if not published or loss.item() > 0:
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
            # After a channel that is constant over a window, instance normalisation multiplies
            # gradients by 316 per layer. Clipping an infinite one would make all weights NaN.
            if torch.isfinite(norm):
                self.optimiser.step()
        self.step += 1
        # A short memory at the start: untrained weights would stay in the average for long.
        keep = min(self.recipe.average, self.step / (self.step + 10))
        for name, value in self.network.state_dict().items():
            self.mean[name].lerp_(value, 1 - keep)
        return loss.item()

    def _loss(self, pixels: Tensor, labels: Tensor) -> Tensor:
        bands = self.recipe.network.bands  # twice as many if the views are whitened apart
        logits, features = self._described(pixels[:, :bands])
        if self.recipe.loss == "published":
            return published_loss(logits.sigmoid(), features.sigmoid(), labels, self.multipliers)
        across = self.recipe.across
        loss = detection_loss(logits, labels, across=across)
        if self.recipe.taught:
            loss = loss + self.recipe.taught * self._taught(logits, pixels[:, :bands], labels)
        if not self.recipe.consistency:
            return loss
        view = View.drawn(self.recipe.seed, self.step, pixels.shape[-1])
        other, _ = self._described(view.of(pixels[:, -bands:]))
        loss = (loss + detection_loss(other, view.of(labels), across=across)) / 2
        return loss + self.recipe.consistency * consistency_loss(view.of(logits), other)

    def _described(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        with self._half():
            logits, features = self.network.described(pixels)
        return logits[:, 0].float(), features.float()

    def _taught(self, logits: Tensor, pixels: Tensor, labels: Tensor) -> Tensor:
        with self._half():
            taught = self.teachers.logits(pixels)
        return teaching_loss(logits, pixels, self.recipe.shortcut, taught, labels)

    def _half(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.half)

    def validate(self, windows: list[tuple[Tensor, Tensor]]) -> float:
        """Return the mean AUC over held-out windows with anomalies, and keep the best average.

        This rule chooses the weights that a run ends with. The windows are simulated: real scenes
        judge the result.
        """
        judge = copy.deepcopy(self.network).eval()
        judge.load_state_dict(self.mean)
        areas = []
        with torch.inference_mode(), self._half():
            for pixels, labels in windows:
                scores = judge.logits(pixels.to(self.device))[:, 0].float().cpu().numpy()
                for score, label in zip(scores, labels.numpy(), strict=True):
                    counted = label != IGNORED
                    if (label == ANOMALY).any():
                        areas.append(figures(score[counted], label[counted] == ANOMALY).auc_df)
        figure = float(np.mean(areas))
        if figure >= self.best["figure"]:
            mean = {name: value.clone() for name, value in self.mean.items()}
            self.best = {"figure": figure, "step": self.step, "mean": mean}
        return figure

    def save(self) -> None:
        """Write the checkpoint; a kill at any moment leaves a whole one."""
        state = {
            "recipe": asdict(self.recipe),
            "start": self.start,
            "teachers": list(self.teachers.contents),
            "step": self.step,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "mean": self.mean,
            "multipliers": self.multipliers.detach(),
            "best": self.best,
            "random": torch.get_rng_state(),
        }
        partial = self.file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.file)

    def resume(self) -> None:
        """Continue from the last checkpoint, if the folder has one.

        Raises:
            ValueError: The folder holds a run of another recipe, or from other weights.
        """
        if not self.file.exists():
            return
        state = torch.load(self.file, map_location=self.device, weights_only=True)
        # Compared as recipes: an older checkpoint may lack values that had defaults.
        same = Recipe(**state["recipe"]) == self.recipe
        began = state.get("start", ""), tuple(state.get("teachers", ()))
        if not same or began != (self.start, self.teachers.contents):
            what = "began with other weights or teachers" if same else "belongs to another recipe"
            raise ValueError(f"{self.file} {what}. Use another --out, or delete it.")
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.mean, self.step, self.best = state["mean"], state["step"], state["best"]
        self.multipliers.data.copy_(state["multipliers"])
        torch.set_rng_state(state["random"].cpu())


def _fitting(start: WeightsInfo, recipe: Recipe) -> UniADRS:
    """Return the network of weights to begin with.

    Raises:
        ValueError: It is not the network of the recipe.
    """
    network = load_network(start)
    # The shortcut is added to the logit afterwards: training does not see it.
    if replace(network.config, shortcut=recipe.network.shortcut) != recipe.network:
        raise ValueError(
            f"The weights {start.name} are of {network.config}, the recipe {recipe.name} of "
            f"{recipe.network}. Use the recipe of these weights, with other steps or rate."
        )
    return network


def _recipe_of(start: WeightsInfo) -> dict[str, Any]:
    """Return the recipe of weights to begin with; empty if they do not say it."""
    known: dict[str, Any] = json.loads(start.metadata.get("recipe", "{}"))
    return known


def changes(start: WeightsInfo, recipe: Recipe) -> str:
    """Return which scores of finished weights a recipe changes without training; empty if none."""
    before, now = _recipe_of(start), asdict(recipe)
    names = ("shortcut", "shift", "symmetric")
    return ", ".join(
        f"{name} = {json.dumps(now[name])} (they had {json.dumps(before[name])})"
        for name in names
        if before.get(name, now[name]) != now[name]
    )


def finished(state: dict[str, Tensor], shift: float) -> dict[str, Tensor]:
    """Return weights whose logits are higher by ``shift``."""
    return {**state, BIAS: state[BIAS] + shift}


def write_weights(path: Path, state: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write weights as safetensors, with the metadata to use and to judge them.

    float16 has half the size, and changed no figure of a scene in its third decimal.
    """
    halves = {name: value.half().contiguous() for name, value in state.items()}
    weightsfile.write(path, halves, {"format": FORMAT, **about})


def metadata(recipe: Recipe, file: str, *, with_imagery: bool) -> dict[str, str]:
    """Return the metadata of a weights file; ``evaluate.py --write`` adds the figures.

    Args:
        recipe: The recipe of the run.
        file: Name of the recipe's file.
        with_imagery: True if real scenes were backgrounds too.
    """
    # Folders relative to the repository, not those of this machine.
    if (CONFIGS / file).exists():
        command, folder = f"python model/train.py model/configs/{file}", "../shared/data/train"
        scenes, licence = "the real scenes listed in model/README.md", LICENCE
    else:
        command, folder = f"uniadrs-scale-train train {file}", "FOLDER"
        scenes, licence = "the imagery of a folder", "unknown"
    data = f" --data {folder}" if with_imagery else ""
    real = f" and {scenes}" if with_imagery else ""
    return {
        "name": recipe.name,
        "width": str(recipe.width),
        "bands": str(recipe.network.bands),
        "input": "whitened" if recipe.simulation == "ours" else "bands",
        "profile": recipe.profile,
        "shortcut": str(recipe.shortcut),
        "command": f"{command}{data} --seed {recipe.seed} --out runs/{recipe.name}",
        "seed": str(recipe.seed),
        "recipe": json.dumps(asdict(recipe)),
        "data": f"simulated anomalies on generated landscapes{real}",
        "figures": "{}",
        "licence": licence,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Device and processes of a run. They affect the last bits of the weights only."""

    device: str = "cpu"
    every: float = 120.0
    """Seconds between checkpoints."""
    workers: int = 1
    """Processes that simulate; 0: in this process."""


def train(
    recipe: Recipe,
    data: Path | None,
    out: Path,
    machine: Machine | None = None,
    start: WeightsInfo | None = None,
    *,
    teachers: Sequence[WeightsInfo] = (),
) -> Run:
    """Train to the recipe's last step, from the checkpoint in ``out`` if it has one."""
    machine = machine or Machine()
    run = Run(recipe, out, machine.device, start, teachers=teachers)
    run.resume()
    windows = Windows(recipe, data)
    held_out = windows.held_out()
    loader = DataLoader(
        windows,
        batch_size=None,
        sampler=range(run.step, recipe.steps),
        num_workers=machine.workers,
        prefetch_factor=4 if machine.workers else None,
        multiprocessing_context="fork" if machine.workers else None,
    )
    began, saved = time.monotonic(), time.monotonic()
    with Log(out, run.step) as log:
        for pixels, labels in loader:
            log.add("loss", run.step, run.descend(pixels, labels))
            log.add("rate", run.step, recipe.rate_at(run.step - 1))
            if run.step % recipe.check == 0 or run.step == recipe.steps:
                log.add("held_out_auc", run.step, run.validate(held_out))
            if run.step % LOGGED == 0 or run.step == recipe.steps:
                seconds = time.monotonic() - began
                log.write(run.step, seconds)
                print(f"step {run.step} of {recipe.steps}, {seconds:.0f} s", flush=True)
            if time.monotonic() - saved > machine.every:
                run.save()
                saved = time.monotonic()
    run.save()
    return run


def main() -> None:
    """Run the command line; end with a sentence and code 1 on an error."""
    try:
        run()
    except (UniadrsScaleError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _start(name: str, recipe: Recipe) -> WeightsInfo:
    """Return the weights to begin with, and print which scores the recipe changes by itself."""
    start = read_weights(name)
    if changed := changes(start, recipe):
        print(
            f"note: the recipe changes scores of {start.name} without training: {changed}. To keep "
            "them, begin with a copy of the recipe of these weights.",
            file=sys.stderr,
        )
    return start


def run() -> None:
    """Parse the command line, train, write the averaged weights."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(
        prog="uniadrs-scale-train train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", type=Path, help="file, or the name of a shipped recipe")
    parser.add_argument("--from", dest="start", help="weights to begin with, by path or name")
    parser.add_argument("--teachers", nargs="+", default=[], help="weights to learn from too")
    parser.add_argument("--data", type=Path, help="folder of training imagery")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, or to resume")
    parser.add_argument("--seed", type=int, help="another seed than the recipe's")
    parser.add_argument("--device", default=device, help=f"cpu, cuda or cuda:1; here {device}")
    parser.add_argument("--threads", type=int, default=1, help="equal numbers give equal bits")
    parser.add_argument("--every", type=float, default=120.0, help="seconds between checkpoints")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    file = args.recipe if args.recipe.exists() else CONFIGS / f"{args.recipe}.toml"
    if not file.exists():
        known = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.toml")))
        parser.error(
            f"recipe '{args.recipe}' does not exist: give a file, or one of {known} (in {CONFIGS})"
        )
    try:
        values: dict[str, Any] = tomllib.loads(file.read_text())
    except ValueError as error:
        parser.error(f"recipe '{file}' is not TOML: {error}")
    known_fields = {field.name for field in fields(Recipe)}
    if unknown := sorted(values.keys() - known_fields):
        parser.error(
            f"recipe '{file}' has unknown fields {', '.join(unknown)}. Use some of "
            f"{', '.join(sorted(known_fields))}"
        )
    needed = {field.name for field in fields(Recipe) if field.default is MISSING}
    if lacking := sorted(needed - values.keys()):
        parser.error(f"recipe '{file}' lacks {', '.join(lacking)}. Add these fields")
    if args.seed is not None:
        values["seed"] = args.seed
    recipe = Recipe(**values)
    start = None if args.start is None else _start(args.start, recipe)
    # numpy too: the last bits of its matrix products depend on the number of threads.
    with threadpool_limits(args.threads):
        machine = Machine(device=args.device, every=args.every)
        teachers = [read_weights(name) for name in args.teachers]
        trained = train(recipe, args.data, args.out, machine, start, teachers=teachers)
    about = metadata(recipe, file.name, with_imagery=args.data is not None)
    if start is not None:
        about["command"] += f" --from {start.name}"
        about["start"] = start.content
    if teachers:
        about["command"] += f" --teachers {' '.join(one.name for one in teachers)}"
        about["teachers"] = json.dumps({one.name: one.content for one in teachers})
    step, figure = trained.best["step"], trained.best["figure"]
    about |= {"best_step": str(step), "held_out_auc": f"{figure:.5f}"}
    state = finished(trained.best["mean"], recipe.shift)
    made = args.out / f"{recipe.name}.safetensors"
    write_weights(made, state, about)
    print(f"{made}: held-out AUC {figure:.3f}, after {step} of {recipe.steps} steps")


if __name__ == "__main__":
    main()
