"""Texts of options as the values that they stand for."""

from __future__ import annotations

from typing import Any

from uniadrs_scale.errors import SceneError

DEGREES = "EPSG:4326"


def seconds(text: str | None) -> float | None:
    """Return the seconds of a time such as '6h'."""
    if text is None:
        return None
    from uniadrs_scale.archive.config import duration

    return duration(text).total_seconds()


def items(text: str) -> list[str]:
    """Return 'a, b' as a list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def band_list(text: str | None) -> list[int | str] | None:
    """Return '1,2,5-8' or 'B02,B03' as a list for open_scene; SceneError for '8-5'."""
    if text is None:
        return None
    bands: list[int | str] = []
    for part in items(text):
        first, dash, last = part.partition("-")
        if dash and first.isdecimal() and last.isdecimal():
            if int(last) < int(first):
                raise SceneError(f"--bands '{part}' counts down. Write {last}-{first}.")
            bands.extend(range(int(first), int(last) + 1))
        else:
            bands.append(part)
    return bands


def box_and_crs(text: str | None) -> tuple[list[float] | None, str]:
    """Return 'W,S,E,N' or 'W,S,E,N,EPSG:32632' as four numbers and a CRS.

    Raises:
        SceneError: It is something else.
    """
    if text is None:
        return None, DEGREES
    sides, crs = (parts := text.split(",", maxsplit=4))[:4], ",".join(parts[4:]).strip()
    try:
        west, south, east, north = map(float, sides)
    except ValueError:
        raise SceneError(
            f"--bbox '{text}' is not a box. Give west,south,east,north in degrees, such as "
            "12.2,45.3,12.5,45.5, or with a CRS: 280000,5020000,300000,5040000,EPSG:32633."
        ) from None
    return [west, south, east, north], crs or DEGREES


def nodata_value(text: str) -> Any:
    """Return a number, 'auto' or None as the value of invalid pixels."""
    if text in ("auto", "none"):
        return None if text == "none" else "auto"
    from uniadrs_scale.core.validity import exact

    try:
        return exact(int(text)) if text.strip("+-").isdecimal() else float(text)
    except ValueError:
        raise SceneError(
            f"--nodata '{text}' is not a number. Give a number, 'nan', 'none' or 'auto'."
        ) from None
