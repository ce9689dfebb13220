"""Commands for scenes: score, plan, demo."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uniadrs_scale.cli.options import (
    COMPLETE,
    INCOMPLETE,
    Drawing,
    Reading,
    Running,
    Scenes,
    Workers,
    require_effect,
)
from uniadrs_scale.cli.values import box_and_crs

if TYPE_CHECKING:
    import xarray as xr

Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace a map of another scene or of other options, instead of refusing the run.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cropping:
    """Options for a part of a scene, to explore it."""

    bbox: Annotated[
        str | None,
        typer.Option(
            metavar="W,S,E,N",
            help="Score only this box: west,south,east,north in degrees, or in a CRS at the end "
            "(...,EPSG:32632). Statistics are those of the box.",
        ),
    ] = None
    aoi: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Score only the polygons of a vector file. Pixels outside them are invalid.",
        ),
    ] = None
    name: Annotated[str | None, typer.Option(help="Name of the scene in plan, map and report.")] = (
        None
    )

    def of(self, scene: xr.DataArray) -> xr.DataArray:
        """Return the part of a scene that is wanted, by the name that is wanted."""
        from uniadrs_scale.scenes.crop import crop

        if self.bbox or self.aoi:
            box, crs = box_and_crs(self.bbox)
            scene = crop(scene, bbox=box, aoi=self.aoi, crs=crs)
        return scene.rename(self.name) if self.name else scene


def score_command(
    scenes: Scenes,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            help="Map to write: OUT.zarr (a Zarr store) or OUT.tif (a COG, opens in QGIS); a path "
            "or a URL in a bucket (s3://, gs://).",
        ),
    ],
    *,
    running: Running,
    reading: Reading,
    cropping: Cropping,
    drawing: Drawing,
    overwrite: Overwrite = False,
    performance_report: Annotated[
        Path | None,
        typer.Option(help="Write Dask's performance report, a page (needs --workers and bokeh)."),
    ] = None,
) -> None:
    """Score a scene: how strongly each pixel deviates from its surroundings, 0 to 1.

    The map has the scene's grid and CRS. Its pixels are NaN if those of the scene are invalid.

    A swath without a grid is scored in sensor geometry, and geocoded if the map is a COG.

    The same command resumes an interrupted run. OUTPUT.run.json, next to the map, reports the run.
    """
    from uniadrs_scale.scoring.job import suited
    from uniadrs_scale.scoring.progress import shown
    from uniadrs_scale.scoring.run import Observer, run
    from uniadrs_scale.scoring.target import Target

    target = Target.of(output, drawing.geocoding, overwrite=overwrite)
    scene, scorer = cropping.of(reading.open(scenes)), running.scorer()
    compute = running.compute(scorer)
    job = running.job(scene, compute, scorer)
    compute = suited(job, compute)
    # In a log file a bar is noise, and the summary says all that matters.
    with shown(sys.stderr.isatty(), job.plan.chunks) as advance:
        observer = Observer(on_report=advance, performance_report=performance_report)
        summary = run(job, target, compute, observer)
    typer.echo(f"{summary.text()}\noutput   {summary.output}")
    raise typer.Exit(COMPLETE if summary.complete else INCOMPLETE)


def plan_command(
    scenes: Scenes,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="Output of the run, to check: nothing is written."),
    ] = None,
    *,
    running: Running,
    reading: Reading,
    cropping: Cropping,
    drawing: Drawing,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Forecast what 'score' with the same arguments would do; score nothing."""
    from uniadrs_scale.scoring.job import suited
    from uniadrs_scale.scoring.notes import areas_note
    from uniadrs_scale.scoring.report import sampled_validity, shares_text
    from uniadrs_scale.scoring.target import Target

    scene, scorer = cropping.of(reading.open(scenes)), running.scorer()
    compute = running.compute(scorer)
    job = running.job(scene, compute, scorer)
    plan = job.on(suited(job, compute)).plan
    if output is None and not plan.scene.geolocation:
        require_effect(drawing, "on a scene with a grid")
    target = None if output is None else Target.of(output, drawing.geocoding, overwrite=overwrite)
    if target is not None:
        target.require_apart(job.source)
    state = "" if target is None else target.state(plan)
    valid, lost, flat = sampled_validity(job.source)
    seen = max(valid + sum(lost.values()), 1)
    if as_json:
        sample = {"pixels": seen, "valid": valid, "invalid": lost}
        facts = plan.to_dict() | {"output": state or None, "sample": sample}
        typer.echo(json.dumps(facts, indent=2))
        return
    shares = shares_text(valid / seen, {reason: pixels / seen for reason, pixels in lost.items()})
    typer.echo(f"{plan.text()}\n{'valid':<13}{shares} of a sample of {seen / 1e6:.2f} Mpx")
    if areas := areas_note(flat, valid, invalid=bool(lost)):
        typer.echo(f"{'note':<13}{areas}")
    if state:
        typer.echo(f"{'output':<13}{state}")


def demo_command(
    folder: Annotated[Path, typer.Option(help="Folder for the scene and its maps.")] = Path("demo"),
    *,
    size: Annotated[int, typer.Option(help="Side of the scene, in pixels.")] = 2048,
    seed: Annotated[int, typer.Option(help="Seed of the landscape and its anomalies.")] = 7,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask cluster that sees the same folder.")
    ] = None,
    workers: Workers = None,
) -> None:
    """Invent a scene with planted anomalies, score it, and show what was found."""
    from uniadrs_scale.demo.demo import demo
    from uniadrs_scale.scoring.progress import shown

    with shown(sys.stderr.isatty(), None) as advance:
        report = demo(
            folder, size=size, seed=seed, scheduler=scheduler, workers=workers, on_report=advance
        )
    typer.echo(report.text())
    raise typer.Exit(COMPLETE if report.complete else INCOMPLETE)
