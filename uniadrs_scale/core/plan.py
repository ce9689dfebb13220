"""The plan of a run: a frozen value, decided before any pixel is read."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from uniadrs_scale.core.arguments import whole
from uniadrs_scale.core.contracts import Printed, digest, is_score_alone
from uniadrs_scale.core.lattice import Lattice, default_chunk
from uniadrs_scale.core.layers import SCORE, Layer
from uniadrs_scale.core.memory import MIB, MemoryForecast, Pixels, Processes, forecast
from uniadrs_scale.core.presets import Preset, Terms, choose_preset
from uniadrs_scale.errors import PlanError, counted

if TYPE_CHECKING:
    from uniadrs_scale.core.contracts import SceneInfo, Tiling


MOST_CHUNKS = 2**22
"""Chunks of a map: of default size they cover 70 Tpx."""
MOST_BANDS = 2048
"""Most bands of a scene: the covariance of a cell takes 32 MiB."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes that a caller asks for; None leaves one to the preset and the scene."""

    preset: str = "auto"
    tile: int | None = None
    stride: int | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that are not whole numbers from 1."""
        for name in ("tile", "stride", "chunk"):
            if (size := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole(name, size, 1))

    def require_free(self, tiling: Tiling | None) -> None:
        """Raise PlanError if the scorer sets the tiles, by ``tiling``, and the caller, too."""
        asked = {"preset": self.preset != "auto", "tile": self.tile, "stride": self.stride}
        given = [name for name, value in asked.items() if value]
        if tiling is not None and given:
            raise PlanError(
                f"The scorer sets tiles of {tiling.tile} px with a step of {tiling.stride} px. "
                f"Drop {' and '.join(given)}, or make a scorer with other tiles."
            )

    def decide(self, scene: SceneInfo, tiling: Tiling | None = None) -> tuple[Preset, Lattice]:
        """Return the preset and the lattice of ``scene``, with the tiles that its scorer asks for.

        Raises:
            PlanError: The preset is unknown, or the sizes contradict each other.
        """
        self.require_free(tiling)
        if tiling is None:
            preset = choose_preset(scene, self.preset)
            tile = preset.tile_of(scene.height, scene.width) if self.tile is None else self.tile
            stride = preset.stride(tile) if self.stride is None else self.stride
        else:
            tile, stride = tiling.tile, tiling.stride
            why = "the scorer asks for its tiles"
            preset = Preset(name="none", tile=tile, least=tile, why=why)
        chunk = self.chunk
        if chunk is None:
            chunk = default_chunk(scene.height, scene.width, tile, stride)
        elif self.tile is None:
            # The preset chose the tile, and chunks change no score: not an error of the caller.
            chunk = max(chunk, min(tile, max(scene.height, scene.width)))
        halo = 0 if tiling is None else tiling.halo
        lattice = Lattice(
            height=scene.height, width=scene.width, tile=tile, stride=stride, chunk=chunk, halo=halo
        )
        return preset, lattice


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ScorePlan(Printed):
    """Scene, lattice, detector and cost of one run."""

    scene: SceneInfo
    lattice: Lattice
    preset: str
    """Name of the preset, and the reason for it."""
    coarsen: int
    """The detector sees means of ``coarsen`` x ``coarsen`` px."""
    detector: str
    """Identity of the scorer: architecture, weights' sha256, arithmetic."""
    batch: int
    activation_bytes: int
    coarser: int = 0
    """The detector sees these means, too, and the logits of both are averaged; 0 for no."""
    smoothing: int = 1
    """How often in a row means are taken before pixels are sampled."""
    workers: int
    """Worker processes that share the held strips."""
    threads: int
    """Threads per worker."""
    in_lines: bool
    """Whether chunks come line by line: if not, more strips wait."""
    gpu_build: bool
    """Whether torch is built for GPUs, in this process and so on workers: it is larger."""
    version: str
    """Version of this library."""
    layers: tuple[Layer, ...] = (SCORE,)
    """Layers of the map."""
    terms: Terms = ()
    """Terms that the preset adds to the detector's logit."""
    compute: str = ""
    """Words about the processes that compute, and why these."""
    asked_chunk: int | None = None
    """Chunk that was asked for [px]; the lattice has a larger one if a tile does not fit in it."""

    def __post_init__(self) -> None:
        """Refuse a scene whose statistics or chunks could not be held."""
        bands = len(self.scene.bands)
        if bands > MOST_BANDS:
            raise PlanError(
                f"Scene '{self.scene.name}' has {bands} bands: their covariance alone would take "
                f"{8 * bands**2 / MIB:.0f} MiB per cell; at most {MOST_BANDS} bands are "
                "allowed. Select bands."
            )
        if self.chunks > MOST_CHUNKS:
            side = math.isqrt(self.scene.height * self.scene.width // MOST_CHUNKS) + 1
            raise PlanError(
                f"chunk={self.lattice.chunk} px cuts scene '{self.scene.name}' into {self.chunks} "
                f"chunks; at most {MOST_CHUNKS} are allowed, because each has tasks and files. Use "
                f"chunk >= {side}."
            )

    def decisive(self) -> dict[str, Any]:
        """Return everything that affects the output, as JSON values. Workers do not."""
        values = {
            "scene": self.scene.decisive(),
            "lattice": self.lattice.decisive(),
            "coarsen": self.coarsen,
            "detector": self.detector,
            "version": self.version,
        }
        if not is_score_alone(self.layers):
            values["layers"] = [layer.to_json() for layer in self.layers]
        if self.terms:
            values["terms"] = dict(self.terms)
        if self.smoothing > 1:
            values["smoothing"] = self.smoothing
        return values | ({"coarser": self.coarser} if self.coarser else {})

    @property
    def seen_pixels(self) -> int:
        """Pixels that the scorer sees, at its resolutions and with overlaps."""
        sides = (self.lattice.tile // factor for factor in self.scales)
        return self.lattice.tiles * sum(side**2 for side in sides)

    @property
    def fingerprint(self) -> str:
        """Digest of :meth:`decisive`, 16 hex digits."""
        return digest(self.decisive())

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(layer.name for layer in self.layers)

    @property
    def preset_name(self) -> str:
        """Name of the preset, without the reason for it."""
        return self.preset.partition(" (")[0]

    @property
    def scales(self) -> tuple[int, ...]:
        """Sides of the means that the detector sees [px]."""
        return (self.coarsen, self.coarser) if self.coarser else (self.coarsen,)

    @property
    def chunks(self) -> int:
        """Pieces in which the map is computed and committed."""
        return math.prod(self.lattice.chunks)

    @property
    def tasks(self) -> int:
        """Dask tasks: one that all share; per chunk score, commit and two of strips.

        The last chunk of a line and the last line have fewer strips.
        """
        return 4 * self.chunks - sum(self.lattice.chunks) + 1

    @property
    def memory(self) -> MemoryForecast:
        """Forecast of one worker."""
        scene = self.scene
        pixels = Pixels(
            bands=len(scene.bands),
            itemsize=scene.itemsize,
            block_bytes=scene.block_bytes,
            strip_rows=scene.strip_rows,
        )
        processes = Processes(
            workers=self.workers,
            threads=self.threads,
            in_lines=self.in_lines,
            gpu_build=self.gpu_build,
        )
        return forecast(
            self.lattice,
            pixels,
            processes,
            batch=self.batch,
            activation_bytes=self.activation_bytes,
            layers=len(self.layers),
        )

    def require_memory(self, limit: int, where: str) -> None:
        """Refuse to begin if a worker would need more memory than ``limit``; 0 for no limit.

        Raises:
            PlanError: The forecast exceeds ``limit``; the message has the chunk that fits.
        """
        memory = self.memory
        if not limit or memory.total <= limit:
            return
        fits = self._fitting_chunk(limit)
        advice = (
            f"Use chunk <= {fits} px, or fewer workers."
            if fits
            else "No chunk is small enough: use fewer workers, or workers with more memory."
        )
        raise PlanError(
            f"Plan needs {memory.total / MIB:.0f} MiB per worker (process "
            f"{memory.process / MIB:.0f}, read {memory.read / MIB:.0f}, "
            f"sums {memory.sums / MIB:.0f}, network {memory.network / MIB:.0f}), but may use "
            f"{limit / MIB:.0f} MiB ({where}). {advice}"
        )

    def _fitting_chunk(self, limit: int) -> int | None:
        """Return the largest chunk that fits in ``limit`` bytes, in steps of 64 px."""
        lattice = self.lattice
        smallest = -(-lattice.tile // 64) * 64
        for chunk in range(lattice.chunk // 64 * 64, smallest - 1, -64):
            if replace(self, lattice=replace(lattice, chunk=chunk)).memory.total <= limit:
                return chunk
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return all inputs, the forecast and the fingerprint, as JSON values."""
        return {
            **asdict(self),
            "tiles": self.lattice.tiles,
            "chunks": list(self.lattice.chunks),
            "tasks": self.tasks,
            "memory": {**asdict(self.memory), "total": self.memory.total},
            "fingerprint": self.fingerprint,
        }

    def text(self) -> str:
        """Return the forecast as text, one line per fact."""
        scene, lattice, memory = self.scene, self.lattice, self.memory
        rows, cols = lattice.chunks
        megapixels = scene.height * scene.width / 1e6
        seen = " and ".join(f"1/{scale}" for scale in self.scales)
        asked = self.asked_chunk
        lines = {
            "scene": f"{scene.name}: {scene.height} rows x {scene.width} columns "
            f"({megapixels:.1f} Mpx), {counted(len(scene.bands), 'band')}, {scene.dtype}"
            + (f", {scene.gsd_m:g} m" if scene.gsd_m else ""),
            **({"crop": scene.crop} if scene.crop else {}),
            "georeference": scene.georeference,
            **({"grid": scene.grid} if scene.grid else {}),
            "not valid": scene.masked or "no value is declared; name one with --nodata (nodata=)",
            "tiles": f"{lattice.tiles} of {lattice.tile} px, stride {lattice.stride} px "
            f"(each pixel is scored {lattice.tiles * lattice.tile**2 / 1e6 / megapixels:.1f} "
            "times on average)",
            "preset": self.preset
            + (f", seen at {seen} of the resolution" if self.coarsen > 1 else "")
            + (f" (means of means, {self.smoothing} times)" if self.smoothing > 1 else "")
            + "".join(
                f", {'minus' if factor < 0 else 'plus'} {abs(factor):g} x {name}"
                for name, factor in self.terms
            ),
            "chunks": f"{rows} x {cols} of {lattice.chunk} px, {counted(self.tasks, 'task')}"
            + (f" (not {asked} px: a tile must fit)" if asked not in (None, lattice.chunk) else ""),
            "reads": "every pixel twice, for statistics (the store keeps them) and for scores",
            "detector": self.detector,
            **({"layers": ", ".join(names)} if (names := self.layer_names) != ("score",) else {}),
            **({"compute": self.compute} if self.compute else {}),
            "memory": f"{memory.total / MIB:.0f} MiB per worker "
            f"(process {memory.process / MIB:.0f}, read {memory.read / MIB:.0f}, "
            f"sums {memory.sums / MIB:.0f}, network {memory.network / MIB:.0f}), "
            f"workers: {self.workers}, threads of each: {self.threads}",
            "fingerprint": self.fingerprint,
        }
        notes = [("note", note) for note in scene.remarks]
        return "\n".join(f"{key:<13}{text}" for key, text in (*lines.items(), *notes))

    summary = text
    """The name of :meth:`text` in version 0.1.0."""
