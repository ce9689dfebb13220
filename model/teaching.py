"""Teachers: finished weights whose order of the background a training run learns too.

Simulated anomalies say what an anomaly is, but not which real background stands out most. A larger
network knows more about that than labels, which say only that all of it is background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from losses import ANOMALY, IGNORED

from uniadrs_scale.detector.weights import load_network
from uniadrs_scale.detector.whitening import CHANNELS, LOCAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from uniadrs_scale.detector.network import UniADRS
    from uniadrs_scale.detector.weights import WeightsInfo

FEWEST = 100
"""Pixels of background that a window needs to be compared."""
LEAST = 1e-3
"""Added to a standard deviation: logits of a constant window have none."""


@dataclass(frozen=True, slots=True)
class Teachers:
    """Networks that score the windows of a run; they do not change."""

    networks: tuple[UniADRS, ...]
    contents: tuple[str, ...]
    """Digests of their weights."""

    @classmethod
    def of(cls, weights: Sequence[WeightsInfo], device: torch.device) -> Teachers:
        """Return the teachers with these weights.

        Raises:
            ValueError: Their input is not whitened bands.
        """
        networks = tuple(load_network(one).eval().to(device) for one in weights)
        for one, network in zip(weights, networks, strict=True):
            if network.config.bands != CHANNELS:
                raise ValueError(
                    f"The weights {one.name} have {network.config.bands} inputs, but windows have "
                    f"{CHANNELS} channels of whitened bands. Use weights of such a network."
                )
        return cls(networks, tuple(one.content for one in weights))

    def logits(self, pixels: Tensor) -> list[Tensor]:
        """Return the logits (b, y, x) of each teacher for windows (b, CHANNELS, y, x)."""
        with torch.no_grad():
            return [network.logits(pixels)[:, 0].float() for network in self.networks]


def teaching_loss(
    logits: Tensor, pixels: Tensor, shortcut: float, taught: Sequence[Tensor], labels: Tensor
) -> Tensor:
    """Compute how differently a run and its teachers order the background of each window.

    Both are scaled to mean 0 and standard deviation 1 over the background of a window: a teacher
    teaches no level. Planted and known targets do not count.

    Args:
        logits: (b, y, x), of the network alone.
        pixels: (b, CHANNELS, y, x), its input.
        shortcut: Factor on local RX, which the finished weights add to the logits.
        taught: (b, y, x) of each teacher.
        labels: uint8 (b, y, x), 0 to 4.

    Returns:
        () the mean squared difference, from 0 (the same order and spacing) to 4 (the reverse).
    """
    ours = logits + shortcut * pixels[:, LOCAL].mean(1)
    losses = []
    for number, label in enumerate(labels):
        counted = (label != IGNORED) & (label != ANOMALY)
        if counted.sum() < FEWEST:
            continue
        each = [_standard(theirs[number][counted]) for theirs in taught]
        target = _standard(torch.stack(each).sum(0))
        losses.append((_standard(ours[number][counted]) - target).square().mean())
    return torch.stack(losses).mean() if losses else logits.new_zeros(())


def _standard(values: Tensor) -> Tensor:
    return (values - values.mean()) / (values.std() + LEAST)
