"""A weights file: where it lies, what it says of itself, the network in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from safetensors import SafetensorError, safe_open

from uniadrs_scale.detector import published
from uniadrs_scale.detector.network import NetworkConfig, UniADRS
from uniadrs_scale.detector.whitening import CHANNELS
from uniadrs_scale.errors import WeightsError

Input = Literal["bands", "whitened"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsInfo:
    """What a weights file says of itself, read without building the network."""

    path: str
    name: str
    sha256: str
    config: NetworkConfig
    input: Input = "bands"
    """Whether the network sees the scaled bands, or what :mod:`whitening` makes of them."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Command, seed, data, figures, licence, as `model/train.py` wrote them."""

    @property
    def threshold(self) -> float:
        """The recommended threshold: at most 1e-4 of the pixels of empty windows exceed it."""
        return float(self.metadata.get("threshold", "0.5"))


def read_weights(weights: str | Path) -> WeightsInfo:
    """What a weights file says of itself.

    Raises:
        WeightsError: The file is missing, corrupt, or not for this network.
    """
    path = _find(weights)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix in (".pth", ".pt"):
        config = NetworkConfig(width=1.0, profile="published")
        return WeightsInfo(path=str(path), name=path.stem, sha256=sha256, config=config)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        config = NetworkConfig(
            width=float(metadata["width"]),
            bands=int(metadata["bands"]),
            profile=cast("Any", metadata["profile"]),
            shortcut=float(metadata.get("shortcut", "0")),
        )
        seen = _input(metadata.get("input", "bands"), config.bands)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"'{weights}' is not a readable weights file: {error}. "
            "Give a .safetensors file made by model/train.py, or a published .pth checkpoint."
        ) from None
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"'{weights}' does not say which network it is for ({error}): its metadata needs "
            "width, bands and profile. Save it with model/train.py."
        ) from None
    return WeightsInfo(
        path=str(path),
        name=metadata.get("name", path.stem),
        sha256=sha256,
        config=config,
        input=seen,
        metadata=metadata,
    )


def _input(name: str, channels: int) -> Input:
    if name not in get_args(Input) or (name == "whitened" and channels != CHANNELS):
        raise ValueError(f"input '{name}' of {channels} channels")
    return cast("Input", name)


def load_network(info: WeightsInfo) -> UniADRS:
    """The network with its weights, on the CPU.

    Raises:
        WeightsError: The file is damaged, or its tensors are not those of the network it names.
    """
    if info.config.profile == "published" and not info.path.endswith(".safetensors"):
        try:
            state = torch.load(info.path, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - a damaged archive raises whatever it likes
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise WeightsError(
                f"'{info.path}' is not a readable checkpoint: {reason} "
                "Give a .pth file that holds tensors only."
            ) from None
        return published.network(state)
    try:
        with safe_open(info.path, framework="pt") as file:
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - no mapping
        network = UniADRS(info.config)
        network.load_state_dict(state)
    except (RuntimeError, ValueError, OverflowError, MemoryError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[:2][-1].strip()
        raise WeightsError(
            f"'{info.path}' does not fit the network it names ({info.config}): "
            f"{reason} Make it again with model/train.py."
        ) from None
    return network


def shipped_weights() -> list[str]:
    """Names of the weights that come with the library."""
    return sorted(path.stem for path in _shipped_folder().glob("*.safetensors"))


def portable(path: str) -> str:
    """A name instead of a path for shipped weights: workers may have them elsewhere."""
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
            f"{', '.join(shipped_weights()) or 'none'}. Use one of these, or a path."
        )
    return shipped


def _shipped_folder() -> Path:
    """The weights inside the installed package, or in a checkout those of `model/`."""
    installed = Path(str(resources.files("uniadrs_scale"))) / "weights"
    return installed if installed.is_dir() else installed.parents[1] / "model" / "weights"
