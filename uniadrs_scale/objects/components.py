"""Components of a chunk of a map: connected pixels, their outlines, and sums that merge.

A component is 8-connected, of pixels with score >= ``grow``. It is an object if its peak reaches
the threshold. All sums are integers of scene pixels, so that no chunking changes a bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import shapely
from scipy import ndimage

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


EIGHT = np.ones((3, 3), bool)
"""Pixels that touch at a corner are one object."""
BOX = ("row0", "col0", "row1", "col1")
"""Columns of the first row and column of an object, and of those after its last."""
VOID = -1
"""Stands for pixels without a score, in runs."""
SCORE_UNIT = 2.0**22
"""Scores are summed as integers of this fraction: they are blended from multiples of it."""
SUMS = ("pixels", "rows", "cols", "rows2", "cols2", "products", "scores")
"""Columns that add up when components merge; they hold Python integers, which do not overflow."""
Columns = dict[str, "NDArray[Any]"]
"""SUMS; ``score_max``, ``peak_row``, ``peak_col``; ``row0``, ``col0``, ``row1``, ``col1``; ``edge``
(touches the scene's border or a pixel without a score); ``valid`` (pixels with a score in the box,
-1 if unknown); ``outline`` (None beyond the limit)."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The scores and sizes that make an object."""

    grow: float
    threshold: float
    largest: int
    """Pixels beyond which an object keeps its box instead of an outline."""


@dataclass(frozen=True, slots=True, eq=False)
class ChunkObjects:
    """The objects of one chunk."""

    done: Columns
    """Objects that reach no other chunk."""
    open: Columns
    """Components that may go on in another chunk, whatever their peak."""
    runs: dict[tuple[str, int], NDArray[np.int64]]
    """Along sides that face another chunk: start, stop, and place in ``open`` from 1, or VOID."""
    highest: tuple[float, int, int]
    """Highest score and its row and column; -1 without a score."""


def find_components(
    score: NDArray[np.float32], window: Window, shape: tuple[int, int], cut: Cut
) -> ChunkObjects:
    """Return the objects of a chunk.

    Args:
        score: (y, x) pixels of ``window``, NaN without a score.
        window: The chunk.
        shape: Rows and columns of the scene.
        cut: What makes an object.
    """
    void = ~np.isfinite(score)
    found = score >= np.float32(cut.grow)
    found &= ~void  # infinity is not a score
    labels, number = cast("tuple[NDArray[np.int32], int]", ndimage.label(found, EIGHT))
    lines = {
        key: runs(np.where(void[where], VOID, labels[where]), start)
        for key, (where, start) in sides(window, shape).items()
    }
    peaks, sums = _measured(score, labels, number)
    reaching = np.zeros(number + 1, bool)
    for line in lines.values():
        reaching[line[line[:, 2] > 0, 2]] = True
    kept = 1 + np.flatnonzero(reaching[1:] | (peaks[0] >= np.float32(cut.threshold)))
    table = _placed(peaks[:, kept - 1], sums[:, kept - 1], window)
    boxes = ndimage.find_objects(labels)
    _with_surroundings(table, kept, labels, void, (window, shape))
    for place, label in enumerate(kept):
        box = boxes[label - 1]
        row, col = box[0].start + window.row, box[1].start + window.col
        table["row0"][place], table["col0"][place] = row, col
        table["row1"][place] = box[0].stop + window.row
        table["col1"][place] = box[1].stop + window.col
        table["valid"][place] = np.count_nonzero(~void[box])
        if table["pixels"][place] <= cut.largest:
            table["outline"][place] = outline(labels[box] == label, (row, col))
    goes_on = reaching[kept]
    number_of = np.zeros(number + 1, np.int64)
    number_of[kept[goes_on]] = np.arange(1, np.count_nonzero(goes_on) + 1)
    for line in lines.values():
        line[:, 2] = np.where(line[:, 2] > 0, number_of[line[:, 2]], VOID)
    return ChunkObjects(
        done={name: column[~goes_on] for name, column in table.items()},
        open={name: column[goes_on] for name, column in table.items()},
        runs=lines,
        highest=_highest(score, void, window),
    )


def _measured(
    score: NDArray[np.float32], labels: NDArray[np.int32], number: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (3, n) score, row and column of the peaks, and (7, n) SUMS, in pixels of the chunk.

    Of equal scores the first in raster order is the peak.
    """
    if not number:
        return np.zeros((3, 0)), np.zeros((len(SUMS), 0), np.int64)
    places = np.flatnonzero(labels)
    values = score.ravel()[places]
    order = np.lexsort((-values, labels.ravel()[places]))  # stable
    places, values = places[order], values[order]
    starts = np.searchsorted(labels.ravel()[places], np.arange(1, number + 1))
    rows, cols = np.divmod(places, score.shape[1])
    scaled = np.rint(values * SCORE_UNIT).astype(np.int64)
    parts = (np.ones_like(rows), rows, cols, rows**2, cols**2, rows * cols, scaled)
    sums = np.stack([np.add.reduceat(part, starts) for part in parts])
    return np.stack([values[starts], rows[starts], cols[starts]]).astype(np.float64), sums


def _placed(peaks: NDArray[np.float64], sums: NDArray[np.int64], window: Window) -> Columns:
    """Return the columns of components in pixels of the scene."""
    n, r, c, rr, cc, rc, scores = sums.astype(object)
    row, col = window.row, window.col
    absolute = (
        n,
        r + n * row,
        c + n * col,
        rr + 2 * row * r + n * row**2,
        cc + 2 * col * c + n * col**2,
        rc + row * c + col * r + n * row * col,
        scores,
    )
    table: Columns = dict(zip(SUMS, absolute, strict=True))
    table["score_max"] = peaks[0].astype(np.float32)
    table["peak_row"] = peaks[1].astype(np.int64) + row
    table["peak_col"] = peaks[2].astype(np.int64) + col
    for name in (*BOX, "valid"):
        table[name] = np.zeros(len(n), np.int64)
    table["edge"] = np.zeros(len(n), bool)
    table["outline"] = np.full(len(n), None, object)
    return table


def _with_surroundings(
    table: Columns,
    kept: NDArray[np.int64],
    labels: NDArray[np.int32],
    void: NDArray[np.bool_],
    place: tuple[Window, tuple[int, int]],
) -> None:
    """Mark the components that touch the scene's border, or a pixel without a score."""
    window, shape = place
    touched = np.zeros(labels.max(initial=0) + 1, bool)
    if void.any():
        touched[labels[ndimage.binary_dilation(void, EIGHT)]] = True
    for at_border, line in (
        (window.row == 0, labels[0]),
        (window.stop[0] == shape[0], labels[-1]),
        (window.col == 0, labels[:, 0]),
        (window.stop[1] == shape[1], labels[:, -1]),
    ):
        if at_border:
            touched[line] = True
    table["edge"] = touched[kept]


def _highest(
    score: NDArray[np.float32], void: NDArray[np.bool_], window: Window
) -> tuple[float, int, int]:
    """Return the highest score and its place; of equal ones the first in raster order."""
    if void.all():
        return -1.0, 0, 0
    place = int(np.argmax(np.where(void, -np.inf, score)))
    row, col = divmod(place, score.shape[1])
    return float(score[row, col]), row + window.row, col + window.col
