"""Draw the gallery of the documents: invented scenes of each kind next to their maps.

    python benchmarks/gallery.py                     # all pictures, into docs/gallery
    python benchmarks/gallery.py radar --out DIR     # one of them

The scenes are generated, so anyone may share the pictures and the pixels.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from PIL import Image, ImageChops
from scipy import ndimage

import uniadrs_scale as us
from uniadrs_scale.demo.fields import material
from uniadrs_scale.demo.landscape import KINDS, Recipe, background, expose, landscape
from uniadrs_scale.demo.scene import demo_scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

DOCS = Path(__file__).parents[1] / "docs"
WIDEST, LARGEST = 1300, 150_000
"""Width [px] and size [bytes] of a picture, at most."""
DEFAULT: Recipe = Recipe(farms=3, towns=1, built=0.04, lakes=0.1, river=4, roads=3, relief=0.05)


def placed(pixels: NDArray[np.generic], names: list[str], metres: float) -> xr.DataArray:
    """Return pixels (band, y, x) as a scene in UTM zone 32."""
    _, height, width = pixels.shape
    coords = {
        "band": names,
        "y": 5_300_000 - metres * (np.arange(height) + 0.5),
        "x": 600_000 + metres * (np.arange(width) + 0.5),
    }
    return xr.DataArray(pixels, coords, ("band", "y", "x")).rio.write_crs("EPSG:32632")


def spots(rng: np.random.Generator, side: int, count: int, room: float) -> NDArray[np.float64]:
    """Return (count, 2) places in rows and columns, at least ``room`` px apart."""
    found: list[NDArray[np.float64]] = []
    while len(found) < count:
        place = rng.uniform(room, side - room, 2)
        if all(np.hypot(*(place - other)) > room for other in found):
            found.append(place)
    return np.array(found)


def stamped(
    rng: np.random.Generator, side: int, places: NDArray[np.float64], lengths: tuple[float, float]
) -> Floats:
    """Return the share (y, x) of each pixel that slim ellipses at ``places`` cover, 0..1."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    cover = np.zeros((side, side), np.float32)
    for row, col in places:
        length, angle = rng.uniform(*lengths), rng.uniform(0, np.pi)
        along = (x - col) * np.cos(angle) + (y - row) * np.sin(angle)
        across = (y - row) * np.cos(angle) - (x - col) * np.sin(angle)
        inside = length / 2 - np.hypot(along, across / 0.35)
        cover = np.maximum(cover, np.clip(inside + 0.5, 0, 1))
    return cover


def multispectral() -> xr.DataArray:
    """Return a coast with boats, vehicles, roofs, tanks and plumes."""
    invented = demo_scene(seed=5, size=640, anomalies=18)
    scene = placed(invented.pixels, ["blue", "green", "red", "near infrared"], 10)
    return scene.assign_coords(valid=(("y", "x"), invented.valid))


def hyperspectral() -> xr.DataArray:
    """Return farmland in 90 bands, with objects of a few pixels that cover 60 % of each pixel."""
    rng, side = np.random.default_rng(11), 256
    waves = np.linspace(0.42, 2.4, 90)
    pixels = expose(rng, landscape(rng, (side, side), DEFAULT), waves, KINDS)
    cover = stamped(rng, side, spots(rng, side, 9, 30), (3, 6))
    strange = [material(rng, waves, "any") for _ in range(2)]
    for half, spectrum in zip((slice(0, side // 2), slice(side // 2, None)), strange, strict=True):
        share = 0.6 * cover[half]
        pixels[:, half] += share * (spectrum[:, None, None] - pixels[:, half])
    names = [f"{1000 * wave:.0f} nm" for wave in waves]
    scene = placed(pixels, names, 5)
    return scene.assign_coords(wavelength=("band", 1000 * waves, {"units": "nm"}))


def radar() -> xr.DataArray:
    """Return open sea and a coast in one polarisation, with speckle and ships."""
    rng, side = np.random.default_rng(4), 768
    waves = 1 + 0.25 * ndimage.gaussian_filter(rng.standard_normal((side, side)), (3, 9)) * 6
    row, col = np.mgrid[:side, :side]
    shore = 90 + 40 * np.sin(row / 90) + 15 * np.sin(row / 23)
    land = np.clip((shore - col) / 6, 0, 1)
    ground = 5 * background(np.random.default_rng(2), 1, side, side)[0]
    level = np.clip(waves, 0.4, None) * (1 - land) + (3 + ground) * land
    places = spots(rng, side, 12, 60)
    places = places[places[:, 1] > 220]
    power = level + 60 * stamped(rng, side, places, (9, 24))
    speckle = ndimage.gaussian_filter(rng.gamma(1, 1, (side, side)), 0.7)
    return placed(np.sqrt(power * speckle).astype(np.float32)[None], ["VV"], 10)


def infrared() -> xr.DataArray:
    """Return a thermal frame, with warm points."""
    rng, side = np.random.default_rng(8), 512
    ground = ndimage.gaussian_filter(background(rng, 1, side, side)[0], 2.5)
    ground = (ground - ground.mean()) / ground.std()
    warm = ndimage.gaussian_filter(stamped(rng, side, spots(rng, side, 8, 50), (3, 5)), 1)
    frame = ground + 7 * warm + 0.05 * rng.standard_normal((side, side))
    return placed((1000 + 100 * frame).astype(np.float32)[None], ["thermal"], 2)


def night() -> xr.DataArray:
    """Return a dark sea, with the lights of boats and of a town."""
    rng, side = np.random.default_rng(6), 448
    light = 0.6 + 0.2 * ndimage.gaussian_filter(rng.standard_normal((side, side)), 30) * 60
    row, col = np.mgrid[:side, :side]
    town = np.exp(-np.hypot(row - 60, col - 380) / 30) * rng.gamma(0.6, 60, (side, side))
    boats = np.zeros((side, side))
    for row_, col_ in spots(rng, side, 14, 24):
        boats[int(row_), int(col_)] = rng.uniform(15, 90)
    lit = np.clip(light, 0.1, None) + ndimage.gaussian_filter(town + boats, 0.7)
    return placed(rng.poisson(8 * lit).astype(np.float32)[None], ["DNB radiance"], 750)


PICTURES: dict[str, tuple[Callable[[], xr.DataArray], str, str]] = {
    "multispectral": (multispectral, "network", "Invented coast, 4 bands, 10 m"),
    "multispectral_rx": (multispectral, "rx", "The same coast by global RX"),
    "hyperspectral": (hyperspectral, "network", "Invented farmland, 90 bands, 5 m"),
    "radar": (radar, "network", "Invented sea and shore, radar amplitude, 10 m"),
    "infrared": (infrared, "network", "Invented fields, thermal infrared, 2 m"),
    "night": (night, "network", "Invented night lights, 750 m"),
}
"""Scene, detector and title of each."""


def jpeg(path: Path) -> bytes:
    """Return a picture as JPEG of at most ``WIDEST`` px and ``LARGEST`` bytes."""
    image = Image.open(path).convert("RGB")
    drawn = ImageChops.invert(image).getbbox() or (0, 0, *image.size)
    image = image.crop((0, 0, min(drawn[2] + 24, image.width), image.height))
    image.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
    for quality in range(88, 30, -6):
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality, optimize=True)
        if stream.tell() <= LARGEST:
            break
    return stream.getvalue()


def main() -> None:
    """Score the scenes and write their pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(PICTURES)}; default: all")
    parser.add_argument("--out", type=Path, default=DOCS / "gallery")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(PICTURES):
        parser.error(f"no picture {', '.join(unknown)}: choose among {', '.join(PICTURES)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or PICTURES:
        make, detector, title = PICTURES[name]
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "map.zarr"
            scorer = None if detector == "network" else detector
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", us.SceneWarning)  # night lights vary as radar does
                us.score(make().rename(title), store, detector=scorer, scheduler="threads")
            made = jpeg(store.with_suffix(".png"))
        path = arguments.out / f"{name}.jpg"
        path.write_bytes(made)
        print(f"{path} {len(made) // 1000} kB")


if __name__ == "__main__":
    main()
