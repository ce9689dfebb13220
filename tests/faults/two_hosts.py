"""Two hosts with a link that is cut: ``python tests/faults/two_hosts.py [--cut 30]``.

Two network namespaces stand for the hosts. In one are scheduler, driver and an S3 server, in the
other two workers; what they share is a cable. Scene and store lie in the bucket. When a few chunks
are written the cable is pulled, and put back: the run must end with the bytes of a local one, or
say what is missing and be completed by the same command. ``--tries 3`` takes the patience with
storage away, so that something will be missing.

Needs Linux, root and iproute2, and says so. Namespaces are removed whatever happens.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kill_driver import PATH, write_scene
from kill_workers import RUN, files, finish

if TYPE_CHECKING:
    from collections.abc import Iterator

MAIN, FAR = "uniadrs-main", "uniadrs-far"
HOST, GUEST = "10.77.0.1", "10.77.0.2"
S3 = f"http://{HOST}:5555"
SCHEDULER = f"tcp://{HOST}:8786"
SIDE = 900
SILENCE = "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP"
SETTINGS = {
    "AWS_ENDPOINT_URL": S3, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key",
    "AWS_REGION": "us-east-1", "PYTHONPATH": PATH,
    # A connection that is silent for so long is not given up: docs/cluster.md.
    SILENCE: "120s",
}  # fmt: skip


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)  # noqa: S607 - the system's


@contextmanager
def hosts() -> Iterator[None]:
    """Two namespaces, and a cable between them."""
    try:
        for name, end, address in ((MAIN, "uni0", HOST), (FAR, "uni1", GUEST)):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            if name == FAR:
                ip("link", "add", "uni0", "netns", MAIN, "type", "veth", "peer", "uni1",
                   "netns", FAR)  # fmt: skip
                ip("-n", MAIN, "address", "add", f"{HOST}/24", "dev", "uni0")
                ip("-n", FAR, "address", "add", f"{address}/24", "dev", end)
        ip("-n", MAIN, "link", "set", "uni0", "up")
        ip("-n", FAR, "link", "set", "uni1", "up")
        yield
    finally:
        for name in (MAIN, FAR):  # the cable goes with its ends
            subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)  # noqa: S607


def python(where: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    """A Python process on a host."""
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()} | SETTINGS
    with log.open("ab") as errors:
        return subprocess.Popen(
            ["ip", "netns", "exec", where, sys.executable, *arguments],  # noqa: S607
            env=environment, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip


BUCKET = """
import sys
import obstore
from obstore.store import S3Store
store = S3Store("maps", client_options={"allow_http": True})
if sys.argv[1] == "make":
    import requests
    requests.put(sys.argv[2] + "/maps").raise_for_status()
    obstore.put(store, "scene.tif", open(sys.argv[3], "rb"))
elif sys.argv[1] == "count":
    print(sum(len(page) for page in obstore.list(store, "map.zarr/done/c/")))
else:
    from pathlib import Path
    for page in obstore.list(store, "map.zarr/"):
        for entry in page:
            path = Path(sys.argv[2], entry["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(obstore.get(store, entry["path"]).bytes())
"""


def bucket(*arguments: str, log: Path) -> str:
    """Do something with the bucket, from its own host; what was printed."""
    code, said = finish(python(MAIN, "-c", BUCKET, *arguments, log=log))
    assert code == 0, log.read_text()[-2000:]
    return said


def score(output: str, scheduler: str, pause: float, log: Path) -> subprocess.Popen[bytes]:
    run = RUN.replace('Path(folder, "scene.tif")', "folder")
    return python(MAIN, "-c", run, "s3://maps/scene.tif", output, scheduler, str(pause), "0",
                  log=log)  # fmt: skip


@contextmanager
def running(*processes: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def written(process: subprocess.Popen[bytes], log: Path) -> int:
    """Chunks in the bucket, while ``process`` goes on."""
    assert process.poll() is None, "it had ended before the cable was pulled"
    return int(bucket("count", log=log))


@contextmanager
def crew(folder: Path) -> Iterator[None]:
    """A scheduler on one host and two workers on the other."""
    shared = ["--no-dashboard"]
    scheduler = python(MAIN, "-m", "dask", "scheduler", "--host", HOST, "--port", "8786", *shared,
                       log=folder / "scheduler.log")  # fmt: skip
    workers = [
        python(FAR, "-m", "dask", "worker", SCHEDULER, "--host", GUEST, "--nthreads", "1",
               "--name", str(number), "--death-timeout", "60", *shared,
               log=folder / f"worker{number}.log")
        for number in range(2)
    ]  # fmt: skip
    with running(scheduler, *workers):
        yield


def cut_off(seconds: float, log: Path) -> tuple[int, str]:
    """A run on the workers of the other host, whose cable is pulled for a while."""
    process = score("s3://maps/map.zarr", SCHEDULER, 0.1, log)
    with running(process):
        while written(process, log) < 5:
            time.sleep(0.2)
        before = written(process, log)
        ip("-n", FAR, "link", "set", "uni1", "down")
        time.sleep(seconds)
        during = written(process, log)
        ip("-n", FAR, "link", "set", "uni1", "up")
        started = time.monotonic()
        code, said = finish(process)
    print(f"cut for {seconds:.0f} s: {before} chunks before, {during} when the cable was back, "
          f"the end {time.monotonic() - started:.0f} s later", flush=True)  # fmt: skip
    return code, said


def main() -> int:
    """Print what happened; 1 if a promise was broken, 2 if this cannot be tried here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cut", type=float, default=30, help="seconds")
    parser.add_argument("--tcp", default=SETTINGS[SILENCE], help="Dask's patience with silence")
    parser.add_argument("--tries", help="GDAL_HTTP_MAX_RETRY, patience with storage")
    options = parser.parse_args()
    SETTINGS[SILENCE] = options.tcp
    if options.tries:
        SETTINGS["GDAL_HTTP_MAX_RETRY"] = options.tries
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("ip") is None:
        print("two_hosts.py needs root and ip netns (iproute2): not tried.")
        return 2
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(hosts())
        log = folder / "log"
        server = python(MAIN, "-m", "moto.server", "-H", HOST, "-p", "5555", log=folder / "s3.log")
        stack.enter_context(running(server))
        write_scene(folder / "scene.tif", SIDE)
        time.sleep(5)
        bucket("make", S3, str(folder / "scene.tif"), log=log)
        code, said = finish(score(str(folder / "whole.zarr"), "sync", 0, log))
        assert code == 0, said + log.read_text()[-3000:]
        with crew(folder):
            code, said = cut_off(options.cut, log)
        print(said.strip(), flush=True)
        if code:
            print(f"exit code {code}; the same command again", flush=True)
            with crew(folder):
                code, said = finish(score("s3://maps/map.zarr", SCHEDULER, 0, log))
            print(said.strip(), flush=True)
        assert code == 0, "\n".join(p.read_text()[-3000:] for p in sorted(folder.glob("*log")))
        bucket("fetch", str(folder), log=log)
        assert files(folder / "map.zarr") == files(folder / "whole.zarr"), "other bytes"
        print("same bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
