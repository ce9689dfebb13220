"""The command line: parse, call, print."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable  # noqa: TC003 - typer reads annotations at run time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from uniadrs_scale import __version__, cli_archive
from uniadrs_scale.demo import demo as run_demo
from uniadrs_scale.detector import DEFAULT_WEIGHTS, Arithmetic, Detector, read_weights
from uniadrs_scale.errors import SceneError, UniadrsScaleError
from uniadrs_scale.geolocation import Geocoding, Resampling
from uniadrs_scale.io.scenes import open_scene, scene_source
from uniadrs_scale.io.store import DONE, is_score_store, open_store
from uniadrs_scale.presets import PRESETS
from uniadrs_scale.rx import GlobalRX, LocalRX
from uniadrs_scale.score import CHUNK, output_state, run_to_file
from uniadrs_scale.score import plan as make_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

    from uniadrs_scale.plan import ScorePlan, TileScorer
    from uniadrs_scale.tasks import ChunkReport

COMPLETE, INCOMPLETE, BAD_INPUT = 0, 1, 2

app = typer.Typer(
    name="uniadrs-scale",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Anomaly maps of whole satellite scenes, zero-shot, at any scale.\n\n"
    "Start with 'uniadrs-scale demo', then score a scene of your own:\n\n"
    "    uniadrs-scale plan scene.tif\n\n"
    "    uniadrs-scale score scene.tif -o map.tif\n\n"
    "Exit codes: 0 complete, 1 something is missing, 2 bad input.",
)

Scenes = Annotated[
    list[str],
    typer.Argument(
        metavar="SCENE...",
        help="Product folder, raster, NetCDF, HDF5, Zarr, .mat or STAC item, by path or URI; "
        "several rasters (one file per band) make one scene.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        help="Map to write: OUT.zarr (lazy, resumable) or OUT.tif (COG, opens in QGIS).",
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        help="Side of the square that the network sees, in pixels. Default: the preset's."
    ),
]
Kind = Annotated[
    str,
    typer.Option(
        "--preset",
        help="Kind of imagery, which decides the tile: auto, " + ", ".join(PRESETS) + ".",
    ),
]
Method = Annotated[
    Literal["uniadrs", "rx", "lrx"],
    typer.Option("--detector", help="The network, or global or local RX to compare with."),
]
Stride = Annotated[
    int | None,
    typer.Option(
        help="Step between tiles, in pixels; they overlap and are blended. Default: 3/4 of a tile."
    ),
]
Chunk = Annotated[
    int,
    typer.Option(help="Side of a task's piece, in pixels: memory, never a score, depends on it."),
]
Bands = Annotated[
    str | None,
    typer.Option(
        help="Bands to use, by number from 1 or by name: 1,2,5-8 or B02,B03. Default: all."
    ),
]
NodataText = Annotated[
    str,
    typer.Option("--nodata", help="Value of invalid pixels; 'none' if every value is valid."),
]
GridName = Annotated[
    str | None,
    typer.Option(
        "--grid",
        help="Common grid of bands of several resolutions: finest, coarsest or the name of a band.",
    ),
]
VariableNames = Annotated[
    str | None,
    typer.Option(
        "--variable",
        help="Arrays of a NetCDF, HDF5, Zarr or .mat file: a name, several (a,b) or 'rrs_*'.",
    ),
]
MaskClasses = Annotated[
    str,
    typer.Option(
        "--mask",
        help="Pixels to leave out, by a product's quality band: none, cloud, or classes by name or "
        "value (snow,8).",
    ),
]
RadarUnits = Annotated[
    str | None, typer.Option("--units", help="Of Sentinel-1 GRD: amplitude (as stored) or dB.")
]
Device = Annotated[
    str, typer.Option(help="Where the network runs: auto (a GPU if any), cpu, cuda, cuda:1.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="sync or threads (this process), or the address of a Dask cluster (tcp://host:8786). "
        "Default: worker processes on this machine."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Worker processes on this machine. Default: one a core, or one a GPU."),
]
Weights = Annotated[
    str, typer.Option(help="Name of weights that ship with the library, or a file of your own.")
]
Dtype = Annotated[
    Arithmetic, typer.Option(help="Arithmetic of the network; bfloat16 is faster, 1e-2 less exact.")
]
Crs = Annotated[
    str | None,
    typer.Option(
        help="CRS of a swath's COG, such as EPSG:32632. Default: UTM, or degrees if it is large."
    ),
]
Resolution = Annotated[
    float | None,
    typer.Option(help="Cell size of a swath's COG, in CRS units. Default: as its median pixel."),
]
Resampled = Annotated[
    Resampling,
    typer.Option(
        "--resampling",
        help="What a cell of a swath's COG shows: its highest pixel, so that one of a single pixel "
        "survives, or the nearest.",
    ),
]


@app.command()
def score(
    scenes: Scenes,
    output: Output,
    *,
    preset: Kind = "auto",
    tile: Tile = None,
    stride: Stride = None,
    chunk: Chunk = CHUNK,
    bands: Bands = None,
    nodata: NodataText = "auto",
    grid: GridName = None,
    variable: VariableNames = None,
    mask: MaskClasses = "none",
    units: RadarUnits = None,
    device: Device = "auto",
    scheduler: Scheduler = None,
    workers: Workers = None,
    method: Method = "uniadrs",
    weights: Weights = DEFAULT_WEIGHTS,
    dtype: Dtype = "float32",
    crs: Crs = None,
    resolution: Resolution = None,
    resampling: Resampled = "max",
) -> None:
    """Score a scene: how strongly each pixel deviates from its surroundings, 0 to 1.

    The map has the scene's grid and CRS, and no data where the scene has none.

    A swath without a grid is scored as sensed, and geocoded where the map is a COG.

    The same command resumes an interrupted run.
    """
    geocoding = Geocoding(crs, resolution, resampling)
    scene = _open(scenes, bands, nodata, grid=grid, variable=variable, mask=mask, units=units)
    detector = _detector(method, weights, device, dtype)
    plan = make_plan(
        scene, preset=preset, tile=tile, stride=stride, chunk=chunk, detector=detector,
        scheduler=scheduler, workers=workers,
    )  # fmt: skip
    with _progress(plan) as advance:
        summary = run_to_file(
            scene, output, plan, detector,
            scheduler=scheduler, on_report=advance, geocoding=geocoding,
        )  # fmt: skip
    typer.echo(f"{summary.text()}\noutput   {summary.output}")
    raise typer.Exit(COMPLETE if summary.complete else INCOMPLETE)


@app.command()
def plan(
    scenes: Scenes,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Say what a run would find there: nothing is written."),
    ] = None,
    *,
    preset: Kind = "auto",
    tile: Tile = None,
    stride: Stride = None,
    chunk: Chunk = CHUNK,
    bands: Bands = None,
    nodata: NodataText = "auto",
    grid: GridName = None,
    variable: VariableNames = None,
    mask: MaskClasses = "none",
    units: RadarUnits = None,
    device: Device = "auto",
    scheduler: Scheduler = None,
    workers: Workers = None,
    method: Method = "uniadrs",
    weights: Weights = DEFAULT_WEIGHTS,
    dtype: Dtype = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Forecast what 'score' with the same arguments would do: tiles, tasks, memory; run nothing."""
    forecast = make_plan(
        _open(scenes, bands, nodata, grid=grid, variable=variable, mask=mask, units=units),
        preset=preset,
        tile=tile,
        stride=stride,
        chunk=chunk,
        detector=_detector(method, weights, device, dtype),
        scheduler=scheduler,
        workers=workers,
    )
    state = "" if output is None else output_state(output, forecast)
    if as_json:
        typer.echo(json.dumps(forecast.to_dict() | {"output": state or None}, indent=2))
    else:
        typer.echo(forecast.summary() + (f"\n{'output':<13}{state}" if state else ""))


@app.command()
def verify(
    store: Annotated[Path, typer.Argument(help="OUT.zarr of a score run.")],
) -> None:
    """Check a store: ledger, fingerprint, and that every chunk can be read and is complete."""
    opened = open_store(store)
    faults = list(opened.verify())
    for fault in faults:
        typer.echo(fault)
    done = opened.done
    typer.echo(
        f"{int((done == DONE).sum())} of {done.size} chunks complete, "
        f"fingerprint {opened.attributes['fingerprint']}, {len(faults)} faults"
    )
    raise typer.Exit(INCOMPLETE if faults else COMPLETE)


@app.command()
def info(
    target: Annotated[str, typer.Argument(help="A scene, a score store, or weights.")],
    *,
    bands: Bands = None,
    nodata: NodataText = "auto",
    grid: GridName = None,
    variable: VariableNames = None,
    mask: MaskClasses = "none",
    units: RadarUnits = None,
) -> None:
    """Describe a scene, a score store or a weights file."""
    path = Path(target)
    if path.suffix == ".zarr" and (is_score_store(path) or not path.exists()):
        store = open_store(path)
        typer.echo(store.attributes["title"])
        typer.echo(json.dumps(store.attributes["plan"], indent=2))
    elif path.suffix in (".safetensors", ".pth", ".pt") or not (path.suffix or path.exists()):
        weights = read_weights(target)
        facts = {"name": weights.name, "file": weights.path, "sha256": weights.sha256}
        _print_facts(facts | weights.metadata)
    else:
        _print_facts(
            _scene_facts(
                _open([target], bands, nodata, grid=grid, variable=variable, mask=mask, units=units)
            )
        )


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where to write the scene and its maps.")] = Path(
        "demo"
    ),
    *,
    size: Annotated[int, typer.Option(help="Side of the scene, in pixels.")] = 2048,
    seed: Annotated[int, typer.Option(help="Another seed is another landscape.")] = 7,
    workers: Workers = None,
) -> None:
    """Invent a scene with planted anomalies, score it, and show what was found."""
    with _progress(None) as advance:
        report = run_demo(folder, size=size, seed=seed, workers=workers, on_report=advance)
    typer.echo(report.text())
    raise typer.Exit(COMPLETE if report.complete else INCOMPLETE)


cli_archive.register(app)


def main() -> None:
    """Run the command line; bad input gets one sentence and exit code 2, never a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name need not be printable in the terminal's encoding; stderr is so already.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except UniadrsScaleError as error:
        # As text, not as markup: names with brackets are names.
        text = Text.assemble(("error:", "red"), f" {error}")
        Console(stderr=True, soft_wrap=True, highlight=False).print(text)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command resumes the run", err=True)
        sys.exit(INCOMPLETE)


def _version(value: bool) -> None:  # noqa: FBT001 - typer's protocol
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def _detector(method: str, weights: str, device: str, dtype: Arithmetic) -> TileScorer:
    if method == "uniadrs":
        return Detector.load(weights, device=device, dtype=dtype)
    return LocalRX() if method == "lrx" else GlobalRX()


def _open(
    scenes: list[str],
    bands: str | None,
    nodata: str,
    *,
    grid: str | None,
    variable: str | None,
    mask: str,
    units: str | None,
) -> xr.DataArray:
    classes = [int(item) if item.isdecimal() else item for item in _items(mask)]
    return open_scene(
        scenes,
        bands=_band_list(bands),
        nodata=_nodata_value(nodata),
        grid=grid,
        variable=None if variable is None else _items(variable),
        mask=mask if mask in ("none", "cloud") else classes,
        units=cast("Any", units),
    )


def _items(text: str) -> list[str]:
    """'a, b' as a list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _scene_facts(scene: xr.DataArray) -> dict[str, Any]:
    """What `info` says of a scene; reads no pixels."""
    info = scene_source(scene).info
    wavelengths = scene.coords.get("wavelength")
    return {
        "name": info.name,
        "size": f"{info.height} x {info.width} px",
        "bands": f"{len(info.bands)}: {', '.join(info.bands)}",
        "wavelengths": "unknown"
        if wavelengths is None
        else f"{float(wavelengths.min()):g} to {float(wavelengths.max()):g} nm",
        "dtype": info.dtype,
        "pixel": "unknown" if info.gsd_m is None else f"{info.gsd_m:g} m on the ground",
        "acquired": scene.attrs.get("datetime", "unknown"),
        "platform": scene.attrs.get("platform", "unknown"),
        "grid": info.grid or "that of the files",
        "places": info.georeference,
        "crs": info.crs or "none",
        "transform": info.transform or "none",
    }


def _band_list(text: str | None) -> list[int | str] | None:
    """'1,2,5-8' or 'B02,B03' as open_scene takes it."""
    if text is None:
        return None
    bands: list[int | str] = []
    for part in _items(text):
        first, dash, last = part.partition("-")
        if dash and first.isdecimal() and last.isdecimal():
            bands.extend(range(int(first), int(last) + 1))
        else:
            bands.append(part)
    return bands


def _nodata_value(text: str) -> Any:
    if text in ("auto", "none"):
        return None if text == "none" else "auto"
    try:
        return float(text)
    except ValueError:
        raise SceneError(
            f"--nodata '{text}' is no number. Give a number, 'nan', 'none' or 'auto'."
        ) from None


def _print_facts(facts: dict[str, Any]) -> None:
    width = max(map(len, facts)) + 2
    for key, value in facts.items():
        typer.echo(f"{key:<{width}}{value}")


@contextmanager
def _progress(plan: ScorePlan | None) -> Iterator[Callable[[ChunkReport], None]]:
    """A bar of chunks with the time that is left, on standard error."""
    columns = (
        TextColumn("scoring"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} chunks"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    total = None if plan is None else plan.chunks
    console = Console(stderr=True)
    # In a log file a bar is noise, and the summary says all that matters.
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("scoring", total=total)
        yield lambda _: progress.advance(task)


if __name__ == "__main__":
    main()
