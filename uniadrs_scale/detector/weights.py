"""A weights file: its place, its metadata, the network in it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from safetensors import SafetensorError, safe_open

from uniadrs_scale.core.levels import Levels
from uniadrs_scale.detector import published
from uniadrs_scale.detector.network import NetworkConfig, UniADRS
from uniadrs_scale.detector.whitening import CHANNELS
from uniadrs_scale.errors import WeightsError, gist

Input = Literal["bands", "whitened"]
"""A network sees the scaled bands, or the channels that :mod:`.whitening` makes of them."""
LONGEST_NAME = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsInfo:
    """The metadata of a weights file, read without building the network."""

    path: str
    name: str
    sha256: str
    """Hexadecimal digest of the file."""
    content: str
    """Digest of everything in the file that decides scores: other metadata may change."""
    config: NetworkConfig
    input: Input = "bands"
    threshold: float = 0.5
    """Threshold for those who know no levels: the medium one of few bands. Files without one, such
    as published checkpoints, get 0.5."""
    levels: dict[str, Levels] = field(default_factory=dict)
    """Curve and levels by preset; empty if none were measured."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Command, seed, data, figures and licence, as `model/train.py` wrote them."""


def read_weights(weights: str | Path) -> WeightsInfo:
    """Read the metadata of a weights file, given by path, or by name if it is a shipped one.

    Raises:
        WeightsError: The file is missing, corrupt, or its metadata do not fit this network.
    """
    path = _find(weights)
    packed = path.read_bytes()
    if path.suffix in (".pth", ".pt"):
        sha256 = hashlib.sha256(packed).hexdigest()
        config = NetworkConfig(width=1.0, profile="published")
        return WeightsInfo(
            path=str(path), name=path.stem, sha256=sha256, content=sha256, config=config
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"'{weights}' is not a readable weights file: {error}. "
            "Give a .safetensors file made by model/train.py, or a published .pth checkpoint."
        ) from None
    try:
        return _described(path, packed, metadata)
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"The metadata of '{weights}' do not describe a network of this library: {error}. They "
            "need width, bands and profile. Save the file with model/train.py."
        ) from None


def _described(path: Path, packed: bytes, metadata: dict[str, str]) -> WeightsInfo:
    """Check every value that the library uses; raise KeyError or ValueError."""
    config = NetworkConfig(
        width=_number(metadata, "width"),
        bands=int(metadata["bands"]),
        profile=cast("Any", metadata["profile"]),
        shortcut=_number(metadata, "shortcut", "0"),
    )
    seen, name = metadata.get("input", "bands"), metadata.get("name", path.stem)
    threshold = _number(metadata, "threshold", "0.5")
    if seen not in get_args(Input) or (seen == "whitened" and config.bands != CHANNELS):
        raise ValueError(f"input '{seen}' of {config.bands} channels")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold {threshold} is outside 0..1")
    if not (name.isprintable() and 0 < len(name) <= LONGEST_NAME):
        raise ValueError(f"name {name[:LONGEST_NAME]!r} is not 1 to {LONGEST_NAME} characters")
    return WeightsInfo(
        path=str(path),
        name=name,
        sha256=hashlib.sha256(packed).hexdigest(),
        content=_content(packed, config, seen),
        config=config,
        input=cast("Input", seen),
        threshold=threshold,
        levels=_levels(metadata.get("levels", "{}")),
        metadata=metadata,
    )


def _content(packed: bytes, config: NetworkConfig, seen: str) -> str:
    """Return the digest of the tensors of a safetensors file and of the network around them."""
    start = 8 + int.from_bytes(packed[:8], "little")
    header = json.loads(packed[8:start])
    header["__metadata__"] = {
        "width": config.width,
        "bands": config.bands,
        "profile": config.profile,
        "shortcut": config.shortcut,
        "input": seen,
    }
    known = json.dumps(header, sort_keys=True).encode()
    return hashlib.sha256(known + packed[start:]).hexdigest()


def _levels(text: str) -> dict[str, Levels]:
    """Return the levels by preset in a text of the metadata; raise ValueError."""
    try:
        values = json.loads(text)
        found = {preset: Levels.from_json(value) for preset, value in values.items()}
    except (RecursionError, AttributeError):
        raise ValueError("levels are not a JSON object of levels by preset") from None
    if wrong := [preset for preset, levels in found.items() if levels.preset != preset]:
        raise ValueError(f"levels of preset {wrong[0]!r} name another preset")
    return found


def _number(metadata: dict[str, str], name: str, default: str | None = None) -> float:
    """Return a finite number of the metadata; raise KeyError or ValueError."""
    text = metadata[name] if default is None else metadata.get(name, default)
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{name} {text} is not a finite number")
    return value


def load_network(info: WeightsInfo) -> UniADRS:
    """Build the network with its weights, on the CPU.

    Raises:
        WeightsError: The file is damaged, or its tensors are not those of the network it names.
    """
    if info.config.profile == "published" and not info.path.endswith(".safetensors"):
        try:
            state = torch.load(info.path, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - a damaged archive raises anything
            raise WeightsError(
                f"'{info.path}' is not a readable checkpoint: {gist(error)}. "
                "Give a .pth file that holds tensors only."
            ) from None
        return published.network(state)
    try:
        with safe_open(info.path, framework="pt") as file:
            # A list, as the handle is not a mapping.
            state = {name: file.get_tensor(name).float() for name in list(file.keys())}
        network = UniADRS(info.config)
        network.load_state_dict(state)
    except (RuntimeError, ValueError, OverflowError, MemoryError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[:2][-1].strip()
        raise WeightsError(
            f"'{info.path}' does not fit the network that it names ({info.config}): "
            f"{reason} Make it again with model/train.py."
        ) from None
    return network


def shipped_weights() -> list[str]:
    """Return the names of the weights that come with the library, sorted."""
    return sorted(path.stem for path in _shipped_folder().glob("*.safetensors"))


def portable(path: str) -> str:
    """Return the name of shipped weights, which workers may have elsewhere; else the path."""
    return Path(path).stem if Path(path).parent == _shipped_folder() else path


def _find(weights: str | Path) -> Path:
    path = Path(weights)
    if path.suffix:
        if path.is_file():
            return path.absolute()
        raise WeightsError(f"Weights file '{weights}' does not exist. Check the path.")
    shipped = _shipped_folder() / f"{weights}.safetensors"
    if not shipped.is_file():
        raise WeightsError(
            f"Weights '{weights}' do not ship with this library, which has "
            f"{', '.join(shipped_weights()) or 'none'}. Use one, a path, or detector rx or lrx."
        )
    return shipped


def _shipped_folder() -> Path:
    """Return the weights folder of the installed package, or `model/weights` of a checkout."""
    installed = Path(str(resources.files("uniadrs_scale"))) / "model" / "weights"
    return installed if installed.is_dir() else installed.parents[2] / "model" / "weights"
