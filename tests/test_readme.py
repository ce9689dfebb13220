"""The README tells the truth: its code runs as it stands and prints what it says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import products
import pytest
from typer.main import get_command

from uniadrs_scale.cli.main import app
from uniadrs_scale.demo.scene import demo_scene, write_scene
from uniadrs_scale.detector.detector import is_gpu_build

NUMBER = re.compile(r"\d+(?:\.\d+)?")
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_code_prints_what_the_readme_says(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (expected,) = re.findall(r"It prints:\n\n```text\n(.*?)```", README, re.DOTALL)
    write_scene(demo_scene(7, 2048, 40), tmp_path / "demo" / "scene.tif")
    (tmp_path / "script.py").write_text(code)  # without a __main__ guard, as users write it
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if is_gpu_build():  # the README's is one for CPUs, whose workers need less
        expected, done.stdout = (
            re.sub(r"\d+ MiB", "... MiB", text) for text in (expected, done.stdout)
        )
    assert NUMBER.sub("#", done.stdout) == NUMBER.sub("#", expected)
    # The last digits of scores, and so what exceeds a threshold, depend on the kind of CPU.
    numbers, wanted = ([float(n) for n in NUMBER.findall(t)] for t in (done.stdout, expected))
    assert numbers == pytest.approx(wanted, rel=0.01)
    assert (tmp_path / "scores.tif").exists()


def test_it_is_short_and_its_files_exist() -> None:
    assert len(README.splitlines()) <= 150
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_its_options_exist() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uniadrs_scale.cli.main", "score", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    commands = "\n".join(
        line
        for line in README.splitlines()
        if not re.search(r"python (model|benchmarks)/|uniadrs-scale (sweep|report)", line)
    )
    for option in set(re.findall(r"(?<![\w-])--[a-z]+", commands)):
        assert option in done.stdout, option


COMMANDS = re.findall(r"^    (uniadrs-scale .+?)(?: +#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_understood(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    known = get_command(app).commands
    known[name].make_context(name, arguments)  # raises on an option or argument too many


ELSEWHERE = "https://host"
"""In a command that needs a server and a bucket; tests of remote scenes and stores have those."""


@pytest.fixture
def folder(small_raster: Path) -> Path:
    """A folder with the files that the README's commands name, and the folder to watch."""
    here = small_raster.parent
    products.sentinel2(here, side=180).rename(here / "S2B_MSIL2A_20260701.SAFE")
    products.envi(here, n=180, name="cube")
    (here / "incoming").mkdir()
    shutil.copy2(small_raster, here / "incoming")
    return here


@pytest.mark.slow
def test_its_commands_run_in_their_order_from_a_folder(folder: Path) -> None:
    """All paths are relative, as users give them."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    mine = [line for line in COMMANDS if ELSEWHERE not in line]
    verbs = ["plan", "score", "score", "score", "targets", "cog", "report", "verify"]
    verbs += ["sweep", "sweep", "status"]
    assert [shlex.split(line)[1] for line in mine] == verbs
    for line in mine:
        done = subprocess.run(  # noqa: S602 - as a user's shell reads it
            line, shell=True, check=False, capture_output=True, text=True,
            cwd=folder, env=os.environ | {"PATH": path},
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    made = {file.name for file in folder.iterdir()}
    assert {"map.tif", "map.zarr", "rx.tif"} <= made
    assert (folder / "maps" / "collection.json").exists()
