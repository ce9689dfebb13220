"""Workers and schedulers that die: ``python tests/faults/kill_workers.py SCENARIO...``.

Scenarios, all by default:

    eight       eight workers are killed in one run, one after the other
    all         all workers are killed at the same moment
    stopped     a worker is stopped for longer than the scheduler waits for a heartbeat
    scheduler   the scheduler is killed; the same command against another one
    memory      a worker's memory limit is too small for a tile: it dies of it, again and again

Each must finish or say so and be resumed, to the bytes of an undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from kill_driver import PATH, write_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIDE = 900
RUN = """
import json, sys, time
from pathlib import Path
from standins import Slow
import uniadrs_scale as us
from uniadrs_scale.core.plan import Sizes
from uniadrs_scale.scoring.job import compute_for, prepare
from uniadrs_scale.scoring.run import run
folder, output, scheduler, pause, appetite = sys.argv[1:]
scorer = Slow(float(pause), int(appetite))
scene = us.open_scene(Path(folder, "scene.tif"))
sizes = {"preset": "single-band", "tile": 64, "stride": 48, "chunk": 128}
scheduler = None if scheduler == "own" else scheduler
try:
    compute = compute_for(scorer, scheduler, None if scheduler else 2)
    summary = run(prepare(scene, Sizes(**sizes), scorer, compute), output, compute)
except us.UniadrsScaleError as error:
    print("refused", error)
    raise SystemExit(2)
print(summary.text())
raise SystemExit(0 if summary.complete else 1)
"""


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": PATH} | more


def start(
    folder: Path, output: Path, scheduler: str = "own", pause: float = 0.03, appetite: int = 0,
    **more: str,
) -> subprocess.Popen[bytes]:  # fmt: skip
    command = [sys.executable, "-c", RUN, str(folder), str(output), scheduler, str(pause),
               str(appetite)]  # fmt: skip
    with output.with_suffix(".err").open("ab") as errors:
        return subprocess.Popen(command, env=environment(**more), stdout=subprocess.PIPE,
                                stderr=errors)  # fmt: skip


def workers(parent: int) -> list[int]:
    """Worker processes: the children of nannies, which are the children of the driver."""
    found = []
    try:
        for child in psutil.Process(parent).children(recursive=True):
            try:
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child.pid)
            except psutil.Error:
                continue
    except psutil.Error:
        pass
    return found


def chunks(output: Path) -> int:
    """Ledger entries that were written."""
    return sum(1 for path in output.glob("done/c/*/*") if path.suffix != ".partial")


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 900
    while not reached():
        assert process.poll() is None, "it had ended before it could be struck: see its errors"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=1800)
    return process.returncode, out.decode()


@contextmanager
def own_cluster(port: int, limit: str = "0") -> Iterator[tuple[subprocess.Popen[bytes], list]]:
    """A scheduler and two workers that are not the driver's."""
    python = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    scheduler = subprocess.Popen([*python, "--port", str(port), "--no-dashboard"],
                                 env=environment(), stderr=subprocess.DEVNULL)  # fmt: skip
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://127.0.0.1:{port}",
              "--nthreads", "1", "--memory-limit", limit, "--no-dashboard",
              "--death-timeout", "60"]  # fmt: skip
    crew = [subprocess.Popen(worker, env=environment(), stderr=subprocess.DEVNULL)
            for _ in range(2)]  # fmt: skip
    try:
        yield scheduler, crew
    finally:
        for process in (*crew, scheduler):
            process.kill()
            process.wait()


def eight(folder: Path, output: Path) -> tuple[int, str]:
    process, dice, struck = start(folder, output), random.Random(8), 0
    while struck < 8:
        before = chunks(output)
        wait_until(lambda: len(workers(process.pid)) > 0 and chunks(output) > before, process)  # noqa: B023
        os.kill(dice.choice(workers(process.pid)), signal.SIGKILL)
        struck += 1
    return finish(process)


def all_workers(folder: Path, output: Path) -> tuple[int, str]:
    process = start(folder, output)
    wait_until(lambda: chunks(output) > 4 and len(workers(process.pid)) == 2, process)
    for pid in workers(process.pid):
        os.kill(pid, signal.SIGKILL)
    return finish(process)


def stopped(folder: Path, output: Path) -> tuple[int, str]:
    process = start(folder, output, DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="10s")
    wait_until(lambda: chunks(output) > 4 and len(workers(process.pid)) == 2, process)
    pid = workers(process.pid)[0]
    os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        time.sleep(25)
        with suppress(ProcessLookupError):  # its nanny has replaced it
            os.kill(pid, signal.SIGCONT)

    threading.Thread(target=go_on, daemon=True).start()
    return finish(process)


def scheduler_killed(folder: Path, output: Path) -> tuple[int, str]:
    with own_cluster(18786) as (scheduler, _):
        process = start(folder, output, "tcp://127.0.0.1:18786")
        wait_until(lambda: chunks(output) > 4, process)
        scheduler.kill()
        code, said = finish(process)
    print("   the run said:", code, said.strip()[:300], flush=True)
    assert code in (1, 2)
    assert said.strip(), "it ended without a word"
    with own_cluster(18787):
        return finish(start(folder, output, "tcp://127.0.0.1:18787"))


def memory(folder: Path, output: Path) -> tuple[int, str]:
    with own_cluster(18788, "900MiB"):
        code, said = finish(start(folder, output, "tcp://127.0.0.1:18788", appetite=2000))
    print("   the run said:", code, said.strip()[:400], flush=True)
    assert code in (0, 1)
    return finish(start(folder, output))


SCENARIOS = {"eight": eight, "all": all_workers, "stopped": stopped,
             "scheduler": scheduler_killed, "memory": memory}  # fmt: skip


def files(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def main() -> int:
    """A line a scenario; the first broken promise ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_scene(folder / "scene.tif", SIDE)
        code, said = finish(start(folder, folder / "whole.zarr", "sync", 0))
        assert code == 0, said
        for name in parser.parse_args().scenarios:
            started = time.monotonic()
            output = folder / f"{name}.zarr"
            try:
                code, said = SCENARIOS[name](folder, output)
            except AssertionError:
                print(output.with_suffix(".err").read_text()[-3000:], file=sys.stderr)
                raise
            assert code == 0, said
            assert files(output) == files(folder / "whole.zarr"), f"{name}: other bytes"
            print(f"{name:<10}same bytes, {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
