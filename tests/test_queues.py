"""Clusters whose workers wait in a queue: SLURM, with stand-ins for its commands."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
from dask_jobqueue import SLURMCluster
from distributed import Client, LocalCluster
from standins import TileMean
from waiting import LIMIT

import uniadrs_scale as us
from uniadrs_scale.runtime import clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SBATCH = """#!/bin/sh
cp "$1" "$QUEUE/job$$"
(sleep $QUEUE_SECONDS; exec sh "$QUEUE/job$$") >"$QUEUE/$$.log" 2>&1 &
echo $! >> "$QUEUE/submitted"
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
echo "$@" >> "$QUEUE/cancelled"
pkill -P "$1"
kill "$1"
"""
SCRIPT = Path(__file__).parents[1] / "pipelines" / "cluster.py"


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which the stand-ins note what was submitted and cancelled."""
    folder = tmp_path / "queue"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("QUEUE", str(folder))
    yield folder
    for number in lines(folder / "submitted"):
        subprocess.run([folder / "scancel", number], check=False, capture_output=True)


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize("seconds", [2, pytest.param(90, marks=pytest.mark.slow)])
def test_the_script_waits_for_a_queue(
    seconds: int, queue: Path, small_raster: Path, spawn: Callable[..., subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("QUEUE_SECONDS", str(seconds))
    command = [sys.executable, SCRIPT, "slurm", small_raster, small_raster.parent / "map.zarr"]
    process = spawn(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out, _ = process.communicate(timeout=LIMIT + seconds)
    assert process.returncode == 0, out.decode()
    assert "260 x 300 px" in out.decode()
    assert len(lines(queue / "submitted")) >= 1
    # No job is cancelled while it waits: those that are, at the end, have run.
    first = lines(queue / "submitted")[0]
    assert "--name" in next(p.read_text() for p in queue.glob("job*"))
    assert lines(queue / "cancelled")[:1] in ([], [first])


@pytest.fixture
def scene() -> xr.DataArray:
    return xr.DataArray(np.random.default_rng(0).random((64, 64), np.float32), dims=("y", "x"))


def test_a_cluster_that_scales_by_itself_may_have_no_worker_for_long(
    queue: Path, scene: xr.DataArray, monkeypatch: pytest.MonkeyPatch,
    hear: Callable[..., list[str]],
) -> None:  # fmt: skip
    monkeypatch.setenv("QUEUE_SECONDS", "6")
    monkeypatch.setattr(clients, "WAIT_SECONDS", 1)
    heard = hear(clients.LOG)
    with (
        SLURMCluster(
            cores=1,
            memory="1GB",
            walltime="00:10:00",
            log_directory=queue,
            scheduler_options={"dashboard_address": ":0"},  # another test may hold 8787
        ) as cluster,
        Client(cluster),
    ):
        cluster.adapt(minimum=0, maximum=1)
        scores = us.score(scene, tile=32, chunk=32, detector=TileMean())
    wanted = us.score(scene, tile=32, chunk=32, detector=TileMean(), scheduler="sync")
    np.testing.assert_array_equal(scores, wanted)
    assert "the cluster has no worker: waiting for up to 86400 s" in heard


@pytest.mark.parametrize("wait", [None, 3.0])
def test_any_other_cluster_has_a_minute_or_the_given_time(
    scene: xr.DataArray, wait: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "WAIT_SECONDS", 1)
    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster, Client(cluster):
        timer = threading.Timer(2, cluster.scale, (1,))
        timer.start()
        try:
            if wait is None:
                message = r"no worker for 1 s.*wait longer \(wait_for_workers=, --wait-for-workers"
                with pytest.raises(us.ClusterError, match=message):
                    us.score(scene, tile=32, detector=TileMean(), wait_for_workers=wait)
            else:
                monkeypatch.setattr(clients, "WAIT_SECONDS", 1)
                us.score(scene, tile=32, detector=TileMean(), wait_for_workers=LIMIT)
        finally:
            timer.join()


@pytest.mark.parametrize("wait", [0, -1, float("nan"), float("inf")])
def test_absurd_times_are_refused(scene: xr.DataArray, wait: float) -> None:
    with pytest.raises(us.PlanError, match=r"wait_for_workers=.*above 0"):
        us.score(scene, wait_for_workers=wait, scheduler="sync")
