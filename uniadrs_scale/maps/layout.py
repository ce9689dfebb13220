"""The layout of a picture: sizes and places of its panels. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uniadrs_scale.maps.peaks import Peak

Box = tuple[int, int]
MOST = 2048
"""Longest side of the picture [px]."""
WIDE = 1560
"""Width of the picture for small scenes, so that its text fits [px]."""
MARGIN, GAP, HEADER, BAR = 24, 16, 92, 92
"""White edge, space between panels, height of the text, width of the colour bar [px]."""
CLOSE, SPACE, REACH = 92, 6, 23
"""Side of a close-up, space between two [px]; map pixels around a peak."""
NUMBERS = 20
"""Height of the line of numbers over the close-ups [px]."""
MOST_ZOOM = 8
"""Pixels of the picture per pixel of a small scene, at most."""
UPRIGHT = 1.7
"""Width to height of a scene beyond which its panels are one above the other."""
SMALLEST = 11
"""Radius of a circle [px]."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of a picture of a map (y, x)."""

    shape: Box
    """Map pixels."""
    panels: int
    """1, or 2 with the scene."""
    factor: int
    """Map pixels per pixel of a panel."""
    zoom: int
    """Pixels of the picture per pixel of a panel."""

    @classmethod
    def of(cls, shape: Box, panels: int) -> Layout:
        """Return the largest layout that fits."""
        height, width = shape
        strip = 2 * CLOSE + SPACE + NUMBERS + 2 * GAP
        wide = MOST - 2 * MARGIN - BAR
        high = MOST - HEADER - strip - MARGIN
        if panels > 1:
            if width > UPRIGHT * height:
                high = (high - GAP) // panels
            else:
                wide = (wide - GAP) // panels
        factor = max(-(-width // wide), -(-height // high))
        zoom = max(1, min(MOST_ZOOM, 760 // max(shape))) if factor == 1 else 1
        return cls(shape, panels, factor, zoom)

    @property
    def stacked(self) -> bool:
        """True if the panels are one above the other."""
        return self.panels > 1 and self.shape[1] > UPRIGHT * self.shape[0]

    @property
    def panel(self) -> Box:
        """Height and width of a panel [px]."""
        height, width = (self.zoom * -(-n // self.factor) for n in self.shape)
        return height, width

    def corner(self, number: int) -> Box:
        """Return left and top of a panel [px]."""
        height, width = self.panel
        down, right = (number, 0) if self.stacked else (0, number)
        return MARGIN + right * (width + GAP), HEADER + down * (height + GAP)

    @property
    def size(self) -> Box:
        """Width and height of the picture without close-ups [px]."""
        left, top = self.corner(self.panels - 1)
        height, width = self.panel
        return max(left + width + BAR + MARGIN, WIDE), top + height + MARGIN

    @property
    def radius(self) -> int:
        """Radius of a circle [px]: a few pixels of a small scene must fit in."""
        return max(SMALLEST, round(2.5 * self.zoom))

    def at(self, peak: Peak) -> tuple[float, float]:
        """Return x and y of a map pixel in a panel [px]."""
        x, y = ((n + 0.5) / self.factor * self.zoom for n in (peak.col, peak.row))
        return x, y
