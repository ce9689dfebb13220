"""Colours of targets in QGIS, by level: the style that a GeoPackage carries."""

from __future__ import annotations

COLOURS = {"high": "227,26,28", "medium": "255,127,0", "low": "255,217,47", "": "31,120,180"}
"""Red, green and blue; the last for targets without a level."""
STYLE_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT, f_table_catalog TEXT(256), f_table_schema TEXT(256),
    f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT,
    styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
    update_time DATETIME
)
"""
"""The table in which QGIS looks for the styles of a database."""


def style_of(*, points: bool) -> str:
    """Return a QML style: outlines, or circles, in the colours of the levels."""
    categories = "".join(
        f'<category symbol="{k}" value="{level}" label="{level or "no level"}" render="true"/>'
        for k, level in enumerate(COLOURS)
    )
    symbols = "".join(
        f'<symbol type="{"marker" if points else "fill"}" name="{k}" alpha="1">'
        f"{_circle(colour) if points else _outline(colour)}</symbol>"
        for k, colour in enumerate(COLOURS.values())
    )
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
        '<qgis version="3.22.0" styleCategories="Symbology">'
        '<renderer-v2 type="categorizedSymbol" attr="level" symbollevels="0" forceraster="0" '
        f'enableorderby="0"><categories>{categories}</categories><symbols>{symbols}</symbols>'
        "</renderer-v2></qgis>"
    )


def _outline(colour: str) -> str:
    return _layer(
        "SimpleFill",
        {
            "style": "no",
            "outline_color": f"{colour},255",
            "outline_style": "solid",
            "outline_width": "0.5",
            "outline_width_unit": "MM",
        },
    )


def _circle(colour: str) -> str:
    return _layer(
        "SimpleMarker",
        {
            "name": "circle",
            "color": f"{colour},0",
            "outline_color": f"{colour},255",
            "outline_width": "0.4",
            "size": "3",
            "size_unit": "MM",
        },
    )


def _layer(kind: str, settings: dict[str, str]) -> str:
    options = "".join(
        f'<Option type="QString" name="{name}" value="{value}"/>'
        for name, value in settings.items()
    )
    return f'<layer class="{kind}" enabled="1"><Option type="Map">{options}</Option></layer>'
