"""The examples of docs/your_model.md, run as they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.transform import from_origin

if TYPE_CHECKING:
    import pytest

DOCUMENT = Path(__file__).parents[1] / "docs" / "your_model.md"


def test_the_examples_of_the_document_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with rasterio.open(
        "scene.tif", "w", driver="GTiff", count=4, height=150, width=170, dtype="uint16",
        crs="EPSG:32633", transform=from_origin(4e5, 6e6, 20, 20),
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(1, 4000, (4, 150, 170)).astype(np.uint16))
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, object] = {"__name__": "examples"}
    for block in blocks:
        exec(block, names)  # noqa: S102 - our own document
    assert "('layer', 'y', 'x') ['water', 'depth']" in capsys.readouterr().out
    with rasterio.open("depths.tif") as file:
        assert file.descriptions == ("water", "depth")
    assert Path("file.zarr").is_dir()
