"""docs/cluster.md holds files to copy: what can run here runs, the rest is parsed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import dask
import yaml

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return found


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}


def test_the_file_for_a_laptop_runs(tmp_path: Path, small_raster: Path) -> None:
    (tmp_path / "laptop.py").write_text(block("python"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "laptop.py"], cwd=small_raster.parent, env=environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) <= 1


def test_the_documents_for_kubernetes_fit_together() -> None:
    cluster, job = yaml.safe_load_all(block("yaml"))
    assert (cluster["kind"], job["kind"]) == ("DaskCluster", "Job")
    name = cluster["metadata"]["name"]
    assert cluster["spec"]["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == name
    (driver,) = job["spec"]["template"]["spec"]["containers"]
    assert driver["command"][-1] == f"tcp://{name}-scheduler:8786"
    parts = (cluster["spec"]["worker"], cluster["spec"]["scheduler"])
    images = {part["spec"]["containers"][0]["image"] for part in parts}
    assert images == {driver["image"]}
    (worker,) = cluster["spec"]["worker"]["spec"]["containers"]
    assert all(isinstance(text, str) for text in worker["args"])


def test_the_job_for_slurm_is_a_shell_script() -> None:
    script = block("bash")
    assert script.startswith("#!/bin/bash\n#SBATCH ")
    subprocess.run(["/bin/bash", "-n"], input=script, text=True, check=True)
    assert "cluster.py slurm" in script


def test_the_jobs_of_slurm_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    spec = importlib.util.spec_from_file_location("cluster", ROOT / "pipelines" / "cluster.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    importlib.import_module("dask_jobqueue")  # reads its defaults, which replace ours if later
    # Another test may hold 8787, where a dashboard is by default.
    with dask.config.set({"jobqueue.slurm.scheduler-options": {"dashboard_address": ":0"}}):
        cluster = module.slurm(3)
    try:
        script = cluster.job_script()
    finally:
        cluster.close()
    for line in ("#SBATCH -p normal", "#SBATCH --mem=4G", "#SBATCH -t 02:00:00", "--lifetime 110m"):
        assert line in script
    assert re.search(r"--nthreads 1\b", script)


def test_every_option_that_the_page_names_exists() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uniadrs_scale.cli.main", "score", "--help"], capture_output=True,
        text=True, check=True, env=environment() | {"COLUMNS": "200"},
    )  # fmt: skip
    for option in ("--scheduler", "--tls-ca-file", "--tls-cert", "--tls-key", "--workers",
                   "--performance-report"):  # fmt: skip
        assert option in PAGE
        assert option in done.stdout
