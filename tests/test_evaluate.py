"""How weights are judged: baselines, intervals, empty windows, any folder, the command line."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import baselines
import charts
import empty
import evaluate
import imagery
import numpy as np
import pytest
import report
from plain_rasters import write
from scipy.io import savemat

from uniadrs_scale.errors import SceneError
from uniadrs_scale.evaluation.metrics import Figures, RocCurve

SCRIPT = Path(evaluate.__file__)


def scattered(bands: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((bands, bands)) @ rng.standard_normal((bands, height * width))
    return (mixed.reshape(bands, height, width) * 50 + 1000).round().astype(np.int16)


def test_rx_is_the_mahalanobis_distance() -> None:
    pixels = scattered(4, 9, 11)
    flat = pixels.reshape(4, -1).astype(float)
    away = flat - flat.mean(axis=1, keepdims=True)
    expected = np.einsum("ip,ij,jp->p", away, np.linalg.inv(np.cov(flat, bias=True)), away)
    np.testing.assert_allclose(baselines.rx(pixels).ravel(), expected, rtol=1e-5)
    assert baselines.rx(pixels, 2).mean() == pytest.approx(2)  # each component adds variance 1
    doubled = np.concatenate([pixels, pixels[:2], 7 + 0 * pixels[:1]])  # dependent and dead bands
    np.testing.assert_allclose(baselines.rx(doubled).ravel(), expected, rtol=1e-4)


def test_local_rx_is_the_distance_to_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, ring = scattered(3, 12, 14), baselines.Ring(3, 7)
    parts = baselines.whitened(pixels)
    monkeypatch.setattr(baselines, "STRIP", 100)  # several strips
    found = baselines.local_rx(pixels, ring)
    for row, col in ((0, 0), (5, 6), (11, 3), (2, 13), (11, 13)):
        y, x = np.mgrid[:12, :14]
        away = np.maximum(abs(y - row), abs(x - col))
        around = parts[:, (away > 1) & (away <= 3)]
        covariance = np.cov(around, bias=True) + baselines.RIDGE * np.eye(3)
        distance = parts[:, row, col] - around.mean(axis=1)
        expected = distance @ np.linalg.solve(covariance, distance)
        assert found[row, col] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_baselines_give_finite_maps_of_anything(name: str) -> None:
    score = baselines.BASELINES[name]
    for pixels in (np.zeros((3, 20, 30), np.uint8), np.ones((1, 8, 9)), scattered(40, 18, 19)):
        found = score(pixels, "sar")
        assert found.shape == pixels.shape[1:]
        assert np.isfinite(found).all()


def result(scene: str, area: float, weights: str = "w", detector: str = "d") -> report.Result:
    return report.Result(
        detector=detector, weights=weights, group="g", scene=scene,
        figures=Figures(auc_df=area, auc_dt=0.5, auc_ft=0.1), average_precision=0.2,
        alarm_rate=0.3, alarms=(10.0, 20.0),
        curve=RocCurve.of(np.array([0.0, 1]), np.array([False, True])),
    )  # fmt: skip


def test_intervals_cover_the_mean_as_often_as_they_say() -> None:
    rng, covered = np.random.default_rng(1), 0
    for _ in range(120):
        effects = rng.normal(0, 0.02, (8, 1)) + rng.normal(0, 0.02, (1, 25))
        low, high = report.interval([0.9 + effects])
        covered += low <= 0.9 <= high
    assert 0.85 < covered / 120 <= 1
    alike = report.interval([np.full((3, 5), 0.7), np.full((3, 2), 0.9)])
    assert alike == pytest.approx((0.8, 0.8))


def test_seeds_widen_the_interval_where_they_differ() -> None:
    scenes = np.linspace(0.8, 0.9, 12)
    one = report.interval([np.stack([scenes])])
    three = report.interval([np.stack([scenes - 0.1, scenes, scenes + 0.1])])
    assert np.diff(three) > 2 * np.diff(one)


def test_tables_take_means_over_seeds_and_name_the_worst() -> None:
    results = [result(f"s{n}", 0.5 + n / 100, w) for w in ("w1", "w2") for n in range(12)]
    results += [result(f"s{n}", 0.9, "", "rx") for n in range(12)]
    head, own, rx = report.group_table(results)
    assert head[:4] == ("group", "detector", "seeds", "scenes")
    assert own[:4] == ("g", "d", "2", "12")
    assert own[4].startswith("0.555 [0.")
    assert rx[:5] == ("g", "rx", "1", "12", "0.900 [0.900, 0.900]")
    scenes = report.scene_table(results)
    assert scenes[1] == ("g", "s0", "0.500", "0.900")
    assert len(scenes) == 1 + report.LONG // 2
    assert report.means(results[:24]) == {"g": 0.555}


def test_calm_windows_hold_nothing_that_stands_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal(500, 5, (1, 300, 400))
    pixels[:, :, 250:] += rng.choice([0, 400], (300, 150))  # a town
    pixels[:, 40, 60] = 900  # a boat that nobody labelled
    write(tmp_path / "bay.tif", pixels.astype(np.uint16))
    windows = empty.calm(tmp_path, 9, 1, 128)
    assert 0 < len(windows) <= empty.EACH
    for window in windows:
        assert window.pixels.shape == (1, 128, 128)
        assert window.pixels.max() < 600
        assert not window.targets.any()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder laid out as the authors' test data, with three of their modalities."""
    rng = np.random.default_rng(2)
    truth = np.zeros((1, 40, 50), np.uint8)
    truth[0, 10:14, 20:25] = 255
    cube = rng.integers(0, 900, (40, 50, 12)).astype(np.int16)
    (tmp_path / "HSI" / "images").mkdir(parents=True)
    savemat(tmp_path / "HSI" / "images" / "a.mat", {"data": cube, "wavelengths": np.arange(12.0)})
    write(tmp_path / "HSI" / "labels" / "a.png", truth)
    grey = rng.integers(0, 255, (1, 40, 50), np.uint8)
    write(tmp_path / "SAR" / "images" / "image7.png", np.repeat(grey, 3, 0))
    write(tmp_path / "SAR" / "labels" / "mask7.png", truth)
    write(tmp_path / "low_light" / "images" / "b.bmp", rng.integers(0, 255, (3, 40, 50), np.uint8))
    write(tmp_path / "low_light" / "labels" / "b.png", truth)
    return tmp_path


def test_the_published_layout_is_read(published: Path) -> None:
    found = imagery.published(published)
    assert list(found) == ["hyperspectral", "sar", "lowlight"]
    shapes = [images[0].pixels.shape for images in found.values()]
    assert shapes == [(12, 40, 50), (1, 40, 50), (3, 40, 50)]
    assert all(images[0].targets.sum() == 20 for images in found.values())


def test_a_folder_that_does_not_fit_is_refused(published: Path, tmp_path: Path) -> None:
    images, masks = published / "SAR" / "images", published / "SAR" / "labels"
    with pytest.raises(SceneError, match=r"holds no mask of a\.mat"):
        imagery.folder(published / "HSI" / "images", masks)
    with pytest.raises(SceneError, match="holds no image"):
        imagery.folder(tmp_path, masks)
    with pytest.raises(SceneError, match="has none of the folders HSI"):
        imagery.published(images)
    write(masks / "image7.png", np.zeros((1, 5, 6), np.uint8))
    with pytest.raises(
        SceneError, match=r"image7.png is \(5, 6\) px \(y, x\), but its image \(40, 50\)"
    ):
        imagery.folder(images, masks)
    for name in ("image7.png", "broken.mat"):
        (images / name).write_bytes(b"torn")
        with pytest.raises(SceneError, match=rf"{name} cannot be read"):
            imagery._pixels(images / name)


def test_the_command_writes_tables_and_figures(
    published: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable, "-W", "error", str(SCRIPT), str(tiny_weights), "--published",
        str(published), "--detector", "uniadrs", "rx", "lrx", "--workers", "2", "--out", str(out),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "| mean of 3 groups | tiny | 1 | 3 |" in done.stdout
    assert (out / "table.md").read_text() == done.stdout
    with (out / "scenes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["group"], row["detector"]) for row in rows} == {
        (group, name)
        for group in ("hyperspectral", "sar", "lowlight")
        for name in ("tiny", "rx", "lrx")
    }
    for name in ("roc", "maps_hyperspectral", "maps_sar", "maps_lowlight"):
        assert charts.mpl.image.imread(out / f"{name}.png").std() > 0.05


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--detector rx", "nothing to judge on"),
        ("--detector rx --images a", "--images and --masks belong together"),
        ("--data a", "give weights for --detector uniadrs"),
        ("w.safetensors --detector rx --data a", "and only for it"),
        ("--detector rx --data a --write", "--write stores the figures of one weights file"),
        ("--detector rx --published .", "error: . has none of the folders"),
        ("w.safetensors --data a", "error: Weights file 'w.safetensors' does not exist"),
        ("--detector rx --images a --masks b", "Folder 'a' does not exist"),
        ("--detector rx --images . --masks b", "Folder 'b' does not exist"),
        ("--detector rx --data . --groups sar", "Group 'sar' has no image with a target"),
    ],
)
def test_a_wrong_command_says_why(words, message, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *words.split()])
    with pytest.raises(SystemExit) as ending:
        evaluate.main()
    assert ending.value.code not in (0, None)
    assert message in f"{ending.value.code}{capsys.readouterr().err}"
