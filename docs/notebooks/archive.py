# %% [markdown]
# # An archive, every night
#
# A sweep gives every scene of a folder its map, and does only what is new. [Recipes for
# timers](../scheduling.md) start it; here we do, three times.

# %%
from pathlib import Path
from tempfile import mkdtemp

import pystac

import uniadrs_scale as us
from uniadrs_scale.demo.scene import demo_scene, write_scene

folder = Path(mkdtemp())
write_scene(demo_scene(1, size=256, anomalies=3), folder / "incoming" / "1.tif")

# %% [markdown]
# ## The description
#
# `uniadrs-scale sweep --init archive.yaml` writes one with all fields and their meaning.

# %%
(folder / "archive.yaml").write_text("""\
source: {type: folder, path: incoming, glob: "*.tif"}
output: {folder: maps, formats: [cog, targets]}
scheduler: threads
""")
us.sweep(folder / "archive.yaml", dry_run=True)

# %% [markdown]
# ## The first night

# %%
us.sweep(folder / "archive.yaml")

# %% [markdown]
# ## The second night: one more scene, and one that is broken

# %%
write_scene(demo_scene(2, size=256, anomalies=3), folder / "incoming" / "2.tif")
(folder / "incoming" / "broken.tif").write_bytes(b"not an image")
us.sweep(folder / "archive.yaml")

# %% [markdown]
# The reason is in the report, and the new scene is done. A scene that fails three times is
# parked until it changes. On the command line: `uniadrs-scale status archive.yaml`,
# `uniadrs-scale retry archive.yaml`.

# %% [markdown]
# ## The results
#
# A STAC collection that every STAC client reads. Follow the items: the folders of files change
# with input and options.

# %%
collection = pystac.read_file(folder / "maps" / "collection.json")
for item in collection.get_items():
    print(item.id, item.datetime, sorted(item.assets))
