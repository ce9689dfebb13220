"""Writes weights so that equal ones make equal files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from safetensors.torch import save

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def write(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file whose bytes follow from its content alone.

    safetensors writes metadata in an order that changes from call to call (its issue 584), so that
    no digest of a file would ever come out again. Here its header is sorted.
    """
    packed = save(state, metadata)
    start = 8 + int.from_bytes(packed[:8], "little")
    header = json.loads(packed[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    partial = path.with_suffix(".partial")
    partial.write_bytes(len(text).to_bytes(8, "little") + text + packed[start:])
    partial.replace(path)
