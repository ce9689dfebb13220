"""The detector: numpy tiles in, numpy scores out, with one set of weights on one device."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import torch

from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.core.presets import DEFAULT_WEIGHTS, Arithmetic
from uniadrs_scale.detector.gpu import conveyor_on, device_called, gpu_names, passes_on
from uniadrs_scale.detector.inference import exact_gpu, for_inference, one_thread
from uniadrs_scale.detector.network import MINIMUM_SIDE
from uniadrs_scale.detector.passes import NUMBA, fast_ring_mean
from uniadrs_scale.detector.terms import added, term_bytes
from uniadrs_scale.detector.weights import load_network, portable, read_weights
from uniadrs_scale.detector.whitening import (
    CHANNELS,
    Whitening,
    bytes_a_pixel,
    channels,
    flat_areas,
    ring_mean,
)
from uniadrs_scale.errors import PlanError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from uniadrs_scale.core.contracts import FittedScorer, Scorer
    from uniadrs_scale.core.levels import Levels
    from uniadrs_scale.core.presets import Terms
    from uniadrs_scale.detector.weights import WeightsInfo

GPU_BATCH = 16
"""Tiles per call on a GPU; on a CPU one tile already fills the caches."""
ACTIVATION_BYTES, BAND_BYTES = 3200, 4
"""Peak growth per tile pixel at published width, and per band (the convolution copies its input)
[bytes]. Measured at width 1/4: 780 bytes with 4 bands, 1379 with 200."""
_LOADING = threading.Lock()


class Detector:
    """A scorer with one set of weights on one device.

    It pickles as a reference: a worker process builds the network once and keeps it for all tasks.
    Workers must be able to read the weights file; shipped weights are always there.
    """

    thread_safe = True

    def __init__(self, info: WeightsInfo, device: str, dtype: Arithmetic) -> None:
        self.info = info
        self.device = device_called(device)
        self.dtype: Arithmetic = dtype
        self._requested = device
        self._ring = fast_ring_mean if self.device.type == "cpu" else ring_mean
        arithmetic = torch.float32 if dtype == "float32" else torch.bfloat16
        passes = NUMBA if self.device.type == "cpu" else passes_on(self.device, arithmetic)
        whitened = info.input == "whitened"
        self._network = for_inference(
            load_network(info), arithmetic, self.device, passes, whitened=whitened
        )
        self._warm: set[tuple[int, int]] = set()
        self._conveyor = None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # weights travel by another queue than tiles
            self._conveyor = conveyor_on(self.device)

    @classmethod
    def load(
        cls,
        weights: str | Path = DEFAULT_WEIGHTS,
        *,
        device: str = "auto",
        dtype: Arithmetic = "float32",
    ) -> Detector:
        """Return the detector with these weights: one object per process and arguments.

        Args:
            weights: Name of shipped weights, or path of a ``.safetensors`` or published ``.pth``.
            device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
            dtype: Arithmetic of the network; ``bfloat16`` is faster and about 1e-2 less exact.

        Raises:
            WeightsError: The file is missing, corrupt, or does not fit this network.
            PlanError: The device does not exist, or the arithmetic is unknown.
        """
        if dtype not in get_args(Arithmetic):
            raise PlanError(f"dtype='{dtype}' is unknown. Use {' or '.join(get_args(Arithmetic))}.")
        info = read_weights(weights)
        return _resident(info.path, info.sha256, device, dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        device = self._requested.partition(":")[0]  # a worker sees its own GPU as the first
        return _resident, (portable(self.info.path), self.info.sha256, device, self.dtype)

    def __repr__(self) -> str:
        return f"Detector({self.identity}, device='{self.device}')"

    @property
    def identity(self) -> str:
        """Weights and arithmetic, without the device, as workers choose their own."""
        config = self.info.config
        return f"{self.info.name} {config.profile} {self.dtype} sha256:{self.info.content[:12]}"

    @property
    def threshold(self) -> float:
        """Recommended threshold, 0..1: see :class:`.WeightsInfo`."""
        return self.info.threshold

    @property
    def batch(self) -> int:
        """Tiles per call."""
        return 1 if self.device.type == "cpu" else GPU_BATCH

    def activation_bytes(self, tile: int, bands: int) -> int:
        """Return a worker's peak growth in one call, in bytes; PlanError for tiles too small."""
        if tile < MINIMUM_SIDE:
            raise PlanError(
                f"The network would see tiles of {tile} px, after the preset has coarsened them, "
                f"but needs {MINIMUM_SIDE} px. Use a larger tile, or another preset."
            )
        if self.device.type != "cpu":
            return 4 * (bands + 1) * tile**2 * self.batch  # memory pinned for the device
        seen = bands if self.info.input == "bands" else CHANNELS
        pixel = ACTIVATION_BYTES * self.info.config.width + BAND_BYTES * seen
        if self.info.input == "whitened":  # whitening precedes the network, so the larger counts
            pixel = max(pixel, bytes_a_pixel(bands)) + 4 * CHANNELS
        return int(pixel * tile**2 * self.batch)

    def fitted(self, statistics: BandStatistics) -> FittedDetector:
        """Return the detector of a scene with these statistics."""
        whitening = None if self.info.input == "bands" else Whitening.of(statistics)
        return FittedDetector(self, whitening)

    def with_terms(self, terms: Terms) -> Scorer:
        """Return the detector with these terms in its logit, if it sees whitened bands."""
        return self if self.info.input == "bands" else Fused(self, terms)

    def warm_up(self, tile: int, bands: int) -> None:
        """Score noise once per process and shape; raise PlanError if scores are not finite."""
        if (tile, bands) in self._warm:
            return
        shape = (self.batch, bands, tile, tile)
        noise = np.random.default_rng(0).standard_normal(shape, np.float32)
        even = BandStatistics(count=1, mean=np.zeros(bands), scatter=np.eye(bands))
        if not np.isfinite(self.fitted(even).score_tiles(noise)).all():
            raise PlanError(
                f"The scores that {self} gives to noise are not finite: the weights or the device "
                "are damaged. Use other weights, or device='cpu'."
            )
        self._warm.add((tile, bands))

    def score_with(
        self, whitenings: tuple[Whitening, ...], tiles: NDArray[np.float32], terms: Terms = ()
    ) -> NDArray[np.float32]:
        """Score tiles, each with its whitening, or all without: see :class:`FittedDetector`."""
        seen = np.ascontiguousarray(tiles, np.float32)
        with torch.inference_mode():
            if self._conveyor is not None:
                return self._conveyor.submit(seen, partial(self._on_gpu, whitenings, terms=terms))()
            with one_thread():
                return self._scores(whitenings, torch.from_numpy(seen), terms).numpy()

    def _on_gpu(
        self, whitenings: tuple[Whitening, ...], tiles: Tensor, terms: Terms = ()
    ) -> Tensor:
        with torch.inference_mode(), exact_gpu():
            return self._scores(whitenings, tiles, terms)

    def _scores(self, whitenings: tuple[Whitening, ...], tiles: Tensor, terms: Terms) -> Tensor:
        """Score tiles (n, band, y, x): float32 (n, y, x) on the same device."""
        if not whitenings:
            return self._network(tiles)[:, 0].float()
        flat = flat_areas(tiles)
        seen = channels(whitenings, tiles, self._ring)
        scores = self._network(seen, added(terms, seen, self._ring))[:, 0].float()
        return scores if flat is None else scores.masked_fill_(flat, 0)


@dataclass(frozen=True, slots=True)
class Fused:
    """A detector of whitened bands with the terms of a preset in its logit."""

    detector: Detector
    terms: Terms

    @property
    def identity(self) -> str:
        """Identity of the detector; the plan holds the terms."""
        return self.detector.identity

    @property
    def batch(self) -> int:
        """Tiles per call."""
        return self.detector.batch

    def activation_bytes(self, tile: int, bands: int) -> int:
        """Return a worker's peak growth in one call, in bytes."""
        plain = self.detector.activation_bytes(tile, bands)
        on_host = self.detector.device.type == "cpu"
        return plain + (term_bytes(self.terms) * tile**2 * self.batch if on_host else 0)

    def fitted(self, statistics: BandStatistics) -> FittedDetector:
        """Return the detector of a scene with these statistics."""
        return replace(self.detector.fitted(statistics), terms=self.terms)


@dataclass(frozen=True, slots=True, eq=False)
class FittedDetector:
    """A detector and the whitening of one scene; it pickles small, as the detector does."""

    detector: Detector
    whitening: Whitening | None
    """None if the network sees the bands as they are."""
    terms: Terms = ()
    """Terms that are added to the logit."""

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
                deviation 1 (see :class:`.Normalisation`), finite, sides of at least 16 px.

        Returns:
            float32 (n, y, x) in 0..1.
        """
        return self.score_jointly([self] * len(tiles), tiles)

    def score_jointly(
        self, scorers: Sequence[FittedScorer], tiles: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the same for tiles of several regions, each with its own whitening."""
        known = (cast("FittedDetector", scorer).whitening for scorer in scorers)
        whitenings = tuple(whitening for whitening in known if whitening is not None)
        return self.detector.score_with(whitenings, tiles, self.terms)


def gpus_in_use(detector: object) -> tuple[str, ...]:
    """Return the GPUs for workers to share, by their names in CUDA_VISIBLE_DEVICES.

    All that torch sees, or the one that ``detector`` uses; none for a CPU or another model.
    """
    if not isinstance(detector, Detector) or detector.device.type != "cuda":
        return ()
    names = gpu_names()
    return names if detector.device.index is None else (names[detector.device.index],)


def is_gpu_build() -> bool:
    """Return True if torch is built for GPUs; the machine may have none."""
    return torch.version.cuda is not None or torch.version.hip is not None


def weights_digest(detector: object) -> str | None:
    """Return the sha256 of the weights of ``detector``, None for a model without weights."""
    return detector.info.sha256 if isinstance(detector, Detector) else None


def levels_of(detector: object, preset: str) -> Levels | None:
    """Return the levels of ``detector`` for a preset, None if it has none."""
    return detector.info.levels.get(preset) if isinstance(detector, Detector) else None


def _resident(path: str, sha256: str, device: str, dtype: Arithmetic) -> Detector:
    """Return the only detector of these weights in this process; unpickling calls this too."""
    with _LOADING:  # lru_cache alone would let two threads build it twice
        return _cached(path, sha256, device, dtype)


@lru_cache(maxsize=4)
def _cached(path: str, sha256: str, device: str, dtype: Arithmetic) -> Detector:
    info = read_weights(path)
    if info.sha256 != sha256:
        raise WeightsError(
            f"'{path}' has sha256 {info.sha256[:12]}..., but the plan has {sha256[:12]}...: it "
            "changed, or this worker reads another file. Plan again."
        )
    return Detector(info, device, dtype)
