"""The outcome of a run: a closing summary for people, and the facts of ``run.json``."""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import rasterio

from uniadrs_scale.core.contracts import Printed
from uniadrs_scale.core.lattice import sample_windows
from uniadrs_scale.core.machine import usable_cores
from uniadrs_scale.core.validity import flat_areas
from uniadrs_scale.errors import counted, redact
from uniadrs_scale.runtime.executor import ClusterFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from uniadrs_scale.core.contracts import SceneSource
    from uniadrs_scale.core.levels import Levels
    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.runtime.graph import Receipt
    from uniadrs_scale.runtime.tasks import TileFailure
    from uniadrs_scale.storage.places import Place


NAMED = 10
"""Failed tiles that a summary lists: a screen's worth."""
SAMPLE, ACROSS = 64, 6
"""Side of a sampled window [px], and windows along an axis: few miss the corners of a scene."""
LIBRARIES = ("torch", "numpy", "dask", "distributed", "zarr", "xarray", "rasterio")


class Clock:
    """Seconds per stage; the same stage twice adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - started
            self.seconds[stage] = round(self.seconds.get(stage, 0) + took, 3)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RunSummary(Printed):
    """The outcome of a run. The work of an earlier run is not counted."""

    output: Place
    """Zarr store or COG."""
    pixels: int = 0
    """Pixels of the chunks that were committed."""
    chunks: int = 0
    valid: int = 0
    """Valid pixels among them."""
    kept: int
    """Chunks that were complete before."""
    tiles_scored: int = 0
    tiles_skipped: int = 0
    """Tiles without a valid pixel."""
    failures: tuple[TileFailure, ...] = ()
    lost: tuple[str, ...] = ()
    """Errors of chunks that could not be committed."""
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds per stage."""
    cluster: ClusterFacts | None = None
    """None if there was nothing to compute."""
    peaks: Mapping[str, int] = field(default_factory=dict)
    """Highest resident set of each worker that committed a chunk, since its start, in bytes."""
    invalid: Mapping[str, float] = field(default_factory=dict)
    """Share of the sampled pixels that each reason makes invalid."""
    notes: tuple[str, ...] = ()
    """Sentences about what looks wrong with the scene or the run, with advice."""
    cpu_kinds: tuple[str, ...] = ()
    """Kinds of CPU that computed, sorted."""
    cpu_kinds_before: tuple[str, ...] = ()
    """Kinds of CPU of the chunks that were complete before."""
    levels: Levels | None = None
    """Thresholds for the map; None if its scorer has none."""
    crop: str = ""
    """The part of a larger scene that was scored, in words."""

    @classmethod
    def of(
        cls, output: Place, receipts: Sequence[Receipt], kept: int, lost: Sequence[Exception]
    ) -> RunSummary:
        """Return the sum of all receipts."""
        reports = [receipt.report for receipt in receipts]
        peaks: dict[str, int] = {}
        for receipt in receipts:
            peaks[receipt.worker] = max(peaks.get(receipt.worker, 0), receipt.peak)
        return cls(
            output=output,
            pixels=sum(report.pixels for report in reports),
            valid=sum(report.valid for report in reports),
            chunks=len(reports),
            kept=kept,
            tiles_scored=sum(report.scored for report in reports),
            tiles_skipped=sum(report.skipped for report in reports),
            failures=tuple(failure for report in reports for failure in report.failures),
            lost=tuple(redact(f"{type(error).__name__}: {error}") for error in lost),
            peaks=peaks,
            cpu_kinds=tuple(sorted({kind for report in reports for kind in report.cpu_kinds})),
        )

    @property
    def complete(self) -> bool:
        """True if every valid pixel has a score."""
        return not self.failures and not self.lost

    def text(self) -> str:
        """Return the closing summary, one line per fact."""
        speed = self.pixels / 1e6 / max(self.seconds, 1e-9)
        before = f", {self.kept} were complete before" if self.kept else ""
        tiles = f"{self.tiles_scored} scored, {self.tiles_skipped} skipped (no valid pixel)"
        lines = [
            f"pixels   {self.pixels / 1e6:.2f} Mpx in {counted(self.chunks, 'chunk')}{before}",
            f"tiles    {tiles}, {len(self.failures)} failed",
            f"time     {self.seconds:.1f} s, {speed:.2f} Mpx/s",
        ]
        if self.crop:
            lines.insert(0, f"crop     {self.crop}")
        if self.pixels:
            share = shares_text(self.valid / self.pixels, self.invalid)
            lines.insert(-2, f"valid    {share} of the pixels")
        lines += [
            f"failed   tile at pixel ({f.window.row}, {f.window.col}): {f.reason}"
            for f in self.failures[:NAMED]
        ]
        if len(self.failures) > NAMED:
            lines.append(f"failed   ... and {len(self.failures) - NAMED} more tiles")
        lines += [f"lost     {reason}" for reason in self.lost]
        if self.levels is not None:
            lines.append(f"levels   {self.levels.text()}")
        return "\n".join([*lines, *(f"note     {note}" for note in self.notes)])


def shares_text(valid: float, invalid: Mapping[str, float]) -> str:
    """Return the valid share and the others by reason, as text.

    >>> shares_text(0.9, {"cloud": 0.02, "nodata": 0.08})
    '90.0% (nodata 8.0%, cloud 2.0%)'
    """
    ordered = sorted(invalid.items(), key=lambda item: -item[1])
    reasons = ", ".join(f"{reason} {share:.1%}" for reason, share in ordered)
    return f"{valid:.1%}" + (f" ({reasons})" if reasons else "")


def sampled_validity(source: SceneSource) -> tuple[int, dict[str, int], dict[float, int]]:
    """Return the valid pixels of small windows, the invalid ones by reason, and areas by value."""
    valid, lost, flat = 0, Counter[str](), Counter[float]()
    info = source.info
    for window in sample_windows(info.height, info.width, block=SAMPLE, across=ACROSS):
        with suppress(Exception):  # the run meets the same error, and reports it
            pixels, mask, reasons = source.window(window).counted()
            valid += int(mask.sum())
            lost.update(reasons)
            flat.update(flat_areas(pixels, mask))
    return valid, dict(lost), dict(flat)


def run_facts(plan: ScorePlan, summary: RunSummary, weights: str | None) -> dict[str, Any]:
    """Return the content of ``run.json``, as JSON values.

    Args:
        plan: The plan.
        summary: The outcome.
        weights: sha256 of the weights, None for a scorer without weights.
    """
    cluster = summary.cluster or ClusterFacts(scheduler="none")
    return {
        "fingerprint": plan.fingerprint,
        "output": summary.output.name,
        "complete": summary.complete,
        "plan": plan.to_dict(),
        "weights": {"detector": plan.detector, "sha256": weights},
        "pixels": {
            "committed": summary.pixels,
            "valid": summary.valid,
            "invalid_share": {name: round(share, 6) for name, share in summary.invalid.items()},
        },
        "tiles": {
            "scored": summary.tiles_scored,
            "skipped": summary.tiles_skipped,
            "failed": [{"window": asdict(f.window), "reason": f.reason} for f in summary.failures],
        },
        "chunks": {
            "committed": summary.chunks,
            "complete_before": summary.kept,
            "lost": list(summary.lost),
        },
        "cpu_kinds": {
            "this_run": list(summary.cpu_kinds),
            "complete_before": list(summary.cpu_kinds_before),
        },
        "notes": list(summary.notes),
        "seconds": {**summary.stages, "total": round(summary.seconds, 3)},
        "cluster": cluster.to_dict(),
        "memory": {
            "forecast": plan.memory.total,
            "peak": max(summary.peaks.values(), default=0),
            "workers": dict(summary.peaks),
        },
        "versions": {
            "uniadrs_scale": plan.version,
            "python": platform.python_version(),
            "gdal": rasterio.__gdal_version__,
            **_library_versions(),
        },
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "cores": usable_cores(),
        },
    }


@cache
def _library_versions() -> dict[str, str]:
    """Return versions. Cached: a sweep of many small scenes would spend 5 % of its time on them."""
    return {name: version(name) for name in LIBRARIES}


def report_place(output: Place) -> Place:
    """Return the place of a map's report: next to it, under the map's whole name.

    Not inside a store: the files of a store have the same bytes after every run, a report has not.
    """
    return output.beside(f"{output.name}.run.json")


def write_report(path: Place, facts: Mapping[str, Any]) -> None:
    """Write ``facts`` as JSON, whole or not at all."""
    path.write(redact(json.dumps(facts, indent=1)).encode())


class IncompleteWarning(UserWarning):
    """Valid pixels of a map have no score."""


class SceneWarning(UserWarning):
    """A scene looks wrong, and its map may mislead."""
