"""The STAC item that is a product, and the collection of all products."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import antimeridian
import numpy as np
import pystac
import rasterio
import shapely
from pyproj import Transformer
from pyproj.exceptions import ProjError
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import (
    DataType,
    NoDataStrings,
    RasterBand,
    RasterExtension,
    Statistics,
)
from pystac.extensions.render import Render, RenderExtension
from pystac.extensions.table import Column, TableExtension
from pystac.utils import datetime_to_str
from rasterio.crs import CRS

from uniadrs_scale.archive.exports import PRODUCT_EXPORTS, TARGETS
from uniadrs_scale.archive.sink import STORE
from uniadrs_scale.core.machine import vectors
from uniadrs_scale.maps.colours import map_colours
from uniadrs_scale.objects.files import LAYER
from uniadrs_scale.scenes.areas import to_poles
from uniadrs_scale.storage.urls import public_uri

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from uniadrs_scale.archive.config import Output
    from uniadrs_scale.archive.decide import Decision
    from uniadrs_scale.core.levels import Levels
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.maps.exports import Export, FinishedMap

COLOURS = 256
"""Colours of the table that a render names: one per grey value of a stretched map."""
PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
SHA2_256 = "1220"
"""Multihash prefix: algorithm and length."""
EDGE = 4
"""Points per side of a footprint: straight lines of a projection are curves in degrees. With four,
the error is 10 m for a scene of 110 km."""
MAPS = "score", "score_zarr"
"""Assets that are maps."""
TEXT = {"object": "string", "datetime64[ms]": "datetime"}
"""Types of columns that are not named as numpy names them."""
ASSETS = {
    export.file: (export.asset, export.media_type, export.title, list(export.roles))
    for export in PRODUCT_EXPORTS.values()
} | {
    STORE: ("score_zarr", "application/vnd.zarr; version=3", "Anomaly map, Zarr", ["data"]),
    "run.json": ("run", pystac.MediaType.JSON, "How it was made", ["metadata"]),
}


def make_item(
    decision: Decision,
    plan: ScorePlan,
    folder: Path,
    *,
    output: Output,
    finished: FinishedMap,
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return the STAC item of the product in ``folder``, for its place in the sink.

    Args:
        decision: The scene, and the fingerprint of its product.
        plan: How it was scored.
        folder: The product's files; read for sizes and checksums.
        output: The form of products, and the id of their collection.
        finished: The map, for its statistics and levels.
        notes: Sentences about the scene; the map may mislead.
    """
    source, key, now = decision.item, decision.fingerprint.key, datetime.now(UTC)
    statistics = finished.overview.statistics.figures()
    geometry: Mapping[str, Any] | None = source.geometry
    box: tuple[float, ...] | None = source.box
    if geometry is None or box is None:
        geometry, box = footprint(plan)
    item = pystac.Item(
        id=decision.name,
        geometry=None if geometry is None else dict(geometry),
        bbox=None if box is None else list(box),
        datetime=source.when,
        properties={
            "created": datetime_to_str(now, "seconds"),
            "processing:software": {"uniadrs_scale": plan.version},
            "processing:datetime": datetime_to_str(now, "seconds"),
            "processing:lineage": f"Scored by {plan.detector}",
            "uniadrs:key": key,
            "uniadrs:parts": decision.fingerprint.to_dict(),
            "uniadrs:source_id": source.id,
            **({"uniadrs:datetime_from": source.dated_by} if source.dated_by else {}),
            "uniadrs:highest_score": statistics.get("maximum"),
            **({"uniadrs:notes": list(notes)} if notes else {}),
        },
        stac_extensions=[PROCESSING],
    )
    _add_projection(item, plan)
    for name, (title, media, text, roles) in ASSETS.items():
        if "zarr" in output.formats if name == STORE else (folder / name).exists():
            asset = pystac.Asset(f"./{key}/{name}", title=text, media_type=media, roles=roles)
            item.add_asset(title, asset)
            _describe(asset, folder / name, statistics if title in MAPS else None)
    if "cog" in output.formats:
        _add_render(item, finished.opened.levels)
    if TARGETS.asset in item.assets:
        item.properties["uniadrs:targets"] = _describe_targets(item.assets[TARGETS.asset], folder)
    for rel in ("root", "parent", "collection"):
        item.add_link(pystac.Link(rel, "../collection.json", pystac.MediaType.JSON))
    item.add_link(pystac.Link("derived_from", public_uri(source.href)))
    item.collection_id = output.collection
    # Links by hand above: pystac would resolve them against a catalog that it has not read.
    document = item.to_dict(include_self_link=False, transform_hrefs=False)
    return {**document, "collection": output.collection}


def _describe(asset: pystac.Asset, path: Path, statistics: Mapping[str, float] | None) -> None:
    """Add checksum and size of a file; data type, nodata and ``statistics`` of a map."""
    if path.is_file():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        FileExtension.ext(asset, add_if_missing=True).apply(
            checksum=SHA2_256 + digest, size=path.stat().st_size
        )
    if statistics is not None:
        band = RasterBand.create(
            nodata=NoDataStrings.NAN,
            data_type=DataType.FLOAT32,
            statistics=Statistics.create(**statistics) if statistics else None,
        )
        RasterExtension.ext(asset, add_if_missing=True).bands = [band]


def _describe_targets(asset: pystac.Asset, folder: Path) -> int:
    """Add the columns of a list of targets; return the number of its rows."""
    pyogrio = vectors("Targets in STAC items")
    facts = pyogrio.read_info(folder / TARGETS.file, layer=LAYER)
    found = zip(facts["fields"].tolist(), facts["dtypes"], strict=True)
    count = int(facts["features"])
    columns = [Column({"name": name, "type": TEXT.get(kind, kind)}) for name, kind in found]
    geometry = str(facts["geometry_name"])
    columns.append(Column({"name": geometry, "type": str(facts["geometry_type"])}))
    TableExtension.ext(asset, add_if_missing=True).columns = columns
    asset.extra_fields |= {"table:row_count": count, "table:primary_geometry": geometry}
    return count


def _add_render(item: pystac.Item, levels: Levels | None) -> None:
    """Say how viewers show the map: on the scale of its pictures, clear below objects."""
    table = map_colours(np.linspace(0, 1, COLOURS, dtype=np.float32)[None], levels)[0]
    RenderExtension.ext(item, add_if_missing=True).apply(
        {
            PRODUCT_EXPORTS["cog"].asset: Render.create(
                assets=[PRODUCT_EXPORTS["cog"].asset],
                title="Anomaly score",
                rescale=[[0.0, 1.0]],
                nodata="nan",
                colormap={str(value): colour for value, colour in enumerate(table.tolist())},
                resampling="nearest",
            )
        }
    )


def _add_projection(item: pystac.Item, plan: ScorePlan) -> None:
    scene = plan.scene
    if scene.transform is None:
        return
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    projection.shape = [scene.height, scene.width]
    projection.transform = list(scene.transform)
    if scene.crs is not None:
        crs = CRS.from_wkt(scene.crs)
        epsg = crs.to_epsg()
        projection.code = None if epsg is None else f"EPSG:{epsg}"
        if epsg is None:
            projection.wkt2 = crs.to_wkt(version="WKT2_2019")


def footprint(plan: ScorePlan) -> tuple[dict[str, Any] | None, tuple[float, ...] | None]:
    """Return GeoJSON outline and box of a scene in degrees, None if it has no georeference.

    Over the antimeridian the outline is a MultiPolygon, cut there, and the box has west > east, as
    RFC 7946 says; around a pole it goes up to the pole.
    """
    scene = plan.scene
    if scene.crs is None or scene.transform is None:
        return None, None
    steps = [i / EDGE for i in range(EDGE)]
    around = [*((0, t) for t in steps), *((t, 1) for t in steps)]
    around += [*((1, 1 - t) for t in steps), *((1 - t, 0) for t in steps)]
    to_crs = rasterio.Affine(*scene.transform)
    if to_crs.determinant > 0:  # rows go north: counter-clockwise as RFC 7946 wants it
        around.reverse()
    points = [to_crs @ (x * scene.width, y * scene.height) for x, y in around]
    try:
        to_degrees = Transformer.from_crs(scene.crs, 4326, always_xy=True)
    except ProjError:  # a local CRS, or one of another planet
        return None, None
    places = np.stack(to_degrees.transform(*np.transpose(points)), axis=-1).round(7)
    if not np.isfinite(places).all():
        return None, None
    ring = shapely.Polygon(to_poles(places))
    try:
        outline = antimeridian.fix_polygon(ring, fix_winding=True, great_circle=False)
    except ValueError:  # the outline crosses itself
        return None, None
    return shapely.geometry.mapping(outline), tuple(antimeridian.bbox(outline))


def wanted_exports(output: Output) -> list[Export]:
    """Return the files that each product has, besides a store and ``run.json``."""
    wanted = {*output.formats, *(["quicklook"] if output.quicklook else [])}
    wanted |= {"style"} if "cog" in wanted else set()
    return [export for name, export in PRODUCT_EXPORTS.items() if name in wanted]


def collection_text(output: Output, products: Mapping[str, Mapping[str, Any]]) -> str:
    """Return ``collection.json`` of ``products``.

    Args:
        output: Id and texts.
        products: Record of each item, by name.
    """
    times = [datetime.fromisoformat(record["datetime"]) for record in products.values()]
    boxes = [record["bbox"] for record in products.values() if record["bbox"]]
    interval: list[datetime | None] = [min(times), max(times)] if times else [None, None]
    extent = pystac.Extent(pystac.SpatialExtent([_union(boxes)]), pystac.TemporalExtent([interval]))
    collection = pystac.Collection(
        id=output.collection,
        title=output.title,
        description=output.description,
        extent=extent,
        license=output.licence,
        keywords=["anomaly detection"],
    )
    document = collection.to_dict(include_self_link=False)
    files = [*(export.file for export in wanted_exports(output)), "run.json"]
    document["item_assets"] = {
        key: {"title": title, "type": media, "roles": roles}
        for file in (*files, *([STORE] if "zarr" in output.formats else []))
        for key, media, title, roles in [ASSETS[file]]
    }
    # As plain dictionaries: ten thousand link objects take ten times as long.
    document["links"] = [
        {"rel": "root", "href": "./collection.json", "type": "application/json"},
        *(
            {"rel": "item", "href": f"./{name}/{name}.json", "type": "application/geo+json"}
            for name in sorted(products)
        ),
    ]
    return json.dumps(document, indent=1)


def _union(boxes: Sequence[Sequence[float]]) -> list[float]:
    """Return the box around all; the whole world without boxes, or if one crosses 180 degrees."""
    if not boxes or any(box[0] > box[2] for box in boxes):
        return [-180.0, -90.0, 180.0, 90.0]
    west, south, east, north = zip(*boxes, strict=True)
    return [min(west), min(south), max(east), max(north)]
