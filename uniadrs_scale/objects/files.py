"""Files of targets: GeoPackage (with a QGIS style), GeoParquet, GeoJSON, CSV and FlatGeobuf."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from uniadrs_scale.core.machine import library, vectors
from uniadrs_scale.errors import PlanError, Quiet, StoreError, gist
from uniadrs_scale.maps.colours import target_style
from uniadrs_scale.maps.exports import LOOKED_AT, require_own
from uniadrs_scale.scenes.areas import geojson, in_degrees, to_poles
from uniadrs_scale.storage.folders import room_checked
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from uniadrs_scale.objects.table import TargetTable

ROW_GROUP = 10_000
"""Rows of a part of a GeoParquet file."""
HEADER, MARKED = b"target_id,", rb'"mark"[: ]|\A[^\n]*,mark\b'
"""First column of our CSV files, and the field in which users note their decisions."""
LAYER, PEAKS = "targets", "peaks"
UTC = 100  # GDAL's flag of times in UTC
STYLE_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT, f_table_catalog TEXT(256), f_table_schema TEXT(256),
    f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT,
    styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""
"""The table in which QGIS looks for the styles of a database."""
NO_CRS = Quiet(UserWarning, "'crs' was not provided")


def write(table: TargetTable, output: str | Path | Place) -> Place:
    """Write a table of targets; an older list is replaced.

    Raises:
        PlanError: The format needs a library that is not installed, or a CRS.
        StoreError: The format is unknown, another file is there, or the file cannot be written.
    """
    place = require_writable(output)
    make = FORMATS[place.suffix.lower()]
    with place.scratch() as folder:
        path = folder / place.name
        try:
            with room_checked(folder, RuntimeError, sqlite3.Error):
                make(table, path)
        except (OSError, RuntimeError, sqlite3.Error) as error:
            raise StoreError(
                f"Cannot write '{place}' ({gist(error)}). Check free space and permissions of its "
                "folder, or choose another."
            ) from error
        place.write(path)
    return place


def require_writable(output: str | Path | Place) -> Place:
    """Return the place ``output``, before anything is computed.

    Raises:
        PlanError: The format needs a library that is not installed.
        StoreError: The format is unknown, the folder is missing, or another file is there.
    """
    place = Place.of(output)
    suffix = place.suffix.lower()
    if suffix not in FORMATS:
        raise StoreError(
            f"Output '{output}' has no known format. Let it end in {', '.join(FORMATS)}."
        )
    place.require_name()
    place.require_folder()
    if place.local is not None and place.local.is_dir():
        raise StoreError(f"'{place}' is a folder. Choose another name.")
    within = LOOKED_AT if suffix in (".geojson", ".csv") else None
    what = "a list of targets without marks"
    require_own(place, what, sign=HEADER, edited=MARKED, within=within)
    if suffix in (".gpkg", ".fgb"):
        vectors(f"'{suffix}' files")
    if suffix == ".parquet":
        library("pyarrow", "'.parquet' files")
    return place


def _geopackage(table: TargetTable, path: Path) -> None:
    """Write the layers ``targets`` and ``peaks``, each with a style that QGIS applies unasked."""
    facts = {"uniadrs_scale": json.dumps(table.facts)}
    # GDAL's own choice, 1.4, makes the GDAL of QGIS 3.22 warn.
    version = {"VERSION": "1.2"}
    _ogr(table, path, "GPKG", layer=LAYER, dataset_metadata=facts, dataset_options=version)
    _ogr(table, path, "GPKG", layer=PEAKS, points=True, append=True)
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(STYLE_TABLE)
        base.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, "
            "last_change) SELECT 'layer_styles', 'attributes', 'layer_styles', '', last_change "
            "FROM gpkg_contents LIMIT 1"
        )
        for layer, points in ((LAYER, table.geometry_type == "Point"), (PEAKS, True)):
            base.execute(
                "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
                "f_geometry_column, styleName, styleQML, useAsDefault, description) "
                "VALUES ('', '', ?, 'geom', 'levels', ?, 1, 'Targets by level')",
                (layer, target_style(points=points)),
            )


def _flatgeobuf(table: TargetTable, path: Path) -> None:
    text = json.dumps(table.facts)
    _ogr(table, path, "FlatGeobuf", layer=LAYER, layer_options={"DESCRIPTION": text})


def _ogr(
    table: TargetTable, path: Path, driver: str, *, points: bool = False, **options: Any
) -> None:
    """Write one layer by GDAL. A polygon is a multipolygon of one, so that a layer has one type."""
    pyogrio = vectors(f"'{path.suffix}' files")
    kind = "Point" if points else table.geometry_type
    with NO_CRS:  # the table says so
        pyogrio.raw.write(
            path,
            shapely.to_wkb(table.peaks if points else table.geometry),
            list(table.columns.values()),
            list(table.columns),
            driver=driver,
            geometry_type=kind,
            crs=table.crs,
            promote_to_multi=kind == "MultiPolygon",
            gdal_tz_offsets={"datetime": np.full(len(table), UTC)},
            **options,
        )
    # On a full disk GDAL may leave a file that is cut off, without an error.
    found = pyogrio.raw.read(path, layer=options["layer"], columns=[])[2]
    if len(found) != len(table):
        raise RuntimeError(f"{len(found)} of {len(table)} targets were written")


def _geojson(table: TargetTable, path: Path) -> None:
    """Write RFC 7946: degrees, outer rings anticlockwise, cut at the antimeridian."""
    try:
        shapes = shapely.orient_polygons(_degrees(table), exterior_cw=False)
    except ProjError:  # no CRS, a local one, or one of another planet
        raise PlanError(
            "GeoJSON holds longitude and latitude, and the map has no CRS of the Earth. Write .csv "
            "or .gpkg, or georeference the scene and score it again."
        ) from None
    with path.open("w", encoding="utf-8") as file:
        head = {"type": "FeatureCollection", "uniadrs_scale": table.facts}
        file.write(json.dumps(head)[:-1] + ', "features": [')
        for number, (row, shape) in enumerate(zip(_rows(table), shapes, strict=True)):
            feature = {"type": "Feature", "properties": row, "geometry": geojson(shape)}
            file.write(("," if number else "") + "\n" + json.dumps(feature))
        file.write("\n]}\n")


def _csv(table: TargetTable, path: Path) -> None:
    """Write the columns without outlines; an unknown value is empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(table.columns)
        lines.writerows(row.values() for row in _rows(table))


def _parquet(table: TargetTable, path: Path) -> None:
    """Write GeoParquet 1.1 by row groups, with the box of each geometry as covering."""
    pyarrow = library("pyarrow", "'.parquet' files")
    parquet = library("pyarrow.parquet", "'.parquet' files")
    kinds = sorted({shape.geom_type for shape in table.geometry if shape is not None})
    bounds = shapely.total_bounds(table.geometry) if kinds else []
    column = {
        "encoding": "WKB",
        "geometry_types": kinds,
        "crs": None if table.crs is None else CRS.from_user_input(table.crs).to_json_dict(),
        "covering": {"bbox": {side: ["bbox", side] for side in SIDES}},
        **({"bbox": list(map(float, bounds))} if kinds else {}),
    }
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    types = {"O": pyarrow.string(), "M": pyarrow.timestamp("ms", tz="UTC")}
    fields = [
        (name, types.get(values.dtype.kind) or pyarrow.from_numpy_dtype(values.dtype))
        for name, values in table.columns.items()
    ]
    box = pyarrow.struct([(side, pyarrow.float64()) for side in SIDES])
    schema = pyarrow.schema([*fields, ("geometry", pyarrow.binary()), ("bbox", box)]).with_metadata(
        {"geo": json.dumps(geo), "uniadrs_scale": json.dumps(table.facts)}
    )
    with parquet.ParquetWriter(path, schema, compression="zstd") as file:
        for start in range(0, max(len(table), 1), ROW_GROUP):
            part = slice(start, start + ROW_GROUP)
            columns = [
                pyarrow.array(values[part], type=kind, from_pandas=True)
                for (_, kind), values in zip(fields, table.columns.values(), strict=True)
            ]
            shapes = table.geometry[part]
            corners = shapely.bounds(shapes).reshape(-1, len(SIDES))
            sides = [pyarrow.array(side, from_pandas=True) for side in corners.T]
            boxes = pyarrow.StructArray.from_arrays(sides, list(SIDES))
            wkb = pyarrow.array(shapely.to_wkb(shapes), type=pyarrow.binary())
            group = pyarrow.Table.from_arrays([*columns, wkb, boxes.cast(box)], schema=schema)
            file.write_table(group, row_group_size=ROW_GROUP)


SIDES = ("xmin", "ymin", "xmax", "ymax")
FORMATS: dict[str, Callable[[TargetTable, Path], None]] = {
    ".gpkg": _geopackage,
    ".parquet": _parquet,
    ".geojson": _geojson,
    ".csv": _csv,
    ".fgb": _flatgeobuf,
}
"""Writers by the ending of a path."""


def _degrees(table: TargetTable) -> NDArray[Any]:
    """Return the geometry in degrees, WGS 84."""
    crs = CRS.from_user_input(table.crs)
    if crs == CRS.from_epsg(4326):
        places = shapely.get_coordinates(table.geometry)
    else:
        transformer = Transformer.from_crs(crs, 4326, always_xy=True)
        corners = shapely.get_coordinates(table.geometry)
        places = np.stack(transformer.transform(*corners.T), axis=-1).reshape(-1, 2)
    return in_degrees(table.geometry, to_poles(places))


def _rows(table: TargetTable) -> Iterator[dict[str, Any]]:
    """Yield rows as JSON values."""
    columns = [_plain(values) for values in table.columns.values()]
    for row in islice(zip(*columns, strict=True), len(table)):
        yield dict(zip(table.columns, row, strict=True))


def _plain(values: NDArray[Any]) -> list[Any]:
    """Return a column as JSON values; float32 with the digits that tell it from its neighbours."""
    kind = values.dtype.kind
    if kind == "M":
        return [None if np.isnat(time) else f"{time}Z" for time in values]
    if kind == "f":
        return [float(str(value)) if np.isfinite(value) else None for value in values]
    return cast("list[Any]", values.tolist())
