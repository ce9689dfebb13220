"""The command line as a user meets it: verbs, summaries, exit codes, one sentence for errors."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import products
import pytest
import rasterio
import xarray as xr
from rasterio.transform import from_origin

import uniadrs_scale as us
from uniadrs_scale.cli import main as cli
from uniadrs_scale.cli import score as cli_score
from uniadrs_scale.cli.options import spread
from uniadrs_scale.maps.store import MISSING, open_store
from uniadrs_scale.pages.report import MOST

PIXELS = np.random.default_rng(0).integers(1, 3000, (3, 300, 260)).astype(np.uint16)
PIXELS[:, :70, :70] = 0


def write(path: Path, pixels: np.ndarray, **profile: object) -> Path:
    count, height, width = pixels.shape
    profile |= {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    grid = {"crs": "EPSG:32633", "transform": from_origin(4e5, 6e6, 20, 20)}
    with rasterio.open(path, "w", driver="GTiff", **profile, **grid) as file:
        file.write(pixels)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write(tmp_path / "scene.tif", PIXELS, nodata=0)


class Run:
    """What one command gave."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["uniadrs-scale", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return Run(int(stop.value.code or 0), *capsys.readouterr())

    return call


def test_score_to_zarr_then_verify_then_again(run, scene, tiny_weights, tmp_path) -> None:
    options = ["--weights", tiny_weights, "--scheduler", "sync", "--tile", 64, "--chunk", 128]
    store = tmp_path / "map.zarr"
    first = run("score", scene, "-o", store, *options)
    assert first.code == 0
    assert "0.08 Mpx in 9 chunks" in first.out
    assert "35 scored, 1 skipped (no valid pixel), 0 failed" in first.out
    assert f"output   {store}" in first.out
    assert run("verify", store).out.startswith("9 of 9 chunks complete")
    again = run("score", scene, "-o", store, *options)
    assert again.code == 0
    assert "9 were complete before" in again.out
    assert "Anomaly scores of scene.tif" in run("info", store).out


def test_score_to_cog_lies_where_the_scene_lies(run, scene, tiny_weights, tmp_path) -> None:
    options = ["--weights", tiny_weights, "--scheduler", "sync", "--tile", 64]
    cog = tmp_path / "map.tif"
    assert run("score", scene, "-o", cog, *options).code == 0
    with rasterio.open(cog) as got, rasterio.open(scene) as given:
        assert (got.crs, got.transform, got.shape) == (given.crs, given.transform, given.shape)
        assert np.isnan(got.nodata)
        score = got.read(1)
    np.testing.assert_array_equal(np.isnan(score), PIXELS[0] == 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "map.png",
        "map.qml",
        "map.tif",
        "map.tif.run.json",
        "scene.tif",
    ]
    assert "Pass a .zarr that `score` wrote" in run("cog", cog, tmp_path / "again.tif").err
    said = run("info", cog).out
    assert json.loads(said[said.index("{") :])["lattice"]["tile"] == 64
    before = cog.read_bytes()
    assert run("plan", scene, "-o", cog, *options).out.count("is complete: nothing to do") == 1
    assert "1 were complete before" in run("score", scene, "-o", cog, *options).out
    other = run("score", scene, "-o", cog, *options, "--stride", 40)
    assert other.code == 2
    assert "is not the map of this scene and plan" in other.err
    assert cog.read_bytes() == before


def test_plan_says_that_the_folder_is_read_only(run, scene, tmp_path, monkeypatch) -> None:
    """A read-only disk, as processes of root see it, too."""
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    got = run("plan", scene, "-o", tmp_path / "map.tif", "--detector", "rx")
    assert (got.code, f"Cannot write to '{tmp_path}'" in got.err) == (2, True), got.err


def test_plan_runs_nothing_and_speaks_json(run, scene, tiny_weights, tmp_path) -> None:
    options = ["--weights", tiny_weights, "--tile", 64, "--chunk", 128]
    text = run("plan", scene, *options, "-o", tmp_path / "map.zarr")
    assert text.code == 0
    assert "WGS 84 / UTM zone 33N" in text.out
    assert "36 of 64 px, stride 48 px" in text.out
    assert "map.zarr is new" in text.out
    values = json.loads(run("plan", scene, *options, "--json").out)
    assert values["memory"]["total"] > 0
    assert values["chunks"] == [3, 3]
    assert values["tasks"] == 1 + 4 * 9 - 3 - 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scene.tif"]


def test_bands_and_nodata_are_chosen(run, scene, tiny_weights, tmp_path) -> None:
    options = ["--weights", tiny_weights, "--tile", 64, "--scheduler", "sync"]
    out = run("plan", scene, *options, "--bands", "3,1-2").out
    assert "3 bands" in out
    assert "2 bands" in run("plan", scene, *options, "--bands", "1,3").out
    assert run("score", scene, "-o", tmp_path / "m.zarr", *options, "--nodata", "none").code == 0
    assert run("score", scene, "-o", tmp_path / "n.zarr", *options, "--nodata", "x").code == 2


def test_info_describes_weights_and_scenes(run, scene, tiny_weights) -> None:
    assert "tiny" in run("info", tiny_weights).out
    out = run("info", scene).out
    assert "300 rows x 260 columns" in out
    assert "uint16" in out


def test_info_takes_one_file_per_band(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).normal(1000, 30, (1, 40, 50)).astype(np.float32)
    for band in ("B02", "B03"):
        write(tmp_path / f"coast_{band}.tif", pixels)
    several, pattern = run("info", "coast_B02.tif", "coast_B03.tif"), run("info", "coast_*.tif")
    assert several.out == pattern.out
    assert "bands         2: coast_B02, coast_B03" in several.out
    assert "crs           WGS 84 / UTM zone 33N" in several.out


def test_a_plan_asks_whether_a_border_of_one_value_is_data(run, scene, tmp_path) -> None:
    pixels = np.random.default_rng(0).normal(1000, 30, (2, 700, 800)).astype(np.uint16)
    pixels[:, :60] = pixels[:, :, :60] = 0  # seen by windows in the corners only
    path = write(tmp_path / "border.tif", pixels)
    told = run("plan", path, "--detector", "rx").out
    assert "not valid    no value is declared; name one with --nodata" in told
    assert "--nodata 0, or open_scene(nodata=0)" in told
    told = run("plan", path, "--detector", "rx", "--nodata", "0").out
    assert "not valid    0 in all bands" in told
    share = float(told.split("valid        ")[1].split("%")[0])
    assert 75 < share < 90  # 84.6% are data
    assert "areas of" not in told


def test_a_wrong_choice_is_named_with_the_right_ones(run, scene) -> None:
    told = run("plan", scene, "--detector", "ace").err
    assert "Value error" not in told
    assert "Invalid value for '--detector': 'ace' is not one of 'uniadrs', 'rx', 'lrx'." in told


@pytest.mark.parametrize(("command", "options", "told"), [
    ("plan", ["--detector", "rx", "--weights", "uniadrs-s", "--dtype", "bfloat16"],
     "--weights and --dtype have no effect with --detector rx. Drop them."),
    ("plan", ["--detector", "lrx", "--device", "cpu"],
     "--device has no effect with --detector lrx. Drop it."),
    ("plan", ["--crs", "EPSG:4326"], "--crs has no effect on a scene with a grid. Drop it."),
    ("plan", ["--scheduler", "sync", "--workers", 3],
     "workers=3 is for processes that are started on this machine, got scheduler='sync'."),
    ("plan", ["--scheduler", "threads", "--wait-for-workers", "6h"],
     "wait_for_workers is for clusters, got scheduler='threads'. Drop it."),
    ("targets", ["--bands", "1"], "--bands has no effect without --scene. Drop it."),
    ("targets", ["--weights", "rx"], "--weights has no effect without --second-look. Drop it."),
    ("info", ["--nodata", "0"], "--nodata has no effect on a map. Drop it."),
])  # fmt: skip
def test_an_option_without_effect_is_refused(
    run, scene, tmp_path, command: str, options: list[object], told: str
) -> None:
    path = scene
    if command != "plan":
        us.score(scene, path := tmp_path / "map.zarr", detector="rx", tile=64, scheduler="sync")
    got = run(command, path, *options)
    assert (got.code, told in got.err) == (2, True), got.err


BAD_INPUT = {
    "missing scene": (["none.tif"], [], "none.tif' does not exist"),
    "no raster": (["text.tif"], [], "is not a raster that can be opened"),
    "unknown band": (["scene.tif"], ["--bands", "9"], "Band '9' is not one of"),
    "no bands": (["scene.tif"], ["--bands", ","], "No bands of"),
    "bands that count down": (["scene.tif"], ["--bands", "1,3-2"], "--bands '3-2' counts down"),
    "bands named twice": (["scene.tif"], ["--bands", "1-3,2"], "'scene.tif' is selected twice"),
    "band counts": (["scene.tif", "one.tif"], [], "'one.tif' has 1 bands but 'scene.tif' has 3"),
    "mixed CRS": (["one.tif", "other.tif"], [], "have different CRS"),
    "corrupt weights": (["scene.tif"], ["--weights", "bad.safetensors"], "not a readable weights"),
    "corrupt checkpoint": (["scene.tif"], ["--weights", "bad.pth"], "not a readable checkpoint"),
    "missing weights": (["scene.tif"], ["--weights", "no.safetensors"], "does not exist"),
    "unknown weights": (["scene.tif"], ["--weights", "uniadrs-xxl"], "do not ship"),
    "stride over tile": (["scene.tif"], ["--stride", "300"], "stride=300 px is larger than tile"),
    "overlap": (["scene.tif"], ["--stride", "50"], "overlap=206 px does not fit tile=256 px"),
    "small chunk": (
        ["scene.tif"],
        ["--chunk", "128", "--tile", "200"],
        "chunk=128 px is smaller than tile=200 px",
    ),
    "device": (["scene.tif"], ["--device", "tpu0"], "device='tpu0' is unknown"),
    "no such GPU": (["scene.tif"], ["--device", "cuda:99"], "device='cuda:99' does not exist"),
    "scheduler": (["scene.tif"], ["--scheduler", "quick"], "scheduler='quick' is unknown"),
    "workers": (["scene.tif"], ["--workers", "0"], "workers=0 is not allowed"),
    "missing folder": (["scene.tif"], ["-o", "none/map.zarr"], "Output folder"),
    "missing folder, COG": (["scene.tif"], ["-o", "none/map.tif"], "Output folder"),
    "unwritable": (["scene.tif"], ["-o", "/proc/map.zarr"], "Cannot create '/proc/map.zarr'"),
    "format": (["scene.tif"], ["-o", "map.png"], "Let it end in .zarr or .tif"),
    "taken": (["scene.tif"], ["-o", "one.tif"], "exists and is not a map"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_sentence_and_leaves_nothing(
    run, scene, tiny_weights, tmp_path, monkeypatch, case
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, crs in (("one.tif", "EPSG:32633"), ("other.tif", "EPSG:3857")):
        with rasterio.open(
            name, "w", driver="GTiff", count=1, height=300, width=260, dtype="uint16",
            crs=crs, transform=from_origin(4e5, 6e6, 20, 20),
        ) as file:  # fmt: skip
            file.write(PIXELS[:1])
    for name in ("text.tif", "bad.safetensors", "bad.pth"):
        Path(name).write_text("nothing of the kind")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    scenes, options, message = BAD_INPUT[case]
    for default in (["-o", "map.zarr"], ["--weights", str(tiny_weights)]):
        options = options if default[0] in options else [*options, *default]
    got = run("score", *scenes, *options)
    assert got.code == 2
    assert message in got.err
    assert got.err.startswith("error: ")
    assert got.err.count("\n") == 1
    assert "Traceback" not in got.err + got.out
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == []


def test_a_failing_tile_exits_with_one_and_says_where(run, scene, tiny_weights, tmp_path) -> None:
    """A file that ends too early: its lower tiles cannot be read."""
    pixels = np.random.default_rng(1).integers(0, 9999, (1, 600, 600)).astype(np.uint16)
    path = tmp_path / "cut.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=600, width=600, dtype="uint16",
        crs="EPSG:32633", transform=from_origin(4e5, 6e6, 20, 20),
    ) as file:  # fmt: skip
        file.write(pixels)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 3 // 4)
    options = ["--weights", tiny_weights, "--tile", 64, "--chunk", 200, "--scheduler", "sync"]
    got = run("score", path, "-o", tmp_path / "map.tif", *options)
    assert got.code == 1
    assert "failed   tile at pixel (" in got.out
    assert "read: " in got.out
    with rasterio.open(tmp_path / "map.tif") as file:
        score = file.read(1)
    assert np.isfinite(score[:200]).all()  # the first row of chunks
    assert np.isnan(score[-60:]).all()
    assert run("verify", tmp_path / ".map.tif.zarr").code == 1


def test_a_store_becomes_a_cog(run, scene, tiny_weights, tmp_path) -> None:
    options = ["--weights", tiny_weights, "--scheduler", "sync", "--tile", 64, "--chunk", 128]
    store, cog = tmp_path / "map.zarr", tmp_path / "map.tif"
    run("score", scene, "-o", store, *options)
    made = run("cog", store, cog)
    assert (made.code, made.out) == (0, f"output   {cog}\n")
    direct = tmp_path / "direct.tif"
    run("score", scene, "-o", direct, *options)
    with rasterio.open(cog) as got, rasterio.open(direct) as expected:
        assert (got.crs, got.transform, got.tags()) == (
            expected.crs, expected.transform, expected.tags(),
        )  # fmt: skip
        np.testing.assert_array_equal(got.read(), expected.read())
    assert run("cog", store, cog).code == 0, "a map of the same store is replaced"
    assert "nothing to geocode" in run("cog", store, tmp_path / "n.tif", "--crs", "EPSG:4326").err


def test_no_message_advises_to_remove_a_file(run, scene, tiny_weights, tmp_path) -> None:
    options = ["--weights", tiny_weights, "--scheduler", "sync", "--tile", 64, "--chunk", 128]
    made = tmp_path / "map.tif"
    run("score", scene, "-o", made, *options)
    (mine := tmp_path / "mine.zarr").mkdir()
    (mine / "notes.txt").write_text("mine")
    for name in ("mine.csv", "mine.html", "mine.gpkg"):
        (tmp_path / name).write_text("mine")
    for arguments in (
        ("score", scene, "-o", mine, *options),
        ("cog", mine, tmp_path / "new.tif"),
        ("cog", made, tmp_path / "new.tif"),
        ("targets", made, "--top", 1, "-o", tmp_path / "mine.csv"),
        ("targets", made, "--top", 1, "-o", tmp_path / "mine.gpkg"),
        ("report", made, "--scene", scene, "-o", tmp_path / "mine.html"),
    ):
        refused = run(*arguments)
        assert refused.code == 2
        assert "is not a" in refused.err
        assert "remove" not in refused.err.lower()
    assert {p.read_text() for p in (*tmp_path.glob("mine.*[!r]"), mine / "notes.txt")} == {"mine"}


def test_a_cog_replaces_no_other_raster(run, scene, tiny_weights, tmp_path) -> None:
    options = ["--weights", tiny_weights, "--scheduler", "sync", "--tile", 64, "--chunk", 128]
    store = tmp_path / "map.zarr"
    run("score", scene, "-o", store, *options)
    before = scene.read_bytes()
    refused = run("cog", store, scene)
    assert refused.code == 2
    assert "is not a map of" in refused.err
    also = run("score", scene, "-o", scene, *options)
    assert also.code == 2
    assert "remove" not in (refused.err + also.err).lower()  # it is the scene
    assert scene.read_bytes() == before
    other = tmp_path / "other.tif"
    run("score", scene, "-o", other, *options, "--stride", 40)
    assert run("cog", store, other).code == 2
    assert "does not exist" in run("cog", tmp_path / "none.zarr", tmp_path / "n.tif").err


def test_a_cog_of_an_unfinished_store_says_so(run, scene, tiny_weights, tmp_path) -> None:
    options = ["--weights", tiny_weights, "--scheduler", "sync", "--tile", 64, "--chunk", 128]
    store, cog = tmp_path / "map.zarr", tmp_path / "map.tif"
    run("score", scene, "-o", store, *options)
    open_store(store).group["done"][1, 1] = MISSING
    made = run("cog", store, cog)
    assert made.code == 1
    assert made.err.count("warning: 1 of 9 chunks") == 1
    assert cog.exists()


def test_an_error_shows_names_as_they_are(run) -> None:
    assert "'[/red][b]none.tif' matches no file" in run("info", "[/red][b]none.tif").err


def test_score_and_plan_share_their_options() -> None:
    taken = [
        set(inspect.signature(spread(command)).parameters)
        for command in (cli_score.score_command, cli_score.plan_command)
    ]
    assert taken[0] ^ taken[1] == {"as_json", "performance_report"}


def test_help_shows_no_types_of_flags_and_names_what_is_meant(run, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    commands = run("--help").out
    assert "bool" not in commands
    for command, usage in {
        "score": "{SCENE}...", "info": "{TARGET}...", "evaluate": "{MAP} {TRUTH}",
        "cog": "{STORE} {OUT.tif}", "verify": "{MAP}", "targets": "{MAP}", "report": "{MAP}",
        "sweep": "[ARCHIVE.yaml]", "retry": "{ARCHIVE.yaml} [SCENE]...", "plan": "{SCENE}...",
        "status": "{ARCHIVE.yaml}", "demo": "[OPTIONS]",
    }.items():  # fmt: skip
        out = run(command, "--help").out
        assert "bool" not in out
        assert re.search(rf"Usage: .* {command} .*{re.escape(usage)}\s*\n", out), out[:300]
        assert command in commands


def test_shells_complete_commands_and_options() -> None:
    words = {"COMP_WORDS": "uniadrs-scale score --pre", "COMP_CWORD": "2"}
    command = [str(Path(sys.executable).parent / "uniadrs-scale")]
    environment = os.environ | words | {"_UNIADRS_SCALE_COMPLETE": "complete_bash"}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["--preset"]


def test_advice_names_the_options_of_the_command_line() -> None:
    folder = Path(us.__file__).parent / "scenes"
    texts = {path.name: path.read_text("utf-8") for path in folder.rglob("*.py")}
    python_only = re.compile(r"\b(?:[Pp]ass|[Uu]se|[Gg]ive|with) [a-z_]+=")
    assert [name for name, text in texts.items() if python_only.search(text)] == []


def test_help_teaches(run) -> None:
    assert "Start with 'uniadrs-scale demo'" in run("--help").out
    out = run("score", "--help").out
    for word in ("--tile", "--stride", "--bands", "--nodata", "--scheduler", "resumes"):
        assert word in out
    assert run("--version").out.strip() == cli.__version__


def test_the_command_is_installed(tmp_path: Path) -> None:
    command = shutil.which("uniadrs-scale", path=str(Path(sys.executable).parent))
    assert command is not None
    done = subprocess.run(
        [command, "score"],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Missing argument" in done.stderr


def test_options_of_products_reach_the_scene(run, tmp_path, tiny_weights) -> None:
    safe = products.sentinel2(tmp_path)
    options = ["--grid", "B05", "--bands", "B02,B05", "--mask", "snow,9"]
    plan = run("plan", safe, *options, "--weights", tiny_weights, "--tile", 32, "--json")
    scene = json.loads(plan.out)["scene"]
    assert (scene["height"], scene["bands"], scene["gsd_m"]) == (60, ["B02", "B05"], 20)
    facts = run("info", safe, *options).out
    assert "grid          that of B05, 20 metre pixels" in facts
    assert "wavelengths   492.7 to 704.1 nm" in facts
    assert "acquired      2024-09-29T10:17:59.024000Z" in facts
    out = tmp_path / "map.zarr"
    assert run("score", safe, "-o", out, *options, "--weights", tiny_weights, "--tile", 32,
               "--scheduler", "sync").code == 0  # fmt: skip
    assert "fingerprint" in run("verify", out).out
    radar = products.sentinel1(tmp_path)
    assert "float32" in run("info", radar, "--units", "dB").out
    cube = products.matlab73(tmp_path)
    assert "1: 1" in run("info", cube, "--variable", "map").out
    wrong = run("plan", cube, "--mask", "cloud", "--weights", tiny_weights)
    assert wrong.code == 2
    assert "mask='cloud' is not a class of" in " ".join(wrong.err.split())


def test_info_of_a_zarr_scene_and_of_a_score_store_differ(run, tmp_path) -> None:
    cube = products.ramp(1, 20, 30, "float32")
    xr.Dataset({"b1": (("y", "x"), cube)}).to_zarr(tmp_path / "scene.zarr", consolidated=False)
    assert "20 rows x 30 columns" in run("info", tmp_path / "scene.zarr").out
    gone = run("info", tmp_path / "none.zarr")
    assert gone.code == 2
    assert "does not exist" in gone.err


@pytest.mark.parametrize("option", ["--name", "--bbox", "--aoi", "--mask"])
def test_an_empty_value_of_an_option_is_refused(run, scene, option) -> None:
    told = run("plan", scene, option, "").err
    assert f"{option} is empty. Give a value, or drop it." in told


def test_empty_options_and_names_that_are_no_cog_are_refused(run, tmp_path) -> None:
    assert "--truth is empty" in run("evaluate", tmp_path / "map.tif", "").err
    array = xr.DataArray(np.zeros((9, 9), np.float32), dims=("y", "x"))
    with pytest.raises(us.StoreError, match=r"Let it end in \.tif"):
        us.to_cog(array, tmp_path / "x.png")


def test_a_report_goes_to_a_url(scene: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []

    def report(*arguments: object, **_: object) -> None:
        places.append(arguments[2])
        raise us.StoreError("Enough.")

    monkeypatch.setattr("uniadrs_scale.pages.report.report", report)
    run("report", "s3://maps/map.zarr", "--scene", scene, "-o", "s3://maps/page.html")
    assert list(map(str, places)) == ["s3://maps/page.html"]


def test_help_of_a_report_says_how_many_targets_it_may_have(run) -> None:
    told = " ".join(run("report", "--help").out.replace("│", " ").split())
    assert f"at most {MOST}" in told


def test_an_interrupted_command_says_what_to_do(
    run: Any, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("uniadrs_scale.scoring.run.run", interrupted)
    told = run("score", scene, "-o", scene.with_name("map.tif"))
    assert told.code == 130
    assert told.err == "interrupted: run the same command again to resume\n"
