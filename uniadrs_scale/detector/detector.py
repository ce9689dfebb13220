"""The detector: numpy tiles in, numpy scores out, with one set of weights on one device."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import torch

from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.core.presets import DEFAULT_WEIGHTS, Arithmetic
from uniadrs_scale.detector.gpu import Conveyor, Cuda, passes_on
from uniadrs_scale.detector.inference import FastNetwork, exact_gpu, one_thread
from uniadrs_scale.detector.network import MINIMUM_SIDE
from uniadrs_scale.detector.passes import NUMBA, fast_ring_mean
from uniadrs_scale.detector.weights import load_network, portable, read_weights
from uniadrs_scale.detector.whitening import CHANNELS, Whitening, bytes_a_pixel, ring_mean
from uniadrs_scale.errors import PlanError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from uniadrs_scale.detector.network import UniADRS
    from uniadrs_scale.detector.weights import WeightsInfo


if TYPE_CHECKING:
    Network = Callable[[Tensor], Tensor]
GPU_BATCH = 16
"""Tiles a call on a GPU; on a CPU one tile already fills the caches."""
ACTIVATION_BYTES, BAND_BYTES = 3200, 4
"""Peak growth per tile pixel: at published width, and a band (the convolution's own copy of its
input). Measured at width 1/4: 780 bytes with 4 bands, 1379 with 200."""


class Detector:
    """Scores tiles with one set of weights on one device.

    Pickles as a reference: a worker process builds the network once and keeps it, whatever the
    number of tasks. The file must be readable there; the weights that ship with the library are.
    """

    def __init__(self, info: WeightsInfo, device: str, dtype: Arithmetic) -> None:
        self.info = info
        self.device = _device(device)
        self.dtype: Arithmetic = dtype
        self._requested = device
        self._ring = fast_ring_mean if self.device.type == "cpu" else ring_mean
        self._network = _for_inference(load_network(info), self.device, dtype)
        self._conveyor = None
        self._warm: set[tuple[int, int]] = set()
        if self.device.type == "cuda":
            # The weights are on their way there by another queue than those that will use them.
            torch.cuda.synchronize(self.device)
            self._conveyor = Conveyor(Cuda(self.device))

    @classmethod
    def load(
        cls,
        weights: str | Path = DEFAULT_WEIGHTS,
        *,
        device: str = "auto",
        dtype: Arithmetic = "float32",
    ) -> Detector:
        """The detector with these weights; the same object for equal arguments in one process.

        Args:
            weights: Name of weights that ship with the library, or a path to ``.safetensors``, or
                to a ``.pth`` checkpoint of the published code.
            device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:1``.
            dtype: Arithmetic of the network; ``bfloat16`` is faster and about 1e-2 less exact.

        Raises:
            WeightsError: The file is missing, corrupt, or not for this network.
            PlanError: The device does not exist here, or the arithmetic is unknown.
        """
        if dtype not in get_args(Arithmetic):
            raise PlanError(f"dtype='{dtype}' is unknown. Use one of {get_args(Arithmetic)}.")
        info = read_weights(weights)
        return _resident(info.path, info.sha256, device, dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the index: a worker sees the GPU that it was given as its first.
        device = self._requested.partition(":")[0]
        return _resident, (portable(self.info.path), self.info.sha256, device, self.dtype)

    def __repr__(self) -> str:
        return f"Detector({self.identity}, device='{self.device}')"

    @property
    def identity(self) -> str:
        """Weights and arithmetic; the device is left out, as workers choose their own."""
        config = self.info.config
        return f"{self.info.name} {config.profile} {self.dtype} sha256:{self.info.sha256[:12]}"

    @property
    def threshold(self) -> float:
        """Score above which a pixel is worth a look: see :class:`WeightsInfo`."""
        return self.info.threshold

    @property
    def batch(self) -> int:
        """Tiles per call."""
        return 1 if self.device.type == "cpu" else GPU_BATCH

    def activation_bytes(self, tile: int, bands: int) -> int:
        """Peak growth of one call in the worker's own memory, beyond its input, in bytes.

        Raises:
            PlanError: The tile is too small for the network.
        """
        if tile < MINIMUM_SIDE:
            raise PlanError(
                f"The network would see tiles of {tile} px, after the preset has coarsened them, "
                f"but needs {MINIMUM_SIDE} px. Use a larger tile, or another preset."
            )
        if self.device.type != "cpu":
            return 4 * (bands + 1) * tile**2 * self.batch  # what is pinned for the device
        seen = bands if self.info.input == "bands" else CHANNELS
        pixel = ACTIVATION_BYTES * self.info.config.width + BAND_BYTES * seen
        if self.info.input == "whitened":  # before the network runs, so the larger of both
            pixel = max(pixel, bytes_a_pixel(bands)) + 4 * CHANNELS
        return int(pixel * tile**2 * self.batch)

    def fitted(self, statistics: BandStatistics) -> FittedDetector:
        """Return the detector of a scene with these statistics."""
        whitening = None if self.info.input == "bands" else Whitening.of(statistics)
        return FittedDetector(self, whitening)

    def warm_up(self, tile: int, bands: int) -> None:
        """Score noise once per process and shape, so that no tile of a scene pays for it.

        This loads or compiles kernels, and shows before a run if the device does not work.

        Raises:
            PlanError: The scores are not finite.
        """
        if (tile, bands) in self._warm:
            return
        noise = np.random.default_rng(0).standard_normal(
            (self.batch, bands, tile, tile), np.float32
        )
        even = BandStatistics(count=1, mean=np.zeros(bands), scatter=np.eye(bands))
        if not np.isfinite(self.fitted(even).score_tiles(noise)).all():
            raise PlanError(
                f"{self} scores noise with values that are not finite: the weights are damaged, or "
                "the device is. Use other weights, or device='cpu'."
            )
        self._warm.add((tile, bands))

    def score_with(
        self, whitening: Whitening | None, tiles: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Score the tiles of a scene that has this whitening: see :class:`FittedDetector`."""
        seen = np.ascontiguousarray(tiles, np.float32)
        if self._conveyor is not None:
            with torch.inference_mode():
                return self._conveyor.submit(seen, partial(self._on_gpu, whitening))()
        with torch.inference_mode(), one_thread():
            scores: NDArray[np.float32] = self._scores(whitening, torch.from_numpy(seen)).numpy()
            return scores

    def _on_gpu(self, whitening: Whitening | None, tiles: Tensor) -> Tensor:
        with torch.inference_mode(), exact_gpu():
            return self._scores(whitening, tiles)

    def _scores(self, whitening: Whitening | None, tiles: Tensor) -> Tensor:
        """Scores (n, y, x), float32 and where ``tiles`` (n, band, y, x) are."""
        if whitening is not None:
            tiles = whitening.apply(tiles, self._ring)
        return self._network(tiles)[:, 0].float()


@dataclass(frozen=True, slots=True, eq=False)
class FittedDetector:
    """A detector and the whitening of one scene; pickles small, like the detector itself."""

    detector: Detector
    whitening: Whitening | None
    """None if the network sees the bands as they are."""

    @property
    def batch(self) -> int:
        """Tiles per call."""
        return self.detector.batch

    def warm_up(self, tile: int, bands: int) -> None:
        """Warm the detector up: see :meth:`Detector.warm_up`."""
        self.detector.warm_up(tile, bands)

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how strongly each pixel deviates from its surroundings.

        Args:
            tiles: float32 (n, band, y, x), each band scaled to the scene's mean 0 and standard
                deviation 1 (see :class:`.Normalisation`), finite, no side below
                16 px.

        Returns:
            float32 (n, y, x) in 0..1.
        """
        return self.detector.score_with(self.whitening, tiles)


def gpus_in_use(detector: object) -> tuple[str, ...]:
    """The GPUs of this machine to share among workers, as CUDA_VISIBLE_DEVICES names them.

    All that torch sees, or the one that ``detector`` was told to use; none for a CPU or a stand-in.
    """
    if not isinstance(detector, Detector) or detector.device.type != "cuda":
        return ()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(n) for n in range(torch.cuda.device_count())]
    return tuple(names) if detector.device.index is None else (names[detector.device.index],)


def is_gpu_build() -> bool:
    """Whether torch is built for GPUs, whatever this machine has."""
    return torch.version.cuda is not None or torch.version.hip is not None


def weights_digest(detector: object) -> str | None:
    """sha256 of the weights that ``detector`` scores with; None where it has none."""
    return detector.info.sha256 if isinstance(detector, Detector) else None


_LOADING = threading.Lock()


def _resident(path: str, sha256: str, device: str, dtype: Arithmetic) -> Detector:
    """The process's one detector of these weights; also how a pickled detector comes back."""
    with _LOADING:  # lru_cache alone would let two threads build it twice
        return _cached(path, sha256, device, dtype)


@lru_cache(maxsize=4)
def _cached(path: str, sha256: str, device: str, dtype: Arithmetic) -> Detector:
    info = read_weights(path)
    if info.sha256 != sha256:
        raise WeightsError(
            f"'{path}' has sha256 {info.sha256[:12]}..., but the run was planned with "
            f"{sha256[:12]}...: it changed, or this worker sees another file. Plan again."
        )
    return Detector(info, device, dtype)


def _for_inference(module: UniADRS, device: torch.device, dtype: Arithmetic) -> Network:
    """The function of ``module`` on ``device``."""
    arithmetic = torch.float32 if dtype == "float32" else torch.bfloat16
    # Published figures want the published order of additions too: on noise-like weights any other
    # differs by 3e-5, as much as the published order differs from exact arithmetic.
    if dtype == "float32" and module.config.profile == "published":
        return cast("Network", module.to(device).eval())
    passes = NUMBA if device.type == "cpu" else passes_on(device, arithmetic)
    return FastNetwork(module, arithmetic, device, passes)


def _device(name: str) -> torch.device:
    """The torch device, checked to exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise PlanError(f"device='{name}' is unknown. Use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise PlanError(
            f"device='{name}' does not exist here: torch sees {torch.cuda.device_count()} GPUs. "
            "Use device='auto' or 'cpu'."
        )
    return device
