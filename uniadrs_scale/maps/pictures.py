"""The picture of a map: the scene beside it, the highest scores numbered, and close-ups of them.

Drawn with Pillow: a figure of matplotlib takes ten times as long, and a sweep draws one per scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from uniadrs_scale.core.levels import GROW, RATES
from uniadrs_scale.maps.colours import NODATA, PLAIN, map_colours, scale
from uniadrs_scale.maps.facts import SOFTWARE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.core.levels import Levels
    from uniadrs_scale.maps.facts import MapFacts
    from uniadrs_scale.maps.peaks import Peak

    Pixels = NDArray[np.uint8]
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
INK, SOFT, RING, HALO = "#1d1d1f", "#6b6b70", "#22e0ff", "#00000090"
LONGEST = 90
"""Characters of a foreign text."""
SUPER = 4
"""Pixels that a ring is drawn with, per pixel of the picture: Pillow's edges are jagged."""


class Preview(Protocol):
    """A picture of the scene."""

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """(y, x, 3), a pixel per square."""

    @property
    def factor(self) -> int:
        """Map pixels per side of a square."""

    @property
    def bands(self) -> str:
        """The bands shown, for people."""

    def window(self, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """Return (y, x, 3) of a window at full resolution."""


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

    def at(self, peak: Peak) -> tuple[float, float]:
        """Return x and y of a map pixel in a panel [px]."""
        x, y = ((n + 0.5) / self.factor * self.zoom for n in (peak.col, peak.row))
        return x, y


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """Everything that a picture shows."""

    small: NDArray[np.float32]
    """(y, x) highest score of each square of the layout's factor; NaN = no score."""
    read: Callable[[slice, slice], NDArray[np.float32]]
    """Reader of a window of the map (y, x)."""
    peaks: Sequence[Peak]
    """Peaks to number, falling."""
    facts: MapFacts
    scene: Preview | None = None
    levels: Levels | None = None


def draw(subject: Subject, layout: Layout) -> Image.Image:
    """Return the picture."""
    # The wider the picture, the more close-ups fit side by side.
    room = layout.size[0] - 2 * MARGIN + SPACE
    count = min(len(subject.peaks), room // (CLOSE + SPACE))
    width, height = layout.size
    strip = NUMBERS + layout.panels * (CLOSE + SPACE) + GAP if count else 0
    image = Image.new("RGB", (width, height + strip), "white")
    pen = ImageDraw.Draw(image, "RGBA")
    panels = [map_colours(subject.small, subject.levels)[..., :3]]
    if subject.scene is not None:
        panels.insert(0, subject.scene.rgb)
    for number, pixels in enumerate(panels):
        corner = layout.corner(number)
        image.paste(_zoomed(pixels, layout.zoom), corner)
        for rank, peak in enumerate(subject.peaks, start=1):
            x, y = layout.at(peak)
            _ring(image, pen, (corner[0] + x, corner[1] + y), str(rank))
    _colour_bar(image, pen, layout, subject.levels)
    _letter(pen, layout, subject)
    for rank, peak in enumerate(subject.peaks[:count], start=1):
        left = MARGIN + (rank - 1) * (CLOSE + SPACE)
        _text(pen, (left, height), f"{rank}  {peak.score:.2f}", 13, SOFT)
        for row, pixels in enumerate(_around(peak, subject, layout.shape)):
            top = height + NUMBERS + row * (CLOSE + SPACE)
            image.paste(_zoomed(pixels, CLOSE // len(pixels)), (left, top))
    return image


def save(image: Image.Image, path: Path, facts: MapFacts) -> None:
    """Write a PNG that says who made it."""
    info = PngInfo()
    info.add_text("Software", SOFTWARE)
    info.add_itxt("Title", facts.scene[:LONGEST])
    image.save(path, "PNG", pnginfo=info, compress_level=4)


def sentence(subject: Subject) -> str:
    """Return what the map shows, in words."""
    known = subject.small[np.isfinite(subject.small)]
    if not known.size:
        return "no pixel has a score"
    highest = f"the highest score is {known.max():.3f}"
    levels, peaks = subject.levels, subject.peaks
    if levels is None:
        return f"{highest}; these scores have no levels, so colours show the score alone"
    if not peaks:
        return f"nothing reaches level low ({levels.low:.3f}): {highest}"
    reached = [levels.level_of(peak.score) for peak in peaks]
    counts = [f"{reached.count(n)} {n}" for n in reversed(RATES) if n in reached]
    return f"{highest}; the {len(peaks)} highest peaks: {', '.join(counts)}"


def least_peak(levels: Levels | None) -> float:
    """Return the lowest score that is numbered."""
    return max(GROW, PLAIN["low"] if levels is None else levels.low)


def _around(peak: Peak, subject: Subject, shape: Box) -> list[Pixels]:
    """Return windows of scene and map around a peak, grey beyond the edges."""
    height, width = shape
    top, left = peak.row - REACH, peak.col - REACH
    rows = slice(max(top, 0), min(top + 2 * REACH, height))
    cols = slice(max(left, 0), min(left + 2 * REACH, width))
    seen = [map_colours(subject.read(rows, cols), subject.levels)[..., :3]]
    if subject.scene is not None:
        seen.insert(0, subject.scene.window(rows, cols))
    grey = np.array(Image.new("RGB", (2 * REACH, 2 * REACH), NODATA), np.uint8)
    windows = []
    for pixels in seen:
        window = grey.copy()
        down, right = rows.start - top, cols.start - left
        window[down : down + pixels.shape[0], right : right + pixels.shape[1]] = pixels
        windows.append(window)
    return windows


def _zoomed(pixels: Pixels, zoom: int) -> Image.Image:
    """Return an image whose pixels are squares."""
    return Image.fromarray(np.ascontiguousarray(pixels.repeat(zoom, 0).repeat(zoom, 1)))


def _ring(image: Image.Image, pen: Any, centre: tuple[float, float], number: str) -> None:
    """Draw a circle with a number to its upper right, or to its upper left at the right edge."""
    radius, half = 11, 16
    box = int(centre[0]) - half, int(centre[1]) - half
    stamp = _stamp(radius, half)
    image.paste(stamp, box, stamp)
    length = _font(14).getlength(number)
    x = centre[0] + radius if centre[0] + radius + length < image.width - 4 else centre[0] - 26
    place = (x, max(centre[1] - radius - 12, 2))
    pen.text(place, number, RING, _font(14), stroke_width=2, stroke_fill=HALO)


@cache
def _stamp(radius: int, half: int) -> Image.Image:
    """Return a ring on nothing, with a dark edge that shows on any ground."""
    side, middle = 2 * half * SUPER, half * SUPER
    large = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    pen = ImageDraw.Draw(large)
    for width, colour in ((4, HALO), (2, RING)):
        reach = (radius + width / 2) * SUPER
        box = [middle - reach, middle - reach, middle + reach, middle + reach]
        pen.ellipse(box, outline=colour, width=width * SUPER)
    return large.resize((2 * half, 2 * half), Image.Resampling.LANCZOS)


def _colour_bar(image: Image.Image, pen: Any, layout: Layout, levels: Levels | None) -> None:
    """Draw the scale beside the map, evenly by colour, with the scores where levels begin."""
    left, top = layout.corner(layout.panels - 1)
    height, width = layout.panel
    left += width + 8
    stops = scale(levels)
    shades = np.linspace(1, 0, height)
    scores = np.interp(shades, [s.shade for s in stops], [s.score for s in stops])
    bar = map_colours(scores.astype(np.float32)[:, None], levels)[..., :3]
    image.paste(Image.fromarray(np.ascontiguousarray(bar.repeat(14, 1))), (left, top))
    below = top + height
    for stop in stops:
        y = top + (1 - stop.shade) * (height - 1)
        place = (left + 20, min(max(y, top + 7), below - 7))
        pen.line([(left + 14, y), (left + 18, y)], SOFT)
        label = f"{stop.score:.4g}"
        if levels is not None and stop.level:
            label = f"{stop.score:.3f}\n{stop.level}"
        pen.multiline_text(place, label, INK, _font(12), anchor="lm", spacing=1)


def _letter(pen: Any, layout: Layout, subject: Subject) -> None:
    """Write the name of the scene, its facts, and what the map shows."""
    facts, room = subject.facts, layout.size[0] - 2 * MARGIN
    height, width = layout.shape
    shown = None if subject.scene is None else f"shown: {subject.scene.bands}"
    words = [f"{height} x {width} px", shown, facts.datetime, facts.platform, facts.preset]
    if facts.missing:
        words.append(f"not complete: {facts.missing} of {facts.chunks} chunks are missing")
    _text(pen, (MARGIN, 14), facts.scene or "Anomaly map", 21, INK, room)
    _text(pen, (MARGIN, 44), " \u00b7 ".join(word for word in words if word), 14, SOFT, room)
    _text(pen, (MARGIN, 64), sentence(subject), 14, INK, room)


def _text(
    pen: Any, place: Box, text: str, size: int, colour: str, room: int | None = None
) -> None:
    """Write one line; foreign text may be long or hold line breaks."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    if room is not None:
        kept = len(line)
        while kept > 1 and _font(size).getlength(line[:kept]) > room:
            kept -= 1
        line = line if kept == len(line) else f"{line[: kept - 1]}\u2026"
    pen.text(place, line, colour, _font(size))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font that comes with matplotlib, which has most scripts' letters."""
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, size)
