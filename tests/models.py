"""Models as users bring them: a function, a torch module, and files of both kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

import uniadrs_scale as us

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

KINDS = ("function", "module", "pt2", "onnx")
REACH = 3
"""Pixels to each side that the networks see."""
TILE, BANDS = 32, 2
LAYERS = ("water", us.Layer(name="depth", units="m", valid_range=(0, 4000), pooled="mean"))


def two_layers(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
    """A share of the whole tile, as instance normalisation makes it, and a depth."""
    shares = np.abs(tiles - tiles.mean(axis=(1, 2, 3), keepdims=True)).mean(axis=1) / 8
    return np.stack([shares, 400 * np.abs(tiles[:, 0])], axis=1)


class TwoLayers(torch.nn.Module):
    """Two layers from a patch around each pixel."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.blur = torch.nn.Conv2d(BANDS, 4, 2 * REACH + 1, padding=REACH)
        self.head = torch.nn.Conv2d(4, 2, 1)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        share, depth = torch.sigmoid(self.head(torch.relu(self.blur(tiles)))).unbind(1)
        return torch.stack([share, 4000 * depth], 1)


def write_model(folder: Path, kind: str, seed: int = 0) -> Path:
    """The module in a file."""
    module, example = TwoLayers(seed).eval(), (torch.zeros(1, BANDS, TILE, TILE),)
    path = folder / f"model{seed}.{kind}"
    if kind == "pt2":
        torch.export.save(torch.export.export(module, example), path)
    else:
        write_onnx(module, path)
    return path


def write_onnx(module: TwoLayers, path: Path) -> None:
    """The same network, written by hand: torch's own exporter needs packages that we do not."""
    import onnx  # noqa: PLC0415 - for tests of ONNX files only
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    weights = {
        name.replace(".", "_"): value.detach().numpy() for name, value in module.named_parameters()
    }
    weights["scale"] = np.array([1, 4000], np.float32).reshape(1, 2, 1, 1)
    side = [1, BANDS, TILE, TILE]
    nodes = [
        helper.make_node("Conv", ["x", "blur_weight", "blur_bias"], ["a"], pads=[REACH] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "head_weight", "head_bias"], ["c"]),
        helper.make_node("Sigmoid", ["c"], ["d"]),
        helper.make_node("Mul", ["d", "scale"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, side)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, TILE, TILE])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def model_of(kind: str, folder: Path, seed: int = 0) -> object:
    """The model as a user passes it to ``us.scorer``."""
    if kind == "function":
        return two_layers
    return TwoLayers(seed) if kind == "module" else write_model(folder, kind, seed)
