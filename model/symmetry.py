"""Networks that score a scene turned by 180 degrees as they score the scene.

A kernel that equals itself turned by 180 degrees gives turned features for a turned scene. So do
pooling and bilinear enlargement of even sides, and attention whose weights for opposite neighbours
are equal. What is left of the difference are the positions of tiles and odd sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from uniadrs_scale.detector.network import Attention

if TYPE_CHECKING:
    from torch import Tensor, nn

KERNEL = (-2, -1)
"""Dimensions of a kernel (out, in, y, x) that a half turn flips."""
NEIGHBOURS = (0,)
"""Dimension of the attention's last layer: its outputs are the neighbours, row by row."""


def keep(network: nn.Module) -> None:
    """Make a network symmetric, and its gradients, so that a descent keeps it so."""
    last = {
        id(p) for m in network.modules() if isinstance(m, Attention) for p in m.conv2.parameters()
    }
    with torch.no_grad():
        for parameter in network.parameters():
            dims = NEIGHBOURS if id(parameter) in last else KERNEL
            if len(dims) > parameter.dim() or not parameter.requires_grad:
                continue
            parameter.copy_(_even(parameter, dims))
            parameter.register_hook(lambda gradient, dims=dims: _even(gradient, dims))


def _even(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return the mean of values and their flip."""
    return (values + values.flip(dims)) / 2
