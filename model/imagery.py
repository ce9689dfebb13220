"""Training and validation imagery: each image as one scene with its labels.

The folders are those of the data README: ``hyperspectral/*.mat``, ``multispectral/``, ``sar/``,
``infrared/``. :func:`folder` reads any folder of images and masks, :func:`published` the layout of
the authors, :func:`rasters` any folder of backgrounds.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from scipy import ndimage
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from uniadrs_scale.core.pixels import BandStatistics
from uniadrs_scale.errors import SceneError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHIPS = "ships_mask.tif"
RASTERS = {".bmp", ".dat", ".img", ".jpeg", ".jpg", ".png", ".tif", ".tiff"}
PLAIN = {".jp2", ".jpeg", ".jpg", ".mat", ".png", ".tif", ".tiff"}
"""Suffixes that :func:`rasters` reads."""
WATER, HOLE = 5000, 400
"""Fewest connected pixels of a body of water, and most of a hole in it that ships may be in."""
ACROSS = 10
"""Chips along each side of a mosaic of night lights."""
SMALLEST = 16
"""Shortest side of an image to cut windows from [px]."""
PUBLISHED = {
    "HSI": "hyperspectral",
    "visible_light": "visible",
    "SAR": "sar",
    "thermal": "infrared",
    "low_light": "lowlight",
}
"""Folders of the published test data, each with ``images`` and ``labels``, to modalities."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Image:
    """One image as read, with its labels."""

    name: str
    pixels: NDArray[np.generic]
    """(band, y, x), in the file's units."""
    targets: NDArray[np.bool_]
    """(y, x), True on labelled targets."""
    counted: NDArray[np.bool_]
    """(y, x), True in the area with complete labels, which figures are taken of."""

    def scaled(self) -> NDArray[np.float32]:
        """Return (band, y, x), each band scaled by the statistics of the whole scene."""
        everywhere = np.ones(self.pixels.shape[1:], bool)
        scaling = BandStatistics.of(self.pixels, everywhere).normalisation()
        # In single precision, as the shipped weights were trained.
        return scaling.apply(self.pixels.astype(np.float32))


def _image(name: str, pixels: NDArray[np.generic], targets: NDArray[np.generic] | None) -> Image:
    shape = pixels.shape[1:]
    found = np.zeros(shape, bool) if targets is None else targets > 0
    return Image(name=name, pixels=pixels, targets=found, counted=np.ones(shape, bool))


def _bands(path: Path) -> NDArray[np.generic]:
    """Read (band, y, x) of any raster, with or without a georeference."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            pixels: NDArray[np.generic] = dataset.read()
    return pixels


def hyperspectral(folder: Path) -> list[Image]:
    """Read every cube of ``folder``; Jasper Ridge and Samson are (band, pixel), Fortran order."""
    images = []
    for path in sorted(folder.glob("*.mat")):
        content = loadmat(path)
        if "data" in content:
            pixels, targets = content["data"], content["map"]
        elif "Y" in content:
            side = round(content["Y"].shape[1] ** 0.5)
            pixels = content["Y"].reshape(-1, side, side, order="F").transpose(1, 2, 0)
            targets = None
        elif "hsi_img_sub" in content:
            pixels, targets = content["hsi_img_sub"], None  # its mask is the valid area
        else:  # a cut-out of one target is too small to be a scene
            continue
        images.append(_image(path.stem, np.ascontiguousarray(pixels.transpose(2, 0, 1)), targets))
    return images


def water(green: NDArray[np.generic], infrared: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return the area of ships: NDWI > 0, closed by 5 px, in bodies of water without small holes.

    NDWI = (green - infrared) / (green + infrared) (McFeeters 1996), here B03 and B08. Roofs are wet
    too, but small; islands are holes, but large. Closing keeps quays and their ships.
    """
    g, n = green.astype(np.float64), infrared.astype(np.float64)
    wet = (g - n) / np.maximum(g + n, 1) > 0
    closed = ndimage.binary_closing(wet, np.ones((5, 5), bool), border_value=0) | wet
    return ~_large(~_large(closed, WATER), HOLE + 1)


def _large(area: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Return the components of ``area`` that have at least this many pixels."""
    labels, _ = ndimage.label(area)
    large = np.bincount(labels.ravel()) >= least
    large[0] = False
    kept: NDArray[np.bool_] = large[labels]
    return kept


def ports(folder: Path) -> list[Image]:
    """Read Sentinel-2 ports, one file per band; labels count on water if B03 and B08 exist.

    Every labelled pixel counts, too: ships are not wet, and many touch a quay.
    """
    images = []
    for mask in sorted(folder.glob(f"*/{SHIPS}")):
        paths = sorted(p for p in mask.parent.glob("B*.tif"))
        bands = {p.stem: _bands(p)[0] for p in paths}
        image = _image(mask.parent.name, np.stack(list(bands.values())), _bands(mask)[0])
        if {"B03", "B08"} <= bands.keys():
            image = replace(image, counted=water(bands["B03"], bands["B08"]) | image.targets)
        images.append(image)
    return images


def multispectral(folder: Path) -> list[Image]:
    """Read the other multispectral images: NAIP, Landsat and the 5 m image."""
    singles = [
        *sorted(folder.glob("*.tif")),
        *sorted(folder.glob("naip/*.tif")),
        *sorted(folder.glob("landsat_rgbn/*.tif")),
    ]
    images = [_image(path.stem, _bands(path), None) for path in singles]
    per_band = sorted(folder.glob("LT5*_B?.TIF"))
    if per_band:
        stacked = np.concatenate([_bands(path) for path in per_band])
        images.append(_image("LT5", stacked, None))
    return images


def infrared(folder: Path) -> list[Image]:
    """Read infrared frames: grey, so one band; targets from the mask of the same name."""
    images = []
    for path in sorted((folder / "images").glob("*.png")):
        mask = _bands(folder / "masks" / path.name).max(axis=0)
        if (mask == mask.flat[0]).all():
            mask = np.zeros_like(mask)
        images.append(_image(path.stem, _bands(path)[:1], mask))
    return images


def lowlight(folder: Path) -> list[Image]:
    """Read mosaics of VIIRS chips (day/night band) of the places that are held out.

    A chip has a boat's light in its centre; others are not labelled. A chip is too small to be a
    scene, so 10 x 10 neighbours are one, each divided by its median. Places are cells of one
    degree, held out like the black fields of a chess board.
    """
    images = []
    for path in sorted(folder.glob("viirs*.npz")):
        with np.load(path) as content:
            radiance, names = content["chips"][:, 0], content["names"]
        cells = [sum(int(float(part)) for part in name.split("_")[:2]) for name in names]
        chips = radiance[[cell % 2 == 1 for cell in cells]]
        chips = chips / np.maximum(np.median(chips, axis=(1, 2), keepdims=True), 0.1)
        side = chips.shape[1]
        centre = np.zeros((side, side), bool)
        centre[side // 2 - 1 : side // 2 + 2, side // 2 - 1 : side // 2 + 2] = True
        lights = centre & (chips >= chips[:, centre].max(axis=1)[:, None, None] / 2)
        for first in range(0, len(chips) - ACROSS**2 + 1, ACROSS**2):
            part = slice(first, first + ACROSS**2)
            images.append(
                _image(f"viirs {first}", _mosaic(chips[part])[None], _mosaic(lights[part]))
            )
    return images


def _mosaic(chips: NDArray[np.generic]) -> NDArray[np.generic]:
    """Lay ACROSS x ACROSS chips side by side."""
    side = chips.shape[1]
    rows = chips.reshape(ACROSS, ACROSS, side, side).swapaxes(1, 2)
    return rows.reshape(ACROSS * side, ACROSS * side)


def sar(folder: Path) -> list[Image]:
    """Read SAR scenes: one band; ships from HRSID's coloured instances (not black) if given."""
    images = []
    for path in sorted([*folder.glob("*.tiff"), *folder.glob("*.png")]):
        if "_instance_" in path.name:
            continue
        colours = path.with_name(f"{path.stem}_instance_color_RGB.png")
        targets = _bands(colours)[:3].max(axis=0) if colours.exists() else None
        images.append(_image(path.stem, _bands(path)[:1], targets))
    return images


def rasters(root: Path) -> list[Image]:
    """Read every raster file (or .mat) below ``root``, at any depth, by path, without targets.

    Nodata and NaN are not counted, and get the mean of their band. Files with a side of less than
    16 px are dropped. Files are held in memory whole, as float32.

    Raises:
        SceneError: A file cannot be read.
    """
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in PLAIN and p.is_file())
    images = (_plain(path) for path in paths)
    return [image for image in images if min(image.counted.shape) >= SMALLEST]


def _plain(path: Path) -> Image:
    pixels = _pixels(path)
    valid = np.isfinite(pixels).all(axis=0)
    if path.suffix.lower() != ".mat":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                valid &= dataset.dataset_mask() > 0
    if not valid.all():
        filled = pixels.astype(np.float32)
        filled[:, ~valid] = filled[:, valid].mean(axis=1, keepdims=True) if valid.any() else 0
        pixels = filled
    return Image(name=path.stem, pixels=pixels, targets=np.zeros_like(valid), counted=valid)


def folder(images: Path, masks: Path) -> list[Image]:
    """Read any folder of images (raster files or .mat) and their masks, nonzero = target.

    A mask has its image's name, with ``mask`` for ``image`` or without, and any suffix.

    Raises:
        SceneError: The folder holds no image, or a mask is missing or differs in size.
    """
    for given in (images, masks):
        if not given.is_dir():
            raise SceneError(f"Folder '{given}' does not exist. Check its name.")
    paths = sorted(p for p in images.glob("*") if p.suffix.lower() in RASTERS | {".mat"})
    known = {p.stem: p for p in masks.glob("*") if p.suffix.lower() in RASTERS | {".mat"}}
    if not paths:
        raise SceneError(
            f"{images} holds no image ({', '.join(sorted(RASTERS))} or .mat). Check the folder."
        )
    found = []
    for path in paths:
        mask = known.get(path.stem, known.get(path.stem.replace("image", "mask")))
        if mask is None:
            raise SceneError(f"{masks} holds no mask of {path.name}. Give it the image's name.")
        pixels, targets = _pixels(path), _pixels(mask).max(axis=0)
        if pixels.shape[1:] != targets.shape:
            raise SceneError(
                f"{mask.name} is {targets.shape} px (y, x), but its image {pixels.shape[1:]}. "
                "Give masks on the grid of their images."
            )
        found.append(_image(path.stem, pixels, targets))
    return found


def published(root: Path) -> dict[str, list[Image]]:
    """Read a folder with the layout of the published test data; return images by modality.

    Raises:
        SceneError: All published folders are missing, or an image has no mask.
    """
    present = {
        modality: root / name for name, modality in PUBLISHED.items() if (root / name).is_dir()
    }
    if not present:
        raise SceneError(
            f"{root} has none of the folders {', '.join(PUBLISHED)}. Check the folder."
        )
    return {m: folder(place / "images", place / "labels") for m, place in present.items()}


def _pixels(path: Path) -> NDArray[np.generic]:
    """Read (band, y, x) of a raster file or .mat; grey stored as colour becomes one band.

    Raises:
        SceneError: It cannot be read, or holds no image.
    """
    try:
        pixels = _cube(path) if path.suffix.lower() == ".mat" else _bands(path)
    # GDAL raises the first, scipy the others for a broken .mat or one of version 7.3.
    except (RasterioIOError, MatReadError, NotImplementedError, ValueError, OSError) as error:
        raise SceneError(f"{path} cannot be read: {error} Convert it to TIFF.") from None
    grey = len(pixels) in (3, 4) and all((band == pixels[0]).all() for band in pixels[1:3])
    return pixels[:1] if grey else pixels


def _cube(path: Path) -> NDArray[np.generic]:
    """Read (band, y, x) from the largest array of a .mat; others are masks or wavelengths."""
    arrays = [v for v in loadmat(path).values() if isinstance(v, np.ndarray) and v.ndim in (2, 3)]
    numbers = [v for v in arrays if v.dtype.kind in "biuf" and min(v.shape) > 1]
    if not numbers:
        raise ValueError("it has no array of (y, x) or (y, x, band).")
    largest = np.atleast_3d(max(numbers, key=lambda array: array.size))
    return np.ascontiguousarray(largest.transpose(2, 0, 1))
