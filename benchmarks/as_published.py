"""The published forward pass, computed as the published code computes it, to compare with.

A plain re-implementation of the behaviour of github.com/Jingtao-Li-CVer/UniADRS, commit 0ca8a7c:
bands repeated up to 270 and all of them convolved, channels first, unfold in the attention,
concatenations copied. Checked against the golden values by ``tests/test_benchmarks.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

BANDS = 270
EXTRACTOR = "normality_extractor."
LEVELS = {1: (1, 4), 2: (1, 4, 7), 3: (1, 4, 7), 4: (1, 4, 7)}
"""Numbers of the convolutions of each encoder in the published code."""


class PublishedForward:
    """A function of (b, c, h, w) to scores (b, 1, h, w), c <= 270, sides divisible by 8."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state

    def __call__(self, x: Tensor) -> Tensor:
        """Score tiles."""
        x = x[:, torch.arange(BANDS) % x.shape[1]]
        for number in (0, 3):
            x = self._layer(f"spectral_stem.{number}", x)
        levels = [x]
        for level, numbers in LEVELS.items():
            if level < 4:  # the fourth stays at 1/8
                x = F.max_pool2d(x, 2)
            for number in numbers:
                name = f"{EXTRACTOR}normality_encoder_{level}.{number}"
                x = self._layer(name, x, dilation=1 if level < 4 else 2)
            levels.append(x)
        name = f"{EXTRACTOR}normality_encoder_5."
        x = self._conv(f"{name}0", x, padding=12, dilation=12)
        x = self._conv(f"{name}1", x, padding=1)
        levels.append(x)
        for number in range(5):
            x = self._decoder(f"{EXTRACTOR}normality_decoders.{number}.", levels.pop(), x)
        x = self._enlarged(x, levels[0])
        f = self._conv("features_DN_combine.conv1", torch.cat([self._norm(levels[0]), x], 1))
        return torch.sigmoid(self._conv("features_DN_combine.conv2", F.relu(f)))

    def _conv(self, name: str, x: Tensor, *, padding: int = 0, dilation: int = 1) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.conv2d(x, weight, bias, padding=padding, dilation=dilation)

    def _layer(self, name: str, x: Tensor, *, dilation: int = 1) -> Tensor:
        return self._norm(self._conv(name, x, padding=dilation, dilation=dilation))

    @staticmethod
    def _norm(x: Tensor) -> Tensor:
        return F.relu(F.instance_norm(x))

    @staticmethod
    def _enlarged(x: Tensor, like: Tensor) -> Tensor:
        return x if x.shape == like.shape else F.interpolate(x, size=like.shape[2:])

    def _decoder(self, name: str, encoded: Tensor, decoded: Tensor) -> Tensor:
        if decoded.shape[2:] != encoded.shape[2:]:
            decoded = self._enlarged(decoded, encoded)
        f = F.relu(self._conv(f"{name}conv1", torch.cat([self._norm(encoded), decoded], 1)))
        a = torch.cat([f, self._attention(f"{name}attn.", f)], 1)
        return self._norm(self._conv(f"{name}conv2", a))

    def _attention(self, name: str, f: Tensor) -> Tensor:
        """Multiply unfolded features and weights in the published order of their memory."""
        batch, channels = f.shape[:2]
        hidden = self._conv(f"{name}conv1", f, padding=6, dilation=2)
        weights = self._conv(f"{name}conv2", hidden).softmax(1)
        copies = F.unfold(f, 7, dilation=2, padding=6).view(batch, channels, -1, 49)
        return (copies * weights.reshape(batch, 1, -1, 49)).sum(-1).view(f.shape)
