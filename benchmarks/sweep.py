"""Speed of sweeps: many small scenes compared with a large one, and a sweep with nothing to do.

    python benchmarks/sweep.py throughput --scenes 40 --side 512 --milliseconds 30
    python benchmarks/sweep.py listing --items 10000
    python benchmarks/sweep.py listing --items 10000 --bucket s3://bucket/prefix

``throughput`` scores the same number of pixels as small scenes and as one scene, and prints the
ratio of tiles per second. A stand-in for the network takes ``--milliseconds`` per tile. It sleeps,
as if a GPU computed; with ``--busy`` it computes, as on a CPU. Pixels per second would differ even
without idle time, because small scenes have more tiles per pixel. ``listing`` makes an archive of
empty files and a STAC catalog, writes items as if all were done, and times a sweep of each.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

import uniadrs_scale as us
from uniadrs_scale.archive.decide import Action
from uniadrs_scale.runtime.compute import Compute
from uniadrs_scale.storage.buckets import CONNECTIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniadrs_scale.archive.decide import Decision


class Costly:
    """A stand-in for the network: returns the first band after a given time."""

    batch = 1

    def __init__(self, seconds: float, *, busy: bool) -> None:
        self.seconds, self.busy = seconds, busy

    @property
    def identity(self) -> str:
        """Name; scores do not depend on the time that they take."""
        return "costly"

    def activation_bytes(self, tile: int, bands: int) -> int:
        """Return 0: no memory beyond the input."""
        del tile, bands
        return 0

    def fitted(self, statistics: object) -> Costly:
        """Return the scorer itself, the same for every scene."""
        del statistics
        return self

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the first band (n, y, x) of (n, band, y, x)."""
        if self.busy:
            end = time.thread_time() + self.seconds
            while time.thread_time() < end:
                pass
        else:
            time.sleep(self.seconds)
        return tiles[:, 0]


def write_scene(path: Path, side: int, place: int) -> None:
    """Write a noise scene of two bands."""
    pixels = np.random.default_rng(place).integers(1, 3000, (2, side, side)).astype(np.uint16)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=side,
        width=side,
        count=2,
        dtype="uint16",
        crs="EPSG:32632",
        transform=from_origin(5e5 + 1e4 * place, 5e6, 10, 10),
        nodata=0,
        tiled=True,
        blockxsize=256,
        blockysize=256,
    ) as file:
        file.write(pixels)


def timed_sweep(folder: Path, detector: Costly) -> tuple[float, us.SweepReport]:
    """Return seconds and report of one sweep over ``folder/in``."""
    config = us.ArchiveConfig.model_validate(
        {
            "source": {"type": "folder", "path": folder / "in"},
            "output": {"folder": folder / "maps"},
        }
    )
    started = time.perf_counter()
    report = us.sweep(config, detector=detector)
    return time.perf_counter() - started, report


def throughput(arguments: argparse.Namespace, folder: Path) -> None:
    """Print Mpx/s of both, and their ratio."""
    scenes, side = arguments.scenes, arguments.side
    for name in ("small", "large", "warm"):
        (folder / name / "in").mkdir(parents=True)
    for number in range(scenes):
        write_scene(folder / "small" / "in" / f"scene{number:03}.tif", side, number)
    whole = round(side * scenes**0.5)
    write_scene(folder / "large" / "in" / "scene.tif", whole, 0)
    write_scene(folder / "warm" / "in" / "scene.tif", 512, 0)
    detector = Costly(arguments.milliseconds / 1000, busy=arguments.busy)
    speeds = {}
    failed = False
    # One cluster for both: starting it is not what is compared.
    with Compute.of(None, arguments.workers).connected():
        timed_sweep(folder / "warm", detector)
        for name in ("small", "large"):
            seconds, report = timed_sweep(folder / name, detector)
            failed = failed or not report.complete
            tiles = len(report.done) * tiles_in(next((folder / name / "in").iterdir()), detector)
            speeds[name] = tiles / seconds
            print(
                f"{name:<8}{len(report.done)} scenes, {report.pixels / 1e6:.2f} Mpx, {tiles} tiles "
                f"in {seconds:.1f} s: {report.pixels / 1e6 / seconds:.3f} Mpx/s, "
                f"{speeds[name]:.1f} tiles/s"
            )
    if failed:
        raise SystemExit("Scenes failed, so the figures are void. Read the report above.")
    print(f"ratio   {speeds['small'] / speeds['large']:.2f}")


def tiles_in(path: Path, detector: Costly) -> int:
    """Count the tiles of one scene."""
    return us.plan(us.open_scene(path), detector=detector, scheduler="sync").lattice.tiles


def pretend_done(config: us.ArchiveConfig, detector: Costly) -> None:
    """Put the items of a finished archive into its sink, with maps of one byte."""
    template = {"type": "Feature", "bbox": [10.0, 50.0, 11.0, 51.0]}
    sink = config.output.folder

    def put(decision: Decision) -> None:
        key = decision.fingerprint.key
        properties = {
            "uniadrs:key": key,
            "uniadrs:parts": decision.fingerprint.to_dict(),
            "uniadrs:highest_score": 0.5,
            "datetime": decision.item.when.isoformat(),
            "created": decision.item.when.isoformat(),
        }
        files = {f"{key}/{name}": b"." for name in ("quicklook.png", "run.json", "scores.tif")}
        assets = {name: {"href": f"./{name}"} for name in files}
        item = json.dumps(template | {"properties": properties, "assets": assets}).encode()
        for name, content in {**files, f"{decision.name}.json": item}.items():
            sink.child(decision.name, name).write(content)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(put, us.sweep(config, detector=detector, dry_run=True).decisions))


def listing(arguments: argparse.Namespace, folder: Path) -> None:
    """Print wall time and CPU time of this process for sweeps with nothing to do."""
    files, catalog = folder / "files", folder / "catalog"
    files.mkdir()
    catalog.mkdir()
    links = []
    for number in range(arguments.items):
        name = f"S2_{20200101 + number % 28:08}_{number:05}"
        (files / f"{name}.tif").touch()
        (catalog / f"{name}.json").write_text(json.dumps(stac_item(name, files)))
        links.append({"rel": "item", "href": f"./{name}.json"})
    root = {"type": "Catalog", "id": "all", "links": links}
    (catalog / "catalog.json").write_text(json.dumps(root))
    sources: dict[str, dict[str, Any]] = {
        "folder": {"type": "folder", "path": files},
        "stac": {"type": "stac", "href": str(catalog / "catalog.json")},
    }
    if arguments.bucket:
        sources = {"bucket": sources["folder"]}
    detector = Costly(0, busy=False)
    for name, source in sources.items():
        config = us.ArchiveConfig.model_validate(
            {"source": source, "output": {"folder": arguments.bucket or folder / f"maps-{name}"}}
        )
        pretend_done(config, detector)
        for visit in ("first", "second"):  # the first has no index of the items yet
            clock, cpu = time.perf_counter(), time.process_time()
            report = us.sweep(config, detector=detector)
            kept = sum(decision.action is Action.KEEP for decision in report.decisions)
            print(
                f"{name:<8}{visit:<8}{kept} of {arguments.items} kept: "
                f"{time.perf_counter() - clock:.2f} s, {time.process_time() - cpu:.2f} s of CPU"
            )


def stac_item(name: str, files: Path) -> dict[str, Any]:
    """Return an item of a size that is usual for providers."""
    href = os.path.relpath(files / f"{name}.tif", files.parent / "catalog")
    bands = [f"B{number:02}" for number in range(1, 13)]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": {"type": "Polygon", "coordinates": [[[10, 50], [11, 50], [11, 51], [10, 50]]]},
        "bbox": [10, 50, 11, 51],
        "properties": {"datetime": "2024-05-01T10:00:00Z", "eo:cloud_cover": 10},
        "links": [{"rel": "root", "href": "./catalog.json"}],
        "assets": {
            "all": {"href": href, "type": "image/tiff; application=geotiff", "roles": ["data"]},
            **{
                band: {"href": f"{band}.jp2", "type": "image/jp2", "eo:bands": [{"name": band}]}
                for band in bands
            },
        },
    }


def main() -> None:
    """Run the chosen measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(required=True)
    both = verbs.add_parser("throughput")
    both.add_argument("--scenes", type=int, default=40)
    both.add_argument("--side", type=int, default=512)
    both.add_argument("--milliseconds", type=float, default=30)
    both.add_argument("--busy", action="store_true")
    both.add_argument("--workers", type=int, default=2)
    both.set_defaults(measure=throughput)
    many = verbs.add_parser("listing")
    many.add_argument("--items", type=int, default=10_000)
    many.add_argument("--bucket", help="URL of an empty prefix; default: folders")
    many.set_defaults(measure=listing)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments.measure(arguments, Path(folder))


if __name__ == "__main__":
    main()
