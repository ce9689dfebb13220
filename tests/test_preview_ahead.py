"""The picture of a scene is begun while the scene is scored, and given up with it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from standins import TileMean

import uniadrs_scale as us
from uniadrs_scale.scenes.preview import scene_picture
from uniadrs_scale.scenes.sources import scene_source
from uniadrs_scale.scoring import preview_ahead as module
from uniadrs_scale.scoring.preview_ahead import preview_ahead

if TYPE_CHECKING:
    from pathlib import Path

LONG = 60.0
"""Seconds after which a test has failed, however busy the machine is."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "scene.tif"
    pixels = np.random.default_rng(3).integers(1, 3000, (3, 300, 400)).astype(np.uint16)
    grid: dict[str, Any] = {"count": 3, "height": 300, "width": 400, "dtype": "uint16"}
    place = rasterio.Affine(10, 0, 6e5, 0, -10, 5.1e6)
    with rasterio.open(made, "w", driver="GTiff", crs="EPSG:32632", transform=place, **grid) as f:
        f.write(pixels)
    return made


def test_the_picture_is_read_before_it_is_asked_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, read = scene_source(us.open_scene(path)), threading.Event()

    def noted(*arguments: Any) -> Any:
        try:
            return scene_picture(*arguments)
        finally:
            read.set()

    monkeypatch.setattr(module, "scene_picture", noted)
    with preview_ahead(source, wanted=True) as preview:
        assert read.wait(LONG)
        begun = preview(400)
        smaller = preview(100)
    expected = scene_picture(source, 400)
    assert np.array_equal(begun.rgb, expected.rgb)
    assert (begun.factor, smaller.factor) == (1, 4)


def test_a_picture_is_given_up_with_the_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def endless(source: object, side: int, stop: threading.Event) -> None:
        assert (source, side) == (expected, 400)
        assert stop.wait(LONG)
        ended.set()

    expected = scene_source(us.open_scene(path))
    monkeypatch.setattr(module, "scene_picture", endless)
    with pytest.raises(KeyboardInterrupt), preview_ahead(expected, wanted=True):
        raise KeyboardInterrupt
    assert ended.is_set()


def test_a_stopped_picture_is_an_error(path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(us.SceneError, match="not wanted any more"):
        scene_picture(us.open_scene(path), 400, stop)


@pytest.mark.parametrize("kind", ["unwanted", "array"])
def test_other_pictures_wait_until_they_are_asked_for(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = us.open_scene(path)
    source = scene_source(scene * 2 if kind == "array" else scene)
    called: list[object] = []
    monkeypatch.setattr(module, "scene_picture", lambda *arguments: called.append(arguments))
    with preview_ahead(source, wanted=kind == "array") as preview:
        assert not called
        preview(100)
    assert called == [(source, 100)]


def test_a_run_reads_the_picture_of_its_scene_once(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: list[int] = []

    def noted(source: Any, side: int, *stop: threading.Event) -> Any:
        sides.append(side)
        return scene_picture(source, side, *stop)

    monkeypatch.setattr(module, "scene_picture", noted)
    us.score(us.open_scene(path), tmp_path / "map.zarr", detector=TileMean(), scheduler="sync")
    assert (tmp_path / "map.png").exists()
    assert sides == [400]
