"""Checkpoints and tiled inference of the published UniADRS code, reproduced with its errors.

Only to compare with published numbers: the library's own inference is :class:`.Detector` over the
lattice. Source: the behaviour of github.com/Jingtao-Li-CVer/UniADRS, commit 0ca8a7c, pinned by
golden values.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from uniadrs_scale.detector.network import NetworkConfig, UniADRS
from uniadrs_scale.errors import SceneError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    Network = Callable[[Tensor], Tensor]

BANDS = 270
"""Input channels of the published network."""
DECODERS = "normality_extractor.normality_decoders."
DECODER_SEED = 0
"""Seed of decoders that a checkpoint lacks."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """The three numbers of the published tiled inference."""

    patch: int
    """Side of the pixels that a tile contributes, and the step between tiles [px]."""
    pad: int
    """Width of the frame that the network also sees [px]."""
    size: int
    """Side to which patch + 2 pad is resized for the network [px]."""

    def __post_init__(self) -> None:
        if self.patch < 1 or self.pad < 0 or self.size < 1:
            raise SceneError(
                f"patch={self.patch}, pad={self.pad}, size={self.size} make no tile: patch and "
                "size must be at least 1 px and pad at least 0. Use one of published.PRESETS."
            )


PRESETS: dict[str, Tiling] = {
    "hyperspectral": Tiling(patch=50, pad=40, size=128),
    "visible": Tiling(patch=120, pad=20, size=256),
    "infrared": Tiling(patch=120, pad=40, size=224),
    "sar": Tiling(patch=80, pad=140, size=224),
    "lowlight": Tiling(patch=100, pad=60, size=224),
}
"""Settings of the published code, by modality."""


def network(state: Mapping[str, Tensor]) -> UniADRS:
    """Build the published network with the weights of a published checkpoint, for inference.

    The published code keeps its five decoders in a plain list, so its checkpoints lack them: at
    published inference they were random. Here they are drawn from a fixed seed, with a warning,
    because the scores depend on them.

    Args:
        state: Name to weights, as ``torch.load(..., weights_only=True)`` returns it.

    Returns:
        A module from (b, c, h, w) to (b, 1, h, w) in 0..1, for c <= 270, h and w divisible by 8.

    Raises:
        WeightsError: A weight is missing, unknown or of another shape.
    """
    decoders = any(name.startswith(DECODERS) for name in state)
    # fork_rng: building a network must not change the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(DECODER_SEED)
        module = UniADRS(NetworkConfig(width=1.0, bands=BANDS, profile="published"))
    expected = module.state_dict()
    _require_same(
        {k: v for k, v in expected.items() if decoders or not k.startswith(DECODERS)}, state
    )
    if not decoders:
        warnings.warn(
            "The checkpoint has no decoders: the published code does not save them. They are drawn "
            f"from seed {DECODER_SEED}, so scores do not equal published figures.",
            stacklevel=2,
        )
    module.load_state_dict({**expected, **state})
    return module.eval()


def _require_same(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise WeightsError for a checkpoint of another network, with the first difference."""
    advice = "Give a checkpoint of the published UniADRS, or .safetensors made by model/train.py."
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(state.keys() - expected.keys())
    if missing or unknown:
        raise WeightsError(
            f"The checkpoint lacks {len(missing)} weights of the published network "
            f"(first: {missing[:1]}) and has {len(unknown)} unknown ones (first: {unknown[:1]}). "
            f"{advice}"
        )
    for name, weight in expected.items():
        if state[name].shape != weight.shape:
            raise WeightsError(
                f"'{name}' of the checkpoint has shape {tuple(state[name].shape)}, but the "
                f"published network needs {tuple(weight.shape)}. {advice}"
            )


def score(
    image: NDArray[np.float32], network: Network, *, patch: int, pad: int, size: int
) -> NDArray[np.float32]:
    """Score an image by the published tiled inference.

    Of more than 270 bands, slice j has bands j to j + 269 and the last slice the last 270. Slices
    are joined by a running (a + b) / 2 that starts at 0, which halves them. The published code runs
    a single slice through the same average; as it scales scores to 0..1 afterwards, that has no
    effect, and is omitted here.

    Args:
        image: (c, h, w), in the units that the network was trained on (published: 0..1).
        network: Function of (1, c, size, size) to (1, 1, size, size), c <= 270.
        patch: See :class:`Tiling`, as ``pad`` and ``size``.
        pad: See ``patch``.
        size: See ``patch``.

    Returns:
        (h, w), in 0..1 for one slice.

    Raises:
        SceneError: The image is smaller than a reflection needs, or the numbers make no tile.
    """
    tiling = Tiling(patch, pad, size)
    bands = image.shape[0]
    pixels = torch.from_numpy(np.ascontiguousarray(image, np.float32))
    if bands <= BANDS:
        return _tiled(pixels, network, tiling).numpy()
    last = bands // BANDS
    total = torch.zeros(image.shape[1:])
    for j in range(last + 1):
        part = pixels[-BANDS:] if j == last else pixels[j : j + BANDS]
        total = (total + _tiled(part, network, tiling)) / 2
    return total.numpy()


def _tiled(image: Tensor, network: Network, tiling: Tiling) -> Tensor:
    """Score one slice of bands (c, h, w): (h, w)."""
    height, width = image.shape[1:]
    patch, pad = tiling.patch, tiling.pad
    rows, cols = height // patch + 1, width // patch + 1
    # Reflected twice, as published: first up to whole patches, then by pad on every side.
    padded = _reflect(image, (0, cols * patch - width, 0, rows * patch - height))
    padded = _reflect(padded, (pad, pad, pad, pad))
    scores = torch.zeros(rows * patch, cols * patch)
    for y in range(0, rows * patch, patch):
        for x in range(0, cols * patch, patch):
            tile = padded[None, :, y : y + patch + 2 * pad, x : x + patch + 2 * pad]
            with torch.inference_mode():
                small = network(F.interpolate(tile, (tiling.size, tiling.size)))
                scored = F.interpolate(small, tile.shape[2:])
            inside = scored[0, 0, pad : pad + patch, pad : pad + patch]
            scores[y : y + patch, x : x + patch] = inside
    return scores[:height, :width]


def _reflect(image: Tensor, sides: tuple[int, int, int, int]) -> Tensor:
    """Reflect (c, h, w) by (left, right, top, bottom) pixels."""
    height, width = image.shape[1:]
    if max(sides[:2]) >= width or max(sides[2:]) >= height:
        raise SceneError(
            f"An image of {height} x {width} px cannot be reflected by {sides} px (left, right, "
            "top, bottom): a reflection must be shorter than the image. Use a smaller patch or pad."
        )
    return F.pad(image[None], sides, mode="reflect")[0]
