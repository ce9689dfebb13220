"""The page of a map: it loads nothing, runs no foreign text, and says what it does not know."""

from __future__ import annotations

import base64
import json
import re
import shutil
import zlib
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine
from maps import NOT_OF_THE_EARTH
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.transform import from_origin
from scipy import ndimage
from typer.testing import CliRunner

import uniadrs_scale as us
from uniadrs_scale.cli.main import app
from uniadrs_scale.cli.targets import _command
from uniadrs_scale.core.levels import Levels
from uniadrs_scale.detector.rx import GlobalRX
from uniadrs_scale.maps.exports import require_own_page
from uniadrs_scale.maps.overviews import block_maximum, reduced
from uniadrs_scale.objects.files import require_writable
from uniadrs_scale.objects.ground import Swath
from uniadrs_scale.pages import report_layers
from uniadrs_scale.pages.report import SIGN
from uniadrs_scale.pages.report_content import PROMISE, _target
from uniadrs_scale.pages.report_files import Table
from uniadrs_scale.pages.report_layers import NO_DATA, SIDE, UNSCORED, CloseUp, Scale
from uniadrs_scale.pages.report_table import MOST_CORNERS, Positions, Row, checked_rows

LEVELS = Levels(
    preset="multispectral",
    scores=tuple(np.linspace(0.3, 0.999, 20).tolist()),
    false_per_mpx=tuple(np.geomspace(100, 0.01, 20).tolist()),
    measured_to=0.99,
    low=0.5,
    medium=0.8,
    high=0.95,
)
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
EVIL = "a<script>alert(1)<b>&\"'.tif"


def write_scene(path, *, seed=3, crs="EPSG:32634", bands=("B02", "B03", "B04", "<script>B08")):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(1000, 60, (len(bands), 300, 420))
    for k in range(12):
        row, col = rng.integers(20, 270), rng.integers(20, 390)
        pixels[:, row : row + 2 + k % 3, col : col + 3] += rng.normal(0, 900, (len(bands), 1, 1))
    pixels[:, 280:, :30] = 0
    profile = {"driver": "GTiff", "height": 300, "width": 420, "count": len(bands), "nodata": 0}
    place = {} if crs is None else {"crs": crs, "transform": from_origin(500000, 4200000, 10, 10)}
    with rasterio.open(path, "w", dtype="uint16", **profile, **place) as file:
        file.write(np.clip(pixels, 0, 65535).astype(np.uint16))
        file.descriptions = bands
    return path


def score(scene, target):
    us.score(us.open_scene(scene), target, detector=GlobalRX(), scheduler="sync", chunk=256)
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A scene with a hostile name, its map with levels, and a page."""
    where = tmp_path_factory.mktemp("report")
    write_scene(where / EVIL)
    score(where / EVIL, where / "map.zarr")
    zarr.open_group(where / "map.zarr", mode="r+").update_attributes({"levels": LEVELS.to_json()})
    us.report(where / "map.zarr", where / EVIL, where / "page.html")
    return where


def contents(path):
    return Path(path).read_text(encoding="utf-8")


def data_in(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


class Tags(HTMLParser):
    """All tags with their attributes, and the text of scripts and styles."""

    def __init__(self):
        super().__init__()
        self.tags, self.inside, self.inline, self.words = [], "", [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, _):
        self.inside = ""

    def handle_data(self, data):
        if self.inside in ("script", "style"):
            self.inline.append(data)
        else:
            self.words.append(data)


def parsed(text):
    tags = Tags()
    tags.feed(text)
    return tags


# ---- nothing is loaded, no foreign text runs ----------------------------------------------------


def test_a_page_makes_no_request(folder):
    text = contents(folder / "page.html")
    loads = {"src", "href", "srcset", "action", "data", "poster", "formaction", "background"}
    tags = parsed(text)
    urls = [v for _, attrs in tags.tags for name, v in attrs.items() if name in loads and v]
    assert urls
    assert all(url.startswith("data:") for url in urls)
    assert not {tag for tag, _ in tags.tags} & {"iframe", "object", "embed", "base", "form"}
    style = "".join(tags.inline)
    assert "@import" not in style
    assert "url(" not in style.replace("URL.", "")
    for call in ("fetch(", "XMLHttpRequest", "WebSocket", "importScripts", "sendBeacon", "eval("):
        assert call not in style
    assert not re.search(r"https?://", text)


def test_the_policy_allows_these_texts_only(folder):
    text = contents(folder / "page.html")
    meta = next(a for tag, a in parsed(text).tags if a.get("http-equiv"))
    policy = dict(part.split(" ", 1) for part in meta["content"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data:"
    assert {"base-uri", "form-action"} <= policy.keys()
    assert all("unsafe" not in value for value in policy.values())
    # A style attribute would need 'unsafe-inline'.
    assert not [attrs for _, attrs in parsed(text).tags if "style" in attrs]
    assert not [name for _, attrs in parsed(text).tags for name in attrs if name.startswith("on")]


def test_names_of_scene_and_bands_stay_text(folder):
    text = contents(folder / "page.html")
    tags = parsed(text)
    assert [tag for tag, _ in tags.tags].count("script") == 2
    assert "b" not in {tag for tag, attrs in tags.tags if attrs}  # ours have no attributes
    words = "".join(tags.words)
    assert f"Anomalies in {EVIL}" in words
    assert "<script>B08" in words
    assert "<script>B08" not in text
    assert data_in(text)["about"]["scene"] == EVIL
    assert data_in(text)["export_name"] == "a_script_alert_1_b_.tif.marks.geojson"


def test_a_table_from_elsewhere_stays_text(folder, tmp_path):
    table = made_table(folder)
    table["features"][0]["properties"] |= {"level": "</script><img src=x>", "contrast_</li>": 2}
    (tmp_path / "t.geojson").write_text(json.dumps(table))
    us.report(
        folder / "map.zarr", folder / EVIL, tmp_path / "p.html", targets=tmp_path / "t.geojson"
    )
    tags = parsed(contents(tmp_path / "p.html"))
    assert {a["src"][:10] for tag, a in tags.tags if tag == "img"} == {"data:image"}


def test_equal_input_gives_equal_bytes(folder, tmp_path):
    us.report(folder / "map.zarr", folder / EVIL, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (folder / "page.html").read_bytes()


# ---- what it shows ------------------------------------------------------------------------------


def made_table(folder):
    """The targets of the page as GeoJSON."""
    found = data_in(contents(folder / "page.html"))["targets"]
    features = [
        {"type": "Feature", "geometry": t["geometry"], "properties": dict(t["properties"])}
        for t in found
    ]
    return {"type": "FeatureCollection", "features": features}


def test_targets_are_at_their_pixels_and_places(folder):
    data = data_in(contents(folder / "page.html"))
    opened = us.open_scene(folder / EVIL)
    scores = zarr.open_group(folder / "map.zarr", mode="r")["score"][:]
    assert len(data["targets"]) >= 5
    for target in data["targets"]:
        p = target["properties"]
        assert scores[p["peak_row"], p["peak_col"]] == np.float32(target["score"])
        (ring, *_) = target["rings"]
        cols, rows = zip(*ring, strict=True)
        assert (min(rows), min(cols), max(rows), max(cols)) == tuple(target["box"])
    ranks = [t["score"] for t in data["targets"]]
    assert ranks == sorted(ranks, reverse=True)
    middle = data["places"]["lat"][4][4], data["places"]["lon"][4][4]
    way = Transformer.from_crs(opened.rio.crs, 4326)
    assert middle == pytest.approx(way.transform(502100, 4198500), abs=1e-6)


def test_outlines_in_degrees_survive_a_table(folder, tmp_path):
    table = made_table(folder)
    (tmp_path / "t.geojson").write_text(json.dumps(table))
    us.report(
        folder / "map.zarr", folder / EVIL, tmp_path / "p.html", targets=tmp_path / "t.geojson"
    )
    own, read = (data_in(contents(p)) for p in (folder / "page.html", tmp_path / "p.html"))
    assert [t["rings"] for t in read["targets"]] == [t["rings"] for t in own["targets"]]


def test_a_table_that_other_software_wrote_is_at_the_same_places(folder, tmp_path):
    """A GeoDataFrame, its GeoJSON in the CRS of the map, and a layer of any name."""
    found = us.targets(folder / "map.zarr", str(folder / EVIL), top=7)  # its path, as for score
    assert "contrast_B02" in found
    found.to_file(tmp_path / "own.geojson")
    assert "32634" in contents(tmp_path / "own.geojson")[:300]
    found.to_file(tmp_path / "own.gpkg")
    pages = []
    for table in (found, tmp_path / "own.geojson", tmp_path / "own.gpkg"):
        us.report(folder / "map.zarr", [folder / EVIL], tmp_path / "p.html", targets=table)
        pages.append([row["rings"] for row in data_in(contents(tmp_path / "p.html"))["targets"]])
    assert len(pages[0]) == len(found) > 1
    assert pages[0] == pages[1] == pages[2]


def test_a_csv_table_is_drawn_as_boxes(folder, tmp_path):
    rows = [f["properties"] for f in made_table(folder)["features"]]
    names = list(rows[0])
    lines = [",".join(names), *(",".join(_cell(row[n]) for n in names) for row in rows)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    us.report(folder / "map.zarr", folder / EVIL, tmp_path / "p.html", targets=tmp_path / "t.csv")
    for target in data_in(contents(tmp_path / "p.html"))["targets"]:
        row0, col0, row1, col1 = target["box"]
        assert {tuple(p) for p in target["rings"][0]} == {
            (col0, row0), (col1, row0), (col1, row1), (col0, row1)
        }  # fmt: skip
        assert target["geometry"]["type"] == "Polygon"


def _cell(value):
    return "" if value is None else f'"{value}"' if isinstance(value, str) else str(value)


def test_a_geopackage_is_read(folder, tmp_path):
    pytest.importorskip("geopandas", reason="geopandas is not installed")
    frame = us.targets(folder / "map.zarr", top=5)
    frame.to_file(tmp_path / "t.gpkg", layer="targets")
    summary = us.report(
        folder / "map.zarr", folder / EVIL, tmp_path / "p.html", targets=tmp_path / "t.gpkg"
    )
    assert summary.shown == 5
    own, read = (data_in(contents(p)) for p in (folder / "page.html", tmp_path / "p.html"))
    assert [t["rings"] for t in read["targets"]] == [t["rings"] for t in own["targets"][:5]]


def test_a_cog_shows_the_same(folder, tmp_path):
    us.to_cog(folder / "map.zarr", tmp_path / "map.tif")
    us.report(tmp_path / "map.tif", folder / EVIL, tmp_path / "p.html")
    own, cog = (data_in(contents(p)) for p in (folder / "page.html", tmp_path / "p.html"))
    for name in ("layers", "places", "edges", "chips"):
        assert cog[name] == own[name]


def test_top_takes_the_highest(folder, tmp_path):
    (tmp_path / "t.geojson").write_text(json.dumps(made_table(folder)))
    page = tmp_path / "p.html"
    summary = us.report(
        folder / "map.zarr", folder / EVIL, page, targets=tmp_path / "t.geojson", top=3
    )
    total = len(made_table(folder)["features"])
    assert (summary.shown, summary.total) == (3, total)
    assert f"The list has the 3 highest of {total} targets." in contents(page)


def test_origin_and_limits_are_in_the_page(folder):
    words = " ".join("".join(parsed(contents(folder / "page.html")).words).split())
    attributes = dict(zarr.open_group(folder / "map.zarr", mode="r").attrs)
    assert attributes["fingerprint"] in words
    for part in ("A ranked list to review", "false objects per megapixel", "multispectral"):
        assert part in words
    assert "extrapolated, down to 0.01: all higher scores have this rate, too" in words


@pytest.mark.parametrize(("rate", "text"), [(113.4, "110"), (0.0099999, "0.01"), (52, "52")])
def test_rates_and_bands_of_a_target_read_as_such(rate, text):
    properties = {"far_per_mpx": rate, "contrast_3": 6.93, "contrast_nir": -1.0}
    place = {"peak": (0, 0), "box": (0, 0, 1, 1), "rings": [], "geometry": None, "degrees": None}
    row = Row(properties=properties, score=0.5, **place)
    lines = _target(row, 1)["lines"]
    assert f"{text} false per Mpx" in lines
    assert lines[-1] == "contrast band 3 +6.9, nir -1.0"


def test_page_and_documents_say_the_same_share_of_ships():
    docs = Path(__file__).parents[1] / "docs"
    words = " ".join((docs / "targets.md").read_text("utf-8").split())
    counts = re.search(r"highest targets at level low, (.*?) in two SAR scenes", words)[1]
    ports = [int(found) / 20 for found in re.findall(r"(\d+) \(", counts)]
    radar = [int(found) / int(of) for found, of in re.findall(r"(\d+) of (\d+)", counts)]
    assert (len(ports), len(radar)) == (4, 2)
    least, most = (round(100 * limit(ports + radar)) for limit in (min, max))
    assert f"{least} to {most} %" in PROMISE
    assert f"{least} to {most} %" in (docs / "report.md").read_text("utf-8")


def test_a_page_speaks_of_our_weights_only_if_the_map_has_weights(folder, tmp_path):
    assert PROMISE not in contents(folder / "page.html")  # RX
    shutil.copytree(folder / "map.zarr", tmp_path / "map.zarr")
    group = zarr.open_group(tmp_path / "map.zarr", mode="r+")
    group.update_attributes({"weights": "0123"})
    us.report(tmp_path / "map.zarr", folder / EVIL, tmp_path / "p.html")
    assert PROMISE in contents(tmp_path / "p.html")


# ---- scores as bytes ----------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [None, LEVELS])
def test_a_byte_tells_exactly_if_a_score_reaches_an_edge(levels):
    scale = Scale.of(levels)
    rng = np.random.default_rng(1)
    score = np.concatenate([rng.random(5000).astype(np.float32), scale.edges, [0, 1]])
    score = score.astype(np.float32)
    values = scale.values(score)
    assert len(scale.edges) + 1 < UNSCORED
    for step, edge in enumerate(scale.edges, 2):
        assert ((values >= step) == (score >= edge)).all()
    assert scale.values(np.array([np.nan], np.float32)).item() == NO_DATA
    if levels is not None:
        assert all(scale.edges[scale.step(t) - 2] == np.float32(t) for t in (0.5, 0.8, 0.95))


@pytest.mark.parametrize(("shape", "factor"), [((300, 420), 7), ((5, 3), 1), ((1030, 2049), 5)])
def test_a_reduced_map_has_the_highest_scores(shape, factor):
    score = np.random.default_rng(2).random(shape).astype(np.float32)
    score[: shape[0] // 2, :2] = np.nan

    small = reduced(lambda rows, cols: score[rows, cols], shape, factor)
    assert np.array_equal(small, block_maximum(score, factor), equal_nan=True)


@pytest.mark.parametrize(
    ("box", "peak"),
    [((0, 0, 3, 4), (1, 1)), ((90, 90, 100, 100), (95, 95)), ((0, 0, 9000, 9000), (5, 7))],
)
def test_a_close_up_holds_its_target(box, peak):
    frame = CloseUp.around(box, peak)
    inside, placed = frame.cut((100, 100))
    assert all(a.stop - a.start == b.stop - b.start for a, b in zip(inside, placed, strict=True))
    assert all(0 <= p.start <= p.stop <= SIDE * frame.factor for p in placed)
    assert frame.row <= peak[0] < frame.row + SIDE * frame.factor
    assert frame.col <= peak[1] < frame.col + SIDE * frame.factor


def test_a_long_layer_becomes_coarser():
    noise = np.random.default_rng(3).integers(1, 100, (501, 300)).astype(np.uint8)
    noise[:2, :2], noise[2:4, :2] = UNSCORED, NO_DATA
    layer = report_layers.packed_layer(noise, 3, 60_000)
    assert len(layer["scores"]) <= 60_000
    assert layer["factor"] in (6, 12)
    assert layer["height"] * layer["factor"] >= 501 * 3


# ---- bad input ----------------------------------------------------------------------------------


def command(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_a_scene_without_crs_has_positions_in_pixels(tmp_path):
    write_scene(tmp_path / "plain.tif", crs=None)
    score(tmp_path / "plain.tif", tmp_path / "m.zarr")
    summary = us.report(tmp_path / "m.zarr", tmp_path / "plain.tif", tmp_path / "p.html")
    assert summary.shown
    assert any("no CRS" in note for note in summary.notes)
    data = data_in(contents(tmp_path / "p.html"))
    assert data["places"] is None
    assert data["metres"] is None
    assert "the map will have none" not in contents(tmp_path / "p.html")
    assert {t["geometry"] for t in data["targets"]} == {None}
    assert max(len(ring) for t in data["targets"] for ring in t["rings"]) <= MOST_CORNERS


def test_a_scene_of_another_planet_has_positions_in_pixels(tmp_path):
    write_scene(tmp_path / "moon.tif", crs=NOT_OF_THE_EARTH["moon"])
    with pytest.warns(us.SceneWarning, match="no place on the Earth in Moon"):
        score(tmp_path / "moon.tif", tmp_path / "m.zarr")
    assert us.report(tmp_path / "m.zarr", tmp_path / "moon.tif", tmp_path / "p.html").shown
    data = data_in(contents(tmp_path / "p.html"))
    assert data["places"] is None
    assert {t["geometry"] for t in data["targets"]} == {None}


def test_a_map_without_levels_has_no_rates(tmp_path):
    write_scene(tmp_path / "s.tif")
    score(tmp_path / "s.tif", tmp_path / "m.zarr")
    us.report(tmp_path / "m.zarr", tmp_path / "s.tif", tmp_path / "p.html")
    text = contents(tmp_path / "p.html")
    assert "has no curve of false alarms" in text
    assert "data-level=" not in text.partition("<script")[0]
    assert set(data_in(text)["far"]) == {None}


def test_a_moved_scene_with_a_name_of_its_own_is_named_as_the_message_says(folder, tmp_path):
    shutil.copy(folder / EVIL, tmp_path / "moved.tif")
    moved = us.open_scene(tmp_path / "moved.tif")
    with pytest.raises(us.StoreError, match=r"give it the name .* open_scene\(\.\.\.\)\.rename\("):
        us.report(folder / "map.zarr", moved, tmp_path / "p.html")
    (note, *_) = us.report(folder / "map.zarr", moved.rename(EVIL), tmp_path / "p.html").notes
    assert "was moved or changed" in note


def test_the_map_of_another_scene_is_refused(folder, tmp_path):
    write_scene(tmp_path / "other.tif", seed=4)
    with pytest.raises(
        us.StoreError, match=r"is the map of scene .* Pass the scene that was scored"
    ):
        us.report(folder / "map.zarr", tmp_path / "other.tif", tmp_path / "p.html")
    with rasterio.open(tmp_path / "other.tif", "r+") as file:
        file.transform = from_origin(500100, 4200000, 10, 10)
    with pytest.raises(us.StoreError, match="another place on the ground"):
        us.report(folder / "map.zarr", tmp_path / "other.tif", tmp_path / "p.html")
    with rasterio.open(
        tmp_path / "small.tif", "w", driver="GTiff", height=9, width=9, count=1, dtype="uint8"
    ) as file:
        file.write(np.ones((1, 9, 9), np.uint8))
    with pytest.raises(us.StoreError, match=r"300 x 420 px, but scene 'small\.tif' has 9 x 9 px"):
        us.report(folder / "map.zarr", tmp_path / "small.tif", tmp_path / "p.html")
    assert not (tmp_path / "p.html").exists()


def test_a_scene_that_was_moved_gets_a_note(folder, tmp_path):
    shutil.copy(folder / EVIL, tmp_path / EVIL)
    summary = us.report(folder / "map.zarr", tmp_path / EVIL, tmp_path / "p.html")
    assert any("moved or changed" in note for note in summary.notes)
    assert "moved or changed" in contents(tmp_path / "p.html")


def test_an_incomplete_map_is_shown_as_such(folder, tmp_path):
    shutil.copytree(folder / "map.zarr", tmp_path / "map.zarr")
    group = zarr.open_group(tmp_path / "map.zarr", mode="r+")
    group["done"][0, 0] = 0
    group["score"][:100, :100] = np.nan
    result = command(tmp_path / "map.zarr", "--scene", folder / EVIL, "-o", tmp_path / "p.html")
    assert result.exit_code == 1, result.output
    text = contents(tmp_path / "p.html")
    assert "is incomplete: 1 of" in text
    (layer,) = data_in(text)["layers"]
    values = np.frombuffer(zlib.decompress(base64.b64decode(layer["scores"])), np.uint8)
    values = values.reshape(layer["height"], layer["width"])
    assert (values[:100, :100] == UNSCORED).all()
    assert (values[285:, :25] == NO_DATA).all()
    assert (values[120:200, 300:400] < UNSCORED).all()


def test_an_empty_result_says_where_the_highest_score_is(folder, tmp_path):
    (tmp_path / "t.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    summary = us.report(
        folder / "map.zarr", folder / EVIL, tmp_path / "p.html", targets=tmp_path / "t.geojson"
    )
    assert (summary.shown, summary.total) == (0, 0)
    text = contents(tmp_path / "p.html")
    highest = zarr.open_group(folder / "map.zarr", mode="r")["score"][:]
    row, col = np.unravel_index(np.nanargmax(highest), highest.shape)
    assert f"near row {row}, column {col}" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["features"][0]["properties"].pop("score_max"), "no column 'score_max'"),
        (lambda t: t["features"][0]["properties"].update(peak_row="x"), "not a number"),
        (lambda t: t["features"][0]["properties"].update(score_max=0.31), "table of another map"),
        (lambda t: t["features"][0]["properties"].update(peak_row=-5), "table of another map"),
        (lambda t: t["features"][0]["properties"].update(peak_col=10**30), "table of another map"),
        (lambda t: t.pop("features"), "cannot be read"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(folder, tmp_path, change, message):
    table = made_table(folder)
    change(table)
    (tmp_path / "t.geojson").write_text(json.dumps(table))
    with pytest.raises(us.StoreError, match=message):
        us.report(
            folder / "map.zarr", folder / EVIL, tmp_path / "p.html", targets=tmp_path / "t.geojson"
        )
    assert not (tmp_path / "p.html").exists()


@pytest.mark.parametrize("left", ["", "name,area\n"])
def test_what_is_left_of_a_table_is_not_a_table_without_rows(folder, tmp_path, left):
    (tmp_path / "t.csv").write_text(left)
    with pytest.raises(us.StoreError, match="no column 'score_max'"):
        us.report(
            folder / "map.zarr", folder / EVIL, tmp_path / "p.html", targets=tmp_path / "t.csv"
        )
    assert not (tmp_path / "p.html").exists()


def test_bad_options_get_a_sentence(folder, tmp_path):
    scene, store = folder / EVIL, folder / "map.zarr"
    for given, message in (
        (["-o", tmp_path / "p.pdf"], "Let it end in .html"),
        (["-o", tmp_path / "no" / "p.html"], "does not exist"),
        (["-o", tmp_path / "p.html", "--top", 0], "Use 1 to 1000"),
        (["-o", tmp_path / "p.html", "--targets", tmp_path / "t.shp"], "no known format"),
        (["-o", tmp_path / "p.html", "--targets", tmp_path / "t.csv"], "do not exist"),
    ):
        result = command(store, "--scene", scene, *given)
        assert isinstance(result.exception, us.UniadrsScaleError), result.output
        assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to(folder):
    with pytest.raises(us.StoreError, match=r"Cannot write '/proc/p\.html'"):
        us.report(folder / "map.zarr", folder / EVIL, "/proc/p.html")


def test_maps_of_other_pixels_are_not_compared(folder, tmp_path):
    write_scene(tmp_path / "s.tif", crs="EPSG:32635")
    score(tmp_path / "s.tif", tmp_path / "m.zarr")
    with pytest.raises(us.StoreError, match=r"is not on the grid of 'map\.zarr'"):
        us.report(
            folder / "map.zarr", folder / EVIL, tmp_path / "p.html", compare=tmp_path / "m.zarr"
        )


def test_the_command_in_a_page_has_no_folders_and_no_secrets(folder, tmp_path, monkeypatch):
    shown = _command(["/usr/bin/x", "report", "/home/me/map.zarr", "--scene=/data/a b.tif"])
    assert shown == "uniadrs-scale report map.zarr '--scene=a b.tif'"
    shown = _command(["x", "report", "https://me:secret@host/m.zarr?sig=abc123"])
    assert "secret" not in shown
    assert "abc123" not in shown


# ---- size ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_large_scene_makes_a_page_of_at_most_five_megabytes(tmp_path):
    """10,000 x 10,000 px with texture that compresses badly, noise in the map, and 200 targets."""
    side, part = 10_000, 1000
    rng = np.random.default_rng(5)
    texture = rng.normal(0, 30, (3, part, part)) + ndimage.gaussian_filter(
        rng.normal(0, 900, (3, part, part)), (0, 6, 6)
    )
    block = np.clip(texture + 120, 1, 255).astype(np.uint8)
    profile = {"height": side, "width": side, "count": 3, "dtype": "uint8", "tiled": True}
    place = {"crs": "EPSG:32634", "transform": from_origin(500000, 4200000, 10, 10)}
    score = (0.5 * rng.random((part, part), np.float32)) ** 2
    for row in range(50, part, 100):
        for col in range(200, part, 400):
            score[row : row + 8, col : col + 5] = 0.9 + 0.01 * rng.random((8, 5))
    store = zarr.open_group(tmp_path / "map.zarr", mode="w")
    array = store.create_array("score", shape=(side, side), chunks=(part, part), dtype="float32")
    with rasterio.open(tmp_path / "s.tif", "w", driver="GTiff", **profile, **place) as file:
        for row in range(0, side, part):
            file.write(np.tile(block, 10), window=((row, row + part), (0, side)))
            for col in range(0, side, part):
                array[row : row + part, col : col + part] = np.roll(
                    score, (row // part, col // part)
                )
    facts = {"fingerprint": "0123456789abcdef", "software": "uniadrs_scale 0.2.0"}
    store.update_attributes({**facts, "levels": LEVELS.to_json()})
    table = {"features": []}
    for k in range(200):
        row, col = 1000 * (k // 20) + 50 + 100 * (k % 10), 200 + 1000 * (k % 10) + 400 * (k % 2)
        window = array[row : row + 30, col : col + 30]
        peak = np.unravel_index(window.argmax(), window.shape)
        p = {"peak_row": row + int(peak[0]), "peak_col": col + int(peak[1])}
        p |= {"score_max": float(window.max()), "row0": row, "col0": col}
        p |= {"row1": row + 30, "col1": col + 30, "target_id": f"s-{k:010x}", "pixels": 40}
        table["features"].append({"type": "Feature", "geometry": None, "properties": p})
    (tmp_path / "t.geojson").write_text(json.dumps(table))
    summary = us.report(
        tmp_path / "map.zarr",
        tmp_path / "s.tif",
        tmp_path / "p.html",
        targets=tmp_path / "t.geojson",
        compare=tmp_path / "map.zarr",
    )
    assert summary.shown == 200
    assert (tmp_path / "p.html").stat().st_size <= 5_000_000


class _Flat:
    """A map whose every score is 0.9."""

    def read(self, rows, cols):
        return np.full((1, rows.stop - rows.start, cols.stop - cols.start), 0.9, np.float32)


def test_a_swath_reads_its_positions_once_for_all_targets():
    reads = []

    def positions(rows, cols):
        reads.append((rows, cols))
        row, col = np.mgrid[rows, cols].astype(float)
        return 40 + row / 1000, 10 + col / 1000

    rng = np.random.default_rng(5)
    peaks = rng.integers(5, 195, (60, 2))
    names = "score_max", "peak_row", "peak_col", "row0", "col0", "row1", "col1"
    records = [
        dict(zip(names, (0.9, row, col, row - 1, col - 1, row + 2, col + 2), strict=True))
        for row, col in peaks.tolist()
    ]
    table = Table(name="t.csv", records=records, geometries=[None] * 60, crs=None, origin="")
    tie = Positions(
        geobox=GeoBox((200, 200), Affine.identity(), "EPSG:4326"),
        ground=Swath(positions, (200, 200)),
    )
    rows = checked_rows(table, _Flat(), tie, 60)
    assert len(rows) == 60
    assert len(reads) == 2, "one block for the centres, one for the outlines"
    for row in rows:
        lon, lat = row.degrees
        assert (lat, lon) == pytest.approx((40 + row.peak[0] / 1000, 10 + row.peak[1] / 1000))
        ring = np.array(row.geometry["coordinates"][0])
        own = [row.box[1] - 0.5, row.box[0] - 0.5, row.box[3] - 0.5, row.box[2] - 0.5]
        bounds = [*ring.min(axis=0), *ring.max(axis=0)]
        found = (np.array(bounds) - [10, 40, 10, 40]) * 1000
        assert found == pytest.approx(own, abs=1e-2)
    assert checked_rows(replace(table, records=[], geometries=[]), _Flat(), tie, 60) == []


def test_only_reports_are_replaced(folder, tmp_path):
    path = tmp_path / "index.html"
    for _ in range(2):
        us.report(folder / "map.zarr", folder / EVIL, path)
    path.write_text("<p>mine</p>")
    with pytest.raises(us.StoreError, match="exists and is not a report"):
        us.report(folder / "map.zarr", folder / EVIL, path)
    assert path.read_text() == "<p>mine</p>"


@pytest.mark.parametrize("ending", ["geojson", "csv", "html"])
def test_a_file_of_others_is_refused_by_its_beginning(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b'{"type": "FeatureCollection", "features": [')
    with path.open("r+b") as file:
        file.truncate(2**40)  # a sparse file, which no memory holds
    page = partial(require_own_page, what="a report", sign=SIGN)
    with pytest.raises(us.StoreError, match="exists and is not a"):
        (page if ending == "html" else require_writable)(path)
