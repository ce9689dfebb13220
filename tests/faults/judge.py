"""Runs cases through the command line, in this process, and judges what came out.

The rule: exit code 2 and a sentence and nothing written; or 1, a map with the missing tiles named;
or 0 and a right map. Never a traceback, never half a file.

As a program (``python judge.py SAMPLES SCRATCH``) it reads numbers from stdin, a line a case, and
answers each with a line of JSON; ``fuzz`` watches over it, as a library may crash the process or
hang.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import sys
import time
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from hostile import hostile
from strange import Samples, damaged, strange

import uniadrs_scale as us
from uniadrs_scale.cli.main import main
from uniadrs_scale.maps.store import open_store
from uniadrs_scale.scoring import job

if TYPE_CHECKING:
    from strange import Case

SIZES = ("--tile", "32", "--chunk", "64", "--preset", "single-band", "--scheduler", "sync")
HOSTILE = 7
"""Last digit of hostile cases."""
MEMORY = 6 << 30
"""Address space beyond what the process starts with: a case must not eat the machine."""


def case_of(number: int, samples: Samples, folder: Path) -> Case:
    """Return a hostile case for one number of ten; of the others one of three is strange."""
    if number % 10 == HOSTILE:
        return hostile(number, samples, folder)
    return (strange if number % 3 == 2 else damaged)(number, samples, folder)


def run(case: Case, folder: Path) -> tuple[object, str]:
    """(exit code or the traceback, all that was printed)."""
    folder.mkdir(parents=True, exist_ok=True)
    # As a terminal would have it: strict, so that a name that cannot be printed shows.
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True)
    weights = ("--detector", "rx") if case.weights is None else ("--weights", str(case.weights))
    given = set(case.arguments)
    sizes = [part for pair in zip(SIZES[::2], SIZES[1::2], strict=True)
             if pair[0] not in given for part in pair]  # fmt: skip
    if "--weights" in given or "--device" in given or "--dtype" in given:
        weights = ()
    before = sys.argv
    sys.argv = ["uniadrs-scale", "score", *case.arguments, "-o", f"{folder}/{case.output}",
                *weights, *sizes]  # fmt: skip
    code: object
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main()
            code = "main returned"
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - whatever it is, it is a fault
        code = traceback.format_exc()
    finally:
        sys.argv = before
    text = b"".join(f.buffer.getvalue() for f in (out, err)).decode("utf-8", "replace")
    return code, text


def judge(case: Case, folder: Path) -> tuple[str, str]:
    """(what came out, what is wrong with it: empty if nothing)."""
    code, text = run(case, folder)
    left = sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))
    if code not in (0, 1, 2):
        return "traceback", f"{code}\n{text}"
    if "Traceback" in text:
        return str(code), f"a traceback was printed:\n{text}"
    if code == 2:
        said = "error:" in text or "Error" in text
        wrong = "" if said else f"no sentence: {text!r}"
        return "2", wrong or (f"left behind: {left[:5]} {text}" if left else "")
    return str(code), _output_fault(case, folder, int(code), text)


def _output_fault(case: Case, folder: Path, code: int, text: str) -> str:
    """What is wrong with what a run left that says it made a map."""
    target = folder / case.output
    if not target.exists():
        return f"no output: {text}"
    ours = {target.name, f"{target.name}.run.json", f"{target.stem}.png", f"{target.stem}.qml"}
    beside = [p.name for p in target.parent.iterdir() if p.name not in ours]
    if code == 0 and beside:
        return f"left behind: {beside}"
    if code == 1 and "failed" not in text and "lost" not in text:
        return f"nothing is named: {text!r}"
    return _map_fault(case, target, code)


def _map_fault(case: Case, target: Path, code: int) -> str:
    """What is wrong with a map: it has a score in 0..1 exactly where the scene is valid."""
    if target.suffix == ".zarr":
        faults = list(open_store(target).verify())
        if code == 0 and faults:
            return f"verify: {faults}"
        score = np.asarray(open_store(target).open().values)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(target) as file:
                score = file.read(1)
    finite = score[np.isfinite(score)]
    if np.isinf(score).any() or (finite.size and (finite.min() < 0 or finite.max() > 1)):
        return f"scores from {np.nanmin(score)} to {np.nanmax(score)}"
    if code != 0 or "--crs" in case.arguments or (target.suffix == ".tif" and _is_swath(case)):
        return ""
    scene = _scene(case)
    valid = scene.coords["valid"].values.astype(bool)
    if score.shape != valid.shape or not np.array_equal(np.isfinite(score), valid):
        return f"{np.isfinite(score).sum()} pixels have a score, {valid.sum()} are valid"
    return ""


def _scene(case: Case) -> object:
    """The scene as the command line opens it."""
    found: list[object] = []
    real = job.prepare

    class Enough(BaseException):
        pass

    def keep(scene: object, *_: object) -> None:
        found.append(scene)
        raise Enough

    job.prepare = keep
    try:
        run_quietly(case)
    except Enough:
        pass
    finally:
        job.prepare = real
    return found[0]


def run_quietly(case: Case) -> None:
    """The command up to its plan."""
    before = sys.argv
    sys.argv = ["uniadrs-scale", "plan", *case.arguments, "--detector", "rx"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main()
    finally:
        sys.argv = before


def _is_swath(case: Case) -> bool:
    return bool(us.scenes.sources.scene_source(_scene(case)).info.geolocation)


def answer(number: int, samples: Samples, scratch: Path) -> dict[str, object]:
    """Verdict on one case."""
    folder = scratch / str(number)
    started = time.process_time()
    case = case_of(number, samples, folder / "in")
    try:
        outcome, fault = judge(case, folder / "out")
    except Exception:  # noqa: BLE001 - the judge stumbled over the map: that is a fault, too
        outcome, fault = "judge", traceback.format_exc()
    shutil.rmtree(folder, ignore_errors=True)
    return {"number": number, "what": case.what, "outcome": outcome, "fault": fault,
            "seconds": round(time.process_time() - started, 2)}  # fmt: skip


def serve(samples_folder: Path, scratch: Path) -> None:
    """Answer until stdin ends."""
    samples = Samples(samples_folder)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(int(line), samples, scratch)), file=answers, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
