"""The picture of a map: the scene next to it, the highest scores numbered, and close-ups of them.

Drawn with Pillow: a figure of matplotlib takes ten times as long, and a sweep draws one per scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from uniadrs_scale.core.levels import GROW, RATES, score_text
from uniadrs_scale.maps.colours import NODATA, PLAIN, map_colours, matplotlib, scale
from uniadrs_scale.maps.facts import SOFTWARE
from uniadrs_scale.maps.layout import CLOSE, GAP, MARGIN, NUMBERS, REACH, SPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.core.levels import Levels
    from uniadrs_scale.maps.facts import MapFacts
    from uniadrs_scale.maps.layout import Box, Layout, Peak

    Pixels = NDArray[np.uint8]

INK, SOFT, RING, HALO = "#1d1d1f", "#6b6b70", "#22e0ff", "#00000090"
TITLE, FACTS, RESULT, NUMBER = (21, INK), (14, SOFT), (14, INK), (13, SOFT)
"""Size and colour of texts."""
LONGEST = 300
"""Characters of a foreign text."""
LOW_BAR = 240
"""Height of a colour bar up to which labels have one small line [px]."""
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
class Ring:
    """A circle around a pixel, with a text at its upper right and over its close-up."""

    peak: Peak
    text: str
    colour: str = RING


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """Everything that a picture shows."""

    title: str
    lines: Sequence[str]
    """Two lines below the title: facts in grey, then the result."""
    small: NDArray[np.float32]
    """(y, x) highest score of each square of the layout's factor; NaN = no score."""
    read: Callable[[slice, slice], NDArray[np.float32]]
    """Reader of a window of the map (y, x)."""
    rings: Sequence[Ring]
    """Circles; the first ones have close-ups."""
    scene: Preview | None = None
    levels: Levels | None = None


def draw(subject: Subject, layout: Layout) -> Image.Image:
    """Return the picture."""
    # The wider the picture, the more close-ups fit side by side.
    room = layout.size[0] - 2 * MARGIN + SPACE
    count = min(len(subject.rings), room // (CLOSE + SPACE))
    width, height = layout.size
    strip = NUMBERS + layout.panels * (CLOSE + SPACE) + GAP if count else 0
    image = Image.new("RGB", (width, height + strip), "white")
    pen = ImageDraw.Draw(image, "RGBA")
    panels = [map_colours(subject.small, subject.levels)[..., :3]]
    if subject.scene is not None:
        panels.insert(0, subject.scene.rgb)
    for number, pixels in enumerate(panels):
        panel = _zoomed(pixels, layout.zoom)  # an image of its own: rings end at its edges
        for ring in reversed(subject.rings):  # the number of the highest is on top
            _draw_ring(panel, layout.at(ring.peak), ring, layout.radius)
        image.paste(panel, layout.corner(number))
    _colour_bar(image, pen, layout, subject.levels)
    used = [layout.content, count * (CLOSE + SPACE) - SPACE]
    for top, text, style in zip(
        (14, 44, 64), (subject.title, *subject.lines), (TITLE, FACTS, RESULT), strict=False
    ):
        line = _cut(text, style, width - 2 * MARGIN)
        used.append(round(_font(style[0]).getlength(line)))
        _text(pen, (MARGIN, top), line, style)
    for column, ring in enumerate(subject.rings[:count]):
        left = MARGIN + column * (CLOSE + SPACE)
        words = f"{ring.text}  {score_text(ring.peak.score)}".strip()
        _text(pen, (left, height), words, NUMBER)
        for row, pixels in enumerate(_around(ring.peak, subject, layout.shape)):
            top = height + NUMBERS + row * (CLOSE + SPACE)
            image.paste(_zoomed(pixels, CLOSE // len(pixels)), (left, top))
    return image.crop((0, 0, min(max(used) + 2 * MARGIN, width), image.height))


def encoded(image: Image.Image, title: str) -> bytes:
    """Return a PNG that says who made it."""
    info = PngInfo()
    info.add_text("Software", SOFTWARE)
    info.add_itxt("Title", title[:LONGEST])
    buffer = BytesIO()
    image.save(buffer, "PNG", pnginfo=info, compress_level=1)
    return buffer.getvalue()


def facts_line(facts: MapFacts, shape: Box, bands: str | None) -> str:
    """Return the facts of a map, in words."""
    words = [
        f"{shape[0]} rows x {shape[1]} columns",
        "" if bands is None else f"shown: {bands}",
        facts.datetime,
        facts.platform,
        facts.preset,
    ]
    if facts.missing:
        words.append(f"not complete: {facts.missing} of {facts.chunks} chunks are missing")
    return " \u00b7 ".join(word for word in words if word)


def result_line(highest: float, peaks: Sequence[Peak], levels: Levels | None) -> str:
    """Return what a map shows, in words; ``highest`` is NaN without a score."""
    if np.isnan(highest):
        return "no pixel has a score"
    text = f"the highest score is {score_text(highest)}"
    if levels is None:
        return f"{text}; these scores have no levels, so colours show the score alone"
    if not peaks:
        return f"nothing reaches level low ({score_text(levels.low)}): {text}"
    reached = [levels.level_of(peak.score) for peak in peaks]
    counts = [f"{reached.count(n)} {n}" for n in reversed(RATES) if n in reached]
    objects = f"{len(peaks)} highest objects" if len(peaks) > 1 else "highest object"
    return f"{text}; levels of the {objects}: {', '.join(counts)}"


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


def _draw_ring(image: Image.Image, centre: tuple[float, float], ring: Ring, radius: int) -> None:
    """Draw a circle with a text to its upper right, or to its upper left at the right edge."""
    half = radius + 5
    stamp = _stamp(radius, half, ring.colour)
    image.paste(stamp, (int(centre[0]) - half, int(centre[1]) - half), stamp)
    font = _font(14)
    right = centre[0] + radius
    if right + font.getlength(ring.text) > image.width - 4:
        right = centre[0] - radius - font.getlength(ring.text)
    place = (right, max(centre[1] - radius - 12, 2))
    pen = ImageDraw.Draw(image, "RGBA")
    pen.text(place, ring.text, ring.colour, font, stroke_width=2, stroke_fill=HALO)


@cache
def _stamp(radius: int, half: int, ink: str) -> Image.Image:
    """Return a ring on nothing, with a dark edge that shows on any ground."""
    side, middle = 2 * half * SUPER, half * SUPER
    large = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    pen = ImageDraw.Draw(large)
    for width, colour in ((4, HALO), (2, ink)):
        reach = (radius + width / 2) * SUPER
        box = [middle - reach, middle - reach, middle + reach, middle + reach]
        pen.ellipse(box, outline=colour, width=width * SUPER)
    return large.resize((2 * half, 2 * half), Image.Resampling.LANCZOS)


def _colour_bar(image: Image.Image, pen: Any, layout: Layout, levels: Levels | None) -> None:
    """Draw the scale next to the map, evenly by colour, with the scores where levels begin."""
    left, top = layout.corner(layout.panels - 1)
    height, width = layout.panel
    left += width + 8
    stops = scale(levels)
    shades = np.linspace(1, 0, height)
    scores = np.interp(shades, [s.shade for s in stops], [s.score for s in stops])
    bar = map_colours(scores.astype(np.float32)[:, None], levels)[..., :3]
    image.paste(Image.fromarray(np.ascontiguousarray(bar.repeat(14, 1))), (left, top))
    below, free = top + height, float(top + height)
    between, font = ("\n", _font(12)) if height > LOW_BAR else (" ", _font(10))
    for stop in stops:  # from below
        y = top + (1 - stop.shade) * (height - 1)
        place = (left + 20, min(max(y, top + 7), below - 7))
        pen.line([(left + 14, y), (left + 18, y)], SOFT)
        label = f"{stop.score:.4g}"
        if levels is not None and stop.level:
            label = f"{score_text(stop.score)}{between}{stop.level}"
        box = pen.multiline_textbbox(place, label, font, anchor="lm", spacing=1)
        if box[3] <= free:  # labels do not cover each other
            free = box[1]
            pen.multiline_text(place, label, INK, font, anchor="lm", spacing=1)


def _cut(text: str, style: tuple[int, str], room: int) -> str:
    """Return the text on one line of ``room`` px: foreign text may be long."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)[:LONGEST]
    font, kept = _font(style[0]), len(line)
    while kept > 1 and font.getlength(line[:kept]) > room:
        kept -= 1
    return line if kept == len(text) else f"{line[: kept - 1]}\u2026"


def _text(pen: Any, place: Box, text: str, style: tuple[int, str]) -> None:
    size, colour = style
    pen.text(place, text, colour, _font(size))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font that comes with matplotlib, which has most scripts' letters."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, size)
