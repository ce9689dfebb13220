"""Contracts between the rooms: what a run needs of a scene and of a scorer.

Whatever decides an output says so itself: ``decisive()`` returns JSON values, spelled out name by
name, and an identity is their :func:`digest`. So a class can be renamed, and a field with a default
added, without making half-done stores foreign.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from uniadrs_scale.core.layers import SCORE, Layer, real_values
from uniadrs_scale.errors import PlanError, SceneError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.core.layers import Part
    from uniadrs_scale.core.pixels import BandStatistics, Normalisation


class Scorer(Protocol):
    """A model that scores tiles once it knows the scene: implement this to bring your own.

    Pickled to every worker, as is the :class:`FittedScorer` that it makes. It may have these
    attributes, too: ``layers`` (of :class:`Layer`; one, the score, by default), ``tiling``
    (:class:`Tiling`; by default the preset decides), ``inputs`` (``raw`` for pixels as they are;
    by default they are scaled) and ``thread_safe`` (True if several threads may call it at once;
    by default it is given a process per thread).
    """

    @property
    def identity(self) -> str:
        """Text that is equal for equal scores: part of the run's fingerprint."""

    @property
    def batch(self) -> int:
        """Tiles per call."""

    def activation_bytes(self, tile: int, bands: int) -> int:
        """Return the peak memory of one call beyond its input, in bytes."""

    def fitted(self, statistics: BandStatistics) -> FittedScorer:
        """Return the scorer of a scene, or of a region of one, with these statistics.

        Called once per region before the first tile is scored.
        """


class FittedScorer(Protocol):
    """A model that scores the tiles of one scene, or of one region of it.

    It may have a method ``warm_up(tile, bands)``: see :class:`WarmedUp`.
    """

    @property
    def batch(self) -> int:
        """Tiles per call. Every call has exactly this many, for bit-identical results."""

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores (n, y, x) in 0..1 of tiles (n, band, y, x).

        A scorer of several layers returns (n, layer, y, x), each in its valid range.
        """


@runtime_checkable
class WarmedUp(Protocol):
    """A fitted scorer that is slow the first time, or uses a device that may be broken."""

    def warm_up(self, tile: int, bands: int) -> None:
        """Score one dummy batch per process; raise if the weights or the device do not work."""


@runtime_checkable
class Joint(Protocol):
    """A fitted scorer that scores tiles of several regions of a scene in one call.

    Each region has its own statistics, and so its own fitted scorer. Without this method, there is
    one call per region, and the scores of the other tiles in it are thrown away.
    """

    def score_jointly(
        self, scorers: Sequence[FittedScorer], tiles: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return scores (n, y, x) of ``tiles``, each by the scorer at its position."""


def score_jointly(
    scorers: Sequence[FittedScorer], tiles: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return scores (n, y, x) of ``tiles``, each by the scorer at its position."""
    first = scorers[0]
    if isinstance(first, Joint):
        return first.score_jointly(scorers, tiles)
    scores = real_values(first.score_tiles(tiles))
    for scorer in {id(other): other for other in scorers if other is not first}.values():
        mine = [k for k, other in enumerate(scorers) if other is scorer]
        scores[mine] = real_values(scorer.score_tiles(tiles))[mine]
    return scores


def warm_up(scorer: FittedScorer, tile: int, bands: int) -> None:
    """Make ``scorer`` ready for tiles (band, tile, tile), if it knows how."""
    if isinstance(scorer, WarmedUp):
        scorer.warm_up(tile, bands)


def is_score_alone(layers: tuple[Layer, ...]) -> bool:
    """Return True if a map has no layer but the score: then it need not name its layers."""
    return [layer.to_json() for layer in layers] == [SCORE.to_json()]


def layers_of(scorer: object) -> tuple[Layer, ...]:
    """Return the layers that a scorer makes: its attribute ``layers``, by default the score."""
    return tuple(getattr(scorer, "layers", (SCORE,)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """The tiles that a scorer asks for by its attribute ``tiling``; no preset decides them."""

    tile: int
    """Side of a tile [px]."""
    stride: int
    """Step between tiles [px]."""
    halo: int = 0
    """Pixels at a tile's border that count only if no other tile has them."""


@dataclass(frozen=True, slots=True)
class AsIs:
    """The scaling of a scorer whose attribute ``inputs`` is ``raw``: none."""

    def apply(self, pixels: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return ``pixels`` as float32."""
        return pixels.astype("float32")


def scaling_of(scorer: object, statistics: BandStatistics) -> Normalisation | AsIs:
    """Return the scaling of the tiles that ``scorer`` takes, where these statistics hold."""
    raw = getattr(scorer, "inputs", "scaled") == "raw"
    return AsIs() if raw else statistics.normalisation()


MOST_SIDE, MOST_PIXELS = 2**24, 2**42
"""Limits of a scene. The Earth has 10 million pixels of 4 m around the equator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneInfo:
    """Everything that a plan needs to know about a scene."""

    name: str
    """File name or variable name."""
    identity: str
    """Digest of :meth:`SceneSource.decisive`: changes when the pixels do."""
    height: int
    width: int
    bands: tuple[str, ...]
    dtype: str
    itemsize: int
    """Bytes of one value as read."""
    crs: str | None
    """WKT, None if the scene has no CRS."""
    transform: tuple[float, ...] | None
    """Affine coefficients (a, b, c, d, e, f) of pixel corners, None if the scene has none."""
    gsd_m: float | None = None
    """Ground sample distance [m], None if unknown."""
    wavelengths: tuple[float, ...] = ()
    """Centres of the bands [nm], NaN for an unknown one; empty if none is known."""
    grid: str = ""
    """Sentence about the common grid of resampled bands; empty if all bands share one grid."""
    geolocation: str = ""
    """Kind of a swath's geolocation, then a space and its digest; empty for a grid."""
    unplaced: str = ""
    """Reason why the scene's words about its place are not enough, as part of a sentence."""
    masked: str = ""
    """Values and classes that make pixels invalid, for people."""
    notes: tuple[str, ...] = ()
    """Sentences about what was assumed when the scene was opened."""
    block_bytes: int = 0
    """Bytes that a reader holds besides a window: blocks of a file that are decoded whole."""
    strip_rows: int = 0
    """Rows of a window that a reader decodes at once before it copies them into the window."""
    acquired: str = ""
    """Time of acquisition as the scene says it; empty if unknown."""
    platform: str = ""
    """Name of the satellite or aircraft; empty if unknown."""
    crop: str = ""
    """The part of a larger scene that this is, in words; empty for a whole scene."""
    parts: tuple[Part, ...] = ()
    """The same, so that it can be cut again from files: each is a part of the one before."""

    def __post_init__(self) -> None:
        """Refuse a scene without pixels, or with more than any sensor has."""
        if not self.bands:
            raise PlanError(f"Scene '{self.name}' has no bands. Select at least one.")
        if self.height < 1 or self.width < 1:
            raise PlanError(f"Scene '{self.name}' is empty: {self.height} x {self.width} pixels.")
        if max(self.height, self.width) > MOST_SIDE or self.height * self.width > MOST_PIXELS:
            raise SceneError(
                f"'{self.name}' claims {self.height} x {self.width} px: at most {MOST_SIDE} per "
                f"side and {MOST_PIXELS} in all are allowed. Select a part, or check the file."
            )

    def decisive(self) -> dict[str, Any]:
        """Return everything that affects the map, as JSON values. Words and memory do not."""
        values = {
            "name": self.name,
            "identity": self.identity,
            "height": self.height,
            "width": self.width,
            "bands": list(self.bands),
            "dtype": self.dtype,
            "crs": self.crs,
            "transform": None if self.transform is None else list(self.transform),
        }
        if self.geolocation:
            values["geolocation"] = self.geolocation.rpartition(" ")[2]  # the digest
        return values

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about what was assumed, and about a place that the map cannot have."""
        why = self.unplaced
        if self.crs and self.transform and self.gsd_m is None:
            why = f"its transform gives no place on the Earth in {crs_name(self.crs)}"
        return (*self.notes, f"The map has no place on the ground: {why}.") if why else self.notes

    @property
    def georeference(self) -> str:
        """The tie between pixels and the ground, in words."""
        if what := self.geolocation.rpartition(" ")[0]:  # without the digest
            return f"{what}: scored as sensed, drawn on a grid as a COG"
        why = f" ({self.unplaced})" if self.unplaced else ""
        if self.transform is None:
            return f"none{why}: the map will have none either"
        return crs_name(self.crs) or f"transform without CRS{why}"


def crs_name(wkt: str | None) -> str:
    """Return the name in a WKT, such as 'WGS 84 / UTM zone 32N'; empty without a WKT."""
    return "" if wkt is None else wkt.split('"')[1] if '"' in wkt else wkt


class WindowReader(Protocol):
    """A window of a scene, still to be read; small, picklable."""

    def read(self) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read pixels (band, y, x) and valid mask (y, x)."""

    def counted(self) -> tuple[NDArray[np.generic], NDArray[np.bool_], Mapping[str, int]]:
        """Read pixels, valid mask, and the number of invalid pixels by reason."""


class SceneSource(Protocol):
    """The origin of a run's pixels."""

    @property
    def info(self) -> SceneInfo:
        """Size, bands, georeference and identity."""

    def window(self, window: Window) -> WindowReader:
        """Return the reader of one window."""

    def decisive(self) -> dict[str, Any]:
        """Return everything that decides the pixels, as JSON values."""


class Printed:
    """A result whose text is printed. IPython prefers a ``__repr__`` of a subclass: define none."""

    __slots__ = ()
    text: Callable[[], str]

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.text())}</pre>"

    def _repr_pretty_(self, printer: Any, *_: object) -> None:
        printer.text(self.text())  # in a terminal of IPython


def digest(values: Mapping[str, Any]) -> str:
    """Return 16 hex digits that are equal for equal JSON values; numpy's numbers count as such."""
    text = json.dumps(values, sort_keys=True, default=lambda number: number.item())
    return hashlib.sha256(text.encode()).hexdigest()[:16]
