"""Presets: which one a scene gets, what it says, and that a run follows it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.core.contracts import SceneInfo
from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.core.presets import PRESETS, Preset, choose_preset
from uniadrs_scale.detector.coarse import Coarse, FittedCoarse, coarsened
from uniadrs_scale.errors import PlanError
from uniadrs_scale.scenes.sources import scene_source

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
        # One band: its name or its wavelength.
        (info("thermal_10um"), "infrared"),
        (info("LWIR"), "infrared"),
        (info("DNB_observations"), "low-light"),
        (info("low light"), "low-light"),
        (info("NIR"), "single-band"),
        (info("light"), "single-band"),
        (info("knight"), "single-band"),
        (info("thermal", name="thermal.tif"), "single-band"),
        (info("night", name="night.tif"), "single-band"),
        (replace(info("B10"), wavelengths=(10895.0,)), "infrared"),
        (replace(info("B08"), wavelengths=(832.8,)), "single-band"),
        (replace(info("B1"), wavelengths=(float("nan"),)), "single-band"),
        (info("B10_thermal", "B11_thermal"), "multispectral"),
    ],
)
def test_bands_choose_the_preset(scene: SceneInfo, preset: str) -> None:
    assert choose_preset(scene).name == preset
    assert choose_preset(scene, "sar").name == "sar"
    with pytest.raises(PlanError, match=r"preset='quick' is unknown. Use auto, hyperspectral"):
        choose_preset(scene, "quick")


def test_presets_are_those_that_the_model_card_was_measured_with() -> None:
    found = {
        name: (preset.tile, preset.least, preset.stride(preset.tile), *preset.scales, *preset.terms)
        for name, preset in PRESETS.items()
    }
    assert [name for name, preset in PRESETS.items() if preset.smoothing != 1] == ["sar"]
    assert PRESETS["sar"].smoothing == 3
    assert found == {
        "hyperspectral": (128, 64, 112, 1, ("area", 0.5), ("surroundings", -0.5)),
        "multispectral": (768, 128, 672, 2, ("area", -0.1)),
        "infrared": (512, 128, 448, 2, ("area", 0.5)),
        "low-light": (224, 112, 192, 1, ("area", 0.5), ("local", 0.5)),
        "single-band": (224, 112, 192, 1),
        "sar": (768, 384, 672, 3, 6, ("bright", 0.65), ("clutter", -2.15)),
    }


@pytest.mark.parametrize(
    ("size", "tile"),
    [((768, 768), 768), ((767, 5000), 720), ((688, 800), 672), ((9, 9), 384), ((800, 900), 768)],
)
def test_a_tile_is_the_largest_that_fits_a_scene(size: tuple[int, int], tile: int) -> None:
    scene = replace(info("VV"), height=size[0], width=size[1])
    for chunk in (None, 1024, 3000):
        assert Sizes(chunk=chunk).decide(scene)[1].tile == tile
    assert Sizes(tile=99).decide(scene)[1].tile == 99


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_part_of_a_scene_has_tiles_of_nearly_the_same_size(preset: Preset) -> None:
    sides = [preset.tile_of(side, 9999) for side in range(1, 1000)]
    assert sides[0] == preset.least
    assert sides[-1] == preset.tile
    assert {b - a for a, b in itertools.pairwise(sides)} == {0, preset.grid}
    assert all(tile <= max(side, preset.least) for side, tile in enumerate(sides, 1))
    assert all(preset.stride(tile) % preset.grid == 0 for tile in sides)


def test_the_wavelength_of_a_scene_reaches_its_preset() -> None:
    pixels = np.zeros((2, 9, 9), np.float32)
    coords = {"wavelength": ("band", [860.0, 10900.0], {"units": "nm"})}
    scene = xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords)
    for number, preset in enumerate(("single-band", "infrared")):
        source = scene_source(scene.isel(band=[number]))
        assert choose_preset(source.info).name == preset
    plain = scene_source(scene.drop_vars("wavelength"))
    assert plain.info.wavelengths == ()
    assert plain.info.decisive() == scene_source(scene).info.decisive()


@pytest.mark.parametrize("tile", [16, 24, 100, 128, 250, 512, 1000])
@pytest.mark.parametrize("name", PRESETS)
def test_tiles_of_any_side_overlap_by_what_the_network_pools(name: str, tile: int) -> None:
    preset = PRESETS[name]
    overlap = tile - preset.stride(tile)
    assert 0 < overlap <= tile / 2
    assert overlap >= tile // 8
    assert overlap % (8 * preset.coarsen) == 0 or tile < 8 * preset.coarsen * 2


@pytest.mark.parametrize("name", PRESETS)
def test_tiles_of_any_odd_side_have_a_step_that_fits(name: str) -> None:
    for tile in range(1, 200, 2):
        assert tile / 2 <= PRESETS[name].stride(tile) <= tile


@pytest.mark.parametrize("factor", [2, 3])
def test_a_coarse_scorer_sees_means_and_answers_where_they_were(factor: int) -> None:
    tiles = np.random.default_rng(0).random((2, 3, 24, 24), np.float32)
    seen: list[np.ndarray] = []

    class Watching(FirstBand):
        def score_tiles(self, tiles: np.ndarray) -> np.ndarray:
            seen.append(tiles)
            return super().score_tiles(tiles)

    scorer = Coarse(Watching(), (factor,)).fitted(STATISTICS)
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
    assert coarsened(plain, (1,), 17) is plain
    scorer = coarsened(plain, (3,), 48)
    assert (scorer.batch, scorer.identity) == (5, plain.identity)
    assert scorer.activation_bytes(48, 2) >= plain.activation_bytes(16, 2) + 4 * 5 * 48**2
    fitted = scorer.fitted(STATISTICS)
    assert isinstance(fitted, FittedCoarse)
    assert fitted.factors == (3,)
    assert type(fitted.scorer) is FirstBand
    for factor, tile in ((0, 48), (3, 50)):
        with pytest.raises(PlanError, match=rf"coarsen={factor} does not fit tile={tile} px"):
            coarsened(plain, (factor,), tile)


def test_scales_average_logits() -> None:
    tiles = np.random.default_rng(0).uniform(0.01, 0.99, (2, 1, 48, 48)).astype(np.float32)
    tiles[0, 0, :24], tiles[0, 0, 24:] = 0, 1
    both = coarsened(FirstBand(), (3, 6), 48)
    assert both.activation_bytes(48, 1) >= 3 * 4 * 48**2
    fitted = both.fitted(STATISTICS)
    parts = [coarsened(FirstBand(), (n,), 48).fitted(STATISTICS).score_tiles(tiles) for n in (3, 6)]
    clipped = np.clip(np.array(parts, np.float64), 1e-6, 1 - 1e-6)
    logit = np.log(clipped / (1 - clipped)).mean(axis=0)
    found = fitted.score_tiles(tiles)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logit)), atol=1e-5)
    assert found.dtype == np.float32
    with pytest.raises(PlanError, match=r"coarsen=6 does not fit tile=45 px"):
        coarsened(FirstBand(), (3, 6), 45)


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_smoothed_scores_depend_less_on_where_the_samples_begin(factor: int) -> None:
    wide = np.random.default_rng(0).random((1, 1, 250, 250), np.float32)

    def changed(smoothing: int) -> float:
        def inner(start: int) -> NDArray[np.float32]:
            tile = wide[..., start : start + 240, start : start + 240]
            fitted = coarsened(FirstBand(), (factor,), 240, smoothing=smoothing).fitted(STATISTICS)
            return fitted.score_tiles(tile)[0, 24 - start : 216 - start, 24 - start : 216 - start]

        first, second = inner(0), inner(factor // 2)
        return float((first - second).std() / first.std())

    assert changed(3) < 0.5 * changed(1)


STATISTICS = BandStatistics.of(np.arange(18.0).reshape(2, 3, 3), np.ones((3, 3), bool))


def test_a_run_follows_the_preset_and_maps_of_two_presets_differ() -> None:
    pixels = np.random.default_rng(0).random((1, 400, 400), np.float32)
    scene = xr.DataArray(pixels, dims=("band", "y", "x"), coords={"band": ["VV"]})
    options = {"detector": FirstBand(), "scheduler": "sync"}
    plan = us.plan(scene, **options)
    assert (plan.scales, plan.lattice.tile, plan.lattice.stride) == ((3, 6), 384, 336)
    assert "seen at 1/3 and 1/6 of the resolution" in plan.text()
    assert "(means of means, 3 times)" in plan.text()
    for other in (replace(plan, coarser=0), replace(plan, smoothing=1)):
        assert other.fingerprint != plan.fingerprint
    other = us.plan(scene, preset="multispectral", tile=384, stride=336, **options)
    assert other.coarsen == 2
    assert plan.fingerprint != other.fingerprint
    coarse = us.score(scene, **options).values
    fine = us.score(scene, preset="single-band", **options).values
    # Averages of nine pixels of noise vary a third as much, interpolated ones still less.
    assert coarse.std() < 0.34 * fine.std()
    rough = replace(PRESETS["sar"], smoothing=1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(PRESETS, "sar", rough)
        assert coarse.std() < 0.9 * us.score(scene, **options).values.std()
