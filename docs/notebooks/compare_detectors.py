# %% [markdown]
# # Compare detectors
#
# The network, global RX and local RX write the same kind of map, so we can compare all three with
# the same truth. This scene is invented, and its objects are known. For your own scene, use
# [your own labels](../your_labels.md).

# %%
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import pandas as pd
import xarray as xr

import uniadrs_scale as us
from uniadrs_scale.demo.scene import demo_scene, write_scene

folder = Path(mkdtemp())
invented = demo_scene(seed=3, size=512, anomalies=12)
write_scene(invented, folder / "scene.tif")
scene = us.open_scene(folder / "scene.tif")

# %%
detectors = {"network": None, "RX": "rx", "local RX": "lrx"}
maps = {
    name: us.score(scene, folder / f"{name}.zarr", detector=detector)
    for name, detector in detectors.items()
}

# %% [markdown]
# ## By eye
#
# A score of RX is a function of the Mahalanobis distance, from 0.3 to 0.5 for half of the pixels
# here. The network scores ordinary pixels near 0. So compare the order of pixels, not their values.

# %%
sides = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")[1]
for side, (name, scores) in zip(sides, maps.items(), strict=True):
    scores.plot.imshow(ax=side, vmin=0.3, vmax=1, cmap="inferno", add_colorbar=False)
    side.set(title=name, aspect="equal")
    side.set_axis_off()

# %% [markdown]
# ## By pixels
#
# *AUC* is the probability that an anomalous pixel has a higher score than a background pixel. If
# anomalies are rare, *AP* (average precision) is more informative.

# %%
truth = xr.DataArray(invented.truth, coords={"y": scene.y, "x": scene.x}, name="truth")
counts = {name: us.evaluate_map(scores, truth) for name, scores in maps.items()}
curves = {name: counted.curve() for name, counted in counts.items()}
pd.DataFrame(
    {name: {"AUC": c.area, "AP": c.average_precision} for name, c in curves.items()}
).T.round(3)

# %% [markdown]
# The ROC curve has a logarithmic axis for false alarms. Its left half is important, because a scene
# has millions of pixels.

# %%
axis = plt.subplots(figsize=(6, 4), layout="constrained")[1]
for name, curve in curves.items():
    axis.semilogx(curve.alarm_rate, curve.detection_rate, label=name)
axis.set(
    xlabel="share of the background found", ylabel="share of the anomalies found", xlim=(1e-6, 1)
)
axis.legend()
axis.grid(visible=True, alpha=0.3)

# %% [markdown]
# ## By objects
#
# A list of targets consists of objects, not of pixels. `us.evaluate` compares objects. It reads
# maps and truth from files.

# %%
truth.astype("uint8").rio.write_crs(scene.rio.crs).rio.to_raster(folder / "truth.tif")
us.evaluate(folder / "network.zarr", folder / "truth.tif")

# %%
us.evaluate(folder / "RX.zarr", folder / "truth.tif")

# %% [markdown]
# One small scene is not enough to choose a detector. Repeat this on several different scenes of
# yours, and look at the objects that each map missed.
