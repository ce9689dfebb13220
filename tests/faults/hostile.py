"""Inputs that want something: to run code, to read another file, to take all memory.

Like ``strange``: the same number gives the same files and the same command.
"""

from __future__ import annotations

import json
import pickle
import random
import struct
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import xarray as xr
from strange import BANDS, HEIGHT, WIDTH, Case, pixels, write_raster

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from strange import Samples

CODECS: list[dict[str, Any]] = [
    {"filters": [{"id": "pickle"}], "compressor": None},
    {"compressor": {"id": "pickle"}},
    {"dtype": "|O", "fill_value": None, "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},
    {"dtype": "|O", "fill_value": None, "filters": [{"id": "json2"}]},
    {"shape": [2**60], "chunks": [2**59]},
    {"chunks": [0]},
    {"compressor": {"id": "nope"}},
]
SIDES = [1, 7, 2048, 2**31 - 1, 2**32 - 1]
"""Not 2**24: a scene of 16 Mpx in chunks of 64 px is legal, and takes hours."""
LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;&b;</x>'


def hostile(seed: int, samples: Samples, folder: Path) -> Case:
    """Make one hostile input."""
    dice = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    makers: list[Callable[[random.Random, Path], tuple[str, Path]]] = [
        _codec, _claim, _vrt, _hdf5, _raw, _text
    ]  # fmt: skip
    what, path = dice.choice(makers)(dice, folder)
    del samples
    return Case(f"hostile {what}", (str(path),), dice.choice(["map.zarr", "map.tif"]))


def _codec(dice: random.Random, folder: Path) -> tuple[str, Path]:
    path = folder / "scene.zarr"
    scene = xr.DataArray(pixels(), dims=("band", "y", "x"), name="scene")
    scene = scene.assign_coords(y=np.arange(float(HEIGHT)), x=np.arange(float(WIDTH)))
    scene.to_dataset().to_zarr(path, zarr_format=2, consolidated=False)
    changed, name = dice.choice(CODECS), dice.choice(["y", "scene"])
    document = json.loads((path / name / ".zarray").read_text()) | changed
    (path / name / ".zarray").write_text(json.dumps(document))
    (path / name / "0").write_bytes(pickle.dumps(dice.random()))
    return f"zarr {name} {changed}", path


def _claim(dice: random.Random, folder: Path) -> tuple[str, Path]:
    """A TIFF of one strip that does not exist."""
    width, height = dice.choice(SIDES), dice.choice(SIDES)
    numbers = {256: width, 257: height, 258: 8, 259: dice.choice([1, 5, 8]), 262: 1, 273: 8,
               277: 1, 278: dice.choice([1, height]), 279: 9}  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in numbers.items())
    path = folder / "scene.tif"
    path.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, 9) + entries + bytes(4))
    return f"tiff claims {height} x {width}", path


def _vrt(dice: random.Random, folder: Path) -> tuple[str, Path]:
    """A VRT of another file, of itself, or of nothing."""
    write_raster(folder / "pixels.tif", pixels(0, (1, HEIGHT, WIDTH)))
    name = dice.choice(["scene.vrt", "pixels.tif", "nowhere.tif", "/etc/passwd", "/dev/zero"])
    kind = dice.choice(["", ' subClass="VRTRawRasterBand"', ' subClass="VRTDerivedRasterBand"'])
    side = dice.choice([WIDTH, WIDTH * 200, 2**31 - 1])
    source = f"<SourceFilename relativeToVRT='{int('/' not in name)}'>{name}</SourceFilename>"
    inner = source if "Raw" in kind else f"<SimpleSource>{source}</SimpleSource>"
    code = "<PixelFunctionLanguage>Python</PixelFunctionLanguage>" if "Derived" in kind else ""
    path = folder / "scene.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{HEIGHT}"><VRTRasterBand '
        f'dataType="UInt16" band="1"{kind}>{code}{inner}</VRTRasterBand></VRTDataset>'
    )
    return f"vrt{kind} of {name}, {side} px wide", path


def _hdf5(dice: random.Random, folder: Path) -> tuple[str, Path]:
    kind = dice.choice(["external", "link", "circle", "huge", "null space"])
    path, shape = folder / "scene.h5", (BANDS, HEIGHT, WIDTH)
    with h5py.File(path, "w") as file:
        if kind == "external":
            file.create_dataset("scene", shape, "u1", external=[("nowhere", 0, 10**6)])
        elif kind == "link":
            file["scene"] = h5py.ExternalLink("nowhere.h5", "/scene")
        elif kind == "circle":
            file.create_group("a")["b"] = h5py.SoftLink("/a")
            file["a/self"] = file["a"]
            file["scene"] = pixels()
        elif kind == "huge":
            sides = (BANDS, dice.choice([2**20, 2**31]), 2**20)
            file.create_dataset("scene", sides, "u2", chunks=(1, 256, 256))
        else:
            file["scene"] = h5py.Empty("u2")
    return f"hdf5 {kind}", path


def _raw(dice: random.Random, folder: Path) -> tuple[str, Path]:
    path, side = folder / "scene.dat", dice.choice(SIDES)
    path.write_bytes(pixels().tobytes())
    path.with_suffix(".hdr").write_text(
        f"ENVI\nsamples = {side}\nlines = {dice.choice(SIDES)}\nbands = {dice.choice(SIDES)}\n"
        f"data type = 12\ninterleave = {dice.choice(['bsq', 'bil', 'bip'])}\nbyte order = 0\n"
        f"header offset = {dice.choice([0, 2**40, -1])}\n"
    )
    return f"envi claims {side} columns", path


def _text(dice: random.Random, folder: Path) -> tuple[str, Path]:
    name = dice.choice(["item.json", "MTD_MSIL2A.xml", "manifest.safe", "x_MTL.txt", "scene.vrt"])
    text = dice.choice(
        [
            "[" * 10**5,
            '{"a":' * 10**5,
            "<a>" * 10**5,
            LAUGHS,
            "\0" * 10**6,
            json.dumps({"type": "Feature", "assets": {"a": {"href": "/dev/zero"}}}),
        ]
    )
    (folder / name).write_text(text)
    return f"{name} of {text[:9]!r}", folder / name
