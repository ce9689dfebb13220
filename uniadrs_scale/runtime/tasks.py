"""The work of one task: read a window, score the tiles it owns, blend, commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniadrs_scale.core.compiled import cpu_kind
from uniadrs_scale.core.layers import units
from uniadrs_scale.core.seams import accumulate, finalise, normaliser, taper
from uniadrs_scale.maps.store import DONE, FAILED
from uniadrs_scale.runtime.batches import Apart, Input, network_input, reason, score_tiles
from uniadrs_scale.runtime.worker import IsolatedReader, Isolation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import WindowReader
    from uniadrs_scale.core.lattice import Lattice, Window
    from uniadrs_scale.maps.store import ScoreStore
    from uniadrs_scale.runtime.batches import Regional, Scaled


Index = tuple[int, int]


@dataclass(frozen=True, slots=True)
class TileFailure:
    """A tile without a score."""

    window: Window
    reason: str


Pieces = Mapping[Index, "NDArray[np.float64]"]
"""Numerators (layer, y, x) by receiving chunk; each begins at that chunk's top left corner."""


@dataclass(frozen=True, slots=True, eq=False)
class Strips:
    """Sums of one chunk's tiles in a line of other chunks, and the kind of CPU that scored them."""

    pieces: Pieces
    cpu: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredPart:
    """Sums of one chunk's tiles."""

    body: NDArray[np.float64]
    """(layer, y, x) numerators of the chunk itself."""
    strips: Pieces
    """Numerators of the chunks right, below and diagonal, if tiles reach into them."""
    cpu: str
    """Kind of CPU that scored the tiles."""
    valid: NDArray[np.bool_] | None
    """(y, x) of the chunk itself; None if it could not be read."""
    scored: int
    """Tiles with a score."""
    skipped: int
    """Tiles without a valid pixel, never sent to the network."""
    failures: tuple[TileFailure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkReport:
    """The outcome of one chunk."""

    index: Index
    pixels: int
    """Pixels of the chunk, valid or not."""
    valid: int
    """Valid pixels of the chunk."""
    scored: int
    skipped: int
    failures: tuple[TileFailure, ...]
    complete: bool
    """False if a valid pixel has no score."""
    cpu_kinds: tuple[str, ...] = ()
    """Kinds of CPU that scored its tiles or blended them, sorted."""


def score_chunk(
    reader: WindowReader | IsolatedReader,
    index: Index,
    tiles: Sequence[Window],
    lattice: Lattice,
    scaled: Scaled | Regional | Apart,
    *,
    threads: int = 1,
) -> ScoredPart:
    """Score ``tiles``, all owned by chunk ``index``, and cut their sum along chunk borders.

    Args:
        reader: Reader of the chunk's read window.
        index: The chunk.
        tiles: Its tiles to score: all, or those that a resumed run still needs.
        lattice: Geometry of the run.
        scaled: The scorer and the scaling of each tile, and the layers.
        threads: Calls of the scorer at once.
    """
    outer = lattice.read_window(index)
    numerator = np.zeros((len(scaled.layers), outer.height, outer.width))
    own = lattice.chunk_window(index).within(outer)
    places = {tile: lattice.inside(tile).within(outer) for tile in tiles}
    wanted: dict[Window, tuple[slice, slice]] = {}
    try:
        pixels, valid = reader.read()
    except Exception as error:  # noqa: BLE001 - whatever GDAL, Dask or a user's graph raises
        own_valid = None
        reasons = dict.fromkeys(tiles, f"read: {reason(error)}")
    else:
        own_valid, reasons = valid[own].copy(), {}
        wanted = {tile: place for tile, place in places.items() if valid[place].any()}
        inputs = (
            Input(
                tile,
                network_input(fitted.scaling.apply(pixels[:, *at]), valid[at], overhang),
                fitted.scorer,
            )
            for tile, at in wanted.items()
            for fitted, overhang in [(scaled.of(lattice.inside(tile)), lattice.overhang(tile))]
        )
        for tile, score in score_tiles(inputs, scaled.layers, threads):
            if isinstance(score, str):
                reasons[tile] = score
            else:
                _add(numerator[:, *places[tile]], score, tile, lattice)
    # Last, so that a neighbour's contribution cannot hide it: NaN stays NaN in every later sum.
    for tile in reasons:
        numerator[:, *places[tile]] = np.nan
    failures = tuple(TileFailure(lattice.inside(tile), why) for tile, why in reasons.items())
    return ScoredPart(
        # Copied: a view would keep the whole window alive until the neighbours are done.
        body=numerator[:, *own].copy(),
        strips=dict(_strips(numerator, index, lattice)),
        cpu=cpu_kind(),
        valid=own_valid,
        scored=len(wanted) - len(failures) if wanted else 0,
        skipped=len(tiles) - len(wanted) if own_valid is not None else 0,
        failures=failures,
    )


def score_chunk_apart(
    reader: WindowReader,
    index: Index,
    tiles: Sequence[Window],
    lattice: Lattice,
    scaled: Scaled | Regional,
) -> ScoredPart:
    """Do the same as :func:`score_chunk`, reading and scoring in a child process.

    A tile that kills a process then costs its own score only. It takes two to five seconds more per
    chunk, so only chunks whose workers died are scored like this.
    """
    with Isolation() as isolation:
        isolated = IsolatedReader(isolation, reader)
        return score_chunk(isolated, index, tiles, lattice, Apart(isolation, scaled))


def take_strips(part: ScoredPart, axis: int, line: int) -> Strips:
    """Return what ``part`` adds to a line of chunks, so that the rest need not wait for it."""
    return Strips({to: piece for to, piece in part.strips.items() if to[axis] == line}, part.cpu)


def commit_chunk(
    index: Index, lattice: Lattice, store: ScoreStore, part: ScoredPart, *neighbours: Strips
) -> ChunkReport:
    """Blend the sums of chunk ``index`` and its three neighbours, and write the scores.

    Args:
        index: The chunk.
        lattice: Geometry of the run.
        store: The store to write to.
        part: Sums of the chunk itself.
        neighbours: Strips of the chunks left, above and diagonal that exist.
    """
    window = lattice.chunk_window(index)
    numerator = part.body.copy()  # tasks may share their input
    kinds = {part.cpu, cpu_kind()}
    for strips in neighbours:
        piece = strips.pieces.get(index)
        if piece is not None:
            numerator[:, : piece.shape[1], : piece.shape[2]] += piece
            kinds.add(strips.cpu)
    rows, cols = window.slices
    norm_y = normaliser(lattice.height, lattice.tile, lattice.stride, lattice.halo)[rows]
    norm_x = normaliser(lattice.width, lattice.tile, lattice.stride, lattice.halo)[cols]
    valid = np.zeros(numerator.shape[1:], bool) if part.valid is None else part.valid
    scores = np.stack([finalise(sums, norm_y, norm_x, valid) for sums in numerator])
    scores *= units(store.layers)
    complete = part.valid is not None and bool((np.isfinite(scores) == valid).all())
    store.write_chunk(index, window, scores, DONE if complete else FAILED)
    return ChunkReport(
        index=index,
        pixels=valid.size,
        valid=0 if part.valid is None else int(np.count_nonzero(part.valid)),
        scored=part.scored,
        skipped=part.skipped,
        failures=part.failures,
        complete=complete,
        cpu_kinds=tuple(sorted(kinds)),
    )


def _add(
    target: NDArray[np.float64], scores: NDArray[np.float32], tile: Window, lattice: Lattice
) -> None:
    """Add the part of a tile's layers that is in the scene."""
    rows, cols = lattice.inside(tile).within(tile)
    weights = taper(lattice.tile, lattice.overlap, lattice.halo)
    for sums, score in zip(target, scores, strict=True):
        accumulate(sums, score[rows, cols], weights[rows], weights[cols])


def _strips(
    numerator: NDArray[np.float64], index: Index, lattice: Lattice
) -> Iterator[tuple[Index, NDArray[np.float64]]]:
    """Yield copies of the parts right of, below and diagonal to the chunk itself."""
    own = lattice.chunk_window(index)
    for down, right in ((0, 1), (1, 0), (1, 1)):
        piece = numerator[
            :,
            slice(own.height, None) if down else slice(own.height),
            slice(own.width, None) if right else slice(own.width),
        ]
        if piece.size:
            yield (index[0] + down, index[1] + right), piece.copy()
