"""Notes about a scene: what looks wrong with it, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uniadrs_scale.core.validity import SOME_BANDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from uniadrs_scale.core.pixels import BandStatistics
    from uniadrs_scale.core.plan import ScorePlan

NAMED = 8
"""Most bands that a note names."""
LARGE_AREAS = 0.01
"""Share of pixels in areas of one value above which a note asks if these are data."""


def areas_note(flat: Mapping[float, int], valid: int, *, invalid: bool) -> str | None:
    """Return a question about the largest areas of one value, or a sentence if no pixel is valid.

    None without large areas.

    Args:
        flat: Valid pixels in areas of one value, by that value.
        valid: All valid pixels.
        invalid: Whether there are invalid pixels; without any, no pixel was read.
    """
    if not valid and not invalid:
        return None
    if not valid:
        return (
            "No valid pixel was found, so the map is empty. Check nodata, mask and the part of the "
            "scene."
        )
    pixels, value = max(((pixels, value) for value, pixels in flat.items()), default=(0, 0))
    if not LARGE_AREAS * valid <= pixels < valid:
        return None
    return (
        f"{pixels / valid:.0%} of the valid pixels are in areas of {value}. If {value} means no "
        f"data, say so (--nodata {value}, or open_scene(nodata={value})): otherwise, its border "
        "gets high scores."
    )


def scene_notes(statistics: BandStatistics, plan: ScorePlan) -> Iterator[str]:
    """Yield what looks wrong with the scene, and what to do."""
    scale = statistics.normalisation().scale
    dead = [name for name, gain in zip(plan.scene.bands, scale, strict=True) if gain == 0]
    if statistics.count and dead:
        some = ", ".join(f"'{name}'" for name in dead[:NAMED])
        more = f" and {len(dead) - NAMED} more" if len(dead) > NAMED else ""
        yield f"Bands that hold one value and so tell nothing: {some}{more}."
    if areas := areas_note(statistics.flat, statistics.count, invalid=bool(statistics.invalid)):
        yield areas
    partly = statistics.invalid.get(SOME_BANDS, 0)
    if partly >= LARGE_AREAS:
        yield (
            f"{partly:.0%} of the pixels have their nodata value in some bands only. If they are "
            "data, keep them (--nodata-when all, or open_scene(nodata_when='all'))."
        )
    looks, judged = statistics.speckle
    asked = plan.coarsen > 1 or "as asked for" in plan.preset
    # Doubles are the result of calculations, such as ratios, which may have any distribution.
    if 2 * looks > judged and not asked and plan.scene.dtype != "float64":
        yield "The band varies as radar does (speckle). If it is radar, score it with --preset sar."
