"""Score a full swath on this machine: open, forecast, score, write a map for QGIS.

    python pipelines/swath.py SCENE OUT_FOLDER

SCENE is any input of `open_scene`: a raster, one file per band, a product folder (Sentinel-2,
Landsat, Sentinel-1, EnMAP), ENVI, EMIT, PRISMA, NetCDF, HDF5, Zarr, .mat or a STAC item. The same
command resumes an interrupted run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import uniadrs_scale as us


def main() -> None:
    """Write OUT_FOLDER/scores.zarr and OUT_FOLDER/scores.tif of a scene."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", nargs="+", help="a product, a raster, or one file per band")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bands", nargs="+", help="by name, or by number from 1")
    parser.add_argument("--grid", help="finest, coarsest or a band, for several resolutions")
    parser.add_argument("--variable", nargs="+", help="arrays of a NetCDF, HDF5, Zarr or .mat file")
    parser.add_argument("--mask", nargs="+", default=["none"], help="cloud, or classes to mask")
    parser.add_argument("--units", choices=["amplitude", "dB"], help="units of Sentinel-1")
    arguments = parser.parse_args()
    mask = arguments.mask[0] if len(arguments.mask) == 1 else arguments.mask

    # No pixel is read yet: the scene is lazy, and the plan is arithmetic.
    scene = us.open_scene(
        arguments.scene,
        bands=arguments.bands,
        grid=arguments.grid,
        variable=arguments.variable,
        mask=mask,
        units=arguments.units,
    )
    print(us.plan(scene).text())

    arguments.folder.mkdir(parents=True, exist_ok=True)
    # Short runs use threads of this process, long runs worker processes, one per core or per GPU.
    scores = us.score(scene, arguments.folder / "scores.zarr")
    cog = us.to_cog(arguments.folder / "scores.zarr", arguments.folder / "scores.tif")

    print(f"highest score {float(scores.max()):.3f}, map {cog}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:  # those of this library are such, too
        print(f"error: {error}", file=sys.stderr)
        sys.exit(75 if isinstance(error, us.BusyError) else 2)
