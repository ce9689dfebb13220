"""The STAC items next to the weights fit them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import card
import pystac
import pytest
from pystac.extensions.mlm import MLMExtension
from pystac.validation import JsonSchemaSTACValidator

WEIGHTS = sorted((Path(__file__).parents[1] / "model" / "weights").glob("*.safetensors"))


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_an_item_is_what_the_script_writes(path: Path) -> None:
    written = path.with_suffix(".json").read_text(encoding="utf-8")
    assert written == card.text_of(path), f"Run: python model/card.py model/weights/{path.name}"


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_an_item_is_valid_and_names_its_file(path: Path) -> None:
    values = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    JsonSchemaSTACValidator().validate_core(values, pystac.STACObjectType.ITEM, "1.1.0")
    item = pystac.Item.from_dict(values)
    assert MLMExtension.ext(item).total_parameters > 0
    weights = item.assets["weights"]
    assert weights.href == f"./{path.name}"
    packed = path.read_bytes()
    assert weights.extra_fields["file:checksum"] == f"1220{hashlib.sha256(packed).hexdigest()}"
    assert weights.extra_fields["file:size"] == len(packed)


def test_every_item_has_weights() -> None:
    assert {path.stem for path in WEIGHTS[0].parent.glob("*.json")} == {p.stem for p in WEIGHTS}
