"""Digests of models: code, arrays and parameters, so that no run is resumed with another model.

A function of the caller is its bytecode with all that it refers to; a module is its source, with
those of the modules that it imports. What is in installed packages is its name and version. What
cannot be told, such as an open file, is refused.
"""

from __future__ import annotations

import functools
import hashlib
import types
from contextlib import suppress
from importlib import import_module
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from uniadrs_scale.detector.references import (
    codes,
    global_names,
    imported,
    imported_by,
    is_installed,
    own_files,
    version_of,
)
from uniadrs_scale.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterable

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), range, slice, PurePath)
OF_TORCH = "_flat_weight", "_load_hook", "_initialize_hook"
"""Attributes of torch's own modules that say nothing new."""
EMPTY_MODULE = {*vars(torch.nn.Module()), "_compiled_call_impl"}
"""Attributes that every torch module has."""
HOOKS = "_forward_hooks", "_forward_pre_hooks"


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
            self.each(self.ordered(value, list(value)))
        elif isinstance(value, dict):
            self.each(self.ordered(value, list(value.items())))
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

    def ordered(self, keys: Iterable[Any], items: list[Any]) -> list[Any]:
        """Return the items of a set or dict in an order that does not depend on the process."""
        if all(isinstance(key, PLAIN) for key in keys):
            order = [f"{type(key).__name__} {key!r}" for key in keys]
        else:
            order = [self.apart(item) for item in items]
        return [item for _, item in sorted(zip(order, items, strict=True), key=lambda x: x[0])]

    def apart(self, value: Any) -> str:
        """Return the digest of an object that may refer to those seen before."""
        found = _Digest()
        found.seen, found.kept = dict(self.seen), self.kept
        found.add(value)
        return found.sha.hexdigest()

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
            graph = isinstance(part, torch.fx.GraphModule)  # its code is its own
            self.text(part.code if graph else "")
            skipped = "_" if graph else OF_TORCH
            plain = {
                k: v
                for k, v in vars(part).items()
                if k not in EMPTY_MODULE and not k.startswith(skipped)
            }
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
        home, code = value.__globals__, value.__code__
        package = str(home.get("__package__") or "")
        files = own_files(imported(code, package))
        self.imports(files)
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        self.each((value.__defaults__, value.__kwdefaults__, cells, vars(value)))
        found = {name: home[name] for name in global_names(code) & home.keys()}
        for name in files:  # their values may be others by now than in their sources
            with suppress(Exception):  # the function would raise it, too
                found[f"import {name}"] = import_module(name)
        self.members(found, {name for part in codes(code) for name in part.co_names})
        return None

    def members(self, found: dict[str, Any], used: set[str]) -> None:
        """Add objects by name, and the parts of own modules that have the names ``used``."""
        modules: list[types.ModuleType] = []
        pending = [(name, found[name]) for name in sorted(found)]
        for name, value in pending:
            self.text(name)
            self.add(value)
            own = isinstance(value, types.ModuleType) and not is_installed(value.__name__)
            if own and value not in modules:
                modules.append(value)
                pending += [(part, vars(value)[part]) for part in sorted(used & vars(value).keys())]

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
        if getattr(value, "__file__", None):  # a folder without __init__.py has none
            self.source(value.__name__, Path(str(value.__file__)))
        return None

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
            with suppress(SyntaxError):  # its import would raise it
                self.imports(own_files(imported_by(source, package)))

    def imports(self, files: dict[str, Path]) -> None:
        """Add the sources of modules of the caller, whenever they are imported."""
        for name, file in files.items():
            self.source(name, file)


def _is_python(kind: type) -> bool:
    """Return True if objects of a class are their attributes: C code may hold more in them."""
    if hasattr(kind, "__slots__"):
        return False
    methods = (isinstance(member, types.FunctionType) for member in vars(kind).values())
    return any(methods) or not is_installed(kind.__module__)
