"""The log of a training run, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
from collections import defaultdict
from typing import TYPE_CHECKING, Self

from torch.utils.tensorboard import SummaryWriter

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("loss", "rate", "held_out_auc")


class Log:
    """Means of the values added since the last line; a resumed run appends to the same files."""

    def __init__(self, folder: Path, step: int) -> None:
        self._file = (folder / "log.csv").open("a", newline="")
        self._csv = csv.writer(self._file)
        if self._file.tell() == 0:
            self._csv.writerow(["step", *COLUMNS, "seconds"])
        # A killed run repeats the steps after its last checkpoint.
        self._board = SummaryWriter(str(folder / "board"), purge_step=step)
        self._values: dict[str, list[float]] = defaultdict(list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._board.close()

    def add(self, name: str, step: int, value: float) -> None:
        """Add a value; ``name`` is one of COLUMNS."""
        self._values[name].append(value)
        self._board.add_scalar(name, value, step)

    def write(self, step: int, seconds: float) -> None:
        """Write a line of the CSV."""
        means = (self._values.pop(name, []) for name in COLUMNS)
        cells = (f"{sum(values) / len(values):.6g}" if values else "" for values in means)
        self._csv.writerow([step, *cells, f"{seconds:.0f}"])
        self._file.flush()
