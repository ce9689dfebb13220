"""The figures of benchmarks/README.md, as one Markdown table.

    python benchmarks/run.py                        # every row that has no result yet
    python benchmarks/run.py tile blend --again     # measure some rows again
    python benchmarks/run.py --data VALIDATION      # also the rows that need validation imagery

Each row runs in its own process and writes OUT/ROW.json. To resume an interrupted table, repeat
the command.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROWS = ("tile", "layers", "blend", "imports", "pipeline", "files", "overlap", "precision", "cog",
        "side_by_side")  # fmt: skip


def measure(row: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the figures of one row."""
    import networks  # the table alone does not need torch
    import side
    import whole

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calls: dict[str, Callable[[], dict[str, Any]]] = {
            "tile": networks.tile,
            "layers": networks.layers,
            "blend": networks.blend,
            "imports": whole.imports,
            "pipeline": lambda: whole.pipeline(folder, options.side),
            "files": lambda: whole.file_to_file(folder),
            "overlap": lambda: whole.overlap(options.data),
            "precision": lambda: whole.precision(options.data),
            "cog": lambda: whole.cog(folder, options.cog_side),
            "side_by_side": lambda: side.side_by_side(folder, options.sides, options.cube_side),
        }
        return calls[row]()


def machine() -> str:
    """Return processor, cores and date."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(encoding="utf-8").splitlines() if cpus.exists() else []
    model = next((s.partition(": ")[2] for s in lines if s.startswith("model name")), "")
    cores = sum(line.startswith("processor") for line in lines)
    return f"{model or platform.machine()}, {cores} cores, {time.strftime('%Y-%m-%d')}"


def table(rows: Iterable[tuple[str, dict[str, Any]]]) -> str:
    """Format rows as Markdown, one line per figure."""
    lines = ["| row | figure | value |", "|---|---|---|"]
    for row, figures in rows:
        lines += [f"| {row} | {name} | {_short(value)} |" for name, value in figures.items()]
    return "\n".join(lines)


def _short(value: object) -> str:
    return f"{value:.2g}" if isinstance(value, float) and 0 < value < 1e-2 else str(value)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="by default all")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--again", action="store_true", help="measure rows that have a result too")
    parser.add_argument("--data", type=Path, help="validation imagery, for the row 'overlap'")
    parser.add_argument(
        "--side", type=int, default=4096, help="side of the scene of 'pipeline' [px]"
    )
    parser.add_argument(
        "--cog-side", type=int, default=20_000, help="side of the store of 'cog' [px]"
    )
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[1024, 3000, 10_980],
        help="sides of the scenes of 'side_by_side' [px]",
    )  # fmt: skip
    parser.add_argument(
        "--cube-side", type=int, default=1800, help="side of its cube of 200 bands [px]"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure the missing rows, print the table."""
    options = parse()
    wanted = options.rows or list(ROWS)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.inside:
        (row,) = wanted
        figures = measure(row, options)
        (options.out / f"{row}.json").write_text(json.dumps(figures, indent=1) + "\n")
        return
    failed = []
    for row in wanted:
        result = options.out / f"{row}.json"
        if result.exists() and not options.again:
            continue
        started = time.perf_counter()
        print(f"{row} ...", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, __file__, row, "--inside", *_passed(options)])  # noqa: PLW1510 - its exit code is used
        failed += [row] if done.returncode else []
        print(f"{row} took {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    found = [(row, options.out / f"{row}.json") for row in ROWS]
    results = [(row, json.loads(path.read_text())) for row, path in found if path.exists()]
    text = f"{machine()}\n\n{table(results)}\n"
    (options.out / "table.md").write_text(text)
    print(text)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _passed(options: argparse.Namespace) -> list[str]:
    sizes = ["--side", str(options.side), "--cog-side", str(options.cog_side)]
    sizes += ["--sides", *map(str, options.sides), "--cube-side", str(options.cube_side)]
    data = [] if options.data is None else ["--data", str(options.data)]
    return ["--out", str(options.out), *sizes, *data]


if __name__ == "__main__":
    main()
