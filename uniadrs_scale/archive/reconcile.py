"""What a sweep has to do, decided before anything is touched. Pure: the heart of the archive."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from uniadrs_scale.plan import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from uniadrs_scale.archive.items import SourceItem


class Action(StrEnum):
    """What is to become of one item."""

    SCORE = "score"
    KEEP = "keep"
    """Its product is there."""
    PARKED = "parked"
    """Given up until its input or the recipe changes, or somebody says `retry`."""
    EXPIRED = "expired"
    """Older than the retention lets a product be."""
    REFUSE = "refuse"
    """It cannot have a product of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What decides a product beside its input; each field a digest or a name."""

    config: str
    detector: str
    version: str

    def fingerprint(self, identity: str) -> Fingerprint:
        """Of the product that this recipe makes of the input with ``identity``."""
        return Fingerprint(
            input=identity, config=self.config, detector=self.detector, version=self.version
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Equal for products that would be equal."""

    input: str
    config: str
    detector: str
    version: str

    @property
    def key(self) -> str:
        """16 hex digits; also the name of the product's folder."""
        return digest(self.to_dict())

    def to_dict(self) -> dict[str, str]:
        """Plain values, as the product's item carries them."""
        names = ("input", "config", "detector", "version")
        return {name: str(getattr(self, name)) for name in names}

    def changes(self, old: Mapping[str, str]) -> str:
        """Which parts differ from ``old``, for people."""
        return ", ".join(name for name, value in self.to_dict().items() if old.get(name) != value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """What was tried without success, for one fingerprint of one item."""

    key: str
    failures: int = 0
    interruptions: int = 0
    """Tries that began and whose end nobody saw: the process was killed, the machine lost."""
    error: str = ""
    """The last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the sink knows of the archive's items, by name."""

    products: Mapping[str, Mapping[str, str]]
    """Parts of the fingerprint of each product that is there and whole."""
    tries: Mapping[str, Tries]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How often to try, and how far back to go."""

    tries: int
    interruptions: int
    oldest: datetime | None
    """Acquisitions before this have no product, and lose the one they have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with one item, and why."""

    item: SourceItem
    action: Action
    reason: str
    fingerprint: Fingerprint

    @property
    def name(self) -> str:
        """Of the item's folder in the sink."""
        return self.item.name


def reconcile(
    items: Sequence[SourceItem], known: Known, recipe: Recipe, policy: Policy
) -> tuple[Decision, ...]:
    """One decision an item, in the order of ``items``.

    Nothing is decided by order, time of day or chance, except that of items with one id the first
    is taken.
    """
    seen: set[str] = set()
    decisions = []
    for item in items:
        fingerprint = recipe.fingerprint(item.identity)
        if item.name in seen:
            action, reason = Action.REFUSE, f"another item of the source has the id '{item.id}'"
        else:
            action, reason = _decide(item, fingerprint, known, policy)
        seen.add(item.name)
        decisions.append(Decision(item=item, action=action, reason=reason, fingerprint=fingerprint))
    return tuple(decisions)


def _decide(
    item: SourceItem, fingerprint: Fingerprint, known: Known, policy: Policy
) -> tuple[Action, str]:
    # The time of an item that cannot be read is unknown.
    if policy.oldest is not None and item.when < policy.oldest and not item.fault:
        return Action.EXPIRED, f"acquired {item.when:%Y-%m-%d}, before {policy.oldest:%Y-%m-%d}"
    product = known.products.get(item.name)
    if product is not None and not (changed := fingerprint.changes(product)):
        return Action.KEEP, "done"
    if product is not None and item.fault:
        # An input that cannot be looked at is no reason to doubt the map that was made of it.
        return Action.KEEP, f"done; its input cannot be checked: {item.fault}"
    tries = known.tries.get(item.name)
    if tries is not None and tries.key == fingerprint.key:
        return _try_again(tries, policy)
    return Action.SCORE, "new" if product is None else f"changed: {changed}"


def _try_again(tries: Tries, policy: Policy) -> tuple[Action, str]:
    if tries.failures >= policy.tries:
        return Action.PARKED, f"failed {tries.failures} times, last: {tries.error}"
    if tries.interruptions >= policy.interruptions:
        return Action.PARKED, f"cut short {tries.interruptions} times: it may kill the process"
    if tries.failures:
        return Action.SCORE, f"try {tries.failures + 1} of {policy.tries}: {tries.error}"
    return Action.SCORE, "resumed"


def count(decisions: Iterable[Decision]) -> dict[str, int]:
    """Number of decisions by action, each action named."""
    found = Counter(decision.action for decision in decisions)
    return {str(action): found[action] for action in Action}
