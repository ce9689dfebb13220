"""The tutorial tells the truth: its commands run in their order, and its options exist."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import rasterio
import shapely
from rasterio.warp import transform_bounds

from uniadrs_scale.cli import main as cli
from uniadrs_scale.demo.scene import demo_scene, write_scene

DOCS = Path(__file__).parents[1] / "docs"
HOUR = (DOCS / "hour.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (uniadrs-scale .+)$", HOUR, re.MULTILINE)


def test_its_commands_run_in_their_order(tmp_path: Path, monkeypatch, capsys) -> None:
    write_scene(demo_scene(7, 256, 6), tmp_path / "demo" / "scene.tif")
    with rasterio.open(tmp_path / "demo" / "scene.tif") as scene:
        west, south, east, north = transform_bounds(scene.crs, 4326, *scene.bounds)
    middle = (west + east) / 2, (south + north) / 2
    ring = shapely.geometry.mapping(shapely.Point(middle).buffer((north - south) / 4))
    feature = {"type": "Feature", "properties": {}, "geometry": ring}
    (tmp_path / "area.geojson").write_text(json.dumps(feature))
    monkeypatch.chdir(tmp_path)
    assert shlex.split(COMMANDS[0]) == ["uniadrs-scale", "demo"]  # test_demo.py runs it
    for command in COMMANDS[1:]:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        told = capsys.readouterr()
        assert not stop.value.code, f"{command}\n{told.out}{told.err}"
    made = {path.name for path in tmp_path.iterdir()}
    assert {"part.tif", "map.tif", "map.png", "targets.geojson", "report.html"} <= made
    with rasterio.open("part.tif") as part, rasterio.open("map.tif") as whole:
        assert part.shape < whole.shape


def test_links_of_the_new_pages_exist() -> None:
    for name in ("hour.md", "glossary.md", "how_it_works.md"):
        text = (DOCS / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (DOCS / target).exists(), target
