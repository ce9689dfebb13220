"""The rules of GeoZarr's conventions for attributes, as JSON schemas in our own words.

Their sources, read in the version that names itself ``v1``:

    https://raw.githubusercontent.com/zarr-conventions/geo-proj/refs/tags/v1/schema.json
    https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v1/schema.json
    https://raw.githubusercontent.com/zarr-conventions/multiscales/refs/tags/v1/schema.json

Version 0.1 of the first two differs in the name of the projection (``proj``) and allows several
descriptions of a CRS; readers know a convention by its UUID.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jsonschema import Draft7Validator

if TYPE_CHECKING:
    from pathlib import Path


def registered(uuid: str, name: str) -> dict[str, Any]:
    """A node that names a convention as its schema wants it."""
    entry = {
        "type": "object",
        "required": ["uuid"],
        "properties": {"uuid": {"const": uuid}, "name": {"const": name}},
        "propertyNames": {"enum": ["uuid", "name", "schema_url", "spec_url", "description"]},
    }
    return {"type": "array", "contains": entry}


def numbers(count: int) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "number"}, "minItems": count, "maxItems": count}


SHAPE = numbers(2) | {"items": {"type": "integer", "minimum": 1}}
PATH = {"type": "string", "pattern": r"^(?!/)(?!.*(\.\.))([^/]+(/[^/]+)*)$"}
PROJ = {
    "properties": {
        "zarr_conventions": registered("f17cb550-5864-4468-aeb7-f3180cfb622f", "proj:"),
        "proj:code": {"type": "string", "pattern": "^[A-Z]+:[0-9]+$"},
        "proj:wkt2": {"type": "string"},
    },
    "required": ["zarr_conventions"],
    "oneOf": [{"required": [f"proj:{name}"]} for name in ("code", "wkt2", "projjson")],
}
SPATIAL = {
    "properties": {
        "zarr_conventions": registered("689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "spatial"),
        "spatial:dimensions": {
            "type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2,
        },
        "spatial:bbox": numbers(4),
        "spatial:transform": numbers(6),
        "spatial:shape": SHAPE,
        "spatial:registration": {"enum": ["node", "pixel"]},
        "multiscales": {
            "properties": {
                "layout": {
                    "items": {
                        "properties": {"spatial:shape": SHAPE, "spatial:transform": numbers(6)},
                        "required": ["spatial:transform"],
                    }
                }
            }
        },
    },
    "required": ["zarr_conventions", "spatial:dimensions"],
    "if": {"required": ["multiscales"]},
    "then": {"properties": {"spatial:transform": False, "spatial:shape": False}},
}  # fmt: skip
MULTISCALES = {
    "properties": {
        "zarr_conventions": registered("d35379db-88df-4056-af3a-620245f8e347", "multiscales"),
        "multiscales": {
            "type": "object",
            "required": ["layout"],
            "properties": {
                "layout": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "properties": {
                            "asset": PATH,
                            "derived_from": PATH,
                            "resampling_method": {"type": "string"},
                            "transform": {
                                "type": "object",
                                "properties": {
                                    name: {"type": "array", "items": {"type": "number"}}
                                    for name in ("scale", "translation")
                                },
                            },
                        },
                        "required": ["asset"],
                        "if": {"required": ["derived_from"]},
                        "then": {"required": ["transform"]},
                    },
                }
            },
        },
    },
    "required": ["zarr_conventions", "multiscales"],
}


def faults(node: Path, *schemas: dict[str, Any]) -> list[str]:
    """What is wrong with the attributes of a group or array of Zarr 3."""
    document = json.loads((node / "zarr.json").read_text())
    assert document["zarr_format"] == 3
    return [
        f"{error.json_path}: {error.message}"
        for schema in schemas
        for error in Draft7Validator(schema).iter_errors(document["attributes"])
    ]
