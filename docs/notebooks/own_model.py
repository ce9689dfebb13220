# %% [markdown]
# # Your own model
#
# Any function of tiles can score whole scenes: without seams, without scores for nodata,
# resumable, and with little memory. [The page on models](../your_model.md) explains torch modules,
# `torch.export` archives and ONNX files.

# %%
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

import uniadrs_scale as us
from uniadrs_scale.demo.scene import demo_scene, write_scene

folder = Path(mkdtemp())
write_scene(demo_scene(seed=3, size=512, anomalies=12), folder / "scene.tif")
scene = us.open_scene(folder / "scene.tif")


# %% [markdown]
# ## A function
#
# The function gets float32 tiles (tile, band, y, x), each band with mean 0 and standard deviation
# 1, and returns (tile, y, x). This one measures the difference of a pixel from the median of its
# surroundings.


# %%
def far_from_median(tiles):
    calm = ndimage.median_filter(tiles, size=(1, 1, 9, 9))
    return np.tanh(np.abs(tiles - calm).mean(axis=1) / 2)


median = us.scorer(far_from_median, tile=128, halo=4)
us.plan(scene, detector=median)

# %%
scores = us.score(scene, folder / "median.zarr", detector=median)
image = scores.plot.imshow(vmin=0, vmax=1, cmap="inferno", size=5, aspect=1.2)
title = image.axes.set_title("difference from the median")

# %% [markdown]
# ## Several outputs
#
# Each output becomes an array of the store and a band of the COG. `pooled` says how overviews are
# computed. With `inputs="raw"`, the function gets the pixel values of the scene.


# %%
def water_and_brightness(tiles):
    _blue, green, _red, infrared = np.moveaxis(tiles, 1, 0)
    water = (green - infrared) / np.maximum(green + infrared, 1)
    return np.clip(water, -1, 1), tiles.mean(axis=1)


index = us.Layer(name="ndwi", valid_range=(-1, 1), pooled="mean")
brightness = us.Layer(name="brightness", valid_range=(0, 65535), pooled="mean")
layers = us.scorer(water_and_brightness, tile=128, layers=[index, brightness], inputs="raw")
made = us.score(scene, folder / "layers.zarr", detector=layers)
print(made)

# %%
sides = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")[1]
for side, layer in zip(sides, made, strict=True):  # each layer with its own range of colours
    layer.plot.imshow(ax=side, robust=True, cmap="viridis")
    side.set(title=str(layer.layer.values), aspect="equal")
us.to_cog(folder / "layers.zarr", folder / "layers.tif")

# %% [markdown]
# ## Which function made this map?
#
# A store can be resumed only with the function that began it. If the function has changed, the run
# is refused, so that a map never has scores of two functions.


# %%
def changed(tiles):
    return np.tanh(np.abs(tiles).mean(axis=1))


try:
    us.score(scene, folder / "median.zarr", detector=us.scorer(changed, tile=128, halo=4))
except us.UniadrsScaleError as error:
    print(error)
