"""The input of a report: a table of targets, and maps that belong to the scene."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shapely.geometry import shape as geometry_of

from uniadrs_scale.core.machine import library
from uniadrs_scale.errors import StoreError, UniadrsScaleError, gist
from uniadrs_scale.objects.find import find
from uniadrs_scale.objects.select import Selection
from uniadrs_scale.scenes.areas import only_layer
from uniadrs_scale.storage.urls import uri_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import xarray as xr
    from geopandas import GeoDataFrame

    from uniadrs_scale.maps.finished import RasterMap
    from uniadrs_scale.maps.store import ScoreMap
    from uniadrs_scale.runtime.compute import Compute
    from uniadrs_scale.storage.places import Place

WGS84 = "EPSG:4326"
GEOMETRY, SCORE_MAX = "geometry", "score_max"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Columns and geometries of a table of targets."""

    name: str
    """For messages."""
    records: Sequence[Mapping[str, Any]]
    geometries: Sequence[Any]
    """shapely geometries, None if unknown."""
    crs: str | None
    """CRS of the geometries, None if unknown."""
    origin: str
    """How the targets were found, for people."""
    empty: str = ""
    """Sentence about a table without rows."""


def read_table(path: str | Path | GeoDataFrame) -> Table:
    """Read what `targets` wrote: GeoJSON, CSV, GeoPackage, GeoParquet, FlatGeobuf, GeoDataFrame.

    Raises:
        StoreError: The file is missing, or it is not a table of targets.
        PlanError: The format needs a library that is not installed.
    """
    if hasattr(path, "geometry"):
        return _of_frame(path, "a GeoDataFrame")
    suffix = Path(str(path)).suffix.lower()
    if suffix not in READERS:
        raise StoreError(
            f"Targets '{path}' have no known format. Give a file that ends in {', '.join(READERS)}."
        )
    if not Path(path).exists():
        raise StoreError(f"Targets '{path}' do not exist. Check the path.")
    try:
        return READERS[suffix](str(path))
    except UniadrsScaleError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RuntimeError) as error:
        raise StoreError(
            f"Targets '{path}' cannot be read ({gist(error)}). Pass a file that `targets` wrote."
        ) from None


def _geojson(path: str) -> Table:
    collection = json.loads(Path(path).read_text(encoding="utf-8"))
    features = collection["features"]
    # Older than RFC 7946: other software writes it for the CRS of a layer.
    crs = collection["crs"]["properties"]["name"] if collection.get("crs") else WGS84
    shapes = [geometry_of(f[GEOMETRY]) if f[GEOMETRY] else None for f in features]
    records = [dict(feature["properties"]) for feature in features]
    return Table(name=path, origin=uri_name(path), records=records, geometries=shapes, crs=crs)


def _csv(path: str) -> Table:
    with Path(path).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        _require_scores(reader.fieldnames or (), path)
        rows = [dict(row) for row in reader]
    records = [
        {name: _cell(text) for name, text in row.items() if name and name != GEOMETRY}
        for row in rows
    ]
    return Table(
        name=path, origin=uri_name(path), records=records, geometries=[None] * len(rows), crs=None
    )


def _require_scores(columns: Iterable[str], name: str) -> None:
    """Raise StoreError for another table, or what is left of one: without rows nothing else can."""
    if SCORE_MAX not in columns:
        raise StoreError(
            f"Targets '{name}' have no column '{SCORE_MAX}'. Pass a file that `targets` wrote."
        )


def _cell(text: str | None) -> Any:
    """Return a cell of a CSV file: None if it is empty, a number or truth value if it is one."""
    if not text:
        return None
    if text in ("True", "False", "true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _frame(path: str) -> Table:
    geopandas = library("geopandas", f"Tables in '{Path(path).suffix}' files")
    if path.endswith(".parquet"):
        return _of_frame(geopandas.read_parquet(path), path)
    return _of_frame(geopandas.read_file(path, layer=only_layer(path)), path)


def _of_frame(frame: Any, name: str) -> Table:
    _require_scores(frame.columns, name)
    shapes = list(frame.geometry)
    records = frame.drop(columns=frame.geometry.name).to_dict("records")
    crs = None if frame.crs is None else frame.crs.to_wkt()
    return Table(name=name, origin=uri_name(name), records=records, geometries=shapes, crs=crs)


def found_table(
    map_path: str | Path | Place,
    top: int,
    scene: xr.DataArray | None = None,
    compute: Compute | None = None,
) -> Table:
    """Find the ``top`` targets of a map; with its scene, also say how they stand out.

    Raises:
        StoreError: The map cannot be read.
    """
    found = find(map_path, Selection(top=top), scene=scene, compute=compute)
    names = list(found.columns)
    rows = zip(*(found.columns[name].tolist() for name in names), strict=True)
    return Table(
        name=uri_name(str(map_path)),
        records=[dict(zip(names, row, strict=True)) for row in rows],
        geometries=list(found.geometry),
        crs=found.crs,
        origin=f"the {top} highest, pixels of at least {found.facts['grow']:g}",
        empty=found.empty_because,
    )


def require_same_grid(
    opened: ScoreMap | RasterMap, other: ScoreMap | RasterMap
) -> ScoreMap | RasterMap:
    """Return the map to compare with. Raise StoreError if it is on another grid."""
    if opened.geobox.shape != other.geobox.shape or opened.geobox != other.geobox:
        raise StoreError(
            f"'{uri_name(other.name)}' is not on the grid of '{uri_name(opened.name)}' "
            f"({other.geobox.shape[0]} x {other.geobox.shape[1]} px, "
            f"{opened.geobox.shape[0]} x {opened.geobox.shape[1]} px): only maps of the same "
            "pixels can be compared. Warp one of them first (rio warp)."
        )
    return other


READERS: Mapping[str, Callable[[str], Table]] = {
    ".gpkg": _frame,
    ".parquet": _frame,
    ".fgb": _frame,
    ".geojson": _geojson,
    ".json": _geojson,
    ".csv": _csv,
}
"""Readers by the ending of a file."""
