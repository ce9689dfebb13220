"""The benchmarks measure what they say: the published forward is the published one."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

import gpu as gpu_rows
import numpy as np
import pytest
import run as harness
import torch
import whole
from as_published import PublishedForward
from timing import interleaved

import uniadrs_scale as us
from uniadrs_scale.detector.network import NetworkConfig, UniADRS

if TYPE_CHECKING:
    from pathlib import Path


def test_the_published_forward_is_the_published_profile() -> None:
    """Which the golden values pin, in test_parity.py; here at a tenth of the width."""
    torch.manual_seed(0)
    module = UniADRS(NetworkConfig(0.1, 270, "published")).eval()
    x = torch.rand(2, 3, 48, 64)
    with torch.inference_mode():
        torch.testing.assert_close(
            PublishedForward(module.state_dict())(x), module(x), rtol=0, atol=1e-6
        )


def test_calls_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    took = interleaved({name: lambda n=name: order.append(n) for name in "ab"}, 3)
    assert "".join(order) == "abababab"
    assert set(took) == {"a", "b"}


def test_a_seam_stands_out() -> None:
    scores = np.random.default_rng(0).random((50, 96)).astype(np.float32) / 10
    assert whole.seam_step(scores, 32, 32) == pytest.approx(1, abs=0.3)
    scores[:, 32:64] += 1
    assert whole.seam_step(scores, 32, 32) > 10
    assert whole.seam_step(scores[:, :20], 32, 32) == 1


def test_a_table_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []

    def measured(command: list[str]) -> argparse.Namespace:
        started.append(command[2])
        (tmp_path / f"{command[2]}.json").write_text(json.dumps({"ratio": 2.5}))
        return argparse.Namespace(returncode=0)

    monkeypatch.setattr(harness.subprocess, "run", measured)
    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(tmp_path)])
    (tmp_path / "tile.json").write_text(json.dumps({"l fp32": 3.3}))
    harness.main()
    assert started == [row for row in harness.ROWS if row != "tile"]
    assert "| tile | l fp32 | 3.3 |" in capsys.readouterr().out
    assert "| cog | ratio | 2.5 |" in (tmp_path / "table.md").read_text()


def test_the_rows_of_a_gpu_run_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And end with 1 where a score is farther from the CPU's than stated."""

    def small(folder: Path, device: str) -> dict[str, us.Detector]:
        kinds = {"fp32": "float32", "bf16": "bfloat16"}
        return {f"l {k}": us.Detector.load(device=device, dtype=v) for k, v in kinds.items()}

    words = ["gpu.py", "correct", "passes", "--device", "cpu", "--side", "64", "--tile", "32"]
    monkeypatch.setattr(sys, "argv", [*words, "--repeats", "1", "--out", str(tmp_path)])
    monkeypatch.setattr(gpu_rows, "detectors", small)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # other tests' setting stays
    gpu_rows.main()
    assert "| correct | wrong: map | False |" in capsys.readouterr().out
    monkeypatch.setattr(gpu_rows, "RANDOM_BF16", 0.0)
    with pytest.raises(SystemExit, match="scores differ: wrong: l bf16"):
        gpu_rows.main()
    assert json.loads((tmp_path / "gpu.json").read_text())["correct"]["wrong: l bf16"]
