"""The command line: parse, call, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable  # noqa: TC003 - typer reads annotations at run time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from uniadrs_scale import __version__, cli_archive
from uniadrs_scale.demo import demo as run_demo
from uniadrs_scale.detector import DEFAULT_WEIGHTS, Arithmetic, Detector, read_weights
from uniadrs_scale.errors import SceneError, UniadrsScaleError
from uniadrs_scale.io.scenes import open_scene, scene_source
from uniadrs_scale.io.store import DONE, open_store
from uniadrs_scale.score import CHUNK, TILE, output_state, run_to_file
from uniadrs_scale.score import plan as make_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

    from uniadrs_scale.plan import ScorePlan
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
        help="Raster file or URI that GDAL opens; several (one file per band) make one scene.",
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
Tile = Annotated[int, typer.Option(help="Side of the square that the network sees, in pixels.")]
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


@app.command()
def score(
    scenes: Scenes,
    output: Output,
    *,
    tile: Tile = TILE,
    stride: Stride = None,
    chunk: Chunk = CHUNK,
    bands: Bands = None,
    nodata: NodataText = "auto",
    device: Device = "auto",
    scheduler: Scheduler = None,
    workers: Workers = None,
    weights: Weights = DEFAULT_WEIGHTS,
    dtype: Dtype = "float32",
) -> None:
    """Score a scene: how strongly each pixel deviates from its surroundings, 0 to 1.

    The map has the scene's grid and CRS, and no data where the scene has none.

    The same command resumes an interrupted run.
    """
    scene = _open(scenes, bands, nodata)
    detector = Detector.load(weights, device=device, dtype=dtype)
    plan = make_plan(
        scene, tile=tile, stride=stride, chunk=chunk, detector=detector,
        scheduler=scheduler, workers=workers,
    )  # fmt: skip
    with _progress(plan) as advance:
        summary = run_to_file(scene, output, plan, detector, scheduler=scheduler, on_report=advance)
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
    tile: Tile = TILE,
    stride: Stride = None,
    chunk: Chunk = CHUNK,
    bands: Bands = None,
    nodata: NodataText = "auto",
    device: Device = "auto",
    scheduler: Scheduler = None,
    workers: Workers = None,
    weights: Weights = DEFAULT_WEIGHTS,
    dtype: Dtype = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Forecast what 'score' with the same arguments would do: tiles, tasks, memory; run nothing."""
    forecast = make_plan(
        _open(scenes, bands, nodata),
        tile=tile,
        stride=stride,
        chunk=chunk,
        detector=Detector.load(weights, device=device, dtype=dtype),
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
) -> None:
    """Describe a scene, a score store or a weights file."""
    path = Path(target)
    if path.suffix == ".zarr":
        store = open_store(path)
        typer.echo(store.attributes["title"])
        typer.echo(json.dumps(store.attributes["plan"], indent=2))
    elif path.suffix in (".safetensors", ".pth", ".pt") or not (path.suffix or path.exists()):
        weights = read_weights(target)
        facts = {"name": weights.name, "file": weights.path, "sha256": weights.sha256}
        _print_facts(facts | weights.metadata)
    else:
        scene = scene_source(open_scene(target)).info
        _print_facts(
            {
                "name": scene.name,
                "size": f"{scene.height} x {scene.width} px",
                "bands": f"{len(scene.bands)}: {', '.join(scene.bands)}",
                "dtype": scene.dtype,
                "crs": scene.crs or "none",
                "transform": scene.transform or "none",
            }
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
    try:
        app()
    except UniadrsScaleError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"[red]error:[/red] {error}", markup=True
        )
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


def _open(scenes: list[str], bands: str | None, nodata: str) -> xr.DataArray:
    return open_scene(scenes, bands=_band_list(bands), nodata=_nodata_value(nodata))


def _band_list(text: str | None) -> list[int | str] | None:
    """'1,2,5-8' or 'B02,B03' as open_scene takes it."""
    if text is None:
        return None
    bands: list[int | str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
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
