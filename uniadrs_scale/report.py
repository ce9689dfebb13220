"""What a run did, for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uniadrs_scale.redaction import redact

if TYPE_CHECKING:
    from pathlib import Path

    from uniadrs_scale.tasks import ChunkReport, TileFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run did; what an earlier run had already done is not counted."""

    output: Path | str
    """Zarr store or COG."""
    pixels: int
    """Pixels of the chunks that were committed."""
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

    @classmethod
    def of(
        cls,
        output: Path | str,
        reports: list[ChunkReport],
        kept: int,
        lost: list[Exception],
        seconds: float,
    ) -> RunSummary:
        """The sum of all chunk reports."""
        return cls(
            output=output,
            pixels=sum(report.pixels for report in reports),
            chunks=len(reports),
            kept=kept,
            tiles_scored=sum(report.scored for report in reports),
            tiles_skipped=sum(report.skipped for report in reports),
            failures=tuple(failure for report in reports for failure in report.failures),
            lost=tuple(redact(f"{type(error).__name__}: {error}") for error in lost),
            seconds=seconds,
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
            f"tiles    {tiles}, {len(self.failures)} failed",
            f"time     {self.seconds:.1f} s, {speed:.2f} Mpx/s",
        ]
        lines += [
            f"failed   tile at pixel ({f.window.row}, {f.window.col}): {f.reason}"
            for f in self.failures[:10]
        ]
        if len(self.failures) > 10:  # noqa: PLR2004 - a screen's worth
            lines.append(f"failed   ... and {len(self.failures) - 10} more tiles")
        return "\n".join([*lines, *(f"lost     {reason}" for reason in self.lost)])


class IncompleteWarning(UserWarning):
    """Some pixels of a map are missing that should not be."""
