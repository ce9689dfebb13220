"""Every notebook of the documents runs, cell by cell, and shows its results."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.py"))
CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)


def cells(path: Path) -> list[tuple[str, str]]:
    """The (title, text) of each cell of a script in the percent format."""
    _, *parts = CELL.split(path.read_text(encoding="utf-8"))
    return list(zip(parts[::2], parts[1::2], strict=True))


def run(text: str, names: dict[str, object]) -> str:
    """Return the text that Jupyter would show for the last expression of a cell."""
    tree = ast.parse(text)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)  # noqa: S102 - our own document
    if last is None:
        return ""
    shown = eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # noqa: S307
    return shown._repr_html_() if hasattr(shown, "_repr_html_") else repr(shown)


@pytest.fixture
def plots() -> Iterator[None]:
    """Plots are drawn, not shown."""
    before = mpl.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(before)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("plots")
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict[str, object] = {"__name__": "notebook"}
    shown = []
    for title, text in cells(path):
        if title.strip() == "[markdown]":
            assert all(line.startswith("#") for line in text.strip().splitlines())
        else:
            shown.append(run(text, names))
    assert any("<pre>" in html or "<table" in html for html in shown)
    if path.stem == "read_targets":  # it shows everything that it explains
        assert {1, 2} <= set(names["found"]["support"])
        assert len(names["missing"]) > 0
    if path.stem == "own_model":  # each layer has colours of its own
        axes = [a for n in plt.get_fignums() for a in plt.figure(n).axes if a.images]
        ranges = {a.get_title(): a.images[0].get_clim() for a in axes}
        assert ranges["ndwi"][1] <= 1
        assert ranges["brightness"][1] > 100


def test_every_notebook_is_a_page_of_the_site() -> None:
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert NOTEBOOKS
    assert all(f"- notebooks/{path.name}\n" in navigation for path in NOTEBOOKS)
