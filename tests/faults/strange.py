"""Damaged and strange inputs by number: the same number gives the same files and the same command.

``Samples`` holds one whole file of each kind; a case damages a copy of one, or makes something that
is whole but strange. Nothing here knows what the library should answer: ``judge`` does.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import products
import rasterio
import torch
import xarray as xr
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from safetensors.torch import save_file
from scipy.io import savemat

from uniadrs_scale.detector.network import NetworkConfig, UniADRS
from uniadrs_scale.detector.whitening import CHANNELS

if TYPE_CHECKING:
    from pathlib import Path

HEIGHT, WIDTH, BANDS = 40, 52, 3
SLOW, MOST_IN_TIFF = 10_000, 65_535
"""Bands that GDAL takes minutes to write, so that we do; and the most that a TIFF can have."""
UTM = Affine(10, 0, 4e5, 0, -10, 6e6)


@dataclass(frozen=True, slots=True)
class Case:
    """One input, and the command's arguments."""

    what: str
    """For people."""
    arguments: tuple[str, ...]
    """Of ``uniadrs-scale score``, without output and sizes."""
    output: str = "map.zarr"
    weights: Path | None = None
    """Instead of RX."""


def pixels(seed: int = 0, shape: tuple[int, ...] = (BANDS, HEIGHT, WIDTH)) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 4000, shape).astype(np.uint16)


@contextmanager
def unplaced() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def write_raster(path: Path, array: np.ndarray, **profile: Any) -> Path:
    """A raster without georeference unless ``profile`` has one."""
    count, height, width = array.shape
    keys = {"driver": "GTiff", "count": count, "height": height, "width": width,
            "dtype": str(array.dtype)} | profile  # fmt: skip
    with unplaced(), rasterio.open(path, "w", **keys) as file:
        file.write(array)
    return path


def wide_tiff(array: np.ndarray) -> bytes:
    """uint16 (band, y, x) as a TIFF of one strip, by hand: GDAL takes minutes for so many bands."""
    count, height, width = array.shape
    values = np.ascontiguousarray(array.transpose(1, 2, 0)).astype("<u2").tobytes()
    shorts, longs = 3, 4
    bits, formats, extra = ([value] * count for value in (16, 1, 0))
    lists = {258: bits, 338: extra[1:], 339: formats}
    numbers = {256: width, 257: height, 259: 1, 262: 1, 277: count, 278: height,
               279: len(values), 284: 1}  # fmt: skip
    tags = sorted({*lists, *numbers, 273})
    place = 8 + 2 + 12 * len(tags) + 4
    entries, body = b"", values
    numbers[273] = place
    for tag in tags:
        if tag in lists:
            entries += struct.pack("<HHII", tag, shorts, len(lists[tag]), place + len(body))
            body += struct.pack(f"<{len(lists[tag])}H", *lists[tag])
        else:
            entries += struct.pack("<HHII", tag, longs, 1, numbers[tag])
    header = struct.pack("<2sHI", b"II", 42, 8)
    return header + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0) + body


class Samples:
    """Whole files, made once: name of the kind -> (folder, path to open in it)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: dict[str, tuple[Path, str]] = {}
        for name, make in self.makers().items():
            folder = root / name
            folder.mkdir(parents=True)
            self.found[name] = folder, str(make(folder).relative_to(folder))

    def makers(self) -> dict[str, Callable[[Path], Path]]:
        placed = {"crs": "EPSG:32633", "transform": UTM}
        tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16}
        tiffs: dict[str, dict[str, Any]] = {
            "tiff-deflate-tiled": placed | tiles | {"compress": "deflate", "nodata": 7},
            "tiff-lzw-predictor": placed | {"compress": "lzw", "predictor": 2},
            "tiff-plain": placed | {"interleave": "pixel"},
            "tiff-bigtiff": placed | tiles | {"bigtiff": "yes", "compress": "zstd"},
            "tiff-bare": {"compress": "packbits"},
            "tiff-cog": placed | {"driver": "COG"},
            "jp2": placed | {"driver": "JP2OpenJPEG", "quality": 100, "reversible": "yes"},
            "png": {"driver": "PNG"},
        }

        def tiff(profile: dict[str, Any], name: str) -> Callable[[Path], Path]:
            suffix = name if name in ("jp2", "png") else "tif"
            return lambda folder: write_raster(folder / f"scene.{suffix}", pixels(), **profile)

        makers = {name: tiff(profile, name) for name, profile in tiffs.items()}
        makers["tiff-jpeg"] = lambda folder: write_raster(
            folder / "scene.tif", (pixels() >> 4).astype(np.uint8), compress="jpeg", **placed
        )
        makers["netcdf4"] = lambda folder: _netcdf(folder / "scene.nc", "h5netcdf")
        makers["netcdf3"] = lambda folder: _netcdf(folder / "scene.nc", "scipy")
        makers["hdf5"] = _hdf5
        makers["zarr3"] = lambda folder: _zarr(folder / "scene.zarr", 3)
        makers["zarr2"] = lambda folder: _zarr(folder / "scene.zarr", 2)
        for packed in (True, False):
            makers[f"mat5-{'' if packed else 'un'}packed"] = lambda folder, packed=packed: _mat(
                folder / "scene.mat", packed=packed
            )
        makers["mat73"] = lambda folder: products.matlab73(folder, rows=HEIGHT, cols=WIDTH)
        makers["envi"] = lambda folder: products.envi(folder, n=HEIGHT)
        makers["stac"] = lambda folder: products.stac_item(folder, n=HEIGHT)
        makers["sentinel2"] = products.sentinel2
        makers["landsat"] = lambda folder: products.landsat(folder, n=HEIGHT)
        makers["sentinel1"] = lambda folder: products.sentinel1(folder, height=40, width=50)
        makers["enmap"] = products.enmap
        makers["emit"] = lambda folder: products.emit(folder, height=30, width=40)
        makers["prisma"] = lambda folder: products.prisma(folder, height=30, width=40)
        makers["weights"] = tiny_weights
        return makers

    def copy(self, kind: str, folder: Path) -> Path:
        """A copy to damage; the path to open."""
        source, entry = self.found[kind]
        shutil.copytree(source, folder, dirs_exist_ok=True)
        return folder / entry


def tiny_weights(folder: Path) -> Path:
    """A narrow network with seeded random weights that sees whitened bands."""
    torch.manual_seed(0)
    path = folder / "tiny.safetensors"
    facts = {"width": "0.03", "bands": str(CHANNELS), "profile": "corrected"}
    save_file(
        UniADRS(NetworkConfig(width=0.03, bands=CHANNELS)).state_dict(),
        path,
        facts | {"name": "tiny", "input": "whitened"},
    )
    return path


def _dataset() -> xr.Dataset:
    scene = xr.DataArray(pixels(), dims=("band", "y", "x"), attrs={"grid_mapping": "crs"})
    return xr.Dataset(
        {"scene": scene, "crs": ((), 0, {"grid_mapping_name": "latitude_longitude"})},
        {"y": 50 - 0.001 * np.arange(HEIGHT), "x": 9 + 0.001 * np.arange(WIDTH)},
    )


def _netcdf(path: Path, engine: Any) -> Path:
    dataset = _dataset()
    dataset["scene"] = dataset["scene"].astype(np.int16)
    packed = {"scene": {"zlib": True, "chunksizes": (1, 16, 16)}} if engine == "h5netcdf" else {}
    dataset.to_netcdf(path, engine=engine, encoding=packed)
    return path


def _hdf5(folder: Path) -> Path:
    with h5py.File(folder / "scene.h5", "w") as file:
        file.create_dataset("a/scene", data=pixels(), chunks=(1, 16, 16), compression="gzip")
        file.attrs["platform"] = "none"
    return folder / "scene.h5"


def _zarr(path: Path, version: Any) -> Path:
    _dataset().chunk(y=16, x=16).to_zarr(path, zarr_format=version, consolidated=version == 2)
    return path


def _mat(path: Path, *, packed: bool) -> Path:
    savemat(path, {"scene": pixels().transpose(1, 2, 0)}, do_compression=packed)
    return path


# --- damage --------------------------------------------------------------------------------------


def damaged(seed: int, samples: Samples, folder: Path) -> Case:
    """A copy of a sample with one to three wounds."""
    dice = random.Random(seed)
    kind = dice.choice(sorted(samples.found))
    entry = samples.copy(kind, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    wounds = []
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        # Metadata decide more than pixels do: half of the wounds are theirs.
        texts = [f for f in files if f.suffix.lower() in (".json", ".xml", ".hdr", ".txt", ".safe")]
        file = dice.choice(texts if texts and dice.random() < 0.5 else files)
        data = file.read_bytes()
        name, wound = dice.choice(TEXT_WOUNDS if file in texts else WOUNDS)
        file.write_bytes(wound(dice, data))
        wounds.append(f"{name} {file.relative_to(folder)}")
    what = f"{kind}: {', '.join(wounds)}"
    output = dice.choice(["map.zarr", "map.zarr", "map.tif"])
    if kind == "weights":
        scene = write_raster(folder / "scene.tif", pixels())
        return Case(what, (str(scene),), output, weights=entry)
    return Case(what, (str(entry),), output)


def _place(dice: random.Random, data: bytes) -> int:
    """Half of the time in the header."""
    size = max(len(data), 1)
    return dice.randrange(min(size, 600)) if dice.random() < 0.5 else dice.randrange(size)


def _cut(dice: random.Random, data: bytes) -> bytes:
    return data[: _place(dice, data)]


def _flip(dice: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(dice.choice([1, 2, 8, 40]) if out else 0):
        out[_place(dice, data)] ^= 1 << dice.randrange(8)
    return bytes(out)


def _smear(dice: random.Random, data: bytes) -> bytes:
    at, size = _place(dice, data), dice.choice([2, 4, 8, 64, 400])
    fill = dice.choice([b"\0", b"\xff", b"\x7f", bytes([dice.randrange(256)])])
    return data[:at] + (fill * size)[: max(len(data) - at, 0)] + data[at + size :]


def _noise(dice: random.Random, data: bytes) -> bytes:
    at = _place(dice, data)
    size = min(dice.choice([4, 32, 300]), max(len(data) - at, 0))
    return data[:at] + dice.randbytes(size) + data[at + size :]


def _drop(dice: random.Random, data: bytes) -> bytes:
    at = _place(dice, data)
    return data[:at] + data[at + dice.choice([1, 4, 100]) :]


def _insert(dice: random.Random, data: bytes) -> bytes:
    at = _place(dice, data)
    return data[:at] + dice.randbytes(dice.choice([1, 4, 100])) + data[at:]


def _empty(dice: random.Random, data: bytes) -> bytes:
    del dice, data
    return b""


STRANGE_VALUES = [
    "nan", "-1", "0", "1e400", "99999999999999999999", "65536", "2147483647", "null", "[]", "{}",
    '""', '"x"', "true", "..", "é\u202e", "\0", "inf", "1e300",
]  # fmt: skip


def _value(dice: random.Random, data: bytes) -> bytes:
    """Another value for one word."""
    text = data.decode("utf-8", "replace")
    words = [k for k, c in enumerate(text[:-1]) if c in ' :=,>"' and text[k + 1].isalnum()]
    if not words:
        return data
    start = dice.choice(words) + 1
    stop = start
    while stop < len(text) and (text[stop].isalnum() or text[stop] in "._-+"):
        stop += 1
    return (text[:start] + dice.choice(STRANGE_VALUES) + text[stop:]).encode()


def _line(dice: random.Random, data: bytes) -> bytes:
    """Without one line, or with one twice."""
    lines = data.splitlines(keepends=True)
    if lines:
        at = dice.randrange(len(lines))
        lines[at : at + 1] = [] if dice.random() < 0.6 else [lines[at]] * 2
    return b"".join(lines)


def _json_value(dice: random.Random, data: bytes) -> bytes:
    """Another value for one place of a JSON document."""
    try:
        document = json.loads(data)
    except ValueError:
        return _value(dice, data)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in list(pairs):
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    if isinstance(document, dict | list):
        walk(document)
    if places:
        node, key = dice.choice(places)
        strange: list[Any] = [None, [], {}, "", "x", -1, 0, 1e308, 10**30, True, "../../x", [None],
                              {"a": 1}, float("nan"), "é\n", 65536]  # fmt: skip
        if isinstance(node, dict) and dice.random() < 0.3:
            del node[key]
        else:
            node[key] = dice.choice(strange)
    return json.dumps(document).encode()


Wound = tuple[str, Callable[[random.Random, bytes], bytes]]
WOUNDS: list[Wound] = [("cut off", _cut), ("cut off", _cut), ("bits flipped in", _flip),
                       ("bits flipped in", _flip), ("a span overwritten in", _smear),
                       ("noise in", _noise), ("bytes lost of", _drop),
                       ("bytes added to", _insert), ("emptied", _empty)]  # fmt: skip
TEXT_WOUNDS: list[Wound] = [*WOUNDS[1:3], ("a value changed in", _value), ("a line lost of", _line),
                            ("a value changed in", _json_value), ("a value changed in", _value),
                            ("a value changed in", _json_value)]  # fmt: skip

# --- strange but whole ---------------------------------------------------------------------------


def strange(seed: int, samples: Samples, folder: Path) -> Case:
    """Whole, but nothing one meets every day."""
    dice = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    maker = dice.choice([_shape, _shape, _values, _values, _dtype, _mixed, _transform, _transform,
                         _name, _name, _nothing, _cube, _options, _nodata, _tags,
                         _output])  # fmt: skip
    return maker(dice, samples, folder)


def _shape(dice: random.Random, samples: Samples, folder: Path) -> Case:
    shape = dice.choice([(1, 1, 1), (3, 1, 1), (3, 1, 90), (3, 90, 1), (2, 2, 2), (300, 33, 31),
                         (65535, 1, 1), (65536, 1, 1), (65536, 2, 3), (2000, 4, 4), (1, 500, 3),
                         (5000, 6, 6), (1, 31, 33)])  # fmt: skip
    array = pixels(dice.randrange(9), shape)
    driver = "ENVI" if shape[0] > MOST_IN_TIFF else dice.choice(["GTiff", "ENVI"])
    path = folder / ("scene.tif" if driver == "GTiff" else "scene.dat")
    if driver == "ENVI" and shape[0] > SLOW:
        path.write_bytes(array.tobytes())
        path.with_suffix(".hdr").write_text(
            f"ENVI\nsamples = {shape[2]}\nlines = {shape[1]}\nbands = {shape[0]}\n"
            "data type = 12\ninterleave = bsq\nbyte order = 0\nheader offset = 0\n"
        )
    elif shape[0] > SLOW:
        path.write_bytes(wide_tiff(array))
    else:
        profile = {"interleave": "pixel"} if driver == "GTiff" else {}
        write_raster(path, array, driver=driver, **profile)
    return Case(f"{shape} in {driver}", (str(path),), dice.choice(["map.zarr", "map.tif"]),
                weights=_weights(dice, samples))  # fmt: skip


def _weights(dice: random.Random, samples: Samples) -> Path | None:
    folder, entry = samples.found["weights"]
    return folder / entry if dice.random() < 0.5 else None


FLOATS: dict[str, Callable[[np.ndarray], Any]] = {
    "NaN only": lambda a: a.fill(np.nan),
    "infinite only": lambda a: a.fill(np.inf),
    "some infinite": lambda a: a.__setitem__((0, slice(3, 9), slice(2, 8)), -np.inf),
    "one band NaN": lambda a: a[1].fill(np.nan),
    "one pixel valid": lambda a: a.reshape(3, -1)[:, 1:].fill(np.nan),
    "constant": lambda a: a.fill(3.25),
    "zero": lambda a: a.fill(0),
    "huge": lambda a: np.multiply(a, 1e300 if a.dtype == np.float64 else 1e34, out=a),
    "largest": lambda a: a.fill(np.finfo(a.dtype).max),
    "largest and lowest": lambda a: np.copyto(
        a, np.where(a > 2000, np.finfo(a.dtype).max, np.finfo(a.dtype).min)
    ),
    "denormal": lambda a: np.multiply(a, 1e-310 if a.dtype == np.float64 else 1e-42, out=a),
    "checkerboard of NaN": lambda a: a.__setitem__((slice(None), slice(0, None, 2)), np.nan),
    "one huge pixel": lambda a: a.__setitem__((0, 5, 5), np.finfo(a.dtype).max),
}


def _values(dice: random.Random, samples: Samples, folder: Path) -> Case:
    name = dice.choice(list(FLOATS))
    array = pixels().astype(dice.choice([np.float32, np.float64]))
    with np.errstate(all="ignore"):
        FLOATS[name](array)
    path = write_raster(folder / "scene.tif", array, **_some_placed(dice))
    return Case(f"{name}, {array.dtype}", (str(path),), dice.choice(["map.zarr", "map.tif"]),
                weights=_weights(dice, samples))  # fmt: skip


def _some_placed(dice: random.Random) -> dict[str, Any]:
    return dice.choice([{}, {"crs": "EPSG:32633", "transform": UTM}])


def _dtype(dice: random.Random, samples: Samples, folder: Path) -> Case:
    dtype = dice.choice(["int8", "int16", "uint32", "int32", "uint64", "int64", "complex64",
                         "complex128", "float64", "complex_int16"])  # fmt: skip
    array = pixels().astype("complex64" if dtype.startswith("complex_") else dtype)
    if array.dtype.kind in "iu" and dice.random() < 0.5:
        limits = np.iinfo(array.dtype)
        array[0, 4:8, 4:9], array[1, 9, 9] = limits.max, limits.min
    path = write_raster(folder / "scene.tif", array, dtype=dtype)
    return Case(f"dtype {dtype}", (str(path),), weights=_weights(dice, samples))


def _mixed(dice: random.Random, samples: Samples, folder: Path) -> Case:
    """Files of one scene that differ."""
    del samples
    dtypes = dice.sample(
        ["uint8", "int16", "float32", "float64", "uint64", "int64", "complex64"], 3
    )
    paths = []
    for k, dtype in enumerate(dtypes):
        shape = (1, HEIGHT + (dice.random() < 0.2), WIDTH)
        placed = {"crs": dice.choice(["EPSG:32633", "EPSG:4326"]), "transform": UTM}
        profile: dict[str, Any] = placed if dice.random() < 0.1 else {}
        paths.append(write_raster(folder / f"b{k}.tif", pixels(k, shape).astype(dtype), **profile))
    grid = dice.choice([(), (), ("--grid", "finest")])
    return Case(f"mixed {dtypes}", (*map(str, paths), *grid), dice.choice(["map.zarr", "map.tif"]))


TRANSFORMS = {
    "NaN": (float("nan"),) * 6,
    "one NaN": (10, 0, float("nan"), 0, -10, 0),
    "zero": (0, 0, 0, 0, 0, 0),
    "zero height": (10, 0, 4e5, 0, 0, 6e6),
    "1e300": (1e300, 0, 1e300, 0, -1e300, 1e300),
    "infinite": (float("inf"), 0, 0, 0, -1, 0),
    "rotated": (7, 7, 4e5, 7, -7, 6e6),
    "singular": (10, 10, 4e5, 10, 10, 6e6),
    "upside down": (10, 0, 4e5, 0, 10, 6e6),
    "mirrored": (-10, 0, 4e5, 0, -10, 6e6),
    "tiny": (1e-12, 0, 4e5, 0, -1e-12, 6e6),
    "flat": (1e5, 0, 4e5, 0, -1e-5, 6e6),
    "off the earth": (1000, 0, 9e9, 0, -1000, 9e9),
    "sheared": (10, 3, 4e5, 0, -10, 6e6),
}


def _transform(dice: random.Random, samples: Samples, folder: Path) -> Case:
    del samples
    name = dice.choice(list(TRANSFORMS))
    crs = dice.choice([None, "EPSG:32633", "EPSG:4326", "EPSG:3413", "EPSG:4978",
                       'LOCAL_CS["here",UNIT["m",1]]'])  # fmt: skip
    keys = {} if crs is None else {"crs": crs}
    path = folder / "scene.tif"
    if dice.random() < 0.3:
        path = folder / "scene.vrt"
        write_raster(folder / "pixels.tif", pixels(0, (1, HEIGHT, WIDTH)))
        a, b, c, d, e, f = TRANSFORMS[name]
        srs = f"<SRS>{crs}</SRS>".replace('"', "&quot;") if crs else ""
        path.write_text(
            f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}">{srs}<GeoTransform>{c}, {a},'
            f' {b}, {f}, {d}, {e}</GeoTransform><VRTRasterBand dataType="UInt16" band="1">'
            '<SimpleSource><SourceFilename relativeToVRT="1">pixels.tif</SourceFilename>'
            "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
        )
    else:
        write_raster(path, pixels(), transform=Affine(*TRANSFORMS[name]), **keys)
    paths = (str(path),)
    if dice.random() < 0.2:
        other = write_raster(folder / "other.tif", pixels(3, (1, 20, 26)), transform=UTM, **keys)
        paths += (str(other), "--grid", "finest")
    return Case(f"transform {name}, {crs}", paths, dice.choice(["map.zarr", "map.tif"]))


NAMES = ["Größe ☃ 衛星", "x" * 240, "é" * 120, "a b'c\"d", "[red]markup[/red]", "[/bold] x",
         "new\nline", "tab\t%s{0}", "-o", "--help", "a[1-2]*?", "\udcff\udcfe", "\u202egnp", "a:b",
         "x" * 300, "con", "..x", "a#b?c=d", "$HOME `id`", "\u2066x"]  # fmt: skip


def _name(dice: random.Random, samples: Samples, folder: Path) -> Case:
    name = dice.choice(NAMES)
    kind = dice.choice(["tiff-deflate-tiled", "tiff-plain", "netcdf4", "zarr3", "envi", "hdf5"])
    entry = samples.copy(kind, folder)
    target = entry.parent / (name + entry.suffix)  # a slash in it makes a folder
    try:
        target.parent.mkdir(exist_ok=True)
        entry.rename(target)
        if kind == "envi":
            for other in list(folder.glob(entry.stem + ".*")):
                other.rename(folder / (name + other.suffix))
    except OSError:
        pass  # too long to exist: the name is still asked for
    if dice.random() < 0.2 and os.path.isfile(target):  # noqa: PTH113 - no error of a long name
        os.truncate(target, 30)
    deep = dice.random() < 0.1
    path = str(target) if not deep else str(folder / (("d" * 200 + "/") * 30) / target.name)
    suffix = dice.choice([".zarr", ".tif"])
    output = name + suffix if dice.random() < 0.6 else f"map{suffix}"
    return Case(f"{kind} called {name[:30]!r}", (path,), output)


def _nothing(dice: random.Random, samples: Samples, folder: Path) -> Case:
    """Nothing, in many clothes."""
    del samples
    kind = dice.choice(["empty file", "folder", "missing", "zarr 0", "nc 0", "h5 0", "mat 0",
                        "null", "text", "url", "device"])  # fmt: skip
    suffix = dice.choice(["tif", "nc", "h5", "zarr", "mat", "json", "hdr", "jp2", "safetensors"])
    path = folder / f"scene.{suffix}"
    nothing = np.zeros((3, 0, 5), np.float32)
    if kind == "empty file":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("{not a scene")
    elif kind == "zarr 0":
        path = folder / "scene.zarr"
        xr.Dataset({"scene": (("band", "y", "x"), nothing)}).to_zarr(path, consolidated=False)
    elif kind == "nc 0":
        path = folder / "scene.nc"
        xr.Dataset({"scene": (("band", "y", "x"), nothing)}).to_netcdf(path, engine="h5netcdf")
    elif kind == "h5 0":
        path = folder / "scene.h5"
        with h5py.File(path, "w") as file:
            file["scene"] = nothing
            file["other"] = h5py.Empty("f4")
    elif kind == "mat 0":
        path = folder / "scene.mat"
        savemat(path, {"scene": nothing})
    source = {"null": "", "url": "http://127.0.0.1:9/x.tif", "device": "/dev/null"}.get(
        kind, str(path)
    )
    return Case(f"{kind} {path.name}", (source,), dice.choice(["map.zarr", "map.tif"]))


def _cube(dice: random.Random, samples: Samples, folder: Path) -> Case:
    """Arrays in NetCDF, HDF5 and Zarr that are no ordinary scene."""
    del samples
    shape = dice.choice([(3, 20, 30), (1, 1, 1), (70000, 1, 2), (3, 1, 50), (1, 20, 30)])
    array: Any = pixels(1, shape).astype(dice.choice(["f4", "f8", "i8", "u2", "i1", "f2", "c8"]))
    coordinate = dice.choice([np.arange(shape[1]) * np.nan, np.zeros(shape[1]),
                              np.arange(shape[1]) * 1e300, np.arange(shape[1]) * 1.0,
                              np.full(shape[1], np.inf)])  # fmt: skip
    attributes = dice.choice([{}, {"_FillValue": np.nan}, {"scale_factor": 0.0},
                              {"add_offset": 1e300},
                              {"scale_factor": np.nan}, {"missing_value": 3.0},
                              {"units": "days since 0"}, {"grid_mapping": "nowhere"},
                              {"scale_factor": "x"}])  # fmt: skip
    name = dice.choice(["scene", "Größe", "a.b", "valid", "band", "y", "spatial_ref", "x" * 200])
    form = dice.choice(["nc", "h5", "zarr"])
    path = folder / f"scene.{form}"
    if form == "zarr":
        dims = dice.choice([("band", "y", "x"), ("y", "x", "band"), ("a", "b", "c")])
        try:
            data = xr.DataArray(array, dims=dims, attrs=attributes, name=name)
            xr.Dataset({name: data}).to_zarr(path, consolidated=False, zarr_format=2)
        except (ValueError, TypeError):
            path.mkdir(exist_ok=True)
    else:
        with h5py.File(path, "w") as file:
            file[name] = array
            file[name].attrs.update(attributes)
            if name not in ("y", "band"):
                for axis, (label, values) in enumerate(
                    [("band", np.arange(shape[0])), ("y", coordinate), ("x", np.arange(shape[2]))]
                ):
                    file[label] = values
                    file[label].make_scale(label)
                    file[name].dims[axis].attach_scale(file[label])
    what = f"{form} {shape} {array.dtype} '{name[:9]}' {attributes}"
    return Case(what, (str(path),), dice.choice(["map.zarr", "map.tif"]))


def _options(dice: random.Random, samples: Samples, folder: Path) -> Case:
    entry = samples.copy(dice.choice(["tiff-plain", "netcdf4", "sentinel2", "stac"]), folder)
    option = dice.choice([
        ("--tile", "0"), ("--tile", "-4"), ("--tile", "1"), ("--tile", "99999999"),
        ("--stride", "0"),
        ("--stride", "999"), ("--chunk", "0"), ("--chunk", "-1"), ("--chunk", "1"),
        ("--bands", ""), ("--bands", "0"), ("--bands", "5-1"), ("--bands", "1-99999999999"),
        ("--bands", "nope[/red]"), ("--nodata", "x"), ("--nodata", "inf"), ("--nodata", "1e999"),
        ("--grid", "nope"), ("--grid", ""), ("--variable", ""), ("--variable", "[/x]"),
        ("--mask", "cloud"), ("--mask", "[red]"), ("--units", "dB"), ("--crs", "EPSG:0"),
        ("--resolution", "0"), ("--resolution", "nan"), ("--scheduler", "nope"),
        ("--scheduler", "tcp://"), ("--scheduler", "tcp://127.0.0.1:99999"), ("--preset", "[/x]"),
        ("--weights", "[/red]"), ("--weights", "../../x"), ("--device", "cuda:99"),
        ("--device", "xyz"), ("--dtype", "float16"), ("--tile", "3"), ("--bands", "1,1,1"),
        ("--variable", "*"), ("--bands", "²"), ("--bands", "1-²"),
    ])  # fmt: skip
    return Case(f"{option}", (str(entry), *option), dice.choice(["map.zarr", "map.tif"]))


def _nodata(dice: random.Random, samples: Samples, folder: Path) -> Case:
    del samples
    dtype = dice.choice(["uint8", "int16", "float32", "float64"])
    array = (pixels() % 200).astype(dtype)
    value = dice.choice([0, 255, 7]) if dtype == "uint8" else dice.choice([0, -9999, 7])
    if dtype.startswith("float"):
        value = dice.choice([float("nan"), float("inf"), -3.4e38, 1e-38, 7.0])
    array[:, 5:30, 7:33] = value
    path = write_raster(folder / "scene.tif", array, nodata=value)
    given = dice.choice([(), ("--nodata", "none"), ("--nodata", "nan"), ("--nodata", "1e40"),
                         ("--nodata=-9999.5",), ("--nodata", "7")])  # fmt: skip
    return Case(f"{dtype} nodata {value} {given}", (str(path), *given), "map.tif")


def _tags(dice: random.Random, samples: Samples, folder: Path) -> Case:
    """Band names and other metadata that others wrote."""
    del samples
    path = folder / "scene.tif"
    texts = ["../../x", "/etc/passwd", "[/red]", "é" * 300, "B1", "B1", "", "x\ny", "\u202e", "1"]
    with unplaced(), rasterio.open(path, "w", driver="GTiff", count=BANDS, height=HEIGHT,
                                   width=WIDTH, dtype="uint16") as file:  # fmt: skip
        file.write(pixels())
        for k in range(BANDS):
            file.set_band_description(k + 1, dice.choice(texts))
            file.update_tags(k + 1, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=dice.choice(
                ["nan", "-1", "1e400", "x", "0.5", "inf"]))  # fmt: skip
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=dice.choice(["x", "9999-99-99", "-1"]))
        file.update_tags(fingerprint="x", TIFFTAG_SOFTWARE="[/red]")
        if dice.random() < 0.4:
            bad = float(dice.choice(["nan", "inf", "1e300", "0"]))
            points = [rasterio.control.GroundControlPoint(r, c, x, y) for r, c, x, y in
                      [(0, 0, 9.0, 50.0), (0, WIDTH, 9.1, bad), (HEIGHT, 0, 9.0, 49.9),
                       (HEIGHT, WIDTH, bad, 49.9)]]  # fmt: skip
            file.gcps = (points[: dice.choice([1, 2, 3, 4])], rasterio.CRS.from_epsg(4326))
    wanted = dice.choice([(), ("--bands", "B1"), ("--bands", "1"), ("--bands", "../../x")])
    return Case("metadata", (str(path), *wanted), dice.choice(["map.zarr", "map.tif"]))


def _output(dice: random.Random, samples: Samples, folder: Path) -> Case:
    entry = samples.copy("tiff-plain", folder)
    output = dice.choice(["map", "map.nc", ".zarr", ".tif", "a/b.zarr", "map.TIF", "map.zarr/",
                          "../out.txt", "x" * 260 + ".zarr", "x" * 252 + ".tif",
                          "x" * 248 + ".zarr",
                          "x" * 251 + ".tif", "map.zarr/inner.zarr", "é" * 124 + ".zarr",
                          "\udcff.zarr", "a\nb.tif", "x" * 240 + ".tif"])  # fmt: skip
    return Case(f"output {output[:20]!r}", (str(entry),), output)
