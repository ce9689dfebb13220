"""Objects across the borders of chunks: components whose runs of pixels touch are one."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from uniadrs_scale.objects.components import SUMS, VOID, joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.objects.components import ChunkObjects, Columns, Cut


def merge(chunks: Sequence[ChunkObjects], cut: Cut) -> Columns:
    """Return the objects of all chunks of a map, by peak, then row, then column.

    The chunks may have any sizes and come in any order, as long as they cover the map.
    """
    parts = concatenated([chunk.open for chunk in chunks])
    found = [pair for line, other in _facing(chunks) for pair in _touching(line, other)]
    pairs = np.array(found, np.int64).reshape(-1, 2)
    at_void = pairs.min(axis=1) == VOID
    parts["edge"][pairs[at_void].max(axis=1)] = True
    labels = groups_of(len(parts["pixels"]), pairs[~at_void])
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if order.size else []
    merged = [_merged(parts, members, cut) for members in groups]
    kept = [row for row in merged if row["score_max"][0] >= np.float32(cut.threshold)]
    table = concatenated([*(chunk.done for chunk in chunks), *kept])
    order = np.lexsort((table["peak_col"], table["peak_row"], -table["score_max"]))
    return {name: column[order] for name, column in table.items()}


def concatenated(tables: Sequence[Columns]) -> Columns:
    """Return the rows of all tables in one."""
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def groups_of(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return (count,) the group of each member, by the smallest; ``pairs`` (n, 2) are united."""
    if not count:
        return np.zeros(0, np.int32)
    joins = coo_array((np.ones(len(pairs)), tuple(pairs.T)), (count, count))
    groups: NDArray[np.int32] = connected_components(joins, directed=False)[1]
    return groups


def _touching(line: NDArray[np.int64], other: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield what touches along two facing lines (n, 3) of runs, sorted by their starts."""
    # Runs touch at a corner, too: [a, b) and [c, d) if c <= b and a <= d.
    first = np.searchsorted(other[:, 1], line[:, 0], side="left")
    after = np.searchsorted(other[:, 0], line[:, 1], side="right")
    for mine, low, high in zip(line[:, 2].tolist(), first, after, strict=True):
        yield from ((mine, theirs) for theirs in other[low:high, 2].tolist() if mine != theirs)


def _facing(
    chunks: Sequence[ChunkObjects],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the runs of each two lines that face each other, through the whole map.

    Whole lines, so that chunks that meet at a corner are neighbours as well. Numbers count through
    all chunks from 0.
    """
    lines: dict[tuple[str, int], list[NDArray[np.int64]]] = {}
    before = 0
    for chunk in chunks:
        for key, found in chunk.runs.items():
            number = np.where(found[:, 2] == VOID, VOID, found[:, 2] - 1 + before)
            lines.setdefault(key, []).append(np.column_stack([found[:, :2], number]))
        before += len(chunk.open["pixels"])
    whole = {key: _sorted(parts) for key, parts in lines.items()}
    for (axis, line), (other_axis, other) in pairwise(sorted(whole)):
        if axis == other_axis and other == line + 1:
            yield whole[axis, line], whole[axis, other]


def _sorted(parts: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    runs = np.concatenate(list(parts))
    return runs[np.argsort(runs[:, 0], kind="stable")]


def _merged(parts: Columns, members: NDArray[np.int64], cut: Cut) -> Columns:
    """Return the one row of the components that are one object."""
    rows = {name: column[members] for name, column in parts.items()}
    if len(members) == 1:
        return rows
    peak = np.lexsort((rows["peak_col"], rows["peak_row"], -rows["score_max"]))[:1]
    merged = {name: rows[name][peak] for name in ("score_max", "peak_row", "peak_col")}
    merged |= {name: np.array([sum(rows[name])], object) for name in SUMS}
    merged |= {name: rows[name].min(keepdims=True) for name in ("row0", "col0")}
    merged |= {name: rows[name].max(keepdims=True) for name in ("row1", "col1")}
    merged["edge"] = np.array([rows["edge"].any()])
    merged["valid"] = np.array([-1])
    outline = np.full(1, None, object)
    if merged["pixels"][0] <= cut.largest:
        outline[0] = joined(list(rows["outline"]))
    merged["outline"] = outline
    return merged
