"""Positions of tiles and chunks: integer geometry only.

Tile origins are fixed in absolute scene pixels and never depend on chunks. The network normalises
every layer over its whole tile (instance normalisation), so a pixel's score depends on which tile
it sits in; no halo cures that, only a lattice that every chunking shares.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from uniadrs_scale.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SMALL, LARGE = 512, 1024
"""Sides of chunks [px]: smaller ones read more halo, larger ones need more memory."""
FEW = 16
"""Large chunks that a scene should have; with fewer, it gets small ones."""


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of scene pixels, half open: rows [row, row + height)."""

    row: int
    col: int
    height: int
    width: int

    @property
    def stop(self) -> tuple[int, int]:
        """(row, col) just past the last pixel."""
        return self.row + self.height, self.col + self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """(y, x) slices into the scene."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)

    def within(self, outer: Window) -> tuple[slice, slice]:
        """(y, x) slices of this window inside an array that covers ``outer``."""
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)

    def intersection(self, other: Window) -> Window | None:
        """Return the common rectangle, None if the two do not overlap."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.stop[0], other.stop[0]) - row
        width = min(self.stop[1], other.stop[1]) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None


def origins(size: int, tile: int, stride: int) -> tuple[int, ...]:
    """Tile origins along one axis: stride multiples, the last pulled back to end at the edge.

    >>> origins(500, 224, 168)
    (0, 168, 276)
    >>> origins(100, 224, 168)
    (0,)
    """
    last = max(size - tile, 0)
    return (*range(0, last, stride), last)


def default_chunk(height: int, width: int, tile: int, stride: int) -> int:
    """Side of a scene's chunks [px], unless the user says otherwise.

    Small scenes get small chunks, so that all cores of a machine have some to do. Large tiles in a
    large scene get whole steps: at 768 px, chunks of 1024 px read 2.1 times the pixels that they
    score, those of 1344 px 1.2 times. It follows from the scene alone: a run may be resumed on
    another machine.

    >>> default_chunk(2048, 2048, 224, 196), default_chunk(5000, 5000, 224, 196)
    (512, 1024)
    >>> default_chunk(900, 900, 600, 525), default_chunk(5000, 5000, 768, 672)
    (1024, 1344)
    """
    side = SMALL if height * width < FEW * LARGE**2 else LARGE
    if side == LARGE and tile > SMALL:
        return stride * max(round(LARGE / stride), -(-tile // stride))
    while side < tile:
        side *= 2
    return side


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """All tiles of a scene, and which chunk owns which.

    A chunk owns the tiles whose first pixel (top left) is in it, so every tile is scored exactly
    once, halos are needed at right and below only, and a chunk merges with three neighbours: left,
    above and diagonal. A last chunk smaller than a tile owns none and is filled by those.
    """

    height: int
    """Scene rows."""
    width: int
    """Scene columns."""
    tile: int
    """Side of the square that the network sees, in pixels."""
    stride: int
    """Step between tiles; tile - stride pixels are scored by two tiles and blended."""
    chunk: int
    """Side of a compute chunk (and Zarr shard), in pixels."""
    halo: int = 0
    """Pixels at a tile's border that count only if no other tile has them."""

    def __post_init__(self) -> None:
        """Refuse geometry that cannot be carried out."""
        for name in ("height", "width", "tile", "stride", "chunk"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name}={getattr(self, name)} px must be positive.")
        if self.stride > self.tile:
            raise PlanError(
                f"stride={self.stride} px is larger than tile={self.tile} px: "
                f"pixels between tiles would have no score. Use stride <= {self.tile}."
            )
        if 2 * self.overlap > self.tile:
            raise PlanError(
                f"overlap={self.overlap} px does not fit tile={self.tile} px: "
                f"at most half of a tile may overlap. Use stride >= {-(-self.tile // 2)}."
            )
        if self.halo < 0 or 2 * self.halo > self.overlap:
            raise PlanError(
                f"halo={self.halo} px does not fit overlap={self.overlap} px: each of two tiles "
                f"needs its own. Use halo <= {self.overlap // 2}, or a smaller stride."
            )
        if self.chunk < self.tile and self.chunk < max(self.height, self.width):
            raise PlanError(
                f"chunk={self.chunk} px is smaller than tile={self.tile} px: a tile may "
                f"reach into one neighbour only. Use chunk >= {self.tile}, or tile <= {self.chunk}."
            )

    def decisive(self) -> dict[str, int]:
        """Return the fields as JSON values."""
        return {
            "height": self.height,
            "width": self.width,
            "tile": self.tile,
            "stride": self.stride,
            "chunk": self.chunk,
            **({"halo": self.halo} if self.halo else {}),
        }

    @property
    def overlap(self) -> int:
        """Pixels that neighbouring tiles share along an axis."""
        return self.tile - self.stride

    @property
    def rows(self) -> tuple[int, ...]:
        """Tile origins along y."""
        return origins(self.height, self.tile, self.stride)

    @property
    def cols(self) -> tuple[int, ...]:
        """Tile origins along x."""
        return origins(self.width, self.tile, self.stride)

    @property
    def chunks(self) -> tuple[int, int]:
        """Chunks along (y, x)."""
        return -(-self.height // self.chunk), -(-self.width // self.chunk)

    @property
    def line_axis(self) -> int:
        """Axis that a line of chunks crosses: 0 if rows of chunks are lines, else 1.

        Chunks are taken line by line, and a line is the shorter side: what reaches into the next
        line waits there for a line's time.
        """
        rows, cols = self.chunks
        return 0 if rows >= cols else 1

    def indices(self) -> Iterator[tuple[int, int]]:
        """Chunk indices (i, j) in raster order."""
        return product(range(self.chunks[0]), range(self.chunks[1]))

    def chunk_window(self, index: tuple[int, int]) -> Window:
        """Return the pixels of chunk ``index``."""
        row, col = index[0] * self.chunk, index[1] * self.chunk
        return Window(
            row, col, min(self.chunk, self.height - row), min(self.chunk, self.width - col)
        )

    def owned_tiles(self, index: tuple[int, int]) -> tuple[Window, ...]:
        """Tiles of chunk ``index``, raster order; a scene smaller than a tile is overhung."""
        own = self.chunk_window(index)
        return tuple(
            Window(row, col, self.tile, self.tile)
            for row in _between(self.rows, own.row, own.stop[0])
            for col in _between(self.cols, own.col, own.stop[1])
        )

    def inside(self, tile: Window) -> Window:
        """Return the part of ``tile`` in the scene: all of it, unless the scene is smaller."""
        return Window(
            tile.row, tile.col, min(tile.height, self.height), min(tile.width, self.width)
        )

    def overhang(self, tile: Window) -> tuple[tuple[int, int], tuple[int, int]]:
        """Pixels of ``tile`` outside the scene, to be reflected: (above, below), (left, right)."""
        inner = self.inside(tile)
        return (0, tile.height - inner.height), (0, tile.width - inner.width)

    def shifted(self, pixel: tuple[int, int]) -> tuple[Window, ...]:
        """Return the tiles of a lattice shifted by half a stride that reach a pixel.

        At a border, which no shifted tile reaches, it is the tile a quarter of a stride further
        inside, or else the one at the border. Tiles of this lattice are omitted, so that pixels in
        the corners of a scene have none.
        """
        sizes = self.height, self.width
        rows, cols = (self._reaching(at, size) for at, size in zip(pixel, sizes, strict=True))
        known = set(self.rows), set(self.cols)
        return tuple(
            Window(row, col, self.tile, self.tile)
            for row, col in product(rows, cols)
            if row not in known[0] or col not in known[1]
        )

    def _reaching(self, at: int, size: int) -> list[int]:
        """Return the origins of shifted tiles along one axis that reach pixel ``at``."""
        last = max(size - self.tile, 0)
        shifted = range(self.stride // 2, last + 1, self.stride)
        first = at < self.stride // 2
        moved = self.stride // 4 if first else last - self.stride // 4
        fits = 0 <= moved <= min(at, last) and at < moved + self.tile
        found = [origin for origin in shifted if origin <= at < origin + self.tile]
        return found or [moved if fits else 0 if first else last]

    def read_window(self, index: tuple[int, int]) -> Window:
        """Chunk ``index`` and its halo: everything that its task must read."""
        own = self.chunk_window(index)
        tiles = self.owned_tiles(index)
        stop_row, stop_col = own.stop
        if tiles:
            # Tiles come in raster order, so the last one reaches furthest on both axes.
            last = self.inside(tiles[-1])
            stop_row, stop_col = max(stop_row, last.stop[0]), max(stop_col, last.stop[1])
        return Window(own.row, own.col, stop_row - own.row, stop_col - own.col)

    @property
    def largest_read(self) -> tuple[int, int]:
        """Height and width that hold every read window [px]."""
        windows = [self.read_window((i, 0)) for i in range(self.chunks[0])]
        beside = [self.read_window((0, j)) for j in range(self.chunks[1])]
        return max(w.height for w in windows), max(w.width for w in beside)

    @property
    def tiles(self) -> int:
        """Tiles of the whole scene."""
        return len(self.rows) * len(self.cols)


def _between(values: tuple[int, ...], start: int, stop: int) -> tuple[int, ...]:
    """Return the ascending values in [start, stop)."""
    return values[bisect_left(values, start) : bisect_left(values, stop)]


def pieces(shape: Iterable[int], side: Iterable[int]) -> Iterator[Window]:
    """Yield a raster in windows of ``side`` px (y, x), row by row; those at the end are smaller."""
    (height, width), (high, wide) = shape, side
    for row, col in product(range(0, height, high), range(0, width, wide)):
        yield Window(row, col, min(high, height - row), min(wide, width - col))


def sample_windows(height: int, width: int, *, block: int = 512, across: int = 8) -> list[Window]:
    """Return windows that stand for the scene: all of a small one, a sample of a large one.

    The scene is cut into at most ``across`` x ``across`` cells, and the block in the centre of each
    cell is taken: 16.8 million pixels at most, fixed by the scene's size alone, never by chunks.
    """

    def spans(size: int) -> list[tuple[int, int]]:
        if size <= block * across:
            return [(start, min(block, size - start)) for start in range(0, size, block)]
        return [((2 * k + 1) * size // (2 * across) - block // 2, block) for k in range(across)]

    return [
        Window(row, col, rows, cols) for row, rows in spans(height) for col, cols in spans(width)
    ]
