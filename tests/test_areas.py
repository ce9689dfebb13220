"""Arrays as satpy gives them: placed by an object in ``attrs["area"]``; stand-ins for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from pyproj import CRS
from standins import FirstBand
from swaths import Swath

import uniadrs_scale as us
from uniadrs_scale.errors import SceneError
from uniadrs_scale.scenes.sources import scene_source

if TYPE_CHECKING:
    from pathlib import Path

PIXELS = np.random.default_rng(0).random((40, 50), np.float32)


@dataclass
class AreaDefinition:
    """The attributes of pyresample's."""

    crs: CRS
    area_extent: tuple[float, float, float, float]
    shape: tuple[int, int]


@dataclass
class SwathDefinition:
    lons: Any
    lats: Any

    @property
    def shape(self) -> tuple[int, int]:
        return self.lons.shape


def loaded(area: object, pixels: np.ndarray = PIXELS) -> xr.DataArray:
    return xr.DataArray(pixels, dims=("y", "x"), name="M15", attrs={"area": area, "sensor": "x"})


def test_an_area_is_a_grid(tmp_path: Path) -> None:
    area = AreaDefinition(CRS.from_epsg(3035), (4e6, 3e6, 4e6 + 50 * 250, 3e6 + 40 * 250), (40, 50))
    us.score(loaded(area), tmp_path / "m.zarr", detector=FirstBand(), scheduler="sync", tile=32)
    us.to_cog(tmp_path / "m.zarr", tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as file:
        assert file.crs.to_epsg() == 3035
        assert tuple(file.transform)[:6] == (250, 0, 4e6, 0, -250, 3e6 + 40 * 250)
        assert file.shape == (40, 50)


def test_bands_by_the_name_that_satpy_has_for_them() -> None:
    area = AreaDefinition(CRS.from_epsg(3035), (4e6, 3e6, 4e6 + 50 * 250, 3e6 + 40 * 250), (40, 50))
    image = xr.DataArray(PIXELS[None], dims=("bands", "y", "x"), attrs={"area": area})
    assert scene_source(image).info.bands == ("0",)
    with pytest.raises(SceneError, match="rename"):
        scene_source(image.drop_attrs())


def test_a_swath_definition_is_latitude_and_longitude() -> None:
    swath = Swath(height=40, width=50)
    longitude, latitude = swath.centres()
    wrapped = SwathDefinition(*(xr.DataArray(a, dims=("y", "x")) for a in (longitude, latitude)))
    by_hand = xr.DataArray(PIXELS, dims=("y", "x"), name="M15").assign_coords(
        latitude=(("y", "x"), latitude), longitude=(("y", "x"), longitude)
    )
    expected = scene_source(by_hand).info
    assert expected.geolocation
    for area in (wrapped, SwathDefinition(longitude, latitude)):
        scene = loaded(area)
        assert scene_source(scene).info == expected
        assert "area" not in scene_source(scene).array.attrs
        assert scene.attrs["area"] is area, "the user's array is left as it was"
    scores = us.score(loaded(wrapped), detector=FirstBand(), scheduler="sync", tile=32)
    np.testing.assert_array_equal(scores.latitude, latitude)


def test_an_area_that_does_not_fit_is_refused() -> None:
    area = AreaDefinition(CRS.from_epsg(3035), (0, 0, 1, 1), (40, 50))
    with pytest.raises(SceneError, match=r"30 x 50 px, and its attrs\['area'\] 40 x 50"):
        scene_source(loaded(area)[:30])
    with pytest.raises(SceneError, match="has type str: an AreaDefinition or a SwathDefinition"):
        scene_source(loaded("somewhere"))
