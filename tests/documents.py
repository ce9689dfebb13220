"""Commands and code of the documents, run as a reader would."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from uniadrs_scale.cli import main as cli

DOCS = Path(__file__).parents[1] / "docs"
STEP = re.compile(r"^    (uniadrs-scale [^\n]+)$|^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def steps(page: str) -> list[tuple[str, str]]:
    """The (command, code) of a page in their order; one of both is empty."""
    return STEP.findall(text_of(page))


def run_command(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Run one command of the library in this process; it must end with 0."""
    monkeypatch.setattr(sys, "argv", shlex.split(command, comments=True))
    with pytest.raises(SystemExit) as stop:
        cli.main()
    told = capsys.readouterr()
    assert not stop.value.code, f"{command}\n{told.out}{told.err}"
