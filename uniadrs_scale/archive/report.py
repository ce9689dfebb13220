"""What a sweep found and did."""

from __future__ import annotations

from dataclasses import dataclass, field
from signal import Signals
from typing import TYPE_CHECKING, Any

from uniadrs_scale.archive.reconcile import Action, count

if TYPE_CHECKING:
    from uniadrs_scale.archive.reconcile import Decision


@dataclass(slots=True, kw_only=True)
class SweepReport:
    """What a sweep found and did."""

    decisions: tuple[Decision, ...] = ()
    left_out: int = 0
    """Items that the filters left out."""
    done: list[str] = field(default_factory=list)
    """Scenes that have a new product."""
    incomplete: list[str] = field(default_factory=list)
    """Of these, those with failed tiles."""
    failed: dict[str, str] = field(default_factory=dict)
    """Scenes that failed in this sweep, and why; also items that were refused."""
    parked: list[str] = field(default_factory=list)
    """Of these, those that will not be tried again."""
    removed: list[str] = field(default_factory=list)
    """Products that retention removed."""
    signal: int = 0
    """That ended the sweep early; 0 for none."""
    pixels: int = 0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """True where everything that was to do is done."""
        return not self.failed and not self.signal

    @property
    def exit_code(self) -> int:
        """0 complete, 1 a scene failed, 128 + signal where the sweep was ended."""
        return 128 + self.signal if self.signal else int(bool(self.failed))

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "listed": len(self.decisions),
            "left_out": self.left_out,
            "decided": count(self.decisions),
            "todo": sum(d.action is Action.SCORE for d in self.decisions),
            "done": len(self.done),
            "incomplete": self.incomplete,
            "failed": self.failed,
            "parked": self.parked,
            "removed": self.removed,
            "signal": self.signal,
            "pixels": self.pixels,
            "seconds": round(self.seconds, 1),
            "complete": self.complete,
        }

    def counts(self) -> str:
        """Decisions by action, for people."""
        found = count(self.decisions).items()
        return ", ".join(f"{number} {action}" for action, number in found if number) or "nothing"

    def text(self) -> str:
        """The closing summary, a line a fact."""
        facts = self.facts()
        speed = f"{self.pixels / 1e6:.2f} Mpx in {self.seconds:.1f} s"
        lines = [
            f"listed   {facts['listed']} items, {self.left_out} left out by filters",
            f"decided  {self.counts()}",
            f"done     {len(self.done)} of {facts['todo']}, {speed}",
        ]
        lines += [f"removed  {name}: older than keep_days" for name in self.removed]
        lines += [
            f"partial  {name}: some tiles failed, see its run.json" for name in self.incomplete
        ]
        for name, reason in self.failed.items():
            verb = "parked " if name in self.parked else "failed "
            lines.append(f"{verb}  {name}: {reason}")
        if self.signal:
            lines.append(f"ended by {Signals(self.signal).name}: the same command resumes")
        return "\n".join(lines)
