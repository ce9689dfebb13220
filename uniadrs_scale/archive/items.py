"""What an archive holds, as plain values: ids, times, footprints, identities, names. Pure."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_NAME = 120
"""Characters of a folder name, far below the 255 bytes that file systems allow."""
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?<!\.json)(?<!\.html)", re.ASCII)
"""Not the names of files that lie beside the folders of scenes."""
DATE = re.compile(r"(?<!\d)((?:19|20)\d{6})(?:[T_-]?([0-2]\d[0-5]\d[0-5]\d))?(?!\d)")

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees; west > east where it crosses the antimeridian."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceItem:
    """One scene of an archive, as its source lists it."""

    id: str
    """As the source has it; never used as a path."""
    when: datetime
    """Acquisition, or what stands for it; aware."""
    hrefs: tuple[str, ...]
    """What to open, in the order of bands."""
    identity: str
    """Changes when the input does: checksums, entity tags, or sizes and times."""
    href: str
    """Of the item itself, for the link back."""
    geometry: Mapping[str, Any] | None = None
    """GeoJSON, degrees; None where the source does not say."""
    box: Box | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""
    """Why it cannot be opened, where the listing shows that already."""

    @property
    def name(self) -> str:
        """Of its folder in the sink."""
        return safe_name(self.id)


def safe_name(identifier: str) -> str:
    """A file name for any id: plain ids stay, others are spelled plainly and get a digest.

    Ids come from metadata that others wrote. The result has no separator, no leading dot and at
    most LONGEST_NAME characters, so it cannot leave the folder it is used in, nor hide there.

    >>> safe_name("S2A_20240101")
    'S2A_20240101'
    >>> safe_name("../../x").partition("-")[0]
    'x'
    """
    if len(identifier) <= LONGEST_NAME and PLAIN.fullmatch(identifier):
        return identifier
    # The digest keeps apart what the plain spelling makes equal.
    digest = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    letters = unicodedata.normalize("NFKD", identifier).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._]+", "_", letters).strip("._")
    return f"{plain[: LONGEST_NAME - 17]}-{digest}" if plain else f"item-{digest}"


def name_time(name: str) -> datetime | None:
    """The date, and time if any, in a file name such as ``S2_20240131T101559.tif``, as UTC."""
    for date, clock in DATE.findall(name):
        # By hand: strptime takes a tenth of the time of listing a folder.
        year, month, day = int(date[:4]), int(date[4:6]), int(date[6:])
        hour, minute, second = (int(clock[k : k + 2] or 0) for k in (0, 2, 4))
        try:
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            continue
    return None


def boxes_meet(one: Box, other: Box) -> bool:
    """True where two boxes share a point; either may cross the antimeridian."""
    if one[3] < other[1] or other[3] < one[1]:
        return False
    return any(
        west <= east_b and west_b <= east
        for west, east in _spans(one)
        for west_b, east_b in _spans(other)
    )


def _spans(box: Box) -> list[tuple[float, float]]:
    west, _, east, _ = box
    return [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
