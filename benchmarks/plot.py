"""Draws megapixels per second against scene size, file to Zarr, as docs/speed.png.

    python benchmarks/plot.py --out docs/speed.png --sides 512 1024 2048 4096

Start-up of the workers is part of a run, as it is for a user: that is why small scenes are slower.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import matplotlib as mpl
from memory import write_scene

import uniadrs_scale as us

mpl.use("Agg")


def speed(folder: Path, side: int, dtype: str) -> float:
    """Mpx/s of one run over a scene of 4 bands, workers started and stopped."""
    write_scene(folder / "scene.tif", side, 4)
    scene = us.open_scene(folder / "scene.tif")
    detector = us.Detector.load(device="cpu", dtype=dtype)  # type: ignore[arg-type]
    started = time.perf_counter()
    us.score(scene, folder / f"{dtype}.zarr", detector=detector)
    return side**2 / 1e6 / (time.perf_counter() - started)


def draw(found: dict[str, list[float]], sides: list[int], path: Path) -> None:
    """One line an arithmetic."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend was chosen

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for name, values in found.items():
        axes.plot(sides, values, marker="o", label=f"uniadrs-s, {name}")
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
    parser.add_argument("--out", type=Path, default=Path("docs/speed.png"))
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    options = parser.parse_args()
    found: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for side in options.sides:
        for dtype, values in found.items():
            with tempfile.TemporaryDirectory() as name:
                values.append(speed(Path(name), side, dtype))
            print(f"{side} px, {dtype}: {values[-1]:.2f} Mpx/s", flush=True)
    draw(found, options.sides, options.out)


if __name__ == "__main__":
    main()
