"""Score one scene on any Dask cluster. WHERE is local, slurm, kubernetes, or an address.

    python pipelines/cluster.py local                SCENE.tif OUT.zarr
    python pipelines/cluster.py tcp://HOST:8786      SCENE.tif OUT.zarr
    python pipelines/cluster.py slurm --workers 40   SCENE.tif OUT.zarr
    python pipelines/cluster.py kubernetes           SCENE.tif OUT.zarr

Workers need this library, not this script, and see the same paths. Recipes: docs/cluster.md.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import AbstractContextManager, ExitStack

from distributed import Client, LocalCluster

import uniadrs_scale as us


def local(workers: int) -> AbstractContextManager[object]:
    """Start workers on this machine."""
    return LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")


def slurm(workers: int) -> AbstractContextManager[object]:
    """Start workers as jobs of one core and 4 GB each, as many as there is work for."""
    from dask_jobqueue import SLURMCluster  # noqa: PLC0415 - pip install dask-jobqueue

    if shutil.which("sbatch") is None:  # Dask would try to submit jobs for a day
        raise OSError("sbatch is not found. Run this script on a machine of the SLURM cluster.")
    cluster = SLURMCluster(
        queue="normal",
        cores=1,
        processes=1,
        memory="4GB",
        walltime="02:00:00",
        # A worker ends before its job is killed, and sends its results to other workers.
        worker_extra_args=["--lifetime", "110m", "--lifetime-stagger", "5m"],
    )
    # Jobs are submitted only while there are tasks: score() sends tasks, then waits for workers.
    cluster.adapt(minimum=0, maximum=workers)
    return cluster


def kubernetes(workers: int) -> AbstractContextManager[object]:
    """Start workers as pods of the cluster that docs/cluster.md describes."""
    from dask_kubernetes.operator import KubeCluster  # noqa: PLC0415 - pip install dask-kubernetes

    cluster = KubeCluster.from_name("uniadrs")
    cluster.scale(workers)
    return cluster


def main() -> None:
    """Score on the cluster; the workers write the map, and only reports are sent back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("where")
    parser.add_argument("scene", nargs="+")
    parser.add_argument("store")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--wait", type=float, help="seconds to wait for workers; slurm: a day")
    arguments = parser.parse_args()

    with ExitStack() as stack:
        start = {"local": local, "slurm": slurm, "kubernetes": kubernetes}.get(arguments.where)
        where = stack.enter_context(start(arguments.workers)) if start else arguments.where
        # score() uses the active client; without one it starts workers on this machine.
        client = stack.enter_context(Client(where))
        print(f"{len(client.scheduler_info(n_workers=-1)['workers'])} workers")
        scene = us.open_scene(arguments.scene)
        scores = us.score(scene, arguments.store, wait_for_workers=arguments.wait)
    print(f"{arguments.store}: {scores.sizes['y']} x {scores.sizes['x']} px")


if __name__ == "__main__":
    try:
        main()
    except (ImportError, OSError, ValueError) as error:  # those of this library are such, too
        print(f"error: {error}", file=sys.stderr)
        sys.exit(75 if isinstance(error, us.BusyError) else 2)
