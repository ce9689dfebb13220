"""The demo counts by its rule, draws what it says, and neither loses nor overwrites a scene."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
import zarr
from PIL import Image
from standins import StandIn

from uniadrs_scale.demo import demo as module
from uniadrs_scale.demo.demo import Findings, count_found, demo, render
from uniadrs_scale.demo.scene import PlantedTarget, SyntheticScene, demo_scene, write_scene
from uniadrs_scale.errors import PlanError, SceneError, StoreError
from uniadrs_scale.maps.overviews import block_maximum
from uniadrs_scale.runtime.compute import Compute
from uniadrs_scale.scenes.open import open_scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def invented() -> SyntheticScene:
    return demo_scene(3, 300, 4)


def flat(scene: SyntheticScene) -> NDArray[np.float32]:
    """A map that sees nothing."""
    return np.where(scene.valid, np.float32(0.1), np.float32(np.nan))


def oracle(scene: SyntheticScene) -> NDArray[np.float32]:
    """A map that sees everything."""
    return flat(scene) + scene.truth.astype(np.float32) / 2


def plain_scene(*targets: tuple[int, int], size: int = 200) -> SyntheticScene:
    """A valid scene with 3 x 3 targets at the given centres."""
    truth = np.zeros((size, size), bool)
    for row, col in targets:
        truth[max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2] = True
    return SyntheticScene(
        pixels=np.ones((4, size, size), np.uint16),
        valid=np.ones((size, size), bool),
        targets=tuple(
            PlantedTarget(kind="tank", row=row, col=col, radius=3, area=9) for row, col in targets
        ),
        truth=truth,
    )


def test_all_or_nothing(invented: SyntheticScene) -> None:
    assert count_found(oracle(invented), invented).found == (True,) * 4
    assert count_found(flat(invented), invented).found == (False,) * 4


def distances(scene: SyntheticScene) -> NDArray[np.float64]:
    """To the nearest 3 x 3 square, in the obvious way."""
    rows, cols = np.indices(scene.truth.shape)
    gaps = [
        np.hypot(*(np.maximum(np.abs(a) - 1, 0) for a in (rows - t.row, cols - t.col)))
        for t in scene.targets
    ]
    return np.min(gaps, axis=0)


def test_a_recommended_threshold_is_used_as_it_is() -> None:
    invented = demo_scene(3, 300, 4)
    score = oracle(invented)
    found = count_found(score, invented, threshold=2.0)
    assert found.found == (False,) * 4
    assert (found.threshold, found.alarms) == (2.0, 0.0)


def test_threshold_is_what_one_of_a_thousand_background_pixels_exceeds() -> None:
    scene = plain_scene((50, 50), (150, 150))
    score = np.random.default_rng(0).random((200, 200), np.float32)
    background = score[distances(scene) > 8]
    threshold = count_found(score, scene).threshold
    assert (background > threshold).mean() <= 1e-3
    assert (background >= threshold).mean() > 1e-3


def test_background_begins_eight_pixels_from_the_footprint() -> None:
    scene = plain_scene((30, 30), size=60)  # small, so that a ring is more than 1 of 1000
    distance = distances(scene)
    score = np.where(distance <= 8, np.float32(0.9), np.float32(0.1))
    assert count_found(score, scene).threshold == np.float32(0.1)
    score[(distance > 8) & (distance < 9)] = 0.9
    assert count_found(score, scene).threshold == np.float32(0.9)


@pytest.mark.parametrize(("offset", "found"), [(1, True), (4, True), (5, False)])
def test_near_ends_three_pixels_from_the_footprint(offset: int, found: bool) -> None:
    scene = plain_scene((100, 100))
    score = np.full((200, 200), 0.1, np.float32)
    score[100, 100 + offset] = 0.9  # the footprint reaches to 101
    assert count_found(score, scene).found == (found,)


def test_targets_at_the_edge_and_on_failed_tiles_are_counted() -> None:
    scene = plain_scene((0, 0), (199, 100), (100, 100))
    score = np.full((200, 200), 0.1, np.float32)
    score[0, 3] = score[199, 99] = 0.9
    score[90:111, 90:111] = np.nan
    assert count_found(score, scene).found == (True, True, False)


def test_no_background_no_finding() -> None:
    scene = plain_scene((100, 100))
    findings = count_found(np.full((200, 200), np.nan, np.float32), scene)
    assert findings.found == (False,)
    assert np.isnan(findings.threshold)
    assert count_found(np.ones((200, 200), np.float32), plain_scene()).found == ()


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_block_maximum_is_the_nan_maximum(factor: int) -> None:
    rng = np.random.default_rng(0)
    score = rng.random((20, 33), np.float32)
    score[rng.random(score.shape) < 0.6] = np.nan
    expected = np.array(
        [
            [
                np.fmax.reduce(score[r : r + factor, c : c + factor], axis=None)
                for c in range(0, 33, factor)
            ]
            for r in range(0, 20, factor)
        ]
    )
    assert np.array_equal(block_maximum(score, factor), expected, equal_nan=True)


def test_picture_shows_found_and_missed(invented: SyntheticScene, tmp_path: Path) -> None:
    write_scene(invented, tmp_path / "scene.tif")
    scene, store = open_scene(tmp_path / "scene.tif"), tmp_path / "scores.zarr"
    zarr.create_group(store).create_array("score", data=oracle(invented))

    def pixels(found: tuple[bool, ...]) -> NDArray[np.int16]:
        path = render(invented, scene, store, Findings(found, 0.5, 0.0))
        return np.asarray(Image.open(path).convert("RGB")).astype(np.int16)

    def count(picture: NDArray[np.int16], colour: str) -> int:
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        return int((np.abs(picture - rgb).max(axis=2) < 12).sum())

    all_found, none_found = pixels((True,) * 4), pixels((False,) * 4)
    assert count(all_found, "#22e0ff") > 100 > count(none_found, "#22e0ff")
    assert count(none_found, "#ff5470") > 100 > count(all_found, "#ff5470")


def test_rendering_leaves_pyplot_alone() -> None:
    code = "import sys, uniadrs_scale.demo.demo; print('matplotlib.pyplot' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_scene_file_is_georeferenced_and_exact(invented: SyntheticScene, tmp_path: Path) -> None:
    write_scene(invented, tmp_path / "new" / "scene.tif")
    with rasterio.open(tmp_path / "new" / "scene.tif") as present:
        assert np.array_equal(present.read(), invented.pixels)
        assert (present.crs.to_epsg(), present.res, present.nodata) == (32632, (10, 10), 0)
        assert present.block_shapes[0] == (256, 256)
        assert present.descriptions[0] == "blue"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["scene.tif"]


def test_the_same_scene_is_not_written_twice(invented: SyntheticScene, tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    write_scene(invented, path)
    before = path.stat().st_mtime_ns
    write_scene(invented, path)
    assert path.stat().st_mtime_ns == before


def test_another_scene_is_not_overwritten(invented: SyntheticScene, tmp_path: Path) -> None:
    write_scene(invented, tmp_path / "scene.tif")
    for other in (demo_scene(4, 300, 4), demo_scene(3, 256, 4)):
        with pytest.raises(StoreError, match="is not the scene of this demo"):
            write_scene(other, tmp_path / "scene.tif")


def test_a_file_that_is_no_scene_is_not_overwritten(
    invented: SyntheticScene, tmp_path: Path
) -> None:
    (tmp_path / "scene.tif").write_text("precious")
    with pytest.raises(StoreError, match="is not overwritten"):
        write_scene(invented, tmp_path / "scene.tif")
    assert (tmp_path / "scene.tif").read_text() == "precious"


def test_a_folder_that_cannot_be_made(invented: SyntheticScene, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"Cannot write .* Choose a folder"):
        write_scene(invented, tmp_path / "file" / "scene.tif")


class Distance(StandIn):
    """A detector of sorts, without weights."""

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """How far each pixel is from its tile's median."""
        middle = np.median(tiles, axis=(2, 3), keepdims=True)
        return 1 - np.exp(-np.abs(tiles - middle).mean(axis=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "demo"


@pytest.fixture(scope="module")
def _one_process() -> Iterator[None]:
    """No worker processes: they are tested elsewhere, and take seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "compute_for", lambda *_, **__: Compute.of("sync"))
        yield


@pytest.fixture(scope="module")
def report(folder: Path, _one_process: None) -> module.DemoReport:
    return demo(folder, size=300, seed=3, detector=Distance())


def test_demo_writes_what_it_reports(report: module.DemoReport, folder: Path) -> None:
    names = {p.name for p in folder.iterdir()}
    maps = {"scores.zarr", "scores.zarr.run.json", "scores.tif"}
    assert names == {"scene.tif", "demo.png"} | maps
    assert report.complete
    assert report.planted == 4
    assert 0 <= report.found <= 4
    text = report.text()
    assert text.startswith(f"{report.found} of 4 planted anomalies found")
    assert f"exceeded by {report.findings.alarms:.4%} of the background" in text
    assert report.findings.alarms <= 1e-3  # a stand-in recommends no threshold
    for path in (report.scene, report.store, report.cog, report.picture):
        assert path.exists()
        assert str(path) in text
    score, scene = open_scene(report.cog), open_scene(report.scene)
    assert score.shape[1:] == scene.shape[1:]


def test_demo_again_scores_nothing_anew(report: module.DemoReport, folder: Path) -> None:
    reports: list[Any] = []
    again = demo(folder, size=300, seed=3, detector=Distance(), on_report=reports.append)
    assert again.findings == report.findings
    assert (reports, again.summary.kept) == ([], report.summary.chunks)


def test_demo_refuses_a_negative_seed(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"seed=-1 is not allowed. Use whole numbers from 0"):
        module.demo(tmp_path, seed=-1, size=256)


def test_demo_refuses_a_tiny_scene(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="at least 256 px"):
        demo(tmp_path, size=100, detector=Distance())
