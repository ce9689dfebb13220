"""Each pipeline runs as a script, from another folder, as a user would start it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import products
import pytest
import rasterio
import yaml

from uniadrs_scale.storage.locks import claimed
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from distributed import Client

PIPELINES = Path(__file__).parents[1] / "pipelines"


@pytest.fixture(autouse=True)
def _from_the_wheel(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts and their workers import the installed library, not the checkout."""
    paths = [str(installed), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def test_the_wheel_is_what_scripts_import(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import uniadrs_scale; print(uniadrs_scale.__file__)"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(installed))


def start(script: str, *arguments: object, folder: Path) -> str:
    command = [sys.executable, str(PIPELINES / script), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_swath(small_raster: Path, tmp_path: Path) -> None:
    out = start("swath.py", small_raster, "out", folder=tmp_path)
    assert "memory" in out
    with rasterio.open(tmp_path / "out" / "scores.tif") as file:
        assert file.shape == (260, 300)
        assert file.crs.to_epsg() == 32633
    assert start("swath.py", small_raster, "out", folder=tmp_path) == out


def test_swath_takes_a_product_and_its_options(tmp_path: Path) -> None:
    product = products.landsat(tmp_path)
    out = start(
        "swath.py", product, "out", "--bands", "red", "B5", "--mask", "cloud", folder=tmp_path
    )
    assert "60 rows x 60 columns (0.0 Mpx), 2 bands, uint16, 30 m" in out
    with rasterio.open(tmp_path / "out" / "scores.tif") as file:
        scores = file.read(1)
    assert np.isnan(scores[:, :4]).all()
    assert np.isnan(scores[10:20]).all()
    assert np.isfinite(scores[20:, 4:]).all()


def test_cluster(small_raster: Path, tmp_path: Path, cluster: Client) -> None:
    address = cluster.scheduler.address
    out = start("cluster.py", address, small_raster, "map.zarr", folder=tmp_path)
    assert out.splitlines() == ["2 workers", "map.zarr: 260 x 300 px"]


WRONG = {
    "no scene": (2, "swath.py", ("missing.tif", "out"), "does not exist"),
    "a file as folder": (2, "swath.py", ("SCENE", "SCENE"), "File exists"),
    "no archive": (2, "archive.py", ("missing.yaml",), "cannot be read"),
    "no address": (2, "cluster.py", ("missing", "SCENE", "map.zarr"), "missing port number"),
    "no output": (2, "cluster.py", ("tcp://ADDRESS", "SCENE", "map.txt"), "no known format"),
    "no SLURM": (2, "cluster.py", ("slurm", "SCENE", "map.zarr"), "sbatch is not found"),
    "busy": (75, "swath.py", ("SCENE", "taken"), "Another run writes to"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_ends_with_one_sentence(
    case: str, small_raster: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    code, script, given, message = WRONG[case]
    address = ""
    if "tcp://ADDRESS" in given:
        address = request.getfixturevalue("cluster").scheduler.address
    known = {"SCENE": str(small_raster), "tcp://ADDRESS": address}
    (tmp_path / "taken").mkdir()
    with claimed(Place(str(tmp_path / "taken" / "scores.zarr"))):
        done = subprocess.run(
            [sys.executable, str(PIPELINES / script), *(known.get(text, text) for text in given)],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {small_raster.name, "taken"}


def test_scripts_stay_short() -> None:
    for path in PIPELINES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 83


def test_archive(small_raster: Path, tiny_weights: Path, tmp_path: Path) -> None:
    config = {
        "source": {"type": "folder", "path": ".", "glob": "*.tif"},
        "output": {"folder": "maps"},
        "detector": {"weights": str(tiny_weights), "device": "cpu"},
        "plan": {"tile": 64},
        "scheduler": "sync",
    }
    (tmp_path / "archive.yaml").write_text(yaml.safe_dump(config))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = start("archive.py", "../archive.yaml", folder=elsewhere)
    assert "to do: scene (new)" in out
    assert "done     1 of 1" in out
    assert "scene: highest score 0." in out
    assert not list(elsewhere.iterdir())
