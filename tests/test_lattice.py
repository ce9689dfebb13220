"""Geometry against brute force."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import axis_origins

from uniadrs_scale.core.lattice import Lattice, Window, default_chunk, origins, sample_windows
from uniadrs_scale.errors import PlanError


@st.composite
def lattices(draw: st.DrawFn) -> Lattice:
    tile = draw(st.integers(2, 40))
    return Lattice(
        height=draw(st.integers(1, 300)),
        width=draw(st.integers(1, 300)),
        tile=tile,
        stride=draw(st.integers((tile + 1) // 2, tile)),
        chunk=draw(st.integers(tile, 150)),
    )


@given(st.integers(1, 500), st.integers(2, 60), st.data())
def test_origins_step_by_the_stride_and_end_at_the_edge(
    size: int, tile: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers((tile + 1) // 2, tile))
    assert list(origins(size, tile, stride)) == axis_origins(size, tile, stride)


@given(lattices())
def test_chunks_partition_the_scene_and_the_tiles(lattice: Lattice) -> None:
    owners = np.zeros((lattice.height, lattice.width), int)
    tiles: list[Window] = []
    for index in lattice.indices():
        owners[lattice.chunk_window(index).slices] += 1
        tiles.extend(lattice.owned_tiles(index))
    assert (owners == 1).all()
    assert len(tiles) == len(set(tiles)) == lattice.tiles


@given(lattices())
def test_tiles_cover_every_pixel_and_overhang_by_what_is_reflected(lattice: Lattice) -> None:
    covered = np.zeros((lattice.height, lattice.width), bool)
    for index in lattice.indices():
        for tile in lattice.owned_tiles(index):
            inner = lattice.inside(tile)
            covered[inner.slices] = True
            (above, below), (left, right) = lattice.overhang(tile)
            assert inner.height + above + below == inner.width + left + right == lattice.tile
            assert min(above, below, left, right) >= 0
    assert covered.all()


@given(lattices())
def test_a_read_window_holds_its_tiles_and_reaches_one_neighbour_only(lattice: Lattice) -> None:
    for i, j in lattice.indices():
        own, outer = lattice.chunk_window((i, j)), lattice.read_window((i, j))
        assert own.intersection(outer) == own
        for tile in lattice.owned_tiles((i, j)):
            inner = lattice.inside(tile)
            assert inner.intersection(outer) == inner
        assert outer.stop[0] <= (i + 2) * lattice.chunk
        assert outer.stop[1] <= (j + 2) * lattice.chunk


@given(lattices())
def test_the_largest_read_is_that_of_some_chunk(lattice: Lattice) -> None:
    windows = [lattice.read_window(index) for index in lattice.indices()]
    largest = max(w.height for w in windows), max(w.width for w in windows)
    assert lattice.largest_read == largest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 300}, r"stride=300 px is larger than tile=224 px.*Use stride <= 224"),
        ({"stride": 100}, r"overlap=124 px does not fit tile=224 px.*Use stride >= 112"),
        ({"chunk": 200}, r"chunk=200 px is smaller than tile=224 px.*Use chunk >= 224"),
        ({"tile": 0}, r"tile=0 px must be positive"),
    ],
)
def test_impossible_geometry_is_refused(change: dict[str, int], message: str) -> None:
    sizes = {"height": 999, "width": 999, "tile": 224, "stride": 168, "chunk": 512}
    with pytest.raises(PlanError, match=message):
        Lattice(**sizes | change)


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_sample_windows_are_disjoint_inside_and_bounded(height: int, width: int) -> None:
    windows = sample_windows(height, width)
    assert len(windows) == len(set(windows)) <= 64
    assert sum(w.height * w.width for w in windows) <= 64 * 512**2
    rows = sorted({(w.row, w.stop[0]) for w in windows})
    assert all(a[1] <= b[0] for a, b in pairwise(rows))
    assert rows[0][0] >= 0
    assert rows[-1][1] <= height
    if max(height, width) <= 4096:
        assert sum(w.height * w.width for w in windows) == height * width


@given(
    height=st.integers(1, 100_000),
    width=st.integers(1, 100_000),
    tile=st.integers(16, 5000),
    share=st.floats(0.5, 1),
)
def test_a_default_chunk_fits_its_tiles_and_small_scenes_get_small_ones(
    height: int, width: int, tile: int, share: float
) -> None:
    stride, small = round(tile * share), height * width < 2**24
    chunk = default_chunk(height, width, tile, stride)
    Lattice(height=height, width=width, tile=tile, stride=stride, chunk=chunk)
    assert chunk >= tile
    if small or tile <= 512:
        assert chunk < 2 * tile or chunk == (512 if small else 1024)
    else:
        assert chunk % stride == 0
        assert chunk < tile + stride or chunk <= 1024 + stride / 2
