"""Raw files are read as GDAL reads them, and statistics are those of plain numpy, to the bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

import uniadrs_scale as us
from uniadrs_scale.core.pixels import STEPS, BandStatistics
from uniadrs_scale.scenes.preview import scene_picture
from uniadrs_scale.scenes.raw import RawFile

if TYPE_CHECKING:
    from pathlib import Path

BANDS, HEIGHT, WIDTH = 5, 40, 30
ORDERS = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
"""Axes of (band, y, x) in the order of the file."""
PARTS = [(0, 0, HEIGHT, WIDTH), (7, 3, 20, 11), (HEIGHT - 1, WIDTH - 1, 1, 1)]
KINDS = {"uint8": 1, "int16": 2, "uint16": 12, "int32": 3, "float32": 4, "float64": 5}


def raw_file(path: Path, order: str, dtype: str, ends: str) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 200, (BANDS, HEIGHT, WIDTH)).astype(dtype)
    stored = pixels.transpose(ORDERS[order]).astype(np.dtype(dtype).newbyteorder(ends))
    path.write_bytes(bytes(17) + stored.tobytes())
    path.with_suffix(".hdr").write_text(
        f"ENVI\nsamples = {WIDTH}\nlines = {HEIGHT}\nbands = {BANDS}\nheader offset = 17\n"
        f"data type = {KINDS[dtype]}\ninterleave = {order}\nbyte order = {int(ends == '>')}\n"
    )
    return pixels


def read(file: rasterio.DatasetReader, bands: list[int], window: Window, every: int = 1) -> Any:
    raw = RawFile.of(file)
    assert raw is not None
    return raw.read(bands, window, every)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("ends", ["<", ">"])
def test_raw_files_are_read_as_gdal_reads_them(
    tmp_path: Path, order: str, dtype: str, ends: str
) -> None:
    pixels = raw_file(tmp_path / "a.img", order, dtype, ends)
    with rasterio.open(tmp_path / "a.img") as file:
        for row, col, height, width in PARTS:
            for bands in ([1, 2, 3, 4, 5], [5, 2], [3], [2, 1, 3, 5, 4]):
                window = Window(col, row, width, height)
                got = read(file, bands, window)
                assert got is not None
                assert got.dtype == np.dtype(dtype)
                assert got.flags.c_contiguous
                np.testing.assert_array_equal(got, file.read(bands, window=window))
                middles = got[:, 1::3, 1::3]  # of squares that are whole
                thinned = read(file, bands, window, every=3)
                assert thinned is not None
                assert thinned.shape[1:] == (-(-height // 3), -(-width // 3))
                held = thinned[:, : middles.shape[1], : middles.shape[2]]
                np.testing.assert_array_equal(held, middles)
        np.testing.assert_array_equal(read(file, [1, 2, 3, 4, 5], Window(0, 0, 30, 40)), pixels)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_gdal_reads_what_is_not_raw_or_is_cut_off(tmp_path: Path) -> None:
    pixels = raw_file(tmp_path / "a.img", "bip", "int16", "<")
    window = Window(0, 0, WIDTH, HEIGHT)
    with rasterio.open(tmp_path / "a.img") as file:
        (tmp_path / "a.img").write_bytes(bytes(1000))
        assert read(file, [1], window) is None
        (tmp_path / "a.img").unlink()
        assert read(file, [1], window) is None
    profile = {"driver": "GTiff", "count": BANDS, "height": HEIGHT, "width": WIDTH}
    with rasterio.open(tmp_path / "a.tif", "w", dtype="int16", **profile) as file:
        file.write(pixels)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert RawFile.of(file) is None


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("order", ORDERS)
def test_a_picture_reads_no_more_than_it_shows(
    tmp_path: Path, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = raw_file(tmp_path / "a.img", order, "float32", "<")
    steps, plain = [], RawFile.read

    def counting(raw: RawFile, bands: Any, window: Window, every: int = 1) -> Any:
        steps.append(every)
        return plain(raw, bands, window, every)

    monkeypatch.setattr(RawFile, "read", counting)
    picture = scene_picture(us.open_scene(tmp_path / "a.img"), 10)
    assert picture.factor == 4
    assert steps[-1] == 4
    values = picture.look.values(pixels[:, 2::4, [*range(2, WIDTH, 4), WIDTH - 1]])
    np.testing.assert_array_equal(picture.rgb, picture.look.colours(values, picture.valid))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 2, 7, 8, 9, 20])
@pytest.mark.parametrize("fenced", [False, True])
def test_moments_are_those_of_plain_numpy_to_the_bit(dtype: str, bands: int, fenced: bool) -> None:
    rng = np.random.default_rng(bands)
    pixels = np.abs(rng.normal(100, 30, (bands, 61, 67)) * rng.random((bands, 1, 1))).astype(dtype)
    pixels[bands // 2] = 7
    fences = (np.full(bands, 20.3), np.full(bands, 90.7)) if fenced else None
    got = BandStatistics.of(pixels, np.ones(pixels.shape[1:], bool), fences=fences)
    values = pixels.reshape(bands, -1).astype(np.float64)
    values = np.clip(values, *(ends[:, None] for ends in fences)) if fences else values
    # Sums of integers and of a single band as numpy adds them, others one pixel after the other.
    paired = bands == 1 or dtype in ("uint8", "uint16")
    mean = (values.sum(axis=1) if paired else np.cumsum(values, axis=1)[:, -1]) / values.shape[1]
    values -= mean[:, None]
    squares = values**2
    variances = squares.sum(axis=1) if bands == 1 else np.cumsum(squares, axis=1)[:, -1]
    step = np.abs(values).max(axis=1) / 2.0**STEPS
    whole = np.rint(values / np.where(step > 0, step, 1)[:, None])
    scatter = (whole @ whole.T) * np.outer(step, step)
    np.fill_diagonal(scatter, variances)
    np.testing.assert_array_equal(got.mean, mean)
    np.testing.assert_array_equal(got.scatter, scatter)
    exact = np.cov(pixels.reshape(bands, -1).astype(np.float64), bias=True).reshape(bands, bands)
    if not fenced:
        np.testing.assert_allclose(got.scatter / got.count, exact, atol=exact.max() * 1e-6)
