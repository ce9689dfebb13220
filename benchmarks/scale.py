"""What a scene of 100,000 x 100,000 x 12 costs before a pixel is scored: graph, scheduler, store.

    python benchmarks/scale.py --side 100000 --bands 12 --chunk 2048 --workers 32

The graph is the real one, pickled as a run sends it, and carried out by a real scheduler in a
process of its own and workers that share processes, CREW in each, with tasks that do nothing.
Seconds are those of the processor, so that a busy machine does not count; printed as a table, and
as JSON with ``--json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import pickle
import tempfile
import time
from contextlib import AsyncExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import rasterio
from dask import config as dask_config
from dask._task_spec import Task, TaskRef
from dask.highlevelgraph import HighLevelGraph
from distributed import Client, Worker, wait
from distributed.deploy.subprocess import SubprocessScheduler
from memory import Deviation
from rasterio.transform import from_origin

import uniadrs_scale as us
from uniadrs_scale.core.pixels import Normalisation
from uniadrs_scale.maps.store import ScoreStore
from uniadrs_scale.runtime.graph import run_graph
from uniadrs_scale.scenes.sources import scene_source
from uniadrs_scale.storage.places import Place

IDLE = {
    "distributed.admin.tick.interval": "10s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.comm.timeouts.connect": "120s",
}
"""What workers do when they do nothing, 50 times a second: hundreds on two cores did nothing else.
Not of the scheduler, and heartbeats stay."""
CREW = 32
"""Workers that share a process."""

if TYPE_CHECKING:
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.runtime.executor import Graph, Key


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
        scene_source(scene), plan, ScoreStore(Place.of(folder / "map.zarr")),
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


def nothing_but_work(address: str, names: range) -> None:
    """Be workers with these names until the scheduler ends."""

    async def work() -> None:
        async with AsyncExitStack() as crew:
            workers = [
                await crew.enter_async_context(
                    Worker(address, nthreads=1, name=name, dashboard=False)
                )
                for name in names
            ]
            await workers[0].finished()

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask_config.set(IDLE):
        asyncio.run(work())


async def carried_out(graph: Graph, wanted: list[Key], workers: int) -> tuple[float, float]:
    """(processor seconds of the scheduler, seconds in all) for ``graph``, with empty tasks.

    The scheduler has a process of its own, whose clock is read.
    """
    empty = {
        key: Task(key, nothing, *(TaskRef(need) for need in sorted(task.dependencies, key=str)))
        for key, task in graph.items()
    }
    options = {"host": "127.0.0.1", "port": 0, "dashboard": False, "idle_timeout": "1 hour"}
    starting = get_context("spawn")
    async with (
        SubprocessScheduler(options) as scheduler,
        Client(scheduler.address, asynchronous=True) as client,
    ):
        for first in range(0, workers, CREW):
            names = range(first, min(first + CREW, workers))
            starting.Process(
                target=nothing_but_work, args=(scheduler.address, names), daemon=True
            ).start()
        await client.wait_for_workers(workers)
        clock = psutil.Process(scheduler.process.pid)
        layer = HighLevelGraph({"run": empty}, {"run": set()})
        begun, started = sum(clock.cpu_times()[:2]), time.monotonic()
        await wait(client.get(layer, wanted, sync=False))
        return sum(clock.cpu_times()[:2]) - begun, time.monotonic() - started


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
    logging.getLogger("distributed").setLevel(logging.ERROR)
    scheduler, whole = asyncio.run(carried_out(graph, wanted, options.workers))
    tasks = len(graph)
    figures = {
        "tiles": plan.lattice.tiles,
        "chunks": plan.chunks,
        "tasks": tasks,
        "plan and graph [s]": round(built, 3),
        "pickling [s]": round(pickled, 3),
        "pickled [MB]": round(sent / 1e6, 2),
        **volumes(plan),
        "workers": options.workers,
        "scheduler [ms a task]": round(1e3 * scheduler / tasks, 3),
        "scheduler, tasks a second": round(tasks / scheduler),
        "as run here, tasks a second": round(tasks / whole),
    }
    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        print("\n".join(f"{key:<32}{value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
