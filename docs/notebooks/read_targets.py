# %% [markdown]
# # Read a list of targets
#
# A list is ranked evidence, not a list of facts. This scene is invented, so we know what is true,
# what is false and what is missing.

# %%
from pathlib import Path
from tempfile import mkdtemp

import geopandas as gpd
import matplotlib.pyplot as plt
import numpy as np

import uniadrs_scale as us
from uniadrs_scale.demo.scene import demo_scene, write_scene

folder = Path(mkdtemp())
invented = demo_scene(seed=5, size=640, anomalies=15)
write_scene(invented, folder / "scene.tif")
scene = us.open_scene(folder / "scene.tif")
scores = us.score(scene, folder / "map.zarr")

# %% [markdown]
# ## Levels are rates of false objects
#
# *high* is rarely wrong and misses much; *low* is the other way round. `false_alarms` takes any
# rate, per megapixel of empty ground.

# %%
for level in ("high", "medium", "low"):
    print(f"{level:7} {len(us.targets(folder / 'map.zarr', level=level))} targets")
found = us.targets(folder / "map.zarr", false_alarms=10, scene=scene, second_look=True)
len(found)

# %% [markdown]
# ## Columns that help to decide
#
# - `far_per_mpx`: how many false objects per megapixel have such a score, or a higher one.
# - `support`: 2 if other tiles confirm it, 1 if not, 0 if no other tile reaches it. Sort by it,
#   then by rank.
# - `contrast_BAND`: brighter or darker than the ring around it, in deviations of the ring. A boat
#   is bright in infrared.
# - `edge`: it touches nodata or the border, and may be cut.

# %%
columns = ["rank", "level", "score_max", "far_per_mpx", "support", "pixels", "length_m", "edge"]
contrasts = [name for name in found.columns if name.startswith("contrast_")]
found.sort_values(["support", "rank"], ascending=[False, True])[columns + contrasts].round(2)

# %% [markdown]
# ## True, false, missing

# %%
rows, cols = np.array([(target.row, target.col) for target in invented.targets]).T
planted = gpd.GeoDataFrame(
    {"kind": [target.kind for target in invented.targets]},
    geometry=gpd.points_from_xy(scene.x[cols], scene.y[rows]),
    crs=scene.rio.crs,
)
near = planted.sjoin_nearest(found[["rank", "geometry"]], max_distance=30, how="left")
true = found["rank"].isin(near["rank"])
missing = near[near["rank"].isna()]
print(f"{true.sum()} true, {(~true).sum()} false, {len(missing)} of {len(planted)} missing")
near.drop(columns=["geometry", "index_right"])

# %%
axis = plt.subplots(figsize=(7, 7), layout="constrained")[1]
scene.sel(band=["red", "green", "blue"]).plot.imshow(ax=axis, robust=True)
for rows_, colour, label in (
    (found[true].centroid, "lime", "true"),
    (found[~true].centroid, "red", "false"),
    (missing.geometry, "yellow", "missing"),
):
    axis.scatter(rows_.x, rows_.y, s=150, facecolors="none", edgecolors=colour, label=label)
axis.legend()
axis.set(aspect="equal", title="")
axis.set_axis_off()

# %% [markdown]
# ## Look at what it missed
#
# The score next to a missing object says how far it was from the list. Large, faint or common
# objects are not anomalies: no threshold finds them without many others.

# %%
for place in missing.itertuples():
    around = scores.sel(
        x=slice(place.geometry.x - 40, place.geometry.x + 40),
        y=slice(place.geometry.y + 40, place.geometry.y - 40),
    )
    print(f"{place.kind:8} highest score within 4 px: {float(around.max()):.2f}")
