"""A scorer that sees a coarser scene than there is: radar targets are many pixels of speckle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F

from uniadrs_scale.core.contracts import warm_up
from uniadrs_scale.detector.inference import one_thread
from uniadrs_scale.errors import PlanError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import TileScorer
    from uniadrs_scale.core.pixels import BandStatistics


@dataclass(frozen=True, slots=True)
class Coarse:
    """``scorer`` on means of ``factor`` x ``factor`` px, its scores interpolated back."""

    scorer: TileScorer
    factor: int

    @property
    def identity(self) -> str:
        """That of the scorer; the plan holds the factor."""
        return self.scorer.identity

    @property
    def batch(self) -> int:
        """Tiles a call."""
        return self.scorer.batch

    def activation_bytes(self, tile: int, bands: int) -> int:
        """Of the coarse tile, and of its scores at full size."""
        seen = self.scorer.activation_bytes(tile // self.factor, bands)
        return seen + 4 * self.batch * (tile**2 + bands * (tile // self.factor) ** 2)

    def fitted(self, statistics: BandStatistics) -> TileScorer:
        """For a scene of these statistics, at full resolution."""
        return Coarse(self.scorer.fitted(statistics), self.factor)

    def warm_up(self, tile: int, bands: int) -> None:
        """As the scorer's, if it has one."""
        warm_up(self.scorer, tile // self.factor, bands)

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, band, y, x) scaled tiles to (n, y, x) scores; sides are multiples of the factor."""
        full = tiles.shape[2:]
        with torch.inference_mode(), one_thread():
            coarse = F.avg_pool2d(torch.from_numpy(np.ascontiguousarray(tiles)), self.factor)
            scores = torch.from_numpy(self.scorer.score_tiles(coarse.numpy()))
            fine = F.interpolate(scores[:, None], size=full, mode="bilinear", align_corners=False)
            return cast("NDArray[np.float32]", fine[:, 0].numpy())


def coarsened(scorer: TileScorer, factor: int, tile: int) -> TileScorer:
    """``scorer`` at 1 / ``factor`` of the resolution; itself for a factor of 1.

    Raises:
        PlanError: The tile is no multiple of the factor.
    """
    if factor < 1 or tile % factor:
        raise PlanError(
            f"coarsen={factor} does not fit tile={tile} px: a tile must hold whole coarse pixels. "
            f"Use tile={max(tile // max(factor, 1), 16) * max(factor, 1)}."
        )
    return scorer if factor == 1 else Coarse(scorer, factor)
