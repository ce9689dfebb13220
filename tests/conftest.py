"""Shared fixtures: hypothesis profiles, the shared data, a small cluster."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
import rasterio
import torch
from distributed import Client
from hypothesis import HealthCheck, settings
from rasterio.transform import from_origin
from safetensors.torch import save_file
from waiting import LIMIT, end

from uniadrs_scale.detector.network import NetworkConfig, UniADRS
from uniadrs_scale.runtime.cluster import await_workers, local_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TESTS = Path(__file__).parent
SHARED = TESTS.parents[1] / "shared"

# Deterministic everywhere; deadlines measure the machine, not the code.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60,
                          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
settings.load_profile("ci")

# Without a GPU, Triton's kernels run in its interpreter; it must be told before it is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Worker processes import the stand-in scorers by name.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(TESTS), str(TESTS.parent / "benchmarks"), os.environ.get("PYTHONPATH", "")]
)


SECONDS_TO_END = 30
"""How long threads that a failed test left behind may keep this process from ending."""


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """See to it that this process ends, whatever failed tests have left behind."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    if hasattr(config, "workerinput"):
        return  # one of several processes, which the first one ends
    # Prints where all threads are, and exits, if the interpreter still waits for one by then.
    faulthandler.dump_traceback_later(SECONDS_TO_END, exit=True, file=sys.__stderr__)


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a process, as ``subprocess.Popen`` does; it ends with the test at the latest."""
    started: list[subprocess.Popen[bytes]] = []

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, **options))
        return started[-1]

    yield start
    end(started)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")


@pytest.fixture(scope="session", autouse=True)
def _busy_machine() -> Iterator[None]:
    """Give schedulers and workers more time than a user's run does."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("clients", "cluster"):
            patch.setattr(f"uniadrs_scale.runtime.{module}.WAIT_SECONDS", LIMIT)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden values and real imagery; in CI its absence is a failure."""
    if not SHARED.is_dir():
        message = f"needs the shared data beside the repository, at {SHARED.name}/"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return SHARED


@pytest.fixture(scope="session")
def cluster() -> Iterator[Client]:
    """Two worker processes with one thread each."""
    # Not the default client: it lives to the end, and other tests shall start their own.
    with (
        local_cluster(2, 1) as started,
        Client(started, set_as_default=False) as client,
    ):
        await_workers(client, 2)
        yield client


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch adds in one order only."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_raster(tmp_path: Path) -> Path:
    """A file of two bands, a tile or two large, on a grid of 20 m."""
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=2, height=260, width=300, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(4e5, 6e6, 20, 20),
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(0, 255, (2, 260, 300)).astype(np.uint8))
    return path


COG_PEAK = """
import distributed, matplotlib, scipy.interpolate, scipy.ndimage  # in small and large runs alike
import re, sys
from pathlib import Path
from uniadrs_scale.maps.cog import to_cog
to_cog(sys.argv[1], sys.argv[2])
# Not getrusage: a child starts with its parent's highest value.
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.fixture
def peak_of_cog(tmp_path: Path) -> Callable[[Path], float]:
    """The highest resident set [MiB] of a process that writes the COG of a store; Linux only."""

    def peak(store: Path) -> float:
        command = [sys.executable, "-c", COG_PEAK, str(store), str(tmp_path / "s.tif")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout) / 1024

    return peak


@pytest.fixture
def hear(monkeypatch: pytest.MonkeyPatch) -> Callable[[logging.Logger], list[str]]:
    """Warnings of a logger; not by caplog, since libraries that other tests use stop the root."""

    def listen(logger: logging.Logger) -> list[str]:
        heard: list[str] = []
        handler = logging.Handler()
        monkeypatch.setattr(handler, "emit", lambda record: heard.append(record.getMessage()))
        monkeypatch.setattr(logger, "handlers", [handler])
        monkeypatch.setattr(logger, "disabled", False)
        monkeypatch.setattr(logger, "level", logging.WARNING)
        monkeypatch.setattr(logger.manager, "disable", logging.NOTSET)
        logger._cache.clear()
        return heard

    return listen


@pytest.fixture(scope="module")
def maps_server() -> Iterator[str]:
    """URL of an S3 server of this module's own, with an empty bucket ``maps``."""
    from servers import maps_bucket  # noqa: PLC0415 - moto is slow to import, and few tests need it

    with maps_bucket() as url:
        yield url


@pytest.fixture
def bucket(maps_server: str, request: pytest.FixtureRequest) -> str:
    """A place in that bucket for one test."""
    del maps_server
    return f"s3://maps/{request.node.name[:40]}"


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow network with seeded random weights: quick, and as strict about its input."""
    torch.manual_seed(0)
    config = NetworkConfig(width=0.03, bands=12)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    metadata = {"name": "tiny", "width": "0.03", "bands": "12", "profile": "corrected"}
    save_file(UniADRS(config).state_dict(), path, metadata)
    return path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that a release would upload."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=TESTS.parent, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that holds what the wheel installs, and nothing else of ours."""
    site = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(site)
    return site
