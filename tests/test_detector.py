"""The detector: numpy in, numpy out, equal bits, one resident network a process."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

import uniadrs_scale as us
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.detector.detector import Detector, gpus_in_use
from uniadrs_scale.detector.network import NetworkConfig, UniADRS
from uniadrs_scale.detector.weights import read_weights
from uniadrs_scale.runtime.cluster import _worker_options
from uniadrs_scale.runtime.compute import Compute

if TYPE_CHECKING:
    from pathlib import Path

TILES = np.random.default_rng(0).normal(size=(3, 5, 64, 64)).astype(np.float32)


def score(detector: Detector, tiles: np.ndarray) -> np.ndarray:
    """Scores of the tiles, by the statistics of the first."""
    everywhere = np.ones(tiles.shape[2:], bool)
    return detector.fitted(BandStatistics.of(tiles[0], everywhere)).score_tiles(tiles)


def test_scores_are_float32_between_0_and_1(tiny_weights: Path) -> None:
    scores = score(us.Detector.load(tiny_weights), TILES)
    assert scores.shape == (3, 64, 64)
    assert scores.dtype == np.float32
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_it_is_the_network_and_nothing_else(tiny_weights: Path) -> None:
    network = UniADRS(NetworkConfig(width=0.03, bands=12)).eval()
    network.load_state_dict(load_file(tiny_weights))
    with torch.inference_mode():
        expected = network(torch.from_numpy(TILES))[:, 0].numpy()
    got = score(us.Detector.load(tiny_weights), TILES)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_bits_do_not_depend_on_the_thread_or_on_torchs_threads() -> None:
    tile = np.random.default_rng(0).normal(size=(1, 40, 224, 224)).astype(np.float32)
    statistics = BandStatistics.of(tile[0], np.ones((224, 224), bool))
    detector = us.Detector.load(device="cpu").fitted(statistics)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(detector.score_tiles(tile))
    torch.set_num_threads(before)
    with ThreadPoolExecutor(2) as pool:
        results.extend(pool.map(detector.score_tiles, [tile] * 4))
    for got in results[1:]:
        np.testing.assert_array_equal(got, results[0])


def test_only_a_fitted_detector_scores_and_it_travels_small() -> None:
    detector = us.Detector.load(device="cpu")
    assert not hasattr(detector, "score_tiles")
    fitted = detector.fitted(BandStatistics.of(TILES[0], np.ones((64, 64), bool)))
    assert not hasattr(fitted, "fitted")
    message = pickle.dumps(fitted)
    assert len(message) < 20_000
    np.testing.assert_array_equal(
        pickle.loads(message).score_tiles(TILES), fitted.score_tiles(TILES)
    )


def test_one_detector_a_process_also_after_pickling(tiny_weights: Path) -> None:
    detector = us.Detector.load(tiny_weights)
    message = pickle.dumps(detector)
    assert len(message) < 1000
    assert pickle.loads(message) is detector is us.Detector.load(tiny_weights)
    assert us.Detector.load(tiny_weights, dtype="bfloat16") is not detector


def test_changed_weights_are_noticed_by_a_worker(tiny_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.safetensors"
    path.write_bytes(tiny_weights.read_bytes())
    call, arguments = us.Detector.load(path).__reduce__()
    with pytest.raises(us.WeightsError, match=r"but the plan has"):
        call(arguments[0], "0" * 64, *arguments[2:])


def test_bfloat16_is_close(tiny_weights: Path) -> None:
    exact = score(us.Detector.load(tiny_weights), TILES)
    close = score(us.Detector.load(tiny_weights, dtype="bfloat16"), TILES)
    assert 0 < abs(exact - close).max() < 0.05


@pytest.mark.parametrize("bands", [1, 12, 13, 40])
def test_any_number_of_bands(tiny_weights: Path, bands: int) -> None:
    tiles = np.random.default_rng(bands).normal(size=(1, bands, 48, 48)).astype(np.float32)
    assert np.isfinite(score(us.Detector.load(tiny_weights), tiles)).all()


FACTS = {"bands": "12", "profile": "corrected"}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, r"do not describe a network of this library: 'width'. They need width"),
        ({"width": "x"} | FACTS, r"do not describe a network"),
        ({"width": "0.1"} | FACTS, r"does not fit the network"),
        ({"width": "99"} | FACTS, r"width=99.0 is outside"),
        ({"width": "nan"} | FACTS, r"width nan is not a finite number"),
        ({"width": "0.1", "shortcut": "inf"} | FACTS, r"shortcut inf is not a finite number"),
        ({"width": "0.1", "threshold": "nan"} | FACTS, r"threshold nan is not a finite number"),
        ({"width": "0.1", "threshold": "1.2"} | FACTS, r"threshold 1.2 is outside 0..1"),
        ({"width": "0.1", "threshold": "high"} | FACTS, r"could not convert string to float"),
        ({"width": "0.1", "name": "a\x1b[31m"} | FACTS, r"name 'a\\x1b\[31m' is not 1 to 100"),
        ({"width": "0.1", "name": ""} | FACTS, r"name '' is not 1 to 100 characters"),
        ({"width": "0.1", "input": "pixels"} | FACTS, r"input 'pixels' of 12 channels"),
    ],
)
def test_wrong_metadata_is_refused(
    tiny_weights: Path, tmp_path: Path, metadata: dict[str, str], message: str
) -> None:
    path = tmp_path / "wrong.safetensors"
    save_file(load_file(tiny_weights), path, metadata)
    with pytest.raises(us.WeightsError, match=message):
        us.Detector.load(path)


@pytest.mark.filterwarnings("ignore:.*areas of 7:uniadrs_scale.SceneWarning")
@pytest.mark.parametrize(
    ("bands", "shape", "dtype"),
    [(1, (30, 30), "uint8"), (400, (40, 50), "float64"), (3, (230, 225), "int16")],
)
def test_the_shipped_weights_score_whatever_comes(
    bands: int, shape: tuple[int, int], dtype: str
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 120, (bands, *shape)).astype(dtype)
    pixels[0, :, : shape[1] // 2] = 7
    scene = xr.DataArray(pixels, dims=("band", "y", "x"))
    score = us.score(scene, scheduler="sync")
    assert score.shape == shape
    assert np.isfinite(score.values).all()
    with pytest.warns(us.SceneWarning, match="Bands that hold one value .*'0'"):
        constant = us.score(scene * 0 + 5, scheduler="sync")
    assert not constant.values.any(), "dark, borders included"


def test_gpus_are_shared_out_by_the_names_that_cuda_knows(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(read_weights(tiny_weights), "cpu", "float32")
    assert gpus_in_use(detector) == gpus_in_use(object()) == ()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for visible, device, expected in [
        (None, "cuda", ("0", "1", "2")),
        (None, "cuda:1", ("1",)),
        ("5,7,9", "cuda", ("5", "7", "9")),
        ("5,7,9", "cuda:2", ("9",)),
        ("5,7,9,-1,3", "cuda", ("5", "7", "9")),
        ("5,7,9,", "cuda", ("5", "7", "9")),
    ]:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        detector.device = torch.device(device)
        assert gpus_in_use(detector) == expected
    for cores, threads in ((1, 2), (2, 2), (12, 6), (64, 8)):
        monkeypatch.setattr("uniadrs_scale.runtime.compute.usable_cores", lambda cores=cores: cores)
        compute = Compute.of(gpus=("5", "7"))
        assert (compute.workers, compute.threads) == (2, threads)
    names = [_worker_options(n, 3, 1, ("5", "7"))["env"]["CUDA_VISIBLE_DEVICES"] for n in range(3)]
    assert names == ["5", "7", "5"]


@pytest.mark.parametrize(("device", "number"), [("cuda", 1), ("cuda:0", 0)])
def test_tiles_go_to_the_gpu_that_has_the_weights(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, device: str, number: int
) -> None:
    """A thread that scores has GPU 0 as its current one, whatever that of the loader is."""
    module = "uniadrs_scale.detector.detector"
    monkeypatch.setattr(f"{module}.device_called", torch.device)
    monkeypatch.setattr(f"{module}.passes_on", lambda *_: None)
    monkeypatch.setattr(f"{module}.for_inference", lambda *_, **__: None)
    monkeypatch.setattr("uniadrs_scale.detector.gpu.Conveyor", lambda cuda: cuda)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    detector = Detector(read_weights(tiny_weights), device, "float32")
    assert detector._conveyor.device == torch.device("cuda", number)


@pytest.mark.parametrize("preset", ["single-band", "multispectral"])
def test_a_plan_counts_gpus_at_any_resolution(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    detector = Detector(read_weights(tiny_weights), "cpu", "float32")
    detector.device = torch.device("cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7,9")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    scene = xr.DataArray(np.zeros((300, 300), np.float32), dims=("y", "x"))
    plan = us.plan(scene, preset=preset, detector=detector)
    assert (plan.workers, plan.threads) == (3, 2)
