"""A GPU's path: kernels prove themselves before use; on a GPU, its scores are the CPU's."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from standin_device import LateDevice
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import uniadrs_scale as us
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.detector import gpu
from uniadrs_scale.detector.detector import Detector, gpus_in_use
from uniadrs_scale.detector.gpu import KERNELS, Conveyor, checked, passes_on
from uniadrs_scale.detector.inference import FastNetwork, exact_gpu
from uniadrs_scale.detector.network import NetworkConfig, UniADRS
from uniadrs_scale.detector.passes import PLAIN
from uniadrs_scale.detector.weights import read_weights
from uniadrs_scale.detector.whitening import ring_mean
from uniadrs_scale.runtime.compute import Compute

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator
    from pathlib import Path

CPU, SINGLE = torch.device("cpu"), torch.float32
RIGHT = {name: lambda *a, name=name: getattr(PLAIN, name)(*a) for name in KERNELS}
on_gpu = pytest.mark.gpu


@pytest.fixture
def said(hear: Callable[[logging.Logger], list[str]]) -> list[str]:
    """Warnings of the module."""
    return hear(gpu.LOG)


def offset(*arguments: Any) -> torch.Tensor:
    result = PLAIN.attend(*arguments)
    result[0, 0, 0, 0] += 1e-3
    return result


def failing(*arguments: Any) -> torch.Tensor:
    raise RuntimeError("Failed to find C compiler.\nmore lines")


def poisoned(*arguments: Any) -> torch.Tensor:
    return torch.full_like(PLAIN.attend(*arguments), torch.nan)


def deeper(*arguments: Any) -> torch.Tensor:
    return PLAIN.attend(*arguments)[None]


def test_right_kernels_are_used_and_nothing_is_said(said: list[str]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        chosen = checked(lambda: SimpleNamespace(**RIGHT), CPU, dtype)
        assert all(getattr(chosen, name) is RIGHT[name] for name in KERNELS)
        assert chosen.halved is PLAIN.halved
    assert not said


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (offset, "attend: it differs from plain torch"),
        (poisoned, "attend: it differs from plain torch"),
        (deeper, "attend: it differs from plain torch"),
        (failing, "attend: RuntimeError: Failed to find C compiler"),
    ],
)
def test_a_wrong_kernel_is_left_out_with_one_warning(
    kernel: object, reason: str, said: list[str]
) -> None:
    chosen = checked(lambda: SimpleNamespace(**RIGHT | {"attend": kernel}), CPU, SINGLE)
    assert chosen.attend is PLAIN.attend
    assert chosen.norm_relu is RIGHT["norm_relu"]
    (message,) = said
    assert reason in message
    assert "more lines" not in message


def test_without_triton_plain_torch_computes(said: list[str]) -> None:
    def absent() -> None:
        raise ModuleNotFoundError("No module named 'triton'")

    assert checked(absent, CPU, SINGLE) == PLAIN
    (message,) = said
    assert message.count("No module named 'triton'") == len(KERNELS)


def test_kernels_are_checked_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class NoDevice:
        def __init__(self, device: torch.device) -> None:
            asked.append(device)

        __enter__ = __exit__ = lambda *_: None

    monkeypatch.setattr(torch.cuda, "device", NoDevice)
    monkeypatch.setattr(gpu, "checked", lambda *_: PLAIN)
    passes_on.cache_clear()
    for _ in range(3):
        assert passes_on(torch.device("cuda:0"), SINGLE) is PLAIN
    assert asked == [torch.device("cuda:0")]
    passes_on.cache_clear()
    assert passes_on(CPU, SINGLE) is PLAIN
    passes_on.cache_clear()


def test_a_cpu_never_imports_triton(tiny_weights: Path) -> None:
    code = (
        "import sys, numpy as np, uniadrs_scale as us, uniadrs_scale.detector.gpu\n"
        f"us.Detector.load({str(tiny_weights)!r}, device='cpu').score_with("
        "None, np.zeros((1, 3, 32, 32), np.float32))\n"
        "assert 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_exact_arithmetic_leaves_cudnn_on_and_settings_as_they_were() -> None:
    products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.fp32_precision, cudnn.allow_tf32, cudnn.deterministic
    products.fp32_precision = "tf32"
    try:
        with exact_gpu():
            assert products.fp32_precision == "ieee"
            assert cudnn.enabled
            assert cudnn.deterministic
            assert not cudnn.allow_tf32
            assert not cudnn.benchmark
        assert products.fp32_precision == "tf32"
    finally:
        products.fp32_precision = before[0]
    assert (products.fp32_precision, cudnn.allow_tf32, cudnn.deterministic) == before
    assert cudnn.enabled


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpus_path_on_a_late_device_scores_as_the_cpu_does(dtype: str) -> None:
    """All of it but CUDA: conveyor, whitening by torch, plain passes; the shipped network."""
    tiles = np.random.default_rng(0).normal(size=(4, 5, 64, 72)).astype(np.float32)
    statistics = BandStatistics.of(tiles[0], np.ones((64, 72), bool))
    info = read_weights("uniadrs-s")
    expected = Detector(info, "cpu", "float32").fitted(statistics).score_tiles(tiles)
    assert expected.std() > 1e-2
    late = late_detector(info, dtype)
    got = late.fitted(statistics).score_tiles(tiles)
    # bfloat16: what the CPU's own bfloat16 network is allowed.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 if dtype == "float32" else 2e-2)
    again = late.fitted(statistics).score_tiles(tiles)
    np.testing.assert_array_equal(got, again)


def late_detector(info: Any, dtype: Any) -> Detector:
    detector = Detector(info, "cpu", dtype)
    network = UniADRS(info.config).eval()
    network.load_state_dict(load_file(info.path))
    arithmetic = torch.float32 if dtype == "float32" else torch.bfloat16
    detector._network = FastNetwork(network, arithmetic, CPU, PLAIN, whitened=True)
    detector._ring = ring_mean
    detector._conveyor = Conveyor(LateDevice())
    return detector


class Elsewhere(TorchDispatchMode):
    """Notes operations that bring something to the device, or ask it for a number."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [a for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
        asked = "_local_scalar_dense" in str(func)
        if asked or any(t.device.type == "cpu" for t in tensors):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_what_holds_the_lock_brings_nothing_to_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever brings arrays waits for all work before it: only the first call may.

    On torch's device without data, which cannot be asked for a number either.
    """
    info, meta = read_weights("uniadrs-s"), torch.device("meta")
    detector = Detector(info, "cpu", "bfloat16")
    detector._ring = ring_mean
    network = UniADRS(info.config)
    detector._network = FastNetwork(network, torch.bfloat16, meta, PLAIN, whitened=True)
    whitening = detector.fitted(STATISTICS).whitening
    tiles = torch.empty(2, 5, 64, 64, device=meta)
    calls = []
    for _ in range(2):
        with Elsewhere() as noted:
            scores = detector._on_gpu((whitening,) * len(tiles), tiles)
        calls.append(noted.seen)
    assert scores.shape == (2, 64, 64)
    assert calls[0]
    assert calls[1] == []


def test_other_devices_are_refused(tiny_weights: Path) -> None:
    for name in ("meta", "mps", "nonsense"):
        with pytest.raises(us.PlanError, match=f"device='{name}' is unknown. Use auto, cpu, cuda"):
            us.Detector.load(tiny_weights, device=name)


# --- On a GPU ------------------------------------------------------------------------------------

BATCH = np.random.default_rng(1).normal(size=(16, 5, 224, 224)).astype(np.float32)
STATISTICS = BandStatistics.of(BATCH[0], np.ones((224, 224), bool))
CLOSE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest difference of a score from the CPU's float32: other orders of addition (cuDNN may choose
Winograd's, which rounds more), and rounding."""
RANDOM = {"float32": 1e-4, "bfloat16": 5e-2}
"""The same of random weights, which amplify more than trained ones."""


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return us.Detector.load(device="cpu").fitted(STATISTICS).score_tiles(BATCH[:4])


@pytest.fixture(params=["float32", "bfloat16"])
def on_device(request: pytest.FixtureRequest) -> Iterator[Any]:
    return us.Detector.load(device="cuda", dtype=request.param).fitted(STATISTICS)


@on_gpu
def test_the_gpus_scores_are_the_cpus(on_device: Any, expected: np.ndarray) -> None:
    got = on_device.score_tiles(BATCH)
    limit = CLOSE[on_device.detector.dtype]
    np.testing.assert_allclose(got[:4], expected, rtol=0, atol=limit)


@on_gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("width", [0.25, 1.0])
def test_kernels_score_as_plain_torch_does(width: float, dtype: str) -> None:
    device, arithmetic = torch.device("cuda"), getattr(torch, dtype)
    fast = passes_on(device, arithmetic)
    assert all(getattr(fast, name) is not getattr(PLAIN, name) for name in KERNELS)
    torch.manual_seed(0)
    network = UniADRS(NetworkConfig(width, 24)).eval()
    x = torch.randn(4, 24, 224, 224, device=device)
    with torch.inference_mode(), exact_gpu():
        got, plain = (FastNetwork(network, arithmetic, device, p)(x) for p in (fast, PLAIN))
    torch.testing.assert_close(got, plain, rtol=0, atol=RANDOM[dtype])


@on_gpu
def test_bits_depend_neither_on_the_place_in_a_batch_nor_on_threads(on_device: Any) -> None:
    alone = on_device.score_tiles(BATCH)
    order = np.random.default_rng(0).permutation(len(BATCH))
    np.testing.assert_array_equal(on_device.score_tiles(BATCH[order]), alone[order])
    others = np.concatenate([BATCH[:1], 3 * BATCH[1:]])
    np.testing.assert_array_equal(on_device.score_tiles(others)[0], alone[0])
    with ThreadPoolExecutor(2) as pool:
        orders = [np.roll(np.arange(len(BATCH)), n) for n in range(12)]
        together = pool.map(lambda some: on_device.score_tiles(BATCH[some]), orders)
        for some, got in zip(orders, together, strict=True):
            np.testing.assert_array_equal(got, alone[some])


@on_gpu
def test_what_holds_the_lock_never_waits(on_device: Any) -> None:
    """After the first call, which compiles and brings weights; torch raises where it waits."""
    tiles = torch.from_numpy(BATCH).to("cuda")
    detector = on_device.detector
    detector._on_gpu((on_device.whitening,) * len(tiles), tiles)
    torch.cuda.set_sync_debug_mode("error")
    try:
        detector._on_gpu((on_device.whitening,) * len(tiles), tiles)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_gpu
def test_a_published_checkpoints_scores_are_the_cpus() -> None:
    torch.manual_seed(0)
    network = UniADRS(NetworkConfig(0.1, 12, "published")).eval()
    x = torch.rand(2, 4, 96, 96)
    with torch.inference_mode(), exact_gpu():
        expected = network(x)
        got = network.to("cuda")(x.to("cuda")).cpu()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


@on_gpu
def test_each_gpu_has_one_process_and_maps_are_the_cpus(tmp_path: Path) -> None:
    """Runs on as many GPUs as there are; each worker sees one, and all score alike."""
    rng = np.random.default_rng(0)
    scene = us.open_scene(_scene(tmp_path / "scene.tif", rng))
    detector = us.Detector.load(device="cuda")
    names = gpus_in_use(detector)
    with Compute.of(gpus=names).connected() as cluster:
        assert cluster.client is not None
        seen = cluster.client.run(_visible)
        assert sorted(name for name, _ in seen.values()) == sorted(names)
        assert {count for _, count in seen.values()} == {1}
        with cluster.client.as_current():
            got = us.score(scene, tmp_path / "gpu.zarr", chunk=256, detector=detector)
    cpu = us.score(scene, chunk=256, detector=us.Detector.load(device="cpu"), scheduler="sync")
    np.testing.assert_allclose(got.values, cpu.values, rtol=0, atol=CLOSE["float32"])


def _visible() -> tuple[str, int]:
    import os  # noqa: PLC0415 - runs on a worker

    return os.environ["CUDA_VISIBLE_DEVICES"], torch.cuda.device_count()


def _scene(path: Path, rng: np.random.Generator) -> Path:
    import rasterio  # noqa: PLC0415
    from rasterio.transform import from_origin  # noqa: PLC0415

    pixels = rng.integers(1, 4000, (4, 700, 600)).astype(np.uint16)
    place = from_origin(0, 0, 10, 10)
    with rasterio.open(
        path, "w", driver="GTiff", height=700, width=600, count=4, dtype="uint16",
        crs="EPSG:32632", transform=place,
    ) as file:  # fmt: skip
        file.write(pixels)
    return path
