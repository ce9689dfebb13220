"""The network for inference on a CPU: the same function as :class:`network.UniADRS`, faster.

What a trained network allows, and training would not:

- Biases before an instance norm cancel, and are left out.
- A 1x1 convolution of a concatenation is the sum of two; that of the coarser half is taken before
  its enlargement, on a quarter of the pixels, as both are linear and mix nothing of each other.
- The attention too mixes pixels, never channels: the convolution after it comes before it, where
  it has fewer channels and shares one product with the other half of its concatenation.
- The two convolutions of the attention's logits are one where that is cheaper.
- Everything between convolutions runs in one pass each (:mod:`kernels`), channels last.

In float32 it differs from the module by rounding only. bfloat16 holds what lies between the
layers; norms, interpolation and attention compute in float32.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from uniadrs_scale import kernels
from uniadrs_scale.attention import MARGIN, REACH, STEP
from uniadrs_scale.network import fold_stem, require_side, split_groups
from uniadrs_scale.whitening import LOCAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniadrs_scale.network import Decoder, Head, UniADRS

LANES = 16
"""oneDNN computes output channels in blocks of this many."""


class _Convolution:
    """A convolution with weights in the layout and type of its input; the size stays."""

    def __init__(
        self,
        weight: Tensor,
        dtype: torch.dtype,
        *,
        bias: Tensor | None = None,
        padding: int = 0,
        dilation: int = 1,
    ) -> None:
        self.weight = weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.padding, self.dilation = padding, dilation

    def __call__(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight, self.bias, padding=self.padding, dilation=self.dilation)
        return y.contiguous(memory_format=torch.channels_last)


def _of(layer: nn.Module, dtype: torch.dtype, *, bias: bool = False) -> _Convolution:
    """The convolution of ``layer``; without its bias where a norm follows."""
    conv = cast("nn.Conv2d", layer)
    return _Convolution(
        conv.weight,
        dtype,
        bias=conv.bias if bias else None,
        padding=cast("tuple[int, int]", conv.padding)[0],
        dilation=conv.dilation[0],
    )


def _convolutions(stack: nn.Module, dtype: torch.dtype) -> list[_Convolution]:
    return [_of(m, dtype) for m in cast("nn.Sequential", stack) if isinstance(m, nn.Conv2d)]


class _Combined:
    """ReLU(conv1([fine, enlarged coarse])) without the concatenation."""

    def __init__(self, layer: nn.Conv2d, dtype: torch.dtype, *, interpolated: bool) -> None:
        half = layer.weight.shape[1] // 2
        self.fine = _Convolution(layer.weight[:, :half], dtype)
        self.coarse = _Convolution(layer.weight[:, half:], dtype)
        self.bias = cast("Tensor", layer.bias).detach().float().numpy()
        self.interpolated = interpolated

    def __call__(self, fine: Tensor, coarse: Tensor) -> Tensor:
        x, added = self.fine(fine), self.coarse(coarse)
        rows, cols = (
            _enlargement(small, large, interpolated=self.interpolated)
            for small, large in zip(added.shape[2:], x.shape[2:], strict=True)
        )
        kernels.add_enlarged(_array(x), _array(added), rows, cols, self.bias)
        return x


class _Decoder:
    """As :class:`network.Decoder`."""

    def __init__(self, layer: Decoder, dtype: torch.dtype) -> None:
        corrected = layer.profile == "corrected"
        self.combined = _Combined(layer.conv1, dtype, interpolated=corrected)
        self.logits = _logits(layer.attn.conv1, layer.attn.conv2, dtype)
        self.attend = kernels.attend if corrected else kernels.attend_scrambled
        half = layer.conv2.weight.shape[1] // 2
        own, near = layer.conv2.weight[:, :half], layer.conv2.weight[:, half:]
        self.project = _Convolution(torch.cat([own, near]), dtype)

    def __call__(self, encoded: Tensor, coarser: Tensor) -> Tensor:
        f = self.combined(_norm_relu(encoded), coarser)  # (b, inputs, h, w)
        logits = f
        for convolution in self.logits:
            logits = convolution(logits)  # (b, 49 or 64, h, w)
        x = self.project(f)  # (b, 2 outputs, h, w)
        out = _like(x, x.shape[1] // 2, x.shape[2:])
        self.attend(_array(x), _array(logits), _array(out))
        return _norm_relu(out)  # (b, outputs, h, w)


def _logits(first: nn.Conv2d, second: nn.Conv2d, dtype: torch.dtype) -> list[_Convolution]:
    """The attention's two convolutions, or one: nothing lies between them."""
    options = {"padding": MARGIN, "dilation": STEP}
    blocks = -(-(REACH**2) // LANES) * LANES
    if len(first.weight) < blocks:
        return [
            _Convolution(first.weight, dtype, bias=first.bias, **options),
            _Convolution(second.weight, dtype, bias=second.bias),
        ]
    outer = second.weight[:, :, 0, 0].double()
    weight = torch.einsum("nh,hcyx->ncyx", outer, first.weight.double())
    bias = outer @ cast("Tensor", first.bias).double() + cast("Tensor", second.bias).double()
    # Whole blocks: with 49 output channels oneDNN takes 1.2 times as long as with 64.
    missing = blocks - REACH**2
    weight, bias = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, missing)), F.pad(bias, (0, missing))
    return [_Convolution(weight, dtype, bias=bias, **options)]


class FastNetwork:
    """Scores tiles as the module that it was made from, which is not needed afterwards.

    Calling it changes nothing, so threads may share it. Batches have no effect on a tile's bits;
    the number of torch's threads may have.
    """

    def __init__(self, module: UniADRS, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.dtype = module.config, dtype
        extractor = module.normality_extractor
        with torch.no_grad():
            stem = cast("nn.Conv2d", module.spectral_stem[0])
            self._stem_weight = stem.weight.detach().float()
            self._folded = lru_cache(maxsize=8)(self._fold)
            self._stem = _of(module.spectral_stem[3], dtype)
            self._encoders = [
                _convolutions(encoder, dtype)
                for encoder in (
                    extractor.normality_encoder_1,
                    extractor.normality_encoder_2,
                    extractor.normality_encoder_3,
                    extractor.normality_encoder_4,
                )
            ]
            self._deepest = [_of(m, dtype, bias=True) for m in extractor.normality_encoder_5]
            self._decoders = [
                _Decoder(cast("Decoder", layer), dtype) for layer in extractor.normality_decoders
            ]
            head: Head = module.features_DN_combine
            corrected = self.config.profile == "corrected"
            self._head = _Combined(head.conv1, dtype, interpolated=corrected)
            self._score = _of(head.conv2, dtype, bias=True)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Scores (b, 1, h, w) in 0..1, float32, of tiles (b, c, h, w), c >= 1, h and w >= 16.

        Raises:
            PlanError: As the module.
        """
        logits = [self._logits(group) for group in split_groups(x, self.config)]
        return torch.stack(logits).sigmoid().mean(0)

    def _fold(self, bands: int) -> _Convolution:
        return _Convolution(fold_stem(self._stem_weight, bands), self.dtype, padding=1)

    def _logits(self, x: Tensor) -> Tensor:
        require_side(x)
        seen = x
        x = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        x = _norm_relu(self._folded(x.shape[1])(x))
        levels = [_norm_relu(self._stem(x))]  # (b, c0, h, w)
        for number, encoder in enumerate(self._encoders):
            x = levels[-1] if number == 3 else _halved(levels[-1])  # noqa: PLR2004 - the last stays at 1/8
            for convolution in encoder:
                x = _norm_relu(convolution(x))
            levels.append(x)
        for convolution in self._deepest:
            x = convolution(x)
        decoded, encoded = x, x.clone(memory_format=torch.channels_last)
        for decoder in self._decoders:
            decoded = decoder(encoded, decoded)
            encoded = levels.pop()
        logit = self._score(self._head(_norm_relu(encoded), decoded)).float()
        if self.config.shortcut:
            logit += self.config.shortcut * seen[:, LOCAL].mean(1, keepdim=True)
        return logit


def fast_ring_mean(values: Tensor, inner: int, outer: int) -> Tensor:
    """As :func:`rings.ring_mean`, on a CPU: in one pass, where matrix products take four."""
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    planes = values.contiguous().flatten(0, 1).numpy()
    kernels.ring_means(planes, inner, outer, out.flatten(0, 1).numpy())
    return out


class _Axis(NamedTuple):
    first: NDArray[np.int64]
    weight: NDArray[np.float32]


@lru_cache(maxsize=64)
def _enlargement(small: int, large: int, *, interpolated: bool) -> _Axis:
    """For each of ``large`` samples the one of ``small`` before it, and the weight of the next.

    As torch's ``interpolate`` with ``bilinear`` (no aligned corners), or with ``nearest``.
    """
    if not interpolated:
        nearest = np.arange(large) * small // large
        return _Axis(nearest, np.zeros(large, np.float32))
    place = np.maximum((np.arange(large) + 0.5) * (small / large) - 0.5, 0)
    first = np.minimum(place.astype(np.int64), small - 1)
    return _Axis(first, (place - first).astype(np.float32))


def _array(x: Tensor) -> NDArray[Any]:
    """The (b, y, x, c) memory of a tensor in channels last; bfloat16 as its bits."""
    bits = x.view(torch.uint16) if x.dtype == torch.bfloat16 else x
    array: NDArray[Any] = bits.permute(0, 2, 3, 1).numpy()
    return array


def _like(x: Tensor, channels: int, size: torch.Size) -> Tensor:
    return torch.empty(
        (x.shape[0], channels, *size), dtype=x.dtype, memory_format=torch.channels_last
    )


def _norm_relu(x: Tensor) -> Tensor:
    """In place."""
    kernels.norm_relu(_array(x))
    return x


def _halved(x: Tensor) -> Tensor:
    out = _like(x, x.shape[1], torch.Size(n // 2 for n in x.shape[2:]))
    kernels.halve(_array(x), _array(out))
    return out
