"""A part of a scene that is scored as a scene of its own. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uniadrs_scale.core.lattice import Window

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Part:
    """A window of a larger scene that was scored as a scene of its own."""

    window: Window
    whole: tuple[int, int]
    """Size (y, x) of the larger scene."""
    area: str = ""
    """Area outside of which pixels are invalid, as text; empty for none."""

    def __post_init__(self) -> None:
        """Refuse a window that is not in the larger scene."""
        least, size = min(self.window.row, self.window.col), self.whole
        if least < 0 or Window(0, 0, *size).intersection(self.window) != self.window:
            raise ValueError(f"{self.window} is not a part of {size[0]} x {size[1]} px")

    def __str__(self) -> str:
        (top, left), (bottom, right), (height, width) = self.origin, self.window.stop, self.whole
        ends = f"rows {top} to {bottom}, columns {left} to {right} of {height} x {width} px"
        return f"{ends}, in an area" if self.area else ends

    @property
    def origin(self) -> tuple[int, int]:
        """(row, col) of the first pixel in the larger scene."""
        return self.window.row, self.window.col

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        size = [self.window.height, self.window.width]
        plain = {"origin": list(self.origin), "size": size, "whole": list(self.whole)}
        return plain | ({"area": self.area} if self.area else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Part:
        """Return the part that :meth:`to_json` describes.

        Raises:
            ValueError: It describes none.
        """
        try:
            sides = [int(side) for name in ("origin", "size") for side in values[name]]
            height, width = map(int, values["whole"])
            return cls(Window(*sides), (height, width), str(values.get("area", "")))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{values!r:.80} is not a part of a scene") from error
