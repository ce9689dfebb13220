"""Presets: which one a scene gets, what it says, and that a run follows it."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.core.contracts import SceneInfo
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.core.presets import PRESETS, choose_preset
from uniadrs_scale.detector.coarse import Coarse, FittedCoarse, coarsened
from uniadrs_scale.errors import PlanError


def info(*bands: str, name: str = "scene.tif") -> SceneInfo:
    return SceneInfo(
        name=name, identity="i", height=9, width=9, bands=bands, dtype="uint8", itemsize=1,
        crs=None, transform=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scene", "preset"),
    [
        (info("1"), "single-band"),
        (info("1", "2"), "multispectral"),
        (info(*map(str, range(13))), "multispectral"),
        (info(*map(str, range(14))), "hyperspectral"),
        (info("VV"), "sar"),
        (info("1", "sigma0_vh"), "sar"),
        (info("S1_VV", "S1_VH", name="S1_VV.tif ..."), "sar"),
        (info("HH", "HV", "VH", "VV"), "sar"),
        (info("Sigma0_VV_db"), "sar"),
        # Names of files do not count: HH is also a town, and what all bands share is not a band.
        (info("1", name="S1A_IW_HH.tif"), "single-band"),
        (info("HH_town", name="HH_town.tif"), "single-band"),
        (info("HH_town_B1", "HH_town_B2", name="HH_town_B1.tif ..."), "multispectral"),
        (info("HH", "B2", "B3"), "multispectral"),
        # Letters that happen to be inside a word are no polarisation.
        (info("navvy"), "single-band"),
        (info("1", name="highhill.tif"), "single-band"),
    ],
)
def test_bands_choose_the_preset(scene: SceneInfo, preset: str) -> None:
    assert choose_preset(scene).name == preset
    assert choose_preset(scene, "sar").name == "sar"
    with pytest.raises(PlanError, match=r"preset='quick' is unknown. Use auto, hyperspectral"):
        choose_preset(scene, "quick")


def test_presets_are_those_that_the_model_card_was_measured_with() -> None:
    found = {
        name: (preset.tile, preset.stride(preset.tile), preset.coarsen)
        for name, preset in PRESETS.items()
    }
    assert found == {
        "hyperspectral": (128, 112, 1),
        "multispectral": (256, 224, 2),
        "single-band": (224, 192, 1),
        "sar": (384, 336, 3),
    }


@pytest.mark.parametrize("tile", [16, 24, 100, 128, 250, 512, 1000])
@pytest.mark.parametrize("name", PRESETS)
def test_tiles_of_any_side_overlap_by_what_the_network_pools(name: str, tile: int) -> None:
    preset = PRESETS[name]
    overlap = tile - preset.stride(tile)
    assert 0 < overlap <= tile / 2
    assert overlap >= tile // 8
    assert overlap % (8 * preset.coarsen) == 0 or tile < 8 * preset.coarsen * 2


@pytest.mark.parametrize("factor", [2, 3])
def test_a_coarse_scorer_sees_means_and_answers_where_they_were(factor: int) -> None:
    tiles = np.random.default_rng(0).random((2, 3, 24, 24), np.float32)
    seen: list[np.ndarray] = []

    class Watching(FirstBand):
        def score_tiles(self, tiles: np.ndarray) -> np.ndarray:
            seen.append(tiles)
            return super().score_tiles(tiles)

    scorer = Coarse(Watching(), factor).fitted(STATISTICS)
    scores = scorer.score_tiles(tiles)
    small = 24 // factor
    means = tiles.reshape(2, 3, small, factor, small, factor).mean(axis=(3, 5))
    np.testing.assert_allclose(seen[0], means, rtol=1e-5)
    # A mean belongs in the middle of its pixels, and between two middles lies a straight line.
    middles = (np.arange(24) + 0.5) / factor - 0.5
    lines = np.stack(
        [[np.interp(middles, np.arange(small), row) for row in tile] for tile in means[:, 0]]
    )
    expected = np.stack(
        [[np.interp(middles, np.arange(small), col) for col in tile.T] for tile in lines]
    ).transpose(0, 2, 1)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_coarse_scorer_stands_for_its_own() -> None:
    class Fitting(FirstBand):
        batch = 5

        def fitted(self, statistics: object) -> FirstBand:
            return FirstBand() if statistics is STATISTICS else self

        def activation_bytes(self, tile: int, bands: int) -> int:
            return 1000 * tile + bands

    plain = Fitting()
    assert coarsened(plain, 1, 17) is plain
    scorer = coarsened(plain, 3, 48)
    assert (scorer.batch, scorer.identity) == (5, plain.identity)
    assert scorer.activation_bytes(48, 2) >= plain.activation_bytes(16, 2) + 4 * 5 * 48**2
    fitted = scorer.fitted(STATISTICS)
    assert isinstance(fitted, FittedCoarse)
    assert fitted.factor == 3
    assert type(fitted.scorer) is FirstBand
    for factor, tile in ((0, 48), (3, 50)):
        with pytest.raises(PlanError, match=rf"coarsen={factor} does not fit tile={tile} px"):
            coarsened(plain, factor, tile)


STATISTICS = BandStatistics.of(np.arange(18.0).reshape(2, 3, 3), np.ones((3, 3), bool))


def test_a_run_follows_the_preset_and_maps_of_two_presets_differ() -> None:
    pixels = np.random.default_rng(0).random((1, 400, 400), np.float32)
    scene = xr.DataArray(pixels, dims=("band", "y", "x"), coords={"band": ["VV"]})
    options = {"detector": FirstBand(), "scheduler": "sync"}
    plan = us.plan(scene, **options)
    assert (plan.coarsen, plan.lattice.tile, plan.lattice.stride) == (3, 384, 336)
    other = us.plan(scene, preset="multispectral", tile=384, stride=336, **options)
    assert other.coarsen == 2
    assert plan.fingerprint != other.fingerprint
    coarse = us.score(scene, **options).values
    fine = us.score(scene, preset="single-band", **options).values
    # Averages of nine pixels of noise vary a third as much, interpolated ones still less.
    assert coarse.std() < 0.34 * fine.std()
