"""Terms that a preset adds to the network's logit, computed from its channels or from itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from uniadrs_scale.detector import window_kernels as kernels
from uniadrs_scale.detector.rx import INNER, OUTER, RIDGE
from uniadrs_scale.detector.whitening import ENERGIES, LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from uniadrs_scale.core.presets import Terms

    Ring = Callable[[Tensor, int, int], Tensor]
    Term = Callable[[Tensor, Ring], Tensor]

LEADING = 2
"""Components that the area term sees: with a third one, it finds less."""
SQUARE, LINE = 5, 15
"""Side of a square and length of a line [px]: a structure that holds neither is small."""
USUAL = 2.0
"""Area at which the logit stays as it is, in standard deviations."""
LEAST = 1e-3
"""Squared distance that is added before the logarithm."""
SHINING = 0.75
"""Brightness at which the logit stays as it is, in standard deviations: outlines of ships that end
at a score of 0.3 then have the area of labels."""
CLUTTER_REACH = 12
"""Clutter is the median of the pixels up to this far away [px], in rows and columns."""
CLUTTER_STEP, CLUTTER_LEAST, CLUTTER_LEVELS = 0.125, -2.0, 32
"""Width of a bin for that median, upper end of the first one [standard deviations], number."""
STRONGEST = 0.5
"""Largest clutter, in standard deviations: more costs targets on bright ground too much."""


def area(components: Tensor, ring: Ring) -> Tensor:
    """Return how far small structures stand out from their surroundings, brighter or darker.

    That is the sum of the differences from an opening and from a closing of the leading
    components. AED does so by area filters of 25 px (Kang et al., IEEE TGRS 55, 2017); these need
    maxima only, and so are equal to the bit on any device.

    Args:
        components: (n, component, y, x), each of standard deviation 1.
        ring: Not needed.

    Returns:
        (n, 1, y, x), in -USUAL..LIMIT - USUAL.
    """
    del ring
    leading = components[:, :LEADING]
    both = torch.cat([leading, -leading], 1)
    return (both - opened(both)).sum(1, keepdim=True).clamp_(max=LIMIT).sub_(USUAL)


def opened(planes: Tensor) -> Tensor:
    """Return planes (n, k, y, x) without small bright structures.

    Each pixel gets the highest level that a square or a line reaches which holds it.
    """
    if planes.device.type != "cpu":
        return plain_opened(planes)
    planes = planes.contiguous()
    out = torch.empty_like(planes)
    kernels.opened(planes.flatten(0, 1).numpy(), SQUARE, LINE, out.flatten(0, 1).numpy())
    return out


def plain_opened(planes: Tensor) -> Tensor:
    """Return :func:`opened` on any device; a CPU takes twice as long for it."""
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


def local(components: Tensor, ring: Ring) -> Tensor:
    """Return the logarithm of local RX of the leading component, by the variance of the ring.

    For one band that is local RX itself. The network's local energies know the ring's mean, but
    take the variance of the scene.

    Args:
        components: (n, component, y, x), each of standard deviation 1.
        ring: :func:`.ring_mean`, or a faster function with equal results.

    Returns:
        (n, 1, y, x), in -LIMIT..LIMIT.
    """
    leading = components[:, :1]
    mean = ring(leading, INNER, OUTER)
    variance = (ring(leading.square(), INNER, OUTER) - mean.square()).clamp_(min=0)
    distance = (leading - mean).square() / (variance * (1 + RIDGE) + RIDGE**2)
    return (distance + LEAST).log_().clamp_(-LIMIT, LIMIT)


def bright(components: Tensor, ring: Ring) -> Tensor:
    """Return the leading component, relative to :data:`SHINING`: in radar, ships are bright.

    With :func:`clutter` times a larger, negative factor, this is a CFAR detector before its
    threshold: how much brighter a pixel is than its clutter, less if the clutter is bright.

    Args:
        components: (n, component, y, x), each of standard deviation 1.
        ring: Not needed.

    Returns:
        (n, 1, y, x), in -LIMIT - SHINING..LIMIT - SHINING.
    """
    del ring
    return components[:, :1] - SHINING


def clutter(components: Tensor, ring: Ring) -> Tensor:
    """Return the level of the clutter around each pixel: the median of the leading component.

    Speckle multiplies: bright clutter, like that of a town, also deviates more from its own mean,
    and whitening by the scene takes that for anomalies. A CFAR detector divides by this level. A
    median does not see targets, if they cover less than half of what it is taken from.

    Args:
        components: (n, component, y, x), each of standard deviation 1.
        ring: Not needed.

    Returns:
        (n, 1, y, x), in -2.125..STRONGEST: the median is counted in bins of 1/8.
    """
    del ring
    bins = (components[:, :1] - CLUTTER_LEAST).div_(CLUTTER_STEP).ceil_().nan_to_num_(0)
    bins = bins.clamp_(0, CLUTTER_LEVELS - 1).to(torch.uint8)
    if bins.device.type == "cpu":
        median = torch.empty(bins.shape)
        planes = bins.contiguous()[:, 0].numpy()
        kernels.medians(planes, CLUTTER_REACH, CLUTTER_LEVELS, median[:, 0].numpy())
    else:
        median = plain_medians(bins)
    return median.sub_(1).mul_(CLUTTER_STEP).add_(CLUTTER_LEAST).clamp_(max=STRONGEST)


def plain_medians(bins: Tensor) -> Tensor:
    """Return :func:`.window_kernels.medians` of (n, 1, y, x) on any device.

    One bin after the other is counted in the surroundings of all pixels: counts are whole numbers,
    so they are equal to the bit on any device.
    """
    half = _around(torch.ones_like(bins, dtype=torch.float32)) / 2
    below, median = torch.zeros_like(half), torch.zeros_like(half)
    for level in range(CLUTTER_LEVELS):
        seen = _around((bins <= level).float())
        here = (below < half) & (seen >= half)
        median = torch.where(here, level + (half - below) / (seen - below), median)
        below = seen
    return median


def _around(planes: Tensor) -> Tensor:
    """Return the sums of the pixels up to CLUTTER_REACH away, from inside of (n, 1, y, x)."""
    side = 2 * CLUTTER_REACH + 1
    for size in ((side, 1), (1, side)):
        padding = [n // 2 for n in size]
        planes = F.avg_pool2d(planes, size, 1, padding, divisor_override=1)
    return planes


TERMS: dict[str, Term] = {"area": area, "bright": bright, "clutter": clutter, "local": local}
"""Functions by the names that presets use."""
SURROUNDINGS = "surroundings"
"""The term that is computed from the logit itself."""
CALM = -3.0
"""Mean logit of surroundings that change nothing: that of most background."""


def added(terms: Terms, channels: Tensor, ring: Ring) -> Callable[[Tensor], Tensor]:
    """Return the function that adds the terms to the network's logit (n, 1, y, x).

    The surroundings come last: how far the mean of that sum over the ring is above :data:`CALM`.
    With a negative factor, a pixel among others with high scores, as in rows of roofs, gets a lower
    score than one of the same logit in calm surroundings.
    """
    total: Tensor | None = None
    for name, factor in terms:
        if name != SURROUNDINGS:
            term = factor * TERMS[name](channels[:, : ENERGIES.start], ring)
            total = term if total is None else total + term
    share = dict(terms).get(SURROUNDINGS, 0.0)

    def add(logit: Tensor) -> Tensor:
        own = logit if total is None else logit + total
        return own + share * (ring(own, INNER, OUTER) - CALM) if share else own

    return add


def term_bytes(terms: Terms) -> int:
    """Return the memory that terms add to the network's peak, in bytes per pixel.

    The sum stays while the network computes, and is added to a copy. Their own planes are freed
    before the network needs more.
    """
    return 2 * 4 if terms else 0
