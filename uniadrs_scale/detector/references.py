"""Which modules belong to the caller, and what their code refers to."""

from __future__ import annotations

import ast
import dis
import importlib.util
import sys
import sysconfig
import types
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALLED = tuple(
    str(Path(sysconfig.get_path(name)).resolve())
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
OWN = __name__.partition(".")[0]
PACKAGES = {"site-packages", "dist-packages"}
"""Folders of packages, also those of a user (pip install --user) and of Linux."""
LOADS = {"LOAD_GLOBAL", "LOAD_NAME"}


def is_installed(name: str) -> bool:
    """Return True if a module belongs to Python or to an installed package."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return name in sys.builtin_module_names or name == "builtins"
    return _lies_in_package(file)


def _lies_in_package(file: str) -> bool:
    path = Path(file).resolve()
    return str(path).startswith(INSTALLED) or not PACKAGES.isdisjoint(path.parts)


def version_of(name: str) -> str:
    """Return the version of the package of a module; that of Python if it has none."""
    top = sys.modules.get(name.partition(".")[0])
    return str(getattr(top, "__version__", sys.version_info[:2]))


def imported(code: types.CodeType, package: str) -> set[str]:
    """Return the modules, and what may be modules, that code and the functions in it import."""
    found = set()
    for part in codes(code):
        steps = [step for step in dis.get_instructions(part) if step.opname != "EXTENDED_ARG"]
        for level, names, step in zip(steps, steps[1:], steps[2:], strict=False):
            if step.opname == "IMPORT_NAME" and (package or not level.argval):
                base = importlib.util.resolve_name("." * level.argval + step.argval, package)
                found |= {base, *(f"{base}.{name}" for name in names.argval or ())}
    return found


def imported_by(source: bytes, package: str) -> set[str]:
    """Return the same for the source of a module."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def own_files(names: set[str]) -> dict[str, Path]:
    """Return the files of those modules that are the caller's, by name, in order."""
    found = ((name, _own_file(name)) for name in sorted(names))
    return {name: file for name, file in found if file is not None}


def _own_file(name: str) -> Path | None:
    """Return the file of a module of the caller; None for another one, or for no module."""
    try:
        for part in (name.partition(".")[0], name):  # no search in an installed package: slow
            found = importlib.util.find_spec(part)
            file = found.origin if found is not None and found.has_location else None
            if file is not None and (part == OWN or _lies_in_package(file)):
                return None
    except (ImportError, ValueError, AttributeError):
        return None
    return None if file is None else Path(file)


def global_names(code: types.CodeType) -> set[str]:
    """Return the global names that code and the functions in it use."""
    steps = (step for part in codes(code) for step in dis.get_instructions(part))
    return {str(step.argval) for step in steps if step.opname in LOADS}


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield code and that of the functions in it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from codes(const)
