"""Items of an archive, checks of source and sink, and the decision about each item. Pure."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from uniadrs_scale.core.contracts import digest
from uniadrs_scale.errors import ArchiveError, counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from uniadrs_scale.scenes.products.metadata import Product

LONGEST_NAME = 120
"""Characters of a folder name, far below the 255 bytes that file systems allow."""
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?<!\.json)(?<!\.html)", re.ASCII)
"""Ids that are used as names; not those of files next to the folders of scenes."""
Box = tuple[float, float, float, float]
"""West, south, east, north in degrees; west > east if it crosses the antimeridian."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceItem:
    """One scene of an archive, as its source lists it."""

    id: str
    """Id in the source; never used as a path."""
    when: datetime
    """Time of acquisition, or the best substitute; aware."""
    hrefs: tuple[str, ...]
    """Files to open, in the order of bands."""
    identity: str
    """Changes when the input does: checksums, entity tags, or sizes and times."""
    href: str
    """URL or path of the item itself, for the link back."""
    geometry: Mapping[str, Any] | None = None
    """GeoJSON, degrees; None if the source has none."""
    box: Box | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    product: Product | None = None
    """Bands, nodata values and masks as a STAC item describes them; None: open ``hrefs``."""
    dated_by: str = ""
    """Origin of ``when`` if it is not the time of acquisition."""
    fault: str = ""
    """Why it cannot be opened, if the listing shows that already."""

    @property
    def name(self) -> str:
        """Name of its folder in the sink."""
        return safe_name(self.id)


def safe_name(identifier: str) -> str:
    """Return a file name for any id: plain ids stay, others are spelled plainly and get a digest.

    Ids come from metadata that others wrote. The result has no separator, no leading dot and at
    most LONGEST_NAME characters, so it cannot leave the folder it is used in, nor hide there.

    >>> safe_name("S2A_20240101")
    'S2A_20240101'
    >>> safe_name("../../x").partition("-")[0]
    'x'
    """
    if len(identifier) <= LONGEST_NAME and PLAIN.fullmatch(identifier):
        return identifier
    # The digest tells ids apart that have the same plain spelling.
    digest = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    letters = unicodedata.normalize("NFKD", identifier).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._]+", "_", letters).strip("._")
    return f"{plain[: LONGEST_NAME - 17]}-{digest}" if plain else f"item-{digest}"


class Action(StrEnum):
    """The decision about one item."""

    SCORE = "score"
    KEEP = "keep"
    """Its product is there."""
    PARKED = "parked"
    """Given up until its input or the recipe changes, or `retry` is run."""
    EXPIRED = "expired"
    """Older than products may be."""
    REFUSE = "refuse"
    """It cannot have its own product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Everything that decides the bytes of a product; without ``input``, a recipe for many."""

    input: str = ""
    config: str
    detector: str
    version: str

    @property
    def key(self) -> str:
        """16 hex digits; also the name of the product's folder."""
        return digest(self.to_dict())

    def to_dict(self) -> dict[str, str]:
        """Return plain values, as the product's item carries them."""
        return asdict(self)

    def changes(self, old: Mapping[str, str]) -> list[str]:
        """Return the names of the parts that differ from ``old``."""
        return [name for name, value in self.to_dict().items() if old.get(name) != value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """Failed and interrupted tries, for one fingerprint of one item."""

    key: str
    failures: int = 0
    interruptions: int = 0
    """Tries that began and did not end: the process was killed, the machine lost."""
    error: str = ""
    """The last failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Products and tries in the sink, by name."""

    products: Mapping[str, Mapping[str, str]]
    """Parts of the fingerprint of each whole product."""
    tries: Mapping[str, Tries]
    damaged: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with the other products."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Names of the options that differ from those of earlier sweeps, by the digest of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Limits on tries and age."""

    tries: int
    interruptions: int
    oldest: datetime | None
    """Acquisitions before this have no product; an existing one is removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The action for one item, and the reason."""

    item: SourceItem
    action: Action
    reason: str
    fingerprint: Fingerprint

    @property
    def name(self) -> str:
        """Name of the item's folder in the sink."""
        return self.item.name


def reconcile(
    items: Sequence[SourceItem], known: Known, recipe: Fingerprint, policy: Policy
) -> tuple[Decision, ...]:
    """Return one decision per item, in the order of ``items``.

    An item that is listed twice counts once. Different items with one id are all refused: if the
    first were taken, the map would follow whichever is listed first. Nothing depends on order,
    time or chance.
    """
    groups: dict[str, list[SourceItem]] = {}
    for item in items:
        group = groups.setdefault(item.name, [])
        if item not in group:
            group.append(item)
    decisions = []
    for item in items:
        group = groups[item.name]
        if not any(item is other for other in group):
            continue  # listed twice
        fingerprint = replace(recipe, input=item.identity)
        if len(group) == 1:
            action, reason = _decide(item, fingerprint, known, policy)
        else:
            action, reason = Action.REFUSE, _crowd(group)
        decisions.append(Decision(item=item, action=action, reason=reason, fingerprint=fingerprint))
    return tuple(decisions)


def _crowd(group: Sequence[SourceItem]) -> str:
    return (
        f"{len(group)} items of the source have the id '{group[0].id}', and their maps would "
        "replace each other. Rename them, or sweep them into different output folders"
    )


def _decide(
    item: SourceItem, fingerprint: Fingerprint, known: Known, policy: Policy
) -> tuple[Action, str]:
    if policy.oldest is not None and item.when < policy.oldest and not item.fault:
        return Action.EXPIRED, f"of {item.when:%Y-%m-%d}, before {policy.oldest:%Y-%m-%d}"
    product = known.products.get(item.name)
    if product is not None and not (changed := fingerprint.changes(product)):
        return Action.KEEP, "done"
    if product is not None and item.fault:
        return Action.KEEP, f"done; its input cannot be checked: {item.fault}"
    tries = known.tries.get(item.name)
    if tries is not None and tries.key == fingerprint.key:
        return _try_again(tries, policy)
    if product is None:
        return Action.SCORE, item.fault or known.damaged.get(item.name, "new")
    names = known.options.get(product.get("config", ""))
    told = [f"config ({names})" if names and part == "config" else part for part in changed]
    return Action.SCORE, f"changed: {', '.join(told)}"


def differing(runs: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of options that differ from those of ``runs``, by the digest of these.

    >>> list(differing([{"options": {"plan": {"tile": "64"}}}], {"plan": {}}).values())
    ['plan.tile']
    """
    known = {digest(run["options"]): run["options"] for run in runs if "options" in run}
    now, found = _flat(recipe), dict[str, str]()
    for key, options in known.items():
        then = _flat(options)
        found[key] = ", ".join(n for n in sorted(now | then) if now.get(n) != then.get(n))
    return found


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by the names that they have in a description."""
    parts = {k: v if isinstance(v, dict) else {k: v} for k, v in recipe.items()}
    return {
        f"{section if isinstance(recipe[section], dict) else 'output'}.{name}": value
        for section, part in parts.items()
        for name, value in part.items()
    }


def _try_again(tries: Tries, policy: Policy) -> tuple[Action, str]:
    if tries.failures >= policy.tries:
        return Action.PARKED, f"failed {counted(tries.failures, 'time')}, last: {tries.error}"
    if tries.interruptions >= policy.interruptions:
        return (
            Action.PARKED,
            f"cut short {counted(tries.interruptions, 'time')}: it may kill the process",
        )
    if tries.failures:
        return Action.SCORE, f"try {tries.failures + 1} of {policy.tries}: {tries.error}"
    return Action.SCORE, "resumed"


def require_items(listed: int, names: AbstractSet[str]) -> None:
    """Raise ArchiveError if a source lists nothing, but had the scenes ``names``."""
    if names and not listed:
        raise ArchiveError(
            f"The source is empty, but {len(names)} of its scenes have maps or were tried. Is its "
            "disk or share mounted? If it is to be empty, choose another 'output.folder' for new "
            "scenes."
        )


def require_same_archive(
    source: str,
    names: AbstractSet[str],
    known: AbstractSet[str],
    runs: Sequence[Mapping[str, Any]],
    sink: object,
) -> None:
    """Raise ArchiveError if the sink holds the maps of another archive.

    An archive may move: then most of its scenes are known.

    Args:
        source: The source of this sweep.
        names: Names of its scenes.
        known: Names of the scenes in the sink.
        runs: Earlier sweeps, the latest first.
        sink: The folder or prefix of maps.
    """
    before = next((run["source"] for run in runs if run.get("source")), source)
    few = 2 * len(names & known) < min(len(names), len(known))
    if before != source and few:
        raise ArchiveError(
            f"'{sink}' holds the maps of another archive: its source is '{before}', not "
            f"'{source}', and they share {len(names & known)} of {len(known)} scenes. Choose "
            "another 'output.folder'. If this one is to change its source, remove "
            f"'{sink}/.sweep/ledger.sqlite', which holds no maps."
        )
