"""Weights files whose bytes are equal if their content is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from safetensors.torch import save

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def write(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file whose bytes follow from its content alone.

    safetensors writes metadata in an order that changes from call to call (its issue 584), so the
    digest of a file could not be reproduced. Here the header is sorted.
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
