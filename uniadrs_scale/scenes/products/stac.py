"""STAC items: a JSON file, a URL, or a pystac.Item; bands in the item's order or the caller's."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from uniadrs_scale.core.machine import Later
from uniadrs_scale.core.validity import exact
from uniadrs_scale.errors import SceneError, gist
from uniadrs_scale.scenes.bands import bands_called
from uniadrs_scale.scenes.products.landsat import FMASK, pixel_flags
from uniadrs_scale.scenes.products.metadata import Band, Product, iso_time, nanometres
from uniadrs_scale.scenes.products.sentinel import scene_classes
from uniadrs_scale.storage.buckets import glimpse, read_object
from uniadrs_scale.storage.trust import parse_json, resolve
from uniadrs_scale.storage.urls import canonical, is_remote, uri_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pystac

    from uniadrs_scale.scenes.products.metadata import Quality
else:
    pystac = Later("pystac")


JSON = (".json", ".geojson")
RASTER_SUFFIXES = {".tif", ".tiff", ".jp2", ".vrt", ".nc", ".img", ".png", ".zarr", ".h5"}
RASTER_TYPES = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff", "application/x-geotiff")
NOT_DATA = {"visual", "overview", "thumbnail", "metadata", "cloud", "snow-ice", "water-mask"}
"""Roles of assets that are pictures or masks, not measurements."""
QUALITY: dict[str, Callable[[str], Quality]] = {
    "scl": scene_classes,
    "qa_pixel": pixel_flags,
    "fmask": partial(pixel_flags, flags=FMASK),
}
"""Assets, by key in lower case without a resolution, that classify pixels."""
HELPERS = "scl|fmask|aot|wvp|cld|snw|[sv][az]a"
"""Words for classes, angles and states of the air, in keys of assets and names of files."""
HELPER = re.compile(HELPERS + r"|qa(_\w+)?|\w+_qa")
"""Such keys of assets, and those of quality."""
RESOLUTION = re.compile(r"_\d+m$")


def recognise(path: str) -> Product | None:
    """Return the product of a STAC item's JSON file or URL, None if it is not JSON.

    Raise SceneError if it is JSON but not an item, or cannot be fetched.
    """
    suffix = PurePosixPath(uri_name(path)).suffix.lower()
    if is_remote(path):
        if suffix in RASTER_SUFFIXES or not (suffix in JSON or _begins_as_json(path)):
            return None
    elif suffix not in JSON or not Path(path).is_file():
        return None
    try:
        item = _fetched(canonical(path)) if is_remote(path) else pystac.Item.from_file(path)
    except (
        pystac.errors.STACError,
        pystac.errors.STACTypeError,
        ValueError,
        KeyError,
        TypeError,
        OSError,
        RecursionError,
    ) as error:
        raise SceneError(
            f"'{path}' is not a STAC item that can be read ({gist(error)}): a scene needs JSON of "
            "type Feature with assets. Pass an item, or a raster."
        ) from None
    return of_item(item)


def _begins_as_json(uri: str) -> bool:
    return glimpse(canonical(uri)).start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{")


def _fetched(uri: str) -> pystac.Item:
    """Return an item by URL. pystac would ask once only, and knows no buckets."""
    content = read_object(uri)
    if content is None:
        raise OSError("the object does not exist")
    return pystac.Item.from_dict(parse_json(content), href=str(uri))


def of_item(item: pystac.Item) -> Product:
    """Return the product that an item describes.

    Raise SceneError if no asset is a raster of measurements.
    """
    document = item.to_dict(include_self_link=False, transform_hrefs=False)
    return of_document(document, canonical(item.get_self_href() or "item.json"))


def of_document(document: dict[str, Any], base: str) -> Product:
    """Return the product that the JSON of an item describes, as read from the path or URL ``base``.

    Raise SceneError if no asset is a raster of measurements.
    """
    assets: dict[str, dict[str, Any]] = document["assets"]
    properties = document["properties"]
    bands = tuple(_bands(assets, base))
    if not bands:
        raise SceneError(
            f"STAC item '{document['id']}' has no raster asset: its assets are "
            f"{', '.join(assets) or 'none'}. Pass an item with GeoTIFF or JPEG 2000 assets."
        )
    return Product(
        kind="STAC item",
        name=str(document["id"]),
        bands=bands,
        quality=tuple(_quality(assets, base)),
        grid="finest",
        gsd_m=properties.get("gsd"),
        datetime=iso_time(properties.get("datetime") or properties.get("start_datetime")),
        platform=properties.get("platform"),
        notes=tuple(_unread(assets, bands)),
    )


def _unread(assets: dict[str, dict[str, Any]], bands: Sequence[Band]) -> Iterator[str]:
    """Yield a sentence about assets with bands that are not rasters, and nothing else holds."""
    read = {name for band in bands for name in (band.name, *band.aliases)}
    lost = [
        key
        for key, asset in assets.items()
        if _measured(asset)
        and not is_raster(asset)
        and not NOT_DATA & set(asset.get("roles") or [])
        and not {str(fact.get("name")) for fact in _named(asset)} <= read
    ]
    if lost:
        yield (
            f"Assets of the item that are not rasters are not scored: {', '.join(lost)}. Open "
            "their files by path."
        )


def with_assets(product: Product, wanted: Sequence[str]) -> Product:
    """Return the product with the wanted bands only, all those of assets or single ones, in order.

    Raise SceneError if one does not exist, or several bands have a name.
    """
    chosen: list[Band] = []
    for name in wanted:
        if all(name not in (b.name, *b.aliases, b.asset) for b in product.bands):
            known = sorted({band.asset for band in product.bands})
            raise SceneError(f"it has no asset ['{name}'], only {known}")
        chosen += [replace(band, default=True) for band in bands_called(name, product)]
    return replace(product, bands=tuple(chosen))


def is_raster(asset: dict[str, Any]) -> bool:
    """Return True if an asset is a raster that can hold bands, by its media type or its ending."""
    media = str(asset.get("type") or "").lower().split(";")[0]
    ending = Path(urlsplit(asset["href"]).path).suffix.lower()
    # Some say image/x.geotiff, or application/octet-stream.
    return media in RASTER_TYPES or ending in (".tif", ".tiff", ".jp2")


def _bands(assets: dict[str, dict[str, Any]], base: str) -> Iterator[Band]:
    """Yield bands of all raster assets; by default those of measurements, each once."""
    described = any(map(_measured, assets.values()))
    seen: set[str] = set()
    for key, asset in assets.items():
        if not is_raster(asset):
            continue
        facts, uri = _facts(asset), resolve(asset["href"], base)
        roles = set(asset.get("roles") or [])
        measured = _measured(asset) if described else "data" in roles or not roles
        # Nothing describes it: the file itself counts its bands, which is number 0.
        for number, fact in enumerate(facts or [{}], start=1 if facts else 0):
            name = key if len(facts) <= 1 else str(fact.get("name") or f"{key}-{number}")
            own = str(fact.get("name") or name)
            default = measured and not roles & NOT_DATA and not HELPER.fullmatch(_plain(key))
            default = default and own not in seen  # the same band as COG and as JPEG 2000
            if default:
                seen.add(own)
            yield Band(
                name=name,
                uri=uri,
                number=number,
                wavelength=_wavelength(fact),
                aliases=tuple(filter(None, (own, _fact(fact, "common_name"), key))),
                asset=key,
                default=default,
                nodata=_nodata(asset, fact),
            )


def _named(asset: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the item's words about the asset's bands, in STAC 1.1 or the older extension."""
    return list(asset.get("bands") or asset.get("eo:bands") or [])


def _measured(asset: dict[str, Any]) -> bool:
    """Return True if the item says what the asset's bands are, not just their dtype or nodata."""
    words = [word for fact in asset.get("bands") or [] for word in fact]
    return bool(asset.get("eo:bands")) or any(w == "name" or w.startswith("eo:") for w in words)


def _facts(asset: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all that is said of each band of an asset, none if not even their number is.

    A single entry is that of the asset as a whole if another list has more.
    """
    lists = [_named(asset), list(asset.get("raster:bands") or [])]
    count = max(map(len, lists))
    return [
        {
            key: value
            for facts in reversed(lists)
            if k < len(facts)
            for key, value in facts[k].items()
        }
        for k in range(count)
    ]


def _fact(fact: dict[str, Any], name: str) -> Any:
    return fact.get(f"eo:{name}", fact.get(name))


def _wavelength(fact: dict[str, Any]) -> float | None:
    micrometres = _fact(fact, "center_wavelength")
    return None if micrometres is None else nanometres(float(micrometres), "um")


def _nodata(asset: dict[str, Any], fact: dict[str, Any]) -> float | None:
    value = fact.get("nodata", asset.get("nodata"))
    try:
        return None if value is None else exact(value)
    except (TypeError, ValueError):
        raise SceneError(
            f"The nodata value {value!r} of '{asset['href']}' is not a number. Correct the item: "
            "a number, 'nan', 'inf' or '-inf', or no value."
        ) from None


def _quality(assets: dict[str, dict[str, Any]], base: str) -> Iterator[Quality]:
    found = {_plain(key): asset for key, asset in reversed(assets.items()) if is_raster(asset)}
    for key in sorted(QUALITY.keys() & found.keys()):  # of several resolutions the first
        yield QUALITY[key](resolve(found[key]["href"], base))


def _plain(key: str) -> str:
    """Return the key of an asset in lower case, without the resolution of its pixels."""
    return RESOLUTION.sub("", key.lower())
