"""Swaths with known coordinates: curved, turned, of uneven spacing, anywhere on Earth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr
from pyproj import Proj
from rasterio.control import GroundControlPoint
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.maps.new_store import prepare
from uniadrs_scale.scenes.sources import map_coordinates

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Swath:
    """A sensor's geometry: from (row, column) to the Earth."""

    height: int = 120
    width: int = 150
    latitude: float = 46.0
    longitude: float = 9.0
    metres: float = 300.0
    """Spacing of pixels in the middle."""
    turn: float = 27.0
    """Degrees, of the flight direction."""
    stretch: float = 0.6
    """How much wider pixels are at the edges of the scan."""
    bend: float = 0.1
    """How far the edges of the scan lag behind, in half widths."""
    mirrored: bool = False
    """Scanned from right to left."""

    def lonlat(self, row: Any, col: Any) -> tuple[Any, Any]:
        """Longitude and latitude of places in pixels; a pixel's corner is at whole numbers."""
        half = self.width / 2
        across = (np.asarray(col) - half) / half
        along = np.asarray(row) - self.height / 2
        u = half * across * (1 + self.stretch / 3 * across**2) * (-1 if self.mirrored else 1)
        v = along + self.bend * half * across**2
        turn = np.radians(self.turn)
        x = self.metres * (u * np.cos(turn) - v * np.sin(turn))
        y = -self.metres * (u * np.sin(turn) + v * np.cos(turn))
        local = f"+proj=aeqd +lat_0={self.latitude} +lon_0={self.longitude} +ellps=WGS84"
        return Proj(local)(x, y, inverse=True)

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude (y, x) of pixel centres."""
        rows, cols = np.mgrid[: self.height, : self.width] + 0.5
        longitude, latitude = self.lonlat(rows, cols)
        return np.asarray(longitude), np.asarray(latitude)

    def control(self, rows: int = 8, cols: int = 10) -> list[GroundControlPoint]:
        """Ground control points on a regular raster."""
        axes = np.linspace(0, self.height, rows), np.linspace(0, self.width, cols)
        row, col = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
        places = zip(row, col, *self.lonlat(row, col), strict=True)
        return [GroundControlPoint(*map(float, place)) for place in places]

    def scene(self, *, control: bool = False, seed: int = 0) -> xr.DataArray:
        """A scene of noise with this geometry."""
        pixels = np.random.default_rng(seed).random((1, self.height, self.width), np.float32)
        scene = xr.DataArray(pixels, dims=("band", "y", "x"), name="swath")
        if control:
            axes = {"y": np.arange(self.height) + 0.5, "x": np.arange(self.width) + 0.5}
            return scene.assign_coords(axes).rio.write_gcps(self.control(), "EPSG:4326")
        longitude, latitude = self.centres()
        return scene.assign_coords(
            latitude=(("y", "x"), latitude), longitude=(("y", "x"), longitude)
        )


def store_of(scene: xr.DataArray, score: np.ndarray, path: Path, chunk: int = 128) -> Path:
    """A complete store of ``scene`` whose scores are ``score``."""
    plan = us.plan(scene, tile=32, chunk=chunk, detector=FirstBand(), scheduler="sync")
    store = prepare(path, plan, map_coordinates(scene))
    group = zarr.open_group(store.path.zarr(), mode="r+")
    group["score"][:] = score
    group["done"][:] = 1
    return path
