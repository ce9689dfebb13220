"""Digests of models: code, arrays and parameters, so that no run is resumed with another model.

A function of the caller is its bytecode with all that it refers to; a module is its source, with
those of the modules that it imports. What is in installed packages is its name and version. What
cannot be told, such as an open file, is refused.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib.util
import sys
import sysconfig
import types
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from uniadrs_scale.errors import PlanError

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), range, slice, PurePath)
INSTALLED = tuple(
    str(Path(sysconfig.get_path(name)).resolve())
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
OWN = __name__.partition(".")[0]
PACKAGES = {"site-packages", "dist-packages"}
"""Folders of packages, also those of a user (pip install --user) and of Linux."""
HOOKS = "_forward_hooks", "_forward_pre_hooks"
LOADS = {"LOAD_GLOBAL", "LOAD_NAME"}


def model_digest(model: object) -> str:
    """Return 12 hex digits that change when the model does.

    Raises:
        PlanError: The model refers to something whose content is unknown.
    """
    found = _Digest()
    found.add(model)
    return found.sha.hexdigest()[:12]


class _Digest:
    """A digest of objects, each once."""

    def __init__(self) -> None:
        self.sha = hashlib.sha256()
        self.seen: dict[int, int] = {}
        self.kept: list[object] = []
        """Objects seen: as long as they live, no other has their ids."""
        self.sources: set[str] = set()
        """Modules seen."""

    def text(self, *parts: object) -> None:
        for part in parts:
            self.sha.update(f"{part!s}\0".encode())

    def add(self, value: Any) -> None:  # noqa: C901, PLR0912 - one branch per kind of object
        """Add an object and all that it refers to."""
        if isinstance(value, PLAIN):
            return self.text(type(value).__name__, repr(value))
        if id(value) in self.seen:
            return self.text("seen", self.seen[id(value)])
        self.seen[id(value)] = len(self.seen)
        self.kept.append(value)
        self.text(type(value).__module__, type(value).__qualname__)
        if isinstance(value, tuple | list):
            self.each(value)
        elif isinstance(value, set | frozenset):
            self.text(*sorted(model_digest(item) for item in value))
        elif isinstance(value, dict):
            self.text(*sorted(model_digest(item) for item in value.items()))
        elif isinstance(value, np.dtype):
            self.text(value.str)
        elif isinstance(value, np.ndarray | np.generic):
            self.array(np.asarray(value))
        elif isinstance(value, torch.Tensor):
            self.text(value.dtype, tuple(value.shape))
            data = value.detach().cpu().contiguous().reshape(-1)
            self.sha.update(data.view(torch.uint8).numpy().tobytes() if data.numel() else b"")
        elif isinstance(value, torch.dtype | torch.device | np.ufunc):
            self.text(value)
        elif isinstance(value, torch.nn.Module):
            self.module(value)
        elif isinstance(value, types.CodeType):
            self.code(value)
        elif isinstance(value, types.ModuleType):
            self.package(value)
        elif isinstance(value, functools.partial):
            self.each((value.func, value.args, value.keywords))
        elif isinstance(value, types.MethodType):
            self.each((value.__func__, value.__self__))
        elif isinstance(value, types.FunctionType):
            self.function(value)
        elif isinstance(value, type):
            self.kind(value)
        elif isinstance(value, types.BuiltinFunctionType | types.MethodDescriptorType):
            self.text(value.__qualname__, version_of(value.__module__ or "builtins"))
        elif isinstance(value, staticmethod | classmethod):
            self.add(value.__func__)
        elif isinstance(value, property):
            self.each((value.fget,))
        elif (inner := getattr(value, "__wrapped__", getattr(value, "py_func", None))) is not None:
            self.add(inner)
        elif hasattr(value, "__dict__") and _is_python(type(value)):
            self.add(type(value))
            self.add(vars(value))
        else:
            raise PlanError(
                f"The model refers to a {type(value).__name__} ({str(value)[:60]}), whose content "
                "cannot be told, so that a run might be resumed with another model. Pass "
                "version='1' to scorer(), and change it whenever the model changes."
            )
        return None

    def each(self, values: Any) -> None:
        """Add objects in their order."""
        self.text(len(values))
        for value in values:
            self.add(value)

    def array(self, value: np.ndarray[Any, Any]) -> None:
        """Add the values of an array."""
        self.text(value.dtype.str, value.shape)
        if value.dtype.hasobject:
            self.each(value.ravel().tolist())
        else:
            self.sha.update(np.ascontiguousarray(value).tobytes())

    def module(self, value: torch.nn.Module) -> None:
        """Add the parameters, buffers, attributes and code of a network."""
        for name, part in value.named_modules():
            self.text(name)
            self.add(type(part))
            plain = {k: v for k, v in vars(part).items() if k[0] != "_" and k != "training"}
            hooks = [list(vars(part)[kind].values()) for kind in HOOKS]
            own = dict(part.named_parameters(recurse=False)) | dict(
                part.named_buffers(recurse=False)
            )
            self.each((plain, own, hooks))

    def function(self, value: types.FunctionType) -> None:
        """Add the code of a function with its defaults, closure and globals."""
        if is_installed(value.__module__):
            return self.text(value.__module__, value.__qualname__, version_of(value.__module__))
        self.code(value.__code__)
        self.imports(value.__code__, str(value.__globals__.get("__package__") or ""))
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        self.each((value.__defaults__, value.__kwdefaults__, cells))
        for name in sorted(_globals(value.__code__)):
            if name in value.__globals__:
                self.text(name)
                self.add(value.__globals__[name])
        return None

    def code(self, code: types.CodeType) -> None:
        """Add what code does, wherever it is."""
        self.text(code.co_code.hex(), code.co_exceptiontable.hex(), code.co_flags)
        self.text(code.co_names, code.co_varnames, code.co_freevars, code.co_argcount)
        self.each(code.co_consts)

    def kind(self, value: type) -> None:
        """Add a class: its name, and its code unless it is installed."""
        self.text(value.__module__, value.__qualname__)
        if is_installed(value.__module__):
            return self.text(version_of(value.__module__))
        self.each(value.__bases__)
        skipped = {"__dict__", "__weakref__", "__module__", "__doc__", "__annotations__"}
        for name, member in sorted(vars(value).items()):
            if name not in skipped and not name.startswith(("_abc_", "__static", "__firstline")):
                self.text(name)
                self.add(member)
        return None

    def package(self, value: types.ModuleType) -> None:
        """Add a module: its version if it is installed, else its source."""
        self.text(value.__name__)
        if is_installed(value.__name__):
            return self.text(version_of(value.__name__))
        return self.source(value.__name__, Path(str(value.__file__)))

    def source(self, name: str, file: Path) -> None:
        """Add the source of a module, and those of the modules that it imports."""
        if name in self.sources:
            return
        self.sources.add(name)
        source = file.read_bytes()
        self.text(name)
        self.sha.update(source)
        if file.suffix == ".py":
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            self.imports(compile(source, file, "exec", dont_inherit=True), package)

    def imports(self, code: types.CodeType, package: str) -> None:
        """Add the sources of the caller's modules that code imports, also later and elsewhere."""
        for name in sorted(_imported(code, package)):
            if (file := _own_file(name)) is not None:
                self.source(name, file)


def is_installed(name: str) -> bool:
    """Return True if a module belongs to Python or to an installed package."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return name in sys.builtin_module_names or name == "builtins"
    return _lies_in_package(file)


def _lies_in_package(file: str) -> bool:
    path = Path(file).resolve()
    return str(path).startswith(INSTALLED) or not PACKAGES.isdisjoint(path.parts)


def _is_python(kind: type) -> bool:
    """Return True if objects of a class are their attributes: C code may hold more in them."""
    if hasattr(kind, "__slots__"):
        return False
    methods = (isinstance(member, types.FunctionType) for member in vars(kind).values())
    return any(methods) or not is_installed(kind.__module__)


def version_of(name: str) -> str:
    """Return the version of the package of a module; that of Python if it has none."""
    top = sys.modules.get(name.partition(".")[0])
    return str(getattr(top, "__version__", sys.version_info[:2]))


def _globals(code: types.CodeType) -> set[str]:
    """Return the global names that code and the functions in it use."""
    names = {str(i.argval) for i in dis.get_instructions(code) if i.opname in LOADS}
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return names.union(*map(_globals, inner))


def _imported(code: types.CodeType, package: str) -> set[str]:
    """Return the modules, and what may be modules, that code and the functions in it import."""
    found = set()
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for level, names, step in zip(steps, steps[1:], steps[2:], strict=False):
        if step.opname == "IMPORT_NAME" and (package or not level.argval):
            base = importlib.util.resolve_name("." * level.argval + step.argval, package)
            found |= {base, *(f"{base}.{name}" for name in names.argval or ())}
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return found.union(*(_imported(const, package) for const in inner))


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
