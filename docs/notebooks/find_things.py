# %% [markdown]
# # Find things
#
# This notebook makes a list of objects from a scene. The scene is invented: replace it by the path
# of your own scene.

# %%
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt

import uniadrs_scale as us
from uniadrs_scale.demo.scene import demo_scene, write_scene

folder = Path(mkdtemp())
write_scene(demo_scene(seed=3, size=512, anomalies=12), folder / "scene.tif")

# %% [markdown]
# ## Open
#
# Opening a scene reads its header only. The coordinate `valid` says which pixels are valid: other
# pixels get no score.

# %%
scene = us.open_scene(folder / "scene.tif")
print(scene)

# %% [markdown]
# ## Plan
#
# The plan says what a run will do, before it starts. Check *preset*, *not valid* and
# *georeference*.

# %%
us.plan(scene)

# %% [markdown]
# ## Score
#
# The map is a Zarr store. If the run is interrupted, run the cell again to resume it.

# %%
scores = us.score(scene, folder / "map.zarr")

left, right = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")[1]
scene.sel(band=["red", "green", "blue"]).plot.imshow(ax=left, robust=True)
scores.plot.imshow(ax=right, vmin=0.3, vmax=1, cmap="inferno", add_colorbar=False)
for side, title in ((left, "scene"), (right, "map")):
    side.set(title=title, aspect="equal")
    side.set_axis_off()

# %% [markdown]
# ## List
#
# The list has one row per object. A level stands for a rate of false objects on ground without
# anomalies: *low* about 10 per megapixel, *medium* 1, *high* 0.1.

# %%
found = us.targets(folder / "map.zarr", level="low")
found[["rank", "level", "score_max", "lon", "lat", "length_m", "width_m", "area_m2"]].round(4)

# %% [markdown]
# ## Export
#
# Write a GeoTIFF for QGIS, the list as GeoJSON, and one page to review both.

# %%
us.to_cog(folder / "map.zarr", folder / "map.tif")
found.to_crs("EPSG:4326").to_file(folder / "targets.geojson")
us.report(folder / "map.zarr", scene, folder / "report.html")
