"""Rasters without a place, for tests of the scripts under ``model/``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


def write(path: Path, pixels: np.ndarray) -> None:
    """Write ``pixels`` (band, y, x), and the folders above the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = pixels.shape
    with (
        pytest.warns(NotGeoreferencedWarning),
        rasterio.open(
            path, "w", height=height, width=width, count=bands, dtype=pixels.dtype
        ) as file,
    ):
        file.write(pixels)
