"""The network for inference: the same function as :class:`.network.UniADRS`, faster.

A trained network allows what training does not:

- Biases before an instance norm cancel, and are dropped.
- A 1x1 convolution of a concatenation is the sum of two. That of the coarser half runs before its
  enlargement, on a quarter of the pixels: one mixes channels only, the other pixels only.
- The attention too mixes pixels only: the convolution after it runs before it, on fewer channels,
  and shares one product with the other half of its concatenation.
- The two convolutions of the attention's logits become one if that is cheaper.
- Each step between convolutions is one pass over memory (:mod:`.passes`), channels last: in numba
  on a CPU, in Triton on a GPU.

In float32 it differs from the module by rounding only. In bfloat16 the tensors between layers are
bfloat16; norms, interpolation and attention compute in float32.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniadrs_scale.detector.network import fold_stem, require_side, split_groups
from uniadrs_scale.detector.passes import MARGIN, NUMBA, REACH, STEP
from uniadrs_scale.detector.whitening import ENERGIES, LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uniadrs_scale.detector.network import Decoder, Head, UniADRS
    from uniadrs_scale.detector.passes import Mode, Passes

LANES = 16
"""Output channels that oneDNN computes at a time."""


class _Place(NamedTuple):
    """The device, type and passes that a network computes with."""

    dtype: torch.dtype
    device: torch.device
    passes: Passes


class _Convolution:
    """A convolution with weights in the layout, type and place of its input; the size stays.

    With ``spare`` it may get output channels of 0 at its end, for speed.
    """

    def __init__(
        self,
        weight: Tensor,
        place: _Place,
        *,
        bias: Tensor | None = None,
        padding: int = 0,
        dilation: int = 1,
        spare: bool = False,
    ) -> None:
        if spare:
            missing = -len(weight) % place.passes.multiple
            weight = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, missing))
            bias = None if bias is None else F.pad(bias, (0, missing))
        weight = weight.detach().to(place.device, place.dtype)
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.detach().to(place.device, place.dtype)
        # torch on one thread gives a kernel of 1 px to oneDNN only if it is dilated, which means
        # nothing for 1 px: otherwise it takes up to five times as long with few channels.
        one_pixel = weight.shape[-1] == 1 and place.device.type == "cpu"
        self.padding, self.dilation = padding, 2 if one_pixel else dilation

    def __call__(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight, self.bias, padding=self.padding, dilation=self.dilation)
        return y.contiguous(memory_format=torch.channels_last)


def _of(layer: nn.Module, place: _Place, *, bias: bool = False) -> _Convolution:
    """Return the convolution of ``layer``; its bias is dropped if a norm follows."""
    conv = cast("nn.Conv2d", layer)
    return _Convolution(
        conv.weight,
        place,
        bias=conv.bias if bias else None,
        padding=cast("tuple[int, int]", conv.padding)[0],
        dilation=conv.dilation[0],
    )


def _convolutions(stack: nn.Module, place: _Place) -> list[_Convolution]:
    return [_of(m, place) for m in cast("nn.Sequential", stack) if isinstance(m, nn.Conv2d)]


class _Combined:
    """ReLU(conv1([fine, enlarged coarse])) without the concatenation."""

    def __init__(self, layer: nn.Conv2d, place: _Place, mode: Mode) -> None:
        half = layer.weight.shape[1] // 2
        self.add_enlarged, self.mode = place.passes.add_enlarged, mode
        self.fine = _Convolution(layer.weight[:, :half], place)
        self.coarse = _Convolution(layer.weight[:, half:], place)
        self.bias = cast("Tensor", layer.bias).detach().to(place.device, torch.float32)

    def __call__(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.add_enlarged(self.fine(fine), self.coarse(coarse), self.bias, self.mode)


class _Decoder:
    """The function of :class:`.network.Decoder`."""

    def __init__(self, layer: Decoder, place: _Place) -> None:
        self.passes = place.passes
        corrected = layer.profile == "corrected"
        self.attend = self.passes.attend if corrected else self.passes.attend_scrambled
        self.combined = _Combined(layer.conv1, place, _mode(layer))
        self.logits = _logits(layer.attn.conv1, layer.attn.conv2, place)
        half = layer.conv2.weight.shape[1] // 2
        own, near = layer.conv2.weight[:, :half], layer.conv2.weight[:, half:]
        self.project = _Convolution(torch.cat([own, near]), place)

    def __call__(self, encoded: Tensor, coarser: Tensor) -> Tensor:
        f = self.combined(self.passes.norm_relu(encoded), coarser)  # (b, inputs, h, w)
        logits = f
        for convolution in self.logits:
            logits = convolution(logits)  # (b, 49 to 64, h, w)
        # (b, 2 outputs, h, w) -> (b, outputs, h, w)
        return self.passes.norm_relu(self.attend(self.project(f), logits))


def _mode(layer: Decoder | Head) -> Mode:
    return "bilinear" if layer.profile == "corrected" else "nearest"


def _logits(first: nn.Conv2d, second: nn.Conv2d, place: _Place) -> list[_Convolution]:
    """Return the attention's two convolutions, or one that equals both."""
    wide = partial(_Convolution, padding=MARGIN, dilation=STEP)
    blocks = -(-(REACH**2) // LANES) * LANES
    if len(first.weight) < blocks:
        return [
            wide(first.weight, place, bias=first.bias),
            _Convolution(second.weight, place, bias=second.bias, spare=True),
        ]
    outer = second.weight[:, :, 0, 0].double()
    weight = torch.einsum("nh,hcyx->ncyx", outer, first.weight.double())
    bias = outer @ cast("Tensor", first.bias).double() + cast("Tensor", second.bias).double()
    # Whole blocks: oneDNN takes 1.2 times as long with 49 output channels as with 64.
    missing = blocks - REACH**2
    weight, bias = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, missing)), F.pad(bias, (0, missing))
    return [wide(weight, place, bias=bias)]


class FastNetwork:
    """The function of a module, which is not needed afterwards.

    Calls change no state, so threads may share it. A tile's bits do not depend on its batch, but
    may depend on the number of torch's threads. A network of ``whitened`` bands takes
    :func:`.whitening.channels`, which may lack components.
    """

    def __init__(
        self,
        module: UniADRS,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        passes: Passes = NUMBA,
        *,
        whitened: bool = False,
    ) -> None:
        self.config, self._passes, self._whitened = module.config, passes, whitened
        place = self._place = _Place(dtype, device or torch.device("cpu"), passes)
        extractor = module.normality_extractor
        with torch.no_grad():
            stem = cast("nn.Conv2d", module.spectral_stem[0])
            self._stem_weight = stem.weight.detach().float()
            self._folded = lru_cache(maxsize=8)(self._fold)
            self._stem = _of(module.spectral_stem[3], place)
            self._encoders = [
                _convolutions(encoder, place)
                for encoder in (
                    extractor.normality_encoder_1,
                    extractor.normality_encoder_2,
                    extractor.normality_encoder_3,
                    extractor.normality_encoder_4,
                )
            ]
            self._deepest = [_of(m, place, bias=True) for m in extractor.normality_encoder_5]
            self._decoders = [
                _Decoder(cast("Decoder", layer), place) for layer in extractor.normality_decoders
            ]
            head: Head = module.features_DN_combine
            self._head = _Combined(head.conv1, place, _mode(head))
            self._score = _Convolution(head.conv2.weight, place, bias=head.conv2.bias, spare=True)

    @torch.no_grad()
    def __call__(self, x: Tensor, add: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Score tiles (b, c, h, w), c >= 1, h and w >= 16: float32 (b, 1, h, w) in 0..1.

        ``add`` changes logits (b, 1, h, w) before they become scores: see :func:`.terms.added`.

        Raises:
            PlanError: As the module raises it.
        """
        logits = [self._logits(group) for group in split_groups(x, self.config)]
        if add is not None:
            logits = [add(logit) for logit in logits]
        return torch.stack(logits).sigmoid().mean(0)

    def _fold(self, bands: int) -> _Convolution:
        weight = self._stem_weight
        if self._whitened:
            there = weight[:, : bands + ENERGIES.start], weight[:, ENERGIES]
            return _Convolution(torch.cat(there, 1), self._place, padding=1)
        return _Convolution(fold_stem(weight, bands), self._place, padding=1)

    def _logits(self, x: Tensor) -> Tensor:
        require_side(x)
        norm_relu, halved = self._passes.norm_relu, self._passes.halved
        seen = x
        x = self._passes.channels_last(x.to(self._place.dtype))
        x = norm_relu(self._folded(x.shape[1])(x))
        levels = [norm_relu(self._stem(x))]  # (b, c0, h, w)
        for encoder in self._encoders:
            last = encoder is self._encoders[-1]  # it stays at 1/8
            x = levels[-1] if last else halved(levels[-1])
            for convolution in encoder:
                x = norm_relu(convolution(x))
            levels.append(x)
        for convolution in self._deepest:
            x = convolution(x)
        decoded, encoded = x, x.clone(memory_format=torch.channels_last)
        for decoder in self._decoders:
            decoded = decoder(encoded, decoded)
            encoded = levels.pop()
        logit = self._score(self._head(norm_relu(encoded), decoded))[:, :1].float()
        if self.config.shortcut:
            logit += self.config.shortcut * seen[:, LOCAL].mean(1, keepdim=True)
        return logit


def for_inference(
    module: UniADRS,
    dtype: torch.dtype,
    device: torch.device,
    passes: Passes,
    *,
    whitened: bool,
) -> Callable[..., Tensor]:
    """Return the fastest function of ``module`` on ``device``, as exact as its profile needs."""
    # Published figures need the published order of additions: on weights that resemble noise any
    # other order differs by 3e-5, as much as the published one differs from exact arithmetic.
    if dtype == torch.float32 and module.config.profile == "published" and not whitened:
        return cast("Callable[..., Tensor]", module.to(device).eval())
    return FastNetwork(module, dtype, device, passes, whitened=whitened)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread of the CPU inside the context.

    The number of threads decides the order of additions (2.6e-8). Tiles run in parallel, so one
    thread per tile is also fastest. The setting belongs to the calling thread.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def exact_gpu() -> Iterator[None]:
    """Make float32 on an NVIDIA GPU float32 (not TF32), with sums in one order, in the context.

    ``benchmark`` is off: cuDNN would time its algorithms in each thread and process, and might
    choose different ones, which differ in their last bits. The settings belong to the process, so
    only one thread at a time may be inside.
    """
    products = torch.backends.cuda.matmul
    # The older name raises if a program has used the newer one, and torch 2.8 has only the older.
    new = hasattr(products, "fp32_precision")
    name, exact = ("fp32_precision", "ieee") if new else ("allow_tf32", False)
    before = getattr(products, name)
    # All are named, since `flags` switches cuDNN off by default.
    cudnn = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": False}
    setattr(products, name, exact)
    try:
        with torch.backends.cudnn.flags(**cudnn):
            yield
    finally:
        setattr(products, name, before)
