"""Compile Triton's kernels for GPUs that need not be here: ``compile_kernels.py 80 90``.

Prints a line a kernel and type: registers a thread, warps that fit on a multiprocessor, and bytes
of stack, which are registers that did not suffice. Uses what comes with Triton.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from uniadrs_scale.detector import triton_kernels as kernels

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
SIZES = {"side": kernels.SIDE, "rows": kernels.ROWS, "pieces": kernels.PIECES, "wide": 64}
SIZES |= {"reach": kernels.REACH, "step": kernels.STEP, "interpolated": True}
POINTERS = {"x", "logits", "out", "coarse"}
SUMS = {"means", "squares", "bias"}
ONES = {"height", "width", "coarse_height", "coarse_width", "pixels", "channels", "piece"}


def compiled(
    kernel: Any, kind: str, architecture: int, warps: int, ones: frozenset[str] = frozenset()
) -> Any:
    """For tensors of ``kind`` at the published width; Triton compiles sizes of 1 into a kernel."""
    block = kernels.LINE // (4 if kind == "fp32" else 2)
    types, constants, attributes = {}, {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name == "block" or name in SIZES:
            types[name] = "constexpr"
            constants[place,] = block if name == "block" else SIZES[name]
        elif name in ones:
            types[name], constants[place,] = "constexpr", 1
        elif name in POINTERS | SUMS:
            types[name] = f"*{kind if name in POINTERS else 'fp32'}"
        else:
            types[name] = "fp32" if name == "epsilon" else "i32"
        if name in (POINTERS | SUMS | {"channels", "columns"}) - ones:
            attributes[place,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, types, constants, attributes)
    options = {"num_warps": warps, **kernels.OPTIONS}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def resources(program: Any) -> tuple[int, int]:
    """Registers a thread, bytes of stack."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(program.asm["cubin"])
        file.flush()
        command = [str(TOOLS / "cuobjdump"), "-res-usage", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout + done.stderr)
    assert found
    return int(found[1]), int(found[2])


if __name__ == "__main__":
    for architecture, kind in itertools.product(map(int, sys.argv[1:]), ("fp32", "bf16")):
        for name in ("_attend", "_moments", "_norm_relu", "_add_enlarged"):
            warps = kernels.WARPS if name == "_attend" else 4
            if kind == "fp32":
                compiled(getattr(kernels, name), kind, architecture, warps, frozenset(ONES))
            program = compiled(getattr(kernels, name), kind, architecture, warps)
            registers, stack = resources(program)
            fit = 65536 // (-(-registers // 8) * 8 * 32 * warps) * warps
            facts = f"registers {registers}, warps {fit}, stack {stack}"
            print(f"{name} {kind} sm_{architecture}: {facts}")  # noqa: T201 - a script
