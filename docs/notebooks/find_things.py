# %% [markdown]
# # Find things
#
# From a scene to a list of objects, in a notebook. The scene is invented; put the path of your
# own in its place.

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
# Nothing but the header is read. Below, `valid` says which pixels count: nodata is not scored.

# %%
scene = us.open_scene(folder / "scene.tif")
print(scene)

# %% [markdown]
# ## Plan
#
# Everything that a run will do, before it does it. Look at *preset*, *not valid* and
# *georeference*.

# %%
us.plan(scene)

# %% [markdown]
# ## Score
#
# The map is a Zarr store. If something stops the run, run the cell again: it goes on.

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
# One row per object. A level is a rate of false objects on empty ground: *low* about 10 per
# megapixel, *medium* 1, *high* 0.1.

# %%
found = us.targets(folder / "map.zarr", level="low")
found[["rank", "level", "score_max", "lon", "lat", "length_m", "width_m", "area_m2"]].round(4)

# %% [markdown]
# ## Take it elsewhere
#
# A GeoTIFF for QGIS, the list as GeoJSON, and one page to review both.

# %%
us.to_cog(folder / "map.zarr", folder / "map.tif")
found.to_crs("EPSG:4326").to_file(folder / "targets.geojson")
us.report(folder / "map.zarr", scene, folder / "report.html")
