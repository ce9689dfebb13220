"""A model of one's own: what the README tells a user to write scores whole scenes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

import uniadrs_scale as us
from uniadrs_scale.core.pixels import BandStatistics

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Contrast:
    """Scores by the distance from the scene's mean, in deviations."""

    batch: int = 2

    @property
    def identity(self) -> str:
        return "contrast 1"

    def activation_bytes(self, tile: int, bands: int) -> int:
        return 4 * bands * tile**2 * self.batch

    def fitted(self, statistics: BandStatistics) -> FittedContrast:
        quiet = np.asarray(statistics.deviation < statistics.deviation.mean())
        return FittedContrast(self.batch, 1 + quiet.astype(np.float32))


@dataclass(frozen=True)
class FittedContrast:
    batch: int
    weights: NDArray[np.float32]
    """One per band."""

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        weighted = np.abs(tiles) * self.weights[:, None, None]
        return np.tanh(weighted.mean(axis=1) / 8)


def test_a_model_of_two_small_classes_scores_a_scene() -> None:
    own: us.Scorer = Contrast()
    fitted: us.FittedScorer = own.fitted(
        BandStatistics(count=1, mean=np.zeros(4), scatter=np.eye(4))
    )
    assert fitted.batch == own.batch
    pixels = np.random.default_rng(0).normal(size=(4, 90, 80)).astype(np.float32)
    pixels[:, 40, 30] = 60
    scene = xr.DataArray(pixels, dims=("band", "y", "x"))
    scores = us.score(scene, detector=own, tile=32, preset="hyperspectral", scheduler="sync")
    assert np.unravel_index(int(scores.values.argmax()), scores.shape) == (40, 30)
