"""The pages about tasks tell the truth: their commands and code run in their order."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING

import gallery
import h5py
import numpy as np
import pytest
import rasterio
import shapely
from archives import write_archive
from documents import DOCS, run_command, steps, text_of
from PIL import Image
from products import emit, sentinel1, write_raster

import uniadrs_scale as us
from uniadrs_scale.demo.landscape import background
from uniadrs_scale.demo.scene import demo_scene, write_scene

if TYPE_CHECKING:
    from pathlib import Path


def walk(page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> dict:
    """Carry out a page in the working directory; the names of its code are returned."""
    names: dict[str, object] = {"__name__": "page"}
    assert steps(page)
    for command, code in steps(page):
        if command:
            run_command(command, monkeypatch, capsys)
        else:
            exec(code, names)  # noqa: S102 - our own document
    return names


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def features(path: Path, shapes: list, crs: str = "EPSG:32632", **columns: list) -> None:
    rows = [
        {"type": "Feature", "properties": {name: values[k] for name, values in columns.items()},
         "geometry": shapely.geometry.mapping(shape)}
        for k, shape in enumerate(shapes)
    ]  # fmt: skip
    named = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": named, "features": rows}))


def test_hyperspectral(folder: Path, monkeypatch, capsys) -> None:
    pixels = background(np.random.default_rng(0), 20, 130, 140)
    cube = write_raster(folder / "flight.dat", pixels, 5, driver="ENVI", INTERLEAVE="BIL")
    header = cube.with_suffix(".hdr")
    waves = ", ".join(f"{wave:.0f}" for wave in np.linspace(400, 2400, 20))
    text = header.read_text()
    text = text[: text.index("band names")]
    header.write_text(f"{text}wavelength units = Nanometers\nwavelength = {{{waves}}}\n")
    walk("hyperspectral.md", monkeypatch, capsys)
    with rasterio.open("map.tif") as made, rasterio.open("rx.tif") as rx:
        assert made.tags()["preset"] == "hyperspectral"
        assert made.shape == rx.shape == (130, 140)
    assert json.loads((folder / "targets.geojson").read_text())["features"]


def test_radar(folder: Path, monkeypatch, capsys) -> None:
    safe = sentinel1(folder, height=200, width=220)
    safe.rename(folder / "S1A.SAFE")
    speckle = np.random.default_rng(0).gamma(4, 50, (1, 390, 400)).astype(np.uint16)
    write_raster(folder / "spotlight.tif", speckle, 1)
    features(folder / "land.geojson", [shapely.box(9, 44.99, 9.002, 45)], "EPSG:4326")
    walk("sar.md", monkeypatch, capsys)
    with rasterio.open("map.tif") as made, rasterio.open("spotlight_map.tif") as chip:
        assert made.crs.is_projected
        assert made.tags()["preset"] == chip.tags()["preset"] == "sar"


def test_swaths(folder: Path, monkeypatch, capsys) -> None:
    path = emit(folder, height=130, width=140, bands=16)
    path.rename(folder / "swath.nc")
    with h5py.File(folder / "swath.nc", "r+") as file:
        cube = file["reflectance"]
        pixels = background(np.random.default_rng(0), 16, 130, 140)
        cube[...] = np.moveaxis(pixels, 0, -1)
    walk("swaths.md", monkeypatch, capsys)
    with rasterio.open("map.tif") as made, rasterio.open("degrees.tif") as degrees:
        assert made.crs.is_projected
        assert degrees.crs.to_epsg() == 4326
        assert degrees.res == (0.005, 0.005)
    assert us.open_scene("swath.nc").isel(y=slice(0, 50)).sizes["y"] == 50


def test_own_labels(folder: Path, monkeypatch, capsys) -> None:
    invented = demo_scene(3, 384, 6)
    write_scene(invented, folder / "scene.tif")
    scene = us.open_scene("scene.tif")
    places = [
        shapely.Point(scene.x[target.col], scene.y[target.row]).buffer(10 * target.radius)
        for target in invented.targets
    ]
    features(folder / "objects.geojson", places)
    marks = ["real", "false", "unsure", "real", "real", "real"]
    features(folder / "marks.geojson", places, mark=marks)
    names = walk("your_labels.md", monkeypatch, capsys)
    assert names["judged"].at(names["threshold"])["false_alarms"] <= 10
    assert len(names["found"])
    assert names["found"].score_max.min() >= names["threshold"]


def test_gis(folder: Path, monkeypatch, capsys) -> None:
    write_scene(demo_scene(3, 256, 2), folder / "scene.tif")
    write_scene(demo_scene(3, 256, 2), folder / "incoming" / "scene.tif")
    us.sweep(write_archive(folder, plan={}), detector=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odc-stac and rio-tiler warn of what they do
        names = walk("gis.md", monkeypatch, capsys)
    assert dict(names["cube"].score.sizes)["time"] == 1
    assert names["picture"].startswith(b"\x89PNG")


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_exist(page: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", text_of(page)):
        assert (DOCS / target).exists(), target


@pytest.mark.parametrize("notebook", sorted(path.name for path in DOCS.glob("notebooks/*.py")))
def test_links_of_notebooks_exist(notebook: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", text_of(f"notebooks/{notebook}")):
        assert (DOCS / "notebooks" / target).exists(), target


def test_the_gallery_shows_all_pictures_of_its_script() -> None:
    shown = re.findall(r"\]\(gallery/(\w+)\.jpg\)", text_of("gallery.md"))
    assert shown == list(gallery.PICTURES)
    sizes = {path.stem: path.stat().st_size for path in DOCS.glob("gallery/*")}
    assert sizes.keys() == set(shown)
    assert max(sizes.values()) <= gallery.LARGEST


def test_a_picture_of_the_gallery_is_cropped_and_small(tmp_path: Path) -> None:
    noise = np.full((400, 2000, 3), 255, np.uint8)
    noise[:, :1700] = np.random.default_rng(0).integers(0, 255, (400, 1700, 3))
    Image.fromarray(noise).save(tmp_path / "map.png")
    made = gallery.jpeg(tmp_path / "map.png")
    assert len(made) <= gallery.LARGEST
    assert Image.open(io.BytesIO(made)).size == (1300, round(400 * 1300 / 1724))


def test_every_page_is_in_the_navigation() -> None:
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    for path in DOCS.glob("*.md"):
        assert re.search(rf" {re.escape(path.name)}$", navigation, re.MULTILINE), path.name


def test_the_page_of_functions_has_all_public_names() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    paths = re.findall(r"^::: (\S+)$", page, re.MULTILINE)
    documented = {path.rpartition(".")[2] for path in paths}
    names = {name for name in us.__all__ if not name.endswith(("Error", "Warning", "__"))}
    described_by_their_makers = {"ArchiveConfig", "ScorePlan", "SweepReport", "load_config"}
    assert names - documented == described_by_their_makers


def test_roles_of_docstrings_are_not_on_the_site() -> None:
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="api.md"))
    made = hooks.on_page_content("<p>As :func:<code>us.score</code>: see</p>", page=page)
    assert made == "<p>As <code>us.score</code>: see</p>"
