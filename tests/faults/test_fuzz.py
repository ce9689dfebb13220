"""Damaged and strange inputs: a sentence or a right map, never a traceback, a hang, half a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fuzz import verdicts

if TYPE_CHECKING:
    from pathlib import Path

QUICK = range(5000, 5060)
"""Other numbers than those of the long run (0 to 999), so that it has not seen them all."""
FOUND: tuple[int, ...] = (6, 15, 44, 45, 50, 56, 991)
"""Numbers that once were a traceback, a hang or half a file."""


@pytest.mark.parametrize("numbers", [FOUND, QUICK], ids=["found", "quick"])
def test_every_input_ends_in_a_sentence_or_a_map(tmp_path: Path, numbers: range) -> None:
    faults = [verdict for verdict in verdicts(numbers, tmp_path / "scratch") if verdict["fault"]]
    assert not faults, "\n\n".join(f"{v['number']} {v['what']}\n{v['fault']}" for v in faults)
