"""What a user can choose, and the defaults: apart, so that --help loads no library for it."""

from __future__ import annotations

from typing import Literal

Arithmetic = Literal["float32", "bfloat16"]
Resampling = Literal["max", "nearest"]

DEFAULT_WEIGHTS = "uniadrs-s"
