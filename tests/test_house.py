"""The structure of the library: its rooms, the direction of imports, and limits of size.

The layers are checked by import-linter (``make lint``). Circles in a room are checked here.
"""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import grimp
import pytest

import uniadrs_scale as us

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "uniadrs_scale"
ROOMS = {
    "archive", "cli", "core", "demo", "detector", "evaluation", "maps", "objects", "pages",
    "runtime", "scenes", "scoring", "storage", "swaths",
}  # fmt: skip
MODULES = sorted(LIBRARY.rglob("*.py"))
PUBLIC_VERBS = {"open_scene", "score", "plan", "prepare", "to_cog", "sweep", "load", "demo",
                "targets", "report", "scorer", "crop"}  # fmt: skip
"""Functions whose parameters are options of the user."""
MOST_PARAMETERS = 6


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_the_root_holds_two_files_and_the_rooms() -> None:
    files = {path.name for path in LIBRARY.iterdir() if path.is_file()}
    rooms = {path.name for path in LIBRARY.iterdir() if (path / "__init__.py").is_file()}
    assert files == {"__init__.py", "errors.py", "py.typed"}
    assert rooms == ROOMS


def test_no_module_of_the_root_has_the_name_of_a_public_function() -> None:
    functions = {name for name in us.__all__ if callable(getattr(us, name))}
    assert not functions & (ROOMS | {"errors"})


def test_there_are_at_most_160_modules() -> None:
    assert sum(path.name != "__init__.py" for path in MODULES) <= 160


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_a_module_has_at_most_300_lines(path: Path) -> None:
    assert len(lines(path)) <= 300


def test_the_library_has_at_most_36300_lines() -> None:
    assert sum(len(lines(path)) for path in MODULES) <= 36_300


def test_the_linter_is_silenced_rarely() -> None:
    text = "\n".join(line for path in MODULES for line in lines(path))
    assert len(re.findall(r"# noqa", text)) <= 40
    assert len(re.findall(r"# fmt: (skip|off)", text)) <= 5
    assert not re.findall(r"# type: ignore(?!\[[\w, -]+\] )", text)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("uniadrs_scale")
    modules = graph.modules
    # A package and its modules are one place: only arrows between modules count.
    arrows = {
        module: {
            other
            for other in graph.find_modules_directly_imported_by(module)
            if other in modules and other != module
        }
        for module in modules
    }
    left = dict(arrows)
    while free := {module for module, needs in left.items() if not needs & left.keys()}:
        left = {module: needs for module, needs in left.items() if module not in free}
    assert not left


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_functions_have_few_parameters() -> None:
    crowded = [
        f"{path.relative_to(LIBRARY)}:{node.lineno} {node.name}"
        for path in MODULES
        if path.parent.name != "cli" and path.name != "triton_kernels.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name not in PUBLIC_VERBS
        and parameters(node) > MOST_PARAMETERS
    ]
    assert not crowded


@pytest.mark.parametrize(
    ("change", "most"),
    [("a reader of a product", 4), ("a layer of the map", 6), ("an export after a run", 4)],
)
def test_a_recipe_names_few_files_and_these_exist(change: str, most: int) -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    _, _, recipe = text.partition(f"**... {change}** (")
    said, _, recipe = recipe.partition("\n\n")[0].partition("): ")
    files = set(re.findall(r"`([\w/]+\.(?:py|md))`", recipe))
    counted = max(map(int, re.findall(r"\d+", said))) + ("and a test" in said)
    assert counted <= most
    assert 1 <= len(files) <= most
    missing = {name for name in files if not any((r / name).exists() for r in (ROOT, LIBRARY))}
    assert {Path(name).stem for name in missing} <= {"NAME"}


def exists(reference: str) -> bool:
    """Return True if a dotted name is a module of the library or a name in one."""
    parts = reference.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_references_to_the_library_exist() -> None:
    folders = "uniadrs_scale", "tests", "model", "benchmarks", "pipelines", "docs"
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    gone = {
        f"{path.relative_to(ROOT)}: {found}"
        for path in (*files, *ROOT.glob("*.md"))
        if path.suffix in {".py", ".md"} and path.name not in {"test_house.py", "CHANGELOG.md"}
        for found in re.findall(r"\buniadrs_scale(?:\.\w+)+", path.read_text(encoding="utf-8"))
        if not exists(found)
    }
    assert not gone


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named, room = set(), ""
    for line in text.partition("## How to add")[0].splitlines():
        if found := re.match(r"### `([\w/]+)/`", line):
            room = found[1]
        elif found := re.match(r"- `(\w+\.py)`: ", line):
            named.add(f"{room}/{found[1]}")
    there = {str(path.relative_to(LIBRARY)) for path in MODULES if path.name != "__init__.py"}
    assert named == there - {"errors.py"}
