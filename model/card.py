"""Write the model card for machines: a STAC item with the fields of the mlm extension, per weights.

    python model/card.py model/weights/*.safetensors

Everything follows from the file and its metadata, so a new item is written after each training.
`tests/test_card.py` compares items and weights.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any

import pystac
from pystac.extensions.file import FileExtension
from pystac.extensions.mlm import (
    AssetGeneralMLMExtension,
    Hyperparameters,
    InputStructure,
    MLMExtension,
    ModelInput,
    ModelOutput,
    ResultStructure,
)
from safetensors import safe_open

from uniadrs_scale.core.levels import RATES
from uniadrs_scale.core.presets import PRESETS
from uniadrs_scale.detector.weights import WeightsInfo, read_weights

WORLD = [-180.0, -90.0, 180.0, 90.0]
EVER = datetime(1900, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""Imagery of any place and time."""
PAPER = "https://arxiv.org/abs/2310.07511"


def parameters_of(path: Path) -> tuple[int, int]:
    """Return the number of parameters and their bytes in memory, in single precision."""
    with safe_open(path, framework="np") as file:
        count = sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count, 4 * count


def inputs_of(info: WeightsInfo) -> list[ModelInput]:
    """Return the tensor that the network takes."""
    channels = info.config.bands
    structure = InputStructure.create(
        shape=[-1, channels, -1, -1], dim_order=["batch", "channel", "y", "x"], data_type="float32"
    )
    seen = (
        f"The {channels} leading channels of all bands, each band first scaled to mean 0 and "
        "deviation 1, whitened by the covariance of the scene; the library makes them."
        if info.input == "whitened"
        else "Bands scaled to mean 0 and deviation 1."
    )
    return [ModelInput.create(name=info.input, bands=[], input=structure, description=seen)]


def outputs_of() -> list[ModelOutput]:
    """Return the tensor that the network gives."""
    structure = ResultStructure.create(
        shape=[-1, -1, -1], dim_order=["batch", "y", "x"], data_type="float32"
    )
    told = "Anomaly score of each pixel, 0 to 1, relative to its surroundings."
    return [
        ModelOutput.create(name="score", tasks=["segmentation"], result=structure, description=told)
    ]


def levels_of(info: WeightsInfo) -> dict[str, dict[str, float]]:
    """Return the thresholds by preset and level."""
    return {
        preset: {name: round(levels.threshold(name), 6) for name in RATES}
        for preset, levels in sorted(info.levels.items())
    }


def training_of(info: WeightsInfo) -> dict[str, Any]:
    """Return the recipe, the seed and the command that made the weights."""
    recipe = json.loads(info.metadata.get("recipe", "{}"))
    told = {name: info.metadata[name] for name in ("seed", "command") if name in info.metadata}
    return recipe | told


def item_of(path: Path) -> dict[str, Any]:
    """Return the STAC item of a weights file, as JSON values."""
    info = read_weights(path)
    count, size = parameters_of(path)
    west, south, east, north = WORLD
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    figures = json.loads(info.metadata.get("figures", "{}"))
    item = pystac.Item(
        id=info.name,
        geometry={"type": "Polygon", "coordinates": [ring]},
        bbox=WORLD,
        datetime=None,
        start_datetime=EVER[0],
        end_datetime=EVER[1],
        properties={
            "title": f"Anomaly detector {info.name}",
            "description": "UniADRS: anomaly scores of whole satellite scenes of any sensor, "
            "without training on the scene, the sensor or the target.",
            "license": "Apache-2.0",
            "uniadrs:presets": sorted(PRESETS),
            "uniadrs:levels": levels_of(info),
            "uniadrs:figures": figures,
        },
    )
    MLMExtension.ext(item, add_if_missing=True).apply(
        name=info.name,
        architecture="UniADRS",
        tasks=["segmentation"],
        framework="PyTorch",
        memory_size=size,
        total_parameters=count,
        pretrained=True,
        pretrained_source=info.metadata.get("data"),
        input=inputs_of(info),
        output=outputs_of(),
        hyperparameters=Hyperparameters.create(**training_of(info)),
    )
    weights = pystac.Asset(
        href=f"./{path.name}",
        title="Weights",
        media_type="application/octet-stream; application=safetensors",
        roles=["mlm:model", "mlm:weights"],
    )
    item.add_asset("weights", weights)
    AssetGeneralMLMExtension.ext(weights).apply(artifact_type="safetensors.torch.save_file")
    FileExtension.ext(weights, add_if_missing=True).apply(
        size=path.stat().st_size, checksum=f"1220{info.sha256}"
    )
    card = pystac.Asset(
        "../README.md", "Model card", media_type="text/markdown", roles=["metadata"]
    )
    item.add_asset("card", card)
    item.add_link(pystac.Link("cite-as", PAPER, "text/html", "Paper of the detector"))
    return item.to_dict(include_self_link=False)


def text_of(path: Path) -> str:
    """Return the content of the item's file."""
    return json.dumps(item_of(path), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write an item next to each weights file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", nargs="+", type=Path)
    for path in parser.parse_args().weights:
        written = path.with_suffix(".json")
        written.write_text(text_of(path), encoding="utf-8")
        print(written)


if __name__ == "__main__":
    main()
