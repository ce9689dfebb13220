"""The verb `evaluate`: a map of any size against its truth, by objects and by pixels.

An *alarm* is an 8-connected component of scores >= GROW; its score is its highest. It is true if a
pixel of it is within 2 px of a labelled object, else false. An *object* is found at a threshold if
a score within 2 px of it reaches the threshold. So alarms do not depend on the threshold, and one
pass over the map gives the whole curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.windows import Window
from scipy import ndimage

from uniadrs_scale.core.contracts import Printed
from uniadrs_scale.core.levels import GROW, RATES, score_text
from uniadrs_scale.errors import SceneError, StoreError, counted
from uniadrs_scale.evaluation.histogram import ScoreHistogram
from uniadrs_scale.evaluation.maps import Components
from uniadrs_scale.evaluation.metrics import NEAR, REACH
from uniadrs_scale.evaluation.truth import FALSE, REAL, UNSURE, VECTORS, open_truth
from uniadrs_scale.maps.finished import open_finished
from uniadrs_scale.maps.groups import require_score
from uniadrs_scale.maps.overviews import windows

if TYPE_CHECKING:
    from pathlib import Path

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from uniadrs_scale.core.levels import Levels
    from uniadrs_scale.evaluation.truth import Labels, RasterTruth, VectorTruth
    from uniadrs_scale.maps.finished import RasterMap
    from uniadrs_scale.maps.store import ScoreMap

MOST_POINTS = 400
"""Points of a curve in JSON."""
PLAIN = {"score 0.3": GROW, "score 0.5": 0.5, "score 0.9": 0.9}
"""Rows of the table for a map without levels."""
MOST_LABELLED = 0.5
"""Share of labelled pixels above which a note asks if the truth is one."""
COVERED = "Labels cover {:.0%} of the pixels: is the truth the scene, or a map of scores?"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Evaluation(Printed):
    """How well a map shows the objects of its truth."""

    objects: NDArray[np.float32]
    """(object,) peaks, falling; -inf if no score is near."""
    true: NDArray[np.float32]
    """(alarm,) peaks of true alarms, falling."""
    false: NDArray[np.float32]
    """(alarm,) peaks of false alarms, falling."""
    unknown: NDArray[np.float32]
    """(alarm,) peaks of alarms that were marked unsure, or not at all; falling."""
    pixels: int
    """Scored pixels with known labels."""
    counts: ScoreHistogram | None
    """Pixels by score; None for marks, which say nothing of other pixels."""
    levels: Levels | None
    notes: tuple[str, ...] = ()
    """Sentences about the truth."""

    @property
    def auc(self) -> float | None:
        """Area under the ROC curve of pixels; None if the truth is marks, or has one class."""
        try:
            return None if self.counts is None else self.counts.curve().area
        except SceneError:
            return None

    @property
    def thresholds(self) -> NDArray[np.float32]:
        """(n,) scores at which a count changes, falling, down to GROW."""
        every = np.unique(np.concatenate([self.objects, self.true, self.false]))[::-1]
        return every[every >= GROW]

    @property
    def average_precision(self) -> float:
        """Mean precision of alarms over the objects, each found at its own score.

        Objects that no alarm is near count as found with precision 0.
        """
        found = self.found(self.thresholds)
        true, false = (_reached(peaks, self.thresholds) for peaks in (self.true, self.false))
        precision = true / np.maximum(true + false, 1)
        steps = np.diff(found, prepend=0) / self.objects.size
        return float((steps * precision).sum())

    def found(self, thresholds: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the number of objects found at each threshold."""
        return _reached(self.objects, thresholds)

    def at(self, threshold: float) -> dict[str, Any]:
        """Return the figures at one threshold, as JSON values."""
        one = np.array([threshold])
        found, true, false, unknown = (
            int(_reached(peaks, one)[0])
            for peaks in (self.objects, self.true, self.false, self.unknown)
        )
        return {
            "threshold": threshold,
            "found": found,
            "detection": found / self.objects.size,
            "true_alarms": true,
            "false_alarms": false,
            "unknown_alarms": unknown,
            "false_per_mpx": false * 1e6 / self.pixels,
            "precision": true / (true + false) if true + false else None,
        }

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the figures at the levels of the map, or at plain scores."""
        levels = self.levels
        named = PLAIN if levels is None else {name: levels.threshold(name) for name in RATES}
        return {name: self.at(threshold) for name, threshold in named.items()}

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON values; the curve has at most 400 points."""
        thresholds = self.thresholds
        kept = np.unique(np.linspace(0, thresholds.size - 1, min(thresholds.size, MOST_POINTS)))
        return {
            "objects": int(self.objects.size),
            "pixels": self.pixels,
            "auc": self.auc,
            "average_precision": self.average_precision,
            "at": self.rows(),
            "notes": list(self.notes),
            "curve": [self.at(float(thresholds[int(k)])) for k in kept] if thresholds.size else [],
        }

    def text(self) -> str:
        """Return the figures for people, one line per fact."""
        auc = self.auc
        lines = [
            f"objects    {self.objects.size} on {self.pixels / 1e6:.2f} Mpx with a score",
            f"AP         {self.average_precision:.3f} (objects)",
            f"AUC        {'unknown' if auc is None else f'{auc:.4f}'} (pixels)",
        ]
        for name, row in self.rows().items():
            score = score_text(row["threshold"])
            precision = "-" if row["precision"] is None else f"{row['precision']:.2f}"
            unknown = f", {row['unknown_alarms']} not judged" if self.counts is None else ""
            lines.append(
                f"{name:<10} {score}: {row['found']} of {self.objects.size} found, "
                f"{counted(row['false_alarms'], 'false alarm')} "
                f"({row['false_per_mpx']:.2f} per Mpx), "
                f"precision {precision}{unknown}"
            )
        return "\n".join([*lines, *(f"note       {note}" for note in self.notes)])


def evaluate(
    map: str | Path,  # noqa: A002 - the verb's word
    truth: str | Path | GeoDataFrame,
) -> Evaluation:
    """Compare a map with its truth, window by window.

    Args:
        map: Zarr store or COG, a path or URL.
        truth: Raster whose nonzero pixels are anomalies (its nodata is not counted), or vectors
            (GeoJSON, GeoPackage, Shapefile, FlatGeobuf, GeoParquet, or a GeoDataFrame) in any CRS.
            If the features have a property ``mark`` (real, false, unsure), as exported from a
            report, only these are judged.

    Returns:
        ``rows()``, the counts at the levels of the map, and ``at(threshold)``; ``thresholds``,
        ``average_precision`` of objects and ``auc`` of pixels; ``to_json()``. It prints as a table.

    Raises:
        StoreError: The map is missing, or something else.
        SceneError: The truth cannot be read, has no object on the map, or has no known place on it.
    """
    if str(map).lower().endswith(VECTORS):
        raise StoreError(
            f"'{map}' is a vector file, not a map. Pass the map first, then the truth."
        )
    opened = open_finished(map)
    labels = open_truth(truth, opened.geobox, opened.name)
    judged = _Judged(opened, labels)
    for window in windows(*opened.shape):
        judged.add(window)
    return judged.result()


class _Judged:
    """A map that is being compared with its truth."""

    def __init__(self, opened: ScoreMap | RasterMap, truth: RasterTruth | VectorTruth) -> None:
        self.map, self.truth = opened, truth
        self.band = require_score(opened.layers, opened.name)
        width = opened.shape[1]
        self.alarms, self.objects = Components(width), Components(width)
        self.peaks = np.full((truth.number or 0) + 1, -np.inf, np.float32)
        self.drawn = np.zeros(self.peaks.size, bool)
        self.pixels, self.parts = 0, list[ScoreHistogram]()

    def add(self, window: Window) -> None:
        """Compare a window, and what is near it."""
        (top, bottom), (left, right) = window.toranges()
        height, width = self.map.shape
        rows = slice(max(top - NEAR, 0), min(bottom + NEAR, height))
        cols = slice(max(left - NEAR, 0), min(right + NEAR, width))
        labels = self.truth.read(Window.from_slices(rows, cols))
        score = self.map.read(rows, cols)[self.band]
        inner = np.s_[
            top - rows.start : bottom - rows.start, left - cols.start : right - cols.start
        ]
        seen = np.where(np.isfinite(score) & labels.counted, score, np.float32(-np.inf))
        near = np.zeros(score.shape, np.uint8)
        for kind in (REAL, FALSE, UNSURE):
            there = labels.kinds == kind
            if there.any():
                near |= np.where(ndimage.binary_dilation(there, REACH), np.uint8(kind), np.uint8(0))
        highest = ndimage.maximum_filter(seen, REACH.shape, mode="constant", cval=-np.inf)[inner]
        self.alarms.add(left, seen[inner] >= GROW, seen[inner], near[inner])
        self._add_objects(left, labels, inner, highest)
        known = np.isfinite(seen[inner])
        self.pixels += int(known.sum())
        if not self.truth.marked:
            values = np.where(known, seen[inner], np.float32(np.nan))
            self.parts.append(ScoreHistogram.of(values, labels.kinds[inner] == REAL))
            if len(self.parts) > 1:
                self.parts = [ScoreHistogram.combine(self.parts)]

    def _add_objects(
        self, left: int, labels: Labels, inner: tuple[slice, slice], highest: NDArray[np.float32]
    ) -> None:
        """Keep the peaks of the objects in a window."""
        if labels.objects is None:
            real = labels.kinds[inner] == REAL
            self.objects.add(left, real, highest, np.zeros(real.shape, np.uint8))
            return
        ids = labels.objects[inner]
        there = ids > 0
        np.maximum.at(self.peaks, ids[there], highest[there])
        self.drawn[ids[there]] = True

    def result(self) -> Evaluation:
        """Return the figures.

        Raises:
            SceneError: No object, or no score, can be judged.
        """
        peaks, flags = self.alarms.merged()
        objects = self.peaks[self.drawn] if self.truth.number else self.objects.merged()[0]
        if not (objects.size and self.pixels):
            raise SceneError(
                f"{objects.size} objects on {self.pixels} scored pixels of '{self.map.name}': "
                "figures need both. Check that the truth belongs to this map."
            )
        counts = ScoreHistogram.combine(self.parts) if self.parts else None
        labelled = 0.0 if counts is None else int(counts.anomalies.sum()) / self.pixels
        if labelled == 1:
            raise SceneError(
                f"The truth labels every scored pixel of '{self.map.name}': is it the scene, or a "
                "map of scores? Give labels that are 0 outside objects."
            )
        facts, true = self.map.facts, flags & REAL > 0
        false = ~true & (flags & FALSE > 0 if self.truth.marked else flags & UNSURE == 0)
        return Evaluation(
            objects=_falling(objects),
            true=_falling(peaks[true]),
            false=_falling(peaks[false]),
            unknown=_falling(peaks[~(true | false)]),
            pixels=self.pixels,
            counts=counts,
            levels=self.map.levels,
            notes=(
                *self.truth.notes,
                *([COVERED.format(labelled)] if labelled > MOST_LABELLED else []),
                *([f"Map complete: {facts.complete}."] if facts.missing else []),
            ),
        )


def _falling(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sort(values)[::-1]


def _reached(peaks: NDArray[np.float32], thresholds: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return how many peaks (falling) are at least each threshold."""
    return np.asarray(
        peaks.size - np.searchsorted(peaks[::-1], thresholds.astype(np.float32), "left"), np.int64
    )
