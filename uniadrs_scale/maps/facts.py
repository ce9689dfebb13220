"""The origin of a map: who made it, of which scene, and how to read it.

The same words are in the attributes of a store and in the tags of a COG.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, cast

from uniadrs_scale.core.contracts import digest, is_score_alone
from uniadrs_scale.core.layers import SCORE, Part
from uniadrs_scale.core.levels import Levels
from uniadrs_scale.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uniadrs_scale.core.layers import Layer
    from uniadrs_scale.core.plan import ScorePlan

SOFTWARE = "uniadrs_scale"
TITLE = "Anomaly scores of "
CROP = "crop"
"""Attribute and tag of the part that was scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapFacts:
    """Provenance of a map; empty texts for what is not known."""

    scene: str = ""
    """Name of the scene."""
    datetime: str = ""
    """Time of acquisition."""
    platform: str = ""
    software: str = ""
    """Name and version of what made the scores."""
    detector: str = ""
    """Identity of the scorer."""
    weights: str = ""
    """SHA-256 of the weights."""
    preset: str = ""
    fingerprint: str = ""
    missing: int = field(default=0, metadata={"tag": None})
    """Chunks without all of their scores."""
    chunks: int = field(default=0, metadata={"tag": None})
    """All chunks; 0 if unknown."""
    levels: Levels | None = field(default=None, metadata={"tag": None})
    plan: Mapping[str, Any] = field(default_factory=dict, metadata={"tag": None}, repr=False)
    """Everything that decided the scores; empty if unknown."""
    parts: tuple[Part, ...] = field(default=(), metadata={"tag": None}, repr=False)
    """The part of a larger scene that was scored, or several, each a part of the one before."""

    @property
    def ours(self) -> bool:
        """True if a run of this library made the map."""
        return bool(self.fingerprint) and self.software.startswith(SOFTWARE)

    @property
    def complete(self) -> str:
        """The state of the map, in words."""
        if not self.chunks:
            return "unknown"
        if not self.missing:
            return "yes"
        return f"no, {self.missing} of {self.chunks} chunks are not complete"

    @classmethod
    def of_attributes(cls, attributes: Mapping[str, Any], name: str) -> MapFacts:
        """Return the facts in the attributes of a store; ``name`` is for messages.

        Raises:
            StoreError: The levels are damaged.
        """
        plan = attributes.get("plan")
        plan = plan if isinstance(plan, dict) else {}
        scene = plan.get("scene")
        words: dict[str, Any] = {n: str(attributes.get(n, "")) for n in _texts()}
        if isinstance(scene, dict) and not words["scene"]:
            words["scene"] = str(scene.get("name", ""))
        words["detector"] = str(plan.get("detector", ""))
        levels, parts = _levels(attributes.get("levels"), name), _parts(attributes.get(CROP), name)
        return cls(**words, levels=levels, plan=plan, parts=parts)

    @classmethod
    def of_tags(cls, tags: Mapping[str, str], name: str) -> MapFacts:
        """Return the facts in the tags of a COG; ``name`` is for messages.

        Raises:
            StoreError: The levels are damaged.
        """
        words: dict[str, Any] = {text: tags.get(text, "") for text in _texts()}
        words["software"] = tags.get("TIFFTAG_SOFTWARE", "")
        missing, _, chunks = tags.get("missing_chunks", "").partition(" of ")
        for count, value in (("missing", missing), ("chunks", chunks)):
            words[count] = int(value) if value.isdecimal() else 0
        levels, parts, plan = (_json(tags.get(tag)) for tag in ("levels", CROP, "plan"))
        if not isinstance(plan, dict) or digest(plan) != words["fingerprint"]:
            plan = {}
        return cls(**words, levels=_levels(levels, name), plan=plan, parts=_parts(parts, name))

    def tags(self, layers: tuple[Layer, ...] = (SCORE,)) -> dict[str, str]:
        """Return the tags of a COG with these facts and layers."""
        words = {name: getattr(self, name) for name in _texts() if name != "software"}
        words |= {"TIFFTAG_SOFTWARE": self.software or SOFTWARE}
        if self.scene:
            words["TIFFTAG_IMAGEDESCRIPTION"] = title_of(self.scene, layers)
        if self.chunks:
            words["missing_chunks"] = f"{self.missing} of {self.chunks}"
        if self.levels is not None:
            words["levels"] = json.dumps(self.levels.to_json())
        if self.plan:
            words["plan"] = json.dumps(self.plan)
        if self.parts:
            words[CROP] = json.dumps([part.to_json() for part in self.parts])
        return {name: text for name, text in words.items() if text}

    def lines(self) -> dict[str, str]:
        """Return the facts by name, for people."""
        words = {name: getattr(self, name) or "unknown" for name in _texts()}
        levels = self.levels
        read = (
            "none: choose a threshold by its result, or the highest scores"
            if levels is None
            else levels.text()
        )
        crop = {"crop": "; of these ".join(map(str, self.parts))} if self.parts else {}
        return words | crop | {"levels": read, "complete": self.complete}


def title_of(scene: str, layers: tuple[Layer, ...]) -> str:
    """Return the title of the map of a scene."""
    if is_score_alone(layers):
        return f"{TITLE}{scene}"
    return f"{', '.join(layer.name for layer in layers)} of {scene}"


def attributes_of(plan: ScorePlan, weights: str | None) -> dict[str, Any]:
    """Return the attributes of the store of a plan; they decide no score."""
    scene = plan.scene
    said: dict[str, Any] = {
        "scene": scene.name,
        "datetime": scene.acquired,
        "platform": scene.platform,
        "preset": plan.preset_name,
        "weights": weights or "",
    }
    if scene.parts:
        said[CROP] = [part.to_json() for part in scene.parts]
    title, layers = title_of(scene.name, plan.layers), {}
    if not is_score_alone(plan.layers):
        layers = {"layers": [layer.to_json() for layer in plan.layers]}
    return {
        # CF 1.11: conventions, title and source are its names.
        "Conventions": "CF-1.11",
        "title": title,
        "source": f"{SOFTWARE} {plan.version}, {plan.detector}",
        "software": f"{SOFTWARE} {plan.version}",
        **{name: value for name, value in said.items() if value},
        "fingerprint": plan.fingerprint,
        "plan": plan.decisive(),
        **layers,
    }


def _texts() -> list[str]:
    return [field.name for field in fields(MapFacts) if "tag" not in field.metadata]


def _levels(values: object, name: str) -> Levels | None:
    if values is None:
        return None
    try:
        return Levels.from_json(values)
    except ValueError as error:
        raise StoreError(
            f"The levels of '{name}' are damaged ({error}). Score the scene again."
        ) from None


def _parts(values: object, name: str) -> tuple[Part, ...]:
    if values is None:
        return ()
    try:
        return tuple(Part.from_json(part) for part in cast("list[Any]", values))
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"The part of the scene in '{name}' is damaged ({error}). Score the scene again."
        ) from None


def _json(text: str | None) -> Any:
    """Return the value of a tag, None without a tag; its text if that is not JSON."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text
