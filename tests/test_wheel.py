"""What a user installs: the library, its weights, and nothing else; it works from anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from uniadrs_scale.detector.weights import shipped_weights

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_the_library_and_the_weights(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    weights = {f"uniadrs_scale/model/weights/{name}.safetensors" for name in shipped_weights()}
    assert weights <= set(names)
    scripts = {f"uniadrs_scale/model/{name}" for name in ("train.py", "configs/uniadrs-s.toml")}
    assert scripts <= set(names)
    assert "uniadrs_scale/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"uniadrs_scale"}
    assert wheel.stat().st_size < 20e6


def test_the_installed_library_finds_its_weights_from_another_folder(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text("raise ImportError('a module of the user, not ours')")
    done = subprocess.run(
        [sys.executable, "-m", "uniadrs_scale.cli.main", "info", "uniadrs-s"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert str(installed) in done.stdout
    assert "sha256" in done.stdout
