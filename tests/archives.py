"""Small archives on disk, and a web server on the loopback interface."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import yaml
from rasterio.transform import from_origin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def write_scene(path: Path, seed: int, *, side: int = 64, bands: int = 1) -> Path:
    """A scene in 0..1 whose first corner is nodata, 20 m pixels, somewhere near Rostock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).random((bands, side, side), np.float32)
    pixels[:, : side // 8, : side // 8] = -1
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, height=side, width=side, dtype="float32",
        crs="EPSG:32633", transform=from_origin(4e5 + 2000 * seed, 6e6, 20, 20), nodata=-1,
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


def write_archive(folder: Path, **changes: Any) -> Path:
    """ARCHIVE.yaml over ``incoming``; small tiles, this process."""
    values: dict[str, Any] = {
        "source": {"type": "folder", "path": "incoming"},
        "output": {"folder": "maps"},
        "plan": {"tile": 32, "chunk": 32},
        "scheduler": "sync",
    }
    path = folder / "archive.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def stac_item(name: str, **changes: Any) -> dict[str, Any]:
    """A STAC item as a provider would write it; its assets lie beside it."""
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[10, 50], [11, 50], [11, 51], [10, 51], [10, 50]]],
        },
        "bbox": [10, 50, 11, 51],
        "properties": {"datetime": "2024-05-01T10:00:00Z", "eo:cloud_cover": 10, "orbit": 7},
        "links": [],
        "assets": {
            "thumb": {"href": "thumb.png", "type": "image/png", "roles": ["thumbnail"]},
            "B03": {"href": "B03.tif", "roles": ["data"], "eo:bands": [{"common_name": "green"}]},
            "B02": {"href": "B02.tif", "roles": ["data"], "eo:bands": [{"common_name": "blue"}]},
        },
    }
    return item | changes


def write_catalog(folder: Path, items: list[dict[str, Any]], *, pixels: bool = True) -> Path:
    """A static catalog: catalog.json -> collection.json -> items in folders of their own."""
    links = []
    for number, item in enumerate(items):
        place = folder / "collection" / f"item{number}"
        place.mkdir(parents=True)
        (place / "item.json").write_text(json.dumps(item))
        links.append({"rel": "item", "href": f"./item{number}/item.json"})
        for band, name in enumerate(("B02", "B03")) if pixels else ():
            write_scene(place / f"{name}.tif", 10 * number + band)
    collection = {"type": "Collection", "id": "c", "links": links}
    (folder / "collection" / "collection.json").write_text(json.dumps(collection))
    catalog = {
        "type": "Catalog",
        "id": "root",
        # A circle: the child names its parent, and the catalog names itself as a child.
        "links": [
            {"rel": "child", "href": "./collection/collection.json"},
            {"rel": "child", "href": "./catalog.json"},
        ],
    }
    (folder / "catalog.json").write_text(json.dumps(catalog))
    return folder / "catalog.json"


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files without a log, with an entity tag."""

    def log_message(self, *_: object) -> None:
        pass

    def end_headers(self) -> None:
        self.send_header("ETag", '"tag"')
        super().end_headers()


@contextmanager
def serve(folder: Path, handler: type[SimpleHTTPRequestHandler] = _Quiet) -> Iterator[str]:
    """The address of a server of ``folder`` on the loopback interface."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
