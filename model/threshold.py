"""Recommend a threshold that few pixels of empty windows exceed.

    python model/threshold.py WEIGHTS --training TRAIN_IMAGERY

The windows differ from those of ``evaluate.py``. The threshold is written into the weights'
metadata, where the library reads it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import empty
import numpy as np
from evaluate import Entry, annotate

SHARE = 1e-4
"""Largest share of pixels over the threshold; `evaluate.py` checks it on other windows."""
WINDOWS, SEED = 48, 77


def recommended(weights: Path, training: Path | None) -> float:
    """Return the highest of the thresholds of each kind of empty windows."""
    entry = Entry("uniadrs", weights)
    kinds = [empty.generated(WINDOWS, SEED)]
    if training is not None:
        kinds.append(empty.real(training / "multispectral", WINDOWS, SEED))
    limits = []
    for windows in kinds:
        scores = np.concatenate([entry.score(w, "multispectral").ravel() for w in windows])
        limits.append(float(np.quantile(scores, 1 - SHARE)))
        print(f"{len(windows)} windows: {SHARE:g} exceed {limits[-1]:.4f}")
    return float(np.ceil(max(limits) * 1000) / 1000)


def main() -> None:
    """Parse the command line, recommend, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--training", type=Path, help="training imagery: its empty parts count too")
    args = parser.parse_args()
    for weights in args.weights:
        threshold = recommended(weights, args.training)
        annotate(weights, {"threshold": f"{threshold:.3f}"})
        print(f"{weights}: threshold {threshold:.3f}")


if __name__ == "__main__":
    main()
