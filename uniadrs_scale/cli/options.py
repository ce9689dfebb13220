"""Options of the commands. Options that belong together are a group, each defined once.

A command names a group as one parameter; :func:`spread` shows typer its fields instead:

    def plan_command(scenes: Scenes, reading: Reading, running: Running) -> None: ...

In all modules of the command line, functions import the library themselves: torch and Dask take
seconds, and --help needs neither.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_type_hints

import typer

from uniadrs_scale.cli.values import band_list, items, nodata_value, seconds
from uniadrs_scale.core.presets import DEFAULT_WEIGHTS, PRESETS, Arithmetic, Resampling
from uniadrs_scale.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from uniadrs_scale.core.contracts import Scorer
    from uniadrs_scale.runtime.compute import Compute
    from uniadrs_scale.scoring.job import Job
    from uniadrs_scale.swaths.geometry import Geocoding


COMPLETE, INCOMPLETE, BAD_INPUT, BUSY, INTERRUPTED = 0, 1, 2, 75, 130
"""Exit codes; 75 is EX_TEMPFAIL of sysexits.h: try again later."""
Scenes = Annotated[
    list[str],
    typer.Argument(
        metavar="SCENE",
        help="Product folder, raster, NetCDF, HDF5, Zarr, .mat or STAC item, by path or URI; "
        "several rasters (one file per band) make one scene.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Worker processes on this machine. Default: one per core, or one per GPU."),
]


def require_effect(options: Any, where: str, *names: str) -> None:
    """Raise PlanError if options of a group are given that have no effect ``where``."""
    members = [field for field in fields(options) if not names or field.name in names]
    idle = [field.name for field in members if getattr(options, field.name) != field.default]
    if idle:
        listed = " and ".join(f"--{name.replace('_', '-')}" for name in idle)
        verb, them = ("has", "it") if len(idle) == 1 else ("have", "them")
        raise PlanError(f"{listed} {verb} no effect {where}. Drop {them}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Options for reading a scene."""

    bands: Annotated[
        str | None,
        typer.Option(
            help="Bands to use, by number from 1 or by name: 1,2,5-8 or B02,B03. Default: all."
        ),
    ] = None
    nodata: Annotated[
        str,
        typer.Option(help="Value of invalid pixels, or auto (as declared), or none (all valid)."),
    ] = "auto"
    nodata_when: Annotated[
        str,
        typer.Option(
            help="A pixel is invalid if 'any' band has its nodata value, or if 'all' have theirs. "
            "Default: any for values that files declare, all for --nodata, for the zeros of "
            "products, and for 8-bit data."
        ),
    ] = "auto"
    grid: Annotated[
        str | None,
        typer.Option(
            help="Common grid for bands of different resolution: finest, coarsest or the name of a "
            "band."
        ),
    ] = None
    variable: Annotated[
        str | None,
        typer.Option(
            help="Arrays of a NetCDF, HDF5, Zarr or .mat file: one name, several names (a,b) or a "
            "pattern ('rrs_*')."
        ),
    ] = None
    mask: Annotated[
        str,
        typer.Option(
            help="Pixels to treat as invalid, by a product's quality band: none, cloud, or classes "
            "by name or value (snow,8)."
        ),
    ] = "none"
    units: Annotated[
        str | None, typer.Option(help="Units of Sentinel-1 GRD: amplitude (as stored) or dB.")
    ] = None

    def open(self, scenes: list[str]) -> xr.DataArray:
        """Return the lazy scene."""
        from uniadrs_scale.scenes.open import open_scene

        classes = [int(item) if item.isdecimal() else item for item in items(self.mask)]
        return open_scene(
            scenes,
            bands=band_list(self.bands),
            nodata=nodata_value(self.nodata),
            nodata_when=cast("Any", self.nodata_when),
            grid=self.grid,
            variable=None if self.variable is None else items(self.variable),
            mask=self.mask if self.mask in ("none", "cloud") else classes,
            units=cast("Any", self.units),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Options for scoring a scene."""

    preset: Annotated[
        str,
        typer.Option(help=f"Kind of imagery; sets tile, resolution: auto, {', '.join(PRESETS)}."),
    ] = "auto"
    tile: Annotated[
        int | None,
        typer.Option(help="Side of a tile, in pixels. Default: by preset and size of the scene."),
    ] = None
    stride: Annotated[
        int | None,
        typer.Option(help="Step between overlapping tiles, in pixels. Default: 7/8 of a tile."),
    ] = None
    chunk: Annotated[
        int | None,
        typer.Option(
            help="Chunk side in pixels. Affects memory only, never the scores. "
            "Default: 512, or 1024 for tiles over 512 px or scenes over 16 megapixels; 2 steps "
            "(1344) for both."
        ),
    ] = None
    method: Annotated[
        Literal["uniadrs", "rx", "lrx"],
        typer.Option("--detector", help="Network (uniadrs), global RX (rx) or local RX (lrx)."),
    ] = "uniadrs"
    weights: Annotated[
        str, typer.Option(help="Name of weights that ship with the library, or a file of weights.")
    ] = DEFAULT_WEIGHTS
    dtype: Annotated[
        Arithmetic,
        typer.Option(
            help="Arithmetic of the network; bfloat16 changes scores by up to 0.01, and is faster "
            "on GPUs and on CPUs with AVX512-BF16 or AMX."
        ),
    ] = "float32"
    device: Annotated[
        str, typer.Option(help="Device of the network: auto (a GPU if any), cpu, cuda, cuda:1.")
    ] = "auto"
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="sync or threads (this process), or the address of a Dask cluster "
            "(tcp://host:8786, tls://host:8786). Default: threads for a short run, else worker "
            "processes on this machine."
        ),
    ] = None
    tls_ca_file: Annotated[
        Path | None,
        typer.Option(help="For tls://: PEM file of the authority that signed the certificates."),
    ] = None
    tls_cert: Annotated[
        Path | None, typer.Option(help="For tls://: PEM file of the client's certificate.")
    ] = None
    tls_key: Annotated[
        Path | None, typer.Option(help="For tls://: PEM file of the certificate's private key.")
    ] = None
    workers: Workers = None
    wait_for_workers: Annotated[
        str | None,
        typer.Option(help="Longest time of a cluster without workers, such as 6h. Default: 1m."),
    ] = None

    def scorer(self) -> Scorer:
        """Return the scorer of tiles."""
        from uniadrs_scale.detector.detector import Detector
        from uniadrs_scale.detector.rx import GlobalRX, LocalRX

        if self.method == "uniadrs":
            return Detector.load(self.weights, device=self.device, dtype=self.dtype)
        require_effect(self, f"with --detector {self.method}", "weights", "dtype", "device")
        return LocalRX() if self.method == "lrx" else GlobalRX()

    def compute(self, scorer: Scorer) -> Compute:
        """Return the processes that compute."""
        from uniadrs_scale.scoring.job import compute_for

        tls = None
        if self.tls_ca_file or self.tls_cert or self.tls_key:
            from uniadrs_scale.runtime.cluster import TlsFiles

            tls = TlsFiles(self.tls_ca_file, self.tls_cert, self.tls_key)
        wait = seconds(self.wait_for_workers)
        return compute_for(scorer, self.scheduler, self.workers, tls, wait)

    def job(self, scene: xr.DataArray, compute: Compute, scorer: Scorer) -> Job:
        """Return the job that scores ``scene``."""
        from uniadrs_scale.core.plan import Sizes
        from uniadrs_scale.scoring.job import prepare

        sizes = Sizes(self.preset, self.tile, self.stride, self.chunk)
        return prepare(scene, sizes, scorer, compute)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Options for drawing the map of a swath."""

    crs: Annotated[
        str | None,
        typer.Option(
            help="CRS of a swath's COG, such as EPSG:32632. Default: UTM, or degrees for a large "
            "swath."
        ),
    ] = None
    resolution: Annotated[
        float | None,
        typer.Option(help="Cell size of a swath's COG, in CRS units. Default: median pixel size."),
    ] = None
    resampling: Annotated[
        Resampling,
        typer.Option(
            help="Value of a cell in a swath's COG: max is the highest score of its pixels, so "
            "that an anomaly of one pixel is kept; nearest is the score of the nearest pixel."
        ),
    ] = "max"

    @property
    def geocoding(self) -> Geocoding:
        """The same for the library."""
        from uniadrs_scale.swaths.geometry import Geocoding

        return Geocoding(self.crs, self.resolution, self.resampling)


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with the fields of its groups as parameters of their own, as typer needs them.

    Rejected: options listed again in each command, which made 'plan' and 'score' differ; and an
    unpacked ``TypedDict``, which typer does not read.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, list[str]] = {}
    hints = get_type_hints(command, include_extras=True)
    for parameter in inspect.signature(command).parameters.values():
        group = hints[parameter.name]
        if not is_dataclass(group):
            parameters.append(
                parameter.replace(annotation=group, kind=inspect.Parameter.KEYWORD_ONLY)
            )
            continue
        types = get_type_hints(group, include_extras=True)
        groups[parameter.name] = [field.name for field in fields(group)]
        parameters += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=types[field.name],
            )
            for field in fields(group)
        ]

    @functools.wraps(command)
    def flat(**values: Any) -> None:
        empty = next((name for name, value in values.items() if value == ""), None)
        if empty is not None:
            raise PlanError(f"--{empty.replace('_', '-')} is empty. Give a value, or drop it.")
        parts = {
            name: hints[name](**{field: values.pop(field) for field in members})
            for name, members in groups.items()
        }
        command(**values, **parts)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat
