"""The words and data of a report: all that a page says, from a map, a scene and its targets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uniadrs_scale.core import __version__
from uniadrs_scale.core.contracts import crs_name
from uniadrs_scale.core.levels import GROW, RATES, score_text
from uniadrs_scale.objects.ground import degrees_text
from uniadrs_scale.objects.table import SUPPORT
from uniadrs_scale.pages.report_layers import COLUMNS, SIDE
from uniadrs_scale.storage.urls import uri_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from uniadrs_scale.core.contracts import SceneInfo
    from uniadrs_scale.maps.finished import RasterMap
    from uniadrs_scale.maps.store import ScoreMap
    from uniadrs_scale.pages.report_files import Table
    from uniadrs_scale.pages.report_layers import CloseUp, Scale
    from uniadrs_scale.pages.report_table import Positions, Row
    from uniadrs_scale.scenes.preview import ScenePicture

MOST_BANDS = 20
"""Largest number of bands that are listed by name."""
PLACES = 9
"""Places per side whose longitude and latitude a page knows; it interpolates between them."""
LEGEND = 40
"""Colours in the legend."""
BACKGROUND = np.array([0x2B, 0x2B, 0x2E])
"""Colour of the viewer, red, green and blue."""
PROMISE = (
    "In six test scenes in which only ships were labelled, 0 to 85 % of the 20 highest targets of "
    "uniadrs-xs were ships."
)
NO_CRS = "The scene has no CRS: positions and sizes are in pixels."
CONTRAST, NAMED = "contrast_", 3
"""Prefix of the columns with the contrast of a band, and contrasts that are listed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Content:
    """Everything that a page shows."""

    maps: tuple[ScoreMap | RasterMap, ...]
    """The map, and the one that it is compared with."""
    info: SceneInfo
    scale: Scale
    rows: Sequence[Row]
    """Targets to show, the highest score first."""
    table: Table
    positions: Positions
    notes: tuple[str, ...] = ()
    """Sentences about the scene of the map."""
    command: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what looks wrong, at the head of the page."""
        gaps = [
            f"The map '{uri_name(opened.name)}' is incomplete: {opened.facts.missing} of "
            f"{opened.facts.chunks} chunks have no score or failed tiles. Run the same score "
            "command again, then make this page again."
            for opened in self.maps
            if opened.facts.missing
        ]
        placed = self.info.crs or self.info.geolocation
        return (*gaps, *self.notes, *([] if placed else [NO_CRS]))


def data_of(
    content: Content, layers: list[dict[str, Any]], frames: Sequence[CloseUp], factor: int
) -> dict[str, Any]:
    """Return the data of the page's script, as JSON values."""
    scale, facts, levels = content.scale, content.maps[0].facts, content.maps[0].levels
    rates = (
        [None] * len(scale.edges) if levels is None else levels.far_per_mpx(scale.edges).tolist()
    )
    chips = {
        "side": SIDE,
        "columns": COLUMNS,
        "rows": -(-len(frames) // COLUMNS),
        "frames": [[frame.row, frame.col, frame.factor] for frame in frames],
    }
    about = {"scene": content.info.name, "fingerprint": facts.fingerprint}
    return {
        "height": content.info.height,
        "width": content.info.width,
        "metres": content.info.gsd_m,
        "edges": scale.edges.tolist(),
        "colours": scale.colours.tolist(),
        "far": [None, *rates],
        "threshold": scale.step(GROW),  # so that targets are filled to their outlines
        "scene_factor": factor,
        "layers": layers,
        "chips": chips if frames else None,
        "places": content.positions.grid(PLACES),
        "about": about,
        "export_name": f"{re.sub(r'[^A-Za-z0-9._-]+', '_', content.info.name)}.marks.geojson",
        "targets": [
            {
                "rank": rank,
                "score": row.score,
                "box": row.box,
                "rings": row.rings,
                "colour": "#" + bytes(scale.colours[scale.step(row.score)][:3]).hex(),
                "geometry": row.geometry,
                "properties": row.properties,
            }
            for rank, row in enumerate(content.rows, 1)
        ],
    }


def words_of(content: Content, picture: ScenePicture, small: NDArray[np.float32]) -> dict[str, Any]:
    """Return the words of the page; ``small`` holds the highest scores of the map."""
    info, levels, scale = content.info, content.maps[0].levels, content.scale
    size = "" if info.gsd_m is None else f"pixels of {info.gsd_m:.3g} m"
    grid = f"{info.height} rows x {info.width} columns"
    said = (info.acquired, info.platform, grid, size, picture.bands)
    return {
        "title": f"Anomalies in {info.name}",
        "facts": [text for text in said if text],
        "promise": _promise(content),
        "warnings": content.warnings,
        "steps": len(scale.edges) + 1,
        "levels": [] if levels is None else [(n, scale.step(levels.threshold(n))) for n in RATES],
        "compared": uri_name(content.maps[1].name) if len(content.maps) > 1 else "",
        "map_name": uri_name(content.maps[0].name),
        "legend": _legend(scale),
        "side": SIDE,
        "targets": [_target(row, rank) for rank, row in enumerate(content.rows, 1)],
        "empty": content.table.empty or f"0 targets. {_highest(small, picture.factor)}",
        "limits": list(_limits(content, picture)),
        "origin": list(_origin(content, picture)),
    }


def _promise(content: Content) -> str:
    """Return how good the network's lists were; empty for RX and models of users."""
    return PROMISE if content.maps[0].facts.weights else ""


def _legend(scale: Scale) -> dict[str, Any]:
    """Return the colours of scores from GROW on, over the dark of the viewer."""
    first = scale.step(GROW)
    picked = np.linspace(first, len(scale.edges) + 1, LEGEND).round().astype(int)
    colours = scale.colours[picked].astype(np.float64)
    share = colours[:, 3:] / 255
    mixed = np.rint(colours[:, :3] * share + BACKGROUND * (1 - share)).astype(np.uint8)
    return {"first": f"{GROW:g}", "last": "1", "colours": ["#" + bytes(c).hex() for c in mixed]}


def _highest(small: NDArray[np.float32], factor: int) -> str:
    """Return a sentence about the highest score."""
    if not np.isfinite(small).any():
        return "The map has no score."
    row, col = np.unravel_index(np.nanargmax(small), small.shape)
    return (
        f"The highest score of the map is {score_text(small[row, col], '.3g')}, near row "
        f"{row * factor}, column {col * factor}."
    )


def _target(row: Row, rank: int) -> dict[str, Any]:
    """Return the words about a target; all but its place and score may be missing."""
    known = {name: value for name, value in row.properties.items() if value is not None}
    lines = [] if row.degrees is None else [degrees_text(*row.degrees, sign="\u00b0")]
    lines.append(f"row {row.peak[0]}, column {row.peak[1]}")
    lines += filter(None, (_size(known), *_evidence(known)))
    if known.get("edge") is True:
        lines.append("touches the border or missing data")
    contrasts = {
        name.removeprefix(CONTRAST): value
        for name, value in known.items()
        if name.startswith(CONTRAST) and isinstance(value, (int, float))
    }
    strongest = sorted(contrasts.items(), key=lambda item: -abs(item[1]))[:NAMED]
    if strongest:
        lines.append("contrast " + ", ".join(f"{_band(b)} {value:+.1f}" for b, value in strongest))
    return {
        "rank": rank,
        "score": score_text(row.score),
        "level": known.get("level", ""),
        "lines": lines,
    }


def _band(name: str) -> str:
    """Return the name of a band; a number says that it is one."""
    return f"band {name}" if name.isdigit() else name


def _size(known: dict[str, Any]) -> str:
    parts = []
    length, width, area = (_number(known.get(n)) for n in ("length_m", "width_m", "area_m2"))
    if length is not None and width is not None:
        parts.append(f"{length:,.0f} x {width:,.0f} m")
    if area is not None:
        parts.append(f"{area:,.0f} m\u00b2")
    pixels = _number(known.get("pixels"))
    if pixels is not None:
        parts.append(f"{pixels:,.0f} px")
    return ", ".join(parts)


def _evidence(known: dict[str, Any]) -> Iterator[str]:
    """Yield lines about the weight of a target."""
    rate, support = _number(known.get("far_per_mpx")), _number(known.get("support"))
    if rate is not None:
        yield f"{float(f'{rate:.2g}'):g} false per Mpx"  # 110, not 1.1e+02
    if support in SUPPORT:
        yield f"second look: {SUPPORT[int(support)]}"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _limits(content: Content, picture: ScenePicture) -> Iterator[str]:
    """Yield what a reader must know, as sentences."""
    levels, shown, total = content.maps[0].levels, len(content.rows), len(content.table.records)
    yield (
        "A score says how strongly a pixel deviates from its surroundings, from 0 to 1. It does "
        "not say what is there: waves, clouds, borders of fields and new roofs deviate, too."
    )
    yield f"{_promise(content)} Look at each target before you act on it.".lstrip()
    if total > shown:
        yield f"The list has the {shown} highest of {total} targets."
    if picture.factor > 1:
        yield (
            f"A pixel of the map's picture shows the highest score of {picture.factor} x "
            f"{picture.factor} scene pixels, and the scene's picture one of them. Close-ups, and "
            "the surroundings of targets when you zoom in, are in full resolution."
        )
    if levels is None:
        yield (
            "This map has no curve of false alarms: colours show scores, and a threshold is to be "
            "chosen by its result."
        )
    else:
        rates = ", ".join(f"{name} {rate:g}" for name, rate in RATES.items())
        yield (
            f"Levels are thresholds with a known number of false objects per megapixel ({rates}), "
            f"measured on windows without anomalies for the preset '{levels.preset}'. Above a "
            f"score of {score_text(levels.measured_to, '.3g')} the rate is extrapolated, down to "
            f"{levels.false_per_mpx[-1]:.2g}: all higher scores have this rate, too. A scene "
            "unlike these windows may have more."
        )
    if any(opened.facts.missing for opened in content.maps):
        yield "Red hatching marks pixels of the scene that have no score yet."
    yield (
        "A position is that of the pixel with the highest score, as exact as the scene's own "
        "georeference."
    )
    yield (
        "Marks are kept while this page is open. Export them as GeoJSON, which 'uniadrs-scale "
        "evaluate' reads."
    )


def _origin(content: Content, picture: ScenePicture) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of the origin of everything in the page, without what is unknown."""
    info, facts = content.info, content.maps[0].facts
    place = info.georeference.removesuffix(": the map will have none either")
    bands = ", ".join(info.bands[:MOST_BANDS]) + (", ..." if len(info.bands) > MOST_BANDS else "")
    said = [
        ("scene", info.name),
        ("acquired", info.acquired),
        ("platform", info.platform),
        ("bands", f"{len(info.bands)}: {bands}"),
        ("shown as", picture.bands),
        ("CRS", crs_name(info.crs) or place),
        ("map", uri_name(content.maps[0].name)),
        ("complete", facts.complete),
        ("fingerprint", facts.fingerprint),
        ("software", facts.software),
        ("detector", facts.detector),
        ("weights (SHA-256)", facts.weights),
        ("preset", facts.preset),
        *(
            ("compared with", f"{uri_name(m.name)}, {m.facts.scene} {m.facts.fingerprint}")
            for m in content.maps[1:]
        ),
        ("targets", content.table.origin),
        ("command", content.command),
        ("page", f"uniadrs_scale {__version__}"),
    ]
    yield from ((name, value) for name, value in said if value)
