"""`evaluate`: equal to an oracle on the whole map, for rasters, vectors in any CRS, and marks."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import NOT_OF_THE_EARTH
from rasterio.features import shapes
from rasterio.transform import Affine
from scipy import ndimage
from sklearn.metrics import roc_auc_score

import uniadrs_scale as us
from uniadrs_scale.errors import SceneError, StoreError
from uniadrs_scale.evaluation import judge
from uniadrs_scale.evaluation.maps import Components
from uniadrs_scale.evaluation.metrics import EIGHT, ObjectScene
from uniadrs_scale.maps.overviews import windows

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PLACE = Affine(10, 0, 600_000, 0, -10, 5_100_000)


def write(path: Path, values: NDArray[Any], crs: int | str | None = 32632, **more: Any) -> Path:
    height, width = values.shape
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    profile = {"crs": rasterio.CRS.from_user_input(crs), "transform": PLACE} if crs else {}
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=height, width=width, dtype=values.dtype,
        **(profile | more),
    ) as file:  # fmt: skip
        file.write(values, 1)
        if values.dtype == np.float32:
            file.set_band_description(1, "score")
    return path


def field(seed: int = 0, height: int = 150, width: int = 180) -> tuple[NDArray[Any], NDArray[Any]]:
    """A map with some real objects, some missed ones and false alarms."""
    rng = np.random.default_rng(seed)
    score = rng.random((height, width)).astype(np.float32) * np.float32(0.29)
    truth = np.zeros((height, width), np.uint8)
    for _ in range(40):
        row, col = rng.integers(0, height), rng.integers(0, width)
        part = np.s_[row : row + 3, col : col + 4]
        kind = rng.integers(3)
        if kind != 0:
            truth[part] = 1
        if kind != 1:
            score[part] = np.float32(0.31 + 0.68 * rng.random())
    score[:20, :30] = np.nan
    return score, truth


def oracle(score: NDArray[Any], truth: NDArray[Any], threshold: float) -> tuple[int, int]:
    """Objects found and false alarms, with the whole map in memory."""
    scene = ObjectScene.of(score, truth > 0)
    labels, number = ndimage.label(np.nan_to_num(score) >= 0.3, EIGHT)
    index = np.arange(1, number + 1)
    peaks = ndimage.maximum(np.nan_to_num(score), labels, index)
    near = ndimage.maximum(scene.near, labels, index) > 0
    return int((scene.peaks >= threshold).sum()), int(((peaks >= threshold) & ~near).sum())


@pytest.mark.parametrize("side", [16, 37, 64, 1024])
def test_windows_of_any_size_give_the_figures_of_the_whole_map(
    tmp_path: Path, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, truth = field()
    path, labels = write(tmp_path / "map.tif", score), write(tmp_path / "truth.tif", truth)
    monkeypatch.setattr(judge, "windows", lambda h, w: windows(h, w, side))
    found = us.evaluate(path, labels)
    for threshold in (0.3, 0.5, 0.8, 0.95):
        row = found.at(np.float32(threshold))
        assert (row["found"], row["false_alarms"]) == oracle(score, truth, np.float32(threshold))
    known = np.isfinite(score)
    assert found.pixels == known.sum()
    assert found.auc == pytest.approx(roc_auc_score(truth[known] > 0, score[known]), abs=1e-4)
    assert 0 < found.average_precision < 1
    assert found.to_json() == json.loads(json.dumps(found.to_json()))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0.2, 0.7))
def test_components_do_not_depend_on_windows(seed: int, side: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 25, 2))
    values = rng.random(shape).astype(np.float32)
    mask = rng.random(shape) < share
    flags = (rng.random(shape) < 0.1).astype(np.uint8) * 2
    parts = Components(shape[1])
    for window in windows(*shape, side):
        part = window.toslices()
        parts.add(window.col_off, mask[part], values[part], flags[part])
    peaks, bits = parts.merged()
    labels, number = ndimage.label(mask, EIGHT)
    index = np.arange(1, number + 1)
    expected = sorted(
        zip(ndimage.maximum(values, labels, index), ndimage.maximum(flags, labels, index),
            strict=True)
    ) if number else []  # fmt: skip
    assert sorted(zip(peaks.tolist(), bits.tolist(), strict=True)) == expected


def outlines(truth: NDArray[Any], crs: int | str = 32632) -> geopandas.GeoDataFrame:
    labels, _ = ndimage.label(truth, EIGHT)
    pairs = shapes(labels.astype(np.int32), labels > 0, connectivity=8, transform=PLACE)
    # Within the pixels, so that no neighbour is touched.
    found = [shapely.geometry.shape(shape).buffer(-2) for shape, _ in pairs]
    return geopandas.GeoDataFrame(geometry=found, crs=32632).to_crs(crs)


@pytest.mark.parametrize(("crs", "name"), [(4326, "t.geojson"), (3857, "t.gpkg"), (32633, "t.fgb")])
def test_vectors_of_any_crs_give_the_figures_of_the_raster(
    tmp_path: Path, crs: int, name: str
) -> None:
    score, truth = field(3)
    path = write(tmp_path / "map.tif", score)
    layer = {"layer": "targets"} if name.endswith(".gpkg") else {}
    outlines(truth, crs).to_file(tmp_path / name, **layer)
    raster = us.evaluate(path, write(tmp_path / "truth.tif", truth))
    if name.endswith(".gpkg"):  # as a list of targets: the outlines count, without a warning
        outlines(truth, crs).iloc[:1].to_file(tmp_path / name, layer="peaks")
    vector = us.evaluate(path, tmp_path / name)
    assert vector.text() == raster.text()


def test_points_are_objects_of_one_pixel(tmp_path: Path) -> None:
    score = np.zeros((50, 60), np.float32)
    score[10, 20], score[30, 30] = 0.9, 0.8
    points = geopandas.GeoSeries(
        [shapely.Point(600_205, 5_099_895), shapely.Point(0, 0)], crs=32632
    )
    points.to_crs(4326).to_file(tmp_path / "truth.geojson")
    found = us.evaluate(write(tmp_path / "map.tif", score), tmp_path / "truth.geojson")
    assert found.at(0.5)["found"] == found.objects.size == 1
    assert found.at(0.5)["false_alarms"] == 1


@pytest.mark.parametrize("middle", [180, -180, 0])
def test_a_map_beyond_180_degrees_has_its_labels(tmp_path: Path, middle: int) -> None:
    score = np.zeros((50, 100), np.float32)
    score[10, 20], score[30, 75] = 0.9, 0.8
    place = Affine(0.02, 0, middle - 1, 0, -0.02, 1)
    path = write(tmp_path / "map.tif", score, 4326, transform=place)
    east = (middle + 0.51 + 180) % 360 - 180  # -179.49 on the map from 179 to 181
    points = [shapely.Point((middle - 0.59 + 180) % 360 - 180, 0.79), shapely.Point(east, 0.39)]
    geopandas.GeoSeries(points, crs=4326).to_file(tmp_path / "truth.geojson")
    found = us.evaluate(path, tmp_path / "truth.geojson")
    assert found.objects.size == found.at(0.5)["found"] == 2
    assert found.at(0.5)["false_alarms"] == 0


@pytest.mark.parametrize(("crs", "turn", "side"), [(4326, 360, 0.02), (3857, 40075016.68, 2226.4)])
def test_a_truth_is_found_at_any_turn_of_the_earth(
    tmp_path: Path, crs: int, turn: float, side: float
) -> None:
    score = np.zeros((50, 100), np.float32)
    score[10, 20], score[30, 75] = 0.9, 0.8
    place = Affine(side, 0, turn / 2 - 50 * side, 0, -side, 50 * side)
    path = write(tmp_path / "map.tif", score, crs, transform=place)
    west = Affine.translation(-turn, 0) @ place
    for fine in (1, 2):
        truth = np.kron(score > 0, np.ones((fine, fine))).astype(np.uint8)
        own = west @ Affine.scale(1 / fine)
        found = us.evaluate(path, write(tmp_path / f"{fine}.tif", truth, crs, transform=own))
        assert (found.objects.size, found.pixels) == (2, score.size)
    shapes = [shapely.Point(place @ (20.5, 10.5)), shapely.Point(west @ (75.5, 30.5))]
    geopandas.GeoSeries(shapes, crs=crs).to_file(tmp_path / "t.gpkg")
    assert us.evaluate(path, tmp_path / "t.gpkg").at(0.5)["found"] == 2


def test_endings_that_gdal_does_not_read_are_not_advised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "truth.parquet").write_bytes(b"PAR1")
    path = write(tmp_path / "map.tif", np.zeros((50, 60), np.float32))
    monkeypatch.setattr("pyogrio.list_drivers", lambda: {"GeoJSON": "rw"})
    with pytest.raises(us.SceneError, match=r"Give \.geojson.*\.fgb, \.kml\."):
        us.evaluate(path, tmp_path / "truth.parquet")


def test_a_raster_in_another_crs_is_warped_to_the_map(tmp_path: Path) -> None:
    score, truth = field(5)
    path, labels = write(tmp_path / "map.tif", score), write(tmp_path / "truth.tif", truth)
    with rasterio.open(labels) as file, rasterio.vrt.WarpedVRT(file, crs="EPSG:3857") as other:
        warped, place = other.read(1), other.transform
    moved = write(tmp_path / "moved.tif", warped, 3857, transform=place)
    same, other = us.evaluate(path, labels), us.evaluate(path, moved)
    assert abs(other.at(0.5)["found"] - same.at(0.5)["found"]) <= 1
    assert abs(other.objects.size - same.objects.size) <= 2


@pytest.mark.parametrize("crs", NOT_OF_THE_EARTH.values(), ids=NOT_OF_THE_EARTH)
def test_labels_of_another_planet_are_refused(tmp_path: Path, crs: str) -> None:
    score, truth = field(5)
    path = write(tmp_path / "map.tif", score, crs)
    labels = write(tmp_path / "truth.tif", truth[:-1])
    frame = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 9, 9)], crs=32633)
    for other in (labels, frame):
        with pytest.raises(us.SceneError, match="has no place on map"):
            us.evaluate(path, other)


def test_nodata_of_the_truth_is_not_counted_but_zero_is_background(tmp_path: Path) -> None:
    score, truth = field()
    path = write(tmp_path / "map.tif", score)
    whole = us.evaluate(path, write(tmp_path / "zero.tif", truth, nodata=0))
    assert whole.pixels == np.isfinite(score).sum()
    truth[:, 90:] = 255
    half = us.evaluate(path, write(tmp_path / "half.tif", truth, nodata=255))
    assert half.pixels == np.isfinite(score[:, :90]).sum()


def test_pixels_beyond_a_truth_are_not_counted(tmp_path: Path) -> None:
    score, truth = field()
    path = write(tmp_path / "map.tif", score)
    for more in ({}, {"nodata": 0}):
        part = us.evaluate(path, write(tmp_path / "part.tif", truth[:70], **more))
        cut = us.evaluate(
            write(tmp_path / "cut.tif", score[:70]), write(tmp_path / "same.tif", truth[:70])
        )
        assert part.text() == cut.text()


def test_the_edges_of_pixels_in_degrees_are_not_the_next_pixels(tmp_path: Path) -> None:
    score, truth = field(7)
    labels = shapes(truth, mask=truth > 0, transform=PLACE)
    exact = geopandas.GeoSeries([shapely.geometry.shape(one) for one, _ in labels], crs=32632)
    rounded = exact.to_crs(4326).transform(lambda xy: xy.round(7))  # as a list of targets is
    rounded.to_file(tmp_path / "t.geojson")
    path = write(tmp_path / "map.tif", score)
    raster = us.evaluate(path, write(tmp_path / "truth.tif", truth))
    assert us.evaluate(path, tmp_path / "t.geojson").auc == raster.auc


def test_a_list_of_targets_is_not_truth_without_a_word(tmp_path: Path) -> None:
    score, truth = field()
    path, found = write(tmp_path / "map.tif", score), outlines(truth)
    found.assign(target_id="a", score_max=0.9).to_file(tmp_path / "targets.geojson")
    judged = us.evaluate(path, tmp_path / "targets.geojson")
    assert "were found in a map, not labels" in judged.text()
    assert judged.to_json()["notes"]
    found.assign(target_id="a", score_max=0.9, mark="real").to_file(tmp_path / "marks.geojson")
    assert "not labels" not in us.evaluate(path, tmp_path / "marks.geojson").text()


def test_a_scene_or_a_map_is_not_truth_without_a_word(tmp_path: Path) -> None:
    score, truth = field()
    path = write(tmp_path / "map.tif", score)
    for values in (score, np.full(score.shape, 900, np.uint16)):
        with pytest.raises(SceneError, match="is it the scene, or a map of scores"):
            us.evaluate(path, write(tmp_path / "other.tif", values))
    truth[: truth.shape[0] // 2 + 20] = 1
    text = us.evaluate(path, write(tmp_path / "truth.tif", truth)).text()
    assert "note       Labels cover 5" in text or "note       Labels cover 6" in text


def test_a_truth_in_the_place_of_the_map_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        us.StoreError, match=r"'objects.geojson' is a vector file, not a map\. Pass"
    ):
        us.evaluate("objects.geojson", tmp_path / "map.tif")


def test_a_file_of_several_layers_is_not_read_in_part(tmp_path: Path) -> None:
    score, truth = field()
    for layer in ("coast", "ports"):
        outlines(truth).to_file(tmp_path / "two.gpkg", layer=layer)
    with pytest.raises(SceneError, match="it has layers coast, ports: write one to a file"):
        us.evaluate(write(tmp_path / "map.tif", score), tmp_path / "two.gpkg")
    with pytest.raises(us.PlanError, match="it has layers coast, ports: write one to a file"):
        us.crop(us.open_scene(tmp_path / "map.tif"), aoi=tmp_path / "two.gpkg")


def test_marks_judge_what_they_mark_and_nothing_else(tmp_path: Path) -> None:
    score = np.zeros((60, 80), np.float32)
    for col, peak in ((10, 0.9), (30, 0.8), (50, 0.7), (70, 0.6)):
        score[20, col] = peak
    marks = geopandas.GeoDataFrame(
        {"mark": ["real", "false", "unsure"]},
        geometry=[shapely.Point(600_005 + 10 * c, 5_099_795) for c in (10, 30, 50)],
        crs=32632,
    ).to_crs(4326)
    marks.to_file(tmp_path / "marks.geojson")
    found = us.evaluate(write(tmp_path / "map.tif", score), tmp_path / "marks.geojson")
    row = found.at(0.5)
    assert (row["found"], row["true_alarms"], row["false_alarms"], row["unknown_alarms"]) == (
        1, 1, 1, 2,
    )  # fmt: skip
    assert (row["precision"], found.auc) == (0.5, None)
    assert "1 false alarm (" in found.text()
    assert "2 not judged" in found.text()
    assert "note       The truth is marks: AP, found objects and precision tell of" in found.text()
    marks.assign(mark="perhaps").to_file(tmp_path / "marks.geojson")
    with pytest.raises(SceneError, match=r"has mark 'perhaps'\. Marks are real, false, unsure"):
        us.evaluate(tmp_path / "map.tif", tmp_path / "marks.geojson")


def test_bad_truth_is_refused_in_a_sentence(tmp_path: Path) -> None:
    score, truth = field()
    path = write(tmp_path / "map.tif", score)
    plain = write(tmp_path / "plain.tif", score, None)
    (tmp_path / "text.tif").write_text("no raster")
    (tmp_path / "text.geojson").write_text("no vectors")
    outlines(truth).to_file(tmp_path / "t.geojson")
    far = geopandas.GeoSeries([shapely.Point(0, 0)], crs=4326)
    far.to_file(tmp_path / "far.geojson")
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", count=4, height=150, width=180,
        dtype="uint8", crs="EPSG:32632", transform=PLACE, photometric="minisblack",
    ) as file:  # fmt: skip
        file.write(np.stack([truth] * 4))
    cases = {
        "scene.tif": "has 4 bands, and labels are one band: is it the scene",
        "\udcff.tif": "is not UTF-8",
        "\udcff.gpkg": "is not UTF-8",
        "text.tif": "is neither a raster nor vectors",
        "text.geojson": "cannot be read",
        "far.geojson": "None of the 1 shapes",
        write(tmp_path / "small.tif", truth[:9], None).name: "one of them has no CRS",
        write(tmp_path / "empty.tif", truth * 0).name: "0 objects on",
    }
    for name, match in cases.items():
        with pytest.raises(SceneError, match=match):
            us.evaluate(path, tmp_path / name)
    with pytest.raises(SceneError, match="has no CRS, so the shapes"):
        us.evaluate(plain, tmp_path / "t.geojson")
    with pytest.raises(StoreError, match="cannot be opened as a map"):
        us.evaluate(tmp_path / "none.tif", tmp_path / "t.geojson")
    with pytest.raises(StoreError, match="is not a map"):
        us.evaluate(tmp_path / "empty.tif", tmp_path / "t.geojson")


def test_a_frame_counts_as_its_file(tmp_path: Path) -> None:
    score, truth = field()
    path = write(tmp_path / "map.tif", score)
    found = [shapely.geometry.shape(s) for s, v in shapes(truth, transform=PLACE) if v]
    frame = geopandas.GeoDataFrame(geometry=found, crs=32632).to_crs(4326)
    for truth_ in (frame, frame.assign(mark="false"), frame.assign(mark=None)):
        if "mark" in truth_:
            truth_.loc[: len(truth_) // 2, "mark"] = "real"
        truth_.to_file(tmp_path / "truth.gpkg")
        expected = us.evaluate(path, tmp_path / "truth.gpkg")
        assert us.evaluate(path, truth_).to_json() == expected.to_json()
    assert us.evaluate(path, frame.geometry).to_json() == us.evaluate(path, frame).to_json()
    with pytest.raises(SceneError, match="GeoDataFrame' has no CRS"):
        us.evaluate(path, frame.set_crs(None, allow_override=True))
    for other in (truth, found):
        with pytest.raises(SceneError, match=f"or a GeoDataFrame, got {type(other).__name__}"):
            us.evaluate(path, other)
