"""A full swath on this machine: open, forecast, score, write a map for QGIS.

    python pipelines/swath.py SCENE.tif OUT_FOLDER

Run again after an interruption, it finishes what is missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import uniadrs_scale as us


def main() -> None:
    """From a raster to OUT_FOLDER/scores.zarr and OUT_FOLDER/scores.tif."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", nargs="+", help="a raster, or one file per band")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)

    # Nothing is read yet: the scene is lazy, the plan is arithmetic.
    scene = us.open_scene(arguments.scene)
    print(us.plan(scene).summary())

    # Worker processes on this machine, one a core or one a GPU; each keeps one network.
    scores = us.score(scene, arguments.folder / "scores.zarr")
    cog = us.to_cog(arguments.folder / "scores.zarr", arguments.folder / "scores.tif")

    print(f"highest score {float(scores.max()):.3f}, map {cog}")


if __name__ == "__main__":
    main()
