"""The imagery and the curves that weights are judged by: water, night lights, false objects."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import baselines
import empty
import imagery
import numpy as np
import pytest
import threshold
from plain_rasters import write
from scipy import ndimage

from uniadrs_scale.core.presets import PRESETS
from uniadrs_scale.detector.weights import read_weights

if TYPE_CHECKING:
    from pathlib import Path


def test_water_keeps_its_ships_but_no_roofs_and_islands() -> None:
    green, infrared = np.full((120, 120), 200), np.full((120, 120), 50)
    infrared[:, :40] = 900  # land
    infrared[30:34, 10:14] = 50  # a wet roof
    infrared[60:63, 75:78] = 900  # a ship
    infrared[80:110, 80:110] = 900  # an island
    water = imagery.water(green, infrared)
    assert water[60:63, 75:78].all()
    assert not water[5:115, :38].any()
    assert not water[82:108, 82:108].any()
    assert not imagery.water(green[:, 80:], infrared[:, 80:]).any()  # fewer than 5,000 px: a pond


def test_ship_pixels_count_wherever_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "port"
    folder.mkdir()
    ships = np.zeros((1, 90, 90), np.uint16)
    ships[0, 5, 5] = 1  # on land
    infrared = np.full((1, 90, 90), 50)
    infrared[:, :, :20] = 900
    for name, pixels in (
        ("B03", np.full((1, 90, 90), 200)), ("B08", infrared), ("ships_mask", ships),
    ):  # fmt: skip
        write(folder / f"{name}.tif", pixels.astype(np.uint16))
    (image,) = imagery.ports(tmp_path)
    assert image.counted[5, 5]
    assert not image.counted[50, 10]
    assert image.counted[5:85, 25:85].all()


def test_night_lights_of_held_out_places_make_mosaics(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    chips = rng.uniform(0.5, 1.5, (230, 4, 20, 20)).astype(np.float32)
    chips[:, 0, 10, 10] = 50
    names = [f"{order % 2}.5_100.25" for order in range(230)]
    np.savez(tmp_path / "viirs_dnb.npz", chips=chips, names=names)
    (image,) = imagery.lowlight(tmp_path)
    assert image.pixels.shape == (1, 200, 200)
    assert image.targets.sum() == 100
    assert image.targets[10::20, 10::20].all()
    held_out = chips[1::2, 0][11]
    np.testing.assert_allclose(
        image.pixels[0, 20:40, 20:40], held_out / np.median(held_out), rtol=1e-6
    )


def test_baselines_see_what_the_network_sees() -> None:
    pixels = np.random.default_rng(0).normal(size=(2, 31, 40))
    whole = np.pad(pixels, ((0, 0), (0, 1), (0, 0)), mode="edge")
    means = whole.reshape(2, 16, 2, 20, 2).mean(axis=(2, 4))
    expected = ndimage.zoom(baselines.rx(means), 2, order=1, mode="nearest", grid_mode=True)
    found = baselines.BASELINES["rx"](pixels, "multispectral")
    np.testing.assert_allclose(found, expected[:31], rtol=1e-5)
    fine = baselines.BASELINES["rx"](pixels, "hyperspectral")
    np.testing.assert_allclose(fine, baselines.rx(pixels), rtol=1e-6)
    assert {PRESETS[preset].name for preset in baselines.MODALITIES.values()} == PRESETS.keys() - {
        "single-band"
    }


def test_objects_are_components_from_a_third_on_with_their_peaks() -> None:
    scores, counted = np.zeros((9, 9), np.float32), np.ones((9, 9), bool)
    scores[1, 1], scores[2, 2] = 0.3, 0.9  # one object: they touch at a corner
    scores[5, 5] = 0.29
    scores[7, 7] = 0.5
    assert threshold.objects(scores, counted) == pytest.approx([0.9, 0.5])
    scores[0:2, 7] = 0.8  # cut by the border
    assert threshold.objects(scores, counted) == pytest.approx([0.9, 0.5])
    counted[2, 2] = False
    assert threshold.objects(scores, counted) == pytest.approx([0.5])
    assert threshold.objects(np.zeros((4, 4), np.float32), np.ones((4, 4), bool)) == []


def logistic_peaks(seed: int, number: int) -> np.ndarray:
    """Draw peaks whose logits are exponential beyond that of 0.3."""
    rng = np.random.default_rng(seed)
    logits = np.log(0.3 / 0.7) + rng.exponential(0.8, number)
    return 1 / (1 + np.exp(-logits))


def test_a_curve_keeps_its_rates_on_other_windows() -> None:
    peaks = logistic_peaks(0, 6000)
    levels = threshold.curve("sar", threshold.Counted(1000, 60.0, peaks))
    assert len(levels.scores) == threshold.POINTS
    assert levels.false_per_mpx[0] == pytest.approx(100)
    assert levels.false_per_mpx[-1] == pytest.approx(0.01)
    assert levels.medium < levels.measured_to < levels.high
    many = threshold.Counted(1, 6000.0, logistic_peaks(1, 600_000))
    for name, rate in (("low", 10), ("medium", 1), ("high", 0.1)):
        assert many.rate(levels.threshold(name)) == pytest.approx(rate, rel=0.6)
    with pytest.raises(ValueError, match=r"a curve needs more than 150\. Use more --windows"):
        threshold.curve("sar", threshold.Counted(9, 1.0, peaks[: threshold.TAIL]))


@pytest.mark.parametrize("preset", PRESETS)
def test_windows_of_every_preset_hold_nothing_and_repeat(preset: str) -> None:
    first, second = (empty.generated(preset, 48, 7, 1) for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)
    assert np.isfinite(first.pixels).all()
    assert first.pixels.shape[1:] == (48, 48)
    assert not first.targets.any()
    assert not np.array_equal(first.pixels, empty.generated(preset, 48, 8, 1).pixels)


def test_windows_of_the_check_have_the_bands_of_those_of_the_curve() -> None:
    bands: dict[bool, list[int]] = {True: [], False: []}
    for order in range(80):
        image = empty.generated("multispectral", 16, 7, order)
        bands[order % threshold.CHECK == threshold.CHECK - 1].append(len(image.pixels))
    assert set(bands[True]) == set(bands[False]) == set(empty.FEW_BANDS)


def test_counting_resumes_and_levels_reach_the_weights(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threshold, "SEEN", 32)
    path = tmp_path / "counts.jsonl"
    whole = threshold.count(tiny_weights, "single-band", None, 6, path)
    assert [line["order"] for line in whole] == list(range(8))
    text = path.read_text()
    path.write_text("".join(text.splitlines(keepends=True)[:4]) + text.splitlines()[4][:9])
    assert threshold.count(tiny_weights, "single-band", None, 6, path) == whole
    parts = [threshold.split(whole, "generated", part).windows for part in threshold.PARTS]
    assert parts == [6, 2]
    levels = threshold.curve("single-band", threshold.Counted(9, 1.0, logistic_peaks(2, 500)))
    copy = tmp_path / "w.safetensors"
    shutil.copy(tiny_weights, copy)
    threshold.write(copy, {"single-band": levels}, {"single-band": {}})
    assert read_weights(copy).levels == {"single-band": levels}
    few = replace(levels, preset="multispectral")
    threshold.write(copy, {"multispectral": few}, {})
    assert read_weights(copy).threshold == pytest.approx(few.medium, abs=5e-4)
    assert read_weights(copy).levels == {"single-band": levels, "multispectral": few}
    assert read_weights(copy).content == read_weights(tiny_weights).content
