"""Scorers of users: a function, a torch module, or a file of torch.export or ONNX."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch

from uniadrs_scale.core.arguments import whole
from uniadrs_scale.core.contracts import Tiling
from uniadrs_scale.core.layers import SCORE, Layer, real_values
from uniadrs_scale.core.machine import ONE_BLAS_THREAD
from uniadrs_scale.detector.fingerprints import model_digest
from uniadrs_scale.detector.model_files import File, by_torch, model_file
from uniadrs_scale.errors import PlanError, WeightsError, gist

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.core.pixels import BandStatistics
    from uniadrs_scale.detector.model_files import Call

Inputs = Literal["scaled", "raw"]
MIB = 2**20
TOLERANCE = 1e-5
"""Share of a layer's range by which rounding may leave it: a softmax gives 1.0000001."""


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function of numpy arrays."""

    call: Call
    version: str | None

    @property
    def digest(self) -> str:
        """Version as the caller says, or the content, which may have changed since."""
        return f"version {self.version}" if self.version else f"sha256:{model_digest(self.call)}"

    def answer(self, tiles: NDArray[np.float32]) -> Any:
        """Return what the function does, with one thread for products of matrices."""
        with ONE_BLAS_THREAD:
            return self.call(tiles)


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """A torch module on the CPU, in evaluation mode."""

    module: torch.nn.Module
    digest: str

    def answer(self, tiles: NDArray[np.float32]) -> Any:
        """Return what the module does, in one thread."""
        return by_torch(self.module, tiles)


Model = File | Function | Module
"""A model that answers tiles with one array, or one per layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnScorer:
    """A model of the caller as a :class:`.Scorer`: see :func:`scorer`."""

    model: Model
    name: str
    tiling: Tiling
    layers: tuple[Layer, ...]
    inputs: Inputs
    batch: int
    memory_mib: int
    thread_safe: ClassVar[bool] = True

    @property
    def identity(self) -> str:
        """Name, content or version of the model, and its input."""
        return f"{self.name} {self.inputs} {self.model.digest}"

    def activation_bytes(self, tile: int, bands: int) -> int:
        """Return the memory that the caller says; PlanError if the model cannot score tiles."""
        self.warm_up(tile, bands)
        self._require_repeatable(tile, bands)
        return self.memory_mib * MIB

    def fitted(self, statistics: BandStatistics) -> OwnScorer:
        """Return itself: the model knows no statistics but those of its input."""
        del statistics
        return self

    def warm_up(self, tile: int, bands: int) -> None:
        """Score noise; raise PlanError if that does not work, or gives arrays of other shapes."""
        tiles = self._noise(tile, bands)
        try:
            found = np.shape(_stacked(self.model.answer(tiles), len(self.layers)))
        except WeightsError:
            raise
        except Exception as error:
            raise PlanError(
                f"The model '{self.name}' cannot score tiles of shape {tiles.shape} (tile, band, "
                f"y, x): {gist(error)}. Check the bands of the scene, tile= and batch=."
            ) from error
        wanted = (self.batch, len(self.layers), tile, tile)
        if found != wanted:
            raise PlanError(
                f"The model '{self.name}' turned tiles of shape {tiles.shape} into {found}, not "
                f"{wanted} (tile, layer, y, x). Name its outputs with layers=, and return as many "
                "rows and columns as it is given."
            )

    def _noise(self, tile: int, bands: int) -> NDArray[np.float32]:
        shape = self.batch, bands, tile, tile
        return np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    def _require_repeatable(self, tile: int, bands: int) -> None:
        """Raise PlanError if a tile gets other scores again, or among other tiles."""
        tiles = self._noise(tile, bands)
        others = np.concatenate([tiles[:1], 1 - tiles[1:]])
        one, two = (
            _stacked(self.model.answer(each), len(self.layers))[0] for each in (tiles, others)
        )
        if not np.array_equal(one, two, equal_nan=True):
            raise PlanError(
                f"The model '{self.name}' gives the same tile other scores in a second call, so "
                "its map would depend on chunks and workers. Remove what is random or kept between "
                "calls (dropout: F.dropout(x, training=self.training)), and statistics over "
                "the tiles of a call (batch normalisation), or use batch=1."
            )

    def score_tiles(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the layers (n, layer, y, x) of tiles (n, band, y, x).

        Raises:
            ValueError: A value is outside the range of its layer.
        """
        values = _stacked(self.model.answer(tiles), len(self.layers))
        for layer, part in zip(self.layers, np.moveaxis(values, 1, 0), strict=True):
            low, high = layer.valid_range
            slack = TOLERANCE * (high - low)
            # NaN fails its tile later, and must not hide another tile's values.
            least, most = (float(f.reduce(part, axis=None)) for f in (np.fmin, np.fmax))
            if least < low - slack or most > high + slack:
                raise ValueError(
                    f"{layer.name} has values {least:g} to {most:g}, its valid_range is {low:g} to "
                    f"{high:g}"
                )
            np.clip(part, low, high, out=part)
        return values


def scorer(
    model: Callable[..., Any] | torch.nn.Module | str | Path,
    *,
    tile: int,
    halo: int = 0,
    stride: int | None = None,
    layers: Sequence[str | Layer] | str | Layer = (SCORE,),
    inputs: Inputs = "scaled",
    name: str | None = None,
    version: str | None = None,
    batch: int = 1,
    memory_mib: int = 256,
) -> OwnScorer:
    """Return a scorer of your own model, for ``score(scene, detector=...)``.

    Args:
        model: A function of tiles, float32 (n, band, y, x) of numpy, that returns (n, y, x), or
            (n, layer, y, x), or one array per layer; it is called by several threads at once. Or a
            :class:`torch.nn.Module` that does the same with tensors on the CPU. Or the path of a
            file of ``torch.export.save`` (``.pt2``) or of ONNX (``.onnx``).
        tile: Side of the square that the model sees [px].
        halo: Width of the margin of a tile whose results are inexact, because surroundings are
            missing [px]: it counts only at the scene's border. For convolutions, the radius of the
            receptive field.
        stride: Step between tiles [px]; by default an eighth of a tile is blended, besides halos.
        layers: Names of the outputs, or :class:`Layer` for ranges other than 0 to 1, units, and
            the way that overviews pool.
        inputs: ``scaled``: each band has the scene's mean 0 and deviation 1, clipped to 8.
            ``raw``: pixels as they are.
        name: Name in plans and stores; by default that of the function, class or file.
        version: Text that identifies the model. By default its code, all that it refers to, and its
            parameters identify it; a run is resumed with an equal model only.
        batch: Tiles per call; the last call is filled up with its last tile.
        memory_mib: Peak memory of a call, for the plan's forecast [MiB].

    Returns:
        A scorer, for ``detector=`` of ``score``, ``plan``, ``targets`` and ``sweep``.

    Raises:
        PlanError: Sizes or layers contradict each other, or the model cannot be identified.
        WeightsError: The file is missing, or of another kind.
    """
    asked = [layers] if isinstance(layers, str) or not isinstance(layers, Iterable) else [*layers]
    if not asked or not all(isinstance(layer, str | Layer) for layer in asked):
        raise PlanError(f"layers={layers!r}: give the name of each output, or a Layer.")
    named = tuple(layer if isinstance(layer, Layer) else _layer(layer) for layer in asked)
    if len({layer.name for layer in named}) < len(named):
        raise PlanError("layers= needs one name per output, all different.")
    if inputs not in ("scaled", "raw"):
        raise PlanError(f"inputs='{inputs}' is unknown. Use scaled or raw.")
    sizes = {"tile": tile, "batch": batch, "stride": tile if stride is None else stride}
    for key, size in (sizes | {"halo": halo}).items():
        whole(key, size, int(key != "halo"))
    step = max(tile - 2 * halo - tile // 8, -(-tile // 2)) if stride is None else stride
    if step > tile:
        raise PlanError(f"stride={step} px is larger than tile={tile} px. Use stride <= {tile}.")
    if 2 * halo > tile - step:
        raise PlanError(
            f"halo={halo} px does not fit tile={tile} px with stride={step} px: two tiles overlap "
            f"by at most half. Use halo <= {(tile - step) // 2}, or a larger tile."
        )
    made, called = _model(model, version)
    return OwnScorer(
        model=made,
        name=name or called,
        tiling=Tiling(tile=tile, stride=step, halo=halo),
        layers=named,
        inputs=inputs,
        batch=batch,
        memory_mib=memory_mib,
    )


def _layer(name: str) -> Layer:
    """Return the layer called ``name``, with values from 0 to 1."""
    return SCORE if name == SCORE.name else Layer(name=name)


def _model(model: object, version: str | None) -> tuple[Model, str]:
    """Return the model and a name for it."""
    if isinstance(model, str | Path):
        return model_file(Path(model)), Path(model).name
    if isinstance(model, torch.jit.ScriptModule):
        raise PlanError(
            "TorchScript cannot be identified. Export the module (torch.export.save) and pass the "
            "path of the .pt2 file."
        )
    if isinstance(model, torch.nn.Module):
        mine = copy.deepcopy(model).to("cpu").eval()  # the caller may go on training
        digest = f"version {version}" if version else f"sha256:{model_digest(mine)}"
        return Module(mine, digest), type(model).__name__
    if not callable(model):
        raise PlanError(
            f"A model is a function, a torch module or the path of a .pt2 or .onnx file, got "
            f"{type(model).__name__}."
        )
    made = Function(model, version)
    _ = made.digest  # refuses what cannot be identified
    return made, str(getattr(model, "__name__", type(model).__name__))


def _stacked(answer: Any, layers: int) -> NDArray[np.float32]:
    """Return an answer as an own array (n, layer, y, x)."""
    if isinstance(answer, dict):
        raise TypeError("it returns a dict, not arrays of real numbers")
    if isinstance(answer, tuple | list):
        return np.stack([real_values(part) for part in answer], axis=1)
    values = real_values(answer)
    return values[:, None] if layers == 1 and values.ndim < len("nlyx") else values
