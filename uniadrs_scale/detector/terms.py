"""Terms that a preset adds to the network's logit, computed from the same channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from uniadrs_scale.detector.whitening import COMPONENTS, LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from uniadrs_scale.core.presets import Terms

LEADING = 2
"""Components that the area term sees: with a third one, it finds less."""
SQUARE, LINE = 5, 15
"""Side of a square and length of a line [px]: a structure that holds neither is small."""
USUAL = 2.0
"""Area at which the logit stays as it is, in standard deviations."""


def area(components: Tensor) -> Tensor:
    """Return how far small structures stand out from their surroundings, brighter or darker.

    That is the sum of the differences from an opening and from a closing of the leading
    components. AED does so by area filters of 25 px (Kang et al., IEEE TGRS 55, 2017); these need
    maxima only, and so are equal to the bit on any device.

    Args:
        components: (n, component, y, x), each of standard deviation 1.

    Returns:
        (n, 1, y, x), in -USUAL..LIMIT - USUAL.
    """
    leading = components[:, :LEADING]
    both = torch.cat([leading, -leading], 1)
    return (both - opened(both)).sum(1, keepdim=True).clamp_(max=LIMIT).sub_(USUAL)


def opened(planes: Tensor) -> Tensor:
    """Return planes (n, k, y, x) without small bright structures.

    Each pixel gets the highest level that a square or a line reaches which holds it.
    """
    square = _opened(planes, SQUARE, SQUARE)
    lines = torch.maximum(_opened(planes, 1, LINE), _opened(planes, LINE, 1))
    return torch.maximum(square, lines)


def _opened(planes: Tensor, rows: int, cols: int) -> Tensor:
    return _highest(-_highest(-planes, rows, cols), rows, cols)


def _highest(planes: Tensor, rows: int, cols: int) -> Tensor:
    """Return the largest value in the ``rows`` x ``cols`` px around each pixel, odd numbers.

    Each step doubles the pixels seen: the time of torch's pooling grows with their number.
    """
    for dim, number in ((-2, rows), (-1, cols)):
        half = number // 2
        border = (half, half) if dim == -1 else (0, 0, half, half)
        planes = F.pad(planes, border, value=-torch.inf)
        seen = 1
        while seen < number:
            step = min(seen, number - seen)
            left = planes.shape[dim] - step
            planes = torch.maximum(planes.narrow(dim, 0, left), planes.narrow(dim, step, left))
            seen += step
    return planes


TERMS: dict[str, Callable[[Tensor], Tensor]] = {"area": area}
"""Functions of the components by the names that presets use."""


def summed(terms: Terms, channels: Tensor) -> Tensor | None:
    """Return the sum of terms (n, 1, y, x) of the network's channels; None if there are none."""
    total: Tensor | None = None
    for name, factor in terms:
        term = factor * TERMS[name](channels[:, :COMPONENTS])
        total = term if total is None else total + term
    return total


def term_bytes(terms: Terms) -> int:
    """Return the memory that terms add to the network's peak, in bytes per pixel.

    Their own planes are freed before the network needs more: the sum stays.
    """
    return 4 if terms else 0
