# %% [markdown]
# # Read a list of targets
#
# A list of targets is a ranked list to review, not a list of facts. This scene is invented, so we
# know which targets are true, which are false, and which objects are missing.

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
scores = us.score(scene, folder / "map.zarr", tile=256)

# %% [markdown]
# ## Levels are rates of false objects
#
# Level *high* has few false targets and misses many objects. Level *low* has many false targets and
# misses few objects. `false_alarms` sets any rate, per megapixel of ground without anomalies.

# %%
for level in ("high", "medium", "low"):
    print(f"{level:7} {len(us.targets(folder / 'map.zarr', level=level))} targets")
found = us.targets(folder / "map.zarr", false_alarms=10, scene=scene, second_look=True)
len(found)

# %% [markdown]
# ## Columns that help to decide
#
# - `far_per_mpx`: number of false objects per megapixel with an equal or higher score.
# - `support`: 2 if other tiles confirm the target, 1 if not, 0 if no other tile reaches it. Sort by
#   this column, then by rank.
# - `contrast_BAND`: difference from the ring around the target, in standard deviations of the ring.
#   A boat is bright in infrared.
# - `edge`: the target touches nodata or the border of the scene, and may be incomplete.

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
# ## Look at the missing objects
#
# The highest score at a missing object says how far it is below the threshold. Large, faint or
# common objects are not anomalies: a threshold that finds them also finds many false objects.

# %%
for place in missing.itertuples():
    around = scores.sel(
        x=slice(place.geometry.x - 40, place.geometry.x + 40),
        y=slice(place.geometry.y + 40, place.geometry.y - 40),
    )
    print(f"{place.kind:8} highest score within 4 px: {float(around.max()):.2f}")
