"""The forecast is a promise: a large scene is scored within it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from memory import measure

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_a_large_scene_is_scored_within_20_percent_of_the_forecast(tmp_path: Path) -> None:
    got = measure(tmp_path, 20_000, 4, chunk=1024, workers=2)
    assert 0.8 <= got.ratio <= 1.2


@pytest.mark.slow
def test_the_shipped_network_stays_within_20_percent_of_the_forecast(tmp_path: Path) -> None:
    got = measure(tmp_path, 2000, 4, chunk=1024, workers=1, network=True)
    assert 0.8 <= got.ratio <= 1.2
