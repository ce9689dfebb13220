"""Objects of a map: the same rows and outlines however it is cut, and those of an oracle."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import regionprops

from uniadrs_scale.core.lattice import Window
from uniadrs_scale.objects.components import EIGHT, Cut, find_components
from uniadrs_scale.objects.merge import merge

CUT = Cut(grow=0.3, threshold=0.6, largest=10**6)


def spans(size, sides):
    starts, at, turn = [], 0, 0
    while at < size:
        starts.append((at, min(sides[turn % len(sides)], size - at)))
        at += starts[-1][1]
        turn += 1
    return starts


def objects(score, rows=(10**6,), cols=(10**6,), cut=CUT, backwards=False):
    shape = score.shape
    windows = [
        Window(row, col, height, width)
        for (row, height), (col, width) in product(spans(shape[0], rows), spans(shape[1], cols))
    ]
    parts = [find_components(score[w.slices], w, shape, cut) for w in windows]
    return merge(parts[::-1] if backwards else parts, cut)


def as_rows(table):
    """Return all columns but `valid`, which merged objects learn later, with geometry as bytes."""
    names = [name for name in table if name not in ("valid", "outline")]
    outlines = [None if g is None else g.wkb for g in table["outline"]]
    return [
        dict(zip(names, row, strict=True)) for row in zip(*(table[n] for n in names), strict=True)
    ], outlines


def oracle(score, cut=CUT):
    """Return rows of the whole image by scipy and scikit-image."""
    labels, _ = ndimage.label(np.nan_to_num(score, nan=-1) >= np.float32(cut.grow), EIGHT)
    padded = np.pad(~np.isfinite(score), 1, constant_values=True)
    near = ndimage.binary_dilation(padded, EIGHT)[1:-1, 1:-1]
    rows = []
    for region in regionprops(labels, np.nan_to_num(score)):
        mask = labels == region.label
        peak = score[mask].max()
        if peak < np.float32(cut.threshold):
            continue
        where = np.argwhere(mask & (score == peak))[0]
        y, x = np.nonzero(mask)
        pixels = [shapely.box(c, r, c + 1, r + 1) for r, c in zip(y, x, strict=True)]
        rows.append((-peak, *where, region.area, region.bbox, bool(near[mask].any()),
                     region.centroid, float(score[mask].mean(dtype=float)),
                     shapely.union_all(pixels)))  # fmt: skip
    return sorted(rows, key=lambda row: row[:3])


def require_oracle(score, table, cut=CUT):
    expected = oracle(score, cut)
    assert len(expected) == len(table["pixels"])
    for k, (peak, row, col, area, box, edge, centroid, mean, shape) in enumerate(expected):
        assert table["score_max"][k] == np.float32(-peak)
        assert (table["peak_row"][k], table["peak_col"][k]) == (row, col)
        n = table["pixels"][k]
        assert n == area
        assert tuple(table[name][k] for name in ("row0", "col0", "row1", "col1")) == box
        assert bool(table["edge"][k]) == edge
        assert (table["rows"][k] / n, table["cols"][k] / n) == pytest.approx(centroid)
        assert table["scores"][k] / 2**22 / n == pytest.approx(mean, abs=2**-22)
        outline = table["outline"][k]
        assert outline.is_valid
        assert outline.area == n
        assert outline.equals(shape)


def field(seed, shape=(90, 120), sigma=1.5):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    score = (1 / (1 + np.exp(-3 * smooth / smooth.std()))).astype(np.float32)
    score[20:40, 50:52] = np.nan
    score[rng.random(shape) < 0.002] = np.nan
    return score


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sides", [((7,), (11,)), ((1,), (13,)), ((2, 5), (3, 1)), ((64,), (64,))])
def test_rows_and_outlines_are_the_same_for_any_chunks(seed, sides):
    score = field(seed)
    whole = objects(score)
    require_oracle(score, whole)
    for backwards in (False, True):
        assert as_rows(objects(score, *sides, backwards=backwards)) == as_rows(whole)


values = st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.6, 0.9, 1.0, np.nan, np.inf])


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=values),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
def test_small_maps_agree_with_the_oracle_for_any_chunks(score, rows, cols):
    score = np.where(np.isinf(score), np.float32(np.nan), score)
    whole = objects(score)
    require_oracle(score, whole)
    assert as_rows(objects(score, rows, cols)) == as_rows(whole)


@pytest.mark.parametrize("seed", range(2))
def test_flips_and_transposition_give_the_same_objects(seed):
    score = field(seed, (50, 70))

    def known(table):
        return sorted(
            zip(*(table[n] for n in ("score_max", "pixels", "scores", "edge")), strict=True)
        )

    expected = known(objects(score))
    for turned in (score[::-1], score[:, ::-1], score.T):
        assert known(objects(np.ascontiguousarray(turned), (16,), (9,))) == expected


@pytest.mark.parametrize(
    ("pixels", "parts", "holes"),
    [
        (["###", "#.#", "###"], 1, 1),  # ring
        (["##.", "#.#", "###"], 1, 1),  # ring with a corner missing
        (["#..", ".#.", "..#"], 3, 0),  # diagonal chain
        (["#.#", ".#.", "#.#"], 5, 0),
        ([".#.", "#.#", ".#."], 4, 0),  # ring of corners
        (["#"], 1, 0),
        (["####.", "#..##", "#.#.#", "#####"], 1, 2),  # holes that touch at a corner
    ],
)  # fmt: skip
def test_rings_and_chains_are_one_valid_object(pixels, parts, holes):
    score = np.array([[0.9 if c == "#" else 0 for c in line] for line in pixels], np.float32)
    score = np.pad(score, 1)
    whole = objects(score)
    assert len(whole["pixels"]) == 1
    shape = whole["outline"][0]
    assert shape.is_valid
    polygons = list(getattr(shape, "geoms", [shape]))
    assert len(polygons) == parts
    assert sum(len(p.interiors) for p in polygons) == holes
    for rows, cols in product((1, 2, 3), repeat=2):
        assert as_rows(objects(score, (rows,), (cols,))) == as_rows(whole)


def test_objects_touch_over_the_corner_of_four_chunks():
    for turn in range(2):
        score = np.zeros((8, 8), np.float32)
        score[3, 3 + turn] = score[4, 4 - turn] = 0.9
        table = objects(score, (4,), (4,))
        assert table["pixels"].tolist() == [2]
        assert not table["edge"].any()


def test_an_object_that_touches_nodata_of_another_chunk_is_at_an_edge():
    score = np.zeros((8, 8), np.float32)
    score[3, 3] = 0.9
    score[4, 4] = np.nan  # diagonal, across both borders
    assert objects(score, (4,), (4,))["edge"].tolist() == [True]
    score[4, 4], score[5, 5] = 0, np.nan
    assert objects(score, (4,), (4,))["edge"].tolist() == [False]


def test_a_weak_bridge_between_chunks_joins_two_peaks():
    score = np.zeros((5, 12), np.float32)
    score[2, 1:11] = 0.4
    score[2, 2], score[2, 9] = 0.9, 0.8
    table = objects(score, (5,), (3,))
    assert table["pixels"].tolist() == [10]
    assert (table["peak_row"][0], table["peak_col"][0]) == (2, 2)


def test_a_tie_goes_to_the_first_row_then_the_first_column():
    score = np.zeros((6, 6), np.float32)
    score[1:5, 1:5] = 0.9
    for sides in ((6,), (3,), (2,)):
        table = objects(score, sides, sides)
        assert (table["peak_row"][0], table["peak_col"][0]) == (1, 1)


def test_objects_beyond_the_limit_have_no_outline_and_keep_their_box():
    cut = Cut(grow=0.3, threshold=0.6, largest=8)
    score = np.zeros((12, 12), np.float32)
    score[1:4, 1:4] = score[6:8, 6:10] = 0.9
    for sides in ((12,), (2,)):
        table = objects(score, sides, sides, cut)
        assert [g is None for g in table["outline"]] == [True, False]
        assert table["row1"].tolist() == [4, 8]


def test_a_map_without_scores_or_objects_has_no_rows():
    for score in (np.zeros((5, 5), np.float32), np.full((5, 5), np.nan, np.float32)):
        assert len(objects(score, (2,), (2,))["pixels"]) == 0
