"""The command 'uniadrs-scale-train': scripts of ``model``, which the wheel holds, too."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from uniadrs_scale.cli.options import BAD_INPUT, COMPLETE

SCRIPTS = ("train", "evaluate", "threshold")
USAGE = """Usage: uniadrs-scale-train COMMAND ARGUMENTS

  train      train weights on simulated anomalies, from a recipe; or go on from other weights
  evaluate   judge weights and baselines on images with masks
  threshold  measure the levels of weights

'uniadrs-scale-train COMMAND --help' lists the arguments.
"""


def main() -> None:
    """Run a script in a process of its own, as a checkout would."""
    name, arguments = (sys.argv[1:] or ["--help"])[0], sys.argv[2:]
    if name not in SCRIPTS:
        asked = name in ("-h", "--help")
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        sys.exit(COMPLETE if asked else BAD_INPUT)
    if name == "train" and find_spec("tensorboard") is None:
        sys.exit("error: training needs tensorboard: pip install 'uniadrs-scale[train]'.")
    # Not in this process: its workers import the script as their main module.
    sys.exit(subprocess.call([sys.executable, str(folder() / f"{name}.py"), *arguments]))


def folder() -> Path:
    """Return the folder of the scripts: in the installed package, or in a checkout."""
    installed = Path(str(resources.files("uniadrs_scale"))) / "model"
    return installed if installed.is_dir() else installed.parents[1] / "model"


if __name__ == "__main__":
    main()
