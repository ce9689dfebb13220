"""Models in files of torch.export and ONNX: opened without running code that they hold."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from uniadrs_scale.detector.inference import one_thread
from uniadrs_scale.errors import WeightsError, gist

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Call = Callable[[NDArray[np.float32]], Any]

ELSEWHERE = b"\n\x08location\x12"
"""Key in an ONNX file before the name of another file that holds the numbers of a tensor."""


@dataclass(frozen=True, slots=True)
class File:
    """A model in a file, which each process opens once: workers must be able to read it."""

    path: str
    sha256: str

    @property
    def digest(self) -> str:
        """Start of the file's sha256."""
        return f"sha256:{self.sha256[:12]}"

    def answer(self, tiles: NDArray[np.float32]) -> Any:
        """Return what the model does, in one thread."""
        with _OPENING:
            call = _opened(self.path, self.sha256)
        return call(tiles)


def model_file(path: Path) -> File:
    """Return the model in a file, after a look at its kind."""
    if path.suffix not in _OPENERS:
        raise WeightsError(
            f"'{path}' is not a .pt2 (torch.export.save) or .onnx file, so it is not opened. "
            "Pickles (.pt, .pth, .pkl) can run code and are not opened: load them yourself, and "
            "pass the module. For weights of this library use Detector.load."
        )
    file = path.resolve()
    if not file.is_file():
        raise WeightsError(f"Model '{path}' does not exist. Check the path.")
    made = File(str(file), hashlib.sha256(file.read_bytes()).hexdigest())
    with _OPENING:
        _opened(made.path, made.sha256)
    return made


_OPENING = threading.Lock()


@lru_cache(maxsize=4)
def _opened(path: str, sha256: str) -> Call:
    """Return the model in a file, opened once; raise WeightsError if it changed or is damaged."""
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise WeightsError(f"'{path}' has changed since the scorer was made. Make it again.")
    try:
        return _OPENERS[Path(path).suffix](content)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(
            f"'{path}' cannot be opened as a model ({gist(error)}). Export it again."
        ) from error


def _exported(content: bytes) -> Call:
    """Return the program in an archive of torch.export; refuse one that holds pickles.

    torch opens some of them without limits (2.13: pickled weights, custom objects).
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = [name for name in archive.namelist() if name.endswith(".json")]
        if not any("/models/" in name for name in files):
            raise WeightsError("The .pt2 file is of an old kind. Export it by torch 2.8 or newer.")
        held = [json.loads(archive.read(n)) for n in files if n.endswith("_config.json")]
    entries = [entry for each in held for entry in each.get("config", {}).values()]
    objects = "custom_obj", "opaque_obj"
    if any(e.get("use_pickle") or str(e.get("path_name")).startswith(objects) for e in entries):
        raise WeightsError(
            "The .pt2 file holds pickled objects, which can run code: it is not opened. Export "
            "the model with plain tensors only."
        )
    with _plain_tensors_only():
        module = torch.export.load(io.BytesIO(content)).module()
    return lambda tiles: by_torch(module, tiles)


@contextmanager
def _plain_tensors_only() -> Iterator[None]:
    """Let torch.load build tensors only, also where torch asks for more."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _onnx(content: bytes) -> Call:
    """Return the model in an ONNX file, for one thread per call."""
    if ELSEWHERE in content:  # onnxruntime would look for it in the current folder
        raise WeightsError(
            "The ONNX model has weights in another file, which do not identify it. Export all in "
            "one file: torch.onnx.export(..., external_data=False)."
        )
    try:
        onnxruntime = import_module("onnxruntime")  # an extra
    except ImportError:
        raise WeightsError(
            "ONNX files need onnxruntime. Install it: pip install 'uniadrs-scale[onnx]'."
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (given, *more) = [value.name for value in session.get_inputs()]
    if more:
        raise WeightsError(f"The ONNX model has {len(more) + 1} inputs. Export one with one input.")

    def call(tiles: NDArray[np.float32]) -> Any:
        found = session.run(None, {given: tiles})
        return found[0] if len(found) == 1 else found

    return call


_OPENERS: dict[str, Callable[[bytes], Call]] = {".pt2": _exported, ".onnx": _onnx}


def by_torch(module: Callable[..., Any], tiles: NDArray[np.float32]) -> Any:
    """Return the arrays of a module, computed in one thread."""
    with torch.inference_mode(), one_thread():
        found = module(torch.from_numpy(np.ascontiguousarray(tiles)))
        if isinstance(found, dict):
            return dict(found)
        if isinstance(found, torch.Tensor):
            return _array(found)
        return [_array(part) for part in found]


def _array(part: torch.Tensor) -> NDArray[Any]:
    """Return a tensor as an array; complex numbers stay so, to be refused."""
    return (part if part.is_complex() else part.float()).numpy()
