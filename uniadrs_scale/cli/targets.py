"""Commands for the objects of a finished map: targets, report."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from uniadrs_scale.cli.options import COMPLETE, INCOMPLETE, Reading, Workers, require_effect
from uniadrs_scale.core.presets import DEFAULT_WEIGHTS
from uniadrs_scale.errors import PlanError, redact

if TYPE_CHECKING:
    from uniadrs_scale.objects.select import Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Choosing:
    """Options for the choice of targets."""

    level: Annotated[
        Literal["low", "medium", "high"] | None,
        typer.Option(
            help="Threshold of the map's weights: about 10, 1 or 0.1 false objects per megapixel. "
            "Default: medium."
        ),
    ] = None
    threshold: Annotated[
        float | None, typer.Option(help="Lowest peak score of a target, instead of a level.")
    ] = None
    grow: Annotated[
        float | None,
        typer.Option(help="Lowest score of all pixels of a target. Default: 0.3."),
    ] = None
    top: Annotated[
        int | None, typer.Option(help="The N targets with the highest peaks, instead of a level.")
    ] = None
    false_alarms: Annotated[
        float | None,
        typer.Option(help="Rate of false objects per megapixel, instead of a level."),
    ] = None
    min_area: Annotated[
        float | None, typer.Option(help="Drop smaller objects, in square metres.")
    ] = None
    max_area: Annotated[
        float | None,
        typer.Option(help="List larger objects (square metres) with a box, without an outline."),
    ] = None
    aoi: Annotated[
        Path | None, typer.Option(help="Vector file: keep only targets that touch its areas.")
    ] = None
    exclude: Annotated[
        Path | None, typer.Option(help="Vector file: drop targets that touch its areas (a coast).")
    ] = None
    buffer: Annotated[
        float, typer.Option(help="Also drop targets within this distance of --exclude, in metres.")
    ] = 0.0
    polygon: Annotated[
        bool, typer.Option("--polygon", help="Geometry: the outline of each target (default).")
    ] = False
    point: Annotated[
        bool, typer.Option("--point", help="Geometry: the pixel with the highest score.")
    ] = False
    box: Annotated[bool, typer.Option("--box", help="Geometry: the box of rows and columns.")] = (
        False
    )

    def selection(self) -> Selection:
        """Return the same for the library."""
        from uniadrs_scale.objects.select import Selection

        kinds: tuple[Literal["polygon", "point", "box"], ...] = ("polygon", "point", "box")
        given = [kind for kind in kinds if getattr(self, kind)]
        if len(given) > 1:
            raise PlanError(
                f"--{' and --'.join(given)} are different geometries. Give one of them."
            )
        others = (field.name for field in fields(self) if field.name not in kinds)
        options: Any = {name: getattr(self, name) for name in others}
        return Selection(**options, geometry=given[0] if given else "polygon")


def targets_command(
    map_path: Annotated[
        str, typer.Argument(metavar="MAP", help="OUT.zarr or OUT.tif of a score run, path or URL.")
    ],
    *,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .gpkg (opens coloured in QGIS), .parquet, .geojson, .csv or .fgb. "
            "Default: MAP with .gpkg.",
        ),
    ] = None,
    choosing: Choosing,
    scene: Annotated[
        list[str] | None,
        typer.Option(
            help="The scene of the map, for the contrast of a target in each band; repeat the "
            "option for one file per band."
        ),
    ] = None,
    reading: Reading,
    chips: Annotated[
        bool,
        typer.Option(
            "--chips",
            help="Write pictures of up to 1000 targets to a folder next to the list, top.chips for "
            "top.csv (column chip). Needs --scene.",
        ),
    ] = False,
    second_look: Annotated[
        bool,
        typer.Option(
            "--second-look",
            help="Score the surroundings of each target again, with tiles at other positions, and "
            "say which targets are found again (column support). Needs --scene.",
        ),
    ] = False,
    weights: Annotated[
        str,
        typer.Option(
            help="For --second-look: the weights of the map, by name or path; rx or lrx for a map "
            "of RX."
        ),
    ] = DEFAULT_WEIGHTS,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="sync or threads (this process), or the address of a Dask cluster. Default: "
            "threads for a small map, else worker processes on this machine."
        ),
    ] = None,
    workers: Workers = None,
) -> None:
    """List the targets in a map: position, size, score, outline.

    Exit code 1: chunks of the map are missing, so targets may be missing, too.
    """
    from uniadrs_scale.objects.files import require_writable, write
    from uniadrs_scale.objects.find import compute_of, find

    selection = choosing.selection()
    place = require_writable(
        output or f"{map_path.rstrip('/').removesuffix('.zarr').removesuffix('.tif')}.gpkg"
    )
    if not scene:
        require_effect(reading, "without --scene")
    if weights != DEFAULT_WEIGHTS and not second_look:
        raise PlanError("--weights has no effect without --second-look. Drop it.")
    opened = reading.open(scene) if scene else None
    if chips and opened is None:
        raise PlanError("--chips needs the scene of the map. Add --scene.")
    again = None
    if second_look:
        from uniadrs_scale.objects.second_look import SecondLook

        again = SecondLook.of(weights)
    work = compute_of(scheduler, workers, again)
    table = find(map_path, selection, scene=opened, compute=work, again=again)
    table.facts["command"] = redact(shlex.join(sys.argv[1:]))
    if chips and opened is not None:
        from uniadrs_scale.objects.chips import with_chips

        table = with_chips(table, opened, place)
    write(table, place)
    for line in table.summary():
        typer.echo(line)
    if table.missing:
        typer.echo(f"warning: {table.missing}", err=True)
    typer.echo(f"output   {place}")
    raise typer.Exit(INCOMPLETE if table.missing else COMPLETE)


def report_command(
    map_path: Annotated[
        str, typer.Argument(metavar="MAP", help="OUT.zarr or OUT.tif of a score run, path or URL.")
    ],
    *,
    scene: Annotated[
        list[str],
        typer.Option(help="The scene of the map; repeat the option for one file per band."),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="Page to write: OUT.html, path or URL.")
    ] = "report.html",
    targets: Annotated[
        Path | None,
        typer.Option(
            help="Table that 'targets' wrote for this map. Default: the report finds the targets "
            "with the highest scores."
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(help="Number of targets in the page, highest first; at most 1000.")
    ] = 200,
    compare: Annotated[
        str | None,
        typer.Option(help="Another map of the same pixels, to compare left and right of a line."),
    ] = None,
    reading: Reading,
) -> None:
    """Make one HTML page of a map, with the scene and a list of targets to review and mark.

    The page needs no other file and no network, so it can be sent by mail.

    Exit code 1: the map is incomplete, and the page says so.
    """
    from uniadrs_scale.pages.report import report

    summary = report(
        map_path,
        reading.open(scene),
        output,
        targets=targets,
        top=top,
        compare=compare,
        command=_command(sys.argv),
    )
    typer.echo(summary.text())
    raise typer.Exit(INCOMPLETE if summary.incomplete else COMPLETE)


def _command(arguments: list[str]) -> str:
    """Return the command without its folders, which are not for the readers of a page."""
    from uniadrs_scale.storage.urls import uri_name

    shown = ["uniadrs-scale"]
    for argument in arguments[1:]:
        option, equals, value = (
            argument.partition("=") if argument[:2] == "--" else ("", "", argument)
        )
        shown.append(f"{option}{equals}{uri_name(value) if '/' in value else value}")
    return shlex.join(shown)
