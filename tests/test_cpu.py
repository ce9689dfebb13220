"""The kind of CPU: recorded where scores are, never part of a plan, and its effect is bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
from standins import TileMean

import uniadrs_scale as us
from uniadrs_scale.core.compiled import TOLERANCE, USUAL, cpu_kind, describe, mixed
from uniadrs_scale.core.lattice import Lattice
from uniadrs_scale.core.pixels import Normalisation
from uniadrs_scale.maps.store import DONE, MISSING, open_store
from uniadrs_scale.runtime import tasks
from uniadrs_scale.runtime.batches import Scaled

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = {"preset": "single-band", "tile": 64, "stride": 48, "chunk": 100, "scheduler": "sync"}
KINDS = (
    {"NUMBA_CPU_NAME": "generic"},
    {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    {"ONEDNN_MAX_CPU_ISA": "SSE41"},
)
"""Settings with which this CPU computes as others do."""
SCORE = """
import sys
import numpy as np, xarray as xr
import uniadrs_scale as us
from uniadrs_scale.core.compiled import cpu_kind
rng = np.random.default_rng(0)
few = rng.gamma(4, size=(4, 160, 160)).astype(np.float32)
mix = rng.standard_normal((60, 6)) @ rng.standard_normal((6, 96 * 96))
many = (mix.reshape(60, 96, 96) + 0.01 * rng.standard_normal((60, 96, 96))).astype(np.float32)
detector = us.Detector.load("uniadrs-xs", device="cpu")
maps = {
    name: us.score(
        xr.DataArray(pixels, dims=("band", "y", "x")), detector=detector, scheduler="sync",
        preset=preset, tile=96,
    ).values
    for name, pixels, preset in (
        ("few", few, "multispectral"), ("many", many, "hyperspectral"),
        ("dim", few[:1], "low-light"),
    )
}
np.savez(sys.argv[1], kind=cpu_kind(), **maps)
"""


def scene() -> xr.DataArray:
    pixels = np.random.default_rng(5).integers(0, 999, (2, 210, 230)).astype(np.int16)
    return xr.DataArray(pixels, dims=("band", "y", "x"))


@pytest.fixture
def as_kind(monkeypatch: pytest.MonkeyPatch):
    """Let this process pass for a CPU of another kind."""

    def pretend(kind: str) -> None:
        for module in ("tasks", "executor"):
            monkeypatch.setattr(f"uniadrs_scale.runtime.{module}.cpu_kind", lambda: kind)

    return pretend


def report(store: Path) -> dict:
    return json.loads(store.with_name(f"{store.name}.run.json").read_text())


def test_a_description_names_what_decides_the_bits() -> None:
    features = ["sse4.2", "avx2", "avx512bw", "fma"]
    assert describe("x86_64", "zen4", features, {}) == "x86_64 zen4 avx512bw"
    assert describe("x86_64", "", [], {}) == "x86_64"
    given = {"ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "", "HOME": "/root", "NUMBA_CPU_NAME": "x"}
    assert describe("aarch64", "neoverse-n1", ["neon"], given) == (
        "aarch64 neoverse-n1 neon NUMBA_CPU_NAME=x ONEDNN_MAX_CPU_ISA=SSE41"
    )
    assert cpu_kind()
    assert mixed(["a", "a"]) == mixed([]) == ()


def test_store_and_report_name_the_kind_and_the_fingerprint_does_not(
    tmp_path: Path, as_kind
) -> None:
    prints = []
    for kind in ("one", "two"):
        as_kind(kind)
        store = tmp_path / f"{kind}.zarr"
        us.score(scene(), store, detector=TileMean(), **OPTIONS)
        assert open_store(store).cpu_kinds == (kind,)
        facts = report(store)
        assert facts["cpu_kinds"] == {"this_run": [kind], "complete_before": []}
        assert facts["notes"] == []
        prints.append(facts["fingerprint"])
    assert prints[0] == prints[1]


def test_a_run_that_goes_on_with_another_kind_says_so(tmp_path: Path, as_kind) -> None:
    path = tmp_path / "map.zarr"
    as_kind("one")
    whole = us.score(scene(), path, detector=TileMean(), **OPTIONS).values
    open_store(path)._array("done")[1, 1] = MISSING
    as_kind("two")
    with pytest.warns(us.SceneWarning, match=r"2 kinds of CPU computed this map \(one; two\)"):
        again = us.score(scene(), path, detector=TileMean(), **OPTIONS).values
    np.testing.assert_array_equal(again, whole)
    assert open_store(path).cpu_kinds == ("one", "two")
    facts = report(path)
    assert facts["cpu_kinds"] == {"this_run": ["two"], "complete_before": ["one"]}
    (note,) = facts["notes"]
    assert note.startswith("2 kinds of CPU")
    with pytest.warns(us.SceneWarning, match="2 kinds"):  # also when nothing is left to do
        us.score(scene(), path, detector=TileMean(), **OPTIONS)


def test_a_chunk_names_all_that_had_a_part_in_it(tmp_path: Path, as_kind) -> None:
    """Its own tiles, those of its neighbours that reach into it, and the process that blends."""
    whole = tmp_path / "map.zarr"
    us.score(scene(), whole, detector=TileMean(), **OPTIONS)
    lattice, store = (
        Lattice(height=210, width=230, tile=64, stride=48, chunk=100),
        open_store(whole),
    )
    scaling = Normalisation(offset=np.zeros(2), scale=np.ones(2))

    def part(index: tuple[int, int], kind: str) -> tasks.ScoredPart:
        as_kind(kind)
        window = lattice.read_window(index)

        class Reader:
            def read(self):
                size = window.height, window.width
                return np.zeros((2, *size)), np.ones(size, bool)

        tiles = lattice.owned_tiles(index)
        return tasks.score_chunk(Reader(), index, tiles, lattice, Scaled(TileMean(), scaling))

    own, left = part((0, 1), "own"), part((0, 0), "left")
    as_kind("commit")
    axis = lattice.line_axis
    line = (0, 1)[axis]
    made = tasks.commit_chunk((0, 1), lattice, store, own, tasks.take_strips(left, axis, line))
    assert made.cpu_kinds == ("commit", "left", "own")
    assert store.done[0, 1] == DONE


@pytest.mark.slow
def test_other_kinds_keep_to_the_tolerance(tmp_path: Path) -> None:
    maps = []
    for number, settings in enumerate(({}, *KINDS)):
        file = tmp_path / f"{number}.npz"
        command = [sys.executable, "-c", SCORE, str(file)]
        subprocess.run(command, env=os.environ | settings, check=True, cwd=tmp_path)
        maps.append(dict(np.load(file)))
    first, *others = maps
    assert len({str(one["kind"]) for one in maps}) == len(maps)
    for other in others:
        assert np.abs(other["few"] - first["few"]).max() <= USUAL
        for name in ("many", "dim"):
            assert np.abs(other[name] - first[name]).max() <= TOLERANCE, name
            assert np.median(np.abs(other[name] - first[name])) <= TOLERANCE / 20, name
