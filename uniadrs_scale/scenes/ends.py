"""Ends of raster files: GDAL takes missing ones for zeros in some formats, and noise in others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import rasterio

BLOCK = 512
"""Bytes of a block of PCIDSK, whose header says how many there are."""
BLOCKS, ORDER = slice(16, 32), slice(360, 368)
"""Places of this number, and of the order of the pixels. In tiles, the last may be unwritten."""
CSF = 256
"""Bytes of the header of PCRaster, before the pixels."""
IEND = b"\0\0\0\0IEND\xaeB`\x82"
"""The last chunk of a PNG. Without it, GDAL reads noise if it reads the picture at once."""
TAIL = 4096
"""Bytes at the end of a PNG in which it is; some programs append others."""


def least_bytes(dataset: rasterio.DatasetReader, path: Path) -> int:
    """Return the bytes that a local file must have; 0 if its format does not say."""
    if dataset.driver not in {"PCIDSK", "PCRaster", "PNG"} or not path.is_file():
        return 0
    if dataset.driver == "PCRaster":
        return CSF + int(dataset.height * dataset.width * np.dtype(dataset.dtypes[0]).itemsize)
    with path.open("rb") as file:
        if dataset.driver == "PCIDSK":
            head = file.read(BLOCK)
            blocks, order = head[BLOCKS].strip(), head[ORDER].strip()
            return int(blocks) * BLOCK if blocks.isdigit() and order in {b"BAND", b"PIXEL"} else 0
        size = path.stat().st_size
        file.seek(max(0, size - TAIL))
        return size if IEND[:-4] in file.read() else size + len(IEND)
