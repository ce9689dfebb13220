"""Draw megapixels per second against scene size, file to Zarr, as runs/speed.png.

    python benchmarks/plot.py --out runs/speed.png --sides 1024 2048 4096 8192

Small scenes are slower, because the start of the workers is part of a run, as it is for a user.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from memory import write_scene

import uniadrs_scale as us

if TYPE_CHECKING:
    from uniadrs_scale.core.presets import Arithmetic

mpl.use("Agg")


LINES: tuple[tuple[str, Arithmetic], ...] = (
    ("uniadrs-s", "float32"),
    ("uniadrs-s", "bfloat16"),
    ("uniadrs-xs", "bfloat16"),
)
"""Weights and arithmetic."""


def speed(folder: Path, side: int, weights: str, dtype: Arithmetic) -> float:
    """Return Mpx/s of one run over a scene of 4 bands, with start and stop of the workers."""
    write_scene(folder / "scene.tif", side, 4)
    scene = us.open_scene(folder / "scene.tif")
    detector = us.Detector.load(weights, device="cpu", dtype=dtype)
    started = time.perf_counter()
    us.score(scene, folder / "map.zarr", detector=detector)
    return side**2 / 1e6 / (time.perf_counter() - started)


def draw(found: dict[str, list[float]], sides: list[int], path: Path) -> None:
    """Draw one line per weights and arithmetic."""
    from matplotlib import pyplot as plt  # after the backend was chosen

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for name, values in found.items():
        axes.plot(sides, values, marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sides, [str(side) for side in sides])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("side of the scene [px], 4 bands")
    axes.set_ylabel("Mpx/s")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/speed.png"))
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    options = parser.parse_args()
    found: dict[str, list[float]] = {f"{weights}, {dtype}": [] for weights, dtype in LINES}
    for side in options.sides:
        for (weights, dtype), (name, values) in zip(LINES, found.items(), strict=True):
            with tempfile.TemporaryDirectory() as folder:
                values.append(speed(Path(folder), side, weights, dtype))
            print(f"{side} px, {name}: {values[-1]:.2f} Mpx/s", flush=True)
    draw(found, options.sides, options.out)


if __name__ == "__main__":
    main()
