"""UniADRS as a torch module: any width, any number of bands.

Sources: Li et al., "A Unified Remote Sensing Anomaly Detector Across Modalities and Scenes via
Deviation Relationship Learning", arXiv 2310.07511, and the behaviour of its published code
(github.com/Jingtao-Li-CVer/UniADRS, commit 0ca8a7c). Parameter names are the published ones, so a
published checkpoint loads without a table of names.

Two profiles share all parameters. ``corrected`` weighs each pixel's own neighbourhood, as the paper
describes; ``published`` repeats what the published code computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniadrs_scale.detector.passes import MARGIN, REACH, STEP, local_attention, scrambled_attention
from uniadrs_scale.detector.whitening import CHANNELS, LOCAL
from uniadrs_scale.errors import PlanError, WeightsError

Profile = Literal["corrected", "published"]
MINIMUM_SIDE = 16
"""Smallest side of a tile [px]: 2 px at 1/8, as a norm over a single pixel erases it."""
WIDEST = 4
"""Largest factor on the published channel counts."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The settings that a network is built from, before its weights are loaded."""

    width: float = 0.25
    """Factor on the published channel counts; 1 is the published network."""
    bands: int = 270
    """Input channels of the first convolution."""
    profile: Profile = "corrected"
    """``corrected`` or ``published``."""
    shortcut: float = 0.0
    """Factor on the mean local energy (the last channels of :mod:`.whitening`), which is added to
    the logit: the network then learns where local RX is wrong."""

    def __post_init__(self) -> None:
        if not 0 < self.width <= WIDEST:
            raise WeightsError(
                f"width={self.width} is outside (0, {WIDEST}]. Use 0.25 (s), 0.5 (b) or 1 (l)."
            )
        if self.bands < 1:
            raise WeightsError(f"bands={self.bands}: the first convolution needs at least 1 band.")
        if self.profile not in ("corrected", "published"):
            raise WeightsError(
                f"profile={self.profile!r} is unknown. Use 'corrected' or 'published'."
            )
        if self.shortcut and self.bands != CHANNELS:
            raise WeightsError(
                f"shortcut={self.shortcut} needs the {CHANNELS} channels of whitened bands, not "
                f"{self.bands} bands. Use shortcut=0."
            )

    def channels(self, published: int) -> int:
        """Return the published channel count at this width, at least 1."""
        return max(1, round(published * self.width))


def fold_stem(weight: Tensor, bands: int) -> Tensor:
    """Return the first convolution's weights for ``bands`` bands instead of repeats of them.

    The network sees band ``i % bands`` at its input ``i``. A convolution is linear in its input, so
    the weights of the repeats are added once instead of repeating the pixels 270 / bands times.

    Args:
        weight: (out, in, ky, kx), with bands <= in.
        bands: Bands of the scene, >= 1.

    Returns:
        (out, bands, ky, kx), differentiable with respect to ``weight``.

    Raises:
        PlanError: The scene has no band, or more than the convolution has inputs.
    """
    inputs = weight.shape[1]
    if not 1 <= bands <= inputs:
        raise PlanError(
            f"{bands} bands do not fold into a first convolution of {inputs} inputs, which takes 1 "
            f"to {inputs} bands. Split the scene into contiguous groups of bands."
        )
    if bands == inputs:
        return weight
    repeat = torch.arange(inputs, device=weight.device) % bands
    folded = weight.new_zeros(weight.shape[0], bands, *weight.shape[2:])
    return folded.index_add(1, repeat, weight)


def split_groups(x: Tensor, config: NetworkConfig) -> tuple[Tensor, ...]:
    """Split tiles (b, c, h, w) into contiguous groups of at most ``config.bands`` bands.

    Raises:
        PlanError: The published profile got more bands than it has inputs.
    """
    bands, groups = x.shape[1], -(-x.shape[1] // config.bands)
    if groups > 1 and config.profile == "published":
        raise PlanError(
            f"A tile of {bands} bands does not fit the published network of {config.bands} inputs. "
            "Use uniadrs_scale.detector.published.score, which slices the bands."
        )
    # Groups of equal size: a last group of a few bands would count as much as the others.
    return x.tensor_split(groups, 1)


def require_side(x: Tensor) -> None:
    """Raise PlanError if tiles (b, c, h, w) are too small for the network."""
    if min(x.shape[2:]) < MINIMUM_SIDE:
        raise PlanError(
            f"A tile of {x.shape[2]} x {x.shape[3]} px is too small: the network needs "
            f"{MINIMUM_SIDE} px on each side. Reflect the tile up to that size."
        )


def _norm_relu(x: Tensor) -> Tensor:
    return F.relu(F.instance_norm(x, eps=1e-5))


def _stack(inputs: int, outputs: tuple[int, ...], *, dilation: int = 1) -> nn.Sequential:
    """Build (conv3, norm, ReLU) for each channel count in ``outputs``."""
    layers: list[nn.Module] = []
    for channels in outputs:
        conv = nn.Conv2d(inputs, channels, 3, padding=dilation, dilation=dilation)
        layers += [conv, nn.InstanceNorm2d(channels), nn.ReLU()]
        inputs = channels
    return nn.Sequential(*layers)


def _enlarge(coarse: Tensor, like: Tensor, profile: Profile) -> Tensor:
    """Enlarge (b, c, h / 2, w / 2) to (b, c, h, w) of ``like``.

    The published code repeats pixels, which draws the map in squares of 2 x 2: neighbours inside a
    square differed 0.37 times as much as the mean, across two 1.65 times. Interpolation ends that,
    and the same weights gained .004 AUC on hyperspectral scenes, .023 on SAR.
    """
    # size= instead of scale_factor=2: a side not divisible by 8 loses a pixel on its way down.
    size = like.shape[2:]
    if profile == "published":
        return F.interpolate(coarse, size=size, mode="nearest")
    return F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)


class Attention(nn.Module):
    """Average of each pixel's neighbourhood, by weights computed from its features."""

    def __init__(self, channels: int, hidden: int, profile: Profile) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, hidden, REACH, dilation=STEP, padding=MARGIN)
        self.conv2 = nn.Conv2d(hidden, REACH**2, 1)
        self.attend = local_attention if profile == "corrected" else scrambled_attention

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, c, h, w)."""
        weights = self.conv2(self.conv1(x)).softmax(1)  # (b, 49, h, w)
        return self.attend(x, weights)


class Decoder(nn.Module):
    """One encoder level, merged with the coarser decoder and compared with its surroundings."""

    def __init__(self, inputs: int, outputs: int, config: NetworkConfig) -> None:
        super().__init__()
        self.profile: Profile = config.profile
        self.conv1 = nn.Conv2d(2 * inputs, inputs, 1)
        self.attn = Attention(inputs, config.channels(128), config.profile)
        self.conv2 = nn.Conv2d(2 * inputs, outputs, 1)
        # A side output of the published code. The score does not use it, but published decoders
        # have its weights.
        self.conv3 = nn.Conv2d(outputs, 1, 1).requires_grad_(requires_grad=False)

    def forward(self, encoded: Tensor, coarser: Tensor) -> Tensor:
        """Map (b, inputs, h, w) and (b, inputs, h or h / 2, ...) to (b, outputs, h, w)."""
        if coarser.shape[2:] != encoded.shape[2:]:
            coarser = _enlarge(coarser, encoded, self.profile)
        f = F.relu(self.conv1(torch.cat([_norm_relu(encoded), coarser], 1)))  # (b, inputs, h, w)
        return _norm_relu(self.conv2(torch.cat([f, self.attn(f)], 1)))  # (b, outputs, h, w)


class NormalityExtractor(nn.Module):
    """Encoder and decoder: the look of a normal neighbourhood, at every scale."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        c = [config.channels(n) for n in (64, 128, 256, 512, 512, 1024)]
        self.normality_encoder_1 = nn.Sequential(nn.MaxPool2d(2), *_stack(c[0], (c[1],) * 2))
        self.normality_encoder_2 = nn.Sequential(nn.MaxPool2d(2), *_stack(c[1], (c[2],) * 3))
        self.normality_encoder_3 = nn.Sequential(nn.MaxPool2d(2), *_stack(c[2], (c[3],) * 3))
        # The identity replaces the published pooling of size 1, so that names stay the same.
        self.normality_encoder_4 = nn.Sequential(
            nn.Identity(), *_stack(c[3], (c[4],) * 3, dilation=2)
        )
        self.normality_encoder_5 = nn.Sequential(
            nn.Conv2d(c[4], c[5], 3, padding=12, dilation=12), nn.Conv2d(c[5], c[5], 3, padding=1)
        )
        self.normality_decoders = nn.ModuleList(
            Decoder(c[5 - i], c[4 - i], config) for i in range(5)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c0, h, w) to (b, c0, h / 2, w / 2)."""
        e1 = self.normality_encoder_1(x)  # (b, c1, h / 2, w / 2)
        e2 = self.normality_encoder_2(e1)  # (b, c2, h / 4, w / 4)
        e3 = self.normality_encoder_3(e2)  # (b, c3, h / 8, w / 8)
        e4 = self.normality_encoder_4(e3)  # (b, c4, h / 8, w / 8)
        decoded: Tensor = self.normality_encoder_5(e4)  # (b, c5, h / 8, w / 8)
        e5 = decoded
        for decoder, encoded in zip(self.normality_decoders, (e5, e4, e3, e2, e1), strict=True):
            decoded = decoder(encoded, decoded)
        return decoded


class Head(nn.Module):
    """Comparison of a pixel's own description with the normality around it."""

    def __init__(self, channels: int, profile: Profile) -> None:
        super().__init__()
        self.profile: Profile = profile
        self.conv1 = nn.Conv2d(2 * channels, channels, 1)
        self.conv2 = nn.Conv2d(channels, 1, 1)

    def forward(self, stem: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Map (b, c, h, w), (b, c, h / 2, w / 2) to logit (b, 1, h, w), features (b, c, h, w)."""
        decoded = _enlarge(decoded, stem, self.profile)
        f = self.conv1(torch.cat([_norm_relu(stem), decoded], 1))
        return self.conv2(F.relu(f)), f


class UniADRS(nn.Module):
    """The network: scores how strongly each pixel deviates from its surroundings.

    Forward changes no state, so threads may share one instance for inference.
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        c0 = self.config.channels(64)
        self.spectral_stem = _stack(self.config.bands, (c0, c0))
        self.normality_extractor = NormalityExtractor(self.config)
        self.features_DN_combine = Head(c0, self.config.profile)

    def forward(self, x: Tensor, terms: Tensor | None = None) -> Tensor:
        """Score tiles (b, c, h, w), any c >= 1, h and w >= 16: (b, 1, h, w) in 0..1.

        ``terms`` (b, 1, h, w) are added to the logits.

        Raises:
            PlanError: A side is too short, or the published profile got too many bands.
        """
        logits = torch.stack([self.logits(group) for group in split_groups(x, self.config)])
        return (logits if terms is None else logits + terms).sigmoid().mean(0)

    def logits(self, x: Tensor) -> Tensor:
        """Return scores before the sigmoid (b, 1, h, w); c <= bands."""
        return self.described(x)[0]

    def described(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (b, 1, h, w) and features (b, c0, h, w) before the sigmoid; c <= bands."""
        require_side(x)
        stem = self._stem(x)  # (b, c0, h, w)
        logit, features = self.features_DN_combine(stem, self.normality_extractor(stem))
        if self.config.shortcut:
            logit = logit + self.config.shortcut * x[:, LOCAL].mean(1, keepdim=True)
        return logit, features

    def _stem(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, c0, h, w), with c <= bands."""
        if self.config.profile == "published":
            # Bands are repeated as published, although folding is equal in exact arithmetic: the
            # golden values differ from float64 by 1.7e-5, so only the same float32 additions in
            # the same order agree to better than that.
            repeat = torch.arange(self.config.bands, device=x.device) % x.shape[1]
            stem: Tensor = self.spectral_stem(x[:, repeat])
            return stem
        first = cast("nn.Conv2d", self.spectral_stem[0])
        stem = F.conv2d(x, fold_stem(first.weight, x.shape[1]), first.bias, padding=1)
        for layer in list(self.spectral_stem)[1:]:
            stem = layer(stem)
        return stem
