"""The ten rules of plain English, in the library, the scripts and the documents.

Each rule is a regular expression for a turn of phrase that is hard to read. Exceptions are in
``RIGHT``. The imperative mood of docstrings is checked by ruff (D401).
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("uniadrs_scale", "pipelines", "model", "benchmarks")
DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/*.md", "model/*.md", "benchmarks/*.md")
    for path in sorted(ROOT.glob(pattern))
    if path.name != "CHANGELOG.md"
]
DOCUMENTS.append(ROOT / "uniadrs_scale" / "archive" / "example.yaml")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
SOURCES.append(ROOT / ".ci" / "audit")

START = r"(?:^|[.:] |\"\"\"|# )"
RULES = {
    "Write 'if' for a condition, not 'where'": (
        r"\b(True|False|None|raise[sd]?|refused?|empty|missing) where\b"
        r"|\bwhere (it|they|there|nobody|none|no) \w+"
    ),
    "Write 'is not a', not 'is no' or 'is none'": (
        r"\b(is|are|was|were) (no|none)\b(?! longer| more)"
    ),
    "No sentence begins with 'Of'": START + r"Of (the|a|an|what|those|one|all|each|\w+s) ",
    "No people": r"\b([Nn]obody|[Ss]omebody|[Ww]hoever|[Aa]nybody|anybody's|nobody's|somebody's)\b",
    "Name the thing instead of 'what ...'": (
        r"^# Wh(ere|o|ich) [^?]*$"
        r"|(?:^|\"\"\"|# )What (?!is\b|are\b|does\b|do\b|if\b|happens\b|it\b)[^?]*$"
    ),
    "Write 'omit' or 'drop'": r"\b(leave|leaves|left) (it|them|\S+) away\b|\bleft out of it\b",
    "Write 'per' for a rate, not 'a'": (
        r"\b(one|two|three|four|\d+) (\w+ )?(file|folder|process|task|tile|tasks|times|bytes|core"
        r"|worker|threads?) an? (band|core|worker|chunk|scene|tile|GPU|pixel|second|process)\b"
        r"|\b(MiB|bytes|tiles|tasks|seconds|ms) an? (worker|tile|chunk|task|second|pixel|call)\b"
    ),
    "Write 'next to', 'in' or 'is at'": r"\b(beside|lies|lie)\b",
    "Write 'separately'": r"\b(kept|scored|told|taken) apart\b",
    "No metaphors": (
        r"\b([Pp]atien(ce|t|tly)|guilty|slip of the pen|stumbles?|glows?|wait(s|ed)? for ever|dies?"
        r"|dying|guess(ed)? anew|anew|bad luck|in vain)\b"
    ),
    "No sentence begins with 'That'": r"(?:^|\"\"\"|# )That (?!is\b|was\b|way\b|said\b)",
}
RIGHT: tuple[str, ...] = ("beside (i, j)",)
"""Parts of lines that match a rule and are right."""


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of docstrings, comments, messages, or the lines of a document."""
    text = path.read_text(encoding="utf-8")
    if path not in SOURCES:
        code = False
        for number, line in enumerate(text.splitlines(), 1):
            code ^= line.startswith("```")
            if not code and not line.startswith("    "):
                yield number, line
        return
    for number, line in enumerate(text.splitlines(), 1):
        _, mark, comment = line.partition("# ")
        if mark and not comment.startswith(("noqa", "type:", "fmt:")):
            yield number, f"# {comment}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for offset, line in enumerate(node.value.splitlines()):
                yield node.lineno + offset, ('"""' if offset == 0 else "") + line.strip()


@pytest.mark.parametrize("rule", RULES)
def test_the_rules_of_language_are_kept(rule: str) -> None:
    pattern = re.compile(RULES[rule])
    broken = [
        f"{path.relative_to(ROOT)}:{number}: {line[:110]}"
        for path in (*SOURCES, *DOCUMENTS)
        for number, line in prose(path)
        if pattern.search(line) and not any(part in line for part in RIGHT)
    ]
    assert not broken, f"{rule}:\n" + "\n".join(broken)


def test_every_rule_finds_what_it_is_for() -> None:
    examples = [
        "None where it has none",
        "The grid is no swath",
        '"""Of the map.',
        "nobody is told",
        "# What a run did",
        "Give it, or leave them away",
        "one task a chunk",
        "the mask lies beside the map",
        "tiles are scored apart",
        "the retry uses up its patience",
        "# That it is done",
    ]
    for pattern, example in zip(RULES.values(), examples, strict=True):
        assert re.search(pattern, example), example


def test_documents_have_lines_that_fit_a_screen() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(readme) <= 150
    assert max(map(len, readme)) <= 120
