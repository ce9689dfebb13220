"""The command lines: parse, call, print. ``uniadrs-scale-train`` runs scripts of ``model``."""

from __future__ import annotations

import atexit
import gc
import io
import logging
import os
import sys
import threading
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from uniadrs_scale import __version__
from uniadrs_scale.cli import archive, maps, score, targets
from uniadrs_scale.cli.options import BAD_INPUT, BUSY, COMPLETE, INTERRUPTED, spread
from uniadrs_scale.core.machine import give_home
from uniadrs_scale.errors import BusyError, UniadrsScaleError


class Commands(TyperGroup):
    """The commands; messages about wrong options speak to people, not about exceptions."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, whose help shows no type of options without a value."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _without_types(command.get_params(ctx))
        return command

    def get_params(self, ctx: Any) -> Any:
        """Return the options of the program itself, likewise."""
        return _without_types(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # pydantic's
            raise
        except KeyboardInterrupt:  # with this code typer ends, too, but without a word
            typer.echo("interrupted: run the same command again to resume", err=True)
            raise SystemExit(INTERRUPTED) from None


def _without_types(options: list[Any]) -> list[Any]:
    """Return options without the type of flags, which typer 0.29 shows as <bool>."""
    for option in options:
        if getattr(option, "is_flag", False):
            option.metavar = ""
    return options


app = typer.Typer(
    name="uniadrs-scale",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Anomaly maps of whole satellite scenes, zero-shot, at any scale.\n\n"
    "Start with 'uniadrs-scale demo', then score a scene of your own:\n\n"
    "    uniadrs-scale plan scene.tif\n\n"
    "    uniadrs-scale score scene.tif -o map.tif\n\n"
    "Exit codes: 0 complete, 1 something is missing, 2 bad input, 75 another run writes there, "
    "130 interrupted.",
)

IMPORTS = 5.0
"""Seconds in which imports are over, usually."""
SCRIPTS = ("train", "evaluate", "threshold")
USAGE = """Usage: uniadrs-scale-train COMMAND ARGUMENTS

  train      train weights on simulated anomalies, by a recipe; or continue from other weights
  evaluate   evaluate weights and baselines on images with masks
  threshold  measure the levels of weights

'uniadrs-scale-train COMMAND --help' lists the arguments.
"""

for command in (
    *(score.score_command, score.plan_command, score.demo_command),
    *(maps.cog_command, maps.verify_command, maps.evaluate_command, maps.info_command),
    *(targets.targets_command, targets.report_command),
    *(archive.sweep_command, archive.status_command, archive.retry_command),
):
    app.command(command.__name__.removesuffix("_command"))(spread(command))


def main() -> None:
    """Run the command line; bad input gets one sentence and exit code 2, never a traceback."""
    # For a damaged store zarr raises one error and leaves the others to asyncio, which would print
    # them with tracebacks after our sentence.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = _unraisable
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name need not be printable in the terminal's encoding; stderr is so already.
        sys.stdout.reconfigure(errors="backslashreplace")
    give_home()
    # Imports make a million objects that stay: to search them again and again for garbage takes a
    # sixth of a short run, and a second at exit.
    gc.disable()
    imported = threading.Timer(IMPORTS, gc.enable)
    imported.daemon = True
    imported.start()
    atexit.register(gc.freeze)
    try:
        app()
    except UniadrsScaleError as error:
        from rich.console import Console
        from rich.markup import escape

        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"[red]error:[/red] {escape(str(error))}"
        )
        sys.exit(BUSY if isinstance(error, BusyError) else BAD_INPUT)
    except ValueError as error:
        # Dask reads its settings when it is imported.
        if "dask config file" not in str(error):
            raise
        words = " ".join(str(error).split())
        typer.echo(f"error: {words}. Correct that file, or remove it.", err=True)
        sys.exit(BAD_INPUT)


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """Drop rasterio's errors about messages of GDAL that quote the bytes of a damaged file.

    Another error says what happened to the file.
    """
    if not isinstance(what.exc_value, UnicodeDecodeError):
        sys.__unraisablehook__(what)


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


def train() -> None:
    """Become the process of a script, as in a checkout: a signal reaches the script itself."""
    name, arguments = (sys.argv[1:] or ["--help"])[0], sys.argv[2:]
    if name not in SCRIPTS:
        asked = name in ("-h", "--help")
        wrong = "" if asked else f"error: '{name}' is not a command.\n\n"
        print(f"{wrong}{USAGE}", file=sys.stdout if asked else sys.stderr)
        sys.exit(COMPLETE if asked else BAD_INPUT)
    if name == "train" and find_spec("tensorboard") is None:
        sys.exit("error: training needs tensorboard: pip install 'uniadrs-scale[train]'.")
    # Not by an import: its workers import the script as their main module.
    command = [sys.executable, str(_scripts() / f"{name}.py"), *arguments]
    os.execv(sys.executable, command)


def _scripts() -> Path:
    """Return the folder of the scripts: in the installed package, or in a checkout."""
    installed = Path(str(resources.files("uniadrs_scale"))) / "model"
    return installed if installed.is_dir() else installed.parents[1] / "model"


if __name__ == "__main__":
    main()
