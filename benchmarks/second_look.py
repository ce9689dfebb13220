"""Count the targets that touch a labelled ship, by their support, and among the highest targets.

    python benchmarks/second_look.py ../shared/data/validate [--level low]

The scenes are four ports and two radar scenes. Only their ships are labelled, so other real objects
count as false, whether the second look confirms them or not.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import rasterio

import uniadrs_scale as us

if TYPE_CHECKING:
    import numpy as np

BANDS = "B02", "B03", "B04", "B08"
HIGHEST = 20
"""Targets that an analyst looks at first."""


def main() -> None:
    """Score each scene, look twice, print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--level", default="low")
    asked = parser.parse_args()
    total: Counter[tuple[int, bool]] = Counter()
    for name, paths, labels in scenes(asked.folder):
        with rasterio.open(labels) as file:
            ships = file.read().any(axis=0)
        found, highest = looked_at([str(path) for path in paths], ships, asked.level)
        print(f"{name:<26}{text(found)}; {highest} of the {HIGHEST} highest", flush=True)
        total += found
    print(f"{'all':<26}{text(total)}")


def scenes(folder: Path) -> list[tuple[str, list[Path], Path]]:
    """Return the name, the files and the labels of each scene."""
    ports = sorted((folder / "multispectral").iterdir())
    colours = "_instance_color_RGB.png"
    radar = sorted((folder / "sar").glob(f"*{colours}"))
    return [
        *((p.name, [p / f"{band}.tif" for band in BANDS], p / "ships_mask.tif") for p in ports),
        *((p.name.removesuffix(colours), [p.with_name(p.name.replace(colours, ".png"))], p)
          for p in radar),
    ]  # fmt: skip


def looked_at(
    paths: list[str], ships: np.ndarray, level: str
) -> tuple[Counter[tuple[int, bool]], int]:
    """Return counts by (support, touches a ship), and the ships among the highest targets."""
    with tempfile.TemporaryDirectory(prefix="uniadrs-scale-") as folder:
        scene, store = us.open_scene(paths if len(paths) > 1 else paths[0]), f"{folder}/map.zarr"
        preset = "auto" if len(paths) > 1 else "sar"
        us.score(scene, store, preset=preset, scheduler="threads")
        frame = us.targets(store, scene, level=level, second_look=True, geometry="box")
    boxes = frame[["row0", "row1", "col0", "col1"]].itertuples(index=False)
    hits = [bool(ships[row0:row1, col0:col1].any()) for row0, row1, col0, col1 in boxes]
    highest = sum(hit for hit, rank in zip(hits, frame["rank"], strict=True) if rank <= HIGHEST)
    return Counter(zip(frame["support"].tolist(), hits, strict=True)), highest


def text(found: Counter[tuple[int, bool]]) -> str:
    """Return the counts in words."""
    words = {2: "confirmed", 1: "not confirmed", 0: "without another tile"}
    return ", ".join(
        f"{found[kind, True]} of {found[kind, True] + found[kind, False]} {word}"
        for kind, word in words.items()
    )


if __name__ == "__main__":
    main()
