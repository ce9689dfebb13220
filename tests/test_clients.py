"""Clients in other hands: asynchronous, inherited through a fork; and runs that are terminated."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
from distributed import Client
from standins import TileMean
from waiting import LIMIT, wait_until

import uniadrs_scale as us
from uniadrs_scale.runtime import dask_internals as internals

if TYPE_CHECKING:
    from collections.abc import Callable

SCENE = xr.DataArray(np.random.default_rng(0).random((64, 64), np.float32), dims=("y", "x"))


def test_an_asynchronous_client_gets_a_sentence_and_works_from_a_thread(cluster: Client) -> None:
    async def notebook() -> xr.DataArray:
        async with Client(cluster.scheduler.address, asynchronous=True):
            with pytest.raises(us.PlanError, match=r"is asynchronous.*asyncio\.to_thread"):
                us.score(SCENE, tile=32, detector=TileMean())
            return await asyncio.to_thread(us.score, SCENE, tile=32, detector=TileMean())

    scores = asyncio.run(notebook())
    wanted = us.score(SCENE, tile=32, detector=TileMean(), scheduler="sync")
    np.testing.assert_array_equal(scores, wanted)


FORK = """
    import os, sys, warnings
    from distributed import Client
    from uniadrs_scale.runtime.clients import active_client
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks in programs with threads
    client = Client(sys.argv[1])
    assert active_client() is client
    child = os.fork()
    if not child:
        os._exit(7 if active_client() is None else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert active_client() is client
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_client_inherited_through_a_fork_is_not_used(cluster: Client) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FORK), cluster.scheduler.address]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT)
    assert done.stdout == "7\n"
    assert "forked from, and is not used" in done.stderr


READING = """
    import os, sys, warnings
    import numpy as np, rasterio
    from rasterio.errors import NotGeoreferencedWarning
    import uniadrs_scale as us
    from uniadrs_scale.core.lattice import Window
    from uniadrs_scale.scenes.sources import scene_source
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks in programs with threads
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    pixels = np.arange(2048 * 2048, dtype="uint32").reshape(1, 2048, 2048)
    form = dict(driver="GTiff", height=2048, width=2048, count=1, dtype="uint32", tiled=True)
    with rasterio.open(sys.argv[1], "w", blockxsize=128, blockysize=128, **form) as file:
        file.write(pixels)
    source = scene_source(us.open_scene(sys.argv[1]))
    def read(seed):
        wrong, dice = 0, np.random.default_rng(seed)
        for row, col in dice.integers(0, 1800, (150, 2)).tolist():
            found, _ = source.window(Window(row, col, 200, 200)).read()
            wrong += not np.array_equal(found, pixels[:, row : row + 200, col : col + 200])
        return min(wrong, 99)
    source.window(Window(0, 0, 9, 9)).read()
    children = []
    for seed in range(3):
        children.append(os.fork())
        if not children[-1]:
            os._exit(read(seed))
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forks_of_a_process_that_has_read_a_raster_read_their_own_pixels(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(READING), str(tmp_path / "scene.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT)
    assert done.stdout == "[0, 0, 0]\n"


FORKED = """
    import multiprocessing, sys, warnings
    import numpy as np, xarray as xr
    sys.path.insert(0, sys.argv[1])
    from standins import TileMean
    import uniadrs_scale as us
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks in programs with threads
    scene = xr.DataArray(np.arange(2 * 60 * 70.0).reshape(2, 60, 70), dims=("band", "y", "x"))
    def score():
        us.score(scene, tile=32, detector=TileMean(), scheduler="threads")
    score()
    child = multiprocessing.get_context("fork").Process(target=score)
    child.start()
    child.join(float(sys.argv[2]))
    print(child.exitcode)
    child.kill()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_relies_on_the_pools_of_threads_that_a_fork_inherits() -> None:
    folder = str(Path(__file__).parent)
    command = [sys.executable, "-c", textwrap.dedent(FORKED), folder, str(LIMIT / 2)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT)
    assert done.stdout == "0\n"


def test_relies_on_the_thread_of_a_loop(cluster: Client) -> None:
    assert not internals.is_inherited(cluster)
    assert internals.scales_by_itself(cluster) is False


ENDLESS = """
    import sys
    import numpy as np, xarray as xr
    import uniadrs_scale as us
    from standins import TileMean

    class Slow(TileMean):
        def fitted(self, statistics):
            print("begun", flush=True)
            import time
            time.sleep(600)

    us.score(xr.DataArray(np.ones((64, 64), np.float32), dims=("y", "x")), tile=32,
             detector=Slow(), scheduler="sync")
"""


def test_a_terminated_run_leaves_no_temporary_map(
    tmp_path: Path, spawn: Callable[..., subprocess.Popen[bytes]]
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = spawn(
        [sys.executable, "-c", textwrap.dedent(ENDLESS)],
        env=os.environ | {"TMPDIR": str(temporary)}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as out:
        assert out.readline() == b"begun\n"
    wait_until(lambda: any(temporary.glob("uniadrs-scale-*/map.zarr")), process=process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 128 + signal.SIGTERM
    assert not any(temporary.glob("uniadrs-scale-*"))
