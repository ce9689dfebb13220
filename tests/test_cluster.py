"""Any Dask cluster: who is fit to work, who comes late, who dies, and how one is reached."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
from distributed import Client, Future, LocalCluster, Scheduler, Security
from distributed.deploy.spec import SpecCluster
from distributed.deploy.subprocess import SubprocessWorker
from rasterio.transform import from_origin
from safetensors import safe_open
from safetensors.numpy import save_file
from standins import DiesOnce, Slow, TileMean, Waiting
from waiting import LIMIT, beside, end, wait_until

import uniadrs_scale as us
from uniadrs_scale.cli import main as cli
from uniadrs_scale.detector.coarse import Coarse
from uniadrs_scale.runtime.cluster import Proof, TlsFiles, await_workers, local_cluster, workers_of
from uniadrs_scale.runtime.compute import Compute
from uniadrs_scale.runtime.executor import ClusterExecutor
from uniadrs_scale.runtime.worker import Shared, difference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPTIONS = {"preset": "single-band", "tile": 64, "stride": 48, "chunk": 100}
SIZE = 310


def scene() -> xr.DataArray:
    pixels = np.random.default_rng(5).integers(0, 999, (2, SIZE, SIZE)).astype(np.int16)
    return xr.DataArray(pixels, dims=("band", "y", "x"))


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    return us.score(scene(), detector=TileMean(), scheduler="sync", **OPTIONS).values


def report(store: Path) -> dict:
    return json.loads(store.with_name(f"{store.name}.run.json").read_text(encoding="utf-8"))


def commits(client: Client) -> set[str]:
    """Names of the tasks that finish a chunk, of those that a client has futures of."""
    return {key for key in list(client.futures) if str(key).startswith("('commit")}


@contextmanager
def odd_worker(address: str, folder: Path) -> Iterator[None]:
    """A worker whose numpy says that it is another version."""
    metadata = folder / "odd" / "numpy-0.0.1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n")
    path = os.pathsep.join([str(folder / "odd"), os.environ["PYTHONPATH"]])
    command = [sys.executable, "-m", "dask", "worker", address, "--no-nanny", "--nthreads", "1",
               "--name", "odd", "--no-dashboard", "--death-timeout", "60"]  # fmt: skip
    worker = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": path}, cwd=folder, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        worker.kill()
        worker.wait()


def test_a_worker_with_other_versions_is_named_before_anything_runs(tmp_path: Path) -> None:
    with Compute(workers=1, threads=1).connected() as own:
        client = own.client
        assert client is not None
        with odd_worker(client.scheduler.address, tmp_path):
            client.wait_for_workers(2, timeout=LIMIT)
            match = rf"Worker tcp://\S+ has numpy 0.0.1, not {version('numpy')}\. Every worker"
            with pytest.raises(us.ClusterError, match=match):
                us.score(scene(), tmp_path / "map.zarr", detector=TileMean(), **OPTIONS)


def test_workers_of_ours_seldom_look_at_themselves() -> None:
    with Compute(workers=1, threads=1).connected() as own:
        assert own.client is not None
        (found,) = own.client.run(dask.config.get, "distributed.worker.profile.interval").values()
    assert found == "100ms"
    assert dask.config.get("distributed.worker.profile.interval") == "10ms", "for nobody else"


def test_a_late_worker_that_does_not_fit_is_sent_away_and_costs_nothing(
    tmp_path: Path, whole: np.ndarray
) -> None:
    go = tmp_path / "go"

    def sent_away(client: Client) -> bool:
        events = client.get_events("all")
        return any(event.get("action") == "remove-worker" for _, event in events)

    with Compute(workers=1, threads=1).connected() as own:
        client = own.client
        assert client is not None

        def join() -> None:
            with odd_worker(client.scheduler.address, tmp_path):
                try:
                    wait_until(lambda: sent_away(client))
                finally:
                    go.touch()
                done.wait(LIMIT)

        done, store = threading.Event(), tmp_path / "map.zarr"
        with beside(join):
            got = us.score(scene(), store, detector=Waiting(go), **OPTIONS).values
            done.set()
    np.testing.assert_array_equal(got, whole)
    (line,) = report(store)["cluster"]["dismissed"]
    assert "has numpy 0.0.1" in line


def test_an_adaptive_cluster_that_begins_empty(tmp_path: Path, whole: np.ndarray) -> None:
    # Without a nanny, which gives a busy machine a minute to start a process and then gives up.
    worker = {
        "cls": SubprocessWorker,
        "options": {"worker_kwargs": {"host": "127.0.0.1", "nthreads": 1, "dashboard": False}},
    }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": ":0"}}
    with SpecCluster(worker=worker, scheduler=scheduler) as cluster, Client(cluster) as client:
        assert not client.scheduler_info()["workers"]
        cluster.adapt(minimum=0, maximum=1, interval="200ms")
        got = us.score(scene(), tmp_path / "map.zarr", detector=TileMean(), **OPTIONS).values
    np.testing.assert_array_equal(got, whole)


def test_a_worker_that_dies_is_counted_and_its_successor_works(
    tmp_path: Path, whole: np.ndarray
) -> None:
    store = tmp_path / "map.zarr"
    got = us.score(
        scene(), store, detector=DiesOnce(tmp_path / "died"), workers=1, **OPTIONS
    ).values
    np.testing.assert_array_equal(got, whole)
    facts = report(store)["cluster"]
    assert facts["worker_deaths"] == 1
    assert facts["retries"] >= 1


def nanny_status(dask_worker: Any) -> str:
    return str(dask_worker.status.name)


def test_a_worker_that_is_away_for_long_is_still_restarted() -> None:
    # Dask kills the nanny of a worker that is absent after this time, by default 15 s.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "0s"}),
        local_cluster(1, 1) as started,
        Client(started, set_as_default=False) as client,
    ):
        await_workers(client, 1)
        # A worker answers before its nanny has done with starting it, and gives up if it dies then.
        wait_until(lambda: set(client.run(nanny_status, nanny=True).values()) == {"running"})
        ((first, pid),) = client.run(os.getpid).items()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: workers_of(client).keys() - {first} or not started.workers)
        assert started.workers, "the nanny was killed"


@contextmanager
def scheduler_and_worker(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A scheduler in a process of its own, and its address; a worker beside it."""
    file = folder / "scheduler.json"
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    commands = (
        ["scheduler", "--host", "127.0.0.1", "--port", "0", *common],
        ["worker", "--no-nanny", "--nthreads", "1", "--death-timeout", "60", *common],
    )
    crew = []
    try:
        for command in commands:
            full = [sys.executable, "-m", "dask", *command]
            crew.append(subprocess.Popen(full, cwd=folder, stderr=subprocess.DEVNULL))
            wait_until(lambda: file.exists() and file.read_text().endswith("}"), process=crew[0])
        yield crew[0], json.loads(file.read_text())["address"]
    finally:
        end(crew)


def test_a_scheduler_that_is_killed_is_a_sentence_and_another_one_resumes(
    tmp_path: Path, whole: np.ndarray, cluster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, scorer = tmp_path / "map.zarr", Slow(0.05)
    clients, submit = [], ClusterExecutor._submit

    def remembering(own: ClusterExecutor, *args: object) -> object:
        clients.append(own.client)
        return submit(own, *args)

    monkeypatch.setattr(ClusterExecutor, "_submit", remembering)
    with scheduler_and_worker(tmp_path) as (scheduler, address):

        def kill() -> None:
            wait_until(lambda: list(store.glob("done/c/*/*")))
            clients[-1]._timeout = 3  # now, and not before: it is how long any answer may take
            scheduler.kill()

        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=LIMIT)
        with (
            beside(kill),
            pytest.raises(us.ClusterError, match=r"Lost the scheduler at tcp://\S+.*rerun"),
        ):
            us.score(scene(), store, detector=scorer, scheduler=address, **OPTIONS)
    assert "Lost the scheduler" in report(store)["error"]
    again = {"scheduler": cluster.scheduler.address, **OPTIONS}
    np.testing.assert_array_equal(us.score(scene(), store, detector=scorer, **again), whole)
    assert report(store)["chunks"]["complete_before"] >= 1


def test_a_scheduler_that_comes_back_costs_what_was_at_work(
    tmp_path: Path, whole: np.ndarray, cluster: Client
) -> None:
    """The client loses its connection, as behind a link that was cut, and finds it again."""
    scorer = Waiting(tmp_path / "go")

    def cut() -> None:
        try:
            wait_until(scorer.waits.exists)
            connection = cluster.scheduler_comm
            connection.comm.abort()
            wait_until(lambda: cluster.scheduler_comm is not connection)
        finally:
            scorer.file.touch()

    with beside(cut), cluster.as_current():
        got = us.score(scene(), tmp_path / "map.zarr", detector=scorer, **OPTIONS).values
    np.testing.assert_array_equal(got, whole)


def test_tasks_that_somebody_cancels_are_lost_and_never_taken_for_done(
    tmp_path: Path, cluster: Client
) -> None:
    store, scorer = tmp_path / "map.zarr", Waiting(tmp_path / "go")
    before = commits(cluster)  # of earlier runs, which nobody has collected yet

    def cancel() -> None:
        try:
            wait_until(lambda: scorer.waits.exists() and commits(cluster) - before)
            keys = sorted(commits(cluster) - before)[:2]
            cluster.cancel([Future(key, cluster) for key in keys], force=True)
        finally:
            scorer.file.touch()

    with (
        beside(cancel),
        cluster.as_current(),
        pytest.warns(us.IncompleteWarning, match="was cancelled from outside"),
    ):
        us.score(scene(), store, detector=scorer, **OPTIONS)
    assert len(report(store)["chunks"]["lost"]) >= 1


def test_what_is_left_of_a_run_is_never_taken_for_the_next_one(
    tmp_path: Path, whole: np.ndarray, cluster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Futures outlive their run in cycles and tracebacks, and Dask keeps what they stand for."""
    left = []
    submit = ClusterExecutor._submit
    monkeypatch.setattr(
        ClusterExecutor, "_submit", lambda *args: left.append(submit(*args)) or left[-1]
    )
    with cluster.as_current():
        for name in ("one.zarr", "two.zarr"):
            got = us.score(scene(), tmp_path / name, detector=TileMean(), **OPTIONS).values
            np.testing.assert_array_equal(got, whole)


def test_weights_that_a_worker_does_not_have_are_named(
    tmp_path: Path, tiny_weights: Path, cluster: Client
) -> None:
    moved = tmp_path / "tiny.safetensors"
    moved.write_bytes(tiny_weights.read_bytes())
    detector = us.Detector.load(moved, device="cpu")
    moved.unlink()
    with (
        cluster.as_current(),
        pytest.raises(us.ClusterError, match=r"Worker tcp.*tiny.safetensors' does not exist"),
    ):
        us.score(scene(), tmp_path / "map.zarr", detector=detector, tile=64)


def test_a_network_that_cannot_score_noise_is_named_before_anything_is_scored(
    tmp_path: Path, tiny_weights: Path, cluster: Client
) -> None:
    with safe_open(tiny_weights, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    damaged = {name: np.full_like(tensor, np.nan) for name, tensor in tensors.items()}
    save_file(damaged, tmp_path / "tiny.safetensors", metadata)
    detector = us.Detector.load(tmp_path / "tiny.safetensors", device="cpu")
    with (
        cluster.as_current(),
        pytest.raises(us.ClusterError, match=r"Worker tcp\S+ cannot open.*noise.*not finite"),
    ):
        us.score(scene(), tmp_path / "map.zarr", detector=detector, tile=64)


def test_a_worker_warms_its_detector_up_once(tiny_weights: Path) -> None:
    detector = us.Detector.load(tiny_weights, device="cpu")
    calls = []
    network = detector._network
    detector._network = lambda tiles: calls.append(tiles.shape) or network(tiles)
    try:
        for _ in range(2):
            travelled = pickle.loads(pickle.dumps(Shared(Proof(Coarse(detector, (2,)), 64, 3))))
            assert travelled.open().scorer.scorer is detector  # the process's own
    finally:
        detector._network = network
    assert calls == [(1, 3, 32, 32)]


def test_versions_are_compared_where_they_matter() -> None:
    ours = {"python": "3.11.7.final.0", "torch": "2.9.0+cpu", "numpy": "2.4.6", "zarr": None}
    same = {"python": "3.11.2", "torch": "2.9.0+cu126", "numpy": "2.4.6", "zarr": "3.1.0"}
    assert not difference(ours, same)
    other = {"python": "3.12.1", "torch": None, "numpy": "2.4.5"}
    assert difference(ours, other) == (
        "has python 3.12.1, not 3.11.7.final.0, has no torch (2.9.0+cpu), has numpy 2.4.5, "
        "not 2.4.6"
    )


def test_memory_of_a_cluster_that_runs_is_asked_for(tmp_path: Path) -> None:
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, memory_limit="500 MiB",
            dashboard_address=":0",
        ) as cluster,
        Client(cluster),
        pytest.raises(us.PlanError, match=r"may use 400 MiB \(80% of the 0.5 GiB of inproc"),
    ):  # fmt: skip
        us.score(scene(), tmp_path / "map.zarr", detector=TileMean(), **OPTIONS)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [shutil.which("openssl") or "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes",
         "-days", "2", "-subj", "/CN=127.0.0.1", "-out", certificate, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture
def encrypted(certificate: tuple[Path, Path]) -> Iterator[str]:
    """Address of a cluster that speaks TLS only."""
    files = {f"tls_{who}_{what}": str(file) for who in ("client", "scheduler", "worker")
             for what, file in zip(("cert", "key"), certificate, strict=True)}  # fmt: skip
    security = Security(require_encryption=True, tls_ca_file=str(certificate[0]), **files)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, security=security, protocol="tls://",
        host="127.0.0.1", dashboard_address=":0",
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address


def test_the_command_line_scores_over_tls(
    tmp_path: Path, encrypted: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", count=2, height=SIZE, width=SIZE,
        dtype="int16", crs="EPSG:32633", transform=from_origin(4e5, 6e6, 20, 20),
    ) as file:  # fmt: skip
        file.write(scene().values)
    command = ["uniadrs-scale", "score", tmp_path / "scene.tif", "-o", tmp_path / "map.zarr",
               "--detector", "rx", "--tile", 64, "--chunk", 100, "--scheduler", encrypted,
               "--tls-ca-file", certificate[0], "--tls-cert", certificate[0],
               "--tls-key", certificate[1]]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(part) for part in command])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert report(tmp_path / "map.zarr")["cluster"]["scheduler"] == encrypted


def test_tls_files_are_checked(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    files = TlsFiles(*certificate[:1], *certificate)
    for scheduler, tls, match in (
        (
            "tcp://127.0.0.1:1",
            files,
            r"require a tls:// scheduler address, got scheduler='tcp://127.0.0.1:1'",
        ),
        (None, files, r"require a tls:// scheduler address, got scheduler=None. Pass .* or drop"),
        ("tls://127.0.0.1:1", TlsFiles(tmp_path / "none.pem"), r"none.pem' does not exist"),
    ):
        with pytest.raises(us.PlanError, match=match):
            Compute.of(scheduler, tls=tls)


def test_a_performance_report_is_a_page(tmp_path: Path, cluster: Client) -> None:
    pytest.importorskip("bokeh")
    page = tmp_path / "page.html"
    with cluster.as_current():
        us.score(
            scene(), tmp_path / "map.zarr", detector=TileMean(), performance_report=page, **OPTIONS
        )
    text = page.read_text(encoding="utf-8")
    assert "Dask Performance Report" in text
    assert text.lstrip().startswith("<!DOCTYPE html>")
