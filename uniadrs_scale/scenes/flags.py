"""Quality arrays in files: classes and flags of pixels that a mask can name.

Read are the flags of CF (``flag_meanings`` with ``flag_values`` or ``flag_masks``).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.packing import numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.scenes.arrays import Variable
    from uniadrs_scale.scenes.datasets import Contents
    from uniadrs_scale.scenes.products.metadata import Mask

MANY = 16
"""Names that fit in an error message."""
CLOUD = re.compile(r"cloud|cirrus", re.IGNORECASE)
CLEAR = re.compile(
    r"(^|_)(no|not|non|free|clear|cloudless|risk)(_|$)|cloud_?free|clear", re.IGNORECASE
)
"""Meanings that contain the word cloud for pixels without one."""
FILL = re.compile(r"(fill|no_?data|missing)(_value)?", re.IGNORECASE)
"""Meanings that make a pixel invalid without being asked."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One class of pixels."""

    name: str
    value: int
    mask: int = -1
    """Bits that are compared."""
    band: int = 0
    """Band of the quality array."""


@dataclass(frozen=True, slots=True)
class Flags:
    """A quality array (y, x and maybe band) and its classes."""

    variable: Variable
    flags: tuple[Flag, ...]

    def decisive(self) -> dict[str, Any]:
        """Return what decides the mask, as JSON values."""
        return {"variable": self.variable.decisive(), "flags": [asdict(f) for f in self.flags]}

    def invalid(self, window: Window) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Yield the name of each class and the mask (y, x) of its pixels in a window."""
        rows, cols = window.slices
        for band, flags in groupby(self.flags, key=lambda flag: flag.band):
            stored = self.variable.stored(slice(band, band + 1), rows, cols)[0]
            codes = np.nan_to_num(stored, nan=0).astype(np.int64)
            for flag in flags:
                yield flag.name, (codes & flag.mask) == flag.value


def unwanted(source: str, quality: Sequence[Flags], mask: Mask) -> tuple[Flags, ...]:
    """Return the quality arrays with the classes that a caller's ``mask`` makes invalid.

    Raises:
        SceneError: The file has no such class.
    """
    known = [flag for flags in quality for flag in flags.flags]
    wanted: Any = (mask,) if isinstance(mask, str) and mask not in {"none", "cloud"} else mask
    if wanted == "cloud":
        names = {f.name for f in known if CLOUD.search(f.name) and not CLEAR.search(f.name)}
        missing: list[Any] = [] if names else ["cloud"]
    else:
        asked = () if wanted == "none" else wanted
        names = {f.name for f in known if f.name in asked or f.value in asked}
        missing = [a for a in asked if all(a not in (f.name, f.value) for f in known)]
    if missing:
        names = {flag.name for flag in known}
        listing = ", ".join(sorted(names)[:MANY]) + (", ..." if len(names) > MANY else "")
        raise SceneError(
            f"mask={missing[0]!r} is not a class of '{source}', which has {listing or 'none'}. "
            "Name one of these, or drop mask and assign your own 'valid' (y, x) to the scene."
        )
    chosen = (
        replace(
            flags, flags=tuple(f for f in flags.flags if f.name in names or FILL.fullmatch(f.name))
        )
        for flags in quality
    )
    return tuple(flags for flags in chosen if flags.flags)


def cf_flags(contents: Contents, path: str) -> tuple[Flag, ...]:
    """Return the classes that an array's CF attributes name; empty without any."""
    attributes = contents.variable(path).attrs
    meanings = str(attributes.get("flag_meanings", "")).replace(",", " ").split()
    values, masks = (
        [int(v) for v in numbers(attributes.get(name))] for name in ("flag_values", "flag_masks")
    )
    if not meanings or len(meanings) not in (len(values), len(masks)):
        return ()
    if len(masks) != len(meanings):
        masks = [-1] * len(meanings)
    if len(values) != len(meanings):
        values = masks
    return tuple(Flag(*found) for found in zip(meanings, values, masks, strict=True))
