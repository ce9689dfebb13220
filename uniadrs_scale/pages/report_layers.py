"""Pictures of a report: scores as bytes with an exact threshold, close-ups, and their encoding."""

from __future__ import annotations

import base64
import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from uniadrs_scale.core.levels import GROW
from uniadrs_scale.maps.colours import map_colours
from uniadrs_scale.maps.overviews import block_maximum
from uniadrs_scale.scenes.preview import GREY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.core.levels import Levels
    from uniadrs_scale.maps.finished import RasterMap
    from uniadrs_scale.maps.store import ScoreMap
    from uniadrs_scale.scenes.preview import ScenePicture

NO_DATA, UNSCORED = 0, 255
"""Bytes of pixels without data, and of valid pixels without a score."""
STEPS, LOWEST, HIGHEST = 120, 0.1, 0.9995
"""Edges of the scale, evenly spaced as logits, and the scores of the first and last one."""
SIDE, COLUMNS = 64, 20
"""Side of a close-up, and close-ups per row of their sheet."""
MOST_FACTOR = 16
"""Scene pixels per close-up pixel, at most: what is larger shows its peak only."""
MARGIN = 1.6
"""Side of a close-up in sides of its target."""
QUALITIES = (82, 70, 55, 40)


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Scores as bytes: 1 below the first edge, one more at each edge.

    GROW and the levels are edges, so a byte tells exactly if a score reaches them.
    """

    edges: NDArray[np.float32]
    """Scores, increasing."""
    colours: NDArray[np.uint8]
    """(value, 4) of the bytes 0 to len(edges) + 1: red, green, blue, opacity."""

    @classmethod
    def of(cls, levels: Levels | None) -> Scale:
        """Return the scale of maps with these levels."""
        first, last = (np.log(score / (1 - score)) for score in (LOWEST, HIGHEST))
        even = 1 / (1 + np.exp(-np.linspace(first, last, STEPS)))
        exact = [GROW] if levels is None else [GROW, levels.low, levels.medium, levels.high]
        edges = np.unique(np.array([*even, *exact], np.float32))
        shown = np.concatenate([np.array([np.nan, 0], np.float32), edges])
        return cls(edges, map_colours(shown[None], levels)[0])

    def values(self, score: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the bytes of scores."""
        found = np.searchsorted(self.edges, score, side="right") + 1
        return np.where(np.isfinite(score), found, NO_DATA).astype(np.uint8)

    def step(self, score: float) -> int:
        """Return the byte of the highest edge that ``score`` reaches, 1 if it reaches none."""
        return int(np.searchsorted(self.edges, np.float32(score), side="right")) + 1


@dataclass(frozen=True, slots=True)
class CloseUp:
    """The square around a target that a close-up shows."""

    row: int
    col: int
    factor: int
    """Scene pixels per side of a pixel."""

    @classmethod
    def around(cls, box: Sequence[int], peak: Sequence[int]) -> CloseUp:
        """Return the square around a box (rows and columns), or around the peak if it is large."""
        extent = max(box[2] - box[0], box[3] - box[1])
        factor = -(-round(MARGIN * extent) // SIDE) or 1
        row, col = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
        if factor > MOST_FACTOR:
            factor, (row, col) = MOST_FACTOR, peak
        half = SIDE * factor // 2
        return cls(row - half, col - half, factor)

    def cut(self, shape: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part that the scene has, and its place in the square."""
        side = SIDE * self.factor
        starts = (self.row, self.col)
        spans = [
            (max(start, 0), min(start + side, n)) for start, n in zip(starts, shape, strict=True)
        ]
        inside = [slice(a, max(a, b)) for a, b in spans]
        placed = [
            slice(part.start - start, part.stop - start)
            for part, start in zip(inside, starts, strict=True)
        ]
        return (inside[0], inside[1]), (placed[0], placed[1])


def scene_sheet(
    picture: ScenePicture, frames: Sequence[CloseUp], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return the close-ups of a scene as one picture (y, x, 3)."""
    sheet = np.full((*_sheet_shape(len(frames)), 3), GREY, np.uint8)
    for index, frame in enumerate(frames):
        side, factor = SIDE * frame.factor, frame.factor
        square = np.full((side, side, 3), GREY, np.uint8)
        inside, placed = frame.cut(shape)
        square[placed] = picture.window(*inside)
        blocks = square.reshape(SIDE, factor, SIDE, factor, 3).mean((1, 3))
        sheet[_cell(index)] = np.rint(blocks)
    return sheet


def score_sheet(
    source: ScoreMap | RasterMap, frames: Sequence[CloseUp], shape: tuple[int, int], scale: Scale
) -> NDArray[np.uint8]:
    """Return the close-ups of a map as one sheet of bytes (y, x)."""
    sheet = np.zeros(_sheet_shape(len(frames)), np.uint8)
    for index, frame in enumerate(frames):
        side = SIDE * frame.factor
        square = np.full((side, side), np.nan, np.float32)
        inside, placed = frame.cut(shape)
        square[placed] = source.read(*inside)[0]
        sheet[_cell(index)] = scale.values(block_maximum(square, frame.factor))
    return sheet


def _sheet_shape(count: int) -> tuple[int, int]:
    return -(-count // COLUMNS) * SIDE, COLUMNS * SIDE


def _cell(index: int) -> tuple[slice, slice]:
    row, col = divmod(index, COLUMNS)
    return slice(row * SIDE, (row + 1) * SIDE), slice(col * SIDE, (col + 1) * SIDE)


def packed(values: NDArray[np.uint8]) -> str:
    """Return bytes, compressed, as base64: the page unpacks exactly what was packed."""
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()


def packed_layer(values: NDArray[np.uint8], factor: int, limit: int) -> dict[str, Any]:
    """Return a layer of scores for the page, coarser if it takes more than ``limit`` characters."""
    text = packed(values)
    while len(text) > limit and min(values.shape) > 1:
        values, factor = _coarser(values), 2 * factor
        text = packed(values)
    height, width = values.shape
    return {"height": height, "width": width, "factor": factor, "scores": text}


def _coarser(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return half the size: the highest score, else unscored, else no data."""
    padded = np.pad(values, [(0, n % 2) for n in values.shape])
    blocks = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)
    scored = np.where(blocks == UNSCORED, NO_DATA, blocks).max((1, 3))
    return np.asarray(np.where(scored == NO_DATA, blocks.max((1, 3)), scored), np.uint8)


def packed_sheet(sheet: NDArray[np.uint8], scale: Scale, limit: int) -> str:
    """Return close-ups for the page; if they are long, without scores that are shown nowhere."""
    text = packed(sheet)
    if len(text) <= limit:
        return text
    return packed(
        np.where(sheet == NO_DATA, sheet, np.where(sheet < scale.step(GROW), np.uint8(1), sheet))
    )


def data_url(picture: NDArray[np.uint8], limit: int, *, whole: bool = False) -> tuple[str, int]:
    """Return a picture (y, x, 3) as a ``data:`` URL, and the factor by which it was reduced.

    WebP takes about two thirds of a JPEG of the same quality. If the URL is longer than ``limit``,
    the quality falls first, then the size, unless the picture must stay ``whole``.
    """
    factor = 1
    while True:
        for quality in QUALITIES:
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "WEBP", quality=quality, method=4)
            url = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
            if len(url) <= limit:
                return url, factor
        if whole or min(picture.shape[:2]) <= SIDE:
            return url, factor
        padded = np.pad(picture, [(0, n % 2) for n in picture.shape[:2]] + [(0, 0)], mode="edge")
        blocks = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2, 3).mean((1, 3))
        picture, factor = np.rint(blocks).astype(np.uint8), 2 * factor
