"""Scenes, scorers and progress as callers name them."""

from __future__ import annotations

import inspect
import io
import json
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from standins import TileMean

import uniadrs_scale as us
from uniadrs_scale.archive.product import SweepReport
from uniadrs_scale.archive.status import Status
from uniadrs_scale.core.contracts import Printed
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.core.plan import ScorePlan
from uniadrs_scale.demo.demo import DemoReport
from uniadrs_scale.detector.rx import GlobalRX, LocalRX
from uniadrs_scale.evaluation.histogram import ScoreHistogram
from uniadrs_scale.evaluation.judge import Evaluation
from uniadrs_scale.pages.report import ReportSummary
from uniadrs_scale.runtime.compute import LONG_SECONDS, SECONDS_PER_MPX, Compute
from uniadrs_scale.scenes.given import scene_of
from uniadrs_scale.scenes.sources import scene_source
from uniadrs_scale.scoring.job import scorer_of
from uniadrs_scale.scoring.progress import shown
from uniadrs_scale.scoring.report import RunSummary

if TYPE_CHECKING:
    from pathlib import Path


PIXELS = np.random.default_rng(0).integers(1, 4000, (2, 60, 70)).astype(np.uint16)
SCENE = xr.DataArray(PIXELS, dims=("band", "y", "x"))


def test_a_path_is_a_scene(small_raster: Path) -> None:
    got = us.score(small_raster, detector=TileMean(), tile=64, preset="single-band")
    opened = us.open_scene(small_raster)
    expected = us.score(opened, detector=TileMean(), tile=64, preset="single-band")
    np.testing.assert_array_equal(got.values, expected.values)
    assert us.plan([small_raster], detector="rx").scene.name == opened.name


def test_a_source_that_is_not_a_path_is_refused(small_raster: Path) -> None:
    dataset = xr.Dataset({"a": SCENE})
    for source in (None, 3, [], SCENE, dataset, [SCENE], {"B02": small_raster}):
        with pytest.raises(us.SceneError, match="is a path, a list of paths, a STAC item, or"):
            us.open_scene(source)  # type: ignore[arg-type] # the error of a caller
    tree = xr.DataTree.from_dict({"group": dataset})
    for foreign, line in (({"type": "Feature"}, "Item.from_dict"), (tree, "to_dataset")):
        for takes in (us.open_scene, us.score):
            with pytest.raises(us.SceneError, match=line):
                takes(foreign)  # type: ignore[arg-type] # the error of a caller
    found = us.open_scene(path for path in [small_raster])  # type: ignore[arg-type] # of glob()
    first = str(found.band.values[0])
    assert us.open_scene(small_raster, bands=first).equals(found[:1])
    assert us.open_scene(small_raster, bands=1).equals(found[:1])


def test_numbers_are_numbers(small_raster: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"detector": TileMean(), "preset": "single-band"}
    expected = us.plan(SCENE, tile=64, stride=48, chunk=128, scheduler="sync", **options)
    got = us.plan(SCENE, tile=np.int64(64), stride=np.int16(48), chunk=np.uint32(128),
                  scheduler="sync", **options)  # fmt: skip
    assert json.dumps(got.to_dict()) == json.dumps(expected.to_dict())
    us.score(SCENE, tmp_path / "map.zarr", tile=np.int64(64), scheduler="sync", **options)
    for wrong in ("64", 64.0, True, None, [64]):
        for name in ("tile", "stride", "chunk", "workers"):
            if wrong is not None:
                with pytest.raises(us.PlanError, match=rf"{name}=.* is not allowed\. Use whole"):
                    us.plan(SCENE, **{name: wrong}, **options)
        for name in ("threshold", "grow", "min_area", "false_alarms", "top"):
            if wrong not in (None, 64.0):
                with pytest.raises(us.PlanError, match=rf"{name}=.* is not allowed\. Use"):
                    us.targets(tmp_path / "map.zarr", **{name: wrong})
        with pytest.raises(us.PlanError, match=r"top=.* is not allowed"):
            us.report(tmp_path / "map.zarr", SCENE, tmp_path / "r.html", top=wrong)
        with pytest.raises(us.PlanError, match=r"chunk=.* is not allowed"):
            us.open_scene(small_raster, chunk=wrong)
    for name in ("tile", "stride", "chunk", "workers"):
        for small in (0, -5):
            with pytest.raises(us.PlanError, match=rf"{name}={small} is not allowed"):
                us.plan(SCENE, **{name: small}, **options)
    for option in ({"bands": 1.0}, {"bands": [1.5]}, {"mask": True}, {"variable": 3.0}):
        with pytest.raises(us.SceneError, match="holds neither names nor numbers"):
            us.open_scene(small_raster, **option)
    with pytest.raises(us.PlanError, match="wait_for_workers='6h' is not allowed"):
        us.score(SCENE, wait_for_workers="6h", **options)  # type: ignore[arg-type]


def test_flags_are_true_or_false() -> None:
    tried = []
    for name in us.__all__:
        function = getattr(us, name)
        known = inspect.signature(function).parameters if inspect.isfunction(function) else {}
        for option in known.values():
            if isinstance(option.default, bool):
                tried.append(option.name)
                for wrong in ("no", "", 0, 1, None):
                    with pytest.raises(us.PlanError, match=rf"{option.name}=.* Use True or False"):
                        function(None, **{option.name: wrong})
    assert sorted(tried) == ["dry_run", "overwrite", "progress", "second_look"]


def test_a_dataset_may_hold_one_array_with_bands() -> None:
    one = SCENE.to_dataset(name="reflectance")
    np.testing.assert_array_equal(scene_of(one).values, PIXELS)
    with pytest.raises(us.SceneError, match=r"several arrays with bands .* ds\['reflectance'\]"):
        scene_of(one.assign(radiance=SCENE))


def test_a_class_is_not_a_scorer_and_an_array_without_names_not_a_map() -> None:
    with pytest.raises(us.PlanError, match="takes a scorer, got type"):
        us.plan(SCENE, detector=us.Detector)  # type: ignore[arg-type] # the error of a caller
    with pytest.raises(us.SceneError, match=r"arrays with names, got ndarray. Pass"):
        us.evaluate_map(PIXELS[0], SCENE[0])


def test_a_file_that_changed_since_it_was_opened_is_opened_again(tmp_path: Path) -> None:
    raster, cube = tmp_path / "scene.tif", tmp_path / "cube.nc"
    placed = SCENE.rio.write_crs(32633).assign_coords(y=np.arange(60.0)[::-1], x=np.arange(70.0))
    for write in (lambda: placed.rio.to_raster(raster), lambda: placed.to_netcdf(cube)):
        write()
        path = cube if cube.exists() else raster
        scene = us.open_scene(path)
        part = us.crop(scene, bbox=(5, 5, 60, 50), crs=32633) if path == raster else scene
        assert us.plan(part, detector=TileMean(), tile=16, scheduler="sync")
        os.utime(path, (1, 1))  # as another program would that writes it
        for opened in (scene, part):
            for act in (us.plan, us.score):
                with pytest.raises(us.SceneError, match=f"{path.name}' has changed since"):
                    act(opened, detector=TileMean(), tile=16, scheduler="sync")
        assert us.plan(us.open_scene(path), detector=TileMean(), tile=16, scheduler="sync")


def test_a_header_that_changed_since_the_scene_was_opened_counts(tmp_path: Path) -> None:
    placed = SCENE.rio.write_crs(32633).assign_coords(y=np.arange(60.0)[::-1], x=np.arange(70.0))
    placed.rio.to_raster(path := tmp_path / "a.img", driver="ENVI")
    scene = us.open_scene(path)
    assert us.plan(scene, detector=TileMean(), tile=16, scheduler="sync")
    os.utime(tmp_path / "a.hdr", (1, 1))
    with pytest.raises(us.SceneError, match=r"a\.img' has changed since"):
        us.plan(scene, detector=TileMean(), tile=16, scheduler="sync")


def test_a_lazy_scene_of_unknown_size_is_refused() -> None:
    lazy = SCENE.chunk(y=20).data
    filtered = xr.DataArray(lazy[:, da.ones(60, chunks=20) > 0], dims=("band", "y", "x"))
    with pytest.raises(us.SceneError, match=r"are not known.*compute_chunk_sizes\(\)"):
        us.plan(filtered, detector=TileMean(), tile=16, scheduler="sync")
    filtered.data.compute_chunk_sizes()
    assert us.plan(filtered, detector=TileMean(), tile=16, scheduler="sync")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_zarr_store_whose_pixels_were_replaced_is_another_scene(
    tmp_path: Path, zarr_format: Literal[2, 3]
) -> None:
    made = xr.Dataset({"b": (("band", "y", "x"), PIXELS)}).chunk(band=1, y=20, x=35)
    made.to_zarr(path := tmp_path / "scene.zarr", zarr_format=zarr_format, consolidated=False)
    options: Any = {"detector": TileMean(), "tile": 16, "scheduler": "sync"}
    scene = us.open_scene(path)
    us.score(scene, tmp_path / "map.zarr", **options)
    zarr.open_group(path, mode="r+")["b"][:] = PIXELS[:, ::-1]
    with pytest.raises(us.SceneError, match=r"scene\.zarr' has changed since"):
        us.score(scene, tmp_path / "map.zarr", **options)
    with pytest.raises(us.StoreError, match="was begun with another plan"):
        us.score(us.open_scene(path), tmp_path / "map.zarr", **options)


def test_a_map_in_memory_has_no_path(tmp_path: Path) -> None:
    score = SCENE[0].astype("float32")
    with pytest.raises(us.StoreError, match=r"named by its path or URL, got DataArray\. Pass"):
        us.targets(score)  # type: ignore[arg-type] # the error of a caller
    with pytest.raises(us.StoreError, match="got DataArray"):
        us.evaluate(score, tmp_path / "truth.tif")  # type: ignore[arg-type] # the error of a caller


def test_a_store_is_asked_for_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(us.PlanError, match=r"end in \.zarr; then make the file: us\.to_cog"):
        us.score(tmp_path / "missing.tif", tmp_path / "map.tif")
    assert not list(tmp_path.iterdir())


def test_a_dataset_of_one_time_is_a_scene() -> None:
    bands = {n: (("time", "latitude", "longitude"), PIXELS[k][None]) for k, n in enumerate("ab")}
    scene = scene_of(xr.Dataset(bands))
    assert set(scene.dims) == {"band", "y", "x"}
    np.testing.assert_array_equal(scene.transpose("band", "y", "x").values, PIXELS)
    stack = SCENE.expand_dims("time")
    np.testing.assert_array_equal(scene_of(stack).values, PIXELS)
    with pytest.raises(us.SceneError, match=r"2 times.*scene.isel\(time=0\)"):
        scene_of(xr.concat([SCENE, SCENE], "time"))


@pytest.mark.parametrize("dim", ["time", "depth", "wavelength", "bands"])
def test_an_axis_of_an_array_is_told_as_that_of_a_file(dim: str, tmp_path: Path) -> None:
    array = SCENE.rename("v").rename(band=dim).assign_coords({dim: [10.0, 20.0]})
    array.to_netcdf(path := tmp_path / "a.nc", engine="h5netcdf")
    options: dict[str, Any] = {"detector": "rx", "scheduler": "sync"}
    plans = [us.plan(scene, **options) for scene in (path, array, array.to_dataset())]
    assert plans[0].scene.notes == plans[1].scene.notes
    for plan in plans:
        assert bool(plan.scene.notes) == (dim in ("time", "depth"))
        assert len(plan.scene.bands) == 2
    assert scene_source(scene_of(array.assign_coords(band=1))).info.notes == plans[0].scene.notes


def test_a_satpy_scene_is_a_scene() -> None:
    satpy = pytest.importorskip("satpy")
    loaded = satpy.Scene()
    for number, name in enumerate(("I01", "I02")):
        loaded[name] = xr.DataArray(PIXELS[number], dims=("y", "x"))
    scene = scene_of(loaded)
    assert list(scene.band.values) == ["I01", "I02"]
    np.testing.assert_array_equal(scene.values, PIXELS)


def test_the_nodata_value_of_the_bands_of_a_dataset_counts() -> None:
    """As odc.stac writes it: one attribute per variable."""
    axes = {"y": -10.0 * np.arange(60), "x": 10.0 * np.arange(70)}
    pixels = {name: PIXELS[k].astype("uint16") + 1 for k, name in enumerate("ab")}
    for values in pixels.values():
        values[:9] = 0
    bands = {name: (("y", "x"), values, {"nodata": 0}) for name, values in pixels.items()}
    dataset = xr.Dataset(bands, {"spatial_ref": 0, **axes})  # without a CRS
    plan = us.plan(dataset, detector="rx")
    assert "0 in any band" in plan.text()
    source = scene_source(scene_of(dataset))
    _, valid = source.window(Window(0, 0, 60, 70)).read()
    np.testing.assert_array_equal(valid, np.arange(60)[:, None] >= np.full(70, 9))
    for name in "ab":  # as xarray keeps fill of numbers that it decoded
        del dataset[name].attrs["nodata"]
        dataset[name].encoding["_FillValue"] = 0
    _, again = scene_source(scene_of(dataset)).window(Window(0, 0, 60, 70)).read()
    np.testing.assert_array_equal(again, valid)
    for name in "ab":
        del dataset[name].encoding["_FillValue"]
        dataset[name].attrs["nodata"] = 0
    dataset["b"].attrs["nodata"] = 7
    with pytest.raises(us.SceneError, match=r"several nodata values \(a: 0.0, b: 7.0\)"):
        scene_of(dataset)
    dataset["b"].attrs["nodata"] = dataset["a"].attrs["nodata"] = -9999  # no pixel can have it
    assert "no value is declared" in us.plan(dataset, detector="rx").text()


def test_bands_of_a_satpy_scene_are_on_one_grid() -> None:
    class Scene(dict):
        def __iter__(self) -> Any:
            return iter(self.values())

    Scene.__module__ = "satpy.scene"
    fine, coarse = (
        xr.DataArray(np.ones((n, n)), {"y": np.arange(n) / n, "x": np.arange(n)}, ("y", "x"))
        for n in (8, 4)
    )
    loaded = Scene(I1=fine.assign_attrs(name="I1"), M1=coarse.assign_attrs(name="M1"))
    with pytest.raises(us.SceneError, match=r"not on one grid.*resample\(resampler='native'\)"):
        scene_of(loaded)


class Expression:
    """A lazy array of another kind: duck-typed, not of Dask."""

    shape, dtype, ndim = (2, 60, 70), np.dtype("uint16"), 3

    def __array_function__(self, *_: Any) -> Any:
        raise NotImplementedError

    def __array_ufunc__(self, *_: Any) -> Any:
        raise NotImplementedError


Expression.__module__ = "dask_array._collection"
SENTENCES = {
    "cube": (np.moveaxis(PIXELS, 0, 2), r"xr.DataArray\(cube, dims=\('y', 'x', 'band'\)\)"),
    "list": ([1, 2], "open_scene"),
    "expression": (xr.DataArray(Expression(), dims=("band", "y", "x")), r"scene.compute\(\)"),
    "shapes": (
        xr.Dataset({"a": (("y", "x"), PIXELS[0]), "b": (("v", "u"), PIXELS[1])}),
        "Choose some",
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_other_things_get_the_line_that_helps(case: str) -> None:
    given, message = SENTENCES[case]
    with pytest.raises(us.SceneError, match=message):
        us.score(given, detector=TileMean())


@pytest.mark.parametrize("change", [
    lambda scene: scene.rename(x="col"),
    lambda scene: scene.astype(str),
    lambda scene: us.crop(scene, bbox=(0, 0, 1, 1)),
    lambda scene: scene.assign_attrs(crs="EPSG:0"),
    lambda scene: scene.to_dataset("band").rename({0: "a", 1: "b"}).assign_attrs(crs="EPSG:0"),
    lambda scene: scene.assign_attrs(area=object()),
])  # fmt: skip
def test_an_error_calls_an_array_without_a_name_an_array(change: Any) -> None:
    with pytest.raises(us.SceneError, match="cene 'array'"):
        us.score(change(xr.DataArray(np.ones((2, 40, 40), "f4"), dims=("band", "y", "x"))))


def test_an_array_without_names_is_not_a_map(tmp_path: Path) -> None:
    for given in (PIXELS[0].astype(float), xr.Dataset({"score": (("y", "x"), PIXELS[0])})):
        with pytest.raises(us.StoreError, match=r"A map is a path, URL or DataArray, got"):
            us.to_cog(given, tmp_path / "map.tif")


def test_detectors_have_names(tmp_path: Path, tiny_weights: Path) -> None:
    assert scorer_of("rx") == GlobalRX()
    assert scorer_of("lrx") == LocalRX()
    assert scorer_of(tiny_weights).identity == us.Detector.load(tiny_weights).identity
    with pytest.raises(us.PlanError, match=r"us.scorer\('.*model.onnx', tile=256\)"):
        scorer_of(tmp_path / "model.onnx")
    with pytest.raises(us.PlanError, match="got function"):
        us.score(SCENE, detector=lambda tiles: tiles)
    with pytest.raises(us.WeightsError, match="a path, or detector rx or lrx"):
        us.score(SCENE, detector="uniadrs-unknown")


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    us.score(SCENE, detector=TileMean(), tile=32, chunk=32, scheduler="sync",
             progress=lambda done, all_: told.append((done, all_)))  # fmt: skip
    assert told == [(k, 6) for k in range(1, 7)]
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with shown(progress=True, chunks=200) as advance:
        for _ in range(200):
            advance(None)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("scoring 200/200 chunks")


def test_results_print_in_the_terminal_of_ipython() -> None:
    printed: list[str] = []
    plan = us.plan(SCENE, detector=TileMean(), preset="single-band", tile=64, scheduler="sync")
    plan._repr_pretty_(SimpleNamespace(text=printed.append), False)  # as IPython calls it
    assert printed == [plan.text()]


def test_a_plan_prints_well() -> None:
    plan = us.plan(SCENE, detector="rx", scheduler="sync")
    assert str(plan) == plan.text() == plan.summary()  # its name in version 0.1.0
    assert plan._repr_html_().startswith("<pre>scene")
    assert "this process, 1 thread, as asked for" in str(plan)


@pytest.mark.parametrize(
    "kind",
    [
        DemoReport,
        Evaluation,
        ReportSummary,
        RunSummary,
        ScoreHistogram,
        ScorePlan,
        Status,
        SweepReport,
    ],
)
def test_results_print_their_text(kind: type[Printed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "text", lambda _: "valid > 90%")
    made = object.__new__(kind)
    assert str(made) == repr(made) == "valid > 90%"
    # IPython takes the first class that has one of both.
    first = next(c for c in kind.__mro__ if {"__repr__", "_repr_pretty_"} & vars(c).keys())
    assert first is Printed
    assert made._repr_html_() == "<pre>valid &gt; 90%</pre>"


def test_a_histogram_prints_its_figures() -> None:
    scores = xr.DataArray(np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 4), dims=("y", "x"))
    counts = us.evaluate_map(scores, scores > 0.8)
    assert str(counts).splitlines() == [
        "pixels     2 anomalous, 6 background",
        "AUC        1.0000 (pixels)",
        "AP         1.000 (pixels)",
    ]
    nothing = us.evaluate_map(scores, scores > 1)
    assert str(nothing) == "pixels     0 anomalous, 8 background"


def cores(monkeypatch: pytest.MonkeyPatch, number: int) -> Compute:
    monkeypatch.setattr("uniadrs_scale.runtime.compute.usable_cores", lambda: number)
    monkeypatch.setattr("uniadrs_scale.runtime.compute.active_client", lambda: None)
    return Compute.of()


@pytest.mark.parametrize(
    ("number", "seconds", "expected"),
    [
        (2, 5, "threads"),
        (2, 2 * LONG_SECONDS - 1, "threads"),
        (2, 2 * LONG_SECONDS + 1, None),
        (8, 8 * LONG_SECONDS - 1, "threads"),
        (64, 30, "threads"),
        (64, 60, None),
    ],
)
def test_processes_are_chosen_by_the_work(
    monkeypatch: pytest.MonkeyPatch, number: int, seconds: float, expected: str | None
) -> None:
    compute = cores(monkeypatch, number)
    pixels = int(seconds / SECONDS_PER_MPX * 1e6)
    chosen = compute.suited(compute.here(), pixels, peak=0)
    assert chosen.scheduler == expected
    assert chosen.threads * chosen.workers == (min(number, 8) if expected else number)
    assert chosen.why


def test_a_choice_of_the_caller_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniadrs_scale.runtime.compute.active_client", lambda: None)
    asked = Compute.of(workers=2), Compute.of("sync"), Compute.of(gpus=("0",))
    for compute in asked:
        assert compute.suited(compute.here(), 1, peak=0) is compute
    scarce = cores(monkeypatch, 2)
    half = scarce.here().memory_limit[0] // 2
    assert scarce.suited(scarce.here(), 1, peak=half).scheduler == "threads"
    assert scarce.suited(scarce.here(), 1, peak=half + 2).scheduler is None


def test_a_scorer_that_may_not_share_threads_gets_workers() -> None:
    plan = us.plan(SCENE, detector=TileMean())
    assert "worker process" in plan.compute
    assert "this process" in us.plan(SCENE, detector="rx").compute


def test_threads_and_workers_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    del monkeypatch
    here = us.score(SCENE, detector="rx", tile=48, chunk=48)
    there = us.score(SCENE, detector="rx", tile=48, chunk=48, workers=2)
    np.testing.assert_array_equal(here.values, there.values)
