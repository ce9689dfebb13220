"""Limits on files of others: none may run code, and a remote one may not name local files.

A scene, a catalog or a score store may come from anyone. Zarr's metadata choose codecs, and one of
them unpickles. VRT, WMS descriptions, HDF5 links and STAC hrefs name other files, so that a file
on a server could read those of this machine into a map that goes back there.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import rasterio
import yaml
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from zarr.storage import FsspecStore, LocalStore

from uniadrs_scale.errors import Quiet, SceneError, StoreError, TrustError, gist
from uniadrs_scale.storage.remote import gdal_env, gdal_name, is_set
from uniadrs_scale.storage.urls import canonical, is_remote, join

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

SWITCH = "UNIADRS_SCALE_TRUST_REMOTE"
"""Environment variable that lets remote files name local ones."""
ADVICE = f"Download it and check it, or set {SWITCH}=yes if you trust its source."
DRIVERS = ["GTiff", "LIBERTIFF", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "PNG", "JPEG",
           "JPEGXL", "WEBP", "GIF", "BMP"]  # fmt: skip
"""GDAL's drivers for formats that are one file and name no other."""
SIDE_FILES = {"OVERVIEWS": "OVERVIEW_FILE", "GEOLOCATION": "X_DATASET"}
"""Tags, by domain, with which even a GeoTIFF names another file."""
SERVER = re.compile(
    r"(https?|ftp|s3|gs|gcs|az|abfss?|adls?|oss|swift|hdfs|webhdfs)://"
    r"|/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)"
)
NO_PLACE = Quiet(NotGeoreferencedWarning, "Dataset has no geotransform")
"""A context without the warning about a missing georeference: plan and summary mention it."""
PROJ_FOLDERS = ("PROJ_LIB", "PROJ_DATA")
"""Environment variables that name the folder of PROJ's data."""
METADATA = (".zarray", ".zmetadata", "zarr.json")
OBJECT_CODECS = {"pickle", "json", "json2", "msgpack", "msgpack2", "vlen-array", "categorize"}
"""Codecs of numcodecs that make Python objects; those of plain strings are not among them."""

MOST_ALIASES = 16


def trusts_remote() -> bool:
    """Return True if the environment lets remote files name local ones."""
    return is_set(SWITCH)


@cache
def require_proj() -> None:
    """Raise SceneError if GDAL cannot use its PROJ data: it would invent a CRS for every map."""
    try:
        CRS.from_epsg(4326)
    except CRSError as error:
        named = [f"{name}={os.environ[name]}" for name in PROJ_FOLDERS if name in os.environ]
        raise SceneError(
            f"GDAL cannot use its PROJ data ({gist(error)}): no CRS would be right. The data are "
            f"missing, or those of another program. Unset {' and '.join(named) or 'PROJ_DATA'}."
        ) from None


def require_remote(href: str, base: str) -> str:
    """Return ``href``, which the document at ``base`` names.

    Raise TrustError if the document is on a server and ``href`` is not.
    """
    if is_remote(base) and not is_remote(canonical(href)) and not trusts_remote():
        raise TrustError(
            f"'{base}' is on a server and names '{href}', a local file: remote documents may "
            f"name remote files only (http, https, s3, gs). {ADVICE}"
        )
    return href


def resolve(href: str, base: str) -> str:
    """Return the path or URL that ``href`` means in the document at ``base``.

    Raises:
        TrustError: The document is on a server and names a local file.
        ValueError: ``href`` names a file of another machine.
    """
    meant = join(base, href)
    if not is_remote(meant):
        require_remote(href, base)
    return meant


def open_raster(uri: str) -> rasterio.DatasetReader:
    """Open a raster for reading, georeferenced or not; a remote one by drivers of single files.

    Raises:
        RasterioError: It cannot be opened.
        TrustError: It is on a server and may name other files.
    """
    with NO_PLACE, gdal_env(uri):
        if trusts_remote() or not SERVER.search(uri):
            return rasterio.open(gdal_name(uri))
        try:
            # rasterio.open refuses the list of drivers that it documents.
            dataset = rasterio.DatasetReader(gdal_name(uri), driver=DRIVERS, sharing=False)
        except RasterioError as error:
            if "not recognized" not in str(error):
                raise
            raise TrustError(
                f"'{uri}' is not a raster that can be opened by URL: GeoTIFF, COG, JPEG 2000, PNG "
                f"and JPEG are, VRT and other formats that may name local files are not. {ADVICE}"
            ) from None
        for domain, tag in SIDE_FILES.items():
            if tag in dataset.tags(ns=domain):
                dataset.close()
                raise TrustError(
                    f"'{uri}' is on a server and names another file (its tag {tag}): remote files "
                    f"must be whole. {ADVICE}"
                )
        return dataset


def require_self_contained(file: h5py.File, uri: str) -> None:
    """Raise TrustError if a remote HDF5 file gets links or pixels from other files."""
    if not is_remote(uri) or trusts_remote():
        return
    # h5py loses exceptions of these callbacks; what they return ends the visit.
    fault = file.visititems_links(_foreign_link) or file.visititems(_foreign_pixels)
    if fault:
        raise TrustError(f"In '{uri}' {fault}: remote files must hold their own data. {ADVICE}")


def _foreign_link(name: str, link: object) -> str | None:
    if isinstance(link, h5py.ExternalLink):
        return f"'{name}' is a link to the file '{link.filename}'"
    return None


def _foreign_pixels(name: str, item: object) -> str | None:
    files = foreign_files(item)
    return f"'{name}' gets its values from the file '{files[0]}'" if files else None


def foreign_files(item: object) -> list[str]:
    """Return the names of the files from which an HDF5 file gets the values of an array."""
    if not isinstance(item, h5py.Dataset):
        return []
    sources = item.virtual_sources() if item.is_virtual else []
    files = [str(source[0]) for source in item.external or []]
    return files + [source.file_name for source in sources if source.file_name != "."]


class Checked:
    """A Zarr store that refuses metadata with codecs that make Python objects."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return one object, None if it does not exist."""
        content: Buffer | None = await super().get(key, prototype, byte_range)  # type: ignore[misc]  # abstract in its base
        if content is not None and key.endswith(METADATA):
            require_plain_codecs(content.to_bytes(), f"'{key}' in '{self}'")
        return content


class CheckedLocal(Checked, LocalStore):
    """A folder that exists: opening it to write makes none."""

    async def _open(self, **options: Any) -> None:
        if not self.root.exists():
            raise FileNotFoundError(f"{self.root} does not exist")
        await super()._open(**options)


class CheckedFsspec(Checked, FsspecStore):
    """A URL of a scheme that only fsspec knows."""


def checked_store(place: str | Path, *, read_only: bool) -> LocalStore | FsspecStore:
    """Return the store at a path or at a URL that fsspec knows."""
    if "://" in str(place):
        return CheckedFsspec.from_url(str(place), read_only=read_only)
    return CheckedLocal(place, read_only=read_only)


def parse_json(content: bytes) -> Any:
    """Return the value of a JSON document; raise ValueError if it is not one."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it nests too deep") from None


class _Loader(yaml.SafeLoader):
    """YAML without objects and with few aliases, which can multiply a small file without end.

    Dates are text, so that they are compared with the text of properties; no field is given twice.
    """

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node; raise ComposerError if there are too many aliases."""
        self.aliases += self.check_event(yaml.AliasEvent)
        if self.aliases > MOST_ALIASES:
            raise yaml.composer.ComposerError(
                None, None, f"more than {MOST_ALIASES} aliases (*name): write the values out"
            )
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return the next mapping; raise ComposerError if it gives a field twice."""
        node = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value]
        names = [str(key.value) for key in keys]
        if twice := [key for k, key in enumerate(keys) if names[k] in names[:k]]:
            what = f"'{twice[0].value}' is given twice: keep one"
            raise yaml.composer.ComposerError(None, None, what, twice[0].start_mark)
        return node


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if not pair[0].endswith(":timestamp")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML document; raise YAMLError if it is not one."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def require_plain_codecs(content: bytes, where: str) -> None:
    """Raise TrustError if Zarr metadata, of one array or consolidated, name an object codec."""
    document: Any = None
    with suppress(ValueError):  # zarr says what is wrong with it
        document = parse_json(content)
    for codec in _codecs(document):
        raise TrustError(
            f"{where} decodes an array by '{codec}', which makes Python objects and may run code: "
            "numbers and plain strings (vlen-utf8) are allowed. Do not open this store unless its "
            "author writes it again without that codec."
        )


def _codecs(node: Any) -> Iterator[str]:
    """Names of the object codecs below ``node``; attributes are the user's own."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for name in (node.get("id"), node.get("name")):
                if isinstance(name, str) and name.rpartition(".")[2] in OBJECT_CODECS:
                    yield name
            own = ("attributes", ".zattrs")
            waiting += [v for k, v in node.items() if k not in own and not k.endswith("/.zattrs")]
        elif isinstance(node, list):
            waiting += node


def require_no_links(place: object) -> None:
    """Raise StoreError if a folder or something in it is a link: writing there would follow it.

    Others may write to a shared folder as well. Buckets have no links.
    """
    folder = Path(str(place))
    try:
        paths = [folder, *(folder.iterdir() if folder.is_dir() else ())]
    except OSError as error:
        raise StoreError(
            f"Cannot read '{folder}': {error.strerror}. Check its permissions and its disk."
        ) from error
    for path in paths:
        if path.is_symlink():
            raise StoreError(
                f"'{path}' is a link: results are written to real files and folders only. Remove "
                "the link, or choose another output folder."
            )
