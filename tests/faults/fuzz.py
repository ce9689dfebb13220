"""Damaged and strange inputs, many of them: ``python tests/faults/fuzz.py --count 1000``.

A child process (``judge``) runs the cases; one that crashes or hangs it is named, and another child
goes on behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE = Path(__file__).parent
PATIENCE = 60
"""Seconds of processor time for one case: on a busy machine a clock would measure the others."""
IDLE = 240
"""Seconds for one case, whatever it does."""


class Judge:
    """The child."""

    def __init__(self, scratch: Path) -> None:
        scratch.mkdir(parents=True)
        self.log = (scratch / "log").open("wb+")
        path = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parents[1])])
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "judge.py"), str(scratch / "samples"), str(scratch)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        assert self._line(600, 600) == b"ready\n", self.tail()

    def tail(self) -> str:
        self.log.seek(0)
        return self.log.read()[-1500:].decode(errors="replace")

    def ask(self, number: int) -> dict[str, Any]:
        """The verdict; a crash and a hang are verdicts, too."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"%d\n" % number)
        self.process.stdin.flush()
        line = self._line(PATIENCE, IDLE)
        if line:
            return json.loads(line)
        hung = self.process.poll() is None and line is None
        self.process.kill()
        code = self.process.wait()
        fault = f"no answer within {PATIENCE} s" if hung else f"{code} {self.tail()}"
        self.close()
        return {"number": number, "outcome": "hang" if hung else "crash", "fault": fault,
                "seconds": PATIENCE, "what": "?"}  # fmt: skip

    def _line(self, work: float, seconds: float) -> bytes | None:
        """None where none came in time; empty where the child is gone."""
        assert self.process.stdout is not None
        begun, deadline = self._worked(), time.monotonic() + seconds
        while time.monotonic() < deadline and self._worked() - begun < work:
            if select.select([self.process.stdout], [], [], 1)[0]:
                return self.process.stdout.readline()
        return None

    def _worked(self) -> float:
        """Seconds of processor time so far."""
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0
        return times.user + times.system

    @property
    def gone(self) -> bool:
        return self.process.poll() is not None

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.log.close()


def verdicts(numbers: Iterable[int], scratch: Path) -> Iterator[dict[str, Any]]:
    """One a number, in order."""
    judge, children = None, 0
    for number in numbers:
        if judge is None or judge.gone:
            children += 1
            judge = Judge(scratch / f"child{children}")
        yield judge.ask(number)
    if judge is not None:
        judge.close()


def main() -> int:
    """Print what came out, and every fault; 1 if there is any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()
    faults, slowest, started = [], (0.0, ""), time.monotonic()
    numbers = range(options.first, options.first + options.count)
    with tempfile.TemporaryDirectory() as scratch:
        for verdict in verdicts(numbers, Path(scratch)):
            outcomes[verdict["outcome"]] += 1
            slowest = max(slowest, (verdict["seconds"], f"{verdict['number']} {verdict['what']}"))
            if verdict["fault"]:
                faults.append(verdict)
            if verdict["fault"] or options.verbose:
                print(json.dumps(verdict), flush=True)
    seconds = time.monotonic() - started
    print(f"{options.count} cases in {seconds:.0f} s: exit codes {dict(sorted(outcomes.items()))}, "
          f"{len(faults)} faults; slowest {slowest[0]} s ({slowest[1]})")  # fmt: skip
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
