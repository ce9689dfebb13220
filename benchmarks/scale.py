"""The cost of a scene of 100,000 x 100,000 x 12 before the first score: graph, scheduler, store.

    python benchmarks/scale.py --side 100000 --bands 12 --chunk 2048 --workers 32

The graph is that of a real run, pickled as a run sends it. A real scheduler in its own process
executes it with empty tasks; CREW workers share a process. Seconds are CPU time, which does not
depend on other load. The output is a table, or JSON with ``--json``.
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
from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.maps.store import ScoreStore
from uniadrs_scale.runtime.batches import Scaled
from uniadrs_scale.runtime.compute import Compute
from uniadrs_scale.runtime.graph import Work, run_graph
from uniadrs_scale.scoring.job import prepare
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
"""Settings that stop the housekeeping of idle workers, 50 times per second, which would fill two
cores. The scheduler and heartbeats are unchanged."""
CREW = 32
"""Workers per process."""

if TYPE_CHECKING:
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.runtime.dask_internals import Graph, Key


def write_scene(path: Path, side: int, bands: int) -> None:
    """Write a scene without pixels: a plan needs its header only."""
    profile = {
        "driver": "GTiff",
        "height": side,
        "width": side,
        "count": bands,
        "dtype": "uint16",
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "sparse_ok": True,
        "bigtiff": "yes",
        "crs": "EPSG:32632",
        "transform": from_origin(500_000, 5_000_000, 10, 10),
        "nodata": 0,
    }
    with rasterio.open(path, "w", **profile):
        pass


def graph_of(folder: Path, bands: int, chunk: int) -> tuple[ScorePlan, Graph, list[Key]]:
    """Return plan, graph and wanted keys of a new run."""
    scene = us.open_scene(folder / "scene.tif")
    scorer = Deviation()
    job = prepare(scene, Sizes(chunk=chunk), scorer, Compute.of("sync"))
    scaling = Normalisation(offset=np.zeros(bands, np.float32), scale=np.ones(bands, np.float32))
    store = ScoreStore(Place.of(folder / "map.zarr"))
    scaled = Scaled(scorer, scaling)
    work = Work(source=job.source, plan=job.plan, store=store, scaled=scaled)
    graph, wanted = run_graph(work, set(job.plan.lattice.indices()))
    return job.plan, graph, wanted


def volumes(plan: ScorePlan) -> dict[str, Any]:
    """Return the objects of the store, and the bytes that a run reads, exchanges and writes."""
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
        # Per chunk a shard of scores and two entries of the ledger; the rest is metadata.
        "store objects": 3 * plan.chunks,
        "read [GB]": round(read / 1e9, 1),
        "read, times the scene": round(read / (pixels * value), 3),
        "strips [GB]": round(strips / 1e9, 1),
        "scores before compression [GB]": round(4 * pixels / 1e9, 1),
    }


def nothing(*_: object) -> None:
    """Do nothing, instead of a task's work."""


def nothing_but_work(address: str, names: range) -> None:
    """Run workers with these names until the scheduler ends."""

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
    """Carry ``graph`` out with empty tasks.

    Returns:
        Processor seconds of the scheduler, in its own process, and seconds of the whole.
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
        "scheduler [ms per task]": round(1e3 * scheduler / tasks, 3),
        "scheduler, tasks per second": round(tasks / scheduler),
        "as run here, tasks per second": round(tasks / whole),
    }
    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        print("\n".join(f"{key:<32}{value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
