"""What a scene of 100,000 x 100,000 x 12 costs before a pixel is scored: graph, scheduler, store.

    python benchmarks/scale.py --side 100000 --bands 12 --chunk 2048 --workers 32

The graph is the real one, pickled as a run sends it, and carried out by a real scheduler and
many workers, all in this process, with tasks that do nothing. Seconds are those of the
processor, so that a busy machine does not count; printed as a table, and as JSON with ``--json``.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from dask._task_spec import Task, TaskRef
from dask.highlevelgraph import HighLevelGraph
from distributed import Client, LocalCluster, wait
from memory import Deviation
from rasterio.transform import from_origin

import uniadrs_scale as us
from uniadrs_scale.graph.build import run_graph
from uniadrs_scale.io.scenes import scene_source
from uniadrs_scale.io.store import ScoreStore
from uniadrs_scale.stats import Normalisation

if TYPE_CHECKING:
    from uniadrs_scale.graph.execute import Graph, Key
    from uniadrs_scale.plan import ScorePlan


def write_scene(path: Path, side: int, bands: int) -> None:
    """A scene without a single block: its header says all that a plan needs."""
    profile = {
        "driver": "GTiff", "height": side, "width": side, "count": bands, "dtype": "uint16",
        "tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True, "bigtiff": "yes",
        "crs": "EPSG:32632", "transform": from_origin(500_000, 5_000_000, 10, 10), "nodata": 0,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile):
        pass


def graph_of(folder: Path, bands: int, chunk: int) -> tuple[ScorePlan, Graph, list[Key]]:
    """The plan and the graph of a new run."""
    scene = us.open_scene(folder / "scene.tif")
    scorer = Deviation()
    plan = us.plan(scene, detector=scorer, chunk=chunk, scheduler="sync")
    scaling = Normalisation(offset=np.zeros(bands, np.float32), scale=np.ones(bands, np.float32))
    graph, wanted = run_graph(
        scene_source(scene), plan, ScoreStore(folder / "map.zarr"),
        scaled=(scorer, scaling), todo=set(plan.lattice.indices()),
    )  # fmt: skip
    return plan, graph, wanted


def volumes(plan: ScorePlan) -> dict[str, Any]:
    """Objects of the store, and bytes that the run reads, sends between workers and writes."""
    lattice = plan.lattice
    value = plan.scene.itemsize * len(plan.scene.bands)
    read = strips = 0
    for index in lattice.indices():
        own, outer = lattice.chunk_window(index), lattice.read_window(index)
        pixels = outer.height * outer.width
        read += pixels * value
        strips += 8 * (pixels - own.height * own.width)
    pixels = lattice.height * lattice.width
    return {
        # A shard of scores and two entries of the ledger a chunk; the rest is metadata.
        "store objects": 3 * plan.chunks,
        "read [GB]": round(read / 1e9, 1),
        "read, times the scene": round(read / (pixels * value), 3),
        "strips [GB]": round(strips / 1e9, 1),
        "scores before compression [GB]": round(4 * pixels / 1e9, 1),
    }


def nothing(*_: object) -> None:
    """Stands for a task's work."""


def scheduler_seconds(graph: Graph, wanted: list[Key], workers: int) -> tuple[float, int]:
    """(CPU seconds of scheduler, workers and client, tasks that were done)."""
    empty = {
        key: Task(key, nothing, *(TaskRef(need) for need in sorted(task.dependencies, key=str)))
        for key, task in graph.items()
    }
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=False, dashboard_address=":0",
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        layer = HighLevelGraph({"run": empty}, {"run": set()})
        started = time.process_time()
        futures = client.get(layer, wanted, sync=False)
        wait(futures)
        return time.process_time() - started, len(empty)


def main() -> None:
    """Measure once and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=100_000)
    parser.add_argument("--bands", type=int, default=12)
    parser.add_argument("--chunk", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scene(folder / "scene.tif", options.side, options.bands)
        graph_of(folder, options.bands, options.side)  # imports, caches
        started = time.process_time()
        plan, graph, wanted = graph_of(folder, options.bands, options.chunk)
        built = time.process_time() - started
        started = time.process_time()
        sent = len(pickle.dumps(HighLevelGraph({"run": graph}, {"run": set()})))
        pickled = time.process_time() - started
    seconds, tasks = scheduler_seconds(graph, wanted, options.workers)
    figures = {
        "tiles": plan.lattice.tiles,
        "chunks": plan.chunks,
        "tasks": len(graph),
        "plan and graph [s]": round(built, 3),
        "pickling [s]": round(pickled, 3),
        "pickled [MB]": round(sent / 1e6, 2),
        **volumes(plan),
        "workers": options.workers,
        "scheduling [ms a task]": round(1e3 * seconds / tasks, 2),
        "tasks a second": round(tasks / seconds),
    }
    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        print("\n".join(f"{key:<32}{value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
