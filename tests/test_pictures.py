"""Pictures and styles: equal colours mean equal evidence, and an empty scene looks empty."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from maps import make_map, planted
from PIL import Image
from rio_tiler.io import Reader
from standins import StandIn

import uniadrs_scale as us
from uniadrs_scale.core.levels import GROW, RATES, Levels, score_text
from uniadrs_scale.maps import exports, pictures
from uniadrs_scale.maps.colours import colour_stops, map_colours, qgis_style, scale
from uniadrs_scale.maps.layout import MARGIN, MOST, Layout, Peak, placed, top_peaks
from uniadrs_scale.maps.overviews import ScoreStatistics
from uniadrs_scale.maps.pictures import Ring, Subject, draw, result_line
from uniadrs_scale.objects.find import find
from uniadrs_scale.objects.select import Selection
from uniadrs_scale.scenes.preview import scene_picture


def levels(low: float = 0.6, medium: float = 0.8, high: float = 0.95) -> Levels:
    return Levels(
        preset="sar",
        scores=(0.1, 0.99),
        false_per_mpx=(100.0, 0.01),
        measured_to=0.9,
        low=low,
        medium=medium,
        high=high,
    )


COUNTER = Path("/proc/self/io")
MANY = [
    None,
    levels(),
    levels(0.1, 0.2, 0.25),
    levels(0.3, 0.3, 0.3),
    levels(0.0, 0.5, 1.0),
    levels(1.0, 1.0, 1.0),
    levels(0.999998, 0.999999, 0.9999995),
]


@pytest.mark.parametrize("found", MANY)
def test_the_scale_rises_from_dark_to_bright(found: Levels | None) -> None:
    stops = scale(found)
    assert (stops[0].score, stops[-1].score) == (0, 1)
    for name in ("score", "shade"):
        values = [getattr(stop, name) for stop in stops]
        assert values == sorted(set(values))
    assert all(0 <= stop.opacity <= 1 for stop in stops)
    assert [s for s, *_ in colour_stops(found)] == sorted({s for s, *_ in colour_stops(found)})


def test_a_colour_depends_on_the_score_and_its_levels_alone() -> None:
    row = np.array([[0.1, 0.6, 0.8, 0.95, np.nan]], np.float32)
    quiet = map_colours(row, levels())
    assert np.array_equal(quiet[:, :3], map_colours(row[:, :3], levels()))
    other = map_colours(np.array([[0.1, 0.5, 0.7, 0.9]], np.float32), levels(0.5, 0.7, 0.9))
    # Equal levels, equal colours; scores are float32, levels are not.
    assert np.allclose(quiet[:, 1:4].astype(int), other[:, 1:4], rtol=0, atol=1)
    assert quiet[0, 4].tolist() == [0x8F, 0x8F, 0x8F, 0]
    assert quiet[0, 0, 3] == 0  # nothing to see


def test_an_empty_map_is_dark() -> None:
    empty = np.random.default_rng(0).random((50, 50), np.float32) * np.float32(GROW)
    assert map_colours(empty, levels())[..., :3].max() < 90


def test_a_style_is_clear_below_objects_and_has_the_levels_as_stops() -> None:
    root = ET.fromstring(qgis_style(levels()))  # noqa: S314 - our own text
    items = root.findall(".//colorrampshader/item")
    values = [float(item.attrib["value"]) for item in items]
    assert values == sorted(set(values))
    assert {levels().threshold(name) for name in RATES} <= set(values)
    for value, item in zip(values, items, strict=True):
        assert (int(item.attrib["alpha"]) == 0) == (value <= GROW)
    labels = [item.attrib["label"] for item in items]
    assert "0.8 medium: 1 false per Mpx" in labels
    # Named stops only, one below another: else QGIS shows a ramp with the labels 0 and 1.
    assert root.find(".//colorrampshader/rampLegendSettings").attrib["useContinuousLegend"] == "0"
    assert len([label for label in labels if label]) == len(scale(levels()))
    assert root.find("pipe/rasterrenderer").attrib["type"] == "singlebandpseudocolor"
    # A stretch to what is on the screen would give equal colours other meanings.
    assert root.find(".//minMaxOrigin/limits").text == "None"


@pytest.mark.parametrize("panels", [1, 2])
@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 5000), (5000, 1), (100, 100), (20_000, 4_000), (4_000, 20_000), (99_999,) * 2],
)
def test_a_picture_has_at_most_2048_px_and_holds_its_panels(
    shape: tuple[int, int], panels: int
) -> None:
    layout = Layout.of(shape, panels)
    small = np.zeros([-(-n // layout.factor) for n in shape], np.float32)
    subject = Subject(
        title="x" * 5000,
        lines=("a\nb\x00", ""),
        small=small,
        read=lambda rows, cols: np.zeros(
            (rows.stop - rows.start, cols.stop - cols.start), np.float32
        ),
        rings=[Ring(Peak(shape[0] - 1, shape[1] - 1, 1.0), "1")] * 20,
        levels=levels(),
    )
    image = draw(subject, layout)
    assert max(image.size) <= MOST
    left, top = layout.corner(panels - 1)
    height, width = layout.panel
    assert left + width <= image.width
    assert top + height <= image.height


@pytest.mark.parametrize("shape", [(120, 120), (900, 140), (140, 900), (40, 40), (20, 2000)])
def test_a_picture_of_a_small_scene_has_no_empty_part(shape: tuple[int, int]) -> None:
    layout = Layout.of(shape, 1)
    small = np.zeros([-(-n // layout.factor) for n in shape], np.float32)
    subject = Subject(
        title="a",
        lines=("b", "c"),
        small=small,
        read=lambda rows, cols: np.zeros(shape, np.float32)[rows, cols],
        rings=[Ring(Peak(shape[0] // 2, shape[1] // 2, 0.8), "1")],
        levels=levels(),
    )
    dark = np.asarray(draw(subject, layout)).min(axis=2) < 200
    left, top = layout.corner(0)
    (height, width), bar = layout.panel, left + layout.panel[1] + 8
    assert dark.shape[1] <= left + width + 8 + 14 + 120
    labels = dark[:, bar + 20 :]
    assert labels.any()
    assert not labels[:, -3:].any(), "a label is cut"
    # Each label ends before the next one begins.
    rows = np.flatnonzero(labels[max(top - 8, 80) : top + height + 8].any(axis=1))
    assert max(map(len, np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1))) <= 16


@pytest.mark.parametrize("shape", [(300, 300), (30, 200), (5000, 3000)])
def test_circles_end_at_the_border_of_their_panel(shape: tuple[int, int]) -> None:
    def drawn(rings: list[Ring]) -> np.ndarray:
        layout = Layout.of(shape, 1)
        small = np.zeros([-(-n // layout.factor) for n in shape], np.float32)

        def read(rows: slice, cols: slice) -> np.ndarray:
            return np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.float32)

        subject = Subject(title="", lines=("", ""), small=small, read=read, rings=rings)
        return np.asarray(draw(subject, layout))[: layout.size[1] - MARGIN]

    places = [(row, col) for row in (0, shape[0] - 1) for col in (0, shape[1] - 1)]
    rings = [Ring(Peak(row, col, 1.0), "19") for row, col in places]
    changed = (drawn([]) != drawn(rings)).any(axis=2)
    layout = Layout.of(shape, 1)
    (left, top), (height, width) = layout.corner(0), layout.panel
    assert changed[top : top + height, left : left + width].any()
    changed[top : top + height, left : left + width] = False
    assert not changed.any()


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (0.5, "0.500"),
        (0.9757, "0.976"),
        (0.9996, "0.9996"),
        (0.99991, "0.99991"),
        (float(np.nextafter(np.float32(1), np.float32(0))), "0.99999994"),
        (1.0, "1.000"),
    ],
)
def test_a_score_below_1_never_reads_as_1(score: float, text: str) -> None:
    assert score_text(score) == text
    assert "1.000" not in levels(0.9951, 0.99986, 0.99991).text()
    assert 'label="1 medium' not in qgis_style(levels(0.9951, 0.99986, 0.99991))


def test_the_number_over_a_close_up_does_not_read_as_1(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    monkeypatch.setattr(pictures, "_text", lambda _pen, _place, text, _style: texts.append(text))
    blank = np.zeros((60, 60), np.float32)
    subject = Subject(
        title="", lines=("", ""), small=blank, rings=[Ring(Peak(9, 9, 0.9995), "1")],
        read=lambda rows, cols: blank[rows, cols],
    )  # fmt: skip
    draw(subject, Layout.of((60, 60), 1))
    assert "1  0.9995" in texts


def test_peaks_are_the_highest_of_each_object() -> None:
    small = np.zeros((40, 50), np.float32)
    small[5, 5:9] = 0.9, 0.4, 0.8, 0.29  # one object
    small[30, 40], small[31, 41], small[0, 49], small[5, 10] = 0.95, 0.95, 0.5, 0.7
    small[20, 20] = np.nan
    peaks = top_peaks(small, 10, least=0.6, count=20)
    assert [(p.row, p.col, round(p.score, 2)) for p in peaks] == [
        (305, 405, 0.95), (55, 55, 0.9), (55, 105, 0.7)
    ]  # fmt: skip
    assert top_peaks(small, 10, least=0.6, count=2) == peaks[:2]
    assert top_peaks(np.full((3, 3), np.nan, np.float32), 1, least=0.5, count=9) == ()


def test_circles_of_a_small_map_are_its_targets(tmp_path: Path) -> None:
    score = planted()
    table = find(make_map(tmp_path / "map.zarr", score), Selection(top=20))
    places = zip(table.columns["peak_row"], table.columns["peak_col"], strict=True)
    peaks = top_peaks(score, 1, least=0.3, count=20)
    assert [(peak.row, peak.col) for peak in peaks] == list(places)


def test_a_peak_is_placed_at_its_very_pixel() -> None:
    score = np.zeros((20, 20), np.float32)
    score[13, 17] = 0.9
    found = placed(Peak(15, 15, 0.9), 10, lambda rows, cols: score[rows, cols])
    assert (found.row, found.col) == (13, 17)


def test_a_picture_says_what_it_shows() -> None:
    assert result_line(0.4, [], levels()) == (
        "nothing reaches level low (0.600): the highest score is 0.400"
    )
    peaks = [Peak(0, 0, 0.96), Peak(9, 9, 0.85), Peak(5, 5, 0.81)]
    assert "1 high, 2 medium" in result_line(0.96, peaks, levels())
    assert result_line(float("nan"), [], None) == "no pixel has a score"


# ---------------------------------------------------------------- scenes


def array(bands: int, height: int = 90, width: int = 120, **words: Any) -> xr.DataArray:
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 4000, (bands, height, width)).astype(words.pop("dtype", "uint16"))
    return xr.DataArray(pixels, dims=("band", "y", "x"), name="scene", **words)


def grey(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return pixels.ravel().astype(float)


@pytest.mark.parametrize(
    ("coords", "shown"),
    [
        ({"wavelength": ("band", [490.0, 560.0, 842.0, 665.0])}, (3, 1, 0)),
        ({"wavelength": ("band", [0.49, 0.56, 0.842, 0.665], {"units": "um"})}, (3, 1, 0)),
        ({"band": ["B02", "B03", "B08", "B04"]}, (3, 1, 0)),
        ({"band": ["x_B02", "x_B03", "x_B08", "x_B04"]}, (3, 1, 0)),
        ({"band": ["Blue", "Green", "NIR", "Red"]}, (3, 1, 0)),
    ],
)
def test_true_colour_by_wavelength_or_name(coords: dict[str, Any], shown: tuple[int, ...]) -> None:
    scene = array(4).assign_coords(coords)
    picture = scene_picture(scene, 200)
    assert picture.factor == 1
    for channel, band in enumerate(shown):
        seen = np.corrcoef(grey(picture.rgb[..., channel]), grey(scene.values[band]))[0, 1]
        assert seen > 0.95
    rows, cols = slice(10, 40), slice(50, 60)
    assert np.array_equal(picture.window(rows, cols), picture.rgb[rows, cols])


def test_other_scenes_show_leading_components_or_one_band() -> None:
    assert scene_picture(array(7), 200).bands == "three leading components"
    one = scene_picture(array(1), 200)
    assert np.array_equal(one.rgb[..., 0], one.rgb[..., 2])
    radar = scene_picture(array(2).assign_coords(band=["VV", "VH"]), 200)
    assert radar.bands == "VV in dB"


def test_a_scene_of_one_value_is_drawn_without_a_warning() -> None:
    flat = array(3) * 0 + 500
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not scene_picture(flat.assign_coords(band=["red", "green", "blue"]), 200).rgb.any()


def test_components_are_found_in_few_blocks() -> None:
    """A block of a cube holds all bands: 16 windows suffice, and the picture reads each once."""
    computed = []

    def block(block_info: Any) -> np.ndarray:
        computed.append(block_info[None]["chunk-location"])
        rng = np.random.default_rng(len(computed))
        return rng.random(block_info[None]["chunk-shape"], np.float32)

    pixels = da.map_blocks(block, chunks=((20,), (256,) * 4, (256,) * 4), dtype=np.float32)
    cube = xr.DataArray(pixels, dims=("band", "y", "x"), name="cube")
    picture = scene_picture(cube, 1024)
    assert picture.bands == "three leading components"
    assert len(set(computed)) == 16
    assert len(computed) <= 16 + 16


def test_a_small_picture_is_read_in_parts_and_not_beyond_them(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    pixels = np.arange(3 * 700 * 900, dtype=np.uint32).reshape(3, 700, 900) % 60_000
    transform = rasterio.Affine(10, 0, 600_000, 0, -10, 5_100_000)
    with rasterio.open(
        path,
        "w",
        transform=transform,
        driver="GTiff",
        count=3,
        height=700,
        width=900,
        dtype="uint16",
        nodata=0,
    ) as file:
        pixels[:, :70] = 0
        file.write(pixels.astype(np.uint16))
    scene = us.open_scene(path)
    picture = scene_picture(scene, 100)
    assert (picture.factor, picture.rgb.shape) == (9, (78, 100, 3))
    assert not picture.valid[:7].any()
    assert picture.valid[9:].all()
    assert (picture.rgb[:7] == 0x8F).all()


@pytest.mark.skipif(not COUNTER.exists(), reason="counts bytes as Linux does")
def test_a_picture_of_a_wide_file_reads_each_block_once(tmp_path: Path) -> None:
    path = tmp_path / "wide.tif"
    height, width, count = 600, 3072, 12  # a row of blocks is larger than GDAL's cache
    pixels = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    place = rasterio.Affine(10, 0, 600_000, 0, -10, 5_100_000)
    size = {"height": height, "width": width, "count": count, "transform": place}
    blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512, "interleave": "pixel"}
    with rasterio.open(path, "w", driver="GTiff", dtype="uint16", **size, **blocks) as file:
        file.write(np.broadcast_to(pixels, (count, height, width)))
        file.descriptions = ("blue", "green", "red", *"abcdefghi")
    scene = us.open_scene(path)
    before = int(COUNTER.read_text().split()[1])
    scene_picture(scene, 300)
    assert int(COUNTER.read_text().split()[1]) - before < 1.5 * path.stat().st_size


# ------------------------------------------------------------------ runs


class Bright(StandIn):
    """Scores bright pixels."""

    def score_tiles(self, tiles: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.clip(tiles.mean(axis=1) / 8, 0, 1).astype(np.float32)


@pytest.fixture
def scene() -> xr.DataArray:
    made = array(3, 200, 300).assign_coords(
        x=600_000 + 10.0 * np.arange(300), y=5_100_000 - 10.0 * np.arange(200)
    )
    made[:, 50:54, 60:64] = 60_000
    return made.assign_attrs(datetime="2026-03-01T10:00:00Z", platform="made-1").rio.write_crs(
        32632
    )


def score(scene: xr.DataArray, path: Path) -> xr.DataArray:
    return us.score(scene, path, detector=Bright(), scheduler="sync", tile=64)


def test_a_run_leaves_a_picture_and_a_style_beside_its_map(
    scene: xr.DataArray, tmp_path: Path
) -> None:
    score(scene, tmp_path / "map.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "map.png", "map.qml", "map.zarr", "map.zarr.run.json",
    ]  # fmt: skip
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.info["Software"] == "uniadrs_scale"
        assert max(picture.size) <= MOST
    before = (tmp_path / "map.png").stat().st_mtime_ns
    score(scene, tmp_path / "map.zarr")  # nothing to do
    assert (tmp_path / "map.png").stat().st_mtime_ns == before


def test_files_of_others_are_not_overwritten(scene: xr.DataArray, tmp_path: Path) -> None:
    (tmp_path / "map.png").write_bytes(b"precious")
    (tmp_path / "map.qml").write_text("<qgis>changed by a user</qgis>")
    with pytest.warns(us.SceneWarning) as caught:
        score(scene, tmp_path / "map.zarr")
    assert [str(warning.message).partition(",")[0] for warning in caught] == [
        f"scene: 'map.{end}' is not of this library" for end in ("qml", "png")
    ]
    assert (tmp_path / "map.png").read_bytes() == b"precious"
    assert "changed by a user" in (tmp_path / "map.qml").read_text()


def test_a_picture_that_cannot_be_drawn_costs_no_map(
    scene: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(exports, "encoded", fail)
    with pytest.warns(us.SceneWarning, match=r"'map.png' could not be written: .*no space left"):
        score(scene, tmp_path / "map.zarr")
    assert not (tmp_path / "map.png").exists()
    assert (tmp_path / "map.qml").exists()


def test_the_store_says_who_made_it_in_the_words_of_cf(scene: xr.DataArray, tmp_path: Path) -> None:
    found = score(scene, tmp_path / "map.zarr").load()
    root = xr.open_zarr(tmp_path / "map.zarr").attrs
    assert root["Conventions"] == "CF-1.11"
    assert (root["scene"], root["datetime"], root["platform"]) == (
        "scene", "2026-03-01T10:00:00Z", "made-1",
    )  # fmt: skip
    assert root["preset"] == "multispectral"
    assert found.attrs["units"] == "1"
    assert found.attrs["long_name"] == "anomaly score"
    assert found.attrs["actual_range"] == [float(found.min()), float(found.max())]
    assert found.attrs["mean"] == pytest.approx(float(found.astype(float).mean()), abs=1e-9)
    assert found.attrs["stddev"] == pytest.approx(float(found.astype(float).std()), abs=1e-8)


@pytest.mark.parametrize("factor", [1.0, 1e9, -3.0], ids=["scores", "large", "negative"])
def test_statistics_are_those_of_the_known_values(factor: float) -> None:
    values = np.random.default_rng(0).random((400, 401)).astype(np.float32) * np.float32(factor)
    values[values < values.mean()] = np.nan
    values[0, :2] = np.inf, -np.inf
    known = values[np.isfinite(values)].astype(np.float64)
    found = ScoreStatistics.of(values)
    assert (found.pixels, found.count) == (values.size, known.size)
    assert (found.minimum, found.maximum) == (known.min(), known.max())
    figures = found.figures()
    assert figures["mean"] == pytest.approx(known.mean(), rel=1e-8)
    assert figures["stddev"] == pytest.approx(known.std(), rel=1e-6)
    parts = [ScoreStatistics.of(part) for part in (values[:7], values[7:])]
    if factor == 1:  # sums are integers then
        assert ScoreStatistics.combine(parts) == found
    assert ScoreStatistics.of(np.full((2, 3), np.nan, np.float32)).figures() == {}


def test_statistics_do_not_depend_on_chunks(scene: xr.DataArray, tmp_path: Path) -> None:
    seen = []
    for chunk in (64, 100, 512):
        path = tmp_path / f"{chunk}.zarr"
        us.score(scene, path, detector=Bright(), scheduler="sync", tile=64, chunk=chunk)
        attrs = xr.open_zarr(path)["score"].attrs
        seen.append([attrs[name] for name in ("actual_range", "mean", "stddev", "valid_percent")])
    assert seen[0] == seen[1] == seen[2]


def test_the_default_preview_of_a_tile_server_is_not_flat(
    scene: xr.DataArray, tmp_path: Path
) -> None:
    score(scene, tmp_path / "map.zarr")
    us.to_cog(tmp_path / "map.zarr", tmp_path / "map.tif")
    with Reader(tmp_path / "map.tif") as reader, warnings.catch_warnings():
        # It warns that it stretches by the statistics, and of NaN.
        warnings.simplefilter("ignore")
        preview = reader.preview().render(img_format="PNG")
    image = Image.open(BytesIO(preview))
    shades = np.asarray(image.convert("L"))
    assert int(shades.max()) - int(shades.min()) > 200
    with rasterio.open(tmp_path / "map.tif") as file:
        values, tags = file.read(1).astype(float), file.tags(1)
        assert (file.units, file.descriptions) == (("1",), ("score",))
        assert file.tags()["datetime"] == "2026-03-01T10:00:00Z"
        assert file.tags()["missing_chunks"] == "0 of 1"
    for name, value in (
        ("MINIMUM", values.min()),
        ("MAXIMUM", values.max()),
        ("MEAN", values.mean()),
        ("STDDEV", values.std()),
        ("VALID_PERCENT", 100),
    ):
        assert float(tags[f"STATISTICS_{name}"]) == pytest.approx(value, rel=1e-6)
