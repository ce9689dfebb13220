"""What a run did: the closing summary for people, ``run.json`` for whoever comes later."""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import rasterio

from uniadrs_scale.errors import redact
from uniadrs_scale.runtime.executor import ClusterFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from uniadrs_scale.core.plan import ScorePlan
    from uniadrs_scale.runtime.tasks import ChunkReport, TileFailure
    from uniadrs_scale.storage.places import Place


LIBRARIES = ("torch", "numpy", "dask", "distributed", "zarr", "xarray", "rasterio")


class Clock:
    """Seconds of each stage; the same stage twice adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what is done inside."""
        started = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - started
            self.seconds[stage] = round(self.seconds.get(stage, 0) + took, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run did; what an earlier run had already done is not counted."""

    output: Place
    """Zarr store or COG."""
    pixels: int
    """Pixels of the chunks that were committed."""
    valid: int
    """Valid pixels among them."""
    chunks: int
    kept: int
    """Chunks that were complete before."""
    tiles_scored: int
    tiles_skipped: int
    """Tiles without a valid pixel."""
    failures: tuple[TileFailure, ...]
    lost: tuple[str, ...]
    """Chunks that could not be committed, and why."""
    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each stage."""
    cluster: ClusterFacts | None = None
    """None where there was nothing to compute."""
    invalid: Mapping[str, float] = field(default_factory=dict)
    """Share of the sampled pixels that each reason makes invalid."""
    notes: tuple[str, ...] = ()
    """What looks wrong with the scene or the run, and what to do."""
    cpu_kinds: tuple[str, ...] = ()
    """Kinds of CPU that computed, sorted."""
    cpu_kinds_before: tuple[str, ...] = ()
    """Those of the chunks that were complete before."""

    @classmethod
    def of(
        cls,
        output: Place,
        reports: list[ChunkReport],
        kept: int,
        lost: list[Exception],
        seconds: float,
    ) -> RunSummary:
        """The sum of all chunk reports."""
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
            seconds=seconds,
            cpu_kinds=tuple(sorted({kind for report in reports for kind in report.cpu_kinds})),
        )

    @property
    def complete(self) -> bool:
        """True where every valid pixel has a score."""
        return not self.failures and not self.lost

    def text(self) -> str:
        """The closing summary, a line a fact."""
        speed = self.pixels / 1e6 / max(self.seconds, 1e-9)
        before = f", {self.kept} were complete before" if self.kept else ""
        tiles = f"{self.tiles_scored} scored, {self.tiles_skipped} skipped (no valid pixel)"
        lines = [
            f"pixels   {self.pixels / 1e6:.2f} Mpx in {self.chunks} chunks{before}",
            f"valid    {self.valid / max(self.pixels, 1):.1%} of the pixels{self._reasons()}",
            f"tiles    {tiles}, {len(self.failures)} failed",
            f"time     {self.seconds:.1f} s, {speed:.2f} Mpx/s",
        ]
        lines += [
            f"failed   tile at pixel ({f.window.row}, {f.window.col}): {f.reason}"
            for f in self.failures[:10]
        ]
        if len(self.failures) > 10:  # noqa: PLR2004 - a screen's worth
            lines.append(f"failed   ... and {len(self.failures) - 10} more tiles")
        lines += [f"lost     {reason}" for reason in self.lost]
        return "\n".join([*lines, *(f"note     {note}" for note in self.notes)])

    def _reasons(self) -> str:
        shares = sorted(self.invalid.items(), key=lambda item: -item[1])
        words = ", ".join(f"{reason} {share:.1%}" for reason, share in shares)
        return f"; not valid: {words}" if words else ""


def run_facts(plan: ScorePlan, summary: RunSummary, weights: str | None) -> dict[str, Any]:
    """What ``run.json`` holds of every run, as plain values.

    Args:
        plan: What was planned.
        summary: What was done.
        weights: sha256 of the weights, None for a detector that has none.
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
        **cluster.to_dict(plan.memory.total),
        "versions": {
            "uniadrs_scale": plan.version,
            "python": platform.python_version(),
            "gdal": rasterio.__gdal_version__,
            **_library_versions(),
        },
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
        },
    }


@cache
def _library_versions() -> dict[str, str]:
    """Looked up once: a sweep of many small scenes would spend a twentieth of its time on it."""
    return {name: version(name) for name in LIBRARIES}


def report_place(output: Place) -> Place:
    """Where the report of a map lies: beside it, under the map's whole name.

    Not inside a store: its files are the same bytes however the run went, and a report is not.
    """
    return output.beside(f"{output.name}.run.json")


def write_report(path: Place, facts: Mapping[str, Any]) -> None:
    """Write ``facts`` as JSON; what was there before is replaced whole, or left whole."""
    path.write(redact(json.dumps(facts, indent=1)).encode())


class IncompleteWarning(UserWarning):
    """Some pixels of a map are missing that should not be."""


class SceneWarning(UserWarning):
    """Something about a scene looks wrong, and a map of it may mislead."""
