"""Scorers that see a coarser resolution than the scene has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F

from uniadrs_scale.core.contracts import is_score_alone, layers_of, score_jointly, warm_up
from uniadrs_scale.detector.inference import one_thread
from uniadrs_scale.detector.window_kernels import coarser, sampled
from uniadrs_scale.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from uniadrs_scale.core.contracts import FittedScorer, Scorer
    from uniadrs_scale.core.layers import Layer
    from uniadrs_scale.core.pixels import BandStatistics
    from uniadrs_scale.core.presets import Terms

LOGIT_EPS = 1e-6
"""Scores are kept this far from 0 and 1 before their logits are averaged."""


@dataclass(frozen=True, slots=True)
class Coarse:
    """A scorer on means of ``factor`` x ``factor`` px, its scores interpolated back.

    With several factors, the logits of their scores are averaged.
    """

    scorer: Scorer
    factors: tuple[int, ...]
    smoothing: int = 1
    """How often in a row means are taken before pixels are sampled."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Layers of the scorer."""
        return layers_of(self.scorer)

    @property
    def inputs(self) -> str:
        """Pixels that the scorer takes, ``raw`` or ``scaled``."""
        return str(getattr(self.scorer, "inputs", "scaled"))

    @property
    def identity(self) -> str:
        """Identity of the scorer; the plan holds the factors and the smoothing."""
        return self.scorer.identity

    @property
    def batch(self) -> int:
        """Tiles per call."""
        return self.scorer.batch

    def activation_bytes(self, tile: int, bands: int) -> int:
        """Return the peak memory of the largest pass, and of three maps if there are several."""
        largest = max(self._pass_bytes(factor, tile, bands) for factor in self.factors)
        return largest + (3 * 4 * self.batch * tile**2 if len(self.factors) > 1 else 0)

    def _pass_bytes(self, factor: int, tile: int, bands: int) -> int:
        """Return the peak memory of the coarse tile and of its scores at full size, in bytes."""
        seen = self.scorer.activation_bytes(tile // factor, bands)
        more = 4 * self.batch * (tile**2 + bands * (tile // factor) ** 2)
        return seen if factor == 1 else seen + more

    def fitted(self, statistics: BandStatistics) -> FittedCoarse:
        """Return the scorer of a scene with these statistics, at full resolution."""
        return FittedCoarse(self.scorer.fitted(statistics), self.factors, self.smoothing)


@dataclass(frozen=True, slots=True)
class FittedCoarse:
    """The fitted scorer of a :class:`Coarse`."""

    scorer: FittedScorer
    factors: tuple[int, ...]
    smoothing: int = 1

    @property
    def batch(self) -> int:
        """Tiles per call."""
        return self.scorer.batch

    def warm_up(self, tile: int, bands: int) -> None:
        """Warm the scorer up with coarse tiles."""
        for factor in self.factors:
            warm_up(self.scorer, tile // factor, bands)

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores (n, y, x) of scaled tiles whose sides are multiples of the factors."""
        return self.score_jointly([self] * len(tiles), tiles)

    def score_jointly(
        self, scorers: Sequence[FittedScorer], tiles: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the same for tiles of several regions."""
        inner = [cast("FittedCoarse", scorer).scorer for scorer in scorers]
        with torch.inference_mode(), one_thread():
            if len(self.factors) == 1:
                return cast(
                    "NDArray[np.float32]", self._seen_at(*self.factors, inner, tiles).numpy()
                )
            total = torch.zeros(tiles.shape[0], *tiles.shape[2:])
            for factor in self.factors:
                total += torch.logit(self._seen_at(factor, inner, tiles), eps=LOGIT_EPS)
            mean = torch.sigmoid_(total.div_(len(self.factors)))
            return cast("NDArray[np.float32]", mean.numpy())

    def _seen_at(
        self, factor: int, scorers: Sequence[FittedScorer], tiles: NDArray[np.float32]
    ) -> Tensor:
        """Return the scores of tiles that are seen at 1 / ``factor`` of their resolution."""
        if factor == 1:
            return torch.from_numpy(score_jointly(scorers, tiles))
        scores = torch.from_numpy(score_jointly(scorers, means(tiles, factor, self.smoothing)))
        layers = scores if scores.ndim == tiles.ndim else scores[:, None]
        fine = F.interpolate(layers, size=tiles.shape[2:], mode="bilinear", align_corners=False)
        return fine.reshape(*scores.shape[:-2], *fine.shape[-2:])


def means(tiles: NDArray[np.float32], factor: int, smoothing: int = 1) -> NDArray[np.float32]:
    """Return tiles (n, band, y, x) at 1 / ``factor`` of their resolution.

    Means of ``factor`` x ``factor`` px change if they begin at another pixel: detail that is finer
    than they are is folded into them. Means of means (of means) leave less of it. The weights are
    those of a B-spline; pixels beyond the border mirror those inside.
    """
    planes = tiles.reshape(-1, *tiles.shape[2:])
    out = np.empty((len(planes), *(n // factor for n in tiles.shape[2:])), np.float32)
    if smoothing == 1:
        coarser(planes, factor, out)
    else:
        weights = np.ones(1)
        for _ in range(smoothing):
            weights = np.convolve(weights, np.ones(factor))
        beyond = (len(weights) - factor) // 2
        rows, cols = (np.pad(np.arange(n), beyond, mode="symmetric") for n in planes.shape[1:])
        sampled(planes, (weights / weights.sum()).astype(np.float32), (rows, cols), factor, out)
    return out.reshape(*tiles.shape[:2], *out.shape[1:])


def with_terms(scorer: Scorer, terms: Terms) -> Scorer:
    """Return ``scorer`` with the terms of a preset in its logit, or itself if it knows none."""
    fused = getattr(scorer, "with_terms", lambda _: scorer)
    return cast("Scorer", fused(terms)) if terms else scorer


def coarsened(
    scorer: Scorer,
    factors: tuple[int, ...],
    tile: int,
    terms: Terms = (),
    *,
    smoothing: int = 1,
) -> Scorer:
    """Return ``scorer`` at 1 / factor of the resolution, or the mean of several.

    ``smoothing``, an odd number, is how often means are taken before pixels are sampled. Terms are
    added to the logit at each resolution.

    Raises:
        PlanError: The tile is not a multiple of a factor.
    """
    if len(factors) > 1 and not is_score_alone(layers_of(scorer)):
        raise PlanError(
            "Several resolutions are combined for scores only, not for other layers. Give the "
            "scorer a tiling, or choose another preset."
        )
    for factor in factors:
        if factor < 1 or tile % factor:
            raise PlanError(
                f"coarsen={factor} does not fit tile={tile} px: a tile must hold whole coarse "
                f"pixels. Use tile={max(tile // max(factor, 1), 16) * max(factor, 1)}."
            )
    scorer = with_terms(scorer, terms)
    return scorer if factors == (1,) else Coarse(scorer, factors, smoothing)
