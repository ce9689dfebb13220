"""Containers: CPUs that may be used, users without a home, folders that cannot be written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from numba import config

from uniadrs_scale.core import compiled, machine
from uniadrs_scale.runtime.compute import Compute

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]


def test_cpus_are_counted_as_dask_counts_them() -> None:
    code = (
        "import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])\n"
        "from dask.system import cpu_count\n"
        "from uniadrs_scale.core.machine import usable_cores\n"
        "print(usable_cores(), cpu_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize(
    ("files", "own", "quota"),
    [
        ({"cpu.max": "200000 100000"}, "0::/", 2.0),
        ({"cpu.max": "max 100000"}, "0::/", None),
        ({"pod/cpu.max": "150000 100000"}, "0::/pod", 1.5),
        ({"pod/cpu.max": "150000 100000", "pod/a/cpu.max": "max 100000"}, "0::/pod/a", 1.5),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/", 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/", None),
        ({}, "0::/", None),
    ],
)
def test_a_pod_has_the_cpus_of_its_quota(
    files: dict[str, str], own: str, quota: float | None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(f"{text}\n")
    (tmp_path / "own").write_text(f"{own}\n")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    wanted = {None: 64, 2.0: 2, 1.5: 2, 0.5: 1}[quota]
    assert machine.usable_cores() == wanted
    assert Compute.of("threads").threads == wanted


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"job/memory.max": "1000000000", "job/step/memory.max": "max"}, 1_000_000_000),
        ({"job/memory.max": "3000000", "job/step/memory.high": "2000000"}, 2_000_000),
    ],
)
def test_a_batch_job_or_service_has_the_memory_of_its_groups(
    files: dict[str, str], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The groups of a host that has many: SLURM, systemd-run -p MemoryMax=1G."""
    (tmp_path / "job" / "step").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    (tmp_path / "own").write_text("0::/job/step\n")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUP", tmp_path / "own")
    assert machine.machine_memory() == most


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A process without a home, whose temporary files go to a folder of this test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(machine, "has_home", lambda: False)
    monkeypatch.setattr(compiled, "has_home", lambda: False)
    for cached in (machine.private_folder, compiled._own_cache):
        cached.cache_clear()
    yield tmp_path
    for cached in (machine.private_folder, compiled._own_cache):
        cached.cache_clear()


def test_a_process_without_a_home_gets_a_private_one(temporary: Path) -> None:
    machine.give_home()
    folder = Path(os.environ["HOME"])
    assert folder.parent == temporary
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_others_can_write_is_not_used(temporary: Path) -> None:
    (temporary / f"uniadrs-scale-{os.getuid()}").mkdir()
    (temporary / f"uniadrs-scale-{os.getuid()}").chmod(0o777)
    assert not machine.private_folder()
    machine.give_home()
    assert "HOME" not in os.environ


def square(value: float) -> float:
    return value * value


@pytest.mark.parametrize("writable", [True, False])
def test_functions_are_cached_where_the_process_may_write_or_not_at_all(
    temporary: Path, writable: bool, monkeypatch: pytest.MonkeyPatch,
    hear: Callable[[logging.Logger], list[str]],
) -> None:  # fmt: skip
    heard = hear(compiled.LOG)
    monkeypatch.setattr(os, "access", lambda *_: False)
    if not writable:
        monkeypatch.setattr(compiled, "private_folder", lambda: "")
        # numba finds no folder, as in a container with a read-only root.
        monkeypatch.setattr("numba.core.caching._CacheLocator.ensure_cache_path", _refuse)
    function = compiled.compiled()(square)
    assert function(3.0) == 9.0
    assert not config.CACHE_DIR
    assert bool(list(temporary.rglob("*.nbi"))) == writable
    assert len(heard) == (0 if writable else 1)


def _refuse(*_: object) -> None:
    raise PermissionError("read-only")


def test_the_files_for_containers_fit_together() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"scheduler", "worker", "demo"}
    images = {service["image"] for service in services.values()}
    assert len(images) == 1
    for service in services.values():
        assert service["read_only"] is True
        assert service["tmpfs"] == [services["scheduler"]["tmpfs"][0]]
    assert "tcp://scheduler:8786" in services["worker"]["command"]
    assert "tcp://scheduler:8786" in services["demo"]["command"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "download.pytorch.org/whl/cpu" in dockerfile
    assert "USER" in dockerfile
