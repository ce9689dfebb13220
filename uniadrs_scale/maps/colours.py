"""The colour scale of scores, anchored to the levels, as arrays and as QGIS styles.

The same colour means the same evidence: rates of false objects if there are levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Comment, Element, SubElement, indent, tostring

import numpy as np

from uniadrs_scale.core.levels import GROW, RATES, score_text
from uniadrs_scale.core.machine import Later

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniadrs_scale.core.levels import Levels

matplotlib, colors = Later("matplotlib"), Later("matplotlib.colors")
COLOURS = "inferno"
"""Perceptually even and dark at its low end: bright parts of the map are high scores."""
NODATA = "#8f8f8f"
SHADES = {"": 0.14, "low": 0.42, "medium": 0.62, "high": 0.8}
"""Position on the colour map of GROW and of each level; a score of 1 is at its end."""
PLAIN = {"low": 0.5, "medium": 0.75, "high": 0.9}
"""Anchors of a map without levels: equal scores have equal colours, and no more is known."""
VISIBLE = {"": 0.0, "low": 0.75, "medium": 0.9, "high": 1.0}
"""Opacity over a scene at the same anchors."""
APART = 1e-6
"""Least distance of two anchors: levels of a steep curve may be equal."""
TARGETS = {"high": "227,26,28", "medium": "255,127,0", "low": "255,217,47", "": "31,120,180"}
"""Red, green and blue of outlines; the last for targets without a level."""
MARK = "Written by uniadrs_scale"
"""Comment of our styles. QGIS drops it when a user saves another one, which is then kept."""
DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
VERSION = "3.22.0"
"""The oldest QGIS that reads all of it."""
SHOWN = 1e-9
"""Distance below which a stop is at a level."""


@dataclass(frozen=True, slots=True)
class Stop:
    """An anchor of the scale; colours between two stops are mixed."""

    score: float
    shade: float
    """Position on the colour map, 0..1."""
    opacity: float
    """Opacity over a scene, 0..1."""
    level: str
    """The level that begins here; empty for none."""

    @property
    def colour(self) -> str:
        """The colour as ``#rrggbb``."""
        return str(colors.to_hex(matplotlib.colormaps[COLOURS](self.shade)))


def scale(levels: Levels | None) -> tuple[Stop, ...]:
    """Return the stops from a score of 0 to 1, each above the one before.

    Scores below GROW belong to no object: they are dark, and invisible over a scene. If a level is
    below GROW, its stop replaces that of GROW.
    """
    starts = {n: PLAIN[n] if levels is None else levels.threshold(n) for n in RATES}
    anchors = [(GROW, ""), *((score, name) for name, score in starts.items())]
    least = starts["low"]
    kept = [(s, n) for s, n in anchors if 0 < s < 1 and (n or s < least)]
    stops = [Stop(0.0, 0.0, 0.0, "")]
    for score, name in kept:
        place = max(score, stops[-1].score + APART)
        if place < 1:
            stops.append(Stop(place, SHADES[name], VISIBLE[name], name))
    return (*stops, Stop(1.0, 1.0, 1.0, ""))


def colour_stops(levels: Levels | None) -> tuple[tuple[float, str, float], ...]:
    """Return (score, ``#rrggbb``, opacity) of a scale that mixes colours between its stops.

    Enough stops for a viewer that mixes in RGB to show the colour map within a grey value or two.
    """
    found = []
    for low, high in pairwise(scale(levels)):
        steps = max(1, round(20 * (high.shade - low.shade)))
        for share in np.arange(steps) / steps:
            score, shade, opacity = (
                float(getattr(low, name) + share * (getattr(high, name) - getattr(low, name)))
                for name in ("score", "shade", "opacity")
            )
            found.append((score, colors.to_hex(matplotlib.colormaps[COLOURS](shade)), opacity))
    return (*found, (1.0, colors.to_hex(matplotlib.colormaps[COLOURS](1.0)), 1.0))


def map_colours(score: NDArray[np.float32], levels: Levels | None) -> NDArray[np.uint8]:
    """Return uint8 (y, x, 4) of scores (y, x): the colour, and the opacity over a scene.

    Without a score: grey, and invisible over a scene.
    """
    stops = scale(levels)
    known = np.isfinite(score)
    scores, shades, opacities = (
        [getattr(stop, name) for stop in stops] for name in ("score", "shade", "opacity")
    )
    filled = np.where(known, score, np.float32(0))
    shade = np.interp(filled, scores, shades)
    colours = np.asarray(matplotlib.colormaps[COLOURS](shade, bytes=True), np.uint8)
    colours[..., 3] = np.rint(255 * np.interp(filled, scores, opacities))
    colours[~known] = (*np.rint(255 * np.array(colors.to_rgb(NODATA))).astype(int), 0)
    return colours


def qgis_style(levels: Levels | None) -> str:
    """Return the text of a ``.qml`` file for a map with these levels."""
    root = Element("qgis", version=VERSION, styleCategories="Symbology|Rendering")
    root.append(Comment(MARK))
    pipe = SubElement(root, "pipe")
    renderer = SubElement(
        pipe,
        "rasterrenderer",
        type="singlebandpseudocolor",
        band="1",
        opacity="1",
        alphaBand="-1",
        nodataColor="",
        classificationMin="0",
        classificationMax="1",
    )
    # Not stretched to what is on the screen: equal colours mean equal evidence.
    origin = SubElement(renderer, "minMaxOrigin")
    for name, value in {"limits": "None", "extent": "WholeRaster", "statAccuracy": "Exact"}.items():
        SubElement(origin, name).text = value
    shader = SubElement(SubElement(renderer, "rastershader"), "colorrampshader")
    shader.attrib |= {
        "colorRampType": "INTERPOLATED",
        "classificationMode": "1",
        "clip": "0",
        "minimumValue": "0",
        "maximumValue": "1",
    }
    # QGIS 3.18 and later would name 0 and 1 only, in a legend that is even by score.
    SubElement(shader, "rampLegendSettings", useContinuousLegend="0")
    for score, colour, opacity in colour_stops(levels):
        item = SubElement(shader, "item", value=f"{score:.7g}", color=colour)
        item.attrib |= {"alpha": f"{round(255 * opacity)}", "label": _label(score, levels)}
    SubElement(pipe, "rasterresampler", maxOversampling="2")
    SubElement(root, "blendMode").text = "0"
    indent(root, " ")
    return f"{DOCTYPE}\n{tostring(root).decode()}\n"


RANKS = (
    '<labeling type="simple"><settings calloutType="simple">'
    '<text-style fieldName="rank" fontSize="8" fontSizeUnit="Point" textColor="29,29,31,255">'
    '<text-buffer bufferDraw="1" bufferSize="0.7" bufferSizeUnits="MM" '
    'bufferColor="255,255,255,255"/></text-style>'
    '<placement placement="1" quadOffset="2" xOffset="1.5" yOffset="-1.5" offsetUnits="MM"/>'
    "</settings></labeling>"
)
"""Labels of a QML style: the ranks, as in the picture of a map."""


def _label(score: float, levels: Levels | None) -> str:
    """Return the text of a stop in a legend: its score and level; empty between two anchors."""
    stop = next((stop for stop in scale(levels) if abs(stop.score - score) < SHOWN), None)
    if stop is None:
        return ""
    known = levels is not None and stop.level
    rate = f" {stop.level}: {RATES[stop.level]:g} false per Mpx" if known else ""
    return score_text(score, ".3g") + rate


def target_style(*, points: bool) -> str:
    """Return a QML style: outlines, or circles with ranks, in the colours of the levels."""
    categories = "".join(
        f'<category symbol="{k}" value="{level}" label="{level or "no level"}" render="true"/>'
        for k, level in enumerate(TARGETS)
    )
    symbols = "".join(
        f'<symbol type="{"marker" if points else "fill"}" name="{k}" alpha="1">'
        f"{_symbol(colour, points=points)}</symbol>"
        for k, colour in enumerate(TARGETS.values())
    )
    return (
        f'{DOCTYPE}<qgis version="{VERSION}" styleCategories="Symbology|Labeling" '
        f'labelsEnabled="{int(points)}">'
        '<renderer-v2 type="categorizedSymbol" attr="level" symbollevels="0" forceraster="0" '
        f'enableorderby="0"><categories>{categories}</categories><symbols>{symbols}</symbols>'
        f"</renderer-v2>{RANKS if points else ''}</qgis>"
    )


def _symbol(colour: str, *, points: bool) -> str:
    """Return the layer of a symbol: a circle around a point, or an outline."""
    line = {"outline_color": f"{colour},255"}
    if points:
        kind = "SimpleMarker"
        line = {"name": "circle", "color": f"{colour},0", **line, "outline_width": "0.4"}
        line |= {"size": "3", "size_unit": "MM"}
    else:
        kind = "SimpleFill"
        line = {"style": "no", **line, "outline_style": "solid", "outline_width": "0.5"}
        line |= {"outline_width_unit": "MM"}
    options = "".join(
        f'<Option type="QString" name="{name}" value="{value}"/>' for name, value in line.items()
    )
    return f'<layer class="{kind}" enabled="1"><Option type="Map">{options}</Option></layer>'
