"""Judge weights and baselines on labelled imagery: tables, ROC curves, maps next to labels.

    uniadrs-scale-train evaluate WEIGHTS [WEIGHTS ...] --data VALIDATION_IMAGERY --out runs/eval
    uniadrs-scale-train evaluate WEIGHTS --detector uniadrs rx60 lrx --images IMAGES --masks MASKS

Files with the same name in their metadata are seeds of one recipe and share a row. Every scene is
scored through the public API, with one setting per modality. ``--out`` is the folder of tables and
pictures, ``--write`` stores the mean figures in the weights' metadata.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import baselines
import charts
import imagery
import report
import weightsfile
import xarray as xr
from safetensors import safe_open
from safetensors.torch import load_file

import uniadrs_scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

GROUPS: dict[str, tuple[str, Callable[[Path], list[imagery.Image]]]] = {
    "hyperspectral": ("hyperspectral", imagery.hyperspectral),
    "ports": ("multispectral", imagery.ports),
    "sar": ("sar", imagery.sar),
    "infrared": ("infrared", imagery.infrared),
    "lowlight": ("lowlight", imagery.lowlight),
}
"""Group of scenes: its folder, which is also its modality, and its reader."""
VALIDATION = [name for name in GROUPS if name != "lowlight"]
"""Groups of the validation folder; low light is in the training folder, and nothing is trained on
it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A set of weights or a baseline to judge."""

    detector: str
    """Name of the recipe or of the baseline."""
    weights: Path | None = None
    """None for a baseline."""

    @property
    def label(self) -> tuple[str, str]:
        """(detector, weights) as results name them; seeds differ in file and digest."""
        if self.weights is None:
            return self.detector, ""
        info = uniadrs_scale.Detector.load(self.weights, device="cpu").info
        return self.detector, f"{self.weights.stem} {info.sha256[:8]}"

    def score(self, image: imagery.Image, modality: str) -> NDArray[np.float32]:
        """Return the map (y, x) that a user of the library gets."""
        if self.weights is None:
            return baselines.BASELINES[self.detector](image.pixels, modality)
        scene = xr.DataArray(image.pixels, dims=("band", "y", "x"), name=image.name)
        detector = uniadrs_scale.Detector.load(self.weights, device="cpu")
        scores: NDArray[np.float32] = uniadrs_scale.score(
            scene, detector=detector, scheduler="sync", preset=baselines.MODALITIES[modality]
        ).to_numpy()
        return scores


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Labelled images of one kind."""

    name: str
    modality: str
    images: Sequence[imagery.Image]
    """Images with a target in the counted area."""

    @classmethod
    def of(cls, name: str, modality: str, images: Iterable[imagery.Image]) -> Group:
        """Return the group of the images that can be judged.

        Raises:
            SceneError: No image can be.
        """
        judged = [i for i in images if (i.targets & i.counted).any()]
        if not judged:
            raise uniadrs_scale.SceneError(
                f"Group '{name}' has no image with a target in the counted area. Check the folder."
            )
        return cls(name=name, modality=modality, images=judged)


Judged = tuple[report.Result, "NDArray[np.float32]"]


def entries(weights: Sequence[Path], detectors: Sequence[str]) -> list[Entry]:
    """Return the requested detectors in their order; ``uniadrs`` stands for all weights."""
    found: list[Entry] = []
    for name in detectors:
        if name == "uniadrs":
            infos = [uniadrs_scale.Detector.load(path, device="cpu").info for path in weights]
            found += [Entry(info.name, path) for info, path in zip(infos, weights, strict=True)]
        else:
            found.append(Entry(name))
    return found


def judge(group: Group, task: tuple[Entry, imagery.Image]) -> Judged:
    """Score one image with one detector and judge the map."""
    entry, image = task
    scores = entry.score(image, group.modality)
    return report.Result.of(entry.label, group.name, image, scores), scores


def evaluate(
    group: Group, judged: Sequence[Entry], each: Callable[..., Iterable[Judged]] = map
) -> list[Judged]:
    """Return results and maps by detector, then by image; ``each`` works like ``map``."""
    tasks = [(entry, image) for entry in judged for image in group.images]
    bare = Group(name=group.name, modality=group.modality, images=())  # images travel singly
    return list(each(partial(judge, bare), tasks))


@contextmanager
def processes(workers: int) -> Iterator[Callable[..., Iterable[Judged]]]:
    """Provide ``map`` over this many processes; in this process if it is one."""
    if workers == 1:
        yield map
        return
    # Not fork: it breaks torch's threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map


def draw(group: Group, judged: Sequence[Judged], folder: Path) -> None:
    """Draw the sheet of maps of a group, for the first weights of each detector."""
    first: dict[str, str] = {}
    for result, _ in judged:
        first.setdefault(result.detector, result.weights)
    maps: dict[str, list[NDArray[np.float32]]] = {name: [] for name in first}
    areas: dict[str, list[float]] = {name: [] for name in first}
    for result, scores in judged:
        if first[result.detector] == result.weights:
            maps[result.detector].append(scores)
            areas[result.detector].append(result.figures.auc_df)
    charts.draw_maps(group.images, maps, areas, folder / f"maps_{group.name}.png")


def write_figures(weights: Path, found: dict[str, float]) -> None:
    """Store the mean figures in the metadata."""
    figures = json.dumps({f"AUC(D,F) {group}": mean for group, mean in found.items()})
    annotate(weights, {"figures": figures})


def annotate(weights: Path, facts: dict[str, str]) -> None:
    """Add to the metadata of a weights file; the weights stay as they are."""
    with safe_open(weights, framework="pt") as file:
        about = dict(file.metadata()) | facts
    weightsfile.write(weights, load_file(weights), about)


def read_groups(args: argparse.Namespace) -> Iterable[Group]:
    """Yield the imagery of the command line, one group at a time."""
    if args.images is not None:
        yield Group.of(args.images.name, args.modality, imagery.folder(args.images, args.masks))
    if args.published is not None:
        for modality, images in imagery.published(args.published).items():
            yield Group.of(modality, modality, images)
    for name in args.groups if args.data is not None else ():
        modality, read = GROUPS[name]
        yield Group.of(name, modality, read(args.data / modality))


def parse() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        prog="uniadrs-scale-train evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ["uniadrs", *baselines.BASELINES]
    parser.add_argument("weights", type=Path, nargs="*", help="files of weights")
    parser.add_argument(
        "--detector", nargs="+", choices=known, default=["uniadrs"], help="by default uniadrs"
    )
    parser.add_argument("--data", type=Path, help="folder of validation imagery")
    parser.add_argument(
        "--groups", nargs="+", choices=GROUPS, default=VALIDATION, help="parts of --data"
    )
    parser.add_argument("--images", type=Path, help="any folder of images, with --masks")
    parser.add_argument("--masks", type=Path, help="masks of the same names")
    parser.add_argument(
        "--modality", choices=baselines.MODALITIES, default="multispectral", help="kind of --images"
    )
    parser.add_argument(
        "--published", type=Path, help="folder with the layout of the authors' data"
    )
    parser.add_argument("--out", type=Path, help="folder for tables and figures")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--write", action="store_true", help="store the means in the weights")
    args = parser.parse_args()
    if not (args.data or args.images or args.published):
        parser.error("nothing to judge on: give --data, --images with --masks, or --published")
    if (args.images is None) != (args.masks is None):
        parser.error("--images and --masks belong together")
    if ("uniadrs" in args.detector) != bool(args.weights):
        parser.error("give weights for --detector uniadrs, and only for it")
    if args.workers < 1:
        parser.error("--workers must be at least 1")
    if args.write and len(args.weights) != 1:
        parser.error("--write stores the figures of one weights file")
    return args


def main() -> None:
    """Parse the command line and evaluate; end with a sentence and code 1 on an error."""
    try:
        run(parse())
    except (uniadrs_scale.UniadrsScaleError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def run(args: argparse.Namespace) -> None:
    """Evaluate, print and write."""
    judged = entries(args.weights, args.detector)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    results: list[report.Result] = []
    with processes(args.workers) as each:
        for group in read_groups(args):
            found = evaluate(group, judged, each)
            results += [result for result, _ in found]
            if args.out is not None:
                draw(group, found, args.out)
    tables = [report.group_table(results), report.scene_table(results)]
    text = "\n\n".join(report.markdown(table) for table in tables)
    print(text)
    if args.out is not None:
        (args.out / "table.md").write_text(text + "\n")
        report.write_csv(args.out / "scenes.csv", results)
        charts.draw_curves(results, args.out / "roc.png")
    if args.write:
        own = [r for r in results if r.weights]
        write_figures(args.weights[0], report.means(own))


if __name__ == "__main__":
    main()
