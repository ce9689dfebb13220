"""Outlines of objects along pixel edges, in integer pixels: x is the column, y the row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.core.lattice import Window


def outline(pixels: NDArray[np.bool_], corner: tuple[int, int]) -> Any:
    """Return the outline of the pixels (y, x) that are True.

    Args:
        pixels: Cut to the box of the object.
        corner: Row and column of the first pixel.
    """
    row, col = corner
    if pixels.all():
        return box_of((row, col, row + pixels.shape[0], col + pixels.shape[1]))
    # The union of the runs of its rows; parts that touch at a corner only stay parts.
    steps = np.diff(pixels.astype(np.int8), axis=1, prepend=0, append=0)
    (rows, first), (_, after) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    return joined(shapely.box(col + first, row + rows, col + after, row + rows + 1))


def joined(parts: Sequence[Any] | NDArray[Any]) -> Any:
    """Return the union of outlines, the same bytes however the object was cut.

    The ring of a normalised polygon starts at a corner, so that simplification, which keeps the
    first point, removes all points inside straight edges.
    """
    whole = shapely.union_all(np.asarray(parts, object))
    return shapely.normalize(shapely.simplify(shapely.normalize(whole), 0))


def box_of(box: Sequence[int]) -> Any:
    """Return the outline of a box: first row, first column, and the row and column after it."""
    row0, col0, row1, col1 = box
    return shapely.normalize(shapely.box(col0, row0, col1, row1))


def runs(line: NDArray[np.int64], start: int) -> NDArray[np.int64]:
    """Return (n, 3): first, last + 1 and value of the runs of equal values that are not 0.

    >>> runs(np.array([0, 5, 5, -1]), 10).tolist()
    [[11, 13, 5], [13, 14, -1]]
    """
    changes = np.flatnonzero(np.diff(line)) + 1
    first = np.concatenate([[0], changes])
    last = np.concatenate([changes, [line.size]])
    found = np.stack([first + start, last + start, line[first]], axis=-1)
    kept: NDArray[np.int64] = found[found[:, 2] != 0]
    return kept


def sides(window: Window, shape: tuple[int, int]) -> dict[tuple[str, int], tuple[Any, int]]:
    """Return the lines of pixels of a chunk that face another chunk.

    The key is ``row`` or ``col``, and the row or column of the line; the value is the index of the
    line in the chunk, and its first column or row.
    """
    (top, left), (bottom, right) = (window.row, window.col), window.stop
    ends = (
        (top > 0, ("row", top), (np.s_[0, :], left)),
        (bottom < shape[0], ("row", bottom - 1), (np.s_[-1, :], left)),
        (left > 0, ("col", left), (np.s_[:, 0], top)),
        (right < shape[1], ("col", right - 1), (np.s_[:, -1], top)),
    )
    return {key: line for faces, key, line in ends if faces}
