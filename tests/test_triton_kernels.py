"""Triton's kernels against plain torch: in Triton's interpreter, or on a GPU where there is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from uniadrs_scale.detector.gpu import KERNELS, checked
from uniadrs_scale.detector.inference import FastNetwork
from uniadrs_scale.detector.network import NetworkConfig, UniADRS
from uniadrs_scale.detector.passes import PLAIN, Passes

pytest.importorskip("triton")  # the dev extra brings it where it exists

from uniadrs_scale.detector import triton_kernels

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TRITON = Passes(
    **{name: getattr(triton_kernels, name) for name in KERNELS},
    halved=PLAIN.halved,
    attend_scrambled=PLAIN.attend_scrambled,
    channels_last=PLAIN.channels_last,
    multiple=PLAIN.multiple,
)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
few = settings(max_examples=8)  # the interpreter takes a tenth of a second a program


def seeded(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))
    return values.to(DEVICE, dtype)


def compare(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """float32: rounding of 49 additions. bfloat16: one rounding, which the interpreter cuts off."""
    assert got.dtype == dtype
    assert got.is_contiguous(memory_format=torch.channels_last)
    tolerance = 3e-6 if dtype == torch.float32 else 2.0**-7
    torch.testing.assert_close(got.float(), expected, rtol=tolerance, atol=tolerance)


@st.composite
def shapes(draw: st.DrawFn, programs: int = 6) -> tuple[int, int, int, int]:
    """(batch, channels, height, width): sides on, beside and below the blocks' sizes."""
    side = st.sampled_from([1, 2, 7, 8, 9, 13, 16, 17, 21]) | st.integers(1, 24)
    channels = draw(st.sampled_from([4, 12, 16, 31, 32, 33, 64, 70, 100]))
    batch, height, width = draw(st.integers(1, 3)), draw(side), draw(side)
    assume(batch * -(-channels // 32) * -(-height // 8) * -(-width // 8) <= programs)
    return batch, channels, height, width


@given(shapes(), DTYPES, st.sampled_from([49, 56, 64]), st.booleans())
@example((1, 512, 5, 8), torch.bfloat16, 64, True)
@example((2, 4, 15, 17), torch.float32, 49, True)
@few
def test_attention(
    shape: tuple[int, int, int, int], dtype: torch.dtype, columns: int, last: bool
) -> None:
    batch, channels, height, width = shape
    x = seeded(batch, 2 * channels, height, width, dtype=dtype)
    logits = 3 * seeded(batch, columns, height, width, dtype=dtype)
    expected = PLAIN.attend(x.float(), logits.float())
    if last:
        x, logits = (t.contiguous(memory_format=torch.channels_last) for t in (x, logits))
    compare(triton_kernels.attend(x, logits), expected, dtype)


def test_attention_of_large_logits_neither_overflows_nor_loses_the_highest() -> None:
    x, logits = seeded(1, 8, 9, 9), 1e4 * seeded(1, 49, 9, 9)
    compare(triton_kernels.attend(x, logits), PLAIN.attend(x, logits), torch.float32)


@pytest.mark.parametrize("name", ["norm_relu", "attend"])
def test_nan_stays_nan(name: str) -> None:
    x = seeded(1, 8, 9, 9)
    x[0, 5, 4, 4] = torch.nan
    arguments = (x,) if name == "norm_relu" else (x, seeded(1, 49, 9, 9))
    expected = getattr(PLAIN, name)(*(a.clone() for a in arguments))
    got = getattr(triton_kernels, name)(*arguments)
    assert torch.equal(got.isnan(), expected.isnan())
    assert expected.isnan().any()


@given(shapes(), DTYPES, st.sampled_from([0.0, 30.0]))
@example((2, 512, 3, 5), torch.float32, 0.0)
@example((1, 5, 40, 53), torch.float32, 30.0)  # five pieces, the last one shorter
@example((1, 3, 150, 131), torch.float32, 0.0)  # more pixels than the most pieces hold at least
@few
def test_norm(shape: tuple[int, int, int, int], dtype: torch.dtype, offset: float) -> None:
    x = (3 * seeded(*shape) + offset).to(dtype)
    # One pixel has no variance: its norm is what rounding left, times 316.
    assume(shape[2] * shape[3] > 1)
    expected = PLAIN.norm_relu(x.double())
    x = x.contiguous(memory_format=torch.channels_last)
    got = triton_kernels.norm_relu(x)
    assert got.data_ptr() == x.data_ptr()
    tolerance = 1e-6 * (3 + offset) if dtype == torch.float32 else 2.0**-7
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)


@given(shapes(), DTYPES, st.booleans(), st.sampled_from(["bilinear", "nearest"]))
@few
def test_enlarging(
    shape: tuple[int, int, int, int], dtype: torch.dtype, same: bool, mode: str
) -> None:
    batch, channels, height, width = shape
    x, bias = seeded(*shape, dtype=dtype), seeded(channels)
    size = (height, width) if same else (max(height // 2, 1), max(width // 2, 1))
    coarse = seeded(batch, channels, *size, dtype=dtype)
    expected = PLAIN.add_enlarged(x.float(), coarse.float(), bias, mode)
    compare(triton_kernels.add_enlarged(x, coarse, bias, mode), expected, dtype)


def test_a_tile_does_not_see_its_batch() -> None:
    """To the bit, wherever in the batch it lies."""
    x, logits = seeded(3, 16, 9, 7), seeded(3, 49, 9, 7)
    coarse, bias = seeded(3, 16, 4, 3), seeded(16)
    for order in ([2, 0, 1], [1]):
        part, some = x[order], logits[order]
        assert torch.equal(TRITON.attend(part, some), TRITON.attend(x, logits)[order])
        assert torch.equal(TRITON.norm_relu(part.clone()), TRITON.norm_relu(x.clone())[order])
        assert torch.equal(
            TRITON.add_enlarged(part.clone(), coarse[order], bias, "bilinear"),
            TRITON.add_enlarged(x.clone(), coarse, bias, "bilinear")[order],
        )


def test_the_check_before_the_first_tile_accepts_them() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        passes = checked(lambda: triton_kernels, DEVICE, dtype)
        assert all(getattr(passes, name) is getattr(TRITON, name) for name in KERNELS)


@pytest.mark.parametrize("profile", ["corrected", "published"])
def test_the_network_is_the_module_to_rounding(profile: str) -> None:
    torch.manual_seed(1)
    network = UniADRS(NetworkConfig(0.05, 6, profile)).eval()  # type: ignore[arg-type]
    x = seeded(1, 5, 21, 26)
    expected = network(x.cpu()).detach()
    got = FastNetwork(network, torch.float32, DEVICE, TRITON)(x).cpu()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


COMPILE = Path(__file__).parent / "compile_kernels.py"


def test_they_compile_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    """The interpreter accepts more than the compiler does; registers must not spill."""
    done = subprocess.run(
        [sys.executable, str(COMPILE), "90"],
        env={"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(COMPILE.parents[1])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 8, done.stdout
    assert all(line.endswith("stack 0") for line in lines), done.stdout
