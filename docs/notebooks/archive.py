# %% [markdown]
# # An archive, every night
#
# A sweep makes a map of every new scene in a folder. A timer usually starts it
# ([recipes](../scheduling.md)). Here we start it by hand, three times.

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
# `uniadrs-scale sweep --init archive.yaml` writes a description with all fields and their meaning.

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
# The report says why the broken scene failed. The new scene is done. A scene that fails three
# times is parked: sweeps skip it until it changes. On the command line, `uniadrs-scale status
# archive.yaml` shows it, and `uniadrs-scale retry archive.yaml` tries it again.

# %% [markdown]
# ## The results
#
# The results are a STAC collection, which any STAC client can read. Take the paths of files from
# the items, because these paths change with input and options.

# %%
collection = pystac.read_file(folder / "maps" / "collection.json")
for item in collection.get_items():
    print(item.id, item.datetime, sorted(item.assets))
