"""What lies in a sink, folder or bucket alike: names and plain values. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from uniadrs_scale.archive.ledger import Index
    from uniadrs_scale.storage.places import Place


KEY = re.compile(r"[0-9a-f]{16}")
"""Names of versions: the fingerprint of a product."""
STORE = "scores.zarr"
STAGED_ITEM = "item.json"
"""Beside the files of a product that is whole but not yet the scene's product."""
MADE = ("scores.tif", STORE, "quicklook.png", "run.json", STAGED_ITEM)
"""All that a version ever holds; nothing else is removed from it."""
COLLECTION = "collection.json"
STATE = ".sweep"
"""Holds what sweeps remember: lock, ledger."""
RECORD = ("uniadrs:key", "uniadrs:parts", "uniadrs:highest_score", "datetime", "created")
"""Properties of an item that the index holds."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where one product is made. Workers write the store, the sweep's process everything else."""

    store: Place
    """The Zarr store, a path or URL; on a cluster of several machines all must see it."""
    files: Path
    """A local folder for COG, picture, report and item."""


@dataclass(slots=True)
class Survey:
    """What lies in the sink."""

    products: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Records of whole products by name: see :func:`record_of`."""
    versions: dict[str, list[str]] = field(default_factory=dict)
    """Keys of versions without an item, by name: begun or left over."""
    finished: dict[str, list[str]] = field(default_factory=dict)
    """Of these, the whole ones: their sweep was killed one step before the end."""
    strays: dict[str, list[str]] = field(default_factory=dict)
    """What a sweep left in the version of a whole product that the product does not need."""
    changed: Index = field(default_factory=dict)
    """Items that the index does not know, or knows otherwise."""
    gone: set[str] = field(default_factory=set)
    """Names in the index that are no products any more."""


def record_of(content: bytes | None) -> dict[str, Any]:
    """What the index holds of an item; empty where this is no item of a sweep.

    RECORD, ``bbox``, and ``files``: names of what the item's assets point at.
    """
    try:
        item = json.loads(content or b"")
        record = {name: item["properties"][name] for name in RECORD}
    except (ValueError, KeyError, TypeError):
        return {}
    return record | {"bbox": item.get("bbox"), "files": _files(item)}


def _files(item: Mapping[str, Any]) -> list[str]:
    assets = item.get("assets")
    hrefs = [asset.get("href", "") for asset in assets.values()] if assets else []
    return sorted(str(href).rstrip("/").rpartition("/")[2] for href in hrefs)
