"""Commands for finished maps and other files: verify, evaluate, info, cog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from uniadrs_scale.cli.options import COMPLETE, INCOMPLETE, Drawing, Reading, require_effect
from uniadrs_scale.errors import StoreError, counted

if TYPE_CHECKING:
    import xarray as xr

    from uniadrs_scale.maps.finished import RasterMap
    from uniadrs_scale.maps.store import ScoreMap
    from uniadrs_scale.storage.places import Place


STATISTICS = ("actual_range", "mean", "stddev", "valid_percent")
"""Attributes of a score array that `info` prints."""
Map = Annotated[
    str,
    typer.Argument(metavar="MAP", help="OUT.zarr or OUT.tif of a score run, by path or URL."),
]
Store = Annotated[
    str, typer.Argument(metavar="STORE", help="OUT.zarr of a score run, by path or URL.")
]


def cog_command(
    store: Store,
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUT.tif", help="COG to write; an older one of this store is replaced."
        ),
    ],
    *,
    drawing: Drawing,
) -> None:
    """Make a COG, which opens in QGIS, from a score store.

    A swath is geocoded. Exit code 1: chunks of the store are missing; they are nodata in the COG.
    """
    from uniadrs_scale.maps.cog import shortcomings, write_cog
    from uniadrs_scale.maps.store import open_map
    from uniadrs_scale.storage.places import Place
    from uniadrs_scale.storage.trust import require_proj

    require_proj()
    opened, target = open_map(store), Place.of(output)
    _require_replaceable(target, opened)
    notes = write_cog(opened, target, drawing.geocoding)
    for message in (*shortcomings(opened), *notes):
        typer.echo(f"warning: {message}", err=True)
    typer.echo(f"output   {output}")
    raise typer.Exit(INCOMPLETE if opened.facts.missing else COMPLETE)


def verify_command(target: Map) -> None:
    """Check that a map is complete and that all of it can be read.

    In a store: its fingerprint and every chunk. In a COG: blocks, statistics and overviews.
    """
    from uniadrs_scale.maps.finished import is_file, open_finished
    from uniadrs_scale.maps.store import DONE, open_store

    if is_file(target):
        opened = cast("RasterMap", open_finished(target))
        faults = list(opened.verify())
        state = (
            f"{opened.shape[0]} rows x {opened.shape[1]} columns, complete: {opened.facts.complete}"
        )
        fingerprint = opened.facts.fingerprint or "unknown"
    else:
        store = open_store(target)
        faults, done = list(store.verify()), store.done
        state = f"{int((done == DONE).sum())} of {done.size} chunks complete"
        fingerprint = store.attributes["fingerprint"]
    for fault in faults:
        typer.echo(fault)
    typer.echo(f"{state}, fingerprint {fingerprint}, {counted(len(faults), 'fault')}")
    raise typer.Exit(INCOMPLETE if faults else COMPLETE)


def evaluate_command(
    target: Map,
    truth: Annotated[
        str,
        typer.Argument(
            metavar="TRUTH",
            help="Raster whose nonzero pixels are anomalies; or vectors in any CRS (GeoJSON, "
            "GeoPackage, ...), also marks exported from a report.",
        ),
    ],
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON with the whole curve, for machines.")
    ] = False,
) -> None:
    """Compare a map with its truth: objects found, false alarms per Mpx, AP and AUC."""
    from uniadrs_scale.evaluation.judge import evaluate

    found = evaluate(target, truth)
    typer.echo(json.dumps(found.to_json(), indent=1) if as_json else found.text())


def info_command(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET",
            help="A scene, a map (Zarr or COG), or weights; several rasters make one scene.",
        ),
    ],
    *,
    reading: Reading,
) -> None:
    """Describe a scene, a map or a weights file."""
    from uniadrs_scale.detector.weights import read_weights
    from uniadrs_scale.maps.store import open_map
    from uniadrs_scale.storage.urls import in_bucket

    target = targets[0]
    path, local = Path(target), "://" not in target
    if len(targets) > 1:
        _print_facts(_scene_facts(reading.open(targets)))
    elif path.suffix == ".zarr" and (local or in_bucket(target)) and _is_ours(target):
        require_effect(reading, "on a map")
        opened = open_map(target)
        attributes: dict[str, Any] = dict(opened.array().attrs)
        said = {name: attributes[name] for name in STATISTICS if name in attributes}
        _print_map(opened, said)
    elif (raster := _our_raster(target)) is not None:
        require_effect(reading, "on a map")
        known = raster.statistics.items()
        _print_map(raster, {k.removeprefix("STATISTICS_").lower(): float(v) for k, v in known})
    elif path.suffix in (".safetensors", ".pth", ".pt") or (
        local and not (path.suffix or path.exists())
    ):
        require_effect(reading, "on weights")
        weights = read_weights(target)
        facts = {"name": weights.name, "file": weights.path, "sha256": weights.sha256}
        _print_facts(facts | weights.metadata)
    else:
        _print_facts(_scene_facts(reading.open([target])))


def _our_raster(target: str) -> RasterMap | None:
    """Return the map in a raster file that a run has made, None for any other target."""
    from uniadrs_scale.maps.finished import RasterMap, is_file, open_finished
    from uniadrs_scale.storage.urls import in_bucket

    if ("://" in target and not in_bucket(target)) or not is_file(target):
        return None  # on a web server: opened as a scene
    try:
        opened = open_finished(target)
    except StoreError:  # a scene, or missing: the reader of scenes says so
        return None
    return opened if isinstance(opened, RasterMap) and opened.facts.ours else None


def _print_map(opened: ScoreMap | RasterMap, statistics: dict[str, Any]) -> None:
    """Print what `info` says about a map, its plan last."""
    from uniadrs_scale.core.contracts import crs_name
    from uniadrs_scale.maps.facts import title_of

    grid = opened.geobox
    placed = not grid.affine.is_identity
    facts = {
        "map": title_of(opened.facts.scene or "an unknown scene", opened.layers),
        "size": f"{grid.shape[0]} rows x {grid.shape[1]} columns",
        **opened.facts.lines(),
        "crs": (crs_name(grid.crs.to_wkt()) if grid.crs else "") or "none",
        "transform": tuple(grid.affine)[:6] if placed else "none",
    }
    said = {name: _short(value) for name, value in statistics.items()}
    first = (
        {} if len(opened.layers) == 1 else {"statistics": f"of the layer {opened.layers[0].name}"}
    )
    _print_facts(facts | (first if said else {}) | said)
    if opened.facts.plan:
        typer.echo(json.dumps(opened.facts.plan, indent=2))


def _short(value: object) -> str:
    """Return numbers as text of a few digits."""
    values = value if isinstance(value, list) else [value]
    return " to ".join(f"{number:.4g}" for number in values)


def _is_ours(target: str) -> bool:
    """Return True for a score store, and for a missing file."""
    from uniadrs_scale.maps.store import is_score_store
    from uniadrs_scale.storage.places import Place

    return is_score_store(target) or not Place.of(target).has_store()


def _require_replaceable(output: Place, opened: ScoreMap) -> None:
    """Raise StoreError if ``output`` is another raster: it may be the scene itself."""
    from uniadrs_scale.scenes.rasters import raster_tag

    fingerprint = opened.tags.get("fingerprint")
    if output.exists() and (
        fingerprint is None or raster_tag(output.text, "fingerprint") != fingerprint
    ):
        raise StoreError(
            f"'{output}' exists and is not a map of '{opened.name}'. Choose another output path."
        )


def _scene_facts(scene: xr.DataArray) -> dict[str, Any]:
    """Return the facts that `info` prints about a scene; read no pixels."""
    from uniadrs_scale.core.contracts import crs_name
    from uniadrs_scale.scenes.sources import scene_source

    info = scene_source(scene).info
    wavelengths = scene.coords.get("wavelength")
    return {
        "name": info.name,
        "size": f"{info.height} rows x {info.width} columns",
        "bands": f"{len(info.bands)}: {', '.join(info.bands)}",
        "wavelengths": "unknown"
        if wavelengths is None
        else f"{float(wavelengths.min()):g} to {float(wavelengths.max()):g} nm",
        "dtype": info.dtype,
        "pixel": "unknown" if info.gsd_m is None else f"{info.gsd_m:g} m on the ground",
        "acquired": scene.attrs.get("datetime", "unknown"),
        "platform": scene.attrs.get("platform", "unknown"),
        "grid": info.grid or "that of the files",
        "georeference": info.georeference,
        "crs": crs_name(info.crs or "") or "none",
        "not valid": info.masked or "no value is declared",
        "transform": info.transform or "none",
        **({"note": " ".join(info.remarks)} if info.remarks else {}),
    }


def _print_facts(facts: dict[str, Any]) -> None:
    width = max(map(len, facts)) + 2
    for key, value in facts.items():
        typer.echo(f"{key:<{width}}{value}")
