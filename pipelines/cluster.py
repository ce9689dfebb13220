"""The same on a Dask cluster that already runs: pass its address.

    dask scheduler &                                   # anywhere
    dask worker tcp://HOST:8786 --nthreads 1 &         # on every machine, one a core
    python pipelines/cluster.py tcp://HOST:8786 SCENE.tif OUT.zarr

Workers need this library, and see scene and output under the same paths (a shared folder).
"""

from __future__ import annotations

import argparse

from distributed import Client

import uniadrs_scale as us


def main() -> None:
    """Score on the cluster; only reports travel back here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("scene", nargs="+")
    parser.add_argument("store")
    arguments = parser.parse_args()

    with Client(arguments.address) as client:
        # score() uses the active client. Without one it would start workers on this machine.
        print(f"{len(client.scheduler_info(n_workers=-1)['workers'])} workers")
        scores = us.score(us.open_scene(arguments.scene), arguments.store)
    print(f"{arguments.store}: {scores.sizes['y']} x {scores.sizes['x']} px")


if __name__ == "__main__":
    main()
