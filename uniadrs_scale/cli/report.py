"""Command for the page of a map: report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from uniadrs_scale.cli.options import COMPLETE, INCOMPLETE, Reading, spread


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("report")(spread(report_command))


def report_command(
    map_path: Annotated[
        str, typer.Argument(metavar="MAP", help="OUT.zarr or OUT.tif of a score run, path or URL.")
    ],
    *,
    scene: Annotated[
        list[str],
        typer.Option(help="The scene that was scored; repeat it for one file per band."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Page to write: OUT.html.")] = Path(
        "report.html"
    ),
    targets: Annotated[
        Path | None,
        typer.Option(
            help="Table that 'targets' wrote for this map. Default: the highest scores are found "
            "now."
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="Targets in the page, the highest scores first.")] = 200,
    compare: Annotated[
        str | None,
        typer.Option(help="Another map of the same pixels, for a before/after line."),
    ] = None,
    reading: Reading,
) -> None:
    """Make one HTML page of a map: the scene, a list of targets to look through and to mark.

    The page loads nothing: it can be sent by mail and opened without a network.

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
