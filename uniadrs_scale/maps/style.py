"""The QGIS style of a map: transparent below objects, with fixed colours at the levels."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Comment, Element, SubElement, indent, tostring

from uniadrs_scale.core.levels import RATES
from uniadrs_scale.maps.colours import colour_stops

if TYPE_CHECKING:
    from uniadrs_scale.core.levels import Levels

MARK = "Written by uniadrs_scale"
"""Comment of our styles. QGIS drops it when a user saves another one, which is then kept."""
DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
VERSION = "3.22.0"
"""The oldest QGIS that reads all of it."""
SHOWN = 1e-9
"""Distance below which a stop is at a level."""


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
    for score, colour, opacity in colour_stops(levels):
        item = SubElement(shader, "item", value=f"{score:.7g}", color=colour)
        item.attrib |= {"alpha": f"{round(255 * opacity)}", "label": _label(score, levels)}
    SubElement(pipe, "rasterresampler", maxOversampling="2")
    SubElement(root, "blendMode").text = "0"
    indent(root, " ")
    return f"{DOCTYPE}\n{tostring(root).decode()}\n"


def _label(score: float, levels: Levels | None) -> str:
    """Return the text of a stop in a legend: its score, and the level that begins there."""
    if levels is not None:
        for name in reversed(RATES):
            if abs(levels.threshold(name) - score) < SHOWN:
                return f"{score:.3g} {name}: {RATES[name]:g} false per Mpx"
    return f"{score:.3g}"
