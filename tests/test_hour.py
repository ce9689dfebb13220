"""The tutorial tells the truth: its commands run in their order, and its options exist."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import shapely
from documents import run_command, steps
from rasterio.warp import transform_bounds

from uniadrs_scale.demo.scene import demo_scene, write_scene

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = [command for command, _ in steps("hour.md")]


def test_its_commands_run_in_their_order(tmp_path: Path, monkeypatch, capsys) -> None:
    write_scene(demo_scene(7, 2048, 40), tmp_path / "demo" / "scene.tif")
    with rasterio.open(tmp_path / "demo" / "scene.tif") as scene:
        west, south, east, north = transform_bounds(scene.crs, 4326, *scene.bounds)
    middle = (west + east) / 2, (south + north) / 2
    ring = shapely.geometry.mapping(shapely.Point(middle).buffer((north - south) / 16))
    feature = {"type": "Feature", "properties": {}, "geometry": ring}
    (tmp_path / "area.geojson").write_text(json.dumps(feature))
    monkeypatch.chdir(tmp_path)
    assert shlex.split(COMMANDS[0]) == ["uniadrs-scale", "demo"]  # test_demo.py runs it
    for command in COMMANDS[1:]:
        run_command(command, monkeypatch, capsys)
    made = {path.name for path in tmp_path.iterdir()}
    assert {"part.tif", "map.tif", "map.png", "targets.geojson", "report.html"} <= made
    with rasterio.open("part.tif") as part, rasterio.open("map.tif") as whole:
        assert part.shape < whole.shape
        assert np.isfinite(part.read(1)).any()
    with rasterio.open("demo/scene.tif") as scene:  # the box of step 3 is where the scene has data
        (box,) = (word for word in COMMANDS[3].split() if word.count(",") == 4)
        window = scene.window(*map(float, box.split(",")[:4]))
        assert (scene.read(window=window) > 0).all()
