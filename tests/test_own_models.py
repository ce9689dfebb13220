"""Models of users: the guarantees that hold for ours hold for theirs, layer by layer."""

from __future__ import annotations

import importlib
import io
import os
import pickle
import re
import sys
import warnings
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
import zarr
from models import BANDS, KINDS, LAYERS, REACH, TILE, TwoLayers, model_of, two_layers, write_model
from oracles import axis_origins
from rasterio.transform import from_origin

import uniadrs_scale as us
from uniadrs_scale.cli.main import main
from uniadrs_scale.core.contracts import Tiling
from uniadrs_scale.core.layers import SCORE
from uniadrs_scale.core.pixels import BandStatistics, fill_invalid
from uniadrs_scale.core.seams import taper
from uniadrs_scale.detector.fingerprints import model_digest
from uniadrs_scale.maps.store import FAILED, open_map, open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from distributed import Client
    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import Scorer


def noise(height: int = 150, width: int = 131, *, holes: bool = False) -> xr.DataArray:
    rng = np.random.default_rng(5)
    pixels = rng.integers(1, 4000, (BANDS, height, width)).astype(np.uint16)
    if holes:
        pixels[:, 40:90, 30:100] = 0
        pixels[:, 145:, :7] = 0
    scene = xr.DataArray(pixels, dims=("band", "y", "x")).rio.write_nodata(0)
    scene = scene.rio.write_crs("EPSG:32633")
    return scene.rio.write_transform(from_origin(4e5, 6e6, 20, 20))


def scorer_of(kind: str, folder: Path, seed: int = 0, **more: Any) -> Scorer:
    given = {"tile": TILE, "halo": REACH, "layers": LAYERS, **more}
    return us.scorer(model_of(kind, folder, seed), **given)


def whole(scene: xr.DataArray, scorer: Any) -> NDArray[np.float32]:
    """All layers of a scene, in one loop over tiles and in plain float64."""
    pixels, valid = scene.values, (scene.values != 0).all(axis=0)
    tile, stride, halo = scorer.tiling.tile, scorer.tiling.stride, scorer.tiling.halo
    scaling = BandStatistics.of(pixels, valid).normalisation()
    weights = taper(tile, tile - stride, halo)
    weight, shape = np.outer(weights, weights), valid.shape
    sums, norm = np.zeros((len(scorer.layers), *shape)), np.zeros(shape)
    for row in axis_origins(shape[0], tile, stride):
        for col in axis_origins(shape[1], tile, stride):
            part = np.s_[row : row + tile, col : col + tile]
            norm[part] += weight
            if valid[part].any():
                seen = fill_invalid(scaling.apply(pixels[:, *part]), valid[part])
                values = scorer.score_tiles(seen[None])[0]
                for k, layer in enumerate(scorer.layers):
                    steps = np.rint(values[k].astype(np.float64) / layer.unit * 2**22) / 2**22
                    sums[k][part] += weight * steps
    units = np.array([layer.unit for layer in scorer.layers], np.float32)[:, None, None]
    return np.where(valid, (sums / norm).astype(np.float32) * units, np.float32(np.nan))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheduler", ["sync", "threads", None])
def test_every_layer_is_one_map(
    tmp_path: Path, cluster: Client, kind: str, scheduler: str | None
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    scene, scorer = noise(holes=True), scorer_of(kind, tmp_path)
    expected = whole(scene, scorer)
    with cluster.as_current():
        for chunk in (40, 64, 200):
            got = us.score(scene, detector=scorer, scheduler=scheduler, chunk=chunk)
            assert got.dims == ("layer", "y", "x")
            assert list(got.layer.values) == ["water", "depth"]
            np.testing.assert_array_equal(got.values, expected)
    # No pixel but the invalid ones is without a value, and the whole range of a layer is kept.
    np.testing.assert_array_equal(np.isnan(got.values[0]), (scene.values == 0).any(axis=0))
    assert got.sel(layer="depth").max() > 100


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_reaches_store_overviews_and_cog(tmp_path: Path, kind: str) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    scene, scorer = noise(600, 700, holes=True), scorer_of(kind, tmp_path)
    store, file = tmp_path / "map.zarr", tmp_path / "map.tif"
    got = us.score(scene, store, detector=scorer, scheduler="sync", chunk=128)
    assert not list(open_store(store).verify())
    us.to_cog(store, file)
    group = zarr.open_group(store, mode="r")
    assert group["depth"].attrs["units"] == "m"
    assert group["depth"].attrs["valid_range"] == [0, 4000]
    with rasterio.open(file) as cog, rasterio.open(file, overview_level=0) as small:
        assert cog.descriptions == ("water", "depth")
        np.testing.assert_array_equal(cog.read(), got.values)
        assert cog.crs.to_epsg() == 32633
        levels = small.read()
    blocks = np.pad(got.values, [(0, 0), (0, 0), (0, 0)]).reshape(2, 300, 2, 350, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of blocks without a pixel
        np.testing.assert_array_equal(levels[0], np.nanmax(blocks[0], axis=(1, 3)))
        np.testing.assert_allclose(levels[1], np.nanmean(blocks[1], axis=(1, 3)), rtol=1e-6)
    for number, name in enumerate(("water", "depth")):
        np.testing.assert_array_equal(group[f"overviews/1/{name}"][:], levels[number])
    assert [layer.name for layer in open_map(store).layers] == ["water", "depth"]
    # The file that `score -o` writes is the same.
    from jobs import run_into  # noqa: PLC0415

    run_into(scene, tmp_path / "other.tif", scorer, chunk=128)
    with rasterio.open(tmp_path / "other.tif") as other:
        np.testing.assert_array_equal(other.read(), got.values)


def test_a_halo_makes_the_map_of_a_convolution_that_of_the_whole_scene() -> None:
    torch.manual_seed(0)
    blur = torch.nn.Conv2d(BANDS, 1, 2 * REACH + 1, padding=REACH)
    scene = noise(140, 160)
    scorer = us.scorer(torch.nn.Sequential(blur, torch.nn.Sigmoid()), tile=40, halo=REACH)
    got = us.score(scene, detector=scorer, scheduler="sync", chunk=64).values
    scaled = BandStatistics.of(scene.values, np.ones((140, 160), bool)).normalisation()
    with torch.inference_mode():
        expected = torch.sigmoid(blur(torch.from_numpy(scaled.apply(scene.values))[None]))[0, 0]
    assert np.abs(got - expected.numpy()).max() < 5e-4  # the weight of a halo is 1/4096
    # Without it, borders of tiles show.
    plain = us.scorer(torch.nn.Sequential(blur, torch.nn.Sigmoid()), tile=40)
    without = us.score(scene, detector=plain, scheduler="sync", chunk=64).values
    assert np.abs(without - expected.numpy()).max() > 1e-2


def test_a_constant_and_a_ramp_come_back_exactly() -> None:
    scene = xr.DataArray(
        np.broadcast_to(np.arange(130, dtype=np.float32), (1, 110, 130)), dims=("band", "y", "x")
    )
    layer = us.Layer(name="height", units="m", valid_range=(0, 200), pooled="mean")
    scorer = us.scorer(lambda tiles: tiles[:, 0], tile=32, halo=2, layers=[layer], inputs="raw")
    got = us.score(scene, detector=scorer, scheduler="sync", chunk=64)
    assert got.name == "height"
    assert got.attrs["units"] == "m"
    np.testing.assert_array_equal(got.values, scene.values[0])


def test_tiles_are_scored_once_and_by_batches() -> None:
    sizes, first = [], []

    def seen(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        sizes.append(len(tiles))
        # Not the noise of the checks; the last tile fills a call up.
        first.extend({float(tile[0, 0, 0]) for tile in tiles if tile[0, 0, 0] % 1 == 0})
        return np.zeros_like(tiles[:, 0])

    pixels = np.arange(100 * 100, dtype=np.float32).reshape(1, 100, 100) + 1
    scene = xr.DataArray(pixels, dims=("band", "y", "x"))
    scorer = us.scorer(seen, tile=32, batch=3, inputs="raw", version="1", name="seen")
    plan = us.plan(scene, detector=scorer, scheduler="sync", chunk=48)
    sizes.clear()
    first.clear()
    us.score(scene, detector=scorer, scheduler="sync", chunk=48)
    assert set(sizes) == {3}
    assert len(first) == len(set(first)) == plan.lattice.tiles


@pytest.mark.parametrize("kind", KINDS)
def test_another_model_does_not_resume(tmp_path: Path, kind: str) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    scene, store = noise(), tmp_path / "map.zarr"
    us.score(scene, store, detector=scorer_of(kind, tmp_path), scheduler="sync", chunk=64)
    opened = open_store(store)
    done = opened.done
    opened._array("done")[1, 1] = FAILED
    (tmp_path / "again").mkdir()
    same = scorer_of(kind, tmp_path / "again")
    us.score(scene, store, detector=same, scheduler="sync", chunk=64)
    np.testing.assert_array_equal(opened.done, done)
    other = scorer_of(kind, tmp_path / "again", seed=1)
    if kind == "function":
        other = us.scorer(lambda t: two_layers(t) / 2, tile=TILE, halo=REACH, layers=LAYERS)
    with pytest.raises(us.StoreError, match="begun with another plan"):
        us.score(scene, store, detector=other, scheduler="sync", chunk=64)
    renamed = scorer_of(kind, tmp_path, layers=("land", LAYERS[1]))
    with pytest.raises(us.StoreError, match=r"begun with another plan .*layers"):
        us.score(scene, store, detector=renamed, scheduler="sync", chunk=64)


SCALE = 2.0


def scaled(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
    return helper(tiles[:, 0])


def helper(band: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.tanh(np.abs(band) * SCALE)


def test_the_identity_of_a_function_is_all_that_it_refers_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = model_digest(scaled)
    assert model_digest(scaled) == before
    with monkeypatch.context() as patch:
        patch.setitem(globals(), "SCALE", 3.0)
        assert model_digest(scaled) != before
    with monkeypatch.context() as patch:
        patch.setitem(globals(), "helper", lambda band: band)
        assert model_digest(scaled) != before
    assert model_digest(scaled) == before

    def closing(weights: NDArray[np.float64]) -> Any:
        return lambda tiles, shift=0: (tiles * weights).sum(1) + shift

    one, two = closing(np.ones(3)), closing(np.array([1, 1, 2.0]))
    assert model_digest(one) == model_digest(closing(np.ones(3))) != model_digest(two)
    two = closing(np.ones(3))
    two.__defaults__ = (1,)
    assert model_digest(one) != model_digest(two)


@pytest.mark.parametrize("changed", ["middle", "inner", "late"])
@pytest.mark.parametrize("name", ["model", "later"])
def test_the_identity_of_a_function_is_that_of_modules_behind_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, changed: str
) -> None:
    sources = {
        "__init__": "",
        "outer": "from kit import middle\n\ndef model(tiles):\n    return middle.mean(tiles)\n\n"
        "def later(tiles):\n    import kit.middle as m\n    return m.mean(tiles)\n",
        "middle": "import numpy as np\nfrom . import inner\n\ndef mean(tiles):\n"
        "    from .late import scale\n    return inner.mean(tiles) * scale * np.pi\n",
        "inner": "def mean(tiles):\n    return tiles.mean(1)\n",
        "late": "scale = 2\n",
    }
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "kit").mkdir()

    def digest() -> str:
        for module, text in sources.items():
            (tmp_path / "kit" / f"{module}.py").write_text(text, encoding="utf-8")
            sys.modules.pop(f"kit.{module}", None)
        importlib.invalidate_caches()
        return model_digest(getattr(importlib.import_module("kit.outer"), name))

    before = digest()
    assert digest() == before
    sources[changed] += "changed = True\n"
    assert digest() != before
    for module in ("kit", *(f"kit.{module}" for module in sources)):
        sys.modules.pop(module, None)


def test_the_identity_of_a_module_is_code_and_parameters() -> None:
    one = TwoLayers()
    assert model_digest(one) == model_digest(TwoLayers()) != model_digest(TwoLayers(1))
    before = model_digest(one)
    one.register_buffer("extra", torch.zeros(1), persistent=False)
    assert model_digest(one) != before
    scorer = us.scorer(TwoLayers(), tile=TILE, layers=LAYERS)
    module = TwoLayers()
    mine = us.scorer(module, tile=TILE, layers=LAYERS)
    with torch.no_grad():
        module.head.bias += 1  # the scorer has a copy
    assert mine.identity == scorer.identity
    tiles = np.ones((1, BANDS, TILE, TILE), np.float32)
    np.testing.assert_array_equal(mine.score_tiles(tiles), scorer.score_tiles(tiles))


class Gain(torch.nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self._gain = gain

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(tiles[:, 0] * self._gain)


def with_attribute(gain: float) -> Any:
    def scaled(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        return tiles[:, 0] * scaled.gain  # type: ignore[attr-defined]

    scaled.gain = gain  # type: ignore[attr-defined]
    return scaled


SETTINGS = {
    "attribute with an underscore": Gain,
    "traced": lambda gain: torch.fx.symbolic_trace(Gain(gain)),
    "attribute of a function": with_attribute,
    "keys of several kinds": lambda gain: (
        lambda tiles, by={1: gain, "a": {gain}}: tiles[:, 0] * by[1]
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_the_identity_of_a_model_has_all_its_settings(case: str) -> None:
    one, same, other = (model_digest(SETTINGS[case](gain)) for gain in (1.0, 1.0, 2.0))
    assert one == same != other


@pytest.mark.parametrize("package", [True, False])
@pytest.mark.parametrize(
    "body",
    [
        "import {0}\ndef f(tiles): return {0}.deep.net.g(tiles)\n",
        "def f(tiles):\n    from {0}.deep.net import g\n    return g(tiles)\n",
        "def f(tiles):\n    import {0}.deep.net as net\n    return net.g(tiles)\n",
    ],
)
def test_the_identity_of_a_function_has_the_modules_that_it_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, *, package: bool
) -> None:
    name = f"own{abs(hash((body, package)))}"
    folder = tmp_path / name / "deep"
    folder.mkdir(parents=True)
    if package:
        (tmp_path / name / "__init__.py").touch()
    (folder / "net.py").write_text("K = 2\ndef g(tiles): return tiles[:, 0] * K\n")
    monkeypatch.syspath_prepend(tmp_path)
    net = importlib.import_module(f"{name}.deep.net")
    scope: dict[str, Any] = {"__name__": "own"}
    exec(compile(body.format(name), "own", "exec"), scope)  # noqa: S102
    before = model_digest(scope["f"])
    assert model_digest(scope["f"]) == before
    net.K = 3  # type: ignore[attr-defined]
    assert model_digest(scope["f"]) != before


def test_a_model_may_refer_to_itself() -> None:
    functions: dict[str, Any] = {}

    def one(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        return functions["two"](tiles)

    def two(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        return tiles[:, 0] if functions else one(tiles)

    functions |= {"one": one, "two": two}
    before = model_digest(one)
    functions["two"] = lambda tiles: tiles[:, 1]
    assert model_digest(one) != before
    module = TwoLayers()
    module.blur.parent = [module]
    assert model_digest(module) != model_digest(TwoLayers())


def test_a_function_of_unknown_content_needs_a_version(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:

        def prints(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
            print(tiles.shape, file=file)
            return tiles[:, 0]

        with pytest.raises(us.PlanError, match="Pass version='1' to scorer"):
            us.scorer(prints, tile=16)
        scorer = us.scorer(prints, tile=16, version="2")
    assert scorer.identity == "prints scaled version 2"


def test_identities_are_those_of_another_process(tmp_path: Path) -> None:
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\nimport torch\nimport uniadrs_scale as us\n"
        "from models import TwoLayers, two_layers\n"
        "names = {'a', 'b', 'cc', 'ddd'}\n"
        "def mine(tiles, limits={'low': 1, 'high': 2}):\n"
        "    assert 'a' in names and len(limits) in {1, 2, 3}\n"
        "    return np.tanh(two_layers(tiles)[:, 0])\n"
        "for model in (mine, TwoLayers()):\n"
        "    print(us.scorer(model, tile=32).identity)\n"
    )
    found = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, str(script)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found.add(done.stdout)
    assert len(found) == 1


BAD = {
    "tile": (lambda t: t[:, 0, ::2], "turned tiles of shape"),
    "layers": (lambda t: t[:, 0], r"not \(1, 2, 32, 32\)"),
    "dict": (lambda t: {"out": t[:, 0]}, "returns a dict, not"),
    "complex": (lambda t: np.stack([t[:, 0]] * 2, 1) * 1j, "returns complex64, not"),
    "raises": (lambda _: 1 / 0, "division by zero. Check the bands of the scene"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_model_that_cannot_work_is_refused_before_anything_is_written(
    tmp_path: Path, case: str
) -> None:
    call, message = BAD[case]
    scorer = us.scorer(call, tile=TILE, layers=LAYERS)
    with pytest.raises(us.PlanError, match=message):
        us.score(noise(), tmp_path / "map.zarr", detector=scorer)
    assert not list(tmp_path.iterdir())


def test_a_value_beyond_its_range_fails_its_tile() -> None:
    def hot(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        return tiles[:, 0]

    scene = noise(96, 96).astype(np.float32) / 4000
    scene[0, 50, 50] = 2
    scorer = us.scorer(hot, tile=32, stride=32, inputs="raw")
    with pytest.warns(us.IncompleteWarning, match=r"score has values .* to 2, its valid_range is"):
        got = us.score(scene, detector=scorer, scheduler="sync")
    assert np.isnan(got.values).sum() == 32 * 32


def test_a_tile_without_a_number_hides_no_value_beyond_the_range() -> None:
    def hot(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.where(tiles[:, 0] == 7, np.float32(np.nan), tiles[:, 0])

    scene = noise(32, 96).astype(np.float32) / 4000
    scene[0, 5, 5], scene[0, 5, 40] = 7, 2
    scorer = us.scorer(hot, tile=32, stride=32, inputs="raw", batch=3)
    with pytest.warns(us.IncompleteWarning, match="not finite"):
        got = us.score(scene, detector=scorer, scheduler="sync")
    assert np.isnan(got.values).sum() == 2 * 32 * 32


@pytest.mark.parametrize("answer", ["array", "layers", "own class"])
def test_masked_values_fail_their_tile(answer: str) -> None:
    def partial(tiles: NDArray[np.float32]) -> Any:
        values = np.ma.masked_greater(tiles[:, 0], 6.9).clip(0, 1)
        return (values,) if answer == "layers" else values

    scene = noise(32, 64).astype(np.float32) / 4000
    scene[0, 5, 5] = 7
    scorer: us.Scorer = us.scorer(partial, tile=32, stride=32, inputs="raw", version="1")
    if answer == "own class":
        scorer = Plain(partial)
    with pytest.warns(us.IncompleteWarning, match="not finite"):
        got = us.score(scene, detector=scorer, scheduler="sync")
    assert np.isnan(got.values[:, :32]).all()
    assert np.isfinite(got.values[:, 32:]).all()


class Panic(BaseException):
    """The panic of a library in Rust is not an Exception."""


class MuteError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


ERRORS = {
    "exit": (SystemExit(3), "SystemExit: 3"),
    "panic": (Panic("index out of bounds"), "Panic: index out of bounds"),
    "mute": (MuteError(), "MuteError"),
    "commands": (ValueError("bad \x1b[2J\udcff"), r"ValueError: bad \x1b[2J\udcff"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_whatever_a_model_raises_costs_its_tile(case: str) -> None:
    error, message = ERRORS[case]

    def failing(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        if (tiles == 7).any():
            raise error
        return tiles[:, 0].clip(0, 1)

    scene = noise(32, 64).astype(np.float32) / 4000
    scene[0, 5, 5] = 7
    scorer = us.scorer(failing, tile=32, stride=32, inputs="raw", version="1")
    with pytest.warns(us.IncompleteWarning, match=rf"\(0, 0\): {re.escape(message)}(\n|$)"):
        got = us.score(scene, detector=scorer, scheduler="sync")
    assert np.isnan(got.values[:, :32]).all()
    assert np.isfinite(got.values[:, 32:]).all()


def test_complex_values_of_an_own_class_fail_their_tile() -> None:
    with pytest.warns(us.IncompleteWarning, match="returns complex128, not arrays of real"):
        us.score(noise(32, 32), detector=Plain(lambda tiles: tiles[:, 0] * np.complex128(1j)))


@dataclass(frozen=True)
class Plain:
    """A scorer of two methods and two values."""

    call: Callable[[NDArray[np.float32]], Any]
    identity: str = "plain"
    batch: int = 1
    tiling: ClassVar[Tiling] = Tiling(tile=32, stride=32)

    def activation_bytes(self, tile: int, bands: int) -> int:
        return 4 * tile * tile * bands

    def fitted(self, statistics: object) -> Plain:
        del statistics
        return self

    def score_tiles(self, tiles: NDArray[np.float32]) -> Any:
        return self.call(tiles)


def test_a_model_that_refuses_zeros_scores_every_tile() -> None:
    def correlated(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        if not tiles.any(axis=(1, 2, 3)).all():
            raise np.linalg.LinAlgError("Singular matrix")
        return np.tanh(np.abs(tiles[:, 0]))

    scorer = us.scorer(correlated, tile=32, batch=4)
    maps = [us.score(noise(), detector=scorer, scheduler="sync", chunk=c).values for c in (40, 200)]
    assert np.isfinite(maps[0]).all()
    np.testing.assert_array_equal(*maps)


class Dropping(torch.nn.Module):
    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(torch.sigmoid(tiles[:, 0]), 0.1) / 2


class Together(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(BANDS, track_running_stats=False)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.norm(tiles)[:, 0])


@pytest.mark.parametrize(("model", "batch"), [(Dropping(), 1), (Together(), 2)])
def test_a_model_whose_scores_change_is_refused(model: torch.nn.Module, batch: int) -> None:
    with pytest.raises(us.PlanError, match="the same tile other scores in a second call"):
        us.plan(noise(), detector=us.scorer(model, tile=TILE, batch=batch))


def test_statistics_over_one_tile_are_those_of_the_tile() -> None:
    assert us.plan(noise(), detector=us.scorer(Together(), tile=TILE)).lattice.tile == TILE


def test_complex_numbers_of_a_module_are_refused() -> None:
    class Waves(torch.nn.Module):
        def forward(self, tiles: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft2(tiles[:, 0])

    with pytest.raises(us.PlanError, match="returns complex64, not"):
        us.plan(noise(), detector=us.scorer(Waves(), tile=TILE))


WRONG = {
    "pickle": (lambda folder: folder / "model.pt", us.WeightsError, "Pickles .* can run code"),
    "missing": (lambda folder: folder / "model.onnx", us.WeightsError, "does not exist"),
    "number": (lambda _: 3, us.PlanError, "got int"),
    "script": (
        lambda _: torch.jit.script(torch.nn.ReLU()), us.PlanError, "Export the module"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_things_are_not_models(tmp_path: Path, case: str) -> None:
    make, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        us.scorer(make(tmp_path), tile=TILE)


def test_weights_of_onnx_in_another_file_are_refused(tmp_path: Path) -> None:
    """They are not in the model's identity, and were looked for in the current folder."""
    onnx = pytest.importorskip("onnx")
    path = write_model(tmp_path, "onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(us.WeightsError, match=r"weights in another file.*external_data=False"):
        us.scorer(path, tile=TILE)


ARGUMENTS = {
    "halo": ({"tile": 32, "halo": 9}, "Use halo <= 8"),
    "inputs": ({"tile": 32, "inputs": "raws"}, "Use scaled or raw"),
    "twice": ({"tile": 32, "layers": ["a", "a"]}, "all different"),
    "name": ({"tile": 32, "layers": ["done"]}, "cannot be used"),
    "batch": ({"tile": 32, "batch": 0}, "batch=0 is not allowed. Use whole numbers from 1"),
    "stride": ({"tile": 32, "stride": 100}, "stride=100 px is larger than tile=32 px. Use stride"),
    "no step": ({"tile": 32, "stride": 0}, "stride=0 is not allowed. Use whole numbers from 1"),
    "fraction": ({"tile": 32.5}, "tile=32.5 is not allowed. Use whole numbers from 1"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_that_contradict_each_other_are_refused(case: str) -> None:
    given, message = ARGUMENTS[case]
    with pytest.raises(us.PlanError, match=re.escape(message)):
        us.scorer(two_layers, **given)


@pytest.mark.parametrize("layers", [3, 2.5, None, [], [3], [None]])
def test_layers_that_are_no_names_are_refused(layers: object) -> None:
    with pytest.raises(us.UniadrsScaleError, match="give the name of each output"):
        us.scorer(two_layers, tile=TILE, layers=layers)


def test_one_layer_may_be_given_alone() -> None:
    assert [layer.name for layer in us.scorer(two_layers, tile=TILE, layers="water").layers] == [
        "water"
    ]


def test_a_module_that_returns_a_dict_is_refused() -> None:
    class Named(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": x[:, :1]}

    with pytest.raises(us.PlanError, match="returns a dict"):
        us.score(noise(), detector=us.scorer(Named(), tile=TILE), scheduler="sync")


def test_sizes_are_the_scorers(tmp_path: Path) -> None:
    with pytest.raises(us.PlanError, match="Drop tile, or make"):
        us.plan(noise(), detector=scorer_of("function", tmp_path), tile=64)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return open, (self.file, "w")


@pytest.mark.parametrize("place", ["weights", "constants", "opaque", "inputs"])
def test_no_pickle_of_an_archive_runs_code(tmp_path: Path, place: str) -> None:
    made, bad, sprung = write_model(tmp_path, "pt2"), tmp_path / "bad.pt2", tmp_path / "sprung"
    trap = pickle.dumps(Trap(str(sprung)))
    with zipfile.ZipFile(made) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    import json  # noqa: PLC0415

    for name in list(files):
        if place == "weights" and name.endswith("_weights_config.json"):
            config = json.loads(files[name])
            for entry in config["config"].values():
                entry["use_pickle"] = True
                files[f"{name.rpartition('/')[0]}/{entry['path_name']}"] = trap
            files[name] = json.dumps(config).encode()
        if place in ("constants", "opaque") and name.endswith("_constants_config.json"):
            path = "opaque_obj_0" if place == "opaque" else "tensor_0"
            entry = {"path_name": path, "is_param": False, "use_pickle": True, "tensor_meta": None}
            files[name] = json.dumps({"config": {"c": entry}}).encode()
            files[f"{name.rpartition('/')[0]}/{path}"] = trap
        if place == "inputs" and "sample_inputs" in name:
            held = io.BytesIO()
            torch.save(Trap(str(sprung)), held)
            files[name] = held.getvalue()
    with zipfile.ZipFile(bad, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(us.WeightsError):
        us.scorer(bad, tile=TILE, layers=LAYERS)
    assert not sprung.exists()


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = write_model(tmp_path, "pt2")
    scorer = us.scorer(path, tile=TILE, layers=LAYERS)
    again = pickle.dumps(scorer)
    from uniadrs_scale.detector.model_files import _opened  # noqa: PLC0415

    _opened.cache_clear()
    path.write_bytes(write_model(tmp_path, "pt2", seed=2).read_bytes())
    with pytest.raises(us.WeightsError, match="has changed"):
        pickle.loads(again).score_tiles(np.zeros((1, BANDS, TILE, TILE), np.float32))


def test_one_layer_called_score_is_the_usual_map(tmp_path: Path) -> None:
    scorer = us.scorer(lambda t: np.tanh(np.abs(t[:, 0])), tile=32, layers=["score"])
    got = us.score(noise(), tmp_path / "map.zarr", detector=scorer, scheduler="sync")
    assert got.name == "score"
    assert "layers" not in open_store(tmp_path / "map.zarr").attributes
    assert scorer.layers == (SCORE,)


def test_a_map_of_other_layers_is_not_called_anomaly_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = us.scorer(
        lambda t: (np.tanh(np.abs(t[:, 0])), np.tanh(np.abs(t[:, 1]))),
        tile=32,
        layers=["water", "score"],
    )
    us.score(noise(), tmp_path / "m.zarr", detector=scorer, scheduler="sync")
    us.score(noise(), first := tmp_path / "rx.zarr", detector="rx", scheduler="sync", tile=32)
    us.to_cog(tmp_path / "m.zarr", tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as file:
        assert file.tags()["TIFFTAG_IMAGEDESCRIPTION"].startswith("water, score of ")
    for name in ("m.zarr", "m.tif"):
        monkeypatch.setattr("sys.argv", ["uniadrs-scale", "info", str(tmp_path / name)])
        with pytest.raises(SystemExit):
            main()
        told = capsys.readouterr().out
        assert re.search(r"(?m)^map +water, score of ", told)
        assert re.search(r"(?m)^statistics +of the layer water$", told)
        with pytest.raises(us.StoreError, match=r"not the first layer.*\(water, score\)"):
            us.targets(tmp_path / name, top=1)
        with pytest.raises(us.StoreError, match=r"not the first layer.*\(water, score\)"):
            us.report(first, noise(), tmp_path / "page.html", compare=tmp_path / name)
