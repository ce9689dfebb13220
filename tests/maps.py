"""Maps without a run: any scores, at any place."""

from __future__ import annotations

import numpy as np
import xarray as xr
import zarr
from affine import Affine
from rasterio.crs import CRS
from scipy import ndimage

from uniadrs_scale.core.levels import Levels

LEVELS = Levels(
    preset="test",
    scores=(0.3, 0.6, 0.9),
    false_per_mpx=(100.0, 10.0, 0.01),
    measured_to=0.9,
    low=0.6,
    medium=0.7,
    high=0.8,
)


def make_map(path, score, *, crs=None, transform=None, lonlat=None, levels=LEVELS, chunk=64):
    """Write ``score`` (y, x) as a store that `score` might have written."""
    height, width = score.shape
    array = xr.DataArray(score.astype(np.float32), dims=("y", "x"), name="score")
    if transform is not None:
        affine = Affine(*transform)
        array = array.assign_coords(
            y=affine.f + affine.e * (np.arange(height) + 0.5),
            x=affine.c + affine.a * (np.arange(width) + 0.5),
        ).rio.write_transform(affine)
    if crs is not None:
        array = array.rio.write_crs(CRS.from_user_input(crs))
    dataset = array.to_dataset()
    if lonlat is not None:
        dataset["longitude"], dataset["latitude"] = (("y", "x"), lonlat[0]), (("y", "x"), lonlat[1])
    encoding = {"score": {"chunks": (chunk, chunk)}}
    dataset.to_zarr(path, zarr_format=3, consolidated=False, encoding=encoding)
    group = zarr.open_group(path, mode="r+")
    counts = np.array(
        [
            [np.isfinite(score[i : i + chunk, j : j + chunk]).sum() for j in range(0, width, chunk)]
            for i in range(0, height, chunk)
        ]
    )
    group.create_array("done", data=np.ones(counts.shape, np.uint8))
    group.create_array("scored_pixels", data=counts)
    facts = {"fingerprint": "0123456789abcdef", "software": "uniadrs_scale 0.2.0"}
    plan = {"scene": {"name": "a.tif"}, "detector": "test", "version": "0.2.0"}
    group.update_attributes({**facts, "plan": plan})
    if levels is not None:
        group.update_attributes({"levels": levels.to_json()})
    return path


def planted(shape=(200, 300), seed=1, weak=0.2):
    """Return scores with blobs of many shapes, weak noise and a corner without scores."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    score = 1 / (1 + np.exp(-2.5 * (smooth / smooth.std() - 1.2)))
    score = np.round(score * 2**22) / 2**22
    score[: shape[0] // 8, : shape[1] // 8] = np.nan
    return score.astype(np.float32)


NOT_OF_THE_EARTH = {
    "moon": "IAU_2015:30130",
    "local": 'LOCAL_CS["site",UNIT["metre",1],AXIS["E",EAST],AXIS["N",NORTH]]',
}
"""CRS that have no longitude and latitude of the Earth."""
