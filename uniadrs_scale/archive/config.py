"""The description of an archive: one YAML file, checked before anything runs."""

from __future__ import annotations

import re
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, model_validator
from pydantic_core import PydanticUndefined

from uniadrs_scale.archive.filters import MOST_DAYS, Filters, Section, chosen, require_options
from uniadrs_scale.core.contracts import digest
from uniadrs_scale.core.lattice import Lattice
from uniadrs_scale.core.machine import LOCAL
from uniadrs_scale.core.presets import PRESETS
from uniadrs_scale.errors import ArchiveError, PlanError, StoreError
from uniadrs_scale.storage.places import PAGES, Place
from uniadrs_scale.storage.trust import parse_yaml
from uniadrs_scale.storage.urls import in_bucket

if TYPE_CHECKING:
    from uniadrs_scale.core.presets import Preset

LARGE = 1_000_000  # side of a scene that any tile and chunk fit in [px]
SEE = "Write an example with 'uniadrs-scale sweep --init', and compare."
LONG = dict, list, Section
VARIABLE = re.compile(r"\$[{\w]")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> timedelta:
    """Return the time that ``90s``, ``30m``, ``6h`` or ``2d`` names.

    Raises:
        ArchiveError: ``text`` is not such a time, or 0.
    """
    match = re.fullmatch(r"(\d+)([smhd])", str(text).strip())
    seconds = int(match[1]) * UNITS[match[2]] if match else 0
    if not 0 < seconds <= MOST_DAYS * UNITS["d"]:
        raise ArchiveError(f"Duration '{text}' is unknown. Use a number and s, m, h or d: 6h.")
    return timedelta(seconds=seconds)


def _place(value: Any, info: ValidationInfo) -> Place:
    """Return the place that a description names; relative paths count from its folder."""
    if isinstance(value, Place):
        return value
    if not (isinstance(value, str | Path) and str(value).strip()) or VARIABLE.search(str(value)):
        raise ValueError("it takes a path or URL; variables such as $HOME are not replaced")
    if in_bucket(value):  # a whole bucket will do
        return Place(str(value).rstrip("/"))
    try:
        base = (info.context or {}).get("base", "")
        return Place.of(value if "://" in str(value) else Path(value).expanduser(), base)
    except (StoreError, RuntimeError) as error:
        raise ValueError(str(error).rstrip(".")) from None


Anchored = Annotated[Place, BeforeValidator(_place)]
"""A path or a URL in a bucket."""


class Folder(Section):
    """Raster files below a folder."""

    type: Literal["folder"]
    path: Anchored
    """The folder. Relative paths count from the file that holds them. Or a prefix in a bucket:
    ``s3://BUCKET/PREFIX``."""
    glob: str = "**/*.tif"
    """Pattern of files; ``**`` is any depth. A product folder (``*.SAFE``) may match as well."""
    group: Literal["file", "folder"] = "file"
    """file: each match is a scene. folder: all matches in one folder are the bands of a scene."""


class Static(Section):
    """A STAC catalog or collection of JSON files."""

    type: Literal["stac"]
    href: str
    """File or URL of the catalog, collection or item collection."""
    assets: tuple[str, ...] = ()
    """Names or common names of the assets to open, in the order of bands. Default: all data."""


class Search(Section):
    """Items that a STAC API finds."""

    type: Literal["api"]
    href: str
    """URL of the API's landing page."""
    collections: tuple[str, ...]
    """Collections to search."""
    query: dict[str, Any] = Field(default_factory=dict)
    """More search parameters, as pystac-client's ``Client.search`` takes them."""
    assets: tuple[str, ...] = ()
    """As for ``stac``."""


class Output(Section):
    """Place and form of maps."""

    folder: Anchored
    """A local (or mounted) folder, or a prefix in a bucket (``s3://BUCKET/PREFIX``): one folder per
    scene, and ``collection.json``."""
    formats: tuple[Literal["cog", "zarr", "targets", "report"], ...] = Field(("cog",), min_length=1)
    """cog (opens in QGIS), zarr (lazy), targets (a GeoPackage), report (a page), or several."""
    second_look: bool = False
    """Also say which targets tiles at other places find again, and how they stand out."""
    quicklook: bool = True
    """Also a PNG of at most 2048 px: the scene next to its map, and the highest peaks."""
    collection: str = Field(default="anomaly-maps", min_length=1)
    """Id of the STAC collection."""
    title: str = "Anomaly maps"
    """Text of the collection, for people."""
    description: str = "How strongly each pixel deviates from its surroundings, 0 to 1."
    """Longer text, for people."""
    licence: str = "other"
    """SPDX identifier of the maps' licence, or ``other``."""


class Channel(Section):
    """A receiver of the report of a sweep, as JSON."""

    webhook: str | None = Field(default=None, pattern=r"^https?://")
    """URL to POST to."""
    command: tuple[str, ...] = ()
    """Program and arguments, run without a shell; reads the report from standard input."""


class Notify(Section):
    """Receivers of messages. A sweep that had nothing to do sends none."""

    on_complete: Channel = Channel()
    """If everything that was to do is done."""
    on_failure: Channel = Channel()
    """If a scene failed, or the sweep itself did."""


class Sizes(Section):
    """Options of ``plan``. Sizes that fit no scene at all are refused at once."""

    preset: str = "auto"
    """Kind of imagery: auto decides by a scene's bands."""
    tile: int | None = Field(default=None, ge=1, strict=True)
    """Side of the tiles that the network scores [px]. Default: the preset's."""
    stride: int | None = Field(default=None, ge=1, strict=True)
    """Step between tiles [px]. Default: an eighth of a tile overlaps."""
    chunk: int | None = Field(default=None, ge=1, strict=True)
    """Side of the pieces that are computed and stored as one [px]. Default: by the scene's size."""

    @property
    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults: to write a default means no rework."""
        return self.model_dump(exclude_defaults=True)

    @model_validator(mode="after")
    def _fit_some_scene(self) -> Sizes:
        kinds = PRESETS.values() if self.preset == "auto" else [PRESETS.get(self.preset)]
        if all(faults := [self._fault(kind) for kind in kinds]):
            raise ValueError(faults[0])
        return self

    def _fault(self, kind: Preset | None) -> str:
        """Return why no large scene of this kind can be planned; empty if it can."""
        if kind is None:
            return f"preset '{self.preset}' is unknown. Use auto, {', '.join(PRESETS)}"
        tile = self.tile or kind.tile
        stride = self.stride or kind.stride(tile)
        chunk = (self.tile and self.chunk) or LARGE  # one is raised to the tile of a preset
        try:
            Lattice(height=LARGE, width=LARGE, tile=tile, stride=stride, chunk=chunk)
        except PlanError as error:
            return str(error).rstrip(".")
        return ""


class ArchiveConfig(Section):
    """The description of an archive."""

    source: Annotated[Folder | Static | Search, Field(discriminator="type")]
    """Source of scenes."""
    filters: Filters = Filters()
    """Conditions for scenes."""
    output: Output
    """Place and form of maps."""
    scene: dict[str, Any] = Field(default_factory=dict)
    """Options of ``open_scene``: bands, nodata and so on."""
    detector: dict[str, Any] = Field(default_factory=dict)
    """Options of ``Detector.load``: weights, device, dtype."""
    plan: Sizes = Sizes()
    """Options of ``plan``."""
    scheduler: str | None = None
    """None: worker processes on this machine; sync, threads, or the address of a Dask cluster."""
    workers: int | None = Field(default=None, ge=1)
    """Worker processes on this machine. Default: one per core, or one per GPU."""
    wait_for_workers: Annotated[timedelta, BeforeValidator(duration)] | None = None
    """How long a Dask cluster may be without workers: 90s, 30m, 6h. Default: 1m."""
    tries: int = Field(default=3, ge=1)
    """A scene is tried once per sweep; after so many failures it is parked."""
    interruptions: int = Field(default=10, ge=1)
    """So many interrupted tries (process killed) also park a scene: it may be the cause."""
    publish_incomplete: bool = False
    """At its last try, publish a map with failed tiles (NaN there) instead of parking the scene."""
    keep_days: float | None = Field(default=None, gt=0, le=MOST_DAYS)
    """Products of older acquisitions are removed, and older acquisitions not scored."""
    status_page: Anchored | None = None
    """Page that a sweep keeps up to date, next to the maps: its links are relative."""
    notify: Notify = Notify()
    """Receivers of a message when a sweep ends."""

    @model_validator(mode="after")
    def _options_exist(self) -> ArchiveConfig:
        require_options("scene", self.scene)
        if self.output.second_look and "targets" not in self.output.formats:
            raise ValueError("output.second_look is about targets: add targets to output.formats")
        require_options("detector", self.detector)
        if self.status_page is not None and self.status_page.suffix.lower() not in PAGES:
            raise ValueError(f"status_page '{self.status_page}' does not end in .html")
        if self.workers is not None and self.scheduler is not None:
            raise ValueError("workers are processes of this machine: drop workers or scheduler")
        if self.wait_for_workers is not None and self.scheduler in LOCAL:
            raise ValueError("wait_for_workers is for clusters: drop it, or the scheduler")
        blind = self.filters.bbox or self.filters.cloud_cover is not None or self.filters.properties
        if isinstance(self.source, Folder) and blind:
            raise ValueError(
                "a folder has neither footprints nor properties: filter by time, or use STAC"
            )
        return self

    @property
    def recipe(self) -> dict[str, Any]:
        """The options that change products, as JSON values."""
        return {
            "scene": {name: repr(value) for name, value in chosen(self.scene).items()},
            "plan": {name: repr(value) for name, value in self.plan.given.items()},
            "formats": sorted(set(self.output.formats)),
            "quicklook": self.output.quicklook,
            **({"second_look": True} if self.output.second_look else {}),
        }

    @property
    def digest(self) -> str:
        """A digest that changes if the products would."""
        return digest(self.recipe)


def load_config(path: str | Path) -> ArchiveConfig:
    """Read the description in a YAML file; relative paths in it count from its folder.

    Raises:
        ArchiveError: The file is missing or not YAML, or a field has a value that is not allowed.
    """
    base = Path(path).absolute().parent
    if re.search("[\ud800-\udfff]", str(base)):
        raise ArchiveError(f"The name of folder {str(base)!a} is not UTF-8. Rename it.")
    try:
        values = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        known = error.strerror if isinstance(error, OSError) else None
        why = f": {known}" if known else f" as YAML: {' '.join(str(error).split())}"
        raise ArchiveError(f"Description '{path}' cannot be read{why}. {SEE}") from None
    if not isinstance(values, dict):
        raise ArchiveError(f"Description '{path}' has no fields. {SEE}")
    try:
        return _anchored(ArchiveConfig.model_validate(values, context={"base": base}), base)
    except ValidationError as error:
        raise ArchiveError(f"'{path}': {_sentences(error)}") from None


def example() -> str:
    """Return a commented description, with every field."""
    return resources.files("uniadrs_scale.archive").joinpath("example.yaml").read_text("utf-8")


def _anchored(config: ArchiveConfig, base: Path) -> ArchiveConfig:
    """Return ``config`` with catalog and weights as absolute paths; names of weights stay."""
    source, detector = config.source, config.detector
    if isinstance(source, Static) and "://" not in source.href:
        source = source.model_copy(update={"href": str(base / Path(source.href).expanduser())})
    weights = base / Path(str(detector.get("weights", ""))).expanduser()
    if weights.is_file():
        detector = detector | {"weights": str(weights)}
    return config.model_copy(update={"source": source, "detector": detector})


def _sentences(error: ValidationError) -> str:
    lines = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"]) or "fields"
        message = fault["msg"].removeprefix("Value error, ")
        got, silent = fault["input"], PydanticUndefined
        value = "" if got is silent or isinstance(got, LONG) else f" (got {got!r:.80})"
        lines.append(f"{place}: {message}{value}")
    return "; ".join(lines) + f". {SEE}"
