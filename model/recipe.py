"""A training run as a value, read from ``configs/*.toml``, with all that follows from it alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from uniadrs_scale.demo.fields import ISLET
from uniadrs_scale.detector.network import NetworkConfig, Profile
from uniadrs_scale.detector.published import BANDS
from uniadrs_scale.detector.whitening import CHANNELS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

EPOCH, CYCLE, LOWEST = 101, 10, 1e-4
"""Published schedule: steps per epoch, epochs of the first cycle, lowest learning rate."""
MULTIPLIERS = {"lr": 1e-3, "weight_decay": 5e-4}
"""Published settings for the loss's multipliers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One training run; equal recipes and data give equal weights."""

    name: str
    width: float = 0.25
    profile: Profile = "corrected"
    """Profile of the network."""
    shortcut: float = 0.0
    """Shortcut of the finished weights (:class:`.NetworkConfig`). It is 0 while training: a network
    trained with it was worse on held-out windows (.79 instead of .83 after 150 steps)."""
    shift: float = 0.0
    """Added to the logits of the finished weights: it changes no order of scores, but which are
    above 0.5, and how far objects reach around their peaks."""
    decoders: Literal["trained", "frozen"] = "trained"
    """``frozen`` keeps them random, as the published code does by mistake."""
    simulation: Literal["ours", "published"] = "ours"
    """``ours`` gives whitened bands; ``published`` scaled bands, one window of 224 px per step, all
    with anomalies."""
    loss: Literal["detection", "published"] = "detection"
    optimiser: Literal["adamw", "published"] = "adamw"
    """``published``: Adam, a rate that falls along a cosine from ``rate`` and restarts after 10,
    20, 40 ... epochs of 101 steps, and no step if the loss is 0."""
    consistency: float = 0.0
    """Weight of :func:`.losses.consistency_loss` between each window and a second view of it, which
    is cut and turned; both views are then trained on. 0: one view."""
    symmetric: bool = False
    """True: kernels that stay the same when they are turned by 180 degrees (:mod:`.symmetry`)."""
    windows: float = 8
    """Windows per step, in windows of 96 px."""
    empty: float = 0.2
    """Share of windows without an anomaly."""
    sensors: Literal["basic", "all"] = "basic"
    """``all`` adds dead bands, haze and low light to noise, stripes and speckle."""
    islet: int = ISLET
    """Area of the smallest island, pond or lone parcel of generated landscapes [px]; 0: any."""
    wider: float = 0.0
    """Share of the whitenings by statistics of a scene that goes on beyond the window. Above 0, the
    second view of a window is whitened by other statistics than the first."""
    across: float = 0.0
    """Weight of the ranking across windows (:func:`.losses.detection_loss`)."""
    taught: float = 0.0
    """Weight of :func:`.teaching.teaching_loss`; above 0, the run needs teachers."""
    radar: float = 0.0
    """Share of the batches that are simulated as radar (:mod:`.radar`)."""
    steps: int
    seed: int
    rate: float
    warmup: int = 200
    """Steps of the linear rise of ``adamw``'s rate."""
    decay: float = 1e-4
    average: float = 0.998
    """Factor of the moving average of the weights; 0 keeps the weights themselves."""
    clip: float = 2.0
    half: bool = False
    check: int = 250
    """Steps between validations on held-out windows."""
    held_out: int = 12
    """Batches of held-out windows."""

    def __post_init__(self) -> None:
        if self.loss == "published" and self.consistency:
            raise ValueError(
                f"consistency={self.consistency} does not fit the published loss, which sees one "
                'view. Use consistency = 0, or loss = "detection".'
            )
        if self.loss == "published" and self.across:
            raise ValueError(
                f"across={self.across} does not fit the published loss, which compares no windows. "
                'Use across = 0, or loss = "detection".'
            )
        if self.loss == "published" and self.taught:
            raise ValueError(
                f"taught={self.taught} does not fit the published loss, which has no teachers. "
                'Use taught = 0, or loss = "detection".'
            )
        if self.wider and not self.consistency:
            raise ValueError(
                f"wider={self.wider} does not fit consistency=0: the second whitening is that of a "
                "second view. Use wider = 0, or a consistency above 0."
            )
        if self.simulation == "published" and (
            (self.windows, self.empty, self.sensors) != (1, 0, "basic")
            or (self.radar, self.wider, self.islet) != (0, 0, ISLET)
        ):
            raise ValueError(
                f"windows={self.windows}, empty={self.empty}, sensors={self.sensors!r}, "
                f"radar={self.radar}, wider={self.wider}, islet={self.islet} do not fit "
                "the published simulation: one window per step, always with anomalies. "
                'Use windows = 1, empty = 0, sensors = "basic", and leave out the others.'
            )

    @property
    def network(self) -> NetworkConfig:
        """The network that is trained."""
        bands = CHANNELS if self.simulation == "ours" else BANDS
        return NetworkConfig(self.width, bands, self.profile)

    def rate_at(self, step: int) -> float:
        """Return the learning rate of the network's weights.

        ``adamw``: linear warm-up, constant, then linear to 0 over the last half.
        """
        if self.optimiser == "published":
            return self._restarting(step // EPOCH)
        rise, fall = (step + 1) / self.warmup, 2 * (1 - step / self.steps)
        return self.rate * min(1.0, rise, fall)

    def _restarting(self, epoch: int) -> float:
        """Return the rate of torch's CosineAnnealingWarmRestarts, without a state to resume."""
        cycle = CYCLE
        while epoch >= cycle:
            epoch, cycle = epoch - cycle, 2 * cycle
        return LOWEST + (self.rate - LOWEST) * (1 + math.cos(math.pi * epoch / cycle)) / 2

    def optimiser_of(
        self, parameters: Iterable[Tensor], multipliers: Tensor
    ) -> torch.optim.Optimizer:
        """Make the optimiser: the network's group first, then that of the loss's multipliers."""
        first = {"params": list(parameters)}
        if self.optimiser == "published":
            groups = [first, {"params": [multipliers], **MULTIPLIERS}]
            return torch.optim.Adam(groups, weight_decay=self.decay)
        groups = [first, {"params": [multipliers], "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, weight_decay=self.decay)
